"""Certificates for servers and clients."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Pki:
    """A certificate authority in a folder, with a server's certificate and clients'."""

    folder: Path
    authority: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.issue("server", "127.0.0.1")
        (self.folder / "ca.crt").write_bytes(self.authority.cert_pem.bytes())

    def issue(self, name: str, *identities: str, authority: trustme.CA | None = None) -> None:
        """Write ``NAME.crt`` and ``NAME.key`` for some host names or addresses.

        The certificate is signed by ``authority``, or else by the authority of this folder.
        """
        issued = (authority or self.authority).issue_cert(*identities)
        chain = b"".join(certificate.bytes() for certificate in issued.cert_chain_pems)
        (self.folder / f"{name}.crt").write_bytes(chain)
        (self.folder / f"{name}.key").write_bytes(issued.private_key_pem.bytes())

    def client(self, name: str = "", **options: ssl.TLSVersion) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts the authority.

        Args:
            name: The client certificate that it presents, see :meth:`issue`; none if empty.
            options: Attributes of the context, such as its maximum version of TLS.
        """
        context = ssl.create_default_context(cadata=self.authority.cert_pem.bytes().decode())
        for option, value in options.items():
            setattr(context, option, value)
        if name:
            context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context
