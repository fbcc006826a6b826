"""Feeds and kept answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from chutes_exporter.api.endpoint import Endpoint
from chutes_exporter.api.errors import ApiError

if TYPE_CHECKING:
    from typing import Self

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.feeds.sanity_checks import Checks

T = TypeVar("T")

THE_PLATFORM: Final = ""
"""Takes the place of a hotkey where something is about the whole platform."""


class MissingEndpointError(ApiError):
    """The deployment does not have the endpoint of an optional feed.

    It may get it with an update.
    """

    reason = "missing"
    advice = "This is no failure. The exporter asks again every hour, and after a reload."


@dataclass(frozen=True, eq=False, kw_only=True)
class Feed(Endpoint[T]):
    """An endpoint whose answer the exporter caches. Feeds with one name and hotkey are equal.

    Attributes:
        ttl: Seconds for which an answer is fresh.
        max_age: Seconds after which an answer is dropped.
        hotkey: The miner of the answer, or :data:`THE_PLATFORM`.
        empty_if_404: Whether a 404 means an empty list. Otherwise, it is an error.
        optional: Whether a deployment can lack the endpoint. A 404 then switches the feed off.
        checks: Possible reasons to doubt an answer, each with the check that finds it.
        evidence: Feeds that the checks compare the answer with.
        in_background: Whether readers get the last answer while a newer one is requested, because
            that takes seconds.
    """

    ttl: float = 115.0
    max_age: float = 900.0
    hotkey: str = THE_PLATFORM
    empty_if_404: bool = False
    optional: bool = False
    checks: Checks = field(default_factory=dict)
    evidence: tuple[Feed[Any], ...] = ()
    in_background: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Feed) and (self.name, self.hotkey) == (other.name, other.hotkey)

    def __hash__(self) -> int:
        return hash((self.name, self.hotkey))

    def of(self, hotkey: str) -> Self:
        """Return the feed of one miner, or the same one if it is about the platform."""
        if self.scope == "platform":
            return self
        evidence = tuple(feed.of(hotkey) for feed in self.evidence)
        return replace(self, hotkey=hotkey, evidence=evidence)


@dataclass(frozen=True, slots=True)
class KeptAnswer(Generic[T]):
    """An answer that the cache keeps.

    Attributes:
        version: A unique number, as a cache key for derived data.
        drop_at: Time of the cache's monotonic clock at which the answer is dropped.
    """

    answer: Answer[T]
    version: int
    drop_at: float
