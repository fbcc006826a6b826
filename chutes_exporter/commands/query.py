"""The command ``query``: any endpoint's answer as a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec
from msgspec import UNSET
from rich.console import Console
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from chutes_exporter.api import ApiError, ChutesClient, Hotkey, meaning
from chutes_exporter.api import endpoints as e
from chutes_exporter.api.records import (
    Bounty,
    Chute,
    ChuteMetrics,
    ChuteUtilization,
    Instance,
    Job,
    MetagraphNode,
    Node,
    Scores,
    Stats,
    StatsWindow,
    UnixTime,
)
from chutes_exporter.collectors.stats import windows
from chutes_exporter.commands.check import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chutes_exporter.config import Settings

Row = dict[str, Any]
Form = Literal["table", "json", "csv"]

# What a person looks for first; JSON and CSV have everything.
_TABLE_COLUMNS: dict[str, tuple[str, ...]] = {
    "chutes": (
        "chute_id",
        "name",
        "effective_compute_multiplier",
        "bounty_age_seconds",
        "max_instances",
        "tee",
        "disabled",
    ),
    "images": ("image_id", "name", "tag", "status", "created_at"),
    "nodes": ("uuid", "gpu_identifier", "server_id", "device_index", "verified_at", "verification_error"),
    "servers": ("server_id", "name", "ip", "is_tee", "maintenance_pending", "gpus"),
    "instances": ("instance_id", "chute_id", "state", "created_at", "activated_at", "secured_at", "purged_at"),
    "jobs": ("job_id", "chute_id", "method", "state", "miner_hotkey", "created_at", "compute_multiplier"),
    "metrics": ("chute_id", "utilization", "instance_count", "total_invocations", "rate_limit_count"),
    "utilization": (
        "chute_id",
        "name",
        "scale_allowance",
        "target_instances",
        "active_instance_count",
        "starting_instances",
        "utilization_1h",
        "rate_limit_ratio_1h",
    ),
    "metagraph": ("node_id", "hotkey", "incentive_ratio", "alpha_stake", "registered_at", "blacklist_reason"),
}


@dataclass(frozen=True)
class Wanted:
    """What is asked for, besides the endpoint.

    Attributes:
        hotkeys: Whose stats, scores or history; empty for everybody's.
        per_chute: Whether stats are wanted for each chute.
        chute_id: Which chute.
        chute_version: Which version of it.
    """

    hotkeys: tuple[str, ...] = ()
    per_chute: bool = False
    chute_id: str = ""
    chute_version: str = ""


async def run_query(settings: Settings, name: str, wanted: Wanted, form: Form) -> None:
    """Ask an endpoint and print its answer.

    Args:
        settings: Whom to ask, and with which keys.
        name: The endpoint's name.
        wanted: What else is asked for.
        form: How to print.

    Raises:
        ClickException: Something needed is not given, or the API does not answer; the message says what to do.
    """
    endpoint = next(one for one in e.ENDPOINTS if one.name == name)
    key, params, path = _question(endpoint, settings, wanted)
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        try:
            with _progress(name) as progress:
                answer = await client.fetch(endpoint, key=key, params=params, path=path, progress=progress)
        except ApiError as error:
            raise click.ClickException(f"{name}: {printable(str(error))}\n→ {error.advice}") from None
    if answer.rejected:
        reason = printable(answer.first_error)
        click.echo(f"Left out: {answer.rejected} records that cannot be read ({reason})", err=True)
    rows = list(rows_of(answer.value))
    if form == "json":
        _show(json.dumps(rows, indent=2, ensure_ascii=False))
    elif form == "csv":
        _show(_csv(rows))
    else:
        _print_table(name, rows)


def first_key(settings: Settings) -> Hotkey:
    """Return the key to sign with.

    Raises:
        ClickException: There is none.
    """
    if not settings.keys:
        raise click.ClickException("this must be signed: give --hotkey-file, or set MINER_SS58 and MINER_SEED")
    return settings.keys[0]


def _question(
    endpoint: e.Endpoint[Any], settings: Settings, wanted: Wanted
) -> tuple[Hotkey | None, dict[str, str], dict[str, str]]:
    """Return the key, the query parameters and the path of a request."""
    key = first_key(settings) if endpoint.signed else None
    if wanted.per_chute and endpoint is not e.STATS:
        raise click.ClickException("--per-chute goes with stats")
    if len(wanted.hotkeys) > 1:
        raise click.ClickException("one answer is about one miner: give one --hotkey")
    hotkey = wanted.hotkeys[0] if wanted.hotkeys else None
    params: dict[str, str] = {}
    path: dict[str, str] = {}
    if endpoint is e.UNIQUE_CHUTE_HISTORY:
        # Without --hotkey it is about whoever else was named, where that is one.
        only = hotkey or (next(iter(settings.watched)) if len(settings.watched) == 1 else None)
        if only is None:
            raise click.ClickException("whose history? Give --hotkey")
        path = {"hotkey": only}
    elif endpoint is e.CHUTE:
        if not (wanted.chute_id and wanted.chute_version):
            raise click.ClickException("which chute? Give --chute-id and --chute-version")
        path = {"chute_id": wanted.chute_id, "version": wanted.chute_version}
    elif endpoint is e.STATS:
        params = e.stats_params(hotkey, per_chute=wanted.per_chute)
    elif endpoint is e.SCORES and hotkey is not None:
        params = {"hotkey": hotkey}
    return key, params, path


def _show(text: str) -> None:
    """Print text; on a terminal without what would steer it."""
    for line in text.splitlines():
        click.echo(printable(line) if sys.stdout.isatty() else line)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int], None] | None]:
    """Show on a terminal how much of a stream has come."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(
        SpinnerColumn(), TextColumn(name), DownloadColumn(binary_units=True), console=console, transient=True
    ) as progress:
        task = progress.add_task(name, total=None)
        yield lambda size: progress.update(task, completed=size)


