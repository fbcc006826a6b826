"""Generates files from alerts, metrics and the Helm chart: `make generate`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from deploy.chart import CHART
from deploy.reference import reference

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).parent.parent
MADE: Final = "# Made by `make generate` from {}; do not edit.\n"

ALERTMANAGER_HEAD: Final = """\
# Switches on the Alertmanager of the miners' own monitoring, with the example routing. Alertmanager is off by default
# and claims 2 Gi of storage when on. Fill in the two values in a copy of this file. Pass the copy after
# deploy/chutes-monitoring-values.yaml in the same command, with another -f.
"""
CHART_HEAD: Final = """\
# chutes-exporter

{description}. `make generate` generates this page from values.yaml.

```sh
helm upgrade --install chutes-exporter deploy/helm/chutes-exporter --namespace chutes
helm test chutes-exporter --namespace chutes    # does the API answer, and does it accept the key?
```

Run these in a clone of the repository. [Start](../../../docs/start.md#kubernetes) builds the image, and has the values of common
set-ups.

| value | default | meaning |
|---|---|---|
"""
ALERTS_HEAD: Final = """\
# Alerts

`make generate` generates this page from [prometheus/rules/alerts.yml](../prometheus/rules/alerts.yml). Do not edit it.

- **critical**: money is lost now, or would be lost unseen, and you can stop it. Act now.
- **warning**: something to do today. [Two](alerting.md#routing) come at once.

Each name links to its runbook, and each alert says what it costs. The example of Alertmanager's [configuration](../alertmanager/alertmanager.yml)
hides an alert that another one explains. Idle and unverified GPUs cause no warning in the first hour of a seat. Maintenance counts as planned for at
most 6 hours, and for an hour after it, in which the server gets instances again.

"""
TABLE_HEAD: Final = """\
| alert | severity | threshold |
|---|---|---|
"""


def _read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def alertmanager_values() -> str:
    """Make the Helm values that switch the miners' Alertmanager on."""
    config = textwrap.indent((ROOT / "alertmanager" / "alertmanager.yml").read_text(), 6 * " ")
    return (
        MADE.format("alertmanager/alertmanager.yml")
        + ALERTMANAGER_HEAD
        + f"prometheus:\n  alertmanager:\n    enabled: true\n    config:\n{config}"
    )


def chart_readme() -> str:
    """Make the chart's README, with a table of its values: each has a comment above it, and its
    default on its line.
    """
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
    rules = _alerts("prometheus/rules/alerts.yml")
    return ALERTS_HEAD + TABLE_HEAD + _rows(rules)


def _alerts(path: str) -> list[dict[str, Any]]:
    """Return the alerts of a file of rules."""
    return [rule for group in _read(path)["groups"] for rule in group["rules"] if "alert" in rule]


def _rows(rules: list[dict[str, Any]]) -> str:
    """Make a row for each alert."""
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
        )
        rows.append(f"| {' | '.join(cells)} |\n")
    return "".join(rows)


FILES: Final[dict[str, Callable[[], str]]] = {
    "helm/chutes-exporter/README.md": chart_readme,
    "chutes-monitoring-alertmanager-values.yaml": alertmanager_values,
    "../docs/alerts.md": alerts_table,
    "../docs/metrics.md": reference,
}
"""Generated files by their path in deploy/."""

if __name__ == "__main__":
    for name, make in FILES.items():
        (ROOT / "deploy" / name).write_text(make())
