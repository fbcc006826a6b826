"""What needs action, from a fleet. tests/commands/test_status.py compares it with a world."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.findings import find, summary
from chutes_exporter.fleet.answers import Window
from chutes_exporter.fleet.failures import Failures, Outage
from chutes_exporter.fleet.placement import Launch, ServerPlan
from chutes_exporter.rules.losses import Loss
from chutes_exporter.rules.money import Costs
from tests.fleet.support import make_fleet, make_gpus, make_instance, make_offer, make_server
from tests.fleet.test_failures import end

if TYPE_CHECKING:
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.fleet.servers import Server

NOW = datetime(2026, 11, 27, 19, 17, tzinfo=UTC).timestamp()
COSTS = Costs(by_model={"h200": 2.5, "pro_6000": 1.1})
TEE = "tee s1 (1.6.2)"
EARNING = make_gpus("earning", 6)
IDLE = make_gpus("idle", 2)
OPEN = Window(
    is_open=True,
    starts_at=NOW - 60,
    ends_at=NOW + 3 * 86400,
    target="1.7.0",
)
OVER = replace(OPEN, is_open=False, ends_at=NOW - 1)
TWO_GPUS = make_gpus("starting", 2, instance_id="i1")
STARTING = make_instance(state="starting", deadlines={"purge": NOW + 2340})


def with_instance(**fields: Any) -> Fleet:
    """Return a fleet with one instance on two of a server's GPUs."""
    gpus = make_gpus("earning", 2, instance_id="i1")
    return make_fleet(make_server("s1", *gpus, instances=(make_instance(**fields),)))


def with_idle(*launches: Launch, may_be_more: bool = False, **fields: Any) -> Fleet:
    """Return a fleet with two idle GPUs, and the best use of them."""
    use = ServerPlan("s1", "pro_6000", launches, may_be_more)
    return make_fleet(make_server("s1", *EARNING, *IDLE, **fields), plans=(use,))


LAUNCH = Launch(make_offer(1.5), 2)

IN_SLOT: dict[str, Any] = {"holds_slot": True, "maintenance": "maintenance"}
OLD: dict[str, Any] = {"needs_upgrade": True}
LOST: dict[str, Any] = OLD | {"measured": "not_measured"}
SLOT = replace(OPEN, slots=1, used_slots=0)

# The golden outputs have the other kinds.
# A kind, a fleet that has only it, the names of its things, the GPUs that earn nothing, and words
# of its problem.
CASES: list[tuple[str, Fleet, str, str, str]] = [
    (
        "purges",
        with_instance(state="starting", deadlines={"purge": NOW - 7200}),
        *("llama on tee s1 (i1)", "2 pro_6000", "overdue since 17:17 UTC."),
    ),
    (
        "maintenance",
        make_fleet(make_server("s1", *IDLE, **IN_SLOT)),
        *(TEE, "2 pro_6000", "is left: 1."),
    ),
    *(
        (
            "undecided_upgrades",
            make_fleet(make_server("s1", *IDLE, **IN_SLOT, measured=measured)),
            *(TEE, "2 pro_6000", "not known"),
        )
        for measured in ("undecided", None)
    ),
    (
        "maintenance_pending",
        make_fleet(make_server("s1", *EARNING, **IN_SLOT, instances=(make_instance(),))),
        *(TEE, "", ": 1."),
    ),
    # It is not known whether something runs there.
    (
        "maintenance_pending",
        make_fleet(make_server("s1", *make_gpus(None, 2), **IN_SLOT)),
        *(TEE, "", ": 1."),
    ),
    # Nobody is told to boot a server with the target if it does not come back.
    (
        "unmeasured_servers",
        make_fleet(
            make_server("s1", boots=False, **LOST),
            make_server("s3", **LOST, holds_slot=True, maintenance="pending"),
            window=OVER,
        ),
        *(f"{TEE}, tee s3 (1.6.2)", "", ": 2."),
    ),
    (
        "refused_boots",
        make_fleet(make_server("s1", *IDLE, **LOST, **IN_SLOT), window=OVER),
        *(TEE, "2 pro_6000", ": 1."),
    ),
    *(
        (
            "undecided_upgrades",
            make_fleet(make_server("s1", **OLD, measured=measured), window=window),
            *(TEE, "", "not known whether"),
        )
        for measured, window in (("undecided", SLOT), (None, SLOT), ("measured", OPEN))
    ),
    (
        "servers_without_tee",
        make_fleet(make_server("s1", *IDLE, tee=False, runs_chutes=False, version="")),
        *("tee s1", "2 pro_6000", ": 1."),
    ),
    (
        "idle_gpus",
        with_idle(LAUNCH),
        "2 pro_6000 on tee s1: 259,200 units in the first day",
        *("2 pro_6000", ": 2."),
    ),
    # What could be launched is not known.
    (
        "idle_gpus",
        with_idle(may_be_more=True),
        "2 pro_6000 on tee s1: what they could earn is not known",
        *("2 pro_6000", ": 2."),
    ),
    (
        "idle_gpus",
        make_fleet(gpus=make_gpus("idle", 1, server="")),
        *("1 pro_6000: what they could earn is not known", "1 pro_6000", ": 1."),
    ),
]


