"""``--web.config.file``: TLS, passwords, headers and the rate limit.

The format is that of exporter-toolkit, which Prometheus' exporters share. The same files are valid. ``docs/http.md``
lists the exceptions. A setting that is not supported is an error. A setting without effect causes a warning.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from chutes_exporter.config import ConfigError
from chutes_exporter.web.go_yaml import (
    Found,
    NodeError,
    Schema,
    Section,
    boolean,
    decode,
    first_document,
    integer,
    nanoseconds,
    text,
    texts,
)
from chutes_exporter.web.tls import CIPHERS, CURVES, ServerContext, TlsError, TlsSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_MAX_BYTES = 1024 * 1024
_SCHEMA: Schema = {
    "tls_server_config": {
        **dict.fromkeys(("cert", "cert_file", "key", "key_file", "client_ca", "client_ca_file"), text),
        **dict.fromkeys(("client_auth_type", "min_version", "max_version"), text),
        **dict.fromkeys(("client_allowed_sans", "cipher_suites", "curve_preferences"), texts),
        "prefer_server_cipher_suites": boolean,
    },
    "basic_auth_users": None,
    "http_server_config": {"http2": boolean, "headers": None},
    "rate_limit": {"interval": nanoseconds, "burst": integer},
}
# Only these switch TLS on.
_TLS_SWITCHES = ("cert_file", "cert", "key_file", "key", "client_ca_file", "client_ca", "client_auth_type")
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
_TLS13_CIPHERS = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_HTTP2_CIPHERS = ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
_HEADERS = {
    "Content-Security-Policy": None,
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": None,
    "Strict-Transport-Security": None,
}
_LINE_BREAK = re.compile(r"[\r\n]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BCRYPT = re.compile(
    r"\$2[a-z]?\$(?P<cost>0[4-9]|[12][0-9]|3[01])\$(?P<salt>[./A-Za-z0-9]{21})(?P<last>[./A-Za-z0-9])"
    r"(?P<hash>[./A-Za-z0-9]{31})"
)
_BCRYPT_DIGITS = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class RateLimit:
    """Limit of the request rate.

    Attributes:
        interval: Seconds after which one more request is answered.
        burst: Maximum number of requests at once. Below 1 no request is answered.
    """

    interval: float
    burst: int


@dataclass(frozen=True)
class WebConfig:
    """A web configuration.

    Attributes:
        context: The TLS context. None does not encrypt connections.
        users: Bcrypt hashes by user name, all with the prefix ``$2b$``. If empty, nobody needs a password.
        headers: Headers of every response.
        rate_limit: The rate limit, or None.
        warnings: Settings that have no effect or refuse everybody.
        contents: Contents of the files by path: the configuration, certificates and keys.
    """

    context: ServerContext | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_limit: RateLimit | None = None
    warnings: tuple[str, ...] = ()
    contents: Mapping[Path, bytes] = field(default_factory=dict, repr=False)


class _Files:
    """Reads one file and the files that it names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.contents: dict[Path, bytes] = {}
        self.warnings: list[str] = []

    def root(self) -> yaml.Node | None:
        try:
            content = _content(self.path)
        except OSError as error:
            raise ConfigError(
                f"--web.config.file: cannot read {self.path}: {error.strerror}. Check the path and its permissions"
            ) from None
        self.contents[self.path] = content
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"{self.path} is larger than {_MAX_BYTES} bytes: it is not a web configuration")
        try:
            return first_document(content)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            place = f", line {mark.line + 1}" if mark is not None else ""
            raise ConfigError(f"{self.path}{place}: {error.problem}") from None
        except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
            raise ConfigError(f"{self.path} is not valid YAML: {str(error).splitlines()[0]}") from None

    def either(self, section: Section, name: str) -> bytes | None:
        """Return the content of the named file, or else the inline text, or None."""
        if path := section.get_value(f"{name}_file"):
            return self._named(section[f"{name}_file"], path, f"{name}_file")
        inline = section.get_value(name)
        return inline.encode() if inline else None

    def _named(self, found: Found, name: str, what: str) -> bytes:
        # Paths are relative to the configuration, not to the working directory.
        path = self.path.parent / name
        try:
            content = _content(path)
        except OSError as error:
            raise NodeError(found.node, f"{what}: cannot read {path}: {error.strerror}") from None
        except ValueError:
            raise NodeError(found.node, f"{what} is not a valid path") from None
        self.contents[path] = content
        return content

    def warn(self, node: yaml.Node, reason: str) -> None:
        self.warnings.append(f"{self.path}, line {node.start_mark.line + 1}: {reason}")


