"""Alerts about the upgrades of TEE servers, and what planned maintenance explains."""

from __future__ import annotations

from tests.prometheus.history import DAY, HOTKEY, HOUR, PAIR, server_labels
from tests.prometheus.scenario import Scenario, scenarios

MAINTENANCE = "ChutesServerInMaintenance warning"
PENDING = "ChutesServerMaintenancePending warning"
DO_NOT_REBOOT = "alpha: do not reboot it. Its maintenance is pending, until 03:20 UTC at the latest"
WINDOW = "ChutesUpgradeWindow warning"
REFUSED = "ChutesServerVersionRefused warning"
NOTHING = "ChutesMinerEarnsNothing critical"
HEADING = "ChutesScoreHeadingDown warning"
ALPHA = server_labels("alpha")


def refused() -> Scenario:
    """The version of a server is refused at 0:20, while another server holds the only slot."""
    miner = Scenario(50, {"alpha": 8, "beta": 2}, PAIR).open_window(end=DAY)
    miner.set_maintenance("alpha", "none").set_maintenance("beta", "maintenance")
    miner.set_gpus("beta", idle=2)
    miner.set("chutes_server_version_accepted", 1, at=0, **ALPHA)
    return miner.set("chutes_server_version_accepted", 0, at=20, **ALPHA)


def emptied(end: int, *, at: int) -> Scenario:
    """The instances of one of two servers end at a minute, when its maintenance begins."""
    miner = Scenario(end, {"alpha": 8, "beta": 8}, PAIR, interval=1).open_window(end=DAY)
    miner.run_instances("alpha", 8).set_maintenance("alpha", "none")
    for number in range(8):
        miner.end_instance(f"i-alpha-{number}", at=at)
    return miner.set_gpus("alpha", at=at, idle=8).set_maintenance("alpha", "maintenance", at=at)


BEGUN = (
    f'alertname="ChutesServerInMaintenance",severity="warning",hotkey="{HOTKEY}",'
    'server="alpha",server_id="id-alpha"'
)
FIRING = f'{BEGUN},alertstate="firing"'


def upgraded(**steps: tuple[str, int | None]) -> Scenario:
    """Servers have steps in a window that ends in 12 hours, and are done at a minute."""
    miner = Scenario(30, dict.fromkeys(steps, 1), PAIR, interval=1).open_window(end=12 * HOUR)
    for server, (step, done) in steps.items():
        miner.set_step(server, step, done_at=done)
    return miner


