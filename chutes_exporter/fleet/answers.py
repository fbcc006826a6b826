"""The answers that a fleet is joined from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.api import records as r
    from chutes_exporter.fleet.offers import Demand

T = TypeVar("T")


@dataclass(frozen=True)
class Listed(Generic[T]):
    """The records of an answer, and whether none can be missing."""

    records: Sequence[T]
    complete: bool


def records_of(answer: Listed[T] | None) -> Sequence[T]:
    """Return the records of an answer, none if it is missing."""
    return () if answer is None else answer.records


@dataclass(frozen=True)
class FleetAnswers:
    """The answers about a miner and the platform. None is one that is missing.

    ``at`` is the Unix time of the answer about its instances. ``demand`` is what the answers about
    the platform make together, which is found once for all miners.
    """

    hotkey: str
    at: float = 0.0
    servers: Listed[r.Server] | None = None
    nodes: Listed[r.Node] | None = None
    inventory: Listed[r.InventoryItem] | None = None
    instances: Listed[r.Instance] | None = None
    miner_gpus: Listed[r.HeldGpu] | None = None
    maintenance: Listed[r.MaintenancePolicy] | None = None
    measurements: Listed[r.TeeMeasurement] | None = None
    jobs: Listed[r.Job] | None = None
    metagraph: Listed[r.MetagraphNode] | None = None
    chutes: Listed[r.Chute] | None = None
    active_instances: Listed[r.ActiveInstance] | None = None
    utilization: Listed[r.ChuteUtilization] | None = None
    bounties: Listed[r.Bounty] | None = None
    held_gpus: Listed[r.HeldGpu] | None = None
    supported_gpus: Listed[r.SupportedGpu] | None = None
    demand: list[Demand] | None = None

    @property
    def policy(self) -> r.MaintenancePolicy | None:
        """The maintenance policy."""
        return self.maintenance.records[0] if self.maintenance else None

    @cached_property
    def steps(self) -> dict[str, r.MaintenanceServer]:
        """What the maintenance policy says about each server, by the server's id.

        Of several records of a server, the first counts. Without a policy, it is empty.
        """
        steps: dict[str, r.MaintenanceServer] = {}
        if self.policy is not None:
            for step in self.policy.servers or ():
                steps.setdefault(step.server_id, step)
        return steps

    @cached_property
    def seat(self) -> r.MetagraphNode | None:
        """The miner's seat, None if it has none or that is unknown."""
        seats = records_of(self.metagraph)
        return next((seat for seat in seats if seat.hotkey == self.hotkey), None)

    @cached_property
    def chutes_by_id(self) -> dict[str, r.Chute]:
        """The known chutes. Of several records with the same id, the first counts."""
        chutes: dict[str, r.Chute] = {}
        for chute in records_of(self.chutes):
            chutes.setdefault(chute.chute_id, chute)
        return chutes

    @cached_property
    def active_by_chute(self) -> dict[str | None, set[str]]:
        """The ids of the active instances of all miners, by the id of their chute.

        Instances of an unknown chute are under None.
        """
        instance_ids: dict[str | None, set[str]] = defaultdict(set)
        for instance in records_of(self.active_instances):
            instance_ids[instance.chute_id].add(instance.instance_id)
        return instance_ids

    @cached_property
    def rates(self) -> dict[str, float]:
        """The service's hourly rates of GPU models in US dollars, of those that have one."""
        rates: dict[str, float] = {}
        for model in records_of(self.supported_gpus):
            # Rates are divided by each other, so one of 0 is as good as none.
            if model.hourly_rate is not None and model.hourly_rate > 0:
                rates[model.gpu] = model.hourly_rate
        return rates


def are_complete(*answers: Listed[Any] | None) -> bool:
    """Return whether all of these answers are known, and no record of them can be missing."""
    return all(answer is not None and answer.complete for answer in answers)
