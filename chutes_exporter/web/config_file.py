"""``--web.config.file``: TLS, passwords, headers and the rate limit.

The format is that of exporter-toolkit, which Prometheus' exporters share. ``docs/http.md`` lists the differences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import yaml

from chutes_exporter.config import ConfigError
from chutes_exporter.web.tls import TlsSettings, server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from pathlib import Path

_BCRYPT = re.compile(r"\$2[abxy]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
"""The last digit of the salt has only two bits, so it has four values."""
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(rf"([0-9]+(?:\.[0-9]+)?)({'|'.join(_UNIT_SECONDS)})")
# HTTP allows no line breaks, and no spaces around a value.
_Header = Annotated[str, msgspec.Meta(pattern=r"\A([!-~]([ -~]*[!-~])?)?\Z")]


class _Section(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A part of the file."""


class _Headers(_Section):
    content_security_policy: _Header | None = msgspec.field(default=None, name="Content-Security-Policy")
    frame_options: Literal["deny", "sameorigin"] | None = msgspec.field(default=None, name="X-Frame-Options")
    content_type_options: Literal["nosniff"] | None = msgspec.field(default=None, name="X-Content-Type-Options")
    xss_protection: _Header | None = msgspec.field(default=None, name="X-XSS-Protection")
    transport_security: _Header | None = msgspec.field(default=None, name="Strict-Transport-Security")


class _Http(_Section):
    http2: bool | None = None
    """It has no effect, because the server has only HTTP/1.1."""
    headers: _Headers | None = None


class RateLimit(_Section):
    """Answer at most ``burst`` requests at once, and one more after each interval."""

    interval: str
    burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

    def __post_init__(self) -> None:
        parts = _DURATION_PART.findall(self.interval)
        if "".join(map("".join, parts)) != self.interval or not 0 < self.seconds < float("inf"):
            raise ValueError(f"{self.interval[:40]!r} is not a duration: write one like 1s or 100ms")

    @property
    def seconds(self) -> float:
        """The interval."""
        return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(self.interval))


class _File(_Section):
    tls_server_config: TlsSettings | None = None
    basic_auth_users: dict[str, str] | None = None
    http_server_config: _Http | None = None
    rate_limit: RateLimit | None = None


@dataclass(frozen=True)
class WebConfig:
    """A web configuration, with bcrypt hashes by user name, and the contents of all its files by path."""

    context: ssl.SSLContext | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_limit: RateLimit | None = None
    contents: Mapping[Path, bytes] = field(default_factory=dict, repr=False)

    def changed(self) -> bool:
        """Return whether a file has changed since it was read."""
        try:
            return any(path.read_bytes() != content for path, content in self.contents.items())
        except OSError:
            return True


def load_web_config(path: Path) -> WebConfig:
    """Read a web configuration and the files that it names, or raise ConfigError with file, field and reason."""
    # _read and _context add each file that they read.
    contents: dict[Path, bytes] = {}
    try:
        document = yaml.safe_load(_read(path, contents))
        file = msgspec.convert({} if document is None else document, _File)
        http = file.http_server_config or _Http()
        return WebConfig(
            context=None if file.tls_server_config is None else _context(file.tls_server_config, path.parent, contents),
            users={} if file.basic_auth_users is None else _users(file.basic_auth_users),
            headers=msgspec.to_builtins(http.headers or _Headers()),
            rate_limit=file.rate_limit,
            contents=contents,
        )
    except OSError as error:
        raise ConfigError(
            f"--web.config.file: cannot read {error.filename}: {error.strerror}. Check the path and its permissions"
        ) from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise ConfigError(f"{path}{line}: {error.problem}") from None
    except (msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(f"{path}: {str(error).replace('`$.', '`')}. docs/http.md describes the format") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _read(path: Path, contents: dict[Path, bytes]) -> bytes:
    # A second read of a pipe would return nothing or block.
    if path.exists() and not path.is_file():
        raise OSError(0, "it is not a regular file", str(path))
    contents[path] = path.read_bytes()
    return contents[path]


def _context(tls: TlsSettings, folder: Path, contents: dict[Path, bytes]) -> ssl.SSLContext:
    def content(file: str, inline: str) -> bytes | None:
        # Paths are relative to the configuration, not to the working directory.
        return _read(folder / file, contents) if file else inline.encode() or None

    cert, key = content(tls.cert_file, tls.cert), content(tls.key_file, tls.key)
    if cert is None or key is None:
        raise ValueError("tls_server_config needs cert_file and key_file, or cert and key")
    return server_context(tls, cert, key, content(tls.client_ca_file, tls.client_ca))


def _users(users: dict[str, str]) -> dict[str, str]:
    """Return the users unchanged, or raise ValueError if there is none, or a password is no bcrypt hash."""
    if not users:
        raise ValueError("basic_auth_users has no user, so no request needs a password: add one, or remove the section")
    for name, hashed in users.items():
        if not _BCRYPT.fullmatch(hashed):
            # Do not show the hash, because it is a secret.
            raise ValueError(
                f"basic_auth_users: the password of {name!r} is not a bcrypt hash: "
                "make one with htpasswd -nBC 10 '' | tr -d ':'"
            )
    return users
