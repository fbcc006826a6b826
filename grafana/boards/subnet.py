"""Am I safe, and who passes me?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana.parts import (
    AMOUNT,
    COUNT,
    EXPORTERS,
    FACTOR,
    NO_DATA,
    SHARE,
    TEXT,
    TIME,
    Board,
    Column,
    Query,
    Unit,
    graph,
    miner_columns,
    of_exporters,
    select,
    short,
    signed,
    stat,
    table,
    top_ten_at_end,
    yesterday,
)
from grafana.states import BLACKLISTED, DIRECTION, ORANGE, PLAIN, RED, SAFE, YES
from grafana.worlds import CHAINED, KEYED, LIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from grafana.parts import Panel
    from grafana.worlds import World

CHOSEN: Final = {"hotkey": "$miner"}
RATIO: Final = of_exporters("chutes_miner_score_ratio", "hotkey")
RANK: Final = of_exporters("chutes_miner_score_rank", "hotkey")
MY_RATIO: Final = of_exporters("chutes_miner_score_ratio", **CHOSEN)
MY_RANK: Final = of_exporters("chutes_miner_score_rank", **CHOSEN)
FIRST: Final = f"bottomk(20, {of_exporters('chutes_miner_registrations_before_loss', 'hotkey')})"
"""The seats that registrations take first."""
HEADING: Final = "hotkey:chutes_miner_score_heading_ratio:all"
MY_HEADING: Final = select(HEADING, **CHOSEN)
NEAR: Final = f"(abs({RANK} - scalar({MY_RANK})) <= 4)"
TAKEN: Final = of_exporters("chutes_metagraph_miners")
SEAT_AGE: Final = f"time() - {of_exporters('chutes_miner_registered_timestamp_seconds', 'hotkey')}"
MINER: Final = miner_columns("chutes-subnet", "miner")
EVERYBODY: Final = "Unknown: no data. It needs an exporter with --miners all."


def before_loss(size: tuple[int, int], of: Callable[..., str], **where: str) -> Panel:
    """Return a stat that says when the first seat is lost, or since when it can be."""
    before = f"min({of('chutes_miner_registrations_before_loss', **where)})"
    immune = f"max({of('chutes_miner_immunity_end_timestamp_seconds', **where)})"
    per_day = of_exporters("chutes_subnet_window_registrations", window="1d")
    safe = f"{SAFE.value} + 0 * {of_exporters('chutes_chain_block')} unless on () {before}"
    return stat(
        "Before seat loss",
        "Registrations before the one that takes the miner's seat, and the days that they take at "
        "most, at the pace of "
        "the past day. With several miners, the first seat. The service does not protect a seat, "
        "the chain does: a new "
        "one for some days. Below 3 days, put idle GPUs to work. The Subnet board shows the order "
        "of seats.",
        Query(before, "registrations", CHAINED, color=PLAIN, sometimes=True),
        Query(
            f"{before} / on () ({per_day} > 0)",
            "days at most",
            CHAINED,
            Unit("none", 1),
            sometimes=True,
        ),
        Query(
            f"1000 * {immune}",
            "immune until",
            CHAINED,
            Unit("time:MMM D, HH:mm", None),
            PLAIN,
            sometimes=True,
        ),
        Query(safe, "by the chain", CHAINED, sometimes=True),
        states=[SAFE],
        thresholds=[(0, RED), (1, ORANGE), (3, PLAIN)],
        empty="needs --chain.url",
        size=size,
    )


def score_share(
    share: str, heading: str, data: frozenset[World] = LIVE, size: tuple[int, int] = (0, 0)
) -> Panel:
    """Return a stat of a score share and where it is heading."""
    return stat(
        "Score share",
        "Share of all scores: the compute units of the past day. The second number is where it is "
        "heading within a day "
        "if all instances continue, in percentage points. Below zero, look for idle GPUs.",
        Query(share, "share", data),
        *signed(f"100 * (sum({heading}) - on () {share})", "heading, points", data, 1),
        unit=Unit("percentunit", 1),
        empty="no score",
        size=size,
    )


def _near(query: str) -> str:
    """Keep the chosen miner and its neighbours in the ranking."""
    return f"{query} and on (hotkey) {NEAR}"


def _all(metric: str, **where: str) -> str:
    return of_exporters(metric, "hotkey", **where)


SUBNET: Final = Board(
    "chutes-subnet",
    "Chutes subnet",
    "Is the chosen miner's seat safe, and who passes it? An exporter exports every miner with "
    "--miners all, and needs "
    "no key for it.",
    variables=("cluster", "job", "instance", "miner"),
    empty=EVERYBODY,
)

SUBNET.show(
    before_loss((6, 3), of_exporters, **CHOSEN),
    stat(
        "Seats",
        "Free seats of the subnet, registrations of the past day, and what one costs. If no seat "
        "is free, each takes "
        "the seat in the greatest danger.",
        Query(f"256 - {TAKEN}", "free"),
        Query(
            of_exporters("chutes_subnet_window_registrations", window="1d"),
            "taken, at least",
            CHAINED,
        ),
        Query(
            of_exporters("chutes_subnet_registration_cost_tao"),
            "TAO each",
            CHAINED,
            Unit("none", 2),
        ),
        size=(8, 3),
    ),
    stat(
        "Rank",
        "Rank of the chosen miner by score a day ago and now; 1 is the best.",
        Query(f"{yesterday(MY_RANK)} and on () {MY_RANK}", "yesterday"),
        Query(MY_RANK, "now"),
        empty="no score",
    ),
    score_share(MY_RATIO, MY_HEADING),
    table(
        "The miner and its neighbours",
        "The chosen miner, four miners before and four after it, with what happens within a day "
        "if all instances "
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
        Column(
            "Change, points", _near(f"100 * ({HEADING} - on (hotkey) {RATIO})"), Unit("none", 2)
        ),
        Column("Incentive", _near(_all("chutes_miner_incentive_ratio")), SHARE),
        Column("Instances", _near(_all("chutes_miner_active_instances")), COUNT, data=KEYED),
        sort=["Rank"],
    ),
    table(
        "Seats by danger",
        "The 20 seats that registrations take first: those with the lowest pay, and of equal ones "
        "the oldest. Immune "
        "seats are new, and are lost last. A click on a miner chooses it.",
        Column("Registrations", short(FIRST), COUNT, 135, data=CHAINED),
        *MINER,
        *(
            Column(
                title,
                f"{query} and on (hotkey) {FIRST}",
                unit,
                states=states,
                width=width,
                data=CHAINED,
            )
            for title, query, unit, states, width in (
                ("Immune", _all("chutes_miner_seat_immune"), TEXT, YES, 80),
                ("Alpha/day", _all("chutes_miner_emission_alpha_per_day"), FACTOR, (), 0),
                ("Incentive", _all("chutes_miner_incentive_ratio"), SHARE, (), 0),
                ("Seat age", SEAT_AGE, TIME, (), 0),
            )
        ),
        empty="Unknown: no data. It needs --chain.url and --miners all.",
        sort=["Registrations"],
        size=(10, 8),
    ),
    graph(
        "Score share of the neighbours",
        "The chosen miner, and four miners before and after it. Lines that come closer are miners "
        "that pass it, or "
        "that it passes.",
        Query(
            short(
                f"{RATIO} and on (hotkey) abs({RANK[:-1]} @ end()) - scalar({MY_RANK[:-1]} @ "
                "end()))) <= 4 != 0"
            ),
            "{{miner}}",
        ),
        Query(
            short(f"max by (hotkey) ({select('chutes_miner_score_ratio', EXPORTERS, **CHOSEN)})"),
            "{{miner}}",
            color=PLAIN,
        ),
        unit=SHARE,
        size=(14, 8),
    ),
)

SUBNET.show(
    graph(
        "Score share, top 10",
        "The ten largest shares. A line that jumps is a miner that added or lost many GPUs.",
        Query(short(top_ten_at_end(RATIO, RATIO)), "{{miner}}"),
        unit=SHARE,
    ),
    table(
        "Leaderboard",
        "All exported miners, the best first. A click on a miner chooses it. Only the operators "
        "of the platform can "
        "remove a miner from the blacklist.",
        Column("Rank", RANK, COUNT, 85),
        *MINER,
        Column("Score share", RATIO, SHARE),
        Column("Incentive", _all("chutes_miner_incentive_ratio"), SHARE),
        Column("By incentive", short(_all("chutes_miner_incentive_rank")), COUNT),
        *(
            Column(title, _all("chutes_miner_window_compute_units", window=window), AMOUNT)
            for title, window in (
                ("Units, 1 h", "1h"),
                ("Units, 1 day", "1d"),
                ("Units, 7 days", "7d"),
            )
        ),
        Column("Instances", _all("chutes_miner_active_instances"), COUNT, data=KEYED),
        Column(
            "Last start",
            f"time() - {_all('chutes_miner_last_activation_timestamp_seconds')}",
            TIME,
            data=KEYED,
        ),
        Column("With bounty, 1 day", _all("chutes_miner_window_bounties", window="1d"), COUNT),
        Column("", of_exporters("chutes_miner_blacklist_info", "hotkey", "reason")),
        Column("Blacklisted", "reason", width=130, missing=" "),
        sort=["-Score share", "-Incentive"],
        size=(24, 14),
    ),
    table(
        "Stake and age of seats",
        "Stake on each hotkey as stored on the chain, and the time since the service first "
        "saw the seat.",
        *MINER,
        Column("", of_exporters("chutes_miner_info", "hotkey", "uid")),
        Column("UID", "uid"),
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
        "Compute units of all counting instances in the past hour. A miner's share falls if the "
        "total grows and the "
        "miner does not.",
        Query(of_exporters("chutes_platform_window_compute_units", window="1h"), "all miners"),
        unit=AMOUNT,
        empty=NO_DATA,
    ),
    graph(
        "Instances of all miners",
        "Counting instances of the past hour, those that were activated with a bounty, and "
        "active ones now.",
        Query(of_exporters("chutes_platform_window_instances", window="1h"), "past hour"),
        Query(
            of_exporters("chutes_platform_window_bounties", window="1h"), "with a bounty, past hour"
        ),
        Query(of_exporters("chutes_platform_active_instances"), "active now", KEYED),
        empty=NO_DATA,
    ),
    graph(
        "Compute units per second",
        "Compute units that all miners and the chosen one earn per second, which is the sum of "
        "the multipliers of "
        "active instances.",
        Query(of_exporters("chutes_platform_active_compute_multiplier"), "all miners", KEYED),
        Query(
            of_exporters("chutes_miner_active_compute_multiplier", **CHOSEN), "chosen miner", KEYED
        ),
        unit=Unit("none", 1),
        empty=NO_DATA,
    ),
    title="Platform over time",
)
