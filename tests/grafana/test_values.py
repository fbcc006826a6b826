"""Values that the boards show, compared with those that the JSON of the API gives without any code
of the package.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from grafana import states
from grafana.alerts import NEEDED
from grafana.boards import BOARDS
from grafana.boards.fleet import SERVERS
from grafana.worlds import PAID, World
from tests.grafana.scenes import COSTS, END
from tests.grafana.truth import (
    DAY,
    GPU_STATES,
    HOUR,
    Launches,
    Reports,
    Row,
    gpu_state,
    in_last,
    instance_state,
    is_measured,
    places,
    seconds,
    server_state,
    server_units,
    upgrade_order,
)
from tests.test_recordings import deadlines_of, later_of, waiting_jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from grafana.parts import Panel
    from tests.grafana.scenes import Answers

Place = tuple[str, str, frozenset[tuple[str, str]]]
"""The place of a value: a panel, a column or a line, and labels of a table's row."""
Expected = dict[Place, Any]
"""Numbers and texts, and None where nothing is shown."""


def at(panel: str, name: str = "", **row: str) -> Place:
    return panel, name, frozenset(row.items())


def rows(panel: str, label: str) -> Place:
    """Return the place of the values of a label, sorted: of all rows of a table."""
    return at(panel, f"#{label}")


def _legend(template: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)


def value(uid: str, answers: Answers, place: Place) -> Any:
    """Return what a place of a board shows, None for nothing."""
    title, name, row = place
    (board,) = (board for board in BOARDS if board.uid == uid)
    (panel,) = (panel for panel in board.panels if panel.title == title)
    source = next((column.source for column in panel.columns if column.title == name), name)
    found: list[float | str] = []
    for query in panel.queries:
        for result in answers.now[query.expr]["result"]:
            labels, number = result["metric"], float(result["value"][1])
            legend = _legend(query.legend, labels)
            if name.startswith("#"):
                found += [labels[label] for label in [name[1:]] if label in labels]
            elif row <= labels.items() and source in ("", legend, query.expr):
                found.append(number)
            elif row and row <= labels.items() and source in labels:
                found.append(labels[source])
    if name.startswith("#"):
        return sorted({*found}, key=str)
    assert not name or len({*found}) <= 1, (place, found)
    return found[0] if found else None


def number_of(text: str, table: Iterable[states.State]) -> Any:
    """Return the number that stands for a state."""
    (number,) = (state.value for state in table if state.text == text)
    return number


