"""Am I safe, and who passes me?"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from grafana.parts import (
    EXPORTERS,
    HOTKEY_WIDTH,
    Board,
    Column,
    Query,
    board_link,
    graph,
    nothing_wrong,
    of_exporters,
    select,
    short,
    stat_panel,
    table_panel,
    top_ten_at_end,
)
from grafana.states import BLACKLISTED, DIRECTION, NOBODY, ORANGE, PLAIN, RED
from grafana.worlds import CHAINED, KEYED

CHOSEN: Final = {"hotkey": "$miner"}
RATIO: Final = of_exporters("chutes_miner_score_ratio", "hotkey")
RANK: Final = of_exporters("chutes_miner_score_rank", "hotkey")
MY_RATIO: Final = of_exporters("chutes_miner_score_ratio", **CHOSEN)
MY_RANK: Final = of_exporters("chutes_miner_score_rank", **CHOSEN)
MY_RANK_BEFORE: Final = f"max({select('chutes_miner_score_rank', EXPORTERS, **CHOSEN)} offset 1d)"
BEFORE_LOSS: Final = of_exporters("chutes_miner_registrations_before_loss", **CHOSEN)
HEADING: Final = "hotkey:chutes_miner_score_heading_ratio:all"
MY_HEADING: Final = select(HEADING, **CHOSEN)
POINTS: Final = f"100 * (sum({MY_HEADING}) - on () {MY_RATIO})"
NEAR: Final = f"(abs({RANK} - scalar({MY_RANK})) <= 5)"
ALL_EXPORTED: Final = f"and on () count({RATIO}) == on () {of_exporters('chutes_scored_miners')}"
TAKEN: Final = of_exporters("chutes_metagraph_miners")
SEAT_AGE: Final = f"time() - {of_exporters('chutes_miner_registered_timestamp_seconds', 'hotkey')}"
NEW: Final = f"({SEAT_AGE} < 86400)"
KNOWN: Final = f"{TAKEN} == on () count({SEAT_AGE})"
"""The number of seats, where the exporters export all of them."""
MINER: Final = (
    Column("hotkey", ""),
    Column(
        "miner",
        "Miner",
        width=HOTKEY_WIDTH,
        link=board_link("chutes-subnet", miner="${__data.fields.hotkey}"),
        tooltip="${__data.fields.hotkey}",
    ),
)
NEWCOMER: Final = (MINER[0], replace(MINER[1], states=NOBODY))
EVERYBODY: Final = "Unknown: no data. It needs an exporter with --miners all."


def _near(query: str) -> str:
    """Keep the chosen miner and its neighbours in the ranking."""
    return f"{query} and on (hotkey) {NEAR}"


def _all(metric: str, **where: str) -> str:
    return of_exporters(metric, "hotkey", **where)


SUBNET: Final = Board(
    "chutes-subnet",
    "Chutes subnet",
    "Is the chosen miner's seat safe, and who passes it? An exporter exports every miner with --miners all, and needs "
    "no key for it.",
    variables=("cluster", "job", "instance", "miner"),
)

SUBNET.show(
    stat_panel(
        "Before seat loss",
        "Registrations before the one that takes the chosen miner's seat. Below 5, put idle GPUs to work.",
        [Query(BEFORE_LOSS, "registrations", CHAINED, sometimes=True)],
        thresholds=[(0, RED), (5, ORANGE), (20, PLAIN)],
        decimals=0,
        empty="cannot be lost now, or no --chain.url",
        size=(5, 3),
    ),
    stat_panel(
        "Registrations",
        "Miners that came in the past day. If no seat is free, each takes the seat with the lowest incentive. It needs "
        "an exporter with --miners all.",
        [
            Query(f"sum({SEAT_AGE} < bool 86400) and on () {KNOWN}", "in 24 h"),
        ],
        decimals=0,
        empty="needs --miners all",
        size=(5, 3),
    ),
    stat_panel(
        "Free seats",
        "Free seats of the 256 of the subnet. While there are some, a newcomer takes nobody's seat.",
        [Query(f"256 - {TAKEN}", "seats")],
        decimals=0,
        trend=True,
        size=(4, 3),
    ),
    stat_panel(
        "Rank",
        "Rank of the chosen miner by score a day ago and now; 1 is the best.",
        [
            Query(
                f'count_values("now", {MY_RANK}) * on () group_left (before)'
                f' (count_values("before", {MY_RANK_BEFORE}) or on () label_replace(vector(1), "before", "?", "", ""))',
                "{{before}} → {{now}}",
            )
        ],
        as_text=True,
        empty="no score",
        size=(4, 3),
    ),
    stat_panel(
        "Score share",
        "Share of all scores of the chosen miner, and where it is heading within a day, in percentage points.",
        [
            Query(MY_RATIO, "share"),
            Query(f"{POINTS} >= 0", "heading, points", unit="prefix:+", sometimes=True),
            Query(f"{POINTS} < 0", "heading, points", unit="none", sometimes=True),
        ],
        unit="percentunit",
        decimals=1,
        empty="no score",
        size=(6, 3),
    ),
    table_panel(
        "The miner and its neighbours",
        "The chosen miner, five miners before and five after it, with what happens within a day if all instances "
        "continue. A click on a miner chooses it.",
        [
            Query(short(_near(RANK))),
            Query(
                f"2 * (({RANK} - scalar({MY_RANK}) >= -5 <= 5) > bool 0)"
                f" + on (hotkey) ({HEADING} >= bool scalar({MY_HEADING}))"
                f" + on (hotkey) 3 * ({HEADING} == bool scalar({MY_HEADING}))"
            ),
            Query(_near(RATIO)),
            Query(_near(HEADING)),
            Query(_near(f"100 * ({HEADING} - on (hotkey) {RATIO})")),
            Query(_near(_all("chutes_miner_incentive_ratio"))),
            Query(_near(_all("chutes_miner_active_instances")), data=KEYED),
        ],
        [
            Column("A", "Rank", "none", 0, width=85),
            *MINER,
            Column("B", "Within a day", states=DIRECTION, width=130, missing=" "),
            Column("C", "Score share", "percentunit", 2, width=110),
            Column("D", "Heading", "percentunit", 2, width=110),
            Column("E", "Change, points", "none", 2, width=125),
            Column("F", "Incentive", "percentunit", 2, width=110),
            Column("G", "Instances", "none", 0, width=100),
        ],
        empty=EVERYBODY,
        sort=[("Rank", False)],
        size=(24, 9),
    ),
    graph(
        "Score share of the neighbours",
        "The chosen miner, and four miners before and after it. Lines that come closer are miners that pass it, or "
        "that it passes.",
        [
            Query(
                short(f"{RATIO} and on (hotkey) abs({RANK[:-1]} @ end()) - scalar({MY_RANK[:-1]} @ end()))) <= 4"),
                "{{miner}}",
            )
        ],
        unit="percentunit",
        decimals=2,
        empty=EVERYBODY,
        size=(24, 7),
    ),
)

SUBNET.fold(
    "All miners",
    table_panel(
        "Newcomers of the past day",
        "Miners that the service has seen for less than a day. If there are many, they are taking the seats with the "
        "lowest incentive.",
        [
            Query(short(NEW), sometimes=True),
            Query(f"{of_exporters('chutes_miner_info', 'hotkey', 'uid')} and on (hotkey) {NEW}", sometimes=True),
            Query(nothing_wrong(f"{KNOWN} unless on () {NEW}", "miner"), sometimes=True),
        ],
        [
            *NEWCOMER,
            Column("uid", "UID", width=90, missing=" "),
            Column("A", "Seat age", "s", 1, width=100, missing=" "),
        ],
        empty=EVERYBODY,
        sort=[("Seat age", False)],
        size=(24, 6),
    ),
    graph(
        "Score share, top 10",
        "The ten largest shares. A line that jumps is a miner that added or lost many GPUs.",
        [Query(short(top_ten_at_end(RATIO, RATIO)), "{{miner}}")],
        unit="percentunit",
        decimals=2,
        empty=EVERYBODY,
    ),
    graph(
        "Concentration",
        "Score share of the ten best, and the Herfindahl index, the sum of the squared shares. At 100 % one miner "
        "has all.",
        [
            Query(f"sum(topk(10, {RATIO})) {ALL_EXPORTED}", "top ten"),
            Query(f"sum({RATIO} ^ 2) {ALL_EXPORTED}", "Herfindahl index"),
        ],
        unit="percentunit",
        decimals=1,
        empty=EVERYBODY,
    ),
    table_panel(
        "Leaderboard",
        "All exported miners, the best first. A click on a miner chooses it. Only the operators of the platform can "
        "remove a miner from the blacklist.",
        [
            Query(short(_all("chutes_miner_incentive_rank"))),
            Query(RANK),
            Query(RATIO),
            Query(_all("chutes_miner_incentive_ratio")),
            *(Query(_all("chutes_miner_window_compute_units", window=window)) for window in ("1h", "1d", "7d")),
            Query(_all("chutes_miner_active_instances"), data=KEYED),
            Query(f"time() - {_all('chutes_miner_last_activation_timestamp_seconds')}", data=KEYED),
            Query(_all("chutes_miner_window_bounties", window="1d")),
            Query(of_exporters("chutes_miner_blacklist_info", "hotkey", "reason")),
        ],
        [
            Column("B", "Rank", "none", 0, width=85),
            *MINER,
            Column("C", "Score share", "percentunit", 2, width=105),
            Column("D", "Incentive", "percentunit", 2, width=100),
            Column("A", "By incentive", "none", 0, width=105),
            Column("E", "Units, 1 h", "short", 1, width=100),
            Column("F", "Units, 1 day", "short", 1, width=105),
            Column("G", "Units, 7 days", "short", 1, width=110),
            Column("H", "Instances", "none", 0, width=90),
            Column("I", "Last start", "s", 1, width=95),
            Column("J", "With bounty, 1 day", "none", 0, width=150),
            Column("reason", "Blacklisted", width=130, missing=" "),
        ],
        empty=EVERYBODY,
        sort=[("Rank", False)],
        size=(24, 14),
    ),
    table_panel(
        "Stake and age of seats",
        "Stake on each hotkey as stored on the chain, and the time since the service first saw the seat. A new seat "
        "is protected for some time.",
        [
            Query(short(_all("chutes_miner_stake"))),
            Query(_all("chutes_miner_stake_tao")),
            Query(_all("chutes_miner_stake_alpha")),
            Query(f"time() - {_all('chutes_miner_registered_timestamp_seconds')}"),
            Query(_all("chutes_miner_consensus_ratio")),
            Query(_all("chutes_miner_blacklisted")),
        ],
        [
            *MINER,
            Column("A", "Stake", "short", 1, width=90),
            Column("B", "TAO", "short", 1, width=80),
            Column("C", "Alpha", "short", 1, width=90),
            Column("D", "Seat age", "s", 1, width=100),
            Column("E", "Consensus", "percentunit", 2, width=110),
            Column("F", "Blacklist", states=BLACKLISTED, width=100),
        ],
        empty=EVERYBODY,
        sort=[("Stake", True)],
        size=(24, 8),
    ),
)

SUBNET.fold(
    "Platform over time",
    graph(
        "Miners",
        "Miners with a score, with compute units in the past hour, and on the blacklist.",
        [
            Query(of_exporters("chutes_scored_miners"), "with a score"),
            Query(of_exporters("chutes_platform_window_miners", window="1h"), "with compute units"),
            Query(of_exporters("chutes_metagraph_blacklisted_miners"), "blacklisted"),
        ],
        unit="none",
        decimals=0,
    ),
    graph(
        "Compute units per hour of all miners",
        "Compute units of all counting instances in the past hour. A miner's share falls if the total grows and the "
        "miner does not.",
        [Query(of_exporters("chutes_platform_window_compute_units", window="1h"), "all miners")],
        unit="short",
        decimals=0,
    ),
    graph(
        "Compute time per hour of all miners",
        "Seconds of all counting instances in the past hour. If compute units fall while this time stays the same, "
        "multipliers are lower.",
        [Query(of_exporters("chutes_platform_window_compute_seconds", window="1h"), "all miners")],
        unit="s",
        decimals=0,
    ),
    graph(
        "Instances of all miners",
        "Counting instances of the past hour, those that were activated with a bounty, and active ones now.",
        [
            Query(of_exporters("chutes_platform_window_instances", window="1h"), "past hour"),
            Query(of_exporters("chutes_platform_window_bounties", window="1h"), "with a bounty, past hour"),
            Query(of_exporters("chutes_platform_active_instances"), "active now", KEYED),
        ],
        unit="none",
        decimals=0,
    ),
    graph(
        "Compute units per second",
        "Compute units that all miners and the chosen one earn per second, which is the sum of the multipliers of "
        "active instances.",
        [
            Query(of_exporters("chutes_platform_active_compute_multiplier"), "all miners", KEYED),
            Query(of_exporters("chutes_miner_active_compute_multiplier", **CHOSEN), "chosen miner", KEYED),
        ],
        unit="none",
        decimals=1,
    ),
)
