"""Colour-blind people can tell the states of GPUs and instances apart."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import pytest

from grafana.states import GPU, INSTANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana.states import State

Color = tuple[float, float, float]

PALETTE: Final = {
    "dark-red": "C4162A",
    "orange": "FF9830",
    "blue": "5794F2",
    "super-light-purple": "DEB6F2",
    "green": "73BF69",
}
"""Colours of Grafana's dark theme, from createVisualizationColors of @grafana/data 11.6."""
SIGHT: Final[dict[str, tuple[Color, Color, Color]]] = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
}
"""Matrices for linear red, green and blue: Machado, Oliveira and Fernandes (2009), at full severity."""
TO_XYZ: Final[tuple[Color, Color, Color]] = (
    (0.4124, 0.3576, 0.1805),
    (0.2126, 0.7152, 0.0722),
    (0.0193, 0.1192, 0.9505),
)
WHITE: Final[Color] = (0.9505, 1.0, 1.089)
CLEAR: Final = 20
"""A distance in CIELAB that is seen at a glance. 2.3 is just noticeable when two areas touch."""


def times(matrix: tuple[Color, Color, Color], color: Color) -> Color:
    red, green, blue = (sum(a * b for a, b in zip(row, color, strict=True)) for row in matrix)
    return red, green, blue


def linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def lab(name: str, sight: str) -> Color:
    """Return lightness and the two hue axes of a colour, as somebody with that sight sees it."""
    written = PALETTE[name]
    red, green, blue = (linear(int(written[at : at + 2], 16) / 255) for at in (0, 2, 4))
    red, green, blue = (min(max(channel, 0.0), 1.0) for channel in times(SIGHT[sight], (red, green, blue)))
    x, y, z = (
        (part / white) ** (1 / 3) if part / white > 0.008856 else 7.787 * part / white + 16 / 116
        for part, white in zip(times(TO_XYZ, (red, green, blue)), WHITE, strict=True)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("states", [GPU, INSTANCE], ids=["GPU", "instance"])
def test_colour_blind_people_can_tell_states_apart(states: Sequence[State], sight: str) -> None:
    distances = {
        (one.text, other.text): sum(
            (a - b) ** 2 for a, b in zip(lab(one.color, sight), lab(other.color, sight), strict=True)
        )
        ** 0.5
        for one, other in itertools.combinations(states, 2)
    }
    assert {pair: round(distance) for pair, distance in distances.items() if distance < CLEAR} == {}
