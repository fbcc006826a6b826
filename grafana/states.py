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
GREEN: Final = "#4F9E46"
BLUE: Final = "light-blue"
PURPLE: Final = "#AE64D2"
GREY: Final = "#8e8e99"
"""What is there to compare with."""
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
KEYLESS: Final = State("keyless", "No key: set --hotkey-file", ORANGE)
"""Likewise if no alert about GPUs can fire."""
VERDICT: Final = (
    State(998, "exporter down", RED),
    State(999, "act now", RED),
    State(1000, "act today", ORANGE),
    State(1002, "all is well", GREEN),
    State(1003, "run status", ORANGE),
    State(1004, "no key: set --hotkey-file", ORANGE),
    State(1005, "not all is known", ORANGE),
    State(1007, "rules not loaded", ORANGE),
)
"""What the first of the alerts that fire says. Without an alert, it is the number that the rules
record.

The values are no numbers of alerts, which stand beside them.
"""
CHUTES: Final = (State("nothing", "No GPU is idle", GREEN),)
"""Likewise in a table of chutes for idle GPUs."""
NONE_STARTING: Final = State(10**10, "none")
"""Stands for the seconds until a purge if no instance is starting."""
NO_DECISION: Final = (State("nothing", "None needs a decision", GREEN),)
NONE_ENDED: Final = (State("nothing", "None ended"),)
NONE_FAILED: Final = (State("nothing", "No start failed, no score lost"),)
NO_UPGRADE: Final = State("nothing", "No server needs an upgrade")
OUTCOMES: Final = (
    State("counts", "counts"),
    State("lost", "lost", RED),
    State("never_active", "never active", ORANGE),
)
"""What became of the score of an ended instance: the values of the label `outcome`."""
SAFE: Final = State(10**10, "cannot be lost now", GREEN)
"""Stands for the registrations before the loss of a seat that no registration can take."""
NOT_IN_LINE: Final = State("none", "safe: not in line", GREEN)
"""Stands for the neighbours of a seat that no registration can take."""
YES: Final = (State(0, "no"), State(1, "yes"))
UP: Final = (State(0, "down", ORANGE), State(1, "up"))
FEED_STATE: Final = (State(0, "failing", ORANGE), State(1, "good"))
FEED: Final = (
    State(0, "no data", "semi-dark-orange"),
    State(1, "failing, old data", "yellow"),
    State(2, "good", GREEN),
)
"""States of a feed over all exporters."""
TRUST: Final = (
    State(0, "no", ORANGE),
    State(1, "except the feeds below", ORANGE),
    State(2, "yes", GREEN),
)
"""Whether the boards and alerts show what there is."""
ALL_GOOD: Final = State("nothing", "All feeds have good answers", GREEN)
"""Stands in the table of bad feeds if there is none."""
LOADED: Final = (State(0, "not loaded", ORANGE), State(1, "loaded"))
STEPS: Final = (
    State("cannot_return", "cannot come back: ask the operators of Chutes", RED),
    State("boot", "boot it with the target version", RED),
    State("await_drain", "do not reboot it until nothing runs there", ORANGE),
    State("request", "request its maintenance now", ORANGE),
    State("wait", "wait"),
)
"""What to do with a server in a maintenance window."""
OLDER: Final = (State(1, "older than the target", ORANGE),)
OUTDATED: Final = (State(0, "current"), State(1, "outdated", ORANGE))

GPU: Final = (
    State("unverified", "unverified", RED),
    State("idle", "idle", ORANGE),
    State("starting", "starting", PURPLE),
    State("disabled", "disabled", BLUE),
    State("earning", "earning", GREEN),
)
"""States of a GPU, the ones that cost most first; the texts are the values of `chutes_fleet_gpus`'
label `state`.
"""

SERVER: Final = (
    State(0, "in maintenance", "#F264B4"),
    State(1, "pending: do not reboot", "yellow"),
    State(2, "no GPUs", "#8e8e99"),
    State(3, "unverified", RED),
    State(4, "idle", ORANGE),
    State(5, "starting", PURPLE),
    State(6, "disabled", BLUE),
    State(7, "earning", GREEN),
)
"""States of a server, the first that applies first, by the number that the rules record."""

INSTANCE: Final = (
    State("starting", "starting", PURPLE),
    State("disabled", "disabled", BLUE),
    State("active", "active", GREEN),
)
"""States of an instance; the texts are the values of `chutes_fleet_instances`' label `state`."""
DECISIONS: Final = (
    State("in_vain", "starting in vain", ORANGE),
    State("slow", "starting over 1 h", ORANGE),
    State("disabled", "disabled", BLUE),
)
"""Decisions about an instance, but that of none."""
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
        ("probes", "light-orange"),
        ("requests", ORANGE),
        ("redeployed", "dark-purple"),
        ("none", "#8e8e99"),
        ("other", PLAIN),
        ("failed starts", "super-light-red"),
    )
)
"""Why instances ended: the values of the label `reason`, and starts that failed."""
WHY: Final = (
    State("miner", "its miner deleted it"),
    State("scale_down", "the platform needed fewer"),
    State("update", "its chute has a new version"),
    State("maintenance", "its server went into maintenance"),
    State("idle", "nobody used it"),
    State("no_balance", "its user has no balance"),
    State("chute_removed", "its chute was deleted"),
    State("not_active_in_time", "it did not start in time: read its log"),
    State("gpu_missing", "its GPU was deleted at the API"),
    State("verification", "a check of its start failed"),
    State("probes", "it failed probes: read its log"),
    State("requests", "it failed requests: read its log"),
    State("redeployed", "its chute was deployed again"),
    State("none", "no reason is given"),
    State("other", "the reason is not known"),
)
"""What the values of the label `reason` mean."""
OVERTAKING: Final = (
    State(-4, "you may overtake", GREEN),
    State(4, "may overtake you", ORANGE),
    State(0, "this miner", BLUE),
    State(-1, "too close to say"),
    State(1, "too close to say"),
    *(State(value, "stays") for value in (-3, -2, 2, 3)),
)
"""Whether a miner and the chosen one may change places: 1 for a lower rank and -1 for a higher one,
plus 3 for a heading above the chosen one's, and minus 3 for one below.
"""


SEVERITY: Final = (
    *(State(order, "critical", RED) for order in (0, 11, 21)),
    *(State(order, "warning", ORANGE) for order in (12, 22)),
)
"""Severities of alerts, in the order that the rules record: what has a deadline comes before the
others. The texts are the values of their label `severity`.
"""
NO_PLACE: Final = State("none", "see its board")
"""Stands for the place of an alert about no server or feed, or about a chute without a name."""
NONE: Final = (State(0, " "),)
"""Of dollars, where it is known that there are none."""
LAUNCH: Final = State("launch", "Launch: see the Market board")
"""What to do about idle GPUs without an alert."""
NOT_LAUNCHED: Final = (
    State("upgrade_slot", "nothing: it holds an upgrade slot"),
    State("upgrade_due", "nothing: its upgrade is due"),
    State("starts_hang", "nothing: a start hangs there"),
    State("may_be_dead", "nothing: it may be dead"),
)
"""Why nothing is to be launched on a server: the values of the label `reason`."""
