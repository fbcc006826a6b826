"""The model of a miner's fleet: servers, GPUs, instances, offers and what they earn.

In all classes, None is unknown, and a known absence is 0 or the empty text.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, get_args

from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.fleet.failures import Failures
from chutes_exporter.rules.launch import runs_on
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.fleet.ends import End
    from chutes_exporter.fleet.outages import Outage
    from chutes_exporter.rules.instances import DeadlineKind, InstanceState
    from chutes_exporter.rules.launch import LaunchRefusal
    from chutes_exporter.rules.maintenance import MaintenanceStatus, Measured
    from chutes_exporter.rules.money import Costs

GpuState = Literal["unverified", "idle", "starting", "disabled", "earning"]
"""State of a GPU: not verified and in no instance, verified and in no instance, or in an instance
that was never active, that its miner disabled, or that is active."""
GPU_STATES: Final[tuple[GpuState, ...]] = get_args(GpuState)

ServerState = Literal[
    "in_maintenance",  # Nothing runs, and launches are refused.
    "maintenance_pending",  # It must not be rebooted yet.
    "without_gpus",
    "unverified",  # A GPU is not verified.
    "idle",  # A GPU is in no instance.
    "starting",
    "disabled",
    "earning",  # All GPUs are in active instances.
]
"""State of a server: the first of these that applies."""
SERVER_STATES: Final[tuple[ServerState, ...]] = get_args(ServerState)

InstanceDecision = Literal[
    "slow",  # It has been starting for longer than an ordinary start takes.
    "in_vain",  # It starts, but the service would refuse its activation now.
    "disabled",
    "none",
]
"""What a miner has to decide about an instance: the first of these that applies."""
INSTANCE_DECISIONS: Final[tuple[InstanceDecision, ...]] = get_args(InstanceDecision)
SLOW_AFTER: Final = HOUR
"""Seconds after its creation from which a starting instance is slow. Most take 10 to 35 minutes."""

UPGRADE_DUE: Final = 12 * HOUR
"""Seconds before the end of a window in which nothing is launched on a server that waits for its
upgrade. One upgrade takes up to 4 hours, and a miner has few slots."""

LeftOut = Literal[
    "upgrade_slot",  # It holds an upgrade slot, so launches are refused.
    "upgrade_due",  # It waits for its upgrade, and the window ends soon.
    "starts_hang",  # What starts on it does not become active within an hour.
    "may_be_dead",  # Several instances ended there within minutes, by the reports.
    "use_not_known",  # Whether it has TEE, or whether one of these applies, is not known.
]
"""Why the plan launches nothing on a server: the first of these that applies."""

Phase = Literal["none", "announced", "open", "over"]
"""What the newest maintenance window is at a time."""

Topic = Literal["servers", "gpus", "instances", "pay", "reports"]
"""What a sum over the fleet, or a verdict on it, needs to know."""
TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)


_STATES_IN_SLOT: Final[Mapping[MaintenanceStatus | None, ServerState]] = {
    "pending": "maintenance_pending",
    "maintenance": "in_maintenance",
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of the miner.

    Attributes:
        server_id: Empty for one that the service registered without a server.
        index: Its number on the server.
        chute_id, chute, instance_id: The id and the name of the chute that runs on it, and of which
            instance it is. They are empty while it is in no instance.
    """

    gpu_id: str
    server_id: str | None
    model: str | None
    index: int | None
    state: GpuState | None
    chute_id: str | None
    chute: str | None
    instance_id: str | None


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance of the miner, in any state.

    Attributes:
        chute: The name of its chute.
        private: Whether a user is billed for it. Then it loses its score at any age if it ends.
        units_per_second: Compute units that it earns, if it is active or disabled.
        later_units_per_second: Those that it earns for certain from 8 hours after its activation
            on.
        deadlines: Unix times by kind, of those that it has.
        server_id, model, gpus: Its place. Empty and 0 for one that holds no GPU.
        has_replacement: Whether another one of its chute is active. Otherwise, maintenance waits
            for one.
        is_in_vain: Whether it starts, but the service would refuse its activation now.
    """

    instance_id: str
    chute_id: str | None
    chute: str | None
    private: bool | None
    state: InstanceState | None
    created_at: float | None
    units_per_second: float | None
    later_units_per_second: float | None
    deadlines: Mapping[DeadlineKind, float]
    server_id: str | None
    model: str | None
    gpus: int | None
    has_replacement: bool | None
    is_in_vain: bool | None

    def is_slow(self, now: float) -> bool | None:
        """Return whether it has been starting for longer than usual at a Unix time."""
        if self.state is None:
            return None
        if self.state != "starting":
            return False
        return None if self.created_at is None else now - self.created_at > SLOW_AFTER

    def units_at_risk(self, now: float) -> float | None:
        """Return the compute units of the past day that it loses if it ends at a Unix time without
        maintenance, None if they are unknown.

        This is an estimate, as if it had earned its present pay since its creation.
        """
        secured_at = self.deadlines.get("secured")
        is_secured = secured_at is not None and secured_at <= now
        if self.state == "starting" or is_secured:
            # A starting instance has no score to lose, and a secured one keeps it.
            return 0.0
        # A private one never keeps its score.
        may_be_secured = secured_at is None and not self.private
        if self.state is None or may_be_secured or self.created_at is None:
            return None
        age = min(max(0.0, now - self.created_at), DAY)
        return product(self.units_per_second, age)

    def hangs(self, now: float) -> bool | None:
        """Return whether it has been starting for over an hour at a Unix time, and not in vain."""
        is_slow = self.is_slow(now)
        if is_slow is False or self.is_in_vain is True:
            return False
        return None if is_slow is None or self.is_in_vain is None else True

    def decision(self, now: float) -> InstanceDecision | None:
        """Return what its miner has to decide about it at a Unix time, None while unknown."""
        if self.state == "active":
            return "none"
        if self.state != "starting":
            # It is disabled, or unknown.
            return self.state
        if self.is_in_vain:
            return "in_vain"
        is_slow = self.is_slow(now)
        if self.is_in_vain is None or is_slow is None:
            return None
        return "slow" if is_slow else "none"


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the miner.

    Attributes:
        version: That of its TEE image at the last boot.
        maintenance: Its status, None if it is unknown.
        holds_slot: Whether it holds an upgrade slot, so that launches are refused.
        boots: Whether the service accepts its version at the next boot. None also for a version of
            which no answer tells.
        needs_upgrade: Whether it is older than the target of the newest maintenance window.
        gpus: Its GPUs. Whether these are all is ``is_complete``.
        measured: Whether the service lists that target for hosts with its GPUs.
        runs_chutes: Whether a chute exists that runs on its GPUs, with TEE or without like it.
    """

    server_id: str
    name: str | None
    version: str | None
    tee: bool | None
    maintenance: MaintenanceStatus | None
    holds_slot: bool | None
    boots: bool | None
    needs_upgrade: bool | None
    gpus: tuple[Gpu, ...]
    instances: tuple[Instance, ...]
    is_complete: bool
    measured: Measured | None = None
    runs_chutes: bool | None = None

    @property
    def shown_name(self) -> str:
        """Its name, or its id if the name is unknown or empty."""
        return self.name or self.server_id

    @property
    def models(self) -> list[str] | None:
        """The models of its GPUs, None while one may be missing or of an unknown model."""
        models = {gpu.model or "" for gpu in self.gpus}
        return sorted(models) if self.is_complete and "" not in models else None

    @property
    def state(self) -> ServerState | None:
        """The first state that applies.

        None while its maintenance, or the model or the state of one of its GPUs is unknown.
        """
        if self.holds_slot is None or self.models is None:
            return None
        if self.holds_slot:
            return _STATES_IN_SLOT.get(self.maintenance)
        if not self.gpus:
            return "without_gpus"
        states = {gpu.state for gpu in self.gpus}
        if None in states:
            return None
        # The states that are left are those of GPUs, in the same order.
        return min(states, key=GPU_STATES.index)

    @property
    def _earning(self) -> list[Instance] | None:
        """Its instances that earn, also disabled ones, None while one of them may be unknown."""
        earning = [one for one in self.instances if one.state in ("active", "disabled")]
        return earning if self._hold_all(earning, "disabled", "earning") else None

    @property
    def earned_units_per_second(self) -> float | None:
        """The compute units per second that all its GPUs earn, None while a part is unknown."""
        earning = self._earning
        return None if earning is None else total(one.units_per_second for one in earning)

    @property
    def earning_instances(self) -> int | None:
        """The number of its instances that earn, None while one of them may be unknown."""
        earning = self._earning
        return None if earning is None else len(earning)

    def can_have_held(self, end: End, held: int) -> bool:
        """Return whether an instance that ended can have been on it: there are enough GPUs beside
        those of older instances that still exist, and those that others are known to have held
        then.
        """
        # An instance whose age is unknown may be newer.
        older_ids = [
            one.instance_id
            for one in self.instances
            if one.created_at and one.created_at < end.ended_at
        ]
        fitting = sum(
            runs_on(end.chute_record, gpu.model) is not False
            for gpu in self.gpus
            if gpu.instance_id not in older_ids
        )
        return not self.is_complete or fitting - held >= (end.gpus or 0)

    @property
    def usable_gpus(self) -> list[Gpu]:
        """Its GPUs that could earn and do not."""
        return self.gpus_in("idle", "starting")

    @property
    def is_silent(self) -> bool:
        """Whether certainly nothing earns on it, although it has usable GPUs."""
        return bool(self.usable_gpus) and self.holds_slot is False and self.earning_instances == 0

    def may_explain(self, ends: Iterable[End]) -> bool | None:
        """Return whether its death may explain some ends: these instances can have held at least
        half of its usable GPUs. None while it is unknown of a chute which GPUs it needs.
        """
        usable = self.usable_gpus
        size = 0
        for end in ends:
            runs = {runs_on(end.chute_record, gpu.model) for gpu in usable}
            if end.gpus is None or None in runs:
                return None
            if True not in runs:
                return False
            size += end.gpus
        return len(usable) / 2 <= size <= len(usable)

    @property
    def waits_for_upgrade(self) -> bool | None:
        """Whether it is older than the target of the newest window, and holds no slot."""
        if self.needs_upgrade is False or self.holds_slot is True:
            return False
        return None if None in (self.needs_upgrade, self.holds_slot) else True

    def upgrade_is_due(self, window: Window, now: float) -> bool | None:
        """Return whether it waits for its upgrade in an open window that ends soon, and may come
        back from it. None is unknown.
        """
        facts = (
            self.waits_for_upgrade,
            window.is_open,
            self.measured and self.measured != "not_measured",
            window.ends_at and window.ends_at - now < UPGRADE_DUE,
        )
        if False in facts:
            return False
        return None if None in facts else True

    def starts_hang(self, now: float) -> bool | None:
        """Return whether an instance has been starting on it for over an hour, not in vain, and
        none is active there. None is unknown.
        """
        states = {instance.state for instance in self.instances}
        if "active" in states or not self.gpus_in("starting"):
            return False
        hang = {one.hangs(now) for one in self.instances if one.state == "starting"}
        if True in hang:
            return True
        # The instance that holds the GPU may be unknown.
        return False if hang == {False} else None

    @property
    def cannot_come_back(self) -> bool:
        """Whether it certainly does not boot with the target of the newest window."""
        return self.needs_upgrade is True and self.measured == "not_measured"

    @property
    def known_idle_gpus(self) -> Counter[str]:
        """The number of its GPUs that are known to be idle, by model."""
        return Counter(gpu.model for gpu in self.gpus_in("idle") if gpu.model)

    @property
    def unused_gpus(self) -> int | None:
        """The number of its GPUs in no instance, verified or not, None while that is unknown."""
        return self.count_in("idle", "unverified")

    def gpus_in(self, *states: GpuState) -> list[Gpu]:
        """Return its GPUs that are known to be in one of these states."""
        return [gpu for gpu in self.gpus if gpu.state in states]

    def count_in(self, *states: GpuState) -> int | None:
        """Return the number of its GPUs in these states.

        None while one may be missing, or the model or the state of one is unknown.
        """
        if self.models is None or any(gpu.state is None for gpu in self.gpus):
            return None
        return len(self.gpus_in(*states))

    @property
    def last_instances(self) -> int | None:
        """The number of its instances that its maintenance waits for: no other one of their chute
        is active.

        None while that is unknown of one, or one of them may be unknown.
        """
        instances = self.known_instances
        if instances is None or any(instance.has_replacement is None for instance in instances):
            return None
        return sum(instance.has_replacement is False for instance in instances)

    @property
    def known_instances(self) -> tuple[Instance, ...] | None:
        """Its instances in any state, None while one of them may be unknown."""
        are_all = self._hold_all(self.instances, "starting", "disabled", "earning")
        return self.instances if are_all else None

    def lost_by_reboot(self, now: float) -> float | None:
        """Return about how many compute units of the past day the score would lose if it was
        rebooted now, None while that is unknown.

        It is unknown of a server that may not come back: a reboot can lose the server.
        """
        instances = self.known_instances
        comes_back = self.needs_upgrade is False or self.measured == "measured"
        if instances is None or not comes_back or self.boots is False:
            return None
        return total(one.units_at_risk(now) for one in instances)

    def _hold_all(self, instances: Iterable[Instance], *states: GpuState) -> bool:
        """Return whether instances certainly hold all its GPUs in these states."""
        return self.count_in(*states) == sum(one.gpus or 0 for one in instances)


