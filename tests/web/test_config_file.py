from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chutes_exporter.config import ConfigError
from chutes_exporter.web.config_file import WebConfig, load_web_config
from tests.support import examples

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
            TLS
            + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
            + "  client_allowed_sans: [one.example, two.example]\n  min_version: TLS12\n  max_version: TLS13\n"
            + "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]\n"
            + "  prefer_server_cipher_suites: false\n"
            + "  curve_preferences: [CurveP256]\n"
            + f"basic_auth_users:\n  alice: {HASH}\n  bob: '{HASH}'\n"
            + "http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: sameorigin\n"
            + "    X-XSS-Protection: ''\n    Strict-Transport-Security: max-age=31536000\n"
            + "rate_limit:\n  interval: 1m1.5s\n  burst: 20\n"
        )
    )
    context = config.context
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    suites = [one["name"] for one in context.get_ciphers() if one["protocol"] != "TLSv1.3"]
    assert suites == ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA"]
    assert config.users == {"alice": HASH, "bob": HASH}
    assert config.headers == {
        "X-Frame-Options": "sameorigin",
        "X-XSS-Protection": "",
        "Strict-Transport-Security": "max-age=31536000",
    }
    assert config.rate_limit is not None
    assert (config.rate_limit.seconds, config.rate_limit.burst) == (61.5, 20)
    assert {path.name for path in config.contents} == {"web.yml", "server.crt", "server.key", "ca.crt"}


def test_certificates_can_stand_in_the_file_itself(pki: Pki, write: Write) -> None:
    def indented(name: str) -> str:
        return (pki.folder / name).read_text().replace("\n", "\n    ")

    config = load_web_config(
        write(
            f"tls_server_config:\n  cert: |\n    {indented('server.crt')}\n  key: |\n    {indented('server.key')}\n"
            f"  client_ca: |\n    {indented('ca.crt')}\n  client_auth_type: VerifyClientCertIfGiven\n"
        )
    )
    assert config.context is not None
    assert config.context.verify_mode is ssl.CERT_OPTIONAL
    assert "PRIVATE" not in repr(config)


@pytest.mark.parametrize("text", ["", "# nothing\n", "~\n"])
def test_an_empty_file_configures_nothing(write: Write, text: str) -> None:
    path = write(text)
    assert load_web_config(path) == WebConfig(contents={path: text.encode()})


@pytest.mark.usefixtures("pki")
def test_a_file_has_precedence_over_an_inline_value(write: Write) -> None:
    config = load_web_config(write(TLS + "  cert: nothing\n  key: nothing\n"))
    assert config.context is not None
    assert {path.name for path in config.contents} == {"web.yml", "server.crt", "server.key"}


@pytest.mark.usefixtures("pki")
def test_suites_of_tls_13_alone_leave_no_older_version(write: Write) -> None:
    suites = "  cipher_suites: [TLS_AES_128_GCM_SHA256]\nhttp_server_config: {http2: false}"
    context = load_web_config(write(TLS + suites)).context
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.usefixtures("pki")
def test_without_a_choice_only_suites_with_forward_secrecy_are_offered(write: Write) -> None:
    context = load_web_config(write(TLS)).context
    assert context is not None
    for suite in context.get_ciphers():
        assert suite["name"].startswith(("ECDHE-", "TLS_"))
        assert suite["aead"]


