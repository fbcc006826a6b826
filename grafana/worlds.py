"""The worlds for which queries declare whether they have data. tests/grafana/ runs every query in
each world.
"""

from __future__ import annotations

import enum
from typing import Final


class World(enum.Enum):
    """A situation in which somebody looks at a board."""

    HEALTHY = "a miner whose GPUs all earn, watched by a pair of exporters"
    SICK = "miners with all possible problems, and with known prices"
    EMPTY = "a miner with a seat and a key, and nothing else"
    KEYLESS = "a miner that is watched without its key"
    DOWN = "an exporter that can no longer be scraped"


ALL: Final = frozenset(World)
LIVE: Final = ALL - {World.DOWN}
KEYED: Final = LIVE - {World.KEYLESS}
STOCKED: Final = KEYED - {World.EMPTY}
"""The miner has a key, servers, GPUs and instances."""
KEPT: Final = STOCKED | {World.DOWN}
"""What its servers earned before is known."""
BUSY: Final = LIVE - {World.EMPTY}
"""The miner has computed something."""
SICK: Final = frozenset({World.SICK})
HEALTHY: Final = frozenset({World.HEALTHY})
"""The miner has GPUs, and none is idle."""
COVERED: Final = SICK | HEALTHY
"""An exporter has run for a day."""
CHAINED: Final = SICK | {World.KEYLESS, World.HEALTHY}
"""The exporter asks the chain."""
UNCHAINED: Final = LIVE - CHAINED
PAID: Final = CHAINED - HEALTHY
"""The pay is known in dollars."""
PRICED: Final = SICK
"""The pay and the rent of the GPUs are known in dollars."""
ALARMED: Final = SICK | {World.DOWN}
"""Alerts fire."""
CALM: Final = ALL - ALARMED
FADING: Final = ALL
"""For counts over time, which still have data after an exporter went down."""
