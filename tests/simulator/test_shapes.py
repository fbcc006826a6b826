"""The simulated answers have the fields and the types of recorded ones, no more and no less."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.simulator import Simulator
from tests.simulator.odd import OddWorld
from tests.simulator.shapes import SHAPES, records, shape
from tests.support import HOTKEY, KEY, NOON, Clock, get, recording

if TYPE_CHECKING:
    from chutes_exporter.api.keys import Purpose
    from chutes_exporter.simulator import World


def recorded_as(directory: Path, name: str) -> bytes:
    return recording(directory / "extra", EXTRA[name]) if name in EXTRA else recording(directory, name)


ANSWERS = {
    **{one.name: one.path for one in ENDPOINTS if one.name not in ("chute", "release_job", "thrash_cooldowns")},
    "unique_chute_history": f"/miner/unique_chute_history/{HOTKEY}",
    "stats_per_chute": "/miner/stats?per_chute=true",
}
EXTRA = {name: name for name in ("utilization", "bounties", "rolling_updates")} | {"maintenance": "maintenance_policy"}
"""Recordings of the endpoints outside the miner API, which are in a folder of their own."""
RECORDED = [SHAPES]
if directory := os.environ.get("CHUTES_EXPORTER_TEST_RECORDINGS"):
    RECORDED.append(
        {
            part: shape(found)
            for name in ANSWERS
            for part, found in records(name, recorded_as(Path(directory), name)).items()
        }
    )


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("name", ANSWERS)
async def test_every_field_is_there_with_the_type_that_it_was_recorded_with(
    small_world: World, name: str, *, odd: bool
) -> None:
    world = OddWorld(start=NOON, size=small_world.size) if odd else small_world
    async with Simulator(world, clock=Clock()) as simulator:
        purpose: Purpose = "tee" if name == "maintenance" else "miner"
        body = (await get(simulator.url + ANSWERS[name], **KEY.headers(int(NOON), purpose))).content
    for part, found in records(name, body).items():
        assert found, part
        simulated = shape(found)
        for recorded in RECORDED:
            assert simulated.keys() == recorded[part].keys(), part
            assert {field: types - recorded[part][field] for field, types in simulated.items()} == {
                field: set() for field in simulated
            }, part


async def test_one_chute_is_answered_as_in_the_list_of_all(simulator: Simulator) -> None:
    headers = KEY.headers(int(NOON))
    found = records("chutes", (await get(f"{simulator.url}/miner/chutes/", **headers)).content)["chutes"]
    one = await get(f"{simulator.url}/miner/chutes/{found[5]['chute_id']}/{found[5]['version']}", **headers)
    assert one.json() == found[5]
