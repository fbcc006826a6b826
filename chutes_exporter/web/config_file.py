"""``--web.config.file``: who may ask the exporter, and how connections are encrypted.

The format is the exporter-toolkit's, which all of Prometheus' own exporters share. Whatever of it cannot be honoured is
an error, never ignored: nobody may believe to be protected who is not.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import yaml

from chutes_exporter.config import ConfigError
from chutes_exporter.web.tls import CIPHERS, CURVES, ServerContext, TlsError, TlsSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

T = TypeVar("T")

_MAX_BYTES = 1024 * 1024
# The last character of a salt has two bits of it.
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h)){1,4}|0")
_NUMBER = re.compile(r"[0-9]{1,9}")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_HEADERS = {
    "Content-Security-Policy": None,
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": None,
    "Strict-Transport-Security": None,
}
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True)
class RateLimit:
    """How many requests are answered.

    Attributes:
        interval: Seconds in which one more may come.
        burst: How many may come at once.
    """

    interval: float
    burst: int


@dataclass(frozen=True)
class WebConfig:
    """What the file says.

    Attributes:
        context: Encrypts connections; None where they are not encrypted.
        users: Bcrypt hashes by user name; empty where nobody needs a password.
        headers: Headers of every response.
        rate_limit: How many requests are answered; None for any number.
        contents: What every file was when it was read, by path: the file itself, certificates and keys.
    """

    context: ServerContext | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_limit: RateLimit | None = None
    contents: Mapping[Path, bytes] = field(default_factory=dict, repr=False)


class _Reader:
    """Reads one file and what it names, and says where a fault is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.contents: dict[Path, bytes] = {}

    def fault(self, node: yaml.Node, reason: str) -> ConfigError:
        return ConfigError(f"{self.path}, line {node.start_mark.line + 1}: {reason}")

    def root(self) -> yaml.Node | None:
        try:
            text = _content(self.path)
        except OSError as error:
            raise ConfigError(f"cannot read {self.path}: {error.strerror}") from None
        self.contents[self.path] = text
        if len(text) > _MAX_BYTES:
            raise ConfigError(f"{self.path} is longer than any honest web configuration")
        try:
            node: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            place = f", line {mark.line + 1}" if mark is not None else ""
            raise ConfigError(f"{self.path}{place}: {error.problem}") from None
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"{self.path} is no YAML: {str(error).splitlines()[0]}") from None
        return node

    def fields(self, node: yaml.Node, known: Collection[str] | None, what: str) -> dict[str, yaml.Node]:
        """Return a mapping's values by key; with ``known``, no others are accepted."""
        if not isinstance(node, yaml.MappingNode):
            raise self.fault(node, f"{what} must be a mapping")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self.text(key, f"a key of {what}")
            if known is not None and name not in known:
                raise self.fault(key, f"{name!r} is not known in {what}; there are {', '.join(known)}")
            if name in found:
                raise self.fault(key, f"{name!r} stands twice in {what}")
            found[name] = value
        return found

    def text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self.fault(node, f"{what} must be a text")
        return "" if node.tag == "tag:yaml.org,2002:null" else str(node.value)

    def texts(self, node: yaml.Node, what: str) -> list[str]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.fault(node, f"{what} must be a list")
        return [self.text(item, f"an item of {what}") for item in node.value]

    def boolean(self, node: yaml.Node, what: str) -> bool:
        if node.tag != "tag:yaml.org,2002:bool":
            raise self.fault(node, f"{what} must be true or false")
        return str(node.value).lower() in ("true", "yes", "on")

    def choice(self, node: yaml.Node, choices: Mapping[str, T], what: str, refusal: str = "") -> T:
        text = self.text(node, what)
        if text not in choices:
            raise self.fault(node, f"{what} cannot be {text!r}{refusal}; there are {', '.join(choices)}")
        return choices[text]

    def file(self, node: yaml.Node, what: str) -> bytes:
        # Relative to the configuration, wherever the exporter was started.
        path = self.path.parent / self.text(node, what)
        try:
            content = _content(path)
        except OSError as error:
            raise self.fault(node, f"{what}: cannot read {path}: {error.strerror}") from None
        except ValueError:
            raise self.fault(node, f"{what} is no path") from None
        self.contents[path] = content
        return content


