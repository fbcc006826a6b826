from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chutes_exporter.config import ConfigError
from chutes_exporter.web.config_file import RateLimit, WebConfig, changed, load_web_config
from tests.support import examples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Pki

    Write = Callable[[str], Path]

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
HASH_2B = HASH.replace("2y", "2b")
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
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert config.users == {"alice": HASH_2B, "bob": HASH_2B}
    assert config.headers == {
        "X-Frame-Options": "sameorigin",
        "X-XSS-Protection": "",
        "Strict-Transport-Security": "max-age=31536000",
    }
    assert config.warnings == ()
    assert config.rate_limit == RateLimit(61.5, 20)
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


def test_http_without_headers_adds_none(write: Write) -> None:
    assert load_web_config(write("http_server_config: {http2: false}")).headers == {}


def test_lines_in_a_header_become_spaces(write: Write) -> None:
    config = load_web_config(write('http_server_config: {headers: {X-XSS-Protection: " 1\\r\\nX: ü\\n"}}'))
    assert config.headers == {"X-XSS-Protection": "1  X: ü"}


@pytest.mark.parametrize(
    "limit",
    ["", "{}", "{interval: 0, burst: 0}", "{interval: 0s, burst: 5}", "{burst: 5}", "{interval: -1s, burst: 5}"],
)
def test_without_an_interval_there_is_no_rate_limit(write: Write, limit: str) -> None:
    config = load_web_config(write(f"rate_limit: {limit}"))
    assert (config.rate_limit, config.warnings) == (None, ())


@pytest.mark.parametrize("burst", ["0", "-3", "~"])
def test_a_rate_limit_without_a_burst_is_kept_with_a_warning(write: Write, burst: str) -> None:
    path = write(f"rate_limit:\n  interval: 1s\n  burst: {burst}")
    config = load_web_config(path)
    assert config.rate_limit is not None
    assert config.rate_limit.burst < 1
    assert config.warnings == (
        f"{path}, line 2: rate_limit has no burst, so every request is refused: set burst to 1 or more",
    )


@pytest.mark.parametrize("kind", ["2", "2a", "2b", "2x", "2y"])
def test_every_prefix_of_a_bcrypt_hash_names_the_same_algorithm(write: Write, kind: str) -> None:
    config = load_web_config(write(f"basic_auth_users: {{alice: {HASH.replace('2y', kind)}}}"))
    assert config.users == {"alice": HASH_2B}


def test_bits_without_meaning_in_a_salt_are_cleared(write: Write) -> None:
    config = load_web_config(write(f"basic_auth_users: {{alice: {HASH[:28]}z{HASH[29:]}}}"))
    assert config.users == {"alice": HASH_2B}


@pytest.mark.parametrize(
    "section", ["", "{}", "~", "{min_version: TLS13}", '{cert_file: "", client_allowed_sans: [a]}']
)
def test_without_a_certificate_tls_is_off_with_a_warning(write: Write, section: str) -> None:
    path = write(f"\ntls_server_config: {section}")
    config = load_web_config(path)
    assert config.context is None
    reason = "tls_server_config has no certificate, so connections are not encrypted: set cert_file and key_file"
    assert config.warnings == (f"{path}, line 2: {reason}",)


@pytest.mark.parametrize("section", ["", "{}", "~"])
def test_without_users_nobody_needs_a_password_and_a_warning_says_so(write: Write, section: str) -> None:
    path = write(f"basic_auth_users: {section}")
    config = load_web_config(path)
    assert config.users == {}
    assert config.warnings == (
        (
            f"{path}, line 1: basic_auth_users has no user, so no request needs a password: "
            "add a user, or remove the section"
        ),
    )


