"""The command ``status``: how the miners stand and what needs action, on one screen."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.errors import ApiError
from chutes_exporter.collectors.money import UNIT
from chutes_exporter.commands.options import (
    Command,
    asks,
    cost_options,
    miner_options,
    require_miner,
)
from chutes_exporter.commands.prices import PriceGaps
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.snapshot import take_snapshot
from chutes_exporter.commands.terminal import Row, iso_time, print_table, say
from chutes_exporter.duration import utc_text
from chutes_exporter.feeds import definitions as e
from chutes_exporter.findings import cost, find, summary, verdict
from chutes_exporter.fleet.gpus import GPU_STATES
from chutes_exporter.fleet.upgrades import plan_upgrades
from chutes_exporter.page.gaps import NotKnown, main_reason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from chutes_exporter.api.records import ServerMaintenance
    from chutes_exporter.config import Settings
    from chutes_exporter.findings import Finding
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.fleet.upgrades import Upgrade
    from chutes_exporter.rules.money import Costs

_MOST_NAMES = 5
"""Most names of a finding on the screen."""

_STANDING = {
    "rank": "chutes_miner_score_rank",
    "share": "chutes_miner_score_ratio",
    "heading_share": "chutes_miner_score_heading_ratio",
    "incentive_share": "chutes_miner_incentive_ratio",
    "estimated_alpha_per_day": "chutes_miner_emission_alpha_per_day",
    "estimated_usd_per_day": "chutes_miner_estimated_usd_per_day",
    "scored_miners": "chutes_scored_miners",
}
"""How a miner stands, and the metric that says it."""


@click.command(cls=Command)
@miner_options("At least one hotkey is required.")
@cost_options
@asks
async def status(settings: Settings, flags: Mapping[str, Any]) -> Result:  # noqa: ARG001
    """Show what needs action, and how a miner stands.

    The exit status is 0 if nothing needs action, 1 if something does, 2 if the command line is
    wrong, and 3 if nothing that is known needs action, but a key is missing, requests failed or
    answers are incomplete.
    """
    require_miner(settings)
    snapshot = await take_snapshot(settings, frozenset((*_STANDING.values(), UNIT.name)))
    unit_usd = snapshot.value(UNIT.name)
    gaps = [*snapshot.gaps]
    miners: list[Row] = []
    found: dict[str, list[Finding]] = {}
    for hotkey, fleet in sorted(snapshot.fleets.items()):
        found[hotkey] = find(fleet, snapshot.now, settings.costs, unit_usd)
        miner: Row = {"hotkey": hotkey, "gpus": None}
        if fleet.known["gpus"]:
            miner["gpus"] = _gpu_rows(fleet, settings.costs)
        for name, metric in _STANDING.items():
            miner[name] = snapshot.value(metric, hotkey=hotkey)
        miners.append(miner | await _read_maintenance(settings, fleet, snapshot.now, gaps))
    findings = [*chain.from_iterable(found.values())]
    conclusion = f"Nothing is known, because no request succeeded: {main_reason(gaps)}."
    if any(state.kept for state in snapshot.states.values()):
        conclusion = verdict(findings, main_reason(gaps))
    needs_action = any(finding.needs_action for finding in findings)
    prices = _compare_prices(settings.costs, snapshot.fleets.values())
    result = {
        "api": settings.api_url,
        "verdict": conclusion,
        "action_needed": needs_action,
        "miners": miners,
        "prices": asdict(prices),
        "findings": [asdict(one) | {"deadline": iso_time(one.deadline)} for one in findings],
    }
    show = partial(_print_screen, result, found, gaps, snapshot.now, settings, str(prices))
    return Result(result, show, gaps, needs_action)


def _gpu_rows(fleet: Fleet, costs: Costs) -> list[Row]:
    rows = []
    for model in [*sorted({gpu.model for gpu in fleet.gpus if gpu.model}), "all"]:
        # A GPU of an unknown model is only in the sum.
        gpus = [gpu for gpu in fleet.gpus if model in ("all", gpu.model)]
        states = Counter(gpu.state for gpu in gpus)
        row: Row = {"gpu": model} | {state: states[state] for state in GPU_STATES}
        rows.append(row | {"all": len(gpus), "cost_usd_per_hour": cost(gpus, fleet, costs)})
    return rows


def _compare_prices(costs: Costs, fleets: Collection[Fleet]) -> PriceGaps:
    places = []
    for fleet in fleets:
        for gpu in fleet.gpus:
            server = fleet.servers_by_id.get(gpu.server_id or "")
            places.append((server.name if server else None, gpu.model))
    are_all = all(fleet.known["gpus"] for fleet in fleets)
    return PriceGaps.of(costs, places, are_all=are_all)


async def _read_maintenance(
    settings: Settings, fleet: Fleet, now: float, gaps: list[NotKnown]
) -> Row:
    """Return the maintenance of a miner: the newest window, and a row for each server.

    What a pending server waits for is added to the gaps if it is not known.
    """
    keys = {key.address: key for key in settings.keys}
    plan = plan_upgrades(fleet, now)
    rows = []
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        for upgrade in plan.servers:
            server, pending = upgrade.server, None
            if server.maintenance == "pending":
                # Only the answer about a single server says what it waits for.
                key, path = keys[fleet.hotkey], {"server_id": server.server_id}
                try:
                    answer = await client.fetch(e.SERVER_MAINTENANCE, key=key, params=path)
                    pending = answer.value
                except ApiError as error:
                    subject = f"server_maintenance of {server.shown_name}"
                    gaps.append(NotKnown.after(error, subject, fleet.hotkey))
            rows.append(_server_row(upgrade, pending, fleet, now))
    window = fleet.window
    shown_window = {
        "window": plan.phase,
        "starts_at": iso_time(window.starts_at),
        "ends_at": iso_time(window.ends_at),
        "last_request_at": iso_time(window.last_request_at),
        "free_slots": plan.slots and plan.slots.free,
        "late": plan.late,
        "slots": window.slots,
        "target_version": window.target,
    }
    return {"window": shown_window, "maintenance": rows}


def _server_row(
    upgrade: Upgrade, pending: ServerMaintenance | None, fleet: Fleet, now: float
) -> Row:
    server, reason = upgrade.server, upgrade.reason
    waits_for = pending_until = None
    if pending is not None:
        names = {instance.chute_id: instance.chute for instance in fleet.instances}
        waits_for = [
            names.get(one.chute_id) or one.chute_id for one in pending.awaiting_replacement
        ]
        chutes = ", ".join(waits_for) or "none"
        reason += f" It waits until these chutes are active elsewhere, with any miner: {chutes}."
        if pending.pending_deadline is not None:
            pending_until = iso_time(pending.pending_deadline)
            latest = utc_text(pending.pending_deadline)
            reason += f" Its maintenance begins at {latest} at the latest."
    return {
        "server": server.shown_name,
        "step": upgrade.step,
        "done_by": iso_time(upgrade.done_at),
        "late": upgrade.is_late,
        "units_lost_by_reboot": server.lost_by_reboot(now),
        "earning_instances": server.earning_instances,
        "last_instances": server.last_instances,
        "unused_gpus": server.unused_gpus,
        "version": server.version,
        "status": server.maintenance,
        "server_id": server.server_id,
        "reason": reason,
        "pending_until": pending_until,
        "waits_for": waits_for,
    }


# The screen


def _print_screen(
    result: Mapping[str, Any],
    findings: Mapping[str, Sequence[Finding]],
    gaps: Sequence[NotKnown],
    now: float,
    settings: Settings,
    prices: str,
) -> None:
    color = "yellow" if gaps else "green"
    say(result["verdict"], bold=True, fg="red" if result["action_needed"] else color)
    for miner in result["miners"]:
        click.echo()
        say(f"{miner['hotkey']}  {utc_text(now)}", bold=True)
        if text := summary(findings[miner["hotkey"]]):
            say(text, bold=True)
        for number, finding in enumerate(findings[miner["hotkey"]], 1):
            _print_finding(finding, number)
        print_table([miner], _STANDING, title="Standing")
        if miner["heading_share"] is not None:
            say("Without changes, the share becomes heading_share within a day.")
        print_table(miner["gpus"], title="GPUs")
        _print_maintenance(miner)
    if prices:
        say(prices, fg="yellow")
    if not settings.costs:
        say("For the cost of GPUs, add --gpu.cost MODEL=USD_PER_HOUR.")
    if settings.chain_url is None:
        say("For earnings in US dollars, add --chain.url URL.")


def _print_finding(finding: Finding, number: int) -> None:
    text = f"{finding.worth}: {finding.problem}" if finding.worth else finding.problem
    if finding.gpus:
        gpus = ", ".join(f"{count} {model}" for model, count in finding.gpus.items())
        text += f" GPUs that earn nothing: {gpus}"
        usd = finding.cost_usd_per_hour
        text += "." if usd is None else f", for {usd:,.2f} USD per hour."
    if finding.needs_action:
        say(f"{number}. {text}", indent="   ", fg="red")
    else:
        say(f"-  {text}", indent="   ")
    for name in finding.things[:_MOST_NAMES]:
        say(name, indent="     ", start="   ")
    hidden = len(finding.things) - _MOST_NAMES
    if hidden > 0:
        say(f"and {hidden} more", start="   ")
    if finding.command:
        say(f"→ {finding.advice}: {finding.command}", indent="     ", start="   ")


def _print_maintenance(miner: Row) -> None:
    """Print the maintenance of a miner, if a window is open or announced or a server has a step."""
    window = miner["window"]
    rows = [row for row in miner["maintenance"] if row["step"] != "nothing"]
    if not rows and window["window"] not in ("open", "announced"):
        return
    print_table([window], title="Maintenance window")
    if window["late"]:
        say("Not all servers will be done in time. Ask the operators of Chutes for more time.")
    print_table(rows, title="Maintenance of servers")
    for row in rows:
        say(f"{row['server']}: {row['reason']}", indent="  ")
    if rows:
        say("Do not reboot a server before its step is boot: what runs there would lose its score.")
