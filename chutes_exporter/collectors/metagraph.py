"""Seats on the subnet: registration, blacklist, incentive, stake."""

from __future__ import annotations

from chutes_exporter.api.records import MetagraphNode
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.scores import ranks
from chutes_exporter.collectors.table import Info, Row, Table, Total
from chutes_exporter.feeds.definitions import METAGRAPH
from chutes_exporter.rules.score import consensus_ratio, incentive_shares, is_blacklisted

SEAT = Table[MetagraphNode](
    METAGRAPH,
    key="hotkey",
    miner="hotkey",
    chutes_miner_registered=Row(
        "Whether the miner has a seat on the subnet (1).", lambda _: 1, missing=0
    ),
    chutes_miner_blacklisted=Row(
        "Whether the miner is blacklisted (1). A blacklisted miner cannot launch and has no score.",
        is_blacklisted,
    ),
    chutes_miner_info=Info(
        "The miner's cold key and UID on the subnet.", {"coldkey": "coldkey", "uid": "node_id"}
    ),
    chutes_miner_blacklist_info=Info(
        "Why the miner is blacklisted. Only for blacklisted miners.",
        {"reason": "blacklist_reason"},
        only="blacklist_reason",
    ),
    chutes_miner_consensus_ratio=Row(
        "The chain's consensus about the miner, 0 to 1. It is close to the incentive but has "
        "another scale. "
        "Validators have 0.",
        consensus_ratio,
    ),
    chutes_miner_stake=Row(
        "Total stake on the hotkey, TAO and alpha together, in whole tokens.", "stake"
    ),
    chutes_miner_stake_tao=Row("TAO staked on the hotkey.", "tao_stake"),
    chutes_miner_stake_alpha=Row("Alpha, the subnet's token, staked on the hotkey.", "alpha_stake"),
    chutes_miner_registered_timestamp_seconds=Row(
        "When the service first saw the miner in its seat. This is the registration time, unless "
        "the seat is older "
        "than the service's table.",
        lambda seat: seat.registered_at,
    ),
    chutes_miner_incentive_ratio=Total(
        "The miner's share of the incentive of all seats, 0 to 1. It follows the score after 1 to "
        "3 hours, because "
        "weights are set once an hour and the chain applies them at its next epoch.",
        incentive_shares,
        label="hotkey",
    ),
    chutes_miner_incentive_rank=Total(
        "The miner's rank by incentive among all seats, 1 for the highest. Equal incentives "
        "have equal ranks.",
        lambda nodes: ranks(incentive_shares(nodes)),
        stability="experimental",
        label="hotkey",
    ),
    chutes_metagraph_miners=Total("Seats taken on the subnet.", len),
    chutes_metagraph_blacklisted_miners=Total(
        "Seats of the subnet that are blacklisted.", sum, of=is_blacklisted
    ),
)

COLLECTOR = Collector(
    "metagraph", "seats on the subnet: registration, blacklist, incentive, stake", (SEAT,)
)
