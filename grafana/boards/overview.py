"""The miner's health, earnings and trends."""

from __future__ import annotations

from typing import Final

from grafana.parts import (
    ALERTS,
    SIGNED_FEEDS,
    WATCHED,
    Board,
    Column,
    Query,
    board_link,
    lines,
    miner,
    or_absence,
    platform,
    rows,
    tile,
    with_chute_name,
)
from grafana.states import ACCEPTED, ANSWERS, BLACKLISTED, GPU, ORANGE, RED, REGISTERED, SEVERITY
from grafana.worlds import ALARMED, ALL, BUSY, FADING_BUSY, KEYED, SICK, STOCKED

GPUS: Final = miner("chutes_fleet_gpus", "gpu", "state")
EARNING: Final = miner("chutes_fleet_gpus", "gpu", "state", state="~earning|disabled")
NOT_EARNING: Final = miner("chutes_fleet_gpus", "gpu", "state", state="~idle|unverified")
ALERT_LABELS: Final = "alertname, severity, hotkey, job, feed, collector, server, server_id, gpu, chute_id, instance_id"
"""All labels of alerts. Each firing alert is a row."""
RUNBOOK: Final = "https://github.com/chutes-exporter/chutes-exporter/blob/main/docs/alerts.md#${__value.raw}"
SEATS: Final = 256
"""Seats of the subnet."""
SCORE: Final = miner("chutes_miner_score_ratio")
UNITS: Final = miner("chutes_miner_window_compute_units", "window")

OVERVIEW: Final = Board(
    "chutes-overview",
    "Chutes miner overview",
    "Whether everything is all right with the watched miners, what they earn, and how it moves.",
)

OVERVIEW.row(
    "Is everything all right?",
    tile(
        "API",
        "The share of the exporter's questions that the Chutes API answered when it was last asked. Below 100 %, the "
        "Exporter board says which fail and why; at 0 nothing new is known, and the numbers here grow old.",
        or_absence('avg(max by (feed, hotkey) (chutes_feed_up{job=~"$job", hotkey=~"$hotkey|"}))', "scores"),
        unit="percentunit",
        states=ANSWERS,
        thresholds=[(float("-inf"), RED), (0.5, ORANGE), (1, "text")],
        decimals=0,
    ),
    tile(
        "Signature",
        "Whether the API takes what the miner signs. When it is refused, compare the seed with the hotkey and the "
        "clock with the right time, and see whether the hotkey has its seat. Without its key, the miner's servers, "
        "GPUs and instances are not known.",
        or_absence(
            f"0 * count(chutes_feed_failure_info"
            f'{{{WATCHED}, feed=~"{SIGNED_FEEDS}", reason=~"signature_refused|not_registered"}})\n'
            f'or on () (count(chutes_feed_up{{{WATCHED}, feed=~"{SIGNED_FEEDS}"}} == 1) > bool 0)',
            "servers",
        ),
        states=ACCEPTED,
    ),
    tile(
        "Seat",
        "Whether every watched miner has its seat on the subnet. Without one it has no score, and the API refuses its "
        "signatures: register again.",
        or_absence(f"min({miner('chutes_miner_registered')})", "metagraph"),
        states=REGISTERED,
    ),
    tile(
        "Blacklist",
        "Whether a watched miner is blacklisted: then its launches are refused and it has no score. The Subnet board "
        "has the reason; only the operators of the platform can lift it.",
        or_absence(f"max({miner('chutes_miner_blacklisted')})", "metagraph"),
        states=BLACKLISTED,
    ),
    tile(
        "GPUs earning",
        "The share of the GPUs that are in an active instance, or in one that its miner disabled, which keeps earning. "
        "The Fleet board lists each GPU with its state, the ones that cost most first.",
        or_absence(f"sum({EARNING}) / on () (sum({GPUS}) > 0)", "fleet"),
        unit="percentunit",
        thresholds=[(float("-inf"), RED), (0.5, ORANGE), (0.9, "text")],
        decimals=0,
    ),
    tile(
        "Idle or unverified",
        "GPUs that are in no instance and earn nothing. Idle ones want a chute (the Market board says which pays), "
        "unverified ones a look at the verification error on the Fleet board.",
        or_absence(f"sum({NOT_EARNING})", "fleet"),
        thresholds=[(1, ORANGE)],
        decimals=0,
    ),
    tile(
        "Next purge",
        "Time until the service purges an instance that is still starting, for the one that is next: 3.5 hours after "
        "its creation, or 3 hours after its verification. Look at its log, or delete it to free its GPUs.",
        or_absence(f"min({miner('chutes_instance_purge_timestamp_seconds', 'instance_id')} - time())", "instances"),
        unit="s",
        thresholds=[(float("-inf"), RED), (1800, ORANGE), (5400, "text")],
        decimals=0,
    ),
    tile(
        "Alerts firing",
        "Critical alerts and warnings about the watched miners and the exporter. The table below lists them with their "
        'age and runbook, and info as well. When this says "no rules", Prometheus does not load prometheus/rules/, '
        "and no alert can fire.",
        Query(
            f'count(ALERTS{{{ALERTS}, alertstate="firing", severity=~"critical|warning"}})\n'
            'or on () 0 * max(prometheus:chutes_rules:loaded{job=~"$job|"})',
            data=ALL,
        ),
        thresholds=[(1, RED)],
        decimals=0,
        empty="no rules",
    ),
)

