"""The ASGI application: routes only."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import cachetools
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from chutes_exporter.page.exposition import negotiate, quality
from chutes_exporter.web.landing import landing_page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from chutes_exporter.page.exporter import Exporter

_DEFAULT_SCRAPE_TIMEOUT = 10.0
"""Seconds, as in Prometheus."""
_MIN_WAIT = 0.05
"""Seconds for which a scrape waits for the API even if its timeout leaves less."""
_SEND_SECONDS = 60.0
"""Maximum seconds for sending a page."""
_PORTION_BYTES = 16 * 1024
"""Bytes of a page that are sent at once."""
_SENDING_BYTES = 64_000_000
"""Bytes of all pages that are being sent. Each scrape may bring another page."""
_LANDING_SECONDS = 1.0
"""Seconds for which all readers get the same landing page."""


def scrape_timeout(header: str | None, offset: float) -> float:
    """Return the seconds that a scrape may wait for the API.

    The header ``X-Prometheus-Scrape-Timeout-Seconds`` has the time for the whole scrape, of which
    the offset is left for sending the answer. Without a positive and finite number, Prometheus'
    default counts.
    """
    try:
        seconds = float(header or "")
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        seconds = _DEFAULT_SCRAPE_TIMEOUT
    return max(seconds - offset, _MIN_WAIT)


def make_app(exporter: Exporter) -> Starlette:
    """Make the application that serves an exporter."""
    landing_pages: cachetools.TTLCache[str, str] = cachetools.TTLCache(1, ttl=_LANDING_SECONDS)
    landing_lock = asyncio.Lock()
    sending: dict[asyncio.Timeout, int] = {}

    async def metrics(request: Request) -> Response:
        header = request.headers.get("x-prometheus-scrape-timeout-seconds")
        wait = scrape_timeout(header, exporter.settings.timeout_offset)
        form = negotiate(request.headers.get("accept", ""))
        gzipped = quality(request.headers.get("accept-encoding", ""), "gzip") > 0
        page = await exporter.metrics(form, timeout=wait, gzipped=gzipped)
        return _PageResponse(page, form.value, sending, gzipped=gzipped)

    async def landing(_request: Request) -> Response:
        # The page takes long to make, so all readers of a second share one. The cache has it under
        # its only key, an empty text.
        async with landing_lock:
            page = landing_pages.get("")
            if page is None:
                page = await landing_page(exporter)
                landing_pages[""] = page
            return HTMLResponse(page)

    async def healthy(_request: Request) -> Response:
        return PlainTextResponse("Chutes-exporter is healthy.\n")

    async def ready(_request: Request) -> Response:
        is_ready, reason = exporter.readiness()
        return PlainTextResponse(f"{reason}\n", 200 if is_ready else 503)

    app = Starlette(
        routes=[
            Route("/", landing),
            Route("/metrics", metrics),
            Route("/-/healthy", healthy),
            Route("/-/ready", ready),
        ]
    )
    # A redirect would lead to any host that the client names.
    app.router.redirect_slashes = False
    return app


class _PageResponse(Response):
    """Sends a page in portions, so that a slow reader holds only a portion in memory, and shares
    the rest.

    ``sending`` has the size of each page that is being sent, by the deadline of its reader. The
    oldest is first.
    """

    def __init__(
        self, page: bytes, media_type: str, sending: dict[asyncio.Timeout, int], *, gzipped: bool
    ) -> None:
        headers = {"Vary": "Accept, Accept-Encoding"}
        if gzipped:
            headers["Content-Encoding"] = "gzip"
        super().__init__(page, headers=headers, media_type=media_type)
        self._sending = sending

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        # After the deadline, the answer stays incomplete, so uvicorn closes the connection.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SEND_SECONDS) as deadline:
                self._sending[deadline] = len(self.body)
                self._make_room()
                try:
                    start = {"type": "http.response.start", "status": self.status_code}
                    await send({**start, "headers": self.raw_headers})
                    for first in range(0, len(self.body), _PORTION_BYTES):
                        portion = self.body[first : first + _PORTION_BYTES]
                        more = {"body": portion, "more_body": True}
                        await send({"type": "http.response.body", **more})
                    await send({"type": "http.response.body"})
                finally:
                    self._sending.pop(deadline, None)

    def _make_room(self) -> None:
        """End the oldest pages, so that clients that read slowly do not keep any number of them."""
        while len(self._sending) > 1 and sum(self._sending.values()) > _SENDING_BYTES:
            oldest = next(iter(self._sending))
            del self._sending[oldest]
            # A reader whose deadline has just passed cannot have another.
            with contextlib.suppress(RuntimeError):
                # A time in the past, so that the deadline passes at once.
                oldest.reschedule(0)
