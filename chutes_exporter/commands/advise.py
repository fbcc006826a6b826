"""The command ``advise``: what to launch on idle GPUs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from chutes_exporter.commands.options import (
    Command,
    asks,
    cost_options,
    json_option,
    miner_options,
)
from chutes_exporter.commands.query import first_key
from chutes_exporter.commands.reports import fleets_with_reports
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.snapshot import DOLLARS_ADVICE, take_snapshot
from chutes_exporter.commands.terminal import iso_time, moment, print_first_rows, say
from chutes_exporter.duration import DAY, DAY_HOURS
from chutes_exporter.findings import cost
from chutes_exporter.fleet.failures import FAILS_FROM, Failures
from chutes_exporter.fleet.offers import plan_servers
from chutes_exporter.page.gaps import TRY_AGAIN, NotKnown
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet, Launch, Offer, ServerPlan
    from chutes_exporter.rules.launch import LaunchRefusal

Row = dict[str, Any]
"""A row of a table. Its keys are the headings on the screen and the names in the JSON."""

_METRICS: Final = frozenset({"chutes_compute_unit_usd"})
_MOST_CHUTES: Final = 10
"""Most chutes of a model on the screen."""
_NO_LAUNCHES: Final = "an answer lacks whether the service accepts some chutes, or what they pay"
_REFUSALS: Final[dict[LaunchRefusal, str]] = {
    "not_registered": "the miner has no seat",
    "blacklisted": "the miner is blacklisted",
    "disabled": "the chute is disabled",
    "no_bounty": "private, without an active instance and without a bounty",
    "target_expired": "private, without a current target",
    "no_room": "enough instances are active",
    "enough_starting": "enough instances are starting",
    "tee_mismatch": "needs TEE that the server lacks, or cannot run with TEE",
    "in_maintenance": "the server is in maintenance",
    "too_many_gpus": "needs more idle GPUs than one server has",
    "unknown": "not known",
}
"""Why chutes that run on a model cannot be launched."""
_IDLE_REASONS: Final = {
    "not_known": "whether more can be launched is not known",
    "no_room": "no chute fits that can be launched and does not fail here",
    "upgrade_slot": "the server holds an upgrade slot (see status)",
    "upgrade_due": "the server's upgrade is due within 12 hours (see status)",
    "starts_hang": "an instance has been starting for over an hour (see status)",
    "may_be_dead": "the server has probably died (see status)",
    "use_not_known": "whether the server can be used is not known",
    "server_not_known": "the server is not known",
}
"""Why GPUs stay idle in the plan."""


@click.command(cls=Command)
@miner_options("The request must be signed, so a key is required.")
@cost_options
@json_option
@asks(needs_miner=False)
async def advise(settings: Settings, flags: Mapping[str, Any]) -> Result:  # noqa: ARG001
    """Show what to launch on idle GPUs: a plan, and all chutes that they can run now.

    It leaves out chutes whose launch the service would refuse, and counts them by reason. The plan
    leaves out what failed on this miner's servers in the past day. It requests fresh data from the
    API. The exit status is 0 when there is nothing to launch, 1 when there is, 2 when the command
    line is wrong, and 3 when nothing was found but something is not known.
    """
    # needs_miner is False above, because a hotkey without its key is not enough. Without a key,
    # this raises UsageError.
    first_key(settings)
    snapshot = await take_snapshot(settings, _METRICS)
    fleets = snapshot.fleets
    # Failures matter only if there are offers, which may be of chutes that failed.
    if any(market.offers for fleet in fleets.values() for market in fleet.markets or ()):
        fleets = await fleets_with_reports(snapshot, settings, DAY_HOURS)
    miners = []
    for hotkey in sorted(settings.watched):
        is_known = hotkey in snapshot.counted
        snapshot.gaps.extend(_gaps(fleets[hotkey], is_known=is_known))
        usd_per_unit = snapshot.value("chutes_compute_unit_usd")
        miners.append(_Advice(fleets[hotkey], usd_per_unit, settings, is_known).tables())
    show = partial(_show, miners, snapshot.now, settings)
    needs_action = any(miner["chutes"] for miner in miners)
    return Result({"api": settings.api_url, "miners": miners}, show, snapshot.gaps, needs_action)


def _gaps(fleet: Fleet, *, is_known: bool) -> list[NotKnown]:
    """Return what is not known about the chutes for idle GPUs.

    ``is_known`` is whether the states of all GPUs are known. Otherwise the report has a gap about
    them.
    """
    if fleet.markets is None:
        has_idle = any(gpu.state == "idle" for gpu in fleet.gpus)
        subjects = ["chutes for idle GPUs"] if is_known and has_idle else []
    else:
        unknown = [market.model for market in fleet.markets if market.refused.get("unknown")]
        subjects = [f"chutes for {model}" for model in unknown]
    return [NotKnown(subject, fleet.hotkey, _NO_LAUNCHES, TRY_AGAIN) for subject in subjects]


@dataclass(frozen=True)
class _Advice:
    """Makes the tables of the advice to a miner. A table of which nothing is known is None.

    Attributes:
        is_known: Whether the states of all its GPUs are known.
    """

    fleet: Fleet
    usd_per_unit: float | None
    settings: Settings
    is_known: bool

    @property
    def failures(self) -> Failures:
        """What failed on the miner's servers in the past day, if that was asked."""
        return self.fleet.failures or Failures({}, {}, are_all_known=False, names={}, reasons={})

    def tables(self) -> dict[str, Any]:
        """Return the tables, each a list of rows, by name."""
        plan = stay_idle = idle = chutes = refused = None
        fleet = self.fleet
        if self.is_known:
            idle = self._idle()
        if self.is_known and fleet.markets is not None:
            plans = plan_servers(
                fleet.servers, fleet.markets, fleet.left_out, avoided=self.failures.failing
            )
            plan = self._plan(plans)
            stay_idle = self._stay_idle(plans)
            chutes, refused = self._chutes(), self._refused()
        return {
            "hotkey": fleet.hotkey,
            "plan": plan,
            "stay_idle": stay_idle,
            "idle": idle,
            "chutes": chutes,
            "refused": refused,
        }

    def _plan(self, plans: Iterable[ServerPlan]) -> list[Row]:
        """Return a row for each launch, the servers with the most units first, then their sum."""
        plans = sorted(plans, key=lambda plan: plan.first_day_units or 0.0, reverse=True)
        rows = [self._launch(plan, launch) for plan in plans for launch in plan.launches]
        if rows:
            # None if something more may be possible where nothing is planned.
            first_day_units = total(plan.first_day_units for plan in plans)
            later = None
            if first_day_units is not None:
                later = sum(plan.later_units_per_second for plan in plans)
            everything = {
                "server": "all",
                "instances": sum(row["instances"] for row in rows),
                "gpus": sum(row["gpus"] for row in rows),
            }
            rows.append(everything | self._pay(first_day_units, later))
        return rows

    def _launch(self, plan: ServerPlan, launch: Launch) -> Row:
        offer, instances = launch.offer, launch.instances
        return {
            "server": self._server_name(plan.server_id),
            "chute": offer.chute,
            "instances": instances,
            "gpus": instances * offer.size,
            "gpu": plan.model,
            **self._pay(
                instances * offer.first_day_units, instances * offer.later_units_per_second
            ),
            "chute_id": offer.chute_id,
            "private": offer.private,
            "urgency_boost": offer.urgency_boost,
            "server_id": plan.server_id,
        }

    def _pay_of(self, offer: Offer, instances: float) -> Row:
        return self._pay(
            instances * offer.first_day_units, instances * offer.later_units_per_second
        )

    def _pay(self, first_day_units: float | None, later_units_per_second: float | None) -> Row:
        """Return the cells of what something earns in its first day, and in a day later."""
        later_units = product(later_units_per_second, DAY)
        return {
            "units_first_day": first_day_units,
            "units_later_day": later_units,
            "usd_first_day": product(first_day_units, self.usd_per_unit),
            "usd_later_day": product(later_units, self.usd_per_unit),
        }

    def _stay_idle(self, plans: Sequence[ServerPlan]) -> list[Row]:
        """Return the idle GPUs that the plan does not use, and why."""
        unused: list[tuple[str, str, int, str]] = []
        for plan in plans:
            reason = "not_known" if plan.may_be_more else "no_room"
            unused.append((plan.server_id, plan.model, plan.free - plan.used, reason))
        planned_servers = {plan.server_id for plan in plans}
        others = Counter(
            (gpu.server_id or "", gpu.model or "")
            for gpu in self.fleet.gpus
            if gpu.state == "idle" and gpu.server_id not in planned_servers
        )
        for (server_id, model), count in others.items():
            reason = self.fleet.left_out.get(server_id, "server_not_known")
            unused.append((server_id, model, count, reason))
        rows = []
        for server_id, model, count, reason in unused:
            if count:
                row = {"server": self._server_name(server_id), "gpus": count, "gpu": model}
                rows.append(row | {"reason": reason, "meaning": _IDLE_REASONS[reason]})
        return rows

    def _server_name(self, server_id: str) -> str | None:
        server = self.fleet.servers_by_id.get(server_id)
        return (server and server.name) or server_id or None

    def _idle(self) -> list[Row]:
        """Return how many GPUs of each model are idle, and what they cost."""
        rows = []
        idle_gpus = [gpu for gpu in self.fleet.gpus if gpu.state == "idle"]
        for model in sorted({gpu.model for gpu in idle_gpus if gpu.model}):
            gpus = [gpu for gpu in idle_gpus if gpu.model == model]
            usd_per_hour = cost(gpus, self.fleet, self.settings.costs)
            rows.append({"gpu": model, "idle": len(gpus), "cost_usd_per_hour": usd_per_hour})
        return rows

    def _chutes(self) -> list[Row]:
        """Return the chutes that can be launched, by model. Those that failed here come last."""
        rows: list[Row] = []
        for market in self.fleet.markets or ():
            offers = sorted(
                market.offers, key=lambda offer: self.failures.fails(offer.chute_id) is True
            )
            rows += (self._chute(offer) for offer in offers)
        return rows

    def _chute(self, offer: Offer) -> Row:
        pay_of_gpu = self._pay_of(offer, 1 / offer.size)
        return {
            "gpu": offer.model,
            "chute": offer.chute,
            "gpus": offer.size,
            **{f"{name}_per_gpu": value for name, value in pay_of_gpu.items()},
            "room_after_starting": offer.room_after_starting,
            "fails_here": self.failures.fails(offer.chute_id),
            "failed_24h": self.failures.count(offer.chute_id),
            "hanging_here": offer.hanging,
            "private": offer.private,
            "urgency_boost": offer.urgency_boost,
            "bounty_boost": offer.bounty_boost,
            "chute_id": offer.chute_id,
            "bounty_expires_at": iso_time(offer.bounty_expires_at),
            "room_now": offer.room_now,
            "starting_instances": offer.starting,
            "unclear_24h": self.failures.unclear.get(offer.chute_id, 0),
        }

    def _refused(self) -> list[Row]:
        """Return how many other chutes run on each model, and why they cannot be launched."""
        rows = []
        for market in self.fleet.markets or ():
            for reason, meaning in _REFUSALS.items():
                if chutes := market.refused.get(reason):
                    row = {"gpu": market.model, "chutes": chutes}
                    rows.append(row | {"reason": reason, "meaning": meaning})
        return rows


