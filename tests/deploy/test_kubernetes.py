"""The Kubernetes manifests: built as users build them, valid by Kubernetes' own schemas, and as tight as they say."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

import chutes_exporter
from deploy.generate import FILES
from grafana.boards import BOARDS
from tests.grafana.display import committed
from tests.support import ROOT, RULES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KUSTOMIZE = ROOT / "deploy" / "kustomize"
OVERLAYS = ("annotations", "operator", "subnet")
CUSTOM = {"ServiceMonitor", "PrometheusRule"}
"""Kinds that the Prometheus Operator defines."""
NAMES_OF_THE_MINERS_CHART = {"grafana-dashboards"}
TITLES_OF_THE_MINERS_CHART = {"Chutes Monitoring", "Kubernetes Cluster", "HTTP/TCP Monitoring"}
Object = dict[str, Any]


@cache
def built(overlay: str) -> tuple[Object, ...]:
    result = subprocess.run(
        ["kustomize", "build", str(KUSTOMIZE / overlay)],  # noqa: S607 - Debian's, from the path
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return tuple(yaml.safe_load_all(result.stdout))


def objects(overlay: str, kind: str) -> list[Object]:
    return [found for found in built(f"overlays/{overlay}") if found["kind"] == kind]


def only(overlay: str, kind: str) -> Object:
    (found,) = objects(overlay, kind)
    return found


def pod(overlay: str) -> Object:
    spec: Object = only(overlay, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(overlay: str) -> Object:
    (found,) = pod(overlay)["containers"]
    return dict(found)


@pytest.mark.parametrize("name", FILES)
def test_the_generated_files_are_committed(name: str) -> None:
    assert (ROOT / "deploy" / name).read_text() == FILES[name](), "run `make deploy`"


@pytest.mark.parametrize("overlay", ["base", *(f"overlays/{name}" for name in OVERLAYS)])
def test_every_object_is_valid_by_kubernetes_own_schemas(overlay: str) -> None:
    kinds = set()
    for found in built(overlay):
        kinds.add(found["kind"])
        if found["kind"] not in CUSTOM:
            kubernetes_validate.validate(found, "1.33", strict=True)
    assert kinds >= {"Deployment", "Service", "NetworkPolicy"}


def test_a_wrong_field_would_be_seen() -> None:
    broken = json.loads(json.dumps(built("base")[-1]))
    broken["spec"]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.33", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pod_may_do_nothing_that_it_need_not(overlay: str) -> None:
    spec = pod(overlay)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert "hostNetwork" not in spec
    assert "volumes" not in spec
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(overlay)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_user_is_the_images_own(overlay: str) -> None:
    (user,) = re.findall(r"^USER (\d+):\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert pod(overlay)["securityContext"]["runAsUser"] == int(user)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_it_is_probed_where_the_exporter_answers(overlay: str) -> None:
    found = container(overlay)
    assert found["livenessProbe"]["httpGet"] == {"path": "/-/healthy", "port": "metrics"}
    assert found["readinessProbe"]["httpGet"] == {"path": "/-/ready", "port": "metrics"}
    assert found["ports"] == [{"name": "metrics", "containerPort": 10064}]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_resources_are_those_that_were_measured(overlay: str) -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    found = re.search(r"request (\d+) MB .*?limit it to (\d+) MB for a miner, or (\d+) MB", text, re.DOTALL)
    assert found is not None
    request, miner, subnet = found.groups()
    assert container(overlay)["resources"] == {
        "requests": {"cpu": "50m", "memory": f"{request}Mi"},
        "limits": {"memory": f"{subnet if overlay == 'subnet' else miner}Mi"},
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_update_never_leaves_nobody_to_scrape(overlay: str) -> None:
    deployment = only(overlay, "Deployment")["spec"]
    assert deployment["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    (spread,) = pod(overlay)["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["matchLabelKeys"] == ["pod-template-hash"]
    labels = deployment["template"]["metadata"]["labels"]
    assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    service = only(overlay, "Service")["spec"]
    assert service["selector"] == deployment["selector"]["matchLabels"]
    assert service["publishNotReadyAddresses"] is True


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_network_lets_out_names_and_the_api_and_in_the_monitoring_alone(overlay: str) -> None:
    policy = only(overlay, "NetworkPolicy")["spec"]
    assert policy["podSelector"] == {"matchLabels": only(overlay, "Deployment")["spec"]["selector"]["matchLabels"]}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = sorted((rule["port"], rule["protocol"]) for one in policy["egress"] for rule in one["ports"])
    assert ports == [(53, "TCP"), (53, "UDP"), (443, "TCP")]
    (way_in,) = policy["ingress"]
    assert way_in == {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "ports": [{"protocol": "TCP", "port": 10064}],
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_namespace_and_the_version_are_correct(overlay: str) -> None:
    assert {found["metadata"]["namespace"] for found in built(f"overlays/{overlay}")} == {"chutes"}
    assert container(overlay)["image"] == f"chutes-exporter:{chutes_exporter.__version__}"


def test_the_key_comes_from_the_miners_own_secret_and_the_subnet_has_none() -> None:
    for overlay in ("annotations", "operator"):
        assert {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container(overlay)["env"]} == {
            "MINER_SS58": {"name": "miner-credentials", "key": "ss58"},
            "MINER_SEED": {"name": "miner-credentials", "key": "seed", "optional": True},
        }
    assert "env" not in container("subnet")
    assert container("subnet")["args"] == ["--miners", "all"]
    assert "miner-credentials" not in json.dumps(built("overlays/subnet"))


def test_it_is_annotated_once() -> None:
    wanted = {"prometheus.io/scrape": "true", "prometheus.io/port": "10064", "prometheus.io/path": "/metrics"}
    template = only("annotations", "Deployment")["spec"]["template"]
    assert template["metadata"]["annotations"] == wanted
    assert "annotations" not in only("annotations", "Service")["metadata"]
    for overlay in ("operator", "subnet"):
        assert "prometheus.io" not in json.dumps(
            [found for found in built(f"overlays/{overlay}") if found["kind"] != "ConfigMap"]
        )


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
    subprocess.run(["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(path)], check=True)  # noqa: S607


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_contain_only_constant_labels(overlay: str) -> None:
    instance = "subnet" if overlay == "subnet" else "miner"
    wanted = {"app.kubernetes.io/name": "chutes-exporter", "app.kubernetes.io/instance": instance}
    assert only(overlay, "Deployment")["spec"]["selector"]["matchLabels"] == wanted
    assert only(overlay, "Service")["spec"]["selector"] == wanted
    assert only(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == wanted


@pytest.mark.parametrize("overlay", ["annotations", "operator"])
def test_the_subnet_can_stand_beside_the_others(overlay: str) -> None:
    def names(of: str) -> set[tuple[str, str]]:
        return {(found["kind"], found["metadata"]["name"]) for found in built(f"overlays/{of}")}

    assert names(overlay) & names("subnet") == set()
    monitors = objects(overlay, "ServiceMonitor")
    labels = only("subnet", "Service")["metadata"]["labels"]
    assert not any(one["spec"]["selector"]["matchLabels"].items() <= labels.items() for one in monitors)


def dashboards(overlay: str) -> Iterator[tuple[Object, str, Object]]:
    for config in objects(overlay, "ConfigMap"):
        if config["metadata"].get("labels", {}).get("grafana_dashboard") == "1":
            ((name, text),) = config["data"].items()
            yield config, name, json.loads(text)


@pytest.mark.parametrize("overlay", ["annotations", "operator"])
def test_every_dashboard_is_a_config_map_that_the_sidecar_loads(overlay: str) -> None:
    found = {name: (config, dashboard) for config, name, dashboard in dashboards(overlay)}
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
