"""Compute units of instances: the counting rules, the multipliers and the scores."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.simulator import Size, World
from chutes_exporter.simulator.hardware import MODELS
from chutes_exporter.simulator.instances import VALID_ENDS, End, Gpu, Instance
from chutes_exporter.simulator.times import MINUTE
from chutes_exporter.simulator.world import DAY, HOUR, WEEK
from tests.support import HOTKEY, NOON

if TYPE_CHECKING:
    from chutes_exporter.simulator.world import Chute

SIZE = Size(miners=12, active_miners=6, chutes=30)


@pytest.fixture(scope="module")
def world() -> World:
    return World(start=NOON, size=SIZE)


@pytest.fixture
def chute(world: World) -> Chute:
    """A public chute without boosts for two 4090s or A100s."""
    return replace(
        world.chutes[0],
        gpu_count=2,
        models=("4090", "a100"),
        public=True,
        tee=False,
        scaled=False,
        manual_boost=None,
    )


def instance(chute: Chute, model: str = "4090", end: End = End.MINER, lasts: float = 40 * HOUR) -> Instance:
    """Make an instance that is created at noon and activated half an hour later."""
    gpus = tuple(Gpu(f"{n}", model, n, "", n, [], lambda _: None) for n in range(chute.gpu_count))
    activated = NOON + HOUR / 2
    return Instance(
        "0123", HOTKEY, chute, gpus, NOON, NOON + 300, activated, None, activated + lasts, end, bounty_boost=1.5
    )


@pytest.mark.parametrize("end", End)
@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize("lasts", [HOUR - 1, HOUR])
def test_the_end_of_an_instance_decides_whether_it_counts(
    chute: Chute, end: End, *, public: bool, lasts: float
) -> None:
    one = instance(replace(chute, public=public), end=end, lasts=lasts)
    assert not one.counts(NOON + HOUR / 2 - 1)
    assert one.counts(NOON + HOUR / 2)
    assert one.counts(one.ended_at - 1)
    assert one.counts(one.ended_at) == (end in (End.SCALED_DOWN, End.UPDATED, End.IDLE) or (public and lasts >= HOUR))


def test_an_instance_that_was_never_activated_does_not_count(chute: Chute) -> None:
    one = instance(chute, end=End.PURGED)
    one.activated_at = None
    assert not one.counts(NOON + DAY)
    assert one.units_within(0, NOON + HOUR) == pytest.approx(HOUR * one.warmup_multiplier)


def test_a_disabled_instance_goes_on_earning(chute: Chute) -> None:
    one = instance(chute)
    one.disabled_at = NOON + 3 * HOUR
    assert not one.active(NOON + 4 * HOUR)
    assert one.counts(NOON + 4 * HOUR)
    assert one.seconds_within(0, NOON + 4 * HOUR) == 4 * HOUR


def test_seconds_run_from_the_creation_and_the_start_up_has_no_bounty(chute: Chute) -> None:
    one = instance(chute)
    base = 2 * 0.4 / 4.5
    assert one.seconds_within(NOON - DAY, NOON + HOUR) == HOUR
    assert one.seconds_within(NOON + 600, NOON + HOUR) == HOUR - 600
    assert one.seconds_within(NOON + HOUR, NOON + HOUR) == 0
    assert one.units_within(NOON - DAY, NOON + HOUR) == pytest.approx(HOUR / 2 * base + HOUR / 2 * base * 1.5)
    assert one.units_within(NOON - DAY, NOON) == 0


def test_a_multiplier_approaches_the_pay_of_the_cheapest_gpu_within_eight_hours(chute: Chute) -> None:
    one = instance(chute, model="a100")
    activated = NOON + HOUR / 2
    start, target = 2 * 1.2 / 4.5 * 1.5, 2 * 0.4 / 4.5
    assert one.multiplier(activated - 1) == pytest.approx(start / 1.5)
    assert one.multiplier(activated) == pytest.approx(start)
    assert one.multiplier(activated + 2 * HOUR - 1) == pytest.approx(start)
    # Multipliers are refreshed two minutes past each hour: first at 15:02, 2 h and 32 minutes after the activation.
    expected = start
    for hours in range(3, 9):
        run = NOON + hours * HOUR + 2 * MINUTE
        assert one.multiplier(run - 1) == pytest.approx(expected)
        weight = (((run - activated) / HOUR - 2) / 6) ** 2
        expected = expected * (1 - weight) + target * weight
        assert one.multiplier(run) == pytest.approx(expected)
        assert target < expected < start
    assert one.multiplier(NOON + 9 * HOUR + 2 * MINUTE) == pytest.approx(target)
    assert one.multiplier(NOON + 30 * HOUR) == pytest.approx(target)


def test_a_private_instance_is_moved_to_the_pay_of_its_real_gpus(chute: Chute) -> None:
    one = instance(replace(chute, public=False, integrated=False), model="a100")
    real = 2 * 1.2 / 4.5 * 2
    assert one.multiplier(NOON + HOUR) == pytest.approx(real * 1.5)
    assert one.multiplier(NOON + 12 * HOUR) == pytest.approx(real)


def test_deleting_the_last_active_instance_of_a_chute_costs_most_of_the_open_record(chute: Chute) -> None:
    kept, last = instance(chute), instance(chute)
    last.last_of_chute = True
    assert last.keeps_bounty(last.ended_at - 1)
    assert not last.keeps_bounty(last.ended_at)
    assert kept.keeps_bounty(kept.ended_at)
    now = kept.ended_at
    since, multiplier = kept.record(now - 1)
    assert last.units_within(0, now - 1) == kept.units_within(0, now - 1)
    lost = kept.units_within(0, now) - last.units_within(0, now)
    assert lost == pytest.approx(0.9 * multiplier * (now - since))


def test_the_last_active_instance_is_found_in_the_world(world: World) -> None:
    lives = world.all_instances(NOON)
    deleted = [one for one in lives if one.end is End.MINER and one.ended_at <= NOON and one.activated_at is not None]
    assert {one.last_of_chute for one in deleted} == {True, False}
    for one in deleted:
        others = [other for other in lives if other.chute is one.chute and other is not one]
        assert one.last_of_chute == (not any(other.active(one.ended_at) for other in others))


@pytest.mark.parametrize(
    ("change", "factors"),
    [
        ({}, {"base": 0.8 / 4.5}),
        ({"scaled": True, "popularity": 0}, {"base": 0.8 / 4.5, "urgency_boost": 1.0}),
        ({"tee": True}, {"base": 0.8 / 4.5, "tee": 2.25}),
        ({"manual_boost": 1.75}, {"base": 0.8 / 4.5, "manual_boost": 1.75}),
        ({"public": False, "integrated": False}, {"base": 0.8 / 4.5, "private": 2}),
        ({"public": False, "integrated": False, "tee": True}, {"base": 0.8 / 4.5, "private_tee": 1.3, "tee": 2.25}),
        ({"public": False, "integrated": True}, {"base": 0.8 / 4.5, "integrated_subnet": 3}),
    ],
)
def test_the_factors_of_a_multiplier_are_those_that_apply(
    chute: Chute, change: dict[str, object], factors: dict[str, float]
) -> None:
    changed = replace(chute, **change)  # type: ignore[arg-type]
    assert changed.factors(NOON, None) == pytest.approx(factors)
    assert changed.factors(NOON, 5400) == pytest.approx({**factors, "bounty_boost": 1.3})


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


def test_scores_and_stats_are_the_sums_over_the_lives_of_instances(world: World) -> None:
    for seconds in (HOUR, DAY, WEEK):
        units: dict[str, float] = {}
        counts: dict[str, int] = {}
        for one in world.all_instances(NOON):
            if one.activated_at is None or one.activated_at > NOON:
                continue
            lived = one.ended_at - one.activated_at
            lost = one.ended_at <= NOON and one.end not in VALID_ENDS and not (one.chute.public and lived >= HOUR)
            found = 0 if lost else recomputed(one, NOON - seconds, NOON)
            if found:
                units[one.hotkey] = units.get(one.hotkey, 0) + found
                counts[one.hotkey] = counts.get(one.hotkey, 0) + 1
        work = world.work(NOON, seconds)
        assert {hotkey: entry.units for (hotkey, _), entry in work.items()} == pytest.approx(units, rel=1e-9)
        assert {hotkey: entry.instances for (hotkey, _), entry in work.items()} == counts
    day = world.work(NOON, DAY)
    total = sum(entry.units for entry in day.values())
    assert world.shares(NOON) == pytest.approx({hotkey: entry.units / total for (hotkey, _), entry in day.items()})
    assert sum(world.shares(NOON).values()) == pytest.approx(1)
    per_chute = world.work(NOON, DAY, hotkey=HOTKEY, per_chute=True)
    whole = day[HOTKEY, ""]
    assert sum(entry.units for entry in per_chute.values()) == pytest.approx(whole.units)
    assert sum(entry.instances for entry in per_chute.values()) == whole.instances
    assert sum(entry.bounties for entry in per_chute.values()) == whole.bounties


def test_stats_and_scores_move_every_ten_minutes_and_not_between(world: World) -> None:
    assert world.shares(NOON) == world.shares(NOON + 599)
    assert world.shares(NOON) != world.shares(NOON + 600)
    assert world.work(NOON, HOUR) == world.work(NOON + 599, HOUR)
    assert world.work(NOON, HOUR) != world.work(NOON + 599, HOUR, cached=False)


def test_a_world_where_nobody_works_has_no_shares() -> None:
    assert World(start=NOON, size=Size(miners=2, active_miners=0)).shares(NOON) == {}


def test_where_all_units_are_nothing_the_shares_are_equal() -> None:
    class Worthless(World):
        def make_chute(self, index: int) -> Chute:
            return replace(super().make_chute(index), manual_boost=0.0)

    shares = Worthless(start=NOON, size=SIZE).shares(NOON)
    assert list(shares.values()) == [1 / 6] * 6


def test_incentives_are_the_shares_of_a_full_hour_an_epoch_later_rounded_down(world: World) -> None:
    changes = []
    for minute in range(0, 24 * 60, 3):
        now = NOON + minute * MINUTE
        incentives = world.incentives(now)
        assert sum(incentives.values()) <= 65535
        assert incentives == world.incentives(now + 2 * MINUTE)
        if incentives != world.incentives(now - 3 * MINUTE):
            changes.append(now)
        lags = [
            lag
            for lag in range(4)
            if incentives
            == {key: int(share * 65535) for key, share in world.shares(now // HOUR * HOUR - lag * HOUR).items()}
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


def test_a_history_counts_the_gpus_of_each_full_hour_of_the_week(world: World) -> None:
    now = NOON + 35 * MINUTE
    history = world.history(HOTKEY, now)
    assert history is not None
    assert [time for time, _, _ in history] == [NOON - number * HOUR for number in range(168, -1, -1)]
    for time, count, total in history:
        there = [
            one
            for one in world.all_instances(NOON + 30 * MINUTE, HOTKEY)
            if one.activated_at is not None
            and one.activated_at <= time < one.ended_at
            and (not one.chute.public or min(one.ended_at, NOON + 30 * MINUTE) - one.activated_at >= HOUR)
        ]
        assert total == sum(len(one.gpus) for one in there)
        assert count == sum(chute.gpu_count for chute in {one.chute for one in there})
    assert any(count < total for _, count, total in history)
    assert world.history(HOTKEY, now) == world.history(HOTKEY, NOON + 30 * MINUTE)
    # The newest points still rise: instances that were too young then are counted later.
    later = world.history(HOTKEY, now + HOUR)
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
