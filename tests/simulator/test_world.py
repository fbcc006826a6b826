from __future__ import annotations

import itertools
from collections import Counter

import pytest

from chutes_exporter.simulator import Size, World
from chutes_exporter.simulator.chutes import bounty_amount, bounty_boost
from chutes_exporter.simulator.instances import End
from chutes_exporter.simulator.times import MINUTE
from chutes_exporter.simulator.world import DAY, HOUR
from tests.simulator.odd import EMPTY_SERVER, OddWorld
from tests.support import HOTKEY, NOON

TIMES = [NOON - 3 * DAY, NOON, NOON + HOUR]


@pytest.fixture(scope="module")
def world() -> World:
    """A world of the full size."""
    return World(start=NOON)


def test_it_has_the_size_that_the_subnet_has(world: World) -> None:
    assert len(world.miners) == len(world.by_hotkey) == 256
    assert len(world.chutes) == 300
    assert world.miners[0].hotkey == HOTKEY
    assert sum(1 for miner in world.miners if miner.servers) == 100
    assert len(world.instances(NOON)) > 2000
    assert len(world.jobs(NOON)) > 100


def test_the_largest_world_has_ten_thousand_instances() -> None:
    world = World(start=NOON, size=Size(chutes=2000, servers=215, other_servers=107, source_bytes=40_000))
    assert 8000 < len(world.instances(NOON)) < 16_000
    assert len(world.miners[0].gpus) == pytest.approx(1000, rel=0.1)


def test_the_same_seed_and_time_give_the_same_world_in_whichever_order_it_is_asked() -> None:
    size = Size(miners=6, active_miners=3, chutes=20)
    times = [NOON + hours * HOUR for hours in (-50, 0, 0.5, 7, 31)]

    def seen(world: World, now: float) -> object:
        return (
            [(one.instance_id, one.multiplier(now), one.has_bounty(now)) for one in world.instances(now)],
            world.shares(now),
            world.incentives(now),
            world.history(HOTKEY, now),
            [world.bounty_age(chute, now) for chute in world.chutes],
            world.jobs(now)[-5:],
            [gpu.registration(now) for miner in world.miners for gpu in miner.gpus],
        )

    forwards, backwards = World(start=NOON, size=size), World(start=NOON, size=size)
    first = [seen(forwards, now)[:5] for now in times]  # type: ignore[index]
    second = [seen(backwards, now)[:5] for now in reversed(times)]  # type: ignore[index]
    assert first == second[::-1]
    assert first[0] != first[1]
    other = World(seed=1, start=NOON, size=size)
    assert [one.instance_id for one in other.instances(NOON)] != [one.instance_id for one in forwards.instances(NOON)]


@pytest.mark.parametrize("seed", [64, 1, 2])
def test_the_first_miner_is_an_ordinary_one(seed: int) -> None:
    world = World(seed=seed, start=NOON)
    miner = world.miners[0]
    shares = world.shares(NOON)
    better = sum(1 for share in shares.values() if share > shares[miner.hotkey])
    assert 0.25 * len(shares) < better < 0.75 * len(shares)
    held = {gpu.uuid for one in world.instances(NOON, miner.hotkey) for gpu in one.gpus}
    idle = [gpu for gpu in miner.gpus if gpu.uuid not in held and gpu.verified_at(NOON)]
    assert 0 < len(idle) < 0.3 * len(miner.gpus)
    assert not miner.blacklist_reason
    assert all(server.gpus and server.name.isascii() and server.name.isprintable() for server in miner.servers)
    assert len({server.name for server in miner.servers}) == len({one.ip for one in miner.servers}) == 13
    texts = [chute.name or "" for chute in world.chutes]
    assert all(text.isascii() and text.isprintable() and '"' not in text and "\\" not in text for text in texts)


def test_an_odd_world_has_what_real_answers_were_seen_with() -> None:
    world = OddWorld(start=NOON)
    servers = world.miners[0].servers
    assert len({server.server_id for server in servers}) == len(servers)
    assert len({server.name for server in servers}) < len(servers)
    assert len({server.ip for server in servers}) < len(servers)
    assert [server.server_id for server in servers if not server.gpus] == [world.make_server(0, EMPTY_SERVER).server_id]
    assert any('"' in server.name and "\\" in server.name and "\n" in server.name for server in servers)
    assert any(chute.name is None for chute in world.chutes)
    assert any(chute.name and '"' in chute.name and "\\" in chute.name for chute in world.chutes)
    assert world.miners[-1].blacklist_reason
    assert world.miners[-2].blacklist_reason == ""
    errors = [gpu.error(NOON) for miner in world.miners for gpu in miner.gpus]
    assert any(error and "\n" in error for error in errors)


