"""Alerts about the upgrades of TEE servers, and what planned maintenance explains."""

from __future__ import annotations

from tests.prometheus.scenario import DAY, HOTKEY, HOUR, Scenario, scenarios

PAIR = ("one:1", "two:2")
THREE = {"alpha": 8, "beta": 8, "gamma": 8}
OLD = [f"old-{number}" for number in range(13)]
MAINTENANCE = "ChutesServerInMaintenance warning"
PENDING = "ChutesServerMaintenancePending warning"
CLOSING = "ChutesUpgradeWindowClosing warning"
REFUSED = "ChutesServerVersionRefused warning"
NOTHING = "ChutesMinerEarnsNothing critical"
HEADING = "ChutesScoreHeadingDown warning"
BLIND = ["ChutesExporterDown warning", "ChutesMinerUnwatched critical"]
ALPHA = {"server": "alpha", "server_id": "id-alpha"}
STATUS = f"First, on the exporter's host: `chutes-exporter status --hotkey {HOTKEY}`"
SLOT = f"{STATUS}, which shows when a slot is free."


def refused(exporters: tuple[str, ...] = PAIR) -> Scenario:
    """The version of a server is refused at 0:20, while another server holds the only slot."""
    miner = Scenario(50, {"alpha": 8, "beta": 2}, exporters)
    miner.window(DAY, in_use=1).maintain(0, "alpha", "none").maintain(0, "beta", "maintenance")
    miner.state(0, ["beta-0", "beta-1"], "idle")
    miner.boots("alpha", 1)
    miner.boots("alpha", 0, 20)
    return miner


def ended(miner: Scenario, at: int, server: str, gpus: int = 8) -> Scenario:
    """Let all instances of a server end."""
    for number in range(gpus):
        miner.remove(f"i-{server}-{number}", at)
    miner.set("chutes_server_earning_instances", 0, at, server_id=f"id-{server}", server=server)
    return miner.state(at, [f"{server}-{number}" for number in range(gpus)], "idle")


BEGUN = (
    f'alertname="ChutesServerInMaintenance",severity="warning",hotkey="{HOTKEY}",'
    'server="alpha",server_id="id-alpha"'
)
FIRING = f'{BEGUN},alertstate="firing"'
SOME = "Instances that earn there now: 8."
NONE = "Instances that earn there now: 0."
UNKNOWN = "How many instances earn there is not known now."


def about_refused(
    earning: str, do: str = "Do not reboot it before maintenance has ended its instances."
) -> str:
    """The description of a server whose version is refused."""
    return f"A server that boots with this version does not come back. {earning} {do} {SLOT}"


def about_pending(earning: str) -> str:
    """The description of a pending server."""
    return (
        f"The last instances of their chutes still serve there. {earning} A reboot loses their "
        "score. The status changes to maintenance by itself. "
        f"{STATUS}, which has the exact deadline."
    )


def about_maintenance(
    earning: str, do: str = "When there is none, shut it down and boot it with the target version."
) -> str:
    """The description of a server in maintenance."""
    return f"{earning} {do} Until then, other servers wait for its slot. {STATUS}."


def about_window(left: str, unmeasured: str = "") -> str:
    """The description of a window that ends."""
    return (
        f"The window ends in {left}. An upgrade takes up to 4 hours, 1 at once. Later, "
        f"older servers may not boot.{unmeasured} {STATUS}, which has the order."
    )


