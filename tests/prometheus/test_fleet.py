"""Alerts about servers and GPUs, in scenarios of a miner with 26 GPUs."""

from __future__ import annotations

from tests.prometheus.scenario import DAY, HOUR, Scenario, scenarios

FLEET = {"alpha": 8, "beta": 8, "gamma": 8, "delta": 2}
ALPHA = [f"alpha-{number}" for number in range(8)]
ALL = [f"{server}-{number}" for server, count in FLEET.items() for number in range(count)]
ALPHA_LABELS = {"server": "alpha", "server_id": "id-alpha"}
IDLE = "ChutesGpusIdle warning"
PAIR = ("one:1", "two:2")
ALL_UNVERIFIED = "ChutesGpusUnverified critical"
GONE, LOST_HOURS = "ChutesGpusGone warning", "ChutesGpuHoursLost info"
THRASH = "ChutesGpusThrash warning"


def paid(miner: Scenario, gpus: int) -> Scenario:
    """Let each GPU earn a compute unit a second, and an idle one too in its best use."""
    miner.set("chutes_miner_window_compute_units", gpus * 86400, window="1d")
    return miner.pays(1)


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
        .fires({20: [], 35: [GONE]}),
        # Also while the list is not known for half an hour.
        "GPUs that are gone are named until they are back": Scenario(
            14 * HOUR, {"alpha": 8, "beta": 8}, PAIR, step=5
        )
        .state(20, ALPHA, None)
        .set("chutes_fleet_known", 0, 9 * HOUR, topic="gpus")
        .set("chutes_fleet_known", 1, 9 * HOUR + 30, topic="gpus")
        .back(13 * HOUR, ALPHA, "alpha")
        .fires({20: [], 30: [GONE], 8 * HOUR: [GONE], 9 * HOUR + 25: [GONE], 14 * HOUR: []}),
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
        "all GPUs that become unverified in no instance are critical within 20 minutes": Scenario(
            40, FLEET, PAIR
        )
        .state(20, ALL, "unverified")
        .fires({20: [], 40: [ALL_UNVERIFIED]}),
        "GPUs that are idle for 20 of every 30 minutes are a warning": thrashing(
            paid(Scenario(8 * HOUR, FLEET, step=5), 26)
        ).fires({6 * HOUR: [], 7 * HOUR: [THRASH]}, ever=[THRASH]),
        "lost GPU-hours of a day are info": short_pauses(Scenario(DAY + 2 * HOUR, FLEET)).fires(
            {DAY: [], DAY + 90: [LOST_HOURS]}
        ),
    }
)
