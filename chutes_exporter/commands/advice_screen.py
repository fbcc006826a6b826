"""The advice on the screen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from chutes_exporter.commands.advice import market_of, unused_gpus
from chutes_exporter.commands.advice_json import (
    IdleGpus,
    Pricing,
    idle_gpus_of,
    idle_models,
    platform_gpus_by_state,
)
from chutes_exporter.commands.report import DOLLARS_ADVICE
from chutes_exporter.commands.terminal import (
    moment,
    percent,
    print_first_rows,
    say,
    whole_percent,
)
from chutes_exporter.duration import DAY, HOUR, MINUTE
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

_MOST_CHUTES: Final = 10
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
"""Why idle GPUs are not in the plan, after "stay idle:"."""
_DELETION_REASONS: Final[dict[DeletionReason, str]] = {
    "free": "nothing",
    "first_hour": "all, in its first hour",
    "private": "all, at any age (private)",
    "last_active": "most, while no other miner runs the chute",
}
"""How much of an instance's score its deletion costs, and for how long."""
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
        """Print the advice to each miner, then what the columns mean, and how to get dollars."""
        for advice in miners:
            self._show_advice(advice, wanted)
        has_offers = any(advice.offers for advice in miners)
        if has_offers and wanted.lists_chutes:
            say(_LEGEND)
        if any(advice.proposed for advice in miners):
            say(_SWITCH_LEGEND)
        has_forecast = any(advice.forecast is not None for advice in miners)
        shows_pay = has_offers or wanted.switch or has_forecast
        # The price of compute units in dollars comes from the chain.
        if self._settings.chain_url is None and shows_pay:
            say(DOLLARS_ADVICE)

    def _show_advice(self, advice: Advice, wanted: Wanted) -> None:
        say(f"{advice.fleet.hotkey}  {moment(self._report.now)}", bold=True)
        # --switch alone leaves out the idle GPUs.
        if wanted.plan or not wanted.switch:
            self._show_idle(advice, wanted)
        if wanted.switch:
            self._show_switches(advice)
        # A forecast that is not known is a gap of the report, which is printed later.
        if advice.forecast is not None:
            _show_forecast(advice.forecast)
        click.echo()

    def _show_idle(self, advice: Advice, wanted: Wanted) -> None:
        """Print what to launch on idle GPUs: a plan, or the chutes of each model."""
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
        """Print the idle GPUs of a model, and the chutes that can run on them."""
        say(self._heading(advice.fleet, model), bold=True)
        market = market_of(advice, model)
        if market is None:
            say("What they can run is not known.")
        else:
            self._show_market(advice, market)
        gpus_by_state = platform_gpus_by_state(self._report, model)
        if gpus_by_state:
            count, idle = sum(gpus_by_state.values()), gpus_by_state.get("idle", 0)
            say(f"The platform has {count} {model}, {idle} of them idle.")

    def _show_market(self, advice: Advice, market: Market) -> None:
        """Print the best chutes that can run on the idle GPUs of a model, and why others cannot."""
        if not market.offers:
            say("No chute can run on them now.")
        has_failures = any(_failed(advice, offer) for offer in market.offers)
        rows = [self._row(advice, offer, has_failures=has_failures) for offer in market.offers]
        print_first_rows(rows, _MOST_CHUTES, "chutes", cut=["name"])
        _show_refused(market)

    def _heading(self, fleet: Fleet, model: str) -> str:
        """Return how many GPUs of a model are idle, what they cost, and how many can be used."""
        idle = IdleGpus.of(fleet, model)
        text = filled(f"{model}: COUNT idle {{GPU|GPUs}}", idle.count)
        usd_per_hour = cost(idle_gpus_of(fleet, model), fleet, self._settings.costs)
        if usd_per_hour is not None:
            text += f" for {usd_per_hour:,.2f} USD per hour"
        elif self._settings.costs:
            # The user gave costs, but not for all of these GPUs.
            text += f" at an unknown cost (add --gpu.cost {model}=USD_PER_HOUR)"
        if idle.in_maintenance:
            text += f", {idle.in_maintenance} in maintenance"
        if idle.maintenance_pending:
            text += f", {idle.maintenance_pending} with pending maintenance (do not reboot)"
        maintenance_is_known = idle.on_one_server is not None
        if not maintenance_is_known:
            return f"{text}, of which some may be in maintenance"
        return f"{text}, at most {idle.on_one_server} on one server"

    def _row(self, advice: Advice, offer: Offer, *, has_failures: bool) -> dict[str, Any]:
        """Return the cells of a chute. Pay is in compute units a second, or USD a day, for one GPU.

        The column of failures is there if any chute of the table has some.
        """
        name = _chute_name(offer)
        if advice.failures.fails(offer.chute_id):
            name += " (fails here)"
        elif offer.hanging:
            # Instances of it have been starting on this miner's servers for over an hour.
            name += " (hangs here)"
        first_day = offer.first_day_units_per_gpu_second
        later = offer.later_units_per_second / offer.size
        row: dict[str, Any] = {
            "chute id": offer.chute_id,
            "name": name,
            "day 1": first_day,
            "later": later,
        }
        if self._pricing.usd_per_unit is not None:
            row["USD day 1"] = self._pricing.usd_a_day(first_day)
            row["USD later"] = self._pricing.usd_a_day(later)
        row["GPUs"] = offer.size
        if has_failures:
            row["failed 24 h"] = _failed(advice, offer)
        # The room less the launches that are under way. The column "left" is about the bounty.
        row["room"] = offer.left
        row["starting"] = None if offer.starting is None else int(offer.starting)
        row["bounty"] = offer.bounty_boost
        row["left"] = _hours_and_minutes(self._pricing.seconds_left(offer))
        row["use %"] = whole_percent(offer.load)
        row["refused %"] = whole_percent(offer.rate_limited)
        return row

    def _show_plan(self, advice: Advice) -> None:
        """Print what to launch on which server, and what stays idle, or why there is no plan."""
        if advice.plan is None:
            say(
                "There is no plan, because it is not known which chutes the idle GPUs can run, or "
                "which ones failed here. Without --plan, advise shows what is known."
            )
            _show_failing(advice, "would be left out")
            return
        rows = self._plan_rows(advice.fleet, advice.plan)
        # A plan is shown with all its rows. Only columns may be left out.
        print_first_rows(rows, len(rows), "launches", cut=("server", "chute"))
        # None if it is not known for some of the GPUs whether anything can be launched.
        units = total(use.first_day_units for use in advice.plan)
        if rows and units is not None:
            usd = self._pricing.usd(units)
            dollars = "" if usd is None else f", about {usd:,.0f} USD"
            say(f"Together {units:,.0f} compute units in the first day{dollars}.", bold=True)
        for unused in unused_gpus(advice, advice.plan):
            server = _server_text(advice.fleet, unused.server_id)
            reason = _IDLE_REASONS[unused.why]
            say(f"{unused.count} {unused.model} on {server} stay idle: {reason}.")
        _show_failing(advice, "are left out")

    def _plan_rows(self, fleet: Fleet, plan: Iterable[Use]) -> list[dict[str, Any]]:
        """Return the cells of each launch of a plan."""
        rows = []
        for use in plan:
            server = fleet.servers_by_id[use.server_id]
            for launch in use.launches:
                offer = launch.offer
                row = {
                    "server": server.name or use.server_id,
                    "chute": _chute_name(offer),
                    "chute id": offer.chute_id,
                    "instances": launch.instances,
                    "GPUs": f"{launch.instances * offer.size} {use.model}",
                }
                rows.append(row | self._plan_pay(launch))
        return rows

    def _plan_pay(self, launch: Launch) -> dict[str, Any]:
        """Return the cells of what all instances of a launch earn, in dollars only with a price."""
        first_day_units = launch.instances * launch.offer.first_day_units
        later_units_per_second = launch.instances * launch.offer.later_units_per_second
        cells: dict[str, Any] = {
            "units day 1": round(first_day_units),
            "units a day later": round(later_units_per_second * DAY),
        }
        if self._pricing.usd_per_unit is not None:
            cells["USD day 1"] = self._pricing.usd(first_day_units)
            cells["USD later"] = self._pricing.usd_a_day(later_units_per_second)
        return cells

    # Switches

    def _show_switches(self, advice: Advice) -> None:
        """Print what to run instead of active instances, and what pays more but costs too much."""
        fleet, switches = advice.fleet, advice.switches
        if switches is None:
            say("What to run instead of active instances is not known.")
            return
        rows = [self._switch_row(fleet, switch) for switch in switches.proposed]
        # All rows are shown. Only columns may be left out.
        print_first_rows(rows, len(rows), "instances", cut=("server", "could run", "runs"))
        self._show_gain(switches)
        _show_waiting(fleet, switches.proposed)
        for switch in switches.too_dear:
            say(_too_dear_text(fleet, switch))

    def _show_gain(self, switches: Switches) -> None:
        """Print what all proposed switches together earn more."""
        count = len(switches.proposed)
        if not count:
            say(f"Of {switches.compared} active instances, none is worth a switch.")
            return
        # A miner who waits with each deletion as long as advised loses only the least cost.
        units = sum(switch.first_day_gain - switch.least_cost for switch in switches.proposed)
        usd = self._pricing.usd(units)
        dollars = "" if usd is None else f", about {usd:,.2f} USD"
        say(
            f"Other chutes pay over 10 % more than {count} of {switches.compared} active "
            f"instances. Together {units:,.0f} compute units more in the first day{dollars}, less "
            "what the deletions cost.",
            bold=True,
        )

    def _switch_row(self, fleet: Fleet, switch: Switch) -> dict[str, Any]:
        """Return the cells of a switch. Gains are compute units of the first day and of a later
        day, and dollars with a price.
        """
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
        row["runs"] = _chute_name(instance)
        row["GPUs"] = f"{instance.gpus} {instance.model}"
        return row


