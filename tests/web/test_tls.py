from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.responses import PlainTextResponse

from chutes_exporter.config import Address, ConfigError
from chutes_exporter.web import tls
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
# The test's certificates have no RSA key.
ECDSA = {name: cipher for name, cipher in tls.CIPHERS.items() if "ECDSA" in name}


@contextlib.asynccontextmanager
async def encrypted(path: Path) -> AsyncIterator[str]:
    """Serve "hello" with the TLS of a web configuration; yields its address."""
    with open_socket(Address("127.0.0.1", 0)) as opened:
        context = load_web_config(path).context
        async with serving(PlainTextResponse("hello"), [opened], context=context):
            yield f"https://{bound_address(opened)}"


async def chosen_cipher(url: str, client: ssl.SSLContext) -> str:
    """Return the cipher of a connection, or nothing if it is refused."""
    async with patient_client(verify=client) as http:
        try:
            async with http.stream("GET", url) as response:
                assert await response.aread() == b"hello"
                stream = response.extensions["network_stream"]
                name, *_ = stream.get_extra_info("ssl_object").cipher()
                return str(name)
        except httpx.TransportError:
            return ""


async def refused(url: str, client: ssl.SSLContext) -> bool:
    """Return whether a client gets no answer."""
    try:
        async with patient_client(verify=client) as http:
            assert (await http.get(url)).text == "hello"
    except httpx.TransportError:
        return True
    return False


async def test_connections_are_encrypted_with_the_configured_certificate(
    pki: Pki, write: Write
) -> None:
    async with encrypted(write(TLS)) as url:
        assert not await refused(url, pki.client())
        assert await refused(url.replace("https", "http"), pki.client())
        # This client does not trust the authority of the certificate.
        assert await refused(url, ssl.create_default_context())


async def test_only_the_configured_versions_are_used(pki: Pki, write: Write) -> None:
    async with encrypted(write(TLS)) as url:
        for version in (TLS12, TLS13):
            client = pki.client(maximum_version=version, minimum_version=version)
            assert not await refused(url, client)
    async with encrypted(write(TLS + "  min_version: TLS13\n")) as url:
        assert await refused(url, pki.client(maximum_version=TLS12))
        assert not await refused(url, pki.client())
    async with encrypted(write(TLS + "  max_version: TLS12\n")) as url:
        assert await refused(url, pki.client(minimum_version=TLS13))
        assert not await refused(url, pki.client())


TWO_CIPHERS = (
    "  cipher_suites:\n"
    "  - TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\n"
    "  - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\n"
)


@pytest.mark.parametrize(
    ("lines", "client_ciphers", "chosen"),
    [
        # Without the field, all of OpenSSL's ciphers are offered.
        ("", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES128-SHA256"),
        # Refused, because it is none of the two.
        (TWO_CIPHERS, "ECDHE-ECDSA-AES128-SHA256", ""),
        # The first one of the server.
        (
            TWO_CIPHERS,
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
        ),
        # The first one of the client.
        (
            TWO_CIPHERS + "  prefer_server_cipher_suites: false\n",
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ),
        *((f"  cipher_suites: [{name}]\n", cipher, cipher) for name, cipher in ECDSA.items()),
    ],
)
async def test_only_the_configured_cipher_suites_are_used_in_their_order(
    pki: Pki, write: Write, lines: str, client_ciphers: str, chosen: str
) -> None:
    client = pki.client(maximum_version=TLS12)
    client.set_ciphers(client_ciphers)
    async with encrypted(write(TLS + lines)) as url:
        assert await chosen_cipher(url, client) == chosen


async def test_suites_of_tls_13_alone_leave_no_older_version(pki: Pki, write: Write) -> None:
    async with encrypted(write(TLS + "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n")) as url:
        assert await refused(url, pki.client(maximum_version=TLS12))
        assert not await refused(url, pki.client())


@pytest.mark.usefixtures("pki")
@pytest.mark.parametrize("others", ["", ", TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"])
def test_a_suite_that_this_openssl_does_not_have_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch, others: str
) -> None:
    monkeypatch.setitem(tls.CIPHERS, "TLS_OF_TOMORROW", "OF-TOMORROW")
    path = write(TLS + f"  cipher_suites: [TLS_OF_TOMORROW{others}]\n")
    with pytest.raises(ConfigError, match="this OpenSSL does not have TLS_OF_TOMORROW: remove it"):
        load_web_config(path)


