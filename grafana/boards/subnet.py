"""All miners: leaders, concentration of scores, and registered, deregistered and blacklisted miners."""

from __future__ import annotations

from typing import Final

from grafana.parts import (
    JOB,
    WAS_EXPORTER,
    Board,
    Column,
    Query,
    lines,
    miner,
    or_absence,
    platform,
    rows,
    tile,
    top_ten_at_end,
)
from grafana.states import BLACKLISTED, DOWN, OFF
from grafana.worlds import ALL, KEYED, SICK

SUBNET: Final = Board(
    "chutes-subnet",
    "Chutes subnet",
    "All miners of the subnet. An exporter that is told whom to watch tells of these alone, unless it is started with "
    "--miners all; it needs no key.",
)

SHARE: Final = platform("chutes_miner_score_ratio", "hotkey")
SEATS: Final = "topk by (hotkey) (1, {})".format(platform("chutes_miner_info", "hotkey", "coldkey", "uid"))
BEFORE: Final = 'max by (hotkey, coldkey, uid) (chutes_miner_info{job=~"$job"} offset 1d)'

SUBNET.row(
    "How is the subnet?",
    tile(
        "Seats taken",
        "Seats of the subnet that are taken, of 256. When none is free, a newcomer takes the seat of the worst.",
        or_absence(platform("chutes_metagraph_miners"), "metagraph"),
        decimals=0,
    ),
    tile(
        "Miners with a score",
        "Miners that have a score: registered, not blacklisted, and with a counting instance in the past day. The "
        "service computes scores every 10 minutes.",
        or_absence(platform("chutes_scored_miners"), "scores"),
        decimals=0,
    ),
    tile(
        "Miners at work, 1 h",
        "Miners with compute units in the past hour. The service counts them every 10 minutes.",
        or_absence(platform("chutes_platform_window_miners", window="1h"), "stats"),
        decimals=0,
    ),
    tile(
        "Blacklisted",
        "Seats that are blacklisted: their launches are refused and they have no score. The table below has the "
        "reasons, for those that the exporter tells of.",
        or_absence(platform("chutes_metagraph_blacklisted_miners"), "metagraph"),
        decimals=0,
    ),
    tile(
        "Top ten share",
        "The ten best miners' share of all scores. It needs the recording rules of prometheus/rules/, and an exporter "
        "with --miners all.",
        Query(
            'max(subnet:chutes_miner_score_ratio:top10{job=~"$job|"})\n'
            f"or on () ({OFF} * (count(chutes_exporter_build_info{{{JOB}}}) > bool 0)"
            ' and on () prometheus:chutes_rules:loaded{job=~"$job|"})\n'
            f"or on () ({DOWN} * (count(up{{{JOB}}} == 0 {WAS_EXPORTER}) > bool 0))",
            data=ALL,
        ),
        unit="percentunit",
        decimals=1,
        empty="no rules",
    ),
    tile(
        "Active instances",
        "Active and verified instances of all miners, which the exporter knows with any miner's key.",
        or_absence(platform("chutes_platform_active_instances"), "active_instances"),
        decimals=0,
    ),
    tile(
        "Units, 1 day",
        "Compute units of all miners in the past day, blacklisted ones included: what shares of compute are shares of.",
        or_absence(platform("chutes_platform_window_compute_units", window="1d"), "stats"),
    ),
    tile(
        "Newest seat",
        "How long ago the newest seat was first seen, of those that the exporter tells of. When no seat is free, each "
        "newcomer took one from somebody.",
        or_absence(f"time() - max({platform('chutes_miner_registered_timestamp_seconds', 'hotkey')})", "metagraph"),
        unit="s",
        decimals=0,
    ),
)

