"""Misbehaviour on demand: what can go wrong with an endpoint, and how to say so."""

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
    """How an endpoint misbehaves.

    Attributes:
        latency: Seconds to wait before anything is answered.
        status: Answer with this status instead.
        headers: Headers to add.
        body: Answer with this body instead (``b""``: an empty 200).
        cut_after: Cut the connection after so many bytes of the body.
        records: End a stream cleanly after so many records, as a query does that fails halfway.
        redis_down: Whatever the service keeps in Redis is missing: bounties are null or none, there is no history,
            scores are 503, and stats are worked out there and then.
        as_of: The program that calculates stats, scores and histories, or the autoscaler, has stopped at this Unix
            time: its last answers stay for ever.
        zeros: The Prometheus behind the demand for chutes is down: all that it knows is 0.
        times: After so many requests all is well again; None for ever.
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
    # The endpoints that a kind makes sense for, and what it means.
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
    """Read ``ENDPOINT=KIND`` or ``ENDPOINT=KIND:VALUE``.

    Raises:
        ValueError: The text says nothing that is known, or the endpoint has no such fault; the message has examples.
    """
    endpoint, _, fault = text.partition("=")
    kind, _, value = fault.partition(":")
    names = [known.name for known in (*ENDPOINTS, *ON_REQUEST)]
    if endpoint not in names:
        raise ValueError(f"{endpoint!r} is no endpoint; there are {', '.join(names)}: write one like {EXAMPLES}")
    endpoints, make = _KINDS.get(kind, (frozenset(), None))
    try:
        if make is not None and endpoint in endpoints:
            return endpoint, make(value)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is no fault of an endpoint: write one like {EXAMPLES}")
