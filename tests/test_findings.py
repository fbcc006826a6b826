"""What needs action, from samples. tests/commands/test_status.py compares it with a simulated
world.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.findings import KINDS, NEEDED_METRICS, Finding, find, verdict

NOW = datetime(2026, 11, 27, 19, 17, tzinfo=UTC).timestamp()

Sample = tuple[str, float, dict[str, str]]


def samples(*entries: Sample, hotkey: str = "me") -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return samples about a miner, with two instances on two servers and nothing to do."""
    made: dict[str, list[tuple[dict[str, str], float]]] = {}
    common: tuple[Sample, ...] = (
        (
            "chutes_server_info",
            1.0,
            {"server_id": "s1", "name": "tee 1", "tee": "true", "version": "1.6.2"},
        ),
        ("chutes_server_info", 1.0, {"server_id": "s2", "name": "", "tee": "true"}),
        ("chutes_instance_info", 1.0, {"instance_id": "i1", "chute_id": "c1", "billed_to": ""}),
        ("chutes_instance_info", 1.0, {"instance_id": "i2", "chute_id": "c2", "billed_to": "user"}),
        ("chutes_instance_gpus", 2.0, {"instance_id": "i1", "server_id": "s1", "gpu": "h200"}),
        ("chutes_instance_gpus", 1.0, {"instance_id": "i2", "server_id": "s2", "gpu": "4090"}),
        ("chutes_gpu_info", 1.0, {"gpu_id": "1", "server_id": "s1", "gpu": "h200"}),
        ("chutes_gpu_info", 1.0, {"gpu_id": "3", "server_id": "s3", "gpu": "pro_6000"}),
        price("h200", "s1", 2.5),
        price("pro_6000", "s3", 1.1),
        ("chutes_gpu_allocation_info", 1.0, {"chute_id": "c1", "chute_name": "llama"}),
        fleet("h200", "earning", 8),
        ("chutes_miner_registered", 1.0, {}),
        ("chutes_jobs_stuck", 0.0, {}),
        (PURGE, NOW + 2700, I1),
        (SECURED, NOW - 1, I2),
        (ACTIVE, 1.0, I1),
        (EVERY, 2.0, {"chute_id": "c1"}),
        (EVERY, 1.0, {"chute_id": "c2"}),
        (OPEN, 0.0, {}),
        (BEGIN, NOW - 60, {}),
        (END, NOW + 3 * 86400, {}),
        (NEEDED, 0.0, S2),
        (NONE, 1.0, S1 | slot("none")),
    )
    for metric, value, labels in (*common, *entries):
        made.setdefault(metric, []).append(({"hotkey": hotkey, **labels}, value))
    return made


def found(*entries: Sample) -> list[Finding]:
    return find(samples(*entries), "me", NOW)


def price(model: str, server: str, usd: float) -> Sample:
    place = {"server_id": server, "server": server, "gpu": model}
    return "chutes_server_cost_usd_per_gpu_hour", usd, place


def slot(status: str) -> dict[str, str]:
    return {"status": status}


def gpus(model: str, server: str, count: int) -> list[Sample]:
    """Return idle GPUs on a server."""
    ids = [{"gpu_id": f"{server}-{number}"} for number in range(count)]
    info: list[Sample] = [
        ("chutes_gpu_info", 1.0, one | {"gpu": model, "server_id": server}) for one in ids
    ]
    return [*info, *(("chutes_gpu_state_info", 1.0, one | {"state": "idle"}) for one in ids)]


def fleet(gpu: str, state: str, count: float) -> Sample:
    return "chutes_fleet_gpus", count, {"gpu": gpu, "state": state}


PURGE, SECURED = (f"chutes_instance_{name}_timestamp_seconds" for name in ("purge", "secured"))
NEEDED, OPEN = "chutes_server_upgrade_needed", "chutes_maintenance_window_open"
BEGIN, END = (f"chutes_maintenance_window_{name}_timestamp_seconds" for name in ("start", "end"))
ACTIVE, EVERY, ACCEPTED = (
    "chutes_instance_active",
    "chutes_chute_active_instances",
    "chutes_server_version_accepted",
)
PENDING = "chutes_server_maintenance_pending"
I1, I2, I3 = ({"instance_id": f"i{number}"} for number in (1, 2, 3))
NONE, LISTED = "chutes_server_maintenance_status", "chutes_server_version_listed"
ACTIVATED = "chutes_instance_activated_timestamp_seconds"
S1, S2, S3 = (
    {"server_id": "s1"},
    {"server_id": "s2"},
    {"server_id": "s3", "name": "old", "tee": "false"},
)
IDLE = [fleet("4090", "idle", 1), fleet("a10", "idle", 0), fleet("h200", "idle", 8)]

