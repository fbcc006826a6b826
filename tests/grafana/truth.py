"""What is true of a world, worked out from the JSON of the simulated API without any code of the
package.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support import NOON as END

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Row = dict[str, Any]
HOUR = 3600
DAY = 24 * HOUR
GPU_STATES = ("unverified", "idle", "starting", "disabled", "earning")
"""States of a GPU; their places are the numbers that stand for them."""
REASONS = {
    "miner initialized": "miner",
    "max failures reached": "requests",
    "autoscaler - instance failed to verify": "not_active_in_time",
    "autoscaler - downscale adjustment": "scale_down",
    "Rolling update": "update",
    "user-defined/private chute instance has not been used": "idle",
    "maintenance - ": "maintenance",
}
"""The reason by the beginning of the service's text."""
FAILURES = {"miner", "requests", "not_active_in_time"}
"""Reasons that are failures of an instance or its miner. The others are planned ends."""
PRIVATE = {"private", "private_tee", "integrated_subnet"}
"""Factors of the pay of a chute that follows the rules of private ones."""


def seconds(text: str) -> float:
    """Return the Unix time of a text; without an offset, it is UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def instance_state(instance: Row) -> str:
    """Return the state of an instance. A disabled one was active before."""
    if instance["active"]:
        return "active"
    return "disabled" if instance["activated_at"] else "starting"


def holders(item: Row, api: Mapping[str, Any]) -> list[Row]:
    """Return the instances to which an item of the inventory may belong.

    The inventory has no ids of instances, so that several may be alike.
    """
    common = itemgetter("chute_id", "active", "last_verified_at")
    return [instance for instance in api["instances"] if common(instance) == common(item)]


def gpu_state(gpu: Row, api: Mapping[str, Any]) -> str:
    """Return the state of a GPU."""
    for item in api["inventory"]:
        if item["gpu_id"] == gpu["uuid"]:
            # Instances that are alike have one state.
            (state,) = {instance_state(instance) for instance in holders(item, api)}
            return "earning" if state == "active" else state
    return "idle" if gpu["verified_at"] else "unverified"


def is_earning(gpu: Row, api: Mapping[str, Any]) -> bool:
    """Return whether a GPU earns. One of a disabled instance does, too."""
    return gpu_state(gpu, api) in ("earning", "disabled")


def places(api: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the server and the model of each instance that an item of the inventory names."""
    gpus = {gpu["uuid"]: gpu for gpu in api["nodes"]}
    place_of_instance = {}
    for item in api["inventory"]:
        gpu = gpus[item["gpu_id"]]
        for instance in holders(item, api):
            place = gpu["server_id"], gpu["gpu_identifier"]
            place_of_instance[instance["instance_id"]] = place
    return place_of_instance


def server_state(server_id: str, status: str, api: Mapping[str, Any]) -> int:
    """Return the number of the state of a server in `grafana.states.SERVER`.

    Of several states that apply, the lowest number counts. Failed starts, which make a server
    failing, are left out. The status is that of its maintenance.
    """
    if status != "none":
        # 1 is a server that has a slot, but is not in maintenance yet.
        return 0 if status == "maintenance" else 1
    states = {gpu_state(gpu, api) for gpu in api["nodes"] if gpu["server_id"] == server_id}
    numbers = {"unverified": 3, "idle": 5, "starting": 6, "disabled": 7, "earning": 8}
    # 2 is a server without GPUs.
    return min((numbers[state] for state in states), default=2)


def units_of_server(server_id: str, api: Mapping[str, Any]) -> float:
    """Return what the instances on a server earn a second."""
    place_of_instance = places(api)
    units = 0.0
    for instance in api["instances"]:
        # An instance that is starting earns nothing yet.
        if not instance["activated_at"]:
            continue
        on_server, _ = place_of_instance[instance["instance_id"]]
        if on_server == server_id:
            units += instance["compute_multiplier"]
    return units


def is_measured(server_id: str, api: Mapping[str, Any]) -> bool:
    """Return whether the target version of the upgrade window is listed for hosts with the GPUs of
    a server. Otherwise, the server could not come back from its upgrade.
    """
    target = api["maintenance"]["active_window"]["target_measurement_version"]
    gpus = [gpu["gpu_identifier"] for gpu in api["nodes"] if gpu["server_id"] == server_id]
    for row in api["tee_measurements"]:
        # None and 0 allow every number of GPUs.
        allows_count = row["gpu_count"] in (None, 0, len(gpus))
        allows_models = set(gpus) <= set(row["expected_gpus"])
        if row["version"] == target and allows_models and allows_count:
            return True
    return False


