"""The command ``query``: prints an endpoint's answer as a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import re
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
    MaintenancePolicy,
    MetagraphNode,
    Node,
    Scores,
    Stats,
    UnixTime,
)
from chutes_exporter.collectors.scores import ranks
from chutes_exporter.collectors.stats import windows
from chutes_exporter.commands.options import (
    Command,
    api_options,
    hotkey_options,
    json_option,
    run,
    settings_with_warnings,
    source_of,
)
from chutes_exporter.commands.terminal import json_text, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chutes_exporter.config import Settings

Row = dict[str, Any]
Form = Literal["table", "json", "csv"]
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(\+00:00|Z)")
_UNLIMITED = 1_000_000

# The most useful columns. JSON and CSV have all fields.
_TABLE_COLUMNS: dict[str, tuple[str, ...]] = {
    "chutes": (
        "chute_id",
        "version",
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


_HOTKEY_COLUMNS = {
    "scores": "hotkey",
    "metagraph": "hotkey",
    "stats": "miner_hotkey",
    "active_instances": "miner_hotkey",
    "held_gpus": "hotkey",
}
"""The column of the miner in endpoints about all miners."""
_MISSING = {
    "scores": "has no score: it is not registered, or no instance of the past day counts",
    "metagraph": "has no seat on the subnet: it is not registered",
    "stats": "has no stats: it is not registered, or none of its instances computed anything in the past week",
    "active_instances": "has no active instance",
    "held_gpus": "has no GPU in an instance",
}
"""An explanation for a miner that such an endpoint does not have. Each of these endpoints has one."""


@dataclass(frozen=True)
class QueryOptions:
    """The options of a query.

    Attributes:
        hotkeys: The miners of --hotkey. If empty, the watched miners are selected.
        per_chute: Whether to request stats for each chute.
        chute_id: The chute.
        chute_version: The chute's version.
    """

    hotkeys: tuple[str, ...] = ()
    per_chute: bool = False
    chute_id: str = ""
    chute_version: str = ""


_ENDPOINTS = [endpoint.name for endpoint in e.ENDPOINTS if endpoint.method == "GET"]


@click.command(
    cls=Command,
    help=f"""Print the answer of one endpoint as a table, JSON or CSV.

    ENDPOINT is one of {", ".join(_ENDPOINTS)}. The table has the most useful columns. --json and --csv have all
    fields that the exporter reads.
    """,
)
@click.argument("endpoint", type=click.Choice(_ENDPOINTS), metavar="ENDPOINT")
@hotkey_options("Without a hotkey, stats, scores, metagraph and active_instances have all miners.")
@api_options
@click.option("--per-chute", is_flag=True, help="Print stats for each chute. Works only with stats.")
@click.option("--chute-id", metavar="ID", help="Id of the chute. Works only with chute, which needs it.")
@click.option("--chute-version", metavar="VERSION", help="Version of the chute. Likewise; query chutes shows both.")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def query(endpoint: str, **flags: Any) -> None:
    """Request an endpoint and print its answer."""
    if flags["as_json"] and flags["as_csv"]:
        raise click.UsageError("--json and --csv exclude each other: use only one")
    form = "json" if flags["as_json"] else "csv" if flags["as_csv"] else "table"
    # The variable adds watched miners, as for the other commands. Only the flag selects some of them.
    chosen = flags["hotkeys"] if source_of("hotkeys") == "--hotkey" else ()
    hotkeys = tuple(hotkey.strip() for hotkey in chosen)
    query_options = QueryOptions(hotkeys, flags["per_chute"], flags["chute_id"] or "", flags["chute_version"] or "")
    run(run_query, settings_with_warnings(flags), endpoint, query_options, form)


async def run_query(settings: Settings, name: str, options: QueryOptions, form: Form) -> None:
    """Request an endpoint and print its answer.

    Args:
        settings: The API and the keys.
        name: The endpoint's name.
        options: The options of the query.
        form: The output format.

    Raises:
        ClickException: An option is missing, or the API does not answer. The message says what to do.
    """
    endpoint = next(one for one in e.ENDPOINTS if one.name == name)
    hotkeys = set(options.hotkeys or settings.watched)
    key, params, path = _request_arguments(endpoint, settings, options, hotkeys)
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        try:
            with _progress(name) as progress:
                answer = await client.fetch(endpoint, key=key, params=params, path=path, progress=progress)
        except ApiError as error:
            raise click.ClickException(f"{name}: {printable(str(error))}\n→ {error.advice}") from None
    if answer.rejected:
        reason = printable(answer.first_error)
        click.echo(f"{answer.rejected} records could not be read and are left out ({reason}).", err=True)
    rows = _selected(endpoint, list(rows_of(answer.value)), hotkeys)
    if form == "json":
        _show(json_text(rows))
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
        raise click.ClickException("the request must be signed: add --hotkey-file, or set MINER_SS58 and MINER_SEED")
    return settings.keys[0]


def _signing_key(endpoint: e.Endpoint[Any], settings: Settings, hotkeys: set[str]) -> Hotkey:
    """Return the key to sign with: that of the selected miner, if the answer is about the signing miner.

    Raises:
        ClickException: There is none, or several miners are selected.
    """
    key = first_key(settings)
    if endpoint.scope != "signer":
        return key
    selected = [one for one in settings.keys if one.address in hotkeys]
    if not selected:
        raise click.ClickException(
            f"{endpoint.name} is private, and there is no key of {', '.join(sorted(hotkeys))}: "
            "add its hotkey file with --hotkey-file, or choose another miner with --hotkey or CHUTES_EXPORTER_HOTKEY"
        )
    if len(selected) > 1:
        raise click.ClickException(
            f"{endpoint.name} is about one miner: choose it with --hotkey. "
            f"There are keys of {', '.join(one.address for one in selected)}"
        )
    return selected[0]


def _request_arguments(
    endpoint: e.Endpoint[Any], settings: Settings, options: QueryOptions, hotkeys: set[str]
) -> tuple[Hotkey | None, dict[str, str], dict[str, str]]:
    """Return the key, the query parameters and the path of a request."""
    key = _signing_key(endpoint, settings, hotkeys) if endpoint.signed else None
    if options.per_chute and endpoint is not e.STATS:
        raise click.ClickException("--per-chute works only with stats")
    if (options.chute_id or options.chute_version) and endpoint is not e.CHUTE:
        raise click.ClickException("--chute-id and --chute-version work only with chute")
    only = next(iter(hotkeys)) if len(hotkeys) == 1 else None
    params: dict[str, str] = {}
    path: dict[str, str] = {}
    if endpoint.scope == "miner":
        if only is None:
            raise click.ClickException(f"{endpoint.name} needs exactly one miner: use one --hotkey")
        (path if endpoint is e.UNIQUE_CHUTE_HISTORY else params)["hotkey"] = only
    elif endpoint is e.CHUTE:
        if not (options.chute_id and options.chute_version):
            raise click.ClickException("chute needs --chute-id and --chute-version: query chutes shows both")
        path = {"chute_id": options.chute_id, "version": options.chute_version}
    elif endpoint is e.STATS:
        params = e.stats_params(only, per_chute=options.per_chute)
    return key, params, path


def _selected(endpoint: e.Endpoint[Any], rows: list[Row], hotkeys: set[str]) -> list[Row]:
    """Return the rows about the selected miners. Ranks and shares need the rows of all miners before."""
    column = _HOTKEY_COLUMNS.get(endpoint.name)
    if column is None or not hotkeys:
        return rows
    selected = [row for row in rows if row.get(column) in hotkeys]
    # A row of scores without a share is no score.
    found = {row[column] for row in selected if row.get("share", 0) is not None}
    for hotkey in sorted(hotkeys - found):
        click.echo(f"{hotkey} {_MISSING[endpoint.name]}.", err=True)
    return selected


def _show(text: str) -> None:
    """Print text. Remove control characters if standard output is a terminal."""
    # Not splitlines(): text of the API may have the other characters that it splits at.
    for line in text.removesuffix("\n").split("\n") if text else ():
        click.echo(printable(line) if sys.stdout.isatty() else line)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int], None] | None]:
    """Show the progress of a stream if standard error is a terminal."""
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
    """Return an answer as flat rows, with times as ISO 8601 text."""
    match value:
        case Scores():
            ranking = {} if None in value.shares.values() else ranks(value.shares)
            for hotkey, share in value.shares.items():
                raw = value.raw.get(hotkey)
                row = {"rank": ranking.get(hotkey), "hotkey": hotkey, "share": share}
                yield row | (_plain(raw) if raw is not None else {})
        case Stats():
            for name, window in windows(value):
                yield from ({"window": name} | _plain(record) for record in window)
        case MaintenancePolicy():
            yield from _maintenance_rows(value)
        case list():
            yield from _with_meanings(value)
        case _:
            yield from _with_meanings([value])


def _with_meanings(records: list[msgspec.Struct]) -> Iterator[Row]:
    """Return records as rows. Replace the service's codes and constants by their meanings."""
    meanings_of = _meanings(records)
    for record in records:
        row = _fields(record) | meanings_of(record)
        yield {name: _value(value) for name, value in row.items() if value is not UNSET}