@dataclass(frozen=True, slots=True)
class Offer:
    """A chute that the service lets the miner launch now on a GPU model.

    Attributes:
        chute: Its name.
        size: GPUs of an instance.
        room_now: Instances that may still become active.
        room_after_starting: The room less the launches of all miners that are under way and would
            take it.
        starting: Starting instances of all miners.
        first_day_units: Compute units of an instance in its first day.
        later_units_per_second: What it earns for certain from 8 hours after its activation on.
        hanging: Instances of it that have been starting on the miner's servers for over an hour.
        urgency_boost: The factor in the first pay that lasts while the chute wants more instances.
        bounty_boost: The factor of an open bounty in the first pay, None without one.
        bounty_expires_at: Unix time.
    """

    model: str
    tee: bool
    chute_id: str
    chute: str | None
    private: bool
    size: int
    room_now: float
    room_after_starting: int
    starting: float | None
    first_day_units: float
    later_units_per_second: float
    urgency_boost: float
    hanging: int
    bounty_boost: float | None
    bounty_expires_at: float | None

    @property
    def first_day_units_per_gpu_second(self) -> float:
        """What one of its GPUs earns per second, on average of the first day."""
        return self.first_day_units / DAY / self.size

    @property
    def rank(self) -> tuple[float, str]:
        """What sorts offers: by the first day's pay of a GPU, the best one first."""
        return -self.first_day_units / self.size, self.chute_id


