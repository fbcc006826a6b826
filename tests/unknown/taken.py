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
    # The chain has one answer and no list that could be shorter.
    doubted = ["doubted"] if feed.checks and feed is not CHAIN else []
    older = [OLDER] if feed is AUDIT_REPORT else []
    return ["missing", "expired", "record", *doubted, *older, *(["404"] if feed.optional else [])]


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
    """Change the records of an answer."""
    if body.startswith(b"data: "):
        return stream(change(rows(body))) or b"data: NO_ITEMS\n\n"
    answer = {"": json.loads(body)}
    if feed is CHAIN:
        result = answer[""]["result"]
        if isinstance(result, list):
            result[0]["changes"] = change(result[0]["changes"])
        return json.dumps(answer[""]).encode()
    *way, last = "", *PLACES.get(feed.name, ())
    inside: Any = answer
    for step in way:
        inside = inside[step]
    records = inside[last]
    inside[last] = (
        change(records) if isinstance(records, list) else dict(change([*records.items()]))
    )
    return json.dumps(answer[""]).encode()


def optional_fields(feed: Feed[Any]) -> set[str]:
    """Return the names of the fields without which the records of a feed can be read."""
    shape = feed.endpoint.shape
    records = [record for _, record in records_in(shape.kind)] if shape else []
    return {
        one.encode_name
        for record in records
        for one in msgspec.structs.fields(record)
        if not one.required
    }


def without_field(name: str, body: bytes) -> bytes:
    """Take a field out of all objects of an answer."""

    def lacking(fields: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in fields.items() if key != name}

    if body.startswith(b"data: "):
        return (
            stream([json.loads(json.dumps(row), object_hook=lacking) for row in rows(body)]) or body
        )
    return json.dumps(json.loads(body, object_hook=lacking)).encode()


def none(_records: list[Any]) -> list[Any]:
    return []


def shorter_each_time() -> Callable[[list[Any]], list[Any]]:
    """Return a change that keeps half of the records, then a quarter, and so on: an equal answer
    would confirm it.
    """
    parts = itertools.count(1)
    return lambda records: records[: len(records) >> next(parts)]


def one_gone() -> Callable[[bytes], bytes | Response]:
    """Return a change that takes the third answer away."""
    numbers = itertools.count(1)
    return lambda body: Response(status_code=404) if next(numbers) == 3 else body


class Api:
    """A simulated API whose answers are remembered, except those to a feed from which something is
    taken away.

    Attributes:
        asked: The feeds and endpoints that were asked for, each with whether it was for each chute.
        change: Changes the body of an answer of the feed.
    """

    def __init__(self, simulator: Simulator, *miners: str) -> None:
        self.asked: set[tuple[str, bool]] = set()
        self.change: Callable[[bytes], bytes | Response] = bytes
        self._miners = miners
        self._taken: tuple[str, bool] | None = None
        self._known: dict[tuple[object, ...], Answer[Any]] = {}
        simulator.app.add_middleware(BaseHTTPMiddleware, dispatch=self._answer)

    async def _answer(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response: Any = await call_next(request)
        body = b"".join([part async for part in response.body_iterator])
        found = self.change(body) if self._taken else body
        answer = found if isinstance(found, Response) else Response(found, response.status_code)
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
            asked = endpoint.name, "per_chute" in (params or {})
            self.asked.add(asked)
            if asked == self._taken:
                return await ask()
            question = (
                endpoint,
                url,
                key and key.address,
                *(params or {}).items(),
                json.dumps(body),
            )
            if question not in self._known:
                self._known[question] = await ask()
            return self._known[question]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Transport, "send", remember)
            yield

    @contextlib.contextmanager
    def without(self, case: Case) -> Iterator[None]:
        """Take something away from whoever has no answer of the feed yet."""
        # Without the list of reports, the newest one is not known.
        is_listed = case.feed is AUDIT_REPORT and case.loss not in ("record", OLDER)
        self._taken = ("audit", False) if is_listed else asks(case.feed)
        changes: dict[str, Callable[[bytes], bytes | Response]] = {
            "missing": lambda _: Response(status_code=503),
            "404": lambda _: Response(status_code=404),
            "record": partial(changed, feed=case.feed, change=self._unreadable),
            "doubted": partial(changed, feed=case.feed, change=shorter_each_time()),
            OLDER: one_gone(),
        }
        lacking = partial(without_field, case.loss.removeprefix(FIELD))
        self.change = lacking if case.loss.startswith(FIELD) else changes.get(case.loss, bytes)
        try:
            yield
        finally:
            self._taken = None

    def _unreadable(self, records: list[Any]) -> list[Any]:
        """Make a record of each miner unreadable, or else the first."""
        chosen = [
            next((one for one in records if miner in str(one)), records[0])
            for miner in self._miners
        ]
        return [
            one if one not in chosen else (one[0], "?") if isinstance(one, tuple) else "?"
            for one in records
        ]


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
            short = feed.with_lifetimes({feed.name: 1}, {feed.name: 1})
            for one in (clock, steady):
                one.now -= feed.max_age + 60
            await feeds.read(short, PATIENCE)
            for one in (clock, steady):
                one.now += feed.max_age + 60
            api.change = lambda _: Response(status_code=503)
            await feeds.read(short, PATIENCE)
        if case.loss == "doubted":
            await _doubt(feed, api, exporter)
        if case.feed is AUDIT_REPORT and case.loss != "expired":
            await read_reports(exporter)
        page = await page_of(exporter)
    feeds.forget([feed])
    return page


async def _doubt(feed: Feed[Any], api: Api, exporter: Exporter) -> None:
    """Let a shorter answer be doubted: if possible the first one, which is in use then."""
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
        if isinstance(state.last_error, DoubtedError) or (
            state.snapshot and state.snapshot.answer.doubt
        ):
            return
    raise AssertionError(f"no shorter answer of {feed.name} is doubted")