def upgrade_order(server_ids: Iterable[str], api: Mapping[str, Any]) -> dict[str, int]:
    """Return the place of servers in the order in which to upgrade them.

    Servers with the fewest last instances of their chutes come first, then those with the most
    GPUs that earn nothing.
    """
    names = {row["server_id"]: row["name"] for row in api["servers"]["servers"]}
    last_ones = last_instances(api)

    def key(server_id: str) -> tuple[int, int, str, str]:
        states = [gpu_state(gpu, api) for gpu in api["nodes"] if gpu["server_id"] == server_id]
        earn_nothing = states.count("idle") + states.count("unverified")
        return last_ones[server_id], -earn_nothing, names[server_id], server_id

    in_order = sorted(server_ids, key=key)
    return {server_id: place for place, server_id in enumerate(in_order, 1)}


def last_instances(api: Mapping[str, Any]) -> Counter[str]:
    """Return how many instances on each server are the last ones of their chutes.

    A chute of such an instance has no other active instance, of any miner.
    """
    place_of_instance = places(api)
    active_ids_of_chute: dict[str, set[str]] = defaultdict(set)
    for instance in api["active_instances"]:
        active_ids_of_chute[instance["chute_id"]].add(instance["instance_id"])
    count: Counter[str] = Counter()
    for instance in api["instances"]:
        instance_id = instance["instance_id"]
        other_active_ids = active_ids_of_chute[instance["chute_id"]] - {instance_id}
        # Only the inventory says on which server an instance runs.
        has_server = instance_id in place_of_instance
        if has_server and not other_active_ids:
            server_id, _ = place_of_instance[instance_id]
            count[server_id] += 1
    return count


@dataclass(frozen=True)
class Ended:
    """An instance of a miner that ended.

    Attributes:
        chute_id: Its chute.
        reason: Why it ended, a value of `REASONS`.
        outcome: What became of its score: it counts, is lost, or the instance was never active.
        lost: The compute units that the score lost.
    """

    chute_id: str
    reason: str
    outcome: str
    lost: float

    @property
    def is_failure(self) -> bool:
        return self.outcome != "counts" and self.reason in FAILURES


class Reports:
    """The hourly audit reports, and the ends of a miner's instances in them.

    Attributes:
        end: The Unix time at which the hour of the newest report ends.
    """

    def __init__(self, reports: Mapping[float, Any], hotkey: str) -> None:
        self.end = max(reports)
        self._reports = reports
        self._hotkey = hotkey

    @cached_property
    def _history(self) -> dict[str, dict[str, Row]]:
        """The rows about the multipliers of each instance, by the time from which on each held.

        A row without an end is repeated in the next report, perhaps with its end. So the row of the
        latest report counts.
        """
        history: dict[str, dict[str, Row]] = defaultdict(dict)
        for _, report in sorted(self._reports.items()):
            for row in report["compute_history"]:
                history[row["instance_id"]][row["started_at"]] = row
        return history

    def ends(self, hours: int) -> list[Ended]:
        """Return the ends in the hours before the end of the newest report."""
        # An end at a full hour is in the reports of both hours, so that rows are kept by instance.
        ended: dict[str, Row] = {}
        for hour_end, report in self._reports.items():
            for row in report["instance_audit"]:
                if row["miner_hotkey"] != self._hotkey or row["deleted_at"] is None:
                    continue
                ended_at = seconds(row["deleted_at"])
                is_in_hours = self.end - hours * HOUR <= ended_at <= self.end
                # A report counts only for the ends in its own hour.
                is_in_hour_of_report = hour_end - HOUR <= ended_at <= hour_end
                if is_in_hours and is_in_hour_of_report:
                    ended[row["instance_id"]] = row
        return [self._ended(row) for row in ended.values()]

    def _ended(self, row: Row) -> Ended:
        """Return what became of the score of an instance, from its row in a report."""
        text = row["deletion_reason"] or ""
        (reason,) = (reason for begin, reason in REASONS.items() if text.startswith(begin))
        if row["activated_at"] is None:
            return Ended(row["chute_id"], reason, "never_active", 0)
        lasted = seconds(row["deleted_at"]) - seconds(row["activated_at"])
        # The service marks its planned ends as valid, and these keep the score. A public instance,
        # which nobody is billed for, keeps it after its first hour, too.
        is_secured = row["billed_to"] is None and lasted >= HOUR
        if row["valid_termination"] or is_secured:
            return Ended(row["chute_id"], reason, "counts", 0)
        return Ended(row["chute_id"], reason, "lost", self._units(row))

    def _units(self, row: Row) -> float:
        """Return the compute units of an instance in the day before the end of the newest report,
        from its row in a report.
        """
        counted_from = max(seconds(row["created_at"]), self.end - DAY)
        counted_to = seconds(row["deleted_at"])
        # An instance counts only up to the end of its billing, even if it is deleted later.
        if row["stop_billing_at"]:
            counted_to = min(counted_to, seconds(row["stop_billing_at"]))
        units = 0.0
        # Each part of the history has one multiplier. One without an end still holds.
        for part in self._history[row["instance_id"]].values():
            part_begin = max(counted_from, seconds(part["started_at"]))
            part_end = counted_to
            if part["ended_at"]:
                part_end = min(counted_to, seconds(part["ended_at"]))
            units += part["compute_multiplier"] * max(0.0, part_end - part_begin)
        return units


