"""Values that the boards show, recomputed from the simulator's JSON without any code of the
package.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from grafana import states
from grafana.boards import BOARDS
from grafana.boards.fleet import SERVERS
from grafana.worlds import PAID, World
from tests.grafana.scenes import COSTS, END
from tests.test_recordings import waiting_jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.grafana.scenes import Answers

HOUR = 3600
DAY = 24 * HOUR
Row = dict[str, Any]
Place = tuple[str, str, frozenset[tuple[str, str]]]
"""The place of a value: a panel, a column or a line, and labels of a table's row."""
Expected = dict[Place, Any]
"""Numbers, texts, and what `pytest.approx` makes where a number depends on the moment."""


def at(panel: str, name: str = "", **row: str) -> Place:
    return panel, name, frozenset(row.items())


def seconds(text: str) -> float:
    """Return the Unix time of a text; without an offset, it is UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _legend(template: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)


def value(uid: str, answers: Answers, place: Place) -> float | str | None:
    """Return the value in a place of a board, or None where nothing is shown."""
    title, name, row = place
    (board,) = (board for board in BOARDS if board.uid == uid)
    (panel,) = (
        panel
        for panel in board.panels
        if (panel.title, panel.kind == "table") == (title, bool(row))
    )
    source = next((column.source for column in panel.columns if column.title == name), name)
    found: list[float | str] = []
    for query in panel.queries:
        for result in answers.now[query.expr]["result"]:
            labels, number = result["metric"], float(result["value"][1])
            legend = _legend(query.legend, labels)
            if row <= labels.items() and source in ("", legend, query.expr):
                found.append(number)
            elif row and row <= labels.items() and source in labels:
                found.append(labels[source])
    assert not name or len({*found}) <= 1, (place, found)
    return found[0] if found else None


def instance_state(instance: Row) -> str:
    return (
        "active" if instance["active"] else "disabled" if instance["activated_at"] else "starting"
    )


def state_of(gpu: Row, api: Mapping[str, Any]) -> str:
    """Return the state of a GPU."""
    for item in api["inventory"]:
        if item["gpu_id"] == gpu["uuid"]:
            shared = ("chute_id", "active", "last_verified_at")
            holders = [
                one for one in api["instances"] if all(one[name] == item[name] for name in shared)
            ]
            (state,) = {"active"} if item["active"] else set(map(instance_state, holders))
            return "earning" if state == "active" else state
    return "idle" if gpu["verified_at"] else "unverified"


def number_of(text: str, table: Iterable[states.State]) -> Any:
    """Return the number that stands for a state."""
    (number,) = (state.value for state in table if state.text == text)
    return number


class Truth:
    """Expected values of each board, by a method of its own, from the API's JSON."""

    def __init__(self, answers: Answers, kind: World) -> None:
        self.api = answers.api
        self.kind = kind
        self.watched = answers.hotkeys
        self.miner = answers.hotkeys[0]
        self.answers = answers
        self.seats: dict[str, Row] = {row["hotkey"]: row for row in self.api["metagraph"]}
        self.shares: dict[str, float] = {
            hotkey: share
            for hotkey, share in self.api["scores"]["final_scores"].items()
            if share is not None
        }
        self.incentive = sum(row["incentive"] for row in self.seats.values())
        self.owned: list[Row] = self.api["instances"]
        self.chutes: dict[str, Row] = {row["chute_id"]: row for row in self.api["chutes"]}
        self.gpus: list[Row] = self.api["nodes"]

    def rank(self, hotkey: str) -> int:
        return 1 + sum(share > self.shares[hotkey] for share in self.shares.values())

    def states(self, gpus: Iterable[Row]) -> Counter[str]:
        return Counter(state_of(gpu, self.api) for gpu in gpus)

    def heading(self) -> dict[str, float]:
        """Return each miner's share of the multipliers that earn now.

        Only own disabled instances are known. Without a key, it is the share of the past hour.
        """
        if self.kind is World.KEYLESS:
            rows = self.api["stats"]["past_hour"]["instance_stats"]
            units = {row["miner_hotkey"]: row["compute_units"] for row in rows}
            return {hotkey: value / sum(units.values()) for hotkey, value in units.items()}
        earning: Counter[str] = Counter()
        for one in self.api["active_instances"]:
            earning[one["miner_hotkey"]] += one["compute_multiplier"]
        for one in self.owned:
            if instance_state(one) == "disabled":
                earning[self.miner] += one["compute_multiplier"]
        scored = {
            hotkey: earning[hotkey]
            for hotkey, row in self.seats.items()
            if not row["blacklist_reason"]
        }
        return {hotkey: value / sum(scored.values()) for hotkey, value in scored.items()}

    def of_watched(self, numbers: Mapping[str, float]) -> float:
        return sum(numbers.get(hotkey, 0) for hotkey in self.watched)

    def by_chute(self, rows: Iterable[Row]) -> Counter[str]:
        units: Counter[str] = Counter()
        for row in rows:
            units[row["chute_id"]] += (
                row["compute_units"] if row["miner_hotkey"] in self.watched else 0
            )
        return +units

    def overview(self) -> Expected:
        heading = self.heading()
        incentives = {
            hotkey: row["incentive"] / self.incentive for hotkey, row in self.seats.items()
        }
        activated = [one["activated_at"] for one in self.owned if one["activated_at"]]
        found: Expected = {
            at("Verdict", "now"): number_of(
                "act now" if self.kind is World.SICK else "all is well", states.VERDICT
            ),
            at("Score share and heading", "score share"): self.of_watched(self.shares),
            at("Score share and heading", "heading"): self.of_watched(heading),
            at("New instances, 24 h", "became active"): sum(
                END - seconds(one) < DAY for one in activated
            ),
        }
        for window, name in (
            ("past_hour", "past hour"),
            ("past_day", "past day"),
            ("all", "past week"),
        ):
            rows = self.api["stats"][window]["instance_stats"]
            units = {row["miner_hotkey"]: row["compute_units"] for row in rows}
            found[at("Share of compute by window", name)] = self.of_watched(units) / sum(
                units.values()
            )
        count = self.states(self.gpus)
        for hotkey in self.watched:
            seat = self.seats.get(hotkey)
            found[at("Miners", "Seat", hotkey=hotkey)] = float(seat is not None)
            if hotkey in self.shares:
                found[at("Miners", "Score share", hotkey=hotkey)] = self.shares[hotkey]
                found[at("Miners", "Rank", hotkey=hotkey)] = self.rank(hotkey)
            if seat is not None:
                column = "Registrations before seat loss"
                found[at("Miners", column, hotkey=hotkey)] = self.before_loss().get(hotkey)
                if not seat["blacklist_reason"]:
                    found[at("Miners", "Heading", hotkey=hotkey)] = heading[hotkey]
        found[at("Miners", "Earning", hotkey=self.miner)] = count["earning"] + count["disabled"]
        for state in ("starting", "idle", "unverified"):
            found[at("Miners", state.capitalize(), hotkey=self.miner)] = count[state]
        found |= {at("GPUs by state", state.text): count[state.text] for state in states.GPU}
        for window, column in (("past_hour", "Units, 1 h"), ("past_day", "Units, 1 day")):
            chutes = self.by_chute(self.api["stats_per_chute"][window]["instance_stats"])
            found |= {
                at("Earnings by chute", column, chute_id=chute_id): units
                for chute_id, units in chutes.items()
            }
        found[at("Earned per day")] = self.of_watched(incentives) * self.pay()
        if self.kind is World.SICK:
            cost = 24 * sum(COSTS[gpu["gpu_identifier"]] for gpu in self.gpus)
            found[at("Estimated earnings and costs", "cost of GPUs")] = cost
        return found

    def pay(self) -> float:
        """Return the dollars that all miners are paid in a day, or 1 if these are unknown."""
        # 2952 alpha, which cost 0.071 TAO each.
        return 2952 * 0.071027253 * 431.17 if self.kind in PAID else 1

    def before_loss(self) -> dict[str, int]:
        """Return the registrations before the loss of each seat that is not new, if the exporter
        knows the chain.
        """
        old = [row for row in self.seats.values() if END - seconds(row["synced_at"]) >= DAY]
        old.sort(key=lambda row: (row["incentive"], seconds(row["synced_at"])))
        return {
            row["hotkey"]: place for place, row in enumerate(old[: -min(10, len(self.seats) // 8)])
        }

    def rent(self, gpus: Iterable[Row]) -> float:
        """Return the rent in a day of the GPUs that earn nothing."""
        lost = [gpu for gpu in gpus if state_of(gpu, self.api) in ("idle", "unverified")]
        return 24 * sum(COSTS[gpu["gpu_identifier"]] for gpu in lost)

    def fleet(self) -> Expected:
        count, total = self.states(self.gpus), len(self.gpus)
        servers: dict[str, Row] = {row["server_id"]: row for row in self.api["servers"]["servers"]}
        found: Expected = {
            at("All"): total,
            at("Earning"): (count["earning"] + count["disabled"]) / total,
            at("Idle"): count["idle"],
            at("Unverified"): count["unverified"],
            at("Servers", "servers"): len(servers),
            at("Servers", "in maintenance"): sum(
                row["maintenance_pending"] for row in servers.values()
            ),
        }
        # A state without GPUs has no line.
        found |= {at("GPUs by state", state): number for state, number in count.items()}
        if self.kind is World.SICK:
            found[at("Idle GPUs, next 24 h", "rent")] = self.rent(self.gpus)
        else:
            found[at("Idle GPUs, next 24 h")] = 0
        for server_id, gpu in {(one["server_id"], one["gpu_identifier"]) for one in self.gpus}:
            gpus = [
                one
                for one in self.gpus
                if (one["server_id"], one["gpu_identifier"]) == (server_id, gpu)
            ]
            there = self.states(gpus)
            row = {"server_id": server_id, "gpu": gpu}
            found[at(SERVERS, "All", **row)] = there.total()
            for state in states.GPU:
                found[at(SERVERS, state.text.capitalize(), **row)] = there[state.text]
            if self.kind is World.SICK:
                found[at(SERVERS, "Rent", **row)] = self.rent(gpus)
        for one in self.gpus:
            key = one["uuid"]
            found[at("GPUs", "State", gpu_id=key)] = number_of(state_of(one, self.api), states.GPU)
            name = servers[one["server_id"]]["name"]
            found[at("GPUs", "GPU", gpu_id=key)] = f"{name} #{one['device_index']}"
            if one["verification_error"]:
                found[at("GPUs", "Error", gpu_id=key)] = one["verification_error"]
                found[at(SERVERS, "Error", server_id=one["server_id"])] = one["verification_error"]
        return found

    def instances(self) -> Expected:
        count = Counter(map(instance_state, self.owned))
        ages = sorted(END - seconds(one["created_at"]) for one in self.owned)
        middle = len(ages) // 2
        public = [one for one in self.owned if one["active"] and not one["billed_to"]]
        starts = [
            seconds(one["activated_at"]) - seconds(one["created_at"])
            for one in self.owned
            if one["active"]
        ]
        found: Expected = {
            at("Active"): count["active"],
            at("Starting"): count["starting"],
            at("Disabled"): count["disabled"],
            at("Not secured"): sum(seconds(one["activated_at"]) + HOUR > END for one in public),
            at("Age of instances", "median"): (ages[middle] + ages[~middle]) / 2,
            at("Time to become active", "longest"): max(starts),
        }
        found |= {
            at("Instances by state", state): count[state]
            for state in ("active", "starting", "disabled")
        }
        for one in self.owned:
            row = {"instance_id": one["instance_id"]}
            chute = self.chutes[one["chute_id"]]
            state = instance_state(one)
            age = END - seconds(one["created_at"])
            shown = "starting over 1 h" if state == "starting" and age > HOUR else state
            found[at("Instances", "State", **row)] = number_of(shown, states.INSTANCE)
            found[at("Instances", "GPUs", **row)] = chute["node_selector"]["gpu_count"]
            found[at("Instances", "Age", **row)] = age
            found[at("Instances", "Multiplier", **row)] = one["compute_multiplier"]
            later = chute["effective_compute_multiplier"] / chute["compute_multiplier_factors"].get(
                "bounty_boost", 1
            )
            differs = abs(later / one["compute_multiplier"] - 1) > 0.01
            found[at("Instances", "Later", **row)] = later if differs else None
            ends = {}
            if state == "starting":
                verified = (
                    seconds(one["last_verified_at"]) + 3 * HOUR if one["verified"] else math.inf
                )
                ends["purge"] = min(seconds(one["created_at"]) + 3.5 * HOUR, verified)
                found[at("Next purge")] = min(
                    ends["purge"] - END, found.get(at("Next purge"), math.inf)
                )
            if one in public and seconds(one["activated_at"]) + HOUR > END:
                ends["secured"] = seconds(one["activated_at"]) + HOUR
            if one["stop_billing_at"] and seconds(one["stop_billing_at"]) < END + 300:
                ends["end of billing"] = seconds(one["stop_billing_at"])
            deadline = min(ends, key=ends.__getitem__, default="none")
            found[at("Instances", "Deadline", **row)] = number_of(deadline, states.DEADLINE_KINDS)
            found[at("Instances", "In", **row)] = ends[deadline] - END if ends else None
        return found

    def market(self) -> Expected:
        scaled = self.api["utilization"]
        found: Expected = {
            at("Demand", "chutes with room"): sum(row["scale_allowance"] > 0 for row in scaled),
            at("Bounties"): len(self.api["bounties"]),
            at("Jobs"): len(waiting_jobs(self.api)),
            at("Requests per hour", "completed"): sum(
                one["total_invocations"] for one in self.api["metrics"]
            ),
            at("Requests per hour", "rate limited"): sum(
                one["rate_limit_count"] for one in self.api["metrics"]
            ),
        }
        for row in scaled:
            chute = {"chute_id": row["chute_id"]}
            found[at("Demand", "Room", **chute)] = row["scale_allowance"]
            if row["scale_allowance"]:
                found[at("Demand", "Wanted", **chute)] = (
                    row["active_instance_count"] + row["scale_allowance"]
                )
            if row["instance_count"]:
                found[at("Demand", "Utilisation, 15 m", **chute)] = row["utilization_15m"]
        for row in self.api["metrics"]:
            chute = {"chute_id": row["chute_id"]}
            found[at("Terms", "Users pay, 1 h", **chute)] = 3600 * row["per_second_price_usd"]
        for row in self.api["bounties"]:
            if row["chute_id"] in self.chutes:
                # A factor of 1.1 for a new bounty, that grows to 1.5 within 3 hours.
                factor = 1.1 + 0.4 * min((END - row["created_at"]) / (3 * HOUR), 1)
                found[at("Demand", "Bounty", chute_id=row["chute_id"])] = pytest.approx(
                    factor, abs=0.01
                )
        return found

    def in_line(self, places: Mapping[str, int]) -> Expected:
        """Return the seats that are lost before and after that of the miner."""
        found: Expected = {}
        mine = places.get(self.miner, math.inf)
        for hotkey, place in places.items():
            if abs(place - mine) <= 4:
                panel, row = "Neighbours in line for the seat", {"hotkey": hotkey}
                age = END - seconds(self.seats[hotkey]["synced_at"])
                found[at(panel, "Registrations", **row)] = place
                found[at(panel, "Seat age", **row)] = age
        return found

    def subnet(self) -> Expected:
        me = self.miner
        heading, mine = self.heading(), self.rank(me)
        gaps = [(share - self.shares[me]) * self.pay() for share in self.shares.values()]
        better, worse = [gap for gap in gaps if gap > 0], [-gap for gap in gaps if gap < 0]
        places = self.before_loss()
        stays = None if me in places else states.SAFE.value
        found: Expected = {
            at("Is the seat safe?", "Safe"): stays,
            # Nobody registered in the past day.
            at("Is the seat safe?", "Safe now: registrations before the loss"): places.get(me),
            at("To the next better"): min(better, default=None),
            at("To the next worse"): min(worse, default=None),
            at("Score share of the neighbours in rank", f"{me[:5]}…{me[-4:]}"): self.shares[me],
        }
        found |= self.in_line(places)
        for hotkey, share in self.shares.items():
            rank = self.rank(hotkey)
            if abs(rank - mine) > 4:
                continue
            seat, row = self.seats[hotkey], {"hotkey": hotkey}
            incentive = seat["incentive"] / self.incentive
            found[at("Leaderboard", "Rank", **row)] = rank
            found[at("Leaderboard", "Incentive", **row)] = incentive
            found[at("Leaderboard", "Seat age", **row)] = END - seconds(seat["synced_at"])
            found[at("Neighbours in rank", "Rank", **row)] = rank
            found[at("Neighbours in rank", "UID", **row)] = str(seat["node_id"])
            found[at("Neighbours in rank", "Coldkey", **row)] = seat["coldkey"]
            found[at("Neighbours in rank", "Score share", **row)] = share
            found[at("Neighbours in rank", "Heading", **row)] = heading[hotkey]
            change = "stays"
            if hotkey == me:
                change = "this miner"
            elif rank < mine and heading[hotkey] < heading[me]:
                change = "you pass it"
            elif rank > mine and heading[hotkey] > heading[me]:
                change = "passes you"
            code = value(
                "chutes-subnet", self.answers, at("Neighbours in rank", "Within a day", **row)
            )
            found[at("Neighbours in rank", "Within a day", **row)] = code
            assert [one.text for one in states.DIRECTION if one.value == code] == [change]
            if self.kind in PAID:
                column = at("Neighbours in rank", "USD a day", **row)
                found[column] = incentive * self.pay()
        for hotkey in self.watched:
            if hotkey in self.seats:
                is_blacklisted = bool(self.seats[hotkey]["blacklist_reason"])
                found[at("Leaderboard", "Blacklist", hotkey=hotkey)] = float(is_blacklisted)
        return found


@pytest.mark.parametrize(
    ("kind", "board"),
    [
        *itertools.product(
            (World.HEALTHY, World.SICK), ("overview", "fleet", "instances", "market", "subnet")
        ),
        (World.KEYLESS, "subnet"),
    ],
)
def test_a_board_shows_what_the_api_answered(
    answers: dict[World, Answers], kind: World, board: str
) -> None:
    expected: Expected = getattr(Truth(answers[kind], kind), board)()
    shown = {place: value(f"chutes-{board}", answers[kind], place) for place in expected}
    assert shown == pytest.approx(expected)
    assert len(expected) >= 10


def test_the_units_of_the_servers_are_those_of_the_statistics(
    answers: dict[World, Answers],
) -> None:
    found = answers[World.HEALTHY]
    servers = {gpu["server_id"]: gpu["gpu_identifier"] for gpu in found.api["nodes"]}

    def column(name: str) -> list[float]:
        rows = [
            at("Compute units by server, 30 days", name, server_id=one, gpu=gpu)
            for one, gpu in servers.items()
        ]
        return [
            float(number)
            for row in rows
            if (number := value("chutes-fleet", found, row)) is not None
        ]

    day = next(
        row
        for row in found.api["stats"]["past_day"]["instance_stats"]
        if row["miner_hotkey"] == found.hotkeys[0]
    )
    # The world has scrapes of a little more than a day.
    units = sum(
        units / days for units, days in zip(column("Units"), column("Days known"), strict=True)
    )
    assert len(column("Units")) == len(servers)
    assert sum(column("Share")) == pytest.approx(1)
    # The text of the panel says so.
    assert units == pytest.approx(day["compute_units"], rel=0.01)
