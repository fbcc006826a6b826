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
from typing import TYPE_CHECKING, Any

from tests.grafana.scenes import END

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
    return (
        "active" if instance["active"] else "disabled" if instance["activated_at"] else "starting"
    )


def holders(item: Row, api: Mapping[str, Any]) -> list[Row]:
    """Return the instances to which an item of the inventory may belong."""
    shared = ("chute_id", "active", "last_verified_at")
    return [one for one in api["instances"] if all(one[name] == item[name] for name in shared)]


def gpu_state(gpu: Row, api: Mapping[str, Any]) -> str:
    """Return the state of a GPU."""
    for item in api["inventory"]:
        if item["gpu_id"] == gpu["uuid"]:
            (state,) = set(map(instance_state, holders(item, api)))
            return "earning" if state == "active" else state
    return "idle" if gpu["verified_at"] else "unverified"


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


def server_units(api: Mapping[str, Any]) -> Counter[tuple[str, str]]:
    """Return what the instances on each server earn a second, by server and model."""
    place = places(api)
    units: Counter[tuple[str, str]] = Counter()
    for one in api["instances"]:
        if one["activated_at"]:
            units[place[one["instance_id"]]] += one["compute_multiplier"]
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
    """Return the place of servers in the order in which to upgrade them."""
    place = places(api)
    keys = []
    for server_id in server_ids:
        last = 0
        for one in api["instances"]:
            others = [
                other
                for other in api["active_instances"]
                if other["chute_id"] == one["chute_id"]
                and other["instance_id"] != one["instance_id"]
            ]
            is_there = place.get(one["instance_id"], ("", ""))[0] == server_id
            last += is_there and not others
        states = [gpu_state(gpu, api) for gpu in api["nodes"] if gpu["server_id"] == server_id]
        idle = states.count("idle") + states.count("unverified")
        (name,) = (
            row["name"] for row in api["servers"]["servers"] if row["server_id"] == server_id
        )
        keys.append((last, -idle, name, server_id))
    return {server_id: number for number, (*_, server_id) in enumerate(sorted(keys), 1)}


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
                if until - hours * HOUR <= ended_at <= until and end - HOUR <= ended_at <= end:
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
        # A server without TEE has no maintenance.
        self.free = Counter(
            (gpu["server_id"], gpu["gpu_identifier"])
            for gpu in api["nodes"]
            if gpu_state(gpu, api) == "idle"
        )
        self.usable = {
            place: count
            for place, count in self.free.items()
            if self.slots.get(place[0], "none") == "none"
        }
        self._active = Counter(one["chute_id"] for one in api["active_instances"])
        self._logged = {row["chute_id"]: row for row in api["utilization"]}
        self._bounties = {row["chute_id"] for row in api["bounties"]}
        self._starting = Counter(
            chute_id
            for chute_id, activated in {
                gpu["chute"]["instance_id"]: (
                    gpu["chute"]["chute_id"],
                    gpu["chute"]["activated_at"],
                )
                for miner in api["held_gpus"].values()
                for gpu in miner["provisioned"]
            }.values()
            if activated is None
        )
        self.in_vain = {
            one["instance_id"]: self._is_in_vain(one["chute_id"])
            for one in api["instances"]
            if instance_state(one) == "starting"
        }
        self.hanging = {
            one["chute_id"]
            for one in api["instances"]
            if instance_state(one) == "starting" and END - seconds(one["created_at"]) > HOUR
        }
        self.offers: list[Launchable] = []
        self.refused: Counter[tuple[str, str]] = Counter()
        for gpu in {model for _, model in self.free}:
            for chute in api["chutes"]:
                if gpu in chute["node_selector"]["supported_gpus"]:
                    self._try(chute, gpu)

    def _target(self, chute_id: str) -> int:
        """Return how many active instances the service wants of a chute."""
        row = self._logged.get(chute_id)
        if row is None:
            return self._active[chute_id] + self._starting[chute_id]
        sent: int = row["target_count"]
        return self._active[chute_id] + row["scale_allowance"] if row["scale_allowance"] else sent

    def _is_private(self, chute: Row) -> bool:
        return not PRIVATE.isdisjoint(chute["compute_multiplier_factors"])

    def _is_in_vain(self, chute_id: str) -> bool:
        """Return whether the service would refuse the activation of an instance."""
        (chute,) = (one for one in self._api["chutes"] if one["chute_id"] == chute_id)
        private = self._is_private(chute)
        if chute["tee"] and not private:
            return False
        if private and not self._active[chute_id] and chute_id in self._bounties:
            return False
        full = self._active[chute_id] >= self._target(chute_id)
        return full or (private and chute_id not in self._logged)

    def room(self, chute: Row) -> tuple[int, int, str]:
        """Return the room of a chute, what is left of it, and why there is none."""
        key = chute["chute_id"]
        active, starting, target = self._active[key], self._starting[key], self._target(key)
        if self._is_private(chute):
            if not active:
                room = int(key in self._bounties)
                return room, room - starting, "no_bounty"
            if key not in self._logged:
                return 0, 0, "target_expired"
            return target - active, target - active - starting, "no_room"
        room = target - active
        if chute["tee"] and room > 0:
            room = min(room, room + 1 - starting)
            return room, room, "enough_starting"
        return room, room - (0 if chute["tee"] else starting), "no_room"

    def _try(self, chute: Row, gpu: str) -> None:
        """Add an offer, or count a refusal by its first reason."""
        room, left, why = self.room(chute)
        size = chute["node_selector"]["gpu_count"]
        servers = [(server, count) for (server, model), count in self.free.items() if model == gpu]
        of_tee = [one for one in servers if self._tee[one[0]] == chute["tee"]]
        not_busy = [one for one in of_tee if self.slots.get(one[0], "none") == "none"]
        if chute["disabled"]:
            reason = "disabled"
        elif room <= 0:
            reason = why
        elif not of_tee:
            reason = "tee_mismatch"
        elif not not_busy:
            reason = "in_maintenance"
        elif max(count for _, count in not_busy) < size:
            reason = "too_many_gpus"
        else:
            self.offers.append(self._offer(chute, gpu, max(0, left)))
            return
        self.refused[gpu, reason] += 1

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
        servers = sorted(self.usable)
        # The best pay by the number of GPUs that are taken of each server.
        best: dict[tuple[int, ...], float] = {(0,) * len(servers): 0.0}
        for chute_id in {offer.chute_id for offer in self.offers} - self.hanging:
            offers = [offer for offer in self.offers if offer.chute_id == chute_id]
            room = offers[0].room
            found = dict(best)
            for taken, pay in best.items():
                for counts in itertools.product(range(room + 1), repeat=len(servers)):
                    if not 0 < sum(counts) <= room:
                        continue
                    with_it = self._placed(taken, pay, counts, servers, offers)
                    if with_it is not None and with_it[1] > found.get(with_it[0], -math.inf):
                        found[with_it[0]] = with_it[1]
            best = found
        return max(best.values())

    def _placed(
        self,
        taken: tuple[int, ...],
        pay: float,
        counts: tuple[int, ...],
        servers: list[tuple[str, str]],
        offers: list[Launchable],
    ) -> tuple[tuple[int, ...], float] | None:
        """Return the GPUs that are taken with more instances, and the pay, None if they do not
        fit.
        """
        now = []
        for used, count, place in zip(taken, counts, servers, strict=True):
            offer = next((one for one in offers if one.gpu == place[1]), None)
            if not count:
                now.append(used)
                continue
            if offer is None or self._tee_of(offer) != self._tee[place[0]]:
                return None
            now.append(used + count * offer.gpus)
            pay += count * offer.gpus * offer.first_day
            if now[-1] > self.usable[place]:
                return None
        return tuple(now), pay

    def _tee_of(self, offer: Launchable) -> bool:
        return any(one["tee"] for one in self._api["chutes"] if one["chute_id"] == offer.chute_id)


def in_last(hours: float, times: Iterable[float]) -> list[float]:
    """Return the times in the hours before the end, which is one of them."""
    return [time for time in times if END - hours * HOUR <= time <= END]
