"""How states look: the one table of their names and colours, for all boards.

A colour says that something is wrong: red for what earns nothing or costs the place, orange for what needs a look. All
that is well is drawn in the colour of text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RED: Final = "red"
ORANGE: Final = "orange"
PLAIN: Final = "text"
"""Grafana's own colour of text: nothing is wrong."""
PARTS: Final = ("blue", "purple", "super-light-blue", "super-light-purple")
"""Lines that are told apart, and mean nothing by it, are shades of these."""


@dataclass(frozen=True)
class State:
    """A value that means a state.

    Attributes:
        value: As queries return it, or the label's text.
        text: What is shown instead.
        color: Grafana's name of the colour.
    """

    value: float | str
    text: str
    color: str = PLAIN


ABSENCES: Final = (
    State(-1, "exporter down", RED),
    State(-2, "no key", PLAIN),
    State(-3, "no data", ORANGE),
    State(-4, "none", PLAIN),
    State(-5, "not asked", PLAIN),
)
"""Why a tile has no number: Prometheus cannot scrape the exporter; the exporter watches the miner without its key; the
API has given no (current, readable) answer; it has answered all that was asked, and there is nothing of the kind; the
exporter does not ask for it."""
DOWN, NO_KEY, NO_DATA, NOTHING, OFF = (int(state.value) for state in ABSENCES)

ANSWERS: Final = (State(0, "silent", RED), State(1, "answers"))
ACCEPTED: Final = (State(0, "refused", RED), State(1, "accepted"))
REGISTERED: Final = (State(0, "no seat", RED), State(1, "registered"))
BLACKLISTED: Final = (State(0, "no"), State(1, "blacklisted", RED))
UP: Final = (State(0, "down", RED), State(1, "up"))
LOADED: Final = (State(0, "failed", ORANGE), State(1, "loaded"))
FLAG: Final = (State(0, "no"), State(1, "yes"))
PENDING: Final = (State(0, "no"), State(1, "pending", ORANGE))

GPU: Final = (
    State(0, "unverified", RED),
    State(1, "idle", ORANGE),
    State(2, "starting", PARTS[0]),
    State(3, "disabled", PARTS[1]),
    State(4, "earning"),
)
"""States of a GPU, the ones that cost most first; the texts are the values of `chutes_fleet_gpus`' label `state`."""

INSTANCE: Final = (
    State(0, "failed", RED),
    State(1, "starting", PARTS[0]),
    State(2, "disabled", PARTS[1]),
    State(3, "active"),
)
"""States of an instance; the texts are the values of `chutes_fleet_instances`' label `state`."""

READING: Final = (State("stale", "stale", ORANGE), State("failed", "failed", RED))
"""How readings of feeds come about that are not as they should be."""
IMAGE: Final = (State("error", "error", ORANGE),)
"""The status of images whose build failed."""
SEVERITY: Final = (State(0, "critical", RED), State(1, "warning", ORANGE), State(2, "info"))
"""Severities of alerts, the gravest first; the texts are the values of their label `severity`."""
