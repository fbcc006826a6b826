"""Is something wrong, what does it cost, and what is to be done first?"""

from __future__ import annotations

from typing import Final

from grafana.alerts import BOARD_OF, FIRST_STEPS, severities, verdict, verdict_number
from grafana.boards.fleet import idle_gpus
from grafana.boards.instances import LOST, LOST_UNITS
from grafana.boards.subnet import before_loss
from grafana.dashboard import Board
from grafana.panels import (
    AMOUNT,
    CENTS,
    COUNT,
    DOLLARS,
    MINER_COLUMNS,
    RUNBOOK,
    SHARE,
    TIME,
    Column,
    Query,
    board_link,
    graph,
    stacked,
    stat,
    table,
)
from grafana.queries import (
    ALERTS,
    RULES,
    UNIT_USD,
    copied,
    nothing_row,
    of_known,
    of_miners,
    recorded,
    select,
    short,
    total,
    with_chute_name,
)
from grafana.states import (
    GPU,
    KEYLESS,
    NO_PLACE,
    NOTHING,
    PLAIN,
    RED,
    SEVERITY,
    State,
)

SCORE: Final = of_miners("chutes_miner_score_ratio")
HEADING: Final = recorded("hotkey:chutes_miner_score_heading_ratio:max")
EARNED: Final = total(of_miners("chutes_miner_estimated_usd_per_day"))
NEXT_DAY: Final = total(recorded("hotkey:chutes_miner_estimated_usd:next24h"))
"""The recording has the 26 %, and docs/advise.md how they were found."""
PROFIT: Final = total(of_miners("chutes_miner_estimated_profit_usd_per_day"), with_gpus=True)
GPUS: Final = "hotkey_state:chutes_fleet_gpus:sum"
GPUS_BY_STATE: Final = of_known(f"sum by (state) ({recorded(GPUS)})", "gpus")
SEVERITIES: Final = severities("$hotkey")
NO_ALERT: Final = verdict_number("$hotkey")
LOST_PER_DAY: Final = recorded("alert:chutes_alerts:compute_units_per_day")
_BY_ALERT: Final = "alertname, hotkey"
PLACES: Final = f"count by ({_BY_ALERT}) ({SEVERITIES})"
ONLY_PLACE: Final = (
    f'label_replace({SEVERITIES}, "place", "{NO_PLACE.value}", "place", "") '
    f"and on ({_BY_ALERT}) {PLACES} == 1"
)
_MOST_EXPENSIVE_TWO: Final = f"topk by ({_BY_ALERT}) (2, {LOST_PER_DAY})"
WORST_PLACE: Final = (
    f"topk by ({_BY_ALERT}) (1, {LOST_PER_DAY}) "
    f"and on ({_BY_ALERT}) stdvar by ({_BY_ALERT}) ({_MOST_EXPENSIVE_TWO}) > 0"
)
"""The most expensive one of several servers, if one is."""
FIRING_FOR: Final = (
    f"max by ({_BY_ALERT}) (time() - ALERTS_FOR_STATE{{{ALERTS}}}) "
    f"and on ({_BY_ALERT}) {SEVERITIES}"
)
_UNUSED_GPUS: Final = recorded(
    "alert:chutes_alerts:severity", alertname="~ChutesGpus(Idle|Unverified)|ChutesServer.*Main.+"
)
_RENT: Final = of_miners("chutes_server_idle_cost_usd_per_day", "server")
RENT: Final = (
    f"sum by ({_BY_ALERT}) (topk by (hotkey, server) (1, 0 * {_UNUSED_GPUS}) "
    f"+ on (hotkey, server) group_left () ({_RENT} > 0))"
)
"""The rent of the unused GPUs of all servers with an alert. Of several alerts, one has it."""
_UNITS: Final = of_miners("chutes_miner_chute_window_compute_units", "chute_id", window="1d")
UNITS_BY_CHUTE: Final = (
    f"sum by (chute_id) ({_UNITS}) "
    f"and on () {select('chutes_feed_records', feed='stats_per_chute')}"
)
"""The compute units of each chute in a day, absent while a record may be missing."""


OVERVIEW: Final = Board(
    "chutes-overview",
    "Chutes miner overview",
    "Is something wrong, what does it cost, and what is to be done first?",
)

