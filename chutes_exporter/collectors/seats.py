"""The seats of the subnet: as the service lists them, and as the chain pays them."""

from __future__ import annotations

from chutes_exporter.api.records import MarketValue, MetagraphNode
from chutes_exporter.chain.subnet import Seat, Subnet
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.scores import ranks
from chutes_exporter.collectors.table import Info, Row, Table, Total
from chutes_exporter.feeds.definitions import CHAIN, FMV, METAGRAPH
from chutes_exporter.rules.money import tokens
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
        "Why the miner is blacklisted. Only for blacklisted miners.", {"reason": "blacklist_reason"}
    ),
    chutes_miner_consensus_ratio=Row(
        "The chain's consensus about the miner, 0 to 1. It is close to the incentive but has "
        "another scale. Validators have 0.",
        consensus_ratio,
    ),
    chutes_miner_stake=Row(
        "Total stake on the hotkey, TAO and alpha together, in whole tokens.", "stake"
    ),
    chutes_miner_stake_tao=Row("TAO staked on the hotkey.", "tao_stake"),
    chutes_miner_stake_alpha=Row("Alpha, the subnet's token, staked on the hotkey.", "alpha_stake"),
    chutes_miner_registered_timestamp_seconds=Row(
        "When the service first saw the miner in its seat. This is the registration time, unless "
        "the seat is older than the service's table.",
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
        lambda seats: ranks(incentive_shares(seats)),
        stability="experimental",
        label="hotkey",
    ),
    chutes_metagraph_miners=Total("Seats taken on the subnet.", len),
    chutes_metagraph_blacklisted_miners=Total(
        "Seats of the subnet that are blacklisted.", sum, of=is_blacklisted
    ),
)

METAGRAPH_COLLECTOR = Collector(
    "metagraph", "seats on the subnet: registration, blacklist, incentive, stake", (SEAT,)
)


CHAIN_SEAT = Table[Seat](
    CHAIN,
    key="hotkey",
    miner="hotkey",
    records=lambda subnet: subnet.seats,
    chutes_miner_registrations_before_loss=Row(
        "Registrations before the one that takes the miner's seat, if nothing else changes. With "
        "0, the next one takes it. Absent while no registration can take it.",
        "registrations_before_loss",
    ),
    chutes_miner_seat_immune=Row(
        "Whether the seat is new and therefore immune (1). Immune seats are lost after all "
        "others that can be lost.",
        lambda seat: seat.immune_until is not None,
    ),
    chutes_miner_immunity_end_timestamp_seconds=Row(
        "When the immunity of the miner's seat ends, at 12 seconds a block. Absent without "
        "immunity.",
        "immune_until",
    ),
    chutes_miner_emission_alpha_per_day=Row(
        "Alpha that the miner is paid per day: its share of the incentive, times what the chain "
        "sets aside for miners at the present pace, without what is withheld.",
        "alpha_per_day",
        convert=tokens,
    ),
)

SUBNET = Table[Subnet](
    CHAIN,
    records=lambda subnet: [subnet],
    chutes_chain_block=Row(
        "The finalized block that the metrics of the chain are about.", "state.block"
    ),
    chutes_chain_info=Info("The version of the chain's runtime.", {"spec_version": "spec_version"}),
    chutes_subnet_emission_alpha_per_day=Row(
        "Alpha paid to all miners per day.", "alpha_per_day", convert=tokens
    ),
    chutes_subnet_miners_emission_ratio=Row(
        "The miners' part of the alpha that the subnet emits, on average since the last epoch. "
        "The subnet's owner sets it. The rest is for the owner, validators and their stakers.",
        "miners_emission_ratio",
    ),
    chutes_subnet_alpha_price_tao=Row(
        "Price of one alpha, the subnet's token, in TAO.", "price", convert=tokens
    ),
    chutes_subnet_registration_cost_tao=Row(
        "Price of a registration in TAO.", "state.registration_cost", convert=tokens
    ),
    chutes_subnet_registration_open=Row(
        "Whether somebody can register on the subnet (1).", "state.registration_open"
    ),
    chutes_subnet_free_seats=Row(
        "Seats that a registration takes before it replaces one.", "state.free_seats"
    ),
    chutes_subnet_window_registrations=Row(
        "Seats that were registered in the past 7200 blocks, about a day. The number of "
        "registrations is at least this, because a seat that was replaced twice counts once.",
        {"1d": "registrations_of_day"},
        by="window",
    ),
)

TAO = Table[MarketValue](
    FMV, records=lambda it: [it], chutes_tao_price_usd=Row("Price of TAO in US dollars.", "tao")
)

CHAIN_COLLECTOR = Collector(
    "chain",
    "seats and pay by the chain: loss of the seat, emission, prices",
    (CHAIN_SEAT, SUBNET, TAO),
)