@pytest.mark.parametrize("curve", tls.CURVES)
async def test_only_the_configured_curve_is_used(pki: Pki, write: Write, curve: str) -> None:
    async with encrypted(write(TLS + f"  curve_preferences: [{curve}]\n")) as url:
        accepted = set()
        for name, name_in_openssl in tls.CURVES.items():
            client = pki.client()
            client.set_ecdh_curve(name_in_openssl)
            if not await refused(url, client):
                accepted.add(name)
    assert accepted == {curve}


@pytest.mark.usefixtures("pki")
def test_a_curve_that_this_python_cannot_choose_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tls.CURVES, "X25519", "unknown")
    with pytest.raises(ConfigError, match="this Python cannot choose X25519: use CurveP256"):
        load_web_config(write(TLS + "  curve_preferences: [X25519]\n"))


async def test_certificates_can_stand_in_the_file_itself(pki: Pki, write: Write) -> None:
    def indented(name: str) -> str:
        return (pki.folder / name).read_text().replace("\n", "\n    ")

    pki.issue("one", "one.example")
    path = write(
        f"tls_server_config:\n  cert: |\n    {indented('server.crt')}\n  key: |\n    "
        f"{indented('server.key')}\n  client_ca: |\n    {indented('ca.crt')}\n"
        "  client_auth_type: RequireAndVerifyClientCert\n"
    )
    # The file with the key is not needed.
    (pki.folder / "server.key").unlink()
    async with encrypted(path) as url:
        assert not await refused(url, pki.client("one"))
        assert await refused(url, pki.client())


async def test_a_file_has_precedence_over_a_text(pki: Pki, write: Write) -> None:
    async with encrypted(write(TLS + "  cert: nothing\n  key: nothing\n")) as url:
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
    # The first one has no certificate.
    clients = ("", "one", "forged")
    async with encrypted(path) as url:
        assert {name for name in clients if not await refused(url, pki.client(name))} == served


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


@pytest.mark.parametrize(
    ("kind", "allowed", "served"),
    [
        (
            "RequireAndVerifyClientCert",
            'one.example, 10.0.0.7, "2001:db8::7", me@example.org, "spiffe://example/prometheus"',
            {"one", "two", "six", "mail", "mesh"},
        ),
        # Neither case, nor a domain, nor a network is matched.
        ("RequireAndVerifyClientCert", "ONE.example, example, 10.0.0.0/8", set()),
        # A client without a certificate has no name.
        ("VerifyClientCertIfGiven", "one.example", {"one"}),
    ],
)
async def test_only_clients_with_an_allowed_alternative_name_are_served(
    pki: Pki, write: Write, kind: str, allowed: str, served: set[str]
) -> None:
    pki.issue("one", "one.example", "other.example")
    pki.issue("two", "two.example", "10.0.0.7")
    pki.issue("six", "2001:db8::7")
    pki.issue("mail", "me@example.org")
    pki.issue("forged", "one.example", authority=trustme.CA())
    issue_for_uri(pki, "mesh", "spiffe://example/prometheus")
    path = write(
        f"{TLS}  client_auth_type: {kind}\n  client_ca_file: ca.crt\n"
        f"  client_allowed_sans: [{allowed}]\n"
    )
    # The first one has no certificate.
    clients = ("", "one", "two", "six", "mail", "forged", "mesh")
    async with encrypted(path) as url:
        assert {name for name in clients if not await refused(url, pki.client(name))} == served


def issue_for_uri(pki: Pki, name: str, uri: str) -> None:
    """Write ``NAME.crt`` and ``NAME.key`` of a client whose only name is a URI.

    :meth:`Pki.issue` takes only hosts, IP addresses and e-mail addresses.
    """
    authority = x509.load_pem_x509_certificate(pki.authority.cert_pem.bytes())
    authority_key = serialization.load_pem_private_key(pki.authority.private_key_pem.bytes(), None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issued = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(authority.not_valid_before_utc)
        .not_valid_after(authority.not_valid_after_utc)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        # Without a subject, RFC 5280 wants this extension to be critical.
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True
        )
        .sign(authority_key, hashes.SHA256())
    )
    (pki.folder / f"{name}.crt").write_bytes(issued.public_bytes(serialization.Encoding.PEM))
    (pki.folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


async def test_without_an_authority_those_of_the_system_count(
    pki: Pki, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    pki.issue("one", "one.example")
    path = write(TLS + "  client_auth_type: RequireAndVerifyClientCert\n")
    # The system does not trust the authority of the tests.
    async with encrypted(path) as url:
        assert await refused(url, pki.client("one"))
    # Now it does.
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.folder / "ca.crt"))
    async with encrypted(path) as url:
        assert not await refused(url, pki.client("one"))
        assert await refused(url, pki.client())
