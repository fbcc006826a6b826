"""The forecast of ``advise --with``: what GPUs would earn that a miner does not have."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.collectors import score_heading
from chutes_exporter.collectors.base import Answers
from chutes_exporter.collectors.fleet import fleet_answers
from chutes_exporter.duration import DAY_HOURS
from chutes_exporter.fleet.forecast import Addition, Gain, find_gain
from chutes_exporter.rules.gpus import GPU_MODELS
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Launch

_MAX_GPUS = 64
"""Most GPUs of an addition."""
_ADDITION = re.compile(
    r"(?P<count>[0-9]{1,2})x(?P<model>[a-z0-9_]{1,40})(=(?P<price>[0-9]{1,9}(\.[0-9]{1,2})?))?"
)
"""The number of GPUs, ``x``, their model, and if given ``=`` and the price of all of them in
dollars, with up to 9 digits before the point and 2 after it.
"""


def parse_addition(text: str) -> Addition:
    """Parse GPUs and their price, such as ``8xpro_6000`` or ``8xpro_6000=64000``.

    Raises:
        ValueError: It has another form.
    """
    match = _ADDITION.fullmatch(text)
    if match is None or not 1 <= int(match["count"]) <= _MAX_GPUS:
        raise ValueError(
            f"{text[:60]!r} is not 1 to {_MAX_GPUS}, x and a GPU model: write for example "
            "8xpro_6000, or 8xpro_6000=64000 with the price of all of them in US dollars"
        )
    price_usd = float(match["price"]) if match["price"] else None
    return Addition(int(match["count"]), match["model"], price_usd)


@dataclass(frozen=True)
class Forecast:
    """What additions would earn.

    The shares are those that the score approaches: without the additions, in their first day, and
    later. The more units the additions earn, the less each unit of all miners is worth, and the
    shares include that. Money is for all additions together, and None while a price or a cost that
    it needs is not known.

    Attributes:
        without_cost: Models without a cost, if costs are given. Then the cost is not known.
        without_price: Models without a price.
        pay_back_days: Days after which the later pay, less the cost of the GPUs, has paid the
            price. None if it never does, or if the cost is not known.
    """

    additions: Sequence[Addition]
    gain: Gain
    share_without: float
    share_first_day: float
    share_later: float
    usd_first_day: float | None
    usd_per_day_later: float | None
    cost_usd_per_day: float | None
    price_usd: float | None
    without_cost: Sequence[str]
    without_price: Sequence[str]
    pay_back_days: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the forecast for scripts."""
        launches = []
        for use in self.gain.uses:
            launches += [_launch_as_json(launch, use.model) for launch in use.launches]
        return {
            "gpus": [{"gpu": added.model, "count": added.count} for added in self.additions],
            "launches": launches,
            "idle_gpus": self.gain.idle_gpus,
            "score_share_without": self.share_without,
            "score_share_first_day": self.share_first_day,
            "score_share_later": self.share_later,
            "usd_first_day": self.usd_first_day,
            "usd_per_day_later": self.usd_per_day_later,
            "cost_usd_per_day": self.cost_usd_per_day,
            "price_usd": self.price_usd,
            "pay_back_days": self.pay_back_days,
        }


def _launch_as_json(launch: Launch, model: str) -> dict[str, Any]:
    """Return a launch on additional GPUs.

    Both rates of pay are those of one GPU, and ``gpus`` are those of one instance.
    """
    offer = launch.offer
    return {
        "gpu": model,
        "chute_id": offer.chute_id,
        "name": offer.public_name,
        "gpus": offer.size,
        "instances": launch.instances,
        "first_day_units_per_gpu_second": offer.first_day_units_per_gpu_second,
        "later_units_per_gpu_second": offer.later_units_per_second / offer.size,
    }


