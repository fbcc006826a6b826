from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import bcrypt
import httpx
import pytest
import structlog
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from chutes_exporter.web.config_file import RateLimit, WebConfig
from chutes_exporter.web.guard import Guard
from tests.support import Clock, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()


async def hello(_request: Request) -> Response:
    return PlainTextResponse("hello")


@contextlib.asynccontextmanager
async def guarded(config: WebConfig, clock: Clock | None = None) -> AsyncIterator[tuple[httpx.AsyncClient, Guard]]:
    guard = Guard(Starlette(routes=[Route("/", hello)]), monotonic=clock or Clock())
    guard.adopt(config)
    async with served(guard) as url, httpx.AsyncClient(base_url=url) as client:
        yield client, guard


async def test_every_answer_has_headers_that_keep_browsers_from_harm() -> None:
    async with guarded(WebConfig(headers={"X-Frame-Options": "sameorigin"})) as (client, _):
        for path in ("/", "/nothing"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["content-security-policy"].startswith("default-src 'none'; ")
            assert headers["referrer-policy"] == "no-referrer"
            # Configured headers have precedence.
            assert headers.get_list("x-frame-options") == ["sameorigin"]


async def test_long_addresses_are_refused() -> None:
    async with guarded(WebConfig()) as (client, _):
        assert (await client.get("/?" + "a" * 4000)).status_code == 200
        assert (await client.get("/?" + "a" * 4100)).status_code == 414
        assert (await client.get("/" + "a" * 4100)).status_code == 414


async def test_long_headers_are_refused() -> None:
    async with guarded(WebConfig()) as (client, _):
        assert (await client.get("/", headers={"x": "a" * 15_000})).status_code == 200
        assert (await client.get("/", headers={"x": "a" * 17_000})).status_code == 431
        assert (await client.get("/", headers={f"x-{number}": "a" for number in range(4000)})).status_code == 431


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        ("Transfer-Encoding: chunked", 411),
        ("Content-Length: 16385", 413),
    ],
)
async def test_a_body_that_could_hide_a_request_or_take_memory_is_refused_and_the_connection_closed(
    headers: str, status: int
) -> None:
    async with guarded(WebConfig()) as (client, _):
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(f"POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n0\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in answer.lower()


async def test_a_short_body_is_ignored() -> None:
    async with guarded(WebConfig()) as (client, _):
        assert (await client.request("GET", "/", content=b"a" * 16_384)).text == "hello"


async def test_passwords_are_asked_for_everywhere_and_from_the_next_configuration_on() -> None:
    async with guarded(WebConfig(users={"alice": HASH})) as (client, guard):
        for path in ("/", "/nothing"):
            response = await client.get(path)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == 'Basic realm="chutes-exporter"'
            assert response.headers["x-content-type-options"] == "nosniff"
        assert (await client.get("/", auth=("alice", "wrong"))).status_code == 401
        assert (await client.get("/", auth=("alice", "secret"))).text == "hello"
        guard.adopt(WebConfig(users={"bob": HASH}))
        assert (await client.get("/", auth=("alice", "secret"))).status_code == 401
        assert (await client.get("/", auth=("bob", "secret"))).status_code == 200
        guard.adopt(WebConfig())
        assert (await client.get("/")).status_code == 200


async def test_too_many_concurrent_password_checks_get_503() -> None:
    slow = bcrypt.hashpw(b"secret", bcrypt.gensalt(10)).decode()
    async with guarded(WebConfig(users={"alice": slow})) as (client, _):
        answers = await asyncio.gather(*(client.get("/", auth=("alice", str(number))) for number in range(90)))
        # Guesses of one client do not delay another client.
        guard_of_others = await client.get("/", auth=("alice", "secret"))
        assert guard_of_others.status_code == 200
    statuses = {answer.status_code for answer in answers}
    assert statuses == {401, 503}
    assert {answer.headers["retry-after"] for answer in answers if answer.status_code == 503} == {"5"}


async def test_the_rate_limit_lets_a_burst_through_and_then_one_each_interval() -> None:
    clock = Clock()
    async with guarded(WebConfig(rate_limit=RateLimit(10, 3), users={}), clock) as (client, _):
        assert [(await client.get("/")).status_code for _ in range(4)] == [200, 200, 200, 429]
        clock.now += 5
        response = await client.get("/")
        assert (response.status_code, response.headers["retry-after"]) == (429, "6")
        clock.now += 5
        assert [(await client.get("/")).status_code for _ in range(2)] == [200, 429]
        clock.now += 10_000
        assert [(await client.get("/")).status_code for _ in range(4)] == [200, 200, 200, 429]


async def test_a_rate_limit_without_a_burst_refuses_every_request_and_names_no_time() -> None:
    clock = Clock()
    async with guarded(WebConfig(rate_limit=RateLimit(1, 0)), clock) as (client, _):
        for _ in range(2):
            response = await client.get("/")
            assert (response.status_code, response.headers.get("retry-after")) == (429, None)
            clock.now += 10_000


async def test_a_new_rate_limit_holds_at_once() -> None:
    async with guarded(WebConfig(rate_limit=RateLimit(1, 0))) as (client, guard):
        guard.adopt(WebConfig(rate_limit=RateLimit(1, 1)))
        assert [(await client.get("/")).status_code for _ in range(2)] == [200, 429]
        guard.adopt(WebConfig())
        assert (await client.get("/")).status_code == 200


async def test_configured_headers_go_out_as_utf_8_and_may_be_empty() -> None:
    configured = {"X-XSS-Protection": "ü €", "Content-Security-Policy": ""}
    async with guarded(WebConfig(headers=configured)) as (client, _):
        headers = (await client.get("/")).headers.raw
        assert [value for name, value in headers if name.lower() == b"x-xss-protection"] == ["ü €".encode()]
        assert [value for name, value in headers if name.lower() == b"content-security-policy"] == [b""]


async def test_warnings_of_a_web_configuration_are_logged() -> None:
    with structlog.testing.capture_logs() as logs:
        async with guarded(WebConfig(warnings=("web.yml, line 1: basic_auth_users has no user",))):
            pass
    (log,) = logs
    assert (log["log_level"], log["reason"]) == ("warning", "web.yml, line 1: basic_auth_users has no user")


async def test_requests_without_a_password_do_not_use_up_the_rate_limit() -> None:
    config = WebConfig(rate_limit=RateLimit(10, 2), users={"alice": HASH})
    async with guarded(config) as (client, _):
        assert {(await client.get("/")).status_code for _ in range(5)} == {401}
        assert {(await client.get("/", auth=("alice", "wrong"))).status_code for _ in range(5)} == {401}
        good = ("alice", "secret")
        assert [(await client.get("/", auth=good)).status_code for _ in range(3)] == [200, 200, 429]
