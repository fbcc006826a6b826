"""Am I safe, and who passes me?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana.parts import (
    AMOUNT,
    COUNT,
    EXPORTERS,
    NO_DATA,
    SHARE,
    TIME,
    Board,
    Column,
    Query,
    Unit,
    graph,
    miner_columns,
    nothing_wrong,
    of_exporters,
    select,
    short,
    signed,
    stat,
    table,
    top_ten_at_end,
)
from grafana.states import BLACKLISTED, DIRECTION, NOBODY, ORANGE, PLAIN, RED
from grafana.worlds import KEYED, LIVE, SICK

if TYPE_CHECKING:
    from collections.abc import Sequence

CHOSEN: Final = {"hotkey": "$miner"}
RATIO: Final = of_exporters("chutes_miner_score_ratio", "hotkey")
RANK: Final = of_exporters("chutes_miner_score_rank", "hotkey")
MY_RATIO: Final = of_exporters("chutes_miner_score_ratio", **CHOSEN)
MY_RANK: Final = of_exporters("chutes_miner_score_rank", **CHOSEN)
MY_RANK_BEFORE: Final = f"max({select('chutes_miner_score_rank', EXPORTERS, **CHOSEN)} offset 1d)"
BEHIND: Final = of_exporters("chutes_miner_seats_behind", **CHOSEN)
HEADING: Final = "hotkey:chutes_miner_score_heading_ratio:all"
MY_HEADING: Final = select(HEADING, **CHOSEN)
POINTS: Final = f"100 * (sum({MY_HEADING}) - on () {MY_RATIO})"
NEAR: Final = f"(abs({RANK} - scalar({MY_RANK})) <= 4)"
TAKEN: Final = of_exporters("chutes_metagraph_miners")
SEAT_AGE: Final = f"time() - {of_exporters('chutes_miner_registered_timestamp_seconds', 'hotkey')}"
NEW: Final = f"({SEAT_AGE} < 86400)"
KNOWN: Final = f"{TAKEN} == on () count({SEAT_AGE})"
"""The number of seats, where the exporters export all of them."""
MINER: Final = miner_columns("chutes-subnet", "miner")
EVERYBODY: Final = "Unknown: no data. It needs an exporter with --miners all."


def seats_behind(behind: str, incentive: str) -> Sequence[Query]:
    """Return the queries of a stat: the fewest seats behind the miners, or that the order of seats is unknown."""
    full = f"{TAKEN} == 256"
    fewest, nothing = f"(min({behind}) unless on () min({incentive}) == 0)", f"min({incentive}) == 0"
    unknown, free, percent = "incentive, order unknown", LIVE - SICK, Unit("percent", None)
    return [
        Query(f"{fewest} and on () {full}", "of 256", SICK, sometimes=True),
        Query(f"{fewest} unless on () {full}", "some are free", free, color=PLAIN, sometimes=True),
        Query(f"{nothing} and on () {full}", unknown, SICK, percent, sometimes=True),
        Query(f"{nothing} unless on () {full}", unknown, free, percent, PLAIN, sometimes=True),
    ]


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
    empty=EVERYBODY,
)

SUBNET.show(
    stat(
        "Seats behind",
        "Taken seats with a lower incentive than the chosen miner's. If no seat is free, newcomers take the seat with "
        "the lowest incentive. Below 5, put idle GPUs to work. The order of seats without incentive is unknown.",
        *seats_behind(BEHIND, of_exporters("chutes_miner_incentive_ratio", **CHOSEN)),
        thresholds=[(0, RED), (5, ORANGE), (20, PLAIN)],
    ),
    stat(
        "Seats",
        "Free seats of the 256 of the subnet, and miners that came in the past day. If no seat is free, each newcomer "
        "takes the seat with the lowest incentive. Newcomers need an exporter with --miners all.",
        Query(f"256 - {TAKEN}", "free"),
        Query(f"sum({SEAT_AGE} < bool 86400) and on () {KNOWN}", "new in 24 h"),
        empty="needs --miners all",
    ),
    stat(
        "Rank",
        "Rank of the chosen miner by score a day ago and now; 1 is the best.",
        Query(
            f'count_values("now", {MY_RANK}) * on () group_left (before)'
            f' (count_values("before", {MY_RANK_BEFORE}) or on () label_replace(vector(1), "before", "?", "", ""))',
            "{{before}} yesterday, {{now}} now",
        ),
        as_text=True,
        empty="no score",
    ),
    stat(
        "Score share",
        "Share of all scores of the chosen miner, and where it is heading within a day, in percentage points.",
        Query(MY_RATIO, "share"),
        *signed(POINTS, "heading, points", digits=1),
        unit=Unit("percentunit", 1),
        empty="no score",
    ),
    table(
        "The miner and its neighbours",
        "The chosen miner, four miners before and four after it, with what happens within a day if all instances "
        "continue. A click on a miner chooses it.",
        Column("Rank", short(_near(RANK)), COUNT, 85),
        *MINER,
        Column(
            "Within a day",
            f"2 * (({RANK} - scalar({MY_RANK}) >= -4 <= 4) > bool 0)"
            f" + on (hotkey) ({HEADING} >= bool scalar({MY_HEADING}))"
            f" + on (hotkey) 3 * ({HEADING} == bool scalar({MY_HEADING}))",
            width=130,
            states=DIRECTION,
            missing=" ",
        ),
        Column("Score share", _near(RATIO), SHARE),
        Column("Heading", _near(HEADING), SHARE),
        Column("Change, points", _near(f"100 * ({HEADING} - on (hotkey) {RATIO})"), Unit("none", 2)),
        Column("Incentive", _near(_all("chutes_miner_incentive_ratio")), SHARE),
        Column("Instances", _near(_all("chutes_miner_active_instances")), COUNT, data=KEYED),
        sort=["Rank"],
    ),
    graph(
        "Score share of the neighbours",
        "The chosen miner, and four miners before and after it. Lines that come closer are miners that pass it, or "
        "that it passes.",
        Query(
            short(f"{RATIO} and on (hotkey) abs({RANK[:-1]} @ end()) - scalar({MY_RANK[:-1]} @ end()))) <= 4 != 0"),
            "{{miner}}",
        ),
        Query(
            short(f"max by (hotkey) ({select('chutes_miner_score_ratio', EXPORTERS, **CHOSEN)})"),
            "{{miner}}",
            color=PLAIN,
        ),
        unit=SHARE,
        size=(24, 7),
    ),
)

SUBNET.show(
    table(
        "Newcomers of the past day",
        "Miners that the service has seen for less than a day. If there are many, they are taking the seats with the "
        "lowest incentive.",
        Column("", nothing_wrong(f"{KNOWN} unless on () {NEW}", "miner"), sometimes=True),
        Column("", f"{of_exporters('chutes_miner_info', 'hotkey', 'uid')} and on (hotkey) {NEW}", sometimes=True),
        *miner_columns("chutes-subnet", "miner", states=NOBODY),
        Column("UID", "uid", width=90, missing=" "),
        Column("Seat age", short(NEW), TIME, 100, missing=" ", sometimes=True),
        sort=["Seat age"],
        size=(24, 6),
    ),
    graph(
        "Score share, top 10",
        "The ten largest shares. A line that jumps is a miner that added or lost many GPUs.",
        Query(short(top_ten_at_end(RATIO, RATIO)), "{{miner}}"),
        unit=SHARE,
    ),
    table(
        "Leaderboard",
        "All exported miners, the best first. A click on a miner chooses it. Only the operators of the platform can "
        "remove a miner from the blacklist.",
        Column("Rank", RANK, COUNT, 85),
        *MINER,
        Column("Score share", RATIO, SHARE),
        Column("Incentive", _all("chutes_miner_incentive_ratio"), SHARE),
        Column("By incentive", short(_all("chutes_miner_incentive_rank")), COUNT),
        *(
            Column(title, _all("chutes_miner_window_compute_units", window=window), AMOUNT)
            for title, window in (("Units, 1 h", "1h"), ("Units, 1 day", "1d"), ("Units, 7 days", "7d"))
        ),
        Column("Instances", _all("chutes_miner_active_instances"), COUNT, data=KEYED),
        Column("Last start", f"time() - {_all('chutes_miner_last_activation_timestamp_seconds')}", TIME, data=KEYED),
        Column("With bounty, 1 day", _all("chutes_miner_window_bounties", window="1d"), COUNT),
        Column("", of_exporters("chutes_miner_blacklist_info", "hotkey", "reason")),
        Column("Blacklisted", "reason", width=130, missing=" "),
        sort=["-Score share", "-Incentive"],
        size=(24, 14),
    ),
    table(
        "Stake and age of seats",
        "Stake on each hotkey as stored on the chain, and the time since the service first saw the seat. A new seat is "
        "protected for some time.",
        *MINER,
        Column("Stake", short(_all("chutes_miner_stake")), AMOUNT),
        Column("TAO", _all("chutes_miner_stake_tao"), AMOUNT),
        Column("Alpha", _all("chutes_miner_stake_alpha"), AMOUNT),
        Column("Seat age", SEAT_AGE, TIME),
        Column("Consensus", _all("chutes_miner_consensus_ratio"), SHARE),
        Column("Blacklist", _all("chutes_miner_blacklisted"), states=BLACKLISTED, width=100),
        sort=["-Stake"],
    ),
    title="All miners",
)

SUBNET.show(
    graph(
        "Miners",
        "Miners with a score, with compute units in the past hour, and on the blacklist.",
        Query(of_exporters("chutes_scored_miners"), "with a score"),
        Query(of_exporters("chutes_platform_window_miners", window="1h"), "with compute units"),
        Query(of_exporters("chutes_metagraph_blacklisted_miners"), "blacklisted"),
        empty=NO_DATA,
    ),
    graph(
        "Compute units per hour of all miners",
        "Compute units of all counting instances in the past hour. A miner's share falls if the total grows and the "
        "miner does not.",
        Query(of_exporters("chutes_platform_window_compute_units", window="1h"), "all miners"),
        unit=AMOUNT,
        empty=NO_DATA,
    ),
    graph(
        "Instances of all miners",
        "Counting instances of the past hour, those that were activated with a bounty, and active ones now.",
        Query(of_exporters("chutes_platform_window_instances", window="1h"), "past hour"),
        Query(of_exporters("chutes_platform_window_bounties", window="1h"), "with a bounty, past hour"),
        Query(of_exporters("chutes_platform_active_instances"), "active now", KEYED),
        empty=NO_DATA,
    ),
    graph(
        "Compute units per second",
        "Compute units that all miners and the chosen one earn per second, which is the sum of the multipliers of "
        "active instances.",
        Query(of_exporters("chutes_platform_active_compute_multiplier"), "all miners", KEYED),
        Query(of_exporters("chutes_miner_active_compute_multiplier", **CHOSEN), "chosen miner", KEYED),
        unit=Unit("none", 1),
        empty=NO_DATA,
    ),
    title="Platform over time",
)
