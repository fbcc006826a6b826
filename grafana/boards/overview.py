"""What do the miners earn and lose, is something wrong, and what is it?"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

from grafana.boards.fleet import IDLE_UNITS, idle_gpus
from grafana.boards.instances import ACTIVATED, ENDS_KNOWN_SINCE, LOST_UNITS, NO_REPORT, of_hour
from grafana.boards.subnet import before_loss, score_share
from grafana.parts import (
    ALERTS,
    AMOUNT,
    CENTS,
    CLOCK,
    COUNT,
    DOLLARS,
    EXPORTERS,
    MINER_COLUMNS,
    MINERS,
    SHARE,
    TIME,
    WATCHED,
    Board,
    Column,
    Query,
    Unit,
    board_link,
    counted,
    graph,
    nothing_wrong,
    of_all,
    of_exporters,
    of_miners,
    recorded,
    select,
    short,
    signed,
    stacked,
    stat,
    table,
    top_ten_at_end,
    total,
    with_chute_name,
    yesterday,
)
from grafana.states import (
    GPU,
    KEYLESS,
    NOTHING,
    ORANGE,
    PLAIN,
    RED,
    REGISTERED,
    SEVERITY,
    UNWATCHED,
    State,
)
from grafana.worlds import (
    ALARMED,
    ALL,
    BUSY,
    CALM,
    CHAINED,
    COVERED,
    HEALTHY,
    KEYED,
    LIVE,
    PAID,
    PRICED,
    SICK,
    STOCKED,
    UNCHAINED,
)

ALERT_RULES: Final = Path(__file__).parents[2] / "prometheus" / "rules" / "alerts.yml"

SCORE: Final = of_miners("chutes_miner_score_ratio")
HEADING: Final = recorded("hotkey:chutes_miner_score_heading_ratio:max")
RANK: Final = of_miners("chutes_miner_score_rank")
BEFORE_LOSS: Final = of_miners("chutes_miner_registrations_before_loss")
REGISTRATION: Final = of_miners("chutes_miner_registered")
EARNED: Final = total(of_miners("chutes_miner_estimated_usd_per_day"))
EARNED_ALPHA: Final = total(of_miners("chutes_miner_emission_alpha_per_day"))
INCENTIVE: Final = of_miners("chutes_miner_incentive_ratio")
PROFIT: Final = total(of_miners("chutes_miner_estimated_profit_usd_per_day"), with_gpus=True)
LOSS: Final = (
    f'sum by (hotkey, place) (label_replace({recorded(IDLE_UNITS)}, "place", "$1", "server", '
    '"(.+)"))'
)
ENDED: Final = total(recorded("hotkey:chutes_ended_usd:sum1d"))
FLEET: Final = recorded("hotkey_state:chutes_fleet_gpus:sum")
EARNING: Final = recorded("hotkey_state:chutes_fleet_gpus:sum", state="~earning|disabled")
ALL_EARNING: Final = total(EARNING, with_gpus=True)
ACTIVE: Final = of_miners("chutes_fleet_instances", state="active")
ENDED_INSTANCES: Final = (
    f"sum(sum_over_time(({of_hour('chutes_miner_window_ended_instances', 'reason')})[1d:1h])) and "
    f"on () {LOST_UNITS}"
)
PER_GPU: Final = recorded("hotkey:chutes_miner_estimated_usd_per_day:per_gpu")
SEVERITIES: Final = select("alert:chutes_alerts:severity", hotkey="~$hotkey|")
OF_IDLE: Final = select(
    "alert:chutes_alerts:severity", alertname="ChutesGpusIdle", hotkey="~$hotkey|"
)
NO_KEY: Final = (
    f"({WATCHED} unless on (hotkey) "
    f"last_over_time({select('chutes_feed_ttl_seconds', EXPORTERS, MINERS, feed='nodes')}[15m]))"
)
ALERTS_KNOWN: Final = f"(prometheus:chutes_rules:loaded and on () group({WATCHED}))"
QUIET: Final = f"prometheus:chutes_rules:loaded unless on () {SEVERITIES}"
PROBLEM: Final = "alertname, severity, hotkey, place"
FIRING_FOR: Final = (
    f"time() - min by ({PROBLEM}) (label_replace(label_join(ALERTS_FOR_STATE{{{ALERTS}}},"
    ' "place", " ", "server", "name", "feed"), "place", "$1", "place", " *(.*?) *"))'
)
COSTS: Final = tuple(
    State(f"{rule['alert']} {rule['labels']['severity']}", rule["annotations"]["cost"])
    for group in yaml.safe_load(ALERT_RULES.read_text())["groups"]
    for rule in group["rules"]
)
"""The cost of each alert, as its rule has it."""


def _gpus(states: str) -> str:
    return f"sum by (hotkey) ({recorded('hotkey_state:chutes_fleet_gpus:sum', state=states)})"


def _by_chute(metric: str, window: str) -> str:
    found = of_miners(f"chutes_miner_chute_window_{metric}", "chute_id", window=window)
    return (
        f"sum by (chute_id) ({found}) and on () "
        f"{select('chutes_feed_records', EXPORTERS, feed='stats_per_chute')}"
    )


OVERVIEW: Final = Board(
    "chutes-overview",
    "Chutes miner overview",
    "What do the watched miners earn and lose, is something wrong, and what is it?",
)

OVERVIEW.show(
    stat(
        "Earned per day",
        "Estimate of the earnings of a day, and what is left of it after the rent of all GPUs. "
        "Below 0 it is a loss. "
        "US dollars need --chain.url, and the rent a price for each GPU. Without "
        "--chain.url, it is the share of "
        "the emission to all miners. docs/money.md explains the error.",
        Query(EARNED, "estimate", PAID),
        Query(PROFIT, "after rent", PRICED),
        Query(
            f"{EARNED_ALPHA} unless on () {of_exporters('chutes_alpha_price_usd')}",
            "alpha; dollars: docs/money.md",
            HEALTHY,
            COUNT,
        ),
        Query(
            f"{total(INCENTIVE)} unless on () {of_exporters('chutes_chain_block')}",
            "of emission; dollars: docs/money.md",
            UNCHAINED,
            SHARE,
        ),
        unit=DOLLARS,
        thresholds=[(float("-inf"), RED), (0, PLAIN)],
        empty="no seat is known",
        size=(6, 3),
    ),
    idle_gpus((6, 3)),
    stat(
        "Ended in 24 h",
        "Estimate of what the score lost with the instances that ended in 24 hours. US dollars "
        "need "
        "--chain.url. Without it, it is a share of the score. The Instances board shows what "
        "ended.",
        Query(ENDED, "lost", PRICED),
        Query(
            f"{LOST_UNITS} / on () sum({of_miners('chutes_miner_score_compute_units')}) "
            f"unless on () {ENDED}",
            "of score; dollars: docs/money.md",
            COVERED - PRICED,
            Unit("percentunit", 1),
        ),
        Query(ENDS_KNOWN_SINCE, "known since", LIVE - COVERED, CLOCK),
        unit=DOLLARS,
        empty=NO_REPORT,
        size=(3, 3),
    ),
    stat(
        "Alerts",
        "Critical alerts mean that money is lost now, or would be lost unseen, and that somebody "
        "can stop it. Alerts that follow from another one do not count, as in the example of "
        "routing. There are none without a watched miner.",
        *(
            Query(
                counted(f"{SEVERITIES} == {severity}", ALERTS_KNOWN),
                legend,
                ALL,
                thresholds=[(1, color)],
            )
            for severity, legend, color in ((0, "critical", RED), (1, "warning", ORANGE))
        ),
        empty="no miner is watched",
        size=(3, 3),
    ),
    before_loss((6, 3), of_miners),
    score_share(f"sum({SCORE})", HEADING, BUSY, (7, 3)),
    stat(
        "Since yesterday",
        "Changes within 24 hours: the score share in percentage points, places in the ranking, "
        "GPUs that earn, and "
        "instances. New ones still exist. Ended ones are those of the newest 24 audit reports.",
        *signed(f"100 * (sum({SCORE}) - on () sum({yesterday(SCORE)}))", "score, points", BUSY, 2),
        *signed(f"min({yesterday(RANK)}) - on () min({RANK})", "places", BUSY),
        *signed(f"{ALL_EARNING} - on () {yesterday(ALL_EARNING)}", "earning GPUs", STOCKED),
        Query(
            of_all(counted(f"time() - {ACTIVATED} < 86400", f"sum({ACTIVE})"), ACTIVE),
            "new instances",
            KEYED,
        ),
        Query(ENDED_INSTANCES, "ended", COVERED, sometimes=True),
        unit=Unit("none", None),
        empty="no day is known",
        size=(17, 3),
    ),
    table(
        "What is wrong",
        "Alerts about the chosen miners and the exporter, the gravest first, without those that "
        "follow from another "
        "one. docs/runbooks/ has a section for each, which says what to check and what to do. The "
        "units are what the "
        "idle GPUs of the server would earn in 24 hours, beside its alert.",
        Column(
            "Severity", short(SEVERITIES), width=105, states=SEVERITY, missing=" ", data=ALARMED
        ),
        Column(
            "",
            nothing_wrong(f"{QUIET} and on () {WATCHED} unless on () {NO_KEY}", "alertname"),
            data=CALM & KEYED,
        ),
        Column(
            "",
            nothing_wrong(f"{QUIET} unless on () {WATCHED}", "alertname", UNWATCHED.value),
            data=frozenset(),
        ),
        Column(
            "",
            nothing_wrong(f"{QUIET} and on () {NO_KEY}", "alertname", KEYLESS.value),
            data=CALM - KEYED,
        ),
        Column("Alert", "alertname", width=235, states=[NOTHING, UNWATCHED, KEYLESS]),
        Column("Server, chute or feed", "place", width=200, missing=" "),
        Column(
            "Firing for",
            f'label_join({FIRING_FOR} and on ({PROBLEM}) {SEVERITIES}, "cost", " ", '
            '"alertname", "severity")',
            TIME,
            90,
            missing=" ",
            data=ALARMED,
        ),
        Column(
            "Units, 24 h",
            f"0 * bottomk by (hotkey, place) (1, {OF_IDLE}) + on (hotkey, place) group_left "
            f"() {LOSS}",
            AMOUNT,
            thresholds=[(1, RED)],
            missing=" ",
            data=SICK,
        ),
        Column("Cost", "cost", width=430, states=COSTS, missing=" "),
        *MINER_COLUMNS,
        empty="Unknown: the rules are not loaded",
        sort=["Severity", "-Units, 24 h", "-Firing for"],
        size=(24, 7),
    ),
    stacked(
        "GPUs by state",
        "Each GPU in exactly one state. Idle and unverified ones earn nothing, disabled ones keep "
        "earning. The Fleet "
        "board lists them.",
        Query(of_all(f"sum by (state) ({FLEET})", FLEET, with_gpus=True), "{{state}}", STOCKED),
        states=GPU,
        empty="Unknown: no data. It needs the miner's key and the rules.",
        size=(12, 6),
    ),
    graph(
        "Score share and heading",
        "Share of all scores of the chosen miners, and where it is heading. The share averages "
        "over a day, the heading "
        "reacts within minutes.",
        Query(f"sum({SCORE})", "score share", BUSY),
        Query(f"sum({HEADING})", "heading"),
        unit=SHARE,
        size=(12, 6),
    ),
)

OVERVIEW.show(
    table(
        "Miners",
        "The watched miners. A click on a miner selects it. A click on its idle or unverified "
        "GPUs opens the Fleet "
        "board. The heading is the score share within a day if all instances continue.",
        *MINER_COLUMNS,
        Column("Seat", short(REGISTRATION), width=90, states=REGISTERED),
        Column("Score share", SCORE, SHARE, 125, data=BUSY),
        Column("Heading", HEADING, SHARE),
        Column("Rank", RANK, COUNT, data=BUSY),
        Column("Before seat loss", BEFORE_LOSS, COUNT, data=CHAINED, sometimes=True),
        Column("Earning", _gpus("~earning|disabled"), COUNT, data=STOCKED),
        Column("Starting", _gpus("starting"), COUNT, data=STOCKED),
        *(
            Column(
                state.capitalize(),
                _gpus(state),
                COUNT,
                95,
                thresholds=[(1, color)],
                link=board_link("chutes-fleet", hotkey="${__data.fields.hotkey}"),
                data=STOCKED,
            )
            for state, color in (("idle", ORANGE), ("unverified", RED))
        ),
        sort=["-Score share"],
        size=(24, 4),
    ),
    graph(
        "Rank by score and by incentive",
        "Ranks of the best of the chosen miners; lower is better. The incentive follows the score "
        "by 1 to 3 hours, "
        "because weights are set once an hour and the chain applies them at its next epoch.",
        Query(f"min({RANK})", "by score", BUSY),
        Query(f"min({of_miners('chutes_miner_incentive_rank')})", "by incentive"),
    ),
    graph(
        "Share of compute by window",
        "Share of all miners' compute units in the past hour, day and week. If the hour is below "
        "the day, it means "
        "that the score is about to fall.",
        *(
            Query(
                f"sum({of_miners('chutes_miner_window_compute_units', window=window)}) / on () "
                + of_exporters("chutes_platform_window_compute_units", window=window),
                name,
            )
            for window, name in (("1h", "past hour"), ("1d", "past day"), ("7d", "past week"))
        ),
        unit=SHARE,
    ),
    graph(
        "Counting instances",
        "Instances that count for the score of the past day, and those of the past hour. Many "
        "instances with little "
        "work mean that instances do not stay up.",
        Query(f"sum({of_miners('chutes_miner_window_instances', window='1h')})", "past hour"),
        Query(f"sum({of_miners('chutes_miner_score_instances')})", "past day", BUSY),
        Query(f"sum({of_miners('chutes_miner_score_bounties')})", "with a bounty, past day", BUSY),
    ),
    title="Miners and scores",
)

OVERVIEW.show(
    graph(
        "Estimated earnings and costs",
        "Estimates in US dollars a day: the present pay by the chain, the cost of all GPUs, and "
        "the difference. docs/money.md explains their error.",
        Query(EARNED, "earnings", PAID),
        Query(
            f"24 * {total(of_miners('chutes_miner_cost_usd_per_hour'), with_gpus=True)}",
            "cost of GPUs",
            PRICED,
        ),
        Query(PROFIT, "after rent", PRICED),
        unit=DOLLARS,
        empty="Unknown: set --gpu.cost or --server.cost for all GPUs, and --chain.url.",
    ),
    graph(
        "Estimated earnings per earning GPU",
        "Estimate: US dollars a day for each GPU that earned in the past day, for the ten "
        "best of the chosen miners.",
        Query(top_ten_at_end(short(PER_GPU), PER_GPU), "{{miner}}", PRICED),
        unit=CENTS,
        empty="Unknown: set --chain.url.",
    ),
    title="Money (estimates)",
)

OVERVIEW.show(
    table(
        "Earnings by chute",
        "Compute units of the chosen miners by chute. A chute near the end of the list earns less "
        "with its GPUs than "
        "others: see the Market board.",
        Column("", "chute_id"),
        Column("", with_chute_name(_by_chute("compute_units", "1d")), data=BUSY),
        Column(
            "Chute",
            "name",
            width=250,
            link=board_link("chutes-market", chute="${__data.fields.chute_id}"),
        ),
        *(
            Column(title, _by_chute(metric, window), unit, data=BUSY)
            for title, metric, window, unit in (
                ("Units, 1 h", "compute_units", "1h", AMOUNT),
                ("Units, 1 day", "compute_units", "1d", AMOUNT),
                ("Time, 1 day", "compute_seconds", "1d", TIME),
                ("Instances, 1 day", "instances", "1d", COUNT),
                ("With bounty", "bounties", "1d", COUNT),
            )
        ),
        empty="Unknown: no data. It needs --collector.stats_per_chute, which is on with a hotkey.",
        sort=["-Units, 1 day"],
    ),
    title="Earnings by chute",
)
