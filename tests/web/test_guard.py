from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import bcrypt
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from chutes_exporter.web.config_file import RateLimit, WebConfig
from chutes_exporter.web.guard import Guard
from tests.support import Clock, patient_client, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx
    from starlette.requests import Request

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()


async def hello(_request: Request) -> Response:
    return PlainTextResponse("hello")


@contextlib.asynccontextmanager
async def guarded(config: WebConfig, clock: Clock | None = None) -> AsyncIterator[tuple[httpx.AsyncClient, Guard]]:
    guard = Guard(Starlette(routes=[Route("/", hello)]), monotonic=clock or Clock())
    guard.adopt(config)
    async with served(guard) as url, patient_client(base_url=url) as client:
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
    async with guarded(WebConfig(rate_limit=RateLimit("10s", 3), users={}), clock) as (client, _):
        assert [(await client.get("/")).status_code for _ in range(4)] == [200, 200, 200, 429]
        clock.now += 5
        response = await client.get("/")
        assert (response.status_code, response.headers["retry-after"]) == (429, "6")
        clock.now += 5
        assert [(await client.get("/")).status_code for _ in range(2)] == [200, 429]
        clock.now += 10_000
        assert [(await client.get("/")).status_code for _ in range(4)] == [200, 200, 200, 429]


async def test_a_new_rate_limit_holds_at_once() -> None:
    async with guarded(WebConfig(rate_limit=RateLimit("1s", 5))) as (client, guard):
        guard.adopt(WebConfig(rate_limit=RateLimit("1s", 1)))
        assert [(await client.get("/")).status_code for _ in range(2)] == [200, 429]
        guard.adopt(WebConfig())
        assert (await client.get("/")).status_code == 200


async def test_requests_without_a_password_do_not_use_up_the_rate_limit() -> None:
    config = WebConfig(rate_limit=RateLimit("10s", 2), users={"alice": HASH})
    async with guarded(config) as (client, _):
        assert {(await client.get("/")).status_code for _ in range(5)} == {401}
        assert {(await client.get("/", auth=("alice", "wrong"))).status_code for _ in range(5)} == {401}
        good = ("alice", "secret")
        assert [(await client.get("/", auth=good)).status_code for _ in range(3)] == [200, 200, 429]
