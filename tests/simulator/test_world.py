"""The simulated world, and the scores, stats and histories that follow from the lives of its instances."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.simulator import Size, World
from chutes_exporter.simulator.chutes import bounty_boost
from chutes_exporter.simulator.hardware import MODELS
from chutes_exporter.simulator.instances import VALID_ENDS, End, Instance
from chutes_exporter.simulator.times import MINUTE
from chutes_exporter.simulator.world import DAY, HOUR, WEEK
from tests.simulator.odd import EMPTY_SERVER, OddWorld
from tests.support import HOTKEY, NOON

if TYPE_CHECKING:
    from chutes_exporter.simulator.world import Chute


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


def test_an_odd_world_has_the_oddities_of_real_answers() -> None:
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


SIZE = Size(miners=12, active_miners=6, chutes=30)


@pytest.fixture(scope="module")
def ordinary_world() -> World:
    """A small world without oddities."""
    return World(start=NOON, size=SIZE)


def recomputed(one: Instance, start: float, now: float) -> float:
    """Return an instance's units, second by second in principle: from each change of its multiplier to the next."""
    chute, activated = one.chute, one.activated_at or 0
    real = sum(MODELS[gpu.model].hourly_rate for gpu in one.gpus) / 4.5
    cheapest = len(one.gpus) * min(MODELS[model].hourly_rate for model in chute.models) / 4.5
    lasting = chute.manual_boost or 1.0
    if not chute.public:
        lasting *= 3 if chute.integrated else 1.3 if chute.tee else 2
    lasting *= 2.25 if chute.tee else 1

    def urgency(time: float) -> float:
        return (chute.boost(time) or 1) if chute.public else 1

    changes = [(one.created_at, real * lasting)]
    multiplier = real * lasting * urgency(one.created_at) * one.bounty_boost
    changes.append((activated, multiplier))
    hour = activated // HOUR * HOUR + 120
    while hour < one.ended_at:
        age = (hour - activated) / HOUR
        target = cheapest * lasting * urgency(hour) if chute.public else real * lasting
        if age >= 2:
            weight = 1 if age >= 8 else ((age - 2) / 6) ** 2
            multiplier = multiplier * (1 - weight) + target * weight
            changes.append((hour, multiplier))
        hour += HOUR
    end = min(now, one.ended_at)
    if not chute.public:
        end = min(end, one.stop_billing_at(now) or end)
    total = 0.0
    for number, (since, worth) in enumerate(changes):
        until = changes[number + 1][0] if number + 1 < len(changes) else end
        seconds = max(0.0, min(until, end) - max(since, start))
        open_record = until >= end > since
        total += seconds * worth * (0.1 if one.last_of_chute and now >= one.ended_at and open_record else 1)
    return total


def test_scores_and_stats_are_the_sums_over_the_lives_of_instances(ordinary_world: World) -> None:
    for seconds in (HOUR, DAY, WEEK):
        units: dict[str, float] = {}
        counts: dict[str, int] = {}
        for one in ordinary_world.all_instances(NOON):
            if one.activated_at is None or one.activated_at > NOON:
                continue
            lived = one.ended_at - one.activated_at
            lost = one.ended_at <= NOON and one.end not in VALID_ENDS and not (one.chute.public and lived >= HOUR)
            found = 0 if lost else recomputed(one, NOON - seconds, NOON)
            if found:
                units[one.hotkey] = units.get(one.hotkey, 0) + found
                counts[one.hotkey] = counts.get(one.hotkey, 0) + 1
        work = ordinary_world.work(NOON, seconds)
        assert {hotkey: entry.units for (hotkey, _), entry in work.items()} == pytest.approx(units, rel=1e-9)
        assert {hotkey: entry.instances for (hotkey, _), entry in work.items()} == counts
    day = ordinary_world.work(NOON, DAY)
    total = sum(entry.units for entry in day.values())
    assert ordinary_world.shares(NOON) == pytest.approx(
        {hotkey: entry.units / total for (hotkey, _), entry in day.items()}
    )
    assert sum(ordinary_world.shares(NOON).values()) == pytest.approx(1)
    per_chute = ordinary_world.work(NOON, DAY, hotkey=HOTKEY, per_chute=True)
    whole = day[HOTKEY, ""]
    assert sum(entry.units for entry in per_chute.values()) == pytest.approx(whole.units)
    assert sum(entry.instances for entry in per_chute.values()) == whole.instances
    assert sum(entry.bounties for entry in per_chute.values()) == whole.bounties


def test_stats_and_scores_move_every_ten_minutes_and_not_between(ordinary_world: World) -> None:
    assert ordinary_world.shares(NOON) == ordinary_world.shares(NOON + 599)
    assert ordinary_world.shares(NOON) != ordinary_world.shares(NOON + 600)
    assert ordinary_world.work(NOON, HOUR) == ordinary_world.work(NOON + 599, HOUR)
    assert ordinary_world.work(NOON, HOUR) != ordinary_world.work(NOON + 599, HOUR, cached=False)


