"""The recorded day as an exporter shows it, and as Prometheus sees it with the rules."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import subprocess
import tempfile
from collections import defaultdict
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from chutes_exporter.demo.day import open_day
from chutes_exporter.demo.replay import Replay
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from tests.support import PATIENCE, RULES, Clock, Labels, patient, read_reports

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

DAY: Final = open_day()
LAST: Final = 24 * 60
"""The last minute of the day."""
GROUPS: Final[list[dict[str, Any]]] = [
    group
    for path in sorted(RULES.glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
]
Pages = dict[int, str]
"""Pages of metrics by the minute of the day."""
Answer = dict[Labels, float]
"""The result of a query: a value for each set of labels."""


async def scraped_day(
    minutes: Iterable[int],
    *,
    keys: Sequence[str] = ("troubled", "healthy"),
    hotkeys: Sequence[str] = (),
    edits: Mapping[str, Callable[[Any], Any]] | None = None,
    **settings: Any,
) -> Pages:
    """Return the page of an exporter at some minutes of the day.

    Args:
        minutes: When it is scraped.
        keys: The miners whose keys it has.
        hotkeys: The miners that it watches without a key.
        edits: How answers of the API differ from the recorded ones, by endpoint.
        settings: More settings of the exporter.
    """
    pages = {}
    start, *_ = minutes = list(minutes)
    clock = Clock(DAY.first + 60 * start)
    async with Replay(DAY, at=60 * start, clock=clock) as replay:
        replay.edits.update(edits or {})
        watching = patient(
            replay.url,
            chain_url=replay.chain_url,
            keys=[DAY.miners[name] for name in keys],
            hotkeys=[DAY.miners[name].address for name in hotkeys],
            **settings,
        )
        async with Exporter(watching, clock=clock, monotonic=clock) as exporter:
            for minute in minutes:
                clock.now = DAY.first + 60 * minute
                # A page does not wait for what takes long, and shows the answer before.
                await exporter.feeds.read_all(exporter.plan.feeds, PATIENCE)
                await read_reports(exporter)
                page = await exporter.metrics(Format.TEXT, timeout=PATIENCE)
                pages[minute] = page.decode()
    return pages


class Firing(NamedTuple):
    """An alert of a miner, and of a server, a chute or a feed if it is about one."""

    alert: str
    severity: str
    hotkey: str
    place: str


class Evaluated:
    """What Prometheus makes of the day.

    Attributes:
        firing: The minutes at which each alert fires.
        texts: Summary and description of an alert by minute, at those that were asked for.
        answers: The result of each query by minute.
    """

    def __init__(self) -> None:
        self.firing: dict[Firing, list[int]] = defaultdict(list)
        self.texts: dict[Firing, dict[int, str]] = defaultdict(dict)
        self.answers: dict[str, dict[int, Answer]] = defaultdict(dict)


def evaluate(
    directory: Path,
    pages: Pages,
    *,
    step: int = 5,
    down: int = LAST + 1,
    targets: Sequence[str] = ("exporter:9109",),
    queries: Mapping[str, Iterable[int]] | None = None,
    texts_at: Iterable[int] = (),
) -> Evaluated:
    """Evaluate all rules on the pages of a day.

    Each page is what all scrapes until the next page show. The day begins at the Unix time 0, so
    that the hours in texts are those of the day.

    Args:
        directory: For promtool's file.
        pages: The pages.
        step: Minutes between two evaluations.
        down: The first minute at which scrapes fail.
        targets: The exporters that show these pages.
        queries: Queries, and the minutes at which they are asked.
        texts_at: The minutes at which the texts of alerts are read.
    """
    queries = {_FIRING: range(0, LAST + 1, step), **(queries or {})}
    names = set(re.findall(r"\w+", json.dumps([GROUPS, list(queries)])))
    test = {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": _sequence(values)}
            for name, values in _input_series(pages, names, targets, down)
        ],
        "promql_expr_test": [
            {"expr": query, "eval_time": f"{minute}m"}
            for query, minutes in queries.items()
            for minute in minutes
        ],
        "alert_rule_test": [
            {"alertname": alert, "eval_time": f"{minute}m", "exp_alerts": []}
            for alert in _ALERTS
            for minute in texts_at
        ],
    }
    file = directory / "day.yml"
    options = {"evaluation_interval": f"{step}m", "group_eval_order": _ORDER}
    rules = {"rule_files": [str(path) for path in sorted(RULES.glob("*.yml"))]}
    file.write_text(json.dumps({**rules, **options, "tests": [test]}))
    command = ["promtool", "test", "rules", str(file)]
    # It complains about each answer, because none is expected.
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return _read(run.stdout + run.stderr)


_FIRING: Final = 'ALERTS{alertstate="firing",severity!="none"}'
_ALERTS: Final = sorted(
    {rule["alert"] for group in GROUPS for rule in group["rules"] if "alert" in rule}
)
_ORDER: Final = sorted(
    (group["name"] for group in GROUPS), key=lambda name: not name.endswith("-recordings")
)
"""Recordings come before the alerts that read them."""


def _input_series(
    pages: Pages, names: Collection[str], targets: Iterable[str], down: int
) -> Iterator[tuple[str, list[str]]]:
    """Yield the series of these names, with their values in each minute. ``_`` is none."""
    starts = sorted(pages)
    lengths = [end - start for start, end in pairwise([*starts, LAST + 1])]
    values: dict[str, list[str]] = {}
    for number, start in enumerate(starts):
        for line in pages[start].splitlines():
            written, _, value = line.rpartition(" ")
            name = written.partition("{")[0]
            if line[0] == "#" or name not in names:
                continue
            if name.endswith("_timestamp_seconds"):
                value = repr(float(value) - DAY.first)
            values.setdefault(written, ["_"] * len(starts))[number] = value
    values["up"] = ["1"] * len(starts)
    for target in targets:
        labels = f'job="chutes",instance="{target}"}}'
        for written, parts in values.items():
            name, _, others = written.partition("{")
            minutes = ["_"] * starts[0]
            for value, length in zip(parts, lengths, strict=True):
                minutes += [value] * length
            minutes[down:] = ["0" if name == "up" else "_"] * (LAST + 1 - down)
            yield f"{name}{{{others[:-1]}{',' if others else ''}{labels}", minutes


def _sequence(values: Iterable[str]) -> str:
    """Write values in promtool's notation.

    ``3+0x4`` is five times a 3, and ``_x4`` is no value for 4 minutes. A series that ends gets the
    marker ``stale``, as after a scrape without it.
    """
    parts: list[str] = []
    for value, run in groupby(values):
        count = len(list(run))
        if value != "_":
            parts.append(f"{value}+0x{count - 1}")
            continue
        # Without a part, nothing was there that could end.
        parts.append("stale" if parts else "_")
        if count > 1:
            parts.append(f"_x{count - 1}")
    return " ".join(parts)


_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_ALERT: Final = re.compile(r"Labels:(.*)\n\s+Annotations:(.*)")
_COMPLAINT: Final = re.compile(
    rf"    (alertname|expr): ({_STRING}|\w+), time: (\w+), ?\n"
    r"(.*?)(?=\n    (?:alertname|expr): |\n\n|\Z)",
    re.DOTALL,
)


def _read(output: str) -> Evaluated:
    """Read what promtool got."""
    evaluated = Evaluated()
    for kind, asked, time, text in _COMPLAINT.findall(output):
        minute = _minutes(time)
        _, _, got = text.partition("got:")
        if kind == "alertname":
            for labels, notes in _ALERT.findall(got):
                told = dict(_labels(notes))
                firing = _firing(dict(_labels(labels)) | {"alertname": asked})
                evaluated.texts[firing][minute] = f"{told['summary']}\n{told['description']}"
            continue
        query = json.loads(asked)
        answer = {_labels(labels): float(value) for labels, value in _SAMPLE.findall(got)}
        if query == _FIRING:
            for labels in answer:
                evaluated.firing[_firing(dict(labels))].append(minute)
        else:
            evaluated.answers[query][minute] = answer
    return evaluated


_SAMPLE: Final = re.compile(rf"\w*(\{{(?:[^\"}}]|{_STRING})*\}}) ([-+\w.]+)")


def _labels(written: str) -> Labels:
    pairs = re.findall(rf"(\w+)=({_STRING})", written)
    return frozenset((name, json.loads(value)) for name, value in pairs if name != "__name__")


def _firing(labels: Mapping[str, str]) -> Firing:
    place = next((labels[of] for of in ("server", "chute", "feed") if of in labels), "")
    return Firing(labels["alertname"], labels["severity"], labels.get("hotkey", ""), place)


def _minutes(duration: str) -> int:
    units = {"d": 24 * 60, "h": 60, "m": 1, "s": 0}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([dhms])", duration))


@functools.cache
def day_of_both() -> Pages:
    """Return the pages of an exporter that watches both miners, at each new answer."""
    return asyncio.run(scraped_day(range(0, LAST + 1, 10)))


@functools.cache
def whole_day() -> Evaluated:
    """Return what Prometheus makes of :func:`day_of_both`, with all texts of alerts."""
    with tempfile.TemporaryDirectory() as directory:
        return evaluate(Path(directory), day_of_both(), texts_at=range(0, LAST + 1, 5))