def _free_text(switch: Switch, now: float) -> str:
    """Return from when on the deletion costs nothing. A dash is no known time."""
    free_at = switch.cost.free_at
    if free_at is None:
        return "-"
    if free_at <= now:
        return "now"
    return f"{datetime.fromtimestamp(free_at, UTC):%H:%M} UTC"


def _hours_and_minutes(seconds: float | None) -> str | None:
    """Return a duration such as ``2:05``."""
    if seconds is None:
        return None
    hours, minutes = seconds // HOUR, seconds % HOUR // MINUTE
    return f"{hours:.0f}:{minutes:02.0f}"


def _show_waiting(fleet: Fleet, switches: Iterable[Switch]) -> None:
    """Print which switches should wait for the end of an instance's first hour."""
    for switch in switches:
        if switch.waits_until is not None:
            server = _server_text(fleet, switch.instance.server_id or "")
            say(
                f"Do not delete {switch.instance.instance_id} on {server} before "
                f"{moment(switch.waits_until)}: in its first hour, it loses its score."
            )


def _too_dear_text(fleet: Fleet, switch: Switch) -> str:
    """Return why to keep an instance although other chutes pay more on its GPUs."""
    instance = switch.instance
    server = _server_text(fleet, instance.server_id or "")
    text = (
        f"Keep {_chute_name(instance)} ({instance.instance_id}) on {server}: "
        f"{_launches_text(switch.launches)} would earn {switch.first_day_gain:,.0f} compute units "
        f"more in the first day, but the deletion costs {switch.cost.units:,.0f} "
        f"({_DELETION_REASONS[switch.cost.why]})"
    )
    payback = switch.payback_seconds
    when = "never" if payback is None else f"after {payback / HOUR:,.0f} hours"
    return f"{text}, which is earned back {when}."