OVERVIEW.row(
    "What do I earn?",
    tile(
        "Score share",
        "The share of all scores: compute units of the past day, divided by everybody's. The service computes it every "
        "10 minutes. Weights, and then the incentive, follow it within 1 to 3 hours.",
        or_absence(f"sum({SCORE})", "scores"),
        unit="percentunit",
        decimals=3,
    ),
    tile(
        "Rank",
        "The place by score among all miners, 1 being the best; the best place where several miners are watched. A "
        "sinking rank with a steady share means that others grow.",
        or_absence(f"min({miner('chutes_miner_score_rank')})", "scores"),
        decimals=0,
    ),
    tile(
        "To the next better",
        "The share that is missing to pass the next better miner, for the watched miner that is closest to it. "
        "Compare it with what an idle GPU would bring.",
        or_absence(f"min({miner('chutes_miner_score_next_better_ratio')} - on (hotkey) {SCORE})", "scores"),
        unit="percentunit",
        decimals=4,
    ),
    tile(
        "To the next worse",
        "The share between the miner and the next worse one, for the watched miner that is closest to losing a "
        "place. When it nears 0, the place is about to be lost.",
        or_absence(f"min({SCORE} - on (hotkey) {miner('chutes_miner_score_next_worse_ratio')})", "scores"),
        unit="percentunit",
        decimals=4,
    ),
    tile(
        "Seats behind",
        "Free seats, and seats with a lower incentive than the watched miner that is worst off. Validators count as "
        "well, as they have no incentive, so fewer newcomers may take its seat. Below 5, bring GPUs to work.",
        or_absence(
            f"min({miner('chutes_miner_seats_behind')}) + on () ({SEATS} - {platform('chutes_metagraph_miners')})",
            "metagraph",
        ),
        thresholds=[(float("-inf"), RED), (5, ORANGE), (10, "text")],
        decimals=0,
    ),
    tile(
        "Compute share, 1 h",
        "The share of everybody's compute units in the past hour. It moves first: the score share covers a whole day "
        "and follows it.",
        or_absence(
            f"sum({miner('chutes_miner_window_compute_units', window='1h')})"
            f" / on () {platform('chutes_platform_window_compute_units', window='1h')}",
            "stats",
        ),
        unit="percentunit",
        decimals=3,
    ),
    tile(
        "Units a second",
        "Compute units that a second earns now: the sum of the compute multipliers of the active instances. Disabled "
        "ones keep earning and are not in it.",
        or_absence(f"sum({miner('chutes_miner_active_compute_multiplier')})", "active_instances"),
        decimals=1,
    ),
    tile(
        "Score heading",
        "The score share that the miner approaches within a day if all active instances go on unchanged. An estimate: "
        "docs/earnings.md tells its error. Below the score share, the score is about to fall.",
        or_absence(f"sum({miner('chutes_miner_score_heading_ratio')})", "score_heading"),
        unit="percentunit",
        decimals=3,
    ),
)

