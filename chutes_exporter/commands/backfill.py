"""The command ``backfill``: writes the API's week of history for a new Prometheus."""

from __future__ import annotations

import re
from collections import defaultdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO

import click
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.api import endpoints as e
from chutes_exporter.api.errors import NotFoundError
from chutes_exporter.api.meaning import hourly_compute_units
from chutes_exporter.collectors.instances import HOURLY_COMPUTE_UNITS
from chutes_exporter.collectors.unique_chute_history import ACTIVE_GPUS, UNIQUE_CHUTE_GPUS
from chutes_exporter.commands.options import Command, Parsed, api_options, hotkey_options, run, settings_with_warnings
from chutes_exporter.commands.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import ComputeRecord, HistoryPoint, Instance
    from chutes_exporter.config import Settings
    from chutes_exporter.metric import Metric

_OWN_LABELS = {"hotkey", *HOURLY_COMPUTE_UNITS.labels}
_LABEL = re.compile(r"((?!__)[a-zA-Z_][a-zA-Z0-9_]*)=(.*)", re.DOTALL)


Units = dict[str, dict[float, float]]
"""Compute units by instance and the end of the hour."""

_LONGEST = 900.0
"""Seconds that the answer of all instances may take."""


def _parse_label(text: str) -> tuple[str, str]:
    match = _LABEL.fullmatch(text)
    if match is None or match[1] in _OWN_LABELS:
        raise ValueError(f"{text!r} is not NAME=VALUE with a name that the series do not have, for example job=chutes")
    return match[1], match[2]


@click.command(cls=Command)
@hotkey_options("At least one hotkey is required.")
@api_options
@click.option("--output", required=True, type=click.File("wb"), help="File to write. - means standard output.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    type=Parsed("NAME=VALUE", _parse_label),
    help="Label to add to every series (repeatable). Use job=chutes and instance=HOST:PORT to continue scraped series.",
)
@click.option(
    "--compute-history",
    is_flag=True,
    help="Also write the compute units of each instance that exists now, hour by hour. Needs a key. Use it only once: "
    "the service must answer with the records of all miners' instances, which is a lot of work.",
)
def backfill(**flags: Any) -> None:
    """Write the past 7 days as OpenMetrics, for promtool.

    Import the file with: promtool tsdb create-blocks-from openmetrics FILE PATH-OF-PROMETHEUS-DATA
    """
    labels = dict(flags["labels"])
    run(run_backfill, settings_with_warnings(flags), flags["output"], labels, flags["compute_history"])


async def run_backfill(
    settings: Settings,
    output: BinaryIO,
    labels: Mapping[str, str],
    compute_history: bool = False,  # noqa: FBT001, FBT002 - a flag
) -> None:
    """Write the watched miners' history as OpenMetrics with timestamps.

    Args:
        settings: The API and the watched miners.
        output: A file, which is opened by the first write.
        labels: Labels to add to every series, as Prometheus adds ``job`` and ``instance`` to scraped ones.
        compute_history: Whether to ask for the records of all instances too, which is heavy for the service.

    Raises:
        ClickException: Nobody is watched, a key is missing, the API does not answer, or the file cannot be opened.
    """
    if not settings.watched:
        raise click.ClickException("backfill needs a miner: add --hotkey or --hotkey-file")
    if compute_history and not settings.keys:
        raise click.ClickException("--compute-history needs a key: add --hotkey-file, or set MINER_SS58 and MINER_SEED")
    histories: dict[str, list[HistoryPoint]] = {}
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        for hotkey in sorted(settings.watched):
            try:
                answer = await client.fetch(e.UNIQUE_CHUTE_HISTORY, path={"hotkey": hotkey})
            except NotFoundError:
                click.echo(f"The API has no history of {hotkey} yet.", err=True)
                continue
            except ApiError as error:
                text = f"history of {hotkey}: {printable(str(error))}\n→ {error.advice}"
                raise click.ClickException(text) from None
            if answer.rejected:
                click.echo(f"{answer.rejected} hours of {hotkey} could not be read and are left out.", err=True)
            histories[hotkey] = answer.value
    units = await _compute_units(settings) if compute_history else {}
    if not histories and not any(units.values()):
        raise click.ClickException(
            "no miner has a history, so nothing is written: check the addresses, or try again in an hour"
        )
    output.write(openmetrics(histories, labels, units))
    points = sum(map(len, histories.values())) + sum(len(hours) for own in units.values() for hours in own.values())
    click.echo(
        f"Wrote {points} hourly points of {len(histories | units)} miners. Import the file into Prometheus with:\n"
        "  promtool tsdb create-blocks-from openmetrics FILE PATH-OF-PROMETHEUS-DATA\n"
        "Query them with last_over_time(chutes_miner_active_gpus[1h]).",
        err=True,
    )


