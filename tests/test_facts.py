"""A real exporter and its commands against the true values of a recorded world, which no code of
ours made.

``expected.json`` lies beside recorded answers and says what was true of the world that they tell
of, as its database has it. The service computes sums over time some seconds before it answers, so
those differ by as much.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands.support import Target, run
from tests.grafana.truth import is_measured, upgrade_order
from tests.recorded import DIRECTORIES, WORLD_F, WORLD_H, Miner, raw_json, shifted
from tests.support import Page, recording, replay, reported_at, scrape, series, served
from tests.test_launch import in_vain, target_of

if TYPE_CHECKING:
    from collections.abc import Iterable

WINDOWS = {"past_hour": "1h", "past_day": "1d", "all": "7d"}
PARTS = {
    "instances": "instances",
    "bounties": "bounties",
    "compute_seconds": "seconds",
    "compute_units": "units",
}
SOON = 5e-3
"""How much a sum over time may have moved on."""


@dataclass(frozen=True)
class World:
    """A recorded world.

    Attributes:
        hotkey: The miner with a key.
        true: What is true of it.
        raw: What the answers say, as plain JSON.
        page: The page of an exporter that has the miner's key.
        wide: The page of one that also exports everybody's public data.
        recorded_at: Unix time of the answers.
    """

    hotkey: str
    true: dict[str, Any]
    raw: dict[str, Any]
    page: Page
    wide: Page
    recorded_at: float

    def mine(self, name: str, **labels: str) -> float | None:
        """Return a sample about the miner with the key, None where there is none."""
        return self.page.get(series(name, hotkey=self.hotkey, **labels))

    def labels(self, name: str) -> list[dict[str, str]]:
        """Return the labels of a metric's samples."""
        return [dict(labels) for metric, labels in self.page if metric == name]

    def true_ones(self, label: str, name: str) -> set[str]:
        """Return the values of a label for which a metric of the miner with the key is not 0."""
        values = self.by(label, name, hotkey=self.hotkey)
        return {thing for thing, value in values.items() if value}

    def states(self, label: str, name: str) -> dict[str, str]:
        """Return the state of each thing, from a metric that is 1 in one state and 0 in others."""
        states: dict[str, str] = {}
        for (metric, pairs), value in self.page.items():
            if metric == name and value:
                labels = dict(pairs)
                thing = labels[label]
                assert thing not in states, f"{thing} is in two states"
                states[thing] = labels["state"]
        return states

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Return the values of a metric's samples with the given labels, by another label.

        The other label must tell them apart. The samples are those about everybody.
        """
        values: dict[str, float] = {}
        for (metric, pairs), value in self.wide.items():
            if metric == name and labels.items() <= pairs:
                text = dict(pairs).get(label, "")
                assert text not in values, f"{name} has more labels"
                values[text] = value
        return values


_worlds: dict[Path, World] = {}


@pytest.fixture(params=DIRECTORIES, ids=lambda path: path.name)
async def world(request: pytest.FixtureRequest) -> World:
    """Return each of the worlds. Its pages are made once for all tests."""
    directory: Path = request.param
    if directory not in _worlds:
        miner = Miner(directory, "test_miner")
        bodies = miner.bodies()
        async with served(replay(bodies, now=reported_at(bodies))) as url:
            page = await scrape(miner.settings(url))
            wide = await scrape(miner.settings(url, miners="all"))
        meta = json.loads(recording(directory, "meta"))
        true = json.loads(recording(directory, "expected"))
        assert true["test_miner"] == miner.hotkey
        _worlds[directory] = World(
            hotkey=miner.hotkey,
            true=true,
            raw=raw_json(bodies),
            page=page,
            wide=wide,
            recorded_at=meta["recorded_at"],
        )
    return _worlds[directory]


VALUES = {
    "incentive_share": ("chutes_miner_incentive_ratio", "hotkey"),
    # The API calls it synced_at.
    "registered_at": ("chutes_miner_registered_timestamp_seconds", "hotkey"),
    "score_share": ("chutes_miner_score_ratio", "hotkey"),
    "score_rank": ("chutes_miner_score_rank", "hotkey"),
    "active_instances_per_miner": ("chutes_miner_active_instances", "hotkey"),
    "earning_rate_per_miner": ("chutes_miner_active_compute_multiplier", "hotkey"),
}
"""Metrics whose samples by a label are a table of the truth."""
MARKED = {
    "blacklisted": ("chutes_miner_blacklisted", "hotkey"),
    "gpus_with_error": ("chutes_gpu_verification_error_info", "gpu_id"),
}
"""Metrics that are 1 for the things in a list of the truth, and 0 or absent for others."""
NUMBERS = {
    "seats": "chutes_metagraph_miners",
    "blacklisted": "chutes_metagraph_blacklisted_miners",
    "score_rank": "chutes_scored_miners",
    "active_instances": "chutes_platform_active_instances",
}
"""Metrics that are a number of the truth, or how many things a list of it has."""
NOT_SHOWN = {
    "test_miner": "the miner of these",
    "incentive_sum_raw": "the sum by which shares are divided",
    "seats_with_incentive": "how many of incentive_share are not 0",
    "sql_now": "the time to which sums belong",
    "server_ips_used_twice": "empty in both worlds, and chutes_server_info has the addresses",
    "gpus_without_server": "no answer and no metric has them: a GPU's server is a label",
    "instances_billing_stopped": "empty in both worlds",
    "instances_with_bounty": "a part of what they earn, which is shown",
    "earning_rate_of_disabled": "a sum of disabled_multiplier_per_miner",
    "heading_share": "it counts disabled instances, which the service deletes within 3 hours",
    "heading_share_visible": "it counts disabled instances",
    "disabled_seen_in_nodes_detailed": "a part of disabled_elsewhere",
    "clock_of": "the times of the caches",
    "stats_per_chute_all": "stats_per_chute_test_miner has the test miner's",
    "multiplier_changed_after_the_claim": "ended has the losses, which need the changes",
    "two_records_of_one_start": "ended has the losses, which need both records",
    "thrash_cooldowns": "the rule was removed: always empty",
    "launch_summary": "a summary of launch",
    "ended_between_hour_and_report": "no report has them: the next one will",
    "score_units_at_newest_report": "no command sums what reports count: /miner/scores has it",
    "legacy_tee_servers": "the rule about them is gone",
    "failed_starts_24h": "ended lists each of them",
    "active_instances_per_chute": "chutes_chute_instances is what the monitoring counted before",
    "about": "explains the keys",
}
"""The keys that nothing shows, each with the reason."""


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_each_true_number_is_read_by_a_test_or_has_a_reason(directory: Path) -> None:
    tests = "".join(
        Path(__file__).with_name(f"test_{name}.py").read_text()
        for name in ("facts", "launch", "ended")
    )
    # A key in quotes is in a test, in a table of one, or in NOT_SHOWN.
    for key in json.loads(recording(directory, "expected")):
        assert f'"{key}"' in tests, key


@pytest.mark.parametrize("key", VALUES)
async def test_each_sample_has_the_true_value(world: World, key: str) -> None:
    metric, label = VALUES[key]
    # Scores move on while the service computes them.
    error = SOON if key.startswith("score") else 1e-12
    assert world.by(label, metric) == pytest.approx(world.true[key], rel=error)


@pytest.mark.parametrize("key", MARKED)
async def test_exactly_the_true_things_are_marked(world: World, key: str) -> None:
    metric, label = MARKED[key]
    marked = {thing for thing, value in world.by(label, metric).items() if value}
    assert marked == set(world.true[key])


@pytest.mark.parametrize("key", NUMBERS)
async def test_each_number_is_the_true_one(world: World, key: str) -> None:
    true = world.true[key]
    (number,) = (value for (name, _), value in world.page.items() if name == NUMBERS[key])
    if isinstance(true, int):
        assert number == true
    else:
        assert number == len(true)


async def test_the_rate_of_the_platform_is_that_of_all_miners(world: World) -> None:
    rates = world.true["earning_rate_per_miner"].values()
    assert world.page[series("chutes_platform_active_compute_multiplier")] == pytest.approx(
        sum(rates)
    )


async def test_scores_have_the_services_parts(world: World) -> None:
    parts = {
        "instances": "instances",
        "bounties": "bounties",
        "instance_seconds": "seconds",
        "compute_units": "units",
    }
    for metric, part in parts.items():
        true = {hotkey: values[part] for hotkey, values in world.true["score_raw"].items()}
        found = world.by("hotkey", f"chutes_miner_score_window_{metric}", window="1d")
        assert found == pytest.approx(true, rel=SOON)


@pytest.mark.parametrize("field", WINDOWS)
async def test_stats_contain_all_miners_in_each_window(world: World, field: str) -> None:
    true = world.true["stats"][field]
    window = WINDOWS[field]
    for metric, part in PARTS.items():
        found = world.by("hotkey", f"chutes_miner_window_{metric}", window=window)
        expected = {hotkey: values[part] for hotkey, values in true.items()}
        # The watched miner has zeros where it has no record, the others have nothing.
        assert found == pytest.approx({world.hotkey: 0} | expected, rel=SOON)
        total = world.page[series(f"chutes_platform_window_{metric}", window=window)]
        assert total == pytest.approx(sum(expected.values()), rel=SOON)
    assert world.page[series("chutes_platform_window_miners", window=window)] == len(true)


@pytest.mark.parametrize("field", WINDOWS)
async def test_stats_of_each_chute_are_the_miners(world: World, field: str) -> None:
    true, window = world.true["stats_per_chute_test_miner"][field], WINDOWS[field]
    name = "chutes_miner_chute_window_compute_units"
    expected = pytest.approx({chute: values["units"] for chute, values in true.items()}, rel=SOON)
    # An exporter of everybody's data requests the stats of all miners.
    assert world.by("chute_id", name, hotkey=world.hotkey, window=window) == expected
    # One that watches a single miner requests those of that one.
    units = {}
    for (metric, labels), value in world.page.items():
        if metric == name and ("window", window) in labels:
            units[dict(labels)["chute_id"]] = value
    assert units == expected
    of_all_miners = [
        labels for metric, labels in world.wide if metric == name and ("window", window) in labels
    ]
    assert len(of_all_miners) == world.true["stats_per_chute_records"][field]


async def test_jobs_that_are_over_or_claimed_do_not_wait(world: World) -> None:
    true = world.true["jobs"]
    waiting = world.page[series("chutes_jobs_waiting")]
    abandoned = world.page[series("chutes_jobs_abandoned")]
    # In the newest world, "waiting" does not include abandoned jobs, which nobody can claim.
    assert waiting + abandoned == true.get("waiting_with_the_abandoned", true["waiting"])
    assert world.mine("chutes_jobs_stuck") == len(true["stuck_with_test_miner"])


async def test_each_gpu_is_in_exactly_one_state(world: World) -> None:
    by_state: Counter[str] = Counter()
    by_model: Counter[str] = Counter()
    for (name, pairs), value in world.page.items():
        if name == "chutes_fleet_gpus":
            labels = dict(pairs)
            by_state[labels["state"]] += int(value)
            by_model[f"{labels['gpu']} {labels['state']}"] += int(value)
    # A plus leaves zeros out.
    assert +by_state == world.true["gpus_by_state"]
    assert set(by_state) == {"earning", "starting", "disabled", "idle", "unverified"}
    assert +by_model == gpus_by_model_and_state(world)


def gpus_by_model_and_state(world: World) -> dict[str, int]:
    """Return the true numbers of GPUs by texts such as ``h200 idle``."""
    counts: dict[str, int] = {}
    for key, value in world.true["gpus_by_model_and_state"].items():
        if isinstance(value, dict):
            # The newer world has a table for each model.
            counts |= {f"{key} {state}": count for state, count in value.items()}
        else:
            counts[key] = value
    return counts


async def test_each_gpu_is_in_its_state(world: World) -> None:
    assert world.states("gpu_id", "chutes_gpu_state") == world.true["gpu_state"]


def gpus_on_servers(world: World) -> dict[str, Counter[str]]:
    """Return the number of GPUs in each true state, by server."""
    states = world.true["gpu_state"]
    counts = {}
    for server in world.raw["servers"]["servers"]:
        counts[server["server_id"]] = Counter(states[gpu["uuid"]] for gpu in server["gpus"])
    return counts


async def test_each_server_has_its_gpus_by_state(world: World) -> None:
    expected = gpus_on_servers(world)
    shown: dict[str, Counter[str]] = {server: Counter() for server in expected}
    for (name, pairs), value in world.page.items():
        if name == "chutes_server_gpus":
            labels = dict(pairs)
            shown[labels["server_id"]][labels["state"]] += int(value)
    # A plus leaves zeros out.
    assert {server: +counts for server, counts in shown.items()} == expected
    # The older worlds do not have this table.
    true = world.true.get("gpus_by_server_and_state", expected)
    assert true.items() <= expected.items()
    totals = {server: counts.total() for server, counts in shown.items()}
    # Servers without GPUs are not in this one.
    assert totals == dict.fromkeys(totals, 0) | world.true["gpus_per_server"]


async def test_each_server_is_in_the_state_of_its_maintenance_or_of_its_worst_gpu(
    world: World,
) -> None:
    states = world.states("server_id", "chutes_server_state")
    assert len(states) == world.true["servers"]
    maintenance = ("in_maintenance", "maintenance_pending")
    in_slot = {server for server, state in states.items() if state in maintenance}
    pending = world.true.get("servers_pending", [])
    assert in_slot == {*world.true["servers_in_maintenance"], *pending}
    without_gpus = {server for server, state in states.items() if state == "without_gpus"}
    assert without_gpus == set(world.true["servers_without_gpus"])
    gpus = gpus_on_servers(world)
    for server in states.keys() - in_slot - without_gpus:
        assert states[server] == worst_of(gpus[server])


def worst_of(gpus: Counter[str]) -> str:
    """Return the worst state that one of some GPUs is in."""
    states = ("unverified", "idle", "starting", "disabled", "earning")
    return next(state for state in states if gpus[state])


async def test_disabled_instances_are_not_starting(world: World) -> None:
    counts = world.true["instances_by_state"]
    assert world.by("state", "chutes_fleet_instances", hotkey=world.hotkey) == {
        "active": counts["active"],
        "disabled": counts["disabled"],
        "starting": counts.get("launching", 0) + counts.get("verified", 0),
    }
    shown_states = world.states("instance_id", "chutes_instance_state")
    true_states = world.true["instance_state"]
    assert shown_states.keys() == true_states.keys()
    for instance, state in true_states.items():
        activated = world.mine("chutes_instance_activated_timestamp_seconds", instance_id=instance)
        if state in ("launching", "verified"):
            assert shown_states[instance] == "starting"
            assert activated is None
        else:
            assert shown_states[instance] == state
            assert activated is not None


async def test_starts_are_in_vain_where_the_service_refuses_the_activation(world: World) -> None:
    ids_in_vain = world.true_ones("instance_id", "chutes_instance_start_in_vain")
    for instance in world.raw["instances"]:
        if instance["instance_id"] in ids_in_vain:
            launch = world.true["launch"][instance["chute_id"]]
            assert launch["active"] >= (target_of(launch) or 0)
            # It is private.
            assert instance["billed_to"] is not None
    # Only the newest world lists those whose chute was filled by others.
    assert ids_in_vain >= world.true.get("starts_in_vain", {}).keys()


async def test_instances_say_whether_somebody_is_billed_and_their_version(world: World) -> None:
    labels_of_states = world.labels("chutes_instance_state")
    private = {one["instance_id"] for one in labels_of_states if one["private"] == "true"}
    assert private == set(world.true["instances_private"])
    chute_of = {one["instance_id"]: one["chute_id"] for one in labels_of_states}
    newest_version = {row["chute_id"]: row["version"] for row in world.raw["chutes"]}
    old = set()
    for info in world.labels("chutes_instance_info"):
        instance_id = info["instance_id"]
        if info["version"] != newest_version[chute_of[instance_id]]:
            old.add(instance_id)
    assert old == set(world.true["instances_of_old_version"])


async def test_every_miner_approaches_its_share_of_what_active_instances_earn(world: World) -> None:
    scored = {seat["hotkey"] for seat in world.raw["metagraph"] if not seat["blacklist_reason"]}
    rates: Counter[str] = Counter()
    for instance in world.raw["active_instances"]:
        if instance["miner_hotkey"] in scored:
            rates[instance["miner_hotkey"]] += instance["compute_multiplier"]
    shares = {hotkey: rate / rates.total() for hotkey, rate in rates.items()}
    found = world.by("hotkey", "chutes_miner_score_heading_ratio")
    assert without_zeros(found) == pytest.approx(shares)
    true = world.true.get("heading_share_without_disabled", shares)
    assert without_zeros(true) == pytest.approx(shares)


def without_zeros(numbers: dict[str, float]) -> dict[str, float]:
    return {key: number for key, number in numbers.items() if number}


async def test_what_disabled_instances_still_earn_is_a_number_of_its_own(world: World) -> None:
    hotkey = world.true["test_miner"]
    disabled = world.true["disabled_elsewhere"].get(hotkey, [])
    rates = {one["instance_id"]: one["compute_multiplier"] for one in world.raw["instances"]}
    rate = sum(rates[instance_id] for instance_id in disabled)
    shown = world.by("hotkey", "chutes_miner_disabled_compute_units_per_second")
    assert shown == pytest.approx({hotkey: rate})
    # The older worlds name the instances only, without their sum.
    true = world.true.get("disabled_multiplier_per_miner", {hotkey: rate})
    assert rate == pytest.approx(true.get(hotkey, 0))


async def test_a_bounty_expires_at_its_time(world: World) -> None:
    expires = world.by("chute_id", "chutes_bounty_expires_timestamp_seconds")
    true = {chute: one["expires_at_about"] for chute, one in world.true["bounties"].items()}
    assert expires == {chute: pytest.approx(at, abs=10) for chute, at in true.items()}


async def test_active_instances_of_an_old_version_are_outdated(world: World) -> None:
    outdated = world.by("instance_id", "chutes_instance_outdated", hotkey=world.hotkey)
    states = world.true["instance_state"]
    assert outdated.keys() == states.keys()
    marked = {instance for instance, value in outdated.items() if value}
    of_old_version = world.true["instances_of_old_version"]
    assert marked == {instance for instance in of_old_version if states[instance] == "active"}
    # Only the newest world names those that an update under way replaces.
    assert marked >= set(world.true.get("instances_that_a_rolling_update_replaces", []))


async def test_the_newest_maintenance_window_tells_which_servers_are_older_than_its_target(
    world: World,
) -> None:
    true = world.true["in_maintenance_window"]
    assert world.mine("chutes_maintenance_window_info", target_version=true["target"]) == 1
    # The older worlds do not say it, and have an open window.
    is_open = true.get("window_open", True)
    assert world.mine("chutes_maintenance_window_open") == is_open
    needed = world.by("server_id", "chutes_server_upgrade_needed", hotkey=world.hotkey)
    assert needed.keys() == tee_servers(world).keys()
    older = world.true_ones("server_id", "chutes_server_upgrade_needed")
    assert older == set(true["servers_needing_upgrade"])


def tee_servers(world: World) -> dict[str, str]:
    """Return the versions of the servers with TEE, by id."""
    servers = world.raw["servers"]["servers"]
    return {row["server_id"]: row["version"] for row in servers if row["is_tee"]}


async def test_each_tee_server_has_one_state_of_maintenance_and_slots_are_counted(
    world: World,
) -> None:
    is_state = {}
    for (name, pairs), value in world.page.items():
        if name == "chutes_server_maintenance_state":
            labels = dict(pairs)
            is_state[labels["server_id"], labels["state"]] = value
    servers = tee_servers(world).keys()
    states = ("none", "pending", "maintenance")
    assert is_state.keys() == set(itertools.product(servers, states))
    assert sum(is_state.values()) == len(servers)
    in_slot = {server for (server, state), value in is_state.items() if value and state != "none"}
    pending = world.true.get("servers_pending", [])
    assert in_slot == {*world.true["servers_in_maintenance"], *pending}
    true = world.true["in_maintenance_window"]
    # An older server that needs nothing now is in a slot of the newest window.
    needing, needing_now = true["servers_needing_upgrade"], true["servers_needing_upgrade_now"]
    in_newest_slot = set(needing) - set(needing_now)
    if not in_newest_slot:
        # The older world does not tell them apart, and has only slots of the newest window.
        in_newest_slot = in_slot
    assert in_newest_slot <= in_slot
    # It is not known whether a server whose maintenance is pending takes a slot.
    if not pending:
        in_older_slot = in_slot - in_newest_slot
        assert world.mine("chutes_maintenance_slots_in_use") == len(in_newest_slot)
        assert world.mine("chutes_maintenance_older_slots_in_use") == len(in_older_slot)


async def test_versions_of_tee_servers_are_compared_with_what_boots(world: World) -> None:
    known = world.by("server_id", "chutes_server_version_accepted", hotkey=world.hotkey).keys()
    accepted = world.true_ones("server_id", "chutes_server_version_accepted")
    # Whether a server without a version or with a release candidate is accepted is not known.
    releases = {
        server: version for server, version in tee_servers(world).items() if is_release(version)
    }
    highest = max(map(numbers_of_version, world.true["versions_that_can_boot"]))
    assert accepted == {
        server for server, version in releases.items() if numbers_of_version(version) == highest
    }
    cannot_boot = world.true["servers_that_cannot_boot"]
    refused = known - accepted
    assert refused == {row["server_id"] for row in cannot_boot if is_release(row["version"])}


async def test_servers_with_a_listed_version_may_be_refused_by_a_least_version(
    world: World,
) -> None:
    strict = world.true.get("servers_that_cannot_boot_with_the_default_least_version")
    if strict is None:
        # The older world does not have this list.
        return
    known = world.by("server_id", "chutes_server_version_accepted", hotkey=world.hotkey).keys()
    accepted = world.true_ones("server_id", "chutes_server_version_accepted")
    listed_versions = {row["version"] for row in world.raw["tee_measurements"]}
    with_listed_version = {
        server for server, version in tee_servers(world).items() if version in listed_versions
    }
    refused = known - accepted
    # By default, the least version is the highest one that is listed. A lower one is accepted only
    # if the operators set a lower least version, which no answer shows.
    not_known = with_listed_version - known
    assert refused | not_known == {row["server_id"] for row in strict}


def is_release(version: str | None) -> bool:
    """Return whether a version is known and is no release candidate."""
    return bool(version) and "rc" not in str(version)


async def test_servers_that_cannot_come_back_and_the_order_of_the_others_follow_from_the_answers(
    world: World,
) -> None:
    policy = world.raw["maintenance"]
    older = {row["server_id"] for row in policy["servers"] if row["needs_upgrade"]}
    measured = world.by("server_id", "chutes_server_upgrade_measured", hotkey=world.hotkey)
    listed_versions = {row["version"] for row in world.raw["tee_measurements"]}
    if policy["active_window"]["target_measurement_version"] in listed_versions:
        with_gpus = {gpu["server_id"] for gpu in world.raw["nodes"]}
        assert measured == {server: is_measured(server, world.raw) for server in older & with_gpus}
    else:
        # It is not known for which hosts a target is that no list names.
        assert measured == {}
    waiting = older - in_slots(world)
    assert world.mine("chutes_fleet_servers_to_upgrade") == len(waiting)
    cannot_come_back = {server for server in waiting if measured.get(server) == 0}
    assert world.mine("chutes_fleet_unmeasured_servers_to_upgrade") == len(cannot_come_back)
    order = world.by("server_id", "chutes_server_upgrade_order", hotkey=world.hotkey)
    assert order == upgrade_order(waiting - cannot_come_back, world.raw)


def in_slots(world: World) -> set[str]:
    """Return the servers that hold an upgrade slot by any answer."""
    servers = world.raw["servers"]["servers"]
    held = {row["server_id"] for row in servers if row["maintenance_pending"]}
    for row in world.raw["maintenance"]["servers"]:
        if row["in_maintenance"] or row.get("maintenance_status", "none") != "none":
            held.add(row["server_id"])
    return held


def numbers_of_version(version: str) -> list[int]:
    """Return the numbers of a version, so that 1.10.0 is higher than 1.9.0."""
    return [*map(int, version.split("."))]


async def test_images_chutes_and_gpus_are_counted(world: World) -> None:
    true = world.true
    # The service's words for two of the states.
    true_words = {"built": "built and pushed", "pending": "pending build"}
    images = {}
    for state, count in world.by("state", "chutes_images").items():
        if count:
            images[true_words.get(state, state)] = count
    assert images == true["images_by_status"]
    chutes = [dict(labels) for name, labels in world.wide if name == "chutes_chute_info"]
    disabled = [labels for labels in chutes if labels["disabled"] == "true"]
    assert len(chutes) == true["chutes"]
    assert len(disabled) == true["chutes_disabled"]
    for gpu, states in true["supply"]["platform"].items():
        assert world.by("state", "chutes_platform_gpus", gpu=gpu) == states


async def run_json(
    command: str, role: str = "test_miner", directory: Path = WORLD_F
) -> dict[str, Any]:
    """Run a command with the key of a role, and return its JSON.

    The answers are always those of the world's test miner. Their times are moved to now.
    """
    meta = json.loads(recording(directory, "meta"))
    variables = {"MINER_SS58": meta[role], "MINER_SEED": meta["invented_seeds"][meta[role]]}
    bodies = shifted(Miner(directory, "test_miner").bodies(), time.time() - meta["recorded_at"])
    async with served(replay(bodies)) as url:
        _, output, errors = await run(Target(url), command, "--json", variables=variables)
    assert not errors
    found: dict[str, Any] = json.loads(output)
    return found


# In the newest world, the truth has no GPUs of a server whose maintenance is pending.
@pytest.mark.parametrize(
    "directory", [path for path in DIRECTORIES if path != WORLD_H], ids=lambda path: path.name
)
async def test_advise_offers_what_the_service_lets_become_active(directory: Path) -> None:
    true = json.loads(recording(directory, "expected"))
    summary = await run_json("advise", directory=directory)
    (miner,) = summary["miners"]
    assert {model["gpu"] for model in miner["idle"]} == true["launch_models"].keys()
    for model in miner["idle"]:
        true_model = true["launch_models"][model["gpu"]]
        assert model["idle"] == true_model["idle"]
        assert model["in_maintenance"] == true_model["idle_in_maintenance"]
        # Nothing can be launched on a server in maintenance.
        usable = [server for server in true_model["servers"] if not server["in_maintenance"]]
        assert model["on_one_server"] == max(server["free"] for server in usable)
        offered = {offer["chute_id"] for offer in model["runnable"]}
        runnable = true_model["runnable_chutes"]
        assert offered == {chute for chute in runnable if not in_vain(true["launch"][chute])}


async def test_status_says_which_idle_gpus_can_be_used_now() -> None:
    true = json.loads(recording(WORLD_F, "expected"))
    summary = await run_json("status")
    findings = {finding["kind"]: finding for finding in summary["findings"]}
    usable: Counter[str] = Counter()
    in_maintenance: Counter[str] = Counter()
    texts: list[str] = []
    for server in true["launch_servers"]:
        if server["in_maintenance"]:
            in_maintenance.update(server["free_gpus"])
            continue
        for gpu, count in server["free_gpus"].items():
            usable[gpu] += count
            texts.append(f"{count} {gpu} on {server['name']}")
    idle = findings["idle_gpus"]
    assert (idle["count"], usable.total()) == (17, 17)
    assert idle["gpus"] == usable
    assert sorted(idle["things"]) == sorted(texts)
    # Those of servers in maintenance earn nothing because of it. The target is listed for hosts
    # with 8 GPUs only, and these have 4.
    assert findings["unmeasured_servers"]["gpus"] == in_maintenance
    assert "maintenance" not in findings
    assert in_maintenance.total() == 8
    # The recorded report is long overdue.
    assert {gap["feed"] for gap in summary["not_known"]} <= {"audit_report"}


async def test_status_says_which_servers_cannot_boot() -> None:
    true = json.loads(recording(WORLD_F, "expected"))
    things = await things_of_status()
    in_slot = names_in_slot(true)
    # Those in a slot cannot come back: the target is listed for no host with their GPUs.
    assert things["unmeasured_servers"] == in_slot
    refused, candidates = refused_and_candidates(true)
    assert things["versions_refused"] == refused - in_slot
    strict = true["servers_that_cannot_boot_with_the_default_least_version"]
    # No answer shows the least version, so it may be lower than the default.
    maybe = {row["name"] for row in strict} - refused
    assert things["uncertain_versions"] == candidates | maybe


async def test_status_says_which_servers_to_upgrade() -> None:
    true = json.loads(recording(WORLD_F, "expected"))
    things = await things_of_status()
    needed = names_of(true["in_maintenance_window"]["servers_needing_upgrade"], true)
    refused, _ = refused_and_candidates(true)
    # A server stands in one finding only, and those about a slot or a refused version come first.
    assert things["upgrades"] == needed - names_in_slot(true) - refused


async def things_of_status() -> dict[str, set[str]]:
    """Return the names of the servers of each finding."""
    things = {}
    for finding in (await run_json("status"))["findings"]:
        # The version follows in brackets.
        things[finding["kind"]] = {thing.partition(" (")[0] for thing in finding["things"]}
    return things


def names_of(server_ids: Iterable[str], true: dict[str, Any]) -> set[str]:
    names = {row["server_id"]: row["name"] for row in true["launch_servers"]}
    return {names[server_id] for server_id in server_ids}


def names_in_slot(true: dict[str, Any]) -> set[str]:
    return names_of(true["servers_in_maintenance"], true)


def refused_and_candidates(true: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the servers whose version is refused, and those with a release candidate."""
    cannot_boot = true["servers_that_cannot_boot"]
    candidates = {row["name"] for row in cannot_boot if "rc" in row["version"]}
    return {row["name"] for row in cannot_boot} - candidates, candidates


async def test_status_tells_a_blacklisted_miner_what_comes_first() -> None:
    summary = await run_json("status", "blacklisted_miner")
    findings = {finding["kind"]: finding for finding in summary["findings"]}
    advice = findings["blacklisted"]["advice"]
    assert advice == "First ask the operators of Chutes to end it. Reason"
    assert "idle_gpus" not in findings
