"""The Helm chart: linted and rendered by Helm's own library, with values that its schema checks."""

from __future__ import annotations

import json
import re
from typing import Any

import helm_python
import pytest
import yaml

import chutes_exporter
from chutes_exporter.config import ConfigError, require_a_choice
from deploy.chart import CHART, render
from deploy.generate import FILES
from tests.deploy.objects import validate
from tests.support import HOTKEY, ROOT
from tests.test_cli import OTHER

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
EVERYTHING: dict[str, Any] = {
    "hotkeys": [HOTKEY],
    "extraArgs": ["--log.format", "json"],
    "extraEnv": [{"name": "CHUTES_EXPORTER_LOG_LEVEL", "value": "debug"}],
    "extraVolumes": [{"name": "web", "secret": {"secretName": "web-config"}}],
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
    "replicas": 2,
}
"""Values that use every list and map that is empty in values.yaml."""
NO_NAMES = [" ", "x\n  evil: y", "x\n", "Foo_Bar!", "a..b", "-a", "a" * 254]
"""Texts that no object of Kubernetes can have as its name."""


def objects(values: dict[str, Any], **installation: str) -> list[dict[str, Any]]:
    """Return the objects that the chart makes, each of which Kubernetes' own schema accepts."""
    texts = render(values, **installation)
    found = [one for name, text in texts.items() if name.endswith(".yaml") for one in yaml.safe_load_all(text)]
    for one in found:
        validate(one)
    return found


def pod(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a pod's specification, and that of its container."""
    template = yaml.safe_load(render(values)["deployment.yaml"])["spec"]["template"]
    (container,) = template["spec"]["containers"]
    return template["spec"], container


@pytest.mark.parametrize("values", [{}, EVERYTHING, {"subnet": True}], ids=["default", "everything", "subnet"])
def test_helm_lint_finds_nothing(values: dict[str, Any]) -> None:
    report = helm_python.lint(CHART, values, strict=True)
    # Helm recommends an icon, with severity 1.
    assert [found for found in report["messages"] if found["severity"] > 1] == []
    assert report["errors"] == []


def test_helm_packages_the_chart_with_all_files(tmp_path: Any) -> None:
    archive = helm_python.package(CHART, destination=tmp_path)
    with helm_python.Chart.load(archive) as chart:
        packed = {found["name"] for found in chart.files}
    assert packed >= {str(path.relative_to(CHART)) for path in (CHART / "files").rglob("*.*")}


def test_the_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (chutes_exporter.__version__,) * 2


def test_the_chart_has_exactly_the_dashboards_and_rules_of_the_project() -> None:
    found = {str(path.relative_to(ROOT / "deploy")) for path in (CHART / "files").rglob("*") if path.is_file()}
    assert found == {name for name in FILES if name.startswith("helm/")}, "run `make deploy`"
    sources = [*(ROOT / "grafana" / "dashboards").iterdir(), *(ROOT / "prometheus" / "rules").iterdir()]
    assert {f"{path.parent.name}/{path.name}" for path in sources} == {
        str(path.relative_to(CHART / "files")) for path in (CHART / "files").rglob("*.*")
    }


def test_every_value_has_a_schema_and_is_explained() -> None:
    def keys(values: dict[str, Any], schema: dict[str, Any]) -> None:
        properties = schema["properties"]
        assert set(values) == set(properties) - {"global"}
        for key, value in values.items():
            if "properties" in properties[key] and value:
                keys(value, properties[key])

    keys(VALUES, SCHEMA)
    assert SCHEMA["additionalProperties"] is False


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"hotkey": HOTKEY}, "hotkey"),
        ({"hotkeys": HOTKEY}, "hotkeys"),
        ({"hotkeys": ["5F"]}, "hotkeys"),
        ({"scrape": "annotation"}, "scrape"),
        ({"subnet": "yes"}, "subnet"),
        ({"image": {"version": "1"}}, "version"),
        ({"networkPolicy": {"namespaces": []}}, "namespaces"),
        ({"networkPolicy": {"egressPorts": [0]}}, "egressPorts"),
        ({"serviceMonitor": {"interval": "1 minute"}}, "interval"),
        ({"podAnnotations": {"prometheus.io/scrape": True}}, "podAnnotations"),
        ({"resources": {"memory": "1Gi"}}, "memory"),
        ({"extraEnv": {"A": "b"}}, "extraEnv"),
        ({"extraEnv": [{"name": "A", "value": 1}]}, "extraEnv"),
        ({"image": {"repository": "a b"}}, "repository"),
        ({"image": {"tag": " "}}, "tag"),
        ({"podLabels": {"team": "a b"}}, "podLabels"),
        ({"nodeSelector": {"disk": "a" * 64}}, "nodeSelector"),
        ({"serviceMonitor": {"labels": {"release": "-a"}}}, "serviceMonitor"),
        ({"prometheusRule": {"labels": {"release": "a\n"}}}, "prometheusRule"),
        ({"dashboards": {"labels": {"grafana_dashboard": "a!"}}}, "dashboards"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=named):
        render(values)


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("key", ["existingSecret", "priorityClassName", "fullnameOverride"])
def test_a_name_that_kubernetes_refuses_is_refused(key: str, name: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=key):
        render({key: name})


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("key", ["imagePullSecrets", "extraVolumes", "extraVolumeMounts"])
def test_a_name_in_a_list_that_kubernetes_refuses_is_refused(key: str, name: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=key):
        render({key: [{"name": name}]})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"fullnameOverride": "123"}, "fullnameOverride"),
        ({"fullnameOverride": "a.b"}, "fullnameOverride"),
        ({"networkPolicy": {"namespaces": ["a" * 64]}}, "namespaces"),
        ({"networkPolicy": {"namespaces": ["a.b"]}}, "namespaces"),
        ({"extraVolumes": [{"name": "a.b"}]}, "extraVolumes"),
    ],
)
def test_a_name_that_only_another_kind_can_have_is_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=named):
        render(values)


