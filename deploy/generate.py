"""Generates files from rules, dashboards, routing, scrape jobs, metrics and the Helm chart: `make deploy`."""

from __future__ import annotations

import shutil
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from deploy.chart import CHART, NAMESPACE, render
from deploy.reference import reference, with_unused_fields

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).parent.parent
MADE: Final = "# Made by `make deploy` from {}; do not edit.\n"

VALUES_HEAD: Final = """\
# Adds the rules and a scrape job to the miners' own monitoring (the chart chutes-monitoring, release `monitoring`), on
# the control node's cluster. CONTROL is the kubeconfig context of this cluster, and NODE is the node's address. VERSION
# is the chart's version, which `helm list --kube-context CONTROL --namespace monitoring` shows:
#
#   helm repo add chutes https://chutesai.github.io/chutes-miner
#   helm upgrade monitoring chutes/chutes-monitoring --version VERSION --kube-context CONTROL --namespace monitoring \\
#     --reuse-values -f deploy/chutes-monitoring-values.yaml \\
#     --set prometheus.server.global.external_labels.grafana_url=http://NODE:30080
#
# Rules and scrape jobs of your own in the same values (`helm get values monitoring --namespace monitoring`) are
# replaced: merge them into your own values file first. Nothing else of the release changes.
#
# The miners' ansible playbooks (site.yml, and deploy-charts.yml with the tag monitoring-charts) install the release with
# only their own values. They remove the rules, scrape jobs, external labels and Alertmanager: run the command above
# again. The exporter and its dashboards stay, because they are not part of the release.
#
# The scrape job leaves out Pods that are annotated for scraping, which this Prometheus scrapes anyway.
"""
SUBNET_HEAD: Final = """\
# Scrapes each miner of the subnet as a separate target, from the Helm release chutes-exporter-subnet of
# docs/start.md. Pass it after deploy/chutes-monitoring-values.yaml in the same command, with another -f. It
# contains the scrape job of that file too.
"""
MANIFEST_HEAD: Final = """\
# An exporter for the miner whose key is in the Secret `miner-credentials`, rendered from the Helm chart's default
# values, without the dashboards. docs/start.md says how to add them.
"""
ALERTMANAGER_HEAD: Final = """\
# Switches on the Alertmanager of the miners' own monitoring, with the example routing. Alertmanager is off by default
# and claims 2 Gi of storage when on. Fill in the two values in a copy of this file. Pass the copy after
# deploy/chutes-monitoring-values.yaml in the same command, with another -f.
"""
CHART_HEAD: Final = """\
# chutes-exporter

{description}. `make deploy` generates this page from values.yaml.

```sh
helm upgrade --install chutes-exporter oci://ghcr.io/chutes-exporter/charts/chutes-exporter --namespace chutes
helm test chutes-exporter --namespace chutes    # does the API answer, and does it accept the key?
```

[Start]({home}/blob/main/docs/start.md#kubernetes) has the values of common set-ups.

| value | default | meaning |
|---|---|---|
"""
ALERTS_HEAD: Final = """\
# Alerts

`make deploy` generates this page from [prometheus/rules/alerts.yml](../prometheus/rules/alerts.yml). Do not edit it.

- **critical**: earnings stop or the seat is lost, and somebody can act now.
- **warning**: a part of the earnings is lost. Act today.
- **info**: for a daily message. A lost seat, a blacklisted miner and a miner without earnings become info after a day.

Each name links to its runbook, which says what the alert means, what to check and what to do. If Prometheus scrapes and
evaluates rules every minute, an alert fires a few minutes after its threshold. The exporter requests instances every
minute, and servers and GPUs every 2 minutes.

| alert | severity | threshold | what it costs |
|---|---|---|---|
"""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that queries stay readable."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _write(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def _read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def _copy(path: str) -> str:
    """Return the text of a project file. Helm reads only files in its chart's folder, so the chart has a copy."""
    return (ROOT / path).read_text()


def manifest() -> str:
    """Make the manifest for users without Helm, without the dashboards, which would be half a megabyte more."""
    rendered = render({"dashboards": {"enabled": False}})
    parts = (rendered[name] for name in ("networkpolicy.yaml", "service.yaml", "deployment.yaml"))
    return MADE.format("deploy/helm/chutes-exporter/") + MANIFEST_HEAD + "---\n" + "---\n".join(parts)


