"""The command ``query``: prints an endpoint's answer as a table or JSON."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource
from msgspec import UNSET

from chutes_exporter.api import ApiError
from chutes_exporter.api import endpoints as e
from chutes_exporter.api import records as r
from chutes_exporter.collectors.scores import ranks
from chutes_exporter.commands.options import Command, asks, client_of, json_option, miner_options
from chutes_exporter.commands.terminal import print_table, printable
from chutes_exporter.rules import bounties, demand, gpus, instances, jobs, score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from chutes_exporter.api import ChutesClient, Hotkey
    from chutes_exporter.config import Settings

Cells = dict[str, Any]

_COLUMNS = {
    "chutes": "chute_id name effective_compute_multiplier tee disabled max_instances bounty_age_seconds version",
    "images": "image_id name tag status created_at",
    "nodes": "uuid server_name device_index verification_error gpu_identifier verified_at server_id",
    "servers": "server_id name is_tee version maintenance_pending gpus ip",
    "instances": "chute_id chute_name server_name age_minutes state instance_id created_at activated_at secured_at "
    "purged_at server_id",
    "jobs": "job_id chute_name method state created_at compute_multiplier miner_hotkey chute_id",
    "metrics": "chute_id chute_name utilization instance_count total_invocations rate_limit_count",
    "utilization": "chute_id name scale_allowance utilization_1h rate_limit_ratio_1h target_instances "
    "active_instance_count starting_instances",
    "metagraph": "hotkey node_id blacklist_reason incentive_ratio alpha_stake registered_at",
    "bounties": "chute_id chute_name boost expires_at created_at",
    "active_instances": "instance_id chute_name compute_multiplier activated_at chute_id miner_hotkey",
    "inventory": "gpu_id chute_name active last_verified_at chute_id",
    **dict.fromkeys(("held_gpus", "miner_gpus"), "instance_id gpu chute_name activated_at server_id chute_id hotkey"),
    "rolling_updates": "chute_id chute_name started_at new_version old_version",
}
"""The most useful columns of tables, the most important first. JSON has all fields."""
_CUT = ("name", "chute_name", "server_name", "status", "verification_error", "blacklist_reason")
"""Columns with texts that are shortened if the table is too wide. Ids are not, so that they can be copied."""

Addition = tuple[e.Endpoint[Any], str, str, str]
"""A column to add: the endpoint that has the values, its columns of the id and of the value, and the new column."""

_CHUTE_NAME: Addition = (e.UTILIZATION, "chute_id", "name", "chute_name")
_SERVER_NAME: Addition = (e.SERVERS, "server_id", "name", "server_name")
_ADDITIONS: dict[str, tuple[Addition, ...]] = {
    "nodes": (_SERVER_NAME,),
    "instances": (
        # The public list has no names of private chutes.
        (e.INVENTORY, "chute_id", "chute_name", "chute_name"),
        (e.MINER_GPUS, "instance_id", "server_id", "server_id"),
        _SERVER_NAME,
    ),
    **dict.fromkeys(
        ("active_instances", "bounties", "held_gpus", "jobs", "metrics", "miner_gpus", "rolling_updates", "stats"),
        (_CHUTE_NAME,),
    ),
}
_MINERS = {
    "scores": ("hotkey", "has no score: it is not registered, or no instance of the past day counts"),
    "metagraph": ("hotkey", "has no seat on the subnet: it is not registered"),
    "stats": ("miner_hotkey", "has no stats: it is not registered, or its instances computed nothing in the past week"),
    "active_instances": ("miner_hotkey", "has no active instance"),
    "held_gpus": ("hotkey", "has no GPU in an instance"),
}
"""Of endpoints about all miners, the column of the miner, and an explanation for one that is missing."""

# An audit report needs a path of the list, and `incidents` shows it. `status` asks about single servers.
_ENDPOINTS = [
    item.name
    for item in e.ENDPOINTS
    if item.method == "GET" and item not in (e.AUDIT_REPORT, e.SERVER_MAINTENANCE, e.SERVER_SLOT)
]


@click.command(
    cls=Command,
    help=f"""Print the answer of one endpoint as a table or JSON.

    ENDPOINT is one of {", ".join(_ENDPOINTS)}. The table has the most useful columns that fit the terminal. --json has
    all fields that the exporter reads.
    """,
)
@click.argument("endpoint", type=click.Choice(_ENDPOINTS), metavar="ENDPOINT")
@miner_options("Without a hotkey, stats, scores, metagraph and active_instances have all miners.")
@click.option("--per-chute", is_flag=True, help="Print stats for each chute. Works only with stats.")
@click.option("--chute-id", default="", metavar="ID", help="Works only with chute, which needs it.")
@click.option("--chute-version", default="", metavar="VERSION", help="Its version. query chutes shows both.")
@click.option("--columns", default="", metavar="NAME,NAME", help="Print only these columns, in this order.")
@json_option
@asks(needs_miner=False)
async def query(settings: Settings, flags: Mapping[str, Any]) -> None:
    """Request an endpoint and print its answer."""
    # --hotkey selects some of the watched miners. Without the flag, all are selected, also those of its variable.
    by_flag = click.get_current_context().get_parameter_source("hotkeys") is ParameterSource.COMMANDLINE
    hotkeys = set(flags["hotkeys"] if by_flag else settings.watched)
    endpoint = next(one for one in e.ENDPOINTS if one.name == flags["endpoint"])
    key = _signing_key(endpoint, settings, hotkeys)
    params, path = _request_arguments(endpoint, hotkeys, flags)
    async with client_of(settings, endpoint.name) as client:
        answer = await client.fetch(endpoint, key=key, params=params, path=path)
        rows = _selected(endpoint, list(rows_of(answer.value)), hotkeys)
        for addition in _ADDITIONS.get(endpoint.name, ()):
            await _add_column(client, key, rows, addition)
    if answer.rejected:
        reason = printable(answer.first_error)
        click.echo(f"{answer.rejected} records could not be read and are left out ({reason}).", err=True)
    columns = [column.strip() for column in flags["columns"].split(",") if column]
    existing = _columns(rows)
    # Without rows, no column is known, so none is wrong.
    for column in columns if existing else ():
        if column not in existing:
            raise click.UsageError(f"there is no column {column!r}: the columns are {', '.join(existing)}")
    if columns:
        rows = [{column: row.get(column) for column in columns} for row in rows]
    if flags["as_json"]:
        click.echo(json.dumps(rows, indent=2))
    else:
        _print_table(endpoint.name, rows, fit=not columns)


async def _add_column(client: ChutesClient, key: Hotkey | None, rows: list[Cells], addition: Addition) -> None:
    """Add a column to rows with ids. If its values cannot be requested, print the reason and change no row."""
    source, id_column, value_column, added = addition
    if all(row.get(id_column) is None for row in rows):
        return
    params = {"hotkey": key.address} if key is not None and source.scope == "miner" else {}
    try:
        answer = await client.fetch(source, key=key, params=params)
    except ApiError as error:
        click.echo(f"{added} is unknown: {source.name}: {printable(str(error))}", err=True)
        return
    values = {getattr(record, id_column): getattr(record, value_column) for record in answer.value}
    for row in rows:
        row[added] = values.get(row[id_column])


def first_key(settings: Settings) -> Hotkey:
    """Return the key to sign with, or raise UsageError."""
    if not settings.keys:
        raise click.UsageError("the request must be signed: add --hotkey-file, or set MINER_SS58 with a key")
    return settings.keys[0]


def _signing_key(endpoint: e.Endpoint[Any], settings: Settings, hotkeys: set[str]) -> Hotkey | None:
    """Return the key to sign with, or None. It is the selected miner's if the answer is about the signing miner."""
    if not endpoint.signed:
        return None
    key = first_key(settings)
    if endpoint.scope != "signer":
        return key
    selected = [key for key in settings.keys if key.address in hotkeys]
    if len(selected) != 1:
        raise click.UsageError(
            f"{endpoint.name} is about one miner: choose it with --hotkey, and add its hotkey file with --hotkey-file. "
            f"There are keys of {', '.join(key.address for key in settings.keys)}"
        )
    return selected[0]


