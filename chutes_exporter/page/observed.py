"""Counts events by comparing each good answer with the one before.

The API shows states, not events. Events that begin and end between two answers are not counted. The first answer is
only the start of counting. A list that ends early must not look like stopped and restarted instances.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from chutes_exporter.collectors.samples import Metrics
from chutes_exporter.feeds.table import ACTIVE_INSTANCES, INSTANCES, NODES

if TYPE_CHECKING:
    from collections.abc import Container

    from chutes_exporter.api.client import Answer
    from chutes_exporter.api.records import Instance, Node
    from chutes_exporter.collectors.samples import Metric, Samples
    from chutes_exporter.feeds.cache import FeedCache
    from chutes_exporter.feeds.feed import Feed

METRICS = Metrics()
_MINER = ("hotkey",)
_INSTANCES = "GET /miner/instances/, from one good answer to the next"

INSTANCES_STARTED = METRICS.counter(
    "chutes_observed_instances_started_total",
    "Instances of the miner that were created while the exporter watched.",
    _MINER,
    f"{_INSTANCES}: instance_id that is new",
    stability="experimental",
)
INSTANCES_STOPPED = METRICS.counter(
    "chutes_observed_instances_stopped_total",
    "Instances of the miner that ended while the exporter watched: missing from two answers in a row and from the "
    "platform's active instances.",
    _MINER,
    f"{_INSTANCES}: instance_id that is gone",
    stability="experimental",
)
GPU_FAILURES = METRICS.counter(
    "chutes_observed_gpu_verification_failures_total",
    "New verification errors on GPUs of the miner while the exporter watched.",
    _MINER,
    "GET /miner/nodes/, from one good answer to the next: verification_error that is new",
    stability="experimental",
)

_MAX_LISTING_DELAY = 60.0
"""Maximum seconds between an instance's creation and its first listing. A new id of an older instance was already there
before, and only missing from the last answer."""
_MISSES_TO_STOP = 2
_MISSES_TO_FORGET = 100


@dataclass(slots=True)
class _Seen:
    """State of an instance or a GPU according to the last answers."""

    error: bool = False
    misses: int = 0
    stopped: bool = False


@dataclass(slots=True)
class _Watch:
    """The answers of one endpoint for one miner.

    Attributes:
        since: Unix time of the first answer.
        last: Unix time of the newest answer, by the service's clock.
        seen: States by id, including recently missing ones.
    """

    since: float
    last: float = 0.0
    seen: dict[str, _Seen] = field(default_factory=dict)

    def absent(self, present: Container[str]) -> list[tuple[str, _Seen]]:
        """Count who is absent, forget who is absent for long, and return those absent from several answers in a row."""
        for state in (state for key, state in self.seen.items() if key not in present):
            state.misses += 1
        self.seen = {key: state for key, state in self.seen.items() if state.misses <= _MISSES_TO_FORGET}
        return [(key, state) for key, state in self.seen.items() if state.misses >= _MISSES_TO_STOP]


class Observations:
    """The events of all watched miners."""

    def __init__(self) -> None:
        self._versions: dict[Feed[Any], int] = {}
        """The version of the newest answer that was compared."""
        self._counts: Counter[tuple[Metric, str]] = Counter()
        self._instances: dict[str, _Watch] = {}
        self._gpus: dict[str, _Watch] = {}

    def compare(self, hotkey: str, feeds: FeedCache, clock_offset: float) -> None:
        """Compare the cached answers about a miner with those of the last call, if they are new.

        Args:
            hotkey: The miner.
            feeds: The cache.
            clock_offset: Seconds by which the local clock is ahead of the service's.
        """
        if (answer := self._new_answer(INSTANCES.of(hotkey), feeds)) is not None:
            active = feeds.peek(ACTIVE_INSTANCES)
            still_active = {instance.instance_id for instance in active.answer.value} if active is not None else set()
            self.see_instances(hotkey, answer.value, answer.received_at, still_active, clock_offset)
        if (answer := self._new_answer(NODES.of(hotkey), feeds)) is not None:
            self.see_gpus(hotkey, answer.value, answer.received_at)

    def _new_answer(self, feed: Feed[Any], feeds: FeedCache) -> Answer[Any] | None:
        snapshot = feeds.peek(feed)
        if snapshot is None or not snapshot.answer.whole or self._versions.get(feed) == snapshot.version:
            return None
        self._versions[feed] = snapshot.version
        return snapshot.answer

    def see_instances(
        self,
        hotkey: str,
        instances: list[Instance],
        now: float,
        still_active: Container[str] = (),
        clock_offset: float = 0.0,
    ) -> None:
        """Compare a miner's instances with those of the answer before.

        Args:
            hotkey: The miner.
            instances: The answer.
            now: Unix time of the answer.
            still_active: Ids of instances that are active according to another endpoint.
            clock_offset: Seconds by which the local clock is ahead of the service's.
        """
        first = hotkey not in self._instances
        watch = self._instances.setdefault(hotkey, _Watch(now))
        listed: dict[str, Instance] = {}
        for instance in instances:
            listed.setdefault(instance.instance_id, instance)
        for key, instance in listed.items():
            state = watch.seen.get(key)
            if state is None:
                state = watch.seen[key] = _Seen()
                created = instance.created_at
                if not first and created is not None and created > watch.last - _MAX_LISTING_DELAY:
                    self._counts[INSTANCES_STARTED, hotkey] += 1
            state.misses = 0
        for key, state in watch.absent(listed):
            if not state.stopped and key not in still_active:
                state.stopped = True
                self._counts[INSTANCES_STOPPED, hotkey] += 1
        watch.last = now - clock_offset

    def see_gpus(self, hotkey: str, nodes: list[Node], now: float) -> None:
        """Compare a miner's GPUs with those of the answer before.

        Args:
            hotkey: The miner.
            nodes: The answer.
            now: Unix time of the answer.
        """
        watch = self._gpus.setdefault(hotkey, _Watch(now))
        present = {node.uuid for node in nodes}
        for node in nodes:
            if node.verification_error is UNSET:
                continue
            error = bool(node.verification_error)
            # A new GPU that already has an error is not a new error.
            state = watch.seen.setdefault(node.uuid, _Seen(error=error))
            self._counts[GPU_FAILURES, hotkey] += error and not state.error
            state.error, state.misses = error, 0
        watch.absent(present)

    def forget(self, hotkey: str) -> None:
        """Forget a miner that is no longer watched."""
        self._instances.pop(hotkey, None)
        self._gpus.pop(hotkey, None)
        for feed in (INSTANCES, NODES):
            self._versions.pop(feed.of(hotkey), None)
        for metric in METRICS:
            self._counts.pop((metric, hotkey), None)

    def collect(self, out: Samples) -> None:
        """Add the counters with their start times."""
        for watches, metrics in (
            (self._instances, (INSTANCES_STARTED, INSTANCES_STOPPED)),
            (self._gpus, (GPU_FAILURES,)),
        ):
            for hotkey, watch in watches.items():
                for metric in metrics:
                    out.add(metric, self._counts[metric, hotkey], hotkey, created=watch.since)