test_alerts_about_maintenance = scenarios(
    {
        "a server whose version is refused is not to be rebooted before its maintenance": refused()
        .run_instances("alpha", 8)
        .expect_alerts({20: [MAINTENANCE], 50: [MAINTENANCE, REFUSED]})
        .expect_text(
            REFUSED,
            at=50,
            summary="alpha: do not reboot it. The service refuses its version 0.2.5",
            **ALPHA,
        ),
        "a refused server in maintenance is to be booted with the target version": refused()
        .set_gpus("beta", at=30, earning=2)
        .set_maintenance("beta", "none", at=30)
        .set_maintenance("alpha", "maintenance", at=38)
        .expect_alerts({36: [REFUSED], 50: [MAINTENANCE]}),
        "a server in maintenance that cannot come back is not to be booted": emptied(30, at=0)
        .set_step("alpha", "cannot_return")
        .expect_alerts({20: [MAINTENANCE]})
        .expect_text(
            MAINTENANCE,
            at=20,
            summary="alpha: in maintenance, and cannot come back",
            **ALPHA,
        ),
        # A gap does not move the deadline.
        "a pending server is not to be rebooted, with the deadline": Scenario(
            HOUR, {"alpha": 8}, PAIR, interval=1
        )
        .run_instances("alpha", 3)
        .set_gpus("alpha", earning=3, idle=5)
        .set_maintenance("alpha", "none")
        .set_maintenance("alpha", "pending", at=20)
        .fail_scrapes(at=range(30, 34))
        .expect_alerts({19: [], 23: [PENDING], 35: [PENDING], HOUR: [PENDING]})
        .expect_text(PENDING, at=23, summary=DO_NOT_REBOOT, **ALPHA)
        .expect_text(PENDING, at=50, summary=DO_NOT_REBOOT, **ALPHA),
        # All scrapes are missed for 20 minutes, soon after the status.
        "a server in maintenance is a warning within 20 minutes, also after a gap": emptied(
            2 * HOUR, at=20
        )
        .set_step("alpha", "boot", at=20)
        .fail_scrapes(at=range(30, 50))
        .expect_alerts(
            {20: [], 25: [MAINTENANCE], 2 * HOUR: [MAINTENANCE]},
            between=["ChutesMinerUnwatched critical"],
        )
        # It fires in each of the last 90 minutes, and began once.
        .expect_values(
            f"count_over_time(ALERTS{{{FIRING}}}[89m30s])", {2 * HOUR: {f"{{{FIRING}}}": 90}}
        )
        .expect_values(
            f"changes(ALERTS_FOR_STATE{{{BEGUN}}}[89m30s])", {2 * HOUR: {f"{{{BEGUN}}}": 0}}
        )
        .expect_text(
            MAINTENANCE,
            at=25,
            summary="alpha: in maintenance, and nothing runs on it: boot it with version 0.3.0",
            **ALPHA,
        )
        # What ran there before the gap proves nothing.
        .expect_text(
            MAINTENANCE,
            at=45,
            summary="alpha: in maintenance: do not reboot it while something may run on it",
            **ALPHA,
        ),
        "while two exporters disagree, nobody is told to reboot": Scenario(30, {"alpha": 8}, PAIR)
        .set_maintenance("alpha", "maintenance")
        .set("chutes_server_maintenance_state", 1, at=0, **ALPHA, state="none", exporter="two:2")
        .expect_alerts({30: []}),
        "a free slot, a late server and one that cannot come back need care in a window": upgraded(
            first=("request", 4 * HOUR),
            second=("wait", 8 * HOUR),
            third=("wait", 13 * HOUR),
            fourth=("cannot_return", None),
            fifth=("await_drain", None),
        )
        .expect_alerts({4: [], 10: [WINDOW]})
        .expect_text(
            WINDOW,
            at=10,
            summary="Servers that need care in the upgrade window: 3, 1 will not make it",
            description=(
                "The window ends in 11h 50m 0s. Later, older servers may not boot. fourth: "
                "cannot_return. first: request. second: wait. third: wait. First, for each server "
                "whose step is `request`: `chutes-miner tee start-maintenance --name SERVER`. "
                "`chutes-exporter status` has the order."
            ),
        ),
        "a server whose step is not known needs care in a window": upgraded(alpha=("wait", HOUR))
        .drop("chutes_server_maintenance_step")
        .expect_alerts({10: [WINDOW]}),
        "a window in which all wait for their turn, and will make it, is silent": upgraded(
            alpha=("await_drain", None), beta=("wait", 8 * HOUR)
        ).expect_alerts({30: []}),
        "planned maintenance does not explain the loss of another server": Scenario(
            9 * HOUR, {"alpha": 8, "beta": 8, "gamma": 8}, PAIR
        )
        .set_maintenance("alpha", "none")
        .set_maintenance("alpha", "pending", at=2 * HOUR)
        .set_maintenance("alpha", "maintenance", at=3 * HOUR)
        .set_maintenance("alpha", "none", at=6 * HOUR)
        .set("chutes_miner_score_heading_ratio", 0.0067, at=2 * HOUR)
        .set("chutes_miner_score_heading_ratio", 0.02, at=6 * HOUR + 40)
        .expect_alerts({3 * HOUR: [PENDING, HEADING]}, between=[MAINTENANCE]),
        # Nobody has booted the only server.
        "a maintenance of more than 7 hours is not planned": Scenario(10 * HOUR, {"alpha": 8}, PAIR)
        .set_maintenance("alpha", "none")
        .set_maintenance("alpha", "maintenance", at=HOUR)
        .set("chutes_miner_score_heading_ratio", 0, at=HOUR)
        .expect_alerts({7 * HOUR: [MAINTENANCE], 9 * HOUR: [MAINTENANCE, NOTHING]}),
    }
)
