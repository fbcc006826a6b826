from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme
from starlette.responses import PlainTextResponse

from chutes_exporter.config import Address
from chutes_exporter.web.config_file import load_web_config
from chutes_exporter.web.server import bound_address, open_socket, serving
from tests.support import patient_client
from tests.web.test_config_file import TLS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support import Pki
    from tests.web.test_config_file import Write

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@contextlib.asynccontextmanager
async def encrypted(path: Path) -> AsyncIterator[str]:
    with open_socket(Address("127.0.0.1", 0)) as opened:
        context = load_web_config(path).context
        async with serving(PlainTextResponse("hello"), [opened], context=context):
            yield f"https://{bound_address(opened)}"


async def refused(url: str, client: ssl.SSLContext) -> bool:
    try:
        async with patient_client(verify=client) as http:
            assert (await http.get(url)).text == "hello"
    except httpx.TransportError:
        return True
    return False


async def test_connections_are_encrypted_by_a_version_that_is_allowed_and_nothing_else_is_answered(
    pki: Pki, write: Write
) -> None:
    async with encrypted(write(TLS)) as url:
        for version in (TLS12, TLS13):
            client = pki.client(maximum_version=version, minimum_version=version)
            assert not await refused(url, client)
        assert await refused(url.replace("https", "http"), pki.client())
        assert await refused(url, ssl.create_default_context())
    async with encrypted(write(TLS + "  min_version: TLS13\n")) as url:
        assert await refused(url, pki.client(maximum_version=TLS12))
        assert not await refused(url, pki.client())


@pytest.mark.parametrize(
    ("kind", "served"),
    [("RequireAndVerifyClientCert", {"one"}), ("VerifyClientCertIfGiven", {"", "one"})],
)
async def test_only_clients_with_a_certificate_of_the_authority_are_served(
    pki: Pki, write: Write, kind: str, served: set[str]
) -> None:
    pki.issue("one", "one.example")
    pki.issue("forged", "one.example", authority=trustme.CA())
    path = write(f"{TLS}  client_auth_type: {kind}\n  client_ca_file: ca.crt\n")
    async with encrypted(path) as url:
        assert {
            name for name in ("", "one", "forged") if not await refused(url, pki.client(name))
        } == served


async def test_an_authority_in_the_file_is_trusted_although_its_issuer_is_not(
    pki: Pki, write: Write
) -> None:
    lower = pki.authority.create_child_ca()
    pki.issue("one", "one.example", authority=lower)
    (pki.folder / "lower.crt").write_bytes(lower.cert_pem.bytes())
    path = write(
        f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: lower.crt\n"
    )
    async with encrypted(path) as url:
        assert not await refused(url, pki.client("one"))
