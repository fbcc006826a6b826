from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme
from starlette.responses import PlainTextResponse

from chutes_exporter.config import Address, ConfigError
from chutes_exporter.web.config_file import WebConfig, load_web_config
from chutes_exporter.web.server import bound_address, open_socket, serving
from tests.support import patient_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.web.pki import Pki

    Write = Callable[[str], Path]

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
EVERYTHING = (
    TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
    "  min_version: TLS13\n  max_version: TLS13\n"
    f"basic_auth_users:\n  alice: {HASH}\n  bob: '{HASH}'\n"
    "http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n"
    "    X-XSS-Protection: 1\n    Strict-Transport-Security:\n"
    "    Content-Security-Policy: default-src 'self'\n"
)


@pytest.mark.usefixtures("pki")
def test_a_file_with_everything_is_read_here_and_by_prometheus(write: Write) -> None:
    path = write(EVERYTHING)
    subprocess.run(["promtool", "check", "web-config", path], check=True)
    config = load_web_config(path)
    assert config.users == {"alice": HASH, "bob": HASH}
    assert config.headers == {
        "X-Frame-Options": "deny",
        "X-XSS-Protection": "1",
        "Strict-Transport-Security": "",
        "Content-Security-Policy": "default-src 'self'",
    }
    assert "PRIVATE" not in repr(config)
    assert config.context is not None
    assert config.context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert config.context.maximum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("text", ["", "~\n", "http_server_config: {}"])
def test_an_empty_file_configures_nothing(write: Write, text: str) -> None:
    path = write(text)
    assert load_web_config(path) == WebConfig(contents={path: text.encode()})


CLIENTS = TLS + "  client_auth_type: VerifyClientCertIfGiven\n"
FAULTS = {
    # A field that protects in other programs, and is unknown here, must not be missing in silence.
    TLS + "  client_allowed_sans: [one.example]": (
        "unknown field `client_allowed_sans` - at `tls_server_config`. docs/http.md lists the"
    ),
    "rate_limit: {interval: 1s, burst: 1}": "unknown field `rate_limit`. docs/http.md lists",
    "http_server_config: [": "line 1: expected the node content, but found '<stream end>'",
    "\0": "special characters are not allowed",
    "a: !!timestamp x": "'NoneType' object has no attribute",
    "tls_server_config: {cert_file: none.crt, key_file: server.key}": (
        "none.crt: No such file or directory"
    ),
    "tls_server_config: {cert_file: web.yml, key_file: server.key}": (
        "OpenSSL refuses cert_file, key_file or client_ca_file: [SSL] PEM lib"
    ),
    # Without a terminal, nobody could answer a question for the password of the key.
    "tls_server_config: {cert_file: server.crt, key_file: locked.key}": "OpenSSL refuses",
    CLIENTS: "client_auth_type and client_ca_file have an effect only together",
    TLS + "  client_ca_file: ca.crt": "have an effect only together",
    "http_server_config: {headers: {Server: me}}": (
        "Invalid enum value 'Server' - at `key` in `http_server_config.headers`"
    ),
    'http_server_config: {headers: {X-XSS-Protection: "1\\r\\nX: y"}}': (
        "at `http_server_config.headers[...]`"
    ),
    # A protection whose fields are missing must not be missing in silence, either.
    "basic_auth_users: {}": "Expected `object` of length >= 1 - at `basic_auth_users`",
    "basic_auth_users:": "Expected `object`, got `null` - at `basic_auth_users`",
    "tls_server_config:": "Expected `object`, got `null` - at `tls_server_config`",
    "basic_auth_users: {alice: hunter2}": (
        "basic_auth_users: the password of 'alice' is not a bcrypt hash"
    ),
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_faulty_file_is_refused_with_the_field_and_the_reason(
    pki: Pki, write: Write, text: str
) -> None:
    # Files that some of the faulty ones name.
    (pki.folder / "locked.key").write_bytes(
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    path = write(text)
    with pytest.raises(ConfigError) as error:
        load_web_config(path)
    message = str(error.value)
    # It names the configuration, or a file beside it that cannot be read.
    assert message.startswith((str(path), f"--web.config.file: cannot read {path.parent}"))
    assert FAULTS[text] in message
    # An error shows no secret, neither of a key file nor of the configuration.
    assert "PRIVATE KEY" not in message
    assert "hunter2" not in message


def test_a_configuration_has_changed_if_a_file_has_or_can_no_longer_be_read(
    pki: Pki, write: Write
) -> None:
    path = write(TLS)
    config = load_web_config(path)
    assert not config.changed()
    # A new certificate and key, in the same files.
    pki.issue("server", "127.0.0.1")
    assert config.changed()
    config = load_web_config(path)
    path.unlink()
    # To read a pipe would wait for a writer.
    os.mkfifo(path)
    assert config.changed()


@contextlib.asynccontextmanager
async def encrypted(path: Path) -> AsyncIterator[str]:
    """Serve "hello" with the TLS of a web configuration; yields its address."""
    with open_socket(Address("127.0.0.1", 0)) as opened:
        context = load_web_config(path).context
        async with serving(PlainTextResponse("hello"), [opened], context=lambda: context):
            yield f"https://{bound_address(opened)}"


async def is_served(url: str, client: ssl.SSLContext) -> bool:
    try:
        async with patient_client(verify=client) as http:
            return (await http.get(url)).text == "hello"
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("kind", "authority", "served"),
    [
        ("RequireAndVerifyClientCert", "ca.crt", {"one", "below"}),
        ("VerifyClientCertIfGiven", "ca.crt", {"", "one", "below"}),
        # An authority in the file is trusted although its issuer is not.
        ("RequireAndVerifyClientCert", "lower.crt", {"below"}),
    ],
)
async def test_only_clients_with_a_certificate_of_the_authority_are_served(
    pki: Pki, write: Write, kind: str, authority: str, served: set[str]
) -> None:
    lower = pki.authority.create_child_ca()
    (pki.folder / "lower.crt").write_bytes(lower.cert_pem.bytes())
    pki.issue("one", "one.example")
    pki.issue("below", "one.example", authority=lower)
    pki.issue("forged", "one.example", authority=trustme.CA())
    path = write(f"{TLS}  client_auth_type: {kind}\n  client_ca_file: {authority}\n")
    # The first one has no certificate.
    clients = ("", "one", "below", "forged")
    async with encrypted(path) as url:
        assert {name for name in clients if await is_served(url, pki.client(name))} == served
