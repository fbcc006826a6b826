"""The command ``status``: how the miners stand and what needs action, on one screen."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.api import endpoints as e
from chutes_exporter.collectors.fleet import STATES
from chutes_exporter.commands.options import Command, json_option, miner_options, money_options, run_with_status
from chutes_exporter.commands.report import collect_report, samples_of
from chutes_exporter.commands.result import NotKnown, Result
from chutes_exporter.commands.terminal import print_table, say
from chutes_exporter.duration import human_duration
from chutes_exporter.feeds.table import MAINTENANCE
from chutes_exporter.findings import NEEDED_METRICS, cost, find, verdict
from chutes_exporter.rules.maintenance import holds_slot, maintenance_status, slots_of_older_windows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings
    from chutes_exporter.findings import Finding

_SHOWN = 5
"""Most names of a finding on the screen."""

_METRICS = NEEDED_METRICS | {
    "chutes_miner_incentive_ratio",
    "chutes_miner_score_heading_ratio",
    "chutes_miner_score_rank",
    "chutes_miner_score_ratio",
    "chutes_scored_miners",
}


@click.command(cls=Command)
@miner_options("At least one hotkey is required.")
@money_options
@json_option
def status(**flags: Any) -> None:
    """Show what needs action, and how a miner stands.

    The exit status is 0 if nothing needs action, 1 if something does, 2 if the command line is wrong, and 3 if nothing
    that is known needs action, but a key is missing, requests failed or answers are incomplete.
    """
    run_with_status(run_status, flags)


async def run_status(settings: Settings) -> Result:
    """Ask once."""
    report = await collect_report(settings, _METRICS)
    hotkeys = sorted(settings.watched)
    slots = await _servers_in_slot(settings, report)
    miners = [_miner(settings, hotkey, report) | {"maintenance": slots.get(hotkey, [])} for hotkey in hotkeys]
    prices = settings.gpu_costs
    findings = [item for hotkey in hotkeys for item in find(report.samples, hotkey, report.now, prices)]
    line = (
        verdict(findings, prices, all_known=not report.gaps)
        if report.answered
        else "Nothing is known, because no request succeeded."
    )
    action_needed = any(finding.needs_action for finding in findings)
    summary = {
        "api": settings.api_url,
        "verdict": line,
        "action_needed": action_needed,
        "miners": miners,
        "findings": list(map(asdict, findings)),
    }
    return Result(summary, partial(_print_screen, summary, findings, report, prices), report.gaps, action_needed)


def _miner(settings: Settings, hotkey: str, report: Report) -> dict[str, Any]:
    """Return how a miner stands. What is not known is None, and without a key these are its GPUs and their cost."""
    values = {
        metric: value
        for metric in _METRICS
        for labels, value in report.samples.get(metric, ())
        if labels in ({"hotkey": hotkey}, {})
    }
    gpus: dict[str, dict[str, int]] = {}
    for labels, count in samples_of(report.samples, "chutes_fleet_gpus", hotkey):
        gpus.setdefault(labels["gpu"], {})[labels["state"]] = int(count)
    every = {model: sum(counts.values()) for model, counts in gpus.items()}
    idle = {model: counts["idle"] for model, counts in gpus.items()}
    is_counted = hotkey in report.counted
    rank = values.get("chutes_miner_score_rank")
    incentive = values.get("chutes_miner_incentive_ratio")
    alpha = _product(incentive, settings.daily_emission)
    return {
        "hotkey": hotkey,
        "private": any(key.address == hotkey for key in settings.keys),
        "rank": int(rank) if rank else None,
        "scored_miners": int(values.get("chutes_scored_miners", 0)) or None,
        "share": values.get("chutes_miner_score_ratio"),
        "heading_share": values.get("chutes_miner_score_heading_ratio"),
        "incentive_share": incentive,
        "gpus": gpus if is_counted else None,
        "cost_usd_per_hour": cost(every, settings.gpu_costs) if is_counted else None,
        "idle_cost_usd_per_hour": cost(idle, settings.gpu_costs) if is_counted else None,
        "models_without_cost": sorted(every.keys() - settings.gpu_costs.keys()) if settings.gpu_costs else [],
        "estimated_alpha_per_day": alpha,
        "estimated_usd_per_day": _product(alpha, settings.alpha_price),
    }


async def _servers_in_slot(settings: Settings, report: Report) -> dict[str, list[dict[str, Any]]]:
    """Ask for what the policy does not say about servers in an upgrade slot, and return them by hotkey.

    Only the answer about a single server says what a pending one waits for, and to which window its slot belongs.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        for key in settings.keys:
            state = report.states.get(MAINTENANCE.of(key.address))
            if state is None or state.snapshot is None:
                continue
            policy = state.snapshot.answer.value
            servers = [server for server in policy.servers or () if holds_slot(server)]
            older = slots_of_older_windows(policy)
            for server in servers:
                row: dict[str, Any] = {
                    "server_id": server.server_id,
                    "name": server.name,
                    "status": maintenance_status(server),
                    "waits_for": None,
                    "until": None,
                    "older_window": None if older is None else bool(older) if older in (0, len(servers)) else None,
                }
                found.setdefault(key.address, []).append(row)
                endpoints: list[e.Endpoint[Any]] = [
                    *([e.SERVER_MAINTENANCE] if row["status"] == "pending" else []),
                    *([e.SERVER_SLOT] if row["older_window"] is None else []),
                ]
                for endpoint in endpoints:
                    try:
                        answer = await client.fetch(endpoint, key=key, path={"server_id": server.server_id})
                    except ApiError as error:
                        what = f"{endpoint.name} of {server.name or server.server_id}"
                        report.gaps.append(NotKnown(what, key.address, str(error), error.advice))
                        continue
                    if endpoint is e.SERVER_SLOT:
                        window = None if policy.active_window is None else policy.active_window.id
                        row["older_window"] = answer.value.maintenance_pending_window_id != window
                    else:
                        row["waits_for"] = [structs.asdict(one) for one in answer.value.awaiting_replacement]
                        row["until"] = answer.value.pending_deadline
    return found


