"""The recorded day as an exporter shows it, and as Prometheus sees it with the rules."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import subprocess
from collections import defaultdict
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from tests.exporters import asked_by, patient, read_reports
from tests.pages import Labels
from tests.prometheus.rule_files import EVALUATION_ORDER, GROUPS, RULES
from tests.replay import Fault, Replay
from tests.support import PATIENCE, Clock, recorded_day, until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

DAY: Final = recorded_day()
LAST: Final = 24 * 60
"""The last minute of the day."""
COSTS: Final = {"b300": 3.5, "h200": 1.9, "pro_6000": 0.8, "4090": 0.25}
"""The cost of a GPU in dollars an hour, by model."""
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
    faults: Mapping[str, Fault] | None = None,
    **settings: Any,
) -> Pages:
    """Return the page of an exporter at some minutes of the day.

    Args:
        minutes: When it is scraped.
        keys: The miners whose keys it has.
        hotkeys: The miners that it watches without a key.
        edits: How answers of the API differ from the recorded ones, by endpoint.
        faults: Endpoints that fail after the first page.
        settings: More settings of the exporter.
    """
    pages = {}
    start, *_ = minutes = list(minutes)
    clock = Clock(DAY.first + 60 * start)
    async with Replay(DAY, at=60 * start, clock=clock) as replay:
        replay.edits.update(edits or {})
        watching: dict[str, Any] = {
            "chain_url": replay.chain_url,
            "keys": [DAY.miners[name] for name in keys],
            "hotkeys": [DAY.miners[name].address for name in hotkeys],
            **settings,
        }
        async with Exporter(
            patient(replay.url, **watching), clock=clock, monotonic=clock
        ) as exporter:
            for minute in minutes:
                clock.now = DAY.first + 60 * minute
                await exporter.feeds.read_all(exporter.plan.feeds, PATIENCE)
                await read_reports(exporter)
                # A page does not wait for the chain, and shows the answer before.
                await until(lambda: not asked_by(exporter))
                page = await exporter.metrics(Format.TEXT, timeout=PATIENCE)
                pages[minute] = page.decode()
                # What the page asked for must not see another time.
                await until(lambda: not asked_by(exporter))
                replay.faults.update(faults or {})
    return pages


EVERY: Final = 20
"""Minutes between two scrapes of the day."""
# A rule's answer is 5 minutes old at most when Prometheus 2 looks back for it, and younger for
# Prometheus 3, which therefore needs more evaluations.
_STEP: Final = int(os.environ.get("CHUTES_EXPORTER_TEST_STEP", "5"))


class Firing(NamedTuple):
    """An alert of a miner, and of a server, a chute or a feed if it is about one."""

    alert: str
    severity: str
    hotkey: str
    place: str


class Evaluated:
    """What Prometheus makes of the day.

    Attributes:
        step: Minutes between two evaluations.
        firing: The minutes at which each alert fires.
        texts: Summary and description of an alert by minute, at those that were asked for.
        answers: The result of each query by minute.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.firing: dict[Firing, list[int]] = defaultdict(list)
        self.texts: dict[Firing, dict[int, str]] = defaultdict(dict)
        self.answers: dict[str, dict[int, Answer]] = defaultdict(dict)

    def text(self, firing: Firing, minute: int) -> str:
        """Return the text that was asked for at this minute or later, the empty one without it."""
        texts = self.texts[firing]
        later = [text for at, text in sorted(texts.items()) if at >= minute]
        return later[0] if later else ""


def evaluate(
    directory: Path,
    pages: Pages,
    *,
    step: int = _STEP,
    down: int = LAST + 1,
    targets: Sequence[str] = ("exporter:9109",),
    queries: Mapping[str, Iterable[int]] | None = None,
    texts_at: Iterable[int] = (),
    rules: bool = True,
) -> Evaluated:
    """Evaluate all rules on the pages of a day.

    Each page is what all scrapes until the next page show. The first page is at 5 minutes past an
    hour, as it was in the day, but in the year 1970: the texts about a whole day have the hours of
    the day, and these 5 minutes.

    Args:
        directory: For promtool's file.
        pages: The pages.
        step: Minutes between two evaluations. Prometheus has one, which takes long.
        down: The first minute at which scrapes fail.
        targets: The exporters that show these pages.
        queries: Queries, and the minutes at which they are asked.
        texts_at: The minutes at which the texts of alerts are read.
        rules: Whether Prometheus has the rules.
    """
    begin = min(pages) - _PAST_THE_HOUR
    queries = {_FIRING: range(min(pages), LAST + 1, step), **(queries or {})}
    names = set(re.findall(r"\w+", json.dumps([GROUPS, list(queries)])))
    test = {
        "interval": "1m",
        "input_series": _input_series(pages, names, targets, down),
        "promql_expr_test": [
            {"expr": query, "eval_time": f"{minute - begin}m"}
            for query, minutes in queries.items()
            for minute in minutes
        ],
        "alert_rule_test": [
            {"alertname": alert, "eval_time": f"{minute - begin}m", "exp_alerts": []}
            for alert in _ALERTS
            for minute in texts_at
        ],
    }
    file = directory / "day.yml"
    options = {
        "evaluation_interval": f"{step}m",
        "group_eval_order": EVALUATION_ORDER if rules else [],
    }
    files = {"rule_files": [str(path) for path in sorted(RULES.glob("*.yml")) if rules]}
    file.write_text(json.dumps({**files, **options, "tests": [test]}))
    command = ["promtool", "test", "rules", str(file)]
    # It complains about each answer, because none is expected.
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    output = run.stdout + run.stderr
    if ", err: " in output or "FAILED" not in output:
        raise ValueError(output[-10_000:])
    evaluated = Evaluated(step)
    _read(output, begin, evaluated)
    for query, minutes in queries.items():
        for minute in minutes:
            # It does not complain where there is no answer.
            evaluated.answers[query].setdefault(minute, {})
    return evaluated