def _content(path: Path) -> bytes:
    # A second read of a pipe would return nothing or block.
    if path.exists() and not path.is_file():
        raise OSError(0, "it is not a regular file")
    return path.read_bytes()


def load_web_config(path: Path) -> WebConfig:
    """Read a web configuration and the files that it names.

    Raises:
        ConfigError: It is invalid or not supported. The message says where and why.
    """
    files = _Files(path)
    root = files.root()
    if root is None:
        return WebConfig(contents=files.contents)
    try:
        config = decode(root, _SCHEMA, "a web configuration")
        http = config.get("http_server_config", Section(root))
        context = _tls(files, config["tls_server_config"], http) if "tls_server_config" in config else None
        users = _users(files, config["basic_auth_users"]) if "basic_auth_users" in config else {}
        headers = _headers(http.get("headers", {}))
        rate_limit = _rate_limit(files, config.get("rate_limit", Section(root)))
    except NodeError as error:
        raise ConfigError(f"{path}, line {error.line}: {error}") from None
    return WebConfig(context, users, headers, rate_limit, tuple(files.warnings), files.contents)


def changed(config: WebConfig) -> bool:
    """Return whether a file has changed since it was read."""
    for path, content in config.contents.items():
        try:
            if _content(path) != content:
                return True
        except OSError:
            return True
    return False


def _tls(files: _Files, section: Section, http: Section) -> ServerContext | None:
    min_version = _version(section, "min_version", ssl.TLSVersion.TLSv1_2)
    max_version = _version(section, "max_version", ssl.TLSVersion.TLSv1_3)
    suites, curve = _suites(section), _curve(section)
    if not any(section.get_value(name) for name in _TLS_SWITCHES):
        files.warn(
            section.node,
            "tls_server_config has no certificate, so connections are not encrypted: set cert_file and key_file",
        )
        return None
    if http.get_value("http2", default=False):
        raise NodeError(http["http2"].node, "HTTP/2 is not served: leave http2 out, or set it to false")
    cert, key = files.either(section, "cert"), files.either(section, "key")
    if cert is None or key is None:
        raise NodeError(section.node, "tls_server_config needs cert_file and key_file, or cert and key")
    verify, client_ca, sans = _client_auth(files, section)
    if suites and min_version < ssl.TLSVersion.TLSv1_3:
        if http.get_value("http2", default=True) and not set(suites) & set(_HTTP2_CIPHERS):
            raise NodeError(
                section["cipher_suites"].node,
                f"cipher_suites needs {' or '.join(_HTTP2_CIPHERS)}, or http_server_config needs http2: false",
            )
        if not set(suites) & set(CIPHERS):
            if max_version < ssl.TLSVersion.TLSv1_3:
                raise NodeError(
                    section["cipher_suites"].node, "cipher_suites has no suite for TLS 1.2, the max_version"
                )
            min_version = ssl.TLSVersion.TLSv1_3
    settings = TlsSettings(
        cert=cert,
        key=key,
        verify=verify,
        client_ca=client_ca,
        allowed_sans=sans,
        min_version=min_version,
        max_version=max_version,
        ciphers=tuple(CIPHERS[name] for name in suites if name in CIPHERS),
        server_preference=bool(section.get_value("prefer_server_cipher_suites", default=True)),
        curve=curve,
    )
    try:
        return ServerContext(settings)
    except TlsError as error:
        node = next((section[name].node for name in error.fields if name in section), section.node)
        raise NodeError(node, str(error)) from None


