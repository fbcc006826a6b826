"""Rules about the maintenance of TEE servers, and about the versions that may boot."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec import UNSET

from chutes_exporter.duration import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api.records import (
        MaintenancePolicy,
        MaintenanceServer,
        Server,
        TeeMeasurement,
    )

MaintenanceStatus = Literal["none", "pending", "maintenance"]
"""Where a TEE server is in its maintenance.

While it is pending, the last instances of their chutes still serve, for up to 3 hours. In
maintenance, nothing runs."""
MAINTENANCE_STATUSES: Final[tuple[MaintenanceStatus, ...]] = get_args(MaintenanceStatus)
Measured = Literal["measured", "not_measured", "undecided"]
"""Whether the service lists a version for hosts with given GPUs.

The first proves nothing, because the class of a host also depends on other hardware. The second is
a certain no: the host does not boot with the version. No answer decides it for a host without GPUs,
nor for a version that is listed for no host: it may be listed later, and a release candidate never
is."""
PENDING_SECONDS: Final = 3 * HOUR
"""Longest time that a server is pending."""
BOOT_SECONDS: Final = HOUR
"""Usual time from then until the server has booted with the target version."""
UPGRADE_SECONDS: Final = PENDING_SECONDS + BOOT_SECONDS
"""Time of an upgrade, also for those that hold a slot now."""


_STATUS_OF_IN_MAINTENANCE: Final[dict[bool | None, MaintenanceStatus | None]] = {
    True: "maintenance",
    False: "none",
    None: None,
}


def maintenance_status(server: MaintenanceServer) -> MaintenanceStatus | None:
    """Return the status of a server, None if it is unknown."""
    if server.maintenance_status is UNSET:
        # Services before October 2026 send only whether it is in maintenance.
        return _STATUS_OF_IN_MAINTENANCE[server.in_maintenance]
    for status in MAINTENANCE_STATUSES:
        if status == server.maintenance_status:
            return status
    return None


def holds_slot(server: Server, status: MaintenanceStatus | None) -> bool | None:
    """Return whether a server holds an upgrade slot: its record or its status says so.

    The list of servers may not show the slots of pending servers.
    """
    if server.maintenance_pending or status in ("pending", "maintenance"):
        return True
    if None in (server.maintenance_pending, status):
        return None
    return False


def window_is_open(policy: MaintenancePolicy) -> bool | None:
    """Return whether the newest window is open, None if it is unknown."""
    if policy.window_open is UNSET:
        # A deployment without the field lists a window only while it is open.
        return policy.active_window is not None
    return policy.window_open


def unknown_in_servers(servers: Iterable[Server]) -> Iterator[str]:
    """Yield a text for each value about TEE that servers do not have."""
    for server in servers:
        name = server.name or server.server_id
        if server.is_tee is None:
            yield f"the answer does not say whether {name} has TEE"
        # A version of None is known: the server has never booted an image.
        elif server.is_tee and server.version is UNSET:
            yield f"the answer does not say the version of {name}"


def version_accepted(version: str, listed: AbstractSet[str]) -> bool | None:
    """Return whether the service accepts a boot with a version, None if it is unknown.

    ``listed`` are the versions with measurements. The highest one boots for certain. No
    answer shows the service's least version, so lower ones may be refused. One that is not listed
    is refused, unless it is a release candidate: these are never listed, and boot only for
    some miners.
    """
    if version not in listed:
        if "rc" in version.lower():
            return None
        return False
    numbers = [_numbers(listed_version) for listed_version in listed]
    can_be_compared = all(numbers)
    if can_be_compared and _numbers(version) == max(numbers):
        return True
    return None


def measured(
    version: str, models: Sequence[str], measurements: Iterable[TeeMeasurement]
) -> Measured | None:
    """Return what the service's measurements say about a version for a host.

    ``models`` has the model of each GPU of the host. None is unknown.
    """
    of_version = [measurement for measurement in measurements if measurement.version == version]
    if not of_version or not models:
        return "undecided"
    fits = [_fits(measurement, models) for measurement in of_version]
    if True in fits:
        return "measured"
    if None in fits:
        return None
    return "not_measured"


def _fits(measurement: TeeMeasurement, models: Sequence[str]) -> bool | None:
    """Return whether a measurement is for hosts with GPUs of these models, and with as many.

    None if it does not say for which hosts it is.
    """
    if measurement.expected_gpus is None:
        return None
    expected = {model.lower() for model in measurement.expected_gpus}
    if not expected.issuperset(model.lower() for model in models):
        return False
    if measurement.gpu_count is UNSET:
        return None
    if not measurement.gpu_count:
        # Null and 0 mean any number.
        return True
    return measurement.gpu_count == len(models)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as ``1.20.3``, and no numbers for another form.

    A number with more than 9 digits is another form, too. No version needs as many, and Python
    raises an error for numbers of thousands of digits.
    """
    match = re.fullmatch(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", version, re.ASCII)
    if match is None:
        return ()
    return tuple(map(int, match.groups()))
