"""VictoriaMetrics as docs/operations.md shows it: behind Prometheus, and instead of Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.commands.serve import Service
from chutes_exporter.config import Address
from chutes_exporter.simulator import Fault, Simulator, Size, World
from grafana.worlds import World as Kind
from tests.alertmanager.test_routing import SIGNED, alertmanager
from tests.grafana.scenes import END, Answers, ask_everything, scene
from tests.support import HOTKEY, ROOT, Prometheus, fast_rules, fetch, free_port, until, wait_for, watching

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.newest

_SECTION = (ROOT / "docs" / "operations.md").read_text().partition("## Prometheus 3 and VictoriaMetrics\n")[2]
DOCUMENTED = {
    words[0]: words
    for block in re.findall(r"```sh\n(.*?)```", _SECTION.partition("\n## ")[0], re.DOTALL)
    for words in map(shlex.split, block.replace("\\\n", "").splitlines())
}
"""The commands of the document, by program."""
(REMOTE_WRITE,) = re.findall(r"```yaml\nremote_write:\n  - url: http://localhost:8428/(\S+)\n```", _SECTION)
STORE = "localhost:8428"
"""Where VictoriaMetrics listens in the document."""


@contextlib.contextmanager
def running(command: Sequence[str], directory: Path) -> Iterator[str]:
    """Run one of VictoriaMetrics' programs on a free port; yields its URL when it is healthy."""
    address = f"127.0.0.1:{free_port()}"
    log = directory / f"{command[0]}.log"
    with log.open("wb") as file:
        process = subprocess.Popen([*command, f"-httpListenAddr={address}"], cwd=directory, stdout=file, stderr=file)
    try:
        wait_for(lambda: fetch(f"http://{address}/health"), process, log.read_text)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextlib.contextmanager
def victoria_metrics(directory: Path) -> Iterator[str]:
    """Run the store as documented, without its delay; yields its URL."""
    directory.mkdir()
    command = [word.replace("/var/lib", str(directory)) for word in DOCUMENTED["victoria-metrics"]]
    # Prometheus' default lookback. The store derives its own from the interval of samples, and bridges the hours
    # between the samples of a test's history.
    flags = ["-search.maxLookback=5m", "-search.latencyOffset=0s", "-search.disableCache"]
    with running([*command, *flags], directory) as url:
        yield url


Rows = dict[frozenset[tuple[str, str]], float]


def rows(data: Any) -> Rows:
    """Return the result of an instant query by labels, without the values that are not numbers."""
    results = data["result"] if data["resultType"] == "vector" else [{"metric": {}, "value": data["result"]}]
    found = {
        frozenset((name, text) for name, text in one["metric"].items() if name != "__name__"): float(one["value"][1])
        for one in results
    }
    return {labels: value for labels, value in found.items() if not math.isnan(value)}


def difference(query: str, known: Rows, stored: Rows) -> str:
    """Return how the store's answer differs from Prometheus' beyond what their documents say, or nothing."""
    chooses = re.search(r"\b(top|bottom)k\b", query)
    if chooses and re.search(r"[+*] on \(", query):
        # Of equal values, they may keep any, and these may lack the other side of a join.
        shared = known.keys() & stored.keys()
        if bool(shared) != bool(known or stored):
            return f"none of {len(known)} and {len(stored)} series is the same"
        known, stored = ({one: found[one] for one in shared} for found in (known, stored))
    if (len(known) != len(stored)) if chooses else (known.keys() != stored.keys()):
        return f"only one has {[dict(labels) for labels in known.keys() ^ stored.keys()]}"
    # The store does not extrapolate to the ends of a range, so that increases differ.
    if re.search(r"\b(rate|increase)\(", query):
        return ""
    order = sorted(known, key=known.__getitem__)
    others = sorted(stored, key=stored.__getitem__) if chooses else order
    # The store rounds to 12 digits, which are milliseconds of a Unix time.
    precision = 0.01 if "time" in query else 0
    for one, other in zip(order, others, strict=True):
        if not math.isclose(known[one], stored[other], rel_tol=1e-9, abs_tol=precision):
            return f"{dict(other)} is {stored[other]}, not {known[one]}"
    return ""


def compare(known: Answers, stored: Answers) -> dict[str, str]:
    """Return the differences between the answers of Prometheus and of the store, by query.

    Subqueries and offsets are left out: they read the history, which has a sample every few hours. Which step sees such
    a sample depends on how a server aligns steps.
    """
    compared = [query for query in known.now if not re.search(r"\boffset\b|\[\w+:\w+\]", query)]
    found = {query: difference(query, rows(known.now[query]), rows(stored.now[query])) for query in compared}
    return {query: text for query, text in found.items() if text}


