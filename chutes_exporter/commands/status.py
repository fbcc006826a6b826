"""The command ``status``: how the miners stand and what needs action, on one screen."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.commands.audit import with_failures
from chutes_exporter.commands.maintenance import (
    plan_summary,
    print_plan,
    print_servers_in_slot,
    servers_in_slot,
    unknown_upgrades,
)
from chutes_exporter.commands.options import Command, asks, cost_options, json_option, miner_options
from chutes_exporter.commands.report import (
    DOLLARS_ADVICE,
    collect_report,
    unknown_server_names,
)
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.terminal import moment, percent, print_table, say
from chutes_exporter.findings import ABOUT_MAINTENANCE, cost, find, verdict
from chutes_exporter.fleet.model import GPU_STATES
from chutes_exporter.fleet.upgrades import plan_upgrades

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings
    from chutes_exporter.findings import Finding
    from chutes_exporter.fleet.model import Fleet, Gpu
    from chutes_exporter.fleet.upgrades import UpgradePlan

NOTHING_KNOWN = "Nothing is known, because no request succeeded."
_MOST_NAMES = 5
"""Most names of a finding on the screen."""

_METRICS = frozenset(
    {
        "chutes_miner_cost_usd_per_hour",
        "chutes_miner_emission_alpha_per_day",
        "chutes_miner_estimated_usd_per_day",
        "chutes_miner_incentive_ratio",
        "chutes_miner_score_heading_ratio",
        "chutes_miner_score_rank",
        "chutes_miner_score_ratio",
        "chutes_scored_miners",
    }
)


@click.command(cls=Command)
@miner_options("At least one hotkey is required.")
@cost_options
@click.option(
    "--maintenance",
    is_flag=True,
    help="Show only the maintenance of TEE servers: the window, the slots, and the order in which "
    "to upgrade.",
)
@json_option
@asks(needs_miner=True)
async def status(settings: Settings, flags: Mapping[str, Any]) -> Result:
    """Show what needs action, and how a miner stands.

    The exit status is 0 if nothing needs action, 1 if something does, 2 if the command line is
    wrong, and 3 if nothing that is known needs action, but a key is missing, requests failed or
    answers are incomplete.
    """
    if flags["maintenance"]:
        return await _maintenance(settings)
    report = await collect_report(settings, _METRICS)
    fleets = await with_failures(report, settings)
    slots = await servers_in_slot(settings, report)
    miners: list[dict[str, Any]] = []
    findings: list[Finding] = []
    for hotkey in sorted(settings.watched):
        findings += find(fleets[hotkey], report.now, settings.costs)
        miner = _miner(settings, hotkey, report)
        # Without a key, its servers are not known.
        miner["maintenance"] = slots.get(hotkey, [])
        miners.append(miner)
    needs_action = any(finding.needs_action for finding in findings)
    conclusion = NOTHING_KNOWN
    if any(state.snapshot for state in report.states.values()):
        all_known = not report.gaps
        conclusion = verdict(findings, fleets.values(), settings.costs, all_known=all_known)
    summary = {
        "api": settings.api_url,
        "verdict": conclusion,
        "action_needed": needs_action,
        "miners": miners,
        "servers_not_found": unknown_server_names(settings, report.states),
        "findings": [asdict(finding) for finding in findings],
    }
    show = partial(_print_screen, summary, findings, report, settings)
    return Result(summary, show, report.gaps, needs_action)


def _miner(settings: Settings, hotkey: str, report: Report) -> dict[str, Any]:
    """Return how a miner stands. What is not known is None.

    ``private`` is whether there is a key of the miner. Without a key, the miner's GPUs and their
    cost are not known.
    """
    value = partial(report.value, hotkey=hotkey)
    fleet = report.fleets[hotkey]
    counts_by_model, idle_cost = None, None
    if hotkey in report.counted:
        counts_by_model = _counts_by_model(fleet)
        idle_cost = cost(_idle_gpus(fleet.gpus), fleet, settings.costs)
    # The best rank is 1. If there are no scored miners, there is no rank, and both are None.
    rank, scored_miners = value("chutes_miner_score_rank"), report.value("chutes_scored_miners")
    return {
        "hotkey": hotkey,
        "private": any(key.address == hotkey for key in settings.keys),
        "rank": int(rank) if rank else None,
        "scored_miners": int(scored_miners) if scored_miners else None,
        "share": value("chutes_miner_score_ratio"),
        "heading_share": value("chutes_miner_score_heading_ratio"),
        "incentive_share": value("chutes_miner_incentive_ratio"),
        "gpus": counts_by_model,
        "cost_usd_per_hour": value("chutes_miner_cost_usd_per_hour"),
        "idle_cost_usd_per_hour": idle_cost,
        "models_without_cost": _models_without_cost(fleet, settings),
        "estimated_alpha_per_day": value("chutes_miner_emission_alpha_per_day"),
        "estimated_usd_per_day": value("chutes_miner_estimated_usd_per_day"),
    }


def _counts_by_model(fleet: Fleet) -> dict[str, dict[str, int]]:
    """Return the number of GPUs in each state, by model. A GPU without a known model or state is
    left out.
    """
    counts_by_model: dict[str, dict[str, int]] = {}
    known = [(gpu.model, gpu.state) for gpu in fleet.gpus if gpu.model and gpu.state]
    for model, state in known:
        counts = counts_by_model.setdefault(model, dict.fromkeys(GPU_STATES, 0))
        counts[state] += 1
    return counts_by_model


def _idle_gpus(gpus: Iterable[Gpu]) -> list[Gpu]:
    return [gpu for gpu in gpus if gpu.state == "idle"]


def _models_without_cost(fleet: Fleet, settings: Settings) -> list[str]:
    """Return the models of which a GPU has no cost, if costs are given at all."""
    if not settings.costs:
        return []
    models = set()
    for gpu in fleet.gpus:
        if gpu.model and settings.costs.of_gpu(fleet.server_name(gpu), gpu.model) is None:
            models.add(gpu.model)
    return sorted(models)


async def _maintenance(settings: Settings) -> Result:
    """Return the maintenance of all miners, with what needs action about it."""
    # The fleets of the report have everything about maintenance, so it needs no metric.
    report = await collect_report(settings, metrics=frozenset())
    slots = await servers_in_slot(settings, report)
    plans: dict[str, UpgradePlan] = {}
    findings: list[Finding] = []
    miners: list[dict[str, Any]] = []
    for hotkey in sorted(settings.watched):
        fleet = report.fleets[hotkey]
        findings_of_miner = find(fleet, report.now, settings.costs)
        findings += [item for item in findings_of_miner if item.kind in ABOUT_MAINTENANCE]
        plans[hotkey] = plan_upgrades(fleet, report.now)
        miners.append(
            {
                "hotkey": hotkey,
                # Without a key, its servers are not known.
                "maintenance": slots.get(hotkey, []),
                "upgrades": plan_summary(plans[hotkey]),
            }
        )
    # Of a miner without a key, the report already has a gap about all its servers.
    for key in settings.keys:
        report.gaps.extend(unknown_upgrades(key.address, plans[key.address]))
    needs_action = any(finding.needs_action for finding in findings)
    summary = {
        "api": settings.api_url,
        "verdict": _maintenance_verdict(findings, report, settings),
        "action_needed": needs_action,
        "miners": miners,
        "findings": [asdict(finding) for finding in findings],
    }
    show = partial(_print_maintenance, summary, findings, plans, report)
    return Result(summary, show, report.gaps, needs_action)


def _maintenance_verdict(findings: list[Finding], report: Report, settings: Settings) -> str:
    """Return the state of the maintenance of all miners in one line, which names no costs."""
    if not any(state.snapshot for state in report.states.values()):
        return NOTHING_KNOWN
    if any(finding.needs_action for finding in findings):
        return verdict(findings, (), settings.costs, all_known=not report.gaps)
    if report.gaps:
        return "Not everything is known. No maintenance that is known needs action."
    return "No maintenance needs action."


# The screen


def _print_screen(
    summary: Mapping[str, Any], findings: list[Finding], report: Report, settings: Settings
) -> None:
    _print_verdict(summary, report)
    for miner in summary["miners"]:
        hotkey = miner["hotkey"]
        click.echo()
        say(f"{hotkey}  {moment(report.now)}", bold=True)
        findings_of_miner = [item for item in findings if item.hotkey == hotkey]
        _print_findings(findings_of_miner, report.now, has_prices=bool(settings.costs))
        click.echo()
        _print_standing(miner, report.fleets[hotkey], settings)
        print_servers_in_slot(miner["maintenance"], report.now)
    for name in summary["servers_not_found"]:
        say(f"No server has the name {name} of --server.cost.")
    if settings.chain_url is None:
        say(DOLLARS_ADVICE)


def _print_maintenance(
    summary: Mapping[str, Any],
    findings: list[Finding],
    plans: Mapping[str, UpgradePlan],
    report: Report,
) -> None:
    """Print the screen of ``status --maintenance``. The findings are those about maintenance."""
    _print_verdict(summary, report)
    for miner in summary["miners"]:
        hotkey = miner["hotkey"]
        click.echo()
        say(f"{hotkey}  {moment(report.now)}", bold=True)
        findings_of_miner = [item for item in findings if item.hotkey == hotkey]
        # What GPUs cost does not decide about an upgrade.
        here = "chutes-exporter status --maintenance"
        _print_findings(findings_of_miner, report.now, has_prices=False, here=here)
        click.echo()
        print_plan(plans[hotkey], report.now)
        print_servers_in_slot(miner["maintenance"], report.now)


def _print_verdict(summary: Mapping[str, Any], report: Report) -> None:
    color = "green"
    if summary["action_needed"]:
        color = "red"
    elif report.gaps:
        color = "yellow"
    say(summary["verdict"], bold=True, fg=color)


def _print_findings(
    findings: list[Finding], now: float, *, has_prices: bool, here: str = ""
) -> None:
    """Print the findings that need action, with numbers, and then the notes, each with its first
    names. ``findings`` has them in this order.

    ``has_prices`` is whether to say what the GPUs of a finding cost, and ``here`` the command of
    this screen, which advises no more to run it.
    """
    for number, finding in enumerate(findings, 1):
        text = finding.problem
        if finding.gpus and has_prices:
            usd = finding.cost_usd_per_hour
            text += " Cost unknown." if usd is None else f" {usd:,.2f} USD per hour."
        if finding.needs_action:
            say(f"{number}. {text}", indent="   ", fg="red")
        else:
            say(f"-  {text}", indent="   ")
        _print_things(finding, now)
        if finding.command:
            command = "." if finding.command == here else f": {finding.command}"
            say(f"→ {finding.advice}{command}", indent="     ", start="   ")


def _print_things(finding: Finding, now: float) -> None:
    """Print the first things that a finding is about: their names, or a table of instances, whose
    names are those of their chutes.
    """
    names = finding.things[:_MOST_NAMES]
    hidden = len(finding.things) - len(names)
    more = f"and {hidden} more" if hidden else ""
    if finding.instances:
        # Each name belongs to an instance. Those beyond the first names are left out.
        pairs = zip(names, finding.instances, strict=False)
        rows = [_instance_row(name, instance, now) for name, instance in pairs]
        print_table(rows, cut=("chute", "server"), indent="   ")
        say(more, start="   ")
    elif names:
        say(f"{', '.join(names)} {more}".rstrip(), indent="   ", start="   ")


def _instance_row(chute_name: str, instance: Mapping[str, Any], now: float) -> dict[str, Any]:
    created_at = instance["created_at"]
    return {
        "chute": chute_name,
        "chute id": instance["chute_id"],
        "server": instance["server_name"],
        "age min": None if created_at is None else round((now - created_at) / 60),
    }


def _print_standing(miner: Mapping[str, Any], fleet: Fleet, settings: Settings) -> None:
    """Print score, estimate and, for a miner with a key, GPUs.

    The score is heading for the share that it approaches if all active instances continue. What is
    not known has a dash, but an unknown estimate is left out.
    """
    rank = "-" if miner["rank"] is None else f"{miner['rank']} of {miner['scored_miners']}"
    share, heading = percent(miner["share"]), percent(miner["heading_share"])
    incentive = percent(miner["incentive_share"])
    say(f"Score share {share}, heading for {heading}. Rank {rank}. Incentive share {incentive}.")
    if miner["estimated_alpha_per_day"] is not None:
        text = f"Estimated earnings per day: {miner['estimated_alpha_per_day']:,.2f} alpha"
        if miner["estimated_usd_per_day"] is not None:
            text += f", {miner['estimated_usd_per_day']:,.2f} USD"
        say(f"{text}.")
    if not miner["private"]:
        return
    if miner["gpus"] is None:
        say("GPUs: -")
        return
    _print_gpus(miner["gpus"], fleet, settings)
    for model in miner["models_without_cost"]:
        say(f"The cost of {model} is unknown: add --gpu.cost {model}=USD_PER_HOUR.")


def _print_gpus(
    counts_by_model: Mapping[str, Mapping[str, int]], fleet: Fleet, settings: Settings
) -> None:
    """Print the GPUs by model and state, with their sum and, if they are given, their costs."""
    rows = []
    all_counts: Counter[str] = Counter()
    for model, counts in counts_by_model.items():
        gpus = [gpu for gpu in fleet.gpus if gpu.model == model]
        rows.append(_gpu_row(model, counts) | _cost_cells(gpus, fleet, settings))
        all_counts.update(counts)
    # With a single model, the row of the sum would be the same.
    if len(rows) > 1:
        rows.append(_gpu_row("all", all_counts) | _cost_cells(fleet.gpus, fleet, settings))
    print_table(rows)
    if not settings.costs:
        say("For costs, add --gpu.cost MODEL=USD_PER_HOUR.")


def _gpu_row(name: str, counts: Mapping[str, int]) -> dict[str, Any]:
    return {"GPUs": name, **counts, "all": sum(counts.values())}


def _cost_cells(gpus: Sequence[Gpu], fleet: Fleet, settings: Settings) -> dict[str, Any]:
    """Return what GPUs of a fleet cost per hour, and the idle ones of them. There are no cells if
    no costs are given.
    """
    if not settings.costs:
        return {}
    return {
        "USD/hour": cost(gpus, fleet, settings.costs),
        "idle USD/hour": cost(_idle_gpus(gpus), fleet, settings.costs),
    }
