"""The instances of a miner, with their places and what they earn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.fleet.answers import are_complete, by_field, first_of_each, only_value
from chutes_exporter.rules.instances import deadlines_of, instance_state, is_private
from chutes_exporter.rules.money import later_units_per_second
from chutes_exporter.rules.sums import product

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.gpus import Gpu
    from chutes_exporter.rules.instances import DeadlineKind, InstanceState

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
        if self.state not in ("starting", None):
            return False
        if self.state is None or self.created_at is None:
            return None
        return now - self.created_at > SLOW_AFTER

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
        if None in (is_slow, self.is_in_vain):
            return None
        return True

    def decision(self, now: float) -> InstanceDecision | None:
        """Return what its miner has to decide about it at a Unix time, None while unknown."""
        if self.state != "starting":
            return "none" if self.state == "active" else self.state
        if self.is_in_vain:
            return "in_vain"
        is_slow = self.is_slow(now)
        if None in (self.is_in_vain, is_slow):
            return None
        return "slow" if is_slow else "none"


_GpuPlace = tuple["str | None", "str | None"]
"""The id of the server of a GPU, and its model."""


# Not frozen, because it takes less time to make a thousand.
@dataclass(slots=True)
class Place:
    """Where an instance is. All of it is None if that is unknown."""

    server_id: str | None = None
    model: str | None = None
    gpus: int | None = None


def find_places(answers: FleetAnswers, gpus: Iterable[Gpu]) -> dict[str, Place]:
    """Return where each instance is, by its id.

    The list of held GPUs names the instance of each. Without it, the inventory tells the place.
    """
    places_of_gpus = _places_by_inventory(answers, gpus)
    if answers.miner_gpus.complete:
        for instance_id, held in by_field(answers.miner_gpus.value, "instance_id").items():
            places_of_gpus[instance_id] = [(gpu.server_id, gpu.gpu) for gpu in held]
    places = {}
    for instance in answers.instances.value:
        of_instance = places_of_gpus.get(instance.instance_id, ())
        # It is unknown unless all GPUs are on one known server and of one known model.
        server_id, model = only_value(of_instance) or (None, None)
        place = Place(server_id, model, len(of_instance) if server_id else 0)
        places[instance.instance_id] = Place() if None in (server_id, model) else place
    return places


def _places_by_inventory(answers: FleetAnswers, gpus: Iterable[Gpu]) -> dict[str, list[_GpuPlace]]:
    """Return the places of an instance's GPUs, by its id, as the inventory tells them.

    An instance is left out if a GPU whose instance is unknown may be its own: that GPU is of the
    same chute, or the chute of one of the two is unknown. One without any GPU, because they were
    deleted, has a single empty place.
    """
    held = by_field(gpus, "instance_id")
    uncertain_chutes = {gpu.chute_id for gpu in held[None]}
    if None in uncertain_chutes or not are_complete(answers.inventory, answers.instances):
        return {}
    places: dict[str, list[_GpuPlace]] = {}
    for instance in answers.instances.value:
        may_be_any = instance.chute_id is None and uncertain_chutes
        if not may_be_any and instance.chute_id not in uncertain_chutes:
            of_instance = [(gpu.server_id, gpu.model) for gpu in held[instance.instance_id]]
            places[instance.instance_id] = of_instance or [("", "")]
    return places


def find_instances(answers: FleetAnswers, gpus: Iterable[Gpu]) -> tuple[Instance, ...]:
    """Return all instances, with their places."""
    names = {chute_id: chute.name for chute_id, chute in answers.chutes_by_id.items()}
    # The inventory also names private chutes, which the list of chutes may lack.
    for item in answers.inventory.value:
        if item.chute_id and item.chute_name:
            names[item.chute_id] = item.chute_name
    places = find_places(answers, gpus)
    instances = []
    for record in first_of_each(answers.instances.value, "instance_id").values():
        chute, place = answers.chutes_by_id.get(record.chute_id), places[record.instance_id]
        instance = Instance(
            instance_id=record.instance_id,
            chute_id=record.chute_id,
            chute=names.get(record.chute_id) or None,
            private=is_private(record),
            state=instance_state(record),
            created_at=record.created_at,
            units_per_second=record.compute_multiplier,
            later_units_per_second=later_units_per_second(chute, place.model, answers.rates),
            deadlines=deadlines_of(record),
            server_id=place.server_id,
            model=place.model,
            gpus=place.gpus,
            has_replacement=answers.has_replacement(record),
            is_in_vain=answers.is_in_vain(record),
        )
        instances.append(instance)
    return tuple(instances)