@pytest.mark.parametrize("kind", [Kind.SICK, Kind.HEALTHY])
async def test_the_queries_of_boards_and_rules_hold_in_a_store_that_prometheus_writes_to(
    kind: Kind, tmp_path: Path
) -> None:
    directory = tmp_path / "prometheus"
    directory.mkdir()
    with victoria_metrics(tmp_path / "store") as url:
        async with scene(kind, directory, stores=[f"{url}/{REMOTE_WRITE}"]) as found:
            known = await ask_everything(found.prometheus, found.answers)
            store = Prometheus(directory, url=url)
            store.at = END
            # For up to 10 seconds, the store does not find new series, or the newest samples.
            count = 'count({__name__!=""})'
            (series,) = (await asyncio.to_thread(found.prometheus.query, count)).values()
            await asyncio.to_thread(store.wait_for, f"{count} >= {series}")
            stored = await ask_everything(store, Answers(known.hotkeys, known.gpus, known.scored))
    assert known.errors == {}
    assert stored.errors == {}
    assert compare(known, stored) == {}
    assert stored.firing == known.firing
    assert {name: sorted(values) for name, values in stored.variables.items()} == {
        name: sorted(values) for name, values in known.variables.items()
    }
    # Each list has Prometheus' order, in which equal values have none.
    for name, ranks in known.ranks.items():
        for first, second in pairwise(ranks[value] for value in stored.variables[name]):
            assert first > second or math.isclose(first, second, rel_tol=1e-9), name


async def test_vmagent_scrapes_the_page_and_vmalert_evaluates_the_rules(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        world = World(start=time.time(), size=Size(miners=6, active_miners=3, chutes=10))
        simulator = await stack.enter_async_context(Simulator(world))
        simulator.faults.update({name: Fault(status=401, body=b'{"detail": "Invalid signature"}') for name in SIGNED})
        settings = watching(simulator.url, listen=(Address("127.0.0.1"),), ttl=dict.fromkeys(SIGNED, 0))
        service = await stack.enter_async_context(Service(settings))
        # The files that the documented commands read, with short times.
        config = (ROOT / "prometheus" / "prometheus.yml").read_text()
        for folder in ("rules", "targets"):
            (tmp_path / "prometheus" / folder).mkdir(parents=True)
        (tmp_path / "prometheus" / "prometheus.yml").write_text(re.sub(r"(scrape_\w+): \d+\w", r"\1: 1s", config))
        (tmp_path / "prometheus" / "targets" / "exporter.yml").write_text(f'- targets: ["{service.addresses[0]}"]\n')
        fast_rules(tmp_path / "prometheus" / "rules")
        url = stack.enter_context(victoria_metrics(tmp_path / "store"))
        address = stack.enter_context(alertmanager(tmp_path / "alertmanager", "http://127.0.0.1:9"))

        for program, flags in (("vmagent", ()), ("vmalert", ("-rule.evalDelay=0s",))):
            words = (
                word.replace(f"http://{STORE}", url).replace("localhost:9093", address) for word in DOCUMENTED[program]
            )
            command = [*words, "-remoteWrite.flushInterval=1s", *flags]
            await asyncio.to_thread(stack.enter_context, running(command, tmp_path))
        store = Prometheus(tmp_path, url=url)

        # The whole page arrives.
        await asyncio.to_thread(store.wait_for, 'up{job="chutes"} == 1')
        series = {dict(labels)["hotkey"] for labels in await asyncio.to_thread(store.wait_for, "chutes_miner_watched")}
        assert series == {HOTKEY}
        # A recording rule reads it, and its result is in the store.
        await asyncio.to_thread(store.wait_for, "hotkey:chutes_miner_lost_compute_units:newest")
        # An alert fires and reaches Alertmanager, with the link to its board.
        alerts: list[dict[str, Any]] = []

        async def arrived() -> bool:
            with await asyncio.to_thread(urllib.request.urlopen, f"http://{address}/api/v2/alerts", timeout=10) as got:
                alerts[:] = json.load(got)
            return any(alert["labels"]["alertname"] == "ChutesSignatureRefused" for alert in alerts)

        await until(arrived, 120)
        (alert,) = (one for one in alerts if one["labels"]["alertname"] == "ChutesSignatureRefused")
        assert alert["labels"]["hotkey"] == HOTKEY
        assert alert["annotations"]["dashboard"].startswith("http://localhost:3000/")
        for program in ("vmagent", "vmalert"):
            log = (tmp_path / f"{program}.log").read_text()
            assert [line for line in log.split("\n") if "\terror\t" in line] == []
