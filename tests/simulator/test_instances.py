"""The lives of instances: what they earn, by the counting rules and the multipliers, and how they end."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.simulator.instances import End, Gpu, Instance, Slot
from chutes_exporter.simulator.maintenance import Upgrade, Upgrades, Window
from chutes_exporter.simulator.times import MINUTE
from chutes_exporter.simulator.world import DAY, HOUR
from tests.support import HOTKEY, NOON

if TYPE_CHECKING:
    from chutes_exporter.simulator import World
    from chutes_exporter.simulator.world import Chute


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
    assert one.counts(one.ended_at) == (
        end in (End.SCALED_DOWN, End.UPDATED, End.IDLE, End.MAINTENANCE) or (public and lasts >= HOUR)
    )


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


TIMES = [NOON - 3 * DAY, NOON, NOON + HOUR]


class OneUpgrade(Upgrades):
    """A single upgrade, which begins at ``start`` and takes an hour."""

    def until(self, now: float) -> list[Upgrade]:
        return [Upgrade(Window(0, self.start), self.start, self.start + HOUR)] if now >= self.start else []


def test_an_upgrade_undoes_what_would_come_after_its_begin(chute: Chute) -> None:
    def first(upgrades: Upgrades | None) -> Instance:
        gpus = (Gpu("0", "4090", 0, "", 0, [], lambda _: None),)
        slot = Slot("64/slot", HOTKEY, gpus, [chute], NOON, [], upgrades)
        return next(one for one in slot.grow(NOON + DAY))

    undisturbed = first(None)
    created, verified, activated = undisturbed.created_at, undisturbed.verified_at, undisturbed.activated_at
    assert verified is not None
    assert activated is not None
    for begins, left in (
        ((created + verified) / 2, (None, None)),
        ((verified + activated) / 2, (verified, None)),
        (activated + 1, (verified, activated)),
    ):
        upgraded = first(OneUpgrade(begins, "", 0, "0.1"))
        assert (upgraded.ended_at, upgraded.end) == (begins, End.MAINTENANCE)
        assert (upgraded.verified_at, upgraded.activated_at) == left


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
