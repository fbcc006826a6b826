"""The table of states: their names and colours, for all boards.

Red marks what earns nothing or costs the seat, orange what needs a look. The colours of GPU states differ in hue and in
lightness, so that colour-blind people can tell them apart. All other lines have Grafana's classic palette.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RED: Final = "dark-red"
ORANGE: Final = "orange"
PLAIN: Final = "text"
"""Grafana's own colour of text: nothing is wrong."""


@dataclass(frozen=True)
class State:
    """A value that means a state.

    Attributes:
        value: As queries return it, or the label's text.
        text: The text that is shown instead.
        color: Grafana's name of the colour.
    """

    value: float | str
    text: str
    color: str = PLAIN


ANSWERS: Final = (State(0, "silent", RED), State(1, "answers"))
ACCEPTED: Final = (State(0, "refused", RED), State(1, "accepted"))
REGISTERED: Final = (State(0, "no seat", RED), State(1, "registered"))
BLACKLISTED: Final = (State(0, "no"), State(1, "blacklisted", RED))
UP: Final = (State(0, "down", RED), State(1, "up"))
FEED_STATE: Final = (State(0, "failing", ORANGE), State(1, "good"))
LOADED: Final = (State(0, "not loaded", ORANGE), State(1, "loaded"))
FLAG: Final = (State(0, "no"), State(1, "yes"))
PENDING: Final = (State(0, "no"), State(1, "pending", ORANGE))

GPU: Final = (
    State(0, "unverified", RED),
    State(1, "idle", ORANGE),
    State(2, "starting", "blue"),
    State(3, "disabled", "super-light-purple"),
    State(4, "earning", "green"),
)
"""States of a GPU, the ones that cost most first; the texts are the values of `chutes_fleet_gpus`' label `state`."""

INSTANCE: Final = (
    State(1, "starting", "blue"),
    State(2, "disabled", "super-light-purple"),
    State(3, "active", "green"),
)
"""States of an instance; the texts are the values of `chutes_fleet_instances`' label `state`."""

READING: Final = (State("stale", "stale", ORANGE), State("failed", "failed", RED))
"""How readings of feeds come about that are not as they should be."""
IMAGE: Final = (State("error", "error", ORANGE),)
"""The status of images whose build failed."""
SEVERITY: Final = (State(0, "critical", RED), State(1, "warning", ORANGE), State(2, "info"))
"""Severities of alerts, the gravest first; the texts are the values of their label `severity`."""