def old_servers(
    hours: float, slots: int = 1, number: int = 13, *, in_slot: int = 0, unmeasured: int = 0
) -> Scenario:
    """A number of servers are older than the target of a window that ends in some hours.

    ``in_slot`` of them hold an upgrade slot. ``unmeasured`` others cannot come back.
    """
    miner = Scenario(20, dict.fromkeys(OLD[:number], 1), PAIR, step=1)
    # The server "new" needs no upgrade.
    miner.window(int(60 * hours), slots, in_use=in_slot).set("chutes_server_info", 1, name="new")
    miner.waits(number - in_slot, unmeasured)
    # In each 4 hours, each slot has room for one, but for those that are used now.
    room = max(0, int(hours // 4) * slots - in_slot)
    late = max(0, number - in_slot - unmeasured - room)
    miner.set("chutes_fleet_late_servers_to_upgrade", late)
    for index, server in enumerate(OLD[:number]):
        miner.maintain(0, server, "pending" if index < in_slot else "none")
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
            "do not reboot server alpha: the service refuses its version 0.2.5",
            about_refused(SOME),
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
        .measured("alpha", 0)
        .maintain(0, "alpha", "maintenance")
        .fires({20: [MAINTENANCE]})
        .says(
            MAINTENANCE,
            20,
            "server alpha is in maintenance, and cannot come back",
            about_maintenance(
                NONE,
                "Do not boot the target: it is listed for no host with these GPUs.",
            ),
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
            "do not reboot server alpha: its maintenance is pending, until 03:20 UTC at the latest",
            about_pending("Instances that earn there now: 3."),
            **ALPHA,
        )
        .says(
            PENDING,
            50,
            "do not reboot server alpha: its maintenance is pending, until 03:20 UTC at the latest",
            about_pending("Instances that earn there now: 3."),
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
        .fail("one:1", range(30, 50))
        .fail("two:2", range(30, 50))
        .fires(
            {20: [], 25: [MAINTENANCE], 2 * HOUR: [MAINTENANCE]},
            ever=[MAINTENANCE, *BLIND],
            values={
                # It fires in each of the last 90 minutes, and began once.
                f"count_over_time(ALERTS{{{FIRING}}}[89m30s])": (2 * HOUR, {f"{{{FIRING}}}": 90}),
                f"changes(ALERTS_FOR_STATE{{{BEGUN}}}[89m30s])": (2 * HOUR, {f"{{{BEGUN}}}": 0}),
            },
        )
        .says(
            MAINTENANCE,
            25,
            "server alpha is in maintenance, and nothing earns on it: boot it with version 0.3.0",
            about_maintenance(NONE),
            **ALPHA,
        )
        # What ran there before the gap proves nothing.
        .says(
            MAINTENANCE,
            45,
            "server alpha is in maintenance: do not reboot it while something earns on it",
            about_maintenance("Whether instances still earn there is not known now."),
            **ALPHA,
        ),
        # The last page of an exporter that is gone says that the server is in maintenance.
        "a server that is back is not to be rebooted because of an exporter that is gone": Scenario(
            HOUR, {"alpha": 8}, PAIR
        )
        .maintain(0, "alpha", "maintenance")
        .maintain(20, "alpha", "none")
        .target("one:1", 0, 20)
        .fires({19: [MAINTENANCE], 35: []}, ever=[MAINTENANCE]),
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
        "13 old servers and a slot: 10 will not make it in 12 hours and 10 minutes": old_servers(
            12 + 20 / 60
        )
        .fires({10: [CLOSING]})
        .says(
            CLOSING,
            10,
            "servers that wait for their upgrade: 13, 10 will not make it",
            about_window("12h 10m 0s"),
        ),
        "13 old servers and a slot have not enough time in 51 hours": old_servers(51).fires(
            {10: [CLOSING]}
        ),
        "two slots halve the time": old_servers(51, slots=2).fires({20: []}),
        "those that cannot come back are named apart from those that will not make it": (
            old_servers(8 + 20 / 60, number=4, unmeasured=1)
            .fires({10: [CLOSING]})
            .says(
                CLOSING,
                10,
                "servers that wait for their upgrade: 4, 1 will not make it, 1 cannot come back",
                about_window("8h 10m 0s", " Do not upgrade those that cannot come back."),
            )
        ),
        "while it is not known which can come back, nobody says how many will not make it": (
            old_servers(11)
            .drop(0, "chutes_fleet_unmeasured_servers_to_upgrade")
            .drop(0, "chutes_fleet_late_servers_to_upgrade")
            .fires({10: [CLOSING]})
            .says(
                CLOSING,
                10,
                "servers that wait for their upgrade: 13",
                about_window("10h 50m 0s", " Whether they can come back is not known now."),
            )
        ),
        "planned maintenance does not explain the loss of another server": falls(
            THREE, 2 * HOUR, 0.0067
        ).fires(
            {3 * HOUR: [PENDING, HEADING]},
            ever=[PENDING, MAINTENANCE, HEADING],
        ),
        "planned maintenance of one server does not explain that no server earns": falls(
            {"alpha": 8, "beta": 8}, 2 * HOUR, 0
        ).fires({3 * HOUR: [PENDING, NOTHING]}, ever=[PENDING, MAINTENANCE, NOTHING]),
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