# A kind, samples that cause only it, the names of its things, the GPUs that earn nothing, and words
# of its sentence.
CASES: list[tuple[str, list[Sample], str, str, str]] = [
    ("not_registered", [("chutes_miner_registered", 0, {})], "", "8 h200", ""),
    ("blacklisted", [("chutes_miner_blacklisted", 1, {})], "", "8 h200", ""),
    ("stuck_jobs", [("chutes_jobs_stuck", 2, {})], "", "", "2 jobs are"),
    (
        "purges",
        [(PURGE, NOW + 2340, I1)],
        "llama",
        "2 h200",
        "1 instance in 39 minutes (19:56 UTC).",
    ),
    (
        "purges",
        [(PURGE, NOW, I3), (PURGE, NOW - 5, I1)],
        "llama, i3",
        "",
        "2 instances in 1 minute (19:16",
    ),
    (
        "maintenance",
        [(NONE, 1, S2 | slot("maintenance")), (NONE, 0, S2 | slot("pending"))],
        "s2",
        "",
        "1 server is",
    ),
    (
        "versions_refused",
        [(ACCEPTED, 0, S1), (ACCEPTED, 0, S2)],
        "tee 1 (1.6.2), s2",
        "",
        "2 servers their",
    ),
    (
        "upgrades",
        [(OPEN, 1, {}), (NEEDED, 1, S1)],
        "tee 1 (1.6.2)",
        "",
        "1 in 3 days (2026-11-30 19:17 UTC).",
    ),
    (
        "next_upgrades",
        [(BEGIN, NOW + 7200, {}), (NEEDED, 1, S2)],
        "s2",
        "",
        "1 in 2 hours (21:17 UTC).",
    ),
    ("older_servers", [(NEEDED, 1, S1)], "tee 1 (1.6.2)", "", "1 server"),
    ("servers_without_tee", [("chutes_server_info", 1, S3)], "old", "1 pro_6000", "1 server has"),
    ("unverified_gpus", [fleet("4090", "unverified", 1)], "1 4090", "1 4090", "1 GPU is"),
    ("idle_gpus", IDLE, "1 4090, 8 h200", "1 4090, 8 h200", "9 GPUs are"),
    ("idle_gpus", [fleet("h200", "idle", 3), *gpus("h200", "s1", 2)], "3 h200", "3 h200", "3"),
    (
        "idle_gpus_in_maintenance",
        [fleet("h200", "idle", 2), *gpus("h200", "s1", 2), (PENDING, 1, S1)],
        "2 h200",
        "",
        "2 idle GPUs wait",
    ),
    (
        "maintenance_pending",
        [(NONE, 1, S1 | slot("pending"))],
        "tee 1 (1.6.2)",
        "",
        "1 server waits reboot it:",
    ),
    (
        "uncertain_versions",
        [(LISTED, 1, S1), (LISTED, 1, S2), (ACCEPTED, 1, S2)],
        "tee 1 (1.6.2)",
        "",
        "1 server",
    ),
    (
        "disabled_instances",
        [(PURGE, NOW + 3600, I2), (ACTIVATED, NOW - 9, I2)],
        "i2 (private)",
        "",
        "1 it in hour (20:17",
    ),
    (
        "blacklisted",
        [("chutes_miner_blacklisted", 1, {}), *IDLE],
        "",
        "16 h200, 1 4090",
        "launches refused,",
    ),
    ("unsecured_instances", [(SECURED, NOW + 1800, I1)], "llama", "", "this 19:47 UTC: its"),
    (
        "unsecured_instances",
        [(SECURED, NOW + 1, I1), (SECURED, NOW + 9, I2)],
        "i2 (private), llama",
        "",
        "2 their",
    ),
    ("last_active_instances", [(ACTIVE, 1, I2)], "i2 (private)", "", "1 is up nine tenths"),
    ("instances_without_gpus", [(ACTIVE, 1, I3)], "i3", "", "1 instance may delete"),
]


