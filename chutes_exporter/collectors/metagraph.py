"""Seats on the subnet: registration, blacklist, incentive, stake."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from msgspec import UNSET

from chutes_exporter.api.meaning import consensus_ratio, incentive_shares
from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.collectors.scores import ranks
from chutes_exporter.feeds.table import METAGRAPH

if TYPE_CHECKING:
    from chutes_exporter.api.records import MetagraphNode

METRICS = Metrics("GET /miner/metagraph", ("hotkey",))

REGISTERED = METRICS.declare(
    "chutes_miner_registered",
    "Whether the miner has a seat on the subnet (1).",
    "hotkey",
)
BLACKLISTED = METRICS.declare(
    "chutes_miner_blacklisted",
    "Whether the miner is blacklisted (1). A blacklisted miner cannot launch and has no score.",
    "blacklist_reason",
)
INFO = METRICS.declare(
    "chutes_miner_info",
    "The miner's cold key and UID on the subnet.",
    "coldkey, node_id",
    labels=("hotkey", "coldkey", "uid"),
)
BLACKLIST_INFO = METRICS.declare(
    "chutes_miner_blacklist_info",
    "Why the miner is blacklisted. Only for blacklisted miners.",
    "blacklist_reason",
    labels=("hotkey", "reason"),
)
INCENTIVE = METRICS.declare(
    "chutes_miner_incentive_ratio",
    "The miner's share of the incentive of all seats, 0 to 1. It follows the score after 1 to 3 hours, because weights "
    "are set once an hour and the chain applies them at its next epoch.",
    "incentive, divided by the sum over all seats",
)
INCENTIVE_RANK = METRICS.declare(
    "chutes_miner_incentive_rank",
    "The miner's rank by incentive among all seats, 1 for the highest. Equal incentives have equal ranks.",
    "the order of incentive",
    stability="experimental",
)
SEATS_BEHIND = METRICS.declare(
    "chutes_miner_seats_behind",
    "Seats with a lower incentive than the miner's. With fewer of them, a newcomer takes this seat sooner. Validators "
    "count too, because they have no incentive and the API does not mark them. A new seat is protected for some time. "
    "Absent for a seat without incentive, because the order of these seats is unknown.",
    "the order of incentive",
    stability="experimental",
)
CONSENSUS = METRICS.declare(
    "chutes_miner_consensus_ratio",
    "The chain's consensus about the miner, 0 to 1. It is close to the incentive but has another scale. Validators "
    "have 0.",
    "vtrust, which holds the consensus, divided by 65535",
)
STAKE = METRICS.declare(
    "chutes_miner_stake",
    "Total stake on the hotkey, TAO and alpha together, in whole tokens.",
    "stake",
)
STAKE_TAO = METRICS.declare("chutes_miner_stake_tao", "TAO staked on the hotkey.", "tao_stake")
STAKE_ALPHA = METRICS.declare(
    "chutes_miner_stake_alpha",
    "Alpha, the subnet's token, staked on the hotkey.",
    "alpha_stake",
)
REGISTERED_AT = METRICS.declare(
    "chutes_miner_registered_timestamp_seconds",
    "When the service first saw the miner in its seat. This is the registration time, unless the seat is older than "
    "the service's table.",
    "synced_at, which is set once",
)
MINERS = METRICS.declare("chutes_metagraph_miners", "Seats taken on the subnet.", labels=())
BLACKLISTED_MINERS = METRICS.declare(
    "chutes_metagraph_blacklisted_miners",
    "Seats of the subnet that are blacklisted.",
    "blacklist_reason",
    labels=(),
)


def _collect(answers: Answers, scope: Scope, out: Samples) -> None:
    nodes = distinct(answers[METAGRAPH], lambda node: node.hotkey, out)
    exported = [node for node in nodes if scope.exports(node.hotkey, active=bool(node.incentive))]
    for node in exported:
        _add_seat(node, out)
    if not answers.complete():
        return
    for hotkey in sorted(scope.watched - {node.hotkey for node in nodes}):
        out.add(REGISTERED, 0, hotkey)
    _add_incentives(nodes, exported, out)
    out.add(MINERS, len(nodes))
    if all(node.blacklist_reason is not UNSET for node in nodes):
        out.add(BLACKLISTED_MINERS, sum(1 for node in nodes if node.blacklist_reason))


def _add_incentives(nodes: list[MetagraphNode], exported: list[MetagraphNode], out: Samples) -> None:
    shares = incentive_shares(nodes)
    ascending = sorted(shares.values())
    rank = ranks(shares)
    for hotkey in (node.hotkey for node in exported if node.hotkey in shares):
        out.add(INCENTIVE, shares[hotkey], hotkey)
        out.add(INCENTIVE_RANK, rank[hotkey], hotkey)
        behind = bisect.bisect_left(ascending, shares[hotkey])
        out.add(SEATS_BEHIND, behind if shares[hotkey] else None, hotkey)


def _add_seat(node: MetagraphNode, out: Samples) -> None:
    hotkey = node.hotkey
    out.add(REGISTERED, 1, hotkey)
    if node.blacklist_reason is not UNSET:
        out.add(BLACKLISTED, bool(node.blacklist_reason), hotkey)
    out.add(INFO, 1, hotkey, node.coldkey, node.node_id)
    if node.blacklist_reason:
        out.add(BLACKLIST_INFO, 1, hotkey, node.blacklist_reason)
    out.add(CONSENSUS, consensus_ratio(node), hotkey)
    out.add(STAKE, node.stake, hotkey)
    out.add(STAKE_TAO, node.tao_stake, hotkey)
    out.add(STAKE_ALPHA, node.alpha_stake, hotkey)
    out.add(REGISTERED_AT, node.registered_at, hotkey)


COLLECTOR = Collector(
    name="metagraph",
    summary="seats on the subnet: registration, blacklist, incentive, stake",
    feeds=(METAGRAPH,),
    metrics=METRICS,
    collect=_collect,
    cost="2, 12 for each miner",
)
