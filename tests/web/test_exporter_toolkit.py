"""Compare the configurations that exporter-toolkit accepts with those that this exporter accepts.

The verdicts of exporter-toolkit were recorded with its commit 19a7c2d (July 2026), Go 1.24 and yaml.v2 2.4.0. They say
whether ``web.Serve`` starts with the file. Each difference is a row of the table in ``docs/http.md``.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette

from chutes_exporter.config import Address, ConfigError
from chutes_exporter.web.config_file import load_web_config
from chutes_exporter.web.server import bound_address, open_socket, serving
from chutes_exporter.web.tls import CurrentContext
from tests.support import ROOT, named_tests

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Pki

    Write = Callable[[str], Path]

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
TLS_FIELDS = ("client_", "min_version", "max_version", "cipher_suites", "prefer_server", "curve_preferences")
ECDSA_128, ECDSA_256 = (f"TLS_ECDHE_ECDSA_WITH_AES_{bits}" for bits in ("128_GCM_SHA256", "256_GCM_SHA384"))
REQUIRE = "client_auth_type: RequireAndVerifyClientCert"
ALL_SUITES = ", ".join(
    [ECDSA_128, ECDSA_256, "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
    + [f"TLS_ECDHE_RSA_WITH_AES_{end}" for end in ("128_GCM_SHA256", "256_GCM_SHA384", "128_CBC_SHA", "256_CBC_SHA")]
    + [f"TLS_ECDHE_ECDSA_WITH_AES_{end}" for end in ("128_CBC_SHA", "256_CBC_SHA")]
    + [f"TLS_ECDHE_{kind}_WITH_CHACHA20_POLY1305_SHA256" for kind in ("RSA", "ECDSA")]
)


def headers(lines: str) -> str:
    return f"http_server_config: {{headers: {{{lines}}}}}"


ACCEPTED = [
    # whole files
    *("# nothing", "~", "---⏎", "{}", "--- {}⏎--- {}", "rate_limit: {}⏎---⏎a: [", "%YAML 1.1⏎--- {}"),
    *("tls_server_config:", "tls_server_config: {}", "tls_server_config: ~", 'tls_server_config: {cert_file: ""}'),
    *("tls_server_config: {min_version: TLS13}", "tls_server_config: {client_allowed_sans: [a]}"),
    "tls_server_config: {}⏎http_server_config: {http2: true}",
    # certificates
    *("client_auth_type: ", 'client_auth_type: ""', "client_auth_type: NoClientCert"),
    *("client_auth_type: VerifyClientCertIfGiven", REQUIRE, f"{REQUIRE}⏎client_ca_file: ca.crt"),
    *(f"{REQUIRE}⏎client_ca_file: server.key", f"{REQUIRE}⏎client_ca: nothing", 'client_ca_file: ""'),
    "tls_server_config: {cert_file: server.crt, key_file: server.key, cert: x, key: y}",
    "tls_server_config: {cert_file: weak.crt, key_file: weak.key}",
    *("client_auth_type: RequestClientCert", "client_auth_type: RequireAnyClientCert"),
    "client_auth_type: RequireClientCert",
    *("client_allowed_sans: [a, b]", "client_allowed_sans: []", "client_allowed_sans: ~"),
    *(f"{REQUIRE}⏎client_allowed_sans: [one, two]", f"{REQUIRE}⏎client_allowed_sans: [~, 1]"),
    "client_auth_type: VerifyClientCertIfGiven⏎client_allowed_sans: [a]",
    f"{REQUIRE}⏎client_ca_file: /dev/null",
    # versions, suites, curves
    *("min_version: TLS12", "min_version: TLS13", "max_version: TLS12", "max_version: ~", "min_version: null"),
    *("min_version: TLS10", "min_version: TLS11", "min_version: TLS10⏎max_version: TLS11"),
    "min_version: TLS13⏎max_version: TLS12",
    *("cipher_suites: []", "cipher_suites: ~", f"cipher_suites: [{ALL_SUITES}]", f"cipher_suites: [{ECDSA_128}]"),
    f"min_version: TLS13⏎cipher_suites: [{ECDSA_256}]",
    f"cipher_suites: [{ECDSA_256}]⏎max_version: TLS12⏎http_server_config: {{http2: false}}",
    "cipher_suites: [TLS_AES_128_GCM_SHA256]⏎http_server_config: {http2: false}",
    "cipher_suites: [TLS_AES_128_GCM_SHA256]⏎max_version: TLS12⏎http_server_config: {http2: false}",
    *(f"cipher_suites: [{ECDSA_256}, {ECDSA_128}]", f"cipher_suites: [{ECDSA_128}, {ECDSA_128}]"),
    "min_version: TLS13⏎cipher_suites: [~]",
    *("prefer_server_cipher_suites: false", "prefer_server_cipher_suites: y", "prefer_server_cipher_suites: ~"),
    *("curve_preferences: []", "curve_preferences: ~", "curve_preferences: [CurveP256]"),
    *("curve_preferences: [CurveP521]", "curve_preferences: [CurveP256, CurveP256]"),
    *("curve_preferences: [X25519, CurveP256]", "curve_preferences: [~]"),
    # passwords
    *("basic_auth_users:", "basic_auth_users: {}", "basic_auth_users: ~", f"basic_auth_users: {{alice: {HASH}}}"),
    *(f"basic_auth_users: {{alice: {HASH.replace('2y', kind)}}}" for kind in ("2", "2a", "2b", "2x", "2z")),
    *(f"basic_auth_users: {{{name}: {HASH}}}" for name in ('""', "~", '"a:b"', "1", '"ü"')),
    f"basic_auth_users: {{alice: {HASH.replace('zou', 'zoz')}}}",
    *(f"basic_auth_users: {{alice: {HASH}0}}", f"basic_auth_users: {{alice: {HASH.replace('2y', '1y')}}}"),
    *(f"basic_auth_users: {{alice: {HASH[:-1]}}}", f"basic_auth_users: {{alice: {HASH[:-1]}@}}"),
    # headers
    *("http_server_config:", "http_server_config: {}", "http_server_config: {http2: false}"),
    *("http_server_config: {http2: ~}", "http_server_config: {headers: ~}", "http_server_config: {http2: true}"),
    *(headers(f"X-Frame-Options: {value}") for value in ("deny", "sameorigin")),
    *(headers(f"X-XSS-Protection: {value}") for value in ("1", '""', "~", "ü", '"1\\r\\nX: y"', "true")),
    *(headers("X-Content-Type-Options: nosniff"), headers('Content-Security-Policy: ""')),
    headers('X-XSS-Protection: "a\\x01b"'),
    # rate limit
    *("rate_limit:", "rate_limit: {}", "rate_limit: {interval: 0, burst: 0}", "rate_limit: {burst: 5}"),
    *(f"rate_limit: {{interval: {value}}}" for value in ("1s", "5", "1e9", "-1s", "1m1.5s", ".5s", "1.s", '"0"')),
    *(f"rate_limit: {{interval: {value}}}" for value in ("2us", "2µs", "-2h3m", "0x10", "010", "0.5", "0.5ns", "~")),
    *(f"rate_limit: {{interval: 1s, burst: {value}}}" for value in ("0", "-3", "1.9", "1_000", "0x10", "0b11", "~")),
    *(f"rate_limit: {{interval: 1s, burst: {value}}}" for value in ("-.inf", "+5", "!!int 5")),
    # YAML
    "rate_limit: &a {interval: 1s}",
    "rate_limit: {interval: 1s, <<: {burst: 2}}",
    "rate_limit: {<<: [{burst: 1}, {burst: 2}]}",
    "rate_limit: &a {interval: 1s}⏎<<: {rate_limit: *a}",
    f"basic_auth_users: {{<<: {{bob: {HASH}}}, alice: {HASH}}}",
    "<<: {rate_limit: {burst: 1}}⏎rate_limit: {interval: 1s}",
    *("rate_limit: {interval: &a 1s, burst: &a 2}", "rate_limit:⇥{}", "!x {}", "{rate_limit: !y {}}"),
    *(headers(f"X-XSS-Protection: {value}") for value in ("!x 1", "!!str 1", "!!int 1", "!!binary MQ==", "! 1")),
    "rate_limit: {burst: !!float 1}",
    "# xxx…",
]
REFUSED = [
    # whole files
    *("[]", "text", "...", '""', "a: [", "⏎⇥x: 1", "tls_server_confg: {}", "rate_limit: {}⏎rate_limit: {}"),
    *("? [a]⏎: 1", "~: {}", "%YAML 1.2⏎--- {}", "%FOO bar⏎--- {}", "rate_limit: []", "rate_limit: *a"),
    # certificates
    *("tls_server_config: {cert_filse: server.crt}", "tls_server_config: {cert_file: server.crt}"),
    *('tls_server_config: {cert_file: "", key_file: server.key}', 'tls_server_config: {cert: "", key: y}'),
    *("tls_server_config: {cert_file: none, key_file: none}", "tls_server_config: {client_auth_type: NoClientCert}"),
    "tls_server_config: {cert_file: server.key, key_file: server.crt}",
    "tls_server_config: {cert_file: server.crt, key_file: weak.key}",
    *("client_ca_file: ca.crt", "client_ca_file: none", "client_ca: x", "client_auth_type: Sometimes"),
    *("client_auth_type: noclientcert", f"{REQUIRE}⏎client_ca_file: none", "client_allowed_sans: a"),
    # versions, suites, curves
    *("min_version: TLS111", 'min_version: ""', "max_version: SSL30", "max_version: 1.2", "min_version: Null"),
    *("cipher_suites: TLS", "cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]", "cipher_suites: [TLS_NEW]"),
    *(f"cipher_suites: [{ECDSA_256}]", f"cipher_suites: [{ECDSA_256}]⏎max_version: TLS12"),
    *("cipher_suites: [TLS_AES_128_GCM_SHA256]", "cipher_suites: [~]", 'cipher_suites: [""]'),
    *("prefer_server_cipher_suites: 1", 'prefer_server_cipher_suites: "true"', "prefer_server_cipher_suites: [a]"),
    *("curve_preferences: [CurveP257]", "curve_preferences: [X25519MLKEM768]", "curve_preferences: X25519"),
    # passwords
    *("basic_auth_users: {alice: secret}", "basic_auth_users: {alice: ~}", "basic_auth_users: [alice]"),
    *(f"basic_auth_users: {{alice: {HASH.replace('$10$', cost)}}}" for cost in ("$03$", "$32$", "$xx$")),
    *(f"basic_auth_users: {{alice: {HASH.replace('2y', '3y')}}}", f"basic_auth_users: {{alice: {HASH[:-2]}}}"),
    f"basic_auth_users: {{alice: {HASH}, alice: {HASH}}}",
    # headers
    *(headers(f"X-Frame-Options: {value}") for value in ("SAMEORIGIN", "Deny", '""', "~", "allow")),
    *(headers('X-Content-Type-Options: ""'), headers("Server: me"), headers("x-frame-options: deny")),
    *("http_server_config: {http2: 1}", "http_server_config: {http3: true}"),
    # rate limit
    *(f"rate_limit: {{interval: {value}}}" for value in ('"5"', "fast", "1d", "1:30", "true", "[1s]", ".inf")),
    *(f"rate_limit: {{interval: {value}}}" for value in ("3000000h", "9223372036854775808", "2001-01-01", "1s 2s")),
    *(f"rate_limit: {{burst: {value}}}" for value in ("1s", '"1"', "true", ".nan", "1e19", "18446744073709551615")),
    *(f"rate_limit: {{burst: {value}}}" for value in ("99999999999999999999", "!!str 1", "! 1", "!!float x", "0x")),
    # YAML
    *("rate_limit: {<<: ~}", "rate_limit: {<<: x}", "rate_limit: {<<: [x]}", "&a {<<: *a}"),
    "rate_limit: &a []⏎http_server_config: {<<: *a}",
    f"basic_auth_users: {{<<: {{alice: {HASH}}}, alice: {HASH}}}",
    *(headers(f"X-XSS-Protection: {value}") for value in ("!!int x", "!!null x", '"\\ud800"', '"\\UFFFFFFFF"')),
]
DIFFERENT_MEANING = {f"cipher_suites: [{ECDSA_256}, {ECDSA_128}]"}
CASES = dict.fromkeys(ACCEPTED, True) | dict.fromkeys(REFUSED, False)


def as_file(example: str) -> str:
    """Return the file of an example, which stands beside a certificate unless it is a whole file.

    ⏎ is a line break, ⇥ a tab, and … at the end stands for so much more that the file is larger than 1 MiB.
    """
    text = example.replace("⏎", "\n").replace("⇥", "\t")
    if text.endswith("…"):
        return text[:-1] + "x" * 1024 * 1024
    if text.startswith(TLS_FIELDS):
        fields, http, rest = text.partition("\nhttp_server_config")
        return TLS + "  " + fields.replace("\n", "\n  ") + "\n" + (http + rest).strip()
    return TLS + text if text.startswith("http_server_config") else text


@pytest.fixture(scope="module")
def weak() -> Callable[[Path], None]:
    """Writes a key that is too short for OpenSSL, and its certificate."""
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - weak on purpose
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start + dt.timedelta(3650))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write_files(folder: Path) -> None:
        (folder / "weak.crt").write_bytes(certificate)
        (folder / "weak.key").write_bytes(secret)

    return write_files


def accepts(path: Path) -> bool:
    try:
        load_web_config(path)
    except ConfigError:
        return False
    return True


def documented() -> dict[str, tuple[bool, bool]]:
    """Return the rows of the document's table: an example, and whether exporter-toolkit and this exporter accept it."""
    section = (ROOT / "docs" / "http.md").read_text().partition("\n### Differences from exporter-toolkit\n")[2]
    table = section.partition("\n\nWhile the exporter runs")[0]
    rows = re.findall(r"^\| `(.+?)` \| (accepted|refused)\b.*? \| (accepted|refused)\b.*? \|$", table, re.MULTILINE)
    assert len(rows) == table.count("\n| `"), "a row has another form"
    return {example: (there == "accepted", here == "accepted") for example, there, here in rows}