def rows_of(value: Any) -> Iterator[Row]:
    """Return an answer as flat rows: times as ISO 8601 text, everything else as JSON has it."""
    match value:
        case Scores():
            for hotkey, share in value.shares.items():
                raw = value.raw.get(hotkey)
                yield {"hotkey": hotkey, "share": share} | (_plain(raw) if raw is not None else {})
        case Stats():
            for name, window in windows(value):
                yield from _window_rows(name, window)
        case list():
            yield from _with_meanings(value)
        case _:
            yield from _with_meanings([value])


def _with_meanings(records: list[msgspec.Struct]) -> Iterator[Row]:
    """Return records as rows, with what their fields mean instead of the service's own codes and constants."""
    mean = _meanings(records)
    for record in records:
        yield {name: _value(value) for name, value in (_fields(record) | mean(record)).items() if value is not UNSET}


def _meanings(records: list[Any]) -> Callable[[Any], Row]:  # noqa: PLR0911 - a case for each kind of record
    """Return what changes in the row of a record; UNSET leaves a column out."""
    match records:
        case [MetagraphNode(), *_]:
            shares, trusts = meaning.incentive_shares(records), meaning.trust_ratios(records)
            consensus = meaning.consensus_ratios(records)
            return lambda node: {
                "incentive": UNSET,
                "consensus": UNSET,
                "trust": UNSET,
                "incentive_ratio": shares.get(node.hotkey),
                "consensus_ratio": consensus.get(node.hotkey),
                "trust_ratio": trusts.get(node.hotkey),
            }
        case [Node(), *_]:
            return lambda node: {
                "nvidia_uuid": meaning.nvidia_uuid(node.uuid),
                "clock_rate": UNSET,
                "clock_rate_hertz": meaning.clock_rate_hertz(node),
            }
        case [Instance(), *_]:
            failures = any(one.consecutive_failures for one in records)
            return lambda one: {
                "state": meaning.instance_state(one),
                "secured_at": _time(meaning.secured_at(one)),
                "purged_at": _time(meaning.purged_at(one)),
                "region": meaning.region(one),
                "consecutive_failures": one.consecutive_failures if failures else None,
            }
        case [Job(), *_]:
            return lambda job: {"state": meaning.job_state(job)}
        case [Chute(), *_]:
            return lambda chute: {"bounty": UNSET, "bounty_age_seconds": meaning.bounty_age(chute)}
        case [Bounty(), *_]:
            return lambda bounty: {
                "created_at": _time(bounty.created_at),
                "expires_at": _time(meaning.bounty_expires_at(bounty)),
                "boost": meaning.bounty_boost(bounty),
            }
        case [ChuteUtilization(), *_]:
            return lambda chute: {
                "target_count": UNSET,
                "target_instances": meaning.target_instances(chute),
                "starting_instances": meaning.starting_instances(chute),
            }
        case [ChuteMetrics(), *_]:
            unknown = meaning.unknown_metrics(records)
            return lambda _: dict.fromkeys(unknown)
        case _:
            return lambda _: {}


def _time(moment: float | None) -> UnixTime | None:
    return None if moment is None else UnixTime(moment)


def _window_rows(name: str, window: StatsWindow) -> Iterator[Row]:
    for record in window.records:
        yield {"window": name} | _plain(record)


def _fields(record: msgspec.Struct) -> Row:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _plain(record: msgspec.Struct) -> Row:
    return {name: _value(value) for name, value in _fields(record).items() if value is not UNSET}


def _value(value: Any) -> Any:
    match value:
        case UnixTime():
            return datetime.fromtimestamp(value, UTC).isoformat()
        case msgspec.Struct():
            return _plain(value)
        case list():
            return [_value(one) for one in value]
        case _:
            return value


def _columns(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.10g}"
        case bool():
            return "yes" if value else "no"
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = _columns(rows)
    writer.writerow(columns)
    for row in rows:
        cells = (row.get(name) for name in columns)
        writer.writerow([json.dumps(cell) if isinstance(cell, bool | list | dict) else cell for cell in cells])
    return text.getvalue()


def _print_table(name: str, rows: list[Row]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    with console.capture() as capture:
        if rows:
            # One chute has more fields than a line has room for, and a maintenance policy has parts.
            single = name in (e.CHUTE.name, e.MAINTENANCE.name)
            console.print(_sheet(rows[0]) if single else _table(name, rows))
    for line in capture.get().splitlines():
        click.echo(line.rstrip())
    click.echo(f"{len(rows)} {'row' if len(rows) == 1 else 'rows'}", err=True)


def _sheet(row: Row) -> Table:
    """Lay out a record, a line a field."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for column, value in row.items():
        table.add_row(Text(column, style="bold"), Text(printable(_cell(value))))
    return table


def _table(name: str, rows: list[Row]) -> Table:
    """Lay out records, a line a record."""
    known = _columns(rows)
    usual = _TABLE_COLUMNS.get(name) or [column for column in known if not _always_empty(column, rows)]
    columns = [column for column in usual if column in known]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numbers = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        # A server's GPUs are many words; how many they are says more in a table.
        cells = (len(row[c]) if c == "gpus" and isinstance(row[c], list) else row.get(c) for c in columns)
        table.add_row(*(Text(printable(_cell(value))) for value in cells))
    return table


def _always_empty(column: str, rows: list[Row]) -> bool:
    return all(row.get(column) is None for row in rows)
