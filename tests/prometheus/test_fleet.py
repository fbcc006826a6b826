"""Alerts about servers and GPUs, in scenarios of a miner with 26 GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.prometheus.scenario import DAY, HOUR, UNKNOWN, Scenario, scenarios

if TYPE_CHECKING:
    from pathlib import Path

FLEET = {"alpha": 8, "beta": 8, "gamma": 8, "delta": 2}
LARGE = {f"s{number}": 8 for number in range(13)}
"""104 GPUs."""
ALPHA = [f"alpha-{number}" for number in range(8)]
ALL = [f"{server}-{number}" for server, count in FLEET.items() for number in range(count)]
ALPHA_LABELS = {"server": "alpha", "server_id": "id-alpha"}
IDLE, IDLE_INFO = "ChutesGpusIdle warning", "ChutesGpusIdle info"
MAINTENANCE = "ChutesServerInMaintenance warning"
PAIR = ("one:1", "two:2")
UNVERIFIED, ALL_UNVERIFIED = "ChutesGpusUnverified warning", "ChutesGpusUnverified critical"
GONE, LOST_HOURS = "ChutesGpusGone warning", "ChutesGpuHoursLost info"
FAIL, THRASH = "ChutesStartsFail warning", "ChutesGpusThrash warning"


def paid(miner: Scenario, gpus: int) -> Scenario:
    """Let each GPU earn a compute unit a second, and an idle one too in its best use."""
    miner.set("chutes_miner_window_compute_units", gpus * 86400, window="1d")
    return miner.pays(1)


def failing(
    miner: Scenario, server: str, starts: int, every: int, lasts: int = 20, begin: int = 20
) -> Scenario:
    """Let a GPU of a server start one instance after another, of which none becomes active.

    Args:
        miner: The scenario.
        server: The name of the server.
        starts: How many starts there are.
        every: Minutes from the beginning of one to that of the next.
        lasts: Minutes that each takes. 4 minutes later, the GPU earns until the next one.
        begin: The minute at which the first one begins.
    """
    for number in range(starts):
        at = begin + number * every
        name = f"{server}-f{number}"
        miner.instance(name, at, at, server=server).remove(name, at + lasts)
        gpu = [f"{server}-0"]
        miner.state(at, gpu, "starting").state(at + lasts, gpu, "idle")
        miner.state(at + lasts + 4, gpu, "earning")
    return miner


def short_pauses(miner: Scenario) -> Scenario:
    """Let 8 GPUs be idle for 9 hours in the day, in pieces that are too short for a warning."""
    for minute in range(0, DAY + 2 * HOUR, 40):
        miner.state(minute, ALPHA, "idle").state(minute + 15, ALPHA, "earning")
    return miner


def thrashing(miner: Scenario) -> Scenario:
    """Let the GPUs of a server be idle for 20 of every 30 minutes from 0:20 on."""
    for minute in range(20, miner.end, 30):
        miner.state(minute, ALPHA, "idle").state(minute + 20, ALPHA, "earning")
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
        miner.boots(server, 1).maintain(0, server, "none")
    miner.waits(0).set("chutes_maintenance_window_open", 0)
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
        .says(GONE, 40, "server alpha lost 8 pro_6000", **ALPHA_LABELS, gpu="pro_6000"),
        # Also while the list is not known for half an hour.
        "GPUs that are gone are named until they are back": Scenario(
            14 * HOUR, {"alpha": 8, "beta": 8}, PAIR, step=2
        )
        .state(20, ALPHA, None)
        .set("chutes_fleet_known", 0, 9 * HOUR, topic="gpus")
        .set("chutes_fleet_known", 1, 9 * HOUR + 30, topic="gpus")
        .back(13 * HOUR, ALPHA, "alpha")
        .fires({20: [], 30: [GONE], 8 * HOUR: [GONE], 9 * HOUR + 28: [GONE], 14 * HOUR: []}),
        "GPUs that are gone are named for 3 days": Scenario(
            4 * DAY, {"alpha": 8, "beta": 8}, PAIR, step=HOUR
        )
        .state(2 * HOUR, ALPHA, None)
        .fires(
            {3 * DAY: [GONE], 3 * DAY + 6 * HOUR: []},
            ever=[GONE, LOST_HOURS],
        ),
        "a dead server whose GPUs stay listed is named within 35 minutes": paid(
            Scenario(70, FLEET), 26
        )
        .prices()
        .state(20, ["delta-0", "delta-1"], "idle")
        .fires({44: [], 55: [IDLE]})
        .says(
            IDLE,
            70,
            "server delta: 2 pro_6000 idle, worth 172800 compute units (172800 US dollars) in the "
            "first day",
            "These GPUs have been idle for 25 minutes or longer. If all GPUs of a server are idle, "
            "it may be dead: the API cannot tell.",
            server="delta",
            server_id="id-delta",
        ),
        "a tenth of the fleet that is idle is named within 35 minutes": Scenario(60, FLEET)
        .state(20, ALPHA[:3], "idle")
        .fires({44: [], 55: [IDLE]}),
        "idle GPUs on which nothing can be launched are silent": Scenario(4 * HOUR, FLEET)
        .pays(0)
        .state(20, ALPHA, "idle")
        .fires({4 * HOUR: []}),
        "idle GPUs are a warning while it is not known what can be launched": Scenario(HOUR, FLEET)
        .state(20, ALPHA, "idle")
        .fires({44: [], 55: [IDLE]})
        .says(
            IDLE,
            HOUR,
            "server alpha: 8 pro_6000 idle, at an unknown pay",
            "These GPUs have been idle for 25 minutes or longer. If all GPUs of a server are idle, "
            "it may be dead: the API cannot tell.",
            **ALPHA_LABELS,
        ),
        "a server of which a GPU is in an unknown state is silent": Scenario(HOUR, FLEET)
        .state(20, ALPHA, "idle")
        .state(20, ALPHA[:1], UNKNOWN)
        .set("chutes_fleet_known", 0, 20, topic="gpus")
        .fires({HOUR: []}),
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
        "one idle and one unverified GPU of 42 are info after 2 hours": Scenario(
            3 * HOUR, {**FLEET, "epsilon": 8, "zeta": 8}
        )
        .state(20, ["alpha-0"], "idle")
        .state(20, ["beta-0"], "unverified")
        .fires({2 * HOUR: [], 20 + 2 * HOUR + 15: [IDLE_INFO, "ChutesGpusUnverified info"]}),
        "the idle GPUs of a server in maintenance are silent": paid(Scenario(3 * HOUR, FLEET), 26)
        .state(20, ALPHA, "idle")
        .maintain(20, "alpha", "maintenance")
        .fires({3 * HOUR: [MAINTENANCE]}),
        "all GPUs that become unverified in no instance are critical within 20 minutes": Scenario(
            40, FLEET, PAIR
        )
        .state(20, ALL, "unverified")
        .fires({20: [], 40: [ALL_UNVERIFIED]}),
        "3 failed starts on a server are a warning": failing(
            paid(Scenario(6 * HOUR, FLEET, PAIR, step=2), 26), "alpha", 3, 90
        )
        .fires({200: [], 4 * HOUR: [FAIL]}, ever=[FAIL])
        .says(
            FAIL,
            4 * HOUR,
            "3 starts on server alpha failed",
            "Instances on this server ended before they became active, so their GPUs earned "
            "nothing. Chutes: glm-5 (3). If a chute runs elsewhere, suspect the server. First: "
            "`kubectl --context alpha -n chutes get pods`. Then read the log of a pod (runbook).",
            **ALPHA_LABELS,
        ),
        "a crash loop is a warning within an hour": failing(
            paid(Scenario(2 * HOUR, FLEET, step=1), 26), "alpha", 4, 25
        )
        .set("chutes_chute_instances", 7, chute_id="chute-1")
        .fires({HOUR: [], 20 + HOUR: [FAIL]}, ever=[FAIL])
        .says(
            FAIL,
            20 + HOUR,
            "2 starts on server alpha failed",
            "Instances on this server ended before they became active, so their GPUs earned "
            "nothing. Chutes: glm-5 (2, runs elsewhere). If a chute runs elsewhere, suspect the "
            "server. First: `kubectl --context alpha -n chutes get pods`. Then read the log of a "
            "pod (runbook).",
            **ALPHA_LABELS,
        ),
        "2 failed starts in 6 hours, a restart and a gap are silent": failing(
            paid(Scenario(5 * HOUR, FLEET, step=2), 26), "alpha", 2, 120
        )
        .fail("one:1", range(100, 104))
        .fires({5 * HOUR: []}),
        "GPUs that are idle for 20 of every 30 minutes are a warning": thrashing(
            paid(Scenario(8 * HOUR, FLEET, step=2), 26)
        ).fires({6 * HOUR: [], 7 * HOUR: [THRASH]}, ever=[THRASH]),
        "an idle GPU that starts an instance is no loop": Scenario(4 * HOUR, FLEET)
        .state(2 * HOUR + 10, ["alpha-0"], "idle")
        .state(3 * HOUR, ["alpha-0"], "starting")
        .state(3 * HOUR + 35, ["alpha-0"], "earning")
        .fires({4 * HOUR: []}),
        "lost GPU-hours of a day are info": short_pauses(Scenario(DAY + 2 * HOUR, FLEET)).fires(
            {DAY: [], DAY + 90: [LOST_HOURS]}
        ),
    }
)
