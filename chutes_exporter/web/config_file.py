"""``--web.config.file``: TLS and passwords.

The format is that of exporter-toolkit, which Prometheus' exporters share. ``docs/http.md`` lists
the supported fields.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


class _Tls(msgspec.Struct, forbid_unknown_fields=True):
    """The section ``tls_server_config``.

    Paths are relative to the configuration, not to the working directory.
    """

    cert_file: Annotated[str, msgspec.Meta(min_length=1)]
    key_file: Annotated[str, msgspec.Meta(min_length=1)]
    client_auth_type: Literal[
        "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
    ] = "NoClientCert"
    client_ca_file: str = ""
    min_version: Literal["TLS12", "TLS13"] = "TLS12"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tls_server_config: _Tls | None = None
    basic_auth_users: dict[str, str] | None = None


class CurrentContext(ssl.SSLContext):
    """Uses the current context for each new connection. Existing connections keep theirs."""

    current: ssl.SSLContext

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection. asyncio calls this method."""
        return self.current.wrap_bio(*arguments, **options)


@dataclass(frozen=True)
class WebConfig:
    """A web configuration, with bcrypt hashes by user name, and the contents of all its files by
    path.
    """

    context: ssl.SSLContext | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[Path, bytes] = field(default_factory=dict, repr=False)

    def changed(self) -> bool:
        """Return whether a file has changed since it was read."""
        try:
            return any(read_file(path) != content for path, content in self.contents.items())
        except OSError:
            return True


def load_web_config(path: Path) -> WebConfig:
    """Read a web configuration and the files that it names, or raise ConfigError with file, field
    and reason.
    """
    try:
        contents = {path: read_file(path)}
        document = yaml.safe_load(contents[path])
        file = msgspec.convert({} if document is None else document, _File)
        tls, context = file.tls_server_config, None
        if tls is not None:
            # Read before OpenSSL does, so that a change in between is noticed.
            names = filter(None, (tls.cert_file, tls.key_file, tls.client_ca_file))
            contents |= {path.parent / name: read_file(path.parent / name) for name in names}
            context = _context(tls, path.parent)
        return WebConfig(
            context,
            {} if file.basic_auth_users is None else _users(file.basic_auth_users),
            contents,
        )
    except OSError as error:
        raise ConfigError(
            f"--web.config.file: cannot read {error.filename}: {error.strerror}. Check the "
            "path and its permissions"
        ) from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise ConfigError(f"{path}{line}: {error.problem}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path}: {str(error).replace('`$.', '`')}. docs/http.md lists the supported fields"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError) as error:
        # PyYAML raises the last one for a strange time.
        raise ConfigError(f"{path}: {error}") from None


def _context(tls: _Tls, folder: Path) -> ssl.SSLContext:
    """Make a server's TLS context, or raise ValueError with the fields and the reason."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.verify_mode = _CLIENT_AUTH[tls.client_auth_type]
    # As in Go, a CA in the file is trusted even if its issuer is unknown.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if bool(tls.client_ca_file) is (context.verify_mode is ssl.CERT_NONE):
        raise ValueError(
            "client_ca_file has no effect without client_auth_type, and the other way round: "
            "set both"
        )
    try:
        # Without this password, OpenSSL would ask for the key's password at the terminal.
        context.load_cert_chain(folder / tls.cert_file, folder / tls.key_file, password="")
        if tls.client_ca_file:
            context.load_verify_locations(folder / tls.client_ca_file)
    except ssl.SSLError as error:
        raise ValueError(
            f"cert_file, key_file, client_ca_file: OpenSSL refuses one: {error}: use PEM files, "
            "a key that belongs to the certificate, and no password"
        ) from None
    return context


def _users(users: dict[str, str]) -> dict[str, str]:
    """Return the users unchanged, or raise ValueError if there is none, or a password is no bcrypt
    hash.
    """
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
