"""The Helm chart: linted and rendered by Helm's own library, and valid by the schemas of Kubernetes
and Prometheus Operator.
"""

from __future__ import annotations

import json
import lzma
import re
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from deploy.chart import CHART, render
from deploy.generate import FILES
from grafana.boards import BOARDS
from tests.grafana.display import committed
from tests.prometheus.rule_files import RULES
from tests.support import HOTKEY, ROOT

Object = dict[str, Any]
OPERATOR: Object = json.loads(
    lzma.decompress((Path(__file__).parent / "prometheus-operator.json.xz").read_bytes())
)
"""Schemas by kind, from the definitions of Prometheus Operator 0.93 (Apache License 2.0).

They lack the descriptions, and refuse unknown fields, which Kubernetes would drop in silence.
"""
VALUES: Object = yaml.safe_load((CHART / "values.yaml").read_text())
EVERYTHING: Object = yaml.safe_load(f"""
existingSecret: "123"
fullnameOverride: "yes"
hotkeys: [{HOTKEY}]
chainUrl: https://node.example
extraArgs: [--max-series, "1000"]
extraEnv: [{{name: CHUTES_EXPORTER_LOG_LEVEL, value: debug}}]
extraVolumes: [{{name: web, secret: {{secretName: web-config}}}}]
extraVolumeMounts: [{{name: web, mountPath: /etc/chutes-exporter, readOnly: true}}]
extraObjects:
  - apiVersion: v1
    kind: Secret
    metadata: {{name: "{{{{ .Release.Name }}}}-web", namespace: chutes}}
image: {{repository: registry.example/chutes-exporter, tag: 1.2.3, pullPolicy: Always}}
imagePullSecrets: [{{name: registry}}]
podAnnotations: {{example.org/note: "yes"}}
podLabels: {{team: mining}}
nodeSelector: {{kubernetes.io/arch: amd64}}
tolerations: [{{operator: Exists}}]
affinity: {{nodeAffinity: {{}}}}
priorityClassName: "null"
dashboards: {{annotations: {{grafana_folder: Chutes}}}}
networkPolicy: {{namespaces: [monitoring, observability], egressPorts: [443, 8443]}}
probes: {{protocol: HTTPS}}
resources: {{limits: {{memory: 1Gi}}}}
namespaceOverride: chutes
replicas: 7
scrape: serviceMonitor
serviceMonitor: {{labels: {{release: mine}}, endpoint: {{scheme: https}}}}
prometheusRule: {{enabled: true}}
""")
"""Values that use everything that is empty or off in values.yaml.

Some texts look like another type.
"""
SETUPS: dict[str, Object] = {
    "annotations": {},
    "operator": {"scrape": "serviceMonitor", "prometheusRule": {"enabled": True}},
    "subnet": {"subnet": True, "scrape": "none", "dashboards": {"enabled": False}},
    "everything": EVERYTHING,
}
"""Set-ups of docs/start.md by name, and their values."""


@cache
def built(setup: str) -> tuple[Object, ...]:
    """Return the objects of a set-up."""
    release, namespace = "chutes-exporter", "chutes"
    if setup == "subnet":
        release = "chutes-exporter-subnet"
    if setup == "everything":
        # A name that looks like another type, and a namespace that the values replace.
        release, namespace = "true", "other"
    objects: list[Object] = []
    for name, text in render(SETUPS[setup], release=release, namespace=namespace).items():
        if name.endswith(".yaml"):
            objects += yaml.safe_load_all(text)
    return tuple(objects)


def only(setup: str, kind: str) -> Object:
    (found,) = (found for found in built(setup) if found["kind"] == kind)
    return found


