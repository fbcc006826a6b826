"""The truth of recorded worlds (``expected.json``): a test compares each key, or a reason says why none does."""

from __future__ import annotations

import importlib
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands.support import Target, run
from tests.recorded import DIRECTORIES, WORLD_F, Miner, shifted
from tests.support import recording, replay, served
from tests.test_facts import MARKED, NUMBERS, VALUES
from tests.test_launch import in_vain

if TYPE_CHECKING:
    from pathlib import Path

COMPARED = {
    "test_facts.test_each_sample_has_the_true_value": " ".join(VALUES),
    "test_facts.test_exactly_the_true_things_are_marked": " ".join(MARKED),
    "test_facts.test_each_number_is_the_true_one": " ".join(NUMBERS),
    "test_facts.test_scores_have_the_services_parts": "score_raw",
    "test_facts.test_stats_contain_all_miners_in_each_window": "stats",
    "test_facts.test_stats_of_each_chute_are_the_miners": "stats_per_chute_test_miner stats_per_chute_records",
    "test_facts.test_jobs_that_are_over_or_claimed_do_not_wait": "jobs",
    "test_facts.test_each_gpu_is_in_exactly_one_state": "gpus_by_state gpu_state gpus_by_model_and_state",
    "test_facts.test_disabled_instances_are_not_starting": "instances_by_state instance_state",
    "test_facts.test_instances_say_who_is_billed_and_their_version": "instances_private instances_of_old_version",
    "test_facts.test_the_heading_share_includes_the_disabled_instances_of_every_miner": (
        "heading_share disabled_elsewhere disabled_seen_in_nodes_detailed"
    ),
    "test_facts.test_the_field_bounty_is_an_age": "bounties",
    "test_facts.test_the_newest_maintenance_window_tells_which_servers_are_older_than_its_target": (
        "in_maintenance_window"
    ),
    "test_facts.test_versions_of_tee_servers_are_compared_with_what_boots": (
        "versions_that_can_boot servers_that_cannot_boot servers_that_cannot_boot_with_the_default_least_version"
    ),
    "test_facts.test_images_chutes_and_gpus_are_counted": "images_by_status chutes chutes_disabled supply",
    "test_launch.test_the_page_has_exactly_the_launches_that_the_service_lets_become_active": "launch",
    "test_launch.test_another_miner_gets_its_own_launches": "launch_others",
    "test_expected.test_advise_offers_what_the_service_lets_become_active": "launch_models",
    "test_expected.test_status_says_which_idle_gpus_can_be_used_now": "launch_servers",
    "test_ended.test_incidents_lists_every_end_with_exactly_what_it_cost": "ended failed_starts_24h",
}
"""The keys by the test that compares them."""
NOT_SHOWN = {
    "test_miner": "the miner of these",
    "incentive_sum_raw": "the sum by which shares are divided",
    "seats_with_incentive": "how many of incentive_share are not 0",
    "sql_now": "the time to which sums belong",
    "gpus_without_server": "no answer and no metric has them: a GPU's server is a label",
    "instances_billing_stopped": "empty in both worlds",
    "earning_rate_of_disabled": "a part of heading_share",
    "disabled_multiplier_per_miner": "a part of heading_share",
    "heading_share_without_disabled": "a part of heading_share",
    "heading_share_visible": "a heading without instances that were activated after the report, which are seen now",
    "thrash_cooldowns": "the rule was removed: always empty",
    "launch_summary": "a summary of launch",
    "ended_between_hour_and_report": "no report has them: the next one will",
    "score_units_at_newest_report": "no command sums what reports count: /miner/scores has it",
    "legacy_tee_servers": "the rule about them is gone",
    "about": "explains the keys",
}
"""The keys that nothing shows, each with the reason."""


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_each_true_number_is_compared_or_has_a_reason(directory: Path) -> None:
    compared = {key for keys in COMPARED.values() for key in keys.split()}
    assert compared.isdisjoint(NOT_SHOWN)
    assert json.loads(recording(directory, "expected")).keys() <= compared | NOT_SHOWN.keys()
    for place in COMPARED:
        module, test = place.split(".")
        assert callable(getattr(importlib.import_module(f"tests.{module}"), test))


