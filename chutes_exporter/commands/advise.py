"""The command ``advise``: what to launch on idle GPUs, the best paid in the first day first."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.commands.advice import find_advice
from chutes_exporter.commands.advice_json import AdviceJson
from chutes_exporter.commands.advice_screen import AdviceScreen
from chutes_exporter.commands.options import (
    Command,
    asks,
    cost_options,
    json_option,
    miner_options,
)
from chutes_exporter.commands.query import first_key
from chutes_exporter.commands.report import collect_report
from chutes_exporter.commands.result import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.config import Settings

_METRICS = frozenset({"chutes_compute_unit_usd", "chutes_platform_gpus"})
"""The metrics that advise shows, besides the fleets."""


@click.command(cls=Command)
@miner_options("The request must be signed, so a key is required.")
@cost_options
@click.option(
    "--plan",
    is_flag=True,
    help="Show which chutes to launch on which server, instead of all chutes by model.",
)
@json_option
@asks(needs_miner=False)
async def advise(settings: Settings, flags: Mapping[str, Any]) -> Result:
    """Show the chutes that the idle GPUs can run now, the best paid in the first day first.

    It leaves out chutes whose launch the service would refuse. What failed on this miner's servers
    in the past day comes last. It requests fresh data from the API. The exit status is 0 when there
    is nothing to launch, 1 when there is, 2 when the command line is wrong, and 3 when nothing was
    found but something is not known.
    """
    # needs_miner is False above, because a hotkey without its key is not enough. Without a key,
    # this raises UsageError.
    first_key(settings)
    report = await collect_report(settings, _METRICS)
    advice_to_miners = await find_advice(report, settings)
    as_json = AdviceJson(report, settings)
    summary = {
        "api": settings.api_url,
        "miners": [as_json.miner(advice) for advice in advice_to_miners],
    }
    screen = AdviceScreen(report, settings, shows_plan=flags["plan"])
    show = partial(screen.show, advice_to_miners)
    needs_action = any(advice.needs_action for advice in advice_to_miners)
    return Result(summary, show, report.gaps, needs_action)
