"""Misbehaviour on demand: what can go wrong with an endpoint, and how to say so."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from chutes_exporter.api.endpoints import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Fault:
    """How an endpoint misbehaves.

    Attributes:
        latency: Seconds to wait before anything is answered.
        status: Answer with this status instead.
        headers: Headers to add.
        body: Answer with this body instead (``b""``: an empty 200).
        cut_after: Cut the connection after so many bytes of the body.
        times: After so many requests all is well again; None for ever.
    """

    latency: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    times: int | None = None


GARBAGE = b'<html>\x00\xff{"data": [[[[ NaN "'
_EXAMPLES = "scores=status:503, chutes=cut:1000, metrics=latency:5, metagraph=empty, stats=garbage"


def parse_fault(text: str) -> tuple[str, Fault]:
    """Read ``ENDPOINT=KIND`` or ``ENDPOINT=KIND:VALUE``.

    Raises:
        ValueError: The text says nothing that is known; the message has examples.
    """
    endpoint, _, fault = text.partition("=")
    kind, _, value = fault.partition(":")
    names = [known.name for known in ENDPOINTS]
    if endpoint not in names:
        raise ValueError(f"{endpoint!r} is no endpoint; there are {', '.join(names)}: write one like {_EXAMPLES}")
    try:
        match kind:
            case "status" if HTTPStatus(int(value)):
                return endpoint, Fault(status=int(value))
            case "latency" if 0 <= float(value) < float("inf"):
                return endpoint, Fault(latency=float(value))
            case "cut" if int(value) >= 0:
                return endpoint, Fault(cut_after=int(value))
            case "empty":
                return endpoint, Fault(body=b"")
            case "garbage":
                return endpoint, Fault(body=GARBAGE)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is no fault: write one like {_EXAMPLES}")
