"""Alerts about servers and GPUs, in scenarios of a miner with 26 GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.prometheus.scenario import DAY, HOTKEY, HOUR, Scenario, scenarios

if TYPE_CHECKING:
    from pathlib import Path

FLEET = {"alpha": 8, "beta": 8, "gamma": 8, "delta": 2}
LARGE = {f"s{number}": 8 for number in range(13)}
"""104 GPUs."""
ALPHA = [f"alpha-{number}" for number in range(8)]
ALL = [f"{server}-{number}" for server, count in FLEET.items() for number in range(count)]
ALPHA_LABELS = {"server": "alpha", "server_id": "id-alpha", "gpu": "pro_6000"}
IDLE, IDLE_INFO = "ChutesGpusIdle warning", "ChutesGpusIdle info"
UNVERIFIED, ALL_UNVERIFIED = "ChutesGpusUnverified warning", "ChutesGpusUnverified critical"
GONE, NEVER, LOST_HOURS = (
    "ChutesGpusGone warning",
    "ChutesGpusNeverEarn warning",
    "ChutesGpuHoursLost info",
)
MAINTENANCE, PENDING = "ChutesServerInMaintenance warning", "ChutesServerMaintenancePending info"
CLOSING, REFUSED = "ChutesUpgradeWindowClosing warning", "ChutesServerVersionRefused warning"
STATUS = f"First, on the exporter's host: `chutes-exporter status --hotkey {HOTKEY}`."


def paid(miner: Scenario, gpus: int) -> Scenario:
    """Let each GPU earn a compute unit a second, and an idle one too if it ran the best chute."""
    miner.set("chutes_miner_window_compute_units", gpus * 86400, window="1d")
    return miner.set("chutes_launch_units_per_gpu_second", 1, gpu="pro_6000", chute_id="chute-1")


def short_pauses(miner: Scenario) -> Scenario:
    """Let 8 GPUs be idle for 9 hours in the day, in pieces that are too short for a warning."""
    for minute in range(0, DAY + 2 * HOUR, 40):
        miner.state(minute, ALPHA, "idle").state(minute + 15, ALPHA, "earning")
    return miner


def test_a_healthy_day_is_silent(tmp_path: Path) -> None:
    # One GPU of 26 starts an instance every 5 hours, and an upgrade window is over.
    miner = Scenario(DAY, FLEET)
    for hour in range(1, 24, 5):
        miner.state(hour * HOUR, ["alpha-0"], "idle")
        miner.state(hour * HOUR + 10, ["alpha-0"], "starting")
        miner.instance(f"i-{hour}", hour * HOUR + 10, hour * HOUR + 10, server="alpha")
        miner.state(hour * HOUR + 45, ["alpha-0"], "earning")
        miner.activate(f"i-{hour}", hour * HOUR + 45)
        miner.remove(f"i-{hour}", hour * HOUR + 4 * HOUR)
    for server in FLEET:
        miner.set("chutes_server_upgrade_needed", 0, server_id=f"id-{server}")
        miner.set("chutes_server_version_accepted", 1, server_id=f"id-{server}")
        miner.set("chutes_server_maintenance_status", 1, server_id=f"id-{server}", status="none")
    miner.set("chutes_maintenance_window_open", 0)
    miner.set("chutes_maintenance_window_end_timestamp_seconds", -86400)
    miner.check(tmp_path, {DAY: []})


test_alerts_about_the_fleet = scenarios(
    {
        "an exporter that restarts is silent": Scenario(HOUR, FLEET, step=1)
        .fail("one:1", {10, 11, *range(30, 35)})
        .fires({HOUR: []}),
        "a server that is deleted is named within 15 minutes": Scenario(40, FLEET)
        .state(20, ALPHA, None)
        .drop(20, "chutes_server_info", server_id="id-alpha")
        .fires({20: [], 35: [GONE]})
        .says(GONE, 40, "server alpha lost 8 pro_6000", **ALPHA_LABELS),
        # In a fleet that is so large that a server of 2 GPUs is less than 5 % of it.
        "a dead server whose GPUs stay listed is named within 35 minutes": paid(
            Scenario(70, {**FLEET, "epsilon": 8, "zeta": 8, "eta": 8}), 50
        )
        .prices()
        .state(20, ["delta-0", "delta-1"], "idle")
        .fires({44: [], 55: [IDLE]})
        .says(
            IDLE,
            70,
            "2 pro_6000 of server delta idle, worth 172800 compute units (172800.00 US "
            "dollars) a "
            "day",
            server="delta",
            server_id="id-delta",
            gpu="pro_6000",
            state="idle",
        ),
        "a tenth of the fleet that is idle is named within 35 minutes": Scenario(60, FLEET)
        .state(20, ALPHA[:3], "idle")
        .fires({44: [], 55: [IDLE]}),
        "idle GPUs of a server that the API does not list are named by its id": Scenario(60, FLEET)
        .drop(10, "chutes_server_info", server_id="id-alpha")
        .state(20, ALPHA, "idle")
        .fires({44: [], 55: [IDLE]}),
        "two idle and two unverified GPUs of 26 are warnings within 75 minutes": Scenario(
            2 * HOUR, FLEET, step=1
        )
        .state(20, ["alpha-0", "beta-0"], "idle")
        .state(20, ["alpha-1", "beta-1"], "unverified")
        .fires({20 + HOUR: [], 20 + 75: [IDLE, UNVERIFIED]}),
        "5 of 8 idle GPUs of a server are a warning within 2 hours, also among 104": Scenario(
            130, LARGE, step=4
        )
        .state(20, [f"s0-{number}" for number in range(5)], "idle")
        .fires({68: [], 130: [IDLE]}),
        "3 of 8 and 1 of 104 GPUs would earn more than 3 % of the compute units": paid(
            Scenario(130, LARGE, step=4), 104
        )
        .state(20, ["s0-0", "s0-1", "s0-2", "s1-0"], "idle")
        .fires({68: [], 130: [IDLE]}),
        "2 idle GPUs of 104 are info for the next digest": paid(
            Scenario(3 * HOUR, LARGE, step=4), 104
        )
        .state(20, ["s0-0", "s0-1"], "idle")
        .fires({2 * HOUR: [], 20 + 2 * HOUR + 10: [IDLE_INFO]}),
        "one idle and one unverified GPU of 16 are info after 2 hours": Scenario(
            3 * HOUR, {"alpha": 8, "beta": 8}
        )
        .state(20, ["alpha-0"], "idle")
        .state(20, ["beta-0"], "unverified")
        .fires({2 * HOUR: [], 20 + 2 * HOUR + 15: [IDLE_INFO, "ChutesGpusUnverified info"]}),
        **{
            f"the idle GPUs of a server in maintenance are silent by {metric}": Scenario(
                3 * HOUR, FLEET
            )
            .state(20, ALPHA, "idle")
            .set(metric, 1, 20, server_id="id-alpha", **labels)
            .fires({3 * HOUR: []})
            for metric, labels in (
                ("chutes_server_maintenance_pending", {}),
                ("chutes_server_maintenance_status", {"status": "maintenance"}),
            )
        },
        "all GPUs that become unverified are critical within 20 minutes": Scenario(40, FLEET)
        .state(20, ALL, "unverified")
        .fires({20: [], 40: [ALL_UNVERIFIED]}),
        "3 GPUs in a crash loop are a warning within an hour": Scenario(2 * HOUR, FLEET, step=1)
        .starts(ALPHA[:3], 20, 2 * HOUR, idle=5, starting=20)
        .fires({HOUR: [], 20 + HOUR: [NEVER]})
        .says(
            NEVER,
            2 * HOUR,
            "3 pro_6000 of server alpha have no instance that becomes active",
            **ALPHA_LABELS,
        ),
        "a crash loop with long pauses is a warning after 2 hours": Scenario(3 * HOUR, FLEET)
        .starts(ALPHA, 20, 3 * HOUR, idle=40, starting=15)
        .fires({136: [], 3 * HOUR: [IDLE, NEVER]}, ever=[IDLE, NEVER]),
        "a loop whose pauses no scrape sees is a warning after 2 hours": Scenario(3 * HOUR, FLEET)
        .state(20, ALPHA[:1], "starting")
        .fires({2 * HOUR: [], 20 + 2 * HOUR + 15: [NEVER]}),
        "an idle GPU that starts an instance is no loop": Scenario(4 * HOUR, FLEET)
        .state(2 * HOUR, ["alpha-0"], "idle")
        .state(3 * HOUR, ["alpha-0"], "starting")
        .state(3 * HOUR + 35, ["alpha-0"], "earning")
        .fires({4 * HOUR: []}),
        # Missed scrapes do not restart the time.
        "a server in maintenance for 3 hours is a warning": Scenario(4 * HOUR, FLEET)
        .set("chutes_server_maintenance_status", 1, 20, server_id="id-alpha", status="maintenance")
        .fail("one:1", range(100, 104))
        .fires({20 + 3 * HOUR - 1: [], 20 + 3 * HOUR + 15: [MAINTENANCE]}),
        "a pending server is not to be rebooted": Scenario(HOUR, FLEET)
        .set("chutes_server_maintenance_status", 1, 20, server_id="id-alpha", status="pending")
        .fires({19: [], 30: [PENDING]}),
        "lost GPU-hours of a day are info": short_pauses(Scenario(DAY + 2 * HOUR, FLEET)).fires(
            {DAY: [], DAY + 90: [LOST_HOURS]}
        ),
        **{
            f"a version that is refused says what to do while window_open is {is_open}": Scenario(
                50, FLEET
            )
            .set("chutes_server_version_accepted", 1, server_id="id-alpha")
            .set("chutes_server_version_accepted", 0, 20, server_id="id-alpha")
            .set("chutes_maintenance_window_open", is_open)
            .fires({20: [], 50: [REFUSED]})
            .says(
                REFUSED,
                50,
                f"{short} server alpha: the service refuses its version 0.2.5",
                "The service no longer accepts the version of this server. It earns now, but "
                "cannot "
                "boot this version "
                f"again. {todo}",
                server="alpha",
                server_id="id-alpha",
                version="0.2.5",
            )
            for is_open, short, todo in (
                (
                    1,
                    "upgrade",
                    (
                        f"{STATUS} Then reboot into the target version, because an upgrade window "
                        "is open."
                    ),
                ),
                (
                    0,
                    "do not reboot",
                    f"No upgrade window is known to be open: do not reboot. {STATUS}",
                ),
            )
        },
    }
)


@pytest.mark.parametrize(
    ("is_open", "hours", "fires"), [(1, 11, True), (1, 13, False), (0, 11, False), (0, -20, False)]
)
def test_an_open_window_that_ends_within_12_hours_is_a_warning(
    tmp_path: Path, *, is_open: int, hours: int, fires: bool
) -> None:
    miner = Scenario(20, FLEET)
    miner.set("chutes_maintenance_window_open", is_open)
    miner.set("chutes_maintenance_window_end_timestamp_seconds", hours * 3600)
    miner.set("chutes_server_upgrade_needed", 1, server_id="id-alpha")
    miner.set("chutes_server_upgrade_needed", 0, server_id="id-beta")
    # A server that holds its slot is being upgraded.
    miner.set("chutes_server_upgrade_needed", 1, server_id="id-gamma")
    miner.set("chutes_server_maintenance_status", 1, server_id="id-gamma", status="maintenance")
    miner.check(tmp_path, {10: [CLOSING] if fires else []})
