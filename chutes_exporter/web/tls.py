"""TLS, with settings that can change while the server runs."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

# Go's names, as in the configuration, and OpenSSL's names of the TLS 1.2 suites that Go considers secure.
CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
}
_TLS13_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

_Version = Literal["TLS12", "TLS13"]
_Curve = Literal["CurveP256", "CurveP384", "CurveP521", "X25519"]
_CLIENT_AUTH = {
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


class TlsSettings(msgspec.Struct, forbid_unknown_fields=True):
    """The section ``tls_server_config``."""

    cert: str = ""
    cert_file: str = ""
    key: str = ""
    key_file: str = ""
    client_ca: str = ""
    client_ca_file: str = ""
    client_auth_type: Literal["", "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"] = ""
    client_allowed_sans: list[str] | None = None
    min_version: _Version = "TLS12"
    max_version: _Version = "TLS13"
    cipher_suites: list[str] = []
    prefer_server_cipher_suites: bool = True
    """It has no effect, as in Go: the order of cipher_suites counts."""
    curve_preferences: Annotated[list[_Curve], msgspec.Meta(max_length=1)] = []


class CurrentContext(ssl.SSLContext):
    """Uses the current context for each new connection. Existing connections keep theirs."""

    current: ssl.SSLContext

    def __new__(cls, _current: ssl.SSLContext) -> CurrentContext:  # noqa: PYI034 - as in typeshed
        """Make a context without settings of its own."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, current: ssl.SSLContext) -> None:
        super().__init__()
        self.current = current

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection. asyncio calls this method."""
        return self.current.wrap_bio(*arguments, **options)


def server_context(tls: TlsSettings, cert: bytes, key: bytes, client_ca: bytes | None) -> ssl.SSLContext:
    """Make a server's TLS context from settings and PEM texts, or raise ValueError with the field and the reason."""
    suites = tls.cipher_suites
    if not {*CIPHERS, *_TLS13_SUITES}.issuperset(suites):
        raise ValueError(f"cipher_suites: one is unknown: use {', '.join((*CIPHERS, *_TLS13_SUITES))}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ciphers = [CIPHERS[name] for name in suites if name in CIPHERS]
    # TLS 1.2 needs one of these ciphers. Python always offers all suites of TLS 1.3.
    are_all_tls13 = bool(suites) and not ciphers
    oldest = VERSIONS["TLS13" if are_all_tls13 else tls.min_version]
    if oldest > VERSIONS[tls.max_version]:
        raise ValueError("max_version: it is older than min_version, or than all cipher_suites")
    context.minimum_version, context.maximum_version = oldest, VERSIONS[tls.max_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(":".join(ciphers) or "ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["http/1.1"])
    for curve in tls.curve_preferences:
        try:
            context.set_ecdh_curve(CURVES[curve])
        except ssl.SSLError:
            # For example X25519 with Python 3.11.2 and OpenSSL 3, as in Debian 12.
            raise ValueError("curve_preferences: this version of Python cannot use the curve: use CurveP256") from None
    _load_cert_chain(context, cert, key)
    if tls.client_auth_type in _CLIENT_AUTH:
        _verify_clients(context, _CLIENT_AUTH[tls.client_auth_type], client_ca, tls.client_allowed_sans)
    elif client_ca is not None or tls.client_allowed_sans is not None:
        raise ValueError(
            "client_ca and client_allowed_sans have no effect without client_auth_type: "
            "add client_auth_type: RequireAndVerifyClientCert"
        )
    return context


def _verify_clients(
    context: ssl.SSLContext, mode: ssl.VerifyMode, ca: bytes | None, allowed_sans: Sequence[str] | None
) -> None:
    """Let a context verify the certificates of clients. Without CA certificates, the system's CAs are trusted."""
    context.verify_mode = mode
    # As in Go, trust each of these certificates, even if its issuer is unknown.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ca is None:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    else:
        # As in Go, skip parts that are no certificate.
        for certificate in _PEM_CERTIFICATE.findall(ca.decode("ascii", "replace")):
            with suppress(ssl.SSLError, ValueError):
                context.load_verify_locations(cadata=certificate)
    if allowed_sans is not None:
        names = frozenset(allowed_sans)

        class NamedClient(ssl.SSLObject):
            """A connection whose handshake fails if the client has no allowed name."""

            def do_handshake(self) -> None:
                super().do_handshake()
                certificate: Any = self.getpeercert() or {}
                if names.isdisjoint(_san(*san) for san in certificate.get("subjectAltName", ())):
                    raise ssl.SSLCertVerificationError("no name in client_allowed_sans")

        context.sslobject_class = NamedClient


def _san(kind: str, name: str) -> str | None:
    if kind == "IP Address":
        return str(ipaddress.ip_address(name))
    return name if kind in ("DNS", "email", "URI") else None


def _load_cert_chain(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    # A file in memory, because Python reads certificates only from paths.
    descriptor = os.memfd_create("chutes-exporter")
    path = Path(f"/proc/self/fd/{descriptor}")
    try:
        path.write_bytes(cert + b"\n" + key)
        # Without this password, OpenSSL would ask for the key's password at the terminal.
        context.load_cert_chain(path, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = (getattr(error, "reason", None) or "they cannot be read").lower().replace("_", " ")
        raise ValueError(
            f"cert_file, key_file: OpenSSL refuses them ({reason}): use PEM files that belong together, "
            "and a key without a password"
        ) from None
    finally:
        os.close(descriptor)