def _launches_text(launches: Iterable[Launch]) -> str:
    """Return the chutes to launch, and how many instances of each.

    A private one has its id, because its name is not shown.
    """
    texts = []
    for launch in launches:
        text = _chute_name(launch.offer)
        if launch.offer.private:
            text = f"{text} {launch.offer.chute_id}"
        texts.append(text if launch.instances == 1 else f"{launch.instances} x {text}")
    return ", ".join(texts)


def _chute_name(runs_chute: Offer | Instance) -> str:
    """Return the name of the chute. The names of private ones are not shown."""
    return "(private)" if runs_chute.private else runs_chute.chute or "-"


def _server_text(fleet: Fleet, server_id: str) -> str:
    """Return the name of a server, its id without a name. An empty id is that of no server."""
    server = fleet.servers_by_id.get(server_id)
    name = None if server is None else server.name
    return name or server_id or "an unknown server"


# Failures


def _failed(advice: Advice, offer: Offer) -> int | str | None:
    """Return how often a chute failed in the past day, such as ``≥2`` if there may be more
    failures.

    None if no failure is known, but there may be some.
    """
    count = advice.failures.count(offer.chute_id)
    if count is not None:
        return count
    least = advice.failures.known.get(offer.chute_id, 0)
    return f"≥{least}" if least else None