def _content(path: Path) -> bytes:
    # A pipe would be empty, or wait for ever, when it is read again.
    if path.exists() and not path.is_file():
        raise OSError(0, "it is no regular file")
    return path.read_bytes()


def load_web_config(path: Path) -> WebConfig:
    """Read a web configuration and all the files that it names.

    Raises:
        ConfigError: It cannot be honoured in full; the message says where and why.
    """
    reader = _Reader(path)
    root = reader.root()
    if root is None or root.tag == "tag:yaml.org,2002:null":
        return WebConfig(contents=reader.contents)
    sections: dict[str, Callable[[_Reader, yaml.Node], object]] = {
        "tls_server_config": _tls,
        "basic_auth_users": _users,
        "http_server_config": _http,
        "rate_limit": _rate_limit,
    }
    read = {
        name: sections[name](reader, node)
        for name, node in reader.fields(root, sections, "a web configuration").items()
    }
    return WebConfig(
        context=read.get("tls_server_config"),  # type: ignore[arg-type]
        users=read.get("basic_auth_users", {}),  # type: ignore[arg-type]
        headers=read.get("http_server_config", {}),  # type: ignore[arg-type]
        rate_limit=read.get("rate_limit"),  # type: ignore[arg-type]
        contents=reader.contents,
    )


def changed(config: WebConfig) -> bool:
    """Tell whether a file is not any more what it was when it was read."""
    for path, content in config.contents.items():
        try:
            if _content(path) != content:
                return True
        except OSError:
            return True
    return False


_TLS_FIELDS = (
    *("cert_file", "key_file", "cert", "key", "client_auth_type", "client_ca_file", "client_ca", "client_allowed_sans"),
    *("min_version", "max_version", "cipher_suites", "prefer_server_cipher_suites", "curve_preferences"),
)


def _tls(reader: _Reader, node: yaml.Node) -> ServerContext:
    what = "tls_server_config"
    fields = reader.fields(node, _TLS_FIELDS, what)
    verify = ssl.CERT_NONE
    if (kind := fields.get("client_auth_type")) is not None:
        refusal = (
            ", which asks for a certificate without verifying it: that is not served"
            if reader.text(kind, "client_auth_type") in ("RequestClientCert", "RequireAnyClientCert")
            else ""
        )
        verify = reader.choice(kind, _CLIENT_AUTH, "client_auth_type", refusal)
    client_ca = _either(reader, fields, "client_ca")
    if client_ca is not None and verify is ssl.CERT_NONE:
        raise reader.fault(node, "a client_ca without a client_auth_type that verifies certificates protects nothing")
    if client_ca is None and verify is not ssl.CERT_NONE:
        raise reader.fault(node, "client_auth_type needs client_ca_file or client_ca")
    sans = fields.get("client_allowed_sans")
    if sans is not None and verify is not ssl.CERT_REQUIRED:
        raise reader.fault(sans, "client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert")
    cert, key = _either(reader, fields, "cert"), _either(reader, fields, "key")
    if cert is None or key is None:
        raise reader.fault(node, f"{what} needs cert_file and key_file, or cert and key")
    settings = TlsSettings(
        cert=cert,
        key=key,
        verify=verify,
        client_ca=client_ca,
        allowed_sans=None if sans is None else frozenset(reader.texts(sans, "client_allowed_sans")),
        min_version=_version(reader, fields, "min_version", ssl.TLSVersion.TLSv1_2),
        max_version=_version(reader, fields, "max_version", ssl.TLSVersion.TLSv1_3),
        ciphers=_ciphers(reader, fields.get("cipher_suites")),
        server_preference=(
            reader.boolean(preference, "prefer_server_cipher_suites")
            if (preference := fields.get("prefer_server_cipher_suites")) is not None
            else True
        ),
        curve=_curve(reader, fields.get("curve_preferences")),
    )
    try:
        return ServerContext(settings)
    except TlsError as error:
        place = next((fields[name] for name in error.fields if name in fields), node)
        raise reader.fault(place, str(error)) from None


