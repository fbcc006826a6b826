"""The answers that a fleet is joined from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.api.answer import Answer
from chutes_exporter.fleet.ends import NO_REPORTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.api import records as r
    from chutes_exporter.fleet.ends import Ledger
    from chutes_exporter.rules.launch import Demand

_MISSING: Final[Answer[Any]] = Answer((), doubt="missing")


@dataclass(frozen=True)
class FleetAnswers:
    """The answers about a miner and the platform. One that is missing has no record.

    ``demand`` and ``ledger`` are what the answers about the platform make together, which is found
    once for all miners.
    """

    hotkey: str
    demand: list[Demand] | None = None
    ledger: Ledger = NO_REPORTS
    servers: Answer[Sequence[r.Server]] = _MISSING
    nodes: Answer[Sequence[r.Node]] = _MISSING
    inventory: Answer[Sequence[r.InventoryItem]] = _MISSING
    instances: Answer[Sequence[r.Instance]] = _MISSING
    miner_gpus: Answer[Sequence[r.HeldGpu]] = _MISSING
    maintenance: Answer[r.MaintenancePolicy] = _MISSING
    measurements: Answer[Sequence[r.TeeMeasurement]] = _MISSING
    jobs: Answer[Sequence[r.Job]] = _MISSING
    metagraph: Answer[Sequence[r.MetagraphNode]] = _MISSING
    chutes: Answer[Sequence[r.Chute]] = _MISSING
    active_instances: Answer[Sequence[r.ActiveInstance]] = _MISSING
    utilization: Answer[Sequence[r.ChuteUtilization]] = _MISSING
    bounties: Answer[Sequence[r.Bounty]] = _MISSING
    held_gpus: Answer[Sequence[r.HeldGpu]] = _MISSING
    supported_gpus: Answer[Sequence[r.SupportedGpu]] = _MISSING

    @property
    def at(self) -> float:
        """The Unix time of the answer about the instances, 0 without one."""
        return self.instances.received_at

    @property
    def policy(self) -> r.MaintenancePolicy | None:
        """The maintenance policy."""
        return None if self.maintenance is _MISSING else self.maintenance.value

    @cached_property
    def steps(self) -> dict[str, r.MaintenanceServer]:
        """The servers of the policy. Of several records with the same id, the first counts."""
        servers = (self.policy and self.policy.servers) or ()
        return {server.server_id: server for server in reversed(servers)}

    @cached_property
    def seat(self) -> r.MetagraphNode | None:
        """The miner's seat, None if it has none or that is unknown."""
        return next((seat for seat in self.metagraph.value if seat.hotkey == self.hotkey), None)

    @cached_property
    def chutes_by_id(self) -> dict[str, r.Chute]:
        """The known chutes. Of several records with the same id, the first counts."""
        chutes: dict[str, r.Chute] = {}
        for chute in self.chutes.value:
            chutes.setdefault(chute.chute_id, chute)
        return chutes

    @cached_property
    def active_by_chute(self) -> dict[str | None, set[str]]:
        """The ids of the active instances of all miners, by the id of their chute.

        Instances of an unknown chute are under None.
        """
        instance_ids: dict[str | None, set[str]] = defaultdict(set)
        for instance in self.active_instances.value:
            instance_ids[instance.chute_id].add(instance.instance_id)
        return instance_ids

    @cached_property
    def runs_tee(self) -> bool:
        """Whether an instance of a TEE chute is active on the miner's servers, as the service asks
        before the launch of a private chute without TEE.
        """
        tee = {chute.chute_id for chute in self.chutes.value if chute.tee}
        return any(
            instance.miner_hotkey == self.hotkey and instance.chute_id in tee
            for instance in self.active_instances.value
        )

    @cached_property
    def rates(self) -> dict[str, float]:
        """The service's hourly rates of GPU models in US dollars, of those that have one."""
        # Rates are divided by each other, so one of 0 is as good as none.
        return {
            model.gpu: model.hourly_rate
            for model in self.supported_gpus.value
            if model.hourly_rate is not None and model.hourly_rate > 0
        }


def are_complete(*answers: Answer[Any]) -> bool:
    """Return whether all of these answers are known, and no record of them can be missing."""
    return all(answer.complete for answer in answers)
