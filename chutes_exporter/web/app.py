"""The ASGI application: routes only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from chutes_exporter.api.keys import HotkeyError, public_key
from chutes_exporter.page.exposition import Format, accepts_gzip, negotiate
from chutes_exporter.page.plan import ChoiceError
from chutes_exporter.web.connection import PORTION_BYTES
from chutes_exporter.web.debug import debug_page
from chutes_exporter.web.discovery import UnknownMinersError, targets
from chutes_exporter.web.landing import landing_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from starlette.types import Receive, Scope, Send

    from chutes_exporter.collectors import MinersChoice
    from chutes_exporter.page.exporter import Exporter

    Page = Callable[[Request, float], Awaitable[Response]]

_DEFAULT_SCRAPE_TIMEOUT = 10.0
_MIN_WAIT = 0.05
_QUEUE_SECONDS = 5.0
"""Maximum seconds that a scrape waits for its turn."""
_HURRY_SECONDS = 1.0
"""Seconds after which a waiting scrape makes another one stop waiting for the API."""
_PORTIONS_PER_TURN = 4
"""Portions of a page that are sent before other requests get their turn: 2 MB."""
_MINERS = ("watched", "active", "all")
_TRUE = ("true", "1", "yes")


def scrape_timeout(header: str | None, offset: float) -> float:
    """Return the seconds that a scrape may wait for the API.

    Args:
        header: ``X-Prometheus-Scrape-Timeout-Seconds``. Without a positive number in it, Prometheus' default counts.
        offset: Seconds to leave for sending the answer.
    """
    try:
        seconds = float(header or "")
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        seconds = _DEFAULT_SCRAPE_TIMEOUT
    return max(seconds - offset, _MIN_WAIT)


class _Pages:
    """The handlers of the routes."""

    def __init__(self, exporter: Exporter, reload: Callable[[], Awaitable[str]] | None) -> None:
        self._exporter = exporter
        self._reload = reload

    async def metrics(self, request: Request, wait: float) -> Response:
        form, gzipped = _wanted(request)
        collect = request.query_params.getlist("collect[]")
        page = await self._exporter.metrics(form, timeout=wait, gzipped=gzipped, collect=collect)
        return _PageResponse(page.parts, form.value, gzipped=gzipped)

    async def probe(self, request: Request, wait: float) -> Response:
        target = _target(request)
        debug = request.query_params.get("debug", "").lower() in _TRUE
        form, gzipped = (Format.TEXT, False) if debug else _wanted(request)
        collect = request.query_params.getlist("collect[]")
        page = await self._exporter.probe(target, form, timeout=wait, gzipped=gzipped, collect=collect)
        if debug:
            return _PageResponse([debug_page(self._exporter, target, page, time.time()).encode()], "text/plain")
        return _PageResponse(page.parts, form.value, gzipped=gzipped)

    async def discovery(self, request: Request, wait: float) -> Response:
        miners = request.query_params.get("miners", self._exporter.settings.miners)
        if miners not in _MINERS:
            return _sentence(f"the parameter miners={miners[:40]!r} is invalid: use {', '.join(_MINERS)}", 400)
        try:
            groups = await targets(self._exporter, cast("MinersChoice", miners), wait)
        except UnknownMinersError as error:
            # With an empty list, Prometheus would drop every target.
            return _sentence(str(error), 503)
        return Response(json.dumps(groups), media_type="application/json")

    async def landing(self, _request: Request) -> Response:
        return HTMLResponse(landing_page(self._exporter, time.time()))

    async def healthy(self, _request: Request) -> Response:
        return _sentence("chutes-exporter is healthy")

    async def ready(self, _request: Request) -> Response:
        is_ready, reason = self._exporter.readiness()
        return _sentence(reason, 200 if is_ready else 503)

    async def reload(self, request: Request) -> Response:
        if self._reload is None:
            return _sentence(
                "reloading over HTTP is off: start the exporter with --web.enable-lifecycle, or send SIGHUP", 403
            )
        if _is_cross_origin(request):
            return _sentence(
                "a page of another website cannot reload the configuration: send the request with curl or another tool",
                403,
            )
        # A client that disconnects must not stop it half-way.
        problem = await asyncio.shield(asyncio.ensure_future(self._reload()))
        return _sentence(f"the old configuration stays in use: {problem}", 500) if problem else _sentence("reloaded")


def make_app(exporter: Exporter, *, reload: Callable[[], Awaitable[str]] | None = None) -> Starlette:
    """Make the application that serves an exporter.

    Args:
        exporter: The exporter.
        reload: Reads the configuration again, and returns the problem or an empty text. None disables reloads over
            HTTP.
    """
    pages = _Pages(exporter, reload)
    scrapes = _Scrapes(exporter.settings.max_requests, exporter.settings.timeout_offset)
    app = Starlette(
        routes=[
            Route("/", pages.landing),
            Route(exporter.settings.telemetry_path, _Scrape(pages.metrics, scrapes)),
            Route("/probe", _Scrape(pages.probe, scrapes)),
            Route("/sd", _Scrape(pages.discovery, scrapes)),
            Route("/-/healthy", pages.healthy),
            Route("/-/ready", pages.ready),
            Route("/-/reload", pages.reload, methods=["POST", "PUT"]),
        ],
        exception_handlers={ChoiceError: _bad_choice, HotkeyError: _bad_choice},
    )
    # A redirect would lead to any host that the client names.
    app.router.redirect_slashes = False
    return app


def _wanted(request: Request) -> tuple[Format, bool]:
    headers = request.headers
    return negotiate(headers.get("accept", "")), accepts_gzip(headers.get("accept-encoding", ""))


def _target(request: Request) -> str:
    """Return the target of a probe, which must be an SS58 address.

    Raises:
        HotkeyError: There is not exactly one target, or it is not an SS58 address.
    """
    given = request.query_params.getlist("target")
    if len(given) != 1 or not given[0].strip():
        raise HotkeyError(
            "a probe needs exactly one target: use /probe?target=HOTKEY with the SS58 address of a miner's hotkey"
        )
    target = given[0].strip()
    try:
        public_key(target)
    except HotkeyError as error:
        raise HotkeyError(f"target: {error}. /sd?miners=all lists the hotkeys of all miners") from None
    return target


class _PageResponse(Response):
    """Sends a page portion by portion, so that slow readers share the page and hold only a portion each."""

    def __init__(self, parts: list[bytes], media_type: str, *, gzipped: bool = False) -> None:
        headers = {"Vary": "Accept, Accept-Encoding", "Content-Length": str(sum(map(len, parts)))}
        super().__init__(headers=headers | ({"Content-Encoding": "gzip"} if gzipped else {}), media_type=media_type)
        self._parts = parts

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        left = sum(map(len, self._parts))
        # A part that is sent is let go: it may be of a page that has been renewed meanwhile.
        parts, self._parts = self._parts[::-1], []
        for number, portion in enumerate(_portions(parts), 1):
            left -= len(portion)
            await send({"type": "http.response.body", "body": portion, "more_body": left > 0})
            # A client that reads fast never makes this wait, and other requests would wait for the whole page.
            if number % _PORTIONS_PER_TURN == 0:
                await asyncio.sleep(0)


def _portions(parts: list[bytes]) -> Iterator[bytes | memoryview]:
    """Take bytes from the end of a list, and divide them into portions of a size. Only small parts are copied."""
    portion: list[bytes | memoryview] = []
    room, is_empty = PORTION_BYTES, True
    while parts:
        rest: bytes | memoryview = parts.pop()
        while len(rest) >= room:
            view = memoryview(rest)
            portion.append(view[:room])
            rest = view[room:]
            yield portion[0] if len(portion) == 1 else b"".join(portion)
            portion, room, is_empty = [], PORTION_BYTES, False
        if rest:
            portion.append(rest)
            room -= len(rest)
    if portion or is_empty:
        yield b"".join(portion)


def _sentence(text: str, status: int = 200) -> Response:
    return PlainTextResponse(f"{text[:1].upper()}{text[1:]}.\n", status)


async def _bad_choice(_request: Request, error: Exception) -> Response:
    return _sentence(str(error), 400)


def _is_cross_origin(request: Request) -> bool:
    """Return whether a page of another origin made the request, by the rules of Go's ``http.CrossOriginProtection``."""
    site = request.headers.get("sec-fetch-site", "")
    if site:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin", "")
    return origin != "" and origin.partition("://")[2] != request.headers.get("host", "")