def _either(reader: _Reader, fields: Mapping[str, yaml.Node], name: str) -> bytes | None:
    inline, file = fields.get(name), fields.get(f"{name}_file")
    if inline is not None and file is not None:
        raise reader.fault(inline, f"{name} and {name}_file cannot both be given")
    if inline is not None:
        return reader.text(inline, name).encode(errors="replace")
    return None if file is None else reader.file(file, f"{name}_file")


def _version(reader: _Reader, fields: Mapping[str, yaml.Node], name: str, otherwise: ssl.TLSVersion) -> ssl.TLSVersion:
    node = fields.get(name)
    return otherwise if node is None else reader.choice(node, _VERSIONS, name, " (older versions are not served)")


def _ciphers(reader: _Reader, node: yaml.Node | None) -> tuple[str, ...]:
    if node is None:
        return ()
    names = reader.texts(node, "cipher_suites")
    for name in names:
        if name not in CIPHERS:
            reason = (
                "belongs to TLS 1.3, whose suites cannot be chosen"
                if name.startswith(("TLS_AES", "TLS_CHACHA"))
                else f"is not known; there are {', '.join(CIPHERS)}"
            )
            raise reader.fault(node, f"the cipher suite {name!r} {reason}")
    return tuple(CIPHERS[name] for name in names)


def _curve(reader: _Reader, node: yaml.Node | None) -> str | None:
    if node is None:
        return None
    names = reader.texts(node, "curve_preferences")
    if len(names) != 1 or names[0] not in CURVES:
        raise reader.fault(
            node, f"curve_preferences can be one curve, of {', '.join(CURVES)}: Python's TLS takes no list"
        )
    return CURVES[names[0]]


def _users(reader: _Reader, node: yaml.Node) -> dict[str, str]:
    users = {}
    fields = reader.fields(node, None, "basic_auth_users")
    for name, value in fields.items():
        hashed = reader.text(value, "a password")
        # The hash is a secret: it is not repeated.
        if not _BCRYPT.fullmatch(hashed):
            raise reader.fault(
                value, f"the password of {name!r} is no bcrypt hash: make one with htpasswd -nBC 10 '' | tr -d ':'"
            )
        if ":" in name or not name:
            raise reader.fault(value, "a user's name must not be empty or have a colon")
        users[name] = hashed
    if not users:
        raise reader.fault(node, "basic_auth_users has no user: leave it out where nobody needs a password")
    return users


def _http(reader: _Reader, node: yaml.Node) -> dict[str, str]:
    fields = reader.fields(node, ("http2", "headers"), "http_server_config")
    http2 = fields.get("http2")
    if http2 is not None and reader.boolean(http2, "http2"):
        raise reader.fault(http2, "HTTP/2 is not served: leave http2 out, or set it to false")
    if "headers" not in fields:
        return {}
    headers = {}
    for name, value in reader.fields(fields["headers"], _HEADERS, "headers").items():
        text = reader.text(value, name)
        allowed = _HEADERS[name]
        if allowed is not None and text and text.lower() not in allowed:
            raise reader.fault(value, f"{name} cannot be {text!r}; there are {', '.join(allowed)}")
        if not _HEADER_VALUE.fullmatch(text):
            raise reader.fault(value, f"{name} must be one line of plain text")
        if text:
            headers[name] = text
    return headers


def _rate_limit(reader: _Reader, node: yaml.Node) -> RateLimit | None:
    fields = reader.fields(node, ("interval", "burst"), "rate_limit")
    missing = [name for name in ("interval", "burst") if name not in fields]
    if missing:
        raise reader.fault(node, f"rate_limit needs {' and '.join(missing)}")
    text = reader.text(fields["interval"], "interval")
    if not _DURATION.fullmatch(text):
        raise reader.fault(fields["interval"], f"interval cannot be {text!r}: write a duration like 1s or 100ms")
    interval = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h)", text))
    burst = reader.text(fields["burst"], "burst")
    if not _NUMBER.fullmatch(burst) or (interval and int(burst) < 1):
        raise reader.fault(fields["burst"], "burst must be a number of 1 or more: with less nothing is answered")
    return RateLimit(interval, int(burst)) if interval else None