def _meanings(records: list[Any]) -> Callable[[Any], Row]:  # noqa: PLR0911 - a case for each kind of record
    """Return a function from a record to its changed columns. UNSET leaves a column out."""
    match records:
        case [MetagraphNode(), *_]:
            shares = meaning.incentive_shares(records)
            return lambda node: {
                "incentive": UNSET,
                "consensus": UNSET,
                "incentive_ratio": shares.get(node.hotkey),
                "consensus_ratio": meaning.consensus_ratio(node),
            }
        case [Node(), *_]:
            return lambda node: {
                "nvidia_uuid": meaning.nvidia_uuid(node.uuid),
                "clock_rate": UNSET,
                "clock_rate_hertz": meaning.clock_rate_hertz(node),
            }
        case [Instance(), *_]:
            return lambda one: {
                "state": meaning.instance_state(one),
                "secured_at": _time(meaning.secured_at(one)),
                "purged_at": _time(meaning.purged_at(one)),
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


def _maintenance_rows(policy: MaintenancePolicy) -> Iterator[Row]:
    """Return a row for each TEE server, each with the window; without any, the window alone."""
    window = _plain(policy.active_window) if policy.active_window is not None else {}
    common = window | {
        "window_open": None if policy.window_open is UNSET else policy.window_open,
        "current_slots": policy.current_slots,
    }
    servers = policy.servers or ()
    yield from (_plain(server) | common for server in servers)
    if not servers:
        yield common


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
        case str() if time := _TIME.fullmatch(value):
            # Nobody reads the microseconds of a table.
            return f"{time[1]}Z"
        case _:
            return str(value)


def _csv(rows: list[Row]) -> str:
    """Return rows as CSV. Only rows say which columns there are, so that without rows there is no header."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = _columns(rows)
    writer.writerow(columns)
    for row in rows:
        cells = (row.get(name) for name in columns)
        writer.writerow([json.dumps(cell) if isinstance(cell, bool | list | dict) else cell for cell in cells])
    return text.getvalue()


def _print_table(name: str, rows: list[Row]) -> None:
    # A record has one line on a terminal, too: an id that is folded cannot be copied.
    console = Console(highlight=False, width=_UNLIMITED)
    with console.capture() as capture:
        if rows:
            # A chute has too many fields for one line.
            console.print(_vertical(rows[0]) if name == e.CHUTE.name else _table(name, rows))
    for line in capture.get().splitlines():
        click.echo(line.rstrip())
    click.echo(f"{len(rows)} {'row' if len(rows) == 1 else 'rows'}", err=True)


def _vertical(row: Row) -> Table:
    """Lay out a record with one line for each field."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for column, value in row.items():
        table.add_row(Text(column, style="bold"), Text(printable(_cell(value))))
    return table


def _table(name: str, rows: list[Row]) -> Table:
    """Lay out records with one line for each record."""
    known = _columns(rows)
    usual = _TABLE_COLUMNS.get(name) or [column for column in known if not _always_empty(column, rows)]
    columns = [column for column in usual if column in known]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numbers = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column, justify="right" if numbers else "left", no_wrap=True)
    for row in rows:
        # Show only the number of a server's GPUs.
        cells = (len(row[c]) if c == "gpus" and isinstance(row[c], list) else row.get(c) for c in columns)
        table.add_row(*(Text(printable(_cell(value))) for value in cells))
    return table


def _always_empty(column: str, rows: list[Row]) -> bool:
    return all(row.get(column) is None for row in rows)