OVERVIEW.row(
    "How does it move?",
    lines(
        "Score share and its neighbours",
        "The miner's share between those of the next better and the next worse, and the share that it is heading for. "
        "Where a neighbour's line is near, a place is about to change hands.",
        [
            Query(SCORE, "{{hotkey}}", BUSY),
            Query(miner("chutes_miner_score_heading_ratio"), "heading of {{hotkey}}", KEYED),
            Query(miner("chutes_miner_score_next_better_ratio"), "next better than {{hotkey}}", BUSY - SICK),
            Query(miner("chutes_miner_score_next_worse_ratio"), "next worse than {{hotkey}}", BUSY),
        ],
        unit="percentunit",
        empty="No score: the miner has computed nothing, or the API has not answered",
    ),
    lines(
        "Rank",
        "The place by score and the place by incentive; lower is better. The incentive follows the score by 1 to 3 "
        "hours: weights are set once an hour, and the chain applies them at its next epoch.",
        [
            Query(miner("chutes_miner_score_rank"), "score of {{hotkey}}", BUSY),
            Query(miner("chutes_miner_incentive_rank"), "incentive of {{hotkey}}"),
        ],
        unit="none",
    ),
    lines(
        "Share of compute by window",
        "The miner's share of everybody's compute units in the past hour, day and week. The hour below the day means "
        "that the score is about to fall: look for idle GPUs and instances that ended.",
        [
            Query(
                f"sum by (window) ({UNITS}) / on (window) {platform('chutes_platform_window_compute_units', 'window')}",
                "past {{window}}",
            )
        ],
        unit="percentunit",
    ),
    lines(
        "GPUs by state",
        "Every GPU in exactly one state. Idle and unverified ones earn nothing, disabled ones keep earning: the Fleet "
        "board lists them.",
        [Query(f"sum by (state) ({GPUS})", "{{state}}", STOCKED)],
        unit="none",
        states=GPU,
        stacked=True,
        empty="No GPU known: there is none, the exporter has no key, or the API has not answered",
    ),
    lines(
        "Work by window",
        "Compute units of the past hour, day and week; and compute units and seconds in the score, which covers the "
        "past day. Seconds that stay while units fall mean lower multipliers.",
        [
            Query(f"sum by (window) ({UNITS})", "units, past {{window}}"),
            Query(f"sum({miner('chutes_miner_score_compute_units')})", "units in the score", BUSY),
            Query(f"sum({miner('chutes_miner_score_instance_seconds')})", "seconds in the score", BUSY),
            Query(f"sum({miner('chutes_miner_window_compute_seconds', window='1d')})", "seconds, past 1d"),
        ],
        unit="short",
    ),
    lines(
        "Instances and bounties",
        "Counting instances of the past hour, and those in the score, which covers the past day; some of them were "
        "activated with a bounty. Many instances for little work are instances that do not stay up.",
        [
            Query(f"sum({miner('chutes_miner_window_instances', window='1h')})", "instances, past hour"),
            Query(f"sum({miner('chutes_miner_score_instances')})", "instances in the score", BUSY),
            Query(f"sum({miner('chutes_miner_score_bounties')})", "with a bounty, in the score", BUSY),
        ],
        unit="none",
    ),
    lines(
        "Active GPUs and distinct chutes",
        "GPUs that were active at each full hour, those of distinct chutes, and the average of 7 days. Public "
        "instances count only once they are an hour old, and each with the GPUs that its chute asks for now.",
        [
            Query(f"sum(last_over_time({miner('chutes_miner_active_gpus')}[1h:1m]))", "active GPUs", FADING_BUSY),
            Query(
                f"sum(last_over_time({miner('chutes_miner_unique_chute_gpus')}[1h:1m]))",
                "GPUs of distinct chutes",
                FADING_BUSY,
            ),
            Query(f"sum({miner('chutes_miner_average_active_gpus')})", "active GPUs, average of 7 days", BUSY),
        ],
        unit="none",
    ),
    lines(
        "Incentive and consensus",
        "The miner's share of the incentive of all seats, and the chain's consensus about it, which is near the "
        "incentive and scaled otherwise. Both move with the chain's epochs, about every 72 minutes.",
        [
            Query(miner("chutes_miner_incentive_ratio"), "incentive of {{hotkey}}"),
            Query(miner("chutes_miner_consensus_ratio"), "consensus about {{hotkey}}"),
        ],
        unit="percentunit",
    ),
)