class Truth:
    """Expected values of each board, from the API's JSON."""

    def __init__(self, answers: Answers, kind: World) -> None:
        self.api = answers.api
        self.kind = kind
        self.answers = answers
        self.watched = answers.hotkeys
        self.miner = answers.hotkeys[0]
        self.has_key = kind is not World.KEYLESS
        self.is_sick = kind is World.SICK
        self.seats: dict[str, Row] = {row["hotkey"]: row for row in self.api["metagraph"]}
        self.shares: dict[str, float] = _shares(self.api)
        self.incentive = sum(row["incentive"] for row in self.seats.values())
        self.owned: list[Row] = self.api["instances"]
        self.chutes: dict[str, Row] = {row["chute_id"]: row for row in self.api["chutes"]}
        self.gpus: list[Row] = self.api["nodes"]
        self.servers: dict[str, Row] = {
            row["server_id"]: row for row in self.api["servers"]["servers"]
        }
        self.reports = Reports(answers.reports, self.miner)

    @cached_property
    def launches(self) -> Launches:
        return Launches(self.api)

    @cached_property
    def place(self) -> dict[str, tuple[str, str]]:
        return places(self.api)

    def rank(self, hotkey: str) -> int:
        return 1 + sum(share > self.shares[hotkey] for share in self.shares.values())

    def states(self, gpus: Iterable[Row]) -> Counter[str]:
        return Counter(gpu_state(gpu, self.api) for gpu in gpus)

    def units(self, window: str) -> Counter[str]:
        """Return the compute units of each miner in a window."""
        found: Counter[str] = Counter()
        for row in self.api["stats"][window]["instance_stats"]:
            found[row["miner_hotkey"]] += row["compute_units"]
        return found

    def heading(self) -> dict[str, float]:
        """Return each miner's share of the multipliers of active instances.

        Without a key, it is the share of the past hour.
        """
        if not self.has_key:
            units = self.units("past_hour")
            return {hotkey: value / sum(units.values()) for hotkey, value in units.items()}
        earning: Counter[str] = Counter()
        for one in self.api["active_instances"]:
            earning[one["miner_hotkey"]] += one["compute_multiplier"]
        scored = {
            hotkey: earning[hotkey]
            for hotkey, row in self.seats.items()
            if not row["blacklist_reason"]
        }
        return {hotkey: value / sum(scored.values()) for hotkey, value in scored.items()}

    def part_of_the_way(self, part: float) -> dict[str, float]:
        """Return a share between the score share and the heading of each miner with both."""
        return {
            hotkey: self.shares[hotkey] + part * (heading - self.shares[hotkey])
            for hotkey, heading in self.heading().items()
            if hotkey in self.shares
        }

    def of_watched(self, numbers: Mapping[str, float]) -> float:
        return sum(numbers.get(hotkey, 0) for hotkey in self.watched)

    def by_chute(self, window: str) -> Counter[str]:
        """Return the compute units of the watched miners by chute."""
        units: Counter[str] = Counter()
        for row in self.api["stats_per_chute"][window]["instance_stats"]:
            if row["miner_hotkey"] in self.watched:
                units[row["chute_id"]] += row["compute_units"]
        return +units

    def pay(self) -> float:
        """Return the dollars that all miners are paid in a day, or 1 if these are unknown."""
        # 2952 alpha, which cost 0.071 TAO each.
        return 2952 * 0.071027253 * self.api["fmv"]["tao"] if self.kind in PAID else 1

    def unit_usd(self) -> float:
        return self.pay() / sum(self.units("past_day").values())

    def before_loss(self) -> dict[str, int]:
        """Return the registrations before the loss of each seat that is not new."""
        old = [row for row in self.seats.values() if END - seconds(row["synced_at"]) >= DAY]
        old.sort(key=lambda row: (row["incentive"], seconds(row["synced_at"])))
        return {
            row["hotkey"]: place for place, row in enumerate(old[: -min(10, len(self.seats) // 8)])
        }

    def registrations(self) -> int:
        return sum(END - seconds(row["synced_at"]) < DAY for row in self.seats.values())

    def is_seat_safe(self, hotkeys: Iterable[str]) -> Expected:
        known = self.before_loss()
        first = min((known[hotkey] for hotkey in hotkeys if hotkey in known), default=None)
        pace = self.registrations()
        lasts = None if first is None or not pace else DAY * first / pace
        is_near = lasts is not None and lasts < 3 * DAY
        title = "Is the seat safe?"
        without_seat = sum(hotkey not in self.seats for hotkey in hotkeys)
        return {
            at(title, "In danger: lost within"): lasts if is_near else None,
            at(title, "Safe now: lost within"): None if is_near else lasts,
            at(title, "Safe now: registrations before the loss"): None if pace else first,
            at(title, "Safe"): states.SAFE.value if first is None else None,
            # Each seat that is watched is older than a day.
            at(title, "Immune until"): None,
            at(title, "Miners without a seat"): without_seat or None,
        }

    def rent(self, gpus: Iterable[Row]) -> float:
        """Return the rent in a day of the GPUs that earn nothing."""
        lost = [gpu for gpu in gpus if gpu_state(gpu, self.api) in ("idle", "unverified")]
        return 24 * sum(COSTS[gpu["gpu_identifier"]] for gpu in lost)

    def not_earned(self) -> Expected:
        title = "Not earned, next 24 h"
        day = DAY * self.launches.best() if self.has_key else None
        return {
            at(title, "idle GPUs"): day * self.unit_usd()
            if day is not None and self.is_sick
            else None,
            # `best_moves` compares what Market shows.
            at(title, "a day, later"): value(
                "chutes-market",
                self.answers,
                at("Best use of idle GPUs", "dollars a day, later"),
            ),
            at(title, "rent"): self.rent(self.gpus) if self.is_sick else None,
            at(title, "units; dollars: docs/money.md"): None if self.is_sick else day,
        }

    def lost(self, *, in_dollars: str = "dollars") -> Expected:
        """Return what ended instances lost in 24 hours."""
        title = "Lost in 24 h"
        units = sum(one.lost for one in self.reports.ends(24)) if self.has_key else None
        usd = None if units is None else units * self.unit_usd()
        return {
            at(title, in_dollars): usd if self.is_sick else None,
            # An exporter without a key has read a report with each scrape.
            at(title, "hours known of 24"): None if self.has_key else 8,
        }

    def past_counts(self, hours: float) -> list[Counter[str]]:
        """Return the GPUs by state at each scrape of the past hours."""
        return [
            Counter(
                gpu_state(gpu, self.answers.past[time]) for gpu in self.answers.past[time]["nodes"]
            )
            for time in in_last(hours, self.answers.past)
        ]

    def overview(self) -> Expected:
        heading, incentives = self.heading(), self.incentives()
        found: Expected = {
            at("Verdict", "now"): number_of(self.verdict(), states.VERDICT),
            at("Score share and heading", "score share"): self.of_watched(self.shares),
            at("Score share and heading", "heading"): self.of_watched(
                {hotkey: heading.get(hotkey, 0) for hotkey in self.watched}
            ),
        }
        # A watched miner on the blacklist has no score.
        next_day = self.pay() * self.of_watched(self.part_of_the_way(0.26))
        found[at("Next 24 h")] = next_day if self.kind in PAID else None
        found |= self.lost() | self.not_earned() | self.is_seat_safe(self.watched)
        found[at("Lost in 24 h", "units; dollars: docs/money.md")] = (
            sum(one.lost for one in self.reports.ends(24))
            if self.has_key and not self.is_sick
            else None
        )
        units = {
            name: self.units(window)
            for window, name in (
                ("past_hour", "past hour"),
                ("past_day", "past day"),
                ("all", "past week"),
            )
        }
        for name, of_miner in units.items():
            share = self.of_watched(of_miner) / sum(of_miner.values())
            found[at("Share of compute by window", name)] = share
        ranks = {
            one: 1 + sum(other > share for other in incentives.values())
            for one, share in incentives.items()
        }
        best = min(self.rank(hotkey) for hotkey in self.watched if hotkey in self.shares)
        found[at("Rank by score and by incentive", "by score")] = best
        found[at("Rank by score and by incentive", "by incentive")] = min(
            ranks[hotkey] for hotkey in self.watched if hotkey in ranks
        )
        return found | self.miners(heading) | self.since_yesterday(best) | self.money(incentives)

    def incentives(self) -> dict[str, float]:
        return {hotkey: row["incentive"] / self.incentive for hotkey, row in self.seats.items()}

    def verdict(self) -> str:
        if self.is_sick:
            return "act now"
        return "all is well" if self.has_key else "no key: GPUs unknown"

    def miners(self, heading: Mapping[str, float]) -> Expected:
        found: Expected = {rows("Miners", "hotkey"): sorted(self.watched)}
        known = self.before_loss()
        for hotkey in self.watched:
            seat = self.seats.get(hotkey)
            may_score = seat is not None and not seat["blacklist_reason"]
            rank = self.rank(hotkey) if hotkey in self.shares else None
            found |= {
                at("Miners", "Miner", hotkey=hotkey): _short(hotkey),
                at("Miners", "Seat", hotkey=hotkey): float(seat is not None),
                at("Miners", "Score share", hotkey=hotkey): self.shares.get(hotkey),
                at("Miners", "Rank", hotkey=hotkey): rank,
                at("Miners", "Registrations before seat loss", hotkey=hotkey): known.get(hotkey),
                at("Miners", "Heading", hotkey=hotkey): heading[hotkey] if may_score else None,
            }
        count = self.states(self.gpus) if self.has_key else {}
        earning = count["earning"] + count["disabled"] if count else None
        found[at("Miners", "Earning", hotkey=self.miner)] = earning
        for state in ("starting", "idle", "unverified"):
            number = count[state] if count else None
            found[at("Miners", state.capitalize(), hotkey=self.miner)] = number
        for state in GPU_STATES:
            found[at("GPUs by state", state)] = count[state] if count else None
        found[rows("Earnings by chute", "chute_id")] = sorted(self.by_chute("past_day"))
        for window, column in (("past_hour", "Units, 1 h"), ("past_day", "Units, 1 day")):
            for chute_id, units in self.by_chute(window).items():
                found[at("Earnings by chute", column, chute_id=chute_id)] = units
        for chute_id in self.by_chute("past_day"):
            name = self.chutes[chute_id]["name"] if self.has_key else None
            found[at("Earnings by chute", "Chute", chute_id=chute_id)] = name
        return found

    def since_yesterday(self, best: int) -> Expected:
        names = ["New instances, 24 h", "Ended instances, 24 h", "GPUs since yesterday"]
        if not self.has_key:
            return dict.fromkeys(map(at, names))
        past = self.answers.past[END - DAY]
        shares = _shares(past)
        points = 100 * (self.of_watched(self.shares) - self.of_watched(shares))
        before = min(
            1 + sum(share > shares[hotkey] for share in shares.values())
            for hotkey in self.watched
            if hotkey in shares
        )
        earned, earns = (
            sum(gpu_state(gpu, api) in ("earning", "disabled") for gpu in api["nodes"])
            for api in (past, self.api)
        )
        activated = [one["activated_at"] for one in self.owned if one["activated_at"]]
        return {
            at("Score since yesterday", "points"): points,
            at("Rank since yesterday", "places"): before - best,
            at("GPUs since yesterday", "earning"): earns - earned,
            at("New instances, 24 h"): sum(END - seconds(one) < DAY for one in activated),
            at("Ended instances, 24 h"): len(self.reports.ends(24)),
        }

    def money(self, incentives: Mapping[str, float]) -> Expected:
        earned, title = self.of_watched(incentives) * self.pay(), "Estimated earnings and costs"
        is_paid = self.kind in PAID
        found: Expected = {
            at("Earned per day", "dollars"): earned if is_paid else None,
            at("Earned per day", "of emission; dollars: docs/money.md"): None
            if is_paid
            else earned,
            at(title, "earnings"): earned if is_paid else None,
        }
        cost = 24 * sum(COSTS[gpu["gpu_identifier"]] for gpu in self.gpus) if self.is_sick else None
        rest = None if cost is None else earned - cost
        found |= {
            at("After rent"): rest,
            at(title, "after rent"): rest,
            at(title, "cost of GPUs"): cost,
        }
        counts = self.past_counts(24) if self.is_sick else []
        gpus = [count["earning"] + count["disabled"] for count in counts]
        # Prometheus 2 also counts the scrape a day ago.
        per_gpu = pytest.approx(earned / (sum(gpus) / len(gpus)), rel=0.005) if gpus else None
        line = f"{self.miner[:5]}…{self.miner[-4:]}"
        found[at("Estimated earnings per earning GPU", line)] = per_gpu
        return found

    def fleet(self) -> Expected:
        if not self.has_key:
            return {at(one): None for one in ("All", "Earning", "Idle", "Unverified")} | {
                rows(SERVERS, "server_id"): [],
                rows("GPUs", "gpu_id"): [],
            }
        count, total = self.states(self.gpus), len(self.gpus)
        found: Expected = {
            at("All"): total,
            at("Earning"): (count["earning"] + count["disabled"]) / total,
            at("Idle", "GPUs"): count["idle"],
            at("Idle", "of them in maintenance"): (
                sum(
                    gpu_state(gpu, self.api) == "idle"
                    for gpu in self.gpus
                    if self.launches.slots.get(gpu["server_id"], "none") != "none"
                )
                or None
            ),
            at("Unverified"): count["unverified"],
            at("Servers", "servers"): len(self.servers),
            at("Servers", "in a slot"): self.api["maintenance"]["current_slots"],
            rows(SERVERS, "server_id"): sorted(self.servers),
            rows("GPUs", "gpu_id"): sorted(gpu["uuid"] for gpu in self.gpus),
        }
        found |= {at("GPUs by state", state): count[state] for state in GPU_STATES}
        found |= self.not_earned() | self.maintenance()
        for server_id in self.servers:
            found |= self.server(server_id)
        for one in self.gpus:
            row = {"gpu_id": one["uuid"]}
            name = self.servers[one["server_id"]]["name"]
            found[at("GPUs", "State", **row)] = GPU_STATES.index(gpu_state(one, self.api))
            found[at("GPUs", "GPU", **row)] = f"{name} #{one['device_index']}"
            found[at("GPUs", "Model", **row)] = one["gpu_identifier"]
            found[at("GPUs", "Error", **row)] = one["verification_error"]
        return found

    def server(self, server_id: str) -> Expected:
        """Return the row of a server, and its line over time."""
        name, row = self.servers[server_id]["name"], {"server_id": server_id}
        gpus = [gpu for gpu in self.gpus if gpu["server_id"] == server_id]
        count = self.states(gpus)
        slot = self.launches.slots.get(server_id, "none")
        state, failed = server_state(server_id, slot, self.api), self.failed_starts()[server_id]
        failing = number_of("failing", states.SERVER)
        if state > failing and failed >= 3:
            state = failing
        waits, exact_to = self.not_all_earning(server_id)
        rent = self.rent(gpus) if self.is_sick else None
        now = server_units(self.api)
        units_now = sum(units for place, units in now.items() if place[0] == server_id)
        price = 24 * sum(COSTS[gpu["gpu_identifier"]] for gpu in gpus)
        profit = DAY * units_now * self.unit_usd() - price if self.is_sick else None
        found: Expected = {
            at(SERVERS, "Server", **row): name,
            at(SERVERS, "State", **row): state,
            at("Servers over time", name): state,
            at(SERVERS, "Not all earning for", **row): (
                pytest.approx(waits, abs=exact_to) if waits > 600 else None
            ),
            at(SERVERS, "Earning", **row): count["earning"] + count["disabled"],
            at(SERVERS, "Rent", **row): rent or None,
            at(SERVERS, "Profit", **row): profit,
            at(SERVERS, "Failed starts, 6 h", **row): failed or None,
        }
        for one in ("starting", "idle", "unverified"):
            found[at(SERVERS, one.capitalize(), **row)] = count[one]
        pasts = [server_units(past) for past in self.answers.past.values()]
        daily = (
            DAY
            * sum(
                sum(units[server_id, model] for model in {gpu["gpu_identifier"] for gpu in gpus})
                for units in pasts
            )
            / len(pasts)
        )
        table = "Compute units by server, 30 days"
        found[at(table, "Server", **row)] = name
        found[at(table, "Units per day", **row)] = daily
        found[at(table, "Units per GPU and day", **row)] = daily / len(gpus)
        # One in each hour, from a day before the end on.
        found[at(table, "Days known", **row)] = 25 / 24
        # That the pay is the best of all is compared elsewhere.
        moves = self.moves(server_id)
        found[at(SERVERS, "Units a day", **row)] = moves or None
        # What the GPUs of other servers would earn is not known.
        known_states = [number_of(text, states.SERVER) for text in ("idle", "disabled", "earning")]
        is_known = moves or state in known_states
        not_earned = moves * self.unit_usd() if is_known and self.is_sick else None
        found[at(SERVERS, "USD a day", **row)] = not_earned
        return found

    def moves(self, server_id: str) -> float:
        """Return what the launches pay on the first day that the Market board shows for a
        server.
        """
        pay = {offer.chute_id: offer for offer in self.launches.offers}
        total = 0.0
        for chute_id, offer in pay.items():
            row = {"server_id": server_id, "chute_id": chute_id}
            count = value("chutes-market", self.answers, at("Best move", "Instances", **row))
            total += DAY * offer.gpus * offer.first_day * (count or 0)
        return total

    def not_all_earning(self, server_id: str) -> tuple[float, float]:
        """Return the seconds since all GPUs of a server earned, or if they never did, since the
        first scrape of the past day, with the largest error.
        """
        earned, known = [], []
        for time in in_last(24, self.answers.past):
            past = self.answers.past[time]
            gpus = [gpu for gpu in past["nodes"] if gpu["server_id"] == server_id]
            known += [time] if gpus else []
            if gpus and {gpu_state(gpu, past) for gpu in gpus} <= {"earning", "disabled"}:
                earned.append(time)
        # Prometheus looks back 5 minutes, and Prometheus 2 a day at the scrape a day ago.
        return (END - max(earned), 300) if earned else (END - min(known), 1800)

    def failed_starts(self) -> Counter[str]:
        """Return the instances by server that a scrape of the past 6 hours saw, and none saw
        active, of those that are gone.
        """
        seen: dict[str, str] = {}
        was_active = set()
        for time in in_last(6, self.answers.past):
            past = self.answers.past[time]
            seen |= {one: server for one, (server, _) in places(past).items()}
            was_active |= {one["instance_id"] for one in past["instances"] if one["activated_at"]}
        now = {one["instance_id"] for one in self.owned}
        return Counter(server for one, server in seen.items() if one not in now | was_active)

    def maintenance(self) -> Expected:
        policy, slots = self.api["maintenance"], self.launches.slots
        left = seconds(policy["active_window"]["upgrade_window_end"]) - END
        limit = policy["active_window"]["max_concurrent_per_miner"]
        needed = [row["server_id"] for row in policy["servers"] if row["needs_upgrade"]]
        waiting = [server_id for server_id in needed if slots[server_id] == "none"]
        wait = len(waiting)
        unmeasured = {one for one in needed if not is_measured(one, self.api)}
        cannot = len(unmeasured.intersection(waiting))
        # Each upgrade takes 4 hours.
        rounds = left // (4 * HOUR) * limit - policy["current_slots"]
        late = max(0, wait - cannot - max(0, rounds))
        order = upgrade_order([one for one in waiting if one not in unmeasured], self.api)
        held = {server_id for server_id, slot in slots.items() if slot != "none"}
        found: Expected = {
            at("Upgrade window", "ends in"): left,
            at("Upgrade window", "slots used"): policy["current_slots"],
            at("Upgrade window", "slots in all"): limit,
            at("Upgrade window", "servers wait"): wait or None,
            at("Upgrade window", "will not make it"): late or None,
            at("Upgrade window", "cannot come back"): cannot or None,
            at("Upgrade window", "begins in"): None,
            rows("Maintenance", "server_id"): sorted({*needed, *held}),
        }
        earning = Counter(
            self.place[one["instance_id"]][0] for one in self.owned if one["activated_at"]
        )
        for server_id, place in order.items():
            if place == 1:
                name = f"earn on the next, {self.servers[server_id]['name']}"
                found[at("Upgrade window", name)] = earning[server_id]
        for server_id in {*needed, *held}:
            row = {"server_id": server_id}
            in_maintenance = 2 if earning[server_id] else 3
            step = {"none": None, "pending": 1, "maintenance": in_maintenance}[slots[server_id]]
            found |= {
                at("Maintenance", "Server", **row): self.servers[server_id]["name"],
                at("Maintenance", "Now", **row): step,
                at("Maintenance", "Order", **row): order.get(server_id),
                at("Maintenance", "Version", **row): 1 if server_id in needed else None,
                at("Maintenance", "Can come back", **row): (
                    int(server_id not in unmeasured) if server_id in needed else None
                ),
                at("Maintenance", "Earning instances", **row): earning[server_id],
            }
        return found

    def instances(self) -> Expected:
        found = self.lost() | self.ended() | self.failed()
        if not self.has_key:
            return found | {
                at("Starting", "all"): None,
                at("Next purge"): None,
                at("Not secured"): None,
                rows("All instances", "instance_id"): [],
                rows("Instances that need a decision", "chute"): [],
            }
        units = sum(one.lost for one in self.reports.ends(24))
        count = Counter(map(instance_state, self.owned))
        ages = {one["instance_id"]: END - seconds(one["created_at"]) for one in self.owned}
        ordered = sorted(ages.values())
        middle = len(ordered) // 2
        starting = [one for one in self.owned if instance_state(one) == "starting"]
        late = [one for one in starting if ages[one["instance_id"]] > HOUR]
        purges = [deadlines_of(one)["purge"] or math.inf for one in starting]
        starts = [
            seconds(one["activated_at"]) - seconds(one["created_at"])
            for one in self.owned
            if one["active"]
        ]
        score = self.api["scores"]["raw_values"][self.miner]["instance_compute_units"]
        title = "Time to become active"
        earning = sum(one["compute_multiplier"] for one in self.owned if one["active"])
        found |= {
            at("Lost in 24 h", "units"): units,
            at("Lost in 24 h", "of the score"): units / score,
            at("Lost in 24 h", "counted to"): 1000 * self.reports.end,
            at("Next purge", "in"): min(purges) - END if purges else None,
            at("Next purge", "starting"): None if purges else states.NONE_STARTING.value,
            at("Starting", "all"): len(starting),
            at("Starting", "over 1 h"): len(late),
            at("Not secured"): sum(not_secured(one) > END for one in self.owned),
            at("Age of instances", "oldest"): ordered[-1],
            at("Age of instances", "median"): (ordered[middle] + ordered[~middle]) / 2,
            at("Age of instances", "newest"): ordered[0],
            at(title, "mean"): sum(starts) / len(starts),
            at(title, "longest"): max(starts),
            at("Compute units per second", "active"): earning,
            at("Compute units per second", "disabled"): sum(
                one["compute_multiplier"] for one in self.owned if instance_state(one) == "disabled"
            ),
        }
        for state in ("active", "starting", "disabled"):
            found[at("Instances by state", state)] = count[state]
        undecided = {
            one["instance_id"]: 0 if one in late else 1
            for one in starting
            if one in late or self.launches.in_vain[one["instance_id"]]
        }
        title = "Instances that need a decision"
        found[rows(title, "instance_id")] = sorted(undecided)
        found[rows("All instances", "instance_id")] = sorted(ages)
        if not undecided:
            found[rows(title, "chute")] = ["nothing"]
        for one in self.owned:
            key = one["instance_id"]
            found |= self.instance(one, ages[key], late=one in late)
            if key in undecided:
                row = {"instance_id": key}
                found[at(title, "State", **row)] = undecided[key]
                vain = self.launches.in_vain[key]
                found[at(title, "What to do first", **row)] = 1 if vain else undecided[key]
                for column in ("Chute", "Server", "Age", "Purge in"):
                    found[at(title, column, **row)] = found[at("All instances", column, **row)]
        return found

    def instance(self, one: Row, age: float, *, late: bool) -> Expected:
        title, row = "All instances", {"instance_id": one["instance_id"]}
        state, chute = instance_state(one), self.chutes[one["chute_id"]]
        server_id, model = self.place[one["instance_id"]]
        purge, secured = deadlines_of(one).get("purge"), not_secured(one)
        later = later_of(one["chute_id"], model, self.api)
        shown = "starting over 1 h" if late else state
        return {
            at(title, "State", **row): number_of(shown, states.INSTANCE),
            at(title, "Chute", **row): chute["name"],
            at(title, "Server", **row): self.servers[server_id]["name"],
            at(title, "Model", **row): model,
            at(title, "Age", **row): age,
            at(title, "Purge in", **row): None if purge is None else purge - END,
            at(title, "Secured in", **row): secured - END if secured > END else None,
            at(title, "Units/s", **row): one["compute_multiplier"],
            at(title, "Later", **row): float(later),
            at(title, "Chute version", **row): float(
                one["active"] and one["version"] != chute["version"]
            ),
        }

    def ended(self) -> Expected:
        """Return the ends in the hour of the newest report, by reason."""
        title = "Ended in the hour to $report:00 UTC"
        counts = Counter((one.reason, one.outcome) for one in self.reports.ends(1))
        found: Expected = {
            at(title, "Instances", reason=reason, outcome=outcome): count
            for (reason, outcome), count in counts.items()
        }
        reasons = {reason for reason, _ in counts}
        found[rows(title, "reason")] = sorted(reasons) or ["nothing"]
        found[rows(title, "outcome")] = sorted({outcome for _, outcome in counts})
        found[rows(title, "why")] = sorted(reasons)
        return found

    def failed(self) -> Expected:
        """Return the ends of a day that lost their score or never had one, by chute."""
        title = "Failed by chute, 24 h"
        if not self.has_key:
            # Not each hour of the day is known.
            return {rows(title, "chute_id"): [], rows(title, "name"): []}
        failed = [one for one in self.reports.ends(24) if one.is_failure]
        found: Expected = {rows(title, "chute_id"): sorted({one.chute_id for one in failed})}
        for chute_id in {one.chute_id for one in failed}:
            row = {"chute_id": chute_id}
            of_chute = [one for one in failed if one.chute_id == chute_id]
            outcomes = Counter(one.outcome for one in of_chute)
            lost = sum(one.lost for one in of_chute)
            found |= {
                at(title, "Chute", **row): self.chutes[chute_id]["name"],
                at(title, "Lost their score", **row): outcomes["lost"] or None,
                at(title, "Failed starts", **row): outcomes["never_active"] or None,
                at(title, "Units", **row): lost or None,
                at(title, "USD", **row): lost * self.unit_usd() or None if self.is_sick else None,
            }
        return found

    def market(self) -> Expected:
        return self.demand() | (self.offers() if self.has_key else {}) | self.jobs()

    def jobs(self) -> Expected:
        title = "Jobs of the chosen miners"
        if not self.has_key:
            return {rows(title, "hotkey"): []}
        waiting = waiting_jobs(self.api)
        unfinished = [row for row in self.api["jobs"] if row["finished_at"] is None]
        found: Expected = {}
        for hotkey in self.watched:
            row = {"hotkey": hotkey}
            tried = sum(hotkey in job["miner_history"] for job in waiting)
            stuck = sum(job["miner_hotkey"] == hotkey for job in unfinished)
            found[at(title, "Tried", **row)] = tried
            found[at(title, "Stuck", **row)] = stuck
        return found

    def exported_chutes(self) -> set[str]:
        """Return the chutes that the watched miners run, ran in a day or could launch.

        Without a key, not each hour of the day is known.
        """
        found = {
            one["chute_id"]
            for one in self.api["active_instances"]
            if one["miner_hotkey"] in self.watched
        }
        for hotkey in self.watched:
            held = self.api["held_gpus"].get(hotkey, {"provisioned": []})["provisioned"]
            found |= {gpu["chute"]["chute_id"] for gpu in held}
        found |= {
            row["chute_id"]
            for row in self.api["stats_per_chute"]["past_day"]["instance_stats"]
            if row["miner_hotkey"] in self.watched
        }
        if self.has_key:
            found |= {
                key
                for key, chute in self.chutes.items()
                if not chute["disabled"] and self.launches.room(chute)[0] > 0
            }
            found |= {one.chute_id for one in self.reports.ends(24)}
        return found

    def demand(self) -> Expected:
        exported = self.exported_chutes()
        named = self.chutes if self.has_key else {}
        bounties = {
            row["chute_id"]: row["created_at"] + row["seconds_elapsed"] + row["time_remaining"]
            for row in self.api["bounties"]
            if row["chute_id"] in exported
        }
        found: Expected = {at("Bounties"): len({row["chute_id"] for row in self.api["bounties"]})}
        for chute_id in exported:
            name = named[chute_id]["name"] if named else None
            found[at("Demand", "Chute", chute_id=chute_id)] = name
            ends = bounties.get(chute_id)
            left = None if ends is None else ends - END
            found[at("Demand", "Bounty ends in", chute_id=chute_id)] = left
        shown = set(named).intersection(exported)
        for row in self.api["utilization"]:
            if row["chute_id"] not in exported:
                continue
            shown.add(row["chute_id"])
            chute = {"chute_id": row["chute_id"]}
            active, allowance = row["active_instance_count"], row["scale_allowance"]
            measured = row["instance_count"] > 0
            target = active + allowance if allowance else row["target_count"]
            starting = row["total_instance_count"] - active
            found |= {
                at("Demand", "Utilization, 15 m", **chute): row["utilization_15m"]
                if measured
                else None,
                at("Demand", "Rate limited", **chute): row["rate_limit_ratio_15m"]
                if measured
                else None,
                at("Demand", "Wanted", **chute): target,
                at("Demand", "Starting", **chute): starting,
            }
        for row in self.api["metrics"]:
            if row["chute_id"] in exported:
                shown.add(row["chute_id"])
                chute = {"chute_id": row["chute_id"]}
                found[at("Demand", "Active", **chute)] = row["instance_count"]
                found[at("Demand", "Requests, 1 h", **chute)] = row["total_invocations"]
        found[rows("Demand", "chute_id")] = sorted(shown | bounties.keys())
        return found

    def offers(self) -> Expected:
        """Return what can be launched, and what is refused."""
        launches, unit = self.launches, self.unit_usd()
        idle = self.states(self.gpus)["idle"]
        best = DAY * launches.best()
        title = "Launch now, pay per GPU"
        found: Expected = {
            at("Best use of idle GPUs", "units, first day"): best,
            at("Best use of idle GPUs", "dollars, first day"): best * unit
            if self.is_sick
            else None,
            at("Idle GPUs"): idle,
            rows(title, "chute_id"): sorted({offer.chute_id for offer in launches.offers}),
        }
        if not idle:
            found[rows(title, "chute")] = found[rows("Refused chutes", "reason")] = ["nothing"]
            found[rows("Best move", "server")] = ["nothing"]
        for gpu in {model for _, model in launches.free}:
            for reason in states_of_refusals(self.answers):
                row = {"gpu": gpu, "reason": reason}
                found[at("Refused chutes", "Chutes", **row)] = launches.refused[gpu, reason]
        assert {reason for _, reason in launches.refused} <= set(states_of_refusals(self.answers))
        failed = Counter(one.chute_id for one in self.reports.ends(24) if one.is_failure)
        bounties = {
            row["chute_id"]: row["created_at"] + row["seconds_elapsed"] + row["time_remaining"]
            for row in self.api["bounties"]
        }
        for offer in launches.offers:
            row = {"chute_id": offer.chute_id, "gpu": offer.gpu}
            ends = bounties.get(offer.chute_id)
            found |= {
                at(title, "Chute", **row): self.chutes[offer.chute_id]["name"],
                at(title, "Units/s, first day", **row): offer.first_day,
                at(title, "Later", **row): offer.later,
                at(title, "USD, first day", **row): DAY * offer.first_day * unit,
                at(title, "USD a day, later", **row): DAY * offer.later * unit,
                at(title, "GPUs", **row): offer.gpus,
                at(title, "Room", **row): offer.room,
                at(title, "Starting elsewhere", **row): offer.starting,
                at(title, "Failed here", **row): failed[offer.chute_id] or None,
                at(title, "Bounty ends in", **row): None if ends is None else ends - END,
            }
        pays = {offer.chute_id: offer.first_day for offer in launches.offers}
        for chute_id in sorted(pays, key=pays.__getitem__)[-5:]:
            line = at("Units/s per GPU of the best five chutes", self.chutes[chute_id]["name"])
            found[line] = pays[chute_id]
        return found | self.supply() | self.best_moves()

    def best_moves(self) -> Expected:
        """Return the pay of the launches that the board shows, if they are a best placement."""
        title, unit = "Best move", self.unit_usd()
        found: Expected = {}
        taken: Counter[tuple[str, str]] = Counter()
        launched: Counter[str] = Counter()
        first_day = later = 0.0
        offers = {(offer.chute_id, offer.gpu): offer for offer in self.launches.offers}
        for place, offer in itertools.product(self.launches.usable, offers.values()):
            row = {"server_id": place[0], "chute_id": offer.chute_id}
            count = value("chutes-market", self.answers, at(title, "Instances", **row))
            if count is None or offer.gpu != place[1]:
                continue
            gpus = count * offer.gpus
            taken[place] += gpus
            launched[offer.chute_id] += count
            first_day += DAY * gpus * offer.first_day
            later += DAY * gpus * offer.later
            found |= {
                at(title, "Server", **row): self.servers[place[0]]["name"],
                at(title, "Launch", **row): self.chutes[offer.chute_id]["name"],
                at(title, "Instances", **row): count,
                at(title, "GPU", **row): offer.gpu,
                at(title, "USD, first day", **row): DAY * gpus * offer.first_day * unit,
                at(title, "USD a day, later", **row): DAY * gpus * offer.later * unit,
            }
        assert all(taken[place] <= self.launches.usable[place] for place in taken)
        rooms = {offer.chute_id: offer.room for offer in offers.values()}
        assert all(launched[chute] <= rooms[chute] for chute in launched)
        assert first_day == pytest.approx(DAY * self.launches.best())
        # No launch is elsewhere.
        assert not launched.keys() & self.launches.hanging
        servers = {dict(place[2])["server_id"] for place in found}
        chutes = {dict(place[2])["chute_id"] for place in found}
        found[rows(title, "server_id")] = sorted(servers)
        found[rows(title, "chute_id")] = sorted(chutes)
        dollars = later * unit if self.is_sick else None
        found[at("Best use of idle GPUs", "dollars a day, later")] = dollars
        return found

    def supply(self) -> Expected:
        counts = Counter((gpu["gpu_identifier"], gpu_state(gpu, self.api)) for gpu in self.gpus)
        models = {gpu["gpu_identifier"] for gpu in self.gpus}
        found: Expected = {rows("Supply", "gpu"): sorted(models)}
        for gpu in models:
            everywhere = self.api["platform_gpus"][gpu]
            found |= {
                at("Supply", "Yours", gpu=gpu): sum(counts[gpu, state] for state in GPU_STATES),
                at("Supply", "Idle", gpu=gpu): counts[gpu, "idle"],
                at("Supply", "All", gpu=gpu): sum(everywhere.values()),
                at("Supply", "Unused, all", gpu=gpu): everywhere["idle"],
            }
        return found

    def in_line(self, places: Mapping[str, int]) -> Expected:
        """Return the seats that are lost before and after that of the miner."""
        title = "Neighbours in line for the seat"
        mine = places.get(self.miner)
        if mine is None:
            return {rows(title, "hotkey"): [], rows(title, "miner"): [states.NOT_IN_LINE.value]}
        near = {hotkey: place for hotkey, place in places.items() if abs(place - mine) <= 4}
        found: Expected = {rows(title, "hotkey"): sorted(near)}
        incentives = self.incentives()
        for hotkey, place in near.items():
            row = {"hotkey": hotkey}
            usd = incentives[hotkey] * self.pay() if self.kind in PAID else None
            found |= {
                at(title, "Registrations", **row): place,
                at(title, "Seat age", **row): END - seconds(self.seats[hotkey]["synced_at"]),
                at(title, "Immune", **row): 0,
                at(title, "USD a day", **row): usd,
            }
        return found

    def subnet(self) -> Expected:
        me = self.miner
        heading, mine = self.heading(), self.rank(me)
        end = states.NONE_BEYOND.value
        gaps = [(share - self.shares[me]) * self.pay() for share in self.shares.values()]
        better, worse = [gap for gap in gaps if gap > 0], [-gap for gap in gaps if gap < 0]
        unit = "dollars a day" if self.kind in PAID else "of all scores; dollars: docs/money.md"
        units = self.units("past_hour")
        found: Expected = {
            at("To the next better", unit): min(better, default=None),
            at("To the next worse", unit): min(worse, default=None),
            at("Score in 24 h", "about"): self.part_of_the_way(0.43)[me],
            at("Score in 24 h", "at least"): None,
            at("Score in 24 h", "at most"): None,
            at("To the next better", "this miner is"): end if mine == 1 else None,
            at("To the next worse", "this miner is"): end if mine == len(self.shares) else None,
            at("Seats, past day", "taken"): self.registrations(),
            # In rao, the price is 412,907,331.
            at("Seats, past day", "TAO"): 0.412907331,
            at("Score share of the neighbours in rank", _short(me)): self.shares[me],
            at("Miners", "with a score"): len(self.shares),
            at("Miners", "with compute units"): len(units),
            at("Miners", "blacklisted"): sum(
                bool(row["blacklist_reason"]) for row in self.seats.values()
            ),
            at("Compute units per hour of all miners"): sum(units.values()),
        }
        found |= self.is_seat_safe([me]) | self.in_line(self.before_loss()) | self.leaders()
        near = [hotkey for hotkey in self.shares if abs(self.rank(hotkey) - mine) <= 4]
        title = "Neighbours in rank"
        found[rows(title, "hotkey")] = sorted(near)
        overtaking = 0
        for hotkey in near:
            rank, seat, row = self.rank(hotkey), self.seats[hotkey], {"hotkey": hotkey}
            usd = self.incentives()[hotkey] * self.pay() if self.kind in PAID else None
            found |= {
                at(title, "Rank", **row): rank,
                at(title, "UID", **row): str(seat["node_id"]),
                at(title, "Score share", **row): self.shares[hotkey],
                at(title, "In 24 h", **row): self.part_of_the_way(0.43)[hotkey],
                at(title, "Heading", **row): heading[hotkey],
                at(title, "USD a day", **row): usd,
                at("Score share of the neighbours in rank", _short(hotkey)): self.shares[hotkey],
            }
            change = "stays"
            margin = heading[hotkey] / heading[me] - 1
            if hotkey == me:
                change = "this miner"
            elif abs(margin) < 0.05:
                change = "too close to say"
            elif rank < mine and margin < 0:
                change = "you may overtake"
            elif rank > mine and margin > 0:
                change = "may overtake you"
                overtaking += 1
            code = value("chutes-subnet", self.answers, at(title, "Overtaking", **row))
            # Several numbers stand for a miner that stays.
            found[at(title, "Overtaking", **row)] = code
            assert [one.text for one in states.OVERTAKING if one.value == code] == [change]
        # Nobody is behind the last one.
        found[at("May overtake this miner")] = overtaking if mine < len(self.shares) else None
        return found

    def neighbours(self, far: int) -> set[str]:
        """Return the watched miners, and those at most some places away in rank or in line."""
        ranks, found = {hotkey: self.rank(hotkey) for hotkey in self.shares}, set(self.watched)
        for line in (ranks, self.before_loss()):
            for one in line.keys() & self.watched:
                found |= {hotkey for hotkey, place in line.items() if abs(place - line[one]) <= far}
        return found

    def leaders(self) -> Expected:
        """Return all exported miners: the watched ones and their neighbours."""
        title = "Leaderboard"
        exported = set(value("chutes-subnet", self.answers, rows(title, "hotkey")))
        # A neighbour stays one up to 8 places, so that its series do not come and go.
        assert self.neighbours(4) <= exported <= self.neighbours(8)
        found: Expected = {}
        windows = {
            "Units, 1 h": self.units("past_hour"),
            "Units, 1 day": self.units("past_day"),
            "Units, 7 days": self.units("all"),
        }
        active = Counter(one["miner_hotkey"] for one in self.api["active_instances"])
        best = sorted(exported & self.shares.keys(), key=self.shares.__getitem__)[-10:]
        for hotkey in best:
            found[at("Score share, top 10", _short(hotkey))] = self.shares[hotkey]
        for hotkey in exported:
            seat, row = self.seats.get(hotkey), {"hotkey": hotkey}
            rank = self.rank(hotkey) if hotkey in self.shares else None
            found[at(title, "Rank", **row)] = rank
            found[at(title, "Score share", **row)] = self.shares.get(hotkey)
            for column, units in windows.items():
                # A watched miner without units has 0, and others nothing.
                has_units = hotkey in units or hotkey in self.watched
                found[at(title, column, **row)] = units[hotkey] if has_units else None
            if self.has_key:
                has_any = hotkey in active or hotkey in self.watched
                found[at(title, "Instances", **row)] = active[hotkey] if has_any else None
            if seat is not None:
                found |= {
                    at(title, "Incentive", **row): self.incentives()[hotkey],
                    at(title, "Stake", **row): seat["stake"],
                    at(title, "Seat age", **row): END - seconds(seat["synced_at"]),
                    at(title, "Blacklist", **row): float(bool(seat["blacklist_reason"])),
                }
        return found

    def exporter(self) -> Expected:
        """Return what the faults of the world make of the feeds."""
        found: Expected = {
            at("Trust the boards"): number_of("no" if self.is_sick else "yes", states.TRUST),
            at("Exporters down"): 0,
            at("Rules"): 1,
        }
        records = {
            "metagraph": len(self.seats),
            "bounties": len(self.api["bounties"]),
            "utilization": len(self.api["utilization"]),
        }
        if self.has_key:
            records |= {
                "active_instances": len(self.api["active_instances"]),
                "servers": len(self.servers),
                "nodes": len(self.gpus),
                "instances": len(self.owned),
                "chutes": len(self.chutes),
            }
        own = {"servers", "nodes", "instances", "jobs"}
        for feed, count in records.items():
            row = {"feed": feed} | ({"hotkey": self.miner} if feed in own else {})
            found[at("All feeds", "Records", **row)] = count
            found[at("All feeds", "State", **row)] = 1
            found[at("All feeds", "Rejected", **row)] = 0
            found[at("All feeds", "Age", **row)] = 0
        refused = ["instances", "inventory", "maintenance", "nodes", "servers", "thrash_cooldowns"]
        bad = {"images": ("unavailable", 0)}
        bad |= dict.fromkeys(refused, ("not_registered", 0))
        bad["unique_chute_history"] = ("doubted", 1)
        if not self.is_sick:
            bad = {}
        blind = {feed for feed, (_, state) in bad.items() if not state}
        found[at("Feeds without a full answer", "no data")] = len(blind)
        found[at("Feeds without a full answer", "old data")] = len(bad) - len(blind)
        found[at("Blind alerts")] = sum(not feeds.isdisjoint(blind) for feeds in NEEDED.values())
        found[rows("Bad feeds", "feed")] = sorted(bad) or ["nothing"]
        for feed, (reason, state) in bad.items():
            found |= {
                at("Bad feeds", "State", feed=feed): state,
                at("Bad feeds", "Reason", feed=feed): reason,
                at("Bad feeds", "What to do", feed=feed): reason,
                at("Bad feeds", "Blind alerts", feed=feed): None if state else feed,
                at("Feeds over time", feed): state,
                at("All feeds", "Reason", feed=feed): reason,
            }
        if self.is_sick:
            found[at("All feeds", "Doubt", feed="unique_chute_history")] = "no_history"
        exporters = 2 if self.kind is World.HEALTHY else 1
        targets = [f"exporter-{number + 1}:9109" for number in range(exporters)]
        found[rows("Exporters", "instance")] = targets
        for target in targets:
            found[at("Exporters", "State", instance=target)] = 1
            found[at("Exporters", "Configuration", instance=target)] = 1
        return found


def _shares(api: Mapping[str, Any]) -> dict[str, float]:
    """Return the score shares of the miners that have one."""
    shares = api["scores"]["final_scores"]
    return {hotkey: share for hotkey, share in shares.items() if share is not None}


def _short(hotkey: str) -> str:
    return f"{hotkey[:5]}…{hotkey[-4:]}"


def not_secured(instance: Row) -> float:
    """Return the time from which on an active public instance keeps its score, 0 for others."""
    if not instance["active"] or instance["billed_to"] is not None:
        return 0
    return seconds(instance["activated_at"]) + HOUR


def states_of_refusals(answers: Answers) -> list[str]:
    """Return the reasons that the table of refused chutes lists."""
    found = value("chutes-market", answers, rows("Refused chutes", "reason"))
    return [reason for reason in found if reason != "nothing"]


def is_equal(shown: Any, expected: Any) -> bool:
    if isinstance(shown, float) and isinstance(expected, int | float):
        return math.isclose(shown, expected, rel_tol=1e-6, abs_tol=1e-6)
    return bool(shown == expected)


BOARD_NAMES = ("overview", "fleet", "instances", "market", "subnet", "exporter")
KINDS = (World.HEALTHY, World.SICK, World.KEYLESS)


@pytest.mark.parametrize(("kind", "board"), [*itertools.product(KINDS, BOARD_NAMES)])
def test_a_board_shows_what_the_api_answered(
    answers: dict[World, Answers], kind: World, board: str
) -> None:
    expected: Expected = getattr(Truth(answers[kind], kind), board)()
    shown = {place: value(f"chutes-{board}", answers[kind], place) for place in expected}
    wrong = {
        place: (shown[place], wanted)
        for place, wanted in expected.items()
        if not is_equal(shown[place], wanted)
    }
    assert wrong == {}


def test_the_bars_count_what_ended_in_each_hour(answers: dict[World, Answers]) -> None:
    found = answers[World.SICK]
    reports = Reports(found.reports, found.hotkeys[0])
    (board,) = (board for board in BOARDS if board.uid == "chutes-instances")
    (panel,) = (panel for panel in board.panels if panel.title == "Ended per hour by reason")
    by_reason, failed = (found.over_time[query.expr]["result"] for query in panel.queries)
    hours = {float(time) for line in by_reason for time, _ in line["values"]}
    # Of the other hours, the sparse scrapes do not see the report within minutes of its end.
    assert hours == {reports.end}
    for hour in hours:
        counts = Counter(one.reason for one in reports.ends(1, hour))
        shown = {
            line["metric"]["reason"]: float(number)
            for line in by_reason
            for time, number in line["values"]
            if time == hour
        }
        assert shown == counts
        starts = sum(one.outcome == "never_active" for one in reports.ends(1, hour))
        assert [float(number) for line in failed for time, number in line["values"]] == [starts]


def test_an_alert_about_a_chute_shows_its_name(answers: dict[World, Answers]) -> None:
    found = answers[World.SICK]
    names = {row["chute_id"]: row["name"] for row in found.api["chutes"]}
    ends = Reports(found.reports, found.hotkeys[0]).ends(6)
    failed = Counter(one.chute_id for one in ends if one.is_failure)
    expected = sorted(names[chute_id] for chute_id, count in failed.items() if count >= 3)
    (board,) = (board for board in BOARDS if board.uid == "chutes-overview")
    (panel,) = (panel for panel in board.panels if panel.title == "What is wrong")
    severities, *_ = (found.now[query.expr]["result"] for query in panel.queries)
    places = [row["metric"] for row in severities]
    assert expected
    assert expected == sorted(
        labels["place"] for labels in places if labels["alertname"] == "ChutesChuteFails"
    )


OWN = "the exporter's own, which tests/page compares"
SEAT = "no watched seat has that end"
NOT_COMPARED = {
    "chutes-overview: Verdict": "tests/grafana/test_worlds.py compares the alerts",
    "chutes-overview: What is wrong": "tests/grafana/test_worlds.py compares the alerts",
    "chutes-overview: Is the seat safe?: Immune until": SEAT,
    "chutes-overview: Is the seat safe?: Safe now: lost within": SEAT,
    f"chutes-fleet: {SERVERS}: Cause": "tests/grafana/test_worlds.py compares the alerts",
    f"chutes-fleet: {SERVERS}: What to do first": "it is a text for the cause",
    "chutes-market: Switch": "tests/commands/test_advise_switch.py compares the page",
    "chutes-fleet: Upgrade window: begins in": "tests/prometheus/test_boards.py announces a window",
    "chutes-fleet: GPU utilization": "no simulated world has NVIDIA's exporter",
    "chutes-fleet: GPU temperature": "no simulated world has NVIDIA's exporter",
    "chutes-fleet: XID errors": "no simulated world has NVIDIA's exporter",
    "chutes-instances: Ended per hour by reason": "a test of its own compares the bars",
    "chutes-subnet: Is the seat safe?: Immune until": SEAT,
    "chutes-subnet: Is the seat safe?: Safe now: lost within": SEAT,
    "chutes-subnet: Is the seat safe?: In danger": SEAT,
    "chutes-subnet: Is the seat safe?: Miners without a seat": SEAT,
    "chutes-subnet: Score in 24 h: at": "no world has 15 days; tests/prometheus compares them",
    "chutes-subnet: To the next better: of all scores; dollars: docs/money.md": (
        "without dollars, the miner is the best"
    ),
    "chutes-exporter: Bad feeds: Age": OWN,
    "chutes-exporter: All feeds: Maximum age": OWN,
    "chutes-exporter: All feeds: Share of maximum": OWN,
    "chutes-exporter: All feeds: Exporter": OWN,
    **{
        f"chutes-exporter: Exporters: {column}": OWN
        for column in (
            *("Clock offset", "Job", "Memory", "Python", "Requests, 1 h", "Scrape time"),
            *("Series of limit", "Version"),
        )
    },
    **{
        f"chutes-exporter: {panel}: ": OWN
        for panel in (
            *("Age of answers", "Bytes per hour by endpoint", "CPU time", "Memory"),
            *("Collectors without fresh answers", "Rejected records per hour", "Series"),
            *("Requests per hour by endpoint", "Requests per hour by result", "Scrape time"),
            "Response time, 90th percentile",
        )
    },
}
"""What is not compared, by board, panel and column, with the reason."""


def names_of(panel: Panel) -> dict[str, str]:
    """Return the columns or lines of a panel, with the places that compare them.

    A line for each series is compared if one of them is. A column with a label is compared by the
    values of all rows, or because rows are found by it.
    """
    if panel.kind == "table":
        found = {}
        for column in panel.columns:
            # A short hotkey stands beside the hotkey.
            if column.title not in ("", "Miner"):
                found[column.title] = column.title if column.queries else f"#{column.source}"
        return found
    several = "{{" in panel.queries[0].legend or len(panel.queries) == 1
    return {query.legend: "" if several else query.legend for query in panel.queries}


def _has_legend(name: str, template: str) -> bool:
    """Return whether a template of a legend with labels makes a name."""
    pattern = re.sub(r"\\\{\\\{\w+\\\}\\\}", ".+", re.escape(template))
    return "{{" in template and re.fullmatch(pattern, name) is not None


def test_every_value_of_a_board_is_compared_in_a_world(answers: dict[World, Answers]) -> None:
    compared: dict[tuple[str, str], set[str]] = {}
    for kind, board in itertools.product(KINDS, BOARD_NAMES):
        uid = f"chutes-{board}"
        for place in getattr(Truth(answers[kind], kind), board)():
            # What no world shows is not compared.
            if value(uid, answers[kind], place) is not None:
                names = {place[1], *(f"#{label}" for label, _ in place[2])}
                compared.setdefault((uid, place[0]), set()).update(names)
    missing = set()
    for one in BOARDS:
        for panel in one.panels:
            names = compared.get((one.uid, panel.title), set())
            for name, known in names_of(panel).items():
                is_known = name in names or (known in names if known else bool(names))
                is_known = is_known or any(_has_legend(shown, name) for shown in names)
                if not is_known:
                    missing.add(f"{one.uid}: {panel.title}: {name}")
    unlisted = {name for name in missing if not name.startswith(tuple(NOT_COMPARED))}
    assert unlisted == set()
    assert {
        known for known in NOT_COMPARED if not any(name.startswith(known) for name in missing)
    } == set()
