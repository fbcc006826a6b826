"""The answers that a fleet is joined from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from msgspec import UNSET

from chutes_exporter.api import records as r
from chutes_exporter.api.answer import Answer
from chutes_exporter.fleet.ends import NO_REPORTS
from chutes_exporter.rules.instances import instance_state
from chutes_exporter.rules.jobs import is_stuck_with
from chutes_exporter.rules.maintenance import (
    UPGRADE_SECONDS,
    measured,
    version_accepted,
    window_is_open,
)
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.fleet.ends import Ledger
    from chutes_exporter.rules.launch import Demand
    from chutes_exporter.rules.maintenance import Measured

T = TypeVar("T")
_MISSING: Final[Answer[Any]] = Answer((), doubt="missing")
_NO_POLICY: Final[Answer[Any]] = Answer(None, doubt="missing")


Phase = Literal["none", "announced", "open", "over"]
"""What the newest maintenance window is at a time."""


@dataclass(frozen=True, slots=True)
class Window:
    """The newest maintenance window. Without values, it is unknown.

    Attributes:
        is_open: Whether servers can be upgraded now.
        target: The version to which they are upgraded.
        slots: Servers of the miner that may hold a slot at once.
        used_slots: Those that hold one.
        exists: Whether the service has a window. Otherwise, the rest is not known or false.
    """

    is_open: bool | None = None
    starts_at: float | None = None
    ends_at: float | None = None
    target: str | None = None
    slots: float | None = None
    used_slots: float | None = None
    exists: bool = True

    @property
    def last_request_at(self) -> float | None:
        """The last Unix time at which an upgrade can begin and is done before it ends."""
        return total([self.ends_at, -UPGRADE_SECONDS])

    def phase(self, now: float) -> Phase | None:
        """Return what it is at a Unix time, None if that is unknown."""
        if self.is_open:
            return "open"
        if not self.exists:
            return "none"
        if self.is_open is None or self.starts_at is None:
            return None
        return "announced" if self.starts_at > now else "over"


@dataclass(frozen=True, slots=True)
class StuckJob:
    """A job that the miner holds without an instance. ``chute`` is the name of its chute."""

    job_id: str
    chute: str | None
    created_at: float | None


# Not frozen, because its records are added one after another.
@dataclass(slots=True)
class ListedGpu:
    """What the records of a GPU say."""

    server_id: str | None = None
    model: str | None = None
    index: int | None = None
    is_verified: bool | None = None

    def add(self, record: r.Node | r.ServerGpu, server_id: str | None) -> None:
        """Add what a record says that no earlier one did, and the id of its server."""
        self.server_id = server_id
        self.model = self.model or record.gpu_identifier or None
        if self.is_verified is None and record.verified_at is not UNSET:
            self.is_verified = record.verified_at is not None


@dataclass(frozen=True)
class FleetAnswers:
    """The answers about a miner and the platform. One that is missing is empty, and in doubt.

    ``demand``, by the id of the chute, and ``ledger`` are what the answers about the platform make
    together, which is found once for all miners.
    """

    hotkey: str
    demand: Mapping[str | None, Demand] | None = None
    ledger: Ledger = NO_REPORTS
    servers: Answer[Sequence[r.Server]] = _MISSING
    nodes: Answer[Sequence[r.Node]] = _MISSING
    inventory: Answer[Sequence[r.InventoryItem]] = _MISSING
    instances: Answer[Sequence[r.Instance]] = _MISSING
    miner_gpus: Answer[Sequence[r.HeldGpu]] = _MISSING
    maintenance: Answer[r.MaintenancePolicy | None] = _NO_POLICY
    tee_measurements: Answer[Sequence[r.TeeMeasurement]] = _MISSING
    jobs: Answer[Sequence[r.Job]] = _MISSING
    metagraph: Answer[Sequence[r.MetagraphNode]] = _MISSING
    chutes: Answer[Sequence[r.Chute]] = _MISSING
    active_instances: Answer[Sequence[r.ActiveInstance]] = _MISSING
    utilization: Answer[Sequence[r.ChuteUtilization]] = _MISSING
    bounties: Answer[Sequence[r.Bounty]] = _MISSING
    held_gpus: Answer[Sequence[r.HeldGpu]] = _MISSING
    supported_gpus: Answer[Sequence[r.SupportedGpu]] = _MISSING

    @cached_property
    def window(self) -> Window:
        """The newest maintenance window."""
        policy = self.maintenance.value
        if policy is None:
            return Window()
        # In spite of its name, this window need not be open: it is the newest one.
        window = policy.active_window
        if window is None:
            return Window(is_open=False, exists=False)
        return Window(
            is_open=window_is_open(policy),
            starts_at=window.upgrade_window_start,
            ends_at=window.upgrade_window_end,
            target=window.target_measurement_version,
            slots=window.max_concurrent_per_miner,
            used_slots=policy.current_slots,
        )

    def boots(self, server: r.Server) -> bool | None:
        """Return whether the service accepts the version of a server at the next boot. None is
        unknown, also of a server that has never booted an image, or without TEE.
        """
        if not server.is_tee or not server.version or not self.tee_measurements.complete:
            return None
        return version_accepted(
            server.version, {one.version for one in self.tee_measurements.value}
        )

    def measured(self, models: Sequence[str] | None) -> Measured | None:
        """Return whether the service lists the target of the newest window for a server with GPUs
        of these models. None is unknown, or there is no target.
        """
        target = self.window.target
        if models is None or target is None or not self.tee_measurements.complete:
            return None
        return measured(target, models, self.tee_measurements.value)

    def maintenance_of(self, server: r.Server) -> r.MaintenanceServer:
        """Return what the maintenance policy says about a server, which may be unknown.

        It has all servers with TEE, and none of the others, which are never upgraded. Before the
        first window, it is empty, because there is no maintenance.
        """
        records = self.maintenance.value and self.maintenance.value.servers
        for record in records or ():
            if record.server_id == server.server_id:
                return record
        has_all = self.maintenance.complete and records is not None
        if has_all or server.is_tee is False:
            return r.MaintenanceServer(
                server.server_id, needs_upgrade=False, maintenance_status="none"
            )
        return r.MaintenanceServer(server.server_id)

    @cached_property
    def seat(self) -> r.MetagraphNode | None:
        """The miner's seat, None if it has none or that is unknown."""
        return next((seat for seat in self.metagraph.value if seat.hotkey == self.hotkey), None)

    @cached_property
    def chutes_by_id(self) -> Mapping[str | None, r.Chute]:
        """The known chutes."""
        return first_of_each(self.chutes.value, "chute_id")

    @cached_property
    def active_by_chute(self) -> defaultdict[str | None, set[str]]:
        """The ids of the active instances of all miners, by the id of their chute.

        Instances of an unknown chute are under None.
        """
        instance_ids: defaultdict[str | None, set[str]] = defaultdict(set)
        for instance in self.active_instances.value:
            instance_ids[instance.chute_id].add(instance.instance_id)
        return instance_ids

    def has_replacement(self, instance: r.Instance) -> bool | None:
        """Return whether another instance of the same chute is active, None if it is unknown."""
        if instance.chute_id is None or not self.active_instances.complete:
            return None
        if self.active_by_chute[instance.chute_id] - {instance.instance_id}:
            return True
        # Each of these may be one of the same chute.
        of_unknown_chute = self.active_by_chute[None] - {instance.instance_id}
        return None if of_unknown_chute else False

    def is_in_vain(self, instance: r.Instance) -> bool | None:
        """Return whether an instance starts, but the service would refuse its activation now."""
        state = instance_state(instance)
        if state in ("active", "disabled"):
            return False
        demand = (self.demand or {}).get(instance.chute_id)
        if state is None or demand is None:
            return None
        return demand.activation_is_refused

    @property
    def stuck_jobs(self) -> tuple[StuckJob, ...] | None:
        """The miner's stuck jobs, None while it is unknown of a job."""
        if not self.jobs.complete:
            return None
        stuck = []
        for job in self.jobs.value:
            is_stuck = is_stuck_with(job, self.hotkey)
            if is_stuck is None:
                return None
            if is_stuck:
                chute = self.chutes_by_id.get(job.chute_id)
                name = job.chute_id if chute is None else chute.name
                stuck.append(StuckJob(job.job_id, name, job.created_at))
        return tuple(stuck)

    @property
    def listed_gpus(self) -> defaultdict[str, ListedGpu]:
        """What the lists of nodes and of servers say of each GPU, by its id.

        If two servers seem to have a GPU, it is on the one that lists it.
        """
        gpus: defaultdict[str, ListedGpu] = defaultdict(ListedGpu)
        for node in self.nodes.value:
            gpus[node.uuid].add(node, node.server_id)
            gpus[node.uuid].index = node.device_index
        for server in self.servers.value:
            for record in server.gpus or ():
                gpus[record.uuid].add(record, server.server_id)
        return gpus

    @cached_property
    def hardware(self) -> set[tuple[bool, str]] | None:
        """The models on which chutes run, with TEE or without, None while that is unknown."""
        hardware: set[tuple[bool, str]] = set()
        for chute in self.chutes.value:
            selector = chute.node_selector
            if chute.tee is None or selector is None or selector.supported_gpus is None:
                return None
            hardware |= {(chute.tee, model) for model in selector.supported_gpus}
        return hardware if self.chutes.complete else None

    def runs_chutes(self, models: Sequence[str] | None, *, tee: bool | None) -> bool | None:
        """Return whether a chute runs on one of these models of GPUs, with TEE or without it. None
        is unknown.
        """
        if models is None or tee is None or self.hardware is None:
            return None
        return any((tee, model) in self.hardware for model in models)

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


def first_of_each(records: Iterable[T], *names: str) -> dict[Any, T]:
    """Return records by some of their fields. Of several with the same values, the first counts."""
    found: dict[Any, T] = {}
    key_of = attrgetter(*names)
    for record in records:
        found.setdefault(key_of(record), record)
    return found


def by_field(records: Iterable[T], name: str) -> defaultdict[Any, list[T]]:
    """Return lists of records by one of their fields."""
    found: defaultdict[Any, list[T]] = defaultdict(list)
    for record in records:
        found[getattr(record, name)].append(record)
    return found


def are_complete(*answers: Answer[Any]) -> bool:
    """Return whether all of these answers are known, and no record of them can be missing."""
    return all(answer.complete for answer in answers)


def only_value(values: Iterable[T | None]) -> T | None:
    """Return the value if all are equal, None otherwise, or if there is none."""
    distinct = set(values)
    if len(distinct) != 1:
        return None
    return distinct.pop()