async def run_json(command: str, role: str = "test_miner", directory: Path = WORLD_F) -> dict[str, Any]:
    """Run a command on a world as of now; returns its JSON."""
    meta = json.loads(recording(directory, "meta"))
    variables = {"MINER_SS58": meta[role], "MINER_SEED": meta["invented_seeds"][meta[role]]}
    bodies = shifted(Miner(directory, "test_miner").bodies(), time.time() - meta["recorded_at"])
    async with served(replay(bodies)) as url:
        _, output, errors = await run(Target(url), command, "--json", variables=variables)
    assert not errors
    found: dict[str, Any] = json.loads(output)
    return found


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
async def test_advise_offers_what_the_service_lets_become_active(directory: Path) -> None:
    true = json.loads(recording(directory, "expected"))
    found = await run_json("advise", directory=directory)
    (miner,) = found["miners"]
    assert {
        model["gpu"]: (
            {offer["chute_id"] for offer in model["runnable"]},
            model["idle"],
            model["in_maintenance"],
            model["on_one_server"],
        )
        for model in miner["idle"]
    } == {
        gpu: (
            {chute for chute in model["runnable_chutes"] if not in_vain(true["launch"][chute])},
            model["idle"],
            model["idle_in_maintenance"],
            max(server["free"] for server in model["servers"] if not server["in_maintenance"]),
        )
        for gpu, model in true["launch_models"].items()
    }


async def test_status_says_which_idle_gpus_can_be_used_now() -> None:
    true = json.loads(recording(WORLD_F, "expected"))
    found = await run_json("status")
    findings = {one["kind"]: one for one in found["findings"]}
    now: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for server in true["launch_servers"]:
        kind = "for TEE chutes" if server["tee"] else "for chutes without TEE"
        for gpu, count in server["free_gpus"].items():
            if server["in_maintenance"]:
                waiting[gpu] += count
            else:
                now[f"{gpu} {kind}"] += count
    assert (findings["idle_gpus"]["count"], now.total()) == (17, 17)
    assert findings["idle_gpus"]["things"] == [f"{count} {kind}" for kind, count in sorted(now.items())]
    assert findings["idle_gpus_in_maintenance"]["count"] == waiting.total() == 8
    assert findings["idle_gpus_in_maintenance"]["things"] == [
        f"{count} {gpu}" for gpu, count in sorted(waiting.items())
    ]
    things = {kind: {thing.partition(" (")[0] for thing in one["things"]} for kind, one in findings.items()}
    servers = {row["server_id"]: row["name"] for row in true["launch_servers"]}
    in_slot = {servers[server] for server in true["servers_in_maintenance"]}
    assert things["maintenance"] == things["older_slots"] == in_slot
    # One of the two slots is of an older window. The world has no answer that tells which.
    assert findings["older_slots"]["count"] == 1
    # The recorded report is long overdue, too.
    slots = {gap["feed"] for gap in found["not_known"]} - {"audit_report"}
    assert slots == {f"server_slot of {name}" for name in in_slot}
    needed = {servers[server] for server in true["in_maintenance_window"]["servers_needing_upgrade"]}
    assert things["upgrades"] == needed - in_slot
    candidate = {row["name"] for row in true["servers_that_cannot_boot"] if "rc" in row["version"]}
    refused = {row["name"] for row in true["servers_that_cannot_boot"]} - candidate
    assert things["versions_refused"] == refused
    strict = {row["name"] for row in true["servers_that_cannot_boot_with_the_default_least_version"]}
    assert things["uncertain_versions"] == candidate | (strict - refused)


async def test_status_tells_a_blacklisted_miner_what_comes_first() -> None:
    findings = {one["kind"]: one for one in (await run_json("status", "blacklisted_miner"))["findings"]}
    assert findings["blacklisted"]["advice"] == "First ask the operators of Chutes to end it. Reason"
    assert "idle_gpus" not in findings
