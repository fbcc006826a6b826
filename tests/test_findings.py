"""What needs action, from a fleet. tests/commands/test_status.py compares it with a world."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.findings import KINDS, Finding, find, verdict
from chutes_exporter.fleet.ends import End
from chutes_exporter.fleet.failures import Failures
from chutes_exporter.fleet.model import Fleet, Launch, ServerPlan, Window
from chutes_exporter.fleet.outages import Outage
from chutes_exporter.rules.money import Costs
from tests.fleet.support import make_fleet, make_gpus, make_instance, make_offer, make_server

if TYPE_CHECKING:
    from chutes_exporter.fleet.model import Server

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
NEXT = replace(OPEN, is_open=False, starts_at=NOW + 7200)
SIX = make_instance(gpus=6)
TWO_GPUS = make_gpus("starting", 2, instance_id="i1")
STARTING = make_instance(state="starting", deadlines={"purge": NOW + 2340})

FAILED = Failures(
    known={"c1": 4, "c2": 2},
    unclear={},
    are_all_known=True,
    until=NOW,
    names={"c1": "llama", "c2": "glm"},
    reasons={"c1": Counter(requests=3, probes=1), "c2": Counter(requests=2)},
)


def with_instance(**fields: Any) -> Fleet:
    """Return a fleet with one instance on two of a server's GPUs."""
    gpus = make_gpus("earning", 2, instance_id="i1")
    return make_fleet(make_server("s1", *gpus, instances=(make_instance(**fields),)))


def with_idle(*launches: Launch, may_be_more: bool = False, **fields: Any) -> Fleet:
    """Return a fleet with two idle GPUs, and the best use of them."""
    use = ServerPlan("s1", "pro_6000", 2, launches, may_be_more)
    return make_fleet(make_server("s1", *EARNING, *IDLE, **fields), plans=(use,))


DEAD = make_server("s1", *IDLE)
END = End(
    instance_id="i9",
    hotkey="me",
    chute_id="c1",
    private=True,
    created_at=NOW - 9000,
    activated_at=NOW - 8000,
    ended_at=NOW - 2100,
    reason="probes",
    text=None,
    outcome="lost",
    lost_units=150.0,
    loss_precision="at_least",
    is_last_of_chute=False,
    may_have_lost_race=False,
)
LAUNCH = Launch(make_offer("c2", 1.5), 2)

IN_SLOT: dict[str, Any] = {"holds_slot": True, "maintenance": "maintenance"}
OLD: dict[str, Any] = {"needs_upgrade": True}
LOST: dict[str, Any] = OLD | {"measured": "not_measured"}
SLOT = replace(OPEN, slots=1, used_slots=0)
TAKEN = replace(OPEN, slots=1, used_slots=1)