_PAST_THE_HOUR: Final = 5
"""The minute of the hour in which the day begins."""
_FIRING: Final = 'ALERTS{alertstate="firing",severity!="none"}'
_ALERTS: Final = sorted(
    {rule["alert"] for group in GROUPS for rule in group["rules"] if "alert" in rule}
)


def _input_series(
    pages: Pages, names: Collection[str], targets: Iterable[str], down: int
) -> list[dict[str, str]]:
    """Return the series of these names, as promtool reads them."""
    starts = sorted(start for start in pages if start < down)
    lengths = [end - start for start, end in pairwise([*starts, min(down, LAST + 1)])]
    values: dict[str, list[str]] = {"up": ["1"] * len(starts)}
    for number, start in enumerate(starts):
        for line in pages[start].splitlines():
            written, _, value = line.rpartition(" ")
            name = written.partition("{")[0]
            if line[0] == "#" or name not in names:
                continue
            if name.endswith("_timestamp_seconds"):
                value = repr(float(value) - DAY.first - 60 * (starts[0] - _PAST_THE_HOUR))
            values.setdefault(written, [""] * len(starts))[number] = value
    written_series = []
    for written, parts in values.items():
        name, _, labels = written.rstrip("}").partition("{")
        after = "0" if name == "up" else ""
        sequence = _sequence(["", *parts, after], [_PAST_THE_HOUR, *lengths, LAST + 1 - down])
        for target in targets:
            labels_of_target = f'{labels}{"," if labels else ""}job="chutes",instance="{target}"'
            series = f"{name}{{{labels_of_target}}}"
            written_series.append({"series": series, "values": sequence})
    return written_series


def _sequence(values: Iterable[str], lengths: Iterable[int]) -> str:
    """Write values and for how many minutes each holds in promtool's notation. Empty ones are none.

    ``3+0x4`` is five times a 3, and ``_x4`` is no value for 4 minutes. A series that ends gets the
    marker ``stale``, as after a scrape without it.
    """
    parts: list[str] = []
    held = zip(values, lengths, strict=True)
    for value, run in groupby(held, key=lambda one: one[0]):
        count = sum(length for _, length in run)
        if count > 0 and value:
            parts.append(f"{value}+0x{count - 1}")
        elif count > 0:
            parts.append(f"stale _x{count - 1}" if parts else f"_x{count}")
    return " ".join(parts)


_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_ALERT: Final = re.compile(r"Labels:(.*)\n\s+Annotations:(.*)")
_COMPLAINT: Final = re.compile(
    rf"    (alertname|expr): ({_STRING}|\w+), time: (\w+), ?\n"
    r"(.*?)(?=\n    (?:alertname|expr): |\n\n|\Z)",
    re.DOTALL,
)


def _read(output: str, begin: int, evaluated: Evaluated) -> None:
    """Read what promtool got, whose first minute is ``begin``."""
    for kind, asked, time, text in _COMPLAINT.findall(output):
        minute = begin + _minutes(time)
        _, _, got = text.partition("got:")
        if kind == "alertname":
            for labels, notes in _ALERT.findall(got):
                annotations = dict(_labels(notes))
                firing = _firing(dict(_labels(labels)) | {"alertname": asked})
                text_lines = (annotations["summary"], annotations["description"])
                evaluated.texts[firing][minute] = "\n".join(text_lines)
            continue
        query = json.loads(asked)
        answer = {_labels(labels): float(value) for labels, value in _SAMPLE.findall(got)}
        if query == _FIRING:
            for labels in answer:
                evaluated.firing[_firing(dict(labels))].append(minute)
        else:
            evaluated.answers[query][minute] = answer


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
    """Return the pages of an exporter that watches both miners."""
    minutes = {*range(0, LAST + 1, EVERY)}
    # At each new answer when one is doubted, in a crash loop, and when a server has died.
    for hour in (7, 15, 21):
        minutes.update(range(60 * hour, 60 * hour + 60, 10))
    return asyncio.run(
        scraped_day(sorted(minutes), collectors={"job_details": True}, gpu_costs=COSTS)
    )
