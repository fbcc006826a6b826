"""Pages of a real exporter, a minute apart, as the input of promtool's unit tests for rules."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from tests.support import NOON, RULES, Clock, served_exporter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from chutes_exporter.config import Settings

FILES = sorted(RULES.glob("*.yml"))
GROUPS: list[dict[str, Any]] = [group for path in FILES for group in yaml.safe_load(path.read_text())["groups"]]
ALERTS: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
"""Rules of alerts. Several can share a name, with other severities."""
_USED = frozenset(re.findall(r"\bchutes_\w+", " ".join(map(str, GROUPS))))
_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")

LEAN = dict.fromkeys(
    (
        "bounties",
        "images",
        "maintenance",
        "metrics",
        "private_gate",
        "rolling_updates",
        "stats_per_chute",
        "unique_chute_history",
        "utilization",
    ),
    False,
)
"""Without the collectors that no rule needs."""

Scrape = dict[str, str]
"""The samples of a page by series, as far as rules use them. Times count from the beginning of the history."""


def read(page: str) -> Scrape:
    """Read a page in the text format, whose times begin at noon."""
    scrape = {}
    for line in page.split("\n"):
        found = _SAMPLE.fullmatch(line) if line.startswith("chutes_") else None
        if found is None or found[1] not in _USED:
            continue
        name, labels, value = found.groups()
        if name.endswith("_timestamp_seconds"):
            value = f"{float(value) - NOON:.3f}"
        # promtool reads a sign as the step of a sequence unless a number stands before it.
        scrape[f"{name}{{{labels or ''}}}"] = f"{float(value):f}"
    return scrape


async def play(
    settings: Settings,
    clock: Clock,
    minutes: int,
    happens: Mapping[int, Callable[[], None]] | None = None,
    every: int = 1,
) -> list[Scrape]:
    """Scrape an exporter, and let things happen half a minute before the scrapes of some minutes.

    Args:
        settings: The exporter's.
        clock: The world's and the exporter's.
        minutes: How many scrapes to return, one a minute.
        happens: By minute.
        every: Minutes between two requests; each page stands for the minutes until the next.
    """
    happens = happens or {}
    scrapes: list[Scrape] = []
    async with (
        served_exporter(settings, clock, monotonic=clock) as (url, _),
        httpx.AsyncClient(timeout=30) as client,
    ):
        for minute in range(minutes):
            clock.now = NOON + 60 * minute - 30
            if minute in happens:
                happens[minute]()
            clock.now += 30
            scrapes.append(scrapes[-1] if minute % every else read((await client.get(f"{url}/metrics")).text))
    return scrapes


@dataclass(frozen=True)
class Target:
    """The scrapes of one exporter.

    Attributes:
        scrapes: By minute; None for a scrape that fails. In minutes that are missing there is no such target.
        instance: Its address.
        labels: Its other labels.
    """

    scrapes: Mapping[int, Scrape | None]
    instance: str = "exporter:10064"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Firing:
    """An alert that must fire.

    Attributes:
        labels: All but its name and severity.
    """

    name: str
    severity: str
    labels: Mapping[str, str]
    summary: str
    description: str


def _values(values: Iterable[str]) -> str:
    """Write values in promtool's notation."""
    parts = []
    for value, repeated in groupby(values):
        count = len(list(repeated))
        if value == "stale":
            parts += [value] * count
        elif value == "_":
            parts.append(f"_x{count}")
        else:
            parts.append(f"{value}x{count - 1}")
    return " ".join(parts)


def input_series(targets: Iterable[Target], end: int, hotkey: str | None = None) -> list[dict[str, str]]:
    """Write the series of some targets from minute 0 to the end; of one miner and the platform where it is named."""
    written = []
    for target in targets:
        own = "".join(
            f",{name}={json.dumps(value)}"
            for name, value in {"job": "chutes", "instance": target.instance, **target.labels}.items()
        )
        columns: list[Scrape] = []
        for minute in range(end + 1):
            scrape = target.scrapes.get(minute)
            up = {} if minute not in target.scrapes else {"up{}": str(int(scrape is not None))}
            columns.append({**(scrape or {}), **up})
        series = {
            key
            for column in columns
            for key in column
            if hotkey is None or re.search(f'hotkey="({hotkey})?"', key) or "hotkey=" not in key
        }
        for key in sorted(series):
            values, there = [], False
            for column in columns:
                value = column.get(key)
                values.append(value if value is not None else "stale" if there else "_")
                there = value is not None
            name, _, labels = key.partition("{")
            written.append({"series": f"{name}{{{(labels[:-1] + own).lstrip(',')}}}", "values": _values(values)})
    return written


def _expected(firing: Firing) -> dict[str, Any]:
    (rule,) = (one for one in ALERTS if (one["alert"], one["labels"]["severity"]) == (firing.name, firing.severity))
    notes = rule["annotations"]
    board = notes.get("dashboard", "").replace("{{ $externalLabels.grafana_url }}", "https://grafana.example")
    hotkey = firing.labels.get("hotkey", "")
    board = re.sub(r"\{\{ with \$labels.hotkey \}\}(.*)\{\{ end \}\}", r"\1" if hotkey else "", board)
    return {
        "exp_labels": {**firing.labels, "severity": firing.severity},
        "exp_annotations": {
            **notes,
            "summary": firing.summary,
            "description": firing.description,
            **({"dashboard": re.sub(r"\{\{ (\$labels.hotkey|\.) \}\}", hotkey, board)} if board else {}),
        },
    }


def check(
    directory: Path,
    series: list[dict[str, str]],
    end: int,
    *,
    firing: Mapping[int, Collection[Firing]],
    ever: Collection[tuple[str, str]],
    quiet: Collection[int] = (),
    every: int = 1,
) -> None:
    """Evaluate all rules with promtool, and compare.

    Args:
        directory: For its file.
        series: What Prometheus has.
        end: The last minute.
        firing: Alerts that fire at a minute, with their texts.
        ever: All alerts that fire at any minute by name and severity, without the Watchdog.
        quiet: Minutes at which nothing fires.
        every: Minutes between two evaluations.
    """
    tests: dict[str, Any] = {
        "interval": "1m",
        "external_labels": {"grafana_url": "https://grafana.example"},
        "input_series": series,
        "alert_rule_test": [
            {
                "eval_time": f"{minute}m",
                "alertname": name,
                "exp_alerts": [_expected(one) for one in alerts if one.name == name],
            }
            for minute, alerts in firing.items()
            for name in {one.name for one in alerts}
        ],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname, severity) (ALERTS{alertstate="firing",alertname!="Watchdog"})',
                "eval_time": f"{minute}m",
                "exp_samples": [],
            }
            for minute in quiet
        ]
        + [
            {
                "expr": "group by (alertname, severity) "
                f'(max_over_time(ALERTS{{alertstate="firing",alertname!="Watchdog"}}[{end + 1}m]))',
                "eval_time": f"{end}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{name}", severity="{severity}"}}', "value": 1}
                    for name, severity in sorted(ever)
                ],
            }
        ],
    }
    path = directory / "test.yml"
    written = {
        "rule_files": list(map(str, FILES)),
        "evaluation_interval": f"{every}m",
        # Prometheus evaluates groups at different moments. Here, alerts see what was recorded in the same minute.
        "group_eval_order": sorted((group["name"] for group in GROUPS), key=lambda name: name != "chutes-newest"),
        "tests": [tests],
    }
    path.write_text(json.dumps(written))
    result = subprocess.run(
        ["promtool", "test", "rules", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
