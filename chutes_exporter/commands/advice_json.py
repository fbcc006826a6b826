"""The advice for scripts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chutes_exporter.commands.advice import market_of, unused_gpus
from chutes_exporter.commands.terminal import iso_time
from chutes_exporter.duration import DAY
from chutes_exporter.findings import cost
from chutes_exporter.rules.sums import product

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.commands.advice import Advice
    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet, Gpu, Launch, Offer, Use


class Pricing:
    """What compute units are worth, and the time to which advice belongs."""

    def __init__(self, report: Report) -> None:
        self.now = report.now
        self.usd_per_unit = report.value("chutes_compute_unit_usd")

    def usd(self, units: float | None) -> float | None:
        """Return what compute units are worth."""
        return product(units, self.usd_per_unit)

    def usd_a_day(self, units_per_second: float | None) -> float | None:
        """Return what a day with these compute units per second is worth."""
        return product(units_per_second, DAY, self.usd_per_unit)

    def seconds_left(self, offer: Offer) -> float | None:
        """Return the seconds until the bounty of an offer expires."""
        if offer.bounty_expires_at is None:
            return None
        return max(0.0, offer.bounty_expires_at - self.now)


class AdviceJson:
    """Makes JSON of advice."""

    def __init__(self, report: Report, settings: Settings) -> None:
        self._report, self._settings = report, settings
        self._pricing = Pricing(report)

    def miner(self, advice: Advice) -> dict[str, Any]:
        """Return the advice to a miner. What is not known is None."""
        idle, plan, stay_idle = None, None, None
        if advice.is_known:
            idle = [self._model(advice, model) for model in idle_models(advice.fleet)]
        if advice.plan is not None:
            plan = [self._use(advice.fleet, use) for use in advice.plan]
            stay_idle = _stay_idle(advice, advice.plan)
        return {
            "hotkey": advice.fleet.hotkey,
            "idle": idle,
            "plan": plan,
            "plan_left_out": _left_out(advice),
            "missing_hours": _missing_hours(advice),
            "stay_idle": stay_idle,
        }

    def _model(self, advice: Advice, model: str) -> dict[str, Any]:
        """Return the idle GPUs of a model, and the chutes that can run on them."""
        fleet, market = advice.fleet, market_of(advice, model)
        # Without a market, it is not known what can run on them. Scripts see that by left_out,
        # which is None, because an empty list of chutes can also mean that none can run.
        runnable: list[dict[str, Any]] = []
        left_out = None
        if market is not None:
            runnable = [self._offer(advice, offer) for offer in market.offers]
            left_out = dict(market.refused)
        idle = IdleGpus.of(fleet, model)
        return {
            "gpu": model,
            "idle": idle.count,
            "maintenance_pending": idle.maintenance_pending,
            "in_maintenance": idle.in_maintenance,
            "on_one_server": idle.on_one_server,
            "platform": platform_gpus_by_state(self._report, model),
            "cost_usd_per_hour": cost(idle_gpus_of(fleet, model), fleet, self._settings.costs),
            "runnable": runnable,
            "left_out": left_out,
        }

    def _offer(self, advice: Advice, offer: Offer) -> dict[str, Any]:
        """Return a chute that can be launched. All pay is that of one GPU.

        ``room`` is how many more instances can become active, and ``room_left`` how many of these
        are left when the launches that are under way have taken theirs.
        """
        pricing = self._pricing
        first_day = offer.first_day_units_per_gpu_second
        later = offer.later_units_per_second / offer.size
        return {
            "chute_id": offer.chute_id,
            "name": offer.chute,
            "public": not offer.private,
            "tee": offer.tee,
            "gpus": offer.size,
            "units_per_gpu_second": offer.units_per_second / offer.size,
            "first_day_units_per_gpu_second": first_day,
            "later_units_per_gpu_second": later,
            "urgency_boost": offer.urgency_boost,
            "estimated_usd_per_gpu_first_day": pricing.usd_a_day(first_day),
            "estimated_usd_per_gpu_day_later": pricing.usd_a_day(later),
            "room": offer.room,
            "room_left": offer.left,
            "starting_instances": offer.starting,
            "hanging_here": offer.hanging,
            "failed_24h": advice.failures.count(offer.chute_id),
            "unclear_24h": advice.failures.unclear.get(offer.chute_id, 0),
            "fails_here": advice.failures.fails(offer.chute_id),
            "utilization_ratio": offer.load,
            "rate_limited_ratio": offer.rate_limited,
            "bounty_boost": offer.bounty_boost,
            "bounty_seconds_left": pricing.seconds_left(offer),
        }

    def _use(self, fleet: Fleet, use: Use) -> dict[str, Any]:
        """Return the best use of a model's idle GPUs on a server. Pay is that of all launches."""
        return {
            "server_id": use.server_id,
            "server_name": fleet.servers_by_id[use.server_id].name,
            "gpu": use.model,
            "idle_gpus": use.free,
            "stay_idle": use.free - use.used,
            "first_day_units": use.first_day_units,
            "later_units_per_second": use.later_units_per_second,
            "launches": [self._launch(launch) for launch in use.launches],
        }

    def _launch(self, launch: Launch) -> dict[str, Any]:
        """Return a launch. The pay is that of all its instances."""
        offer = launch.offer
        first_day_units = launch.instances * offer.first_day_units
        later_units_per_second = launch.instances * offer.later_units_per_second
        return {
            "chute_id": offer.chute_id,
            "name": offer.chute,
            "public": not offer.private,
            "instances": launch.instances,
            "gpus": launch.instances * offer.size,
            "first_day_units": first_day_units,
            "urgency_boost": offer.urgency_boost,
            "estimated_usd_first_day": self._pricing.usd(first_day_units),
            "estimated_usd_per_day_later": self._pricing.usd_a_day(later_units_per_second),
        }


