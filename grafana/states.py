"""The table of states: their names and colours, for all boards.

Red marks what earns nothing or costs the seat, orange what needs a look. All other lines have
Grafana's classic palette. States beside each other in a table differ in lightness by 1.6 : 1, also
for colour-blind people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RED: Final = "red"
ORANGE: Final = "#FFA03C"
GREEN: Final = "#DEF7DA"
BLUE: Final = "light-blue"
PURPLE: Final = "#AE64D2"
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


NOTHING: Final = State("nothing", "No alert fires")
"""Stands in a table of problems if there is none."""
UNWATCHED: Final = State("unwatched", "No miner is watched: set --hotkey", ORANGE)
"""Likewise if no alert can fire."""
KEYLESS: Final = State("keyless", "GPUs are not known: no key", ORANGE)
"""Likewise if no alert about GPUs and instances can fire."""
CHUTES: Final = (State("nothing", "No GPU is idle", GREEN),)
"""Likewise in a table of chutes for idle GPUs."""
NONE_STARTING: Final = State(10**10, "none")
"""Stands for the seconds until a purge if no instance is starting."""
NONE_ENDED: Final = (State("nothing", "None ended"),)
COUNTS: Final = (State("true", "counts"), State("false", "lost", RED))
"""Whether the score of an ended instance counts; the texts are the values of the label `counts`."""
SAFE: Final = State(10**10, "cannot be lost now")
"""Stands for the registrations before the loss of a seat that no registration can take."""
YES: Final = (State(0, "no"), State(1, "yes"))
REGISTERED: Final = (State(0, "no seat", RED), State(1, "registered"))
BLACKLISTED: Final = (State(0, "no"), State(1, "blacklisted", RED))
UP: Final = (State(0, "down", RED), State(1, "up"))
FEED_STATE: Final = (State(0, "failing", ORANGE), State(1, "good"))
LOADED: Final = (State(0, "not loaded", ORANGE), State(1, "loaded"))
MAINTENANCE: Final = (State(1, "pending: do not reboot", ORANGE), State(2, "reboot now", RED))
NEEDED: Final = (State(1, "needed", ORANGE),)
OUTDATED: Final = (State(0, "current"), State(1, "outdated", ORANGE))

GPU: Final = (
    State(0, "unverified", RED),
    State(1, "idle", ORANGE),
    State(2, "starting", PURPLE),
    State(3, "disabled", BLUE),
    State(4, "earning", GREEN),
)
"""States of a GPU, the ones that cost most first; the texts are the values of `chutes_fleet_gpus`'
label `state`.
"""

INSTANCE: Final = (
    State(0, "starting over 1 h", ORANGE),
    State(1, "starting", PURPLE),
    State(2, "disabled", BLUE),
    State(3, "active", GREEN),
)
"""States of an instance; the texts are the values of `chutes_fleet_instances`' label `state`, but
for the first.
"""
REASONS: Final = tuple(
    State(reason, reason, color)
    for reason, color in (
        ("miner", BLUE),
        ("scale_down", "semi-dark-green"),
        ("update", "super-light-blue"),
        ("maintenance", "yellow"),
        ("idle", "light-green"),
        ("no_balance", "super-light-yellow"),
        ("chute_removed", PURPLE),
        ("not_active_in_time", "semi-dark-orange"),
        ("gpu_missing", "dark-red"),
        ("verification", RED),
        ("requests", ORANGE),
        ("none", "#8e8e99"),
        ("other", PLAIN),
        ("failed starts", "super-light-red"),
    )
)
"""Why instances ended: the values of the label `reason`, and starts that failed."""
DEADLINE_KINDS: Final = (
    State(1, "purge", ORANGE),
    State(2, "secured", BLUE),
    State(3, "end of billing"),
    State(4, "none"),
)
"""What happens to an instance next; the texts are the values of the recorded label `deadline`."""
DIRECTION: Final = (
    State(0, "you pass it", GREEN),
    State(1, "-"),
    State(2, "-"),
    State(3, "passes you", ORANGE),
    State(4, "this miner", BLUE),
)
"""What happens between a miner and the chosen one within a day."""


SEVERITY: Final = (State(0, "critical", RED), State(1, "warning", ORANGE), State(2, "info"))
"""Severities of alerts, the gravest first; the texts are the values of their label `severity`."""
