"""The Helm chart and the manifest: linted and rendered by Helm's own library, and valid by Kubernetes' own schemas."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import helm_python
import pytest
import yaml

from chutes_exporter.simulator import Simulator, Size, World
from chutes_exporter.simulator.world import TEST_SEED
from deploy.chart import CHART, render
from deploy.generate import FILES
from grafana.boards import BOARDS
from tests.grafana.display import committed
from tests.support import HOTKEY, ROOT, RULES
from tests.test_cli import COMMAND, environment
from tests.test_credentials import PRIVATE_KEY

if TYPE_CHECKING:
    from pathlib import Path

Object = dict[str, Any]
VALUES: Object = yaml.safe_load((CHART / "values.yaml").read_text())
EVERYTHING: Object = {
    "hotkeys": [HOTKEY],
    "extraArgs": ["--max-series", "1000"],
    "extraEnv": [{"name": "CHUTES_EXPORTER_LOG_LEVEL", "value": "debug"}],
    "extraVolumes": [{"name": "web", "secret": {"secretName": "web-config"}}],
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "{{ .Release.Name }}-web", "namespace": "chutes"},
        }
    ],
    "extraVolumeMounts": [{"name": "web", "mountPath": "/etc/chutes-exporter", "readOnly": True}],
    "image": {"repository": "registry.example/chutes-exporter", "tag": "1.2.3", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "podAnnotations": {"example.org/note": "yes"},
    "podLabels": {"team": "mining"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "dashboards": {"annotations": {"grafana_folder": "Chutes"}},
    "networkPolicy": {"namespaces": ["monitoring", "observability"], "egressPorts": [443, 8443]},
    "probes": {"protocol": "HTTPS"},
    "resources": {"limits": {"memory": "1Gi"}},
    "namespaceOverride": "chutes",
    "replicas": 2,
    "scrape": "serviceMonitor",
    "serviceMonitor": {"labels": {"release": "mine"}, "endpoint": {"scheme": "https"}},
    "prometheusRule": {"enabled": True},
}
"""Values that use everything that is empty or off in values.yaml."""
SETUPS: dict[str, Object] = {
    "annotations": {},
    "operator": {"scrape": "serviceMonitor", "prometheusRule": {"enabled": True}},
    "subnet": {"subnet": True, "scrape": "none", "dashboards": {"enabled": False}},
    "everything": EVERYTHING,
}
"""Set-ups of docs/start.md by name, and their values."""


@cache
def built(setup: str) -> tuple[Object, ...]:
    """Return the objects of a set-up; of `manifest`, those for users without Helm."""
    if setup == "manifest":
        return tuple(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
    release = "chutes-exporter-subnet" if setup == "subnet" else "chutes-exporter"
    texts = render(SETUPS[setup], release=release, namespace="other" if setup == "everything" else "chutes")
    return tuple(found for name, text in texts.items() if name.endswith(".yaml") for found in yaml.safe_load_all(text))


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
    assert (ROOT / "deploy" / name).read_text() == FILES[name](), "run `make deploy`"


@pytest.mark.parametrize("setup", SETUPS)
def test_helm_lint_finds_nothing(setup: str) -> None:
    report = helm_python.lint(CHART, SETUPS[setup], strict=True)
    assert report["messages"] == report["errors"] == []


@pytest.mark.parametrize("setup", SETUPS)
def test_every_object_is_valid_by_kubernetes_own_schemas(setup: str) -> None:
    import kubernetes_validate  # noqa: PLC0415 - it takes seconds, in each process that collects the tests

    for found in built(setup):
        assert found["metadata"]["namespace"] == "chutes"
        # The Prometheus Operator defines the other kinds.
        if found["kind"] not in ("ServiceMonitor", "PrometheusRule"):
            kubernetes_validate.validate(found, "1.33", strict=True)


def test_every_value_has_a_schema() -> None:
    def keys(values: Object, schema: Object) -> None:
        assert set(values) == set(schema["properties"]) - {"global"}
        assert schema["additionalProperties"] is False
        for key, value in values.items():
            if "properties" in schema["properties"][key] and value:
                keys(value, schema["properties"][key])

    keys(VALUES, json.loads((CHART / "values.schema.json").read_text()))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"hotkey": HOTKEY}, "hotkey"),
        ({"hotkeys": ["5F"]}, "hotkeys"),
        ({"scrape": "annotation"}, "scrape"),
        ({"image": {"version": "1"}}, "version"),
        ({"networkPolicy": {"namespaces": []}}, "namespaces"),
        ({"podAnnotations": {"prometheus.io/scrape": True}}, "podAnnotations"),
        ({"resources": {"memory": "1Gi"}}, "memory"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: Object, named: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=named):
        render(values)


def test_names_that_look_like_another_type_stay_texts() -> None:
    values: Object = {"existingSecret": "123", "priorityClassName": "null", "fullnameOverride": "yes"}
    for text in render(values, release="true", namespace="123").values():
        for found in yaml.safe_load_all(text) if "kind:" in text else ():
            assert found["metadata"]["namespace"] == "123"
            assert found["metadata"]["name"].split("-")[0] == "yes"
            assert found["metadata"]["labels"]["app.kubernetes.io/instance"] == "true"
    spec, container = pod(values)
    assert spec["priorityClassName"] == "null"
    assert {one["valueFrom"]["secretKeyRef"]["name"] for one in container["env"]} == {"123"}


def test_the_whole_subnet_is_never_watched_by_accident() -> None:
    other = {"name": "HTTPS_PROXY", "value": "http://proxy.example"}
    for values in ({}, {"extraEnv": [other]}):
        with pytest.raises(helm_python.HelmRenderError, match="set existingSecret or hotkeys, or set subnet=true"):
            render({"existingSecret": "", **values})
    render({"existingSecret": "", "extraArgs": ["--hotkey-file=/keys/miner"]})


@pytest.mark.parametrize("name", ["CHUTES_EXPORTER_HOTKEY", "CHUTES_EXPORTER_HOTKEY_FILE", "HOTKEY", "MINER_SS58"])
def test_a_variable_that_chooses_a_miner_counts(name: str) -> None:
    render({"existingSecret": "", "extraEnv": [{"name": name, "value": HOTKEY}]})


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ({"seed": TEST_SEED}, "All checks passed."),
        ({"privateKey": PRIVATE_KEY[2:]}, "All checks passed."),
        ({}, "MINER_SS58 needs a key"),
    ],
    ids=["seed", "privateKey", "neither"],
)
async def test_helm_test_runs_check_with_the_settings_of_the_exporter(secret: dict[str, str], words: str) -> None:
    job = only("annotations", "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert "metadata" not in job["spec"]["template"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    shared = container.keys() - {"name", "args"}
    assert {key: pod({})[1][key] for key in shared} == {key: container[key] for key in shared}
    async with Simulator(World(start=time.time(), size=Size(miners=6, active_miners=3, chutes=10))) as simulator:
        variables = {"CHUTES_EXPORTER_API_URL": simulator.url}
        for one in container["env"]:
            reference = one["valueFrom"]["secretKeyRef"]
            # Kubernetes starts no pod without an entry that is not optional.
            if not reference.get("optional") or reference["key"] in secret:
                variables[one["name"]] = ({"ss58": HOTKEY} | secret)[reference["key"]]
        ran = await asyncio.to_thread(
            subprocess.run,
            [COMMAND, *container["args"]],
            env=environment(**variables),
            capture_output=True,
            check=False,
        )
    assert words in " ".join(ran.stdout.decode().split())
    assert ran.returncode == int(not secret)


@pytest.mark.parametrize("setup", ["annotations", "operator", "subnet"])
def test_the_pod_may_do_nothing_that_it_need_not(setup: str) -> None:
    spec, container = pod(SETUPS[setup])
    assert spec["automountServiceAccountToken"] is False
    assert spec.keys() & {"hostNetwork", "volumes"} == set()
    (user,) = re.findall(r"^USER (\d+):\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user),
        "runAsGroup": int(user),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"] == {
        "requests": {"cpu": "50m", "memory": "64Mi"},
        "limits": {"memory": "512Mi" if setup == "subnet" else "256Mi"},
    }


@pytest.mark.parametrize("setup", ["annotations", "subnet"])
def test_the_parts_find_each_other(setup: str) -> None:
    deployment, service, policy = (only(setup, kind)["spec"] for kind in ("Deployment", "Service", "NetworkPolicy"))
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


def test_the_network_policy_allows_only_dns_and_the_api_out_and_only_monitoring_in() -> None:
    policy = only("annotations", "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = sorted((rule["port"], rule["protocol"]) for one in policy["egress"] for rule in one["ports"])
    assert ports == [(53, "TCP"), (53, "UDP"), (443, "TCP")]
    assert policy["ingress"] == [
        {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "ports": [{"protocol": "TCP", "port": 10064}],
        }
    ]


def test_the_key_comes_from_the_secret_and_the_subnet_has_none() -> None:
    container = pod({"existingSecret": "mine", "hotkeys": [HOTKEY]})[1]
    assert container["env"] == [
        {"name": "CHUTES_EXPORTER_HOTKEY", "value": HOTKEY},
        {"name": "MINER_SS58", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "ss58"}}},
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": "mine", "key": entry, "optional": True}}}
            for name, entry in (("MINER_SEED", "seed"), ("MINER_PRIVATE_KEY", "privateKey"))
        ),
    ]
    assert "args" not in container
    container = pod(SETUPS["subnet"])[1]
    assert container["args"] == ["--miners", "all"]
    assert "env" not in container


def test_it_is_scraped_once() -> None:
    template = only("annotations", "Deployment")["spec"]["template"]
    wanted = {"prometheus.io/scrape": "true", "prometheus.io/port": "10064", "prometheus.io/path": "/metrics"}
    assert template["metadata"]["annotations"] == wanted
    assert "annotations" not in only("annotations", "Service")["metadata"]
    for setup in ("operator", "subnet"):
        assert "prometheus.io" not in json.dumps([found for found in built(setup) if found["kind"] != "ConfigMap"])
    monitor, service = only("operator", "ServiceMonitor"), only("operator", "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint == {"port": "metrics", "path": "/metrics", "interval": "1m", "scrapeTimeout": "30s"}
    # The job that boards and alerts see is this label's value.
    assert monitor["spec"]["jobLabel"] in service["metadata"]["labels"]


def test_the_prometheus_rule_has_every_rule_and_promtool_takes_it(tmp_path: Path) -> None:
    groups = only("operator", "PrometheusRule")["spec"]["groups"]
    sources = [yaml.safe_load(path.read_text())["groups"] for path in sorted(RULES.glob("*.yml"))]
    assert groups == [group for source in sources for group in source]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": groups}))
    subprocess.run(["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(path)], check=True)


def test_every_dashboard_is_a_config_map_that_the_sidecar_loads() -> None:
    configs = [found for found in built("annotations") if found["kind"] == "ConfigMap"]
    found = {name: text for config in configs for name, text in config["data"].items()}
    assert {name: json.loads(text) for name, text in found.items()} == {
        f"{board.uid}.json": committed(board.uid) for board in BOARDS
    }
    for config in configs:
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
        # kubectl keeps a copy of what it applies in an annotation, of which all may have 256 KiB.
        assert len(json.dumps(config)) < 200_000
    # Kubernetes stores at most 1 MiB: users without Helm put all of them into one.
    assert sum(map(len, found.values())) < 900_000
    assert len({config["metadata"]["name"] for config in configs}) == len(configs)


def test_the_subnet_can_stand_beside_a_miner() -> None:
    names = [{(found["kind"], found["metadata"]["name"]) for found in built(one)} for one in ("operator", "subnet")]
    assert names[0] & names[1] == set()


def test_everything_that_can_be_set_reaches_its_object() -> None:
    spec, container = pod(EVERYTHING)
    for key in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[key] == EVERYTHING[key]
    assert spec["volumes"] == EVERYTHING["extraVolumes"]
    assert container["volumeMounts"] == EVERYTHING["extraVolumeMounts"]
    assert container["image"] == "registry.example/chutes-exporter:1.2.3"
    assert container["imagePullPolicy"] == "Always"
    assert container["args"] == EVERYTHING["extraArgs"]
    assert container["env"][-1] == EVERYTHING["extraEnv"][0]
    assert container["livenessProbe"]["httpGet"]["scheme"] == "HTTPS"
    assert container["resources"]["limits"] == {"memory": "1Gi"}
    deployment = only("everything", "Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["template"]["metadata"]["labels"]["team"] == "mining"
    assert deployment["template"]["metadata"]["annotations"] == {"example.org/note": "yes"}
    policy = only("everything", "NetworkPolicy")["spec"]
    assert len(policy["ingress"][0]["from"]) == 2
    assert [port["port"] for port in policy["egress"][1]["ports"]] == [443, 8443]
    configs = [found for found in built("everything") if found["kind"] == "ConfigMap"]
    assert {config["metadata"]["annotations"]["grafana_folder"] for config in configs} == {"Chutes"}
    assert only("everything", "Secret")["metadata"]["name"] == "chutes-exporter-web"
    monitor = only("everything", "ServiceMonitor")
    assert monitor["spec"]["endpoints"][0]["scheme"] == "https"
    assert monitor["metadata"]["labels"]["release"] == "mine"
    parts = render({"networkPolicy": {"enabled": False}, "dashboards": {"enabled": False}})
    assert parts.keys() == {"check.yaml", "deployment.yaml", "service.yaml", "NOTES.txt"}


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("chutes-exporter-subnet", {}, "chutes-exporter-subnet"),
        ("mine", {}, "mine-chutes-exporter"),
        ("mine", {"fullnameOverride": "other"}, "other"),
        ("a" * 53, {}, f"{'a' * 53}-chutes-ex"),
    ],
)
def test_objects_have_the_name_of_the_release(release: str, values: Object, name: str) -> None:
    texts = render(values, release=release)
    assert yaml.safe_load(texts["deployment.yaml"])["metadata"]["name"] == name
    assert f"exec deployment/{name} -- chutes-exporter check" in texts["NOTES.txt"]
