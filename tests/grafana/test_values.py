"""Values that the boards show, compared with those that the JSON of the API gives without any code
of the package.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
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
    is_earning,
    is_measured,
    places,
    seconds,
    server_state,
    units_of_server,
    upgrade_order,
)
from tests.test_recordings import deadlines_of, later_of, waiting_jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from grafana.parts import Panel, Query
    from tests.grafana.scenes import Answers
    from tests.grafana.truth import Ended, Launchable


@dataclass(frozen=True)
class Place:
    """The place of a value: a panel, a column or a line, and labels of a table's row."""

    panel: str
    name: str
    row: frozenset[tuple[str, str]]


Expected = dict[Place, Any]
"""Numbers and texts, and None where nothing is shown."""


def at(panel: str, name: str = "", **row: str) -> Place:
    return Place(panel, name, frozenset(row.items()))


def label_of_rows(panel: str, label: str) -> Place:
    """Return the place of the values of a label, sorted: of all rows of a table."""
    return at(panel, f"#{label}")


def _legend(template: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)


def panel_of(uid: str, title: str) -> Panel:
    (board,) = (board for board in BOARDS if board.uid == uid)
    (panel,) = (panel for panel in board.panels if panel.title == title)
    return panel


def value(uid: str, answers: Answers, place: Place) -> Any:
    """Return what a place of a board shows, None for nothing."""
    panel = panel_of(uid, place.panel)
    if place.name.startswith("#"):
        return _values_of_label(place.name[1:], panel, answers)
    sources = [column.source for column in panel.columns if column.title == place.name]
    source = sources[0] if sources else place.name
    found = []
    for query in panel.queries:
        for result in answers.now[query.expr]["result"]:
            shown = _shown(query, result, source, place.row)
            if shown is not None:
                found.append(shown)
    assert not place.name or len({*found}) <= 1, (place, found)
    return found[0] if found else None


def _values_of_label(label: str, panel: Panel, answers: Answers) -> list[str]:
    found = set()
    for query in panel.queries:
        for result in answers.now[query.expr]["result"]:
            if label in result["metric"]:
                found.add(result["metric"][label])
    return sorted(found)


def _shown(
    query: Query, result: Mapping[str, Any], source: str, row: frozenset[tuple[str, str]]
) -> float | str | None:
    """Return what a result of a query shows in a row of a table, or in a line of a graph.

    None if it belongs to another row, column or line.
    """
    labels: Mapping[str, str] = result["metric"]
    if not row <= labels.items():
        return None
    if source in ("", query.expr, _legend(query.legend, labels)):
        return float(result["value"][1])
    # A column with a text shows a label.
    return labels.get(source) if row else None


def number_of(text: str, table: Iterable[states.State]) -> Any:
    """Return the number that stands for a state."""
    (number,) = (state.value for state in table if state.text == text)
    return number


