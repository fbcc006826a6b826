"""All endpoints that the exporter knows: the sixteen of the Miner API Reference, and others of the
same service that miners need. Those whose answers are kept are feeds, and have lifetimes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from chutes_exporter.api import decoding as d
from chutes_exporter.api import records as r
from chutes_exporter.api.endpoint import MB, Endpoint
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.feeds import sanity_checks
from chutes_exporter.feeds.feed import Feed
from chutes_exporter.rules.demand import demand_is_unknown, load_is_unknown

if TYPE_CHECKING:
    from chutes_exporter.chain.subnet import Subnet
    from chutes_exporter.feeds.sanity_checks import Check

R = TypeVar("R", bound=r.Record)

_SHRUNK: Final[dict[str, Check]] = {"shrunk": sanity_checks.shrunk}
_DETAILED: Final = {"detailed": "true"}


def _stream(
    name: str,
    record: type[R],
    scope: Literal["platform", "signer"] = "platform",
    *,
    signed: bool = True,
    may_be_empty: bool = False,
    max_bytes: int = 4 * MB,
    **more: Any,
) -> Feed[list[R]]:
    """Return a feed under ``/miner/`` that answers with a stream of records.

    All other arguments are those of :class:`Feed`.
    """
    return Feed(
        name,
        path=f"/miner/{name}/",
        shape=d.StreamShape(record, may_be_empty=may_be_empty),
        scope=scope,
        signed=signed,
        max_bytes=max_bytes,
        **more,
    )


# The times to live in seconds follow the service's refresh periods:
# - 55: the miner's instances, requested at each scrape with the usual interval of one minute.
# - 115, the default: live lists of the platform, servers and GPUs. The service caches
#   /miner/metrics/ for 120 s, and its autoscaler sets targets every 2 minutes at most.
# - 175: the service reads the metagraph every 3 minutes.
# - 300: the service computes stats and scores every 10 minutes. The list of jobs contains all jobs
#   ever. A rolling update takes hours, and a maintenance window days.
# - 900: chutes and the GPUs of all miners are MB, and the autoscaler changes chutes every 15
#   minutes. The history gets a point an hour.
#
# The limits of bytes are at least three times what an answer takes with 2,000 chutes, 10,000 active
# instances and a miner with 1,000 GPUs and 1,000 instances. Only an audit report can have up to
# 13 MB, which is all that it may take.
METAGRAPH = Feed(
    "metagraph",
    "/miner/metagraph",
    d.list_of(r.MetagraphNode, never_empty=True),
    ttl=175.0,
    max_age=HOUR,
    checks=_SHRUNK,
)
SCORES = Feed("scores", "/miner/scores", d.SCORES, ttl=300.0, max_age=1800.0)
STATS = Feed("stats", "/miner/stats", d.STATS, max_bytes=8 * MB, ttl=300.0, max_age=1800.0)
STATS_PER_CHUTE = replace(STATS, name="stats_per_chute", scope="miner")
"""The same endpoint with another query."""
CHUTE_METRICS = _stream(
    "metrics",
    r.ChuteMetrics,
    signed=False,
    checks=_SHRUNK | {"no_demand": lambda _old, new: demand_is_unknown(new.value)},
)
ACTIVE_INSTANCES = Feed(
    "active_instances",
    "/miner/active_instances/",
    d.list_of(r.ActiveInstance),
    signed=True,
    max_bytes=8 * MB,
    checks=_SHRUNK,
)
CHUTES = _stream(
    "chutes",
    r.Chute,
    max_bytes=16 * MB,
    ttl=900.0,
    max_age=HOUR,
    checks=_SHRUNK
    | {
        "disagrees": sanity_checks.chutes_are_missing,
        "no_bounties": sanity_checks.bounties_of_chutes_are_gone,
    },
    evidence=(ACTIVE_INSTANCES, CHUTE_METRICS),
)
CHUTE = Endpoint("chute", "/miner/chutes/{chute_id}/{version}", d.object_of(r.Chute), signed=True)
SERVERS = Feed(
    "servers", "/miner/servers/", d.SERVERS, "signer", signed=True, max_bytes=4 * MB, checks=_SHRUNK
)
NODES = _stream(
    "nodes",
    r.Node,
    "signer",
    may_be_empty=True,
    checks=_SHRUNK | {"disagrees": sanity_checks.gpus_are_missing},
    evidence=(SERVERS,),
)
INVENTORY = Feed(
    "inventory",
    "/miner/inventory",
    d.list_of(r.InventoryItem),
    "signer",
    signed=True,
    max_bytes=4 * MB,
    ttl=55.0,
    max_age=600.0,
    checks=_SHRUNK,
)
INSTANCES = _stream(
    "instances",
    r.Instance,
    "signer",
    query={"explicit_null": "true"},
    ttl=55.0,
    max_age=600.0,
    checks=_SHRUNK | {"disagrees": sanity_checks.instances_are_missing},
    evidence=(INVENTORY,),
)
IMAGES = _stream("images", r.Image, ttl=900.0, max_age=HOUR, checks=_SHRUNK)
# Usually no job waits on the whole platform. No jobs and a failed query look the same, and nothing
# tells them apart. So a second answer must confirm that all are gone.
JOBS = _stream(
    "jobs", r.Job, may_be_empty=True, max_bytes=16 * MB, ttl=300.0, max_age=1800.0, checks=_SHRUNK
)
RELEASE_JOB = Endpoint[None](
    "release_job", "/miner/jobs/{job_id}", None, "signer", signed=True, method="DELETE"
)
# A new miner has no history yet.
UNIQUE_CHUTE_HISTORY = Feed(
    "unique_chute_history",
    "/miner/unique_chute_history/{hotkey}",
    d.list_of(r.HistoryPoint),
    "miner",
    ttl=900.0,
    max_age=7200.0,
    empty_if_404=True,
)
# The service dropped the rule, so that its next version may lack the endpoint.
THRASH_COOLDOWNS = Feed(
    "thrash_cooldowns",
    "/miner/thrash_cooldowns",
    d.list_of(r.ThrashCooldown),
    "signer",
    signed=True,
    ttl=HOUR,
    max_age=2 * HOUR,
    optional=True,
)
UTILIZATION = Feed(
    "utilization",
    "/chutes/utilization",
    d.list_of(r.ChuteUtilization),
    max_bytes=8 * MB,
    optional=True,
    checks=_SHRUNK | {"no_demand": lambda _old, new: load_is_unknown(new.value)},
)
BOUNTIES = Feed(
    "bounties",
    "/bounties/",
    d.list_of(r.Bounty),
    optional=True,
    checks={"no_bounties": sanity_checks.bounties_are_gone},
    evidence=(CHUTES,),
)
ROLLING_UPDATES = Feed(
    "rolling_updates",
    "/chutes/rolling_updates",
    d.list_of(r.RollingUpdate),
    ttl=300.0,
    max_age=1800.0,
    optional=True,
)
MAINTENANCE = Feed(
    "maintenance",
    "/servers/maintenance/policy",
    d.MAINTENANCE,
    "signer",
    signed=True,
    purpose="tee",
    ttl=300.0,
    max_age=1800.0,
    optional=True,
)
SERVER_MAINTENANCE = Endpoint(
    "server_maintenance",
    "/servers/{server_id}/maintenance",
    d.object_of(r.ServerMaintenance),
    "signer",
    signed=True,
    purpose="tee",
)
HELD_GPUS = Feed(
    "held_gpus",
    "/nodes/",
    d.HELD_GPUS,
    query=_DETAILED,
    max_bytes=8 * MB,
    ttl=900.0,
    max_age=HOUR,
    optional=True,
    checks=_SHRUNK | {"disagrees": sanity_checks.held_gpus_are_missing},
    evidence=(ACTIVE_INSTANCES,),
)
MINER_GPUS = Feed(
    "miner_gpus",
    "/nodes/",
    d.HELD_GPUS,
    "miner",
    query=_DETAILED,
    max_bytes=4 * MB,
    ttl=300.0,
    max_age=1800.0,
    optional=True,
)
SUPPORTED_GPUS = Feed(
    "supported_gpus",
    "/nodes/supported",
    d.by_model(r.SupportedGpu),
    ttl=DAY,
    max_age=7 * DAY,
    optional=True,
)
TEE_MEASUREMENTS = Feed(
    "tee_measurements",
    "/servers/tee/measurements",
    d.list_of(r.TeeMeasurement, never_empty=True),
    ttl=HOUR,
    max_age=DAY,
    optional=True,
)
FMV = Feed("fmv", "/fmv", d.object_of(r.MarketValue), ttl=HOUR, max_age=6 * HOUR, optional=True)
PLATFORM_GPUS = Feed(
    "platform_gpus", "/nodes/", d.by_model(r.ModelSupply), ttl=300.0, max_age=1800.0, optional=True
)
AUDIT = Endpoint("audit", "/audit/", d.list_of(r.AuditEntry))
# One answer has one report. The feed has those of the past day: its reader decides which requests
# are due. The age counts from when the newest report was read.
AUDIT_REPORT: Feed[Any] = Feed(
    "audit_report",
    "/audit/download",
    d.AUDIT_REPORT,
    max_bytes=32 * MB,
    ttl=55.0,
    max_age=3 * HOUR,
    optional=True,
    in_background=True,
)
# It is read with several requests to a node.
CHAIN: Feed[Subnet] = Feed(
    "chain", "", None, ttl=300.0, max_age=1800.0, checks=_SHRUNK, in_background=True
)

_ALL: Final = [value for value in [*globals().values()] if isinstance(value, Endpoint)]
FEEDS: tuple[Feed[Any], ...] = tuple(one for one in _ALL if isinstance(one, Feed))
"""All feeds."""
ENDPOINTS: tuple[Endpoint[Any], ...] = tuple(
    one for one in _ALL if one not in (STATS_PER_CHUTE, CHAIN)
)
"""All endpoints of the API, each once."""
