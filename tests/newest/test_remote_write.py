"""The example of remote write, from two Prometheus to a VictoriaMetrics that exists already."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.grafana.answers import filled_in
from tests.grafana.display import PANELS
from tests.newest.test_victoria_metrics import victoria_metrics
from tests.support import (
    HOTKEY,
    PATIENCE,
    ROOT,
    Prometheus,
    fast_rules,
    fetch,
    free_port,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.newest

EXAMPLE = ROOT / "prometheus" / "examples" / "remote-write.yml"
COMMAND = Path(sys.executable).parent / "chutes-exporter"


@dataclass
class OfCluster(Prometheus):
    """A store, asked as Grafana does if its data source has a custom query parameter."""

    cluster: str = ""

    def api(self, path: str, **parameters: str | float) -> Any:
        """Return an answer about one cluster."""
        return super().api(path, extra_label=f"cluster={self.cluster}", **parameters)


@contextlib.contextmanager
def demo(directory: Path) -> Iterator[str]:
    """Run the demo; yields its address when it has answers."""
    address = f"127.0.0.1:{free_port()}"
    log = directory / "demo.log"
    flags = [f"--web.listen-address={address}", "--demo.listen-address=127.0.0.1:0"]
    with log.open("wb") as file:
        process = subprocess.Popen([COMMAND, "demo", *flags], stdout=file, stderr=file)
    try:
        wait_for(lambda: fetch(f"http://{address}/metrics"), process, log.read_text)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def configuration(url: str, cluster: str) -> dict[str, Any]:
    """Return prometheus.yml with the example in it, and the address of the store replaced."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    text = EXAMPLE.read_text()
    assert text.count("http://victoria-metrics:8428") == 1
    assert text.count("cluster: miners-1") == 1
    text = text.replace("http://victoria-metrics:8428", url).replace("miners-1", cluster)
    example = yaml.safe_load(text)
    assert set(example) == {"global", "remote_write"}
    config["global"]["external_labels"] |= example["global"]["external_labels"]
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config["remote_write"] = example["remote_write"]
    return config


def prometheus(directory: Path, exporter: str, url: str, cluster: str) -> Prometheus:
    """Return a Prometheus with the example's configuration and rules with short times."""
    (directory / "rules").mkdir(parents=True)
    (directory / "targets").mkdir()
    fast_rules(directory / "rules")
    for path in (directory / "rules").iterdir():
        path.rename(path.with_suffix(".yml"))
    targets = directory / "targets" / "exporter.yml"
    targets.write_text(json.dumps([{"targets": [exporter]}]))
    return Prometheus(directory, more=configuration(url, cluster))


def answered(store: Prometheus) -> set[str]:
    """Return the queries of dashboards that have a result."""
    with_result = set()
    for _, panel in PANELS:
        for target in panel["targets"]:
            query = filled_in(target["expr"], [HOTKEY])
            assert store.at is not None
            answer = store.api("query", query=query, time=store.at)
            assert answer["status"] == "success", (query, answer)
            if answer["data"]["result"]:
                with_result.add(query)
    return with_result


def without_cluster(found: Mapping[frozenset[tuple[str, str]], float]) -> set[Any]:
    """Return the labels of series, without the one that remote write adds."""
    return {frozenset(label for label in labels if label[0] != "cluster") for labels in found}


def test_the_dashboards_hold_in_a_store_that_two_clusters_write_to(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(victoria_metrics(tmp_path / "store"))
        exporter = stack.enter_context(demo(tmp_path))
        first, second = (
            stack.enter_context(prometheus(tmp_path / cluster, exporter, url, cluster))
            for cluster in ("miners-1", "miners-2")
        )
        for prometheus_of_cluster in (first, second):
            prometheus_of_cluster.wait_for('ALERTS{alertname="ChutesGpusIdle",alertstate="firing"}')
        first.stand_still()
        store = OfCluster(tmp_path, url=url, cluster="miners-1")
        # The store has everything up to that moment.
        store.wait_for(f"max(timestamp(prometheus:chutes_rules:loaded)) > {first.at}")
        store.wait_for(f"max(timestamp(up)) > {first.at}")
        store.at = first.at

        # Recorded series and alerts arrive, the latter with all their labels.
        for series in ("ALERTS", "hotkey:chutes_fleet_gpus:sum", "chutes_miner_watched"):
            sent = first.query(series)
            assert sent
            arrived = store.query(series)
            assert without_cluster(arrived) == set(sent), series
            assert {dict(labels)["cluster"] for labels in arrived} == {"miners-1"}
        # Each dashboard shows what it shows on Prometheus.
        known = answered(first)
        assert len(known) > 100
        assert answered(store) == known

        everything = Prometheus(tmp_path, url=url)
        clusters = everything.query("count by (cluster) (up)")
        assert {dict(labels)["cluster"] for labels in clusters} == {"miners-1", "miners-2"}
        # Nothing that no dashboard reads is stored.
        assert first.query('count({__name__=~"python_.+"})')
        assert not everything.query('count({__name__=~"python_.+"})')
        assert not everything.query('count({grafana_url!=""})')
