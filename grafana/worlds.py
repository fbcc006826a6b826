"""The worlds that boards declare their looks for; tests/grafana/ makes each of them, and asks every query in it."""

from __future__ import annotations

import enum
from typing import Final


class World(enum.Enum):
    """What a board may be looked at in."""

    HEALTHY = "a miner whose every GPU earns, watched by a pair of exporters"
    SICK = "miners with all the troubles that there are"
    EMPTY = "a miner with a seat and a key, and nothing else"
    KEYLESS = "a miner that is watched without its key"
    DOWN = "an exporter that was there, and cannot be scraped any more"


ALL: Final = frozenset(World)
LIVE: Final = ALL - {World.DOWN}
KEYED: Final = LIVE - {World.KEYLESS}
STOCKED: Final = KEYED - {World.EMPTY}
"""Where the miner has a key, and servers, GPUs and instances."""
BUSY: Final = LIVE - {World.EMPTY}
"""Where the miner has computed something."""
SICK: Final = frozenset({World.SICK})
ALARMED: Final = SICK | {World.DOWN}
"""Where alerts fire."""
FADING: Final = ALL
"""Rates and the like look back, and so outlive an exporter for some minutes."""
FADING_BUSY: Final = BUSY | {World.DOWN}
FADING_KEYED: Final = KEYED | {World.DOWN}
