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
    """Return the place of a value in a panel. Without a name, it is the panel's first value."""
    return Place(panel, name, frozenset(row.items()))


def label_of_rows(panel: str, label: str) -> Place:
    """Return the place of all values of a label in the rows of a table, sorted.

    The name of such a place begins with `#`.
    """
    return at(panel, f"#{label}")


def _legend(template: str, labels: Mapping[str, str]) -> str:
    """Return the name of a line, from its template with labels such as `{{chute}}`."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)


def panel_of(uid: str, title: str) -> Panel:
    """Return the panel of a board with a title."""
    (board,) = (board for board in BOARDS if board.uid == uid)
    (panel,) = (panel for panel in board.panels if panel.title == title)
    return panel


def value(uid: str, answers: Answers, place: Place) -> Any:
    """Return what a place of a board shows, None for nothing."""
    panel = panel_of(uid, place.panel)
    # The place of the values of a label, see `label_of_rows`.
    if place.name.startswith("#"):
        return _values_of_label(place.name[1:], panel, answers)
    source = _source_of(place.name, panel)
    values = []
    for query in panel.queries:
        for result in answers.now[query.expr]["result"]:
            shown = _shown(query, result, source, place.row)
            if shown is not None:
                values.append(shown)
    if not values:
        return None
    # A place with a name shows one value. Without a name, it is the first of the panel.
    assert not place.name or len({*values}) == 1, (place, values)
    return values[0]


def _source_of(name: str, panel: Panel) -> str:
    """Return what a column of a table shows, a label or a query. A line is named by itself."""
    for column in panel.columns:
        if column.title == name:
            return column.source
    return name


def _values_of_label(label: str, panel: Panel, answers: Answers) -> list[str]:
    """Return the values that a label has in the answers to a panel's queries, sorted."""
    values = set()
    for query in panel.queries:
        for result in answers.now[query.expr]["result"]:
            if label in result["metric"]:
                values.add(result["metric"][label])
    return sorted(values)


