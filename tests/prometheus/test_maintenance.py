"""Alerts about the upgrades of TEE servers, and what planned maintenance explains."""

from __future__ import annotations

from tests.prometheus.scenario import DAY, HOTKEY, HOUR, Scenario, scenarios

PAIR = ("one:1", "two:2")
THREE = {"alpha": 8, "beta": 8, "gamma": 8}
MAINTENANCE = "ChutesServerInMaintenance warning"
PENDING = "ChutesServerMaintenancePending warning"
WINDOW = "ChutesUpgradeWindow warning"
REFUSED = "ChutesServerVersionRefused warning"
NOTHING = "ChutesMinerEarnsNothing critical"
HEADING = "ChutesScoreHeadingDown warning"
BLIND = ["ChutesMinerUnwatched critical"]
ALPHA = {"server": "alpha", "server_id": "id-alpha"}


def refused(exporters: tuple[str, ...] = PAIR) -> Scenario:
    """The version of a server is refused at 0:20, while another server holds the only slot."""
    miner = Scenario(50, {"alpha": 8, "beta": 2}, exporters)
    miner.window(DAY).maintain(0, "alpha", "none").maintain(0, "beta", "maintenance")
    miner.state(0, ["beta-0", "beta-1"], "idle")
    miner.set("chutes_server_version_accepted", 1, **ALPHA)
    return miner.set("chutes_server_version_accepted", 0, 20, **ALPHA)


def ended(miner: Scenario, at: int, server: str, gpus: int = 8) -> Scenario:
    """Let all instances of a server end."""
    for number in range(gpus):
        miner.remove(f"i-{server}-{number}", at)
    return miner.state(at, [f"{server}-{number}" for number in range(gpus)], "idle")


BEGUN = (
    f'alertname="ChutesServerInMaintenance",severity="warning",hotkey="{HOTKEY}",'
    'server="alpha",server_id="id-alpha"'
)
FIRING = f'{BEGUN},alertstate="firing"'


def upgraded(**steps: tuple[str, int | None]) -> Scenario:
    """Servers have steps in a window that ends in 12 hours, and are done at a minute."""
    miner = Scenario(30, dict.fromkeys(steps, 1), PAIR, step=1).window(12 * HOUR)
    for server, (step, done) in steps.items():
        miner.step(0, server, step, done)
    return miner


def falls(servers: dict[str, int], at: int, to: float, *, maintained: str = "alpha") -> Scenario:
    """The heading share falls to a value when the upgrade of a server begins at a minute. The
    upgrade takes 4 hours, and 40 minutes later, the share is back at 2 %.
    """
    miner = Scenario(at + 7 * HOUR, servers, PAIR)
    miner.maintain(0, maintained, "none").maintain(at, maintained, "pending")
    miner.maintain(at + HOUR, maintained, "maintenance").maintain(at + 4 * HOUR, maintained, "none")
    miner.set("chutes_miner_score_heading_ratio", to, at)
    return miner.set("chutes_miner_score_heading_ratio", 0.02, at + 4 * HOUR + 40)


