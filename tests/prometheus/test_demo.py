"""The demo and the rules, at the intervals of `make stack`: the first alert fires within 3 minutes of the start."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import TYPE_CHECKING, Any

import httpx

from chutes_exporter.simulator import DemoWorld, Simulator
from tests.prometheus.history import FILES, GROUPS, Scrape, read
from tests.support import HOTKEY, NOON, Clock, served_exporter, watching

if TYPE_CHECKING:
    from pathlib import Path

STEP = 15
"""Seconds between two scrapes, and between two evaluations."""
LONGEST_START = 15
"""Seconds until Prometheus runs: it starts after the exporter and Alertmanager."""


async def scrape(seconds: int) -> dict[int, Scrape]:
    """Return the pages of a new demo by the second of their scrape. The first scrape is as late as it can be."""
    clock = Clock()
    async with (
        Simulator(DemoWorld(start=NOON), clock=clock) as simulator,
        served_exporter(watching(simulator.url), clock, monotonic=clock) as (url, _),
        httpx.AsyncClient(timeout=60) as client,
    ):
        pages = {}
        for second in range(STEP, seconds + 1, STEP):
            clock.now = NOON + second
            pages[second] = read((await client.get(f"{url}/metrics")).text)
    return pages


def evaluate(directory: Path, pages: dict[int, Scrape], tests: list[dict[str, Any]]) -> None:
    """Evaluate the rules with promtool; alerts see what was recorded at the evaluation before, as at worst."""
    columns = [pages.get(second, {}) for second in range(0, max(pages) + 1, STEP)]
    series = [
        {
            "series": name.replace("{", '{job="chutes",instance="localhost:10064",', 1).replace(",}", "}"),
            "values": " ".join(column.get(name, "_") for column in columns),
        }
        for name in sorted({name for column in columns for name in column})
    ]
    groups = sorted((group["name"] for group in GROUPS), key=lambda name: name == "chutes-newest")
    path = directory / "test.yml"
    path.write_text(
        json.dumps(
            {
                "rule_files": list(map(str, FILES)),
                "evaluation_interval": f"{STEP}s",
                "group_eval_order": groups,
                "tests": [{"interval": f"{STEP}s", "input_series": series, "promql_expr_test": tests}],
            }
        )
    )
    result = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_first_alert_fires_within_3_minutes(tmp_path: Path) -> None:
    firing = 'count by (alertname, hotkey) (ALERTS{alertstate="firing",alertname!="Watchdog"})'
    end = 180 - LONGEST_START
    labels = f'{{alertname="ChutesInstancePurgeNear", hotkey="{HOTKEY}"}}'
    evaluate(
        tmp_path,
        asyncio.run(scrape(end)),
        [
            {"expr": firing, "eval_time": "1m", "exp_samples": []},
            {"expr": firing, "eval_time": f"{end}s", "exp_samples": [{"labels": labels, "value": 1}]},
        ],
    )
