"""The command ``status``: how the miners stand and what needs action, on one screen."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import partial
from itertools import chain
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
from chutes_exporter.commands.snapshot import take_snapshot
from chutes_exporter.commands.terminal import moment, print_table, say, with_columns
from chutes_exporter.findings import cost, find, verdict
from chutes_exporter.fleet.model import GPU_STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.config import Settings
    from chutes_exporter.findings import Finding
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.page.exporter import Snapshot
    from chutes_exporter.rules.money import Costs

NOTHING_KNOWN = "Nothing is known, because no request succeeded."
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
@json_option
@asks
async def status(settings: Settings, flags: Mapping[str, Any]) -> Result:  # noqa: ARG001
    """Show what needs action, and how a miner stands.

    The exit status is 0 if nothing needs action, 1 if something does, 2 if the command line is
    wrong, and 3 if nothing that is known needs action, but a key is missing, requests failed or
    answers are incomplete.
    """
    require_miner(settings)
    snapshot = await take_snapshot(settings, frozenset(_STANDING.values()))
    miners: list[dict[str, Any]] = []
    found: dict[str, list[Finding]] = {}
    for hotkey, fleet in sorted(snapshot.fleets.items()):
        found[hotkey] = find(fleet, snapshot.now, settings.costs)
        miner: dict[str, Any] = {"hotkey": hotkey, "gpus": None}
        if hotkey in snapshot.counted:
            miner["gpus"] = _gpu_rows(fleet, settings.costs)
        for name, metric in _STANDING.items():
            miner[name] = snapshot.value(metric, hotkey=hotkey)
        miners.append(miner | await read_maintenance(settings, snapshot, fleet))
    findings = [*chain.from_iterable(found.values())]
    conclusion = NOTHING_KNOWN
    if any(state.snapshot for state in snapshot.states.values()):
        conclusion = verdict(findings, all_known=not snapshot.gaps)
    needs_action = any(finding.needs_action for finding in findings)
    summary = {
        "api": settings.api_url,
        "verdict": conclusion,
        "action_needed": needs_action,
        "miners": miners,
        "findings": [asdict(finding) for finding in findings],
    }
    show = partial(_print_screen, summary, found, snapshot, settings)
    return Result(summary, show, snapshot.gaps, needs_action)


def _gpu_rows(fleet: Fleet, costs: Costs) -> list[dict[str, Any]]:
    """Return the GPUs by model and state, and what they cost. The last row is the sum."""
    rows = []
    for model in [*sorted({gpu.model for gpu in fleet.gpus if gpu.model}), "all"]:
        gpus = [gpu for gpu in fleet.gpus if model in (gpu.model, "all")]
        states = Counter(gpu.state for gpu in gpus)
        row: dict[str, Any] = {"gpu": model} | {state: states[state] for state in GPU_STATES}
        rows.append(row | {"all": len(gpus), "cost_usd_per_hour": cost(gpus, fleet, costs)})
    return rows


# The screen


def _print_screen(
    summary: Mapping[str, Any],
    found: Mapping[str, list[Finding]],
    snapshot: Snapshot,
    settings: Settings,
) -> None:
    color = "yellow" if snapshot.gaps else "green"
    say(summary["verdict"], bold=True, fg="red" if summary["action_needed"] else color)
    for miner in summary["miners"]:
        click.echo()
        say(f"{miner['hotkey']}  {moment(snapshot.now)}", bold=True)
        for number, finding in enumerate(found[miner["hotkey"]], 1):
            _print_finding(finding, number)
        print_table(with_columns([miner], [*_STANDING]), title="Standing")
        print_table(miner["gpus"], title="GPUs")
        print_maintenance(miner)
    if not settings.costs:
        say("For the cost of GPUs, add --gpu.cost MODEL=USD_PER_HOUR.")
    if settings.chain_url is None:
        say("For earnings in US dollars, add --chain.url URL.")


def _print_finding(finding: Finding, number: int) -> None:
    """Print a finding with its first things. One that needs action has a number."""
    text = finding.problem
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