def _client_auth(files: _Files, section: Section) -> tuple[ssl.VerifyMode, bytes | None, frozenset[str] | None]:
    kind = section.get_value("client_auth_type") or ""
    if kind not in _CLIENT_AUTH:
        refusal = " (it does not verify certificates)" if kind in _UNVERIFIED else ""
        raise NodeError(
            section["client_auth_type"].node,
            f"client_auth_type {kind!r} is not supported{refusal}: use {_listed(_CLIENT_AUTH)}",
        )
    verify, client_ca = _CLIENT_AUTH[kind], files.either(section, "client_ca")
    sans = section.get_value("client_allowed_sans")
    if verify is not ssl.CERT_NONE:
        return verify, client_ca, None if sans is None else frozenset(item.value or "" for item in sans)
    if client_ca is not None:
        raise NodeError(
            section.node,
            "client_ca has no effect without client_auth_type: add client_auth_type: RequireAndVerifyClientCert",
        )
    if sans is not None:
        files.warn(
            section["client_allowed_sans"].node,
            "client_allowed_sans has no effect without client_auth_type: "
            "add client_auth_type: RequireAndVerifyClientCert",
        )
    return verify, None, None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name for name in names if name)


def _version(section: Section, name: str, default: ssl.TLSVersion) -> ssl.TLSVersion:
    version = section.get_value(name)
    if version is None:
        return default
    if version not in _VERSIONS:
        raise NodeError(
            section[name].node,
            f"{name} {version!r} is not supported: use {' or '.join(_VERSIONS)}",
        )
    return _VERSIONS[version]


def _suites(section: Section) -> list[str]:
    items: list[Found] = section.get_value("cipher_suites") or []
    for item in items:
        if item.value not in (*CIPHERS, *_TLS13_CIPHERS):
            raise NodeError(
                item.node,
                f"the cipher suite {item.value!r} is unknown: use {', '.join((*CIPHERS, *_TLS13_CIPHERS))}",
            )
    return [item.value for item in items]


def _curve(section: Section) -> str | None:
    items: list[Found] = section.get_value("curve_preferences") or []
    names = {item.value for item in items}
    if len(names) > 1 or not names <= set(CURVES):
        raise NodeError(
            section["curve_preferences"].node,
            f"curve_preferences must have exactly one curve: use {', '.join(CURVES)}",
        )
    return CURVES[names.pop()] if names else None


def _users(files: _Files, section: Section) -> dict[str, str]:
    users = {}
    for name, found in section.items():
        match = _BCRYPT.fullmatch(found.value)
        # Do not show the hash, because it is a secret.
        if match is None:
            raise NodeError(
                found.node,
                f"the password of {name!r} is not a bcrypt hash: make one with htpasswd -nBC 10 '' | tr -d ':'",
            )
        # In Go, all prefixes mean the same algorithm. The last digit of a salt has four unused bits.
        last = _BCRYPT_DIGITS[_BCRYPT_DIGITS.index(match["last"]) & 0b110000]
        users[name] = f"$2b${match['cost']}${match['salt']}{last}{match['hash']}"
    if not users:
        files.warn(
            section.node,
            "basic_auth_users has no user, so no request needs a password: add a user, or remove the section",
        )
    return users


def _headers(section: Mapping[str, Found]) -> dict[str, str]:
    headers = {}
    for name, found in section.items():
        if name not in _HEADERS:
            raise NodeError(found.node, f"{name!r} is unknown in headers: use {', '.join(_HEADERS)}")
        allowed = _HEADERS[name]
        if allowed is not None and found.value not in allowed:
            raise NodeError(found.node, f"{name} {found.value!r} is invalid: use {' or '.join(allowed)}")
        value = _LINE_BREAK.sub(" ", found.value).strip(" \t")
        if _CONTROL.search(value):
            raise NodeError(found.node, f"{name} has control characters: remove them")
        headers[name] = value
    return headers


def _rate_limit(files: _Files, section: Section) -> RateLimit | None:
    interval = section.get_value("interval") or 0
    burst = section.get_value("burst") or 0
    if interval <= 0:
        return None
    if burst < 1:
        files.warn(section.node, "rate_limit has no burst, so every request is refused: set burst to 1 or more")
    return RateLimit(interval / 1e9, burst)