def forecast(
    report: Report, hotkey: str, additions: Sequence[Addition], settings: Settings
) -> Forecast | None:
    """Predict what additions would earn.

    None if an answer is missing or incomplete, or a number is too large.

    Raises:
        UsageError: A model is not in GPU_MODELS, and the service has no rate for it.
    """
    answers = report.answers(hotkey)
    answers_of_fleet = fleet_answers(answers, hotkey)
    _refuse_unknown_models(additions, {*GPU_MODELS, *answers_of_fleet.rates})
    gain = find_gain(answers_of_fleet, additions)
    if gain is None:
        return None
    shares = _shares(answers, hotkey, gain)
    if shares is None:
        return None
    # The chain pays the miners of the subnet by their shares.
    alpha_per_day = report.value("chutes_subnet_emission_alpha_per_day")
    usd_first_day = report.usd(product(shares.first_day - shares.without, alpha_per_day))
    usd_per_day_later = report.usd(product(shares.later - shares.without, alpha_per_day))

    prices = [added.price_usd for added in additions]
    costs_per_day = [_cost_usd_per_day(added, settings) for added in additions]
    price, cost_per_day = total(prices), total(costs_per_day)
    # Without any --gpu.cost, costs are no part of the question. With any, each model needs one.
    without_cost = _models_without(costs_per_day, additions) if settings.gpu_costs else []
    pay_back_days = None
    if not without_cost:
        pay_back_days = _pay_back_days(price, usd_per_day_later, cost_per_day)
    return Forecast(
        additions=additions,
        gain=gain,
        share_without=shares.without,
        share_first_day=shares.first_day,
        share_later=shares.later,
        usd_first_day=usd_first_day,
        usd_per_day_later=usd_per_day_later,
        cost_usd_per_day=cost_per_day,
        price_usd=price,
        without_cost=without_cost,
        without_price=_models_without(prices, additions),
        pay_back_days=pay_back_days,
    )


def _cost_usd_per_day(added: Addition, settings: Settings) -> float | None:
    """Return what added GPUs cost, None without a --gpu.cost of their model."""
    return product(added.count, settings.gpu_costs.get(added.model), DAY_HOURS)


def _refuse_unknown_models(additions: Iterable[Addition], known: set[str]) -> None:
    for addition in additions:
        if addition.model not in known:
            raise click.UsageError(
                f"--with has an unknown GPU model: {addition.model}. Known are "
                f"{', '.join(sorted(known))}"
            )


def _models_without(values: Sequence[float | None], additions: Sequence[Addition]) -> list[str]:
    """Return the models of additions whose value is None. Each addition has a value."""
    pairs = zip(values, additions, strict=True)
    return [added.model for value, added in pairs if value is None]


@dataclass(frozen=True)
class _Shares:
    """The shares that the score approaches without additions, in their first day, and later."""

    without: float
    first_day: float
    later: float


def _shares(answers: Mapping[str, Answer[Any]], hotkey: str, gain: Gain) -> _Shares | None:
    """Return the shares of a miner, None if a number is unknown or too large.

    ``answers`` has all miners and all active instances: without one of these answers, find_gain
    would have returned no gain.
    """
    # What each miner earns, in compute units per second.
    earned_rates = score_heading.earned_rates(Answers(answers), frozenset({hotkey}))
    total_rate = None if earned_rates is None else total(earned_rates.values())
    first, later = gain.first_units_per_second, gain.later_units_per_second
    if earned_rates is None or total_rate is None or not math.isfinite(total_rate + first + later):
        return None
    # A miner without a seat, or on the blacklist, has no rate.
    rate = earned_rates.get(hotkey, 0.0)
    # The gain makes the sum of all miners larger, too.
    return _Shares(
        without=_share(rate, total_rate),
        first_day=_share(rate + first, total_rate + first),
        later=_share(rate + later, total_rate + later),
    )


def _share(rate: float, total_rate: float) -> float:
    return rate / total_rate if total_rate > 0 else 0.0


def _pay_back_days(
    price: float | None, usd_per_day: float | None, cost_per_day: float | None
) -> float | None:
    """Return after how many days GPUs have earned their price and running cost, None if they never
    do, or if the price or the pay is unknown. The cost is None if the user gave no costs, and then
    counts as 0.
    """
    if price is None or usd_per_day is None:
        return None
    profit_per_day = usd_per_day - (cost_per_day or 0.0)
    return price / profit_per_day if profit_per_day > 0 else None
