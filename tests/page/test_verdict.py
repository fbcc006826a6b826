"""What needs action, from samples. tests/commands/test_status.py compares it with a simulated world."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chutes_exporter.page.verdict import Finding, find, verdict

NOW = datetime(2026, 11, 27, 19, 17, tzinfo=UTC).timestamp()
PRICES = {"h200": 2.5, "pro_6000": 1.1}

Samples = dict[str, list[tuple[dict[str, str], float]]]


def samples(*entries: tuple[str, float, dict[str, str]]) -> Samples:
    """Return samples about the miner ``me``, with two instances on a server."""
    made: Samples = {}
    common = (
        ("chutes_server_info", 1.0, {"server_id": "s1", "name": "tee 1", "tee": "true"}),
        ("chutes_server_info", 1.0, {"server_id": "s2", "name": "", "tee": "true"}),
        ("chutes_instance_info", 1.0, {"instance_id": "i1", "chute_id": "c1", "billed_to": ""}),
        ("chutes_instance_info", 1.0, {"instance_id": "i2", "chute_id": "c2", "billed_to": "user"}),
        ("chutes_instance_gpus", 2.0, {"instance_id": "i1", "server_id": "s1", "gpu": "h200"}),
        ("chutes_instance_gpus", 1.0, {"instance_id": "i2", "server_id": "s2", "gpu": "4090"}),
        ("chutes_gpu_info", 1.0, {"server_id": "s3", "gpu": "pro_6000"}),
        ("chutes_gpu_allocation_info", 1.0, {"chute_id": "c1", "chute_name": "llama"}),
    )
    for metric, value, labels in (*common, *entries):
        made.setdefault(metric, []).append(({"hotkey": "me", **labels}, value))
    return made


def found(*entries: tuple[str, float, dict[str, str]]) -> list[Finding]:
    return find(samples(*entries), "me", NOW, PRICES)


def fleet(gpu: str, state: str, count: float) -> tuple[str, float, dict[str, str]]:
    return "chutes_fleet_gpus", count, {"gpu": gpu, "state": state}


PURGE, SECURED = (f"chutes_instance_{name}_timestamp_seconds" for name in ("purge", "secured"))
NEEDED, OPEN = "chutes_server_upgrade_needed", "chutes_maintenance_window_open"
BEGIN, END = (f"chutes_maintenance_window_{name}_timestamp_seconds" for name in ("start", "end"))
REFUSED, ACCEPTED = "chutes_server_launches_refused", "chutes_server_version_accepted"
ACTIVE, EVERY = "chutes_instance_active", "chutes_chute_active_instances"
I1, I2, S1, S2 = {"instance_id": "i1"}, {"instance_id": "i2"}, {"server_id": "s1"}, {"server_id": "s2"}
S3 = {"server_id": "s3", "name": "old", "tee": "false"}

EXPECTED: dict[str, list[tuple[str, float, dict[str, str]]]] = {
    "not_registered: The hotkey has no seat on the subnet. It earns nothing. {'h200': 8}": [
        ("chutes_miner_registered", 0, {}),
        fleet("h200", "earning", 8),
    ],
    "blacklisted: The miner is blacklisted. It gets no score and cannot launch.": [("chutes_miner_blacklisted", 1, {})],
    "stuck_jobs: 2 jobs are stuck with the miner.": [("chutes_jobs_stuck", 2, {})],
    "purges: 1 instance has not started. The service deletes it in 39 minutes (19:56 UTC). ['llama'] {'h200': 2}": [
        (PURGE, NOW + 2340, I1),
        (PURGE, NOW + 2700, I2),
    ],
    "purges: 2 instances have not started. The service deletes the first in 1 minute (19:16 UTC). "
    "['llama', 'i2 (private)'] {'h200': 2, '4090': 1}": [(PURGE, NOW + 600, I2), (PURGE, NOW - 60, I1)],
    "launches_refused: 1 TEE server has no version from 0.2.1 on. All launches of newer TEE chutes fail. ['tee 1']": [
        (REFUSED, 1, S1),
        (REFUSED, 0, S2),
    ],
    "versions_refused: 2 TEE servers cannot boot with their version any more. ['tee 1', 's2']": [
        (ACCEPTED, 0, S1),
        (ACCEPTED, 0, S2),
    ],
    "upgrades: 1 TEE server needs the upgrade of the maintenance window, which ends in 3 days (2026-11-30 19:17 UTC). "
    "['tee 1']": [(OPEN, 1, {}), (END, NOW + 3 * 86400, {}), (NEEDED, 1, S1), (NEEDED, 0, S2)],
    "next_upgrades: 1 TEE server is older than the target of the next maintenance window, which begins in 2 hours "
    "(21:17 UTC). ['s2']": [(OPEN, 0, {}), (BEGIN, NOW + 7200, {}), (NEEDED, 1, S2)],
    "older_servers: 1 TEE server is older than the target of the last maintenance window. No window is open now. "
    "['tee 1']": [(OPEN, 0, {}), (BEGIN, NOW - 3600, {}), (NEEDED, 1, S1)],
    "servers_without_tee: 1 server has no TEE. Today, all chutes need TEE. ['old'] {'pro_6000': 1}": [
        ("chutes_server_info", 1, S3)
    ],
    "unverified_gpus: 1 GPU is not verified and in no instance. ['1 4090'] {'4090': 1}": [
        fleet("4090", "unverified", 1),
        fleet("h200", "unverified", 0),
    ],
    "idle_gpus: 9 GPUs are idle. ['1 4090', '8 h200'] {'4090': 1, 'h200': 8}": [
        fleet("4090", "idle", 1),
        fleet("h200", "idle", 8),
    ],
    "unsecured_instances: Do not stop this instance before 19:47 UTC: it would lose its score. ['llama']": [
        (SECURED, NOW + 1800, I1),
        (SECURED, NOW - 1, I2),
    ],
    "last_active_instances: 1 instance is the last active one of its chute on the platform. Deleting it costs nine "
    "tenths of its score, or all of it if it is private. ['i2 (private)']": [
        (EVERY, 2, {"chute_id": "c1"}),
        (EVERY, 1, {"chute_id": "c2"}),
        (ACTIVE, 1, I1),
        (ACTIVE, 1, I2),
    ],
    "instances_without_gpus: 1 active instance holds no GPU, because it was deleted. The service will delete the "
    "instance, too. ['i3']": [(ACTIVE, 1, I1), (ACTIVE, 1, {"instance_id": "i3"})],
}


@pytest.mark.parametrize("words", EXPECTED, ids=lambda words: words.partition(":")[0])
def test_a_finding_says_what_is_wrong(words: str) -> None:
    (one,) = found(*EXPECTED[words])
    assert f"{one.kind}: {one.problem} {one.things or ''} {one.gpus or ''}".split() == words.split()
    assert one.needs_action == bool(one.command)


def test_a_quiet_miner_has_no_finding_and_other_miners_do_not_matter() -> None:
    quiet = samples((PURGE, NOW + 3600, I1), ("chutes_miner_registered", 1, {}), ("chutes_jobs_stuck", 0, {}))
    others = samples(fleet("h200", "idle", 8), ("chutes_miner_blacklisted", 1, {}))
    quiet |= {
        metric: [(labels | {"hotkey": "other"}, v) for labels, v in rows]
        for metric, rows in others.items()
        if metric not in quiet
    }
    assert find(quiet, "me", NOW, PRICES) == []


def test_the_most_expensive_finding_comes_first_and_notes_come_last() -> None:
    entries: tuple[tuple[str, float, dict[str, str]], ...] = (
        ("chutes_jobs_stuck", 1.0, {}),
        (SECURED, NOW + 60, I1),
        (PURGE, NOW, I1),
        fleet("4090", "unverified", 9),
        fleet("h200", "idle", 4),
    )
    assert [(one.kind, one.cost_usd_per_hour) for one in found(*entries) if one.gpus] == [
        ("idle_gpus", 10.0),
        ("purges", 5.0),
        ("unverified_gpus", None),
    ]
    assert [one.kind for one in found(*entries)][3:] == ["stuck_jobs", "unsecured_instances"]
    # Without prices, the number of GPUs decides.
    assert [one.kind for one in find(samples(*entries), "me", NOW, {})][:3] == [
        "unverified_gpus",
        "idle_gpus",
        "purges",
    ]


def test_the_command_has_the_name_of_the_server() -> None:
    (finding,) = found((PURGE, NOW, I1))
    assert finding.command == "kubectl --context 'tee 1' -n chutes get pods"
    (finding,) = found((PURGE, NOW, {"instance_id": "i4"}))
    assert finding.command == "kubectl --context SERVER -n chutes get pods"


@pytest.mark.parametrize(
    ("idle", "prices", "all_known", "line"),
    [
        ({}, PRICES, True, "Nothing needs action."),
        ({}, PRICES, False, "Nothing needs action, as far as known."),
        ({"h200": 4}, PRICES, True, "1 thing needs action, 10.00 USD per hour idle."),
        ({"h200": 4}, {}, True, "1 thing needs action, 4 GPUs idle."),
        (
            {"h200": 4, "4090": 1},
            PRICES,
            False,
            "1 thing needs action, 10.00 USD per hour idle, 1 GPU idle at an unknown cost.",
        ),
    ],
)
def test_the_verdict_counts_the_things_and_the_cost_of_idle_gpus(
    idle: dict[str, int],
    prices: dict[str, float],
    all_known: bool,  # noqa: FBT001 - a parameter of the test
    line: str,
) -> None:
    one = found(*(fleet(gpu, "idle", count) for gpu, count in idle.items()))
    assert verdict(one, prices, all_known=all_known) == line