@pytest.mark.parametrize(("kind", "entries", "things", "gpus", "words"), CASES)
def test_a_finding_follows_from_the_samples_of_its_miner(
    kind: str, entries: list[Sample], things: str, gpus: str, words: str
) -> None:
    by_kind = {one.kind: one for one in found(*entries)}
    one = by_kind.pop(kind)
    assert not by_kind
    assert ", ".join(one.things) == things
    assert ", ".join(f"{count} {gpu}" for gpu, count in one.gpus.items()) == gpus
    assert {*words.split()} <= {*one.problem.split()}
    assert not re.search(
        "[{|}]|COUNT|WHEN|CLOCK|SERVER", f"{one.problem} {one.advice} {one.command}"
    )
    assert (
        one.needs_action
        == (KINDS[kind].severity != "note")
        == bool(one.advice)
        == bool(one.command)
    )
    assert (one.when is not None) == (" UTC" in one.problem)
    assert find(samples(*entries, hotkey="other"), "me", NOW) == []


def test_each_kind_has_a_case_and_a_quiet_miner_has_no_finding() -> None:
    assert {kind for kind, *_ in CASES} == KINDS.keys()
    assert found() == []
    # Without the fleet's count, the GPUs that wait may be a part.
    assert found(*gpus("h200", "s1", 2), (PENDING, 1, S1)) == []
    # That no instance at all has GPUs cannot be right.
    assert find({ACTIVE: [(I3 | {"hotkey": "me"}, 1.0)]}, "me", NOW) == []


def test_the_gpus_of_a_server_are_not_known_without_those_of_the_fleet() -> None:
    known = samples(("chutes_server_info", 1, S3))
    del known["chutes_fleet_gpus"]
    (one,) = find(known, "me", NOW)
    assert (one.kind, one.gpus, one.cost_usd_per_hour) == ("servers_without_tee", {}, None)


def test_the_needed_metrics_are_of_all_collectors_whose_samples_are_read() -> None:
    read = samples(*(sample for _, entries, *_ in CASES for sample in entries)).keys()
    for collector in COLLECTORS:
        names = {metric.name for metric in collector.metrics}
        assert bool(names & read) == bool(names & NEEDED_METRICS)


def test_the_most_expensive_finding_comes_first_and_notes_come_last() -> None:
    entries: list[Sample] = [
        ("chutes_jobs_stuck", 1, {}),
        (SECURED, NOW + 60, I1),
        (PURGE, NOW, I1),
        fleet("4090", "unverified", 9),
        fleet("h200", "idle", 4),
        *gpus("h200", "s1", 3),
        # The same model has another price on another server.
        *gpus("h200", "s9", 1),
        price("h200", "s9", 1.5),
    ]
    assert [(one.kind, one.count, one.cost_usd_per_hour) for one in found(*entries)] == [
        ("idle_gpus", 4, 9.0),
        ("purges", 1, 5.0),
        ("unverified_gpus", 9, None),
        ("stuck_jobs", 1, 0.0),
        ("unsecured_instances", 1, 0.0),
    ]
    # Without prices, the number of GPUs decides.
    without = samples(*entries)
    del without["chutes_server_cost_usd_per_gpu_hour"]
    found_without = find(without, "me", NOW)
    kinds = [one.kind for one in found_without]
    assert kinds[:3] == ["unverified_gpus", "idle_gpus", "purges"]
    assert {one.cost_usd_per_hour for one in found_without[:3]} == {None}


def test_the_command_has_the_name_of_the_server() -> None:
    for instance, server in ((I1, "'tee 1'"), (I3, "SERVER")):
        (finding,) = found((PURGE, NOW, instance))
        assert finding.command == f"kubectl --context {server} -n chutes get pods"


@pytest.mark.parametrize(
    ("idle", "has_prices", "all_known", "line"),
    [
        ({}, True, True, "Nothing needs action."),
        ({}, True, False, "Not everything is known. Nothing that is known needs action."),
        ({"h200": 4}, True, True, "1 thing needs action, 10.00 USD per hour idle."),
        ({"4090": 4}, False, True, "1 thing needs action, 4 GPUs idle."),
        (
            {"h200": 4, "4090": 1},
            True,
            False,
            "1 thing needs action, 5 GPUs idle at an unknown cost.",
        ),
    ],
)
def test_the_verdict_counts_the_things_and_the_cost_of_idle_gpus(
    idle: dict[str, int],
    has_prices: bool,  # noqa: FBT001 - a parameter of the test
    all_known: bool,  # noqa: FBT001 - a parameter of the test
    line: str,
) -> None:
    entries: list[Sample] = []
    for model, count in idle.items():
        entries += [fleet(model, "idle", count), *gpus(model, "s1", count)]
    assert verdict(found(*entries), has_prices=has_prices, all_known=all_known) == line
