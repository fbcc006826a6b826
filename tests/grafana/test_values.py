"""Values that the boards show, recomputed from the simulator's JSON without any code of the package."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from grafana import states
from grafana.boards.fleet import SERVERS
from grafana.worlds import PAID, UNCHAINED, World
from tests.grafana.display import committed, panels
from tests.grafana.scenes import COSTS, END, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.grafana.scenes import Answers

HOUR = 3600
DAY = 24 * HOUR
AT_LEAST = 10
"""Values of each board that are compared."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """The place of a value: a panel, a column or a line, and labels of a table's row."""

    panel: str
    name: str = ""
    row: tuple[tuple[str, str], ...] = ()


Expected = dict[Place, Any]
"""Numbers, texts, and what `pytest.approx` makes where a number depends on the moment."""


def cell(panel: str, column: str, **row: str) -> Place:
    return Place(panel, column, tuple(row.items()))


def seconds(text: str) -> float:
    """Return the Unix time of a text; without an offset, it is UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class Shown:
    """The values in the panels of a board."""

    def __init__(self, uid: str, answers: Answers) -> None:
        self._panels = panels(committed(uid))
        self._answers = answers

    def value(self, place: Place) -> float | str | None:
        """Return a value, or None where nothing is shown."""
        named = [one for one in self._panels if one["title"] == place.panel]
        (panel,) = (one for one in named if (one["type"] == "table") == bool(place.row))
        if place.row:
            return self._cell(panel, place)
        for target in panel["targets"]:
            for row in self._rows(target):
                if not place.name or _legend(target["legendFormat"], row["metric"]) == place.name:
                    return float(row["value"])
        return None

    def _rows(self, target: Mapping[str, Any]) -> list[Row]:
        """Return the labels and the value of each series at the end of the time range."""
        if not target["range"]:
            found = self._answers.now[target["expr"]]["result"]
            return [{"metric": row["metric"], "value": row["value"][1]} for row in found]
        found = self._answers.over_time[target["expr"]]["result"]
        last = [(row["metric"], row["values"][-1]) for row in found]
        return [{"metric": labels, "value": value} for labels, (at, value) in last if at == END]

    def _cell(self, panel: Mapping[str, Any], place: Place) -> float | str | None:
        (organized,) = (step["options"] for step in panel["transformations"] if step["id"] == "organize")
        (source,) = (source for source, title in organized["renameByName"].items() if title == place.name)
        targets = panel["targets"]
        is_value = source.startswith("Value")
        if is_value:
            targets = [one for one in targets if source in ("Value", f"Value #{one['refId']}")]
        found = {
            row["value"] if is_value else row["metric"][source]
            for target in targets
            for row in self._rows(target)
            if set(place.row) <= row["metric"].items() and (is_value or source in row["metric"])
        }
        assert len(found) <= 1, (place, found)
        return next((float(value) if is_value else value for value in found), None)


def _legend(template: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)


class Truth:
    """Expected values of each board, by a method of its own, from the API's JSON."""

    def __init__(self, answers: Answers, kind: World) -> None:
        self.api = answers.api
        self.at = END
        self.kind = kind
        self.watched = answers.hotkeys
        self.miner = answers.hotkeys[0]
        self.scored = answers.scored
        self.seats: dict[str, Row] = {row["hotkey"]: row for row in self.api["metagraph"]}
        self.shares: dict[str, float] = {
            hotkey: share for hotkey, share in self.api["scores"]["final_scores"].items() if share is not None
        }
        self.incentive = sum(row["incentive"] for row in self.seats.values())
        self.instances: list[Row] = self.api["instances"]
        self.chutes: dict[str, Row] = {row["chute_id"]: row for row in self.api["chutes"]}
        self.gpus: dict[str, Row] = {row["uuid"]: row for row in self.api["nodes"]}
        self.held: dict[str, Row] = {row["gpu_id"]: row for row in self.api["inventory"]}

    def rank(self, hotkey: str) -> int:
        return 1 + sum(share > self.shares[hotkey] for share in self.shares.values())

    def state(self, gpu: Row) -> str:
        """Return the state of a GPU."""
        item = self.held.get(gpu["uuid"])
        if item is None:
            return "idle" if gpu["verified_at"] else "unverified"
        if item["active"]:
            return "earning"
        holders = {
            bool(one["activated_at"])
            for one in self.instances
            if (one["chute_id"], one["active"], one["last_verified_at"])
            == (item["chute_id"], False, item["last_verified_at"])
        }
        (activated,) = holders
        return "disabled" if activated else "starting"

    def states(self) -> Counter[str]:
        return Counter(map(self.state, self.gpus.values()))

    def instance_state(self, instance: Row) -> str:
        return "active" if instance["active"] else "disabled" if instance["activated_at"] else "starting"

    def heading(self) -> dict[str, float]:
        """Return each miner's share of the multipliers that earn now. Only own disabled instances are known."""
        earning: Counter[str] = Counter()
        for one in self.api["active_instances"]:
            earning[one["miner_hotkey"]] += one["compute_multiplier"]
        for one in self.instances:
            if self.instance_state(one) == "disabled":
                earning[self.miner] += one["compute_multiplier"]
        scored = {hotkey: earning[hotkey] for hotkey, row in self.seats.items() if not row["blacklist_reason"]}
        return {hotkey: value / sum(scored.values()) for hotkey, value in scored.items()}

    def work(self, window: str, field: str) -> dict[str, float]:
        """Return a number of each miner in a window."""
        return {row["miner_hotkey"]: row[field] for row in self.api["stats"][window]["instance_stats"]}

    def of_watched(self, numbers: Mapping[str, float]) -> float:
        return sum(numbers.get(hotkey, 0) for hotkey in self.watched)

    def overview(self) -> Expected:
        scored = [hotkey for hotkey in self.watched if hotkey in self.shares]
        heading = self.heading()
        incentives = {hotkey: row["incentive"] / self.incentive for hotkey, row in self.seats.items()}
        found: Expected = {
            Place("Score share"): self.of_watched(self.shares),
            Place("Score share and heading", "heading"): self.of_watched(heading),
        }
        for window, name in (("past_hour", "past hour"), ("past_day", "past day"), ("all", "past week")):
            units = self.work(window, "compute_units")
            found[Place("Share of compute by window", name)] = self.of_watched(units) / sum(units.values())
        count = self.states()
        for hotkey in self.watched:
            seat = self.seats.get(hotkey)
            found[cell("Miners", "Seat", hotkey=hotkey)] = seat is not None
            if hotkey in scored:
                found[cell("Miners", "Score share", hotkey=hotkey)] = self.shares[hotkey]
                found[cell("Miners", "Rank", hotkey=hotkey)] = self.rank(hotkey)
            if seat is not None:
                found[cell("Miners", "Before seat loss", hotkey=hotkey)] = self.before_loss().get(hotkey)
                if not seat["blacklist_reason"]:
                    found[cell("Miners", "Heading", hotkey=hotkey)] = heading[hotkey]
        found[cell("Miners", "Earning", hotkey=self.miner)] = count["earning"] + count["disabled"]
        for state in ("starting", "idle", "unverified"):
            found[cell("Miners", state.capitalize(), hotkey=self.miner)] = count[state]
        found |= {Place("GPUs by state", state.text): count[state.text] for state in states.GPU}
        for window, column in (("past_hour", "Units, 1 h"), ("past_day", "Units, 1 day")):
            chutes: Counter[str] = Counter()
            for row in self.api["stats_per_chute"][window]["instance_stats"]:
                if row["miner_hotkey"] in self.watched:
                    chutes[row["chute_id"]] += row["compute_units"]
            found |= {cell("Earnings by chute", column, chute_id=chute_id): units for chute_id, units in chutes.items()}
        return found | self._money(self.of_watched(incentives))

    def _money(self, incentive: float) -> Expected:
        # All miners are paid 2952 alpha a day, which cost 0.071 TAO each. The pay is that of the scrape before.
        alpha = 1 if self.kind in UNCHAINED else 2952
        usd = 0.071027253 * 431.17 if self.kind in PAID else 1
        earned: Expected = {Place("Earned per day"): pytest.approx(incentive * alpha * usd, rel=0.01)}
        if self.kind is not World.SICK:
            return earned | {Place("Idle GPUs, next 24 h"): 0}
        cost = 24 * sum(COSTS[gpu["gpu_identifier"]] for gpu in self.gpus.values())
        return earned | {
            Place("Estimated earnings and costs", "cost of GPUs"): cost,
            Place("Idle GPUs, next 24 h", "rent"): self.rent(self.gpus.values()),
        }

    def before_loss(self) -> dict[str, int]:
        """Return the registrations before the loss of each seat that is not new, if the exporter knows the chain."""
        old = [row for row in self.seats.values() if self.at - seconds(row["synced_at"]) >= DAY]
        old.sort(key=lambda row: (row["incentive"], seconds(row["synced_at"])))
        return {row["hotkey"]: place for place, row in enumerate(old[: -min(10, len(self.seats) // 8)])}

    def rent(self, gpus: Iterable[Row]) -> float:
        """Return the rent in a day of the GPUs that earn nothing."""
        lost = [gpu["gpu_identifier"] for gpu in gpus if self.state(gpu) in ("idle", "unverified")]
        return 24 * sum(COSTS[model] for model in lost)

    def fleet(self) -> Expected:
        count, total = self.states(), len(self.gpus)
        servers: dict[str, Row] = {row["server_id"]: row for row in self.api["servers"]["servers"]}
        found: Expected = {
            Place("All"): total,
            Place("Earning"): (count["earning"] + count["disabled"]) / total,
            Place("Idle"): count["idle"],
            Place("Unverified"): count["unverified"],
            Place("Servers", "servers"): len(servers),
            Place("Servers", "in maintenance"): sum(row["maintenance_pending"] for row in servers.values()),
        }
        # A state without GPUs has no line.
        found |= {Place("GPUs by state", state): number for state, number in count.items()}
        if self.kind is World.SICK:
            found[Place("Idle GPUs, next 24 h", "rent")] = self.rent(self.gpus.values())
        for server_id, gpu in {(one["server_id"], one["gpu_identifier"]) for one in self.gpus.values()}:
            gpus = [one for one in self.gpus.values() if (one["server_id"], one["gpu_identifier"]) == (server_id, gpu)]
            there = Counter(map(self.state, gpus))
            row = {"server_id": server_id, "gpu": gpu}
            found[cell(SERVERS, "All", **row)] = there.total()
            for state in states.GPU:
                found[cell(SERVERS, state.text.capitalize(), **row)] = there[state.text]
            if self.kind is World.SICK:
                found[cell(SERVERS, "Rent", **row)] = self.rent(gpus)
        for key, one in self.gpus.items():
            number = next(place.value for place in states.GPU if place.text == self.state(one))
            found[cell("GPUs", "State", gpu_id=key)] = number
            name = servers[one["server_id"]]["name"]
            found[cell("GPUs", "GPU", gpu_id=key)] = f"{name} #{one['device_index']}"
            if one["verification_error"]:
                found[cell("GPUs", "Error", gpu_id=key)] = one["verification_error"]
                found[cell(SERVERS, "Error", server_id=one["server_id"])] = one["verification_error"]
        return found

    def instances_board(self) -> Expected:
        count = Counter(map(self.instance_state, self.instances))
        ages = sorted(self.at - seconds(one["created_at"]) for one in self.instances)
        middle = len(ages) // 2
        public = [one for one in self.instances if one["active"] and not one["billed_to"]]
        starts = [seconds(one["activated_at"]) - seconds(one["created_at"]) for one in self.instances if one["active"]]
        found: Expected = {
            Place("Active"): count["active"],
            Place("Starting"): count["starting"],
            Place("Disabled"): count["disabled"],
            Place("Not secured"): sum(seconds(one["activated_at"]) + HOUR > self.at for one in public),
            Place("Age of instances", "median"): (ages[middle] + ages[~middle]) / 2,
            Place("Time to become active", "longest"): max(starts),
        }
        found |= {Place("Instances by state", state): count[state] for state in ("active", "starting", "disabled")}
        purges = []
        for one in self.instances:
            row = {"instance_id": one["instance_id"]}
            chute = self.chutes[one["chute_id"]]
            state = self.instance_state(one)
            age = self.at - seconds(one["created_at"])
            late = state == "starting" and age > HOUR
            found[cell("Instances", "State", **row)] = next(
                each.value for each in states.INSTANCE if each.text == ("starting over 1 h" if late else state)
            )
            found[cell("Instances", "GPUs", **row)] = chute["node_selector"]["gpu_count"]
            found[cell("Instances", "Age", **row)] = age
            found[cell("Instances", "Multiplier", **row)] = one["compute_multiplier"]
            later = chute["effective_compute_multiplier"] / chute["compute_multiplier_factors"].get("bounty_boost", 1)
            differs = abs(later / one["compute_multiplier"] - 1) > 0.01
            found[cell("Instances", "Later", **row)] = later if differs else None
            deadline, left = self._deadline(one, state)
            if deadline == "end of billing" and left >= 300:
                deadline = "none"
            found[cell("Instances", "Deadline", **row)] = next(
                kind.value for kind in states.DEADLINE_KINDS if kind.text == deadline
            )
            if deadline != "none":
                found[cell("Instances", "In", **row)] = left
            if deadline == "purge":
                purges.append(left)
        if purges:
            found[Place("Next purge")] = min(purges)
        return found

    def _deadline(self, one: Row, state: str) -> tuple[str, float]:
        """Return the next deadline of an instance, and the seconds left."""
        ends = {}
        if state == "starting":
            ends["purge"] = seconds(one["created_at"]) + 3.5 * HOUR
            if one["verified"]:
                ends["purge"] = min(ends["purge"], seconds(one["last_verified_at"]) + 3 * HOUR)
        if one["active"] and not one["billed_to"] and seconds(one["activated_at"]) + HOUR > self.at:
            ends["secured"] = seconds(one["activated_at"]) + HOUR
        if one["stop_billing_at"]:
            ends["end of billing"] = seconds(one["stop_billing_at"])
        name = min(ends, key=ends.__getitem__, default="none")
        return name, ends.get(name, self.at) - self.at

    def market(self) -> Expected:
        waiting = [job for job in self.api["jobs"] if not (job["finished_at"] or job["miner_hotkey"])]
        scaled = self.api["utilization"]
        found: Expected = {
            Place("Demand", "chutes with room"): sum(row["scale_allowance"] > 0 for row in scaled),
            Place("Bounties"): len(self.api["bounties"]),
            Place("Jobs"): len(waiting),
            Place("Requests per hour", "completed"): sum(one["total_invocations"] for one in self.api["metrics"]),
            Place("Requests per hour", "rate limited"): sum(one["rate_limit_count"] for one in self.api["metrics"]),
        }
        for row in scaled:
            chute = {"chute_id": row["chute_id"]}
            found[cell("Demand", "Room", **chute)] = row["scale_allowance"]
            if row["scale_allowance"]:
                found[cell("Demand", "Wanted", **chute)] = row["active_instance_count"] + row["scale_allowance"]
            if row["instance_count"]:
                found[cell("Demand", "Utilisation, 15 m", **chute)] = row["utilization_15m"]
        for row in self.api["metrics"]:
            chute = {"chute_id": row["chute_id"]}
            found[cell("Terms", "Users pay, 1 h", **chute)] = 3600 * row["per_second_price_usd"]
        for row in self.api["bounties"]:
            if row["chute_id"] in self.chutes:
                # A factor of 1.1 for a new bounty, that grows to 1.5 within 3 hours.
                factor = 1.1 + 0.4 * min((self.at - row["created_at"]) / (3 * HOUR), 1)
                found[cell("Demand", "Bounty", chute_id=row["chute_id"])] = pytest.approx(factor, abs=0.01)
        return found

    def subnet(self) -> Expected:
        heading, mine = self.heading(), self.rank(self.scored)
        found: Expected = {
            Place("Before seat loss"): self.before_loss().get(self.scored, states.SAFE.value),
            Place("Seats", "free"): 256 - len(self.seats),
            Place("Score share"): self.shares[self.scored],
        }
        for hotkey, share in self.shares.items():
            rank = self.rank(hotkey)
            found[cell("Leaderboard", "Rank", hotkey=hotkey)] = rank
            found[cell("Leaderboard", "Score share", hotkey=hotkey)] = share
            if abs(rank - mine) <= 4 and hotkey in heading:
                # 0: the chosen miner passes it. 3: it passes the chosen miner. 4: the chosen miner itself.
                code = 2 * (rank > mine) + (heading[hotkey] >= heading[self.scored]) + 3 * (hotkey == self.scored)
                found[cell("The miner and its neighbours", "Within a day", hotkey=hotkey)] = code
                found[cell("The miner and its neighbours", "Heading", hotkey=hotkey)] = heading[hotkey]
        found[Place("Score share of the neighbours", short(self.scored))] = self.shares[self.scored]
        for hotkey, row in self.seats.items():
            found[cell("Leaderboard", "Incentive", hotkey=hotkey)] = row["incentive"] / self.incentive
            found[cell("Stake and age of seats", "Seat age", hotkey=hotkey)] = self.at - seconds(row["synced_at"])
            if row["blacklist_reason"]:
                found[cell("Leaderboard", "Blacklisted", hotkey=hotkey)] = row["blacklist_reason"]
        return found


BOARD_TRUTHS = {
    "chutes-overview": Truth.overview,
    "chutes-fleet": Truth.fleet,
    "chutes-instances": Truth.instances_board,
    "chutes-market": Truth.market,
    "chutes-subnet": Truth.subnet,
}


@pytest.mark.parametrize("uid", BOARD_TRUTHS)
@pytest.mark.parametrize("kind", [World.HEALTHY, World.SICK])
def test_a_board_shows_what_the_api_answered(answers: dict[World, Answers], kind: World, uid: str) -> None:
    expected = BOARD_TRUTHS[uid](Truth(answers[kind], kind))
    shown = Shown(uid, answers[kind])
    differ = {
        place: (found, value)
        for place, value in expected.items()
        if (found := shown.value(place)) != (pytest.approx(value) if isinstance(value, float) else value)
    }
    assert differ == {}
    assert len(expected) >= AT_LEAST


def test_the_units_of_the_servers_are_those_of_the_statistics(answers: dict[World, Answers]) -> None:
    found = answers[World.HEALTHY]
    shown = Shown("chutes-fleet", found)
    servers = {gpu["server_id"]: gpu["gpu_identifier"] for gpu in found.api["nodes"]}

    def column(name: str) -> list[float]:
        rows = [cell("Compute units by server, 30 days", name, server_id=one, gpu=gpu) for one, gpu in servers.items()]
        return [float(value) for value in map(shown.value, rows) if value is not None]

    day = next(
        row for row in found.api["stats"]["past_day"]["instance_stats"] if row["miner_hotkey"] == found.hotkeys[0]
    )
    # The world has scrapes of a little more than a day.
    units = sum(units / days for units, days in zip(column("Units"), column("Days known"), strict=True))
    assert len(column("Units")) == len(servers)
    assert sum(column("Share")) == pytest.approx(1)
    # The text of the panel says so.
    assert units == pytest.approx(day["compute_units"], rel=0.01)
