"""The command ``advise``: what to launch on idle GPUs."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import click

from chutes_exporter.commands.options import Command, asks, miner_options, require_key
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.snapshot import take_snapshot
from chutes_exporter.commands.terminal import Row, iso_time, print_table, say
from chutes_exporter.duration import DAY, utc_text
from chutes_exporter.fleet.failures import FAILS_FROM, FAILURE_HOURS
from chutes_exporter.page.gaps import TRY_AGAIN, NotKnown
from chutes_exporter.rules.money import bounty_boost, bounty_expires_at, urgency_boost
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.rules.launch import LaunchRefusal

_UNIT_USD: Final = "chutes_compute_unit_usd"
_TABLES: Final = ("idle_gpus", "plan", "stay_idle", "chutes", "refused")
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
    "nothing_fits": "no chute fits that can be launched and does not fail here",
    "upgrade_slot": "the server holds an upgrade slot (see status)",
    "upgrade_due": "the server's upgrade is due within 12 hours (see status)",
    "starts_hang": "an instance has been starting for over an hour (see status)",
    "may_be_dead": "the server has probably died (see status)",
    "use_not_known": "whether the server can be used is not known",
}
"""Why GPUs stay idle in the plan."""


@click.command(cls=Command)
@miner_options("The request must be signed, so a key is required.")
@asks
async def advise(settings: Settings, flags: Mapping[str, Any]) -> Result:  # noqa: ARG001
    """Show what to launch on idle GPUs: a plan, and all chutes that they can run now.

    It leaves out chutes whose launch the service would refuse, and counts them by reason. The plan
    leaves out what failed on this miner's servers in the past 6 hours. It requests fresh data from
    the API. The exit status is 0 when there is nothing to launch, 1 when there is, 2 when the
    command line is wrong, and 3 when nothing was found but something is not known.
    """
    # A hotkey without its key is not enough.
    require_key(settings)
    snapshot = await take_snapshot(settings, frozenset({_UNIT_USD}))
    gaps = [*snapshot.gaps]
    miners = []
    for hotkey in sorted(settings.watched):
        fleet = snapshot.fleets[hotkey]
        # A table of which nothing is known is None.
        miner: dict[str, Any] = {"hotkey": hotkey, **dict.fromkeys(_TABLES)}
        if fleet.known["gpus"]:
            miner["idle_gpus"] = sum(gpu.state == "idle" for gpu in fleet.gpus)
            miner |= _tables(fleet, snapshot.value(_UNIT_USD))
        for market in fleet.markets or ():
            if market.refused.get("unknown"):
                subject = f"chutes for {market.model}"
                gaps.append(NotKnown(subject, hotkey, _NO_LAUNCHES, TRY_AGAIN))
        miners.append(miner)
    show = partial(_show, miners, snapshot.now)
    needs_action = any(miner["chutes"] for miner in miners)
    return Result({"api": settings.api_url, "miners": miners}, show, gaps, needs_action)


def _tables(fleet: Fleet, usd_per_unit: float | None) -> dict[str, list[Row]]:
    if fleet.markets is None:
        return {}
    chutes, refused = [], []
    failures = fleet.failures
    for market in fleet.markets:
        # Those that fail here come last.
        for offer in sorted(market.offers, key=lambda one: failures.fails(one.chute_id) is True):
            demand = offer.demand
            first_day_units = offer.first_day_units / offer.size
            later_units_per_second = offer.later_units_per_second / offer.size
            pay_of_gpu = _pay(first_day_units, later_units_per_second, usd_per_unit)
            chutes.append(
                {
                    "chute": offer.chute,
                    "gpus": offer.size,
                    **{f"{name}_per_gpu": value for name, value in pay_of_gpu.items()},
                    "bounty_expires_at": iso_time(bounty_expires_at(demand.bounty)),
                    "room_after_starting": offer.room_after_starting,
                    "fails_here": failures.fails(offer.chute_id),
                    "failed_6h": failures.count(offer.chute_id),
                    "hanging_here": offer.hanging,
                    "private": not demand.chute.public,
                    "urgency_boost": urgency_boost(demand.chute),
                    "bounty_boost": bounty_boost(demand.bounty),
                    "gpu": offer.model,
                    "chute_id": offer.chute_id,
                    "room_now": demand.room_now,
                    "starting_instances": demand.starting,
                    "unclear_6h": failures.unclear.get(offer.chute_id, 0),
                }
            )
        for reason, meaning in _REFUSALS.items():
            if count := market.refused.get(reason):
                row = {"gpu": market.model, "chutes": count}
                refused.append(row | {"meaning": meaning, "reason": reason})
    plan, stay_idle = _plan(fleet, usd_per_unit), _stay_idle(fleet)
    return {"plan": plan, "stay_idle": stay_idle, "chutes": chutes, "refused": refused}


def _plan(fleet: Fleet, usd_per_unit: float | None) -> list[Row]:
    rows: list[Row] = []
    suspects = fleet.suspected_servers if fleet.known["reports"] else None
    for plan in sorted(fleet.plans, key=lambda plan: plan.first_day_units or 0.0, reverse=True):
        for launch in plan.launches:
            offer, demand = launch.offer, launch.offer.demand
            pay = _pay(launch.first_day_units, launch.later_units_per_second, usd_per_unit)
            server = fleet.servers_by_id[plan.server_id].shown_name
            rows.append(
                {
                    "server": server,
                    "chute": offer.chute,
                    "instances": launch.instances,
                    "gpus": launch.gpus,
                    "gpu": plan.model,
                    **pay,
                    "bounty_expires_at": iso_time(bounty_expires_at(demand.bounty)),
                    "suspected": None if suspects is None else server in suspects,
                    "chute_id": offer.chute_id,
                    "private": not demand.chute.public,
                    "urgency_boost": urgency_boost(demand.chute),
                    "server_id": plan.server_id,
                }
            )
    return [*rows, _sum_of_plan(fleet, rows, usd_per_unit)] if rows else []


def _sum_of_plan(fleet: Fleet, rows: list[Row], usd_per_unit: float | None) -> Row:
    # Not known if something more may be possible where nothing is planned.
    first_day_units = total(plan.first_day_units for plan in fleet.plans)
    later_units_per_second = None
    if first_day_units is not None:
        later_units_per_second = sum(plan.later_units_per_second for plan in fleet.plans)
    return {
        "server": "all",
        "instances": sum(row["instances"] for row in rows),
        "gpus": sum(row["gpus"] for row in rows),
        **_pay(first_day_units, later_units_per_second, usd_per_unit),
    }


def _pay(
    first_day_units: float | None,
    later_units_per_second: float | None,
    usd_per_unit: float | None,
) -> Row:
    later_units = product(later_units_per_second, DAY)
    return {
        "units_first_day": first_day_units,
        "units_later_day": later_units,
        "usd_first_day": product(first_day_units, usd_per_unit),
        "usd_later_day": product(later_units, usd_per_unit),
    }


def _stay_idle(fleet: Fleet) -> list[Row]:
    places = [(gpu.server_id or "", str(gpu.model)) for gpu in fleet.gpus if gpu.state == "idle"]
    unused = Counter(places)
    # The GPUs of an unknown server are in no plan.
    reasons: dict[tuple[str, str], str] = {}
    for plan in fleet.plans:
        place = plan.server_id, plan.model
        unused[place] -= plan.used
        reasons[place] = "not_known" if plan.may_be_more else "nothing_fits"
    rows = []
    # The plus leaves out those of which the plan uses all.
    for (server_id, model), count in (+unused).items():
        reason = fleet.left_out.get(server_id, reasons.get((server_id, model), "not_known"))
        server = fleet.servers_by_id.get(server_id)
        name = server.shown_name if server else server_id
        row = {"server": name or None, "gpus": count, "gpu": model}
        rows.append(row | {"meaning": _IDLE_REASONS[reason], "reason": reason})
    return rows


def _show(miners: Iterable[Mapping[str, Any]], now: float) -> None:
    for miner in miners:
        say(f"{miner['hotkey']}  {utc_text(now)}", bold=True)
        if miner["idle_gpus"] is None:
            say("The idle GPUs are not known.")
        elif not miner["idle_gpus"]:
            say("No GPU is idle.", fg="green")
        elif miner["plan"] is None:
            say(f"What the {miner['idle_gpus']} idle GPUs can run is not known.")
        elif not miner["plan"]:
            say("No chute can run on the idle GPUs now.")
        print_table(miner["plan"], title="Plan")
        _show_cautions(miner)
        print_table(miner["stay_idle"], title="Idle in the plan")
        _show_chutes(miner["chutes"] or [])
        print_table(miner["refused"], title="Chutes that cannot be launched")
        click.echo()


def _show_cautions(miner: Mapping[str, Any]) -> None:
    planned = miner["plan"] or ()
    if any(row.get("bounty_expires_at") for row in planned):
        say("A bounty counts only if the instance is active before it expires.")
    if suspects := ", ".join(sorted({row["server"] for row in planned if row.get("suspected")})):
        say(
            f"Instances may have failed on {suspects} (see status). The plan still uses them: look "
            "after an hour whether what you launch there still earns.",
            fg="yellow",
        )


def _show_chutes(chutes: list[Row]) -> None:
    if any(row["failed_6h"] is None for row in chutes):
        say("It is not known what failed here: the plan may have such chutes.", fg="yellow")
    for model, rows in groupby(chutes, itemgetter("gpu")):
        print_table([*rows], title=f"Chutes for {model}", most=_MOST_CHUTES)
    if any(row["fails_here"] for row in chutes):
        say(
            f"Chutes that fail here have {FAILS_FROM} or more failures on this miner's servers in "
            f"the {FAILURE_HOURS} hours before the newest hourly report. The plan leaves them out. "
            "Reasons: chutes-exporter incidents.",
            fg="yellow",
        )