def test_every_name_that_kubernetes_accepts_is_accepted() -> None:
    values = {
        "existingSecret": "a" * 253,
        "priorityClassName": "1-a.b",
        "fullnameOverride": "a" * 63,
        "networkPolicy": {"namespaces": ["1" * 63]},
        "imagePullSecrets": [{"name": "a.b-c.1"}],
        "podLabels": {"team": "A_b.c-1", "empty": ""},
        "image": {"repository": "registry.example:5000/a", "tag": f"1.2.3@sha256:{'0' * 64}"},
    }
    assert objects(values)


@pytest.mark.parametrize("text", ["123", "1.5", "true", "null", "yes"])
@pytest.mark.parametrize("key", ["existingSecret", "priorityClassName"])
def test_a_name_that_looks_like_another_type_stays_a_text(key: str, text: str) -> None:
    assert f': "{text}"' in json.dumps(objects({key: text}))


@pytest.mark.parametrize("text", ["123", "true", "null", "yes"])
def test_names_of_the_installation_that_look_like_another_type_stay_texts(text: str) -> None:
    values: dict[str, Any] = {"networkPolicy": {"namespaces": [text]}, "fullnameOverride": "exporter"}
    for one in objects(values, release=text, namespace=text):
        assert one["metadata"]["namespace"] == text
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == text
        if one["kind"] == "NetworkPolicy":
            (source,) = one["spec"]["ingress"][0]["from"]
            assert source["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": text}


@pytest.mark.parametrize("text", ["true", "null", "yes"])
def test_the_name_of_all_objects_that_looks_like_another_type_stays_a_text(text: str) -> None:
    for one in objects({"fullnameOverride": text}):
        assert one["metadata"]["name"].partition("-dashboard-")[0] == text


@pytest.mark.parametrize("release", ["123", "a.b"])
def test_a_release_whose_service_kubernetes_refuses_needs_another_name(release: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=f"{release}-chutes-exporter: set fullnameOverride"):
        render({}, release=release)
    assert objects({"fullnameOverride": "exporter"}, release=release)


