"""Runs a collector on answers as the API sends them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msgspec import structs

from chutes_exporter.api.answer import Answer
from chutes_exporter.api.decoding import Shape, StreamShape, Tally
from chutes_exporter.collectors import Answers, Miners, base
from chutes_exporter.feeds.definitions import AUDIT_REPORT
from chutes_exporter.feeds.fleet import Joined
from chutes_exporter.feeds.reports import Reports
from tests.support import NOON

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping

    from chutes_exporter.collectors import Collector
    from chutes_exporter.config import ChutesChoice, MinersChoice
    from chutes_exporter.feeds.feed import Feed

ME = "me"
NOON_TEXT = "2026-11-24T12:00:00+00:00"

Samples = dict[str, float]
"""Values by series, written like ``chutes_images{status=built}``. Empty labels are left out."""


def of(made: Samples, *metrics: str) -> Samples:
    """Return the samples of some metrics."""
    return {key: value for key, value in made.items() if key.partition("{")[0] in metrics}


def collected(
    collector: Collector,
    answers: Mapping[Feed[Any], Any],
    *,
    watched: Iterable[str] = (ME,),
    miners: MinersChoice = "watched",
    chutes: ChutesChoice = "all",
    doubted: Collection[Feed[Any]] = (),
    succeeds: bool = True,
) -> Samples:
    """Return what a collector makes of answers.

    Args:
        collector: The collector.
        answers: What the API sends, as JSON; of a stream, the list of its records.
        watched: The hotkeys that the user named. The answers of feeds that need a hotkey are about
            ``ME``.
        miners: Which other miners are exported.
        chutes: Which chutes are exported.
        doubted: The feeds whose answers are doubted.
        succeeds: Whether the collector is expected to succeed for the miner.
    """
    known = {}
    for feed, body in answers.items():
        known[feed.name] = answer(feed, body, doubted=feed in doubted)
    joined = Joined({"": known}, frozenset(watched))
    out = base.Samples()
    # First for the platform, then for the miner.
    for hotkey in ("", ME):
        exported = Miners(frozenset(watched), miners, hotkey, chutes=chutes)
        answered = Answers(known, joined)
        assert collector.run(answered, exported, out) is (succeeds or not hotkey)
    samples = {}
    declared = {metric.name for metric in collector.metrics}
    for family in out.families():
        for sample in family.samples:
            assert sample.name in declared
            samples[_written(sample.name, sample.labels)] = sample.value
    return samples


def _written(name: str, labels: Mapping[str, str]) -> str:
    """Return a series as :data:`Samples` writes it."""
    pairs = ",".join(f"{label}={text}" for label, text in labels.items() if text)
    return f"{name}{{{pairs}}}" if pairs else name


def answer(feed: Feed[Any], body: Any, *, doubted: bool = False) -> Answer[Any]:
    """Return the answer of a feed from its JSON; of a stream, that is the list of its records."""
    if isinstance(feed.shape, StreamShape):
        text = "".join(f"data: {json.dumps(record)}\n\n" for record in body) or "data: NO_ITEMS\n\n"
    else:
        text = json.dumps(body)
    good = asyncio.run(decoded(feed, text.encode()))
    return replace(good, doubt="shrunk") if doubted else good


async def decoded(feed: Feed[Any], body: bytes, *, report_end: float = NOON) -> Answer[Any]:
    """Decode a body as its feed keeps it. An audit report becomes the only one of a list.

    ``report_end`` is the end of the hour of the report.

    Raises:
        ApiError: It cannot be read.
    """

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    shape, tally = feed.shape, Tally()
    if isinstance(shape, StreamShape):
        value: Any = [record async for record in shape.decode(chunks(), tally)]
    else:
        assert isinstance(shape, Shape)
        value = shape.decode(body, tally)
    if feed is AUDIT_REPORT:
        report = structs.replace(value, end=report_end, complete=not tally.rejected)
        value = Reports((report,), unread=0)
    return Answer(
        value, tally.accepted, tally.rejected, tally.first_error, received_at=0, seconds=0
    )
