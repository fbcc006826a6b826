"""The advice on the screen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from chutes_exporter.commands.advice import idle_rests, market_of
from chutes_exporter.commands.advice_json import IdleGpus, Pricing, idle_models, idle_of, supply_of
from chutes_exporter.commands.report import DOLLARS_ADVICE
from chutes_exporter.commands.terminal import (
    moment,
    percent,
    print_first,
    say,
    whole_percent,
)
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.findings import cost, filled
from chutes_exporter.fleet.failures import FAILS_FROM
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.commands.advice import Advice, IdleReason, Wanted
    from chutes_exporter.commands.forecast import Forecast
    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet, Instance, Launch, Market, Offer, Use
    from chutes_exporter.fleet.switch import Switch, Switches
    from chutes_exporter.rules.launch import LaunchRefusal
    from chutes_exporter.rules.losses import DeletionReason

_SHOWN: Final = 10
"""Most chutes of a model on the screen."""

_REASONS: Final[dict[LaunchRefusal, str]] = {
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
_IDLE_REASONS: Final[dict[IdleReason, str]] = {
    "failed_here": "only chutes that failed here have room for them",
    "not_known": "of some chutes it is not known whether they can be launched",
    "no_room": "no chute that can be launched now has room for them",
    "upgrade_slot": "the server holds an upgrade slot",
    "maintenance_not_known": "it is not known whether the server can be used",
    "server_not_known": "their server is not known",
}
_DELETION_REASONS: Final[dict[DeletionReason, str]] = {
    "free": "nothing",
    "first_hour": "all, in its first hour",
    "private": "all, at any age (private)",
    "last_active": "most, while no other miner runs the chute",
}
_LEGEND: Final = (
    "Day 1, later: compute units a second of one GPU, on average of the first day and from 8 hours "
    "after the activation on. USD: an estimate for one GPU and a day. Room: launches that can "
    "still become active. Starting: instances of all miners. Bounty, left: its factor, and the "
    "hours until it expires. Use %, refused %: load and refused requests in 15 minutes."
)
_SWITCH_LEGEND: Final = (
    "Costs now: compute units that the score loses at most if the instance is deleted now. Free "
    "from: when that costs nothing (-: no known time). Paid after: hours until the gain has paid "
    "that. More: compute units that the switch earns more, in the first day and in a day later. A "
    "private chute may get enough instances of other miners before the new one is active."
)


class AdviceScreen:
    """Shows advice."""

    def __init__(self, report: Report, settings: Settings) -> None:
        self._report, self._settings = report, settings
        self._pricing = Pricing(report)

    def show(self, miners: Sequence[Advice], wanted: Wanted) -> None:
        """Print the advice to each miner."""
        for advice in miners:
            self._show_advice(advice, wanted)
        has_offers = any(advice.offers for advice in miners)
        if has_offers and wanted.lists_chutes:
            say(_LEGEND)
        if any(advice.proposed for advice in miners):
            say(_SWITCH_LEGEND)
        shows_pay = has_offers or wanted.switch or miners[0].forecast is not None
        if self._settings.chain_url is None and shows_pay:
            say(DOLLARS_ADVICE)

    def _show_advice(self, advice: Advice, wanted: Wanted) -> None:
        say(f"{advice.fleet.hotkey}  {moment(self._report.now)}", bold=True)
        if wanted.plan or not wanted.switch:
            self._show_idle(advice, wanted)
        if wanted.switch:
            self._show_switches(advice)
        if advice.forecast is not None:
            _show_forecast(advice.forecast)
        click.echo()

    def _show_idle(self, advice: Advice, wanted: Wanted) -> None:
        models = idle_models(advice.fleet)
        if not advice.is_known:
            say("The idle GPUs are not known.")
        elif not models:
            say("No GPU is idle.", fg="green")
        elif wanted.plan:
            self._show_plan(advice)
        else:
            for model in models:
                self._show_model(advice, model)
            _show_failing(advice, "come last")

    def _show_model(self, advice: Advice, model: str) -> None:
        market = market_of(advice, model)
        say(self._heading(advice.fleet, model), bold=True)
        if market is None:
            say("What they can run is not known.")
        elif not market.offers:
            say("No chute can run on them now.")
        if market is not None:
            has_failures = any(_failed(advice, offer) for offer in market.offers)
            rows = [self._row(advice, one, has_failures=has_failures) for one in market.offers]
            print_first(rows, _SHOWN, "chutes", cut=["name"])
            _show_refused(market)
        supply = supply_of(self._report, model)
        if supply:
            say(
                f"The platform has {sum(supply.values())} {model}, {supply.get('idle', 0)} of them "
                "idle."
            )

    def _heading(self, fleet: Fleet, model: str) -> str:
        idle = IdleGpus.of(fleet, model)
        text = filled(f"{model}: COUNT idle {{GPU|GPUs}}", idle.count)
        usd = cost(idle_of(fleet, model), fleet, self._settings.costs)
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

    def _row(self, advice: Advice, offer: Offer, *, has_failures: bool) -> dict[str, Any]:
        """Return the cells of a chute."""
        name = _name(offer)
        if advice.failures.fails(offer.chute_id):
            name += " (fails here)"
        elif offer.hanging:
            name += " (hangs here)"
        first = offer.first_day_units_per_gpu_second
        later = offer.later_units_per_second / offer.size
        row: dict[str, Any] = {
            "chute id": offer.chute_id,
            "name": name,
            "day 1": first,
            "later": later,
        }
        if self._pricing.usd_per_unit is not None:
            row["USD day 1"] = self._pricing.usd_a_day(first)
            row["USD later"] = self._pricing.usd_a_day(later)
        row["GPUs"] = offer.size
        if has_failures:
            row["failed 24 h"] = _failed(advice, offer)
        return row | {
            "room": offer.left,
            "starting": None if offer.starting is None else int(offer.starting),
            "bounty": offer.bounty_boost,
            "left": _clock(self._pricing.seconds_left(offer)),
            "use %": whole_percent(offer.load),
            "refused %": whole_percent(offer.rate_limited),
        }

    def _show_plan(self, advice: Advice) -> None:
        """Print what to launch on which server, and what stays idle."""
        if advice.plan is None:
            say(
                "There is no plan, because it is not known which chutes the idle GPUs can run, or "
                "which ones failed here. Without --plan, advise shows what is known."
            )
            _show_failing(advice, "would be left out")
            return
        rows = self._plan_rows(advice.fleet, advice.plan)
        print_first(rows, len(rows), "launches", cut=("server", "chute"))
        units = total(use.first_day_units for use in advice.plan)
        if rows and units is not None:
            usd = self._pricing.usd(units)
            dollars = "" if usd is None else f", about {usd:,.0f} USD"
            say(f"Together {units:,.0f} compute units in the first day{dollars}.", bold=True)
        for rest in idle_rests(advice, advice.plan):
            where = _server_text(advice.fleet, rest.server_id)
            say(f"{rest.count} {rest.model} on {where} stay idle: {_IDLE_REASONS[rest.why]}.")
        _show_failing(advice, "are left out")

    def _plan_rows(self, fleet: Fleet, plan: Iterable[Use]) -> list[dict[str, Any]]:
        rows = []
        for use in plan:
            server = fleet.servers_by_id[use.server_id]
            for launch in use.launches:
                offer = launch.offer
                rows.append(
                    {
                        "server": server.name or use.server_id,
                        "chute": _name(offer),
                        "chute id": offer.chute_id,
                        "instances": launch.instances,
                        "GPUs": f"{launch.instances * offer.size} {use.model}",
                        **self._plan_pay(launch),
                    }
                )
        return rows

    def _plan_pay(self, launch: Launch) -> dict[str, Any]:
        first = launch.instances * launch.offer.first_day_units
        later = launch.instances * launch.offer.later_units_per_second
        row: dict[str, Any] = {"units day 1": round(first), "units a day later": round(later * DAY)}
        if self._pricing.usd_per_unit is not None:
            row["USD day 1"] = self._pricing.usd(first)
            row["USD later"] = self._pricing.usd_a_day(later)
        return row

    # Switches

    def _show_switches(self, advice: Advice) -> None:
        found = advice.switches
        if found is None:
            say("What to run instead of active instances is not known.")
            return
        rows = [self._switch_row(advice.fleet, one) for one in found.proposed]
        print_first(rows, len(rows), "instances", cut=("server", "could run", "runs"))
        self._show_sum(found)
        _show_waiting(advice.fleet, found.proposed)
        for one in found.too_dear:
            say(_too_dear_text(advice.fleet, one))

    def _show_sum(self, found: Switches) -> None:
        count = len(found.proposed)
        if not count:
            say(f"Of {found.compared} active instances, none is worth a switch.")
            return
        units = sum(one.first_day_gain - one.least_cost for one in found.proposed)
        usd = self._pricing.usd(units)
        dollars = "" if usd is None else f", about {usd:,.2f} USD"
        say(
            f"Other chutes pay over 10 % more than {count} of {found.compared} active instances. "
            f"Together {units:,.0f} compute units more in the first day{dollars}, less what the "
            "deletions cost.",
            bold=True,
        )

    def _switch_row(self, fleet: Fleet, switch: Switch) -> dict[str, Any]:
        instance, payback = switch.instance, switch.payback_seconds
        row: dict[str, Any] = {
            "server": _server_text(fleet, instance.server_id or ""),
            "instance": instance.instance_id,
            "could run": _launches_text(switch.launches),
            "costs now": round(switch.cost.units),
            "free from": _free_text(switch, self._report.now),
            "paid after h": None if payback is None else round(payback / HOUR, 1),
            "more day 1": round(switch.first_day_gain),
            "more later": round(switch.later_gain * DAY),
        }
        if self._pricing.usd_per_unit is not None:
            row["USD day 1"] = self._pricing.usd(switch.first_day_gain)
            row["USD later"] = self._pricing.usd_a_day(switch.later_gain)
        row["runs"] = _name(instance)
        return row | {"GPUs": f"{instance.gpus} {instance.model}"}


def _free_text(switch: Switch, now: float) -> str:
    free_at = switch.cost.free_at
    if free_at is None:
        return "-"
    if free_at <= now:
        return "now"
    return f"{datetime.fromtimestamp(free_at, UTC):%H:%M} UTC"


def _clock(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return f"{seconds // HOUR:.0f}:{seconds % HOUR // 60:02.0f}"


def _show_waiting(fleet: Fleet, switches: Iterable[Switch]) -> None:
    for one in switches:
        if one.waits_until is not None:
            where = _server_text(fleet, one.instance.server_id or "")
            say(
                f"Do not delete {one.instance.instance_id} on {where} before "
                f"{moment(one.waits_until)}: in its first hour, it loses its score."
            )


def _too_dear_text(fleet: Fleet, switch: Switch) -> str:
    instance = switch.instance
    where = _server_text(fleet, instance.server_id or "")
    text = (
        f"Keep {_name(instance)} ({instance.instance_id}) on {where}: "
        f"{_launches_text(switch.launches)} would earn {switch.first_day_gain:,.0f} compute units "
        f"more in the first day, but the deletion costs {switch.cost.units:,.0f} "
        f"({_DELETION_REASONS[switch.cost.why]})"
    )
    payback = switch.payback_seconds
    when = "never" if payback is None else f"after {payback / HOUR:,.0f} hours"
    return f"{text}, which is earned back {when}."


def _launches_text(launches: Iterable[Launch]) -> str:
    texts = []
    for launch in launches:
        name = _name(launch.offer)
        if launch.offer.private:
            name = f"{name} {launch.offer.chute_id}"
        texts.append(name if launch.instances == 1 else f"{launch.instances} x {name}")
    return ", ".join(texts)


def _name(one: Offer | Instance) -> str:
    """Return the name of a chute, without those of private ones."""
    return "(private)" if one.private else one.chute or "-"


def _server_text(fleet: Fleet, server_id: str) -> str:
    server = fleet.servers_by_id.get(server_id)
    return (server and server.name) or server_id or "an unknown server"


# Failures


def _failed(advice: Advice, offer: Offer) -> int | str | None:
    """Return how often a chute failed, with a sign if there may be more failures."""
    count = advice.failures.count(offer.chute_id)
    known = advice.failures.known.get(offer.chute_id, 0)
    return f"≥{known}" if count is None and known else count


def _show_failing(advice: Advice, what: str) -> None:
    """Print which chutes failed, and what that means for them."""
    failures = advice.failures
    if not advice.offers:
        return
    if not failures.are_all:
        say("Not all failures of the past day are known.", fg="yellow")
    if advice.failing:
        texts = []
        for offer in advice.failing:
            name = offer.chute_id if offer.private else offer.chute or offer.chute_id
            texts.append(f"{name} ({_failed(advice, offer)})")
        say(
            f"These {what}, because {FAILS_FROM} or more of their instances failed on this miner's "
            f"servers in the 24 hours before {moment(failures.until)}: {', '.join(texts)}. The API "
            "does not tell on which server. Reasons: chutes-exporter incidents.",
            fg="yellow",
        )


def _show_refused(market: Market) -> None:
    refused = [
        f"{market.refused[reason]} {text}"
        for reason, text in _REASONS.items()
        if market.refused.get(reason)
    ]
    say(f"Left out: {', '.join(refused) or 'none'}.", indent="  ")


# More GPUs


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
    _show_pay_back(found)
    if found.gain.idle_gpus:
        say(f"No chute has room for {found.gain.idle_gpus} of them.")
    rows = [
        {
            "chute id": launch.offer.chute_id,
            "name": _name(launch.offer),
            "instances": launch.instances,
            "GPUs": f"{launch.instances * launch.offer.size} {use.model}",
            "day 1": launch.offer.first_day_units_per_gpu_second,
            "later": launch.offer.later_units_per_second / launch.offer.size,
        }
        for use in found.gain.uses
        for launch in use.launches
    ]
    print_first(rows, _SHOWN, "chutes", cut=["name"])


def _show_pay_back(found: Forecast) -> None:
    """Print after how many days the GPUs have paid for themselves, or why that is not known.

    Without any price, nobody asked.
    """
    if found.price_usd is None:
        some_have_prices = len(found.without_price) < len(found.additions)
        if some_have_prices:
            models = " and ".join(found.without_price)
            say(f"When they have paid their price is not known: add the price of {models}.")
        return
    if found.without_cost:
        flags = " ".join(f"--gpu.cost {model}=USD_PER_HOUR" for model in found.without_cost)
        say(f"When they have paid their price is not known: add {flags}.")
    elif found.usd_per_day_later is None:
        say("When they have paid their price is not known without prices of the chain.")
    elif found.pay_back_days is None:
        say(f"At the later pay, they never earn their price of {found.price_usd:,.0f} USD.")
    else:
        costs = "" if found.cost_usd_per_day is not None else ", without running costs,"
        say(
            f"At the later pay{costs} they have paid their price of {found.price_usd:,.0f} USD "
            f"after {found.pay_back_days:,.0f} days."
        )
