"""Takes one thing at a time away from an exporter and from commands: an answer, a record, or the
trust in an answer.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response

from chutes_exporter.api.schema_drift import records_in
from chutes_exporter.api.transport import Transport
from chutes_exporter.feeds.definitions import AUDIT_REPORT, CHAIN, FEEDS
from chutes_exporter.feeds.sanity_checks import DoubtedError
from tests.recorded import rows, stream
from tests.support import PATIENCE, page_of, read_reports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.middleware.base import RequestResponseEndpoint
    from starlette.requests import Request

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.api.endpoints import Endpoint
    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.page.exporter import Exporter
    from chutes_exporter.simulator import Simulator
    from tests.support import Clock, Page


@dataclass(frozen=True)
class Case:
    """What is taken away of a feed."""

    feed: Feed[Any]
    loss: str

    def __str__(self) -> str:
        return f"{self.feed.name}-{self.loss}"


def _losses(feed: Feed[Any]) -> list[str]:
    """Return what can be taken away of a feed."""
    losses = ["missing", "expired", "record"]
    # The chain has one answer and no list that could be shorter.
    if feed.checks and feed is not CHAIN:
        losses.append("doubted")
    if feed is AUDIT_REPORT:
        losses.append(OLDER)
    if feed.optional:
        losses.append("404")
    return losses


OLDER: Final = "older"
"""A loss of the report of an hour in the past day."""
FIELD: Final = "field "
"""Begins a loss of a field."""
CASES: Final = [Case(feed, loss) for feed in FEEDS for loss in _losses(feed)]
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


def changed(body: bytes, feed: Feed[Any], change: Callable[[list[Any]], list[Any]]) -> bytes:
    """Return an answer with other records.

    Args:
        body: The answer.
        feed: Its feed.
        change: Returns the records to send instead of the given ones. Records by name are pairs.
    """
    if body.startswith(b"data: "):
        return stream(change(rows(body))) or b"data: NO_ITEMS\n\n"
    answer = json.loads(body)
    if feed is CHAIN:
        result = answer["result"]
        # Of all replies of the node, only those about its storage are lists, and have records.
        if isinstance(result, list):
            result[0]["changes"] = change(result[0]["changes"])
        return json.dumps(answer).encode()
    changed_answer = _changed_at(PLACES.get(feed.name, ()), answer, change)
    return json.dumps(changed_answer).encode()


def _changed_at(
    place: tuple[str, ...], value: Any, change: Callable[[list[Any]], list[Any]]
) -> Any:
    """Return a value with other records at a place, which is the value itself if it is empty."""
    if place:
        key, *inner = place
        return {**value, key: _changed_at(tuple(inner), value[key], change)}
    if isinstance(value, list):
        return change(value)
    return dict(change([*value.items()]))


def optional_fields(feed: Feed[Any]) -> set[str]:
    """Return the names of the fields without which the records of a feed can be read."""
    shape = feed.endpoint.shape
    if not shape:
        return set()
    names = set()
    for _, record in records_in(shape.kind):
        for field in msgspec.structs.fields(record):
            if not field.required:
                names.add(field.encode_name)
    return names


def without_field(name: str, body: bytes) -> bytes:
    """Take a field out of all objects of an answer."""

    def lacking(fields: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in fields.items() if key != name}

    if body.startswith(b"data: "):
        records = [json.loads(json.dumps(row), object_hook=lacking) for row in rows(body)]
        return stream(records) or body
    return json.dumps(json.loads(body, object_hook=lacking)).encode()


def none(_records: list[Any]) -> list[Any]:
    return []


def shorter_each_time() -> Callable[[list[Any]], list[Any]]:
    """Return a change that keeps half of the records, then a quarter, and so on: an equal answer
    would confirm it.
    """
    halvings = itertools.count(1)

    def shortened(records: list[Any]) -> list[Any]:
        kept = len(records) // 2 ** next(halvings)
        return records[:kept]

    return shortened


def one_gone() -> Callable[[bytes], bytes | Response]:
    """Return a change that takes only the third answer away.

    Of reports, that is one of an older hour, because the newest is read first.
    """
    numbers = itertools.count(1)

    def answered(body: bytes) -> bytes | Response:
        return Response(status_code=404) if next(numbers) == 3 else body

    return answered


class Api:
    """A simulated API whose answers are remembered, except those to a feed from which something is
    taken away.

    Attributes:
        asked: The endpoints that were asked, each with whether it was asked for each chute.
        change: Changes the body of an answer of the feed.
    """

    def __init__(self, simulator: Simulator, *miners: str) -> None:
        self.asked: set[tuple[str, bool]] = set()
        self.change: Callable[[bytes], bytes | Response] = bytes
        self._miners = miners
        self._taken: tuple[str, bool] | None = None
        self._remembered: dict[tuple[object, ...], Answer[Any]] = {}
        simulator.app.add_middleware(BaseHTTPMiddleware, dispatch=self._answer)

    async def _answer(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Answer a request as the simulator does, or changed while something is taken away."""
        response: Any = await call_next(request)
        body = b"".join([part async for part in response.body_iterator])
        changed_body = self.change(body) if self._taken else body
        if isinstance(changed_body, Response):
            answer = changed_body
        else:
            answer = Response(changed_body, response.status_code)
        # The header tells the time of the API.
        answer.headers["date"] = response.headers["date"]
        return answer

    @contextlib.contextmanager
    def remembered(self) -> Iterator[None]:
        """Ask each question once, whoever asks it."""
        send = Transport.send

        async def remember(
            transport: Transport,
            endpoint: Endpoint[Any],
            url: str = "",
            *,
            key: Hotkey | None = None,
            params: dict[str, str] | None = None,
            body: dict[str, Any] | None = None,
        ) -> Answer[Any]:
            ask = partial(send, transport, endpoint, url, key=key, params=params, body=body)
            query = params or {}
            asked = endpoint.name, "per_chute" in query
            self.asked.add(asked)
            # The answers from which something is taken away must not be remembered.
            if asked == self._taken:
                return await ask()
            address = None if key is None else key.address
            question = (endpoint, url, address, *query.items(), json.dumps(body))
            if question not in self._remembered:
                self._remembered[question] = await ask()
            return self._remembered[question]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Transport, "send", remember)
            yield

    @contextlib.contextmanager
    def without(self, case: Case) -> Iterator[None]:
        """Take something away from whoever has no answer of the feed yet."""
        # To take all reports away, the list of reports is taken away.
        is_listed = case.feed is AUDIT_REPORT and case.loss not in ("record", OLDER)
        self._taken = ("audit", False) if is_listed else asks(case.feed)
        changes: dict[str, Callable[[bytes], bytes | Response]] = {
            "missing": lambda _: Response(status_code=503),
            "404": lambda _: Response(status_code=404),
            "record": partial(changed, feed=case.feed, change=self._with_unreadable_records),
            "doubted": partial(changed, feed=case.feed, change=shorter_each_time()),
            OLDER: one_gone(),
        }
        if case.loss.startswith(FIELD):
            self.change = partial(without_field, case.loss.removeprefix(FIELD))
        else:
            # An answer that expires is not changed.
            self.change = changes.get(case.loss, bytes)
        try:
            yield
        finally:
            self._taken = None

    def _with_unreadable_records(self, records: list[Any]) -> list[Any]:
        """Make a record of each miner unreadable, or else the first.

        A record by name is a pair of its name and its content.
        """
        unreadable = []
        for miner in self._miners:
            of_miner = (record for record in records if miner in str(record))
            unreadable.append(next(of_miner, records[0]))
        sent = []
        for record in records:
            if record not in unreadable:
                sent.append(record)
            elif isinstance(record, tuple):
                name, _ = record
                sent.append((name, "?"))
            else:
                sent.append("?")
        return sent


