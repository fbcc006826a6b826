from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import bcrypt
import httpx
import pytest
from starlette.responses import PlainTextResponse

from chutes_exporter.web.config_file import WebConfig
from chutes_exporter.web.guard import Guard
from tests.support import PATIENCE, patient_client, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


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


async def test_passwords_are_asked_for_everywhere() -> None:
    async with guarded(WebConfig(users={"alice": hashed()})) as (client, _):
        for path in ("/", "/nothing"):
            answer = await client.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Basic realm="chutes-exporter"'
        assert (await client.get("/", auth=("alice", "wrong"))).status_code == 401
        assert (await client.get("/", auth=("alice", "secret"))).text == "hello"


async def test_every_answer_has_headers_that_keep_browsers_from_harm() -> None:
    async with guarded(WebConfig(users={"alice": hashed()})) as (client, _):
        answers = [await client.get("/"), await client.get("/", auth=("alice", "secret"))]
    assert [answer.status_code for answer in answers] == [401, 200]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")
        assert answer.headers["referrer-policy"] == "no-referrer"


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


async def test_too_many_concurrent_password_checks_get_503() -> None:
    # A cost with which a check takes so long that others wait for it.
    async with guarded(WebConfig(users={"alice": hashed(cost=10)})) as (client, _):
        guesses = [client.get("/", auth=("alice", str(number))) for number in range(90)]
        # Of one client, only two checks may wait. The others get 503, and keep no other client out.
        transport = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with patient_client(transport=transport, base_url=client.base_url) as other:
            *answers, good = await asyncio.gather(
                *guesses, other.get("/", auth=("alice", "secret"))
            )
    assert good.text == "hello"
    assert {answer.status_code for answer in answers} == {401, 503}
    assert {answer.headers["retry-after"] for answer in answers if answer.status_code == 503} == {
        "5"
    }


async def send_for_ever(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    """Send the same bytes until the server closes the connection."""
    while True:
        writer.write(chunk)
        await writer.drain()
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 00900000000\r\n\r\n",
    ],
)
@pytest.mark.parametrize("users", [{}, {"alice": hashed()}])
async def test_an_endless_body_is_refused_and_its_connection_closed(
    head: bytes, users: Mapping[str, str]
) -> None:
    async with guarded(WebConfig(users=users)) as (client, _):
        address = client.base_url
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(head)
        # The answer ends with "nothing here reads one."
        answer = await asyncio.wait_for(reader.readuntil(b"one.\n"), PATIENCE)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_for_ever(writer, b"1\r\na\r\n"), PATIENCE)
        writer.transport.abort()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in answer


async def test_a_request_that_says_that_it_has_no_body_is_answered() -> None:
    async with guarded(WebConfig()) as (client, _):
        answers = [
            await client.get("/", headers={"content-length": length}) for length in ("0", "000")
        ]
    assert [answer.text for answer in answers] == ["hello"] * 2
