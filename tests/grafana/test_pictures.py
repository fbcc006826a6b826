"""The pictures of the README, and the colours of states."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from grafana import states
from grafana.draw import PICTURES, WORLDS
from tests.grafana.display import run_script

if TYPE_CHECKING:
    from collections.abc import Iterable

SMALLEST = 10_000
"""Bytes of a picture. One that shows nothing has less."""
LARGEST = 250_000
"""Bytes of a picture, so that the README loads fast."""
COLORS = """(grafana, names) => {
  const { colors, visualization } = grafana.createTheme({ colors: { mode: 'dark' } });
  return [colors.background.primary, ...names.map((name) => visualization.getColorByName(name))];
}"""
"""Returns the colours of Grafana's dark theme: the background of a panel, and those of the names.
"""
STATES = [value for value in vars(states).values() if isinstance(value, tuple)]
"""All tables of states."""


def test_each_picture_of_the_readme_is_there() -> None:
    names = {f"{uid}{world.suffix}.png" for world in WORLDS.values() for uid in world.uids}
    assert {path.name for path in PICTURES.iterdir()} == names
    for name in names:
        assert SMALLEST < (PICTURES / name).stat().st_size < LARGEST, name


EYES = {
    "all colours": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "no green": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
}
"""What people see of red, green and blue light, by the model of Machado, Oliveira and Fernandes.

The rows are the channels that they see, each with the weights of the three channels of a screen.
"""
LEAST_CONTRAST = 1.6
"""The contrast that `grafana.states` promises for states beside each other."""


def luminance(color: str, eyes: str = "all colours") -> float:
    """Return the relative luminance of a colour such as `#F2495C`, as the Web Content Accessibility
    Guidelines define it, plus 0.05.

    The guidelines define the contrast of two colours as the ratio of such sums.
    """
    light = []
    # The places of the channels red, green and blue in the text.
    for at in (1, 3, 5):
        channel = int(color[at : at + 2], 16) / 255
        if channel <= 0.04045:
            light.append(channel / 12.92)
        else:
            light.append(((channel + 0.055) / 1.055) ** 2.4)
    # What the eyes make of the three channels, within what a screen can show.
    red, green, blue = (min(max(_weighted_sum(row, light), 0), 1) for row in EYES[eyes])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05


def _weighted_sum(weights: Iterable[float], numbers: Iterable[float]) -> float:
    return sum(weight * number for weight, number in zip(weights, numbers, strict=True))


@pytest.fixture(scope="module")
def colors(grafana: str) -> dict[str, str]:
    """The background, and the colours of all states, by Grafana's name."""
    names = sorted(colors_of(STATES))
    background, *shown = run_script(grafana, COLORS, names)
    return {"background": background} | dict(zip(names, shown, strict=True))


def colors_of(tables: Iterable[tuple[states.State, ...]]) -> set[str]:
    """Return the names of the colours of states, without that of plain text."""
    return {state.color for table in tables for state in table} - {states.PLAIN}


def test_text_has_enough_contrast(colors: dict[str, str]) -> None:
    background = luminance(colors["background"])
    # The colours of reasons are those of bars. No text has them.
    for name in colors_of(table for table in STATES if table is not states.REASONS):
        # The Web Content Accessibility Guidelines ask for 4.5.
        assert luminance(colors[name]) / background >= 4.5, name


def test_states_beside_each_other_differ_in_lightness(colors: dict[str, str]) -> None:
    for eyes in EYES:
        for first, second in (
            *itertools.pairwise(states.GPU),
            *itertools.pairwise(states.INSTANCE),
        ):
            assert contrast(colors, first, second, eyes) >= LEAST_CONTRAST, (eyes, first, second)


def test_earning_and_idle_differ_in_lightness(colors: dict[str, str]) -> None:
    _, idle, *_, earning = states.GPU
    assert contrast(colors, earning, idle) >= LEAST_CONTRAST


def contrast(
    colors: dict[str, str], first: states.State, second: states.State, eyes: str = "all colours"
) -> float:
    """Return the contrast of the colours of two states, for people with some eyes: 1 if they are
    equal.
    """
    low, high = sorted(luminance(colors[state.color], eyes) for state in (first, second))
    return high / low