OVERVIEW.row(
    "What needs a look, and which chutes earned?",
    rows(
        "Alerts firing now",
        "Every alert about the watched miners and the exporter, and since when its condition has held. The name leads "
        "to what it costs, and from there to its runbook, which says what to check and what to do.",
        [
            Query(
                f"\nor on ({ALERT_LABELS}) ".join(
                    f"{state.value} * max by ({ALERT_LABELS})"
                    f' (ALERTS{{{ALERTS}, alertstate="firing", severity="{state.text}"}})'
                    for state in SEVERITY
                ),
                data=ALARMED,
            ),
            Query(
                f"max by ({ALERT_LABELS}) (\n"
                f"  time() - ALERTS_FOR_STATE{{{ALERTS}}}\n"
                f'  and on ({ALERT_LABELS}) ALERTS{{{ALERTS}, alertstate="firing"}}\n'
                ")",
                data=ALARMED,
            ),
        ],
        [
            Column("A", "Severity", states=SEVERITY, width=80),
            Column("B", "Age", "s", width=75),
            Column("alertname", "Alert", width=210, link=RUNBOOK),
            Column("feed", "Feed", width=100),
            Column("gpu", "Model", width=75),
            Column("server", "Server", width=90),
            Column("hotkey", "Miner", link=board_link("chutes-overview", hotkey="${__value.raw}")),
        ],
        empty="No alert fires, if the tile above does not say otherwise",
        sort=("Severity", False),
        size=(12, 10),
    ),
    rows(
        "Earnings by chute",
        "Compute units of the watched miners by chute; counting instances, and those with a bounty, are of the past "
        "day. A chute that holds GPUs and is far down earns less for them than others: see the Market board.",
        [
            Query(
                with_chute_name(
                    f"sum by (chute_id) ({miner('chutes_miner_chute_window_compute_units', 'chute_id', window=window)})"
                ),
                data=BUSY,
            )
            for window in ("1h", "1d", "7d")
        ]
        + [
            Query(
                f"sum by (chute_id) ({miner(f'chutes_miner_chute_window_{what}', 'chute_id', window='1d')})",
                data=BUSY,
            )
            for what in ("compute_seconds", "instances", "bounties")
        ],
        [
            Column("name", "Chute"),
            Column("A", "Units, 1 h", "short", width=85),
            Column("B", "Units, 1 day", "short", width=95),
            Column("C", "Units, 7 days", "short", width=100),
            Column("D", "Time, 1 day", "s", width=90),
            Column("E", "Instances", "none", width=80),
            Column("F", "Bounties", "none", width=75),
        ],
        empty="Nothing computed, or not asked for: see --collector.stats_per_chute",
        sort=("Units, 1 h", True),
        size=(12, 10),
    ),
)
