"""The pictures of the README."""

from __future__ import annotations

from grafana.draw import PICTURES, WORLDS

SMALLEST = 10_000
"""Bytes of a picture. One that shows nothing has less."""
LARGEST = 250_000
"""Bytes of a picture, so that the README loads fast."""


def test_each_picture_of_the_readme_is_there() -> None:
    names = {f"{uid}{world.suffix}.png" for world in WORLDS.values() for uid in world.uids}
    assert {path.name for path in PICTURES.iterdir()} == names
    for name in names:
        assert SMALLEST < (PICTURES / name).stat().st_size < LARGEST, name
