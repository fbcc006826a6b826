"""No secret leaves the process other than as a signature to the configured API."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from chutes_exporter import log
from chutes_exporter.feeds.definitions import ENDPOINTS
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.web.landing import landing_page
from tests.chain.support import FakeNode, number, recorded_block
from tests.commands.support import Target, run
from tests.exporters import served, watching
from tests.replay import Fault
from tests.support import HOTKEY, PATIENCE, TEST_SEED

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from chutes_exporter.config import Settings
    from tests.replay import Replay

_HEX = re.compile(r"[0-9a-f]{128}")  # a signature, in hexadecimal


def secrets_in(text: str) -> list[str]:
    """Return the signatures in a text, and the seed if it is there."""
    secrets: list[str] = _HEX.findall(text)
    seed = TEST_SEED.removeprefix("0x")
    if seed in text.lower():
        secrets.append(seed)
    return secrets


async def everything_shown(
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    clock: Callable[[], float] = time.time,
) -> str:
    """Return all that an exporter shows while it scrapes with its most talkative log."""
    log.configure("debug", "json")
    try:
        async with Exporter(settings, clock=clock) as exporter:
            shown = [(await exporter.metrics(form, timeout=PATIENCE)).decode() for form in Format]
            shown.append(await landing_page(exporter))
            objects = (exporter, exporter.settings, exporter.client, *exporter.settings.keys)
            shown += [repr(one) for one in objects]
            for state in exporter.feeds.states().values():
                shown += [repr(state.last_error), str(state.last_error)]
        return "".join([*shown, *capsys.readouterr()])
    finally:
        logging.getLogger().handlers = []
        logging.getLogger().setLevel(logging.WARNING)


@pytest.mark.parametrize(
    "fault", [None, Fault(status=500), Fault(cut_after=10), Fault(status=401), Fault(body=b"x")]
)
async def test_nothing_shown_holds_a_seed_or_a_signature(
    replay: Replay, capsys: pytest.CaptureFixture[str], fault: Fault | None
) -> None:
    if fault is not None:
        replay.faults.update({endpoint.name: fault for endpoint in ENDPOINTS})
    shown = await everything_shown(watching(replay.url), capsys, replay.clock)
    assert HOTKEY in shown
    assert secrets_in(shown) == []


MARKER = "zq7-secret"
SECRETS: dict[str, dict[str, Any]] = {
    "instances": {"cacert": MARKER, "extra": {"key": MARKER}},
    "jobs": {"job_args": {"prompt": MARKER}, "result": {"text": MARKER}},
}
"""Fields of the service that hold keys and users' data."""


def hide_secrets(replay: Replay, *, spoiled: bool = False) -> None:
    """Put markers into the secret fields. Spoiled answers also have a record without an id."""
    for name, fields in SECRETS.items():
        # An id must be a text.
        unreadable = [fields | {"instance_id": 7, "job_id": 7}] * spoiled

        def hide(records: Any, fields: Any = fields, unreadable: Any = unreadable) -> Any:
            return [*(record | fields for record in records), *unreadable]

        replay.edits[name] = hide


@pytest.mark.parametrize("spoiled", [False, True])
async def test_no_page_log_line_or_error_shows_secrets(
    spoiled: bool,  # noqa: FBT001 - a parameter
    replay: Replay,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hide_secrets(replay, spoiled=spoiled)
    if spoiled:
        replay.faults["instances"] = Fault(cut_after=1500)
    shown = await everything_shown(watching(replay.url), capsys, replay.clock)
    assert HOTKEY in shown
    assert ("records left out" in shown) is spoiled
    # Also a marker that is cut off is not shown.
    assert MARKER[:4] not in shown


@pytest.mark.parametrize("form", [(), ("--json",)], ids=str)
@pytest.mark.parametrize("name", SECRETS)
async def test_no_query_prints_secrets(name: str, form: tuple[str, ...], replay: Replay) -> None:
    hide_secrets(replay)
    status, output, errors = await run(replay, "query", name, *form)
    assert status == 0
    assert output.count("\n") > 1
    assert MARKER not in output + errors


async def test_a_key_that_the_api_echoes_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    echoed: list[str] = []

    async def echo(request: Request) -> Response:
        text = f"you sent {dict(request.headers)}"
        echoed.append(text)
        return PlainTextResponse(text, 401)

    async with served(Starlette(routes=[Route("/{path:path}", echo)])) as url:
        shown = await everything_shown(watching(url), capsys)
    assert secrets_in("".join(echoed)) != []
    assert secrets_in(shown) == []


NODE_KEY = "9f0cA1b2%2Fkey=="


def echoes(method: str, reply: dict[str, Any]) -> dict[str, Any]:
    """Return answers of a node with the key of its address in different places, by a word for it.

    Args:
        method: What the node was asked.
        reply: The good answer.
    """
    # The key comes where the text of an error is cut, at 200 characters.
    long = "no " * 62
    return {
        "nothing": reply,
        "a text": PlainTextResponse(f"{long}{NODE_KEY}", 401),
        "an error": {"error": f"{long}{NODE_KEY.lower()}"},
        "a decoded error": {"error": unquote(NODE_KEY)},
        "another chain": {"result": NODE_KEY},
        "a block": {"result": NODE_KEY} if method == "chain_getFinalizedHead" else reply,
        "a field": reply | {NODE_KEY: 1},
        "a place": Response(status_code=307, headers={"Location": f"/{NODE_KEY}"}),
    }


# The words for the answers.
ECHOES = [*echoes("", {})]


@pytest.mark.parametrize("echo", ECHOES)
async def test_a_key_in_the_address_of_a_node_is_sent_and_never_shown(
    capsys: pytest.CaptureFixture[str], echo: str
) -> None:
    block = recorded_block(milliseconds=number(1000 * time.time(), 8))
    node = FakeNode(block, lambda method, reply: echoes(method, reply)[echo])
    async with node.serve() as url:
        address = f"{url}?v=1&apikey={NODE_KEY}"
        settings = watching(url, chain_url=address)
        shown = await everything_shown(settings, capsys)
        result = await run(Target(url), "check", "--chain.url", address)
        result_in_json = await run(Target(url), "check", "--json", "--chain.url", address)
        shown += f"{result} {result_in_json}"
    assert node.urls == {address}
    assert not re.search("9f0ca1b2", shown, re.IGNORECASE)
    # Only these answers are good, so that the exporter goes on to read the block.
    assert ("state_queryStorageAt" in node.calls) is (echo in ("nothing", "a field"))


async def test_a_key_in_the_address_of_a_node_that_nobody_reaches_is_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = watching(
        "http://127.0.0.1:1", chain_url=f"https://127.0.0.1:2/{NODE_KEY}?{NODE_KEY}"
    )
    shown = await everything_shown(settings, capsys)
    assert "cannot connect to 127.0.0.1:2" in shown
    assert "9f0cA1b2" not in shown
