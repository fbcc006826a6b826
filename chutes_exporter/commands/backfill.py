"""The command ``backfill``: writes the API's week of history for a new Prometheus."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import tempfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.api import endpoints as e
from chutes_exporter.api.errors import NotFoundError
from chutes_exporter.api.meaning import hourly_compute_units
from chutes_exporter.collectors.instances import HOURLY_COMPUTE_UNITS
from chutes_exporter.collectors.unique_chute_history import ACTIVE_GPUS, UNIQUE_CHUTE_GPUS
from chutes_exporter.commands.options import Command, api_options, hotkey_options, run, settings_with_warnings
from chutes_exporter.commands.terminal import printable
from chutes_exporter.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import ComputeRecord, HistoryPoint, Instance
    from chutes_exporter.config import Settings
    from chutes_exporter.metric import Metric

_OWN_LABELS = {"hotkey", *HOURLY_COMPUTE_UNITS.labels}
_LABEL = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)=(.*)", re.DOTALL)


Units = dict[str, dict[float, float]]
"""Compute units by instance and the end of the hour."""

_LONGEST = 900.0
"""Seconds that the answer of all instances may take."""


@click.command(cls=Command)
@hotkey_options("At least one hotkey is required.")
@api_options
@click.option(
    "--output",
    required=True,
    type=click.Path(readable=False),
    metavar="FILE",
    help="File to write. - means standard output.",
)
@click.option(
    "--label",
    multiple=True,
    metavar="NAME=VALUE",
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
    if not flags["output"]:
        raise click.UsageError("--output is empty: write the path of a file, or - for the standard output")
    run(run_backfill, settings_with_warnings(flags), flags["output"], flags["label"], flags["compute_history"])


async def run_backfill(
    settings: Settings,
    output: str,
    labels: tuple[str, ...],
    compute_history: bool = False,  # noqa: FBT001, FBT002 - a flag
) -> None:
    """Write the watched miners' history as OpenMetrics with timestamps.

    Args:
        settings: The API and the watched miners.
        output: A file, written completely or not at all. ``-`` is standard output.
        labels: ``name=value`` to add to every series, as Prometheus adds ``job`` and ``instance`` to scraped ones.
        compute_history: Whether to ask for the records of all instances too, which is heavy for the service.

    Raises:
        ClickException: Nobody is watched, a key is missing, or the API does not answer.
        ConfigError: The file cannot be written.
    """
    if not settings.watched:
        raise click.ClickException("backfill needs a miner: add --hotkey or --hotkey-file")
    # Check the command line before sending requests that are heavy for the service.
    parsed = _parsed(labels)
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
    text = openmetrics(histories, parsed, units)
    if output == "-":
        # OpenMetrics is UTF-8 whatever the terminal uses.
        click.echo(text.encode(), nl=False)
        return
    try:
        _write(Path(output), text)
    except OSError as error:
        raise ConfigError(f"--output: cannot write {output}: {error.strerror or error}. Choose another path") from None
    points = sum(map(len, histories.values())) + sum(len(hours) for own in units.values() for hours in own.values())
    click.echo(
        f"Wrote {points} hourly points of {len(histories | units)} miners to {output}. "
        "Import them into Prometheus with:\n"
        f"  promtool tsdb create-blocks-from openmetrics {shlex.quote(output)} PATH-OF-PROMETHEUS-DATA\n"
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


def _parsed(labels: tuple[str, ...]) -> dict[str, str]:
    parsed = {}
    for label in labels:
        match = _LABEL.fullmatch(label)
        if match is not None and match[1] in _OWN_LABELS:
            raise click.ClickException(f"--label {label!r} is invalid: the series have a label {match[1]} already")
        if match is None or match[1].startswith("__"):
            raise click.ClickException(f"--label {label!r} is invalid: write NAME=VALUE, for example job=chutes")
        if match[1] in parsed:
            raise click.ClickException(f"--label {label!r} is invalid: there is another value of {match[1]}")
        parsed[match[1]] = match[2]
    return parsed


def openmetrics(
    histories: Mapping[str, list[HistoryPoint]],
    labels: Mapping[str, str],
    units: Mapping[str, Units] | None = None,
) -> str:
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
    page: bytes = generate_latest(SimpleNamespace(collect=lambda: families))  # type: ignore[no-untyped-call] # the library has no types here
    return page.decode()


def _family(metric: Metric, labels: Mapping[str, str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=[*metric.labels, *labels], unit=metric.unit)


def _write(path: Path, text: str) -> None:
    """Write a file completely or not at all. Write directly to pipes and devices."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    # A new file gets its mode by the umask, and an old file keeps its mode.
    umask = os.umask(0)
    os.umask(umask)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
