"""What a miner's GPUs cost, and estimates of what it earns, in US dollars."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Miners, Part, Samples
from chutes_exporter.collectors.fleet import OF_SERVER
from chutes_exporter.duration import DAY
from chutes_exporter.feeds.definitions import (
    CHAIN,
    FMV,
    INSTANCES,
    INVENTORY,
    NODES,
    SERVERS,
    STATS,
)
from chutes_exporter.fleet.answers import first_of_each
from chutes_exporter.rules.money import compute_unit_usd, in_usd, profit_per_day_usd
from chutes_exporter.rules.sums import product, total

_SERVER_COSTS = Part(SERVERS)
SERVER_COST = _SERVER_COSTS.metric(
    "chutes_server_cost_usd_per_gpu_hour",
    "Price that the miner pays per hour for one GPU on the server, whether it is idle or not: "
    "--server.cost, or else --gpu.cost of the model. Absent if it is unknown.",
    ("hotkey", "server_id", "server", "gpu"),
)
_MINER_COST = Part(SERVERS, NODES)
MINER_COST = _MINER_COST.metric(
    "chutes_miner_cost_usd_per_hour",
    "Price that the miner pays per hour for all its GPUs. Absent if the price of one is unknown, "
    "because a part would look like all.",
    ("hotkey",),
    complete=(SERVERS, NODES),
)
_EARNINGS = Part(CHAIN, FMV)
ALPHA_PRICE = _EARNINGS.metric(
    "chutes_alpha_price_usd",
    "Price of one alpha, the subnet's token, in US dollars.",
    complete=(CHAIN, FMV),
)
EARNED = _EARNINGS.metric(
    "chutes_miner_estimated_usd_per_day",
    "Estimate of what the miner earns in a day: its pay by the chain at the present pace and price "
    "(chutes_miner_emission_alpha_per_day).",
    ("hotkey",),
    complete=(CHAIN, FMV),
)
_UNIT = Part(CHAIN, FMV, STATS)
UNIT = _UNIT.metric(
    "chutes_compute_unit_usd",
    "Estimate of the US dollars that all miners together receive for one compute unit: their pay "
    "by the chain for a day, divided by their units of the past day.",
    complete=(CHAIN, FMV, STATS),
)
_PROFIT = Part(CHAIN, FMV, SERVERS, NODES)
PROFIT = _PROFIT.metric(
    "chutes_miner_estimated_profit_usd_per_day",
    "Estimate of what is left of the miner's earnings of a day after the price of all its GPUs. "
    "Below 0 it is a loss.",
    ("hotkey",),
    complete=(CHAIN, FMV, SERVERS, NODES),
)
_SERVER_PROFITS = Part(*(SERVERS, NODES, INVENTORY, INSTANCES), *(CHAIN, FMV, STATS))
SERVER_PROFIT = _SERVER_PROFITS.metric(
    "chutes_server_estimated_profit_usd_per_day",
    "Estimate of a day's earnings of the server's instances at their present compute units per "
    "second, less the price of its GPUs. Absent unless all pay and prices are known.",
    OF_SERVER,
    # Of the others, the fleet says what is known.
    complete=(CHAIN, FMV, STATS),
)


@_SERVER_COSTS.function
def server_costs(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add the price of a GPU of each model on each server."""
    for server in answers.joined.fleet(miners.hotkey).servers:
        for model in sorted({gpu.model for gpu in server.gpus if gpu.model and server.name}):
            usd_per_hour = miners.costs.of_gpu(server.name, model)
            out.add(SERVER_COST, usd_per_hour, miners.hotkey, server.server_id, server.name, model)


@_MINER_COST.function
def miner_cost(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add the price of all GPUs of a miner."""
    out.add(MINER_COST, _cost_per_hour(answers, miners), miners.hotkey)


def _cost_per_hour(answers: Answers, miners: Miners) -> float | None:
    if not miners.costs:
        # Nobody gave a price, so a cost of 0 for a miner without GPUs would say nothing.
        return None
    fleet = answers.joined.fleet(miners.hotkey)
    return total(fleet.price_of(gpu, miners.costs) for gpu in fleet.gpus)


@_EARNINGS.function
def earnings(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add the price of alpha, and what each exported miner earns in a day."""
    alpha_usd = _alpha_price_usd(answers)
    out.add(ALPHA_PRICE, alpha_usd)
    for seat in answers[CHAIN].seats:
        if miners.exports(seat.hotkey):
            out.add(EARNED, in_usd(seat.alpha_per_day, alpha_usd), seat.hotkey)


@_UNIT.function
def compute_unit(answers: Answers, _: Miners, out: Samples) -> None:
    """Add what a compute unit is worth."""
    out.add(UNIT, _unit_usd(answers))


@_PROFIT.function
def profit(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add what is left of the miner's pay of a day after the price of its GPUs."""
    alpha_usd = _alpha_price_usd(answers)
    cost_per_hour = _cost_per_hour(answers, miners)
    for seat in answers[CHAIN].seats:
        if seat.hotkey == miners.hotkey:
            pay_per_day = in_usd(seat.alpha_per_day, alpha_usd)
            out.add(PROFIT, profit_per_day_usd(pay_per_day, cost_per_hour), seat.hotkey)


@_SERVER_PROFITS.function
def server_profits(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add the profit of each server whose name and GPUs are known. Prices are for an hour."""
    unit_usd = _unit_usd(answers)
    fleet = answers.joined.fleet(miners.hotkey)
    for server in fleet.servers:
        # Prices are for GPUs, so that of a server without GPUs is not known. Models of None mean
        # that a GPU may be missing, or be of an unknown model.
        if not server.name or not server.models:
            continue
        pay_per_day = product(server.earned_units_per_second, DAY, unit_usd)
        cost_per_hour = total(miners.costs.of_gpu(server.name, gpu.model) for gpu in server.gpus)
        profit = profit_per_day_usd(pay_per_day, cost_per_hour)
        out.add(SERVER_PROFIT, profit, miners.hotkey, server.server_id, server.name)


def _unit_usd(answers: Answers) -> float | None:
    """Return the US dollars that miners receive for a compute unit, None if they are unknown.

    It is the pay of all miners for a day, divided by their units of the past day.
    """
    pay_per_day = in_usd(answers[CHAIN].alpha_per_day, _alpha_price_usd(answers))
    # A record that is listed twice counts once.
    stats = answers[STATS]
    records = first_of_each(stats, "miner_hotkey", "window").values()
    units_of_day = total(record.compute_units for record in records if record.window == "1d")
    return compute_unit_usd(pay_per_day, units_of_day)


def _alpha_price_usd(answers: Answers) -> float | None:
    return in_usd(answers[CHAIN].price, answers[FMV].tao)


COSTS_COLLECTOR = Collector(
    "costs", "what the miner pays for its GPUs", (_SERVER_COSTS, _MINER_COST)
)
# Commands that need one of the next ones do not ask for what the others need.
EARNINGS_COLLECTOR = Collector(
    "earnings", "estimates of pay in US dollars, and the price of alpha", (_EARNINGS,)
)
COMPUTE_UNIT_COLLECTOR = Collector(
    "compute_unit", "an estimate of what a compute unit is worth", (_UNIT,)
)
PROFIT_COLLECTOR = Collector(
    "profit",
    "an estimate of what is left of the miner's pay after the price of its GPUs",
    (_PROFIT,),
)
SERVER_PROFIT_COLLECTOR = Collector(
    "server_profit",
    "an estimate of what is left of each server's pay after the price of its GPUs",
    (_SERVER_PROFITS,),
)
