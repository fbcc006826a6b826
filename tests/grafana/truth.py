"""What is true of a world, worked out from the JSON of the simulated API without any code of the
package.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from tests.grafana.scenes import END

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
"""The others are no failures."""
PRIVATE = {"private", "private_tee", "integrated_subnet"}
"""Factors of the pay of a chute that follows the rules of private ones."""


def seconds(text: str) -> float:
    """Return the Unix time of a text; without an offset, it is UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def instance_state(instance: Row) -> str:
    if instance["active"]:
        return "active"
    return "disabled" if instance["activated_at"] else "starting"


def holders(item: Row, api: Mapping[str, Any]) -> list[Row]:
    """Return the instances to which an item of the inventory may belong."""
    shared = itemgetter("chute_id", "active", "last_verified_at")
    return [one for one in api["instances"] if shared(one) == shared(item)]


def gpu_state(gpu: Row, api: Mapping[str, Any]) -> str:
    """Return the state of a GPU."""
    for item in api["inventory"]:
        if item["gpu_id"] == gpu["uuid"]:
            (state,) = set(map(instance_state, holders(item, api)))
            return "earning" if state == "active" else state
    return "idle" if gpu["verified_at"] else "unverified"


def is_earning(gpu: Row, api: Mapping[str, Any]) -> bool:
    """Return whether a GPU earns. One of a disabled instance does, too."""
    return gpu_state(gpu, api) in ("earning", "disabled")


