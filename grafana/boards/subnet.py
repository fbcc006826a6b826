"""How does a miner rank among all miners, and which miners came, left or grew?"""

from __future__ import annotations

from typing import Final

from grafana.parts import (
    EXPORTERS,
    HOTKEY_WIDTH,
    Board,
    Column,
    Query,
    board_link,
    graph,
    of_exporters,
    select,
    short,
    stat_panel,
    table_panel,
    top_ten_at_end,
)
from grafana.states import BLACKLISTED
from grafana.worlds import KEYED, LIVE, SICK

CHOSEN: Final = {"hotkey": "$miner"}
RATIO: Final = of_exporters("chutes_miner_score_ratio", "hotkey")
RANK: Final = of_exporters("chutes_miner_score_rank", "hotkey")
MY_RATIO: Final = of_exporters("chutes_miner_score_ratio", **CHOSEN)
MY_RANK: Final = of_exporters("chutes_miner_score_rank", **CHOSEN)
NEIGHBOURS: Final = f"abs({RANK} - scalar({MY_RANK})) <= 5"
ALL_EXPORTED: Final = f"and on () count({RATIO}) == on () {of_exporters('chutes_scored_miners')}"
SEATS: Final = of_exporters("chutes_miner_info", "hotkey", "uid")
SEATS_BEFORE: Final = f"max by (hotkey, uid) ({select('chutes_miner_info', EXPORTERS)} offset 1d)"
TAKEN: Final = of_exporters("chutes_metagraph_miners")
TAKEN_BEFORE: Final = f"max({select('chutes_metagraph_miners', EXPORTERS)} offset 1d)"
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
NOBODY: Final = "No miner known. It needs an exporter with --miners all, and the rules."


def _near(metric: str, **where: str) -> str:
    """Select a metric of the chosen miner and its neighbours in the ranking."""
    return f"{of_exporters(metric, 'hotkey', **where)} and on (hotkey) {NEIGHBOURS}"


def _all(metric: str, **where: str) -> str:
    return of_exporters(metric, "hotkey", **where)


SUBNET: Final = Board(
    "chutes-subnet",
    "Chutes subnet",
    "How does a miner rank among all miners, and which miners came, left or grew? An exporter exports every miner "
    "with --miners all, and needs no key for it.",
    variables=("cluster", "job", "instance", "miner"),
)

SUBNET.show(
    stat_panel(
        "Rank",
        "Rank of the chosen miner by score; 1 is the best.",
        [Query(MY_RANK, "of the miner", LIVE)],
        decimals=0,
        empty="no score",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Score",
        "Share of all scores of the chosen miner. It averages over a day.",
        [Query(MY_RATIO, "of the miner", LIVE)],
        unit="percentunit",
        decimals=2,
        empty="no score",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Miners",
        "Miners with a seat and a counting instance in the past day, and that are not blacklisted.",
        [Query(of_exporters("chutes_scored_miners"), "with a score")],
        decimals=0,
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Seats",
        "Seats of the subnet that are taken, of 256. If none is free, a newcomer takes the seat of the miner with "
        "the lowest incentive.",
        [Query(of_exporters("chutes_metagraph_miners"), "taken")],
        decimals=0,
        trend=True,
        size=(4, 4),
    ),
    stat_panel(
        "Top ten",
        "Score share of the ten best miners together. It needs an exporter with --miners all.",
        [Query(f"sum(topk(10, {RATIO})) {ALL_EXPORTED}", "of all scores")],
        unit="percentunit",
        decimals=1,
        empty="needs --miners all",
        trend=True,
        size=(5, 4),
    ),
    table_panel(
        "The miner and its neighbours",
        "The chosen miner, five miners before and five after it. A click on a miner chooses it. If a miner's units of "
        "the past hour are above its average of the day, it grows.",
        [
            Query(short(f"({RANK} and on (hotkey) {NEIGHBOURS})")),
            Query(f"{RATIO} and on (hotkey) {NEIGHBOURS}"),
            Query(_near("chutes_miner_incentive_ratio")),
            Query(_near("chutes_miner_window_compute_units", window="1h")),
            Query(_near("chutes_miner_window_compute_units", window="1d")),
            Query(_near("chutes_miner_active_instances"), data=KEYED),
            Query(_near("chutes_miner_active_compute_multiplier"), data=KEYED),
        ],
        [
            Column("A", "Rank", "none", 0, width=80),
            *MINER,
            Column("B", "Score share", "percentunit", 2, width=110),
            Column("C", "Incentive", "percentunit", 2, width=110),
            Column("D", "Units, 1 h", "short", 1, width=110),
            Column("E", "Units, 1 day", "short", 1, width=110),
            Column("F", "Instances", "none", 0, width=110),
            Column("G", "Units per second", "none", 1, width=140),
        ],
        empty=NOBODY,
        sort=("Rank", False),
        size=(24, 9),
    ),
    graph(
        "Score share beside quantiles of all",
        "The chosen miner beside quantiles over all miners with a score.",
        [
            Query(MY_RATIO, "chosen miner"),
            *(
                Query(f"quantile({quantile}, {RATIO})", name)
                for quantile, name in ((0.9, "90 %"), (0.75, "75 %"), (0.5, "median"), (0.25, "25 %"))
            ),
        ],
        unit="percentunit",
        decimals=2,
        empty=NOBODY,
    ),
    graph(
        "Score share, top 10",
        "The ten largest shares. A line that jumps is a miner that added or lost many GPUs.",
        [Query(short(top_ten_at_end(RATIO, RATIO)), "{{miner}}")],
        unit="percentunit",
        decimals=2,
        empty=NOBODY,
    ),
    table_panel(
        "Newcomers of the past day",
        "Seats that were free a day ago or belonged to another miner. If there are many, newcomers are taking the "
        "seats with the lowest incentive.",
        [
            Query(
                short(
                    f"({SEATS} unless on (hotkey) {SEATS_BEFORE}"
                    f" and on () (count({SEATS_BEFORE}) == on () {TAKEN_BEFORE}))"
                ),
                data=SICK,
            )
        ],
        [*MINER, Column("uid", "UID", width=90)],
        empty="Nobody is new, if every miner was exported a day ago",
        sort=("UID", False),
        size=(12, 6),
    ),
    table_panel(
        "Miners that left in the past day",
        "Miners that had a seat a day ago and have none now. They have no score, and the API refuses their signatures.",
        [
            Query(
                short(f"({SEATS_BEFORE} unless on (hotkey) {SEATS} and on () (count({SEATS}) == on () {TAKEN}))"),
                data=SICK,
            )
        ],
        [*MINER, Column("uid", "UID", width=90)],
        empty="Nobody left, if every miner is exported",
        sort=("UID", False),
        size=(12, 6),
    ),
)

