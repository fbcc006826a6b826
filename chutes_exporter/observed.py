"""What happened between two answers: counters for events that the API itself does not count.

The API says how things are, not what became of them. Comparing each good answer with the one before shows what
started, stopped and failed in between; what came and went unseen is not counted. Nothing is counted twice and nothing
false: a failed fetch brings no answer to compare, the first answer is only where counting starts, and a stream that
stopped early (which cannot be told from a short one) must not look like instances that stopped and started again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chutes_exporter.metric import Metric, Samples

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.api.records import Instance, Node

_MINER = ("hotkey",)
_INSTANCES = "GET /miner/instances/, from one good answer to the next"

INSTANCES_STARTED = Metric(
    "chutes_observed_instances_started_total",
    "Instances of the miner that were created while the exporter watched.",
    _MINER,
    f"{_INSTANCES}: instance_id that is new",
    kind="counter",
)
INSTANCES_STOPPED = Metric(
    "chutes_observed_instances_stopped_total",
    "Instances of the miner that ended while the exporter watched: gone from two answers in a row.",
    _MINER,
    f"{_INSTANCES}: instance_id that is gone",
    kind="counter",
)
INSTANCE_FAILURES = Metric(
    "chutes_observed_instance_verification_failures_total",
    "Verifications of the miner's instances that failed while the exporter watched; at least, as several "
    "between two answers may look like fewer.",
    _MINER,
    f"{_INSTANCES}: consecutive_failures that rise, verification_error that is new",
    kind="counter",
)
GPU_FAILURES = Metric(
    "chutes_observed_gpu_verification_failures_total",
    "Times that a GPU of the miner went from no verification error to one while the exporter watched.",
    _MINER,
    "GET /miner/nodes/, from one good answer to the next: verification_error that is new",
    kind="counter",
)
METRICS = (INSTANCES_STARTED, INSTANCES_STOPPED, INSTANCE_FAILURES, GPU_FAILURES)

_CLOCK_TOLERANCE = 600.0
"""Seconds that the service's clock may differ from ours: beyond that it refuses signatures, and nothing is seen."""
_MISSES_TO_STOP = 2
_MISSES_TO_FORGET = 100


@dataclass(slots=True)
class _Seen:
    """What the last answers said of an instance or a GPU."""

    failures: float = 0.0
    error: bool = False
    misses: int = 0


@dataclass(slots=True)
class _Watch:
    """One miner's answers from one endpoint.

    Attributes:
        since: Unix time of the first answer.
        seen: By id, those gone lately included.
    """

    since: float
    seen: dict[str, _Seen] = field(default_factory=dict)

    def miss(self, present: Iterable[str]) -> int:
        """Note who is absent; return how many are so for good since this answer."""
        gone = 0
        for key in self.seen.keys() - set(present):
            known = self.seen[key]
            known.misses += 1
            gone += known.misses == _MISSES_TO_STOP
            if known.misses > _MISSES_TO_FORGET:
                del self.seen[key]
        return gone


class Observations:
    """The events of all watched miners. Tell it of every good answer, in order."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Metric, str]] = Counter()
        self._instances: dict[str, _Watch] = {}
        self._gpus: dict[str, _Watch] = {}

    def see_instances(self, hotkey: str, instances: list[Instance], now: float) -> None:
        """Compare a miner's instances with those of the answer before.

        Args:
            hotkey: The miner.
            instances: The answer.
            now: Unix time of the answer.
        """
        first = hotkey not in self._instances
        watch = self._instances.setdefault(hotkey, _Watch(now))
        for instance in instances:
            failures, error = instance.consecutive_failures or 0.0, bool(instance.verification_error)
            known = watch.seen.get(instance.instance_id)
            if known is None:
                watch.seen[instance.instance_id] = _Seen(failures, error)
                created = instance.created_at
                # One that is older than the first answer was there already, and only missing from it.
                if not first and (created is None or created > watch.since - _CLOCK_TOLERANCE):
                    self._counts[INSTANCES_STARTED, hotkey] += 1
                    self._counts[INSTANCE_FAILURES, hotkey] += int(failures) or error
                continue
            if known.misses >= _MISSES_TO_STOP:
                # It was counted as stopped, and is here: it has started again.
                self._counts[INSTANCES_STARTED, hotkey] += 1
            risen = failures - known.failures if failures >= known.failures else failures
            self._counts[INSTANCE_FAILURES, hotkey] += int(risen) or (error and not known.error)
            known.failures, known.error, known.misses = failures, error, 0
        self._counts[INSTANCES_STOPPED, hotkey] += watch.miss(instance.instance_id for instance in instances)

    def see_gpus(self, hotkey: str, nodes: list[Node], now: float) -> None:
        """Compare a miner's GPUs with those of the answer before.

        Args:
            hotkey: The miner.
            nodes: The answer.
            now: Unix time of the answer.
        """
        watch = self._gpus.setdefault(hotkey, _Watch(now))
        for node in nodes:
            error = bool(node.verification_error)
            # One that is new with an error was never seen without.
            known = watch.seen.setdefault(node.uuid, _Seen(error=error))
            self._counts[GPU_FAILURES, hotkey] += error and not known.error
            known.error, known.misses = error, 0
        watch.miss(node.uuid for node in nodes)

    def collect(self, out: Samples) -> None:
        """Add what was counted, each with the time since which it was."""
        for watches, metrics in (
            (self._instances, (INSTANCES_STARTED, INSTANCES_STOPPED, INSTANCE_FAILURES)),
            (self._gpus, (GPU_FAILURES,)),
        ):
            for hotkey, watch in watches.items():
                for metric in metrics:
                    out.add(metric, self._counts[metric, hotkey], hotkey, created=watch.since)