@dataclass(frozen=True)
class Move:
    """Instances of an offer that a board says to launch on a server."""

    server_id: str
    offer: Launchable
    instances: int

    @property
    def gpus(self) -> int:
        return self.instances * self.offer.gpus


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
    def place_of_instance(self) -> dict[str, tuple[str, str]]:
        return places(self.api)

    def rank(self, hotkey: str) -> int:
        return rank_in(self.shares, hotkey)

    def count_states(self, gpus: Iterable[Row]) -> Counter[str]:
        return Counter(gpu_state(gpu, self.api) for gpu in gpus)

    def units_by_miner(self, window: str) -> Counter[str]:
        """Return the compute units of each miner in a window."""
        found: Counter[str] = Counter()
        for row in self.api["stats"][window]["instance_stats"]:
            found[row["miner_hotkey"]] += row["compute_units"]
        return found

    def headings(self) -> dict[str, float]:
        """Return each miner's share of the multipliers of active instances.

        Without a key, it is the share of the past hour.
        """
        if not self.has_key:
            units = self.units_by_miner("past_hour")
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
            for hotkey, heading in self.headings().items()
            if hotkey in self.shares
        }

    def of_watched(self, numbers: Mapping[str, float]) -> float:
        return sum(numbers.get(hotkey, 0) for hotkey in self.watched)

    def units_by_chute(self, window: str) -> Counter[str]:
        """Return the compute units of the watched miners by chute."""
        units: Counter[str] = Counter()
        for row in self.api["stats_per_chute"][window]["instance_stats"]:
            if row["miner_hotkey"] in self.watched:
                units[row["chute_id"]] += row["compute_units"]
        return +units

    def usd_of_all_miners(self) -> float:
        """Return the dollars that all miners are paid in a day, or 1 if these are unknown."""
        # 2952 alpha, which cost 0.071 TAO each.
        return 2952 * 0.071027253 * self.api["fmv"]["tao"] if self.kind in PAID else 1

    def unit_usd(self) -> float:
        return self.usd_of_all_miners() / sum(self.units_by_miner("past_day").values())

    def registrations_before_loss(self) -> dict[str, int]:
        """Return the registrations before the loss of each seat that is not new."""
        old = [row for row in self.seats.values() if END - seconds(row["synced_at"]) >= DAY]
        old.sort(key=lambda row: (row["incentive"], seconds(row["synced_at"])))
        # The best ones are never lost.
        in_line = old[: -min(10, len(self.seats) // 8)]
        return {row["hotkey"]: place for place, row in enumerate(in_line)}

    def registrations_of_a_day(self) -> int:
        return sum(END - seconds(row["synced_at"]) < DAY for row in self.seats.values())

    def is_seat_safe(self, hotkeys: Iterable[str]) -> Expected:
        known = self.registrations_before_loss()
        in_line = [known[hotkey] for hotkey in hotkeys if hotkey in known]
        first = min(in_line, default=None)
        pace = self.registrations_of_a_day()
        title = "Is the seat safe?"
        found: Expected = {
            at(title, "In danger: lost within"): None,
            at(title, "Safe now: lost within"): None,
            at(title, "Safe now: registrations before the loss"): None if pace else first,
            at(title, "Safe"): None,
            # Each seat that is watched is older than a day.
            at(title, "Immune until"): None,
            at(title, "Miners without a seat"): None,
        }
        if first is None:
            found[at(title, "Safe")] = states.SAFE.value
        elif pace:
            lasts = DAY * first / pace
            verdict = "In danger" if lasts < 3 * DAY else "Safe now"
            found[at(title, f"{verdict}: lost within")] = lasts
        without_seat = [hotkey for hotkey in hotkeys if hotkey not in self.seats]
        if without_seat:
            found[at(title, "Miners without a seat")] = len(without_seat)
        return found

    def rent_of_idle(self, gpus: Iterable[Row]) -> float:
        """Return the rent in a day of the GPUs that earn nothing."""
        lost = [gpu for gpu in gpus if gpu_state(gpu, self.api) in ("idle", "unverified")]
        return 24 * sum(COSTS[gpu["gpu_identifier"]] for gpu in lost)

    def not_earned(self) -> Expected:
        """Return what the idle GPUs could earn, in dollars only with costs of GPUs."""
        title = "Not earned, next 24 h"
        units = DAY * self.launches.best() if self.has_key else None
        usd = rent = None
        if self.is_sick and units is not None:
            usd = units * self.unit_usd()
            rent = self.rent_of_idle(self.gpus)
        # `best_moves` compares what Market shows.
        later = at("Best use of idle GPUs", "dollars a day, later")
        return {
            at(title, "idle GPUs"): usd,
            at(title, "a day, later"): value("chutes-market", self.answers, later),
            at(title, "rent"): rent,
            at(title, "units; dollars: docs/money.md"): None if self.is_sick else units,
        }

    def lost(self) -> Expected:
        """Return what ended instances lost in 24 hours."""
        title = "Lost in 24 h"
        units = sum(one.lost for one in self.reports.ends(24)) if self.has_key else None
        usd = None if units is None else units * self.unit_usd()
        return {
            at(title, "dollars"): usd if self.is_sick else None,
            # An exporter without a key has read a report with each scrape.
            at(title, "hours known of 24"): None if self.has_key else 8,
        }

    def past_counts(self, hours: float) -> list[Counter[str]]:
        """Return the GPUs by state at each scrape of the past hours."""
        counts = []
        for time in in_last(hours, self.answers.past):
            past = self.answers.past[time]
            counts.append(Counter(gpu_state(gpu, past) for gpu in past["nodes"]))
        return counts

    def overview(self) -> Expected:
        heading, incentives = self.headings(), self.incentives()
        best = min(self.rank(hotkey) for hotkey in self.watched if hotkey in self.shares)
        ranks = [rank_in(incentives, hotkey) for hotkey in self.watched if hotkey in incentives]
        found: Expected = {
            at("Verdict", "now"): number_of(self.verdict(), states.VERDICT),
            at("Score share and heading", "score share"): self.of_watched(self.shares),
            at("Score share and heading", "heading"): self.of_watched(heading),
            at("Rank by score and by incentive", "by score"): best,
            at("Rank by score and by incentive", "by incentive"): min(ranks),
            at("Next 24 h"): None,
        }
        if self.kind in PAID:
            # A watched miner on the blacklist has no score.
            share = self.of_watched(self.part_of_the_way(0.26))
            found[at("Next 24 h")] = self.usd_of_all_miners() * share
        windows = {"past hour": "past_hour", "past day": "past_day", "past week": "all"}
        for name, window in windows.items():
            units = self.units_by_miner(window)
            share = self.of_watched(units) / sum(units.values())
            found[at("Share of compute by window", name)] = share
        found |= (
            self.lost() | self.lost_units() | self.not_earned() | self.is_seat_safe(self.watched)
        )
        found |= self.miners(heading) | self.gpus_by_state() | self.earnings_by_chute()
        return found | self.since_yesterday(best) | self.money(incentives)

    def lost_units(self) -> Expected:
        """Return what ended instances lost, in units where dollars are not shown."""
        units = None
        if self.has_key and not self.is_sick:
            units = sum(one.lost for one in self.reports.ends(24))
        return {at("Lost in 24 h", "units; dollars: docs/money.md"): units}

    def incentives(self) -> dict[str, float]:
        return {hotkey: row["incentive"] / self.incentive for hotkey, row in self.seats.items()}

    def verdict(self) -> str:
        if self.is_sick:
            return "act now"
        return "all is well" if self.has_key else "no key: GPUs unknown"

    def miners(self, heading: Mapping[str, float]) -> Expected:
        title = "Miners"
        found: Expected = {label_of_rows(title, "hotkey"): sorted(self.watched)}
        known = self.registrations_before_loss()
        for hotkey in self.watched:
            row = {"hotkey": hotkey}
            seat = self.seats.get(hotkey)
            may_score = seat is not None and not seat["blacklist_reason"]
            rank = self.rank(hotkey) if hotkey in self.shares else None
            found |= {
                at(title, "Miner", **row): _short(hotkey),
                at(title, "Seat", **row): float(seat is not None),
                at(title, "Score share", **row): self.shares.get(hotkey),
                at(title, "Rank", **row): rank,
                at(title, "Registrations before seat loss", **row): known.get(hotkey),
                at(title, "Heading", **row): heading[hotkey] if may_score else None,
            }
        count = self.count_states(self.gpus)
        row = {"hotkey": self.miner}
        found |= {
            at(title, "Earning", **row): count["earning"] + count["disabled"],
            at(title, "Starting", **row): count["starting"],
            at(title, "Idle", **row): count["idle"],
            at(title, "Unverified", **row): count["unverified"],
        }
        if not self.has_key:
            for column in ("Earning", "Starting", "Idle", "Unverified"):
                found[at(title, column, **row)] = None
        return found

    def gpus_by_state(self) -> Expected:
        count = self.count_states(self.gpus)
        return {
            at("GPUs by state", state): count[state] if self.has_key else None
            for state in GPU_STATES
        }

    def earnings_by_chute(self) -> Expected:
        title = "Earnings by chute"
        found: Expected = {
            label_of_rows(title, "chute_id"): sorted(self.units_by_chute("past_day"))
        }
        for chute_id, units in self.units_by_chute("past_hour").items():
            found[at(title, "Units, 1 h", chute_id=chute_id)] = units
        for chute_id, units in self.units_by_chute("past_day").items():
            name = self.chutes[chute_id]["name"] if self.has_key else None
            found[at(title, "Units, 1 day", chute_id=chute_id)] = units
            found[at(title, "Chute", chute_id=chute_id)] = name
        return found

    def since_yesterday(self, best: int) -> Expected:
        names = ["New instances, 24 h", "Ended instances, 24 h", "GPUs since yesterday"]
        if not self.has_key:
            return dict.fromkeys(map(at, names))
        past = self.answers.past[END - DAY]
        shares = _shares(past)
        points = 100 * (self.of_watched(self.shares) - self.of_watched(shares))
        ranks = [rank_in(shares, hotkey) for hotkey in self.watched if hotkey in shares]
        earned = sum(is_earning(gpu, past) for gpu in past["nodes"])
        earns = sum(is_earning(gpu, self.api) for gpu in self.gpus)
        activated = [seconds(one["activated_at"]) for one in self.owned if one["activated_at"]]
        return {
            at("Score since yesterday", "points"): points,
            at("Rank since yesterday", "places"): min(ranks) - best,
            at("GPUs since yesterday", "earning"): earns - earned,
            at("New instances, 24 h"): sum(END - time < DAY for time in activated),
            at("Ended instances, 24 h"): len(self.reports.ends(24)),
        }

    def money(self, incentives: Mapping[str, float]) -> Expected:
        title = "Estimated earnings and costs"
        of_emission = at("Earned per day", "of emission; dollars: docs/money.md")
        earned = self.of_watched(incentives) * self.usd_of_all_miners()
        found: Expected = dict.fromkeys(
            [
                at("Earned per day", "dollars"),
                of_emission,
                at(title, "earnings"),
                at("After rent"),
                at(title, "after rent"),
                at(title, "cost of GPUs"),
                at("Estimated earnings per earning GPU", _short(self.miner)),
            ]
        )
        if self.kind in PAID:
            found[at("Earned per day", "dollars")] = earned
            found[at(title, "earnings")] = earned
        else:
            found[of_emission] = earned
        if self.is_sick:
            cost = 24 * sum(COSTS[gpu["gpu_identifier"]] for gpu in self.gpus)
            gpus = [count["earning"] + count["disabled"] for count in self.past_counts(24)]
            mean = sum(gpus) / len(gpus)
            found |= {
                at("After rent"): earned - cost,
                at(title, "after rent"): earned - cost,
                at(title, "cost of GPUs"): cost,
                # Prometheus 2 also counts the scrape a day ago.
                at("Estimated earnings per earning GPU", _short(self.miner)): pytest.approx(
                    earned / mean, rel=0.005
                ),
            }
        return found

    def fleet(self) -> Expected:
        if not self.has_key:
            found: Expected = {at(one): None for one in ("All", "Earning", "Idle", "Unverified")}
            return found | {
                label_of_rows(SERVERS, "server_id"): [],
                label_of_rows("GPUs", "gpu_id"): [],
            }
        count, total = self.count_states(self.gpus), len(self.gpus)
        in_slot = [gpu for gpu in self.gpus if self.slot_of(gpu["server_id"]) != "none"]
        found = {
            at("All"): total,
            at("Earning"): (count["earning"] + count["disabled"]) / total,
            at("Idle", "GPUs"): count["idle"],
            at("Idle", "of them in maintenance"): self.count_states(in_slot)["idle"] or None,
            at("Unverified"): count["unverified"],
            at("Servers", "servers"): len(self.servers),
            at("Servers", "in a slot"): self.api["maintenance"]["current_slots"],
            label_of_rows(SERVERS, "server_id"): sorted(self.servers),
        }
        found |= self.gpus_by_state() | self.each_gpu() | self.not_earned()
        found |= self.upgrade_window() | self.maintenance()
        for server_id in self.servers:
            found |= self.server(server_id) | self.server_in_30_days(server_id)
        return found

    def slot_of(self, server_id: str) -> str:
        """Return the upgrade slot of a server. A server without TEE has no maintenance."""
        slot: str = self.launches.slots.get(server_id, "none")
        return slot

    def each_gpu(self) -> Expected:
        found: Expected = {
            label_of_rows("GPUs", "gpu_id"): sorted(gpu["uuid"] for gpu in self.gpus)
        }
        for gpu in self.gpus:
            row = {"gpu_id": gpu["uuid"]}
            name = self.servers[gpu["server_id"]]["name"]
            found |= {
                at("GPUs", "State", **row): GPU_STATES.index(gpu_state(gpu, self.api)),
                at("GPUs", "GPU", **row): f"{name} #{gpu['device_index']}",
                at("GPUs", "Model", **row): gpu["gpu_identifier"],
                at("GPUs", "Error", **row): gpu["verification_error"],
            }
        return found

    def gpus_of(self, server_id: str) -> list[Row]:
        return [gpu for gpu in self.gpus if gpu["server_id"] == server_id]

    def server(self, server_id: str) -> Expected:
        """Return the row of a server, and its line over time."""
        name, row = self.servers[server_id]["name"], {"server_id": server_id}
        count = self.count_states(self.gpus_of(server_id))
        state, failed = self.state_of(server_id), self.failed_starts()[server_id]
        waits, exact_to = self.not_all_earning(server_id)
        # That the pay is the best of all is compared elsewhere.
        moves = self.moves(server_id)
        found: Expected = {
            at(SERVERS, "Server", **row): name,
            at(SERVERS, "State", **row): state,
            at("Servers over time", name): state,
            at(SERVERS, "Not all earning for", **row): None,
            at(SERVERS, "Earning", **row): count["earning"] + count["disabled"],
            at(SERVERS, "Starting", **row): count["starting"],
            at(SERVERS, "Idle", **row): count["idle"],
            at(SERVERS, "Unverified", **row): count["unverified"],
            at(SERVERS, "Failed starts, 6 h", **row): failed or None,
            at(SERVERS, "Units a day", **row): moves or None,
        }
        if waits > 600:
            exact = pytest.approx(waits, abs=exact_to)
            found[at(SERVERS, "Not all earning for", **row)] = exact
        return found | self.money_of_server(server_id, state, moves)

    def state_of(self, server_id: str) -> int:
        """Return the number of the state that a server shows."""
        state: int = server_state(server_id, self.slot_of(server_id), self.api)
        failing: int = number_of("failing", states.SERVER)
        if state > failing and self.failed_starts()[server_id] >= 3:
            return failing
        return state

    def money_of_server(self, server_id: str, state: int, moves: float) -> Expected:
        """Return what the row of a server shows in dollars, only with costs of GPUs.

        ``moves`` are the units that its idle GPUs could earn in a day.
        """
        columns = ("Rent", "Profit", "USD a day")
        rent, profit, not_earned = (at(SERVERS, column, server_id=server_id) for column in columns)
        found: Expected = dict.fromkeys((rent, profit, not_earned))
        if not self.is_sick:
            return found
        gpus = self.gpus_of(server_id)
        earned = DAY * self.unit_usd() * units_of_server(server_id, self.api)
        cost = 24 * sum(COSTS[gpu["gpu_identifier"]] for gpu in gpus)
        found[rent] = self.rent_of_idle(gpus) or None
        found[profit] = earned - cost
        # What the GPUs of other servers would earn is not known.
        known_states = [number_of(text, states.SERVER) for text in ("idle", "disabled", "earning")]
        if moves or state in known_states:
            found[not_earned] = moves * self.unit_usd()
        return found

    def server_in_30_days(self, server_id: str) -> Expected:
        title, row = "Compute units by server, 30 days", {"server_id": server_id}
        pasts = self.answers.past.values()
        daily = DAY * sum(units_of_server(server_id, past) for past in pasts) / len(pasts)
        return {
            at(title, "Server", **row): self.servers[server_id]["name"],
            at(title, "Units per day", **row): daily,
            at(title, "Units per GPU and day", **row): daily / len(self.gpus_of(server_id)),
            # One in each hour, from a day before the end on.
            at(title, "Days known", **row): 25 / 24,
        }

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
        known = []
        earned = []
        for time in in_last(24, self.answers.past):
            past = self.answers.past[time]
            gpus = [gpu for gpu in past["nodes"] if gpu["server_id"] == server_id]
            if gpus:
                known.append(time)
                if all(is_earning(gpu, past) for gpu in gpus):
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

    def waiting_servers(self) -> list[str]:
        """Return the servers that need an upgrade and hold no slot."""
        rows = self.api["maintenance"]["servers"]
        needed = [row["server_id"] for row in rows if row["needs_upgrade"]]
        return [server_id for server_id in needed if self.slot_of(server_id) == "none"]

    def upgrade_order(self) -> dict[str, int]:
        """Return the place in the order of upgrades of servers that wait and can come back."""
        waiting = self.waiting_servers()
        return upgrade_order([one for one in waiting if is_measured(one, self.api)], self.api)

    def earning_instances(self) -> Counter[str]:
        """Return the number of active and disabled instances on each server."""
        activated = [one["instance_id"] for one in self.owned if one["activated_at"]]
        return Counter(self.place_of_instance[instance_id][0] for instance_id in activated)

    def upgrade_window(self) -> Expected:
        title, policy = "Upgrade window", self.api["maintenance"]
        window = policy["active_window"]
        left = seconds(window["upgrade_window_end"]) - END
        waiting, order = self.waiting_servers(), self.upgrade_order()
        # Each upgrade takes 4 hours.
        rounds = left // (4 * HOUR) * window["max_concurrent_per_miner"] - policy["current_slots"]
        late = max(0, len(order) - max(0, rounds))
        found: Expected = {
            at(title, "ends in"): left,
            at(title, "slots used"): policy["current_slots"],
            at(title, "slots in all"): window["max_concurrent_per_miner"],
            at(title, "servers wait"): len(waiting) or None,
            at(title, "will not make it"): late or None,
            at(title, "cannot come back"): len(waiting) - len(order) or None,
            at(title, "begins in"): None,
        }
        for server_id, place in order.items():
            if place == 1:
                name = self.servers[server_id]["name"]
                earning = self.earning_instances()[server_id]
                found[at(title, f"earn on the next, {name}")] = earning
        return found

    def maintenance(self) -> Expected:
        title = "Maintenance"
        policy = self.api["maintenance"]["servers"]
        needed = {row["server_id"] for row in policy if row["needs_upgrade"]}
        held = {row["server_id"] for row in policy if row["maintenance_status"] != "none"}
        earning, order = self.earning_instances(), self.upgrade_order()
        found: Expected = {label_of_rows(title, "server_id"): sorted(needed | held)}
        for server_id in needed | held:
            row = {"server_id": server_id}
            in_maintenance = 2 if earning[server_id] else 3
            step = {"none": None, "pending": 1, "maintenance": in_maintenance}
            found |= {
                at(title, "Server", **row): self.servers[server_id]["name"],
                at(title, "Now", **row): step[self.slot_of(server_id)],
                at(title, "Order", **row): order.get(server_id),
                at(title, "Version", **row): None,
                at(title, "Can come back", **row): None,
                at(title, "Earning instances", **row): earning[server_id],
            }
            if server_id in needed:
                found[at(title, "Version", **row)] = 1
                found[at(title, "Can come back", **row)] = int(is_measured(server_id, self.api))
        return found

    def instances(self) -> Expected:
        found = self.lost() | self.ended() | self.failed()
        if not self.has_key:
            return found | {
                at("Starting", "all"): None,
                at("Next purge"): None,
                at("Not secured"): None,
                label_of_rows("All instances", "instance_id"): [],
                label_of_rows("Instances that need a decision", "chute"): [],
            }
        found |= self.lost_of_score() | self.starting() | self.ages() | self.starts()
        found |= self.instances_by_state() | self.undecided_instances()
        found[at("Not secured")] = sum(secured_at(one) > END for one in self.owned)
        found[label_of_rows("All instances", "instance_id")] = sorted(
            one["instance_id"] for one in self.owned
        )
        for one in self.owned:
            found |= self.instance(one)
        return found

    def lost_of_score(self) -> Expected:
        title = "Lost in 24 h"
        units = sum(one.lost for one in self.reports.ends(24))
        score = self.api["scores"]["raw_values"][self.miner]["instance_compute_units"]
        return {
            at(title, "units"): units,
            at(title, "of the score"): units / score,
            at(title, "counted to"): 1000 * self.reports.end,
        }

    def starting(self) -> Expected:
        starting = [one for one in self.owned if instance_state(one) == "starting"]
        found: Expected = {
            at("Starting", "all"): len(starting),
            at("Starting", "over 1 h"): sum(map(is_late, starting)),
            at("Next purge", "in"): None,
            at("Next purge", "starting"): None,
        }
        if starting:
            purges = [deadlines_of(one)["purge"] or math.inf for one in starting]
            found[at("Next purge", "in")] = min(purges) - END
        else:
            found[at("Next purge", "starting")] = states.NONE_STARTING.value
        return found

    def ages(self) -> Expected:
        title = "Age of instances"
        ages = [age(one) for one in self.owned]
        return {
            at(title, "oldest"): max(ages),
            at(title, "median"): statistics.median(ages),
            at(title, "newest"): min(ages),
        }

    def starts(self) -> Expected:
        """Return how long active instances took to become active."""
        title = "Time to become active"
        lasted = [
            seconds(one["activated_at"]) - seconds(one["created_at"])
            for one in self.owned
            if one["active"]
        ]
        return {at(title, "mean"): statistics.mean(lasted), at(title, "longest"): max(lasted)}

    def instances_by_state(self) -> Expected:
        count: Counter[str] = Counter()
        units: Counter[str] = Counter()
        for one in self.owned:
            state = instance_state(one)
            count[state] += 1
            units[state] += one["compute_multiplier"]
        return {
            at("Instances by state", "active"): count["active"],
            at("Instances by state", "starting"): count["starting"],
            at("Instances by state", "disabled"): count["disabled"],
            at("Compute units per second", "active"): units["active"],
            at("Compute units per second", "disabled"): units["disabled"],
        }

    def undecided_instances(self) -> Expected:
        """Return the starting instances that are late, or that the service would refuse."""
        title = "Instances that need a decision"
        undecided = []
        for one in self.owned:
            is_starting = instance_state(one) == "starting"
            if is_starting and (is_late(one) or self.launches.in_vain[one["instance_id"]]):
                undecided.append(one)
        found: Expected = {
            label_of_rows(title, "instance_id"): sorted(one["instance_id"] for one in undecided),
        }
        if not undecided:
            found[label_of_rows(title, "chute")] = ["nothing"]
        for one in undecided:
            row = {"instance_id": one["instance_id"]}
            state = 0 if is_late(one) else 1
            is_in_vain = self.launches.in_vain[one["instance_id"]]
            found[at(title, "State", **row)] = state
            found[at(title, "What to do first", **row)] = 1 if is_in_vain else state
            everywhere = self.instance(one)
            for column in ("Chute", "Server", "Age", "Purge in"):
                found[at(title, column, **row)] = everywhere[at("All instances", column, **row)]
        return found

    def instance(self, one: Row) -> Expected:
        title, row = "All instances", {"instance_id": one["instance_id"]}
        chute = self.chutes[one["chute_id"]]
        server_id, model = self.place_of_instance[one["instance_id"]]
        purge, secured = deadlines_of(one).get("purge"), secured_at(one)
        state = "starting over 1 h" if is_late(one) else instance_state(one)
        is_old = one["active"] and one["version"] != chute["version"]
        return {
            at(title, "State", **row): number_of(state, states.INSTANCE),
            at(title, "Chute", **row): chute["name"],
            at(title, "Server", **row): self.servers[server_id]["name"],
            at(title, "Model", **row): model,
            at(title, "Age", **row): age(one),
            at(title, "Purge in", **row): None if purge is None else purge - END,
            at(title, "Secured in", **row): secured - END if secured > END else None,
            at(title, "Units/s", **row): one["compute_multiplier"],
            at(title, "Later", **row): float(later_of(one["chute_id"], model, self.api)),
            at(title, "Chute version", **row): float(is_old),
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
        found[label_of_rows(title, "reason")] = sorted(reasons) or ["nothing"]
        found[label_of_rows(title, "outcome")] = sorted({outcome for _, outcome in counts})
        found[label_of_rows(title, "why")] = sorted(reasons)
        return found

    def failed(self) -> Expected:
        """Return the ends of a day that lost their score or never had one, by chute."""
        title = "Failed by chute, 24 h"
        if not self.has_key:
            # Not each hour of the day is known.
            return {label_of_rows(title, "chute_id"): [], label_of_rows(title, "name"): []}
        by_chute: dict[str, list[Ended]] = defaultdict(list)
        for one in self.reports.ends(24):
            if one.is_failure:
                by_chute[one.chute_id].append(one)
        found: Expected = {label_of_rows(title, "chute_id"): sorted(by_chute)}
        for chute_id, failed in by_chute.items():
            row = {"chute_id": chute_id}
            outcomes = Counter(one.outcome for one in failed)
            lost = sum(one.lost for one in failed)
            usd = lost * self.unit_usd() if self.is_sick else None
            found |= {
                at(title, "Chute", **row): self.chutes[chute_id]["name"],
                at(title, "Lost their score", **row): outcomes["lost"] or None,
                at(title, "Failed starts", **row): outcomes["never_active"] or None,
                at(title, "Units", **row): lost or None,
                at(title, "USD", **row): usd or None,
            }
        return found

    def market(self) -> Expected:
        return self.demand() | (self.offers() if self.has_key else {}) | self.jobs()

    def jobs(self) -> Expected:
        title = "Jobs of the chosen miners"
        if not self.has_key:
            return {label_of_rows(title, "hotkey"): []}
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
        found = self.running_chutes()
        for row in self.api["stats_per_chute"]["past_day"]["instance_stats"]:
            if row["miner_hotkey"] in self.watched:
                found.add(row["chute_id"])
        if self.has_key:
            found |= {one.chute_id for one in self.reports.ends(24)}
            for chute_id, chute in self.chutes.items():
                if not chute["disabled"] and self.launches.room(chute)[0] > 0:
                    found.add(chute_id)
        return found

    def running_chutes(self) -> set[str]:
        """Return the chutes of the watched miners' active instances, and those on their GPUs."""
        found = set()
        for one in self.api["active_instances"]:
            if one["miner_hotkey"] in self.watched:
                found.add(one["chute_id"])
        for hotkey in self.watched:
            if hotkey in self.api["held_gpus"]:
                held = self.api["held_gpus"][hotkey]["provisioned"]
                found |= {gpu["chute"]["chute_id"] for gpu in held}
        return found

    def demand(self) -> Expected:
        title, exported = "Demand", self.exported_chutes()
        bounties = self.ends_of_bounties()
        found: Expected = {at("Bounties"): len(bounties)}
        for chute_id in exported:
            row = {"chute_id": chute_id}
            left = bounties[chute_id] - END if chute_id in bounties else None
            found[at(title, "Chute", **row)] = (
                self.chutes[chute_id]["name"] if self.has_key else None
            )
            found[at(title, "Bounty ends in", **row)] = left
        shown = exported.intersection(bounties)
        if self.has_key:
            shown |= exported.intersection(self.chutes)
        for row in self.api["utilization"]:
            if row["chute_id"] in exported:
                shown.add(row["chute_id"])
                found |= self.load_of_chute(row)
        for row in self.api["metrics"]:
            if row["chute_id"] in exported:
                shown.add(row["chute_id"])
                chute = {"chute_id": row["chute_id"]}
                found[at(title, "Active", **chute)] = row["instance_count"]
                found[at(title, "Requests, 1 h", **chute)] = row["total_invocations"]
        found[label_of_rows(title, "chute_id")] = sorted(shown)
        return found

    def load_of_chute(self, row: Row) -> Expected:
        """Return what the table of demand shows of a row of the API's utilization."""
        title, chute = "Demand", {"chute_id": row["chute_id"]}
        active, allowance = row["active_instance_count"], row["scale_allowance"]
        # Nothing is measured for a chute without an instance.
        has_load = row["instance_count"] > 0
        return {
            at(title, "Utilization, 15 m", **chute): row["utilization_15m"] if has_load else None,
            at(title, "Rate limited", **chute): row["rate_limit_ratio_15m"] if has_load else None,
            at(title, "Wanted", **chute): active + allowance if allowance else row["target_count"],
            at(title, "Starting", **chute): row["total_instance_count"] - active,
        }

    def ends_of_bounties(self) -> dict[str, float]:
        """Return when the bounty of each chute ends."""
        return {
            row["chute_id"]: row["created_at"] + row["seconds_elapsed"] + row["time_remaining"]
            for row in self.api["bounties"]
        }

    def offers(self) -> Expected:
        """Return what can be launched, and what is refused."""
        title = "Launch now, pay per GPU"
        offers, idle = self.launches.offers, self.count_states(self.gpus)["idle"]
        found: Expected = {
            at("Idle GPUs"): idle,
            label_of_rows(title, "chute_id"): sorted({offer.chute_id for offer in offers}),
        }
        if not idle:
            found |= {
                label_of_rows(title, "chute"): ["nothing"],
                label_of_rows("Refused chutes", "reason"): ["nothing"],
                label_of_rows("Best move", "server"): ["nothing"],
            }
        for offer in offers:
            found |= self.offer(offer)
        pays = {offer.chute_id: offer.first_day for offer in offers}
        for chute_id in sorted(pays, key=pays.__getitem__)[-5:]:
            line = at("Units/s per GPU of the best five chutes", self.chutes[chute_id]["name"])
            found[line] = pays[chute_id]
        return found | self.refused() | self.supply() | self.best_moves() | self.best_use()

    def offer(self, offer: Launchable) -> Expected:
        title, row = "Launch now, pay per GPU", {"chute_id": offer.chute_id, "gpu": offer.gpu}
        failures = [one for one in self.reports.ends(24) if one.is_failure]
        failed = sum(one.chute_id == offer.chute_id for one in failures)
        ends, unit = self.ends_of_bounties().get(offer.chute_id), self.unit_usd()
        return {
            at(title, "Chute", **row): self.chutes[offer.chute_id]["name"],
            at(title, "Units/s, first day", **row): offer.first_day,
            at(title, "Later", **row): offer.later,
            at(title, "USD, first day", **row): DAY * offer.first_day * unit,
            at(title, "USD a day, later", **row): DAY * offer.later * unit,
            at(title, "GPUs", **row): offer.gpus,
            at(title, "Room", **row): offer.room,
            at(title, "Starting elsewhere", **row): offer.starting,
            at(title, "Failed here", **row): failed or None,
            at(title, "Bounty ends in", **row): None if ends is None else ends - END,
        }

    def refused(self) -> Expected:
        """Return how many chutes are refused for each reason, by the model of idle GPUs."""
        found: Expected = {}
        reasons = states_of_refusals(self.answers)
        for gpu in {model for _, model in self.launches.free}:
            for reason in reasons:
                place = at("Refused chutes", "Chutes", gpu=gpu, reason=reason)
                found[place] = self.launches.refused[gpu, reason]
        assert {reason for _, reason in self.launches.refused} <= set(reasons)
        return found

    def best_use(self) -> Expected:
        title, best = "Best use of idle GPUs", DAY * self.launches.best()
        usd = best * self.unit_usd() if self.is_sick else None
        return {at(title, "units, first day"): best, at(title, "dollars, first day"): usd}

    def best_moves(self) -> Expected:
        """Return the pay of the launches that the board shows, if they are a best placement."""
        title = "Best move"
        moves = self.shown_moves()
        self.assert_best(moves)
        found: Expected = {
            label_of_rows(title, "server_id"): sorted({move.server_id for move in moves}),
            label_of_rows(title, "chute_id"): sorted({move.offer.chute_id for move in moves}),
        }
        unit = self.unit_usd()
        for move in moves:
            offer, row = move.offer, {"server_id": move.server_id, "chute_id": move.offer.chute_id}
            found |= {
                at(title, "Server", **row): self.servers[move.server_id]["name"],
                at(title, "Launch", **row): self.chutes[offer.chute_id]["name"],
                at(title, "Instances", **row): move.instances,
                at(title, "GPU", **row): offer.gpu,
                at(title, "USD, first day", **row): DAY * move.gpus * offer.first_day * unit,
                at(title, "USD a day, later", **row): DAY * move.gpus * offer.later * unit,
            }
        later = DAY * sum(move.gpus * move.offer.later for move in moves)
        dollars = later * unit if self.is_sick else None
        found[at("Best use of idle GPUs", "dollars a day, later")] = dollars
        return found

    def shown_moves(self) -> list[Move]:
        """Return the launches that the board shows."""
        moves = []
        for server_id, model in self.launches.usable:
            for offer in self.launches.offers:
                if offer.gpu != model:
                    continue
                place = at("Best move", "Instances", server_id=server_id, chute_id=offer.chute_id)
                instances = value("chutes-market", self.answers, place)
                if instances is not None:
                    moves.append(Move(server_id, offer, instances))
        return moves

    def assert_best(self, moves: Iterable[Move]) -> None:
        """Assert that launches fit on their servers and into the room of chutes, and pay best."""
        taken: Counter[tuple[str, str]] = Counter()
        launched: Counter[str] = Counter()
        first_day = 0.0
        for move in moves:
            taken[move.server_id, move.offer.gpu] += move.gpus
            launched[move.offer.chute_id] += move.instances
            first_day += move.gpus * move.offer.first_day
            # No launch is elsewhere.
            assert move.offer.chute_id not in self.launches.hanging
        for place, gpus in taken.items():
            assert gpus <= self.launches.usable[place]
        for offer in self.launches.offers:
            assert launched[offer.chute_id] <= offer.room
        assert first_day == pytest.approx(self.launches.best())

    def supply(self) -> Expected:
        counts = Counter((gpu["gpu_identifier"], gpu_state(gpu, self.api)) for gpu in self.gpus)
        models = {gpu["gpu_identifier"] for gpu in self.gpus}
        found: Expected = {label_of_rows("Supply", "gpu"): sorted(models)}
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
        if self.miner not in places:
            return {
                label_of_rows(title, "hotkey"): [],
                label_of_rows(title, "miner"): [states.NOT_IN_LINE.value],
            }
        near = neighbours_in(places, self.miner, far=4)
        found: Expected = {label_of_rows(title, "hotkey"): sorted(near)}
        for hotkey in near:
            row = {"hotkey": hotkey}
            found |= {
                at(title, "Registrations", **row): places[hotkey],
                at(title, "Seat age", **row): END - seconds(self.seats[hotkey]["synced_at"]),
                at(title, "Immune", **row): 0,
                at(title, "USD a day", **row): self.usd_a_day(hotkey),
            }
        return found

    def usd_a_day(self, hotkey: str) -> float | None:
        """Return what a miner is paid in a day, None where dollars are not known."""
        return self.incentives()[hotkey] * self.usd_of_all_miners() if self.kind in PAID else None

    def ranks(self) -> dict[str, int]:
        return {hotkey: self.rank(hotkey) for hotkey in self.shares}

    def subnet(self) -> Expected:
        units = self.units_by_miner("past_hour")
        blacklisted = [seat for seat in self.seats.values() if seat["blacklist_reason"]]
        found: Expected = {
            at("Score in 24 h", "about"): self.part_of_the_way(0.43)[self.miner],
            at("Score in 24 h", "at least"): None,
            at("Score in 24 h", "at most"): None,
            at("Seats, past day", "taken"): self.registrations_of_a_day(),
            # In rao, the price is 412,907,331.
            at("Seats, past day", "TAO"): 0.412907331,
            at("Miners", "with a score"): len(self.shares),
            at("Miners", "with compute units"): len(units),
            at("Miners", "blacklisted"): len(blacklisted),
            at("Compute units per hour of all miners"): sum(units.values()),
        }
        found |= (
            self.gaps()
            | self.is_seat_safe([self.miner])
            | self.in_line(self.registrations_before_loss())
        )
        return found | self.neighbours_in_rank() | self.leaders()

    def gaps(self) -> Expected:
        """Return the gaps to the next better and the next worse miner."""
        unit = "dollars a day" if self.kind in PAID else "of all scores; dollars: docs/money.md"
        gaps = [
            (share - self.shares[self.miner]) * self.usd_of_all_miners()
            for share in self.shares.values()
        ]
        better = [gap for gap in gaps if gap > 0]
        worse = [-gap for gap in gaps if gap < 0]
        rank, end = self.rank(self.miner), states.NONE_BEYOND.value
        is_last = rank == len(self.shares)
        return {
            at("To the next better", unit): min(better, default=None),
            at("To the next better", "this miner is"): end if rank == 1 else None,
            at("To the next worse", unit): min(worse, default=None),
            at("To the next worse", "this miner is"): end if is_last else None,
        }

    def neighbours_in_rank(self) -> Expected:
        title = "Neighbours in rank"
        heading, later = self.headings(), self.part_of_the_way(0.43)
        near = neighbours_in(self.ranks(), self.miner, far=4)
        found: Expected = {label_of_rows(title, "hotkey"): sorted(near)}
        overtaking = 0
        for hotkey in near:
            row, share = {"hotkey": hotkey}, self.shares[hotkey]
            found |= {
                at(title, "Rank", **row): self.rank(hotkey),
                at(title, "UID", **row): str(self.seats[hotkey]["node_id"]),
                at(title, "Score share", **row): share,
                at(title, "In 24 h", **row): later[hotkey],
                at(title, "Heading", **row): heading[hotkey],
                at(title, "USD a day", **row): self.usd_a_day(hotkey),
                at("Score share of the neighbours in rank", _short(hotkey)): share,
            }
            change = self.overtaking(hotkey, heading)
            overtaking += change == "may overtake you"
            code = value("chutes-subnet", self.answers, at(title, "Overtaking", **row))
            # Several numbers stand for a miner that stays.
            found[at(title, "Overtaking", **row)] = code
            assert [one.text for one in states.OVERTAKING if one.value == code] == [change]
        # Nobody is behind the last one.
        is_last = self.rank(self.miner) == len(self.shares)
        found[at("May overtake this miner")] = None if is_last else overtaking
        return found

    def overtaking(self, hotkey: str, heading: Mapping[str, float]) -> str:
        """Return whether a neighbour in rank may overtake the miner, or be overtaken."""
        if hotkey == self.miner:
            return "this miner"
        rank, mine = self.rank(hotkey), self.rank(self.miner)
        margin = heading[hotkey] / heading[self.miner] - 1
        if abs(margin) < 0.05:
            return "too close to say"
        if rank < mine and margin < 0:
            return "you may overtake"
        if rank > mine and margin > 0:
            return "may overtake you"
        return "stays"

    def neighbours(self, far: int) -> set[str]:
        """Return the watched miners, and those at most some places away in rank or in line."""
        found = set(self.watched)
        for line in (self.ranks(), self.registrations_before_loss()):
            for hotkey in line.keys() & self.watched:
                found |= neighbours_in(line, hotkey, far)
        return found

    def leaders(self) -> Expected:
        """Return all exported miners: the watched ones and their neighbours."""
        exported = set(value("chutes-subnet", self.answers, label_of_rows("Leaderboard", "hotkey")))
        # A neighbour stays one up to 8 places, so that its series do not come and go.
        assert self.neighbours(4) <= exported <= self.neighbours(8)
        found: Expected = {}
        best = sorted(exported & self.shares.keys(), key=self.shares.__getitem__)[-10:]
        for hotkey in best:
            found[at("Score share, top 10", _short(hotkey))] = self.shares[hotkey]
        for hotkey in exported:
            found |= self.leader(hotkey)
        return found

    def leader(self, hotkey: str) -> Expected:
        title, row, seat = "Leaderboard", {"hotkey": hotkey}, self.seats.get(hotkey)
        found: Expected = {
            at(title, "Rank", **row): self.ranks().get(hotkey),
            at(title, "Score share", **row): self.shares.get(hotkey),
        }
        counts = {
            "Units, 1 h": self.units_by_miner("past_hour"),
            "Units, 1 day": self.units_by_miner("past_day"),
            "Units, 7 days": self.units_by_miner("all"),
        }
        if self.has_key:
            active = self.api["active_instances"]
            counts["Instances"] = Counter(one["miner_hotkey"] for one in active)
        for column, count in counts.items():
            # A watched miner without any has 0, and others nothing.
            has_any = hotkey in count or hotkey in self.watched
            found[at(title, column, **row)] = count[hotkey] if has_any else None
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
        targets = ["exporter-1:9109"]
        if self.kind is World.HEALTHY:
            targets.append("exporter-2:9109")
        found[label_of_rows("Exporters", "instance")] = targets
        for target in targets:
            found[at("Exporters", "State", instance=target)] = 1
            found[at("Exporters", "Configuration", instance=target)] = 1
        return found | self.good_feeds() | self.bad_feeds()

    def good_feeds(self) -> Expected:
        title = "All feeds"
        records = {
            "metagraph": len(self.seats),
            "bounties": len(self.api["bounties"]),
            "utilization": len(self.api["utilization"]),
        }
        own_records = {}
        if self.has_key:
            records["active_instances"] = len(self.api["active_instances"])
            records["chutes"] = len(self.chutes)
            own_records = {
                "servers": len(self.servers),
                "nodes": len(self.gpus),
                "instances": len(self.owned),
            }
        found: Expected = {}
        for feed, count in (records | own_records).items():
            row = {"feed": feed}
            if feed in own_records:
                row["hotkey"] = self.miner
            found |= {
                at(title, "Records", **row): count,
                at(title, "State", **row): 1,
                at(title, "Rejected", **row): 0,
                at(title, "Age", **row): 0,
            }
        return found

    def bad_feeds(self) -> Expected:
        blind = {}
        old = {}
        if self.is_sick:
            refused = (
                "instances",
                "inventory",
                "maintenance",
                "nodes",
                "servers",
                "thrash_cooldowns",
            )
            blind = {"images": "unavailable"} | dict.fromkeys(refused, "not_registered")
            old = {"unique_chute_history": "doubted"}
        blind_alerts = [alert for alert, feeds in NEEDED.items() if not feeds.isdisjoint(blind)]
        found: Expected = {
            at("Feeds without a full answer", "no data"): len(blind),
            at("Feeds without a full answer", "old data"): len(old),
            at("Blind alerts"): len(blind_alerts),
            label_of_rows("Bad feeds", "feed"): sorted(blind | old) or ["nothing"],
        }
        for feed, reason in (blind | old).items():
            state = 0 if feed in blind else 1
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
        return found


def _shares(api: Mapping[str, Any]) -> dict[str, float]:
    """Return the score shares of the miners that have one."""
    shares = api["scores"]["final_scores"]
    return {hotkey: share for hotkey, share in shares.items() if share is not None}


def rank_in(numbers: Mapping[str, float], hotkey: str) -> int:
    """Return the rank of a miner by some number: 1 is the greatest."""
    return 1 + sum(number > numbers[hotkey] for number in numbers.values())


def _short(hotkey: str) -> str:
    return f"{hotkey[:5]}…{hotkey[-4:]}"


def neighbours_in(line: Mapping[str, int], hotkey: str, far: int) -> set[str]:
    """Return the miners at most some places away from a miner, and the miner."""
    return {other for other, place in line.items() if abs(place - line[hotkey]) <= far}


def age(instance: Row) -> float:
    return END - seconds(instance["created_at"])


def is_late(instance: Row) -> bool:
    """Return whether an instance has been starting for over an hour."""
    return instance_state(instance) == "starting" and age(instance) > HOUR


def secured_at(instance: Row) -> float:
    """Return the time from which on an active public instance keeps its score, 0 for others."""
    if not instance["active"] or instance["billed_to"] is not None:
        return 0
    return seconds(instance["activated_at"]) + HOUR


def states_of_refusals(answers: Answers) -> list[str]:
    """Return the reasons that the table of refused chutes lists."""
    found = value("chutes-market", answers, label_of_rows("Refused chutes", "reason"))
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
    wrong = []
    for place, wanted in expected_on(board, answers[kind], kind).items():
        shown = value(f"chutes-{board}", answers[kind], place)
        if not is_equal(shown, wanted):
            wrong.append(f"{place} shows {shown}, not {wanted}")
    assert wrong == []


def expected_on(board: str, answers: Answers, kind: World) -> Expected:
    """Return what a board should show. Its name is that of a method."""
    found: Expected = getattr(Truth(answers, kind), board)()
    return found


def test_the_bars_count_what_ended_in_each_hour(answers: dict[World, Answers]) -> None:
    found = answers[World.SICK]
    reports = Reports(found.reports, found.hotkeys[0])
    panel = panel_of("chutes-instances", "Ended per hour by reason")
    by_reason, failed = (found.over_time[query.expr]["result"] for query in panel.queries)
    ends = reports.ends(1, reports.end)
    shown = {}
    for line in by_reason:
        # Of the other hours, the sparse scrapes do not see the report within minutes of its end.
        ((time, number),) = line["values"]
        assert float(time) == reports.end
        shown[line["metric"]["reason"]] = float(number)
    assert shown
    assert shown == Counter(one.reason for one in ends)
    (line,) = failed
    ((_, number),) = line["values"]
    assert float(number) == sum(one.outcome == "never_active" for one in ends)


def test_an_alert_about_a_chute_shows_its_name(answers: dict[World, Answers]) -> None:
    found = answers[World.SICK]
    ends = Reports(found.reports, found.hotkeys[0]).ends(6)
    failed = Counter(one.chute_id for one in ends if one.is_failure)
    names = {row["chute_id"]: row["name"] for row in found.api["chutes"]}
    expected = [names[chute_id] for chute_id, count in failed.items() if count >= 3]
    severities = panel_of("chutes-overview", "What is wrong").queries[0]
    alerts = [row["metric"] for row in found.now[severities.expr]["result"]]
    shown = [alert["place"] for alert in alerts if alert["alertname"] == "ChutesChuteFails"]
    assert expected
    assert sorted(shown) == sorted(expected)


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
    legends = {query.legend for query in panel.queries}
    # A single line, and the lines of a query that gives several, are compared without their names.
    without_name = "{{" in panel.queries[0].legend or len(legends) == 1
    return {legend: "" if without_name else legend for legend in legends}


def _has_legend(name: str, template: str) -> bool:
    """Return whether a template of a legend with labels makes a name."""
    pattern = re.sub(r"\\\{\\\{\w+\\\}\\\}", ".+", re.escape(template))
    return "{{" in template and re.fullmatch(pattern, name) is not None


def test_every_value_of_a_board_is_compared_in_a_world(answers: dict[World, Answers]) -> None:
    compared = compared_names(answers)
    missing = []
    for board in BOARDS:
        for panel in board.panels:
            names = compared[board.uid, panel.title]
            for name, known in names_of(panel).items():
                if not _is_compared(name, known, names):
                    missing.append(f"{board.uid}: {panel.title}: {name}")
    for name in missing:
        assert name.startswith(tuple(NOT_COMPARED)), name
    for known in NOT_COMPARED:
        assert any(name.startswith(known) for name in missing), known


def compared_names(answers: dict[World, Answers]) -> dict[tuple[str, str], set[str]]:
    """Return the columns, lines and labels of each panel that are compared in a world."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for kind, board in itertools.product(KINDS, BOARD_NAMES):
        uid = f"chutes-{board}"
        for place in expected_on(board, answers[kind], kind):
            # What no world shows is not compared.
            if value(uid, answers[kind], place) is not None:
                labels = {f"#{label}" for label, _ in place.row}
                found[uid, place.panel] |= {place.name} | labels
    return found


def _is_compared(name: str, known: str, compared: set[str]) -> bool:
    """Return whether a name of a panel is compared. ``known`` is the place that compares it."""
    if name in compared or any(_has_legend(shown, name) for shown in compared):
        return True
    return known in compared if known else bool(compared)