def test_the_whole_subnet_is_never_watched_by_accident() -> None:
    with pytest.raises(helm_python.HelmRenderError, match="set existingSecret or hotkeys, or set subnet=true"):
        render({"existingSecret": ""})
    render({"existingSecret": "", "extraArgs": ["--hotkey-file=/keys/miner"]})


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "CHUTES_EXPORTER_LOG_LEVEL", "MINER_SEED", "MY_HOTKEY"])
def test_a_variable_that_chooses_no_miner_does_not_count(name: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match="No miner is chosen"):
        render({"existingSecret": "", "extraEnv": [{"name": name, "value": "1"}]})


@pytest.mark.parametrize("name", ["CHUTES_EXPORTER_HOTKEY", "CHUTES_EXPORTER_HOTKEY_FILE", "HOTKEY", "MINER_SS58"])
def test_a_variable_that_chooses_a_miner_counts(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is empty"):
        require_a_choice({name: ""})
    other = {"name": "HTTPS_PROXY", "value": "http://proxy.example"}
    render({"existingSecret": "", "extraEnv": [{"name": name, "value": HOTKEY}, other]})


@pytest.mark.parametrize(
    "more",
    [
        {"extraArgs": ["--hotkey", OTHER]},
        {"extraArgs": ["--log.format", "json", f"--hotkey={OTHER}"]},
        {"extraEnv": [{"name": "CHUTES_EXPORTER_HOTKEY", "value": OTHER}]},
    ],
)
def test_hotkeys_in_two_places_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmRenderError, match="Hotkeys are in two places"):
        render({"hotkeys": [HOTKEY], **more})
    render(more)
    render({"hotkeys": [HOTKEY], "extraArgs": ["--hotkey-file", "/hotkey"]})


@pytest.mark.parametrize("name", ["MINER_SS58", "MINER_SEED"])
def test_a_variable_that_the_secret_sets_is_refused(name: str) -> None:
    values: dict[str, Any] = {"hotkeys": [HOTKEY], "extraEnv": [{"name": name, "value": HOTKEY}]}
    with pytest.raises(helm_python.HelmRenderError, match=f"existingSecret sets {name}: remove it from extraEnv"):
        render(values)
    for without_secret in ({"existingSecret": ""}, {"subnet": True}):
        assert pod({**values, **without_secret})[1]["env"][-1] == values["extraEnv"][0]


def test_a_variable_that_is_set_twice_is_refused() -> None:
    one, other = {"name": "HTTPS_PROXY", "value": "http://proxy.example"}, {"name": "NO_PROXY", "value": ".svc"}
    with pytest.raises(helm_python.HelmRenderError, match="extraEnv sets HTTPS_PROXY twice"):
        render({"extraEnv": [one, other, one]})
    assert pod({"extraEnv": [one, other]})[1]["env"][-2:] == [one, other]


def listen_variable(value: str) -> list[dict[str, str]]:
    return [{"name": "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS", "value": value}]


@pytest.mark.parametrize(
    "values",
    [
        {"extraArgs": ["--web.listen-address", ":9000"]},
        {"extraArgs": ["--log.format", "json", "--web.listen-address=0.0.0.0:100640"]},
        {"extraArgs": ["--web.listen-address=unix:/run/exporter.sock"]},
        {"extraEnv": listen_variable(":9000 :9001")},
        # The flag replaces the variable.
        {"extraArgs": ["--web.listen-address", ":9000"], "extraEnv": listen_variable(":10064")},
    ],
)
def test_an_exporter_that_does_not_listen_on_the_port_of_the_probes_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmRenderError, match="The pod's port is 10064"):
        render(values)


