"""Seats on the subnet: who is registered, blacklisted, and with what stake and incentive."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.scores import places
from chutes_exporter.metric import Metric, Samples, info
from chutes_exporter.sources import METAGRAPH

if TYPE_CHECKING:
    from chutes_exporter.api.records import MetagraphNode

_SOURCE = "GET /miner/metagraph"
_MINER = ("hotkey",)

REGISTERED = Metric(
    "chutes_miner_registered",
    "Whether the miner has a seat on the subnet (1) or not, never had or was deregistered (0).",
    _MINER,
    f"{_SOURCE}: hotkey",
)
BLACKLISTED = Metric(
    "chutes_miner_blacklisted",
    "Whether the miner is blacklisted (1), which means that it earns nothing.",
    _MINER,
    f"{_SOURCE}: blacklist_reason",
)
INFO = info(
    "chutes_miner_info",
    "The miner's cold key and UID on the subnet.",
    ("hotkey", "coldkey", "uid"),
    f"{_SOURCE}: coldkey, node_id",
)
BLACKLIST_INFO = info(
    "chutes_miner_blacklist_info",
    "Why the miner is blacklisted; only for miners that are.",
    ("hotkey", "reason"),
    f"{_SOURCE}: blacklist_reason",
)
INCENTIVE = Metric(
    "chutes_miner_incentive_ratio",
    "The miner's share of the subnet's emission to miners.",
    _MINER,
    f"{_SOURCE}: incentive",
)
INCENTIVE_RANK = Metric(
    "chutes_miner_incentive_rank",
    "The miner's place by incentive among all seats, 1 being the best; equal incentives have equal places.",
    _MINER,
    f"{_SOURCE}: the order of incentive",
    stability="experimental",
)
SEATS_BEHIND = Metric(
    "chutes_miner_seats_behind",
    "Seats with a lower incentive than the miner's, without those that validate. At 0 nobody is worse: where no seat "
    "is free, a newcomer may take this one. Seats are safe for a time after registration; the API does not say which.",
    _MINER,
    f"{_SOURCE}: the order of incentive, vtrust",
    stability="experimental",
)
TRUST = Metric(
    "chutes_miner_trust_ratio",
    "Trust as the chain counts it: how far validators agree about the miner, 0 to 1.",
    _MINER,
    f"{_SOURCE}: trust",
)
VALIDATOR_TRUST = Metric(
    "chutes_miner_validator_trust_ratio",
    "The seat's validator trust; 0 for seats that do not validate.",
    _MINER,
    f"{_SOURCE}: vtrust",
)
STAKE = Metric(
    "chutes_miner_stake",
    "Stake weight behind the seat as the chain counts it, TAO and alpha together, in its own unit.",
    _MINER,
    f"{_SOURCE}: stake",
)
STAKE_TAO = Metric("chutes_miner_stake_tao", "Stake behind the seat, in TAO.", _MINER, f"{_SOURCE}: tao_stake")
STAKE_ALPHA = Metric(
    "chutes_miner_stake_alpha",
    "Stake behind the seat, in the subnet's own token (alpha).",
    _MINER,
    f"{_SOURCE}: alpha_stake",
)
LAST_UPDATE = Metric(
    "chutes_miner_last_update_block",
    "Number of the block in which the seat was last updated.",
    _MINER,
    f"{_SOURCE}: last_updated",
)
MINERS = Metric("chutes_metagraph_miners", "Seats taken on the subnet.", (), _SOURCE)
BLACKLISTED_MINERS = Metric(
    "chutes_metagraph_blacklisted_miners",
    "Seats of the subnet that are blacklisted.",
    (),
    f"{_SOURCE}: blacklist_reason",
)
SYNCED = Metric(
    "chutes_metagraph_synced_timestamp_seconds",
    "When the service last read the metagraph from the chain.",
    (),
    f"{_SOURCE}: the newest synced_at",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Translate the metagraph."""
    nodes = distinct(answers[METAGRAPH], lambda node: node.hotkey, out)
    for node in nodes:
        if scope.exports(node.hotkey, active=bool(node.incentive)):
            _seat(node, out)
    out.add(SYNCED, max((node.synced_at for node in nodes if node.synced_at is not None), default=None))
    if not answers.complete():
        return
    for hotkey in sorted(scope.watched - {node.hotkey for node in nodes}):
        out.add(REGISTERED, 0, hotkey)
    # Who validates has no incentive, and does not lose the seat for that.
    ladder = sorted(node.incentive for node in nodes if node.incentive is not None and not node.vtrust)
    ranks = places({node.hotkey: node.incentive for node in nodes})
    for node in nodes:
        if scope.exports(node.hotkey, active=bool(node.incentive)):
            out.add(INCENTIVE_RANK, ranks.get(node.hotkey), node.hotkey)
            if node.incentive is not None:
                out.add(SEATS_BEHIND, bisect.bisect_left(ladder, node.incentive), node.hotkey)
    out.add(MINERS, len(nodes))
    out.add(BLACKLISTED_MINERS, sum(1 for node in nodes if node.blacklist_reason))


def _seat(node: MetagraphNode, out: Samples) -> None:
    hotkey = node.hotkey
    out.add(REGISTERED, 1, hotkey)
    out.add(BLACKLISTED, bool(node.blacklist_reason), hotkey)
    out.add(INFO, 1, hotkey, node.coldkey, node.node_id)
    if node.blacklist_reason:
        out.add(BLACKLIST_INFO, 1, hotkey, node.blacklist_reason)
    out.add(INCENTIVE, node.incentive, hotkey)
    out.add(TRUST, node.trust, hotkey)
    out.add(VALIDATOR_TRUST, node.vtrust, hotkey)
    out.add(STAKE, node.stake, hotkey)
    out.add(STAKE_TAO, node.tao_stake, hotkey)
    out.add(STAKE_ALPHA, node.alpha_stake, hotkey)
    out.add(LAST_UPDATE, node.last_updated, hotkey)


COLLECTOR = Collector(
    name="metagraph",
    summary="seats on the subnet: registration, blacklist, incentive, stake",
    sources=(METAGRAPH,),
    metrics=(
        REGISTERED,
        BLACKLISTED,
        INFO,
        BLACKLIST_INFO,
        INCENTIVE,
        INCENTIVE_RANK,
        SEATS_BEHIND,
        TRUST,
        VALIDATOR_TRUST,
        STAKE,
        STAKE_TAO,
        STAKE_ALPHA,
        LAST_UPDATE,
        MINERS,
        BLACKLISTED_MINERS,
        SYNCED,
    ),
    collect=collect,
    cost=Cost(fixed=3, miner=13),
)
