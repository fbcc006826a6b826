from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from chutes_exporter.config import Address, ConfigError
from chutes_exporter.web.config_file import load_web_config
from chutes_exporter.web.server import bound_address, open_socket, serving
from chutes_exporter.web.tls import CURVES, CurrentContext
from tests.support import patient_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from starlette.requests import Request

    from tests.support import Pki

    Write = Callable[[str], Path]

TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
MUTUAL = TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


async def hello(_request: Request) -> Response:
    return PlainTextResponse("hello")


@contextlib.asynccontextmanager
async def encrypted(path: Path) -> AsyncIterator[tuple[str, CurrentContext]]:
    config = load_web_config(path)
    assert config.context is not None
    context = CurrentContext(config.context)
    with open_socket(Address("127.0.0.1", 0)) as opened:
        async with serving(Starlette(routes=[Route("/", hello)]), [opened], context=context):
            yield f"https://{bound_address(opened)}", context


async def ask(url: str, client: ssl.SSLContext) -> str:
    async with patient_client(verify=client) as http:
        return (await http.get(url)).text


async def refused(url: str, client: ssl.SSLContext) -> bool:
    try:
        await ask(url, client)
    except httpx.TransportError:
        return True
    return False


async def test_connections_are_encrypted_and_nothing_else_is_answered(pki: Pki, write: Write) -> None:
    async with encrypted(write(TLS)) as (url, _):
        assert await ask(url, pki.client()) == "hello"
        with pytest.raises(httpx.TransportError):
            await ask(url.replace("https", "http"), pki.client())
        assert await refused(url, ssl.create_default_context())


@pytest.mark.parametrize(
    ("lines", "oldest", "newest", "served"),
    [
        ("", TLS12, TLS12, True),
        ("", TLS13, TLS13, True),
        ("  min_version: TLS13\n", TLS12, TLS12, False),
        ("  max_version: TLS12\n", TLS13, TLS13, False),
        ("  min_version: TLS13\n", TLS12, TLS13, True),
    ],
)
async def test_versions_are_those_that_are_configured(
    pki: Pki,
    write: Write,
    lines: str,
    oldest: ssl.TLSVersion,
    newest: ssl.TLSVersion,
    served: bool,  # noqa: FBT001
) -> None:
    async with encrypted(write(TLS + lines)) as (url, _):
        client = pki.client(maximum_version=newest, minimum_version=oldest)
        assert await refused(url, client) is not served


@pytest.mark.usefixtures("pki")
def test_a_curve_that_this_python_cannot_use_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_context: ssl.SSLContext, _curve: str) -> None:
        raise ssl.SSLError("unknown group")

    monkeypatch.setattr(ssl.SSLContext, "set_ecdh_curve", refuse)
    with pytest.raises(ConfigError, match="use CurveP256"):
        load_web_config(write(TLS + "  curve_preferences: [X25519]\n"))


async def test_only_the_configured_curve_is_used(pki: Pki, write: Write) -> None:
    async with encrypted(write(TLS + "  curve_preferences: [CurveP384]\n")) as (url, _):
        for curve, served in (("prime256v1", False), (CURVES["CurveP384"], True)):
            client = pki.client()
            client.set_ecdh_curve(curve)
            assert await refused(url, client) is not served


OPTIONAL = MUTUAL.replace("RequireAndVerify", "Verify").replace("ClientCert\n", "ClientCertIfGiven\n")
EVERYBODY = ("", "one", "two", "six", "mail", "forged", "of the middle")


@pytest.mark.parametrize(
    ("lines", "served"),
    [
        (MUTUAL, {"one", "two", "six", "mail", "of the middle"}),
        (OPTIONAL, {"", "one", "two", "six", "mail", "of the middle"}),
        # It is enough to trust an authority in the middle of a chain, and what is no certificate is skipped.
        (MUTUAL.replace("ca.crt", "middle.crt"), {"of the middle"}),
        (MUTUAL.replace("ca.crt", "broken.crt"), set()),
        (MUTUAL + '  client_allowed_sans: [one.example, 10.0.0.7, "2001:db8::7"]\n', {"one", "two", "six"}),
        (MUTUAL + "  client_allowed_sans: []\n", set()),
        (OPTIONAL + "  client_allowed_sans: [one.example]\n", {"one"}),
    ],
)
async def test_only_clients_with_a_certificate_of_the_authority_and_an_allowed_name_are_served(
    pki: Pki, write: Write, lines: str, served: set[str]
) -> None:
    middle = pki.authority.create_child_ca()
    broken = b"\xff -----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    (pki.folder / "broken.crt").write_bytes(broken)
    (pki.folder / "middle.crt").write_bytes(broken + middle.cert_pem.bytes())
    pki.issue("one", "one.example")
    pki.issue("two", "two.example", "10.0.0.7")
    pki.issue("six", "2001:db8::7")
    pki.issue("mail", "someone@example.org")
    pki.issue("forged", "one.example", authority=trustme.CA())
    pki.issue("of the middle", "middle.example", authority=middle)
    async with encrypted(write(lines)) as (url, _):
        assert {name for name in EVERYBODY if not await refused(url, pki.client(name))} == served


async def test_without_an_authority_the_systems_authorities_count(
    pki: Pki, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    pki.issue("client", "prometheus.example")
    path = write(MUTUAL.replace("  client_ca_file: ca.crt\n", ""))
    async with encrypted(path) as (url, _):
        assert await refused(url, pki.client("client"))
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.folder / "ca.crt"))
    async with encrypted(path) as (url, _):
        assert await ask(url, pki.client("client")) == "hello"
        assert await refused(url, pki.client())


async def test_a_new_certificate_serves_new_connections_and_loses_no_old_one(pki: Pki, write: Write) -> None:
    path = write(TLS)
    async with encrypted(path) as (url, context), patient_client(verify=pki.client()) as old:

        async def serial(client: httpx.AsyncClient) -> str:
            async with client.stream("GET", url) as response:
                await response.aread()
                tls = response.extensions["network_stream"].get_extra_info("ssl_object")
                return str(tls.getpeercert()["serialNumber"])

        first = await serial(old)
        pki.issue("server", "127.0.0.1")
        renewed = load_web_config(path).context
        assert renewed is not None
        context.current = renewed
        assert await serial(old) == first
        async with patient_client(verify=pki.client()) as new:
            assert await serial(new) != first
