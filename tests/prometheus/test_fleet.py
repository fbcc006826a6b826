"""Alerts about servers and GPUs, in scenarios of a miner with 26 GPUs."""

from __future__ import annotations

from tests.prometheus.scenario import DAY, HOUR, UNKNOWN, Scenario, scenarios

FLEET = {"alpha": 8, "beta": 8, "gamma": 8, "delta": 2}
LARGE = {f"s{number}": 8 for number in range(13)}
"""104 GPUs."""
ALPHA = [f"alpha-{number}" for number in range(8)]
ALL = [f"{server}-{number}" for server, count in FLEET.items() for number in range(count)]
ALPHA_LABELS = {"server": "alpha", "server_id": "id-alpha"}
IDLE, IDLE_INFO = "ChutesGpusIdle warning", "ChutesGpusIdle info"
MAINTENANCE = "ChutesServerInMaintenance warning"
PAIR = ("one:1", "two:2")
ALL_UNVERIFIED = "ChutesGpusUnverified critical"
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


test_alerts_about_the_fleet = scenarios(
    {
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
        "2 idle GPUs of 104 are info for the next digest": paid(
            Scenario(3 * HOUR, LARGE, step=4), 104
        )
        .state(20, ["s0-0", "s0-1"], "idle")
        .fires({2 * HOUR: [], 20 + 2 * HOUR + 10: [IDLE_INFO]}),
        "the idle GPUs of a server in maintenance are silent": paid(Scenario(3 * HOUR, FLEET), 26)
        .state(20, ALPHA, "idle")
        .maintain(20, "alpha", "maintenance")
        .fires({3 * HOUR: [MAINTENANCE]}),
        "all GPUs that become unverified in no instance are critical within 20 minutes": Scenario(
            40, FLEET, PAIR
        )
        .state(20, ALL, "unverified")
        .fires({20: [], 40: [ALL_UNVERIFIED]}),
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
        "lost GPU-hours of a day are info": short_pauses(Scenario(DAY + 2 * HOUR, FLEET)).fires(
            {DAY: [], DAY + 90: [LOST_HOURS]}
        ),
    }
)
