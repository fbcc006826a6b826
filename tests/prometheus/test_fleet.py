"""Alerts about servers and GPUs, in scenarios of a miner with 26 GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
MAINTENANCE = "ChutesServerInMaintenance warning"
PAIR = ("one:1", "two:2")
UNVERIFIED, ALL_UNVERIFIED = "ChutesGpusUnverified warning", "ChutesGpusUnverified critical"
GONE, NEVER, LOST_HOURS = (
    "ChutesGpusGone warning",
    "ChutesGpusNeverEarn warning",
    "ChutesGpuHoursLost info",
)


def paid(miner: Scenario, gpus: int) -> Scenario:
    """Let each GPU earn a compute unit a second, and an idle one too if it ran the best chute."""
    miner.set("chutes_miner_window_compute_units", gpus * 86400, window="1d")
    return miner.set("chutes_launch_units_per_gpu_second", 1, gpu="pro_6000", chute_id="chute-1")


def refused(miner: Scenario, unknown: int = 0) -> Scenario:
    """Let the service refuse all chutes on the idle model, or let it not be known of some."""
    for reason, chutes in (("no_room", 9), ("disabled", 0), ("unknown", unknown)):
        miner.set("chutes_launch_refused_chutes", chutes, gpu="pro_6000", reason=reason)
    return miner


def unverified(miner: Scenario) -> Scenario:
    """Let all GPUs become unverified at 0:20, while they earn."""
    for gpu_id in ALL:
        miner.set("chutes_gpu_verified", 0, 20, hotkey=HOTKEY, gpu_id=gpu_id)
    return miner


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
        # Also while the list is not known for 2 hours. The server comes back with another id.
        "GPUs that are gone are named until they are back": Scenario(
            14 * HOUR, {"alpha": 8, "beta": 8}, PAIR, step=2
        )
        .state(20, ALPHA, None)
        .drop(9 * HOUR, "chutes_feed_records", feed="nodes")
        .set("chutes_feed_records", 1, 11 * HOUR, feed="nodes", hotkey=HOTKEY)
        .back(13 * HOUR, ALPHA, "new-alpha")
        .fires({20: [], 30: [GONE], 8 * HOUR: [GONE], 10 * HOUR + 58: [GONE], 13 * HOUR + 20: []}),
        "GPUs that are gone are named for 3 days": Scenario(
            4 * DAY, {"alpha": 8, "beta": 8}, PAIR, step=HOUR
        )
        .state(2 * HOUR, ALPHA, None)
        .fires(
            {3 * DAY: [GONE], 3 * DAY + 6 * HOUR: []},
            ever=[GONE, LOST_HOURS],
        ),
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
        "idle GPUs on which nothing can be launched are silent": refused(Scenario(4 * HOUR, FLEET))
        .state(20, ALPHA, "idle")
        .fires({4 * HOUR: []}),
        "idle GPUs are a warning when something can be launched on them again": refused(
            Scenario(4 * HOUR, FLEET)
        )
        .state(20, ALPHA, "idle")
        .set("chutes_launch_units_per_gpu_second", 1, 3 * HOUR, gpu="pro_6000", chute_id="chute-1")
        .fires({3 * HOUR: [], 3 * HOUR + 20: [IDLE]}),
        "idle GPUs are a warning while it is not known what can be launched": refused(
            Scenario(HOUR, FLEET), unknown=1
        )
        .state(20, ALPHA, "idle")
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
            .fires({3 * HOUR: found})
            for metric, labels, found in (
                ("chutes_server_maintenance_pending", {}, []),
                ("chutes_server_maintenance_status", {"status": "maintenance"}, [MAINTENANCE]),
            )
        },
        "all GPUs that become unverified in no instance are critical within 20 minutes": Scenario(
            40, FLEET, PAIR
        )
        .state(20, ALL, "unverified")
        .fires({20: [], 40: [ALL_UNVERIFIED, UNVERIFIED]}),
        "all GPUs that become unverified while they earn are a warning": unverified(
            Scenario(HOUR, FLEET, PAIR)
        )
        .fires({20: [], 40: [UNVERIFIED], HOUR: [UNVERIFIED]})
        .says(
            UNVERIFIED,
            40,
            "only 0% of the GPUs are verified",
            "Launches on the others are refused. They earn while their instances last, but no "
            "instance that ends can be replaced. First, on the exporter's host: `chutes-exporter "
            f"query nodes --hotkey {HOTKEY}`, which shows the errors.",
        ),
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
        "lost GPU-hours of a day are info": short_pauses(Scenario(DAY + 2 * HOUR, FLEET)).fires(
            {DAY: [], DAY + 90: [LOST_HOURS]}
        ),
    }
)
