"""Faults of endpoints, and their text format."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from chutes_exporter.api.decoding import StreamShape
from chutes_exporter.api.endpoints import ENDPOINTS, ON_REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Fault:
    """A fault of an endpoint.

    Attributes:
        latency: Wait this many seconds before the answer.
        status: Answer with this status instead.
        headers: Headers to add.
        body: Answer with this body instead (``b""``: an empty 200).
        cut_after: Close the connection after this many bytes of the body.
        records: End a stream normally after this many records, like a query that fails halfway.
        redis_down: The service's Redis is down. Bounties are missing, there is no history, scores return 503, and stats
            are computed for each request.
        as_of: The program that computes stats, scores and histories, or the autoscaler, stopped at this Unix time.
        zeros: The Prometheus behind the demand for chutes is down. The demand is 0.
        times: The fault ends after this many requests. None: it does not end.
    """

    latency: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    records: int | None = None
    redis_down: bool = False
    as_of: float | None = None
    zeros: bool = False
    times: int | None = None


GARBAGE = b'<html>\x00\xff{"data": [[[[ NaN "'
EXAMPLES = (
    "scores=status:503, chutes=cut:1000, chutes=records:25, chutes=redis-down, metrics=zero, metrics=latency:5, "
    "stats=as-of:1795521600, metagraph=empty, stats=garbage"
)
_ALL = frozenset(endpoint.name for endpoint in (*ENDPOINTS, *ON_REQUEST))
_STREAMS = frozenset(endpoint.name for endpoint in ENDPOINTS if isinstance(endpoint.shape, StreamShape))
_CALCULATED = frozenset({"stats", "scores", "unique_chute_history"})


def _natural(text: str) -> int:
    if (number := int(text)) < 0:
        raise ValueError
    return number


def _seconds(text: str) -> float:
    if not 0 <= (seconds := float(text)) < float("inf"):
        raise ValueError
    return seconds


_KINDS: dict[str, tuple[frozenset[str], Callable[[str], Fault]]] = {
    # The endpoints that can have a fault of the kind, and a function from its value to the fault.
    "status": (_ALL, lambda value: Fault(status=HTTPStatus(int(value)).value)),
    "latency": (_ALL, lambda value: Fault(latency=_seconds(value))),
    "cut": (_ALL, lambda value: Fault(cut_after=_natural(value))),
    "empty": (_ALL, lambda _: Fault(body=b"")),
    "garbage": (_ALL, lambda _: Fault(body=GARBAGE)),
    "records": (_STREAMS, lambda value: Fault(records=_natural(value))),
    "as-of": (_CALCULATED | {"utilization"}, lambda value: Fault(as_of=_seconds(value))),
    "redis-down": (_CALCULATED | {"chutes", "chute", "bounties"}, lambda _: Fault(redis_down=True)),
    "zero": (frozenset({"metrics", "utilization"}), lambda _: Fault(zeros=True)),
}


def parse_fault(text: str) -> tuple[str, Fault]:
    """Parse ``ENDPOINT=KIND`` or ``ENDPOINT=KIND:VALUE``.

    Raises:
        ValueError: The endpoint or the kind is unknown, or they do not fit together. The message has examples.
    """
    endpoint, _, fault = text.partition("=")
    kind, _, value = fault.partition(":")
    names = [known.name for known in (*ENDPOINTS, *ON_REQUEST)]
    if endpoint not in names:
        raise ValueError(
            f"--simulator.fault {text!r}: {endpoint!r} is not an endpoint. "
            f"Use {', '.join(names)}, for example {EXAMPLES}"
        )
    endpoints, make = _KINDS.get(kind, (frozenset(), None))
    try:
        if make is not None and endpoint in endpoints:
            return endpoint, make(value)
    except ValueError:
        pass
    raise ValueError(f"--simulator.fault {text!r} is invalid: write for example {EXAMPLES}")