def test_some_seats_validate_and_the_rest_without_servers_are_newcomers(world: World) -> None:
    validators = [miner for miner in world.miners if miner.validator]
    assert len(validators) == 2
    for miner in validators:
        assert not miner.servers
        assert miner.axon
        assert miner.stake > max(one.stake for one in world.miners if not one.validator)
    assert not any(miner.validator for miner in World(start=NOON, size=Size(miners=4, active_miners=4)).miners)


def test_instances_live_as_the_service_lets_them(world: World) -> None:
    instances = world.all_instances(NOON)
    assert {one.end for one in instances} == set(End)
    for one in instances:
        assert one.created_at < one.ended_at
        if one.verified_at is None:
            assert one.activated_at is None
            assert one.ended_at <= one.created_at + 4 * HOUR
        else:
            assert one.created_at < one.verified_at
            if one.activated_at is None:
                assert one.ended_at <= max(one.created_at + 4 * HOUR, one.verified_at + 3.5 * HOUR)
            else:
                assert one.verified_at < one.activated_at < min(one.ended_at, one.created_at + 3.5 * HOUR)
        if one.end is End.PURGED:
            assert one.ended_at % (30 * MINUTE) == 0
        if one.end is End.SCALED_DOWN:
            assert one.activated_at is not None
            assert one.ended_at - one.activated_at >= 63 * MINUTE
    # Some launches are purged when their time is over, none before.
    purged = [one for one in instances if one.end is End.PURGED and one.activated_at is None]
    limits = [one.created_at + 3.5 * HOUR if one.verified_at is None else one.verified_at + 3 * HOUR for one in purged]
    assert len(purged) > 10
    assert {one.verified_at is None for one in purged} == {True, False}
    assert all(0 <= one.ended_at - limit <= 30 * MINUTE for one, limit in zip(purged, limits, strict=True))


def test_disabled_instances_are_not_active_and_purged_in_their_time(world: World) -> None:
    disabled = [one for one in world.all_instances(NOON) if one.disabled_at is not None]
    assert len(disabled) > 100
    for one in disabled:
        assert one.chute.public
        assert one.activated_at is not None
        assert one.verified_at is not None
        moment = one.disabled_at or 0
        if moment < one.ended_at:
            assert one.active(moment - 1)
            assert one.activated(moment)
            assert one.disabled(moment)
            assert not one.active(moment)
            assert one.last_verified_at(one.ended_at) == one.last_verified_at(moment)
        assert one.ended_at <= max(moment, one.verified_at + 3 * HOUR) + 30 * MINUTE
    assert any(one.disabled(NOON) for one in disabled)


def test_no_gpu_ever_runs_two_instances_at_once_or_starts_one_unverified(world: World) -> None:
    for time in TIMES:
        gpus = [gpu.uuid for instance in world.instances(time) for gpu in instance.gpus]
        assert len(gpus) == len(set(gpus))
    for instance in world.all_instances(NOON, HOTKEY):
        assert all(gpu.verified_at(instance.created_at) is not None for gpu in instance.gpus)
        assert all(gpu.verified_at(instance.ended_at - 1) is not None for gpu in instance.gpus)


def test_instances_fit_their_gpus(world: World) -> None:
    tee = {server.server_id for miner in world.miners for server in miner.servers if server.is_tee}
    for instance in world.instances(NOON):
        assert len(instance.gpus) == instance.chute.gpu_count
        assert {gpu.model for gpu in instance.gpus} <= set(instance.chute.models)
        assert not instance.chute.disabled
        assert not instance.chute.tee or {gpu.server_id for gpu in instance.gpus} <= tee


