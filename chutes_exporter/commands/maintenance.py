"""The maintenance of TEE servers, as the command ``status`` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.commands.terminal import iso_time, print_table, say
from chutes_exporter.feeds import definitions as e
from chutes_exporter.fleet.model import Window
from chutes_exporter.fleet.upgrades import lost_by_reboot, plan_upgrades
from chutes_exporter.page.gaps import NotKnown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import ServerMaintenance
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.fleet.upgrades import Upgrade, UpgradePlan
    from chutes_exporter.page.exporter import Snapshot


async def read_maintenance(settings: Settings, report: Snapshot, fleet: Fleet) -> dict[str, Any]:
    """Return the maintenance of a miner.

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
                answer = await client.fetch(e.SERVER_MAINTENANCE, key=key, path=path)
            except ApiError as error:
                subject = f"server_maintenance of {row['server']}"
                report.gaps.append(NotKnown.after(error, subject, fleet.hotkey))
            else:
                row.update(_pending(answer.value, fleet))
    return {"window": _window(plan), "maintenance": rows}


def _window(plan: UpgradePlan) -> dict[str, Any]:
    """Return the newest window and how its upgrades go. What is not known is None."""
    window = plan.window or Window(is_open=None)
    return {
        "window": plan.phase,
        "starts_at": iso_time(window.starts_at),
        "ends_at": iso_time(window.ends_at),
        "target_version": window.target,
        "slots": window.slots,
        "used_slots": window.used_slots,
        "free_slots": None if plan.slots is None else plan.slots.free,
        "late": plan.late,
    }


def _row(upgrade: Upgrade, now: float) -> dict[str, Any]:
    """Return the row of a server. What is not known is None."""
    server = upgrade.server
    return {
        "server": server.name or server.server_id,
        "step": upgrade.step,
        "until": None,
        "done_at": iso_time(upgrade.done_at),
        "in_time": None if upgrade.is_late is None else not upgrade.is_late,
        "units_lost_by_reboot": lost_by_reboot(server, now),
        "earning_instances": server.earning_instances,
        "last_instances": server.last_instances,
        "idle_gpus": server.idle_gpus,
        "version": server.version,
        "status": server.maintenance,
        "server_id": server.server_id,
        "reason": upgrade.reason,
        "waits_for": None,
    }


def _pending(pending: ServerMaintenance, fleet: Fleet) -> dict[str, Any]:
    """Return until when a pending server waits at the latest, and for which chutes."""
    names = {instance.chute_id: instance.chute for instance in fleet.instances}
    instances = pending.awaiting_replacement
    waits_for = [names.get(one.chute_id) or one.chute_id for one in instances]
    return {"until": iso_time(pending.pending_deadline), "waits_for": waits_for}


def print_maintenance(found: Mapping[str, Any]) -> None:
    """Print the maintenance of a miner, if a window is open or announced or a server has a step."""
    window = found["window"]
    rows = [row for row in found["maintenance"] if row["step"] != "nothing"]
    if rows or window["window"] in ("open", "announced"):
        print_table([window], title="Maintenance window")
    if window["late"]:
        say("Not all servers will be in time. Ask the operators of Chutes for more time.")
    print_table(rows, title="Maintenance of servers")
    for row in rows:
        if row["waits_for"] is not None:
            chutes = ", ".join(row["waits_for"]) or "none"
            say(f"{row['server']} waits for replacements of: {chutes}.")
    if rows:
        say("Do not reboot a server before its step is boot.")
