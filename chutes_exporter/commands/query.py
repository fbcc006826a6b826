"""The command ``query``: prints an endpoint's answer as a table or JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
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
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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


@dataclass(frozen=True)
class AddedColumn:
    """A column that a table gets from the answer of another endpoint.

    Attributes:
        name: Of the new column.
        source: The endpoint that has the values.
        id_column: The column of the id, in both answers.
        value_column: The column of the value in the source.
    """

    name: str
    source: e.Endpoint[Any]
    id_column: str
    value_column: str


_SERVER_NAME = AddedColumn("server_name", e.SERVERS, "server_id", "name")
_CHUTE_NAME = AddedColumn("chute_name", e.UTILIZATION, "chute_id", "name")
_ADDED_COLUMNS: dict[str, tuple[AddedColumn, ...]] = {
    "nodes": (_SERVER_NAME,),
    "instances": (
        # The public list has no names of private chutes.
        AddedColumn("chute_name", e.INVENTORY, "chute_id", "chute_name"),
        AddedColumn("server_id", e.MINER_GPUS, "instance_id", "server_id"),
        _SERVER_NAME,
    ),
    "active_instances": (_CHUTE_NAME,),
    "bounties": (_CHUTE_NAME,),
    "jobs": (_CHUTE_NAME,),
    "metrics": (_CHUTE_NAME,),
    "rolling_updates": (_CHUTE_NAME,),
}
_MINER_COLUMNS = {
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
_PARAMETERS = frozenset(name for endpoint in e.ENDPOINTS for name in endpoint.parameters)
_MINER_PARAMETERS = ("hotkey", "miner_hotkey")
"""The parameters that select a miner in answers about all miners."""


def _parse_parameter(text: str) -> tuple[str, str]:
    """Parse a query parameter, ``NAME=VALUE``, or raise ValueError."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise ValueError(f"{text!r} is invalid: write NAME=VALUE")
    if name in _MINER_PARAMETERS:
        return name, parse_hotkey(value)
    # All other parameters of the API are switches. query itself refuses unknown ones.
    if name in _PARAMETERS and value not in ("true", "false"):
        raise ValueError(f"{text!r} is invalid: write {name}=true or {name}=false")
    return name, value


def _parameters_in_words() -> str:
    """Return the parameters of each endpoint that has some, for the help."""
    with_parameters = [endpoint for endpoint in e.ENDPOINTS if endpoint.parameters]
    texts = [
        f"{' and '.join(endpoint.parameters)} of {endpoint.name}" for endpoint in with_parameters
    ]
    return ", ".join(texts)


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
    given_params = dict(flags["parameters"])
    _refuse_unknown_parameters(endpoint, given_params)
    hotkeys = _selected_hotkeys(settings, flags["hotkeys"], given_params)
    key = _signing_key(endpoint, settings, hotkeys)
    params, path = _request_arguments(endpoint, hotkeys, flags["ids"])
    # The parameters above only select a miner. Those of --param are sent, too.
    params |= given_params
    async with client_of(settings, endpoint.name) as client:
        answer = await client.fetch(endpoint, key=key, params=params, path=path)
        rows = list(rows_of(answer.value, answer.received_at))
        rows = _rows_of_miners(endpoint, rows, hotkeys)
        for column in _ADDED_COLUMNS.get(endpoint.name, ()):
            await _add_column(client, key, rows, column)
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
        _print_table(endpoint.name, rows, has_chosen_columns=bool(columns))


def _selected_hotkeys(
    settings: Settings, hotkeys: Sequence[str], parameters: Mapping[str, str]
) -> set[str]:
    """Return the miners that the answer should be about: that of a parameter, otherwise those of
    --hotkey, and without this flag all watched ones.

    The environment variable of --hotkey is meant for all commands. So its hotkeys do not replace
    the watched ones here, as those of the flag do, but are among them.
    """
    hotkeys_of_parameters = {parameters[name] for name in _MINER_PARAMETERS if name in parameters}
    if hotkeys_of_parameters:
        return hotkeys_of_parameters
    source = click.get_current_context().get_parameter_source("hotkeys")
    if source is ParameterSource.COMMANDLINE:
        return set(hotkeys)
    return set(settings.watched)


def _with_columns(rows: list[Cells], columns: Sequence[str]) -> list[Cells]:
    """Return rows with these columns only, or raise UsageError if one of them does not exist."""
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
    client: ChutesClient, key: Hotkey | None, rows: list[Cells], column: AddedColumn
) -> None:
    """Add a column to each of these rows, by their id. If its values cannot be requested, print the
    reason and change no row.
    """
    params = {}
    # A source about one miner gets the miner whose key signs.
    if key is not None and column.source.scope == "miner":
        params["hotkey"] = key.address
    try:
        answer = await client.fetch(column.source, key=key, params=params)
    except ApiError as error:
        reason = printable(str(error))
        click.echo(f"{column.name} is unknown: {column.source.name}: {reason}", err=True)
        return
    value_by_id: dict[Any, Any] = {}
    for record in answer.value:
        value_by_id[getattr(record, column.id_column)] = getattr(record, column.value_column)
    for row in rows:
        row[column.name] = value_by_id.get(row.get(column.id_column))