@pytest.mark.parametrize("example", CASES)
def test_a_file_is_accepted_where_exporter_toolkit_accepts_it_or_the_document_names_the_difference(
    pki: Pki, write: Write, weak: Callable[[Path], None], example: str
) -> None:
    weak(pki.folder)
    there, here = documented().get(example, (CASES[example], CASES[example]))
    assert there is CASES[example]
    assert accepts(write(as_file(example))) is here


@pytest.mark.parametrize("example", documented())
def test_each_row_of_the_document_has_a_recorded_verdict_and_is_a_difference(example: str) -> None:
    assert example in CASES
    there, here = documented()[example]
    assert there is not here or example in DIFFERENT_MEANING


def test_the_document_names_what_differs_though_both_accept_it() -> None:
    assert set(documented()) >= DIFFERENT_MEANING


@pytest.mark.parametrize(("preference", "chosen"), [("", "256"), ("⏎prefer_server_cipher_suites: false", "128")])
async def test_the_order_of_cipher_suites_is_the_servers_preference(
    pki: Pki, write: Write, preference: str, chosen: str
) -> None:
    (example,) = DIFFERENT_MEANING
    context = load_web_config(write(as_file(example + preference))).context
    assert context is not None
    with open_socket(Address("127.0.0.1", 0)) as opened:
        async with serving(Starlette(), [opened], context=CurrentContext(context)):
            client = pki.client(maximum_version=ssl.TLSVersion.TLSv1_2)
            client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
            address = bound_address(opened)
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=client)
            assert writer.get_extra_info("cipher")[0].startswith(f"ECDHE-ECDSA-AES{chosen}-")
            writer.close()


def test_the_tests_that_the_document_names_exist() -> None:
    names = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "http.md").read_text())
    assert names
    assert set(names) <= named_tests()
