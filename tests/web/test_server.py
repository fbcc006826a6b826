from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from chutes_exporter.config import Address, ConfigError
from chutes_exporter.web import server
from chutes_exporter.web.server import bound_address, open_socket, serving
from tests.support import get

if TYPE_CHECKING:
    from starlette.requests import Request


async def hello(_request: Request) -> Response:
    return PlainTextResponse("hello")


APP = Starlette(routes=[Route("/", hello)])


async def test_without_a_host_every_address_answers() -> None:
    opened = open_socket(Address("", 0))
    async with serving(APP, [opened]):
        port = bound_address(opened).port
        assert str(bound_address(opened)) == f":{port}"
        assert (await get(f"http://127.0.0.1:{port}/")).text == "hello"


async def test_several_addresses_are_served_by_one_server() -> None:
    sockets = [open_socket(Address("127.0.0.1", 0)), open_socket(Address("127.0.0.1", 0))]
    async with serving(APP, sockets):
        for opened in sockets:
            assert (await get(f"http://{bound_address(opened)}/")).text == "hello"


def test_a_machine_without_ipv6_is_served_by_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.create_server

    def without_ipv6(address: tuple[str, int], **options: int) -> socket.socket:
        if options.get("family") == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return create(address, backlog=options["backlog"])

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    with server.open_socket(Address("", 0)) as opened:
        assert opened.family == socket.AF_INET


def test_an_address_in_use_is_refused_in_a_sentence() -> None:
    with (
        open_socket(Address("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use"),
    ):
        open_socket(bound_address(taken))


async def test_requests_that_take_too_long_at_the_end_are_hurried() -> None:
    hurried = asyncio.Event()

    async def slow(_request: Request) -> Response:
        await hurried.wait()
        return PlainTextResponse("what there is")

    opened = open_socket(Address("127.0.0.1", 0))
    async with serving(Starlette(routes=[Route("/", slow)]), [opened], grace=20, patience=0.3, hurry=hurried.set):
        waiting = asyncio.create_task(get(f"http://{bound_address(opened)}/"))
        await asyncio.sleep(0.3)
        assert not hurried.is_set()
    assert (await waiting).text == "what there is"