def first_key(settings: Settings) -> Hotkey:
    """Return the key to sign with, or raise UsageError."""
    if not settings.keys:
        raise click.UsageError(
            "the request must be signed: add --hotkey-file, or set MINER_SS58 with a key"
        )
    return settings.keys[0]


def _signing_key(endpoint: e.Endpoint[Any], settings: Settings, hotkeys: set[str]) -> Hotkey | None:
    """Return the key to sign with, or None if the request needs none.

    If the answer is about the miner who signs, it is the key of the selected miner. Otherwise, any
    key will do.
    """
    if not endpoint.signed:
        return None
    any_key = first_key(settings)
    if endpoint.scope != "signer":
        return any_key
    selected = [key for key in settings.keys if key.address in hotkeys]
    if len(selected) != 1:
        addresses = ", ".join(key.address for key in settings.keys)
        raise click.UsageError(
            f"{endpoint.name} is about one miner: choose it with --hotkey, and add its hotkey "
            f"file with --hotkey-file. There are keys of {addresses}"
        )
    return selected[0]


def _refuse_unknown_parameters(endpoint: e.Endpoint[Any], names: Iterable[str]) -> None:
    """Raise UsageError if an endpoint does not have one of these parameters.

    The service would ignore it, and so answer another question.
    """
    known_names = " and ".join(endpoint.parameters)
    for name in names:
        if not known_names:
            raise click.UsageError(f"{endpoint.name} has no parameters")
        if name not in endpoint.parameters:
            raise click.UsageError(f"{endpoint.name} has no parameter {name}, but {known_names}")


