"""Alerts about servers and GPUs, in scenarios of a miner with 26 GPUs."""

from __future__ import annotations

from tests.prometheus.history import HOTKEY, HOUR, PAIR, server_labels
from tests.prometheus.scenario import Scenario, scenarios

FLEET = {"alpha": 8, "beta": 8, "gamma": 8, "delta": 2}
ALPHA = server_labels("alpha")
IDLE = "ChutesGpusIdle warning"
IDLE_CRITICAL = "ChutesGpusIdle critical"
SEVERITY = "alert:chutes_alerts:severity"
_PLACE = f'alertname="ChutesGpusIdle",hotkey="{HOTKEY}",place="alpha",server="alpha"'
ALPHA_CRITICAL = {f"{SEVERITY}{{{_PLACE}}}": 21}
UNVERIFIED = "ChutesGpusUnverified warning"
GONE = "ChutesGpusGone warning"


test_alerts_about_the_fleet = scenarios(
    {
        "a server that is deleted is named within 15 minutes": Scenario(40, FLEET)
        .set_gpus("alpha", at=20)
        .expect_alerts({20: [], 35: [GONE]}),
        # Also while the list is not known for half an hour.
        "GPUs that are gone are named until they are back": Scenario(
            14 * HOUR, {"alpha": 8, "beta": 8}, PAIR, interval=5
        )
        .set_gpus("alpha", at=20)
        .set("chutes_fleet_known", 0, at=9 * HOUR, topic="gpus")
        .set("chutes_fleet_known", 1, at=9 * HOUR + 30, topic="gpus")
        .set_gpus("alpha", at=13 * HOUR, earning=8)
        .expect_alerts(
            {20: [], 30: [GONE], 8 * HOUR: [GONE], 9 * HOUR + 25: [GONE], 14 * HOUR: []}
        ),
        "idle GPUs on which nothing can be launched are silent": Scenario(
            4 * HOUR, FLEET, idle_pay=0
        )
        .set_gpus("alpha", at=20, idle=8)
        .expect_alerts({4 * HOUR: []}),
        "idle GPUs of a server that has probably died send to the server": Scenario(
            HOUR, FLEET, idle_pay=0
        )
        .set_gpus("alpha", at=20, idle=3, earning=5)
        .set("chutes_server_launch_left_out", 1, at=20, reason="may_be_dead", **ALPHA)
        .expect_alerts({48: [], HOUR: [IDLE]})
        .expect_text(
            IDLE,
            at=HOUR,
            summary="alpha: 3 pro_6000 idle, at an unknown pay",
            description=(
                "These GPUs have been idle for 30 minutes or longer. The server has probably died: "
                "several instances ended within minutes, and nothing earns there since. "
                "First see whether it answers: `chutes-miner tee node-health --name alpha`."
            ),
            **ALPHA,
        ),
        "idle GPUs are a warning while it is not known what can be launched": Scenario(HOUR, FLEET)
        .set_gpus("alpha", at=20, idle=3, earning=5)
        .expect_alerts({48: [], HOUR: [IDLE]})
        .expect_text(
            IDLE,
            at=HOUR,
            summary="alpha: 3 pro_6000 idle, at an unknown pay",
            description=(
                "These GPUs have been idle for 30 minutes or longer. If all GPUs of a server are "
                "idle, it may be dead: the API cannot tell. First, on the exporter's host: "
                "`chutes-exporter advise --hotkey {{ $labels.hotkey }}`, which says what to launch."
            ),
            **ALPHA,
        ),
        # Overview names their servers, also while the alert goes on after its end.
        "idle GPUs that cost more than 15 % of the income are critical": Scenario(2 * HOUR, FLEET)
        .set_gpus("alpha", at=20, idle=8)
        .set_gpus("alpha", at=65, earning=8)
        .expect_alerts({48: [], HOUR: [IDLE, IDLE_CRITICAL], 70: [IDLE, IDLE_CRITICAL], 90: []})
        .expect_values(SEVERITY, {48: {}, HOUR: ALPHA_CRITICAL, 70: ALPHA_CRITICAL, 90: {}}),
        "GPUs that become unverified in no instance are a warning after half an hour": Scenario(
            HOUR, FLEET, PAIR
        )
        .set_gpus("alpha", at=20, unverified=1, earning=7)
        .expect_alerts({48: [], HOUR: [UNVERIFIED]}),
    }
)