# A kind, a fleet that has only it, the names of its things, the GPUs that earn nothing, and words
# of its problem.
CASES: list[tuple[str, Fleet, str, str, str]] = [
    (
        "failing_chutes",
        replace(with_instance(state="starting"), failures=FAILED),
        "llama (4 times, most by requests), which starts on tee s1 now",
        *("", "again: 1,"),
    ),
    (
        "not_registered",
        make_fleet(make_server("s1", *EARNING), registered=False),
        *("", "6 pro_6000", "no seat"),
    ),
    (
        "blacklisted",
        make_fleet(make_server("s1", *EARNING, *IDLE), blacklisted=True),
        *("", "8 pro_6000", "refused"),
    ),
    ("stuck_jobs", make_fleet(stuck_jobs=2), "", "", ": 2."),
    (
        "purges",
        make_fleet(make_server("s1", *TWO_GPUS, instances=(STARTING,))),
        *("llama", "2 pro_6000", "first in 39 minutes (19:56 UTC)."),
    ),
    (
        "purges",
        with_instance(state="starting", deadlines={"purge": NOW - 7200}),
        *("llama", "2 pro_6000", "at any time, overdue since 17:17 UTC."),
    ),
    (
        "starts_in_vain",
        with_instance(state="starting", is_in_vain=True, deadlines={"purge": NOW + 60}),
        *("llama", "2 pro_6000", "in vain: 1."),
    ),
    (
        "maintenance",
        make_fleet(make_server("s1", *IDLE, **IN_SLOT)),
        *(TEE, "2 pro_6000", "is left: 1."),
    ),
    (
        "undecided_maintenance",
        make_fleet(make_server("s1", *IDLE, **IN_SLOT, measured="undecided")),
        *(TEE, "2 pro_6000", "not known"),
    ),
    (
        "undecided_maintenance",
        make_fleet(make_server("s1", *IDLE, **IN_SLOT, measured=None)),
        *(TEE, "2 pro_6000", "not known"),
    ),
    (
        "maintenance_pending",
        make_fleet(make_server("s1", *EARNING, *IDLE, holds_slot=True, maintenance="pending")),
        *(TEE, "", ": 1."),
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
    (
        "versions_refused",
        make_fleet(
            make_server("s1", boots=False, instances=(make_instance(), make_instance("i2"))),
            make_server("s2", boots=False, name="tee s2", **OLD),
            window=OPEN,
        ),
        *(f"{TEE}, tee s2 (1.6.2)", "", "refuses: 2."),
    ),
    (
        "upgrades",
        make_fleet(make_server("s1", **OLD), window=SLOT),
        *(TEE, "", "ends in 3 days (2026-11-30 19:17 UTC)."),
    ),
    (
        "waiting_upgrades",
        make_fleet(make_server("s1", **OLD), window=TAKEN),
        *(TEE, "", "ends in 3 days (2026-11-30 19:17 UTC)."),
    ),
    # Nobody is told to upgrade a server that does not come back, nor to boot it with the target.
    (
        "unmeasured_servers",
        make_fleet(make_server("s1", *EARNING, instances=(SIX,), **LOST), window=SLOT),
        *(TEE, "", "come back from the upgrade: 1."),
    ),
    (
        "unmeasured_servers",
        make_fleet(
            make_server("s1", boots=False, **LOST),
            make_server("s2", *make_gpus("idle", 2, server="s2"), **LOST, **IN_SLOT),
            make_server("s3", **LOST, holds_slot=True, maintenance="pending"),
            window=OVER,
        ),
        *(f"{TEE}, tee s2 (1.6.2), tee s3 (1.6.2)", "2 pro_6000", ": 3."),
    ),
    (
        "unmeasured_servers",
        make_fleet(make_server("s1", **LOST), window=NEXT),
        *(TEE, "", ": 1."),
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
        "next_upgrades",
        make_fleet(make_server("s1", **OLD), window=NEXT),
        *(TEE, "", "begins in 2 hours (21:17 UTC)."),
    ),
    (
        "servers_without_tee",
        make_fleet(make_server("s1", *IDLE, tee=False, runs_chutes=False, version="")),
        *("tee s1", "2 pro_6000", ": 1."),
    ),
    (
        "unverified_gpus",
        make_fleet(make_server("s1", *EARNING, *make_gpus("unverified", 1))),
        *("1 pro_6000 on tee s1", "1 pro_6000", ": 1."),
    ),
    (
        "idle_gpus",
        with_idle(LAUNCH),
        *("2 pro_6000 on tee s1", "2 pro_6000", "259,200 compute units, and 259,200 a day later."),
    ),
    # What could be launched is not known.
    (
        "idle_gpus",
        with_idle(may_be_more=True),
        *("2 pro_6000 on tee s1", "2 pro_6000", "not known."),
    ),
    (
        "idle_gpus",
        make_fleet(gpus=make_gpus("idle", 1, server="")),
        *("1 pro_6000", "1 pro_6000", ": 1. What they could earn is not known."),
    ),
    (
        "disabled_instances",
        with_instance(state="disabled", private=True, deadlines={"purge": NOW + 3600}),
        *("llama", "", "first in 1 hour (20:17 UTC)."),
    ),
    (
        "unsecured_instances",
        with_instance(deadlines={"secured": NOW + 1800}),
        *("llama", "", "over in 30 minutes (19:47 UTC)."),
    ),
    (
        "dead_servers",
        replace(
            make_fleet(DEAD, make_server("s2", *make_gpus("earning", 2, server="s2"))),
            outages=(Outage((DEAD,), (END, replace(END, ended_at=NOW - 1500))),),
        ),
        "tee s1: 2 instances from 18:42 to 18:52 UTC, which lost at least 300 units",
        *("2 pro_6000", "died: 1."),
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
    is_note = KINDS[kind].severity == "note"
    assert finding.needs_action == (not is_note)
    assert bool(finding.command) == (not is_note)
    assert (finding.when is not None) == (" UTC" in finding.problem)


def test_each_kind_has_a_case_and_a_quiet_miner_has_no_finding() -> None:
    assert {kind for kind, *_ in CASES} == KINDS.keys()
    assert find(with_instance(), NOW, COSTS) == []


def of_kind(found: list[Finding]) -> dict[str, list[str]]:
    """Return the names of the servers in each finding, by its kind."""
    names = {}
    for one in found:
        names[one.kind] = [str(server["name"]) for server in one.servers]
    return names


def servers_in_trouble() -> tuple[Server, ...]:
    """Return servers to each of which several findings could apply."""
    return (
        make_server("s1", *make_gpus("idle", 2), holds_slot=True, maintenance="maintenance"),
        make_server("s2", *make_gpus("idle", 2, server="s2"), tee=False, runs_chutes=False),
        make_server("s3", boots=False, needs_upgrade=True),
    )


def test_a_gpu_or_server_stands_in_one_finding_that_needs_action_and_is_named_there() -> None:
    found = find(make_fleet(*servers_in_trouble(), window=OPEN), NOW, COSTS)
    assert of_kind(found) == {
        "maintenance": ["tee s1"],
        "servers_without_tee": ["tee s2"],
        "versions_refused": ["tee s3"],
    }


def test_idle_gpus_of_a_server_that_cannot_boot_again_can_be_used_and_are_found() -> None:
    found = find(with_idle(LAUNCH, boots=False), NOW, COSTS)
    assert of_kind(found) == {"versions_refused": ["tee s1"], "idle_gpus": ["tee s1"]}
    assert {one.kind: one.gpus for one in found}["idle_gpus"] == {"pro_6000": 2}


def test_no_finding_tells_to_reboot_a_server_on_which_something_may_earn() -> None:
    for kind, fleet, *_ in CASES:
        for finding in find(fleet, NOW, COSTS):
            if finding.advice.startswith("Boot"):
                assert kind == "maintenance"
                assert not any(server.instances for server in fleet.servers)


def test_what_is_over_or_cannot_earn_needs_no_finding() -> None:
    assert find(with_idle(), NOW, COSTS) == []
    assert find(make_fleet(make_server("s1", needs_upgrade=True), window=OVER), NOW, COSTS) == []


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
        runs_chutes=None,
        is_whole=False,
    )
    fleet = make_fleet(unknown, registered=None, blacklisted=None, stuck_jobs=None, markets=None)
    assert find(fleet, NOW, COSTS) == []


def test_an_instance_whose_gpus_are_not_all_known_has_no_cost() -> None:
    # Only 2 of its 4 GPUs are listed.
    fleet = with_instance(state="starting", gpus=4, deadlines={"purge": NOW})
    (one,) = find(fleet, NOW, COSTS)
    assert (one.gpus, one.cost_usd_per_hour) == ({}, None)


def test_gpus_of_an_unknown_model_have_no_cost() -> None:
    gpus = replace(IDLE[0], model=None), IDLE[1]
    server = make_server("s1", *gpus, tee=False, runs_chutes=False)
    (one,) = find(make_fleet(server), NOW, COSTS)
    assert (one.gpus, one.cost_usd_per_hour) == ({}, None)


def test_the_most_expensive_action_comes_first_and_notes_last() -> None:
    cheap = make_gpus("unverified", 3)
    dear = make_gpus("unverified", 4, server="s2", model="h200")
    fleet = make_fleet(
        make_server("s1", *cheap),
        make_server("s2", *dear, needs_upgrade=True),
        stuck_jobs=1,
        window=NEXT,
    )
    found = find(fleet, NOW, COSTS)
    assert [one.kind for one in found] == ["unverified_gpus", "stuck_jobs", "next_upgrades"]
    assert found[0].cost_usd_per_hour == pytest.approx(3 * 1.1 + 4 * 2.5)
    # Without the price of a model, the sum is unknown.
    assert find(fleet, NOW, Costs(by_model={"h200": 2.5}))[0].cost_usd_per_hour is None


def test_the_command_about_a_pod_names_its_server_for_a_shell() -> None:
    server = make_server(
        "s1", *TWO_GPUS, name="my server", instances=(replace(STARTING, server_id="s1"),)
    )
    (one,) = find(make_fleet(server), NOW, COSTS)
    assert one.command == "kubectl --context 'my server' -n chutes get pods"
    assert one.instances[0]["server"] == "my server"


def test_servers_to_upgrade_are_named_in_the_order_of_their_upgrades() -> None:
    last = make_server("s1", *make_gpus("idle", 1), needs_upgrade=True)
    first = make_server("s2", *make_gpus("idle", 2, server="s2"), needs_upgrade=True)
    found = find(make_fleet(last, first, window=replace(SLOT, slots=2)), NOW, COSTS)
    (finding,) = [one for one in found if one.kind == "upgrades"]
    assert finding.things == ["tee s2 (1.6.2)", "tee s1 (1.6.2)"]
    assert finding.command == "chutes-miner tee start-maintenance --name 'tee s2'"


@pytest.mark.parametrize(
    ("costs", "text"),
    [
        (COSTS, "1 thing needs action, 2.20 USD per hour idle."),
        (Costs(by_server={"tee s1": 0.9}), "1 thing needs action, 1.80 USD per hour idle."),
        (Costs(), "1 thing needs action, idle GPUs: 2."),
        (Costs(by_model={"h200": 1}), "1 thing needs action, idle GPUs: 2 at an unknown cost."),
    ],
)
def test_the_verdict_says_what_idle_gpus_cost(costs: Costs, text: str) -> None:
    fleet = with_idle(LAUNCH)
    found = find(fleet, NOW, costs)
    # Where something needs action, the verdict does not say whether all is known.
    for all_known in (True, False):
        assert verdict(found, [fleet], costs, all_known=all_known) == text


def test_the_verdict_is_never_fine_while_something_is_unknown() -> None:
    assert verdict([], (), COSTS, all_known=True) == "Nothing needs action."
    assert verdict([], (), COSTS, all_known=False).startswith("Not everything is known.")
