"""The maintenance of TEE servers, as the command ``status`` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.commands.terminal import cell_text, iso_time, print_table, say, with_columns
from chutes_exporter.duration import HOUR
from chutes_exporter.feeds import definitions as e
from chutes_exporter.fleet.model import Window
from chutes_exporter.fleet.upgrades import plan_upgrades
from chutes_exporter.page.gaps import TRY_AGAIN, NotKnown
from chutes_exporter.rules.maintenance import UPGRADE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import ServerMaintenance
    from chutes_exporter.commands.snapshot import Snapshot
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.fleet.upgrades import Upgrade, UpgradePlan


async def read_maintenance(settings: Settings, report: Snapshot) -> dict[str, dict[str, Any]]:
    """Return the maintenance of each miner with a key, by hotkey. What is not known becomes a gap
    of the report.
    """
    found = {}
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        for key in settings.keys:
            fleet = report.fleets[key.address]
            plan = plan_upgrades(fleet, report.now)
            for unknown in plan.unknown:
                reason = f"the answers do not say {unknown}"
                report.gaps.append(NotKnown("upgrades", key.address, reason, TRY_AGAIN))
            rows = []
            for upgrade in plan.servers:
                server, pending = upgrade.server, None
                if server.maintenance == "pending":
                    # Only the answer about a single server says what it waits for.
                    path = {"server_id": server.server_id}
                    try:
                        answer = await client.fetch(e.SERVER_MAINTENANCE, key=key, path=path)
                        pending = answer.value
                    except ApiError as error:
                        subject = f"server_maintenance of {server.name or server.server_id}"
                        report.gaps.append(NotKnown.after(error, subject, key.address))
                rows.append(_row(upgrade, pending, fleet))
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
        "free_slots": plan.free_slots,
        "late": plan.late,
        "last_done_at": iso_time(plan.last_done_at),
    }


def _row(upgrade: Upgrade, pending: ServerMaintenance | None, fleet: Fleet) -> dict[str, Any]:
    """Return the row of a server. What it waits for is known of a pending one."""
    server, waits_for, until = upgrade.server, None, None
    if pending is not None:
        names = {instance.chute_id: instance.chute for instance in fleet.instances}
        instances = pending.awaiting_replacement
        waits_for = [names.get(one.chute_id) or one.chute_id for one in instances]
        until = pending.pending_deadline
    return {
        "server": server.name or server.server_id,
        "step": upgrade.step,
        "until": iso_time(until),
        "done_at": iso_time(upgrade.done_at),
        "in_time": None if upgrade.is_late is None else not upgrade.is_late,
        "units_lost_by_reboot": upgrade.lost_units,
        "earning_instances": server.earning_instances,
        "last_instances": server.last_instances,
        "idle_gpus": server.idle_gpus,
        "version": server.version,
        "status": server.maintenance,
        "units_per_second": server.earned_units_per_second,
        "server_id": server.server_id,
        "reason": upgrade.reason,
        "waits_for": waits_for,
    }


def print_maintenance(found: Mapping[str, Any]) -> None:
    """Print the maintenance of a miner, if a window is open or announced or a server has a step."""
    window = found["window"]
    rows = [row for row in found["maintenance"] if row["step"] != "nothing"]
    if window["window"] not in ("open", "announced") and not rows:
        return
    say(_window_text(window))
    if not rows:
        return
    hidden = {"units_per_second", "server_id", "reason", "waits_for"}
    cells = with_columns(rows, [name for name in rows[0] if name not in hidden])
    for row in cells:
        lost = row["units_lost_by_reboot"]
        row["units_lost_by_reboot"] = None if lost is None else round(lost)
    print_table(cells, cut=("server",), indent="  ")
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
    """Return whether a window is open or announced, its slots, and whether all will make it."""
    match window["window"]:
        case None:
            return "Whether a maintenance window is open or announced is not known."
        case "none" | "over":
            return "No maintenance window is open or announced."
    begin = "A maintenance window is open"
    if window["window"] == "announced":
        begin = f"A maintenance window opens {cell_text(window['starts_at'])}"
    free, late = window["free_slots"], window["late"]
    text = (
        f"{begin}, and ends {cell_text(window['ends_at'])}. Target version: "
        f"{cell_text(window['target_version'])}. Free upgrade slots: {cell_text(free)}. An upgrade "
        f"takes up to {UPGRADE_SECONDS / HOUR:g} hours."
    )
    if late is None:
        return f"{text} Whether all servers will make it is not known."
    if late:
        return f"{text} Too late: {late}. Ask the operators of Chutes for more time."
    return f"{text} All will make it." if window["last_done_at"] else text