test_alerts_about_maintenance = scenarios(
    {
        "a server whose version is refused is not to be rebooted before its maintenance": refused()
        .earns("alpha", 8)
        .fires({20: [MAINTENANCE], 50: [MAINTENANCE, REFUSED]})
        .says(
            REFUSED,
            50,
            "alpha: do not reboot it. The service refuses its version 0.2.5",
            **ALPHA,
        ),
        "a refused server in maintenance is to be booted with the target version": refused()
        .state(30, ["beta-0", "beta-1"], "earning")
        .maintain(30, "beta", "none")
        .maintain(38, "alpha", "maintenance")
        .fires({36: [REFUSED], 50: [MAINTENANCE]}, ever=[MAINTENANCE, REFUSED]),
        "a server in maintenance that cannot come back is not to be booted": ended(
            Scenario(30, {"alpha": 8, "beta": 8}, PAIR).earns("alpha", 8), 0, "alpha"
        )
        .window(DAY)
        .maintain(0, "alpha", "maintenance")
        .step(0, "alpha", "cannot come back")
        .fires({20: [MAINTENANCE]})
        .says(
            MAINTENANCE,
            20,
            "alpha: in maintenance, and cannot come back",
            **ALPHA,
        ),
        # A gap does not move the deadline.
        "a pending server is not to be rebooted, with the deadline": Scenario(
            HOUR, {"alpha": 8}, PAIR, step=1
        )
        .earns("alpha", 3)
        .state(0, [f"alpha-{number}" for number in range(3, 8)], "idle")
        .maintain(0, "alpha", "none")
        .maintain(20, "alpha", "pending")
        .fail("one:1", range(30, 34))
        .fail("two:2", range(30, 34))
        .fires({19: [], 23: [PENDING], 35: [PENDING], HOUR: [PENDING]})
        .says(
            PENDING,
            23,
            "alpha: do not reboot it. Its maintenance is pending, until 03:20 UTC at the latest",
            **ALPHA,
        )
        .says(
            PENDING,
            50,
            "alpha: do not reboot it. Its maintenance is pending, until 03:20 UTC at the latest",
            **ALPHA,
        ),
        # All scrapes are missed for 20 minutes, soon after the status.
        "a server in maintenance is a warning within 20 minutes, also after a gap": ended(
            Scenario(2 * HOUR, {"alpha": 8, "beta": 8}, PAIR, step=1).earns("alpha", 8),
            20,
            "alpha",
        )
        .window(DAY)
        .maintain(0, "alpha", "none")
        .maintain(20, "alpha", "maintenance")
        .step(20, "alpha", "boot")
        .fail("one:1", range(30, 50))
        .fail("two:2", range(30, 50))
        .fires(
            {20: [], 25: [MAINTENANCE], 2 * HOUR: [MAINTENANCE]},
            ever=[MAINTENANCE, *BLIND],
            values={
                # It fires in each of the last 90 minutes, and began once.
                f"count_over_time(ALERTS{{{FIRING}}}[89m30s])": {2 * HOUR: {f"{{{FIRING}}}": 90}},
                f"changes(ALERTS_FOR_STATE{{{BEGUN}}}[89m30s])": {2 * HOUR: {f"{{{BEGUN}}}": 0}},
            },
        )
        .says(
            MAINTENANCE,
            25,
            "alpha: in maintenance, and nothing runs on it: boot it with version 0.3.0",
            **ALPHA,
        )
        # What ran there before the gap proves nothing.
        .says(
            MAINTENANCE,
            45,
            "alpha: in maintenance: do not reboot it while something may run on it",
            **ALPHA,
        ),
        "while two exporters disagree, nobody is told to reboot": Scenario(30, {"alpha": 8}, PAIR)
        .maintain(0, "alpha", "maintenance")
        .set(
            "chutes_server_maintenance_state",
            1,
            server_id="id-alpha",
            state="none",
            instance="two:2",
        )
        .fires({30: []}),
        "a free slot, a late server and one that cannot come back need care in a window": upgraded(
            first=("request now", 4 * HOUR),
            second=("wait", 8 * HOUR),
            third=("wait", 13 * HOUR),
            fourth=("cannot come back", None),
            fifth=("do not reboot until", None),
        )
        .fires({4: [], 10: [WINDOW]})
        .says(
            WINDOW,
            10,
            "Servers that need care in the upgrade window: 3, 1 will not make it",
            "The window ends in 11h 50m 0s. Later, older servers may not boot. fourth: cannot come "
            "back. first: request now. second: wait. third: wait. First, for each server whose "
            "step is `request now`: `chutes-miner tee start-maintenance --name SERVER`. "
            "`chutes-exporter status` has the order.",
        ),
        "a server whose step is not known needs care in a window": upgraded(alpha=("wait", HOUR))
        .drop(0, "chutes_server_maintenance_step")
        .fires({10: [WINDOW]}),
        "a window in which all wait for their turn, and will make it, is silent": upgraded(
            alpha=("do not reboot until", None), beta=("wait", 8 * HOUR)
        ).fires({30: []}),
        "planned maintenance does not explain the loss of another server": falls(
            THREE, 2 * HOUR, 0.0067
        ).fires(
            {3 * HOUR: [PENDING, HEADING]},
            ever=[PENDING, MAINTENANCE, HEADING],
        ),
        # Nobody has booted the only server.
        "a maintenance of more than 7 hours is not planned": Scenario(10 * HOUR, {"alpha": 8}, PAIR)
        .maintain(0, "alpha", "none")
        .maintain(HOUR, "alpha", "maintenance")
        .set("chutes_miner_score_heading_ratio", 0, HOUR)
        .fires(
            {7 * HOUR: [MAINTENANCE], 9 * HOUR: [MAINTENANCE, NOTHING]},
            ever=[MAINTENANCE, NOTHING],
        ),
    }
)
