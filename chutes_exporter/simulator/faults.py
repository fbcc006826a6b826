"""Faults of endpoints, and their text format."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from chutes_exporter.api.endpoints import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Fault:
    """A fault of an endpoint: seconds of latency, or another status, headers or body.

    Attributes:
        cut_after: Close the connection after this many bytes of the body.
        records: End a stream normally after this many records, like a query that fails halfway.
        once: Whether the fault ends after one request.
    """

    latency: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    records: int | None = None
    once: bool = False


GARBAGE: Final = b'<html>\x00\xff{"data": [[[[ NaN "'
_EXAMPLES: Final = (
    "scores=status:503, metrics=latency:5, chutes=cut:1000, chutes=records:25, metagraph=empty, stats=garbage"
)
_KINDS: Final[dict[str, Callable[[str], Fault]]] = {
    "status": lambda value: Fault(status=HTTPStatus(int(value)).value),
    "latency": lambda value: Fault(latency=float(value)),
    "cut": lambda value: Fault(cut_after=int(value)),
    "records": lambda value: Fault(records=int(value)),
    "empty": lambda _: Fault(body=b""),
    "garbage": lambda _: Fault(body=GARBAGE),
}


def parse_fault(text: str) -> tuple[str, Fault]:
    """Parse ``ENDPOINT=KIND`` or ``ENDPOINT=KIND:VALUE``, or raise ValueError with examples."""
    name, _, rest = text.partition("=")
    kind, _, value = rest.partition(":")
    kinds = _KINDS if name in {endpoint.name for endpoint in ENDPOINTS} else {}
    try:
        return name, kinds[kind](value)
    except (KeyError, ValueError):
        raise ValueError(f"{text!r} is invalid: write for example {_EXAMPLES}") from None