@dataclass(frozen=True, slots=True)
class Launch:
    """A number of instances of an offer."""

    offer: Offer
    instances: int

    @property
    def gpus(self) -> int:
        """GPUs that they take."""
        return self.instances * self.offer.size

    @property
    def first_day_units(self) -> float:
        """Compute units of their first day."""
        return self.instances * self.offer.first_day_units

    @property
    def later_units_per_second(self) -> float:
        """Compute units per second from 8 hours after their activation on."""
        return self.instances * self.offer.later_units_per_second


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """The best use of the idle GPUs of a model on a server that can be used.

    Attributes:
        free: The idle GPUs.
        launches: What to launch on them, so that the units of the first day are the most. Each room
            of a chute is given to one server only.
        may_be_more: Whether more is possible, because it is unknown of a chute whether it can be
            launched.
    """

    server_id: str
    model: str
    free: int
    launches: tuple[Launch, ...]
    may_be_more: bool

    @property
    def used(self) -> int:
        """GPUs that the launches take."""
        return sum(launch.gpus for launch in self.launches)

    @property
    def first_day_units(self) -> float | None:
        """Compute units of the first day.

        None if the launches pay nothing, and it is unknown whether others could pay something.
        """
        units = sum(launch.first_day_units for launch in self.launches)
        return None if self.may_be_more and not units else units

    @property
    def later_units_per_second(self) -> float:
        """Compute units per second from 8 hours after the activations on."""
        return sum(launch.later_units_per_second for launch in self.launches)


