"""The maintenance of TEE servers, as the command ``status`` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.errors import ApiError
from chutes_exporter.commands.terminal import iso_time, moment, print_table, say
from chutes_exporter.feeds import definitions as e
from chutes_exporter.fleet.model import Window
from chutes_exporter.fleet.upgrades import plan_upgrades
from chutes_exporter.page.gaps import NotKnown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import ServerMaintenance
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.fleet.upgrades import Upgrade, UpgradePlan
    from chutes_exporter.page.exporter import Snapshot


async def read_maintenance(settings: Settings, report: Snapshot, fleet: Fleet) -> dict[str, Any]:
    """Return the maintenance of a miner: the newest window, and a row for each server.

    What a pending server waits for becomes a gap of the report if it is not known.
    """
    plan = plan_upgrades(fleet, report.now)
    rows = [_row(upgrade, report.now) for upgrade in plan.servers]
    pending = [row for row in rows if row["status"] == "pending"]
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        for row in pending:
            # Only the answer about a single server says what it waits for.
            key = next(key for key in settings.keys if key.address == fleet.hotkey)
            path = {"server_id": row["server_id"]}
            try:
                answer = await client.fetch(e.SERVER_MAINTENANCE, key=key, params=path)
            except ApiError as error:
                subject = f"server_maintenance of {row['server']}"
                report.gaps.append(NotKnown.after(error, subject, fleet.hotkey))
            else:
                _add_pending(row, answer.value, fleet)
    return {"window": _window(plan), "maintenance": rows}


def _window(plan: UpgradePlan) -> dict[str, Any]:
    """Return the newest window and how its upgrades go. What is not known is None."""
    window = plan.window or Window(is_open=None)
    return {
        "window": plan.phase,
        "starts_at": iso_time(window.starts_at),
        "ends_at": iso_time(window.ends_at),
        "last_request_at": iso_time(plan.last_request_at),
        "free_slots": None if plan.slots is None else plan.slots.free,
        "late": plan.late,
        "slots": window.slots,
        "target_version": window.target,
    }


def _row(upgrade: Upgrade, now: float) -> dict[str, Any]:
    """Return the row of a server. What is not known is None."""
    server = upgrade.server
    # A reboot of a server that does not come back loses the server, and not only these units.
    comes_back = server.needs_upgrade is False or server.measured == "measured"
    lost = server.lost_by_reboot(now) if comes_back and server.boots is not False else None
    return {
        "server": server.name or server.server_id,
        "step": upgrade.step,
        "done_by": iso_time(upgrade.done_at),
        "late": upgrade.is_late,
        "units_lost_by_reboot": lost,
        "earning_instances": server.earning_instances,
        "last_instances": server.last_instances,
        "unused_gpus": server.idle_gpus,
        "version": server.version,
        "status": server.maintenance,
        "server_id": server.server_id,
        "reason": upgrade.reason,
        "pending_until": None,
        "waits_for": None,
    }


def _add_pending(row: dict[str, Any], pending: ServerMaintenance, fleet: Fleet) -> None:
    """Add to the row of a pending server what it waits for, and until when at the latest."""
    names = {instance.chute_id: instance.chute for instance in fleet.instances}
    waits_for = [one.chute_id for one in pending.awaiting_replacement]
    row["waits_for"] = [names.get(chute_id) or chute_id for chute_id in waits_for]
    row["pending_until"] = iso_time(pending.pending_deadline)
    chutes = ", ".join(row["waits_for"]) or "none"
    row["reason"] += f" It waits for replacements of: {chutes}."
    if pending.pending_deadline is not None:
        latest = moment(pending.pending_deadline)
        row["reason"] += f" Its maintenance begins at {latest} at the latest."


def print_maintenance(found: Mapping[str, Any]) -> None:
    """Print the maintenance of a miner, if a window is open or announced or a server has a step."""
    window = found["window"]
    rows = [row for row in found["maintenance"] if row["step"] != "nothing"]
    if not rows and window["window"] not in ("open", "announced"):
        return
    print_table([window], title="Maintenance window")
    if window["late"]:
        say("Not all servers will be done in time. Ask the operators of Chutes for more time.")
    print_table(rows, title="Maintenance of servers")
    for row in rows:
        say(f"{row['server']}: {row['reason']}", indent="  ")
    if rows:
        say("Do not reboot a server before its step is boot.")