def _product(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one * other


# The screen


def _print_screen(
    summary: Mapping[str, Any], findings: list[Finding], report: Report, prices: Mapping[str, float]
) -> None:
    is_red = summary["action_needed"] or not report.answered
    say(summary["verdict"], bold=True, fg="red" if is_red else "yellow" if report.gaps else "green")
    for miner in summary["miners"]:
        click.echo()
        say(f"{miner['hotkey']}  {datetime.fromtimestamp(report.now, UTC):%Y-%m-%d %H:%M} UTC", bold=True)
        _print_findings([item for item in findings if item.hotkey == miner["hotkey"]], prices)
        click.echo()
        _print_standing(miner, prices)
        _print_maintenance(miner["maintenance"], report.now)


def _print_findings(findings: list[Finding], prices: Mapping[str, float]) -> None:
    """Print the numbered actions, and then the notes."""
    for number, finding in enumerate(findings, 1):
        usd = finding.cost_usd_per_hour
        price = "Cost unknown." if usd is None else f"{usd:,.2f} USD per hour."
        text = f"{finding.problem} {price}" if finding.gpus and prices else finding.problem
        if finding.needs_action:
            say(f"{number}. {text}", indent="   ", fg="red")
        else:
            say(f"-  {text}", indent="   ")
        more = f" and {len(finding.things) - _SHOWN} more" if len(finding.things) > _SHOWN else ""
        if finding.instances:
            rows = [
                {
                    "chute": name,
                    "chute id": instance["chute_id"],
                    "server": instance["server_name"],
                    "age min": instance["age_minutes"],
                }
                for name, instance in zip(finding.things[:_SHOWN], finding.instances, strict=False)
            ]
            print_table(rows, cut=("chute", "server"), indent="   ")
            say(more.strip(), start="   ")
        elif finding.things:
            say(f"{', '.join(finding.things[:_SHOWN])}{more}", indent="   ", start="   ")
        if finding.command:
            say(f"→ {finding.advice}: {finding.command}", indent="     ", start="   ")


def _print_standing(miner: Mapping[str, Any], prices: Mapping[str, float]) -> None:
    """Print score, estimate and GPUs. What is not known has a dash."""
    rank = "-" if miner["rank"] is None else f"{miner['rank']} of {miner['scored_miners']}"
    share, heading, incentive = (_percent(miner[name]) for name in ("share", "heading_share", "incentive_share"))
    say(f"Score share {share}, heading for {heading}. Rank {rank}. Incentive share {incentive}.")
    if miner["estimated_alpha_per_day"] is not None:
        dollars = "" if miner["estimated_usd_per_day"] is None else f", {miner['estimated_usd_per_day']:,.2f} USD"
        say(f"Estimated earnings per day: {miner['estimated_alpha_per_day']:,.2f} alpha{dollars}.")
    if not miner["private"]:
        return
    if miner["gpus"] is None:
        say("GPUs: -")
        return
    rows = [_row(model, counts, prices) for model, counts in miner["gpus"].items()]
    if len(rows) != 1:
        totals = {state: sum(row[state] for row in rows) for state in (*STATES, "all")}
        costs = {"USD/hour": miner["cost_usd_per_hour"], "idle USD/hour": miner["idle_cost_usd_per_hour"]}
        rows.append({"GPUs": "all", **totals, **(costs if prices else {})})
    print_table(rows)
    if not prices:
        say("For costs, add --gpu.cost MODEL=USD_PER_HOUR.")
    for model in miner["models_without_cost"]:
        say(f"The cost of {model} is unknown: add --gpu.cost {model}=USD_PER_HOUR.")
    if miner["estimated_usd_per_day"] is None:
        say("For estimated earnings, add --subnet.daily-emission ALPHA and --alpha.price USD.")


def _print_maintenance(servers: list[dict[str, Any]], now: float) -> None:
    """Print the servers that hold an upgrade slot, and what pending ones wait for."""
    for server in servers:
        text = f"{server['name'] or server['server_id']}: {server['status']}"
        if server["older_window"]:
            text += ", in the slot of an older window"
        if server["waits_for"] == []:
            text += ", and waits for no instance any more"
        elif server["waits_for"]:
            count = len(server["waits_for"])
            chutes = dict.fromkeys(one["chute_id"] for one in server["waits_for"])
            text += f", until {count} {'instance has' if count == 1 else 'instances have'} a replacement"
            text += f" (chutes {', '.join(chutes)})"
        if server["until"] is not None and server["waits_for"] != []:
            at = datetime.fromtimestamp(server["until"], UTC)
            text += f", at the latest in {human_duration(max(server['until'] - now, 60))} ({at:%H:%M} UTC)"
        say(f"{text}.", indent="  ")


def _row(model: str, counts: Mapping[str, int], prices: Mapping[str, float]) -> dict[str, Any]:
    row: dict[str, Any] = {"GPUs": model, **{state: counts[state] for state in STATES}, "all": sum(counts.values())}
    if prices:
        row |= {"USD/hour": cost({model: row["all"]}, prices)}
        row |= {"idle USD/hour": cost({model: counts["idle"]}, prices)}
    return row


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.3g} %"