def _request_arguments(
    endpoint: e.Endpoint[Any], hotkeys: set[str], ids: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the query parameters of a request, and the values for the names in its path.

    Raise UsageError if the ids or the selected hotkeys do not fit the endpoint.
    """
    # Such as chute_id and version of /miner/chutes/{chute_id}/{version}.
    names_in_path = re.findall(r"\{(\w+)\}", endpoint.path)
    # --hotkey brings the hotkey, and the user writes the other names as ids.
    names_of_ids = [name for name in names_in_path if name != "hotkey"]
    if len(ids) != len(names_of_ids):
        needed = " ".join(names_of_ids).upper() or "no ID"
        raise click.UsageError(f"after {endpoint.name}, write {needed}")
    values_in_path = dict(zip(names_of_ids, ids, strict=True))
    if endpoint.scope != "miner":
        return _miner_filter(endpoint, hotkeys), values_in_path
    if len(hotkeys) != 1:
        raise click.UsageError(f"{endpoint.name} needs exactly one miner: use one --hotkey")
    (hotkey,) = hotkeys
    if "hotkey" in names_in_path:
        return {}, {**values_in_path, "hotkey": hotkey}
    return {"hotkey": hotkey}, values_in_path


def _miner_filter(endpoint: e.Endpoint[Any], hotkeys: set[str]) -> dict[str, str]:
    """Return the query parameters that select a miner, if a single one is asked for.

    Otherwise, one request asks for all miners, and _rows_of_miners chooses the rows.
    """
    if len(hotkeys) != 1:
        return {}
    (hotkey,) = hotkeys
    return {name: hotkey for name in endpoint.parameters if name in _MINER_PARAMETERS}


def _rows_of_miners(endpoint: e.Endpoint[Any], rows: list[Cells], hotkeys: set[str]) -> list[Cells]:
    """Return the rows about the selected miners, if each row is about a miner.

    Without a selected miner, all rows stay. Print which selected miners have no row.
    """
    column = _MINER_COLUMNS.get(endpoint.name)
    if column is None or not hotkeys:
        return rows
    hotkeys_with_row = {row[column] for row in rows}
    for hotkey in sorted(hotkeys - hotkeys_with_row):
        click.echo(
            f"{hotkey} has no row. chutes-exporter check says whether it is registered.", err=True
        )
    return [row for row in rows if row[column] in hotkeys]


def rows_of(value: Any, now: float) -> Iterator[Cells]:
    """Yield an answer as flat rows, with times as ISO 8601 text, and with what the service's rules
    make of it, such as the state of an instance. ``now`` is the Unix time of the answer.
    """
    # All records of a list have the type of the first one.
    match value:
        case r.Scores():
            yield from _score_rows(value)
        case r.MaintenancePolicy():
            yield from _maintenance_rows(value)
        case [r.MetagraphNode(), *_]:
            yield from _metagraph_rows(value)
        case [r.ChuteMetrics(), *_]:
            # The service sends 0 for what it could not measure.
            unknown_fields = dict.fromkeys(unknown_metrics(value), None)
            for metrics in value:
                yield _plain(metrics, **unknown_fields)
        case [r.Instance(), *_]:
            for instance in value:
                yield _instance_row(instance, now)
        case list():
            for record in value:
                yield _plain(record)
        case _:
            yield _plain(value)


def _metagraph_rows(nodes: list[r.MetagraphNode]) -> Iterator[Cells]:
    shares = incentive_shares(nodes)
    for node in nodes:
        # The chain's number means nothing without those of all other seats.
        yield _plain(node, incentive=UNSET, incentive_ratio=shares.get(node.hotkey))


def _score_rows(scores: r.Scores) -> Iterator[Cells]:
    """Yield the share of each miner that has a score, and the raw values behind it."""
    for hotkey, share in scores.shares.items():
        raw = scores.raw.get(hotkey)
        if share is None and raw is None:
            # In an answer about one miner, this means that the miner has no score.
            continue
        raw_values = {} if raw is None else _plain(raw)
        yield {"hotkey": hotkey, "share": share, **raw_values}


def _instance_row(instance: r.Instance, now: float) -> Cells:
    created_at = instance.created_at
    age_minutes = None if created_at is None else round((now - created_at) / 60)
    return _plain(
        instance,
        age_minutes=age_minutes,
        state=instance_state(instance),
        secured_at=iso_time(secured_at(instance)),
        purged_at=iso_time(purged_at(instance)),
    )


def _maintenance_rows(policy: r.MaintenancePolicy) -> list[Cells]:
    """Return a row for each TEE server, with the fields of the policy and its window at the end.
    Without any server, a single row has these fields alone.
    """
    common = _plain(policy, active_window=UNSET, servers=UNSET)
    if policy.active_window is not None:
        common = _plain(policy.active_window) | common
    if not policy.servers:
        return [common]
    return [_plain(server) | common for server in policy.servers]


def _plain(record: msgspec.Struct, **replaced: Any) -> Cells:
    """Return the fields of a record, with times as ISO 8601 text.

    ``replaced`` are other values for some fields, or fields to add. UNSET leaves a field out.
    """
    fields = msgspec.structs.asdict(record) | replaced
    sent_fields = {name: value for name, value in fields.items() if value is not UNSET}
    # msgspec calls the hook for values of a type that it does not know, which are only times.
    plain: Cells = msgspec.to_builtins(sent_fields, enc_hook=iso_time)
    return plain


def _columns(rows: list[Cells]) -> list[str]:
    """Return the columns of all rows, in the order in which they appear first."""
    # A dict keeps the order, and each column once.
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
    return list(columns)


def _print_table(endpoint_name: str, rows: list[Cells], *, has_chosen_columns: bool) -> None:
    """Print all columns of the rows if the user chose them, otherwise those that matter and fit.

    A single row without chosen columns becomes a list of its fields. The number of rows goes to
    standard error.
    """
    if not has_chosen_columns and len(rows) == 1:
        fields = rows[0].items()
        # The values become texts here. As floats of one column, they would all get the same number
        # of decimals.
        lines = [{"field": column, "value": cell_text(value)} for column, value in fields]
        # To fit, a long value would leave out the whole column of values.
        print_table(lines, fit=False)
        click.echo("1 row", err=True)
        return
    columns = _columns(rows) if has_chosen_columns else _useful_columns(endpoint_name, rows)
    cells = [_short(row, columns) for row in rows]
    left_out = print_table(cells, cut=_CUT, fit=not has_chosen_columns)
    text = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    if left_out:
        text += f". Columns that do not fit: {', '.join(left_out)}. --columns chooses others."
    click.echo(text, err=True)


def _useful_columns(endpoint_name: str, rows: list[Cells]) -> list[str]:
    """Return the columns that matter: those in _COLUMNS if it has the endpoint, otherwise those
    that have a value in some row.
    """
    columns = _columns(rows)
    if endpoint_name in _COLUMNS:
        return [column for column in _COLUMNS[endpoint_name].split() if column in columns]
    columns_with_value: set[str] = set()
    for row in rows:
        columns_with_value.update(name for name, value in row.items() if value is not None)
    return [column for column in columns if column in columns_with_value]


def _short(row: Cells, columns: Sequence[str]) -> Cells:
    """Return some columns of a row. Of a list, such as a server's GPUs, it has only the length."""
    cells = _chosen(row, columns)
    for column, value in cells.items():
        if isinstance(value, list):
            cells[column] = len(value)
    return cells