def test_gpus_are_verified_fail_and_are_registered_anew(world: World) -> None:
    gpus = [gpu for miner in world.miners for gpu in miner.gpus]
    states = Counter((gpu.verified_at(NOON) is not None, gpu.error(NOON) is not None) for gpu in gpus)
    assert 0.005 < states[False, True] / len(gpus) < 0.1
    # A verified GPU can have an error, which is only information.
    assert 0.005 < states[True, True] / len(gpus) < 0.05
    assert states[True, False] > 0.9 * len(gpus)
    assert any(gpu.error(NOON - DAY) and gpu.verified_at(NOON) for gpu in gpus)
    anew = [gpu for gpu in gpus if gpu.registration(NOON).created_at > NOON - DAY]
    assert anew
    assert all(gpu.registration(NOON - 8 * DAY).created_at < NOON - 8 * DAY for gpu in anew)
    used = {gpu.uuid for instance in world.instances(NOON) for gpu in instance.gpus}
    assert 0.8 * len(gpus) < len(used) < len(gpus)
    # The newest registration has not been checked yet.
    last = max((one for gpu in gpus for one in gpu.registrations), key=lambda one: one.created_at)
    (gpu,) = [gpu for gpu in gpus if any(one is last for one in gpu.registrations)]
    assert gpu.registration(last.created_at).verified_at is None
    assert gpu.registration(last.created_at).error is None


def test_at_most_one_tee_server_of_a_miner_waits_for_maintenance(world: World) -> None:
    waiting = Counter(
        (miner.uid, hours)
        for hours in range(0, 11 * 24, 6)
        for miner in world.miners
        for server in miner.servers
        if server.maintenance_pending(NOON + hours * HOUR)
    )
    assert waiting
    assert set(waiting.values()) == {1}
    plain = [server for miner in world.miners for server in miner.servers if not server.is_tee]
    assert not any(server.maintenance_pending(NOON) or server.version for server in plain)


def test_tee_servers_boot_with_the_target_version_after_their_maintenance(world: World) -> None:
    tee = [server for miner in world.miners for server in miner.servers if server.is_tee]
    changed = 0
    for server in tee:
        versions = [server.version_at(NOON + hours * HOUR) for hours in range(-16, 24 * 24)]
        pending = [server.maintenance_pending(NOON + hours * HOUR) for hours in range(-16, 24 * 24)]
        assert versions[0] == server.version
        for number, (before, after) in enumerate(itertools.pairwise(versions), 1):
            if before != after:
                changed += 1
                assert pending[number - 1]
                assert not pending[number]
                assert after in ("0.3.0", "0.4.0", "0.5.0")
        assert any(pending) == (len(set(versions)) > 1)
    assert changed > len(tee)
    # Some miss a window.
    assert any(server.version_at(NOON + 4 * DAY) == "0.2.9" for server in tee)


def test_a_maintenance_window_is_open_for_four_days_of_ten(world: World) -> None:
    open_at = [world.window(NOON + (hours - 15) * HOUR) for hours in range(24 * 20)]
    assert sum(window is not None for window in open_at) == 2 * 4 * 24
    assert {window.target for window in open_at if window is not None} == {"0.3.0", "0.4.0"}
    assert world.window(NOON - DAY) is None


def test_maintenance_ends_the_instances_of_its_server_validly(world: World) -> None:
    ended = 0
    for miner in world.miners:
        lives = world.all_instances(NOON + 6 * DAY, miner.hotkey)
        for server in miner.servers:
            mine = [one for one in lives if one.gpus[0].server_id == server.server_id]
            ended += sum(one.end is End.MAINTENANCE for one in mine)
            for upgrade in () if server.upgrades is None else server.upgrades.until(NOON + 5 * DAY):
                middle = (upgrade.begins_at + upgrade.ends_at) / 2
                assert not any(one.exists(middle) for one in mine)
                for one in mine:
                    assert one.end is not End.MAINTENANCE or one.activated_at is None or one.counts(one.ended_at + 1)
    assert ended > 10


