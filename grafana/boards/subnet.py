"""Is the seat safe, and for how long? Who may overtake the miner, and whom may it overtake?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana.alerts import verdict
from grafana.dashboard import Board
from grafana.panels import (
    AMOUNT,
    CENTS,
    COUNT,
    SHARE,
    TIME,
    Column,
    Query,
    Unit,
    graph,
    miner_columns,
    stat,
    table,
)
from grafana.queries import at_end, nothing_row, of_platform, select, short
from grafana.states import (
    GREY,
    NOT_IN_LINE,
    ORANGE,
    OVERTAKING,
    PLAIN,
    RED,
    SAFE,
    YES,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from grafana.panels import Panel

CHOSEN: Final = {"hotkey": "$miner"}
HEADINGS: Final = "hotkey:chutes_miner_score_heading_ratio:all"
SHARES: Final = of_platform("chutes_miner_score_ratio", "hotkey")
IN_A_DAY: Final = f"0.57 * {SHARES} + on (hotkey) 0.43 * {HEADINGS}"
"""The score share in 24 hours: 43 % of the way from the score to its heading."""
_RANK: Final = "chutes_miner_score_rank"
RANKS: Final = of_platform(_RANK, "hotkey")
MY_SHARE: Final = of_platform("chutes_miner_score_ratio", **CHOSEN)
MY_RANK: Final = of_platform(_RANK, **CHOSEN)
NEAR: Final = f"abs({RANKS} - scalar({MY_RANK})) <= 4"
"""The chosen miner, and four miners before and after it in rank."""
PLACES: Final = of_platform("chutes_miner_registrations_before_loss", "hotkey")
MY_PLACE: Final = of_platform("chutes_miner_registrations_before_loss", **CHOSEN)
IN_LINE: Final = f"abs({PLACES} - scalar({MY_PLACE})) <= 4"
"""The chosen miner, and four seats before and after its own in the order of their loss."""
MY_HEADING: Final = select(HEADINGS, **CHOSEN)
AHEAD: Final = f"sgn(round(10 * ({HEADINGS} / scalar({MY_HEADING}) - 1)))"
"""1 for a heading that is at least 5 % above that of the chosen miner, -1 for one below."""
OVERTAKERS: Final = (
    f"sum(({HEADINGS} - 1.05 * scalar({MY_HEADING}) > bool 0 or on (hotkey) {_RANK} / 0) "
    f"and on (hotkey) {_RANK} - scalar({MY_RANK}) > 0 <= 4) < Inf"
)
"""How many of the neighbours with a lower rank may overtake the chosen miner. One whose heading is
unknown adds infinity, so that the number is absent.
"""
SEAT_AGE: Final = f"time() - {of_platform('chutes_miner_registered_timestamp_seconds', 'hotkey')}"
PER_DAY: Final = of_platform("chutes_subnet_window_registrations", window="1d")
"""Registrations in the past day."""
MINER: Final = miner_columns("chutes-subnet", "miner")


def before_loss(size: tuple[int, int], select_metric: Callable[..., str], **where: str) -> Panel:
    """Return a stat about the seat that is lost first of those of some miners: whether it is safe,
    and for how long.

    Args:
        size: Its size on the board.
        select_metric: Selects a metric of the miners: `of_miners` or `of_platform`.
        where: Values of labels that choose the miners.
    """
    registrations = f"min({select_metric('chutes_miner_registrations_before_loss', **where)})"
    seconds = f"86400 * {registrations} / on () ({PER_DAY} > 0)"
    immunity_end = f"min({select_metric('chutes_miner_immunity_end_timestamp_seconds', **where)})"
    # Each seat has this metric, and a miner without a seat has not.
    has_seat = f"group({select_metric('chutes_miner_seat_immune', **where)})"
    # A seat that no number of registrations takes has no metric of them.
    is_never_lost = f"{SAFE.value} + 0 * {has_seat} unless on () {registrations}"
    return stat(
        "Is the seat safe?",
        "The time in which registrations take the miner's seat at most, at the pace of the past "
        "day and at today's pay. With several miners, it is the first seat. The service does not "
        "protect a seat, the chain does: a new one for some days. Below 3 days, put idle GPUs to "
        "work. It needs --chain.url. The Subnet board shows the order of seats.",
        Query(seconds, "Lost within", TIME),
        # Without a registration in the past day, there is no pace.
        Query(
            f"{registrations} and on () {PER_DAY} == 0",
            "Registrations before the loss",
            color=PLAIN,
        ),
        # Grafana's times are in milliseconds. Only a seat that is immune has this metric.
        Query(
            f"1000 * {immunity_end}",
            "Immune until",
            Unit("time:MMM D, HH:mm", None),
            PLAIN,
        ),
        Query(is_never_lost, "Safe"),
        states=[SAFE],
        thresholds=[(0, RED), (86400, ORANGE), (3 * 86400, PLAIN)],
        size=size,
    )


def _all(metric: str, **where: str) -> str:
    """Select a metric of all exported miners."""
    return of_platform(metric, "hotkey", **where)


def _near(query: str) -> str:
    """Keep the chosen miner and its neighbours in rank."""
    return f"{query} and on (hotkey) {NEAR}"


SUBNET: Final = Board(
    "chutes-subnet",
    "Chutes subnet",
    "Is the seat safe, and for how long? Who may overtake the miner, and whom may it overtake? "
    "Neighbours are exported by default, and every miner with --miners all. It needs no key.",
    variables=("miner",),
)

SUBNET.show(
    verdict((5, 3), "$miner"),
    before_loss((7, 3), of_platform, **CHOSEN),
    stat(
        "May overtake this miner",
        "Neighbours with a lower rank whose heading is at least 5 % above that of this miner: the "
        "orange ones of the table below. If the headings differ by more than 20 %, it came true in "
        "60 to 77 % of cases.",
        Query(OVERTAKERS, "miners"),
        thresholds=[(1, ORANGE)],
        size=(6, 3),
    ),
    stat(
        "Score in 24 h",
        "Experimental estimate of the score share in 24 hours: 43 % of the way from the score to "
        "its heading. A lost seat, a collapse and a lasting change are not predicted.",
        Query(MY_SHARE, "now"),
        Query(f"0.57 * {MY_SHARE} + on () 0.43 * max({MY_HEADING})", "about"),
        unit=SHARE,
        size=(6, 3),
    ),
    table(
        "Neighbours in rank",
        "The chosen miner, four miners before and four after it, and who may overtake whom if all "
        "instances continue. If the headings differ by less than 5 %, it is a coin flip. If they "
        "differ by more than 20 %, it came true in 60 to 77 % of cases. Dollars are what the chain "
        "pays in a day. A click on a miner chooses it.",
        Column("Rank", short(f"{RANKS} and on (hotkey) {NEAR}"), COUNT, 65),
        *MINER,
        Column("", _near(of_platform("chutes_miner_info", "hotkey", "uid", "coldkey"))),
        Column("UID", "uid", width=55),
        Column(
            "Overtaking",
            f"sgn({RANKS} - scalar({MY_RANK}) >= -4 <= 4) + on (hotkey) 3 * {AHEAD}",
            width=145,
            states=OVERTAKING,
            missing="unknown",
        ),
        Column("Score share", _near(SHARES), SHARE),
        Column("In 24 h", _near(f"({IN_A_DAY})"), SHARE, missing="not known"),
        Column("Heading", _near(HEADINGS), SHARE),
        Column(
            "USD a day",
            _near(_all("chutes_miner_estimated_usd_per_day")),
            CENTS,
            missing="unknown",
        ),
        sort=["Rank"],
        size=(14, 11),
    ),
    table(
        "Neighbours in line for the seat",
        "Registrations before each seat is lost: the chosen one, the four before and the four "
        "after it. Seats with the lowest pay go first, and of equal ones the oldest. Immune seats "
        "are new, and go last. It needs --chain.url.",
        Column(
            "Registrations",
            short(f"{PLACES} and on (hotkey) {IN_LINE}"),
            COUNT,
            150,
        ),
        Column(
            "",
            nothing_row(
                f"{of_platform('chutes_miner_seat_immune', **CHOSEN)} unless on () {MY_PLACE}",
                "miner",
                NOT_IN_LINE.value,
            ),
        ),
        *miner_columns("chutes-subnet", "miner", states=[NOT_IN_LINE], width=150),
        *(
            Column(
                title,
                f"{query} and on (hotkey) {IN_LINE}",
                unit,
                states=states,
                width=width,
                missing=" ",
            )
            for title, query, unit, states, width in (
                ("Immune", _all("chutes_miner_seat_immune"), COUNT, YES, 75),
                ("USD a day", _all("chutes_miner_estimated_usd_per_day"), CENTS, (), 0),
                ("Seat age", SEAT_AGE, TIME, (), 0),
            )
        ),
        sort=["Registrations"],
        size=(10, 11),
    ),
    graph(
        "Score share of the neighbours in rank",
        "The thick line is the chosen miner, the grey ones are four miners before and after it. "
        "Lines that come closer are miners that may overtake it, or that it may overtake.",
        Query(
            short(
                f"{SHARES} and on (hotkey) abs({at_end(RANKS)} - scalar({at_end(MY_RANK)})) <= 4 "
                "!= 0"
            ),
            "{{miner}}",
            color=GREY,
        ),
        Query(
            short(f"max by (hotkey) ({select('chutes_miner_score_ratio', **CHOSEN)})"),
            "{{miner}}",
            color="blue",
            width=3,
        ),
        unit=SHARE,
        size=(24, 8),
    ),
)

SUBNET.show(
    table(
        "Leaderboard",
        "All exported miners, the best first. A click on a miner chooses it.",
        Column("Rank", RANKS, COUNT, 65),
        *MINER,
        Column("Score share", SHARES, SHARE),
        Column("Incentive", short(_all("chutes_miner_incentive_ratio")), SHARE),
        Column("Units, 1 day", _all("chutes_miner_window_compute_units", window="1d"), AMOUNT),
        Column("Instances", _all("chutes_miner_active_instances"), COUNT),
        Column("Seat age", SEAT_AGE, TIME),
        sort=["Rank", "-Incentive"],
        size=(24, 12),
    ),
    title="All exported miners",
)
