"""The command ``backfill``: writes the API's week of history for a new Prometheus."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest

from chutes_exporter.api import endpoints as e
from chutes_exporter.api.errors import NotFoundError
from chutes_exporter.collectors.unique_chute_history import ACTIVE_GPUS, UNIQUE_CHUTE_GPUS
from chutes_exporter.commands.options import Command, Parsed, asks, client_of, miner_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import HistoryPoint
    from chutes_exporter.config import Settings

_LABEL = re.compile(r"((?!__)[a-zA-Z_][a-zA-Z0-9_]*)=(.*)", re.DOTALL)


def _parse_label(text: str) -> tuple[str, str]:
    match = _LABEL.fullmatch(text)
    if match is None or match[1] == "hotkey":
        raise ValueError(f"{text!r} is not NAME=VALUE with a name that the series do not have, for example job=chutes")
    return match[1], match[2]


@click.command(cls=Command)
@miner_options("At least one hotkey is required.")
@click.option("--output", required=True, type=click.File("wb"), help="File to write. - means standard output.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    type=Parsed("NAME=VALUE", _parse_label),
    help="Label to add to every series (repeatable). Use job=chutes and instance=HOST:PORT to continue scraped series.",
)
@asks(needs_miner=True)
async def backfill(settings: Settings, flags: Mapping[str, Any]) -> None:
    """Write the past 7 days as OpenMetrics, for promtool.

    Import the file with: promtool tsdb create-blocks-from openmetrics FILE PATH-OF-PROMETHEUS-DATA
    """
    histories: dict[str, list[HistoryPoint]] = {}
    for hotkey in sorted(settings.watched):
        async with client_of(settings, f"history of {hotkey}") as client:
            try:
                answer = await client.fetch(e.UNIQUE_CHUTE_HISTORY, path={"hotkey": hotkey})
            except NotFoundError:
                click.echo(f"The API has no history of {hotkey} yet.", err=True)
                continue
            if answer.rejected:
                click.echo(f"{answer.rejected} hours of {hotkey} could not be read and are left out.", err=True)
            histories[hotkey] = answer.value
    if not histories:
        raise click.ClickException(
            "no miner has a history, so nothing is written: check the addresses, or try again in an hour"
        )
    # click opens the file only now, so that an error before keeps the old file.
    flags["output"].write(openmetrics(histories, dict(flags["labels"])))
    points = sum(map(len, histories.values()))
    click.echo(
        f"Wrote {points} hourly points of {len(histories)} miners. Import the file into Prometheus with:\n"
        "  promtool tsdb create-blocks-from openmetrics FILE PATH-OF-PROMETHEUS-DATA\n"
        "Query them with last_over_time(chutes_miner_active_gpus[1h]).",
        err=True,
    )


def openmetrics(histories: Mapping[str, list[HistoryPoint]], labels: Mapping[str, str]) -> bytes:
    """Return histories by hotkey as an OpenMetrics page with timestamps. Every series also gets the labels."""
    families = []
    for metric, field in ((UNIQUE_CHUTE_GPUS, "count"), (ACTIVE_GPUS, "total_count")):
        names = [*metric.labels, *labels]
        family = GaugeMetricFamily(metric.name, metric.help, labels=names, unit=metric.unit)
        families.append(family)
        for hotkey, points in histories.items():
            # OpenMetrics needs increasing and unique timestamps in a series.
            by_time = {point.time: getattr(point, field) for point in points}
            for time, value in sorted(by_time.items()):
                if value is not None:
                    family.add_metric([hotkey, *labels.values()], value, int(time))
    return generate_latest(SimpleNamespace(collect=lambda: families))  # type: ignore[no-untyped-call,no-any-return] # the library has no types here
