"""The maintenance of TEE servers, as the command ``status`` shows it: slots, and the order of the
upgrades.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from msgspec import structs

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.api import endpoints as e
from chutes_exporter.commands.terminal import moment, print_table, say
from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.definitions import MAINTENANCE
from chutes_exporter.findings import filled, time_until
from chutes_exporter.fleet.model import Window
from chutes_exporter.page.gaps import TRY_AGAIN, NotKnown
from chutes_exporter.rules.maintenance import (
    BOOT_SECONDS,
    PENDING_SECONDS,
    UPGRADE_SECONDS,
    holds_slot,
    maintenance_status,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.api import Hotkey
    from chutes_exporter.api.records import MaintenanceServer, ServerMaintenance
    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.model import Fleet, Server
    from chutes_exporter.fleet.upgrades import Upgrade, UpgradePlan


# Servers in a slot


async def servers_in_slot(settings: Settings, report: Report) -> dict[str, list[dict[str, Any]]]:
    """Return the servers that hold an upgrade slot, by hotkey, for each miner with a key.

    What is not known becomes a gap of the report.
    """
    servers_by_hotkey: dict[str, list[dict[str, Any]]] = {}
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        for key in settings.keys:
            snapshot = report.states[MAINTENANCE.of(key.address)].snapshot
            # Without an answer, or the status of a server, the report already has a gap.
            servers = None if snapshot is None else snapshot.answer.value.servers
            in_slot = [server for server in servers or () if holds_slot(server)]
            servers_by_hotkey[key.address] = [
                await _server_in_slot(client, key, server, report) for server in in_slot
            ]
    return servers_by_hotkey


async def _server_in_slot(
    client: ChutesClient, key: Hotkey, server: MaintenanceServer, report: Report
) -> dict[str, Any]:
    """Return a server that holds an upgrade slot, for scripts.

    While its maintenance is pending, ``waits_for`` are the instances that it waits for, and
    ``until`` is the Unix time until which it waits. Both are None if it is not pending, or if they
    are not known.
    """
    status = maintenance_status(server)
    pending = None
    if status == "pending":
        # Only the answer about a single server says what it waits for.
        pending = await _pending_maintenance(client, key, server, report)
    waits_for, until = None, None
    if pending is not None:
        waits_for = _waits_for(pending, report.fleets[key.address])
        until = pending.pending_deadline
    return {
        "server_id": server.server_id,
        "name": server.name,
        "status": status,
        "waits_for": waits_for,
        "until": until,
    }


async def _pending_maintenance(
    client: ChutesClient, key: Hotkey, server: MaintenanceServer, report: Report
) -> ServerMaintenance | None:
    """Request the maintenance of a server. After an error, note a gap, and return None."""
    try:
        answer = await client.fetch(
            e.SERVER_MAINTENANCE, key=key, path={"server_id": server.server_id}
        )
    except ApiError as error:
        name = server.name or server.server_id
        gap = NotKnown.after(error, f"server_maintenance of {name}", key.address)
        report.gaps.append(gap)
        return None
    return answer.value


def _waits_for(pending: ServerMaintenance, fleet: Fleet) -> list[dict[str, Any]]:
    """Return the instances that a pending server waits for, with the names of their chutes."""
    chute_names = {instance.chute_id: instance.chute for instance in fleet.instances}
    return [
        structs.asdict(instance) | {"chute_name": chute_names.get(instance.chute_id)}
        for instance in pending.awaiting_replacement
    ]


def print_servers_in_slot(servers: Iterable[Mapping[str, Any]], now: float) -> None:
    """Print the servers that hold an upgrade slot, and what pending ones wait for."""
    for server in servers:
        say(_slot_text(server, now), indent="  ")


def _slot_text(server: Mapping[str, Any], now: float) -> str:
    """Return the name of a server in a slot, its status, what it waits for and until when.

    ``waits_for`` is None if that is not known, or if the server does not wait.
    """
    text = f"{server['name'] or server['server_id']}: {server['status']}"
    waits_for = server["waits_for"]
    if waits_for is not None:
        if not waits_for:
            return f"{text}, and waits for no instance any more."
        text += filled(", until COUNT {instance has|instances have} a replacement", len(waits_for))
        names = [instance["chute_name"] or instance["chute_id"] for instance in waits_for]
        names_once = dict.fromkeys(names)
        text += f" (chutes {', '.join(names_once)})"
    if server["until"] is not None:
        text += f", at the latest {time_until(server['until'], now)}"
    return f"{text}."


# The order of the upgrades


def unknown_upgrades(hotkey: str, plan: UpgradePlan) -> list[NotKnown]:
    """Return what is not known of the upgrades of a miner."""
    return [
        NotKnown("upgrades", hotkey, f"the answers do not say {unknown}", TRY_AGAIN)
        for unknown in plan.unknown
    ]


def plan_summary(plan: UpgradePlan) -> dict[str, Any]:
    """Return the upgrades of a miner for scripts. What is not known is None."""
    # Without a known window, all of its fields that are shown here are None.
    window = plan.window or Window(is_open=None)
    waiting, order, cannot_come_back = None, None, None
    if plan.waiting is not None:
        waiting = [_server_summary(server) for server in plan.waiting.servers]
        # An unmeasured server does not boot with the target version.
        if plan.waiting.unmeasured is not None:
            cannot_come_back = [_server_summary(server) for server in plan.waiting.unmeasured]
    if plan.upgrades is not None:
        order = [_upgrade_summary(upgrade) for upgrade in plan.upgrades]
    return {
        "window": plan.phase,
        "starts_at": window.starts_at,
        "ends_at": window.ends_at,
        "target_version": window.target,
        "slots": window.slots,
        "used_slots": window.used_slots,
        "free_slots": plan.free_slots,
        "upgrade_seconds": UPGRADE_SECONDS,
        "waiting": waiting,
        "order": order,
        "cannot_come_back": cannot_come_back,
        "late": plan.late,
        "last_done_at": plan.last_done_at,
    }


def _server_summary(server: Server) -> dict[str, Any]:
    return {
        "server_id": server.server_id,
        "name": server.name,
        "version": server.version,
        "measured": server.measured,
        "earning_instances": server.earning_instances,
        "last_instances": server.last_instances,
        "idle_gpus": server.idle_gpus,
    }


def _upgrade_summary(upgrade: Upgrade) -> dict[str, Any]:
    return {
        "place": upgrade.place,
        **_server_summary(upgrade.server),
        "compute_units_per_second": upgrade.units_per_second,
        "lost_compute_units_now": upgrade.lost_units,
        # Maintenance ends the instances in a way that costs no score.
        "lost_compute_units_after_maintenance": 0,
        "done_at": upgrade.done_at,
        "is_late": upgrade.is_late,
    }


def print_plan(plan: UpgradePlan, now: float) -> None:
    """Print the newest window, the servers that wait for their upgrade in it, and the order in
    which to upgrade them.
    """
    say(_window_text(plan, now))
    if not plan.has_window:
        return
    if plan.waiting is None:
        say("Which servers wait for their upgrade is not known. Do not reboot any of them.")
        return
    if not plan.waiting.servers:
        say("No server waits for its upgrade.")
        return
    _print_unmeasured(plan.waiting.unmeasured)
    if plan.upgrades is None:
        # The unmeasured servers are named above, and are not to be upgraded.
        unmeasured = plan.waiting.unmeasured or ()
        to_upgrade = [server for server in plan.waiting.servers if server not in unmeasured]
        names = ", ".join(_name(server) for server in to_upgrade)
        say(f"In which order to upgrade these is not known: {names}. Do not reboot any of them.")
    elif plan.upgrades:
        # If the order is empty, no waiting server can come back, which _print_unmeasured said.
        _print_upgrades(plan, plan.upgrades)


def _window_text(plan: UpgradePlan, now: float) -> str:
    """Return whether a window is open or announced, when it begins and ends, and its slots."""
    window = plan.window
    if plan.phase is None or window is None:
        return "Whether a maintenance window is open or announced is not known."
    if not plan.has_window:
        text = "No maintenance window is open or announced."
        if plan.phase == "over" and window.ends_at is not None:
            text += f" The last one ended {moment(window.ends_at)}."
        return text
    ends = "at an unknown time" if window.ends_at is None else time_until(window.ends_at, now)
    begin = "A maintenance window is open"
    # An announced window always has a start. The second test is for the type checker.
    if plan.phase == "announced" and window.starts_at is not None:
        begin = f"A maintenance window opens {time_until(window.starts_at, now)}"
    target = window.target or "not known"
    return f"{begin}, and ends {ends}. Target version: {target}. {_slots_text(plan)}"


def _slots_text(plan: UpgradePlan) -> str:
    window = plan.window
    if window is None or plan.free_slots is None or window.used_slots is None:
        return "How many slots are free is not known."
    return f"Upgrade slots: {window.used_slots:g} used, {plan.free_slots} free."


def _print_unmeasured(unmeasured: Sequence[Server] | None) -> None:
    """Print the servers that cannot come back, because the service lists the target version for no
    host like them. ``unmeasured`` is None while they are not known.
    """
    if unmeasured is None:
        say("Which of them can come back with the target version is not known.")
    elif unmeasured:
        names = ", ".join(f"{_name(server)} ({_gpus(server)})" for server in unmeasured)
        text = (
            "{This server|These COUNT servers} cannot come back from the upgrade, because the "
            f"service lists the version for no host with {{its|their}} GPUs: {names}. Do not "
            "reboot {it|them}, and do not request {its|their} maintenance. Ask the operators of "
            "Chutes."
        )
        say(filled(text, len(unmeasured)))


def _name(server: Server) -> str:
    return server.name or server.server_id


def _gpus(server: Server) -> str:
    models = Counter(gpu.model for gpu in server.gpus)
    return ", ".join(f"{count} {model}" for model, count in models.items())


def _print_upgrades(plan: UpgradePlan, upgrades: Sequence[Upgrade]) -> None:
    """Print the upgrades of a plan as a table, what to do next, and when all are done.

    There is at least one upgrade.
    """
    say("Upgrade in this order, one server for each free slot:")
    rows = [_row(upgrade) for upgrade in upgrades]
    hidden_columns = print_table(rows, cut=("server",), indent="  ")
    if hidden_columns:
        say(f"Not shown: {', '.join(hidden_columns)}. --json has everything.")
    say(_next_text(plan, upgrades[0]))
    say(
        "Do not reboot a server before its status is maintenance and nothing runs there. A reboot "
        "now would lose the units in the table. After maintenance has ended its instances, no "
        "score is lost, but the server earns nothing until it is back."
    )
    say(_time_text(plan))


def _row(upgrade: Upgrade) -> dict[str, Any]:
    """Return the cells of an upgrade. The units are compute units."""
    server, units_per_second, lost = upgrade.server, upgrade.units_per_second, upgrade.lost_units
    return {
        "#": upgrade.place,
        "server": _name(server),
        "last instances": server.last_instances,
        "idle GPUs": server.idle_gpus,
        "done by": None if upgrade.done_at is None else moment(upgrade.done_at),
        "in time": None if upgrade.is_late is None else not upgrade.is_late,
        "units lost by reboot now": None if lost is None else round(lost),
        # Maintenance ends the instances in a way that costs no score.
        "lost after maintenance": 0,
        "units per hour": None if units_per_second is None else round(HOUR * units_per_second),
    }


def _next_text(plan: UpgradePlan, first: Upgrade) -> str:
    """Return what to do next, so that the first server of the order is upgraded."""
    name = _name(first.server)
    # A server that certainly cannot come back is not in the order.
    if first.server.measured != "measured":
        return (
            f"Whether {name} can come back is not known. Do not request its maintenance before the "
            "service lists the version for its GPUs, unless the operators of Chutes say so."
        )
    if plan.phase == "announced":
        return f"When the window opens, request the maintenance of {name} first."
    if plan.free_slots is None:
        return f"When a slot is free, request the maintenance of {name}."
    if not plan.free_slots:
        return (
            f"No slot is free. When a server in a slot is done, request the maintenance of {name}."
        )
    return f"Next: request the maintenance of {name}."


def _time_text(plan: UpgradePlan) -> str:
    """Return how long an upgrade takes, and whether all are done before the window ends."""
    text = (
        f"An upgrade takes up to {UPGRADE_SECONDS / HOUR:g} hours: {PENDING_SECONDS / HOUR:g} "
        f"pending, {BOOT_SECONDS / HOUR:g} to boot."
    )
    if plan.last_done_at is None:
        text += " When the last one is done is not known."
    else:
        text += f" The last one is done by {moment(plan.last_done_at)}."
    if plan.late is None:
        return f"{text} Whether all will make it is not known."
    if not plan.late:
        return f"{text} All will make it."
    return text + filled(
        " COUNT {server|servers} will not make it: ask the operators of Chutes for more time.",
        plan.late,
    )
