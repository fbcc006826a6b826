"""The command ``advise``: what to launch on idle GPUs, the best paid in the first day first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.commands.forecast import Forecast, forecast, parse_addition
from chutes_exporter.commands.options import (
    Command,
    Parsed,
    asks,
    cost_options,
    json_option,
    miner_options,
)
from chutes_exporter.commands.query import first_key
from chutes_exporter.commands.report import DOLLARS_ADVICE, collect_report
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.terminal import (
    moment,
    percent,
    print_first,
    print_table,
    say,
    whole_percent,
)
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.findings import cost, filled
from chutes_exporter.page.gaps import TRY_AGAIN, NotKnown
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet, Gpu, Launch, Market, Offer, Use
    from chutes_exporter.rules.launch import LaunchRefusal

_SHOWN = 10
"""Most chutes of a model on the screen."""

_REASONS: dict[LaunchRefusal, str] = {
    "not_registered": "the miner has no seat",
    "blacklisted": "the miner is blacklisted",
    "disabled": "disabled",
    "no_bounty": "private, without an active instance and without a bounty",
    "target_expired": "private without a current target",
    "no_room": "no room: enough active instances",
    "enough_starting": "no room: enough instances are starting",
    "tee_mismatch": "need TEE that the server lacks, or cannot run with TEE",
    "in_maintenance": "the server is in maintenance",
    "too_many_gpus": "need more idle GPUs than one server has",
    "unknown": "not known",
}
"""Why chutes that run on a model are left out."""

_METRICS = frozenset(
    {"chutes_launch_refused_chutes", "chutes_compute_unit_usd", "chutes_platform_gpus"}
)


@click.command(cls=Command)
@miner_options("The request must be signed, so a key is required.")
@cost_options
@click.option(
    "--with",
    "wanted",
    multiple=True,
    type=Parsed("NUMBERxMODEL[=USD]", parse_addition),
    help="Also predict what these GPUs would earn on one more TEE server, all of them together "
    "(repeatable). With the price of all of them, also when they have paid for themselves. "
    "Example: 8xpro_6000=64000.",
)
@click.option(
    "--plan",
    is_flag=True,
    help="Show which chutes to launch on which server, instead of all chutes by model.",
)
@json_option
@asks(needs_miner=False)
async def advise(settings: Settings, flags: Mapping[str, Any]) -> Result:
    """Show the chutes that the idle GPUs can run now, the best paid in the first day first.

    It leaves out chutes whose launch the service would refuse. It requests fresh data from the API.
    The exit status is 0 when there is nothing to deploy, 1 when there is, 2 when the command line
    is wrong, and 3 when no such chute was found but something is not known.
    """
    first_key(settings)  # raises UsageError if there is none
    heading = {"chutes_miner_score_heading_ratio"} if flags["wanted"] else set()
    report = await collect_report(settings, _METRICS | heading)
    miners = [
        _Advice(
            fleet=report.fleets[hotkey],
            is_known=hotkey in report.counted,
            forecast=forecast(report, hotkey, flags["wanted"], settings)
            if flags["wanted"]
            else None,
        )
        for hotkey in sorted(settings.watched)
    ]
    for miner in miners:
        report.gaps.extend(_gaps(miner, wants_forecast=bool(flags["wanted"])))
    screen = _Screen(report, settings)
    summary = {"api": settings.api_url, "miners": [screen.as_json(miner) for miner in miners]}
    show = partial(screen.show, miners, plan=flags["plan"])
    return Result(summary, show, report.gaps, any(miner.offers for miner in miners))


@dataclass(frozen=True)
class _Advice:
    """The advice to a miner.

    Attributes:
        is_known: Whether the states of all its GPUs are known.
    """

    fleet: Fleet
    is_known: bool
    forecast: Forecast | None

    @property
    def offers(self) -> list[Offer]:
        """Everything that it can launch now."""
        if not self.is_known:
            return []
        return [offer for market in self.fleet.markets or () for offer in market.offers]

    @property
    def uses(self) -> list[Use]:
        """The best use of its idle GPUs, the best paid first."""
        if not self.is_known:
            return []
        return sorted(self.fleet.uses, key=lambda use: -(use.first_day_units or 0.0))


def _gaps(miner: _Advice, *, wants_forecast: bool) -> list[NotKnown]:
    """Return what is not known about what a miner can launch."""
    hotkey, gaps = miner.fleet.hotkey, []
    reason = "an answer lacks whether the service accepts some chutes, or what they pay"
    idle = {gpu.model for gpu in miner.fleet.gpus if gpu.state == "idle"}
    if miner.is_known and miner.fleet.markets is None and idle:
        gaps.append(NotKnown("chutes for idle GPUs", hotkey, reason, TRY_AGAIN))
    gaps += [
        NotKnown(f"chutes for {market.model}", hotkey, reason, TRY_AGAIN)
        for market in miner.fleet.markets or ()
        if market.refused.get("unknown")
    ]
    if wants_forecast and miner.forecast is None:
        reason = "an answer is missing or incomplete, or a sum is too large"
        gaps.append(NotKnown("what other GPUs would earn", hotkey, reason, TRY_AGAIN))
    return gaps


_LEGEND = (
    "Day 1, later: compute units a second of one GPU, on average of the first day and from 8 hours "
    "after the activation on. USD: an estimate for one GPU and a day. Room: launches that can "
    "still become active. Starting: instances of all miners. Bounty, left: its factor, and the "
    "hours until it expires. Use %, refused %: load and refused requests in 15 minutes."
)


class _Screen:
    """Shows advice."""

    def __init__(self, report: Report, settings: Settings) -> None:
        self._report, self._settings = report, settings
        self._usd_per_unit = report.value("chutes_compute_unit_usd")

    def _usd(self, units_per_second: float | None) -> float | None:
        """Return what a day with these compute units per second is worth."""
        return product(units_per_second, DAY, self._usd_per_unit)

    # JSON

    def as_json(self, miner: _Advice) -> dict[str, Any]:
        """Return the advice for scripts."""
        idle = None
        if miner.is_known:
            idle = [self._model_as_json(miner.fleet, model) for model in _idle_models(miner.fleet)]
        return {
            "hotkey": miner.fleet.hotkey,
            "idle": idle,
            "plan": [self._use_as_json(miner.fleet, use) for use in miner.uses],
            "with": miner.forecast and miner.forecast.as_json(),
        }

    def _model_as_json(self, fleet: Fleet, model: str) -> dict[str, Any]:
        market = _market(fleet, model)
        idle = _IdleGpus.of(fleet, model)
        return {
            "gpu": model,
            "idle": idle.count,
            "maintenance_pending": idle.maintenance_pending,
            "in_maintenance": idle.in_maintenance,
            "on_one_server": idle.on_one_server,
            "platform": self._supply(model),
            "cost_usd_per_hour": cost(_idle_of(fleet, model), fleet, self._settings.costs),
            "runnable": [self._offer_as_json(offer) for offer in market.offers] if market else [],
            # Without these counts, it is not known whether other chutes run on the model.
            "left_out": dict(market.refused) if market else None,
        }

    def _supply(self, model: str) -> dict[str, int]:
        found = self._report.of("chutes_platform_gpus", gpu=model)
        return {labels["state"]: int(value) for labels, value in found}

    def _offer_as_json(self, offer: Offer) -> dict[str, Any]:
        return {
            "chute_id": offer.chute_id,
            "name": None if offer.private else offer.chute,
            "public": not offer.private,
            "tee": offer.tee,
            "gpus": offer.size,
            "units_per_gpu_second": offer.units_per_second / offer.size,
            "first_day_units_per_gpu_second": offer.first_day_units_per_gpu_second,
            "later_units_per_gpu_second": offer.later_units_per_second / offer.size,
            "estimated_usd_per_gpu_first_day": self._usd(offer.first_day_units_per_gpu_second),
            "estimated_usd_per_gpu_day_later": self._usd(offer.later_units_per_second / offer.size),
            "room": offer.room,
            "room_left": offer.left,
            "starting_instances": offer.starting,
            "hanging_here": offer.hanging,
            "utilization_ratio": offer.load,
            "rate_limited_ratio": offer.rate_limited,
            "bounty_boost": offer.bounty_boost,
            "bounty_seconds_left": self._seconds_left(offer),
        }

    def _seconds_left(self, offer: Offer) -> float | None:
        if offer.bounty_expires_at is None:
            return None
        return max(0.0, offer.bounty_expires_at - self._report.now)

    def _use_as_json(self, fleet: Fleet, use: Use) -> dict[str, Any]:
        server = fleet.servers_by_id[use.server_id]
        return {
            "server_id": use.server_id,
            "server_name": server.name,
            "gpu": use.model,
            "idle_gpus": use.free,
            "stay_idle": use.free - use.used,
            "first_day_units": use.first_day_units,
            "later_units_per_second": use.later_units_per_second,
            "launches": [self._launch_as_json(launch) for launch in use.launches],
        }

    def _launch_as_json(self, launch: Launch) -> dict[str, Any]:
        offer = launch.offer
        first = launch.instances * offer.first_day_units
        later = launch.instances * offer.later_units_per_second
        return {
            "chute_id": offer.chute_id,
            "name": None if offer.private else offer.chute,
            "instances": launch.instances,
            "gpus": launch.instances * offer.size,
            "first_day_units": first,
            "estimated_usd_first_day": self._usd(first / DAY),
            "estimated_usd_per_day_later": self._usd(later),
        }

    # The screen

    def show(self, miners: Sequence[_Advice], *, plan: bool) -> None:
        """Print the advice to each miner."""
        for miner in miners:
            say(f"{miner.fleet.hotkey}  {moment(self._report.now)}", bold=True)
            models = _idle_models(miner.fleet)
            if not miner.is_known:
                say("The idle GPUs are not known.")
            elif not models:
                say("No GPU is idle.", fg="green")
            elif plan:
                self._show_plan(miner)
            else:
                for model in models:
                    self._show_model(miner.fleet, model)
            if miner.forecast is not None:
                _show_forecast(miner.forecast)
            click.echo()
        has_offers = any(miner.offers for miner in miners)
        if has_offers and not plan:
            say(_LEGEND)
        if self._settings.chain_url is None and (has_offers or miners[0].forecast is not None):
            say(DOLLARS_ADVICE)

    def _show_model(self, fleet: Fleet, model: str) -> None:
        market = _market(fleet, model)
        say(self._heading(fleet, model), bold=True)
        if market is None:
            say("What they can run is not known.")
        elif not market.offers:
            say("No chute can run on them now.")
        if market is not None:
            rows = [self._row(offer) for offer in market.offers]
            print_first(rows, _SHOWN, "chutes", cut=["name"])
            self._show_refused(market)
        supply = self._supply(model)
        if supply:
            say(
                f"The platform has {sum(supply.values())} {model}, {supply.get('idle', 0)} of them "
                "idle."
            )

    def _heading(self, fleet: Fleet, model: str) -> str:
        idle = _IdleGpus.of(fleet, model)
        text = filled(f"{model}: COUNT idle {{GPU|GPUs}}", idle.count)
        usd = cost(_idle_of(fleet, model), fleet, self._settings.costs)
        if usd is not None:
            text += f" for {usd:,.2f} USD per hour"
        elif self._settings.costs:
            text += f" at an unknown cost (add --gpu.cost {model}=USD_PER_HOUR)"
        if idle.in_maintenance:
            text += f", {idle.in_maintenance} in maintenance"
        if idle.maintenance_pending:
            text += f", {idle.maintenance_pending} with pending maintenance (do not reboot)"
        if idle.on_one_server is None:
            return f"{text}, of which some may be in maintenance"
        return f"{text}, at most {idle.on_one_server} on one server"

    @staticmethod
    def _show_refused(market: Market) -> None:
        refused = [
            f"{market.refused[reason]} {text}"
            for reason, text in _REASONS.items()
            if market.refused.get(reason)
        ]
        say(f"Left out: {', '.join(refused) or 'none'}.", indent="  ")

    def _row(self, offer: Offer) -> dict[str, Any]:
        """Return the cells of a chute."""
        name = "(private)" if offer.private else offer.chute or "-"
        first, later = (
            offer.first_day_units_per_gpu_second,
            offer.later_units_per_second / offer.size,
        )
        row: dict[str, Any] = {
            "chute id": offer.chute_id,
            "name": f"{name} (hangs here)" if offer.hanging else name,
            "day 1": first,
            "later": later,
        }
        if self._usd_per_unit is not None:
            row |= {"USD day 1": self._usd(first), "USD later": self._usd(later)}
        left = self._seconds_left(offer)
        clock = None if left is None else f"{left // HOUR:.0f}:{left % HOUR // 60:02.0f}"
        return row | {
            "GPUs": offer.size,
            "room": offer.left,
            "starting": None if offer.starting is None else int(offer.starting),
            "bounty": offer.bounty_boost,
            "left": clock,
            "use %": whole_percent(offer.load),
            "refused %": whole_percent(offer.rate_limited),
        }

    def _show_plan(self, miner: _Advice) -> None:
        """Print what to launch on which server, and what stays idle."""
        rows = []
        for use in miner.uses:
            server = miner.fleet.servers_by_id[use.server_id]
            for launch in use.launches:
                offer = launch.offer
                rows.append(
                    {
                        "server": server.name or use.server_id,
                        "chute": "(private)" if offer.private else offer.chute or "-",
                        "chute id": offer.chute_id,
                        "instances": launch.instances,
                        "GPUs": f"{launch.instances * offer.size} {use.model}",
                        **self._plan_pay(launch),
                    }
                )
        print_table(rows, cut=("server", "chute"))
        units = total(use.first_day_units for use in miner.uses)
        if rows and units is not None:
            usd = self._usd(units / DAY)
            dollars = "" if usd is None else f", about {usd:,.0f} USD"
            say(f"Together {units:,.0f} compute units in the first day{dollars}.", bold=True)
        for text in _idle_rests(miner):
            say(text)

    def _plan_pay(self, launch: Launch) -> dict[str, Any]:
        first = launch.instances * launch.offer.first_day_units
        later = launch.instances * launch.offer.later_units_per_second
        row: dict[str, Any] = {"units day 1": round(first), "units a day later": round(later * DAY)}
        if self._usd_per_unit is not None:
            row |= {"USD day 1": self._usd(first / DAY), "USD later": self._usd(later)}
        return row


def _idle_models(fleet: Fleet) -> list[str]:
    return sorted({gpu.model for gpu in fleet.gpus if gpu.state == "idle" and gpu.model})


def _idle_of(fleet: Fleet, model: str) -> list[Gpu]:
    return [gpu for gpu in fleet.gpus if gpu.model == model and gpu.state == "idle"]


def _market(fleet: Fleet, model: str) -> Market | None:
    return next((market for market in fleet.markets or () if market.model == model), None)


@dataclass(frozen=True)
class _IdleGpus:
    """The idle GPUs of a model.

    ``on_one_server`` is the most that one server has that can be used. While the maintenance of one
    of their servers is unknown, only their count is known.
    """

    count: int
    in_maintenance: int | None = None
    maintenance_pending: int | None = None
    on_one_server: int | None = None

    @classmethod
    def of(cls, fleet: Fleet, model: str) -> _IdleGpus:
        """Count them in a fleet."""
        count = len(_idle_of(fleet, model))
        by_step: Counter[str] = Counter()
        usable = 0
        for server in fleet.servers:
            idle = sum(gpu.model == model and gpu.state == "idle" for gpu in server.gpus)
            if not idle:
                continue
            if server.holds_slot is None or server.maintenance is None:
                return cls(count)
            if server.holds_slot:
                by_step[server.maintenance] += idle
            else:
                usable = max(usable, idle)
        return cls(count, by_step["maintenance"], by_step["pending"], usable)


def _idle_rests(miner: _Advice) -> list[str]:
    """Return which idle GPUs stay idle in the plan, and why."""
    texts = []
    for use in miner.uses:
        rest = use.free - use.used
        if rest:
            name = miner.fleet.servers_by_id[use.server_id].name or use.server_id
            why = (
                "of some chutes it is not known whether they can be launched"
                if use.is_least
                else "no chute that can be launched now has room for them"
            )
            texts.append(f"{rest} {use.model} on {name} stay idle: {why}.")
    for server in miner.fleet.servers:
        idle = Counter(gpu.model for gpu in server.gpus if gpu.state == "idle")
        if idle and server.holds_slot:
            name = server.name or server.server_id
            texts += [
                f"{count} {model} on {name} stay idle: the server holds an upgrade slot."
                for model, count in idle.items()
            ]
    return texts


def _show_forecast(found: Forecast) -> None:
    gpus = " and ".join(f"{one.count} more {one.model}" for one in found.additions)
    text = f"With {gpus}: score share {percent(found.share_first_day)} in the first day and "
    text += f"{percent(found.share_later)} later, instead of {percent(found.share_without)}"
    if found.usd_first_day is not None and found.usd_per_day_later is not None:
        text += f". They earn {found.usd_first_day:,.2f} USD in the first day and "
        text += f"{found.usd_per_day_later:,.2f} USD a day later"
    say(f"{text}.", bold=True)
    if found.cost_usd_per_day is not None:
        say(f"They cost {found.cost_usd_per_day:,.2f} USD a day (--gpu.cost).")
    if found.price_usd is not None and found.usd_per_day_later is not None:
        if found.pay_back_days is None:
            say(f"At the later pay, they never earn their price of {found.price_usd:,.0f} USD.")
        else:
            say(
                f"At the later pay, they have paid their price of {found.price_usd:,.0f} USD after "
                f"{found.pay_back_days:,.0f} days."
            )
    if found.gain.idle_gpus:
        say(f"No chute has room for {found.gain.idle_gpus} of them.")
    rows = [
        {
            "chute id": launch.offer.chute_id,
            "name": "(private)" if launch.offer.private else launch.offer.chute or "-",
            "instances": launch.instances,
            "GPUs": f"{launch.instances * launch.offer.size} {use.model}",
            "day 1": launch.offer.first_day_units_per_gpu_second,
            "later": launch.offer.later_units_per_second / launch.offer.size,
        }
        for use in found.gain.uses
        for launch in use.launches
    ]
    print_first(rows, _SHOWN, "chutes", cut=["name"])
