"""The advice on the screen."""

from __future__ import annotations

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

    from chutes_exporter.commands.advice import Advice, IdleReason
    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet, Launch, Market, Offer, Use
    from chutes_exporter.rules.launch import LaunchRefusal

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
    "upgrade_due": "the server must be upgraded, and the window ends WINDOW_END",
    "starts_hang": "no instance on the server is active, and one has been starting for over an "
    "hour",
    "may_be_dead": "the server has probably died, or one like it (chutes-exporter status)",
    "use_not_known": "it is not known whether the server can be used",
    "server_not_known": "their server is not known",
}
"""Why idle GPUs are not in the plan, after "stay idle:"."""
_LEGEND: Final = (
    "Day 1, later: compute units a second of one GPU, on average of the first day and, for "
    "certain, from 8 hours after the activation on. USD: an estimate for one GPU and a day. Boost: "
    "a factor in the pay of now. Later is without it, because it lasts only while the chute wants "
    "more instances. Room: launches that can still become active. Starting: instances of all "
    "miners. Bounty, left: its factor, and the hours until it expires. Use %, refused %: load and "
    "refused requests in 15 minutes."
)


class AdviceScreen:
    """Shows advice."""

    def __init__(self, report: Report, settings: Settings, *, shows_plan: bool) -> None:
        self._report, self._settings, self._shows_plan = report, settings, shows_plan
        self._pricing = Pricing(report)

    def show(self, miners: Sequence[Advice]) -> None:
        """Print the advice to each miner, then what the columns mean, and how to get dollars."""
        for advice in miners:
            say(f"{advice.fleet.hotkey}  {moment(self._report.now)}", bold=True)
            self._show_advice(advice)
            click.echo()
        has_offers = any(advice.offers for advice in miners)
        if has_offers and not self._shows_plan:
            say(_LEGEND)
        # The price of compute units in dollars comes from the chain.
        if has_offers and self._settings.chain_url is None:
            say(DOLLARS_ADVICE)

    def _show_advice(self, advice: Advice) -> None:
        """Print what to launch on idle GPUs: a plan, or the chutes of each model."""
        models = idle_models(advice.fleet)
        if not advice.is_known:
            say("The idle GPUs are not known.")
        elif not models:
            say("No GPU is idle.", fg="green")
        elif self._shows_plan:
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
        row["boost"] = _boost(offer)
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
                "There is no plan, because it is not known which chutes the idle GPUs can run. "
                "Without --plan, advise shows what is known."
            )
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
            window = advice.fleet.window
            ends_at = None if window is None else window.ends_at
            ends = "at an unknown time" if ends_at is None else f"at {moment(ends_at)}"
            reason = reason.replace("WINDOW_END", ends)
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
        cells["boost"] = _boost(launch.offer)
        return cells


def _hours_and_minutes(seconds: float | None) -> str | None:
    """Return a duration such as ``2:05``."""
    if seconds is None:
        return None
    hours, minutes = seconds // HOUR, seconds % HOUR // MINUTE
    return f"{hours:.0f}:{minutes:02.0f}"


def _boost(offer: Offer) -> str | None:
    """Return the factor of the urgency in the pay of now, such as ``x 1.8``, None if it is 1."""
    boost = f"{offer.urgency_boost:.2g}"
    return None if boost == "1" else f"x {boost}"


def _chute_name(offer: Offer) -> str:
    """Return the name of the chute, and whether it is private: its score can be lost at any age."""
    name = offer.chute or "-"
    return f"{name} (private)" if offer.private else name


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
    failures = advice.failures
    least = failures.known.get(offer.chute_id, 0)
    if failures.are_all_known and offer.chute_id not in failures.unclear:
        return least
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
        say(_unknown_failures_text(advice), fg="yellow")
    if advice.failing:
        chutes = [
            f"{offer.chute or offer.chute_id} ({_failed(advice, offer)})"
            for offer in advice.failing
        ]
        say(
            f"These {consequence}, because {FAILS_FROM} or more of their instances failed on this "
            f"miner's servers in the 24 hours before {moment(failures.until)}: "
            f"{', '.join(chutes)}. The API does not tell on which server. Reasons: chutes-exporter "
            "incidents.",
            fg="yellow",
        )


def _unknown_failures_text(advice: Advice) -> str:
    """Return of which hours it is not known what failed."""
    if advice.missing_hours is None:
        return "It is not known what failed here: no hourly report could be read."
    hours = [moment(end) for end in advice.missing_hours]
    if not hours:
        return "Not all failures of the past day are known."
    unknown = "It is not known what failed here in the"
    if len(hours) == 1:
        return f"{unknown} hour before {hours[0]}: its report is missing."
    return f"{unknown} hours before {', '.join(hours)}: their reports are missing."


def _show_refused(market: Market) -> None:
    """Print how many chutes that run on the model cannot be launched, by reason."""
    counts = []
    for reason, text in _REASONS.items():
        count = market.refused.get(reason)
        if count:
            counts.append(f"{count} {text}")
    say(f"Left out: {', '.join(counts) or 'none'}.", indent="  ")
