"""The command ``status``: how the miners stand and what needs action, on one screen."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.commands.maintenance import print_maintenance, read_maintenance
from chutes_exporter.commands.options import (
    Command,
    asks,
    cost_options,
    json_option,
    miner_options,
    require_miner,
)
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.snapshot import (
    DOLLARS_ADVICE,
    take_snapshot,
    unknown_server_names,
)
from chutes_exporter.commands.terminal import moment, percent, print_first_rows, print_table, say
from chutes_exporter.findings import cost, find, verdict
from chutes_exporter.fleet.model import GPU_STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.commands.snapshot import Snapshot
    from chutes_exporter.config import Settings
    from chutes_exporter.findings import Finding
    from chutes_exporter.fleet.model import Fleet

NOTHING_KNOWN = "Nothing is known, because no request succeeded."
_MOST_NAMES = 5
"""Most names of a finding on the screen."""

_METRICS = frozenset(
    {
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
@json_option
@asks
async def status(settings: Settings, flags: Mapping[str, Any]) -> Result:  # noqa: ARG001
    """Show what needs action, and how a miner stands.

    The exit status is 0 if nothing needs action, 1 if something does, 2 if the command line is
    wrong, and 3 if nothing that is known needs action, but a key is missing, requests failed or
    answers are incomplete.
    """
    require_miner(settings)
    report = await take_snapshot(settings, _METRICS)
    fleets = report.fleets
    maintenance = await read_maintenance(settings, report)
    miners: list[dict[str, Any]] = []
    findings: list[Finding] = []
    for hotkey in sorted(settings.watched):
        findings += find(fleets[hotkey], report.now, settings.costs)
        # Without a key, the servers of a miner are not known.
        nothing: dict[str, Any] = {"window": None, "maintenance": []}
        miners.append(_miner(settings, hotkey, report) | maintenance.get(hotkey, nothing))
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


def _miner(settings: Settings, hotkey: str, report: Snapshot) -> dict[str, Any]:
    """Return how a miner stands. What is not known is None.

    ``private`` is whether there is a key of the miner. Without a key, the miner's GPUs and their
    cost are not known.
    """
    value = partial(report.value, hotkey=hotkey)
    fleet = report.fleets[hotkey]
    known = hotkey in report.counted
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
        "gpus": _gpu_rows(fleet, settings) if known else None,
        "estimated_alpha_per_day": value("chutes_miner_emission_alpha_per_day"),
        "estimated_usd_per_day": value("chutes_miner_estimated_usd_per_day"),
    }


def _gpu_rows(fleet: Fleet, settings: Settings) -> list[dict[str, Any]]:
    """Return the GPUs by model and state, and what they cost. The last row is the sum."""
    rows = []
    models = sorted({gpu.model for gpu in fleet.gpus if gpu.model})
    for model in [*models, "all"]:
        gpus = [gpu for gpu in fleet.gpus if model in (gpu.model, "all")]
        row: dict[str, Any] = {"gpu": model}
        for state in GPU_STATES:
            row[state] = sum(gpu.state == state for gpu in gpus)
        row["all"] = len(gpus)
        idle = [gpu for gpu in gpus if gpu.state == "idle"]
        row["cost_usd_per_hour"] = cost(gpus, fleet, settings.costs)
        row["idle_cost_usd_per_hour"] = cost(idle, fleet, settings.costs)
        rows.append(row)
    return rows


# The screen


def _print_screen(
    summary: Mapping[str, Any], findings: list[Finding], report: Snapshot, settings: Settings
) -> None:
    color = "yellow" if report.gaps else "green"
    say(summary["verdict"], bold=True, fg="red" if summary["action_needed"] else color)
    for miner in summary["miners"]:
        hotkey = miner["hotkey"]
        click.echo()
        say(f"{hotkey}  {moment(report.now)}", bold=True)
        findings_of_miner = [item for item in findings if item.hotkey == hotkey]
        _print_findings(findings_of_miner, has_prices=bool(settings.costs))
        click.echo()
        _print_standing(miner)
        if miner["window"] is not None:
            click.echo()
            print_maintenance(miner)
    for name in summary["servers_not_found"]:
        say(f"No server has the name {name} of --server.cost.")
    if settings.chain_url is None:
        say(DOLLARS_ADVICE)


def _print_findings(findings: list[Finding], *, has_prices: bool) -> None:
    """Print the findings that need action, with numbers, and then the notes, each with its first
    things. ``findings`` has them in this order.

    ``has_prices`` is whether to say what the GPUs of a finding cost.
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
        hidden = len(finding.things) - _MOST_NAMES
        more = f"and {hidden} more" if hidden > 0 else ""
        if finding.instances:
            print_table(finding.instances[:_MOST_NAMES], indent="   ")
            say(more, start="   ")
        else:
            names = ", ".join(finding.things[:_MOST_NAMES])
            say(f"{names} {more}".strip(), indent="   ", start="   ")
        if finding.command:
            say(f"→ {finding.advice}: {finding.command}", indent="     ", start="   ")


def _print_standing(miner: Mapping[str, Any]) -> None:
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
    rows = miner["gpus"]
    if rows is None:
        say("GPUs: -")
        return
    print_first_rows(rows, len(rows), "models")
    # The last row has the sum.
    if rows[-1]["cost_usd_per_hour"] is None:
        say("For the cost of all GPUs, add --gpu.cost MODEL=USD_PER_HOUR.")