class Room(NamedTuple):
    """How many instances more of a chute the service would let become active.

    Attributes:
        instances: Their number. Without any, the chute is not offered.
        left: The same without those that are starting already.
        refusal: The reason of the refusal if there are none.
    """

    instances: int
    left: int
    refusal: str


class Placement(NamedTuple):
    """Instances on idle GPUs.

    Attributes:
        taken: The number of GPUs that they take of each server and model, in the sorted order of
            `Launches.usable`.
        pay: Their compute units per second, on average of the first day.
    """

    taken: tuple[int, ...]
    pay: float


@dataclass(frozen=True)
class Launchable:
    """A chute that a miner can launch on a GPU model.

    Attributes:
        gpus: The number of GPUs of an instance.
        room: How many instances can still become active.
        starting: How many instances of the chute are starting, of all miners.
        first_day: Compute units per second of a GPU, on average of the first day.
        later: The same, when the pay has settled.
    """

    chute_id: str
    gpu: str
    gpus: int
    room: int
    starting: int
    first_day: float
    later: float


class Launches:
    """What a miner can launch on its idle GPUs, by the service's rules, from the JSON.

    Attributes:
        slots: The status of maintenance by server.
        free: The number of idle GPUs by server and model.
        usable: The same without servers that hold an upgrade slot.
        in_vain: By starting instance, whether the service would refuse its activation.
        hanging: Chutes with an instance that has been starting for over an hour.
        offers: What can be launched.
        refused: The number of chutes that cannot, by model and reason.
    """

    def __init__(self, api: Mapping[str, Any]) -> None:
        self._api = api
        self.slots = {
            row["server_id"]: row["maintenance_status"] for row in api["maintenance"]["servers"]
        }
        self._tee = {row["server_id"]: row["is_tee"] for row in api["servers"]["servers"]}
        self.free = self._idle_gpus()
        self.usable = {
            (server_id, model): count
            for (server_id, model), count in self.free.items()
            if not self._is_in_slot(server_id)
        }
        # The number of instances of each chute, of all miners.
        self._active = Counter(one["chute_id"] for one in api["active_instances"])
        self._starting = self._starting_everywhere()
        # The newest record of the autoscaler by chute, and the chutes with a bounty.
        self._logged = {row["chute_id"]: row for row in api["utilization"]}
        self._bounties = {row["chute_id"] for row in api["bounties"]}
        self.in_vain: dict[str, bool] = {}
        self.hanging: set[str] = set()
        self.offers: list[Launchable] = []
        self.refused: Counter[tuple[str, str]] = Counter()
        # These fill the four above.
        self._judge_starting()
        self._judge_chutes()

    def _judge_starting(self) -> None:
        """Note which starting instances are in vain, and chutes whose start takes over an hour."""
        for instance in self._api["instances"]:
            if instance_state(instance) == "starting":
                chute_id = instance["chute_id"]
                self.in_vain[instance["instance_id"]] = self._is_in_vain(chute_id)
                if END - seconds(instance["created_at"]) > HOUR:
                    self.hanging.add(chute_id)

    def _judge_chutes(self) -> None:
        """Offer or refuse each chute on each model of the idle GPUs."""
        for gpu in {model for _, model in self.free}:
            for chute in self._api["chutes"]:
                if gpu in chute["node_selector"]["supported_gpus"]:
                    self._try(chute, gpu)

    def _idle_gpus(self) -> Counter[tuple[str, str]]:
        """Return the number of idle GPUs by server and model."""
        idle: Counter[tuple[str, str]] = Counter()
        for gpu in self._api["nodes"]:
            if gpu_state(gpu, self._api) == "idle":
                idle[gpu["server_id"], gpu["gpu_identifier"]] += 1
        return idle

    def _starting_everywhere(self) -> Counter[str]:
        """Return how many instances of each chute are starting, of all miners."""
        # Several GPUs may belong to one instance.
        chute_of_starting: dict[str, str] = {}
        for miner in self._api["held_gpus"].values():
            for gpu in miner["provisioned"]:
                instance = gpu["chute"]
                if instance["activated_at"] is None:
                    chute_of_starting[instance["instance_id"]] = instance["chute_id"]
        return Counter(chute_of_starting.values())

    def _is_in_slot(self, server_id: str) -> bool:
        # A server without TEE has no maintenance.
        return bool(self.slots.get(server_id, "none") != "none")

    def _target(self, chute_id: str) -> int:
        """Return how many active instances the service wants of a chute."""
        row = self._logged.get(chute_id)
        if row is None:
            # Without a record of the autoscaler, the service takes the present number.
            return self._active[chute_id] + self._starting[chute_id]
        allowance: int = row["scale_allowance"]
        target: int = row["target_count"]
        # The target is that of the autoscaler's last run. An allowance is newer.
        return self._active[chute_id] + allowance if allowance else target

    def _is_private(self, chute: Row) -> bool:
        """Return whether launches of a chute follow the rules of private chutes."""
        return not PRIVATE.isdisjoint(chute["compute_multiplier_factors"])

    def _is_in_vain(self, chute_id: str) -> bool:
        """Return whether the service would refuse the activation of an instance of a chute."""
        (chute,) = (row for row in self._api["chutes"] if row["chute_id"] == chute_id)
        is_full = self._active[chute_id] >= self._target(chute_id)
        if not self._is_private(chute):
            # The activation on a public chute with TEE is never refused.
            return is_full and not chute["tee"]
        if chute_id in self._bounties and not self._active[chute_id]:
            # A bounty is enough for the first active instance, whatever the target is.
            return False
        # Without a record of the autoscaler, a private chute has no target.
        return is_full or chute_id not in self._logged

    def room(self, chute: Row) -> Room:
        """Return the room of a chute."""
        if self._is_private(chute):
            return self._room_of_private(chute["chute_id"])
        return self._room_of_public(chute["chute_id"], has_tee=chute["tee"])

    def _room_of_private(self, chute_id: str) -> Room:
        """Return the room of a private chute. The service checks it again at an activation."""
        active, starting = self._active[chute_id], self._starting[chute_id]
        if active == 0:
            # The first active instance needs a bounty, which is enough, whatever the target is.
            room = int(chute_id in self._bounties)
            return Room(room, room - starting, "no_bounty")
        if chute_id not in self._logged:
            # Without a record of the autoscaler, it has no target.
            return Room(0, 0, "target_expired")
        room = self._target(chute_id) - active
        return Room(room, room - starting, "no_room")

    def _room_of_public(self, chute_id: str, *, has_tee: bool) -> Room:
        """Return the room of a public chute.

        Only without TEE does the service check it again at an activation, so that instances that
        are starting already may take it first.
        """
        starting = self._starting[chute_id]
        room = self._target(chute_id) - self._active[chute_id]
        if not has_tee:
            return Room(room, room - starting, "no_room")
        if room <= 0:
            return Room(room, room, "no_room")
        # The first limit: active instances must be fewer than the target. With TEE, there is a
        # second one: active and starting instances together must be fewer than the target plus 1.
        room = min(room, room + 1 - starting)
        return Room(room, room, "enough_starting")

    def _try(self, chute: Row, gpu: str) -> None:
        """Add an offer, or count a refusal by its first reason."""
        reason = self._refusal(chute, gpu)
        if reason is None:
            left = max(0, self.room(chute).left)
            self.offers.append(self._offer(chute, gpu, left))
        else:
            self.refused[gpu, reason] += 1

    def _refusal(self, chute: Row, gpu: str) -> str | None:
        """Return the first reason why a chute cannot be launched on idle GPUs of a model.

        It is None if the chute can be launched.
        """
        if chute["disabled"]:
            return "disabled"
        room = self.room(chute)
        if room.instances <= 0:
            return room.refusal
        servers_with_model = [server_id for server_id, model in self.free if model == gpu]
        matching = [
            server_id for server_id in servers_with_model if self._tee[server_id] == chute["tee"]
        ]
        if not matching:
            return "tee_mismatch"
        usable = [server_id for server_id in matching if not self._is_in_slot(server_id)]
        if not usable:
            return "in_maintenance"
        most_gpus = max(self.free[server_id, gpu] for server_id in usable)
        if most_gpus < chute["node_selector"]["gpu_count"]:
            return "too_many_gpus"
        return None

    def _offer(self, chute: Row, gpu: str, left: int) -> Launchable:
        """Return the offer of a chute on a GPU model. ``left`` instances of the chute can still
        become active.
        """
        selector, factors = chute["node_selector"], chute["compute_multiplier_factors"]
        rates = {model: row["hourly_rate"] for model, row in self._api["supported_gpus"].items()}
        cheapest_rate = min(rates[model] for model in selector["supported_gpus"])
        # What the API says is the pay on the cheapest GPU that the chute allows.
        on_cheapest = chute["effective_compute_multiplier"] / selector["gpu_count"]
        first = on_cheapest * rates[gpu] / cheapest_rate
        # A public instance is paid like one on the cheapest GPU later.
        later = on_cheapest if chute["public"] else first
        # The factors of a bounty and of the urgency are in the pay only as long as they last.
        later /= factors.get("bounty_boost", 1) * factors.get("urgency_boost", 1)
        return Launchable(
            chute_id=chute["chute_id"],
            gpu=gpu,
            gpus=selector["gpu_count"],
            room=left,
            starting=self._starting[chute["chute_id"]],
            # The pay moves from the first to the later one over some hours. In a day, this is as
            # much as 4.6 hours of the first pay, and the later one for the rest.
            first_day=(first * 4.6 + later * 19.4) / 24,
            later=later,
        )

    def best(self) -> float:
        """Return what the usable idle GPUs earn a second in the best of all placements, on average
        of the first day.
        """
        # By `Placement.taken`, the best pay of placements of the chutes so far. The first one takes
        # no GPUs.
        best_pay: dict[tuple[int, ...], float] = {(0,) * len(self.usable): 0.0}
        # A chute with a start of over an hour is not launched again.
        for chute_id in {offer.chute_id for offer in self.offers} - self.hanging:
            # The offers of a chute are for several models of GPU, and share its room.
            offers = [offer for offer in self.offers if offer.chute_id == chute_id]
            with_chute = dict(best_pay)
            for taken, pay in best_pay.items():
                for counts in self._counts(offers[0].room):
                    placement = self._placed(Placement(taken, pay), counts, offers)
                    if placement is None:
                        # These instances do not fit.
                        continue
                    best_so_far = with_chute.get(placement.taken)
                    if best_so_far is None or placement.pay > best_so_far:
                        with_chute[placement.taken] = placement.pay
            best_pay = with_chute
        return max(best_pay.values())

    def _counts(self, room: int) -> Iterator[tuple[int, ...]]:
        """Yield all ways in which a room allows to launch instances, at least one: their number on
        each server and model in the order of `Placement.taken`.
        """
        for counts in itertools.product(range(room + 1), repeat=len(self.usable)):
            if 0 < sum(counts) <= room:
                yield counts

    def _placed(
        self, before: Placement, counts: tuple[int, ...], offers: list[Launchable]
    ) -> Placement | None:
        """Return a placement with more instances of a chute, None if they do not fit.

        Args:
            before: The placement without them.
            counts: The number of new instances on each server and model.
            offers: Of their chute, one for each model of GPU.
        """
        offer_on = {offer.gpu: offer for offer in offers}
        taken_of_places, pay = [], before.pay
        # A place is a server and a model of GPU.
        for taken, count, place in zip(before.taken, counts, sorted(self.usable), strict=True):
            if count == 0:
                taken_of_places.append(taken)
                continue
            server_id, model = place
            offer = offer_on.get(model)
            if offer is None or self._tee_of(offer) != self._tee[server_id]:
                return None
            new_gpus = count * offer.gpus
            if taken + new_gpus > self.usable[place]:
                return None
            taken_of_places.append(taken + new_gpus)
            pay += new_gpus * offer.first_day
        return Placement(tuple(taken_of_places), pay)

    def _tee_of(self, offer: Launchable) -> bool:
        """Return whether a chute needs a server with TEE."""
        (chute,) = (row for row in self._api["chutes"] if row["chute_id"] == offer.chute_id)
        return bool(chute["tee"])


def in_last(hours: float, times: Iterable[float]) -> list[float]:
    """Return the times in the hours before the end, which is one of them."""
    return [time for time in times if END - hours * HOUR <= time <= END]