def _shown(
    query: Query, result: Mapping[str, Any], source: str, row: frozenset[tuple[str, str]]
) -> float | str | None:
    """Return what a result of a query shows in a row of a table, or in a line of a graph.

    None if it belongs to another row, column or line.
    """
    labels: Mapping[str, str] = result["metric"]
    if not row <= labels.items():
        return None
    # It shows a number as the first value of a panel, in the column of its query, or as a line.
    if source in ("", query.expr, _legend(query.legend, labels)):
        return float(result["value"][1])
    # Otherwise, the source is the label that a column shows. Only tables have rows.
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
        # The one with the GPUs, to whom the API's answers about a miner belong.
        self.miner = answers.hotkeys[0]
        self.has_key = kind is not World.KEYLESS
        # Only the sick world has costs of GPUs.
        self.is_sick = kind is World.SICK
        self.seats: dict[str, Row] = {row["hotkey"]: row for row in self.api["metagraph"]}
        self.shares: dict[str, float] = _shares(self.api)
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

    def best_rank_in(self, numbers: Mapping[str, float]) -> int:
        """Return the best rank of the watched miners by some number."""
        return min(rank_in(numbers, hotkey) for hotkey in self.watched if hotkey in numbers)

    def count_states(self, gpus: Iterable[Row]) -> Counter[str]:
        """Return the number of GPUs by state."""
        return Counter(gpu_state(gpu, self.api) for gpu in gpus)

    def units_by_miner(self, window: str) -> Counter[str]:
        """Return the compute units of each miner in a window."""
        units: Counter[str] = Counter()
        for row in self.api["stats"][window]["instance_stats"]:
            units[row["miner_hotkey"]] += row["compute_units"]
        return units

    def headings(self) -> dict[str, float]:
        """Return each miner's heading: the score share that it approaches if all active instances
        continue. It is the share of their multipliers.

        Without a key, the multipliers are not known, and the heading is the share of the past
        hour's compute units.
        """
        if not self.has_key:
            units = self.units_by_miner("past_hour")
            return {hotkey: value / sum(units.values()) for hotkey, value in units.items()}
        rates: Counter[str] = Counter()
        for instance in self.api["active_instances"]:
            rates[instance["miner_hotkey"]] += instance["compute_multiplier"]
        # A miner on the blacklist has no score, so the shares of other miners leave its rate out.
        scored_rates = {}
        for hotkey, seat in self.seats.items():
            if not seat["blacklist_reason"]:
                scored_rates[hotkey] = rates[hotkey]
        total = sum(scored_rates.values())
        return {hotkey: rate / total for hotkey, rate in scored_rates.items()}

    def part_of_the_way(self, part: float) -> dict[str, float]:
        """Return a share between the score share and the heading of each miner with both.

        Args:
            part: How far the share is on the way to the heading, from 0 to 1.
        """
        return {
            hotkey: self.shares[hotkey] + part * (heading - self.shares[hotkey])
            for hotkey, heading in self.headings().items()
            if hotkey in self.shares
        }

    def of_watched(self, numbers: Mapping[str, float]) -> float:
        """Return the sum of the watched miners' numbers."""
        return sum(numbers.get(hotkey, 0) for hotkey in self.watched)

    def units_by_chute(self, window: str) -> Counter[str]:
        """Return the compute units of the watched miners by chute."""
        units: Counter[str] = Counter()
        for row in self.api["stats_per_chute"][window]["instance_stats"]:
            if row["miner_hotkey"] in self.watched:
                units[row["chute_id"]] += row["compute_units"]
        # Chutes with 0 units are left out.
        return +units

    def usd_of_all_miners(self) -> float:
        """Return the dollars that all miners are paid in a day.

        Where these are unknown, it is 1, so that a miner's part of it is a share of all pay.
        """
        # The simulated chain pays 2952 alpha, which cost 0.071 TAO each.
        return 2952 * 0.071027253 * self.api["fmv"]["tao"] if self.kind in PAID else 1

    def unit_usd(self) -> float:
        """Return the dollars that a compute unit of the past day is paid."""
        return self.usd_of_all_miners() / sum(self.units_by_miner("past_day").values())

    def registrations_before_loss(self) -> dict[str, int]:
        """Return the registrations before the loss of each seat that can be lost.

        The lowest pay goes first, and of equal ones the oldest seat. Seats that are immune are left
        out: they are new, and go after all of these, far from every seat that boards show.
        """
        old = [row for row in self.seats.values() if END - seconds(row["synced_at"]) >= DAY]
        old.sort(key=lambda row: (row["incentive"], seconds(row["synced_at"])))
        # The chain keeps this many seats without immunity, by a setting of the simulated subnet.
        kept = min(10, len(self.seats) // 8)
        in_line = old[:-kept]
        return {row["hotkey"]: place for place, row in enumerate(in_line)}

    def registrations_of_a_day(self) -> int:
        """Return the number of seats that were registered in the past day."""
        return sum(END - seconds(row["synced_at"]) < DAY for row in self.seats.values())

    def safety_of_seats(self, hotkeys: Iterable[str]) -> Expected:
        """Return when the first seat of some miners is lost, at the pace of the past day."""
        title = "Is the seat safe?"
        registrations = self.registrations_before_loss()
        in_line = [registrations[hotkey] for hotkey in hotkeys if hotkey in registrations]
        # How many registrations are before the loss of the first seat. The seats that are not in
        # line are lost to no number of registrations.
        first_loss = min(in_line, default=None)
        registrations_a_day = self.registrations_of_a_day()
        expected: Expected = {
            at(title, "In danger, see Market: lost within"): None,
            at(title, "Safe now: lost within"): None,
            at(title, "Safe now: registrations before the loss"): None,
            at(title, "Safe"): None,
            # Each seat that is watched is older than a day.
            at(title, "Immune until"): None,
            at(title, "Miners without a seat"): None,
        }
        if first_loss is None:
            expected[at(title, "Safe")] = states.SAFE.value
        elif registrations_a_day == 0:
            expected[at(title, "Safe now: registrations before the loss")] = first_loss
        else:
            lost_in = DAY * first_loss / registrations_a_day
            # The board calls a loss within 3 days a danger.
            verdict = "In danger, see Market" if lost_in < 3 * DAY else "Safe now"
            expected[at(title, f"{verdict}: lost within")] = lost_in
        without_seat = [hotkey for hotkey in hotkeys if hotkey not in self.seats]
        if without_seat:
            expected[at(title, "Miners without a seat")] = len(without_seat)
        return expected

    def rent_of_idle(self, gpus: Iterable[Row]) -> float:
        """Return the rent in a day of the idle and unverified ones of some GPUs."""
        unused = [gpu for gpu in gpus if gpu_state(gpu, self.api) in ("idle", "unverified")]
        return 24 * sum(COSTS[gpu["gpu_identifier"]] for gpu in unused)

    def not_earned(self) -> Expected:
        """Return what the idle GPUs could earn, in dollars only in the sick world."""
        title = "Not earned, next 24 h"
        # It must be what the Market board shows, which `best_moves` compares.
        later = at("Best use of idle GPUs", "dollars a day, later")
        expected: Expected = {
            at(title, "idle GPUs"): None,
            at(title, "a day, later"): value("chutes-market", self.answers, later),
            at(title, "rent"): None,
            at(title, "units; dollars: docs/money.md"): None,
        }
        if not self.has_key:
            return expected
        units = DAY * self.launches.best()
        if self.is_sick:
            expected[at(title, "idle GPUs")] = units * self.unit_usd()
            expected[at(title, "rent")] = self.rent_of_idle(self.gpus)
        else:
            expected[at(title, "units; dollars: docs/money.md")] = units
        return expected

    def lost(self) -> Expected:
        """Return what ended instances lost in 24 hours, in dollars, and how many hours are known if
        not all are.
        """
        title = "Lost in 24 h"
        usd = None
        if self.is_sick:
            usd = self.units_lost(24) * self.unit_usd()
        # The number of known hours is shown only if one is not known. In the keyless world, each of
        # 10 scrapes has read a report. Those of the first two are from before the 24 hours.
        hours = None if self.has_key else 8
        return {at(title, "dollars"): usd, at(title, "hours known of 24"): hours}

    def units_lost(self, hours: int) -> float:
        """Return the compute units that instances lost that ended in the past hours."""
        return sum(instance.lost for instance in self.reports.ends(hours))

    def past_counts(self, hours: float) -> list[Counter[str]]:
        """Return the GPUs by state at each scrape of the past hours."""
        counts = []
        for time in in_last(hours, self.answers.past):
            past = self.answers.past[time]
            counts.append(Counter(gpu_state(gpu, past) for gpu in past["nodes"]))
        return counts

    def overview(self) -> Expected:
        """Return the values of the Overview board."""
        headings, incentives = self.headings(), self.incentives()
        score_rank = self.best_rank_in(self.shares)
        expected: Expected = {
            at("Verdict", "now"): number_of(self.verdict(), states.VERDICT),
            at("Score share and heading", "score share"): self.of_watched(self.shares),
            at("Score share and heading", "heading"): self.of_watched(headings),
            at("Rank by score and by incentive", "by score"): score_rank,
            at("Rank by score and by incentive", "by incentive"): self.best_rank_in(incentives),
            at("Next 24 h"): None,
        }
        if self.kind in PAID:
            # The pay follows the score slowly. On average of the next day, it is 26 % of the way
            # from the score to its heading.
            share = self.of_watched(self.part_of_the_way(0.26))
            expected[at("Next 24 h")] = self.usd_of_all_miners() * share
        windows = {"past hour": "past_hour", "past day": "past_day", "past week": "all"}
        for name, window in windows.items():
            units = self.units_by_miner(window)
            share = self.of_watched(units) / sum(units.values())
            expected[at("Share of compute by window", name)] = share
        expected |= self.lost() | self.loss_without_dollars() | self.not_earned()
        expected |= self.safety_of_seats(self.watched) | self.miners(headings)
        expected |= self.gpus_by_state() | self.earnings_by_chute()
        return expected | self.since_yesterday(score_rank) | self.money(incentives)

    def loss_without_dollars(self) -> Expected:
        """Return what ended instances lost in units, which are shown only without dollars.

        Without a key, not each hour of the day is known, and nothing is shown.
        """
        units = None
        if self.has_key and not self.is_sick:
            units = self.units_lost(24)
        return {at("Lost in 24 h", "units; dollars: docs/money.md"): units}

    def incentives(self) -> dict[str, float]:
        """Return each miner's share of all incentive."""
        of_all = sum(row["incentive"] for row in self.seats.values())
        return {hotkey: row["incentive"] / of_all for hotkey, row in self.seats.items()}

    def verdict(self) -> str:
        """Return the text of the verdict. Critical alerts fire in the sick world only."""
        if self.is_sick:
            return "act now"
        return "all is well" if self.has_key else "no key"

    def miners(self, headings: Mapping[str, float]) -> Expected:
        """Return the table of the watched miners."""
        title = "Miners"
        expected: Expected = {label_of_rows(title, "hotkey"): sorted(self.watched)}
        registrations = self.registrations_before_loss()
        for hotkey in self.watched:
            row = {"hotkey": hotkey}
            seat = self.seats.get(hotkey)
            # Without a seat or on the blacklist, a miner has no heading.
            may_score = seat is not None and not seat["blacklist_reason"]
            expected |= {
                at(title, "Miner", **row): _short(hotkey),
                at(title, "Seat", **row): float(seat is not None),
                at(title, "Score share", **row): self.shares.get(hotkey),
                at(title, "Rank", **row): self.ranks().get(hotkey),
                at(title, "Registrations before seat loss", **row): registrations.get(hotkey),
                at(title, "Heading", **row): headings[hotkey] if may_score else None,
            }
        # The first miner has all the GPUs. Without its key, these are not known.
        row = {"hotkey": self.miner}
        if not self.has_key:
            columns = ("Earning", "Starting", "Idle", "Unverified")
            return expected | {at(title, column, **row): None for column in columns}
        count = self.count_states(self.gpus)
        return expected | {
            at(title, "Earning", **row): count["earning"] + count["disabled"],
            at(title, "Starting", **row): count["starting"],
            at(title, "Idle", **row): count["idle"],
            at(title, "Unverified", **row): count["unverified"],
        }

    def gpus_by_state(self) -> Expected:
        """Return the lines of the graph of GPUs, which are absent without a key."""
        count = self.count_states(self.gpus)
        return {
            at("GPUs by state", state): count[state] if self.has_key else None
            for state in GPU_STATES
        }

    def earnings_by_chute(self) -> Expected:
        """Return the table of what the watched miners earn on each chute. Names need a key."""
        title = "Earnings by chute"
        expected: Expected = {
            label_of_rows(title, "chute_id"): sorted(self.units_by_chute("past_day"))
        }
        for chute_id, units in self.units_by_chute("past_hour").items():
            expected[at(title, "Units, 1 h", chute_id=chute_id)] = units
        for chute_id, units in self.units_by_chute("past_day").items():
            name = self.chutes[chute_id]["name"] if self.has_key else None
            expected[at(title, "Units, 1 day", chute_id=chute_id)] = units
            expected[at(title, "Chute", chute_id=chute_id)] = name
        return expected

    def since_yesterday(self, score_rank: int) -> Expected:
        """Return what changed in a day. ``score_rank`` is the watched miners' best rank now."""
        if not self.has_key:
            panels = ("New instances, 24 h", "Ended instances, 24 h", "GPUs since yesterday")
            return {at(panel): None for panel in panels}
        yesterday = self.answers.past[END - DAY]
        shares_yesterday = _shares(yesterday)
        points = 100 * (self.of_watched(self.shares) - self.of_watched(shares_yesterday))
        earned_yesterday = sum(is_earning(gpu, yesterday) for gpu in yesterday["nodes"])
        earning_now = sum(is_earning(gpu, self.api) for gpu in self.gpus)
        activations = [seconds(one["activated_at"]) for one in self.owned if one["activated_at"]]
        return {
            at("Score since yesterday", "points"): points,
            # Up is positive: rank 3 after rank 5 is 2 places.
            at("Rank since yesterday", "places"): self.best_rank_in(shares_yesterday) - score_rank,
            at("GPUs since yesterday", "earning"): earning_now - earned_yesterday,
            at("New instances, 24 h"): sum(END - time < DAY for time in activations),
            at("Ended instances, 24 h"): len(self.reports.ends(24)),
        }

    def money(self, incentives: Mapping[str, float]) -> Expected:
        """Return what is earned a day, in dollars or as a share, and with costs what is left."""
        title = "Estimated earnings and costs"
        of_emission = at("Earned per day", "of emission; dollars: docs/money.md")
        # In dollars, or as a share of all pay where these are unknown.
        earned = self.of_watched(incentives) * self.usd_of_all_miners()
        expected: Expected = {
            at("Earned per day", "dollars"): None,
            of_emission: None,
            at(title, "earnings"): None,
            at("After rent"): None,
            at(title, "after rent"): None,
            at(title, "cost of GPUs"): None,
            at("Estimated earnings per earning GPU", _short(self.miner)): None,
        }
        if self.kind in PAID:
            expected[at("Earned per day", "dollars")] = earned
            expected[at(title, "earnings")] = earned
        else:
            expected[of_emission] = earned
        if self.is_sick:
            cost = 24 * sum(COSTS[gpu["gpu_identifier"]] for gpu in self.gpus)
            earning_gpus = [count["earning"] + count["disabled"] for count in self.past_counts(24)]
            mean = statistics.mean(earning_gpus)
            expected |= {
                at("After rent"): earned - cost,
                at(title, "after rent"): earned - cost,
                at(title, "cost of GPUs"): cost,
                # Only Prometheus 2 counts the scrape of exactly a day ago, which changes the mean.
                at("Estimated earnings per earning GPU", _short(self.miner)): pytest.approx(
                    earned / mean, rel=0.005
                ),
            }
        return expected

    def fleet(self) -> Expected:
        """Return the values of the Fleet board."""
        if not self.has_key:
            return {
                at("All"): None,
                at("Earning"): None,
                at("Idle"): None,
                at("Unverified"): None,
                label_of_rows(SERVERS, "server_id"): [],
                label_of_rows("GPUs", "gpu_id"): [],
            }
        count, total = self.count_states(self.gpus), len(self.gpus)
        expected: Expected = {
            at("All"): total,
            at("Earning"): (count["earning"] + count["disabled"]) / total,
            at("Idle", "GPUs"): count["idle"],
            # A 0 is not shown.
            at("Idle", "of them in maintenance"): self.idle_in_slot() or None,
            at("Unverified"): count["unverified"],
            at("Servers", "servers"): len(self.servers),
            at("Servers", "in a slot"): self.api["maintenance"]["current_slots"],
            label_of_rows(SERVERS, "server_id"): sorted(self.servers),
        }
        expected |= self.gpus_by_state() | self.each_gpu() | self.not_earned()
        expected |= self.upgrade_window() | self.maintenance()
        for server_id in self.servers:
            expected |= self.server(server_id) | self.server_in_30_days(server_id)
        return expected

    def slot_of(self, server_id: str) -> str:
        """Return the upgrade slot of a server. A server without TEE has no maintenance."""
        slot: str = self.launches.slots.get(server_id, "none")
        return slot

    def each_gpu(self) -> Expected:
        """Return the table of GPUs."""
        expected: Expected = {
            label_of_rows("GPUs", "gpu_id"): sorted(gpu["uuid"] for gpu in self.gpus)
        }
        for gpu in self.gpus:
            row = {"gpu_id": gpu["uuid"]}
            name = self.servers[gpu["server_id"]]["name"]
            expected |= {
                at("GPUs", "State", **row): GPU_STATES.index(gpu_state(gpu, self.api)),
                at("GPUs", "GPU", **row): f"{name} #{gpu['device_index']}",
                at("GPUs", "Model", **row): gpu["gpu_identifier"],
                at("GPUs", "Error", **row): gpu["verification_error"],
            }
        return expected

    def gpus_of(self, server_id: str) -> list[Row]:
        return [gpu for gpu in self.gpus if gpu["server_id"] == server_id]

    def server(self, server_id: str) -> Expected:
        """Return the row of a server, and its line over time."""
        name, row = self.servers[server_id]["name"], {"server_id": server_id}
        count = self.count_states(self.gpus_of(server_id))
        state = self.state_of(server_id)
        idle_seconds, error = self.not_all_earning(server_id)
        # The launches are those that the board chose. `assert_best` asserts that none pay more.
        units_a_day = self.pay_of_best_moves(server_id)
        # A 0 of the last two columns is not shown.
        expected: Expected = {
            at(SERVERS, "Server", **row): name,
            at(SERVERS, "State", **row): state,
            at("Servers over time", name): state,
            at(SERVERS, "Not all earning for", **row): None,
            at(SERVERS, "Earning", **row): count["earning"] + count["disabled"],
            at(SERVERS, "Starting", **row): count["starting"],
            at(SERVERS, "Idle", **row): count["idle"],
            at(SERVERS, "Unverified", **row): count["unverified"],
            at(SERVERS, "Failed starts, 6 h", **row): self.failed_starts()[server_id] or None,
            at(SERVERS, "Units a day", **row): units_a_day or None,
        }
        # Times up to 10 minutes are not shown.
        if idle_seconds > 600:
            approximate = pytest.approx(idle_seconds, abs=error)
            expected[at(SERVERS, "Not all earning for", **row)] = approximate
        return expected | self.money_of_server(server_id, state, units_a_day)

    def state_of(self, server_id: str) -> int:
        """Return the number of the state that a server shows. From 3 failed starts on, it fails."""
        state: int = server_state(server_id, self.slot_of(server_id), self.api)
        failing: int = number_of("failing", states.SERVER)
        # States with a lower number come before it.
        if state > failing and self.failed_starts()[server_id] >= 3:
            return failing
        return state

    def money_of_server(self, server_id: str, state: int, units_a_day: float) -> Expected:
        """Return what the row of a server shows in dollars, which is nothing without costs of GPUs.

        Args:
            server_id: The server.
            state: The number of the state that it shows.
            units_a_day: What its idle GPUs could earn.
        """
        rent = at(SERVERS, "Rent", server_id=server_id)
        profit = at(SERVERS, "Profit", server_id=server_id)
        not_earned = at(SERVERS, "Not earned a day", server_id=server_id)
        expected: Expected = {rent: None, profit: None, not_earned: None}
        if not self.is_sick:
            return expected
        gpus = self.gpus_of(server_id)
        earned = DAY * self.unit_usd() * units_of_server(server_id, self.api)
        cost = 24 * sum(COSTS[gpu["gpu_identifier"]] for gpu in gpus)
        # A rent of 0 is not shown.
        expected[rent] = self.rent_of_idle(gpus) or None
        expected[profit] = earned - cost
        # What GPUs that start, are unverified or are in maintenance would earn is not known. In the
        # other states, a server on which nothing can be launched shows 0.
        known_states = [number_of(text, states.SERVER) for text in ("idle", "disabled", "earning")]
        if units_a_day or state in known_states:
            expected[not_earned] = units_a_day * self.unit_usd()
        return expected

    def server_in_30_days(self, server_id: str) -> Expected:
        """Return what the known days of the past 30 say about a server, on average."""
        title, row = "Compute units by server, 30 days", {"server_id": server_id}
        pasts = self.answers.past.values()
        daily = DAY * sum(units_of_server(server_id, past) for past in pasts) / len(pasts)
        return {
            at(title, "Server", **row): self.servers[server_id]["name"],
            at(title, "Units per day", **row): daily,
            at(title, "Units per GPU and day", **row): daily / len(self.gpus_of(server_id)),
            # Each hour from a day before the end on is known, and with both ends, these are 25.
            at(title, "Days known", **row): 25 / 24,
        }

    def pay_of_best_moves(self, server_id: str) -> float:
        """Return the compute units that the launches which the Market board shows for a server
        earn on the first day.
        """
        moves = [move for move in self.shown_moves() if move.server_id == server_id]
        return DAY * sum(move.gpus * move.offer.first_day for move in moves)

    def not_all_earning(self, server_id: str) -> tuple[float, float]:
        """Return the seconds since all GPUs of a server earned, and the largest error of that.

        If they never did in the past day, it is the time since its first scrape with GPUs.
        """
        known_times = []
        earning_times = []
        for time in in_last(24, self.answers.past):
            past = self.answers.past[time]
            gpus = [gpu for gpu in past["nodes"] if gpu["server_id"] == server_id]
            if gpus:
                known_times.append(time)
                if all(is_earning(gpu, past) for gpu in gpus):
                    earning_times.append(time)
        if earning_times:
            # Prometheus looks back 5 minutes.
            return END - max(earning_times), 300
        # Only Prometheus 2 sees the scrape of exactly a day ago. The next is 30 minutes later.
        return END - min(known_times), 1800

    def failed_starts(self) -> Counter[str]:
        """Return the number of instances by server that are gone, and that scrapes of the past 6
        hours saw starting but never active.
        """
        server_of: dict[str, str] = {}
        activated = set()
        for time in in_last(6, self.answers.past):
            past = self.answers.past[time]
            for instance_id, (server_id, _) in places(past).items():
                server_of[instance_id] = server_id
            for instance in past["instances"]:
                if instance["activated_at"]:
                    activated.add(instance["instance_id"])
        present = {instance["instance_id"] for instance in self.owned}
        failed = server_of.keys() - present - activated
        return Counter(server_of[instance_id] for instance_id in failed)

    def waiting_servers(self) -> list[str]:
        """Return the servers that need an upgrade and hold no slot."""
        rows = self.api["maintenance"]["servers"]
        needed = [row["server_id"] for row in rows if row["needs_upgrade"]]
        return [server_id for server_id in needed if self.slot_of(server_id) == "none"]

    def order_of_waiting(self) -> dict[str, int]:
        """Return the place in the order of upgrades of servers that wait and can come back."""
        waiting = self.waiting_servers()
        return upgrade_order([one for one in waiting if is_measured(one, self.api)], self.api)

    def earning_instances(self) -> Counter[str]:
        """Return the number of active and disabled instances on each server."""
        activated = [one["instance_id"] for one in self.owned if one["activated_at"]]
        return Counter(self.place_of_instance[instance_id][0] for instance_id in activated)

    def upgrade_window(self) -> Expected:
        """Return the stat of the upgrade window, which is open in these worlds.

        How many servers wait, are too late or cannot come back is shown only if it is not 0.
        """
        title, policy = "Upgrade window", self.api["maintenance"]
        window = policy["active_window"]
        slots, slots_used = window["max_concurrent_per_miner"], policy["current_slots"]
        seconds_left = seconds(window["upgrade_window_end"]) - END
        waiting, order = self.waiting_servers(), self.order_of_waiting()
        # The board reckons with 4 hours for each upgrade. Each upgrade under way takes the place of
        # one that could be made.
        rounds = seconds_left // (4 * HOUR)
        upgrades_left = max(0, rounds * slots - slots_used)
        too_late = max(0, len(order) - upgrades_left)
        cannot_come_back = len(waiting) - len(order)
        expected: Expected = {
            at(title, "ends in"): seconds_left,
            at(title, "slots used"): slots_used,
            at(title, "slots in all"): slots,
            at(title, "servers wait"): len(waiting) or None,
            at(title, "will not make it"): too_late or None,
            at(title, "cannot come back"): cannot_come_back or None,
            at(title, "begins in"): None,
        }
        for server_id, place in order.items():
            # The first one in the order is the next.
            if place == 1:
                name = self.servers[server_id]["name"]
                earning = self.earning_instances()[server_id]
                expected[at(title, f"earn on the next, {name}")] = earning
        return expected

    def maintenance(self) -> Expected:
        """Return the table of servers that need an upgrade or hold an upgrade slot."""
        title = "Maintenance"
        policy = self.api["maintenance"]["servers"]
        needing_upgrade = {row["server_id"] for row in policy if row["needs_upgrade"]}
        in_slot = {row["server_id"] for row in policy if row["maintenance_status"] != "none"}
        earning, order = self.earning_instances(), self.order_of_waiting()
        expected: Expected = {label_of_rows(title, "server_id"): sorted(needing_upgrade | in_slot)}
        for server_id in needing_upgrade | in_slot:
            row = {"server_id": server_id}
            # The numbers are those of `states.MAINTENANCE`: 3 is a server on which nothing earns.
            in_maintenance = 2 if earning[server_id] else 3
            number_of_slot = {"none": None, "pending": 1, "maintenance": in_maintenance}
            expected |= {
                at(title, "Server", **row): self.servers[server_id]["name"],
                at(title, "Now", **row): number_of_slot[self.slot_of(server_id)],
                at(title, "Order", **row): order.get(server_id),
                at(title, "Version", **row): None,
                at(title, "Can come back", **row): None,
                at(title, "Earning instances", **row): earning[server_id],
            }
            if server_id in needing_upgrade:
                # The 1 of `states.OLDER`: the version is older than the target of the window.
                expected[at(title, "Version", **row)] = 1
                expected[at(title, "Can come back", **row)] = int(is_measured(server_id, self.api))
        return expected

    def instances(self) -> Expected:
        """Return the values of the Instances board."""
        expected = self.lost() | self.ended() | self.failed()
        if not self.has_key:
            return expected | {
                at("Starting", "all"): None,
                at("Next purge"): None,
                at("Not secured"): None,
                label_of_rows("All instances", "instance_id"): [],
                label_of_rows("Instances that need a decision", "chute"): [],
            }
        expected |= self.lost_of_score() | self.starting() | self.ages() | self.starts()
        expected |= self.instances_by_state() | self.undecided_instances()
        expected[at("Not secured")] = sum(secured_at(one) > END for one in self.owned)
        expected[label_of_rows("All instances", "instance_id")] = sorted(
            one["instance_id"] for one in self.owned
        )
        for one in self.owned:
            expected |= self.instance(one)
        return expected

    def lost_of_score(self) -> Expected:
        """Return what ended instances lost in 24 hours, in units and as a part of the score.

        The end of the newest report is in milliseconds, as Grafana's times are.
        """
        title = "Lost in 24 h"
        units = self.units_lost(24)
        score = self.api["scores"]["raw_values"][self.miner]["instance_compute_units"]
        return {
            at(title, "units"): units,
            at(title, "of the score"): units / score,
            at(title, "counted to"): 1000 * self.reports.end,
        }

    def starting(self) -> Expected:
        """Return how many instances are starting, and when the service purges the next of them."""
        starting = [instance for instance in self.owned if instance_state(instance) == "starting"]
        expected: Expected = {
            at("Starting", "all"): len(starting),
            at("Starting", "over 1 h"): sum(is_late(instance) for instance in starting),
            at("Next purge", "in"): None,
            at("Next purge", "starting"): None,
        }
        if starting:
            purges = [deadlines_of(instance)["purge"] for instance in starting]
            # An instance whose purge is not known is left out. These worlds know at least one.
            known_purges = [purge for purge in purges if purge is not None]
            expected[at("Next purge", "in")] = min(known_purges) - END
        else:
            expected[at("Next purge", "starting")] = states.NONE_STARTING.value
        return expected

    def ages(self) -> Expected:
        """Return how long ago instances were created."""
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
        durations = []
        for instance in self.owned:
            if instance["active"]:
                started = seconds(instance["created_at"])
                durations.append(seconds(instance["activated_at"]) - started)
        return {at(title, "mean"): statistics.mean(durations), at(title, "longest"): max(durations)}

    def instances_by_state(self) -> Expected:
        """Return the number of instances in each state, and what they earn a second."""
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
            # Starting ones earn nothing yet, and have no line.
            at("Compute units per second", "active"): units["active"],
            at("Compute units per second", "disabled"): units["disabled"],
        }

    def undecided_instances(self) -> Expected:
        """Return the starting instances that are late, or that the service would refuse."""
        title = "Instances that need a decision"
        undecided: dict[str, Row] = {}
        for instance in self.owned:
            instance_id = instance["instance_id"]
            is_starting = instance_state(instance) == "starting"
            if is_starting and (is_late(instance) or self.launches.in_vain[instance_id]):
                undecided[instance_id] = instance
        expected: Expected = {label_of_rows(title, "instance_id"): sorted(undecided)}
        if not undecided:
            expected[label_of_rows(title, "chute")] = ["nothing"]
        for instance_id, instance in undecided.items():
            row = {"instance_id": instance_id}
            # 0 is "starting over 1 h", and 1 is "starting in vain".
            expected[at(title, "State", **row)] = 0 if is_late(instance) else 1
            # 0 is to read the log, and 1 to stop it, which is the step for each start in vain.
            first_step = 1 if self.launches.in_vain[instance_id] else 0
            expected[at(title, "What to do first", **row)] = first_step
            in_all_instances = self.instance(instance)
            for column in ("Chute", "Server", "Age", "Purge in"):
                same = in_all_instances[at("All instances", column, **row)]
                expected[at(title, column, **row)] = same
        return expected

    def instance(self, instance: Row) -> Expected:
        """Return the row of an instance in the table of all of them."""
        title, row = "All instances", {"instance_id": instance["instance_id"]}
        chute = self.chutes[instance["chute_id"]]
        server_id, model = self.place_of_instance[instance["instance_id"]]
        # An active instance has no purge.
        purge, secured = deadlines_of(instance).get("purge"), secured_at(instance)
        state = instance_state(instance)
        if is_late(instance):
            state = "starting over 1 h"
        elif state == "starting" and self.launches.in_vain[instance["instance_id"]]:
            state = "starting in vain"
        is_old = instance["active"] and instance["version"] != chute["version"]
        return {
            at(title, "State", **row): number_of(state, (*states.STARTS, *states.INSTANCE)),
            at(title, "Chute", **row): chute["name"],
            at(title, "Server", **row): self.servers[server_id]["name"],
            at(title, "Model", **row): model,
            at(title, "Age", **row): age(instance),
            at(title, "Purge in", **row): None if purge is None else purge - END,
            at(title, "Secured in", **row): secured - END if secured > END else None,
            at(title, "Units/s", **row): instance["compute_multiplier"],
            at(title, "Later", **row): float(later_of(instance["chute_id"], model, self.api)),
            at(title, "Chute version", **row): float(is_old),
        }

    def ended(self) -> Expected:
        """Return the ends in the hour of the newest report, by reason and outcome.

        The rows are found by the label `reason`. The label `why` repeats it, for the column that
        explains it in words. The row that says that nothing ended has only the first of them.
        """
        title = "Ended in the hour to $report:00 UTC"
        counts = Counter((end.reason, end.outcome) for end in self.reports.ends(1))
        reasons = sorted({reason for reason, _ in counts})
        outcomes = sorted({outcome for _, outcome in counts})
        expected: Expected = {
            label_of_rows(title, "reason"): reasons or ["nothing"],
            label_of_rows(title, "why"): reasons,
            label_of_rows(title, "outcome"): outcomes,
        }
        for (reason, outcome), count in counts.items():
            expected[at(title, "Instances", reason=reason, outcome=outcome)] = count
        return expected

    def failed(self) -> Expected:
        """Return the ends of a day that lost their score or never had one, by chute."""
        title = "Failed by chute, 24 h"
        if not self.has_key:
            # Not each hour of the day is known.
            return {label_of_rows(title, "chute_id"): [], label_of_rows(title, "name"): []}
        failures: dict[str, list[Ended]] = defaultdict(list)
        for end in self.reports.ends(24):
            if end.is_failure:
                failures[end.chute_id].append(end)
        expected: Expected = {label_of_rows(title, "chute_id"): sorted(failures)}
        for chute_id, failures_of_chute in failures.items():
            expected |= self.failures_of_chute(chute_id, failures_of_chute)
        return expected

    def failures_of_chute(self, chute_id: str, failures: Iterable[Ended]) -> Expected:
        """Return the row of a chute. A column without a number other than 0 is empty."""
        title, row = "Failed by chute, 24 h", {"chute_id": chute_id}
        outcomes = Counter(end.outcome for end in failures)
        units = sum(end.lost for end in failures)
        usd = units * self.unit_usd() if self.is_sick else None
        return {
            at(title, "Chute", **row): self.chutes[chute_id]["name"],
            at(title, "Lost their score", **row): outcomes["lost"] or None,
            at(title, "Failed starts", **row): outcomes["never_active"] or None,
            at(title, "Units", **row): units or None,
            at(title, "USD", **row): usd or None,
        }

    def market(self) -> Expected:
        """Return the values of the Market board."""
        expected = self.demand() | self.jobs()
        if self.has_key:
            expected |= self.offers()
        return expected

    def jobs(self) -> Expected:
        """Return how many of the waiting jobs each watched miner has tried, and how many jobs are
        stuck with it.
        """
        title = "Jobs of the chosen miners"
        if not self.has_key:
            return {label_of_rows(title, "hotkey"): []}
        waiting = waiting_jobs(self.api)
        # The service lists only jobs without an instance. An unfinished one that a miner has
        # claimed is therefore stuck.
        unfinished = [row for row in self.api["jobs"] if row["finished_at"] is None]
        expected: Expected = {}
        for hotkey in self.watched:
            row = {"hotkey": hotkey}
            tried = sum(hotkey in job["miner_history"] for job in waiting)
            stuck = sum(job["miner_hotkey"] == hotkey for job in unfinished)
            expected[at(title, "Tried", **row)] = tried
            expected[at(title, "Stuck", **row)] = stuck
        return expected

    def exported_chutes(self) -> set[str]:
        """Return the chutes that the watched miners run, ran in a day or could launch.

        Without a key, not each hour of the day is known.
        """
        chute_ids = self.running_chutes()
        for row in self.api["stats_per_chute"]["past_day"]["instance_stats"]:
            if row["miner_hotkey"] in self.watched:
                chute_ids.add(row["chute_id"])
        if self.has_key:
            chute_ids |= {end.chute_id for end in self.reports.ends(24)}
            for chute_id, chute in self.chutes.items():
                has_room = self.launches.room(chute).instances > 0
                if has_room and not chute["disabled"]:
                    chute_ids.add(chute_id)
        return chute_ids

    def running_chutes(self) -> set[str]:
        """Return the chutes of the watched miners' active instances, and those on their GPUs."""
        chute_ids = set()
        for instance in self.api["active_instances"]:
            if instance["miner_hotkey"] in self.watched:
                chute_ids.add(instance["chute_id"])
        for hotkey in self.watched:
            if hotkey in self.api["held_gpus"]:
                held = self.api["held_gpus"][hotkey]["provisioned"]
                chute_ids |= {gpu["chute"]["chute_id"] for gpu in held}
        return chute_ids

    def demand(self) -> Expected:
        """Return the number of bounties, and the table of demand: a row for each exported chute
        about which anything is known.
        """
        title, exported = "Demand", self.exported_chutes()
        bounties = self.ends_of_bounties()
        expected: Expected = {at("Bounties"): len(bounties)}
        for chute_id in exported:
            row = {"chute_id": chute_id}
            # Names come with a key.
            expected[at(title, "Chute", **row)] = None
            if self.has_key:
                expected[at(title, "Chute", **row)] = self.chutes[chute_id]["name"]
            expected[at(title, "Bounty ends in", **row)] = None
            if chute_id in bounties:
                expected[at(title, "Bounty ends in", **row)] = bounties[chute_id] - END
        # The rows are the exported chutes of which any column is known.
        shown = exported.intersection(bounties)
        if self.has_key:
            shown |= exported.intersection(self.chutes)
        for load in self.api["utilization"]:
            if load["chute_id"] in exported:
                shown.add(load["chute_id"])
                expected |= self.load_of_chute(load)
        for requests in self.api["metrics"]:
            if requests["chute_id"] in exported:
                shown.add(requests["chute_id"])
                row = {"chute_id": requests["chute_id"]}
                expected[at(title, "Active", **row)] = requests["instance_count"]
                expected[at(title, "Requests, 1 h", **row)] = requests["total_invocations"]
        expected[label_of_rows(title, "chute_id")] = sorted(shown)
        return expected

    def load_of_chute(self, load: Row) -> Expected:
        """Return what the table of demand shows of a row of the API's utilization."""
        title, row = "Demand", {"chute_id": load["chute_id"]}
        active, allowance = load["active_instance_count"], load["scale_allowance"]
        expected: Expected = {
            at(title, "Utilization, 15 m", **row): None,
            at(title, "Rate limited", **row): None,
            at(title, "Wanted", **row): load["target_count"],
            at(title, "Starting", **row): load["total_instance_count"] - active,
        }
        # Nothing is measured for a chute without an instance.
        if load["instance_count"] > 0:
            expected[at(title, "Utilization, 15 m", **row)] = load["utilization_15m"]
            expected[at(title, "Rate limited", **row)] = load["rate_limit_ratio_15m"]
        # The target is that of the last run of the autoscaler. An allowance is newer.
        if allowance:
            expected[at(title, "Wanted", **row)] = active + allowance
        return expected

    def ends_of_bounties(self) -> dict[str, float]:
        """Return when the bounty of each chute ends."""
        return {
            row["chute_id"]: row["created_at"] + row["seconds_elapsed"] + row["time_remaining"]
            for row in self.api["bounties"]
        }

    def idle_in_slot(self) -> int:
        """Return the number of idle GPUs of servers that are pending or in maintenance."""
        gpus = [gpu for gpu in self.gpus if self.slot_of(gpu["server_id"]) != "none"]
        return self.count_states(gpus)["idle"]

    def offers(self) -> Expected:
        """Return what can be launched, and what is refused."""
        title = "Launch now, pay per GPU"
        offers, idle = self.launches.offers, self.count_states(self.gpus)["idle"]
        expected: Expected = {
            at("Idle GPUs", "idle"): idle,
            # A 0 is not shown.
            at("Idle GPUs", "of them in maintenance"): self.idle_in_slot() or None,
            label_of_rows(title, "chute_id"): sorted({offer.chute_id for offer in offers}),
        }
        if not idle:
            expected |= {
                label_of_rows(title, "chute"): ["nothing"],
                label_of_rows("Refused chutes", "reason"): ["nothing"],
                label_of_rows("Best move", "server"): ["nothing"],
            }
        pay_of_chute: dict[str, float] = {}
        for offer in offers:
            expected |= self.offer(offer)
            # On the model of GPU on which the chute pays most.
            best_so_far = pay_of_chute.get(offer.chute_id, 0.0)
            pay_of_chute[offer.chute_id] = max(best_so_far, offer.first_day)
        best_five = sorted(pay_of_chute, key=pay_of_chute.__getitem__)[-5:]
        for chute_id in best_five:
            line = at("Units/s per GPU of the best five chutes", self.chutes[chute_id]["name"])
            expected[line] = pay_of_chute[chute_id]
        return expected | self.refused() | self.supply() | self.best_moves() | self.best_use()

    def offer(self, offer: Launchable) -> Expected:
        """Return the row of an offer. No failures are shown as an empty cell."""
        title, row = "Launch now, pay per GPU", {"chute_id": offer.chute_id, "gpu": offer.gpu}
        failures = [end for end in self.reports.ends(24) if end.is_failure]
        failures_of_chute = [end for end in failures if end.chute_id == offer.chute_id]
        bounty_end, unit_usd = self.ends_of_bounties().get(offer.chute_id), self.unit_usd()
        return {
            at(title, "Chute", **row): self.chutes[offer.chute_id]["name"],
            at(title, "Units/s, first day", **row): offer.first_day,
            at(title, "Later", **row): offer.later,
            at(title, "USD, first day", **row): DAY * offer.first_day * unit_usd,
            at(title, "USD a day, later", **row): DAY * offer.later * unit_usd,
            at(title, "GPUs", **row): offer.gpus,
            at(title, "Room", **row): offer.room,
            at(title, "Starting elsewhere", **row): offer.starting,
            at(title, "Failed here", **row): len(failures_of_chute) or None,
            at(title, "Bounty ends in", **row): None if bounty_end is None else bounty_end - END,
        }

    def refused(self) -> Expected:
        """Return how many chutes are refused for each reason, by the model of idle GPUs.

        The board may show more reasons than there are, with 0 chutes, but not less.
        """
        expected: Expected = {}
        reasons = shown_refusals(self.answers)
        assert {reason for _, reason in self.launches.refused} <= set(reasons)
        for gpu in {model for _, model in self.launches.free}:
            for reason in reasons:
                place = at("Refused chutes", "Chutes", gpu=gpu, reason=reason)
                expected[place] = self.launches.refused[gpu, reason]
        return expected

    def best_use(self) -> Expected:
        """Return what the idle GPUs earn in the best of all placements in their first day."""
        title, best = "Best use of idle GPUs", DAY * self.launches.best()
        usd = best * self.unit_usd() if self.is_sick else None
        return {at(title, "units, first day"): best, at(title, "dollars, first day"): usd}

    def best_moves(self) -> Expected:
        """Return the rows of the launches that the board shows, which must be a best placement.

        There may be several, so the board itself is asked for the one that it chose.
        """
        title = "Best move"
        moves = self.shown_moves()
        self.assert_best(moves)
        expected: Expected = {
            label_of_rows(title, "server_id"): sorted({move.server_id for move in moves}),
            label_of_rows(title, "chute_id"): sorted({move.offer.chute_id for move in moves}),
        }
        unit_usd = self.unit_usd()
        for move in moves:
            offer = move.offer
            row = {"server_id": move.server_id, "chute_id": offer.chute_id}
            expected |= {
                at(title, "Server", **row): self.servers[move.server_id]["name"],
                at(title, "Launch", **row): self.chutes[offer.chute_id]["name"],
                at(title, "Instances", **row): move.instances,
                at(title, "GPU", **row): offer.gpu,
                at(title, "USD, first day", **row): DAY * move.gpus * offer.first_day * unit_usd,
                at(title, "USD a day, later", **row): DAY * move.gpus * offer.later * unit_usd,
            }
        later_units = DAY * sum(move.gpus * move.offer.later for move in moves)
        later_usd = later_units * unit_usd if self.is_sick else None
        expected[at("Best use of idle GPUs", "dollars a day, later")] = later_usd
        return expected

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
        gpus_of_place: Counter[tuple[str, str]] = Counter()
        instances_of_chute: Counter[str] = Counter()
        units_per_second = 0.0
        for move in moves:
            # Another start of a chute that hangs would probably hang too.
            assert move.offer.chute_id not in self.launches.hanging
            gpus_of_place[move.server_id, move.offer.gpu] += move.gpus
            instances_of_chute[move.offer.chute_id] += move.instances
            units_per_second += move.gpus * move.offer.first_day
        for place, gpus in gpus_of_place.items():
            assert gpus <= self.launches.usable[place]
        for offer in self.launches.offers:
            assert instances_of_chute[offer.chute_id] <= offer.room
        assert units_per_second == pytest.approx(self.launches.best())

    def supply(self) -> Expected:
        """Return the GPUs of the miner's models: its own, and those of all miners."""
        models = {gpu["gpu_identifier"] for gpu in self.gpus}
        expected: Expected = {label_of_rows("Supply", "gpu"): sorted(models)}
        for model in models:
            count = self.count_states(gpu for gpu in self.gpus if gpu["gpu_identifier"] == model)
            of_all_miners = self.api["platform_gpus"][model]
            expected |= {
                at("Supply", "Yours", gpu=model): count.total(),
                at("Supply", "Idle", gpu=model): count["idle"],
                at("Supply", "All", gpu=model): sum(of_all_miners.values()),
                at("Supply", "Unused, all", gpu=model): of_all_miners["idle"],
            }
        return expected

    def neighbours_in_line(self) -> Expected:
        """Return the seats that are lost before and after that of the miner.

        A miner without a seat, or whose seat cannot be lost, is not in line.
        """
        title = "Neighbours in line for the seat"
        registrations = self.registrations_before_loss()
        if self.miner not in registrations:
            return {
                label_of_rows(title, "hotkey"): [],
                label_of_rows(title, "miner"): [states.NOT_IN_LINE.value],
            }
        near = neighbours_in(registrations, self.miner, far=4)
        expected: Expected = {label_of_rows(title, "hotkey"): sorted(near)}
        for hotkey in near:
            row = {"hotkey": hotkey}
            expected |= {
                at(title, "Registrations", **row): registrations[hotkey],
                at(title, "Seat age", **row): END - seconds(self.seats[hotkey]["synced_at"]),
                # Immune seats are far behind, see `registrations_before_loss`.
                at(title, "Immune", **row): 0,
                at(title, "USD a day", **row): self.usd_a_day(hotkey),
            }
        return expected

    def usd_a_day(self, hotkey: str) -> float | None:
        """Return what a miner is paid in a day, None where dollars are not known."""
        if self.kind not in PAID:
            return None
        return self.incentives()[hotkey] * self.usd_of_all_miners()

    def ranks(self) -> dict[str, int]:
        """Return the rank by score of each miner that has one."""
        return {hotkey: self.rank(hotkey) for hotkey in self.shares}

    def subnet(self) -> Expected:
        """Return the values of the Subnet board."""
        units = self.units_by_miner("past_hour")
        blacklisted = [seat for seat in self.seats.values() if seat["blacklist_reason"]]
        expected: Expected = {
            at("Score in 24 h", "now"): self.shares[self.miner],
            at("Score in 24 h", "about"): self.shares_in_24_h()[self.miner],
            # The bounds need 15 days of history.
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
        expected |= self.gaps() | self.safety_of_seats([self.miner])
        return expected | self.neighbours_in_line() | self.neighbours_in_rank() | self.leaders()

    def shares_in_24_h(self) -> dict[str, float]:
        """Return the estimated score share of each miner in 24 hours: 43 % of the way."""
        return self.part_of_the_way(0.43)

    def gaps(self) -> Expected:
        """Return the gaps to the next better and the next worse miner.

        They are in dollars, or shares of all scores where dollars are unknown.
        """
        unit = "dollars a day" if self.kind in PAID else "of all scores; dollars: docs/money.md"
        share_of_miner = self.shares[self.miner]
        gaps = [share - share_of_miner for share in self.shares.values()]
        # Where dollars are unknown, it is 1, so that the gaps stay shares.
        usd = self.usd_of_all_miners()
        better = [gap * usd for gap in gaps if gap > 0]
        worse = [-gap * usd for gap in gaps if gap < 0]
        expected: Expected = {
            at("To the next better", unit): min(better, default=None),
            at("To the next better", "this miner is"): None,
            at("To the next worse", unit): min(worse, default=None),
            at("To the next worse", "this miner is"): None,
        }
        if not better:
            expected[at("To the next better", "this miner is")] = states.NONE_BEYOND.value
        if not worse:
            expected[at("To the next worse", "this miner is")] = states.NONE_BEYOND.value
        return expected

    def neighbours_in_rank(self) -> Expected:
        """Return the miners before and after the miner in rank, and how many may overtake it."""
        title = "Neighbours in rank"
        headings, shares_in_24_h = self.headings(), self.shares_in_24_h()
        near = neighbours_in(self.ranks(), self.miner, far=4)
        expected: Expected = {label_of_rows(title, "hotkey"): sorted(near)}
        overtakers = 0
        for hotkey in near:
            row, share = {"hotkey": hotkey}, self.shares[hotkey]
            expected |= {
                at(title, "Rank", **row): self.rank(hotkey),
                at(title, "UID", **row): str(self.seats[hotkey]["node_id"]),
                at(title, "Score share", **row): share,
                at(title, "In 24 h", **row): shares_in_24_h[hotkey],
                at(title, "Heading", **row): headings[hotkey],
                at(title, "USD a day", **row): self.usd_a_day(hotkey),
                at("Score share of the neighbours in rank", _short(hotkey)): share,
            }
            overtaking = self.text_of_overtaking(hotkey, headings)
            if overtaking == "may overtake you":
                overtakers += 1
            # Several numbers have one text, so the text of the number that is shown is compared.
            number = value("chutes-subnet", self.answers, at(title, "Overtaking", **row))
            expected[at(title, "Overtaking", **row)] = number
            texts = [state.text for state in states.OVERTAKING if state.value == number]
            assert texts == [overtaking]
        # Nobody is behind the last one, so that nothing is shown.
        is_last = self.rank(self.miner) == len(self.shares)
        title = "May overtake this miner"
        expected[at(title, "miners")] = 0 if not overtakers and not is_last else None
        expected[at(title, "miners. Earn more: see Market")] = overtakers or None
        return expected

    def text_of_overtaking(self, hotkey: str, headings: Mapping[str, float]) -> str:
        """Return what the board says of a neighbour in rank: whether it may overtake the miner, or
        be overtaken.
        """
        if hotkey == self.miner:
            return "this miner"
        is_better = self.rank(hotkey) < self.rank(self.miner)
        margin = headings[hotkey] / headings[self.miner] - 1
        # Below 5 % between headings, which miner is ahead later is a coin flip: see docs/plan.md.
        if abs(margin) < 0.05:
            return "too close to say"
        if is_better and margin < 0:
            return "you may overtake"
        if not is_better and margin > 0:
            return "may overtake you"
        return "stays"

    def neighbours(self, far: int) -> set[str]:
        """Return the watched miners, and those at most some places away in rank or in the line of
        seats that are lost next.
        """
        hotkeys = set(self.watched)
        for places_of_miners in (self.ranks(), self.registrations_before_loss()):
            for hotkey in places_of_miners.keys() & self.watched:
                hotkeys |= neighbours_in(places_of_miners, hotkey, far)
        return hotkeys

    def leaders(self) -> Expected:
        """Return all exported miners: the watched ones and their neighbours."""
        exported = set(value("chutes-subnet", self.answers, label_of_rows("Leaderboard", "hotkey")))
        # A neighbour stays one up to 8 places, so that its series do not come and go.
        assert self.neighbours(4) <= exported <= self.neighbours(8)
        expected: Expected = {}
        best = sorted(exported & self.shares.keys(), key=self.shares.__getitem__)[-10:]
        for hotkey in best:
            expected[at("Score share, top 10", _short(hotkey))] = self.shares[hotkey]
        for hotkey in exported:
            expected |= self.leader(hotkey)
        return expected

    def leader(self, hotkey: str) -> Expected:
        """Return the row of a miner in the leaderboard."""
        title, row = "Leaderboard", {"hotkey": hotkey}
        seat = self.seats.get(hotkey)
        expected: Expected = {
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
            # Without any, a watched miner has 0, and the cell of another miner is empty.
            has_any = hotkey in count or hotkey in self.watched
            expected[at(title, column, **row)] = count[hotkey] if has_any else None
        if seat is not None:
            expected |= {
                at(title, "Incentive", **row): self.incentives()[hotkey],
                at(title, "Stake", **row): seat["stake"],
                at(title, "Seat age", **row): END - seconds(seat["synced_at"]),
                at(title, "Blacklist", **row): float(bool(seat["blacklist_reason"])),
            }
        return expected

    def exporter(self) -> Expected:
        """Return the values of the Exporter board, with the feeds that fail in the world."""
        trust = "yes" if self.has_key else "no key: set --hotkey-file"
        expected: Expected = {
            at("Trust the boards"): number_of("no" if self.is_sick else trust, states.TRUST),
            at("Exporters down"): 0,
            at("Rules"): 1,
        }
        targets = ["exporter-1:9109"]
        if self.kind is World.HEALTHY:
            targets.append("exporter-2:9109")
        expected[label_of_rows("Exporters", "instance")] = targets
        for target in targets:
            expected[at("Exporters", "State", instance=target)] = 1
            expected[at("Exporters", "Configuration", instance=target)] = 1
        return expected | self.good_feeds() | self.bad_feeds()

    def good_feeds(self) -> Expected:
        """Return the rows of some feeds that have good answers in every world."""
        title = "All feeds"
        records_of_platform = {
            "metagraph": len(self.seats),
            "bounties": len(self.api["bounties"]),
            "utilization": len(self.api["utilization"]),
        }
        records_of_miner = {}
        # All other feeds need a key.
        if self.has_key:
            records_of_platform["active_instances"] = len(self.api["active_instances"])
            records_of_platform["chutes"] = len(self.chutes)
            records_of_miner = {
                "servers": len(self.servers),
                "nodes": len(self.gpus),
                "instances": len(self.owned),
            }
        expected: Expected = {}
        for feed, count in (records_of_platform | records_of_miner).items():
            row = {"feed": feed}
            if feed in records_of_miner:
                row["hotkey"] = self.miner
            expected |= {
                at(title, "Records", **row): count,
                at(title, "State", **row): 1,
                at(title, "Rejected", **row): 0,
                # The last scrape has requested it at the end.
                at(title, "Age", **row): 0,
            }
        return expected

    def bad_feeds(self) -> Expected:
        """Return the feeds that fail in the sick world, and the alerts that need them."""
        # The reason of the failure by feed.
        without_data = {}
        with_old_data = {}
        if self.is_sick:
            # One of the watched miners has no seat, so that the API refuses its key.
            without_data = {
                "images": "unavailable",
                "instances": "not_registered",
                "inventory": "not_registered",
                "maintenance": "not_registered",
                "nodes": "not_registered",
                "servers": "not_registered",
                "thrash_cooldowns": "not_registered",
            }
            with_old_data = {"unique_chute_history": "doubted"}
        bad = without_data | with_old_data
        blind_alerts = []
        for alert, needed_feeds in NEEDED.items():
            if not needed_feeds.isdisjoint(without_data):
                blind_alerts.append(alert)
        expected: Expected = {
            at("Feeds without a full answer", "no data"): len(without_data),
            at("Feeds without a full answer", "old data"): len(with_old_data),
            at("Blind alerts"): len(blind_alerts),
            label_of_rows("Bad feeds", "feed"): sorted(bad) or ["nothing"],
        }
        for feed, reason in bad.items():
            has_data = feed in with_old_data
            # 0 is no data, and 1 is old data.
            state = 1 if has_data else 0
            expected |= {
                at("Bad feeds", "State", feed=feed): state,
                at("Bad feeds", "Reason", feed=feed): reason,
                # This column shows the reason as advice.
                at("Bad feeds", "What to do", feed=feed): reason,
                # Only a feed without data blinds alerts. The column shows their names for it.
                at("Bad feeds", "Blind alerts", feed=feed): None if has_data else feed,
                at("Feeds over time", feed): state,
                at("All feeds", "Reason", feed=feed): reason,
            }
        if self.is_sick:
            expected[at("All feeds", "Doubt", feed="unique_chute_history")] = "no_history"
        return expected


def _shares(api: Mapping[str, Any]) -> dict[str, float]:
    """Return the score shares of the miners that have one."""
    shares = api["scores"]["final_scores"]
    return {hotkey: share for hotkey, share in shares.items() if share is not None}


def rank_in(numbers: Mapping[str, float], hotkey: str) -> int:
    """Return the rank of a miner by some number: 1 is the greatest."""
    return 1 + sum(number > numbers[hotkey] for number in numbers.values())


def _short(hotkey: str) -> str:
    """Return a hotkey as the boards show it: its first 5 and its last 4 characters."""
    return f"{hotkey[:5]}…{hotkey[-4:]}"


def neighbours_in(places: Mapping[str, int], hotkey: str, far: int) -> set[str]:
    """Return the miners at most some places away from a miner, and the miner."""
    return {other for other, place in places.items() if abs(place - places[hotkey]) <= far}


def age(instance: Row) -> float:
    """Return the seconds since an instance was created."""
    return END - seconds(instance["created_at"])


def is_late(instance: Row) -> bool:
    """Return whether an instance has been starting for over an hour."""
    return instance_state(instance) == "starting" and age(instance) > HOUR


def secured_at(instance: Row) -> float:
    """Return the time from which on an active public instance keeps its score.

    It is 0 for others, which is never in the future. Nobody is billed for a public instance.
    """
    if not instance["active"] or instance["billed_to"] is not None:
        return 0
    return seconds(instance["activated_at"]) + HOUR


def shown_refusals(answers: Answers) -> list[str]:
    """Return the reasons that the table of refused chutes shows."""
    reasons = value("chutes-market", answers, label_of_rows("Refused chutes", "reason"))
    # The row that says that no GPU is idle has this instead of a reason.
    return [reason for reason in reasons if reason != "nothing"]


def is_equal(shown: Any, expected: Any) -> bool:
    """Return whether a board shows what is expected, but for errors of rounding."""
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
    """Return what a board should show. The method of :class:`Truth` has the board's name."""
    expected: Expected = getattr(Truth(answers, kind), board)()
    return expected


def test_bars_count_the_ends_of_an_hour_by_reason_and_the_starts_that_failed(
    answers: dict[World, Answers],
) -> None:
    sick = answers[World.SICK]
    reports = Reports(sick.reports, sick.hotkeys[0])
    ends = reports.ends(1)
    panel = panel_of("chutes-instances", "Ended per hour by reason")
    bars_by_reason, bars_of_failed_starts = (
        sick.over_time[query.expr]["result"] for query in panel.queries
    )
    shown = {}
    for bar in bars_by_reason:
        # A bar needs a scrape soon after its hour. The sparse scrapes of a test have one only after
        # the last hour, so that each series has one bar.
        ((time, number),) = bar["values"]
        assert float(time) == reports.end
        shown[bar["metric"]["reason"]] = float(number)
    assert shown
    assert shown == Counter(end.reason for end in ends)
    # Starts that failed have a bar without a reason.
    (bar,) = bars_of_failed_starts
    ((_, number),) = bar["values"]
    assert float(number) == sum(end.outcome == "never_active" for end in ends)


def test_an_alert_about_a_chute_shows_its_name(answers: dict[World, Answers]) -> None:
    sick = answers[World.SICK]
    ends = Reports(sick.reports, sick.hotkeys[0]).ends(6)
    failures = Counter(end.chute_id for end in ends if end.is_failure)
    names = {row["chute_id"]: row["name"] for row in sick.api["chutes"]}
    # The alert fires from three failures in 6 hours on.
    expected = [names[chute_id] for chute_id, count in failures.items() if count >= 3]
    # The first query has a row for each alert.
    severities = panel_of("chutes-overview", "What is wrong").queries[0]
    alerts = [row["metric"] for row in sick.now[severities.expr]["result"]]
    shown = [alert["place"] for alert in alerts if alert["alertname"] == "ChutesChuteFails"]
    assert expected
    assert sorted(shown) == sorted(expected)


OWN = "the exporter's own, which tests/page compares"
SEAT = "no watched seat has that end"
NOT_COMPARED = {
    "chutes-overview: Verdict": "tests/grafana/test_worlds.py compares the alerts",
    "chutes-overview: What is wrong": "tests/grafana/test_worlds.py compares the alerts",
    "chutes-overview: Lost in 24 h: units, at least": "tests/prometheus compares it",
    "chutes-instances: Lost in 24 h: units, at least": "tests/prometheus compares it",
    "chutes-overview: Is the seat safe?: Immune until": SEAT,
    "chutes-overview: Is the seat safe?: Safe now: lost within": SEAT,
    f"chutes-fleet: {SERVERS}: Cause": "tests/grafana/test_worlds.py compares the alerts",
    f"chutes-fleet: {SERVERS}: What to do first": "it is a text for the cause",
    "chutes-market: Launch now, pay per GPU: Boost": "tests/commands/test_advise.py compares it",
    "chutes-fleet: Upgrade window: begins in": "tests/prometheus/test_boards.py announces a window",
    "chutes-fleet: GPU utilization": "no simulated world has NVIDIA's exporter",
    "chutes-fleet: GPU temperature": "no simulated world has NVIDIA's exporter",
    "chutes-fleet: XID errors": "no simulated world has NVIDIA's exporter",
    "chutes-instances: Ended per hour by reason": "a test of its own compares the bars",
    "chutes-subnet: Is the seat safe?: Immune until": SEAT,
    "chutes-subnet: Is the seat safe?: Safe now: lost within": SEAT,
    "chutes-subnet: Is the seat safe?: In danger": SEAT,
    "chutes-subnet: Is the seat safe?: Miners without a seat": SEAT,
    "chutes-subnet: May overtake this miner: miners. Earn": "tests/prometheus compares it",
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
    """Return which :class:`Place` compares each column of a table, or each line of a graph.

    The keys are titles of columns and legends of lines. The values are names of places. A column
    that shows a label is compared by a place with the name `#label`, see `label_of_rows`. An empty
    name means that any place of the panel will do. This is so for the lines of one legend with
    labels, of which only one must be compared, and for a single line, whose place needs no name.
    """
    if panel.kind != "table":
        legends = {query.legend for query in panel.queries}
        has_line_for_each_series = "{{" in panel.queries[0].legend
        if has_line_for_each_series or len(legends) == 1:
            return dict.fromkeys(legends, "")
        return {legend: legend for legend in legends}
    columns = {}
    for column in panel.columns:
        # A short hotkey stands beside the hotkey.
        if column.title in ("", "Miner"):
            continue
        if column.queries:
            columns[column.title] = column.title
        else:
            columns[column.title] = f"#{column.source}"
    return columns


def _has_legend(name: str, template: str) -> bool:
    """Return whether a template of a legend with labels makes a name.

    A template `earn on {{server}}` makes the name "earn on h200-0".
    """
    # The template as a regular expression, in which each escaped `{{label}}` matches any text.
    pattern = re.sub(r"\\\{\\\{\w+\\\}\\\}", ".+", re.escape(template))
    return "{{" in template and re.fullmatch(pattern, name) is not None


def test_every_value_of_a_board_is_compared_in_a_world(answers: dict[World, Answers]) -> None:
    compared = compared_names(answers)
    missing = []
    for board in BOARDS:
        for panel in board.panels:
            compared_in_panel = compared[board.uid, panel.title]
            for name, place in names_of(panel).items():
                if not _is_compared(name, place, compared_in_panel):
                    missing.append(f"{board.uid}: {panel.title}: {name}")
    for name in missing:
        assert name.startswith(tuple(NOT_COMPARED)), name
    # No exception is left that is not needed any more.
    for exception in NOT_COMPARED:
        assert any(name.startswith(exception) for name in missing), exception


def compared_names(answers: dict[World, Answers]) -> dict[tuple[str, str], set[str]]:
    """Return the columns, lines and labels of each panel that are compared in a world.

    The keys are the board's uid and the panel's title.
    """
    compared: dict[tuple[str, str], set[str]] = defaultdict(set)
    for kind, board in itertools.product(KINDS, BOARD_NAMES):
        uid = f"chutes-{board}"
        for place in expected_on(board, answers[kind], kind):
            # What no world shows is not compared.
            if value(uid, answers[kind], place) is not None:
                # A row is found by its labels, so these are compared, too. As in `label_of_rows`,
                # the name of a label begins with `#`.
                labels = {f"#{label}" for label, _ in place.row}
                compared[uid, place.panel] |= {place.name} | labels
    return compared


def _is_compared(name: str, place: str, compared: set[str]) -> bool:
    """Return whether a column or line of a panel is compared.

    Args:
        name: The title of the column, or the legend of the line.
        place: The name of the place that compares it, empty if any place of the panel does.
        compared: The names of the panel's places that are compared.
    """
    # A legend with labels is compared by the name of one of its lines.
    if name in compared or any(_has_legend(line, name) for line in compared):
        return True
    if not place:
        return bool(compared)
    return place in compared
