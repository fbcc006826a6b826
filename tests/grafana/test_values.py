"""Values that the boards show, recomputed from the simulator's JSON without any code of the package."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from grafana import states
from grafana.boards import BOARDS
from grafana.worlds import World
from tests.grafana.display import committed, panels
from tests.grafana.scenes import FIGURES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.grafana.scenes import Answers

HOUR = 3600
DAY = 24 * HOUR
HOURLY_RATES = {"4090": 0.4, "5090": 0.7, "a100": 1.2, "l40s": 0.85, "h100_sxm": 2.35, "h200": 2.75, "b200": 4.5}
"""US dollars an hour of the service's table, for the models of the simulator."""
LATE = 20
"""Seconds before a query at which rules may have been evaluated last, on a busy machine."""
DELAYS = {"Purged in": LATE, "Purge": LATE, "Ends in": 60, "Factor": LATE * 0.4 / (3 * HOUR)}
"""How far values may differ. A rule computes the first two, in seconds. The third moves by a minute when requests
extend the billing of an instance, and the shown answer can be older. The factor of a bounty grows each second."""
GROWING = {"Stake", "TAO"}
"""Numbers that the simulator lets grow by 2 millionths with each sync of the metagraph, every 3 minutes."""
GROWTH = 1e-5
"""The share by which these may differ, because the shown answer can be some syncs older."""
AT_LEAST = 10
"""Values of each board that are compared."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """The place of a value.

    Attributes:
        panel: The title of the panel.
        name: The heading of a table's column, or the name of a graph's line. Empty for a stat.
        row: Labels of a table's row.
    """

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
    """The values in the panels of a board.

    Args:
        uid: Of the board.
        answers: Of Prometheus.
    """

    def __init__(self, uid: str, answers: Answers) -> None:
        self._panels = panels(committed(uid))
        self._answers = answers

    def value(self, place: Place) -> float | str | None:
        """Return a value, or None where nothing is shown."""
        kind = ("table",) if place.row else ("timeseries",) if place.name else ("stat",)
        (panel,) = (one for one in self._panels if one["title"] == place.panel and one["type"] in kind)
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
        return [{"metric": labels, "value": value} for labels, (at, value) in last if abs(at - self._answers.at) < 1]

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
    """Expected values of each board. Each board has a method.

    Args:
        answers: They have the API's JSON.
        kind: The world.
    """

    def __init__(self, answers: Answers, kind: World) -> None:
        self.api = answers.api
        self.newest = answers.newest
        self.at = answers.at
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
        if instance["active"]:
            return "active"
        return "disabled" if instance["activated_at"] else "starting"

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
        raw = self.api["scores"]["raw_values"]
        found: Expected = {
            Place("Score"): self.of_watched(self.shares),
            Place("Heading"): self.of_watched(heading),
            Place("Rank"): min(map(self.rank, scored)),
            Place("Counting instances", "past hour"): self.of_watched(self.work("past_hour", "total_instances")),
            Place("Counting instances", "past day"): sum(raw[hotkey]["total_instances"] for hotkey in scored),
            Place("Counting instances", "with a bounty, past day"): sum(raw[one]["bounty_score"] for one in scored),
            Place("Incentive and consensus", "incentive"): self.of_watched(incentives),
            Place("Incentive and consensus", "consensus"): self.of_watched(
                {hotkey: row["vtrust"] / 65535 for hotkey, row in self.seats.items()}
            ),
            Place("Rank by score and by incentive", "by incentive"): 1
            + sum(one > max(incentives.get(hotkey, -1) for hotkey in self.watched) for one in incentives.values()),
        }
        for window, name in (("past_hour", "past hour"), ("past_day", "past day"), ("all", "past week")):
            units = self.work(window, "compute_units")
            found[Place("Share of compute by window", name)] = self.of_watched(units) / sum(units.values())
        for hotkey in self.watched:
            seat = self.seats.get(hotkey)
            found[cell("Miners", "Seat", hotkey=hotkey)] = seat is not None
            if hotkey in scored:
                found[cell("Miners", "Share", hotkey=hotkey)] = self.shares[hotkey]
                found[cell("Miners", "Rank", hotkey=hotkey)] = self.rank(hotkey)
            if seat is not None:
                name = f"{hotkey[:5]}…{hotkey[-4:]}"
                found[Place("Seats behind", name)] = sum(
                    row["incentive"] < seat["incentive"] for row in self.seats.values()
                )
                if not seat["blacklist_reason"]:
                    found[cell("Miners", "Heading", hotkey=hotkey)] = heading[hotkey]
        count = self.states()
        found[cell("Miners", "Earning", hotkey=self.miner)] = count["earning"] + count["disabled"]
        found[cell("Miners", "Starting", hotkey=self.miner)] = count["starting"]
        found[cell("Miners", "Idle", hotkey=self.miner)] = count["idle"]
        found[cell("Miners", "Unverified", hotkey=self.miner)] = count["unverified"]
        found |= {Place("GPUs by state", state.text): count[state.text] for state in states.GPU}
        for window, column in (("past_hour", "Units, 1 h"), ("past_day", "Units, 1 day")):
            chutes: Counter[str] = Counter()
            for row in self.api["stats_per_chute"][window]["instance_stats"]:
                if row["miner_hotkey"] in self.watched:
                    chutes[row["chute_id"]] += row["compute_units"]
            found |= {cell("Earnings by chute", column, chute_id=chute_id): units for chute_id, units in chutes.items()}
        if self.kind is World.SICK:
            dollars = self.of_watched(incentives) * FIGURES["daily_emission"] * FIGURES["alpha_price"]
            found[Place("Estimated earnings and costs", "earnings")] = dollars
            found[Place("Estimated earnings and costs", "cost of GPUs")] = 24 * 1.5 * len(self.gpus)
        return found

    def fleet(self) -> Expected:
        count, total = self.states(), len(self.gpus)
        servers: dict[str, Row] = {row["server_id"]: row for row in self.api["servers"]["servers"]}
        found: Expected = {
            Place("GPUs"): total,
            Place("Earning"): (count["earning"] + count["disabled"]) / total,
            Place("Idle"): count["idle"],
            Place("Unverified"): count["unverified"],
            Place("Servers", "servers"): len(servers),
            Place("Servers", "without GPUs"): sum(not row["gpus"] for row in servers.values()),
            Place("Servers", "maintenance pending"): sum(row["maintenance_pending"] for row in servers.values()),
        }
        # A state without GPUs has no line.
        found |= {Place("GPUs by state", state): number for state, number in count.items()}
        if self.kind is World.SICK:
            found[Place("Idle cost")] = 24 * 1.5 * (count["idle"] + count["unverified"])
        found |= self._servers()
        for server_id, server in servers.items():
            if server["gpus"]:
                if server["ip"]:
                    found[cell("Servers", "Address", server_id=server_id)] = server["ip"]
                found[cell("Servers", "TEE", server_id=server_id)] = str(server["is_tee"]).lower()
        for key, one in self.gpus.items():
            number = next(place.value for place in states.GPU if place.text == self.state(one))
            found[cell("GPUs", "State", gpu_id=key)] = number
            if key in self.held and self.held[key]["chute_name"]:
                found[cell("GPUs", "Chute", gpu_id=key)] = self.held[key]["chute_name"]
            if one["verified_at"]:
                found[cell("GPUs", "Verified since", gpu_id=key)] = self.at - seconds(one["verified_at"])
            if one["verification_error"]:
                found[cell("Verification errors", "Error", gpu_id=key)] = one["verification_error"]
                found[cell("Verification errors", "Verified", gpu_id=key)] = bool(one["verified_at"])
        return found

    def _servers(self) -> Expected:
        """Return what the table of servers has for each server and model, and the sums over servers."""
        found: Expected = {}
        lost: Counter[str] = Counter()
        for server_id, gpu in {(one["server_id"], one["gpu_identifier"]) for one in self.gpus.values()}:
            there = Counter(
                self.state(one)
                for one in self.gpus.values()
                if (one["server_id"], one["gpu_identifier"]) == (server_id, gpu)
            )
            row = {"server_id": server_id, "gpu": gpu}
            found[cell("Servers", "GPUs", **row)] = there.total()
            for state, column in (("starting", "Starting"), ("idle", "Idle"), ("unverified", "Unverified")):
                if there[state]:
                    found[cell("Servers", column, **row)] = there[state]
            if there["earning"] + there["disabled"]:
                found[cell("Servers", "Earning", **row)] = there["earning"] + there["disabled"]
            lost[gpu] += there["idle"] + there["unverified"]
        return found | {
            Place("GPUs that earn nothing, by model", gpu): number for gpu, number in lost.items() if number
        }

    def instances_board(self) -> Expected:
        count = Counter(map(self.instance_state, self.instances))
        ages = sorted(self.at - seconds(one["created_at"]) for one in self.instances)
        middle = len(ages) // 2
        public = [one for one in self.instances if one["active"] and not one["billed_to"]]
        starts = [seconds(one["activated_at"]) - seconds(one["created_at"]) for one in self.instances if one["active"]]
        platform = [one for one in self.api["active_instances"] if one["miner_hotkey"] in self.watched]
        found: Expected = {
            Place("Active"): count["active"],
            Place("Starting"): count["starting"],
            Place("Disabled"): count["disabled"],
            Place("Not secured"): self._not_secured(public),
            Place("Age of instances", "oldest"): ages[-1],
            Place("Age of instances", "median"): (ages[middle] + ages[~middle]) / 2,
            Place("Age of instances", "newest"): ages[0],
            Place("Time to become active", "mean"): sum(starts) / len(starts),
            Place("Time to become active", "longest"): max(starts),
            Place("Compute units per second", "chosen miners"): sum(one["compute_multiplier"] for one in platform),
            Place("Active instances by the platform's count", "platform's list"): len(platform),
            Place("Active instances by the platform's count", "own lists"): count["active"],
        }
        found |= {Place("Instances by state", state): count[state] for state in ("active", "starting", "disabled")}
        purges = []
        for one in self.instances:
            row = {"instance_id": one["instance_id"]}
            chute = self.chutes[one["chute_id"]]
            state = self.instance_state(one)
            found[cell("Instances", "State", **row)] = next(
                each.value for each in states.INSTANCE if each.text == state
            )
            found[cell("Instances", "GPUs", **row)] = chute["node_selector"]["gpu_count"]
            found[cell("Instances", "Age", **row)] = self.at - seconds(one["created_at"])
            found[cell("Instances", "Multiplier", **row)] = one["compute_multiplier"]
            found[cell("Instances", "Target", **row)] = chute["effective_compute_multiplier"] / chute[
                "compute_multiplier_factors"
            ].get("bounty_boost", 1)
            if state == "starting":
                end = seconds(one["created_at"]) + 3.5 * HOUR
                if one["verified"]:
                    end = min(end, seconds(one["last_verified_at"]) + 3 * HOUR)
                purges.append(end - self.at)
                found[cell("Instances", "Purged in", **row)] = end - self.at
            if one["stop_billing_at"]:
                found[cell("Instances", "Ends in", **row)] = seconds(one["stop_billing_at"]) - self.at
        if purges:
            found[Place("Purge")] = min(purges)
        return found | self._history()

    def _not_secured(self, public: list[Row]) -> Any:
        """Return how many public instances are in their first hour. One may have left it since rules were evaluated."""
        left = [seconds(one["activated_at"]) + HOUR - self.at for one in public]
        now, before = sum(one > 0 for one in left), sum(one > -LATE for one in left)
        return pytest.approx((now + before) / 2, abs=(before - now) / 2)

    def _history(self) -> Expected:
        if self.kind is World.SICK:
            # There, the service answers that it has no history.
            return {}
        history = self.api["unique_chute_history"]
        return {
            Place("Active GPUs", "active"): history[-1]["total_count"],
            Place("Active GPUs", "distinct chutes"): history[-1]["count"],
            Place("Active GPUs", "7-day average"): sum(hour["total_count"] for hour in history) / len(history),
        }

    def market(self) -> Expected:
        waiting = [job for job in self.api["jobs"] if not (job["finished_at"] or job["miner_hotkey"])]
        scaled = self.api["utilization"]
        found: Expected = {
            Place("Idle GPUs"): self.states()["idle"],
            Place("Can grow"): sum(row["scale_allowance"] > 0 for row in scaled),
            Place("Bounties"): len(self.api["bounties"]),
            Place("Autoscaler"): self.at - max(seconds(row["timestamp"]) for row in scaled),
            Place("Jobs"): len(waiting),
            Place("Requests per hour", "completed"): sum(one["total_invocations"] for one in self.api["metrics"]),
            Place("Requests per hour", "rate limited"): sum(one["rate_limit_count"] for one in self.api["metrics"]),
        }
        found |= {
            Place("Jobs waiting, by method", method): number
            for method, number in Counter(job["method"] for job in waiting).items()
        }
        for row in scaled:
            chute = {"chute_id": row["chute_id"]}
            found[cell("Demand", "Allowance", **chute)] = row["scale_allowance"]
            if row["scale_allowance"]:
                found[cell("Demand", "Target", **chute)] = row["active_instance_count"] + row["scale_allowance"]
            found[cell("Demand", "Starting", **chute)] = row["total_instance_count"] - row["active_instance_count"]
            if row["instance_count"]:
                found[cell("Demand", "Utilisation, 15 m", **chute)] = row["utilization_15m"]
                found[cell("Demand", "Utilisation, 1 h", **chute)] = row["utilization_1h"]
                found[cell("Demand", "Rate limited, 15 m", **chute)] = row["rate_limit_ratio_15m"]
        for row in self.api["metrics"]:
            chute = {"chute_id": row["chute_id"]}
            found[cell("Demand", "Active", **chute)] = row["instance_count"]
            found[cell("Demand", "Requests, 1 h", **chute)] = row["total_invocations"]
            found[cell("Terms", "Base multiplier", **chute)] = row["compute_multiplier"]
            found[cell("Terms", "Users pay, 1 h", **chute)] = 3600 * row["per_second_price_usd"]
            found[cell("Terms", "Usage, 1 h", **chute)] = row["total_usage_usd"]
        for row in self.api["bounties"]:
            chute = {"chute_id": row["chute_id"]}
            # A factor of 1.1 for a new bounty, that grows to 1.5 within 3 hours.
            factor = 1.1 + 0.4 * min(row["seconds_elapsed"] / (3 * HOUR), 1)
            if row["chute_id"] in self.chutes:
                found[cell("Bounties", "Factor", **chute)] = factor
            found[cell("Bounties", "Age", **chute)] = self.at - row["created_at"]
        for row in waiting:
            job = {"job_id": row["job_id"]}
            found[cell("Jobs waiting", "Waits", **job)] = self.at - seconds(row["created_at"])
            found[cell("Jobs waiting", "Multiplier", **job)] = row["compute_multiplier"]
            found[cell("Jobs waiting", "Tried by", **job)] = len(row["miner_history"])
        for row in self.chutes.values():
            found |= self._terms(row)
        return found

    def _terms(self, row: Row) -> Expected:
        chute, selector = {"chute_id": row["chute_id"]}, row["node_selector"]
        pay = row["effective_compute_multiplier"] / selector["gpu_count"]
        found: Expected = {
            cell("Demand", "Units per GPU-second", **chute): pay,
            cell("Terms", "GPUs", **chute): selector["gpu_count"],
            cell("Terms", "Most instances", **chute): row["max_instances"],
            cell("Terms", "At once", **chute): row["concurrency"],
            cell("Terms", "Scales above", **chute): row["scaling_threshold"],
            cell("Terms", "Shuts down after", **chute): row["shutdown_after_seconds"],
            cell("Terms", "Discount", **chute): row["discount"],
        }
        if selector.get("min_vram_gb_per_gpu"):
            found[cell("Terms", "VRAM", **chute)] = selector["min_vram_gb_per_gpu"] * 1e9
        for factor, times in row["compute_multiplier_factors"].items():
            if factor != "base" and times != 1:
                found[cell("Factors", "Times", factor=factor, **chute)] = times
        return found

    def subnet(self) -> Expected:
        ordered = sorted(self.shares.values(), reverse=True)
        active: Counter[str] = Counter(one["miner_hotkey"] for one in self.api["active_instances"])
        found: Expected = {
            Place("Rank"): self.rank(self.scored),
            Place("Score"): self.shares[self.scored],
            Place("Miners"): len(self.shares),
            Place("Seats"): len(self.seats),
            Place("Top ten"): sum(ordered[:10]),
            Place("Score share beside quantiles of all", "chosen miner"): self.shares[self.scored],
            Place("Concentration", "Herfindahl index"): sum(share**2 for share in ordered),
            Place("Miners at work", "on the blacklist"): sum(
                bool(row["blacklist_reason"]) for row in self.seats.values()
            ),
            Place("Instances of all miners", "active now"): active.total(),
            Place("Instances of all miners", "past hour"): sum(self.work("past_hour", "total_instances").values()),
            Place("Compute units per hour of all miners", "all miners"): sum(
                self.work("past_hour", "compute_units").values()
            ),
            Place("Compute units per second", "all miners"): sum(
                one["compute_multiplier"] for one in self.api["active_instances"]
            ),
        }
        for panel in ("Leaderboard", "The miner and its neighbours"):
            for hotkey, share in self.shares.items():
                if panel != "Leaderboard" and abs(self.rank(hotkey) - self.rank(self.scored)) > 5:
                    continue
                found[cell(panel, "Rank", hotkey=hotkey)] = self.rank(hotkey)
                found[cell(panel, "Score share", hotkey=hotkey)] = share
                # The exporter shows 0 of watched miners only.
                if active[hotkey] or hotkey in self.watched:
                    found[cell(panel, "Instances", hotkey=hotkey)] = active[hotkey]
                for window, column in (("past_hour", "Units, 1 h"), ("past_day", "Units, 1 day")):
                    units = self.work(window, "compute_units")
                    if hotkey in units:
                        found[cell(panel, column, hotkey=hotkey)] = units[hotkey]
        for hotkey, row in self.seats.items():
            found[cell("Leaderboard", "Incentive", hotkey=hotkey)] = row["incentive"] / self.incentive
            found[cell("Leaderboard", "Blacklist", hotkey=hotkey)] = bool(row["blacklist_reason"])
            if row["blacklist_reason"]:
                found[cell("Blacklisted", "Reason", hotkey=hotkey)] = row["blacklist_reason"]
            found[cell("Stake and age of seats", "Stake", hotkey=hotkey)] = row["stake"]
            found[cell("Stake and age of seats", "TAO", hotkey=hotkey)] = row["tao_stake"]
            found[cell("Stake and age of seats", "Seat age", hotkey=hotkey)] = self.at - seconds(row["synced_at"])
        return found

    def exporter(self) -> Expected:
        """Return how many records each answer has. Stats have some for each window."""
        own = {"servers", "nodes", "inventory", "instances", "unique_chute_history"}
        lists = {
            "scores": self.api["scores"]["final_scores"],
            "servers": self.api["servers"]["servers"],
        }
        for feed in ("stats", "stats_per_chute"):
            lists[feed] = [row for window in self.api[feed].values() for row in window["instance_stats"]]
        found: Expected = {}
        # In the world of troubles, the list of images fails, and its last answer is too old.
        failing = {"images"} if self.kind is World.SICK else set()
        for feed in self.api.keys() - {"maintenance"} - failing:
            hotkey = {"hotkey": self.miner} if feed in own else {}
            row = {"feed": feed, "instance": self.newest[feed], **hotkey}
            found[cell("Feeds", "Records", **row)] = len(lists.get(feed, self.api[feed]))
        return found


BOARD_TRUTHS = {
    "chutes-overview": Truth.overview,
    "chutes-fleet": Truth.fleet,
    "chutes-instances": Truth.instances_board,
    "chutes-market": Truth.market,
    "chutes-subnet": Truth.subnet,
    "chutes-exporter": Truth.exporter,
}


def _about(place: Place, value: Any) -> Any:
    """Return what a shown value may equal."""
    if not isinstance(value, int | float):
        return value
    delay = DELAYS.get(place.name, DELAYS.get(place.panel))
    return pytest.approx(float(value), rel=GROWTH if place.name in GROWING else None, abs=delay)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
@pytest.mark.parametrize("kind", [World.HEALTHY, World.SICK])
def test_a_board_shows_what_the_api_answered(answers: dict[World, Answers], kind: World, board: Any) -> None:
    expected = BOARD_TRUTHS[board.uid](Truth(answers[kind], kind))
    shown = Shown(board.uid, answers[kind])
    differ = {
        place: (found, value)
        for place, value in expected.items()
        if (found := shown.value(place)) != _about(place, value)
    }
    assert differ == {}
    assert len(expected) >= AT_LEAST
