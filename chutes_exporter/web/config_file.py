"""``--web.config.file``: TLS, passwords, headers and the rate limit.

The format is that of exporter-toolkit, which Prometheus' exporters share. ``docs/http.md`` lists
what each field does here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import yaml

from chutes_exporter.config import ConfigError
from chutes_exporter.files import read_file
from chutes_exporter.web.tls import TlsSettings, make_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from pathlib import Path

# The last digit of the salt has only two bits, so it has four values.
_BCRYPT = re.compile(
    r"\$2[abxy]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}"
)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(rf"([0-9]{{1,18}}(?:\.[0-9]{{1,18}})?)({'|'.join(_SECONDS)})")

# HTTP allows no line breaks, and no spaces around a value.
_Header = Annotated[str, msgspec.Meta(pattern=r"\A([!-~]([ -~]*[!-~])?)?\Z")] | int | None


class _Section(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A part of the file."""


class _Headers(_Section):
    content_security_policy: _Header = msgspec.field(default=None, name="Content-Security-Policy")
    frame_options: Literal["deny", "sameorigin"] | None = msgspec.field(
        default=None, name="X-Frame-Options"
    )
    content_type_options: Literal["nosniff"] | None = msgspec.field(
        default=None, name="X-Content-Type-Options"
    )
    xss_protection: _Header = msgspec.field(default=None, name="X-XSS-Protection")
    transport_security: _Header = msgspec.field(default=None, name="Strict-Transport-Security")


class _Http(_Section):
    http2: bool = True
    """It has no effect, because the server has only HTTP/1.1."""
    headers: _Headers | None = None


class _RateLimit(_Section):
    interval: str | int = 0
    burst: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0


class WebFile(_Section):
    """A web configuration as it is written."""

    tls_server_config: TlsSettings | None = None
    http_server_config: _Http | None = None
    basic_auth_users: dict[str, str] | None = None
    rate_limit: _RateLimit | None = None


@dataclass(frozen=True)
class RateLimit:
    """A client may send a burst of requests at once, and then one for each interval in seconds."""

    interval: float
    burst: int


@dataclass(frozen=True)
class WebConfig:
    """A web configuration.

    Attributes:
        context: The TLS context, None without TLS.
        users: Bcrypt hashes by user name. Without users, no password is needed.
        headers: Headers of all answers.
        rate_limit: None if it is off.
        contents: The contents of the configuration and of all files that it names, by path.
    """

    context: ssl.SSLContext | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_limit: RateLimit | None = None
    contents: Mapping[Path, bytes] = field(default_factory=dict, repr=False)

    def changed(self) -> bool:
        """Return whether a file has changed since it was read, or can no longer be read."""
        try:
            return any(read_file(path) != content for path, content in self.contents.items())
        except OSError:
            return True


def load_web_config(path: Path) -> WebConfig:
    """Read a web configuration and the files that it names, or raise ConfigError with file, field
    and reason.
    """
    try:
        return _read_web_config(path)
    except OSError as error:
        raise ConfigError(
            f"--web.config.file: cannot read {error.filename}: {error.strerror}. Check the "
            "path and its permissions"
        ) from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise ConfigError(f"{path}{line}: {error.problem}") from None
    except msgspec.ValidationError as error:
        # It names a field like `$.rate_limit.burst`.
        raise ConfigError(
            f"{path}: {str(error).replace('`$.', '`')}. docs/http.md lists the supported fields"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError) as error:
        # PyYAML raises RecursionError for a text that is nested too deeply, and AttributeError for
        # one that is tagged as a time and is none.
        raise ConfigError(f"{path}: {error}") from None


def _read_web_config(path: Path) -> WebConfig:
    """Read a web configuration and the files that it names, or raise an error of any library."""
    contents = {path: read_file(path)}
    document = yaml.safe_load(contents[path])
    # An empty file is an empty configuration.
    file = msgspec.convert({} if document is None else document, WebFile)
    context = None
    if file.tls_server_config is not None:
        # Read before OpenSSL does, so that a change in between is noticed.
        for name in file.tls_server_config.files:
            contents[path.parent / name] = read_file(path.parent / name)
        context = make_context(file.tls_server_config, path.parent)
    return WebConfig(
        context=context,
        users=_users(file.basic_auth_users),
        headers=_headers(file.http_server_config),
        rate_limit=_rate_limit(file.rate_limit),
        contents=contents,
    )


def _users(users: dict[str, str] | None) -> dict[str, str]:
    """Return the users of the section, none without the section.

    Raise ValueError if the section is empty, or a password is no bcrypt hash.
    """
    if users is None:
        return {}
    if not users:
        raise ValueError(
            "basic_auth_users has no user, so no request needs a password: add one, or remove "
            "the section"
        )
    for name, hashed in users.items():
        if not _BCRYPT.fullmatch(hashed):
            # Do not show the hash, because it is a secret.
            raise ValueError(
                f"basic_auth_users: the password of {name!r} is not a bcrypt hash: "
                "make one with htpasswd -nBC 10 '' | tr -d ':'"
            )
    return users


def _headers(http: _Http | None) -> dict[str, str]:
    """Return the values of the configured headers by name. With a blank value, no answer has the
    header.
    """
    if http is None or http.headers is None:
        return {}
    # Only the headers that the file has, by their names in HTTP.
    configured = msgspec.to_builtins(http.headers)
    return {name: str(value) for name, value in configured.items()}


def _rate_limit(limit: _RateLimit | None) -> RateLimit | None:
    """Return the rate limit, None if it is off, or raise ValueError with the reason."""
    if limit is None:
        return None
    seconds = _seconds(limit.interval)
    # As in exporter-toolkit, an interval of 0 switches it off.
    if seconds == 0:
        return None
    if not limit.burst:
        raise ValueError(
            "rate_limit: with a burst of 0, every request is refused: allow at least 1"
        )
    return RateLimit(seconds, limit.burst)


def _seconds(duration: str | int) -> float:
    """Return the seconds of a duration in Go's form. A number without a unit is nanoseconds."""
    text = str(duration)
    if text.isdecimal():
        text += "ns"
    # Pairs of a number and a unit. A text with anything else in it is not a duration.
    parts: list[tuple[str, str]] = _DURATION_PART.findall(text)
    text_of_parts = "".join(number + unit for number, unit in parts)
    if not parts or text_of_parts != text:
        raise ValueError(
            f"rate_limit: the interval {text[:40]!r} is not a duration: write one like 1s or 100ms"
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
