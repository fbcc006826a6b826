"""TLS as the section ``tls_server_config`` of a web configuration says, in the names of Go."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

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
"""OpenSSL's names of the suites up to TLS 1.2 that exporter-toolkit accepts."""
TLS13_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""Suites of TLS 1.3. Python offers all of them, as Go does."""
CURVES = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY_MODES = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
"""Python's modes of Go's types. The other types ask for a certificate without verifying it."""

_Version = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
_Pem = Annotated[str, msgspec.Meta(max_length=16_000)]
"""A text that a pipe takes at once."""


class TlsSettings(msgspec.Struct, forbid_unknown_fields=True):
    """The section ``tls_server_config``.

    Paths are relative to the configuration, not to the working directory. A file has precedence
    over a text.
    """

    cert: _Pem = ""
    key: _Pem = ""
    client_ca: str = ""
    cert_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""
    client_auth_type: Literal[
        "",
        "NoClientCert",
        "RequestClientCert",
        "RequireAnyClientCert",
        "RequireClientCert",
        "VerifyClientCertIfGiven",
        "RequireAndVerifyClientCert",
    ] = ""
    client_allowed_sans: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    min_version: _Version = "TLS12"
    max_version: _Version = "TLS13"
    cipher_suites: list[str] = []
    prefer_server_cipher_suites: bool = True
    curve_preferences: list[Literal["CurveP256", "CurveP384", "CurveP521", "X25519"]] = []

    @property
    def files(self) -> list[str]:
        """The files that it names."""
        return [name for name in (self.cert_file, self.key_file, self.client_ca_file) if name]


class CurrentContext(ssl.SSLContext):
    """Uses the current context for each new connection. Existing connections keep theirs."""

    current: ssl.SSLContext

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection. asyncio calls this method."""
        return self.current.wrap_bio(*arguments, **options)


def make_context(tls: TlsSettings, folder: Path) -> ssl.SSLContext:
    """Make a server's TLS context, or raise ValueError with the fields and the reason."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _version("min_version", tls.min_version)
    context.maximum_version = _version("max_version", tls.max_version)
    # The choice of ciphers may raise the minimum version.
    _choose_ciphers(context, tls)
    if context.minimum_version > context.maximum_version:
        raise ValueError(
            "max_version is older than min_version, or than all cipher_suites: use a newer one"
        )
    _choose_curve(context, tls)
    _load_certificate(context, tls, folder)
    _verify_clients(context, tls, folder)
    return context


def _version(field: str, name: str) -> ssl.TLSVersion:
    """Return the version of a name, or raise ValueError with the field."""
    if name not in _VERSIONS:
        raise ValueError(
            f"{field}: OpenSSL no longer offers TLS 1.0 and 1.1 by default: use TLS12 or TLS13"
        )
    return _VERSIONS[name]


def _choose_ciphers(context: ssl.SSLContext, tls: TlsSettings) -> None:
    """Choose the suites that the context offers, or raise ValueError.

    If the settings name only suites of TLS 1.3, it becomes the minimum version.
    """
    if not tls.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if not tls.cipher_suites:
        return
    for suite in tls.cipher_suites:
        if suite not in CIPHERS and suite not in TLS13_SUITES:
            raise ValueError(
                f"cipher_suites: {suite!r} is not a secure suite of Go: use {', '.join(CIPHERS)}"
            )
    # Those of TLS 1.3 need no choice, because all are offered.
    up_to_tls12 = {suite: CIPHERS[suite] for suite in tls.cipher_suites if suite in CIPHERS}
    if up_to_tls12:
        _set_ciphers(context, up_to_tls12)
    else:
        # No suite of an older version is wanted.
        context.minimum_version = ssl.TLSVersion.TLSv1_3


def _set_ciphers(context: ssl.SSLContext, wanted: dict[str, str]) -> None:
    """Choose the wanted ciphers, which have OpenSSL's names by Go's names.

    Raise ValueError with Go's name if OpenSSL lacks one.
    """
    # OpenSSL skips what it does not have, and fails only if it has none. The check below finds
    # what is missing in both cases.
    with contextlib.suppress(ssl.SSLError):
        context.set_ciphers(":".join(wanted.values()))
    offered = {cipher["name"] for cipher in context.get_ciphers()}
    for suite, name in wanted.items():
        if name not in offered:
            raise ValueError(f"cipher_suites: this OpenSSL does not have {suite}: remove it")


def _choose_curve(context: ssl.SSLContext, tls: TlsSettings) -> None:
    """Choose the curve of the settings if they name one, or raise ValueError."""
    if len(tls.curve_preferences) > 1:
        raise ValueError(
            "curve_preferences: Python can choose only one curve: name one, or remove the field"
        )
    for curve in tls.curve_preferences:
        try:
            context.set_ecdh_curve(CURVES[curve])
        except (ssl.SSLError, ValueError):
            # For example X25519 with Python 3.11.2 and OpenSSL 3, as in Debian 12.
            raise ValueError(
                f"curve_preferences: this Python cannot choose {curve}: use CurveP256"
            ) from None


def _load_certificate(context: ssl.SSLContext, tls: TlsSettings, folder: Path) -> None:
    """Load the server's certificate and its key into the context, or raise ValueError."""
    if not (tls.cert or tls.cert_file) or not (tls.key or tls.key_file):
        raise ValueError(
            "tls_server_config needs cert_file and key_file, or cert and key: add them, or remove "
            "the section"
        )
    try:
        with (
            _path(tls.cert, tls.cert_file, folder) as cert,
            _path(tls.key, tls.key_file, folder) as key,
        ):
            # Without this password, OpenSSL would ask for the key's password at the terminal.
            context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        raise ValueError(
            f"cert_file, key_file, cert, key: OpenSSL refuses one: {error}: use PEM, a key that "
            "belongs to the certificate, and no password"
        ) from None