def _missing_hours(advice: Advice) -> list[str | None] | None:
    """Return the ends of the hours of which it is not known what failed, None if of all."""
    if advice.missing_hours is None:
        return None
    return [iso_time(end) for end in advice.missing_hours]


def _left_out(advice: Advice) -> list[dict[str, Any]]:
    """Return the chutes that the plan leaves out because they failed."""
    return [
        {
            "chute_id": offer.chute_id,
            "name": offer.chute,
            "failed_24h": advice.failures.count(offer.chute_id),
        }
        for offer in advice.failing
    ]


def _stay_idle(advice: Advice, plan: Sequence[Use]) -> list[dict[str, Any]]:
    """Return the idle GPUs that the plan does not use, and why."""
    rows = []
    for unused in unused_gpus(advice, plan):
        server = advice.fleet.servers_by_id.get(unused.server_id)
        rows.append(
            {
                "server_id": unused.server_id,
                "server_name": None if server is None else server.name,
                "gpu": unused.model,
                "gpus": unused.count,
                "why": unused.why,
            }
        )
    return rows


def platform_gpus_by_state(report: Report, model: str) -> dict[str, int]:
    """Return the number of GPUs of a model on the platform, by state."""
    samples = report.of("chutes_platform_gpus", gpu=model)
    return {labels["state"]: int(value) for labels, value in samples}


def idle_models(fleet: Fleet) -> list[str]:
    """Return the models of the idle GPUs of a fleet."""
    return sorted({gpu.model for gpu in fleet.gpus if gpu.state == "idle" and gpu.model})


def idle_gpus_of(fleet: Fleet, model: str) -> list[Gpu]:
    """Return the idle GPUs of a model."""
    return [gpu for gpu in fleet.gpus if gpu.model == model and gpu.state == "idle"]


@dataclass(frozen=True)
class IdleGpus:
    """The idle GPUs of a model in a fleet.

    While the maintenance of one of their servers is unknown, only their count is known.

    Attributes:
        in_maintenance: Those on servers that are in maintenance now.
        maintenance_pending: Those on servers that hold an upgrade slot and wait for their
            maintenance.
        on_one_server: The most that one server has, of those servers that can be used.
    """

    count: int
    in_maintenance: int | None = None
    maintenance_pending: int | None = None
    on_one_server: int | None = None

    @classmethod
    def of(cls, fleet: Fleet, model: str) -> IdleGpus:
        """Count the idle GPUs of a model in a fleet."""
        count = len(idle_gpus_of(fleet, model))
        in_slot_by_status: Counter[str] = Counter()
        most_usable = 0
        for server in fleet.servers:
            idle = sum(gpu.model == model and gpu.state == "idle" for gpu in server.gpus)
            if not idle:
                continue
            if server.holds_slot is None or server.maintenance is None:
                return cls(count)
            # A server that holds an upgrade slot cannot be used.
            if server.holds_slot:
                in_slot_by_status[server.maintenance] += idle
            else:
                most_usable = max(most_usable, idle)
        return cls(
            count,
            in_maintenance=in_slot_by_status["maintenance"],
            maintenance_pending=in_slot_by_status["pending"],
            on_one_server=most_usable,
        )
