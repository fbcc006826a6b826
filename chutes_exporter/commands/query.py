"""The command ``query``: prints an endpoint's answer as a table or JSON."""

from __future__ import annotations

import asyncio
import json
import re
from itertools import chain
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource

from chutes_exporter.commands.options import (
    Command,
    fetch_once,
    json_option,
    miner_options,
    require_key,
    settings_with_warnings,
)
from chutes_exporter.commands.terminal import Row, iso_time, print_table, printable
from chutes_exporter.feeds import definitions as e
from chutes_exporter.rules.score import incentive_shares

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chutes_exporter.api.endpoint import Endpoint
    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.config import Settings

_COLUMNS = {
    "chutes": "chute_id name effective_compute_multiplier tee disabled max_instances version",
    "nodes": "uuid device_index gpu_identifier verified_at verification_error server_id",
    "instances": "chute_id active created_at activated_at instance_id billed_to",
    "utilization": "chute_id name scale_allowance utilization_1h rate_limit_ratio_1h "
    "active_instance_count",
    "maintenance": "name version maintenance_status needs_upgrade current_slots "
    "max_concurrent_per_miner window_open in_maintenance target_measurement_version "
    "upgrade_window_end server_id",
    "metagraph": "hotkey node_id incentive_ratio alpha_stake blacklist_reason synced_at",
}
"""The most useful columns of tables whose records do not begin with them. JSON has all fields."""
_OF_ALL_MINERS = (e.SCORES, e.METAGRAPH, e.HELD_GPUS, e.STATS, e.ACTIVE_INSTANCES)
_ENDPOINTS = {item.name: item for item in e.ENDPOINTS if item.method == "GET"}
# An audit report needs a path of the list, and `incidents` shows it.
del _ENDPOINTS["audit_report"]
# `held_gpus --hotkey` shows the same.
del _ENDPOINTS["miner_gpus"]


@click.command(
    cls=Command,
    help=f"""Print the answer of one endpoint as a table or JSON.

    ENDPOINT is one of {", ".join(_ENDPOINTS)}. After chute, write its id and version, after
    server_maintenance the id of the server, and after unique_chute_history a hotkey. The table has
    the most useful columns that fit the terminal. --json has all fields that the exporter reads.
    """,
)
@click.argument("endpoint", type=click.Choice([*_ENDPOINTS]), metavar="ENDPOINT")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@miner_options("Without a hotkey, stats, scores, metagraph and active_instances have all miners.")
@click.option(
    "--columns", default="", metavar="NAME,NAME", help="Print only these columns, in this order."
)
@json_option
def query(**flags: Any) -> None:
    """Request an endpoint and print its answer."""
    settings = settings_with_warnings(flags)
    endpoint = _ENDPOINTS[flags["endpoint"]]
    # Such as chute_id and version of /miner/chutes/{chute_id}/{version}.
    names_of_ids = re.findall(r"\{(\w+)\}", endpoint.path)
    if len(flags["ids"]) != len(names_of_ids):
        needed = " ".join(names_of_ids).upper()
        raise click.UsageError(f"the IDs do not fit: write query {endpoint.name} {needed}")
    # The variable is meant for all commands, so its hotkeys do not replace that of the key.
    source = click.get_current_context().get_parameter_source("hotkeys")
    is_chosen = source is ParameterSource.COMMANDLINE
    hotkeys: Collection[str] = flags["hotkeys"] if is_chosen else settings.watched
    key = _signing_key(endpoint, settings, hotkeys)
    path = dict(zip(names_of_ids, flags["ids"], strict=True))
    answer = asyncio.run(fetch_once(settings, endpoint, endpoint.name, key, **path))
    rows = _rows_of(endpoint, answer.value)
    if answer.rejected:
        reason = printable(answer.first_error)
        click.echo(
            f"{answer.rejected} records could not be read and are left out ({reason}).", err=True
        )
    if endpoint in _OF_ALL_MINERS and hotkeys:
        rows = [row for row in rows if row.get("hotkey", row.get("miner_hotkey")) in hotkeys]
    _print_rows(endpoint.name, rows, flags)


def _print_rows(endpoint: str, rows: list[Row], flags: Mapping[str, Any]) -> None:
    known = [*dict.fromkeys(chain.from_iterable(rows))]
    chosen = flags["columns"].replace(",", " ").split()
    unknown = sorted({*chosen} - {*known})
    # Without rows, no column is known.
    if rows and unknown:
        raise click.UsageError(
            f"there is no column {', '.join(unknown)}: the columns are {', '.join(known)}"
        )
    if flags["as_json"]:
        names = chosen or known
        shown = [dict(zip(names, map(row.get, names), strict=True)) for row in rows]
        click.echo(json.dumps(shown, indent=2))
        return
    useful = _COLUMNS.get(endpoint, "").split()
    print_table(rows, chosen or useful or known, fit=not chosen)
    click.echo(f"Rows: {len(rows)}", err=True)


def _signing_key(
    endpoint: Endpoint[Any], settings: Settings, hotkeys: Collection[str]
) -> Hotkey | None:
    """Return the key of the miner that the answer is about, or any key if it is about all."""
    if not endpoint.signed:
        return None
    any_key = require_key(settings)
    if endpoint.scope != "signer":
        return any_key
    selected = [key for key in settings.keys if key.address in hotkeys]
    if len(selected) != 1:
        raise click.UsageError(
            f"{endpoint.name} is about one miner: choose it with --hotkey, and add its hotkey "
            "file with --hotkey-file"
        )
    return selected[0]


def _rows_of(endpoint: Endpoint[Any], value: Any) -> list[Row]:
    """Return an answer as flat rows, with times as ISO 8601 text."""
    # msgspec calls the hook for values of a type that it does not know, which are only times.
    plain = msgspec.to_builtins(value, enc_hook=iso_time)
    if endpoint is e.MAINTENANCE:
        return _maintenance_rows(plain)
    if endpoint is e.SCORES:
        return [
            {"hotkey": hotkey, "share": share, **(plain["raw_values"].get(hotkey) or {})}
            for hotkey, share in plain["final_scores"].items()
        ]
    rows = plain if isinstance(plain, list) else [plain]
    if endpoint is e.METAGRAPH:
        ratios = incentive_shares(value)
        for row in rows:
            row["incentive_ratio"] = ratios.get(row["hotkey"])
    return rows


def _maintenance_rows(plain: Row) -> list[Row]:
    servers = plain.pop("servers") or [{}]
    window = plain.pop("active_window") or {}
    return [server | window | plain for server in servers]
