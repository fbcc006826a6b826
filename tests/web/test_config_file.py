from __future__ import annotations

import os
import re
import ssl
import subprocess
from typing import TYPE_CHECKING

import msgspec
import pytest

from chutes_exporter.config import ConfigError
from chutes_exporter.web.config_file import RateLimit, WebConfig, WebFile, load_web_config
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Pki

    Write = Callable[[str], Path]

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"


EVERYTHING = (
    TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
    "  client_allowed_sans: [one.example]\n  min_version: TLS12\n  max_version: TLS13\n"
    "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, TLS_AES_128_GCM_SHA256]\n"
    "  prefer_server_cipher_suites: false\n  curve_preferences: [CurveP256]\n"
    f"basic_auth_users:\n  alice: {HASH}\n  bob: '{HASH}'\n"
    "http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n"
    "    X-XSS-Protection: 1\n    Content-Security-Policy: default-src 'self'\n"
)


@pytest.mark.usefixtures("pki")
def test_prometheus_accepts_the_same_file(write: Write) -> None:
    # Debian's promtool is older than the rate limit.
    subprocess.run(["promtool", "check", "web-config", write(EVERYTHING)], check=True)


@pytest.mark.usefixtures("pki")
def test_a_file_with_everything_is_read(write: Write) -> None:
    config = load_web_config(write(EVERYTHING + "rate_limit:\n  interval: 1m1.5s\n  burst: 20\n"))
    assert config.context is not None
    assert config.context.verify_mode is ssl.CERT_REQUIRED
    assert config.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert config.users == {"alice": HASH, "bob": HASH}
    assert config.headers == {
        "X-Frame-Options": "deny",
        "X-XSS-Protection": "1",
        "Content-Security-Policy": "default-src 'self'",
    }
    assert config.rate_limit == RateLimit(61.5, 20)
    assert {path.name for path in config.contents} == {
        "web.yml",
        "server.crt",
        "server.key",
        "ca.crt",
    }


@pytest.mark.usefixtures("pki")
def test_the_text_of_a_configuration_has_no_private_key(write: Write) -> None:
    assert "PRIVATE" not in repr(load_web_config(write(TLS)))


@pytest.mark.parametrize(
    "text",
    [
        "rate_limit:",
        "rate_limit: {}",
        "rate_limit: {interval: 0, burst: 0}",
        "rate_limit: {interval: 0s, burst: 5}",
    ],
)
def test_without_an_interval_there_is_no_rate_limit(write: Write, text: str) -> None:
    assert load_web_config(write(text)).rate_limit is None


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [("100ms", 0.1), ("1h0m2s", 3602.0), ("250000000", 0.25), ("'7'", 7e-9)],
)
def test_an_interval_is_a_duration_of_go(write: Write, interval: str, seconds: float) -> None:
    limit = load_web_config(write(f"rate_limit: {{interval: {interval}, burst: 1}}")).rate_limit
    assert limit is not None
    assert limit.interval == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["http_server_config:", "http_server_config: {headers: }"])
def test_a_section_without_headers_changes_none(write: Write, text: str) -> None:
    assert load_web_config(write(text)).headers == {}


def test_the_document_lists_every_field() -> None:
    sections = msgspec.json.schema(WebFile)["$defs"].values()
    fields = {name for section in sections for name in section["properties"]}
    text = (ROOT / "docs" / "http.md").read_text()
    # The first cell of a row, such as "`rate_limit`: `interval`, `burst`".
    first_cells = re.findall(r"(?m)^\| (`.*?) \|", text)
    listed = set(re.findall(r"`([\w-]+)`", " ".join(first_cells)))
    assert listed == fields


@pytest.mark.parametrize("text", ["", "# nothing\n", "~\n"])
def test_an_empty_file_configures_nothing(write: Write, text: str) -> None:
    path = write(text)
    assert load_web_config(path) == WebConfig(contents={path: text.encode()})