def test_a_world_where_nobody_works_has_no_shares() -> None:
    assert World(start=NOON, size=Size(miners=2, active_miners=0)).shares(NOON) == {}


def test_where_all_units_are_nothing_the_shares_are_equal() -> None:
    class Worthless(World):
        def make_chute(self, index: int) -> Chute:
            return replace(super().make_chute(index), manual_boost=0.0)

    shares = Worthless(start=NOON, size=SIZE).shares(NOON)
    assert list(shares.values()) == [1 / 6] * 6


def test_incentives_are_the_shares_of_a_full_hour_an_epoch_later_rounded_down(ordinary_world: World) -> None:
    changes = []
    for minute in range(0, 24 * 60, 3):
        now = NOON + minute * MINUTE
        incentives = ordinary_world.incentives(now)
        assert sum(incentives.values()) <= 65535
        assert incentives == ordinary_world.incentives(now + 2 * MINUTE)
        if incentives != ordinary_world.incentives(now - 3 * MINUTE):
            changes.append(now)
        lags = [
            lag
            for lag in range(4)
            if incentives
            == {
                key: int(share * 65535) for key, share in ordinary_world.shares(now // HOUR * HOUR - lag * HOUR).items()
            }
        ]
        # A weight waits for the next epoch, 72 minutes at most, and for the sync after that.
        assert lags[:1] in ([0], [1], [2])
    assert {later - earlier for earlier, later in itertools.pairwise(changes)} <= {
        72 * MINUTE,
        75 * MINUTE,
        69 * MINUTE,
    }
    assert len(changes) == 20


class Banned(World):
    """The second miner is blacklisted, the third has a reason that says nothing."""

    def blacklist_reason(self, uid: int) -> str | None:
        return {1: "spoofed", 2: ""}.get(uid)


def test_the_blacklisted_have_no_score_but_stats() -> None:
    world = Banned(start=NOON, size=SIZE)
    banned, unharmed = world.miners[1].hotkey, world.miners[2].hotkey
    assert world.work(NOON, DAY)[banned, ""].units > 0
    assert banned not in world.shares(NOON)
    assert banned not in world.incentives(NOON)
    assert world.shares(NOON)[unharmed] > 0
    assert sum(world.shares(NOON).values()) == pytest.approx(1)
    assert [one for one in world.instances(NOON) if one.hotkey == banned]


def test_a_history_counts_the_gpus_of_each_full_hour_of_the_week(ordinary_world: World) -> None:
    now = NOON + 35 * MINUTE
    history = ordinary_world.history(HOTKEY, now)
    assert history is not None
    assert [time for time, _, _ in history] == [NOON - number * HOUR for number in range(168, -1, -1)]
    for time, count, total in history:
        there = [
            one
            for one in ordinary_world.all_instances(NOON + 30 * MINUTE, HOTKEY)
            if one.activated_at is not None
            and one.activated_at <= time < one.ended_at
            and (not one.chute.public or min(one.ended_at, NOON + 30 * MINUTE) - one.activated_at >= HOUR)
        ]
        assert total == sum(len(one.gpus) for one in there)
        assert count == sum(chute.gpu_count for chute in {one.chute for one in there})
    assert any(count < total for _, count, total in history)
    assert ordinary_world.history(HOTKEY, now) == ordinary_world.history(HOTKEY, NOON + 30 * MINUTE)
    # The newest points still rise: instances that were too young then are counted later.
    later = ordinary_world.history(HOTKEY, now + HOUR)
    assert later is not None
    before, after = ({time: total for time, _, total in one} for one in (history, later))
    assert all(after[time] >= total for time, total in before.items() if time in after)


class Quiet(World):
    """Nothing is started any more soon after noon."""

    def grow(self, until: float) -> None:
        super().grow(min(until, NOON))


def test_an_inactive_miner_keeps_its_last_history() -> None:
    world = Quiet(start=NOON, size=SIZE)
    assert world.history(world.miners[-2].hotkey, NOON) is None
    ended = max(one.ended_at for one in world.all_instances(NOON + DAY, HOTKEY))
    week_later = world.history(HOTKEY, ended + WEEK)
    assert week_later is not None
    assert week_later[-1][0] == (ended + WEEK) // HOUR * HOUR
    assert world.history(HOTKEY, ended + WEEK - HOUR) != week_later
    assert world.history(HOTKEY, ended + 3 * WEEK) == week_later


def test_the_last_active_instance_is_found_in_the_world(ordinary_world: World) -> None:
    lives = ordinary_world.all_instances(NOON)
    deleted = [one for one in lives if one.end is End.MINER and one.ended_at <= NOON and one.activated_at is not None]
    assert {one.last_of_chute for one in deleted} == {True, False}
    for one in deleted:
        others = [other for other in lives if other.chute is one.chute and other is not one]
        assert one.last_of_chute == (not any(other.active(one.ended_at) for other in others))
