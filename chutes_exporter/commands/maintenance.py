"""The maintenance of TEE servers, as the command ``status`` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.commands.terminal import cell_text, iso_time, print_table, say, with_columns
from chutes_exporter.duration import HOUR
from chutes_exporter.feeds import definitions as e
from chutes_exporter.fleet.model import Window
from chutes_exporter.fleet.upgrades import lost_by_reboot, plan_upgrades
from chutes_exporter.page.gaps import NotKnown
from chutes_exporter.rules.maintenance import UPGRADE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import ServerMaintenance
    from chutes_exporter.commands.snapshot import Snapshot
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.fleet.upgrades import Upgrade, UpgradePlan


async def read_maintenance(settings: Settings, report: Snapshot) -> dict[str, dict[str, Any]]:
    """Return the maintenance of each miner with a key, by hotkey.

    What a pending server waits for becomes a gap of the report if it is not known.
    """
    found = {}
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        for key in settings.keys:
            fleet = report.fleets[key.address]
            plan = plan_upgrades(fleet, report.now)
            rows = []
            for upgrade in plan.servers:
                row = _row(upgrade, report.now)
                if upgrade.server.maintenance == "pending":
                    # Only the answer about a single server says what it waits for.
                    path = {"server_id": upgrade.server.server_id}
                    try:
                        answer = await client.fetch(e.SERVER_MAINTENANCE, key=key, path=path)
                        row |= _pending(answer.value, fleet)
                    except ApiError as error:
                        subject = f"server_maintenance of {row['server']}"
                        report.gaps.append(NotKnown.after(error, subject, key.address))
                rows.append(row)
            found[key.address] = {"window": _window(plan), "maintenance": rows}
    return found


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
        "units_per_second": server.earned_units_per_second,
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
    if window["window"] in ("open", "announced") or rows:
        say(_window_text(window))
    if rows:
        _print_steps(rows)


def _print_steps(rows: list[dict[str, Any]]) -> None:
    hidden = {"units_per_second", "server_id", "reason", "waits_for"}
    cells = with_columns(rows, [name for name in rows[0] if name not in hidden])
    print_table(cells, indent="  ")
    for row in rows:
        text = f"{row['server']}: {row['reason']}"
        if row["waits_for"] is not None:
            text += f" It waits for replacements of: {', '.join(row['waits_for']) or 'none'}."
        say(text, indent="    ", start="  ")
    say(
        "Do not reboot a server before its step is boot. A reboot now would lose the units in the "
        "table. After maintenance has ended its instances, no score is lost."
    )


def _window_text(window: Mapping[str, Any]) -> str:
    """Return whether a window is open or announced, its slots, and how many will not make it."""
    match window["window"]:
        case None:
            return "Whether a maintenance window is open or announced is not known."
        case "none" | "over":
            return "No maintenance window is open or announced."
        case "announced":
            begin = f"A maintenance window opens {cell_text(window['starts_at'])}"
        case _:
            begin = "A maintenance window is open"
    text = (
        f"{begin}, and ends {cell_text(window['ends_at'])}. Target version: "
        f"{cell_text(window['target_version'])}. Free upgrade slots: "
        f"{cell_text(window['free_slots'])}. An upgrade takes up to {UPGRADE_SECONDS / HOUR:g} "
        f"hours. Too late: {cell_text(window['late'])}."
    )
    return f"{text} Ask the operators of Chutes for more time." if window["late"] else text