@pytest.mark.parametrize(
    ("kind", "fleet", "things", "gpus", "words"), CASES, ids=[case[0] for case in CASES]
)
def test_a_finding_follows_from_the_fleet_of_its_miner(
    kind: str, fleet: Fleet, things: str, gpus: str, words: str
) -> None:
    (finding,) = find(fleet, NOW, COSTS)
    assert finding.kind == kind
    assert ", ".join(finding.things) == things
    assert ", ".join(f"{count} {gpu}" for gpu, count in finding.gpus.items()) == gpus
    assert words in finding.problem
    assert (finding.needs_action, bool(finding.command)) == (True, True)


def test_a_quiet_miner_has_no_finding() -> None:
    assert find(with_instance(), NOW, COSTS) == []


def test_a_gpu_or_server_stands_in_one_finding_that_needs_action_and_is_named_there() -> None:
    # Several findings could apply to each server.
    servers = (
        make_server("s1", *make_gpus("idle", 2), holds_slot=True, maintenance="maintenance"),
        make_server("s2", *make_gpus("idle", 2, server="s2"), tee=False, runs_chutes=False),
        make_server("s3", boots=False, needs_upgrade=True),
    )
    found = find(make_fleet(*servers, window=OPEN), NOW, COSTS)
    assert {one.kind: one.things for one in found} == {
        "maintenance": ["tee s1 (1.6.2)"],
        "servers_without_tee": ["tee s2 (1.6.2)"],
        "maintenance_pending": ["tee s3 (1.6.2)"],
    }


@pytest.mark.parametrize(
    ("lost_units", "thing"),
    [
        ([5.0], "c: 1 deleted, 5 units lost"),
        ([None], "c: 1 deleted, unknown units lost"),
        ([5.0, None], "c: 2 deleted, at least 5 units lost"),
    ],
)
def test_a_deletion_before_the_score_is_safe_needs_action(
    lost_units: list[float | None], thing: str
) -> None:
    deleted = [
        end(reason="miner", loss=Loss(lost, "at_least" if lost is None else "exact"))
        for lost in lost_units
    ]
    found = find(make_fleet(failures=Failures(deleted=deleted)), NOW, COSTS)
    assert [one.things for one in found] == [[thing]]


@pytest.mark.parametrize(
    ("hours_left", "kinds"),
    [
        (1.9, ["purges", "upgrades", "idle_gpus", "servers_without_tee", "refused_boots"]),
        (2.1, ["purges", "idle_gpus", "servers_without_tee", "upgrades", "refused_boots"]),
    ],
)
def test_near_deadlines_come_first_then_what_is_not_earned_and_deeds_of_others_last(
    hours_left: float, kinds: list[str]
) -> None:
    servers = (
        make_server("s1", *TWO_GPUS, instances=(STARTING,)),
        # Its GPUs are more, but what they could earn is not known.
        make_server("s2", *make_gpus("idle", 4, server="s2"), tee=False, runs_chutes=False),
        make_server("s3", **OLD, measured="measured"),
        make_server("s4", *make_gpus("idle", 1, server="s4")),
        make_server("s5", *make_gpus("idle", 8, server="s5"), **LOST, **IN_SLOT),
    )
    # The last moment to request an upgrade is 4 hours before the end.
    window = replace(SLOT, slots=2, ends_at=NOW + 3600 * (4 + hours_left))
    plan = ServerPlan("s4", "pro_6000", (Launch(make_offer(1.5), 1),), may_be_more=False)
    fleet = make_fleet(*servers, window=window, plans=(plan,))
    assert [one.kind for one in find(fleet, NOW, COSTS)] == kinds


