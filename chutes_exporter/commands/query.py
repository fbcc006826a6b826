"""The command ``query``: prints an endpoint's answer as a table or JSON."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource
from msgspec import UNSET

from chutes_exporter.api import ApiError
from chutes_exporter.api import endpoints as e
from chutes_exporter.api import records as r
from chutes_exporter.commands.options import (
    Command,
    Parsed,
    asks,
    client_of,
    json_option,
    miner_options,
)
from chutes_exporter.commands.terminal import cell_text, iso_time, print_table, printable
from chutes_exporter.config import parse_hotkey
from chutes_exporter.rules.demand import unknown_metrics
from chutes_exporter.rules.instances import instance_state, purged_at, secured_at
from chutes_exporter.rules.score import incentive_shares

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chutes_exporter.api import ChutesClient, Hotkey
    from chutes_exporter.config import Settings

Cells = dict[str, Any]

_COLUMNS = {
    "chutes": "chute_id name effective_compute_multiplier tee disabled max_instances version",
    "nodes": (
        "uuid server_name device_index verification_error gpu_identifier verified_at server_id"
    ),
    "instances": "chute_id chute_name server_name age_minutes state instance_id created_at "
    "activated_at "
    "secured_at "
    "purged_at server_id",
    "utilization": (
        "chute_id name scale_allowance utilization_1h rate_limit_ratio_1h active_instance_count"
    ),
    "maintenance": "name version maintenance_status needs_upgrade current_slots "
    "max_concurrent_per_miner window_open in_maintenance target_measurement_version "
    "upgrade_window_end server_id",
    "metagraph": "hotkey node_id blacklist_reason incentive_ratio alpha_stake registered_at",
}
"""The most useful columns of tables whose records do not begin with them. JSON has all fields."""
_CUT = ("name", "chute_name", "server_name", "status", "verification_error", "blacklist_reason")
"""Columns with texts that are shortened if the table is too wide. Ids are not, so that they can be
copied.
"""

Addition = tuple[e.Endpoint[Any], str, str, str]
"""A column to add: the endpoint that has the values, its columns of the id and of the value, and
the new column.
"""

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
        ("active_instances", "bounties", "jobs", "metrics", "rolling_updates"),
        ((e.UTILIZATION, "chute_id", "name", "chute_name"),),
    ),
}
_MINERS = {
    "scores": "hotkey",
    "metagraph": "hotkey",
    "held_gpus": "hotkey",
    "stats": "miner_hotkey",
    "active_instances": "miner_hotkey",
}
"""The column of the miner in answers about all miners."""

# An audit report needs a path of the list, and `incidents` shows it.
_ENDPOINTS = {
    item.name: item for item in e.ENDPOINTS if item.method == "GET" and item is not e.AUDIT_REPORT
}
_MINER_PARAMETERS = ("hotkey", "miner_hotkey")
"""The parameters that select a miner in answers about all miners."""


def _parse_parameter(text: str) -> tuple[str, str]:
    """Parse a query parameter, ``NAME=VALUE``, or raise ValueError."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise ValueError(f"{text!r} is invalid: write NAME=VALUE")
    if name in _MINER_PARAMETERS:
        return name, parse_hotkey(value)
    if value not in ("true", "false"):
        raise ValueError(f"{text!r} is invalid: write {name}=true or {name}=false")
    return name, value


def _parameters_in_words() -> str:
    """Return the parameters of each endpoint that has some."""
    named = [item for item in e.ENDPOINTS if item.parameters]
    return ", ".join(f"{' and '.join(item.parameters)} of {item.name}" for item in named)


@click.command(
    cls=Command,
    help=f"""Print the answer of one endpoint as a table or JSON.

    ENDPOINT is one of {", ".join(_ENDPOINTS)}. After chute, write its id and version, and after
    server_maintenance the id of the server. The table has the most useful columns that fit the
    terminal. --json has all fields that the exporter reads.
    """,
)
@click.argument("endpoint", type=click.Choice([*_ENDPOINTS]), metavar="ENDPOINT")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@miner_options("Without a hotkey, stats, scores, metagraph and active_instances have all miners.")
@click.option(
    "--param",
    "parameters",
    multiple=True,
    type=Parsed("NAME=VALUE", _parse_parameter),
    help="Query parameter of the request, as in the API's reference (repeatable): "
    f"{_parameters_in_words()}. A single --hotkey is sent to scores and stats by itself.",
)
@click.option(
    "--columns", default="", metavar="NAME,NAME", help="Print only these columns, in this order."
)
@json_option
@asks(needs_miner=False)
async def query(settings: Settings, flags: Mapping[str, Any]) -> None:
    """Request an endpoint and print its answer."""
    endpoint = _ENDPOINTS[flags["endpoint"]]
    given = _known_parameters(endpoint, dict(flags["parameters"]))
    hotkeys = _selected_hotkeys(settings, flags["hotkeys"], given)
    key = _signing_key(endpoint, settings, hotkeys)
    params, path = _request_arguments(endpoint, hotkeys, flags["ids"])
    params |= given
    async with client_of(settings, endpoint.name) as client:
        answer = await client.fetch(endpoint, key=key, params=params, path=path)
        rows = _selected(endpoint, list(rows_of(answer.value, answer.received_at)), hotkeys)
        for addition in _ADDITIONS.get(endpoint.name, ()):
            await _add_column(client, key, rows, addition)
    if answer.rejected:
        reason = printable(answer.first_error)
        click.echo(
            f"{answer.rejected} records could not be read and are left out ({reason}).", err=True
        )
    columns = [column.strip() for column in flags["columns"].split(",") if column]
    if columns:
        rows = _with_columns(rows, columns)
    if flags["as_json"]:
        click.echo(json.dumps(rows, indent=2))
    else:
        _print_table(endpoint.name, rows, chosen=bool(columns))


