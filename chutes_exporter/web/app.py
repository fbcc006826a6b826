"""The ASGI application: routes only."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from chutes_exporter.api.keys import HotkeyError, public_key
from chutes_exporter.exposition import Format, accepts_gzip, negotiate
from chutes_exporter.view import ChoiceError
from chutes_exporter.web.debug import debug_page
from chutes_exporter.web.discovery import UnknownMinersError, targets
from chutes_exporter.web.landing import landing_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from chutes_exporter.collectors import MinersChoice
    from chutes_exporter.exporter import Exporter

    Page = Callable[[Request], Awaitable[Response]]

_DEFAULT_SCRAPE_TIMEOUT = 10.0
_LEAST_WAIT = 0.05
_SLICE_BYTES = 1024 * 1024
_SLICE_SECONDS = 20.0
_MINERS = ("watched", "active", "all")
_TRUE = ("true", "1", "yes")


def scrape_timeout(header: str | None, offset: float) -> float:
    """Return the seconds that a scrape may wait for the API.

    Args:
        header: ``X-Prometheus-Scrape-Timeout-Seconds``; Prometheus' default is taken where it is missing or no
            positive number.
        offset: Seconds to leave for the way back.
    """
    try:
        seconds = float(header or "")
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        seconds = _DEFAULT_SCRAPE_TIMEOUT
    return max(seconds - offset, _LEAST_WAIT)


class _Pages:
    """What is answered to whom."""

    def __init__(self, exporter: Exporter, reload: Callable[[], Awaitable[str]] | None) -> None:
        self._exporter = exporter
        self._reload = reload

    def _wait(self, request: Request) -> float:
        header = request.headers.get("x-prometheus-scrape-timeout-seconds")
        return scrape_timeout(header, self._exporter.settings.timeout_offset)

    async def metrics(self, request: Request) -> Response:
        form, gzipped = _wanted(request)
        collect = request.query_params.getlist("collect[]")
        page = await self._exporter.page(form, timeout=self._wait(request), gzipped=gzipped, collect=collect)
        return _page(page, form, gzipped=gzipped)

    async def probe(self, request: Request) -> Response:
        target = _target(request)
        debug = request.query_params.get("debug", "").lower() in _TRUE
        form, gzipped = (Format.TEXT, False) if debug else _wanted(request)
        collect = request.query_params.getlist("collect[]")
        page = await self._exporter.probe(target, form, timeout=self._wait(request), gzipped=gzipped, collect=collect)
        if debug:
            return PlainTextResponse(debug_page(self._exporter, target, page, time.time()))
        return _page(page.body, form, gzipped=gzipped)

    async def discovery(self, request: Request) -> Response:
        miners = request.query_params.get("miners", self._exporter.settings.miners)
        if miners not in _MINERS:
            return _sentence(f"miners cannot be {miners[:40]!r}; there are {', '.join(_MINERS)}", 400)
        try:
            groups = await targets(self._exporter, cast("MinersChoice", miners), self._wait(request))
        except UnknownMinersError as error:
            # Not an empty list: with that Prometheus would drop every target.
            return _sentence(str(error), 503)
        return Response(json.dumps(groups), media_type="application/json")

    async def landing(self, _request: Request) -> Response:
        return HTMLResponse(landing_page(self._exporter, time.time()))

    async def healthy(self, _request: Request) -> Response:
        return _sentence("chutes-exporter is healthy")

    async def ready(self, _request: Request) -> Response:
        is_ready, reason = self._exporter.readiness()
        return _sentence(reason, 200 if is_ready else 503)

    async def reload(self, _request: Request) -> Response:
        if self._reload is None:
            return _sentence("reloading over HTTP is off: see --web.enable-lifecycle, or send SIGHUP", 403)
        trouble = await self._reload()
        return _sentence(f"the old configuration stays: {trouble}", 500) if trouble else _sentence("reloaded")


def make_app(exporter: Exporter, *, reload: Callable[[], Awaitable[str]] | None = None) -> Starlette:
    """Make the application that serves an exporter.

    Args:
        exporter: The exporter.
        reload: Reads the configuration again, and returns what was wrong with it (nothing where all is well). None
            where this may not be asked for over HTTP.
    """
    pages = _Pages(exporter, reload)
    limited = _limit(exporter.settings.max_requests)
    app = Starlette(
        routes=[
            Route("/", pages.landing),
            Route(exporter.settings.telemetry_path, limited(pages.metrics)),
            Route("/probe", limited(pages.probe)),
            Route("/sd", limited(pages.discovery)),
            Route("/-/healthy", pages.healthy),
            Route("/-/ready", pages.ready),
            Route("/-/reload", pages.reload, methods=["POST", "PUT"]),
        ],
        exception_handlers={ChoiceError: _bad_choice, HotkeyError: _bad_choice},
    )
    # A redirect would lead to whatever host the client names.
    app.router.redirect_slashes = False
    return app


def _wanted(request: Request) -> tuple[Format, bool]:
    headers = request.headers
    return negotiate(headers.get("accept", "")), accepts_gzip(headers.get("accept-encoding", ""))


def _target(request: Request) -> str:
    """Return the one target of a probe: an SS58 address, and nothing else, least of all one on the network.

    Raises:
        HotkeyError: It is none.
    """
    given = request.query_params.getlist("target")
    if len(given) != 1 or not given[0].strip():
        raise HotkeyError("a probe needs one target: /probe?target=HOTKEY, the SS58 address of a miner's hotkey")
    target = given[0].strip()
    try:
        public_key(target)
    except HotkeyError as error:
        raise HotkeyError(f"target: {error}") from None
    return target


def _page(body: bytes, form: Format, *, gzipped: bool) -> Response:
    headers = {"Vary": "Accept, Accept-Encoding"} | ({"Content-Encoding": "gzip"} if gzipped else {})
    return _PageResponse(body, headers=headers, media_type=form.value)


class _PageResponse(Response):
    """Sends a page bit by bit: who reads slowly holds a small part of it, and who hardly reads at all is left."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        page = memoryview(self.body)
        for start in range(0, max(len(page), 1), _SLICE_BYTES):
            more = start + _SLICE_BYTES < len(page)
            part = {"type": "http.response.body", "body": page[start : start + _SLICE_BYTES], "more_body": more}
            try:
                async with asyncio.timeout(_SLICE_SECONDS):
                    await send(part)
            except TimeoutError:
                return  # and the connection is closed, in the middle of the page


def _sentence(text: str, status: int = 200) -> Response:
    return PlainTextResponse(f"{text[:1].upper()}{text[1:]}.\n", status)


async def _bad_choice(_request: Request, error: Exception) -> Response:
    return _sentence(str(error), 400)


class _Limited:
    """A page that is answered to so many at once, of all such pages together; sending it counts."""

    def __init__(self, page: Page, most: int, under_way: set[object]) -> None:
        self._page = page
        self._most = most
        self._under_way = under_way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["method"] not in ("GET", "HEAD"):
            response: Response = PlainTextResponse("Method Not Allowed", 405, {"Allow": "GET, HEAD"})
        elif self._most and len(self._under_way) >= self._most:
            text = "Too many scrapes are being answered: see --web.max-requests.\n"
            response = PlainTextResponse(text, 503, {"Retry-After": "1"})
        else:
            self._under_way.add(request)
            try:
                response = await self._page(request)
                await response(scope, receive, send)
            finally:
                self._under_way.discard(request)
            return
        await response(scope, receive, send)


def _limit(most: int) -> Callable[[Page], _Limited]:
    """Make pages that share one limit."""
    under_way: set[object] = set()
    return lambda page: _Limited(page, most, under_way)