def _request_arguments(
    endpoint: e.Endpoint[Any], hotkeys: set[str], flags: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the query parameters and the path of a request, or raise UsageError if flags and endpoint do not fit."""
    chute = {"chute_id": flags["chute_id"], "version": flags["chute_version"]}
    if flags["per_chute"] and endpoint is not e.STATS:
        raise click.UsageError("--per-chute works only with stats")
    if any(chute.values()) and endpoint is not e.CHUTE:
        raise click.UsageError("--chute-id and --chute-version work only with chute")
    if endpoint is e.CHUTE:
        if not all(chute.values()):
            raise click.UsageError("chute needs --chute-id and --chute-version: query chutes shows both")
        return {}, chute
    only = next(iter(hotkeys)) if len(hotkeys) == 1 else None
    if endpoint is e.STATS:
        return e.stats_params(only, per_chute=flags["per_chute"]), {}
    if endpoint.scope != "miner":
        return {}, {}
    if only is None:
        raise click.UsageError(f"{endpoint.name} needs exactly one miner: use one --hotkey")
    # Only this endpoint has the hotkey in its path.
    miner = {"hotkey": only}
    return ({}, miner) if endpoint is e.UNIQUE_CHUTE_HISTORY else (miner, {})


def _selected(endpoint: e.Endpoint[Any], rows: list[Cells], hotkeys: set[str]) -> list[Cells]:
    """Return the rows about the selected miners. The request had all miners, because ranks and shares need them."""
    if endpoint.name not in _MINERS or not hotkeys:
        return rows
    column, explanation = _MINERS[endpoint.name]
    selected = [row for row in rows if row.get(column) in hotkeys]
    # A row of scores without a share is no score. Other rows have no such column.
    shown = {row[column] for row in selected if row.get("share", 0) is not None}
    for hotkey in sorted(hotkeys - shown):
        click.echo(f"{hotkey} {explanation}.", err=True)
    return selected


def rows_of(value: Any) -> Iterator[Cells]:
    """Return an answer as flat rows, with times as ISO 8601 text."""
    match value:
        case r.Scores():
            known = {hotkey: share for hotkey, share in value.shares.items() if share is not None}
            ranking = ranks(known) if len(known) == len(value.shares) else {}
            for hotkey, share in value.shares.items():
                raw = value.raw.get(hotkey)
                row = {"rank": ranking.get(hotkey), "hotkey": hotkey, "share": share}
                yield row | (_plain(raw) if raw is not None else {})
        case r.MaintenancePolicy():
            yield from _maintenance_rows(value)
        case list():
            meanings_of = _meanings(value)
            yield from (_plain(record, meanings_of(record)) for record in value)
        case _:
            yield from rows_of([value])


def _meanings(records: list[Any]) -> Callable[[Any], Cells]:  # noqa: PLR0911 - a case for each kind of record
    """Return a function from a record to the meanings of its codes, by column. A column with UNSET is left out."""
    match records:
        case [r.MetagraphNode(), *_]:
            shares = score.incentive_shares(records)
            return lambda node: {
                "incentive": UNSET,
                "consensus": UNSET,
                "incentive_ratio": shares.get(node.hotkey),
                "consensus_ratio": score.consensus_ratio(node),
            }
        case [r.Node(), *_]:
            return lambda node: {
                "nvidia_uuid": gpus.nvidia_uuid(node.uuid),
                "clock_rate": UNSET,
                "clock_rate_hertz": gpus.clock_rate_hertz(node),
            }
        case [r.Instance(), *_]:
            now = time.time()
            return lambda instance: {
                "age_minutes": None if instance.created_at is None else round((now - instance.created_at) / 60),
                "state": instances.instance_state(instance),
                "secured_at": _time(instances.secured_at(instance)),
                "purged_at": _time(instances.purged_at(instance)),
            }
        case [r.Job(), *_]:
            # A job whose chute is gone has no chute_name.
            return lambda job: {"state": jobs.job_state(job, {job.chute_id})}
        case [r.Chute(), *_]:
            return lambda chute: {"bounty": UNSET, "bounty_age_seconds": bounties.bounty_age(chute)}
        case [r.Bounty(), *_]:
            return lambda bounty: {
                "created_at": _time(bounty.created_at),
                "expires_at": _time(bounties.bounty_expires_at(bounty)),
                "boost": bounties.bounty_boost(bounty),
            }
        case [r.ChuteUtilization(), *_]:
            return lambda chute: {
                "target_count": UNSET,
                "target_instances": demand.target_instances(chute),
                "starting_instances": demand.starting_instances(chute),
            }
        case [r.ChuteMetrics(), *_]:
            unknown = demand.unknown_metrics(records)
            return lambda _: dict.fromkeys(unknown)
        case _:
            return lambda _: {}


def _time(moment: float | None) -> r.UnixTime | None:
    return None if moment is None else r.UnixTime(moment)


def _maintenance_rows(policy: r.MaintenancePolicy) -> Iterator[Cells]:
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


def _plain(record: msgspec.Struct, changes: Cells | None = None) -> Cells:
    fields = {name: getattr(record, name) for name in record.__struct_fields__} | (changes or {})
    return {name: _value(value) for name, value in fields.items() if value is not UNSET}


def _value(value: Any) -> Any:
    match value:
        case r.UnixTime():
            return datetime.fromtimestamp(value, UTC).isoformat()
        case msgspec.Struct():
            return _plain(value)
        case list():
            return [_value(item) for item in value]
        case _:
            return value


def _columns(rows: list[Cells]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _print_table(name: str, rows: list[Cells], *, fit: bool) -> None:
    """Print a table. With ``fit``, it has only columns that matter and fit; without, the user chose the columns."""
    columns = _columns(rows)
    if fit and name in _COLUMNS:
        columns = [column for column in _COLUMNS[name].split() if column in columns]
    elif fit:
        columns = [column for column in columns if any(row.get(column) is not None for row in rows)]
    # Show only the number of a server's GPUs.
    cells = [{c: len(row[c]) if c == "gpus" and row.get(c) else row.get(c) for c in columns} for row in rows]
    if name == e.CHUTE.name:
        # A chute has too many fields for one line.
        cells = [{"field": column, "value": value} for row in cells for column, value in row.items()]
    left_out = print_table(cells, cut=_CUT, fit=fit and name != e.CHUTE.name)
    hint = f". Columns that do not fit: {', '.join(left_out)}. --columns chooses others." if left_out else ""
    click.echo(f"{len(rows)} {'row' if len(rows) == 1 else 'rows'}{hint}", err=True)
