"""VictoriaMetrics as docs/operations.md shows it: behind Prometheus, and instead of Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.commands.serve import Service
from chutes_exporter.config import Address
from grafana.queries import RULES
from tests.alertmanager.test_routing import SIGNED, alertmanager
from tests.day import LAST, day_of_both, evaluate
from tests.exporters import watching
from tests.grafana.answers import MOMENTS, QUERIES, filled_in
from tests.prometheus.rule_files import fast_rules
from tests.prometheus.server import Prometheus
from tests.replay import Fault, Replay
from tests.support import HOTKEY, PATIENCE, ROOT, fetch, free_port, until, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.promtool import Answer

pytestmark = pytest.mark.newest

_SECTION = (ROOT / "docs" / "operations.md").read_text().partition("## VictoriaMetrics\n")[2]
DOCUMENTED = {
    words[0]: words
    for block in re.findall(r"```sh\n(.*?)```", _SECTION.partition("\n## ")[0], re.DOTALL)
    for words in map(shlex.split, block.replace("\\\n", "").splitlines())
}
"""The commands of the document, by program."""
STORE = "localhost:8428"
"""Where VictoriaMetrics listens in the document."""


@contextlib.contextmanager
def running(command: Sequence[str], directory: Path) -> Iterator[str]:
    """Run one of VictoriaMetrics' programs on a free port; yields its URL when it is healthy."""
    address = f"127.0.0.1:{free_port()}"
    log = directory / f"{command[0]}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, f"-httpListenAddr={address}"], cwd=directory, stdout=file, stderr=file
        )
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
    # Prometheus' default lookback. The store derives its own from the interval of samples, and
    # bridges the hours between the samples of a test's history.
    flags = ["-search.maxLookback=5m", "-search.latencyOffset=0s", "-search.disableCache"]
    with running([*command, *flags], directory) as url:
        yield url


EVERYTHING = 'label_replace({__name__!=""}, "name", "$1", "__name__", "(.+)")'
"""Scraped and recorded series, and alerts, with their names in a label."""


def imported(answers: Mapping[int, Answer], url: str) -> None:
    """Give a store the answers to `EVERYTHING` by minute, the last of which is now."""
    now = int(time.time()) // 60 * 60
    lines = []
    for minute, answer in answers.items():
        at = now - 60 * (LAST - minute)
        for labels, value in answer.items():
            others = dict(labels)
            name = others.pop("name")
            is_time = name.endswith(("_timestamp_seconds", "_FOR_STATE"))
            moved = value + is_time * (at - 60 * (minute - min(answers) + 5))
            written = ",".join(f"{label}={json.dumps(text)}" for label, text in others.items())
            lines.append(f"{name}{{{written}}} {moved!r} {1000 * at}\n")
    data = "".join(lines).encode()
    with urllib.request.urlopen(f"{url}/api/v1/import/prometheus", data, timeout=PATIENCE):
        pass


@pytest.mark.parametrize("moment", ["sick", "healthy"])
def test_the_queries_of_boards_have_data_in_the_store_where_they_have_it_in_prometheus(
    moment: str, tmp_path: Path
) -> None:
    hotkey = MOMENTS[moment].hotkey
    minutes = range(LAST - 120, LAST + 1, 5)
    queries = {filled_in(query, [hotkey]): [LAST] for query in QUERIES.values()}
    answers = evaluate(
        # The store does not know that a series ended, so nothing changes in the end.
        {minute: day_of_both()[minute] for minute in minutes[:-1:4]},
        queries=queries | {EVERYTHING: minutes},
    ).answers
    with victoria_metrics(tmp_path / "store") as url:
        imported(answers[EVERYTHING], url)
        store = Prometheus(tmp_path, url=url)
        store.at = int(time.time()) // 60 * 60
        wait_for(lambda: len(store.query(EVERYTHING)) >= len(answers[EVERYTHING][LAST]))
        in_store = {query for query in queries if store.query(query)}
    assert in_store == {query for query in queries if answers[query][LAST]}


def write_documented_files(directory: Path, exporter: str) -> None:
    """Write the files that the documented commands read, with short times and an exporter's
    address.
    """
    for folder in ("rules", "targets"):
        (directory / folder).mkdir(parents=True)
    config = (ROOT / "prometheus" / "prometheus.yml").read_text()
    fast_config = re.sub(r"(scrape_\w+): \d+\w", r"\1: 1s", config)
    (directory / "prometheus.yml").write_text(fast_config)
    (directory / "targets" / "exporter.yml").write_text(f'- targets: ["{exporter}"]\n')
    fast_rules(directory / "rules")


async def test_vmagent_scrapes_the_page_and_vmalert_evaluates_the_rules(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        replay = await stack.enter_async_context(Replay())
        refused = Fault(status=401, body=b'{"detail": "Invalid signature"}')
        replay.faults.update(dict.fromkeys(SIGNED, refused))
        settings = watching(replay.url, listen=(Address("127.0.0.1"),))
        service = await stack.enter_async_context(Service(settings))
        write_documented_files(tmp_path / "prometheus", str(service.addresses[0]))
        url = stack.enter_context(victoria_metrics(tmp_path / "store"))
        # Nobody listens at the address of the receivers: no notification is needed here.
        address = stack.enter_context(alertmanager(tmp_path / "alertmanager", "http://127.0.0.1:9"))

        for program, flags in (("vmagent", ()), ("vmalert", ("-rule.evalDelay=0s",))):
            words = (
                word.replace(f"http://{STORE}", url).replace("localhost:9093", address)
                for word in DOCUMENTED[program]
            )
            command = [*words, "-remoteWrite.flushInterval=1s", *flags]
            await asyncio.to_thread(stack.enter_context, running(command, tmp_path))
        store = Prometheus(tmp_path, url=url)

        # The whole page arrives.
        await asyncio.to_thread(store.wait_for, 'up{job="chutes"} == 1')
        watched = await asyncio.to_thread(store.wait_for, "chutes_miner_watched")
        assert {dict(labels)["hotkey"] for labels in watched} == {HOTKEY}
        # A recording rule is evaluated, and its result is in the store.
        await asyncio.to_thread(store.wait_for, RULES)
        # An alert fires and reaches Alertmanager, with the link to its board.
        alerts: list[dict[str, Any]] = []

        async def arrived() -> bool:
            with await asyncio.to_thread(
                urllib.request.urlopen, f"http://{address}/api/v2/alerts", timeout=10
            ) as got:
                alerts[:] = json.load(got)
            return any(alert["labels"]["alertname"] == "ChutesSignatureRefused" for alert in alerts)

        await until(arrived, 120)
        (alert,) = (one for one in alerts if one["labels"]["alertname"] == "ChutesSignatureRefused")
        assert alert["labels"]["hotkey"] == HOTKEY
        assert alert["annotations"]["dashboard"].startswith("http://localhost:3000/")
        for program in ("vmagent", "vmalert"):
            log = (tmp_path / f"{program}.log").read_text()
            assert [line for line in log.split("\n") if "\terror\t" in line] == []