FAULTS = {
    "tls_server_confg: {}": "Object contains unknown field `tls_server_confg`",
    TLS + "  session_tickets: false": (
        "unknown field `session_tickets` - at `tls_server_config`. docs/http.md lists the"
    ),
    "[]": "Expected `object`, got `array`",
    "rate_limit: [": "line 1: expected the node content, but found '<stream end>'",
    "\n\tx: 1": "line 2: found character '\\t' that cannot start any token",
    "\0": "special characters are not allowed",
    "tls_server_config: {cert_file: server.crt}": (
        "tls_server_config needs cert_file and key_file, or cert and key"
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
        "client_ca_file, client_ca: OpenSSL refuses it"
    ),
    TLS + "  client_auth_type: VerifyClientCertIfGiven\n  client_ca: nothing": (
        "client_ca_file, client_ca: OpenSSL refuses it"
    ),
    TLS + "  min_version: TLS10": "min_version: OpenSSL no longer offers TLS 1.0 and 1.1",
    TLS + "  max_version: TLS11": "max_version: OpenSSL no longer offers TLS 1.0 and 1.1",
    TLS + "  min_version: TLS9": "Invalid enum value 'TLS9' - at `tls_server_config.min_version`",
    TLS + "  min_version: TLS13\n  max_version: TLS12": "max_version is older than min_version",
    TLS + "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n  max_version: TLS12": (
        "older than min_version, or than all cipher_suites"
    ),
    TLS + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]": (
        "cipher_suites: 'TLS_RSA_WITH_RC4_128_SHA' is not a secure suite of Go: use TLS_ECDHE_"
    ),
    TLS + "  curve_preferences: [X25519, CurveP256]": "Python can choose only one curve",
    TLS + "  curve_preferences: [CurveP224]": "'CurveP224' - at `tls_server_config.curve_pref",
    TLS + "  client_auth_type: RequestClientCert": (
        "client_auth_type: Python verifies each certificate that it asks for, so it cannot keep "
        "RequestClientCert"
    ),
    TLS + "  client_auth_type: RequireAnyClientCert": "it cannot keep RequireAnyClientCert",
    TLS + "  client_auth_type: RequireClientCert": "it cannot keep RequireClientCert",
    TLS + "  client_auth_type: Always": "'Always' - at `tls_server_config.client_auth_type`",
    TLS + "  client_ca_file: ca.crt": "have no effect without client_auth_type",
    TLS + "  client_ca: x": "have no effect without client_auth_type",
    TLS + "  client_allowed_sans: [a]": "have no effect without client_auth_type",
    TLS + "  client_allowed_sans: []": "length >= 1 - at `tls_server_config.client_allowed_sans`",
    f"tls_server_config: {{cert: {'a' * 16_001}, key: b}}": "length <= 16000 - at `tls_server_conf",
    "tls_server_config: {cert: a, key: b}": "cert_file, key_file, cert, key: OpenSSL refuses one",
    "tls_server_config: {}": "add them, or remove the section",
    "http_server_config: {headers: {Server: me}}": (
        "unknown field `Server` - at `http_server_config.headers`"
    ),
    "http_server_config: {headers: {X-Frame-Options: allow}}": (
        "'allow' - at `http_server_config.headers.X-Frame-Options`"
    ),
    'http_server_config: {headers: {X-XSS-Protection: "1\\r\\nX: y"}}': (
        "at `http_server_config.headers.X-XSS-Protection`"
    ),
    'http_server_config: {headers: {X-XSS-Protection: "1\\n"}}': (
        "at `http_server_config.headers.X-XSS-Protection`"
    ),
    "http_server_config: {http2: 2}": "Expected `bool`, got `int` - at `http_server_config.http2`",
    "rate_limit: {interval: 1s}": "with a burst of 0, every request is refused",
    "rate_limit: {interval: 1s, burst: -1}": "Expected `int` >= 0 - at `rate_limit.burst`",
    "rate_limit: {interval: fast, burst: 1}": "the interval 'fast' is not a duration",
    "rate_limit: {interval: -1s, burst: 1}": "the interval '-1s' is not a duration",
    "rate_limit: {interval: '', burst: 1}": "the interval '' is not a duration",
    f"rate_limit: {{interval: {'9' * 400}s, burst: 1}}": "9' is not a duration",
    "basic_auth_users: {}": "basic_auth_users has no user, so no request needs a password",
    "tls_server_config: {cert_file: '', key_file: server.key}": "needs cert_file and key_file",
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
    # Files that some of the faulty ones name.
    pki.issue("other", "127.0.0.1")
    (pki.folder / "locked.key").write_bytes(
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    os.mkfifo(pki.folder / "pipe")
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


def test_a_configuration_has_changed_if_a_file_that_it_names_has(pki: Pki, write: Write) -> None:
    config = load_web_config(write(TLS))
    assert not config.changed()
    # A new certificate and key, in the same files.
    pki.issue("server", "127.0.0.1")
    assert config.changed()


def test_a_configuration_has_changed_if_its_file_can_no_longer_be_read(write: Write) -> None:
    path = write("")
    config = load_web_config(path)
    assert not config.changed()
    path.unlink()
    assert config.changed()
    # To read a pipe would wait for a writer.
    os.mkfifo(path)
    assert config.changed()