class _Scrapes:
    """Limits the number of concurrent scrapes. Sending the answer does not count.

    Args:
        limit: The limit. 0 means unlimited.
        offset: Seconds by which an answer comes before the scraper's timeout.
    """

    def __init__(self, limit: int, offset: float) -> None:
        self._free = asyncio.Semaphore(limit or sys.maxsize)
        self._offset = offset
        self._waits: dict[Request, asyncio.Timeout] = {}
        """Timeouts of the scrapes that wait for the API, the oldest scrape first."""
        self._overdue: set[Request] = set()
        """Scrapes that have waited too long for their turn."""

    async def answer(self, page: Page, request: Request) -> Response:
        """Make a page when it is the request's turn."""
        refusal = await self._take_turn(request)
        # A client that disconnects leaves the queue at once, but a page in progress counts until its end.
        return await asyncio.shield(asyncio.create_task(self._make(page, request))) if refusal is None else refusal

    async def _take_turn(self, request: Request) -> Response | None:
        if not self._free.locked():
            # This does not wait, so it needs no timers.
            await self._free.acquire()
            return None
        hurry = asyncio.get_running_loop().call_later(_HURRY_SECONDS, self._hurry, request)
        try:
            async with asyncio.timeout(_QUEUE_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            text = "Too many concurrent scrapes: try again later, or raise --web.max-requests.\n"
            return PlainTextResponse(text, 503, {"Retry-After": "1"})
        else:
            return None
        finally:
            hurry.cancel()
            self._overdue.discard(request)

    def _hurry(self, overdue: Request) -> None:
        self._overdue.add(overdue)
        if (oldest := next(iter(self._waits), None)) is not None:
            self._waits.pop(oldest).reschedule(0)

    async def _make(self, page: Page, request: Request) -> Response:
        try:
            if not self._overdue:
                with contextlib.suppress(TimeoutError):
                    return await self._wait_and_make(page, request)
            # Other scrapes wait for their turn, so answer with the known data.
            return await page(request, _MIN_WAIT)
        finally:
            self._free.release()

    async def _wait_and_make(self, page: Page, request: Request) -> Response:
        try:
            async with asyncio.timeout(None) as wait:
                self._waits[request] = wait
                return await page(request, self._remaining(request))
        finally:
            self._waits.pop(request, None)

    def _remaining(self, request: Request) -> float:
        """Return how long a scrape may still wait. Its time started when the kernel received it."""
        waited = time.monotonic() - request.scope["state"]["arrived"]
        return scrape_timeout(request.headers.get("x-prometheus-scrape-timeout-seconds"), self._offset + waited)


class _Scrape:
    """A page that counts as a scrape."""

    def __init__(self, page: Page, scrapes: _Scrapes) -> None:
        self._page = page
        self._scrapes = scrapes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["method"] in ("GET", "HEAD"):
            response = await self._scrapes.answer(self._page, request)
        else:
            response = PlainTextResponse("Method Not Allowed", 405, {"Allow": "GET, HEAD"})
        await response(scope, receive, send)
