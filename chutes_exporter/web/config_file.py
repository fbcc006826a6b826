"""``--web.config.file``: TLS, passwords and headers, in the format of exporter-toolkit.

``docs/http.md`` lists the fields. Others are refused, because a protection must not be missing in
silence.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import yaml

from chutes_exporter.config import ConfigError
from chutes_exporter.files import read_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The last digit of the salt has only two bits, so it has four values.
_BCRYPT = re.compile(
    r"\$2[abxy]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}"
)
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY_MODES = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}

_HeaderName = Literal[
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
]
# HTTP allows no line breaks, and no spaces around a value.
_HeaderValue = Annotated[str, msgspec.Meta(pattern=r"\A([!-~]([ -~]*[!-~])?)?\Z")] | int | None


class _Section(msgspec.Struct, forbid_unknown_fields=True):
    """A part of the file."""


class _Tls(_Section):
    cert_file: str
    key_file: str
    client_ca_file: str = ""
    client_auth_type: Literal[
        "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
    ] = "NoClientCert"
    min_version: Literal["TLS12", "TLS13"] = "TLS12"
    max_version: Literal["TLS12", "TLS13"] = "TLS13"

    def context(self, folder: Path) -> ssl.SSLContext:
        """Return the context of connections. The folder is that of relative paths."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[self.min_version]
        context.maximum_version = _VERSIONS[self.max_version]
        # Without this password, OpenSSL would ask for the key's password at the terminal.
        context.load_cert_chain(folder / self.cert_file, folder / self.key_file, password="")
        context.verify_mode = _VERIFY_MODES[self.client_auth_type]
        verifies = context.verify_mode is not ssl.CERT_NONE
        if verifies != bool(self.client_ca_file):
            raise ValueError(
                "client_auth_type and client_ca_file have an effect only together: add "
                "client_auth_type: RequireAndVerifyClientCert, or the file"
            )
        if verifies:
            # As in Go, a CA in the file is trusted even if its issuer is unknown.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.load_verify_locations(folder / self.client_ca_file)
        return context


class _Http(_Section):
    http2: bool = True
    """It has no effect, because the server has only HTTP/1.1."""
    headers: dict[_HeaderName, _HeaderValue] = {}


class WebFile(_Section):
    """A web configuration as it is written."""

    # A section without a content is refused, because it would protect nothing.
    tls_server_config: _Tls | msgspec.UnsetType = msgspec.UNSET
    http_server_config: _Http = msgspec.field(default_factory=_Http)
    basic_auth_users: Annotated[dict[str, str], msgspec.Meta(min_length=1)] = {}


@dataclass(frozen=True)
class WebConfig:
    """A web configuration.

    Attributes:
        context: The TLS context, None without TLS.
        users: Bcrypt hashes by user name. Without users, no password is needed.
        headers: Headers of all answers. With a blank value, no answer has the header.
        contents: The contents of the configuration and of all files that it names, by path.
    """

    context: ssl.SSLContext | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[Path, bytes] = field(default_factory=dict, repr=False)

    @property
    def is_protected(self) -> bool:
        """Whether clients need a password or a certificate."""
        if self.users:
            return True
        return self.context is not None and self.context.verify_mode is ssl.CERT_REQUIRED

    def changed(self) -> bool:
        """Return whether a file has changed since it was read, or can no longer be read."""
        try:
            return any(read_file(path) != content for path, content in self.contents.items())
        except OSError:
            return True


def load_web_config(path: Path) -> WebConfig:
    """Read a web configuration with its files. A ConfigError has file, field and reason."""
    try:
        return _read_web_config(path)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{path}: OpenSSL refuses cert_file, key_file or client_ca_file: {error}. Use PEM, a "
            "key that belongs to the certificate, and no password"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"--web.config.file: cannot read {error.filename}: {error.strerror}. Check the "
            "path and its permissions"
        ) from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise ConfigError(f"{path}{line}: {error.problem}") from None
    except msgspec.ValidationError as error:
        # It names a field like `$.tls_server_config.min_version`.
        raise ConfigError(
            f"{path}: {str(error).replace('`$.', '`')}. docs/http.md lists the supported fields. "
            "For others, put a reverse proxy in front"
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
    if file.tls_server_config is not msgspec.UNSET:
        tls = file.tls_server_config
        # Read before OpenSSL does, so that a change in between is noticed.
        for name in filter(None, (tls.cert_file, tls.key_file, tls.client_ca_file)):
            contents[path.parent / name] = read_file(path.parent / name)
        context = tls.context(path.parent)
    for name, hashed in file.basic_auth_users.items():
        if not _BCRYPT.fullmatch(hashed):
            # Do not show the hash, because it is a secret.
            raise ValueError(
                f"basic_auth_users: the password of {name!r} is not a bcrypt hash: "
                "make one with htpasswd -nBC 10 '' | tr -d ':'"
            )
    headers = file.http_server_config.headers
    return WebConfig(
        context=context,
        users=file.basic_auth_users,
        headers={name: str(value or "") for name, value in headers.items()},
        contents=contents,
    )
