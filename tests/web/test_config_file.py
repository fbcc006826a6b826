from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.config import ConfigError
from chutes_exporter.web.config_file import WebConfig, load_web_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Pki

    Write = Callable[[str], Path]

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"


@pytest.mark.usefixtures("pki")
def test_a_file_with_everything_is_read(write: Write) -> None:
    config = load_web_config(
        write(
            TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  "
            "min_version: TLS13\n" + f"basic_auth_users:\n  alice: {HASH}\n  bob: '{HASH}'\n"
        )
    )
    assert config.context is not None
    assert config.context.verify_mode is ssl.CERT_REQUIRED
    assert config.context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert config.users == {"alice": HASH, "bob": HASH}
    assert {path.name for path in config.contents} == {
        "web.yml",
        "server.crt",
        "server.key",
        "ca.crt",
    }
    assert "PRIVATE" not in repr(config)


@pytest.mark.parametrize("text", ["", "# nothing\n", "~\n"])
def test_an_empty_file_configures_nothing(write: Write, text: str) -> None:
    path = write(text)
    assert load_web_config(path) == WebConfig(contents={path: text.encode()})


FAULTS = {
    "tls_server_confg: {}": "Object contains unknown field `tls_server_confg`",
    "rate_limit: {}": "unknown field `rate_limit`. docs/http.md lists the supported fields",
    TLS + "  cipher_suites: []": "unknown field `cipher_suites` - at `tls_server_config`",
    "[]": "Expected `object`, got `array`",
    "rate_limit: [": "line 1: expected the node content, but found '<stream end>'",
    "\n\tx: 1": "line 2: found character '\\t' that cannot start any token",
    "\0": "special characters are not allowed",
    "tls_server_config: {cert_file: server.crt}": (
        "missing required field `key_file` - at `tls_server_config`"
    ),
    "tls_server_config: {cert_file: none.crt, key_file: server.key}": (
        "none.crt: No such file or directory"
    ),
    "tls_server_config: {cert_file: server.crt, key_file: web.yml}": (
        "OpenSSL refuses one: [SSL] PEM lib"
    ),
    "tls_server_config: {cert_file: web.yml, key_file: server.key}": "OpenSSL refuses one",
    "tls_server_config: {cert_file: server.crt, key_file: locked.key}": "OpenSSL refuses one",
    "tls_server_config: {cert_file: server.crt, key_file: other.key}": "KEY_VALUES_MISMATCH",
    TLS + "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: server.key": (
        "OpenSSL refuses one"
    ),
    TLS + "  min_version: TLS10": "Invalid enum value 'TLS10' - at `tls_server_config.min_version`",
    TLS + "  client_auth_type: RequestClientCert": (
        "'RequestClientCert' - at `tls_server_config.client_auth_type`"
    ),
    TLS + "  client_ca_file: ca.crt": "client_ca_file has no effect without client_auth_type",
    TLS + "  client_auth_type: RequireAndVerifyClientCert": "the other way round: set both",
    "basic_auth_users: {}": "basic_auth_users has no user, so no request needs a password",
    "tls_server_config: {cert_file: '', key_file: server.key}": (
        "length >= 1 - at `tls_server_config.cert_file`"
    ),
    "tls_server_config: {cert_file: pipe, key_file: server.key}": "pipe: it is not a regular file",
    "[" * 2000: "maximum recursion depth exceeded",
    "a: !!timestamp x": "'NoneType' object has no attribute",
    f"basic_auth_users: {{alice: {HASH[:28]}Z{HASH[29:]}}}": (
        "the password of 'alice' is not a bcrypt hash"
    ),
    "basic_auth_users: {alice: hunter2}": (
        "basic_auth_users: the password of 'alice' is not a bcrypt hash"
    ),
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_faulty_file_is_refused_with_the_field_and_the_reason(
    pki: Pki, write: Write, text: str
) -> None:
    pki.issue("other", "127.0.0.1")
    (pki.folder / "locked.key").write_bytes(
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    os.mkfifo(pki.folder / "pipe")
    path = write(text)
    with pytest.raises(ConfigError) as error:
        load_web_config(path)
    message = str(error.value)
    assert message.startswith((str(path), f"--web.config.file: cannot read {path.parent}"))
    assert FAULTS[text] in message
    assert "PRIVATE KEY" not in message
    assert "hunter2" not in message


def test_every_file_that_it_names_is_watched(pki: Pki, write: Write) -> None:
    path = write(TLS)
    config = load_web_config(path)
    assert not config.changed()
    pki.issue("server", "127.0.0.1")
    assert config.changed()
    config = load_web_config(path)
    path.unlink()
    assert config.changed()
    os.mkfifo(path)
    assert config.changed()