@pytest.mark.usefixtures("pki")
def test_allowed_names_without_verification_have_no_effect_and_a_warning_says_so(write: Write) -> None:
    path = write(TLS + "  client_allowed_sans: [a]")
    config = load_web_config(path)
    assert config.context is not None
    assert config.context.admits(None)
    assert config.warnings == (
        (
            f"{path}, line 4: client_allowed_sans has no effect without client_auth_type: "
            "add client_auth_type: RequireAndVerifyClientCert"
        ),
    )


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
    "tls_server_confg: {}": (1, "'tls_server_confg' is unknown in a web configuration: use tls_server_config"),
    "[]": (1, "a web configuration must be a mapping"),
    "a: [": (1, "expected the node content"),
    "\n\tx: 1": (2, "found character '\\t' that cannot start any token"),
    "rate_limit: {}\nrate_limit: {}": (2, "'rate_limit' is set twice"),
    "? [a]\n: 1": (1, "a key of a web configuration must be a text"),
    "tls_server_config:\n  cert_file: server.crt": (2, "needs cert_file and key_file"),
    "tls_server_config:\n  cert_file: none.crt\n  key_file: server.key": (2, "cert_file: cannot read"),
    "tls_server_config:\n  cert_file: server.crt\n  key_file: web.yml": (2, "cannot be read: use PEM files"),
    "tls_server_config:\n  cert_file: web.yml\n  key_file: server.key": (2, "cannot be read: use PEM files"),
    "tls_server_config:\n  cert_file: server.crt\n  key_file: other.key": (3, "the key does not belong to the cert"),
    "tls_server_config:\n  cert_file: server.crt\n  key_file: locked.key": (2, "a key without a password"),
    "tls_server_config:\n  cert_file: [a]\n  key_file: server.key": (2, "cert_file must be a text"),
    TLS + "  min_version: TLS10": (4, "min_version 'TLS10' is not supported: use TLS12 or TLS13"),
    TLS + "  max_version: SSL3": (4, "max_version 'SSL3' is not supported"),
    TLS + "  max_version: TLS12\n  min_version: TLS13": (5, "min_version is newer than max_version"),
    TLS + "  client_auth_type: RequestClientCert": (4, "is not supported (it does not verify certificates): use"),
    TLS + "  client_auth_type: RequireAnyClientCert": (4, "is not supported (it does not verify certificates): use"),
    TLS + "  client_auth_type: Sometimes": (4, "client_auth_type 'Sometimes' is not supported: use NoClientCert"),
    TLS + "  client_ca_file: ca.crt": (2, "client_ca has no effect without client_auth_type"),
    TLS + "  client_allowed_sans: a\n  client_ca_file: ca.crt\n  client_auth_type: RequireAndVerifyClientCert": (
        4,
        "client_allowed_sans must be a list",
    ),
    TLS + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]": (4, "'TLS_RSA_WITH_RC4_128_SHA' is unknown: use"),
    TLS + "  curve_preferences: [CurveP256, X25519]": (4, "curve_preferences must have exactly one curve"),
    TLS + "  curve_preferences: [X25519MLKEM768]": (4, "must have exactly one curve: use CurveP256"),
    TLS + "  prefer_server_cipher_suites: 1": (4, "prefer_server_cipher_suites must be true or false"),
    "basic_auth_users:\n  alice: secret": (2, "the password of 'alice' is not a bcrypt hash"),
    TLS + "http_server_config:\n  http2: true": (5, "HTTP/2 is not served"),
    TLS + "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]": (4, "or http_server_config needs http2: false"),
    TLS + "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n  max_version: TLS12\nhttp_server_config: {http2: false}": (
        4,
        "cipher_suites has no suite for TLS 1.2, the max_version",
    ),
    TLS + "  cipher_suites:\n    - ~": (5, "the cipher suite None is unknown"),
    "http_server_config:\n  headers:\n    Server: me": (3, "'Server' is unknown in headers"),
    'http_server_config:\n  headers:\n    X-Frame-Options: ""': (3, "X-Frame-Options '' is invalid"),
    "http_server_config:\n  headers:\n    X-Frame-Options: SAMEORIGIN": (3, "X-Frame-Options 'SAMEORIGIN' is invalid"),
    'http_server_config:\n  headers:\n    X-XSS-Protection: "\\0"': (3, "has control characters: remove them"),
    "http_server_config:\n  headers:\n    X-Frame-Options: allow": (3, "X-Frame-Options 'allow' is invalid"),
    "rate_limit:\n  interval: fast\n  burst: 1": (2, "interval 'fast' is not a duration: write one"),
    'tls_server_config:\n  cert_file: "a\\0b"\n  key_file: server.key': (2, "cert_file is not a valid path"),
    "tls_server_config:\n  cert_file: /dev/null\n  key_file: server.key": (2, "it is not a regular file"),
    'tls_server_config:\n  cert: "\\ud800"\n  key_file: server.key': (2, "cert has a character that does not exist"),
    f"rate_limit:\n  interval: 1s\n  burst: {'9' * 5000}": (3, "burst must be a number"),
    f"rate_limit:\n  interval: {'9' * 400}s\n  burst: 1": (2, "is not a duration"),
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_faulty_file_is_refused_with_the_line_and_the_reason(pki: Pki, write: Write, text: str) -> None:
    pki.issue("other", "127.0.0.1")
    (pki.folder / "locked.key").write_bytes(
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    line, reason = FAULTS[text]
    path = write(text)
    with pytest.raises(ConfigError) as error:
        load_web_config(path)
    message = str(error.value)
    assert f"{path}, line {line}: " in message
    assert reason in message
    assert "PRIVATE KEY" not in message


def test_a_file_that_is_not_yaml_is_refused(write: Write, tmp_path: Path) -> None:
    path = write("")
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=r"web\.yml"):
        load_web_config(path)
    path.write_text('"\\UFFFFFFFF"')
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_web_config(path)
    path.write_text("%YAML 1.2\n--- {}")
    with pytest.raises(ConfigError, match=r"is not valid YAML: only YAML 1\.1 is supported"):
        load_web_config(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_web_config(path)
    path.write_text("#" * 2_000_000)
    with pytest.raises(ConfigError, match="is larger than 1048576 bytes"):
        load_web_config(path)
    with pytest.raises(ConfigError, match=r"cannot read .*: No such file"):
        load_web_config(tmp_path / "nothing.yml")


def test_a_password_is_not_repeated_in_an_error(write: Write) -> None:
    with pytest.raises(ConfigError) as error:
        load_web_config(write("basic_auth_users:\n  alice: hunter2\n"))
    assert "hunter2" not in str(error.value)


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
    assert not changed(config)
    pki.issue("server", "127.0.0.1")
    assert changed(config)
    config = load_web_config(path)
    path.unlink()
    assert changed(config)
