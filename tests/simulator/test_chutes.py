from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.simulator.chutes import bounty_amount, bounty_boost
from chutes_exporter.simulator.times import MINUTE
from chutes_exporter.simulator.world import DAY, HOUR
from tests.support import NOON

if TYPE_CHECKING:
    from chutes_exporter.simulator import World
    from chutes_exporter.simulator.world import Chute


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


@pytest.mark.parametrize(
    ("age", "amount", "boost"),
    [(0, 100, 1.1), (0.9, 100, 1.1), (59, 277, 1.1021851851851854), (10800, 32500, 1.5), (90_000, 86_400, 1.5)],
)
def test_the_value_of_a_bounty_follows_from_its_age(age: float, amount: int, boost: float) -> None:
    assert bounty_amount(age) == amount
    assert bounty_boost(age) == pytest.approx(boost, abs=1e-4)