async def _compute_units(settings: Settings) -> dict[str, Units]:
    """Return the compute units of the instances of each hotkey with a key."""
    instances: dict[str, list[Instance]] = {}
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout, total_timeout=_LONGEST) as client:
        try:
            for key in settings.keys:
                listed = await client.fetch(e.INSTANCES, key=key)
                instances[key.address] = listed.value
                if listed.rejected:
                    click.echo(f"Left out of {key.address}: {listed.rejected} instances that cannot be read.", err=True)
            ids = {one.instance_id for own in instances.values() for one in own}
            answer = await client.fetch(e.COMPUTE_HISTORY, keep=lambda record: record.instance_id in ids)
        except ApiError as error:
            text = f"compute history: {printable(str(error))}\n→ {error.advice}"
            raise click.ClickException(text) from None
        now = answer.received_at - (client.clock_offset or 0.0)
    click.echo(
        f"The compute history has {answer.count} records of all instances, {answer.size / 1e6:.1f} MB, read in "
        f"{answer.seconds:.1f} s. {len(answer.value)} are of the {len(ids)} instances that exist now.",
        err=True,
    )
    if answer.rejected:
        click.echo(f"Left out: {answer.rejected} records that cannot be read.", err=True)
    records: dict[str, list[ComputeRecord]] = defaultdict(list)
    for record in answer.value:
        records[record.instance_id].append(record)
    return {
        hotkey: {
            one.instance_id: hours for one in own if (hours := hourly_compute_units(one, records[one.instance_id], now))
        }
        for hotkey, own in instances.items()
    }


def openmetrics(
    histories: Mapping[str, list[HistoryPoint]],
    labels: Mapping[str, str],
    units: Mapping[str, Units] | None = None,
) -> bytes:
    """Return histories as an OpenMetrics page with timestamps.

    Args:
        histories: Points by hotkey.
        labels: Labels to add to every series.
        units: Compute units by hotkey.
    """
    families = []
    for metric, field in ((UNIQUE_CHUTE_GPUS, "count"), (ACTIVE_GPUS, "total_count")):
        families.append(_family(metric, labels))
        for hotkey, points in histories.items():
            # OpenMetrics needs increasing and unique timestamps in a series.
            by_time = {point.time: getattr(point, field) for point in points}
            for time, value in sorted(by_time.items()):
                if value is not None:
                    families[-1].add_metric([hotkey, *labels.values()], value, int(time))
    if units:
        families.append(_family(HOURLY_COMPUTE_UNITS, labels))
    for hotkey, own in (units or {}).items():
        for instance_id, hours in own.items():
            for hour, value in hours.items():
                families[-1].add_metric([hotkey, instance_id, "1h", *labels.values()], value, int(hour))
    return generate_latest(SimpleNamespace(collect=lambda: families))  # type: ignore[no-untyped-call,no-any-return] # the library has no types here


def _family(metric: Metric, labels: Mapping[str, str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=[*metric.labels, *labels], unit=metric.unit)
