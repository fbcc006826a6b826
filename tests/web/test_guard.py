from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import bcrypt
from starlette.responses import PlainTextResponse

from chutes_exporter.web.config_file import WebConfig
from chutes_exporter.web.guard import Guard
from tests.exporters import served
from tests.support import patient_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx


def hashed(cost: int = 4) -> str:
    """Return a bcrypt hash of the password "secret". Each cost takes twice as long as the last."""
    return bcrypt.hashpw(b"secret", bcrypt.gensalt(cost)).decode()


@contextlib.asynccontextmanager
async def guarded(web: WebConfig) -> AsyncIterator[tuple[httpx.AsyncClient, Guard]]:
    """Serve "hello" behind a guard with a configuration; yields a client and the guard."""
    guard = Guard(PlainTextResponse("hello"))
    guard.adopt(web)
    async with served(guard) as url, patient_client(base_url=url) as client:
        yield client, guard


async def test_only_the_users_of_the_newest_configuration_are_admitted() -> None:
    async with guarded(WebConfig(users={"alice": hashed()})) as (client, guard):
        assert (await client.get("/", auth=("alice", "secret"))).status_code == 200
        guard.adopt(WebConfig(users={"bob": hashed()}))
        assert (await client.get("/", auth=("alice", "secret"))).status_code == 401
        assert (await client.get("/", auth=("bob", "secret"))).status_code == 200
        # Without users, no password is needed.
        guard.adopt(WebConfig())
        assert (await client.get("/")).status_code == 200


async def test_configured_headers_replace_ours_and_blank_ones_are_left_out() -> None:
    headers = {
        "X-Frame-Options": "sameorigin",
        "Content-Security-Policy": "",
        "Strict-Transport-Security": "max-age=60",
    }
    async with guarded(WebConfig(headers=headers)) as (client, guard):
        sent = (await client.get("/")).headers
        assert sent.get_list("x-frame-options") == ["sameorigin"]
        assert sent["strict-transport-security"] == "max-age=60"
        assert sent["x-content-type-options"] == "nosniff"
        assert "content-security-policy" not in sent
        # A configuration without headers brings ours back.
        guard.adopt(WebConfig())
        assert (await client.get("/")).headers["x-frame-options"] == "DENY"


async def test_every_answer_has_our_headers_and_a_refusal_closes_its_connection() -> None:
    # A cost with which a check takes so long that others wait for it.
    async with guarded(WebConfig(users={"alice": hashed(cost=10)})) as (client, _):
        good = await client.get("/", auth=("alice", "secret"), headers={"content-length": "00"})
        with_length = await client.put("/", content=b"x")
        with_chunks = await client.post("/", content=b"x", headers={"transfer-encoding": "chunked"})
        without_password = await client.get("/nothing")
        guesses = [client.get("/", auth=("alice", str(number))) for number in range(10)]
        refused = await asyncio.gather(*guesses)
    # Of one client, only two checks may wait.
    assert {answer.status_code for answer in refused} == {401, 503}
    assert good.text == "hello"
    assert [with_length.status_code, with_chunks.status_code] == [413, 413]
    assert without_password.headers["www-authenticate"] == 'Basic realm="chutes-exporter"'
    for answer in (good, with_length, with_chunks, without_password, *refused):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")
        assert (answer.headers.get("connection") == "close") == (answer is not good)