def _selected_hotkeys(
    settings: Settings, hotkeys: Sequence[str], parameters: Mapping[str, str]
) -> set[str]:
    """Return the miners that a parameter, or else --hotkey, selects of the watched ones.

    Without that flag, all are selected, also those of its variable.
    """
    by_parameter = {parameters[name] for name in _MINER_PARAMETERS if name in parameters}
    if by_parameter:
        return by_parameter
    source = click.get_current_context().get_parameter_source("hotkeys")
    by_flag = source is ParameterSource.COMMANDLINE
    return set(hotkeys if by_flag else settings.watched)


def _with_columns(rows: list[Cells], columns: Sequence[str]) -> list[Cells]:
    """Return rows with these columns only, or raise UsageError if there is no such column."""
    existing = _columns(rows)
    for column in columns:
        # Without rows, no column is known, so none is wrong.
        if existing and column not in existing:
            raise click.UsageError(
                f"there is no column {column!r}: the columns are {', '.join(existing)}"
            )
    return [_chosen(row, columns) for row in rows]


def _chosen(row: Cells, columns: Sequence[str]) -> Cells:
    return {column: row.get(column) for column in columns}


async def _add_column(
    client: ChutesClient, key: Hotkey | None, rows: list[Cells], addition: Addition
) -> None:
    """Add a column to rows with ids. If its values cannot be requested, print the reason and change
    no row.
    """
    source, id_column, value_column, added = addition
    params = {}
    if key is not None and source.scope == "miner":
        params["hotkey"] = key.address
    try:
        answer = await client.fetch(source, key=key, params=params)
    except ApiError as error:
        click.echo(f"{added} is unknown: {source.name}: {printable(str(error))}", err=True)
        return
    values = {getattr(record, id_column): getattr(record, value_column) for record in answer.value}
    for row in rows:
        row[added] = values.get(row.get(id_column))


def first_key(settings: Settings) -> Hotkey:
    """Return the key to sign with, or raise UsageError."""
    if not settings.keys:
        raise click.UsageError(
            "the request must be signed: add --hotkey-file, or set MINER_SS58 with a key"
        )
    return settings.keys[0]


def _signing_key(endpoint: e.Endpoint[Any], settings: Settings, hotkeys: set[str]) -> Hotkey | None:
    """Return the key to sign with, or None. It is the selected miner's if the answer is about the
    signing miner.
    """
    if not endpoint.signed:
        return None
    key = first_key(settings)
    if endpoint.scope != "signer":
        return key
    selected = [key for key in settings.keys if key.address in hotkeys]
    if len(selected) != 1:
        raise click.UsageError(
            f"{endpoint.name} is about one miner: choose it with --hotkey, and add its hotkey "
            "file with --hotkey-file. "
            f"There are keys of {', '.join(key.address for key in settings.keys)}"
        )
    return selected[0]


def _known_parameters(endpoint: e.Endpoint[Any], given: dict[str, str]) -> dict[str, str]:
    """Return the parameters that the user gave, or raise UsageError if the endpoint lacks one.

    The service ignores those that it does not know.
    """
    known = " and ".join(endpoint.parameters)
    for name in given:
        if not known:
            raise click.UsageError(f"{endpoint.name} has no parameters")
        if name not in endpoint.parameters:
            raise click.UsageError(f"{endpoint.name} has no parameter {name}, but {known}")
    return given


