"""Rules about money: what instances earn, what GPUs cost, and what a miner is paid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chutes_exporter.duration import DAY, DAY_HOURS, HOUR
from chutes_exporter.rules.launch import allowed_models, gpus_of_instance
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import Bounty, Chute

_FIRST_HOURS: Final = 4.6
"""For how many hours an instance would have to keep its first pay, before it gets the later one, to
earn the same in its first day as it does while its pay fades.

It stays for 2 hours. Then each run of the autoscaler, every 15 minutes, takes away a part of the
difference that is left: the square of a sixth of the hours since then.
"""


# Instances


def first_units_per_second(chute: Chute, model: str, rates: Mapping[str, float]) -> float | None:
    """Return the compute units per second of an instance of a chute that starts on a model now.

    The service sends the value of the cheapest GPU that the chute allows. A more expensive GPU
    earns more, in proportion to its hourly rate. The result is None if the chute does not allow the
    model, or if it is unknown.

    ``rates`` are in USD per hour, by model. A chute that allows only one model needs none.
    """
    models = set(allowed_models(chute) or ())
    multiplier = chute.effective_compute_multiplier
    if model not in models or multiplier is None or gpus_of_instance(chute) is None:
        return None
    if models == {model}:
        return multiplier
    if not models <= rates.keys():
        return None
    return multiplier * rates[model] / min(rates[allowed_model] for allowed_model in models)


def later_units_per_second(
    chute: Chute | None, model: str | None, rates: Mapping[str, float]
) -> float | None:
    """Return the compute units per second that an instance of a chute on a model earns for certain
    from 8 hours after its activation on.

    It is without the factors of a bounty and of the urgency, which the service sets anew at each
    run of its autoscaler: while they last, they come on top.

    ``rates`` are in USD per hour, by model. None is unknown.
    """
    if not chute or not model or chute.public is None:
        return None
    if chute.public:
        # The service moves a public instance to the pay of the cheapest GPU that its chute allows.
        multiplier = chute.effective_compute_multiplier
    else:
        # A private instance keeps the pay of the GPU on which it runs.
        multiplier = first_units_per_second(chute, model, rates)
    for name in ("bounty_boost", "urgency_boost"):
        boost = _factor(chute, name)
        if multiplier is None or boost is None:
            return None
        multiplier /= boost
    return multiplier


def first_day_units(first: float, later: float) -> float:
    """Return the compute units that an instance earns in its first day.

    Its pay per second moves from the first to the later one.
    """
    return later * DAY + (first - later) * _FIRST_HOURS * HOUR


def urgency_boost(chute: Chute) -> float:
    """Return the factor by which the service raises the pay of a chute while it wants more
    instances, 1 without one. The factors of the chute must be known.
    """
    return _factor(chute, "urgency_boost") or 1.0


def _factor(chute: Chute, name: str) -> float | None:
    """Return a factor of a chute's multiplier, 1 without it, and None if it is unknown."""
    if chute.compute_multiplier_factors is None:
        return None
    factor = chute.compute_multiplier_factors.get(name, 1.0)
    # A factor of 0 or below makes no sense.
    return factor if factor and factor > 0 else None


def bounty_boost(bounty: Bounty | None) -> float | None:
    """Return the factor by which a bounty raises the multiplier of the instance that is activated
    first, None if it is unknown, or there is no bounty.

    It grows in a straight line from 1.1 for a new bounty to 1.5 for one of 3 hours, and stays
    there.
    """
    if bounty is None or bounty.seconds_elapsed is None:
        return None
    growth_ratio = min(max(bounty.seconds_elapsed / (3 * HOUR), 0.0), 1.0)
    return 1.1 + growth_ratio * (1.5 - 1.1)


def bounty_expires_at(bounty: Bounty | None) -> float | None:
    """Return the Unix time at which a bounty expires, correct to 2 seconds. None if it is unknown,
    or there is no bounty.

    The service sends the age of the bounty, and how many seconds are left at that age. It sends 0
    seconds if it does not know how many are left.
    """
    if bounty is None or not bounty.time_remaining:
        return None
    return total([bounty.created_at, bounty.seconds_elapsed, bounty.time_remaining])


# Costs


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
        if self.by_server and not server:
            # The server may have a price of its own.
            return None
        return self.by_server.get(server or "", self.by_model.get(model or ""))


# Miners


def tokens(rao: float) -> float:
    """Return an amount of TAO or alpha from one in rao."""
    return rao / 1e9


def in_usd(rao: float | None, *prices: float | None) -> float | None:
    """Return the value of an amount in rao, in US dollars. None if it or a price is unknown.

    The prices lead from TAO or alpha to US dollars, and are multiplied.
    """
    if rao is None:
        return None
    return product(tokens(rao), *prices)


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
    return total([pay_per_day, product(-DAY_HOURS, cost_per_hour)])
