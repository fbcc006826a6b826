"""Rules about the maintenance of TEE servers, and about the versions that may boot."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec import UNSET

from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api.records import MaintenancePolicy, MaintenanceServer, Server

MaintenanceStatus = Literal["none", "pending", "maintenance"]
"""Where a TEE server is in its maintenance.

While it is pending, the last instances of their chutes still serve, for up to 3 hours. In
maintenance, nothing runs."""
MAINTENANCE_STATUSES: Final[tuple[MaintenanceStatus, ...]] = get_args(MaintenanceStatus)


def maintenance_status(server: MaintenanceServer) -> MaintenanceStatus | None:
    """Return the status of a server.

    Services before October 2026 send only whether it is in maintenance.
    """
    if server.maintenance_status is UNSET:
        return (
            None
            if server.in_maintenance is None
            else "maintenance"
            if server.in_maintenance
            else "none"
        )
    return next(
        (status for status in MAINTENANCE_STATUSES if status == server.maintenance_status), None
    )


def holds_slot(server: MaintenanceServer) -> bool | None:
    """Return whether a server holds an upgrade slot: it is pending or in maintenance."""
    status = maintenance_status(server)
    return None if status is None else status != "none"


def window_is_open(policy: MaintenancePolicy) -> bool | None:
    """Return whether the newest window is open."""
    # A deployment without the field lists a window only while it is open.
    return policy.active_window is not None if policy.window_open is UNSET else policy.window_open


def slots_of_older_windows(policy: MaintenancePolicy) -> float | None:
    """Return how many servers hold the slot of an older window, which they never finished.

    None if it is unknown.
    """
    slots = total(map(holds_slot, policy.servers or ()))
    if slots is None or policy.servers is None or policy.current_slots is None:
        return None
    return max(0.0, slots - policy.current_slots)


def unknown_in(policy: MaintenancePolicy) -> Iterator[str]:
    """Yield a text for each value that a policy does not have."""
    for server in policy.servers or ():
        name = server.name or server.server_id
        if maintenance_status(server) is None:
            yield f"the answer has no known maintenance status of {name}"
        if server.needs_upgrade is None:
            yield f"the answer does not say whether {name} needs the upgrade"
    if policy.servers is None:
        yield "the answer has no servers"
    if policy.window_open is None:
        yield "the answer does not say whether the window is open"
    if policy.active_window is not None and policy.active_window.upgrade_window_end is None:
        yield "the answer does not say when the window ends"


def unknown_in_servers(servers: Iterable[Server]) -> Iterator[str]:
    """Yield a text for each value about TEE that servers do not have."""
    for server in servers:
        name = server.name or server.server_id
        if server.is_tee is None:
            yield f"the answer does not say whether {name} has TEE"
        elif server.is_tee and server.version is UNSET:
            yield f"the answer does not say the version of {name}"


def version_accepted(version: str, listed: AbstractSet[str]) -> bool | None:
    """Return whether the service accepts a boot with a version, None if it is unknown.

    The highest listed version boots for certain. The service may have a least version that no
    answer shows, so lower ones may be refused. Release candidates are never listed, and boot only
    for some miners.
    """
    if version not in listed:
        is_candidate = "rc" in version.lower()
        return None if is_candidate else False
    numbers = {other: _numbers(other) for other in listed}
    is_highest = all(numbers.values()) and numbers[version] == max(numbers.values())
    return True if is_highest else None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as ``1.20.3``, and the empty tuple for another form."""
    match = re.fullmatch(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", version, re.ASCII)
    return tuple(map(int, match.groups())) if match else ()