OVERVIEW.show(
    verdict((3, 12)),
    table(
        "What is wrong",
        "Alerts about the chosen miners and the exporter: first what has a deadline, then the "
        "gravest and the most expensive. Places are the servers, chutes or feeds of an alert: a "
        "click on their number opens the board that lists them all. A click on an alert opens its "
        "runbook. Dollars are what is known not to be earned in a day, and rent is that of unused "
        "GPUs, at all places together.",
        Column(
            "Severity",
            copied(copied(short(f"min by ({_BY_ALERT}) ({SEVERITIES})"), "board"), "first"),
            width=95,
            states=SEVERITY,
            missing=" ",
        ),
        Column(
            "",
            nothing_row(
                f"{NO_ALERT} != 1004 and on () {RULES} unless on () {SEVERITIES}", "alertname"
            ),
        ),
        Column(
            "",
            # Also beside alerts: without a key, few of them can fire.
            nothing_row(f"{NO_ALERT} == 1004", "alertname", KEYLESS.value),
        ),
        Column("", "board", states=[State(name, uid) for name, uid in BOARD_OF.items()]),
        Column(
            "Alert",
            "alertname",
            width=258,
            states=[NOTHING, KEYLESS],
            link=RUNBOOK,
            tooltip="Open the runbook",
        ),
        Column(
            "Places",
            PLACES,
            COUNT,
            70,
            link=board_link("${__data.fields.board}", hotkey="${__data.fields.hotkey}"),
            tooltip="Show all",
            missing=" ",
        ),
        Column("", ONLY_PLACE),
        Column("", WORST_PLACE),
        Column("", "server"),
        Column(
            "Worst place",
            "place",
            width=165,
            states=[NO_PLACE],
            link=board_link(
                "${__data.fields.board}",
                hotkey="${__data.fields.hotkey}",
                server="${__data.fields.server}",
            ),
            tooltip="Show more",
            missing=" ",
        ),
        Column("Firing for", FIRING_FOR, TIME, 100, missing=" "),
        Column(
            "USD a day",
            f"sum by ({_BY_ALERT}) ({LOST_PER_DAY}) * on () group_left () {UNIT_USD} > 0",
            CENTS,
            110,
            thresholds=[(0.5, RED)],
            missing=" ",
        ),
        Column("Rent a day", RENT, CENTS, 110, thresholds=[(0.5, RED)], missing=" "),
        Column("What to do first", "first", width=355, states=FIRST_STEPS, missing=" "),
        *MINER_COLUMNS,
        sort=["Severity", "-USD a day", "-Rent a day", "-Firing for"],
        size=(21, 12),
    ),
    stat(
        "Earned per day",
        "Estimate of the earnings of a day, from the chain. It needs --chain.url. docs/money.md "
        "explains the error.",
        Query(EARNED, "dollars"),
        unit=DOLLARS,
        size=(4, 3),
    ),
    stat(
        "Next 24 h",
        "Experimental estimate of the pay of the next 24 hours, at today's price. It is 26 % of "
        "the way from the score to its heading, which it approaches. It is unknown in a collapse, "
        "while the heading is below half of the score, and does not predict a lost seat or a "
        "lasting change. It needs the miner's key, and --chain.url. docs/advise.md says how sure "
        "it is.",
        Query(NEXT_DAY, "dollars, about"),
        unit=DOLLARS,
        size=(4, 3),
    ),
    stat(
        "After rent",
        "Estimate of what is left of the earnings of a day after the rent of all GPUs. Below 0 it "
        "is a loss. It needs --chain.url, and a price for each GPU.",
        Query(PROFIT, "dollars"),
        unit=DOLLARS,
        thresholds=[(float("-inf"), RED), (0, PLAIN)],
        size=(4, 3),
    ),
    stat(
        "Lost in 24 h",
        "What the score of the past day lacks because of the instances that ended in it. US "
        "dollars need --chain.url. Without it, it is in compute units. It is unknown while one "
        "loss is: the Instances board shows what is known.",
        Query(f"{LOST_UNITS} * on () {UNIT_USD}", "dollars", thresholds=[(0.5, RED)]),
        Query(f"{LOST} unless on () {UNIT_USD}", "units, at least", AMOUNT),
        unit=DOLLARS,
        size=(3, 3),
    ),
    idle_gpus((5, 3)),
    before_loss((4, 3), of_miners),
    stacked(
        "GPUs by state",
        "Each GPU in exactly one state. Idle and unverified ones earn nothing, disabled ones keep "
        "earning. The Fleet board lists them. It needs the miner's key.",
        Query(GPUS_BY_STATE, "{{state}}"),
        states=GPU,
        calcs=(),
        size=(12, 6),
    ),
    graph(
        "Score share and heading",
        "Share of all scores of the chosen miners, and where it is heading. The share averages "
        "over a day, the heading reacts within minutes.",
        Query(f"sum({SCORE})", "score share"),
        Query(f"sum({HEADING})", "heading"),
        unit=SHARE,
        calcs=(),
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
        Column("Score share", short(SCORE), SHARE, 125),
        Column("Heading", HEADING, SHARE),
        Column(
            "Idle or unverified",
            f"sum by (hotkey) ({recorded(GPUS, state='~idle|unverified')})",
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
        "with its GPUs than others: see the Market board. It needs --collector.stats_per_chute, "
        "which is on with a hotkey.",
        Column("", "chute_id"),
        Column("", with_chute_name(UNITS_BY_CHUTE)),
        Column(
            "Chute",
            "name",
            width=250,
            missing="names need a key",
            link=board_link("chutes-market", chute="${__data.fields.chute_id}"),
        ),
        Column("Units, 1 day", UNITS_BY_CHUTE, AMOUNT),
        sort=["-Units, 1 day"],
    ),
    title="Earnings by chute",
)
