"""Is something wrong, what does it cost, and what is to be done first?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana.alerts import BOARDS, FIRST_STEPS
from grafana.boards.fleet import idle_gpus
from grafana.boards.instances import (
    LOST,
    LOST_UNITS,
    NO_REPORT,
)
from grafana.boards.subnet import before_loss
from grafana.parts import (
    ALERTS,
    AMOUNT,
    CENTS,
    COUNT,
    DOLLARS,
    MINER_COLUMNS,
    MINERS,
    RULES,
    RUNBOOK,
    SHARE,
    TIME,
    UNIT_USD,
    Board,
    Column,
    Query,
    Unit,
    board_link,
    copied,
    graph,
    nothing_row,
    of_all,
    of_known,
    of_miners,
    recorded,
    select,
    short,
    stacked,
    stat,
    table,
    total,
    with_chute_name,
    yesterday,
)
from grafana.states import (
    GPU,
    KEYLESS,
    NOTHING,
    PLAIN,
    RED,
    REGISTERED,
    SEVERITY,
    VERDICT,
    State,
)

if TYPE_CHECKING:
    from grafana.parts import Panel

SCORE: Final = of_miners("chutes_miner_score_ratio")
HEADING: Final = recorded("hotkey:chutes_miner_score_heading_ratio:max")
RANK: Final = of_miners("chutes_miner_score_rank")
EARNED: Final = total(of_miners("chutes_miner_estimated_usd_per_day"))
NEXT_DAY: Final = total(recorded("hotkey:chutes_miner_estimated_usd:next24h"))
"""The recording has the 26 %, and docs/advise.md how they were found."""
PROFIT: Final = total(of_miners("chutes_miner_estimated_profit_usd_per_day"), with_gpus=True)
FLEET: Final = recorded("hotkey_state:chutes_fleet_gpus:sum")
GPUS_BY_STATE: Final = of_known(of_all(f"sum by (state) ({FLEET})", FLEET, with_gpus=True), "gpus")
EARNING: Final = recorded("hotkey_state:chutes_fleet_gpus:sum", state="~earning|disabled")
"""GPUs that earn, by miner and state. Those of disabled instances earn until these are deleted."""

OF_ALERTS: Final = "alert:chutes_alerts:"
SEVERITIES: Final = select(f"{OF_ALERTS}severity", hotkey="~$hotkey|")
WATCHED: Final = select("chutes_miner_watched", MINERS)
KEYS: Final = select("chutes_feed_up", MINERS, feed="instances")
"""A series of each chosen miner whose key an exporter has, also without a seat."""
WITHOUT_KEY: Final = f"({WATCHED} unless on (hotkey) {KEYS})"
VERDICT_NUMBER: Final = recorded("hotkey:chutes_miner_verdict:number")
SAID: Final = f"(1000 + min({SEVERITIES}) or on () max({VERDICT_NUMBER})) and on () {RULES}"
"""The number of the verdict. All is well only where everything is known."""
LOST_PER_DAY: Final = select(f"{OF_ALERTS}compute_units_per_day", hotkey="~$hotkey")
IS_FIRING: Final = "alertname, hotkey, place"
SINCE: Final = (
    f"min by ({IS_FIRING}, server) (label_join(ALERTS_FOR_STATE{{{ALERTS}}}, "
    '"place", "", "server", "chute", "feed"))'
)


def _gpus(states: str) -> str:
    return f"sum by (hotkey) ({recorded('hotkey_state:chutes_fleet_gpus:sum', state=states)})"


def _by_chute(window: str) -> str:
    """Return the compute units of each chute in a window, absent while a record may be missing."""
    units = of_miners("chutes_miner_chute_window_compute_units", "chute_id", window=window)
    no_record_is_missing = select("chutes_feed_records", feed="stats_per_chute")
    return f"sum by (chute_id) ({units}) and on () {no_record_is_missing}"


def _next_day() -> Panel:
    """Return the stat of what the miners will earn."""
    return stat(
        "Next 24 h",
        "Experimental estimate of the pay of the next 24 hours, at today's price. It is 26 % of "
        "the way from the score to its heading, which it approaches. A lost seat, a collapse and a "
        "lasting change are not predicted. docs/advise.md says how sure it is.",
        Query(NEXT_DAY, "dollars, about"),
        unit=DOLLARS,
        empty="not known: set --chain.url",
        size=(8, 3),
    )


def _since_yesterday() -> Panel:
    """Return the stat of what changed in a day."""
    points = f"100 * (sum({SCORE}) - on () sum({yesterday(SCORE)}))"
    places = f"min({yesterday(RANK)}) - on () min({RANK})"
    more_earning = f"({EARNING} - on (hotkey, state) {yesterday(EARNING)})"
    return stat(
        "Since yesterday",
        "What changed within 24 hours: the share of all scores in percentage points, the rank of "
        "the best of the chosen miners, and the number of GPUs that earn. More is better.",
        Query(points, "points of the score", Unit("none", 2)),
        Query(places, "ranks"),
        Query(of_known(total(more_earning, with_gpus=True), "gpus"), "earning GPUs"),
        empty="no day is known",
        size=(16, 3),
    )


OVERVIEW: Final = Board(
    "chutes-overview",
    "Chutes miner overview",
    "Is something wrong, what does it cost, and what is to be done first?",
)

OVERVIEW.show(
    stat(
        "Verdict",
        "Critical alerts mean that money or a seat is lost now, and that somebody can act. "
        "Warnings are for today. If no alert fires, chutes-exporter status may still name what "
        "costs little. All is well if it names nothing, and all that alerts need is known.",
        Query(SAID, "now"),
        states=VERDICT,
        empty="no miner is watched, or no rules",
        size=(4, 9),
    ),
    table(
        "What is wrong",
        "Alerts about the chosen miners and the exporter, the gravest and the most expensive "
        "first. A click on an alert opens its runbook, and one on a place the board that shows "
        "more. Dollars are what is known to go on being lost in a day.",
        Column(
            "Severity",
            copied(copied(short(SEVERITIES), "board"), "first"),
            width=95,
            states=SEVERITY,
            missing=" ",
        ),
        Column(
            "",
            nothing_row(
                f"{RULES} and on () {WATCHED} unless on () {WITHOUT_KEY} unless on () {SEVERITIES}",
                "alertname",
            ),
        ),
        Column(
            "",
            nothing_row(
                f"{RULES} and on () {WITHOUT_KEY} unless on () {SEVERITIES}",
                "alertname",
                KEYLESS.value,
            ),
        ),
        Column("", "board", states=[State(name, uid) for name, uid in BOARDS.items()]),
        Column(
            "Alert",
            "alertname",
            width=240,
            states=[NOTHING, KEYLESS],
            link=RUNBOOK,
            tooltip="Open the runbook",
        ),
        Column("", "server"),
        Column(
            "Where",
            "place",
            width=120,
            link=board_link(
                "${__data.fields.board}",
                hotkey="${__data.fields.hotkey}",
                server="${__data.fields.server}",
            ),
            tooltip="Show more",
            missing=" ",
        ),
        Column(
            "Firing for",
            f"time() - {SINCE} and on ({IS_FIRING}) {SEVERITIES}",
            TIME,
            105,
            missing=" ",
        ),
        Column(
            "USD a day",
            f"{LOST_PER_DAY} * on () group_left () {UNIT_USD} > 0",
            CENTS,
            115,
            thresholds=[(0.5, RED)],
            missing=" ",
        ),
        Column(
            "What to do first",
            "first",
            width=390,
            states=FIRST_STEPS,
            missing=" ",
        ),
        *MINER_COLUMNS,
        empty="Unknown: no miner is watched, or the rules are not loaded",
        sort=["Severity", "-USD a day", "-Firing for"],
        size=(20, 9),
    ),
    stat(
        "Earned per day",
        "Estimate of the earnings of a day, from the chain. docs/money.md explains the error.",
        Query(EARNED, "dollars"),
        unit=DOLLARS,
        empty="no seat, or no --chain.url",
        size=(4, 3),
    ),
    stat(
        "After rent",
        "Estimate of what is left of the earnings of a day after the rent of all GPUs. Below 0 it "
        "is a loss. It needs --chain.url, and a price for each GPU.",
        Query(PROFIT, "dollars"),
        unit=DOLLARS,
        thresholds=[(float("-inf"), RED), (0, PLAIN)],
        empty="no GPU price is set",
        size=(4, 3),
    ),
    stat(
        "Lost in 24 h",
        "What the score of the past day lacks because of the instances that ended in it. US "
        "dollars need --chain.url. Without it, it is in compute units. The Instances board shows "
        "what ended.",
        Query(f"{LOST_UNITS} * on () {UNIT_USD}", "dollars", thresholds=[(0.5, RED)]),
        Query(f"{LOST} unless on () ({LOST_UNITS} * on () {UNIT_USD})", "units, at least", AMOUNT),
        unit=DOLLARS,
        empty=NO_REPORT,
        size=(4, 3),
    ),
    idle_gpus((6, 3)),
    before_loss((6, 3), of_miners),
    _next_day(),
    _since_yesterday(),
    stacked(
        "GPUs by state",
        "Each GPU in exactly one state. Idle and unverified ones earn nothing, disabled ones keep "
        "earning. The Fleet board lists them.",
        Query(GPUS_BY_STATE, "{{state}}"),
        states=GPU,
        empty="Unknown: no data. It needs the miner's key and the rules.",
        size=(12, 6),
    ),
    graph(
        "Score share and heading",
        "Share of all scores of the chosen miners, and where it is heading. The share averages "
        "over a day, the heading reacts within minutes.",
        Query(f"sum({SCORE})", "score share"),
        Query(f"sum({HEADING})", "heading"),
        unit=SHARE,
        size=(12, 6),
    ),
)

OVERVIEW.show(
    table(
        "Miners",
        "The watched miners. A click on a miner selects it. A click on its idle or unverified "
        "GPUs opens the Fleet board. The heading is the direction of the score share if all "
        "instances continue.",
        *MINER_COLUMNS,
        Column("Seat", short(of_miners("chutes_miner_registered")), width=90, states=REGISTERED),
        Column("Score share", SCORE, SHARE, 125),
        Column("Heading", HEADING, SHARE),
        Column("Earning GPUs", _gpus("~earning|disabled"), COUNT),
        Column(
            "Idle or unverified",
            _gpus("~idle|unverified"),
            COUNT,
            thresholds=[(1, RED)],
            link=board_link("chutes-fleet", hotkey="${__data.fields.hotkey}"),
        ),
        sort=["-Score share"],
        size=(24, 4),
    ),
    title="Miners and scores",
)

OVERVIEW.show(
    table(
        "Earnings by chute",
        "Compute units of the chosen miners by chute. A chute near the end of the list earns less "
        "with its GPUs than others: see the Market board.",
        Column("", "chute_id"),
        Column("", with_chute_name(_by_chute("1d"))),
        Column(
            "Chute",
            "name",
            width=250,
            missing="names need a key",
            link=board_link("chutes-market", chute="${__data.fields.chute_id}"),
        ),
        Column("Units, 1 day", _by_chute("1d"), AMOUNT),
        empty="Unknown: no data. It needs --collector.stats_per_chute, which is on with a hotkey.",
        sort=["-Units, 1 day"],
    ),
    title="Earnings by chute",
)
