"""The worlds for which queries declare whether they have data. tests/grafana/ runs every query in each world."""

from __future__ import annotations

import enum
from typing import Final


class World(enum.Enum):
    """A situation in which somebody looks at a board."""

    HEALTHY = "a miner whose GPUs all earn, watched by a pair of exporters"
    SICK = "miners with all possible problems"
    EMPTY = "a miner with a seat and a key, and nothing else"
    KEYLESS = "a miner that is watched without its key"
    DOWN = "an exporter that can no longer be scraped"


ALL: Final = frozenset(World)
LIVE: Final = ALL - {World.DOWN}
KEYED: Final = LIVE - {World.KEYLESS}
STOCKED: Final = KEYED - {World.EMPTY}
"""The miner has a key, servers, GPUs and instances."""
BUSY: Final = LIVE - {World.EMPTY}
"""The miner has computed something."""
SICK: Final = frozenset({World.SICK})
ALARMED: Final = SICK | {World.DOWN}
"""Alerts fire."""
FADING: Final = ALL
"""For rates, which look back and still have data some minutes after an exporter went down."""
FADING_BUSY: Final = BUSY | {World.DOWN}
FADING_STOCKED: Final = STOCKED | {World.DOWN}
NEEDS_A_DAY: Final[frozenset[World]] = frozenset()
"""Where rules have recorded for a day, as in the pictures. In the tests they have just been loaded."""
