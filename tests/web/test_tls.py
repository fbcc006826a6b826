from __future__ import annotations

import asyncio
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


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated:DeprecationWarning")
async def test_a_downgrade_to_an_old_version_is_refused(pki: Pki, write: Write) -> None:
    async with encrypted(write(TLS)) as (url, _):
        client = pki.client()
        client.set_ciphers("ALL:@SECLEVEL=0")
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1
        assert await refused(url, client)


async def test_a_weak_suite_is_refused_where_only_it_is_offered(pki: Pki, write: Write) -> None:
    async with encrypted(write(TLS)) as (url, _):
        client = pki.client(maximum_version=TLS12)
        client.set_ciphers("AES128-SHA:ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
        assert await refused(url, client)


@pytest.mark.usefixtures("pki")
def test_a_curve_that_this_python_cannot_use_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_context: ssl.SSLContext, _curve: str) -> None:
        raise ssl.SSLError("unknown group")

    monkeypatch.setattr(ssl.SSLContext, "set_ecdh_curve", refuse)
    with pytest.raises(ConfigError, match="use CurveP256"):
        load_web_config(write(TLS + "  curve_preferences: [X25519]\n"))


@pytest.mark.usefixtures("pki")
@pytest.mark.parametrize(("name", "curve"), CURVES.items())
def test_each_curve_is_accepted_that_this_python_can_use(write: Write, name: str, curve: str) -> None:
    text = TLS + f"  curve_preferences: [{name}]\n"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve(curve)
    except ssl.SSLError:
        with pytest.raises(ConfigError, match="use CurveP256"):
            load_web_config(write(text))
    else:
        assert load_web_config(write(text)).context is not None


async def test_only_the_configured_curve_is_used(pki: Pki, write: Write) -> None:
    async with encrypted(write(TLS + "  curve_preferences: [CurveP384]\n")) as (url, _):
        for curve, served in (("prime256v1", False), ("secp384r1", True)):
            client = pki.client()
            client.set_ecdh_curve(curve)
            assert await refused(url, client) is not served


async def test_clients_need_a_certificate_of_the_authority(pki: Pki, write: Write) -> None:
    pki.issue("client", "prometheus.example")
    pki.issue("forged", "prometheus.example", authority=trustme.CA())
    async with encrypted(write(MUTUAL)) as (url, _):
        assert await ask(url, pki.client("client")) == "hello"
        assert await refused(url, pki.client())
        assert await refused(url, pki.client("forged"))


async def test_an_optional_client_certificate_must_be_valid(pki: Pki, write: Write) -> None:
    pki.issue("client", "prometheus.example")
    pki.issue("forged", "prometheus.example", authority=trustme.CA())
    optional = MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
    async with encrypted(write(optional)) as (url, _):
        assert await ask(url, pki.client("client")) == "hello"
        assert await ask(url, pki.client()) == "hello"
        assert await refused(url, pki.client("forged"))


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


async def test_an_authority_in_the_middle_of_a_chain_is_enough(pki: Pki, write: Write) -> None:
    middle = pki.authority.create_child_ca()
    (pki.folder / "ca.crt").write_bytes(middle.cert_pem.bytes())
    pki.issue("client", "prometheus.example", authority=middle)
    pki.issue("other", "prometheus.example")
    async with encrypted(write(MUTUAL)) as (url, _):
        assert await ask(url, pki.client("client")) == "hello"
        assert await refused(url, pki.client("other"))


async def test_invalid_certificates_of_authorities_are_skipped(pki: Pki, write: Write) -> None:
    pki.issue("client", "prometheus.example")
    broken = b"\xff -----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    (pki.folder / "ca.crt").write_bytes(broken + pki.authority.cert_pem.bytes())
    async with encrypted(write(MUTUAL)) as (url, _):
        assert await ask(url, pki.client("client")) == "hello"
    (pki.folder / "ca.crt").write_bytes(broken)
    async with encrypted(write(MUTUAL)) as (url, _):
        assert await refused(url, pki.client("client"))


async def test_only_clients_with_an_allowed_name_are_served(pki: Pki, write: Write) -> None:
    pki.issue("one", "one.example")
    pki.issue("two", "two.example", "10.0.0.7")
    pki.issue("six", "2001:db8::7")
    pki.issue("mail", "someone@example.org")
    async with encrypted(write(MUTUAL + '  client_allowed_sans: [one.example, 10.0.0.7, "2001:db8::7"]\n')) as (url, _):
        for name in ("one", "two", "six"):
            assert await ask(url, pki.client(name)) == "hello"
        assert await refused(url, pki.client("mail"))
    async with encrypted(write(MUTUAL + "  client_allowed_sans: []\n")) as (url, _):
        assert await refused(url, pki.client("one"))


async def test_an_optional_client_certificate_must_have_an_allowed_name(pki: Pki, write: Write) -> None:
    pki.issue("client", "one.example")
    optional = MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
    async with encrypted(write(optional + "  client_allowed_sans: [one.example]\n")) as (url, _):
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


async def test_unfinished_handshakes_do_not_block_other_clients(pki: Pki, write: Write) -> None:
    async with encrypted(write(TLS)) as (url, _):
        address = httpx.URL(url)
        silent = [await asyncio.open_connection(address.host, address.port) for _ in range(100)]
        assert await ask(url, pki.client()) == "hello"
        for _, writer in silent:
            writer.close()


async def test_the_order_of_cipher_suites_is_the_servers_preference(pki: Pki, write: Write) -> None:
    suites = [f"TLS_ECDHE_ECDSA_WITH_AES_{name}" for name in ("256_GCM_SHA384", "128_GCM_SHA256")]
    async with encrypted(write(f"{TLS}  cipher_suites: [{', '.join(suites)}]\n")) as (url, _):
        client = pki.client(maximum_version=TLS12)
        client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
        address = httpx.URL(url)
        _, writer = await asyncio.open_connection(address.host, address.port, ssl=client)
        assert writer.get_extra_info("cipher")[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
        writer.close()
        await writer.wait_closed()
