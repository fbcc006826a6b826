"""Alerts about servers and GPUs, in scenarios of a miner with 26 GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.prometheus.scenario import DAY, HOTKEY, HOUR, Scenario, Text

if TYPE_CHECKING:
    from pathlib import Path

FLEET = {"alpha": 8, "beta": 8, "gamma": 8, "delta": 2}
ME = {"hotkey": HOTKEY}
ALPHA = [f"alpha-{number}" for number in range(8)]
ALPHA_LABELS = {"server": "alpha", "server_id": "id-alpha", "gpu": "pro_6000"}
IDLE, IDLE_INFO = ("ChutesGpusIdle", "warning"), ("ChutesGpusIdle", "info")
UNVERIFIED = ("ChutesGpusUnverified", "warning")
NEVER = ("ChutesGpusNeverEarn", "warning")


def test_a_healthy_day_is_silent(tmp_path: Path) -> None:
    # One GPU of 26 is idle, another one starts an instance every 5 hours, and an upgrade window is over.
    miner = Scenario(DAY, FLEET)
    miner.state(0, ["beta-0"], "idle")
    for hour in range(1, 24, 5):
        miner.state(hour * HOUR, ["alpha-0"], "idle")
        miner.state(hour * HOUR + 10, ["alpha-0"], "starting")
        miner.instance(f"i-{hour}", hour * HOUR + 10, hour * HOUR + 10, server="alpha")
        miner.state(hour * HOUR + 45, ["alpha-0"], "earning")
        miner.activate(f"i-{hour}", hour * HOUR + 45)
        miner.remove(f"i-{hour}", hour * HOUR + 4 * HOUR)
    for server in FLEET:
        miner.set("chutes_server_upgrade_needed", 0, **ME, server_id=f"id-{server}")
        miner.set("chutes_server_version_accepted", 1, **ME, server_id=f"id-{server}")
        miner.set("chutes_server_maintenance_status", 1, **ME, server_id=f"id-{server}", status="none")
    miner.set("chutes_maintenance_window_open", 0, **ME)
    miner.set("chutes_maintenance_window_end_timestamp_seconds", -86400, **ME)
    miner.check(tmp_path, {DAY: []})


def test_an_exporter_that_restarts_is_silent(tmp_path: Path) -> None:
    miner = Scenario(HOUR, FLEET, step=1)
    miner.fail("one:1", {10, 11, *range(30, 35)})
    miner.check(tmp_path, {HOUR: []})


def test_a_server_that_is_deleted_is_named_within_15_minutes(tmp_path: Path) -> None:
    miner = Scenario(40, FLEET)
    miner.state(20, ALPHA, None)
    miner.drop(20, "chutes_server_info", server_id="id-alpha")
    gone = ("ChutesGpusGone", "warning")
    said = f"The API no longer lists 8 pro_6000 of server alpha of {HOTKEY}. The service purges instances without GPUs."
    text = Text(gone, 40, ALPHA_LABELS, "server alpha lost 8 pro_6000", said)
    miner.check(tmp_path, {20: [], 35: [gone]}, texts=[text])


def test_a_dead_server_whose_gpus_stay_listed_is_named_within_35_minutes(tmp_path: Path) -> None:
    # A fleet that is so large that a server of 2 GPUs is less than 5 % of it.
    miner = Scenario(70, {**FLEET, "epsilon": 8, "zeta": 8, "eta": 8})
    miner.state(20, ["delta-0", "delta-1"], "idle")
    said = (
        f"On server delta of {HOTKEY}, 2 pro_6000 have been verified but in no instance for 25 minutes or longer. If "
        "all GPUs of the server are idle, the server may be dead, which the API does not report."
    )
    labels = {"server": "delta", "server_id": "id-delta", "gpu": "pro_6000", "state": "idle"}
    miner.check(tmp_path, {44: [], 55: [IDLE]}, texts=[Text(IDLE, 70, labels, "2 pro_6000 of server delta idle", said)])


def test_a_tenth_of_the_fleet_that_is_idle_is_named_within_35_minutes(tmp_path: Path) -> None:
    miner = Scenario(60, FLEET)
    miner.state(20, ALPHA[:3], "idle")
    miner.check(tmp_path, {44: [], 55: [IDLE]})


def test_two_idle_and_two_unverified_gpus_of_26_are_warnings_after_two_hours(tmp_path: Path) -> None:
    miner = Scenario(3 * HOUR, FLEET, step=1)
    miner.state(20, ["alpha-0", "beta-0"], "idle")
    miner.state(20, ["alpha-1", "beta-1"], "unverified")
    miner.check(tmp_path, {20 + 2 * HOUR: [], 20 + 2 * HOUR + 15: [IDLE, UNVERIFIED]})


def test_one_idle_gpu_of_16_is_silent(tmp_path: Path) -> None:
    miner = Scenario(3 * HOUR, {"alpha": 8, "beta": 8})
    miner.state(20, ["alpha-0"], "idle")
    miner.check(tmp_path, {3 * HOUR: []})


@pytest.mark.soak
def test_one_idle_gpu_of_26_is_info_after_a_day(tmp_path: Path) -> None:
    miner = Scenario(DAY + 4 * HOUR, FLEET)
    miner.state(HOUR, ["alpha-0"], "idle")
    miner.check(tmp_path, {DAY + HOUR: [], DAY + 4 * HOUR: [IDLE_INFO]})


@pytest.mark.parametrize(
    ("metric", "labels"),
    [("chutes_server_maintenance_pending", {}), ("chutes_server_maintenance_status", {"status": "maintenance"})],
)
def test_the_idle_gpus_of_a_server_in_maintenance_are_silent(
    tmp_path: Path, metric: str, labels: dict[str, str]
) -> None:
    miner = Scenario(3 * HOUR, FLEET)
    miner.state(20, ALPHA, "idle")
    miner.set(metric, 1, 20, **ME, server_id="id-alpha", **labels)
    miner.check(tmp_path, {3 * HOUR: []})


def test_all_gpus_that_become_unverified_are_critical_within_20_minutes(tmp_path: Path) -> None:
    miner = Scenario(40, FLEET)
    miner.state(20, [f"{server}-{number}" for server, count in FLEET.items() for number in range(count)], "unverified")
    critical = ("ChutesGpusUnverified", "critical")
    said = (
        f"Only 0% of the GPUs of {HOTKEY} are verified. Launches on the others are refused, so an instance that ends "
        "cannot be replaced."
    )
    miner.check(tmp_path, {20: [], 40: [critical]}, texts=[Text(critical, 40, {}, "all GPUs are unverified", said)])


def test_gpus_that_restart_in_a_fast_loop_are_a_warning_after_two_hours(tmp_path: Path) -> None:
    # An instance starts for 10 minutes and fails, and 15 minutes later another one starts.
    miner = Scenario(3 * HOUR, FLEET)
    for minute in range(20, 3 * HOUR, 25):
        miner.state(minute, ALPHA, "idle")
        miner.state(minute + 15, ALPHA, "starting")
    miner.check(tmp_path, {20 + 2 * HOUR: [], 20 + 2 * HOUR + 15: [NEVER]})


def test_idle_gpus_of_a_server_that_the_api_does_not_list_are_named_by_its_id(tmp_path: Path) -> None:
    miner = Scenario(60, FLEET)
    miner.drop(10, "chutes_server_info", server_id="id-alpha")
    miner.state(20, ALPHA, "idle")
    miner.check(tmp_path, {44: [], 55: [IDLE]})


def test_gpus_that_restart_in_a_loop_are_a_warning_after_two_hours(tmp_path: Path) -> None:
    # An instance starts for 20 minutes, fails, and 5 minutes later another one starts.
    miner = Scenario(3 * HOUR, FLEET)
    for minute in range(20, 3 * HOUR, 25):
        miner.state(minute, ["alpha-0"], "idle")
        miner.state(minute + 5, ["alpha-0"], "starting")
    text = Text(
        NEVER,
        3 * HOUR,
        ALPHA_LABELS,
        "1 pro_6000 of server alpha only start instances",
        f"On server alpha of {HOTKEY}, instances have held 1 pro_6000 for most of the past 2 hours, and none has "
        "become active. They fail and start again, or hang.",
    )
    miner.check(tmp_path, {20 + 2 * HOUR: [], 20 + 2 * HOUR + 15: [NEVER]}, texts=[text])


def test_an_idle_gpu_that_starts_an_instance_does_not_count_as_a_loop(tmp_path: Path) -> None:
    miner = Scenario(4 * HOUR, FLEET)
    miner.state(20, ["alpha-0"], "idle")
    miner.state(3 * HOUR, ["alpha-0"], "starting")
    miner.state(3 * HOUR + 35, ["alpha-0"], "earning")
    miner.check(tmp_path, {4 * HOUR: []})


def test_a_server_in_maintenance_for_3_hours_is_a_warning(tmp_path: Path) -> None:
    miner = Scenario(4 * HOUR, FLEET)
    miner.set("chutes_server_maintenance_status", 1, 20, **ME, server_id="id-alpha", status="maintenance")
    warning = ("ChutesServerInMaintenance", "warning")
    # Missed scrapes do not restart the time.
    miner.fail("one:1", range(100, 104))
    miner.check(tmp_path, {20 + 3 * HOUR - 1: [], 20 + 3 * HOUR + 15: [warning]})


def test_a_pending_server_is_not_to_be_rebooted(tmp_path: Path) -> None:
    miner = Scenario(HOUR, FLEET)
    miner.set("chutes_server_maintenance_status", 1, 20, **ME, server_id="id-alpha", status="pending")
    pending = ("ChutesServerMaintenancePending", "info")
    said = (
        f"The maintenance of server alpha of {HOTKEY} is pending. Do not reboot it: the last instances of their chutes "
        "still serve there, for up to 3 hours. Then it is in maintenance, nothing runs, and you can reboot it."
    )
    labels = {"server": "alpha", "server_id": "id-alpha", "version": "0.2.5"}
    text = Text(pending, 30, labels, "do not reboot server alpha yet", said)
    miner.check(tmp_path, {19: [], 30: [pending]}, texts=[text])


@pytest.mark.parametrize(
    ("is_open", "hours", "fires"), [(1, 11, True), (1, 13, False), (0, 11, False), (0, -20, False)]
)
def test_an_open_window_that_ends_within_12_hours_is_a_warning(
    tmp_path: Path, *, is_open: int, hours: int, fires: bool
) -> None:
    miner = Scenario(20, FLEET)
    miner.set("chutes_maintenance_window_open", is_open, **ME)
    miner.set("chutes_maintenance_window_end_timestamp_seconds", hours * 3600, **ME)
    miner.set("chutes_server_upgrade_needed", 1, **ME, server_id="id-alpha")
    miner.set("chutes_server_upgrade_needed", 0, **ME, server_id="id-beta")
    # A server that holds its slot is being upgraded.
    miner.set("chutes_server_upgrade_needed", 1, **ME, server_id="id-gamma")
    miner.set("chutes_server_maintenance_status", 1, **ME, server_id="id-gamma", status="maintenance")
    warning = ("ChutesUpgradeWindowClosing", "warning")
    labels = {"server": "alpha", "server_id": "id-alpha", "version": "0.2.5"}
    said = (
        f"Server alpha of {HOTKEY} runs version 0.2.5, which is older than the target. The upgrade window ends in "
        "10h 50m 0s."
    )
    text = Text(warning, 10, labels, "server alpha is not upgraded, and the window ends soon", said)
    miner.check(tmp_path, {10: [warning] if fires else []}, texts=[text] if fires else [])


def test_a_version_that_is_refused_is_a_warning_within_30_minutes(tmp_path: Path) -> None:
    miner = Scenario(50, FLEET)
    miner.set("chutes_server_version_accepted", 1, **ME, server_id="id-alpha")
    miner.set("chutes_server_version_accepted", 0, 20, **ME, server_id="id-alpha")
    miner.check(tmp_path, {20: [], 50: [("ChutesServerVersionRefused", "warning")]})


@pytest.mark.soak
def test_lost_gpu_hours_of_a_day_are_info(tmp_path: Path) -> None:
    # 8 of 26 GPUs are idle for 9 hours in the day, in pieces that are too short for a warning.
    miner = Scenario(DAY + 2 * HOUR, FLEET)
    for minute in range(0, DAY + 2 * HOUR, 40):
        miner.state(minute, ALPHA, "idle")
        miner.state(minute + 15, ALPHA, "earning")
    lost = ("ChutesGpuHoursLost", "info")
    miner.check(tmp_path, {DAY: [], DAY + 90: [lost]})
