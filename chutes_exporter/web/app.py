"""The ASGI application: routes only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from chutes_exporter.exposition import accepts_gzip, negotiate
from chutes_exporter.web.landing import landing_page

if TYPE_CHECKING:
    from starlette.requests import Request

    from chutes_exporter.exporter import Exporter

_DEFAULT_SCRAPE_TIMEOUT = 10.0
_LEAST_WAIT = 0.05


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


def make_app(exporter: Exporter) -> Starlette:
    """Make the application that serves an exporter."""

    async def metrics(request: Request) -> Response:
        form = negotiate(request.headers.get("accept", ""))
        gzipped = accepts_gzip(request.headers.get("accept-encoding", ""))
        timeout = scrape_timeout(
            request.headers.get("x-prometheus-scrape-timeout-seconds"), exporter.settings.timeout_offset
        )
        page = await exporter.page(form, timeout=timeout, gzipped=gzipped)
        headers = {"Vary": "Accept, Accept-Encoding"} | ({"Content-Encoding": "gzip"} if gzipped else {})
        return Response(page, headers=headers, media_type=form.value)

    async def landing(_request: Request) -> Response:
        return HTMLResponse(landing_page(exporter))

    async def healthy(_request: Request) -> Response:
        return PlainTextResponse("chutes-exporter is healthy.\n")

    async def ready(_request: Request) -> Response:
        return PlainTextResponse("chutes-exporter is ready.\n")

    return Starlette(
        routes=[
            Route("/", landing),
            Route(exporter.settings.telemetry_path, metrics),
            Route("/-/healthy", healthy),
            Route("/-/ready", ready),
        ]
    )
