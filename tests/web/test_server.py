from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from chutes_exporter.config import Address, ConfigError
from chutes_exporter.web import server
from chutes_exporter.web.server import bound_address, open_socket, serving
from tests.support import PATIENCE, get, patient_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

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


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_machine_without_ipv6_is_served_by_ipv4(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    create = socket.create_server

    def without_ipv6(address: tuple[str, int], **options: int) -> socket.socket:
        if options.get("family") == socket.AF_INET6:
            raise OSError(number, "IPv6 is switched off")
        return create(address, backlog=options["backlog"])

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    with server.open_socket(Address("", 0)) as opened:
        assert opened.family == socket.AF_INET


def test_a_port_that_is_taken_on_ipv6_alone_is_refused() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on :{port}: Address already in use"):
            open_socket(Address("", port))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "Name or service not known"),
        (f"{'é' * 70}:1", "this is no host name"),
        ("unix:/nowhere/socket", "No such file or directory"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    create = socket.create_server

    def unknown(where: Any, **options: Any) -> socket.socket:
        if isinstance(where, str):
            return create(where, **options)
        raise socket.gaierror(-2, "Name or service not known (while attempting to bind on address ('*', 1))")

    monkeypatch.setattr(socket, "create_server", unknown)
    with pytest.raises(ConfigError) as error:
        open_socket(Address.parse(address))
    assert str(error.value) == f"--web.listen-address: cannot listen on {address}: {reason}. Choose another address"


@contextlib.asynccontextmanager
async def attacked() -> AsyncIterator[httpx.URL]:
    """Serve over a socket; yields where, for clients that misbehave."""
    with open_socket(Address("127.0.0.1", 0)) as opened:
        async with serving(APP, [opened], grace=1):
            yield httpx.URL(f"http://{bound_address(opened)}/")


async def said(url: httpx.URL, request: bytes) -> bytes:
    """Send bytes, and return all that comes back until the connection is closed."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    except ConnectionError:
        return b""
    finally:
        await gone(writer)


async def gone(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize(
    "request_bytes",
    [
        # At most 256 KB are read at once.
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * 300_000,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 60_000,
        b"GET /" + b"a" * 300_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\x00: c\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_oversized_or_invalid_requests_are_refused_and_the_next_one_is_answered(request_bytes: bytes) -> None:
    async with attacked() as url:
        answer = await said(url, request_bytes.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        assert answer == b"" or answer.split()[1] in (b"400", b"404")
        assert (await get(str(url))).text == "hello"


async def test_a_failure_of_the_server_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_server: uvicorn.Server, _counter: int) -> bool:
        raise ZeroDivisionError

    async def work() -> None:
        with open_socket(Address("127.0.0.1", 0)) as opened:
            async with serving(Starlette(), [opened], grace=1):
                await asyncio.sleep(30)
                ended.append(1)

    ended: list[int] = []
    monkeypatch.setattr(uvicorn.Server, "on_tick", fail)
    with pytest.raises(ZeroDivisionError):
        await work()
    assert not ended


async def test_answers_on_a_kept_connection_are_sent_without_delay() -> None:
    connected = []

    async def note(request: Request) -> Response:
        connected.append(request.client)
        return PlainTextResponse("hello")

    with open_socket(Address("127.0.0.1", 0)) as opened:
        app = Starlette(routes=[Route("/", note)])
        async with serving(app, [opened]), patient_client() as client:
            for _ in range(3):
                assert (await client.get(f"http://{bound_address(opened)}/")).text == "hello"
            # Without this, the end of an answer waits until the client acknowledges its beginning: 40 ms.
            assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert len(set(connected)) == 1


async def test_a_unix_socket_is_for_its_user_and_group(tmp_path: Path) -> None:
    path = tmp_path / "exporter.sock"
    address = Address(path=str(path))
    with open_socket(address) as opened:
        assert bound_address(opened) == address
        assert str(address) == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o660
        async with serving(APP, [opened]):
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            async with patient_client(transport=transport, base_url="http://exporter") as client:
                assert (await client.get("/")).text == "hello"
            with pytest.raises(ConfigError, match="Address already in use"):
                open_socket(address)


def test_a_unix_socket_that_nobody_listens_on_any_more_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "exporter.sock"
    open_socket(Address(path=str(path))).close()
    assert path.exists()
    with open_socket(Address(path=str(path))) as opened:
        assert bound_address(opened).path == str(path)


def test_a_file_in_the_place_of_a_unix_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    for taken in (path, tmp_path):
        with pytest.raises(ConfigError, match=r"cannot listen on unix:.*: the path exists and is no socket\."):
            open_socket(Address(path=str(taken)))
    assert path.read_text() == "data"


@pytest.mark.parametrize(("before", "hard", "after"), [(1024, 20_000, 4096), (1024, 2000, 2000), (1024, -1, 4096)])
def test_the_limit_of_open_files_is_raised_as_far_as_it_may(
    monkeypatch: pytest.MonkeyPatch, before: int, hard: int, after: int
) -> None:
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (before, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limit: limits.append(limit))
    server.allow_many_files()
    assert limits == [(after, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (65_536, 65_536))
    server.allow_many_files()
    assert len(limits) == 1