def places(api: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the server and the model of each instance that an item of the inventory names."""
    gpus = {gpu["uuid"]: gpu for gpu in api["nodes"]}
    found = {}
    for item in api["inventory"]:
        gpu = gpus[item["gpu_id"]]
        for one in holders(item, api):
            found[one["instance_id"]] = (gpu["server_id"], gpu["gpu_identifier"])
    return found


def server_state(server_id: str, status: str, api: Mapping[str, Any]) -> int:
    """Return the number of the state of a server without failed starts, the first that applies."""
    if status != "none":
        return 0 if status == "maintenance" else 1
    states = {gpu_state(gpu, api) for gpu in api["nodes"] if gpu["server_id"] == server_id}
    numbers = {"unverified": 3, "idle": 5, "starting": 6, "disabled": 7, "earning": 8}
    return min((numbers[state] for state in states), default=2)


def units_of_server(server_id: str, api: Mapping[str, Any]) -> float:
    """Return what the instances on a server earn a second."""
    place = places(api)
    units = 0.0
    for one in api["instances"]:
        if one["activated_at"] and place[one["instance_id"]][0] == server_id:
            units += one["compute_multiplier"]
    return units


def is_measured(server_id: str, api: Mapping[str, Any]) -> bool:
    """Return whether the target of the window is listed for hosts with the GPUs of a server."""
    target = api["maintenance"]["active_window"]["target_measurement_version"]
    gpus = [gpu["gpu_identifier"] for gpu in api["nodes"] if gpu["server_id"] == server_id]
    for row in api["tee_measurements"]:
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
    last = last_instances(api)

    def key(server_id: str) -> tuple[int, int, str, str]:
        states = [gpu_state(gpu, api) for gpu in api["nodes"] if gpu["server_id"] == server_id]
        idle = states.count("idle") + states.count("unverified")
        return last[server_id], -idle, names[server_id], server_id

    return {server_id: number for number, server_id in enumerate(sorted(server_ids, key=key), 1)}


def last_instances(api: Mapping[str, Any]) -> Counter[str]:
    """Return how many instances on each server are the last ones of their chutes."""
    place = places(api)
    active: dict[str, set[str]] = defaultdict(set)
    for one in api["active_instances"]:
        active[one["chute_id"]].add(one["instance_id"])
    found: Counter[str] = Counter()
    for one in api["instances"]:
        others = active[one["chute_id"]] - {one["instance_id"]}
        if one["instance_id"] in place and not others:
            found[place[one["instance_id"]][0]] += 1
    return found


@dataclass(frozen=True)
class Ended:
    """An instance of a miner that ended, with the compute units that the score lost."""

    chute_id: str
    reason: str
    outcome: str
    lost: float

    @property
    def is_failure(self) -> bool:
        return self.outcome != "counts" and self.reason in FAILURES


class Reports:
    """The hourly audit reports, and the ends of a miner's instances in them."""

    def __init__(self, reports: Mapping[float, Any], hotkey: str) -> None:
        self.end = max(reports)
        self._reports = reports
        self._hotkey = hotkey

    @cached_property
    def _history(self) -> dict[str, dict[str, Row]]:
        """The multipliers of each instance by their starts, from the newest report with them."""
        found: dict[str, dict[str, Row]] = defaultdict(dict)
        for _, report in sorted(self._reports.items()):
            for row in report["compute_history"]:
                found[row["instance_id"]][row["started_at"]] = row
        return found

    def ends(self, hours: int, until: float = 0) -> list[Ended]:
        """Return the ends in the hours before a time, by default before the end of the newest
        report.
        """
        until = until or self.end
        found: dict[str, Row] = {}
        for end, report in self._reports.items():
            for row in report["instance_audit"]:
                if row["miner_hotkey"] != self._hotkey or row["deleted_at"] is None:
                    continue
                ended_at = seconds(row["deleted_at"])
                is_in_hours = until - hours * HOUR <= ended_at <= until
                is_of_report = end - HOUR <= ended_at <= end
                if is_in_hours and is_of_report:
                    found[row["instance_id"]] = row
        return [self._ended(row) for row in found.values()]

    def _ended(self, row: Row) -> Ended:
        (reason,) = (
            reason
            for text, reason in REASONS.items()
            if (row["deletion_reason"] or "").startswith(text)
        )
        if row["activated_at"] is None:
            return Ended(row["chute_id"], reason, "never_active", 0)
        lasted = seconds(row["deleted_at"]) - seconds(row["activated_at"])
        if row["valid_termination"] or (row["billed_to"] is None and lasted >= HOUR):
            return Ended(row["chute_id"], reason, "counts", 0)
        return Ended(row["chute_id"], reason, "lost", self._units(row))

    def _units(self, row: Row) -> float:
        """Return the compute units of an instance in the day before the newest report."""
        start = max(seconds(row["created_at"]), self.end - DAY)
        stop = min(map(seconds, filter(None, (row["deleted_at"], row["stop_billing_at"]))))
        units = 0.0
        for part in self._history[row["instance_id"]].values():
            until = min(stop, seconds(part["ended_at"]) if part["ended_at"] else stop)
            span = max(0.0, until - max(start, seconds(part["started_at"])))
            units += part["compute_multiplier"] * span
        return units


@dataclass(frozen=True)
class Launchable:
    """A chute that a miner can launch on a GPU model, with the pay of a GPU for a second."""

    chute_id: str
    gpu: str
    gpus: int
    room: int
    starting: int
    first_day: float
    later: float


class Launches:
    """What a miner can launch on its idle GPUs, by the service's rules, from the JSON."""

    def __init__(self, api: Mapping[str, Any]) -> None:
        self._api = api
        self.slots = {
            row["server_id"]: row["maintenance_status"] for row in api["maintenance"]["servers"]
        }
        self._tee = {row["server_id"]: row["is_tee"] for row in api["servers"]["servers"]}
        self.free = self._idle_gpus()
        self.usable = {
            place: count for place, count in self.free.items() if not self._is_in_slot(place[0])
        }
        self._active = Counter(one["chute_id"] for one in api["active_instances"])
        self._starting = self._starting_everywhere()
        self._logged = {row["chute_id"]: row for row in api["utilization"]}
        self._bounties = {row["chute_id"] for row in api["bounties"]}
        self.in_vain: dict[str, bool] = {}
        self.hanging: set[str] = set()
        self.offers: list[Launchable] = []
        self.refused: Counter[tuple[str, str]] = Counter()
        self._judge_starting()
        self._judge_chutes()

    def _judge_starting(self) -> None:
        """Find starting instances that are in vain, and chutes whose start takes over an hour."""
        for one in self._api["instances"]:
            if instance_state(one) == "starting":
                self.in_vain[one["instance_id"]] = self._is_in_vain(one["chute_id"])
                if END - seconds(one["created_at"]) > HOUR:
                    self.hanging.add(one["chute_id"])

    def _judge_chutes(self) -> None:
        """Offer or refuse each chute on each model of the idle GPUs."""
        for gpu in {model for _, model in self.free}:
            for chute in self._api["chutes"]:
                if gpu in chute["node_selector"]["supported_gpus"]:
                    self._try(chute, gpu)

    def _idle_gpus(self) -> Counter[tuple[str, str]]:
        """Return the number of idle GPUs by server and model."""
        found: Counter[tuple[str, str]] = Counter()
        for gpu in self._api["nodes"]:
            if gpu_state(gpu, self._api) == "idle":
                found[gpu["server_id"], gpu["gpu_identifier"]] += 1
        return found

    def _starting_everywhere(self) -> Counter[str]:
        """Return how many instances of each chute are starting, of all miners."""
        # Several GPUs may belong to one instance.
        starting: dict[str, str] = {}
        for miner in self._api["held_gpus"].values():
            for gpu in miner["provisioned"]:
                chute = gpu["chute"]
                if chute["activated_at"] is None:
                    starting[chute["instance_id"]] = chute["chute_id"]
        return Counter(starting.values())

    def _is_in_slot(self, server_id: str) -> bool:
        # A server without TEE has no maintenance.
        return bool(self.slots.get(server_id, "none") != "none")

    def _target(self, chute_id: str) -> int:
        """Return how many active instances the service wants of a chute."""
        row = self._logged.get(chute_id)
        if row is None:
            return self._active[chute_id] + self._starting[chute_id]
        allowance: int = row["scale_allowance"]
        target: int = row["target_count"]
        return self._active[chute_id] + allowance if allowance else target

    def _is_private(self, chute: Row) -> bool:
        return not PRIVATE.isdisjoint(chute["compute_multiplier_factors"])

    def _is_in_vain(self, chute_id: str) -> bool:
        """Return whether the service would refuse the activation of an instance."""
        (chute,) = (one for one in self._api["chutes"] if one["chute_id"] == chute_id)
        is_full = self._active[chute_id] >= self._target(chute_id)
        if not self._is_private(chute):
            return is_full and not chute["tee"]
        if chute_id in self._bounties and not self._active[chute_id]:
            return False
        return is_full or chute_id not in self._logged

    def room(self, chute: Row) -> tuple[int, int, str]:
        """Return the room of a chute, what is left of it, and why there is none."""
        key = chute["chute_id"]
        starting, room = self._starting[key], self._target(key) - self._active[key]
        if self._is_private(chute):
            if not self._active[key]:
                bounties = int(key in self._bounties)
                return bounties, bounties - starting, "no_bounty"
            if key not in self._logged:
                return 0, 0, "target_expired"
            return room, room - starting, "no_room"
        if not chute["tee"]:
            return room, room - starting, "no_room"
        if room <= 0:
            return room, room, "no_room"
        room = min(room, room + 1 - starting)
        return room, room, "enough_starting"

    def _try(self, chute: Row, gpu: str) -> None:
        """Add an offer, or count a refusal by its first reason."""
        reason = self._refusal(chute, gpu)
        if reason is None:
            _, left, _ = self.room(chute)
            self.offers.append(self._offer(chute, gpu, max(0, left)))
        else:
            self.refused[gpu, reason] += 1

    def _refusal(self, chute: Row, gpu: str) -> str | None:
        """Return the first reason why a chute cannot be launched on idle GPUs of a model."""
        room, _, why_none = self.room(chute)
        if chute["disabled"]:
            return "disabled"
        if room <= 0:
            return why_none
        of_tee = [
            server_id
            for server_id, model in self.free
            if model == gpu and self._tee[server_id] == chute["tee"]
        ]
        if not of_tee:
            return "tee_mismatch"
        gpus = [
            self.free[server_id, gpu] for server_id in of_tee if not self._is_in_slot(server_id)
        ]
        if not gpus:
            return "in_maintenance"
        return "too_many_gpus" if max(gpus) < chute["node_selector"]["gpu_count"] else None

    def _offer(self, chute: Row, gpu: str, left: int) -> Launchable:
        selector, factors = chute["node_selector"], chute["compute_multiplier_factors"]
        rates = {model: row["hourly_rate"] for model, row in self._api["supported_gpus"].items()}
        cheapest = chute["effective_compute_multiplier"] / selector["gpu_count"]
        first = cheapest * rates[gpu] / min(rates[model] for model in selector["supported_gpus"])
        # A public instance is paid like one on the cheapest GPU later. A bounty is gone then.
        later = (cheapest if chute["public"] else first) / factors.get("bounty_boost", 1)
        return Launchable(
            chute_id=chute["chute_id"],
            gpu=gpu,
            gpus=selector["gpu_count"],
            room=left,
            starting=self._starting[chute["chute_id"]],
            # The first pay counts for 4.6 hours of the day.
            first_day=(first * 4.6 + later * 19.4) / 24,
            later=later,
        )

    def best(self) -> float:
        """Return what the usable idle GPUs earn a second in the best of all placements, on average
        of the first day.
        """
        # The best pay by the number of GPUs that are taken of each server.
        best: dict[tuple[int, ...], float] = {(0,) * len(self.usable): 0.0}
        for chute_id in {offer.chute_id for offer in self.offers} - self.hanging:
            offers = [offer for offer in self.offers if offer.chute_id == chute_id]
            found = dict(best)
            for taken, pay in best.items():
                for counts in self._counts(offers[0].room):
                    with_it = self._placed(taken, pay, counts, offers)
                    if with_it is not None and with_it[1] > found.get(with_it[0], -math.inf):
                        found[with_it[0]] = with_it[1]
            best = found
        return max(best.values())

    def _counts(self, room: int) -> Iterator[tuple[int, ...]]:
        """Yield all numbers of instances by server that a room allows, without none at all."""
        for counts in itertools.product(range(room + 1), repeat=len(self.usable)):
            if 0 < sum(counts) <= room:
                yield counts

    def _placed(
        self, taken: tuple[int, ...], pay: float, counts: tuple[int, ...], offers: list[Launchable]
    ) -> tuple[tuple[int, ...], float] | None:
        """Return the GPUs that are taken with more instances, and the pay, None if they do not
        fit.
        """
        by_model = {offer.gpu: offer for offer in offers}
        now = []
        for before, count, place in zip(taken, counts, sorted(self.usable), strict=True):
            used = before
            if count:
                offer = by_model.get(place[1])
                if offer is None or self._tee_of(offer) != self._tee[place[0]]:
                    return None
                used += count * offer.gpus
                pay += count * offer.gpus * offer.first_day
                if used > self.usable[place]:
                    return None
            now.append(used)
        return tuple(now), pay

    def _tee_of(self, offer: Launchable) -> bool:
        return any(one["tee"] for one in self._api["chutes"] if one["chute_id"] == offer.chute_id)


def in_last(hours: float, times: Iterable[float]) -> list[float]:
    """Return the times in the hours before the end, which is one of them."""
    return [time for time in times if END - hours * HOUR <= time <= END]