def test_a_finding_leads_with_what_is_not_earned_and_all_lead_with_their_sum() -> None:
    (one,) = found = find(with_idle(LAUNCH), NOW, COSTS, unit_usd=0.001)
    assert (one.lost_units_per_day, one.worth) == (259_200, "259 USD a day")
    step = "First: Deploy chutes on them: chutes-exporter advise"
    assert summary(found) == f"Not earned: 259 USD a day. {step}"
    # What the launches earn is a lower bound.
    found = find(with_idle(LAUNCH, may_be_more=True), NOW, COSTS)
    assert summary(found) == f"Not earned: at least 259,200 compute units a day. {step}"
    # Of GPUs without a known pay, nothing is said.
    found = find(with_idle(may_be_more=True), NOW, COSTS, unit_usd=0.001)
    assert ([one.worth for one in found], summary(found)) == ([""], step)
    assert summary([]) == ""


def outage(*servers: Server) -> Outage:
    """Return an outage in which two instances ended within a minute."""
    return Outage(servers, tuple(end(ended_at=at) for at in (NOW - 600, NOW - 540)))


def test_a_server_that_died_is_named_with_what_ended_there() -> None:
    server = make_server("s1", *IDLE)
    (one,) = find(make_fleet(server, outages=(outage(server),)), NOW, COSTS)
    assert one.kind == "dead_servers"
    assert one.things == ["tee s1: 2 instances ended from 19:07 UTC to 19:08 UTC"]
    assert (one.gpus, one.cost_usd_per_hour) == ({"pro_6000": 2}, 2.2)
    assert one.command == "chutes-miner tee node-health --name 'tee s1'"


def test_if_one_of_two_servers_died_it_is_not_known_which_gpus_earn_nothing() -> None:
    servers = (make_server("s1", *IDLE), make_server("s2", *make_gpus("idle", 2, server="s2")))
    found = find(make_fleet(*servers, outages=(outage(*servers),)), NOW, COSTS)
    (one,) = (one for one in found if one.kind == "dead_servers")
    assert one.things[0].startswith("tee s1 or tee s2: 2 instances")
    assert (one.gpus, one.cost_usd_per_hour) == ({}, None)


def test_no_finding_tells_to_reboot_a_server_on_which_something_may_earn() -> None:
    for kind, fleet, *_ in CASES:
        for finding in find(fleet, NOW, COSTS):
            if "boot them" in finding.advice and "not " not in finding.advice:
                assert kind == "maintenance"
                assert not any(server.instances for server in fleet.servers)


def test_what_is_unknown_gives_no_finding() -> None:
    unknown = make_server(
        "s1",
        *make_gpus(None, 2),
        name=None,
        version=None,
        tee=None,
        maintenance=None,
        holds_slot=None,
        boots=None,
        needs_upgrade=None,
        measured=None,
        runs_chutes=None,
        is_complete=False,
    )
    fleet = make_fleet(unknown, registered=None, blacklisted=None, stuck_jobs=None, markets=None)
    assert find(fleet, NOW, COSTS) == []


def test_without_an_open_window_an_upgrade_is_not_urgent() -> None:
    assert find(make_fleet(make_server("s1", needs_upgrade=True)), NOW, COSTS) == []


def test_an_instance_whose_gpus_are_not_all_known_has_no_cost() -> None:
    # Only 2 of its 4 GPUs are listed.
    fleet = with_instance(state="starting", gpus=4, deadlines={"purge": NOW})
    (one,) = find(fleet, NOW, COSTS)
    assert (one.gpus, one.cost_usd_per_hour) == ({}, None)


def test_the_command_about_a_pod_names_its_server_for_a_shell() -> None:
    server = make_server(
        "s1", *TWO_GPUS, name="my server", instances=(replace(STARTING, server_id="s1"),)
    )
    (one,) = find(make_fleet(server), NOW, COSTS)
    assert one.command == "kubectl --context 'my server' -n chutes get pods"
    assert one.things == ["llama on my server (i1)"]