def _pods() -> dict[str, Any]:
    """Make the scrape job of the exporters of a cluster."""
    return {
        "job_name": "chutes",
        "scrape_interval": "1m",
        "scrape_timeout": "30s",
        "kubernetes_sd_configs": [{"role": "pod", "namespaces": {"names": [NAMESPACE]}}],
        "relabel_configs": [
            {
                "source_labels": ["__meta_kubernetes_pod_label_app_kubernetes_io_name"],
                "regex": "chutes-exporter",
                "action": "keep",
            },
            {
                "source_labels": ["__meta_kubernetes_pod_annotation_prometheus_io_scrape"],
                "regex": "true",
                "action": "drop",
            },
            {
                "source_labels": ["__meta_kubernetes_pod_phase"],
                "regex": "Pending|Succeeded|Failed|Completed",
                "action": "drop",
            },
            {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": "metrics", "action": "keep"},
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        ],
    }


def monitoring_values() -> str:
    """Make the Helm values that add rules and a scrape job to the miners' chart."""
    return (
        MADE.format("prometheus/rules/")
        + VALUES_HEAD
        + _write(
            {
                "prometheus": {
                    "serverFiles": {
                        "alerting_rules.yml": _read("prometheus/rules/alerts.yml"),
                        "recording_rules.yml": _read("prometheus/rules/recordings.yml"),
                    },
                    "extraScrapeConfigs": _write([_pods()]),
                }
            }
        )
    )


def subnet_values() -> str:
    """Make the Helm values that scrape every miner of the subnet from the release chutes-exporter-subnet."""
    text = (ROOT / "prometheus" / "subnet.yml").read_text()
    address = f"chutes-exporter-subnet.{NAMESPACE}.svc:10064"
    (job, _) = yaml.safe_load(text.replace("localhost:10064", address))["scrape_configs"]
    return (
        MADE.format("prometheus/subnet.yml")
        + SUBNET_HEAD
        + _write({"prometheus": {"extraScrapeConfigs": _write([_pods(), job])}})
    )


def alertmanager_values() -> str:
    """Make the Helm values that switch the miners' Alertmanager on."""
    config = textwrap.indent((ROOT / "alertmanager" / "alertmanager.yml").read_text(), 6 * " ")
    return (
        MADE.format("alertmanager/alertmanager.yml")
        + ALERTMANAGER_HEAD
        + f"prometheus:\n  alertmanager:\n    enabled: true\n    config:\n{config}"
    )


def chart_readme() -> str:
    """Make the chart's README, with a table of its values: each has a comment above it, and its default on its line."""
    text = CHART_HEAD.format_map(_read("deploy/helm/chutes-exporter/Chart.yaml"))
    parent = comment = ""
    for line in (CHART / "values.yaml").read_text().split("\n"):
        indented, _, words = line.partition("# ")
        name, _, default = line.strip().partition(": ")
        if words and not indented.strip():
            comment += words + " "
        elif line.endswith(":"):
            parent = line.replace(":", ".")
        elif default:
            name = parent + name if line.startswith(" ") else name
            text += f"| `{name}` | `{default}` | {comment.strip()} |\n"
        if not words:
            comment = ""
    return text


def alerts_table() -> str:
    """Make the table of all alerts, those of one name together."""
    rules = [rule for group in _read("prometheus/rules/alerts.yml")["groups"] for rule in group["rules"]]
    rows = []
    named: set[str] = set()
    for rule in rules:
        name, notes = rule["alert"], rule["annotations"]
        runbook = notes["runbook_url"].rpartition("/")[2]
        # The dashboard links to a row by its alert's name.
        anchor = "" if name in named else f'<a id="{name}"></a>'
        named.add(name)
        cells = (
            f"{anchor}[{name}](runbooks/{runbook})",
            rule["labels"]["severity"],
            notes["threshold"],
            notes["cost"],
        )
        rows.append(f"| {' | '.join(cells)} |\n")
    return ALERTS_HEAD + "".join(rows)


_COPIES = {
    f"helm/chutes-exporter/files/{path.parent.name}/{path.name}": partial(_copy, str(path.relative_to(ROOT)))
    for pattern in ("grafana/dashboards/*.json", "prometheus/rules/*.yml")
    for path in sorted(ROOT.glob(pattern))
}
FILES: Final[dict[str, Callable[[], str]]] = {
    **_COPIES,
    "helm/chutes-exporter/README.md": chart_readme,
    "kubernetes.yaml": manifest,
    "chutes-monitoring-values.yaml": monitoring_values,
    "chutes-monitoring-subnet-values.yaml": subnet_values,
    "chutes-monitoring-alertmanager-values.yaml": alertmanager_values,
    "../docs/alerts.md": alerts_table,
    "../docs/metrics.md": reference,
    "../docs/dev/fields.md": lambda: with_unused_fields((ROOT / "docs" / "dev" / "fields.md").read_text()),
}
"""Generated files by their path in deploy/."""

if __name__ == "__main__":
    shutil.rmtree(CHART / "files", ignore_errors=True)
    for name, make in FILES.items():
        target = ROOT / "deploy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(make())