@contextlib.contextmanager
def _path(text: str, file: str, folder: Path) -> Iterator[Path]:
    """Yield the path of a file, or of a pipe with a text, because Python reads only paths."""
    if file:
        yield folder / file
        return
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "w") as pipe:
            # Nobody reads yet, but the text is so short that the pipe takes it at once.
            pipe.write(text)
        yield Path(f"/dev/fd/{reader}")
    finally:
        os.close(reader)


def _verify_clients(context: ssl.SSLContext, tls: TlsSettings, folder: Path) -> None:
    """Let the context verify clients as the settings say, or raise ValueError."""
    if tls.client_auth_type not in _VERIFY_MODES:
        raise ValueError(
            f"client_auth_type: Python verifies each certificate that it asks for, so it cannot "
            f"keep {tls.client_auth_type}: use RequireAndVerifyClientCert"
        )
    context.verify_mode = _VERIFY_MODES[tls.client_auth_type]
    if context.verify_mode is ssl.CERT_NONE:
        if tls.client_ca or tls.client_ca_file or tls.client_allowed_sans:
            raise ValueError(
                "client_ca_file, client_ca and client_allowed_sans have no effect without "
                "client_auth_type: add client_auth_type: RequireAndVerifyClientCert"
            )
        return
    # As in Go, a CA in the file is trusted even if its issuer is unknown.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _trust(context, tls, folder)
    if tls.client_allowed_sans:
        context.sslobject_class = _checking(frozenset(tls.client_allowed_sans))


def _trust(context: ssl.SSLContext, tls: TlsSettings, folder: Path) -> None:
    """Trust the configured authorities. Without any, those of the system count, as in Go."""
    try:
        if tls.client_ca_file:
            context.load_verify_locations(folder / tls.client_ca_file)
        elif tls.client_ca:
            context.load_verify_locations(cadata=tls.client_ca)
        else:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(
            f"client_ca_file, client_ca: OpenSSL refuses it: {error}: use certificates in PEM"
        ) from None


def _checking(allowed: frozenset[str]) -> type[ssl.SSLObject]:
    """Return the class of connections whose clients need one of the allowed names."""

    class Checked(ssl.SSLObject):
        def do_handshake(self) -> None:
            """Shake hands, and fail if the client's certificate has none of the names."""
            super().do_handshake()
            # A client without a certificate has no name, so it is refused.
            certificate: dict[str, Any] = self.getpeercert() or {}
            if allowed.isdisjoint(_names(certificate)):
                raise ssl.SSLCertVerificationError("no name in client_allowed_sans")

    return Checked


def _names(certificate: dict[str, Any]) -> Iterator[str]:
    """Yield the alternative names of a certificate, written as Go writes them."""
    kinds_and_names = certificate.get("subjectAltName", ())
    yield from [name for kind, name in kinds_and_names if kind in ("DNS", "email", "URI")]
    addresses = [name for kind, name in kinds_and_names if kind == "IP Address"]
    for address in addresses:
        # Python writes <invalid> for an address of a wrong length.
        with contextlib.suppress(ValueError):
            yield str(ipaddress.ip_address(address))
