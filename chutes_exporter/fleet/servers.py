"""The servers of a miner, with their GPUs, instances and maintenance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec import UNSET

from chutes_exporter.duration import HOUR
from chutes_exporter.fleet.answers import are_complete, by_field, first_of_each
from chutes_exporter.fleet.gpus import GPU_STATES, Gpu
from chutes_exporter.rules.launch import runs_on
from chutes_exporter.rules.maintenance import holds_slot, maintenance_status
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.fleet.answers import FleetAnswers, Window
    from chutes_exporter.fleet.ends import End
    from chutes_exporter.fleet.gpus import GpuState
    from chutes_exporter.fleet.instances import Instance
    from chutes_exporter.rules.maintenance import MaintenanceStatus, Measured

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
_STATES_IN_SLOT: Final[Mapping[MaintenanceStatus | None, ServerState]] = {
    "pending": "maintenance_pending",
    "maintenance": "in_maintenance",
}

UPGRADE_DUE: Final = 12 * HOUR
"""Seconds before the end of a window in which nothing is launched on a server that waits for its
upgrade. One upgrade takes up to 4 hours, and a miner has few slots."""


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
        if not self.is_complete or "" in models:
            return None
        return sorted(models)

    @property
    def state(self) -> ServerState | None:
        """The first state that applies.

        None while its maintenance, or the model or the state of one of its GPUs is unknown.
        """
        if self.holds_slot is None or self.models is None:
            return None
        if self.holds_slot:
            return _STATES_IN_SLOT.get(self.maintenance)
        states = {gpu.state for gpu in self.gpus}
        if None in states:
            return None
        # The states that are left are those of GPUs, in the same order.
        return min(states, key=GPU_STATES.index, default="without_gpus")

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
    def earns_nothing(self) -> bool:
        """Whether certainly nothing earns on it, although it has GPUs that could earn."""
        is_usable = bool(self.gpus_in("idle", "starting")) and self.holds_slot is False
        return is_usable and self.earning_instances == 0

    def may_explain(self, ends: Iterable[End]) -> bool | None:
        """Return whether its death may explain some ends: these instances can have held at least
        half of its GPUs that could earn. None while it is unknown of a chute which GPUs it needs.
        """
        usable = self.gpus_in("idle", "starting")
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
        if None in (self.needs_upgrade, self.holds_slot):
            return None
        return True

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
        if None in facts:
            return None
        return True

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
    def is_down(self) -> bool:
        """Whether it is in maintenance, and certainly nothing runs on it."""
        if self.maintenance != "maintenance":
            return False
        return self.earning_instances == 0 and not self.instances

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

    def gpus_in(self, *states: GpuState | None) -> list[Gpu]:
        """Return its GPUs that are known to be in one of these states. None is unknown."""
        return [gpu for gpu in self.gpus if gpu.state in states]

    def count_in(self, *states: GpuState) -> int | None:
        """Return the number of its GPUs in these states.

        None while one may be missing, or the model or the state of one is unknown.
        """
        if self.models is None or self.gpus_in(None):
            return None
        return len(self.gpus_in(*states))

    @property
    def last_instances(self) -> int | None:
        """The number of its instances that its maintenance waits for: no other one of their chute
        is active.

        None while that is unknown of one, or one of them may be unknown.
        """
        instances = self.known_instances
        replaced = [instance.has_replacement for instance in instances or ()]
        if instances is None or None in replaced:
            return None
        return replaced.count(False)

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


def find_servers(
    answers: FleetAnswers, gpus: Iterable[Gpu], instances: Iterable[Instance]
) -> tuple[Server, ...]:
    """Return all servers, with the GPUs and the instances that are on them."""
    gpus_by_server = by_field(gpus, "server_id")
    instances_by_server = by_field(instances, "server_id")
    servers = []
    for server_id, record in first_of_each(answers.servers.value, "server_id").items():
        maintenance = answers.maintenance_of(record)
        status = maintenance_status(maintenance)
        has_slot = holds_slot(record, status)
        server = Server(
            server_id=server_id,
            name=record.name or None,
            # None is a server that has never booted an image.
            version=None if record.version is UNSET else record.version or "",
            tee=record.is_tee,
            # If the policy does not know of the slot, the status is unknown.
            maintenance=None if has_slot and status == "none" else status,
            holds_slot=has_slot,
            boots=answers.boots(record),
            needs_upgrade=maintenance.needs_upgrade,
            gpus=tuple(gpus_by_server[server_id]),
            instances=tuple(instances_by_server[server_id]),
            is_complete=are_complete(answers.servers, answers.nodes) and record.gpus is not None,
        )
        models = None
        if server.models is not None:
            models = [gpu.model or "" for gpu in server.gpus]
        runs_chutes = answers.runs_chutes(models, tee=server.tee)
        server = replace(server, measured=answers.measured(models), runs_chutes=runs_chutes)
        servers.append(server)
    return tuple(servers)
