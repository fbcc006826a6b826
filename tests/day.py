"""The recorded day as an exporter shows it, and as Prometheus sees it with the rules."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from tests.exporters import asked_by, patient, read_reports
from tests.prometheus.rule_files import GROUPS
from tests.promtool import FIRING, Answer, ask, sequence
from tests.replay import Fault, Replay
from tests.support import PATIENCE, Clock, recorded_day, until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from tests.pages import Labels

DAY: Final = recorded_day()
LAST: Final = 24 * 60
"""The last minute of the day."""
EVERY: Final = 20
"""Minutes between two scrapes of the day."""
COSTS: Final = {"b300": 3.5, "h200": 1.9, "pro_6000": 0.8, "4090": 0.25}
"""The cost of a GPU in dollars an hour, by model."""
Pages = dict[int, str]
"""Pages of metrics by the minute of the day."""

# A rule's answer is 5 minutes old at most when Prometheus 2 looks back for it, and younger for
# Prometheus 3, which therefore needs more evaluations.
_STEP: Final = int(os.environ.get("CHUTES_EXPORTER_TEST_STEP", "5"))
_PAST_THE_HOUR: Final = 5
"""The minute of the hour in which the day begins."""
_ALERTS: Final = sorted(
    {rule["alert"] for group in GROUPS for rule in group["rules"] if "alert" in rule}
)


async def scraped_day(
    minutes: Sequence[int],
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
    start = 60 * minutes[0]
    clock = Clock(DAY.first + start)
    async with Replay(DAY, at=start, clock=clock) as replay:
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
                pages[minute] = await _page_with_all(exporter)
                replay.faults.update(faults or {})
    return pages


async def _page_with_all(exporter: Exporter) -> str:
    """Return an exporter's page with what the API and the chain say now."""
    await exporter.feeds.read_all(exporter.plan.feeds, PATIENCE)
    await read_reports(exporter)
    # A page does not wait for the chain, and shows the answer before.
    await until(lambda: not asked_by(exporter))
    page = await exporter.metrics(Format.TEXT, timeout=PATIENCE)
    # What the page asked for must not see another time.
    await until(lambda: not asked_by(exporter))
    return page.decode()


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


class Firing(NamedTuple):
    """An alert of a miner, and of a server, a chute or a feed if it is about one."""

    alert: str
    severity: str
    hotkey: str
    place: str


@dataclass(frozen=True)
class Evaluated:
    """What Prometheus makes of the day.

    Attributes:
        step: Minutes between two evaluations.
        firing: The minutes at which each alert fires.
        texts: Summary and description of an alert by minute, at those that were asked for.
        answers: The result of each query by minute.
    """

    step: int
    firing: Mapping[Firing, list[int]]
    texts: Mapping[Firing, Mapping[int, str]]
    answers: Mapping[str, Mapping[int, Answer]]

    def text(self, firing: Firing, minute: int) -> str:
        """Return the text that was asked for at this minute or later, the empty one without it."""
        texts = self.texts[firing]
        later = [text for at, text in sorted(texts.items()) if at >= minute]
        return later[0] if later else ""


def evaluate(
    pages: Pages,
    *,
    step: int = _STEP,
    down: int = LAST + 1,
    targets: Sequence[str] = ("exporter:9109",),
    queries: Mapping[str, Collection[int]] | None = None,
    texts_at: Collection[int] = (),
    rules: bool = True,
) -> Evaluated:
    """Evaluate all rules on the pages of a day.

    Each page is what all scrapes until the next page show. The first page is at 5 minutes past an
    hour, as it was in the day, but in the year 1970: the texts about a whole day have the hours of
    the day, and these 5 minutes.

    Args:
        pages: The pages.
        step: Minutes between two evaluations. Prometheus has one, which takes long.
        down: The first minute at which scrapes fail.
        targets: The exporters that show these pages.
        queries: Queries, and the minutes at which they are asked.
        texts_at: The minutes at which the texts of alerts are read.
        rules: Whether Prometheus has the rules.
    """
    first = min(pages)
    queries = {FIRING: range(first, LAST + 1, step), **(queries or {})}
    names = set(re.findall(r"\w+", json.dumps([GROUPS, list(queries)])))
    answers = ask(
        _input_series(pages, names, targets, down),
        queries,
        dict.fromkeys(_ALERTS, texts_at),
        begin=first - _PAST_THE_HOUR,
        evaluation_interval=f"{step}m",
        **({} if rules else {"rule_files": []}),
    )
    firing: dict[Firing, list[int]] = defaultdict(list)
    for minute, answer in answers.queries[FIRING].items():
        for labels in answer:
            firing[_firing(labels)].append(minute)
    texts: dict[Firing, dict[int, str]] = defaultdict(dict)
    for minute, alerts in answers.alerts.items():
        for labels, notes in alerts.items():
            texts[_firing(labels)][minute] = f"{notes['summary']}\n{notes['description']}"
    return Evaluated(step, firing, texts, answers.queries)


def _firing(alert: Labels) -> Firing:
    labels = dict(alert)
    place = next((labels[of] for of in ("server", "chute", "feed") if of in labels), "")
    return Firing(labels["alertname"], labels["severity"], labels.get("hotkey", ""), place)


def _input_series(
    pages: Pages, names: Collection[str], targets: Sequence[str], down: int
) -> list[dict[str, str]]:
    """Return the series of these names with a value a minute, as promtool reads them."""
    starts = sorted(start for start in pages if start < down)
    lengths = [end - start for start, end in pairwise([*starts, min(down, LAST + 1)])]
    # Before the first page, and while scrapes fail, nothing is shown.
    lengths = [_PAST_THE_HOUR, *lengths, LAST + 1 - down]
    shown = ["", *(pages[start] for start in starts), ""]
    begin = DAY.first + 60 * (starts[0] - _PAST_THE_HOUR)
    values_by_series = _values_by_series(shown, names, begin)
    values_by_series["up"] = ["_", *["1"] * len(starts), "0"]
    written = []
    # A page has no order. With one, equal series rank in the same way in each run.
    for series, values in sorted(values_by_series.items()):
        name, _, labels = series.removesuffix("}").partition("{")
        each_minute = sequence(chain.from_iterable(map(repeat, values, lengths)))
        for target in targets:
            of_target = f'{name}{{job="chutes",instance="{target}",{labels}}}'
            written.append({"series": of_target, "values": each_minute})
    return written


def _values_by_series(
    pages: Sequence[str], names: Collection[str], begin: float
) -> dict[str, list[str]]:
    """Return what each page says about each series of these names, ``_`` where it says nothing.

    Times are seconds since ``begin``, a Unix time.
    """
    values: dict[str, list[str]] = {}
    for number, page in enumerate(pages):
        for line in page.split("\n"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            if name not in names:
                continue
            if name.endswith("_timestamp_seconds"):
                value = repr(float(value) - begin)
            values.setdefault(series, ["_"] * len(pages))[number] = value
    return values
