"""TLS, with settings that can change while the server runs."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

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
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
# By default, only offer suites with authenticated encryption.
_DEFAULT_CIPHERS = tuple(suite for name, suite in CIPHERS.items() if "CBC" not in name)
_PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# Kinds of names that are plain text.
_NAMES = ("DNS", "email", "URI")


class TlsError(ValueError):
    """Settings that OpenSSL does not accept.

    Attributes:
        fields: The fields of the configuration that may be the cause.
    """

    def __init__(self, reason: str, *fields: str) -> None:
        super().__init__(reason)
        self.fields = fields


@dataclass(frozen=True)
class TlsSettings:
    """TLS settings.

    Attributes:
        cert: The server's certificate chain, PEM.
        key: Its key, PEM.
        verify: Whether clients need a certificate.
        client_ca: CA certificates for clients, PEM. None for the system's CAs.
        allowed_sans: A client's certificate must have one of these names. None allows any name.
        min_version: Minimum TLS version.
        max_version: Maximum TLS version.
        ciphers: TLS 1.2 suites with OpenSSL's names. Empty for those with forward secrecy and authenticated encryption.
        server_preference: Whether the server's order of suites counts.
        curve: The only curve for key exchanges. None for OpenSSL's default.
    """

    cert: bytes
    key: bytes = field(repr=False)
    verify: ssl.VerifyMode = ssl.CERT_NONE
    client_ca: bytes | None = None
    allowed_sans: frozenset[str] | None = None
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: tuple[str, ...] = ()
    server_preference: bool = True
    curve: str | None = None


class ServerContext(ssl.SSLContext):
    """A server's TLS context.

    Raises:
        TlsError: The settings cannot be used.
    """

    def __new__(cls, _settings: TlsSettings) -> ServerContext:  # noqa: PYI034 - as in typeshed
        """Make the TLS context of a server."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, settings: TlsSettings) -> None:
        super().__init__()
        self._allowed_sans = settings.allowed_sans
        if settings.min_version > settings.max_version:
            raise TlsError("min_version is newer than max_version", "min_version")
        self.minimum_version, self.maximum_version = settings.min_version, settings.max_version
        self.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        if settings.server_preference:
            self.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        else:
            self.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        self.set_ciphers(":".join(settings.ciphers or _DEFAULT_CIPHERS))
        self.set_alpn_protocols(["http/1.1"])
        if settings.curve is not None:
            try:
                self.set_ecdh_curve(settings.curve)
            except ssl.SSLError:
                # For example X25519 with Python 3.11.2 and OpenSSL 3, as in Debian 12.
                raise TlsError(
                    "this version of Python cannot use the curve: use CurveP256, or a newer Python", "curve_preferences"
                ) from None
        _load_cert_chain(self, settings.cert, settings.key)
        if settings.verify is not ssl.CERT_NONE:
            self._verify_clients(settings)

    def _verify_clients(self, settings: TlsSettings) -> None:
        self.verify_mode = settings.verify
        # As in Go, trust each of these certificates, even if its issuer is unknown.
        self.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if settings.client_ca is None:
            self.load_default_certs(ssl.Purpose.CLIENT_AUTH)
            return
        # As in Go, skip everything that is not a certificate. Without any certificate, no client can be verified.
        for certificate in _PEM_CERTIFICATE.findall(settings.client_ca.decode("ascii", "replace")):
            with suppress(ssl.SSLError, ValueError):
                self.load_verify_locations(cadata=certificate)

    def admits(self, certificate: Any) -> bool:
        """Return whether a client with this verified certificate may connect.

        Args:
            certificate: The result of :meth:`ssl.SSLSocket.getpeercert`.
        """
        if self._allowed_sans is None:
            return True
        return any(
            (str(ipaddress.ip_address(name)) if kind == "IP Address" else name) in self._allowed_sans
            for kind, name in (certificate or {}).get("subjectAltName", ())
            if kind == "IP Address" or kind in _NAMES
        )


class CurrentContext(ssl.SSLContext):
    """Uses the current context for each new connection. Existing connections keep theirs.

    Attributes:
        current: The current context.
    """

    current: ServerContext

    def __new__(cls, _current: ServerContext) -> CurrentContext:  # noqa: PYI034 - as in typeshed
        """Make a context without settings of its own."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, current: ServerContext) -> None:
        super().__init__()
        self.current = current

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection. asyncio calls this method."""
        return self.current.wrap_bio(*arguments, **options)


def _load_cert_chain(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    with ExitStack() as stack:
        try:
            # Without this password, OpenSSL would ask for the key's password at the terminal.
            context.load_cert_chain(
                stack.enter_context(_as_file(cert)), stack.enter_context(_as_file(key)), password=""
            )
        except (ssl.SSLError, ValueError) as error:
            if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
                raise TlsError("the key does not belong to the certificate", "key_file", "key") from None
            if str(getattr(error, "reason", "")).endswith(("_TOO_SMALL", "_TOO_WEAK")):
                raise TlsError(
                    "the certificate's key or signature is too weak for OpenSSL: use a stronger one",
                    "cert_file",
                    "cert",
                ) from None
            raise TlsError(
                "the certificate or the key cannot be read: use PEM files, and a key without a password",
                *("cert_file", "cert"),
            ) from None


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Make a temporary file in memory, because Python reads certificates only from paths."""
    descriptor = os.memfd_create("chutes-exporter")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
