"""Encrypted connections, with settings that can change while connections last."""

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

# Go's names, which the configuration has, and OpenSSL's: the suites of TLS 1.2 that Go counts as secure.
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
# Without a choice only suites with authenticated encryption are offered.
_DEFAULT_CIPHERS = tuple(suite for name, suite in CIPHERS.items() if "CBC" not in name)
_PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# Other kinds of name have no text to compare.
_NAMES = ("DNS", "email", "URI")


class TlsError(ValueError):
    """Settings that OpenSSL does not take.

    Attributes:
        fields: The fields of the configuration that it may be about.
    """

    def __init__(self, reason: str, *fields: str) -> None:
        super().__init__(reason)
        self.fields = fields


@dataclass(frozen=True)
class TlsSettings:
    """How connections are encrypted.

    Attributes:
        cert: The server's certificate and those between it and its authority, PEM.
        key: Its key, PEM.
        verify: Whether clients need a certificate.
        client_ca: Certificates that clients' certificates are verified with, PEM; None for the system's authorities.
        allowed_sans: Names of which a client's certificate must have one; None where any will do.
        min_version: The oldest version of TLS.
        max_version: The newest.
        ciphers: The suites of TLS 1.2, in OpenSSL's names; empty for those with forward secrecy and authentication.
        server_preference: Whether the server's order of suites counts.
        curve: The only curve of key exchanges; None for OpenSSL's own choice.
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
    """Encrypts connections as the settings say.

    Raises:
        TlsError: The settings cannot be used.
    """

    def __new__(cls, _settings: TlsSettings) -> ServerContext:  # noqa: PYI034 - as in typeshed
        """Make a context of a server's."""
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
            self.set_ecdh_curve(settings.curve)
        _load_cert_chain(self, settings.cert, settings.key)
        if settings.verify is not ssl.CERT_NONE:
            self._verify_clients(settings)

    def _verify_clients(self, settings: TlsSettings) -> None:
        self.verify_mode = settings.verify
        # As in Go, each certificate is an authority of its own, whoever signed it.
        self.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if settings.client_ca is None:
            self.load_default_certs(ssl.Purpose.CLIENT_AUTH)
            return
        # As in Go, what is no certificate is skipped. Without any certificate no client can be verified.
        for certificate in _PEM_CERTIFICATE.findall(settings.client_ca.decode("ascii", "replace")):
            with suppress(ssl.SSLError, ValueError):
                self.load_verify_locations(cadata=certificate)

    def admits(self, certificate: Any) -> bool:
        """Tell whether a client with this (verified) certificate may connect.

        Args:
            certificate: What :meth:`ssl.SSLSocket.getpeercert` returned.
        """
        if self._allowed_sans is None:
            return True
        return any(
            (str(ipaddress.ip_address(name)) if kind == "IP Address" else name) in self._allowed_sans
            for kind, name in (certificate or {}).get("subjectAltName", ())
            if kind == "IP Address" or kind in _NAMES
        )


class CurrentContext(ssl.SSLContext):
    """Hands each new connection to the context of the moment; those that last keep theirs.

    Attributes:
        current: The context of the moment.
    """

    current: ServerContext

    def __new__(cls, _current: ServerContext) -> CurrentContext:  # noqa: PYI034 - as in typeshed
        """Make a context that has no settings of its own."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, current: ServerContext) -> None:
        super().__init__()
        self.current = current

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection; this is how asyncio does it."""
        return self.current.wrap_bio(*arguments, **options)


def _load_cert_chain(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    with ExitStack() as stack:
        try:
            # A key with a password asks for it at the terminal unless one is given.
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
    """Give what is read already a path: Python reads certificates from nowhere else. It never reaches a disk."""
    descriptor = os.memfd_create("chutes-exporter")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