SUBNET.fold(
    "All miners",
    table_panel(
        "Leaderboard",
        "All exported miners, the best first. A click on a miner chooses it.",
        [
            Query(short(_all("chutes_miner_incentive_rank"))),
            Query(RANK),
            Query(RATIO),
            Query(_all("chutes_miner_incentive_ratio")),
            *(Query(_all("chutes_miner_window_compute_units", window=window)) for window in ("1h", "1d", "7d")),
            Query(_all("chutes_miner_active_instances"), data=KEYED),
            Query(f"time() - {_all('chutes_miner_last_activation_timestamp_seconds')}", data=KEYED),
            Query(_all("chutes_miner_window_bounties", window="1d")),
            Query(_all("chutes_miner_blacklisted")),
        ],
        [
            Column("B", "Rank", "none", 0, width=80),
            *MINER,
            Column("C", "Score share", "percentunit", 2, width=100),
            Column("D", "Incentive", "percentunit", 2, width=100),
            Column("A", "By incentive", "none", 0, width=105),
            Column("E", "Units, 1 h", "short", 1, width=100),
            Column("F", "Units, 1 day", "short", 1, width=105),
            Column("G", "Units, 7 days", "short", 1, width=110),
            Column("H", "Instances", "none", 0, width=90),
            Column("I", "Last start", "s", 1, width=95),
            Column("J", "With bounty, 1 day", "none", 0, width=150),
            Column("K", "Blacklist", states=BLACKLISTED, width=100),
        ],
        empty=NOBODY,
        sort=("Rank", False),
        size=(24, 14),
    ),
    table_panel(
        "Blacklisted",
        "Miners that are blacklisted, with the reason. Only the operators of the platform can remove a miner from the "
        "blacklist.",
        [Query(short(of_exporters("chutes_miner_blacklist_info", "hotkey", "reason")))],
        [*MINER, Column("reason", "Reason", width=300)],
        empty="Nobody who is exported is blacklisted",
        sort=("Reason", False),
        size=(12, 8),
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
        ],
        [
            *MINER,
            Column("A", "Stake", "short", 1, width=90),
            Column("B", "TAO", "short", 1, width=80),
            Column("C", "Alpha", "short", 1, width=90),
            Column("D", "Seat age", "s", 1, width=100),
            Column("E", "Consensus", "percentunit", 2, width=110),
        ],
        empty=NOBODY,
        sort=("Stake", True),
        size=(12, 8),
    ),
)

SUBNET.fold(
    "Platform over time",
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
        empty=NOBODY,
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
        "Miners at work",
        "Miners with compute units in the past hour, and blacklisted seats.",
        [
            Query(of_exporters("chutes_platform_window_miners", window="1h"), "with compute units"),
            Query(of_exporters("chutes_metagraph_blacklisted_miners"), "on the blacklist"),
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
            Query(
                of_exporters("chutes_miner_active_compute_multiplier", **CHOSEN),
                "chosen miner",
                KEYED,
            ),
        ],
        unit="none",
        decimals=1,
    ),
)
