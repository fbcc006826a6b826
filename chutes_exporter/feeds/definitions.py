"""The definitions of all feeds, with their lifetimes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from chutes_exporter.api import endpoints as e
from chutes_exporter.chain.node import CHAIN as NODE
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.feeds import sanity_checks
from chutes_exporter.feeds.feed import Feed
from chutes_exporter.rules.demand import demand_is_unknown, load_is_unknown

if TYPE_CHECKING:
    from chutes_exporter.api.endpoints import Endpoint
    from chutes_exporter.chain.subnet import Subnet
    from chutes_exporter.feeds.reports import Reports
    from chutes_exporter.feeds.sanity_checks import Check

T = TypeVar("T")

_SHRUNK: Final[dict[str, Check]] = {"shrunk": sanity_checks.shrunk}


def _feed(endpoint: Endpoint[T], ttl: float, max_age: float, **more: Any) -> Feed[T]:
    """Return the feed that has the name of its endpoint."""
    return Feed(endpoint.name, endpoint, ttl, max_age, **more)


# The times to live in seconds, the first number, follow the service's refresh periods:
# - 55: the miner's instances, requested at each scrape with the usual interval of one minute.
# - 115: live lists of the platform, servers and GPUs. The service caches /miner/metrics/ for 120 s,
#   and its autoscaler sets targets every 2 minutes at most.
# - 175: the service reads the metagraph every 3 minutes.
# - 300: the service computes stats and scores every 10 minutes. The list of jobs contains all jobs
#   ever. A rolling update takes hours, and a maintenance window days.
# - 900: chutes and the GPUs of all miners are MB, and the autoscaler changes chutes every 15
#   minutes. The history gets a point an hour.
METAGRAPH = _feed(e.METAGRAPH, 175.0, HOUR, changes="every 3 minutes")
SCORES = _feed(e.SCORES, 300.0, 1800.0, changes="every 10 minutes", checks={})
STATS = _feed(e.STATS, 300.0, 1800.0, changes="every 10 minutes", checks={})
STATS_PER_CHUTE = replace(STATS, name="stats_per_chute", per_chute=True)
CHUTE_METRICS = _feed(
    e.CHUTE_METRICS,
    115.0,
    900.0,
    changes="every 2 minutes",
    checks=_SHRUNK | {"no_demand": lambda _old, new: demand_is_unknown(new.value)},
)
ACTIVE_INSTANCES = _feed(e.ACTIVE_INSTANCES, 115.0, 900.0)
CHUTES = _feed(
    e.CHUTES,
    900.0,
    HOUR,
    checks=_SHRUNK
    | {
        "disagrees": sanity_checks.chutes_are_missing,
        "no_bounties": sanity_checks.bounties_of_chutes_are_gone,
    },
    evidence=(ACTIVE_INSTANCES, CHUTE_METRICS),
)
SERVERS = _feed(e.SERVERS, 115.0, 900.0)
NODES = _feed(
    e.NODES,
    115.0,
    900.0,
    checks=_SHRUNK | {"disagrees": sanity_checks.gpus_are_missing},
    evidence=(SERVERS,),
)
INVENTORY = _feed(e.INVENTORY, 55.0, 600.0)
INSTANCES = _feed(
    e.INSTANCES,
    55.0,
    600.0,
    checks=_SHRUNK | {"disagrees": sanity_checks.instances_are_missing},
    evidence=(INVENTORY,),
)
IMAGES = _feed(e.IMAGES, 900.0, HOUR)
# No jobs and a failed query look the same, and nothing tells them apart. So a second answer must
# confirm that all are gone.
JOBS = _feed(e.JOBS, 300.0, 1800.0)
# A new miner has no history yet.
UNIQUE_CHUTE_HISTORY = _feed(
    e.UNIQUE_CHUTE_HISTORY,
    900.0,
    7200.0,
    changes="hourly",
    empty_if_404=True,
    checks={"no_history": sanity_checks.history_is_gone},
)
# The service dropped the rule, so that its next version may lack the endpoint.
THRASH_COOLDOWNS = _feed(
    e.THRASH_COOLDOWNS,
    HOUR,
    2 * HOUR,
    changes="never since May 2026",
    optional=True,
    checks={},
)
UTILIZATION = _feed(
    e.UTILIZATION,
    115.0,
    900.0,
    changes="counts live, the rest every 2 minutes",
    optional=True,
    checks=_SHRUNK | {"no_demand": lambda _old, new: load_is_unknown(new.value)},
)
BOUNTIES = _feed(
    e.BOUNTIES,
    115.0,
    900.0,
    optional=True,
    checks={"no_bounties": sanity_checks.bounties_are_gone},
    evidence=(CHUTES,),
)
ROLLING_UPDATES = _feed(e.ROLLING_UPDATES, 300.0, 1800.0, optional=True, checks={})
MAINTENANCE = _feed(e.MAINTENANCE, 300.0, 1800.0, optional=True, checks={})
HELD_GPUS = _feed(
    e.HELD_GPUS,
    900.0,
    HOUR,
    optional=True,
    checks=_SHRUNK | {"disagrees": sanity_checks.held_gpus_are_missing},
    evidence=(ACTIVE_INSTANCES,),
)
MINER_GPUS = _feed(e.MINER_GPUS, 300.0, 1800.0, optional=True, checks={})
SUPPORTED_GPUS = _feed(e.SUPPORTED_GPUS, DAY, 7 * DAY, changes="by hand", optional=True, checks={})
TEE_MEASUREMENTS = _feed(e.TEE_MEASUREMENTS, HOUR, DAY, changes="by hand", optional=True, checks={})
FMV = _feed(e.FMV, HOUR, 6 * HOUR, changes="hourly", optional=True, checks={})
PLATFORM_GPUS = _feed(e.PLATFORM_GPUS, 300.0, 1800.0, optional=True, checks={})
# An answer has the reports of the past day. Its reader decides which requests are due. The age
# counts from when the newest report was read.
_ONE_REPORT: Endpoint[Any] = e.AUDIT_REPORT
AUDIT_REPORT: Feed[Reports] = _feed(
    _ONE_REPORT,
    55.0,
    3 * HOUR,
    changes="hourly, and is requested then",
    optional=True,
    checks={},
    in_background=True,
)
_SEVERAL_REPLIES: Endpoint[Any] = NODE
CHAIN: Feed[Subnet] = _feed(
    _SEVERAL_REPLIES,
    300.0,
    1800.0,
    changes="every 12 seconds, pay about every 72 minutes",
    checks=_SHRUNK | {"disagrees": sanity_checks.seats_are_others},
    evidence=(METAGRAPH,),
    in_background=True,
)

FEEDS: tuple[Feed[Any], ...] = tuple(
    value for value in [*globals().values()] if isinstance(value, Feed)
)
"""All of the above."""