def test_a_rolling_update_lasts_while_instances_of_an_older_version_are_active(world: World) -> None:
    seen: set[str] = set()
    for hours in range(0, 48, 2):
        now = NOON + hours * HOUR
        active = [one for one in world.instances(now) if one.active(now)]
        old = {one.chute.chute_id for one in active if one.version != one.chute.version(now)}
        updates = world.rolling_updates(now)
        listed = {update.chute.chute_id for update in updates}
        # The autoscaler has just run.
        assert old == listed
        for update in updates:
            assert now - update.started_at < (12 if update.chute.public else 2) * HOUR
            existed = [one for one in world.all_instances(now) if one.chute is update.chute]
            assert update.permitted == Counter(one.hotkey for one in existed if one.exists(update.started_at))
        seen |= listed
    assert len(seen) > 10
    # Those of the beginning are over.
    assert seen - {update.chute.chute_id for update in world.rolling_updates(NOON + 46 * HOUR)}


def test_the_autoscaler_wants_more_instances_where_the_load_is_high(world: World) -> None:
    counts = world.active_counts(NOON)
    for chute in world.chutes:
        active, target = counts[chute.chute_id], world.target_instances(chute, NOON)
        if not chute.public:
            assert target == min(20, active + (world.bounty_age(chute, NOON) is not None))
        elif active and chute.utilization(NOON) > 0.75:
            assert min(20, active + 1) <= target <= min(20, active + 5)
        elif active > 2:
            assert target == min(20, active - (chute.utilization(NOON) < 0.3))
        else:
            assert target == 2
        # It runs every half hour.
        assert world.target_instances(chute, NOON + 29 * MINUTE) == target


def test_servers_come_newest_first(world: World) -> None:
    for miner in world.miners:
        created = [server.created_at for server in miner.servers]
        assert created == sorted(created, reverse=True)


def test_utilisation_follows_the_day_and_boosts_follow_utilisation(world: World) -> None:
    for chute in world.chutes[:20]:
        hours = [chute.utilization(NOON + hour * HOUR) for hour in range(24)]
        assert max(hours) > 2 * min(hours)
        assert chute.utilization(NOON + DAY) == pytest.approx(hours[0], abs=1e-5)
    assert max(chute.utilization(NOON) for chute in world.chutes) > 1
    for chute in world.chutes:
        boost = chute.boost(NOON)
        if boost is None:
            assert not chute.scaled
        elif not chute.public or chute.utilization(NOON) <= 0.75:
            assert boost == 1
        else:
            assert 1 < boost <= 2.7
        # The autoscaler runs every half hour.
        assert boost == chute.boost(NOON + 29 * MINUTE)
    assert any(chute.boost(NOON) != chute.boost(NOON + 30 * MINUTE) for chute in world.chutes)


def test_a_bounty_ages_until_the_first_activation_takes_it(world: World) -> None:
    activations: dict[str, list[float]] = {}
    for one in world.all_instances(NOON):
        if one.activated(NOON):
            activations.setdefault(one.chute.chute_id, []).append(one.activated_at or 0)
    offered = {chute: world.bounty_age(chute, NOON) for chute in world.chutes}
    assert 10 < sum(1 for age in offered.values() if age is not None) < 200
    for chute, age in offered.items():
        if age is not None:
            assert 0 <= age < (DAY if chute.public else HOUR)
            assert not [time for time in activations.get(chute.chute_id, []) if NOON - age < time <= NOON]
    taken = [one for one in world.all_instances(NOON) if one.has_bounty(NOON)]
    assert len(taken) > 100
    for one in taken:
        activated = one.activated_at or 0
        age = world.bounty_age(one.chute, activated - 0.001)
        assert age is not None
        assert one.bounty_boost == pytest.approx(bounty_boost(age), abs=1e-6)
        assert world.bounty_age(one.chute, activated) is None
        # There is none for ten minutes.
        assert world.bounty_age(one.chute, activated + 599) is None
        assert not one.has_bounty(activated - 1)


@pytest.mark.parametrize(
    ("age", "amount", "boost"),
    [(0, 100, 1.1), (0.9, 100, 1.1), (59, 277, 1.1021851851851854), (10800, 32500, 1.5), (90_000, 86_400, 1.5)],
)
def test_a_bounty_is_worth_what_its_age_says(age: float, amount: int, boost: float) -> None:
    assert bounty_amount(age) == amount
    assert bounty_boost(age) == pytest.approx(boost, abs=1e-4)