SUBNET.row(
    "Leaders",
    rows(
        "Leaderboard",
        "All miners that the exporter tells of, the best first. To see one on the other boards, "
        "have the exporter watch it.",
        [
            Query(platform("chutes_miner_score_rank", "hotkey")),
            Query(SHARE),
            Query(SEATS),
            Query(platform("chutes_miner_incentive_ratio", "hotkey")),
            Query(platform("chutes_miner_incentive_rank", "hotkey")),
            *(
                Query(platform("chutes_miner_window_compute_units", "hotkey", window=window))
                for window in ("1h", "1d", "7d")
            ),
            Query(platform("chutes_miner_active_instances", "hotkey"), data=KEYED),
            Query(platform("chutes_miner_active_compute_multiplier", "hotkey"), data=KEYED),
            Query(f"time() - {platform('chutes_miner_last_activation_timestamp_seconds', 'hotkey')}", data=KEYED),
            Query(platform("chutes_miner_window_bounties", "hotkey", window="1d")),
            Query(platform("chutes_miner_blacklisted", "hotkey")),
        ],
        [
            Column("A", "Rank", "none", width=65),
            Column("hotkey", "Miner"),
            Column("B", "Score share", "percentunit", width=100),
            Column("D", "Incentive", "percentunit", width=90),
            Column("E", "By incentive", "none", width=105),
            Column("F", "Units, 1 h", "short", width=90),
            Column("G", "Units, 1 day", "short", width=100),
            Column("H", "Units, 7 days", "short", width=105),
            Column("I", "Instances", "none", width=90),
            Column("J", "Units a second", "none", width=115),
            Column("K", "Last start", "s", width=95),
            Column("L", "With bounty, 1 day", "none", width=135),
            Column("M", "Blacklist", states=BLACKLISTED, width=95),
            Column("uid", "UID", "none", width=60),
            Column("coldkey", "Coldkey", width=160),
        ],
        empty="No miner known: the API has not answered, or the exporter is down",
        sort=("Rank", False),
        size=(24, 14),
    ),
    lines(
        "Score share of the best ten",
        "The ten greatest shares. A line that jumps is a miner that brought, or lost, many GPUs.",
        [Query(top_ten_at_end(SHARE, "hotkey"), "{{hotkey}}")],
        unit="percentunit",
        size=(24, 8),
    ),
    lines(
        "Concentration",
        "The share of the best ten, and the Herfindahl index (the sum of the squared shares: 1 is a monopoly). When it "
        "rises, fewer miners share the scores.",
        [
            Query('max(subnet:chutes_miner_score_ratio:top10{job=~"$job|"})', "best ten"),
            Query('max(subnet:chutes_miner_score_ratio:herfindahl{job=~"$job|"})', "Herfindahl index"),
        ],
        unit="percentunit",
        empty="Not recorded: it needs an exporter with --miners all, and the recording rules of prometheus/rules/",
    ),
    lines(
        "Work of all miners in the past hour",
        "Compute units and compute seconds of all counting instances in the past hour. A miner's share falls when "
        "these grow without it.",
        [
            Query(platform("chutes_platform_window_compute_units", window="1h"), "compute units"),
            Query(platform("chutes_platform_window_compute_seconds", window="1h"), "compute seconds"),
        ],
        unit="short",
    ),
    lines(
        "Instances and bounties of all miners",
        "Counting instances of all miners in the past hour, and those of them that were activated with a bounty. Many "
        "bounties are many chutes that had no instance before.",
        [
            Query(platform("chutes_platform_window_instances", window="1h"), "instances"),
            Query(platform("chutes_platform_window_bounties", window="1h"), "with a bounty"),
        ],
        unit="none",
    ),
    lines(
        "The watched among all",
        "The watched miners' part of the compute units that all active instances earn in a second, and of the active "
        "instances.",
        [
            Query(
                f"sum({miner('chutes_miner_active_compute_multiplier')})"
                f" / on () ({platform('chutes_platform_active_compute_multiplier')} > 0)",
                "units a second",
                KEYED,
            ),
            Query(
                f"sum({miner('chutes_miner_active_instances')})"
                f" / on () ({platform('chutes_platform_active_instances')} > 0)",
                "active instances",
                KEYED,
            ),
        ],
        unit="percentunit",
        empty="Nothing known: the exporter has no key, or the API has not answered",
    ),
)

SUBNET.row(
    "Which miners came, and which left?",
    rows(
        "Newcomers",
        "Seats that a day ago were free, or somebody else's. Many of them mean that the seats with the lowest "
        "incentive change hands.",
        [
            Query(
                f"{SEATS} unless on (hotkey) {BEFORE}\n"
                f"and on () count({BEFORE}) == on () max(chutes_metagraph_miners{{{JOB}}} offset 1d)",
                data=SICK,
            ),
        ],
        [Column("hotkey", "Miner"), Column("uid", "UID", "none", width=70), Column("coldkey", "Coldkey")],
        empty="Nobody new within a day, or not everybody was exported the day before",
        sort=("UID", False),
        size=(12, 8),
    ),
    rows(
        "Deregistered",
        "Miners that had a seat a day ago and have none now. They have no score, and the API refuses their signatures.",
        [
            Query(
                f"{BEFORE} unless on (hotkey) {SEATS}\n"
                f"and on () count({SEATS}) == on () {platform('chutes_metagraph_miners')}",
                data=SICK,
            ),
        ],
        [Column("hotkey", "Miner"), Column("uid", "UID", "none", width=70), Column("coldkey", "Coldkey")],
        empty="Nobody gone within a day, or not everybody was exported the day before",
        sort=("UID", False),
        size=(12, 8),
    ),
    rows(
        "Blacklisted",
        "Miners that are blacklisted, and why. If a watched one is among them, ask the operators of the platform.",
        [Query(platform("chutes_miner_blacklist_info", "hotkey", "reason"))],
        [Column("hotkey", "Miner"), Column("reason", "Reason")],
        empty="Nobody whom the exporter tells of is blacklisted, if the tile above has a number",
        sort=("Miner", False),
        size=(12, 8),
    ),
    rows(
        "Stake and registration",
        "The stake on each hotkey, as the chain has it, and how long ago the seat was first seen, as far as the "
        "service's table is old enough. Seats are safe for a time after registration.",
        [
            Query(platform("chutes_miner_stake", "hotkey")),
            Query(platform("chutes_miner_stake_tao", "hotkey")),
            Query(platform("chutes_miner_stake_alpha", "hotkey")),
            Query(f"time() - {platform('chutes_miner_registered_timestamp_seconds', 'hotkey')}"),
            Query(platform("chutes_miner_consensus_ratio", "hotkey")),
        ],
        [
            Column("hotkey", "Miner"),
            Column("A", "Stake", "short", width=90),
            Column("B", "TAO", "short", width=80),
            Column("C", "Alpha", "short", width=90),
            Column("D", "Seat age", "s", width=100),
            Column("E", "Consensus", "percentunit", width=95),
        ],
        empty="No miner known: the API has not answered, or the exporter is down",
        sort=("Stake", True),
        size=(12, 8),
    ),
)
