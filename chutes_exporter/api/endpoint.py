"""What the client must know about an endpoint of the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote

from chutes_exporter.api.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api import decoding as d
    from chutes_exporter.api.keys import Purpose

T = TypeVar("T")

MB: Final = 1_000_000


@dataclass(frozen=True, eq=False)
class Endpoint(Generic[T]):
    """One endpoint of the API.

    Attributes:
        path: The path, with ``{...}`` for arguments. Without a path, the base address itself is
            asked.
        shape: The shape of the answer. None if the answer has no content.
        scope: Data of the whole platform, of the signing miner, or of a miner in the path or the
            query.
        signed: Whether a request must be signed. Other requests are never signed.
        query: Query parameters of every request.
        purpose: The word that ends the signed message.
        max_bytes: Limit of an answer: of the body, or of the records that are kept of a stream. All
            answers together must fit into 512 MB, with an older answer beside each.
    """

    name: str
    path: str
    shape: d.Shape[T] | d.StreamShape[Any] | None
    scope: Literal["platform", "signer", "miner"] = "platform"
    signed: bool = False
    method: Literal["GET", "DELETE", "POST"] = "GET"
    query: Mapping[str, str] = field(default_factory=dict)
    purpose: Purpose = "miner"
    max_bytes: int = MB

    def path_and_query(self, params: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """Return the path and the query of a request, or raise BadRequestError.

        ``params`` are the values for the braces in the path, and else query parameters.
        """
        path, query = self.path, dict(self.query)
        for name, value in params.items():
            if f"{{{name}}}" not in path:
                query[name] = value
                continue
            # The value is one segment of the path and must stay one. `quote` escapes slashes, but
            # not "." and "..".
            if value in ("", ".", ".."):
                raise BadRequestError("the id is invalid", advice="Check the id.")
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return path, query

    @property
    def source(self) -> str:
        """What metrics name: the method and the path, or the name without a path."""
        return f"{self.method} {self.path}" if self.path else self.name
