from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.simulator import World
from tests.support import NOON

if TYPE_CHECKING:
    from chutes_exporter.simulator.chutes import Chute


@pytest.fixture(scope="session")
def world() -> World:
    """A world of the full size. No test changes it."""
    return World(start=NOON)


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