@pytest.mark.parametrize(
    "values",
    [
        {"extraArgs": ["--web.listen-address", "0.0.0.0:10064", "--log.format", "json"]},
        {"extraArgs": ["--web.listen-address=:9000", "--web.listen-address=[::]:10064"]},
        {"extraEnv": listen_variable(":10064 unix:/run/exporter.sock")},
        {"extraEnv": listen_variable(":9000"), "extraArgs": ["--web.listen-address", ":10064"]},
        {"extraEnv": [{"name": "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}]},
    ],
)
def test_an_exporter_may_listen_on_more_than_the_port_of_the_probes(values: dict[str, Any]) -> None:
    assert objects(values)


@pytest.mark.parametrize("key", ["app.kubernetes.io/name", "app.kubernetes.io/instance"])
def test_a_label_by_which_the_pod_is_selected_cannot_change(key: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=f"podLabels cannot set {key}, because the chart sets it"):
        render({"podLabels": {"team": "mining", key: "x"}})


@pytest.mark.parametrize("key", ["app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version"])
@pytest.mark.parametrize("part", ["serviceMonitor", "prometheusRule", "dashboards"])
def test_a_label_that_the_chart_sets_cannot_be_set_twice(part: str, key: str) -> None:
    values: dict[str, Any] = {"scrape": "serviceMonitor", "prometheusRule": {"enabled": True}}
    labels = {**values.get(part, {}), "labels": {key: "x"}}
    with pytest.raises(helm_python.HelmRenderError, match=rf"{part}\.labels cannot set {key}"):
        render({**values, part: labels})


@pytest.mark.parametrize("key", ["prometheus.io/scrape", "prometheus.io/port", "prometheus.io/path"])
def test_an_annotation_for_scraping_is_set_by_the_chart_or_by_the_values(key: str) -> None:
    values = {"podAnnotations": {key: "x"}}
    with pytest.raises(helm_python.HelmRenderError, match=f"podAnnotations cannot set {key}"):
        render(values)
    deployment = yaml.safe_load(render({**values, "scrape": "none"})["deployment.yaml"])
    assert deployment["spec"]["template"]["metadata"]["annotations"] == {key: "x"}


@pytest.mark.parametrize("key", ["port", "path", "interval", "scrapeTimeout"])
def test_a_field_of_the_endpoint_that_the_chart_sets_cannot_be_set_twice(key: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=rf"serviceMonitor\.endpoint cannot set {key}"):
        render({"scrape": "serviceMonitor", "serviceMonitor": {"endpoint": {key: "1m"}}})


def test_hotkeys_reach_every_command_and_flags_the_server() -> None:
    args = ["--log.format", "json"]
    some = pod({"existingSecret": "", "hotkeys": [HOTKEY, OTHER], "extraArgs": args})[1]
    assert some["args"] == args
    assert some["env"] == [{"name": "CHUTES_EXPORTER_HOTKEY", "value": f"{HOTKEY} {OTHER}"}]
    everything = pod({"hotkeys": [HOTKEY], "extraArgs": args, "subnet": True})[1]
    assert everything["args"] == ["--miners", "all", *args]
    assert [one["name"] for one in everything["env"]] == ["CHUTES_EXPORTER_HOTKEY"]
    assert "args" not in pod({})[1]


def test_a_flag_that_looks_like_a_number_stays_a_text() -> None:
    args = ["--max-series", "1000"]
    assert pod({"extraArgs": args})[1]["args"] == args


def test_the_key_comes_from_the_secret_that_the_values_name() -> None:
    found = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in pod({"existingSecret": "mine"})[1]["env"]}
    assert {reference["name"] for reference in found.values()} == {"mine"}
    assert "env" not in pod({"existingSecret": "", "extraArgs": ["--hotkey", HOTKEY]})[1]


def test_one_limit_changes_and_the_measured_resources_stay() -> None:
    assert pod({"resources": {"limits": {"memory": "1Gi"}}})[1]["resources"] == {
        "requests": {"cpu": "50m", "memory": "64Mi"},
        "limits": {"memory": "1Gi"},
    }


def test_everything_that_can_be_set_reaches_the_pod() -> None:
    spec, container = pod(EVERYTHING)
    assert spec["imagePullSecrets"] == EVERYTHING["imagePullSecrets"]
    assert spec["nodeSelector"] == EVERYTHING["nodeSelector"]
    assert spec["tolerations"] == EVERYTHING["tolerations"]
    assert spec["affinity"] == EVERYTHING["affinity"]
    assert spec["priorityClassName"] == EVERYTHING["priorityClassName"]
    assert spec["volumes"] == EVERYTHING["extraVolumes"]
    assert container["volumeMounts"] == EVERYTHING["extraVolumeMounts"]
    assert container["image"] == "registry.example/chutes-exporter:1.2.3"
    assert container["imagePullPolicy"] == "Always"
    assert container["env"][-1] == EVERYTHING["extraEnv"][0]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    deployment = yaml.safe_load(render(EVERYTHING)["deployment.yaml"])
    assert deployment["spec"]["replicas"] == 2
    metadata = deployment["spec"]["template"]["metadata"]
    assert metadata["labels"]["team"] == "mining"
    assert metadata["annotations"]["example.org/note"] == "yes"
    assert metadata["annotations"]["prometheus.io/scrape"] == "true"
    policy = yaml.safe_load(render(EVERYTHING)["networkpolicy.yaml"])["spec"]
    assert len(policy["ingress"][0]["from"]) == 2
    assert [port["port"] for port in policy["egress"][1]["ports"]] == [443, 8443]
    for config in yaml.safe_load_all(render(EVERYTHING)["dashboards.yaml"]):
        assert config["metadata"]["annotations"] == {"grafana_folder": "Chutes"}
    assert objects(EVERYTHING)


def test_the_service_monitor_takes_more_of_the_endpoint() -> None:
    tls = {"scheme": "https", "tlsConfig": {"insecureSkipVerify": True}}
    values = {"scrape": "serviceMonitor", "serviceMonitor": {"labels": {"release": "mine"}, "endpoint": tls}}
    monitor = yaml.safe_load(render(values)["servicemonitor.yaml"])
    (endpoint,) = monitor["spec"]["endpoints"]
    assert tls.items() <= endpoint.items()
    assert monitor["metadata"]["labels"]["release"] == "mine"


def test_probes_of_an_exporter_with_passwords_only_connect() -> None:
    container = pod({"probes": {"protocol": "TCP"}})[1]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["tcpSocket"] == {"port": "metrics"}
        assert "httpGet" not in container[probe]


@pytest.mark.parametrize("part", ["networkPolicy", "dashboards"])
def test_a_part_that_is_switched_off_is_not_rendered(part: str) -> None:
    name = f"{part.lower()}.yaml"
    assert name in render({})
    assert name not in render({part: {"enabled": False}})


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("chutes-exporter", {}, "chutes-exporter"),
        ("chutes-exporter-subnet", {}, "chutes-exporter-subnet"),
        ("mine", {}, "mine-chutes-exporter"),
        ("mine", {"fullnameOverride": "other"}, "other"),
        ("a" * 53, {}, f"{'a' * 53}-chutes-ex"),
    ],
)
def test_objects_have_the_name_of_the_release(release: str, values: dict[str, Any], name: str) -> None:
    for template, text in render(values, release=release).items():
        if template.endswith(".yaml"):
            for found in yaml.safe_load_all(text):
                assert found["metadata"]["name"].removesuffix("-dashboard-overview").startswith(name)
                assert found["metadata"]["labels"]["app.kubernetes.io/name"] == "chutes-exporter"
    assert yaml.safe_load(render(values, release=release)["deployment.yaml"])["metadata"]["name"] == name


def test_the_notes_say_what_to_run_next() -> None:
    notes = render({}, release="mine", namespace="other")["NOTES.txt"]
    assert re.findall(r"--namespace (\S+)", notes) == ["other", "other"]
    assert "exec deployment/mine-chutes-exporter -- chutes-exporter check" in notes