def _request_arguments(
    endpoint: e.Endpoint[Any], hotkeys: set[str], ids: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the query parameters and the path of a request, or raise UsageError if the arguments
    do not fit.
    """
    names = re.findall(r"\{(\w+)\}", endpoint.path)
    needed = [name for name in names if name != "hotkey"]
    if len(ids) != len(needed):
        raise click.UsageError(
            f"after {endpoint.name}, write {' '.join(needed).upper() or 'no ID'}"
        )
    if endpoint.scope != "miner":
        return _selecting_parameters(endpoint, hotkeys), dict(zip(needed, ids, strict=True))
    if len(hotkeys) != 1:
        raise click.UsageError(f"{endpoint.name} needs exactly one miner: use one --hotkey")
    miner = dict.fromkeys(["hotkey"], *hotkeys)
    return ({}, miner) if names else (miner, {})


def _selecting_parameters(endpoint: e.Endpoint[Any], hotkeys: set[str]) -> dict[str, str]:
    """Return the parameters that select a single miner.

    Of several miners, one request asks for everybody, and _selected chooses the rows.
    """
    if len(hotkeys) != 1:
        return {}
    names = [name for name in endpoint.parameters if name in _MINER_PARAMETERS]
    return dict.fromkeys(names, *hotkeys)


def _selected(endpoint: e.Endpoint[Any], rows: list[Cells], hotkeys: set[str]) -> list[Cells]:
    """Return the rows about the selected miners. The answer may have all miners."""
    if endpoint.name not in _MINERS or not hotkeys:
        return rows
    column = _MINERS[endpoint.name]
    for hotkey in sorted(hotkeys - {row[column] for row in rows}):
        click.echo(
            f"{hotkey} has no row. chutes-exporter check says whether it is registered.", err=True
        )
    return [row for row in rows if row[column] in hotkeys]


def rows_of(value: Any, now: float) -> Iterator[Cells]:
    """Return an answer of a time as flat rows, with times as ISO 8601 text, and with what the
    service's rules make of it.
    """
    match value:
        case r.Scores():
            yield from _score_rows(value)
        case r.MaintenancePolicy():
            yield from _maintenance_rows(value)
        case [r.MetagraphNode(), *_]:
            yield from _metagraph_rows(value)
        case [r.ChuteMetrics(), *_]:
            unknown = dict.fromkeys(unknown_metrics(value))
            yield from (_plain(record, **unknown) for record in value)
        case [r.Instance(), *_]:
            yield from (_instance_row(instance, now) for instance in value)
        case list():
            yield from map(_plain, value)
        case _:
            yield _plain(value)


def _metagraph_rows(nodes: list[r.MetagraphNode]) -> Iterator[Cells]:
    shares = incentive_shares(nodes)
    for node in nodes:
        # The chain's number means something only beside those of all others.
        yield _plain(node, incentive=UNSET, incentive_ratio=shares.get(node.hotkey))


def _score_rows(scores: r.Scores) -> Iterator[Cells]:
    for hotkey, share in scores.shares.items():
        raw = scores.raw.get(hotkey)
        if share is None and raw is None:
            # In an answer about one miner, this means that the miner has no score.
            continue
        row = {"hotkey": hotkey, "share": share}
        yield row | ({} if raw is None else _plain(raw))


def _instance_row(instance: r.Instance, now: float) -> Cells:
    age = None if instance.created_at is None else now - instance.created_at
    return _plain(
        instance,
        age_minutes=None if age is None else round(age / 60),
        state=instance_state(instance),
        secured_at=iso_time(secured_at(instance)),
        purged_at=iso_time(purged_at(instance)),
    )


def _maintenance_rows(policy: r.MaintenancePolicy) -> list[Cells]:
    """Return a row for each TEE server, each with the window; without any, the window alone."""
    window = {} if policy.active_window is None else _plain(policy.active_window)
    common = window | _plain(policy, active_window=UNSET, servers=UNSET)
    return [_plain(server) | common for server in policy.servers or ()] or [common]


def _plain(record: msgspec.Struct, **more: Any) -> Cells:
    fields = msgspec.structs.asdict(record) | more
    plain: Cells = msgspec.to_builtins(
        {k: v for k, v in fields.items() if v is not UNSET}, enc_hook=iso_time
    )
    return plain


def _columns(rows: list[Cells]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _print_table(name: str, rows: list[Cells], *, chosen: bool) -> None:
    """Print the columns that the user chose, or those that matter and fit. A single row becomes a
    list of fields.
    """
    if not chosen and len(rows) == 1:
        cells = [{"field": column, "value": cell_text(value)} for column, value in rows[0].items()]
        print_table(cells, fit=False)
        click.echo("1 row", err=True)
        return
    columns = _columns(rows) if chosen else _useful_columns(name, rows)
    cells = [_short(row, columns) for row in rows]
    left_out = print_table(cells, cut=_CUT, fit=not chosen)
    text = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    if left_out:
        text += f". Columns that do not fit: {', '.join(left_out)}. --columns chooses others."
    click.echo(text, err=True)


def _useful_columns(name: str, rows: list[Cells]) -> list[str]:
    """Return the columns of an endpoint's table that matter, or else those with a value."""
    columns = _columns(rows)
    if name in _COLUMNS:
        return [column for column in _COLUMNS[name].split() if column in columns]
    filled = {column for row in rows for column, value in row.items() if value is not None}
    return [column for column in columns if column in filled]


def _short(row: Cells, columns: Sequence[str]) -> Cells:
    """Return some columns of a row. Of a list, such as a server's GPUs, it has only the length."""
    cells = _chosen(row, columns)
    for column, value in cells.items():
        if isinstance(value, list):
            cells[column] = len(value)
    return cells
