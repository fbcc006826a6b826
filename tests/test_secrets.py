"""No secret leaves the process other than as a signature to the configured API."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from chutes_exporter import log
from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.simulator import Fault, Simulator, World
from chutes_exporter.simulator.world import TEST_SEED
from chutes_exporter.web.landing import landing_page
from tests.support import HOTKEY, PATIENCE, served, watching

if TYPE_CHECKING:
    from starlette.requests import Request

_HEX = re.compile(r"[0-9a-f]{128}")  # a signature, in hexadecimal


def secrets_in(text: str) -> list[str]:
    return _HEX.findall(text) + ([TEST_SEED[2:]] if TEST_SEED[2:] in text.lower() else [])


async def everything_shown(url: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return all that an exporter shows while it scrapes with its most talkative log: log, pages,
    errors.
    """
    log.configure("debug", "json")
    try:
        async with Exporter(watching(url), clock=time.time) as exporter:
            shown = [(await exporter.metrics(form, timeout=PATIENCE)).decode() for form in Format]
            shown.append(await landing_page(exporter, time.time()))
            shown.extend(
                repr(value)
                for value in (exporter, exporter.settings, exporter.client, *exporter.settings.keys)
            )
            shown.extend(
                f"{state.last_error!r} {state.last_error}"
                for state in exporter.feeds.states().values()
            )
        return "".join([*shown, *capsys.readouterr()])
    finally:
        logging.getLogger().handlers = []
        logging.getLogger().setLevel(logging.WARNING)


@pytest.mark.parametrize(
    "fault", [None, Fault(status=500), Fault(cut_after=10), Fault(status=401), Fault(body=b"x")]
)
async def test_nothing_shown_holds_a_seed_or_a_signature(
    small_world: World, capsys: pytest.CaptureFixture[str], fault: Fault | None
) -> None:
    async with Simulator(small_world) as simulator:
        if fault is not None:
            simulator.faults.update({endpoint.name: fault for endpoint in ENDPOINTS})
        shown = await everything_shown(simulator.url, capsys)
    assert HOTKEY in shown
    assert secrets_in(shown) == []


async def test_a_key_that_the_api_echoes_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    echoed: list[str] = []

    async def echo(request: Request) -> Response:
        text = f"you sent {dict(request.headers)}"
        echoed.append(text)
        return PlainTextResponse(text, 401)

    async with served(Starlette(routes=[Route("/{path:path}", echo)])) as url:
        shown = await everything_shown(url, capsys)
    assert secrets_in("".join(echoed)) != []
    assert secrets_in(shown) == []