def test_private_instances_are_billed_until_nobody_asks(world: World) -> None:
    private = [one for one in world.all_instances(NOON) if not one.chute.public and one.activated_at is not None]
    assert {one.end for one in private} == {End.MINER, End.FAILURES, End.IDLE, End.UPDATED, End.MAINTENANCE}
    for one in private:
        activated = one.activated_at or 0
        assert one.stop_billing_at(activated - 1) is None
        for moment in (activated, (activated + one.ended_at) / 2):
            stop = one.stop_billing_at(moment)
            assert stop is not None
            assert activated + one.shutdown_after <= stop <= moment + one.shutdown_after
        if one.end is End.IDLE:
            stop = one.stop_billing_at(one.ended_at)
            assert stop is not None
            assert 0 < one.ended_at - stop <= MINUTE
            # The last minute is not paid.
            assert one.seconds_within(0, one.ended_at + 1) == pytest.approx(stop - one.created_at)
    assert all(one.stop_billing_at(NOON) is None for one in world.instances(NOON) if one.chute.public)


def test_a_new_version_replaces_old_instances_within_its_time(world: World) -> None:
    for one in world.all_instances(NOON):
        deployed = one.chute.next_deploy(one.created_at)
        if one.activated_at is not None:
            limit = max(deployed + (12 if one.chute.public else 2) * HOUR, one.activated_at + MINUTE)
            assert one.ended_at <= limit
        if one.end is End.UPDATED:
            assert one.version != one.chute.version(one.ended_at)
            assert one.chute.deployed_at(one.ended_at) == pytest.approx(deployed)
    old = [one for one in world.instances(NOON) if one.version != one.chute.version(NOON)]
    assert 0 < len(old) < len(world.instances(NOON)) / 4


def test_the_prober_passes_by_every_few_minutes(world: World) -> None:
    for one in world.instances(NOON):
        passed = one.last_verified_at(NOON)
        if one.verified_at is None or one.verified_at > NOON:
            assert passed is None
        elif one.active(NOON):
            assert passed is not None
            assert 0 <= NOON - passed < max(7 * MINUTE, 1)
            assert one.last_verified_at(NOON + 7 * MINUTE) == pytest.approx(max(one.verified_at, passed + 7 * MINUTE))


def test_jobs_wait_finish_and_get_stuck(world: World) -> None:
    jobs = world.jobs(NOON)
    states = Counter((job.waiting, job.stuck) for job in jobs)
    assert states[True, False] > 1
    assert states[False, True] > 5
    assert states[False, False] > 100
    for job in jobs:
        assert len(set(job.tried_by)) == len(job.tried_by) <= 15
        if job.waiting:
            assert NOON - job.created_at <= 3 * HOUR
            assert job.status == "pending"
        else:
            assert job.miner is not None
            assert job.miner.servers
            assert job.miner.hotkey in job.tried_by
            assert (job.status == "pending") == job.stuck
    assert {job.status for job in jobs if job.finished_at} >= {"complete", "error"}
    assert any(job.chute_id not in {chute.chute_id for chute in world.chutes} for job in world.jobs(NOON + 5 * DAY))
    # What has once ended stays for ever; what waits is taken, runs and is not listed meanwhile.
    later = {job.job_id: job for job in world.jobs(NOON + HOUR)}
    assert all(later[job.job_id] == job for job in jobs if not job.waiting)
    assert any(job.job_id not in later for job in jobs if job.waiting)


def test_only_the_miner_that_holds_a_job_can_release_it_and_only_once() -> None:
    world = World(start=NOON)
    now = NOON + 5 * DAY
    job = next(job for job in world.jobs(now) if job.stuck)
    assert job.miner is not None
    other = next(miner for miner in world.miners if miner is not job.miner)
    assert world.release_job(job.job_id, other.hotkey, now) is None
    assert world.release_job(job.job_id, job.miner.hotkey, job.created_at) is None
    assert world.release_job(job.job_id, job.miner.hotkey, now) is not None
    assert world.release_job(job.job_id, job.miner.hotkey, now) is None
    (released,) = (one for one in world.jobs(now) if one.job_id == job.job_id)
    assert released.waiting
    finished = next(one for one in world.jobs(now) if one.finished_at)
    assert finished.miner is not None
    assert world.release_job(finished.job_id, finished.miner.hotkey, now) is None
    waiting = next(one for one in world.jobs(now) if one.waiting and one.job_id != job.job_id)
    assert all(world.release_job(waiting.job_id, miner.hotkey, now) is None for miner in world.miners)
