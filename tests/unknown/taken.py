"""Takes one thing at a time away from the answers of the recorded day: an answer, a record, a
report, or the trust in an answer.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
import pytest

from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.records import Record
from chutes_exporter.feeds.definitions import AUDIT_REPORT, CHAIN, FEEDS, STATS, STATS_PER_CHUTE
from tests.replay import Fault
from tests.support import recorded_day

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chutes_exporter.api.endpoint import Endpoint
    from chutes_exporter.feeds.feed import Feed
    from tests.replay import Replay

MINERS: Final = [key.address for key in recorded_day().miners.values()]


@dataclass(frozen=True)
class Case:
    """What is taken away of a feed: one of its losses, or a field."""

    feed: Feed[Any]
    loss: str

    def __str__(self) -> str:
        return f"{self.feed.name}-{self.loss}"


AT_24: Final = 86_400.0
"""The end of the day, when most goes on."""
OLDER: Final = "older"
"""A loss of the report of an hour in the past day."""
DOUBTED: Final = "doubted"
"""The first answer is too short, and is used all the same."""
LOSSES: Final[dict[str, tuple[str, ...]]] = {
    "audit_report": (OLDER,),
    "chutes": (DOUBTED,),
    "held_gpus": (DOUBTED,),
    "instances": (DOUBTED,),
    "nodes": (DOUBTED,),
}
"""What else may be lost than a whole answer or a record."""
CASES: Final = [
    Case(feed, loss)
    for feed in FEEDS
    for loss in (
        "missing",
        "record",
        *LOSSES.get(feed.name, ()),
        *(("404",) if feed.optional else ()),
    )
]
PLACES: Final = {
    "scores": ("final_scores",),
    "stats": ("past_day", "instance_stats"),
    "stats_per_chute": ("past_day", "instance_stats"),
    "servers": ("servers",),
    "maintenance": ("servers",),
    "audit_report": ("instance_audit",),
}
"""Where the records of an answer are, if it is no list of them, and no object that has them by
name.
"""


def of_records(feed: Feed[Any], change: Callable[[list[Any]], list[Any]]) -> Callable[[Any], Any]:
    """Return an edit that sends other records of an answer. Records by name are pairs."""

    def edit(answer: Any) -> Any:
        if feed is CHAIN:
            result = answer["result"]
            # Of all replies of the node, only those about its storage are lists.
            if isinstance(result, list):
                result[0]["changes"] = change(result[0]["changes"])
            return answer
        parent, place = {"": answer}, ""
        for step in PLACES.get(feed.name, ()):
            parent, place = parent[place], step
        records = parent[place]
        if isinstance(records, dict):
            parent[place] = dict(change([*records.items()]))
        else:
            parent[place] = change(records)
        return answer if PLACES.get(feed.name) else parent[""]

    return edit


def unreadable(records: list[Any]) -> list[Any]:
    """Make a record of each miner unreadable, or else the first."""
    chosen = []
    for miner in MINERS:
        of_miner = (record for record in records if miner in str(record))
        chosen.append(next(of_miner, records[0] if records else None))
    sent: list[Any] = []
    for record in records:
        if record not in chosen:
            sent.append(record)
        else:
            # A record by name is a pair.
            sent.append((record[0], "?") if isinstance(record, tuple) else "?")
    return sent or ["?"]


def optional_fields(feed: Feed[Any]) -> set[str]:
    """Return the names of the fields without which the records of a feed can be read."""
    names = set()
    for record in _records_in(feed.shape.kind) if feed.shape else ():
        for field in msgspec.structs.fields(record):
            if not field.required:
                names.add(field.encode_name)
    return names


def _records_in(kind: Any) -> Iterator[type[Record]]:
    """Yield the classes of records in a type."""
    if isinstance(kind, type) and issubclass(kind, Record):
        yield kind
        for field in msgspec.structs.fields(kind):
            yield from _records_in(field.type)
    # The types inside a list, a dictionary or a union.
    for part in get_args(kind):
        yield from _records_in(part)


def without_field(field: str) -> Callable[[Any], Any]:
    """Return an edit that takes a field out of all objects of an answer."""

    def edit(value: Any) -> Any:
        if isinstance(value, list):
            return [edit(part) for part in value]
        if isinstance(value, dict):
            return {key: edit(part) for key, part in value.items() if key != field}
        return value

    return edit


def without_third_report(listed: Any) -> Any:
    newest_first = sorted(listed, key=lambda report: str(report["end_time"]), reverse=True)
    return [report for report in listed if report is not newest_first[2]]


def more_bounties(bounties: Any) -> Any:
    """Add bounties for other chutes, because fewer of a few are not doubted."""
    chutes = (recorded_day().answer("chutes", AT_24) or [])[:8]
    return bounties + [bounties[0] | {"chute_id": chute["chute_id"]} for chute in chutes]


def add_edit(replay: Replay, name: str, edit: Callable[[Any], Any]) -> None:
    """Change an answer after the edit that it has already."""
    before = replay.edits.get(name)

    def both(answer: Any) -> Any:
        return edit(before(answer) if before else answer)

    replay.edits[name] = both


@contextlib.contextmanager
def without(replay: Replay, case: Case) -> Iterator[None]:
    """Take something away from whoever asks meanwhile."""
    feed, name = case.feed, case.feed.name
    # Faults are of an endpoint, which is that of stats in total.
    if feed == STATS_PER_CHUTE and case.loss != "record":
        name = STATS.name
    # To take all reports away, the list of reports is taken away.
    if feed is AUDIT_REPORT and case.loss != "record":
        name = "audit"
    edits, faults = replay.edits.copy(), replay.faults.copy()
    if case.loss in ("missing", "404"):
        replay.faults[name] = Fault(status=503 if case.loss == "missing" else 404)
    elif case.loss == "record":
        add_edit(replay, name, of_records(feed, unreadable))
    elif case.loss == DOUBTED:
        # Each answer is shorter than the one before, because an equal one would confirm it.
        parts = itertools.accumulate(itertools.repeat(2), operator.mul)
        halved = of_records(feed, lambda records: records[: len(records) // next(parts)])
        add_edit(replay, name, halved)
    elif case.loss == OLDER:
        add_edit(replay, name, without_third_report)
    else:
        add_edit(replay, name, without_field(case.loss))
    try:
        yield
    finally:
        replay.edits, replay.faults = edits, faults


@contextlib.contextmanager
def asked_once(replay: Replay | None = None) -> Iterator[None]:
    """Ask each question once, whoever asks it, unless ``replay`` now edits its answer, or fails."""
    fetch = ChutesClient.fetch
    known: dict[str, Any] = {}

    async def remember(
        client: ChutesClient, endpoint: Endpoint[Any], *args: Any, **more: Any
    ) -> Any:
        names = {endpoint.name}
        if "per_chute" in more.get("params", ()):
            names.add(STATS_PER_CHUTE.name)
        if replay is not None and names & {*replay.edits, *replay.faults}:
            return await fetch(client, endpoint, *args, **more)
        key = more.get("key")
        question = repr((endpoint.name, args, more, key and key.address))
        if question not in known:
            known[question] = await fetch(client, endpoint, *args, **more)
        return known[question]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChutesClient, "fetch", remember)
        yield