def _show(miners: Iterable[Mapping[str, Any]], now: float, settings: Settings) -> None:
    """Print the advice to each miner."""
    for miner in miners:
        say(f"{miner['hotkey']}  {moment(now)}", bold=True)
        if miner["idle"] is None:
            say("The idle GPUs are not known.")
        elif not miner["idle"]:
            say("No GPU is idle.", fg="green")
        elif miner["plan"] is None:
            say("What the idle GPUs can run is not known.")
        elif not miner["plan"]:
            say("No chute can run on the idle GPUs now.")
        if miner["idle"]:
            _show_tables(miner)
        click.echo()
    # The price of compute units in dollars comes from the chain.
    if settings.chain_url is None and any(miner["chutes"] for miner in miners):
        say(DOLLARS_ADVICE)


def _show_tables(miner: Mapping[str, Any]) -> None:
    """Print the tables of a miner with idle GPUs: the plan first."""
    chutes = miner["chutes"] or ()
    if any(row["failed_24h"] is None for row in chutes):
        say("It is not known what failed here: the plan may have such chutes.", fg="yellow")
    _show_table("Plan", miner["plan"])
    _show_table("Idle in the plan", miner["stay_idle"])
    _show_table("All idle GPUs", miner["idle"])
    for model in dict.fromkeys(row["gpu"] for row in chutes):
        rows = [row for row in chutes if row["gpu"] == model]
        _show_table(f"Chutes for {model}", rows, most=_MOST_CHUTES)
    if any(row["fails_here"] for row in chutes):
        say(
            f"Chutes that fail here have {FAILS_FROM} or more failures on this miner's servers in "
            "the 24 hours before the newest hourly report. The plan leaves them out. Reasons: "
            "chutes-exporter incidents.",
            fg="yellow",
        )
    _show_table("Chutes that cannot be launched", miner["refused"])


def _show_table(title: str, rows: Sequence[Row] | None, most: int | None = None) -> None:
    """Print a table with its title. Without rows, print nothing."""
    if not rows:
        return
    click.echo()
    say(title, bold=True)
    print_first_rows(rows, most or len(rows), "chutes", cut=("server", "chute"))