def pod(values: Object) -> tuple[Object, Object]:
    """Return a pod's specification, and that of its container."""
    spec = yaml.safe_load(render(values)["deployment.yaml"])["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


@pytest.mark.parametrize("name", FILES)
def test_the_generated_files_are_committed(name: str) -> None:
    assert (ROOT / "deploy" / name).read_text() == FILES[name](), "run `make generate`"


@pytest.mark.parametrize("setup", SETUPS)
def test_helm_lint_finds_nothing(setup: str) -> None:
    report = helm_python.lint(CHART, SETUPS[setup], strict=True)
    assert report["messages"] == report["errors"] == []


@pytest.mark.parametrize("setup", SETUPS)
def test_every_object_is_valid_by_the_schemas_of_its_kind(setup: str) -> None:
    # These take seconds, in each process that collects the tests.
    import jsonschema  # noqa: PLC0415
    import kubernetes_validate  # noqa: PLC0415

    for found in built(setup):
        assert found["metadata"]["namespace"] == "chutes"
        if found["kind"] in OPERATOR:
            jsonschema.validate(found, OPERATOR[found["kind"]])
        else:
            kubernetes_validate.validate(found, "1.33", strict=True)


def test_the_whole_subnet_is_never_watched_by_accident() -> None:
    other = {"name": "HTTPS_PROXY", "value": "http://proxy.example"}
    for values in ({}, {"extraEnv": [other]}):
        with pytest.raises(
            helm_python.HelmRenderError, match="set existingSecret or hotkeys, or set subnet=true"
        ):
            render({"existingSecret": "", **values})
    render({"existingSecret": "", "extraArgs": ["--hotkey-file=/keys/miner"]})
    for name in ("CHUTES_EXPORTER_HOTKEY", "CHUTES_EXPORTER_HOTKEY_FILE", "HOTKEY", "MINER_SS58"):
        render({"existingSecret": "", "extraEnv": [{"name": name, "value": HOTKEY}]})


@pytest.mark.parametrize("setup", ["annotations", "operator", "subnet"])
def test_the_pod_may_do_nothing_that_it_need_not(setup: str) -> None:
    spec, container = pod(SETUPS[setup])
    assert spec["automountServiceAccountToken"] is False
    assert spec.keys() & {"hostNetwork", "volumes"} == set()
    user = int(re.findall(r"^USER (\d+):\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0])
    seccomp = {"seccompProfile": {"type": "RuntimeDefault"}}
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        **seccomp,
    }
    nothing = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["securityContext"] == nothing
    assert container["resources"] == {
        "requests": {"cpu": "50m", "memory": "64Mi"},
        "limits": {"memory": "512Mi" if setup == "subnet" else "256Mi"},
    }


@pytest.mark.parametrize("setup", ["annotations", "subnet"])
def test_the_parts_find_each_other(setup: str) -> None:
    deployment, service, policy = (
        only(setup, kind)["spec"] for kind in ("Deployment", "Service", "NetworkPolicy")
    )
    instance = "chutes-exporter-subnet" if setup == "subnet" else "chutes-exporter"
    # They cannot change after the installation.
    selector = {"app.kubernetes.io/name": "chutes-exporter", "app.kubernetes.io/instance": instance}
    labels = deployment["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    assert deployment["selector"] == policy["podSelector"] == {"matchLabels": selector}
    assert service["selector"] == selector
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 10064}]
    assert service["ports"][0]["targetPort"] == "metrics"
    assert service["publishNotReadyAddresses"] is True
    for probe, path in (("livenessProbe", "/-/healthy"), ("readinessProbe", "/-/ready")):
        assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}
        probes = pod({"probes": {"protocol": "TCP"}})[1]
        assert probes[probe]["tcpSocket"] == {"port": "metrics"}


def test_the_key_comes_from_the_secret_and_the_subnet_has_none() -> None:
    container = pod({"existingSecret": "mine", "hotkeys": [HOTKEY]})[1]
    variables = {}
    for variable in container["env"]:
        source = variable.get("value") or variable["valueFrom"]["secretKeyRef"]
        variables[variable["name"]] = source
    assert variables == {
        "CHUTES_EXPORTER_HOTKEY": HOTKEY,
        "MINER_SS58": {"name": "mine", "key": "ss58"},
        "MINER_SEED": {"name": "mine", "key": "seed", "optional": True},
        "MINER_PRIVATE_KEY": {"name": "mine", "key": "privateKey", "optional": True},
    }
    assert "args" not in container
    container = pod(SETUPS["subnet"])[1]
    assert container["args"] == ["--miners", "all"]
    assert "env" not in container


def test_it_is_scraped_once() -> None:
    template = only("annotations", "Deployment")["spec"]["template"]
    assert template["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "10064",
        "prometheus.io/path": "/metrics",
    }
    assert "annotations" not in only("annotations", "Service")["metadata"]
    for setup in ("operator", "subnet"):
        others = [found for found in built(setup) if found["kind"] != "ConfigMap"]
        assert "prometheus.io" not in json.dumps(others)
    monitor = only("operator", "ServiceMonitor")["spec"]
    labels = only("operator", "Service")["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["endpoints"] == [
        {"port": "metrics", "path": "/metrics", "interval": "1m", "scrapeTimeout": "30s"}
    ]
    # The job that boards and alerts see is this label's value.
    assert monitor["jobLabel"] in labels


def test_the_prometheus_rule_has_every_rule() -> None:
    groups = []
    for path in sorted(RULES.glob("*.yml")):
        groups += yaml.safe_load(path.read_text())["groups"]
    assert only("operator", "PrometheusRule")["spec"]["groups"] == groups


def test_every_dashboard_is_a_config_map_that_the_sidecar_loads() -> None:
    configs = [found for found in built("annotations") if found["kind"] == "ConfigMap"]
    dashboards = {}
    for config in configs:
        for name, text in config["data"].items():
            dashboards[name] = json.loads(text)
    assert dashboards == {f"{board.uid}.json": committed(board.uid) for board in BOARDS}
    for config in configs:
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
        # kubectl keeps a copy of what it applies in an annotation, of which all may have 256 KiB.
        assert len(json.dumps(config)) < 200_000
    assert len({config["metadata"]["name"] for config in configs}) == len(configs)


def test_everything_that_can_be_set_reaches_an_object() -> None:
    def texts_and_numbers(value: Any) -> set[Any]:
        """Return the values at any depth of objects and lists."""
        if isinstance(value, dict):
            value = list(value.values())
        if not isinstance(value, list):
            return {value}
        return set().union(*map(texts_and_numbers, value))

    # Kubernetes' schemas know where each belongs.
    in_objects = texts_and_numbers([*built("everything")])
    # These reach an object in another form.
    values = {**EVERYTHING, "image": {}, "extraObjects": [], "scrape": True}
    assert texts_and_numbers(values) - in_objects == set()
    assert "registry.example/chutes-exporter:1.2.3" in in_objects
    assert only("everything", "Secret")["metadata"]["name"] == "true-web"