FAULTS = {
    "tls_server_confg: {}": "Object contains unknown field `tls_server_confg`",
    "[]": "Expected `object`, got `array`",
    "[" * 1000: "maximum recursion depth exceeded",
    "rate_limit: [": "expected the node content, but found '<stream end>'",
    "tls_server_config: {}": "tls_server_config needs cert_file and key_file, or cert and key",
    "tls_server_config: {cert_file: server.crt}": "tls_server_config needs cert_file and key_file",
    "tls_server_config: {cert_file: none.crt, key_file: server.key}": "none.crt: No such file or directory",
    "tls_server_config: {cert_file: /dev/null, key_file: server.key}": "cannot read /dev/null: it is not a regular",
    "tls_server_config: {cert_file: server.crt, key_file: web.yml}": "cert_file, key_file: OpenSSL refuses them",
    "tls_server_config: {cert_file: web.yml, key_file: server.key}": "cert_file, key_file: OpenSSL refuses them",
    "tls_server_config: {cert_file: server.crt, key_file: locked.key}": "and a key without a password",
    "tls_server_config: {cert_file: server.crt, key_file: other.key}": "(key values mismatch)",
    "tls_server_config: {cert_file: [a]}": "Expected `str`, got `array` - at `tls_server_config.cert_file`",
    TLS + "  min_version: TLS10": "Invalid enum value 'TLS10' - at `tls_server_config.min_version`",
    TLS + "  max_version: TLS12\n  min_version: TLS13": "max_version: it is older than min_version",
    TLS + "  client_auth_type: RequestClientCert": "'RequestClientCert' - at `tls_server_config.client_auth_type`",
    TLS + "  client_ca_file: ca.crt": "have no effect without client_auth_type",
    TLS + "  client_allowed_sans: [a]": "have no effect without client_auth_type",
    TLS + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]": "cipher_suites: one is unknown: use TLS_ECDHE_ECDSA",
    TLS + "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n  max_version: TLS12": "max_version: it is older than",
    TLS + "  curve_preferences: [CurveP256, X25519]": "of length <= 1 - at `tls_server_config.curve_preferences`",
    TLS + "  prefer_server_cipher_suites: 1": "- at `tls_server_config.prefer_server_cipher_suites`",
    "basic_auth_users: {}": "basic_auth_users has no user, so no request needs a password",
    "basic_auth_users: {alice: hunter2}": "basic_auth_users: the password of 'alice' is not a bcrypt hash",
    # bcrypt refuses a salt whose unused bits are set.
    f"basic_auth_users: {{alice: {HASH[:28]}z{HASH[29:]}}}": "the password of 'alice' is not a bcrypt hash",
    "http_server_config: {headers: {Server: me}}": "unknown field `Server` - at `http_server_config.headers`",
    "http_server_config: {headers: {X-Frame-Options: allow}}": "at `http_server_config.headers.X-Frame-Options`",
    'http_server_config: {headers: {X-XSS-Protection: "1\\r\\nX: y"}}': "http_server_config.headers.X-XSS-Protection",
    'http_server_config: {headers: {X-XSS-Protection: "1\\n"}}': "http_server_config.headers.X-XSS-Protection",
    'http_server_config: {headers: {X-XSS-Protection: " 1"}}': "http_server_config.headers.X-XSS-Protection",
    "rate_limit: {interval: 1s}": "Object missing required field `burst` - at `rate_limit`",
    "rate_limit: {interval: 1s, burst: 0}": "Expected `int` >= 1 - at `rate_limit.burst`",
    f"rate_limit: {{interval: 1s, burst: {'9' * 400}}}": "Expected `int` <= 1000000 - at `rate_limit.burst`",
    "rate_limit: {interval: fast, burst: 1}": "'fast' is not a duration: write one like 1s or 100ms - at `rate_limit`",
    "rate_limit: {interval: 0s, burst: 1}": "'0s' is not a duration",
    f"rate_limit: {{interval: {'9' * 400}s, burst: 1}}": "is not a duration",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_faulty_file_is_refused_with_the_field_and_the_reason(pki: Pki, write: Write, text: str) -> None:
    pki.issue("other", "127.0.0.1")
    (pki.folder / "locked.key").write_bytes(
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    path = write(text)
    with pytest.raises(ConfigError) as error:
        load_web_config(path)
    message = str(error.value)
    assert message.startswith((str(path), "--web.config.file: cannot read "))
    assert FAULTS[text] in message
    assert "PRIVATE KEY" not in message
    assert "hunter2" not in message


def test_a_file_that_is_not_yaml_is_refused(write: Write, tmp_path: Path) -> None:
    path = write("")
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=r"web\.yml"):
        load_web_config(path)
    path.write_text("\n\tx: 1")
    with pytest.raises(ConfigError, match=r"web\.yml, line 2: found character '\\t' that cannot start any token"):
        load_web_config(path)
    with pytest.raises(ConfigError, match=r"^--web\.config\.file: cannot read .*nothing\.yml: No such file"):
        load_web_config(tmp_path / "nothing.yml")


_NAMES = st.sampled_from(
    [
        *("tls_server_config", "basic_auth_users", "http_server_config", "rate_limit", "cert", "cert_file", "key"),
        *("key_file", "client_ca", "client_auth_type", "client_allowed_sans", "min_version", "cipher_suites", "burst"),
        *("curve_preferences", "prefer_server_cipher_suites", "http2", "headers", "interval", "X-Frame-Options"),
    ]
)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | _NAMES
_TREES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4), max_leaves=12
)


@given(text=st.text(max_size=80) | _TREES.map(json.dumps))
@settings(max_examples=examples(50), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_is_refused_or_read_completely(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        config = load_web_config(path)
    except ConfigError as error:
        refusal = str(error)
    else:
        # Without a certificate and a hash nothing of these protects.
        assert (config.context, config.users) == (None, {})
        return
    assert str(path) in refusal


def test_every_file_that_it_names_is_watched(pki: Pki, write: Write) -> None:
    path = write(TLS)
    config = load_web_config(path)
    assert not config.changed()
    pki.issue("server", "127.0.0.1")
    assert config.changed()
    config = load_web_config(path)
    path.unlink()
    assert config.changed()