@dataclass(frozen=True, slots=True)
class Market:
    """What a miner can launch on the idle GPUs of a model.

    Attributes:
        offers: The best paid in the first day first. Those without room left come last, and so do
            those that hang on the miner's servers.
        refused: The number of other chutes that run on the model, by reason.
    """

    model: str
    offers: tuple[Offer, ...]
    refused: Mapping[LaunchRefusal, int]


@dataclass(frozen=True, slots=True)
class Window:
    """The newest maintenance window.

    Attributes:
        is_open: Whether servers can be upgraded now.
        target: The version to which they are upgraded.
        slots: Servers of the miner that may hold a slot at once.
        used_slots: Those that hold one.
        exists: Whether the service has a window. Otherwise, the rest is not known or false.
    """

    is_open: bool | None
    starts_at: float | None = None
    ends_at: float | None = None
    target: str | None = None
    slots: float | None = None
    used_slots: float | None = None
    exists: bool = True

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


@dataclass(frozen=True)
class Fleet:
    """A miner's fleet at one moment.

    Attributes:
        registered, blacklisted: Its seat.
        gpus: All GPUs, also those without a server.
        markets: What it can launch, for each model of its idle GPUs. None while it is unknown.
        left_out: Why nothing is launched on a server, by the server's id, for those left out.
        plans: The best use of its idle GPUs, one for each server and model.
        stuck_jobs: Jobs that it holds without an instance. None if they are unknown.
        window: None if it is unknown.
        failures: What failed in the 6 hours before the newest audit report.
        outages: Servers that probably died in these hours.
        known: Whether all of a topic is known, so that a sum over the fleet means all of it.
    """

    hotkey: str
    registered: bool | None = None
    blacklisted: bool | None = None
    servers: tuple[Server, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    instances: tuple[Instance, ...] = ()
    markets: tuple[Market, ...] | None = None
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)
    plans: tuple[ServerPlan, ...] = ()
    stuck_jobs: tuple[StuckJob, ...] | None = None
    window: Window | None = None
    failures: Failures = field(default_factory=Failures)
    outages: tuple[Outage, ...] = ()
    known: Mapping[Topic, bool] = field(default_factory=dict)

    def servers_of(self, end: End) -> list[Server]:
        """Return the servers on which an instance that ended can have been. No report names it."""
        # GPUs that others held when it ended, on servers that died later.
        held: Counter[str] = Counter()
        for outage in self.outages:
            if end in outage.ends:
                return [*outage.servers]
            if len(outage.servers) == 1:
                held[outage.servers[0].server_id] += outage.gpus_at(end.ended_at)
        return [one for one in self.servers if one.can_have_held(end, held[one.server_id])]

    def suspects(self, ends: Iterable[End]) -> list[str]:
        """Return the names of the servers on which each of these failures can have been.

        The list is empty if that says nothing, because they can have been on all servers.
        """
        suspects = [*self.servers]
        for end in ends:
            of_end = self.servers_of(end)
            suspects = [server for server in suspects if server in of_end]
        if len(suspects) == len(self.servers):
            return []
        return sorted(server.shown_name for server in suspects)

    @property
    def suspected_servers(self) -> set[str]:
        """The names of the servers that may be at fault for failures."""
        failures = self.failures
        groups = [failures.of_main_reason(chute_id) for chute_id in failures.failing]
        if failures.silent:
            groups.append([*failures.silent])
        return {name for ends in groups for name in self.suspects(ends)}

    @cached_property
    def servers_by_id(self) -> dict[str, Server]:
        """Its servers by their ids."""
        return {server.server_id: server for server in self.servers}

    def plans_of(self, server: Server) -> list[ServerPlan]:
        """Return the best uses of the idle GPUs of a server, one for each model."""
        return [plan for plan in self.plans if plan.server_id == server.server_id]

    def idle_units_per_second(self, server: Server) -> float | None:
        """Return the compute units per second that the idle GPUs of a server would earn in their
        best use, on average of the first day, None if that is unknown.

        It is 0 if all its GPUs are in instances, if no chute runs on them, and while nothing should
        be launched on the server. It is None for a server with unverified GPUs but no idle ones,
        because what the unverified ones would earn is unknown.
        """
        idle_gpus = server.count_in("idle")
        if None in (idle_gpus, server.holds_slot):
            return None
        if not idle_gpus:
            return None if server.unused_gpus else 0.0
        reason = self.left_out.get(server.server_id)
        if server.runs_chutes is False or reason not in (None, "use_not_known"):
            return 0.0
        plans = self.plans_of(server)
        # A model has no plan while it is unknown what can be launched, or whether the server has
        # TEE.
        if len(plans) < len(server.known_idle_gpus):
            return None
        return product(total(plan.first_day_units for plan in plans), 1 / DAY)

    @property
    def idle_units_of_all(self) -> float | None:
        """The units per second that all idle GPUs would earn, on average of the first day.

        GPUs without a server are left out, because nobody can use them. None while the pay of a
        server with idle GPUs is unknown, or if no server with GPUs has a known pay.
        """
        pays: dict[str | None, float | None] = {}
        for server in self.servers:
            if server.gpus:
                pays[server.server_id] = self.idle_units_per_second(server)
        if not self.known.get("gpus") or {*pays.values()} <= {None}:
            return None
        # The servers come from the GPUs, because the list of servers may lack the newest one. The
        # pay of its idle GPUs is unknown.
        idle_ids = {gpu.server_id for gpu in self.gpus if gpu.state == "idle"} - {"", None}
        return total(pays.get(server_id) for server_id in idle_ids)

    def price_of(self, gpu: Gpu, costs: Costs) -> float | None:
        """Return what the miner pays for a GPU in US dollars an hour, None if it is unknown."""
        server = self.servers_by_id.get(gpu.server_id or "")
        return costs.of_gpu(None if server is None else server.name, gpu.model)
