"""The Kubernetes objects of common set-ups: valid by Kubernetes' own schemas, with only the rights that they need."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest
import yaml

import chutes_exporter
from deploy.chart import render
from deploy.generate import FILES
from grafana.boards import BOARDS
from tests.deploy.objects import Object, validate
from tests.grafana.display import committed
from tests.support import ROOT, RULES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETUPS: dict[str, Object] = {
    "annotations": {},
    "operator": {"scrape": "serviceMonitor", "prometheusRule": {"enabled": True}},
    "subnet": {"subnet": True, "scrape": "none", "dashboards": {"enabled": False}},
}
"""Names of set-ups, and the values that docs/start.md gives for them."""
ALL = (*SETUPS, "manifest")
"""The set-ups, and the manifest for users without Helm."""
NAMES_OF_THE_MINERS_CHART = {"grafana-dashboards"}
TITLES_OF_THE_MINERS_CHART = {"Chutes Monitoring", "Kubernetes Cluster", "HTTP/TCP Monitoring"}


@cache
def built(setup: str) -> tuple[Object, ...]:
    """Return the objects of a set-up; of `manifest`, those for users without Helm."""
    if setup == "manifest":
        return tuple(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
    release = "chutes-exporter-subnet" if setup == "subnet" else "chutes-exporter"
    texts = render(SETUPS[setup], release=release, namespace="chutes")
    return tuple(found for name, text in texts.items() if name.endswith(".yaml") for found in yaml.safe_load_all(text))


def objects(setup: str, kind: str) -> list[Object]:
    return [found for found in built(setup) if found["kind"] == kind]


def only(setup: str, kind: str) -> Object:
    (found,) = objects(setup, kind)
    return found


def pod(setup: str) -> Object:
    spec: Object = only(setup, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(setup: str) -> Object:
    (found,) = pod(setup)["containers"]
    return dict(found)


@pytest.mark.parametrize("name", FILES)
def test_the_generated_files_are_committed(name: str) -> None:
    assert (ROOT / "deploy" / name).read_text() == FILES[name](), "run `make deploy`"


@pytest.mark.parametrize("setup", ALL)
def test_every_object_is_valid_by_kubernetes_own_schemas(setup: str) -> None:
    kinds = set()
    for found in built(setup):
        kinds.add(found["kind"])
        validate(found)
    assert kinds >= {"Deployment", "Service", "NetworkPolicy"}


def test_a_wrong_field_would_be_seen() -> None:
    import kubernetes_validate  # noqa: PLC0415 - it takes seconds, in each process that collects the tests

    broken = json.loads(json.dumps(only("annotations", "Deployment")))
    broken["spec"]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(broken)


@pytest.mark.parametrize("setup", ALL)
def test_the_pod_may_do_nothing_that_it_need_not(setup: str) -> None:
    spec = pod(setup)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert "hostNetwork" not in spec
    assert "volumes" not in spec
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(setup)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("setup", ALL)
def test_the_user_is_the_images_own(setup: str) -> None:
    (user,) = re.findall(r"^USER (\d+):\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert pod(setup)["securityContext"]["runAsUser"] == int(user)


@pytest.mark.parametrize("setup", ALL)
def test_it_is_probed_where_the_exporter_answers(setup: str) -> None:
    found = container(setup)
    assert found["livenessProbe"]["httpGet"] == {"path": "/-/healthy", "port": "metrics"}
    assert found["readinessProbe"]["httpGet"] == {"path": "/-/ready", "port": "metrics"}
    assert found["ports"] == [{"name": "metrics", "containerPort": 10064}]


@pytest.mark.parametrize("setup", ALL)
def test_resources_are_those_that_were_measured(setup: str) -> None:
    assert container(setup)["resources"] == {
        "requests": {"cpu": "50m", "memory": "64Mi"},
        "limits": {"memory": "512Mi" if setup == "subnet" else "256Mi"},
    }


@pytest.mark.parametrize("setup", ALL)
def test_an_update_always_leaves_a_ready_pod(setup: str) -> None:
    deployment = only(setup, "Deployment")["spec"]
    assert deployment["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    (spread,) = pod(setup)["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["matchLabelKeys"] == ["pod-template-hash"]
    labels = deployment["template"]["metadata"]["labels"]
    assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    service = only(setup, "Service")["spec"]
    assert service["selector"] == deployment["selector"]["matchLabels"]
    assert service["publishNotReadyAddresses"] is True


@pytest.mark.parametrize("setup", ALL)
def test_the_network_policy_allows_only_dns_and_the_api_out_and_only_monitoring_in(setup: str) -> None:
    policy = only(setup, "NetworkPolicy")["spec"]
    assert policy["podSelector"] == {"matchLabels": only(setup, "Deployment")["spec"]["selector"]["matchLabels"]}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = sorted((rule["port"], rule["protocol"]) for one in policy["egress"] for rule in one["ports"])
    assert ports == [(53, "TCP"), (53, "UDP"), (443, "TCP")]
    (way_in,) = policy["ingress"]
    assert way_in == {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "ports": [{"protocol": "TCP", "port": 10064}],
    }


@pytest.mark.parametrize("setup", ALL)
def test_the_namespace_and_the_version_are_correct(setup: str) -> None:
    assert {found["metadata"]["namespace"] for found in built(setup)} == {"chutes"}
    assert container(setup)["image"] == f"chutes-exporter:{chutes_exporter.__version__}"


def test_the_key_comes_from_the_miners_own_secret_and_the_subnet_has_none() -> None:
    for setup in ("annotations", "operator"):
        assert {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container(setup)["env"]} == {
            "MINER_SS58": {"name": "miner-credentials", "key": "ss58"},
            "MINER_SEED": {"name": "miner-credentials", "key": "seed", "optional": True},
        }
    assert "env" not in container("subnet")
    assert container("subnet")["args"] == ["--miners", "all"]
    assert "miner-credentials" not in json.dumps(built("subnet"))


def test_it_is_annotated_once() -> None:
    wanted = {"prometheus.io/scrape": "true", "prometheus.io/port": "10064", "prometheus.io/path": "/metrics"}
    template = only("annotations", "Deployment")["spec"]["template"]
    assert template["metadata"]["annotations"] == wanted
    assert "annotations" not in only("annotations", "Service")["metadata"]
    for setup in ("operator", "subnet"):
        assert "prometheus.io" not in json.dumps([found for found in built(setup) if found["kind"] != "ConfigMap"])


def test_the_service_monitor_finds_the_service_at_an_interval_that_fits() -> None:
    monitor = only("operator", "ServiceMonitor")
    service = only("operator", "Service")
    assert monitor["metadata"]["namespace"] == service["metadata"]["namespace"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert (endpoint["interval"], endpoint["scrapeTimeout"], endpoint["path"]) == ("1m", "30s", "/metrics")
    # The job that boards and alerts see is this label's value.
    assert monitor["spec"]["jobLabel"] in service["metadata"]["labels"]


def test_the_prometheus_rule_has_every_rule_and_promtool_takes_it(tmp_path: Path) -> None:
    groups = only("operator", "PrometheusRule")["spec"]["groups"]
    sources = [yaml.safe_load(path.read_text())["groups"] for path in sorted(RULES.glob("*.yml"))]
    assert groups == [group for source in sources for group in source]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": groups}))
    subprocess.run(["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(path)], check=True)


@pytest.mark.parametrize("setup", ALL)
def test_selectors_contain_only_constant_labels(setup: str) -> None:
    instance = "chutes-exporter-subnet" if setup == "subnet" else "chutes-exporter"
    wanted = {"app.kubernetes.io/name": "chutes-exporter", "app.kubernetes.io/instance": instance}
    assert only(setup, "Deployment")["spec"]["selector"]["matchLabels"] == wanted
    assert only(setup, "Service")["spec"]["selector"] == wanted
    assert only(setup, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == wanted


@pytest.mark.parametrize("setup", ["annotations", "operator"])
def test_the_subnet_can_stand_beside_the_others(setup: str) -> None:
    def names(of: str) -> set[tuple[str, str]]:
        return {(found["kind"], found["metadata"]["name"]) for found in built(of)}

    assert names(setup) & names("subnet") == set()
    monitors = objects(setup, "ServiceMonitor")
    labels = only("subnet", "Service")["metadata"]["labels"]
    assert not any(one["spec"]["selector"]["matchLabels"].items() <= labels.items() for one in monitors)


def dashboards(setup: str) -> Iterator[tuple[Object, str, Object]]:
    for config in objects(setup, "ConfigMap"):
        if config["metadata"].get("labels", {}).get("grafana_dashboard") == "1":
            ((name, text),) = config["data"].items()
            yield config, name, json.loads(text)


def test_the_manifest_is_the_first_set_up_without_dashboards() -> None:
    def without_dashboards(setup: str) -> list[Object]:
        found = [one for one in built(setup) if one["kind"] != "ConfigMap"]
        return sorted(found, key=lambda one: str(one["kind"]))

    assert without_dashboards("manifest") == without_dashboards("annotations")
    assert objects("manifest", "ConfigMap") == []


def test_all_dashboards_fit_into_the_one_config_map_of_users_without_helm() -> None:
    # Kubernetes stores at most 1 MiB.
    sizes = [path.stat().st_size for path in (ROOT / "grafana" / "dashboards").iterdir()]
    assert len(sizes) == len(BOARDS)
    assert sum(sizes) < 900_000


@pytest.mark.parametrize("setup", ["annotations", "operator"])
def test_every_dashboard_is_a_config_map_that_the_sidecar_loads(setup: str) -> None:
    found = {name: (config, dashboard) for config, name, dashboard in dashboards(setup)}
    assert {name: dashboard for name, (_, dashboard) in found.items()} == {
        f"{board.uid}.json": committed(board.uid) for board in BOARDS
    }
    for name, (config, dashboard) in found.items():
        assert config["metadata"]["name"] not in NAMES_OF_THE_MINERS_CHART
        assert dashboard["title"] not in TITLES_OF_THE_MINERS_CHART
        # kubectl keeps a copy of what it applies in an annotation, of which all may have 256 KiB.
        assert len(json.dumps(config)) < 200_000, name
    names = [config["metadata"]["name"] for config, _ in found.values()]
    assert len(set(names)) == len(names)