def _show_failing(advice: Advice, consequence: str) -> None:
    """Print which of the offered chutes failed again and again, and whether others may have.

    The consequence is what advise does with them, such as ``are left out``.
    """
    failures = advice.failures
    if not advice.offers:
        # Nothing is offered, so that no failure matters.
        return
    if not failures.are_all_known:
        say("Not all failures of the past day are known.", fg="yellow")
    if advice.failing:
        chutes = []
        for offer in advice.failing:
            name = offer.public_name or offer.chute_id
            chutes.append(f"{name} ({_failed(advice, offer)})")
        say(
            f"These {consequence}, because {FAILS_FROM} or more of their instances failed on this "
            f"miner's servers in the 24 hours before {moment(failures.until)}: "
            f"{', '.join(chutes)}. The API does not tell on which server. Reasons: chutes-exporter "
            "incidents.",
            fg="yellow",
        )


def _show_refused(market: Market) -> None:
    """Print how many chutes that run on the model cannot be launched, by reason."""
    counts = []
    for reason, text in _REASONS.items():
        count = market.refused.get(reason)
        if count:
            counts.append(f"{count} {text}")
    say(f"Left out: {', '.join(counts) or 'none'}.", indent="  ")


# More GPUs


def _show_forecast(forecast: Forecast) -> None:
    """Print what more GPUs would earn and cost, when they have paid for themselves, and what to
    launch on them.
    """
    gpus = " and ".join(f"{added.count} more {added.model}" for added in forecast.additions)
    text = f"With {gpus}: score share {percent(forecast.share_first_day)} in the first day and "
    text += f"{percent(forecast.share_later)} later, instead of {percent(forecast.share_without)}"
    if forecast.usd_first_day is not None and forecast.usd_per_day_later is not None:
        text += f". They earn {forecast.usd_first_day:,.2f} USD in the first day and "
        text += f"{forecast.usd_per_day_later:,.2f} USD a day later"
    say(f"{text}.", bold=True)
    if forecast.cost_usd_per_day is not None:
        say(f"They cost {forecast.cost_usd_per_day:,.2f} USD a day (--gpu.cost).")
    _show_pay_back(forecast)
    if forecast.gain.idle_gpus:
        say(f"No chute has room for {forecast.gain.idle_gpus} of them.")
    rows = []
    for use in forecast.gain.uses:
        rows += [_launch_row(launch, use.model) for launch in use.launches]
    print_first_rows(rows, _MOST_CHUTES, "chutes", cut=["name"])


def _launch_row(launch: Launch, model: str) -> dict[str, Any]:
    """Return the cells of a launch on new GPUs. The pay is compute units a second of one GPU."""
    offer = launch.offer
    return {
        "chute id": offer.chute_id,
        "name": _chute_name(offer),
        "instances": launch.instances,
        "GPUs": f"{launch.instances * offer.size} {model}",
        "day 1": offer.first_day_units_per_gpu_second,
        "later": offer.later_units_per_second / offer.size,
    }


def _show_pay_back(forecast: Forecast) -> None:
    """Print after how many days the GPUs have paid for themselves, or why that is not known.

    Their price is known if the user gave one for all of them. Without any price, the user did not
    ask.
    """
    if forecast.price_usd is None:
        some_have_prices = len(forecast.without_price) < len(forecast.additions)
        if some_have_prices:
            models = " and ".join(forecast.without_price)
            say(f"When they have paid their price is not known: add the price of {models}.")
        return
    if forecast.without_cost:
        flags = " ".join(f"--gpu.cost {model}=USD_PER_HOUR" for model in forecast.without_cost)
        say(f"When they have paid their price is not known: add {flags}.")
    elif forecast.usd_per_day_later is None:
        say("When they have paid their price is not known without prices of the chain.")
    elif forecast.pay_back_days is None:
        say(f"At the later pay, they never earn their price of {forecast.price_usd:,.0f} USD.")
    else:
        costs = "" if forecast.cost_usd_per_day is not None else ", without running costs,"
        say(
            f"At the later pay{costs} they have paid their price of {forecast.price_usd:,.0f} USD "
            f"after {forecast.pay_back_days:,.0f} days."
        )
