"""The names and colours of states on all boards.

Red means that something earns nothing or endangers the seat. Orange means that something needs attention. Everything
else has the colour of text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RED: Final = "red"
ORANGE: Final = "orange"
PLAIN: Final = "text"
"""Grafana's colour of text."""
PARTS: Final = ("blue", "purple", "super-light-blue", "super-light-purple")
"""Shades that distinguish lines and mean nothing else."""


@dataclass(frozen=True)
class State:
    """A value that means a state.

    Attributes:
        value: The value of a query or of a label.
        text: The text to show instead.
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
"""Reasons for a tile without a number.

- exporter down: Prometheus cannot scrape the exporter.
- no key: the exporter watches the miner without its key.
- no data: the API has given no current and readable answer.
- none: the answers are good, and there is nothing of the kind.
- not asked: the exporter does not request it.
"""
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
"""States of a GPU, the most expensive first. The texts are values of the label `state` of `chutes_fleet_gpus`."""

INSTANCE: Final = (
    State(0, "failed", RED),
    State(1, "starting", PARTS[0]),
    State(2, "disabled", PARTS[1]),
    State(3, "active"),
)
"""States of an instance. The texts are values of the label `state` of `chutes_fleet_instances`."""

READING: Final = (State("stale", "stale", ORANGE), State("failed", "failed", RED))
"""Bad results of reading feeds."""
IMAGE: Final = (State("error", "error", ORANGE),)
"""Status of images whose build failed."""
SEVERITY: Final = (State(0, "critical", RED), State(1, "warning", ORANGE), State(2, "info"))
"""Severities of alerts, the most severe first. The texts are values of the label `severity`."""
