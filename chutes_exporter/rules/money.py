"""Rules about money: what GPUs cost, and what their miner earns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import Node, Server

_HOURS_PER_DAY: Final = 24
_RAO: Final = 1e9
"""Rao in one TAO or one alpha."""


@dataclass(frozen=True)
class Costs:
    """Prices that a miner pays for a GPU, in US dollars per hour.

    Attributes:
        by_model: The price of a GPU of a model, unless its server has one.
        by_server: The price of each GPU of a server, by the server's name.
    """

    by_model: Mapping[str, float] = field(default_factory=dict)
    by_server: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.by_model or self.by_server)

    def of_gpu(self, server: str | None, model: str | None) -> float | None:
        """Return the price of a GPU on a server with this name, None if it is unknown."""
        if self.by_server:
            if not server:
                # The server may have a price of its own.
                return None
            if server in self.by_server:
                return self.by_server[server]
        return self.by_model.get(model or "")


@dataclass(frozen=True)
class ServerCost:
    """The price of a GPU of a model on a server, in US dollars per hour."""

    server_id: str
    server: str
    gpu: str
    usd_per_gpu_hour: float


def server_costs(servers: list[Server], costs: Costs) -> list[ServerCost]:
    """Return the known prices of the GPUs on each server with a name, one for each model.

    The name is a label of the price, so a server without a known one is left out.
    """
    known_costs = []
    for server in servers:
        if not server.name:
            continue
        models = {gpu.gpu_identifier for gpu in server.gpus or () if gpu.gpu_identifier}
        for model in sorted(models):
            usd_per_hour = costs.of_gpu(server.name, model)
            if usd_per_hour is not None:
                known_costs.append(ServerCost(server.server_id, server.name, model, usd_per_hour))
    return known_costs


def fleet_cost(servers: list[Server], nodes: list[Node], costs: Costs) -> float | None:
    """Return what all GPUs of a miner cost in US dollars per hour, None if the price of one is
    unknown.
    """
    if not costs:
        # Nobody gave a price, so a cost of 0 for a miner without GPUs would say nothing.
        return None
    gpus = _listed_gpus(servers, nodes).values()
    return total(costs.of_gpu(gpu.server, gpu.model) for gpu in gpus)


@dataclass(frozen=True)
class _ListedGpu:
    """The name of a GPU's server and its model, as far as they are known."""

    server: str | None
    model: str | None


def _listed_gpus(servers: list[Server], nodes: list[Node]) -> dict[str, _ListedGpu]:
    """Return the GPUs of a miner by id. Both answers list them, and each one counts once.

    If both list a GPU, it is on the server that lists it, and of the model that ``nodes`` has.
    """
    server_names = {server.server_id: server.name for server in servers}
    gpus: dict[str, _ListedGpu] = {}
    for node in nodes:
        server_name = server_names.get(node.server_id or "")
        gpus[node.uuid] = _ListedGpu(server_name, node.gpu_identifier)
    for server in servers:
        for gpu in server.gpus or ():
            model = gpu.gpu_identifier
            if gpu.uuid in gpus:
                model = gpus[gpu.uuid].model or model
            gpus[gpu.uuid] = _ListedGpu(server_names[server.server_id], model)
    return gpus


def in_usd(rao: float | None, *prices: float | None) -> float | None:
    """Return the value of an amount in rao, in US dollars. None if it or a price is unknown.

    The prices lead from TAO or alpha to US dollars, and are multiplied.
    """
    if rao is None:
        return None
    return product(rao / _RAO, *prices)


def compute_unit_usd(pay_per_day: float | None, units_of_day: float | None) -> float | None:
    """Return what all miners together receive for one compute unit, in US dollars.

    ``pay_per_day`` is in US dollars, too. None if it is unknown.
    """
    if not units_of_day:
        return None
    return product(pay_per_day, 1 / units_of_day)


def profit_per_day_usd(pay_per_day: float | None, cost_per_hour: float | None) -> float | None:
    """Return what is left of a day's pay after the cost of all GPUs, None if it is unknown.

    All amounts are in US dollars.
    """
    if cost_per_hour is None:
        return None
    return total([pay_per_day, -_HOURS_PER_DAY * cost_per_hour])