def asks(feed: Feed[Any]) -> tuple[str, bool]:
    """Return the name of a feed's endpoint, and whether it is asked for each chute."""
    return feed.endpoint.name, feed.per_chute


async def page_without(
    case: Case, api: Api, exporter: Exporter, clock: Clock, steady: Clock
) -> Page:
    """Return the page of an exporter that never had what is taken away, or no longer has it."""
    # Of several miners with keys, the first one lacks it.
    feed = next(
        feed for feed in exporter.plan.feeds if feed == replace(case.feed, hotkey=feed.hotkey)
    )
    feeds = exporter.feeds
    feeds.forget([feed])
    with api.without(case):
        if case.loss == "expired":
            await _expire(feed, api, exporter, (clock, steady))
        if case.loss == "doubted":
            await _doubt(feed, api, exporter)
        if case.feed is AUDIT_REPORT and case.loss != "expired":
            await read_reports(exporter)
        page = await page_of(exporter)
    # The next case must not find what this one left.
    feeds.forget([feed])
    return page


async def _expire(
    feed: Feed[Any], api: Api, exporter: Exporter, clocks: tuple[Clock, Clock]
) -> None:
    """Let an answer be older than allowed, and the next request fail.

    The answer is from the past, so that the exporter's time in the end is that of all other cases.
    """
    short_lived = feed.with_lifetimes({feed.name: 1}, {feed.name: 1})
    for clock in clocks:
        clock.now -= feed.max_age + 60
    await exporter.feeds.read(short_lived, PATIENCE)
    for clock in clocks:
        clock.now += feed.max_age + 60
    api.change = lambda _: Response(status_code=503)
    await exporter.feeds.read(short_lived, PATIENCE)


async def _doubt(feed: Feed[Any], api: Api, exporter: Exporter) -> None:
    """Let a shorter answer be doubted.

    A first answer that is doubted is used all the same. If no first answer is doubted, a later one
    is sent that is shorter than the one before.
    """
    feeds = exporter.feeds
    for is_first, change in itertools.product((True, False), (shorter_each_time(), none)):
        feeds.forget([feed])
        if not is_first:
            api.change = bytes
            await feeds.read(feed, PATIENCE)
            feeds.expire(feed)
        api.change = partial(changed, feed=feed, change=change)
        await feeds.read(feed, PATIENCE)
        state = feeds.states()[feed]
        is_refused = isinstance(state.last_error, DoubtedError)
        is_used_in_doubt = state.snapshot is not None and bool(state.snapshot.answer.doubt)
        if is_refused or is_used_in_doubt:
            return
    raise AssertionError(f"no shorter answer of {feed.name} is doubted")
