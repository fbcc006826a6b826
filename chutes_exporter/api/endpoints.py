"""The sixteen endpoints of the Miner API Reference, and others of the same service that miners need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from chutes_exporter.api import records as r
from chutes_exporter.api.decoding import (
    CsvShape,
    Shape,
    StreamShape,
    held_gpus_body,
    list_of,
    maintenance_body,
    one,
    scores_body,
    servers_body,
    stats_body,
    supported_gpus_body,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.keys import Purpose

MB = 1_000_000

T = TypeVar("T")
R = TypeVar("R", bound=r.Record)


@dataclass(frozen=True, eq=False)
class Endpoint(Generic[T]):
    """One endpoint of the API.

    Attributes:
        name: Short name in labels, flags and commands.
        path: The path, with ``{...}`` for arguments.
        shape: The shape of the answer. None if the answer has no content.
        signed: Whether a request must be signed. Other requests are never signed.
        scope: Data of the whole platform, of the signing miner, or of a miner in the path.
        method: The HTTP method.
        query: Query parameters of every request.
        purpose: The word that ends the signed message.
        max_bytes: Limit of an answer: of the body, or of the records that are kept of a stream. All answers together
            must fit into 512 MB, with an older answer beside each.
    """

    name: str
    path: str
    shape: Shape[T] | StreamShape[Any] | None
    signed: bool
    scope: Literal["platform", "signer", "miner"]
    method: Literal["GET", "DELETE"] = "GET"
    query: Mapping[str, str] | None = None
    purpose: Purpose = "miner"
    max_bytes: int = MB

    def __repr__(self) -> str:
        return f"<{self.method} {self.path}>"


def _stream(
    name: str,
    record: type[R],
    *,
    scope: Literal["platform", "signer"],
    signed: bool = True,
    may_be_empty: bool = False,
    query: Mapping[str, str] | None = None,
    max_bytes: int = 4 * MB,
) -> Endpoint[list[R]]:
    shape: StreamShape[R] = StreamShape(record, may_be_empty=may_be_empty)
    return Endpoint(name, f"/miner/{name}/", shape, signed, scope, query=query, max_bytes=max_bytes)


# The limits are at least three times what an answer takes with 2,000 chutes, 10,000 active instances and a miner with
# 1,000 GPUs and 1,000 instances. Stats of each chute have up to 90,000 records, each sent twice: 44 MB.
CHUTES = _stream("chutes", r.Chute, scope="platform", max_bytes=16 * MB)
IMAGES = _stream("images", r.Image, scope="platform")
NODES = _stream("nodes", r.Node, scope="signer", may_be_empty=True)
SERVERS = Endpoint("servers", "/miner/servers/", servers_body(), signed=True, scope="signer", max_bytes=4 * MB)
INSTANCES = _stream("instances", r.Instance, scope="signer", query={"explicit_null": "true"})
# Usually no job waits on the whole platform.
JOBS = _stream("jobs", r.Job, scope="platform", may_be_empty=True, max_bytes=16 * MB)
RELEASE_JOB: Endpoint[None] = Endpoint(
    "release_job", "/miner/jobs/{job_id}", None, signed=True, scope="signer", method="DELETE"
)
INVENTORY = Endpoint(
    "inventory", "/miner/inventory", list_of(r.InventoryItem), signed=True, scope="signer", max_bytes=4 * MB
)
METRICS = _stream("metrics", r.ChuteMetrics, scope="platform", signed=False)
ACTIVE_INSTANCES = Endpoint(
    "active_instances",
    "/miner/active_instances/",
    list_of(r.ActiveInstance),
    signed=True,
    scope="platform",
    max_bytes=8 * MB,
)
CHUTE = Endpoint("chute", "/miner/chutes/{chute_id}/{version}", one(r.Chute), signed=True, scope="platform")
STATS = Endpoint("stats", "/miner/stats", stats_body(), signed=False, scope="platform", max_bytes=48 * MB)
SCORES = Endpoint("scores", "/miner/scores", scores_body(), signed=False, scope="platform")
UNIQUE_CHUTE_HISTORY = Endpoint(
    "unique_chute_history",
    "/miner/unique_chute_history/{hotkey}",
    list_of(r.HistoryPoint),
    signed=False,
    scope="miner",
)
THRASH_COOLDOWNS = Endpoint(
    "thrash_cooldowns", "/miner/thrash_cooldowns", list_of(r.ThrashCooldown), signed=True, scope="signer"
)
METAGRAPH = Endpoint(
    "metagraph", "/miner/metagraph", list_of(r.MetagraphNode, never_empty=True), signed=False, scope="platform"
)

UTILIZATION = Endpoint(
    "utilization", "/chutes/utilization", list_of(r.ChuteUtilization), signed=False, scope="platform", max_bytes=8 * MB
)
BOUNTIES = Endpoint("bounties", "/bounties/", list_of(r.Bounty), signed=False, scope="platform")
ROLLING_UPDATES = Endpoint(
    "rolling_updates", "/chutes/rolling_updates", list_of(r.RollingUpdate), signed=False, scope="platform"
)
MAINTENANCE = Endpoint(
    "maintenance", "/servers/maintenance/policy", maintenance_body(), signed=True, scope="signer", purpose="tee"
)
HELD_GPUS = Endpoint(
    "held_gpus",
    "/nodes/",
    held_gpus_body(),
    signed=False,
    scope="platform",
    query={"detailed": "true"},
    max_bytes=8 * MB,
)
MINER_GPUS = Endpoint(
    "miner_gpus",
    "/nodes/",
    held_gpus_body(),
    signed=False,
    scope="miner",
    query={"detailed": "true"},
    max_bytes=4 * MB,
)
SUPPORTED_GPUS = Endpoint("supported_gpus", "/nodes/supported", supported_gpus_body(), signed=False, scope="platform")
TEE_MEASUREMENTS = Endpoint(
    "tee_measurements",
    "/servers/tee/measurements",
    list_of(r.TeeMeasurement, never_empty=True),
    signed=False,
    scope="platform",
)

COMPUTE_HISTORY: Endpoint[list[r.ComputeRecord]] = Endpoint(
    "compute_history",
    "/instances/compute_history_csv",
    CsvShape(r.ComputeRecord),
    signed=False,
    scope="platform",
    max_bytes=128 * MB,
)


def stats_params(hotkey: str | None = None, *, per_chute: bool = False) -> dict[str, str]:
    """Return the query of :data:`STATS` for all miners or one, in total or for each chute."""
    return ({"miner_hotkey": hotkey} if hotkey else {}) | ({"per_chute": "true"} if per_chute else {})


ENDPOINTS: tuple[Endpoint[Any], ...] = (
    CHUTES,
    CHUTE,
    IMAGES,
    NODES,
    SERVERS,
    INSTANCES,
    JOBS,
    RELEASE_JOB,
    INVENTORY,
    METRICS,
    ACTIVE_INSTANCES,
    STATS,
    SCORES,
    UNIQUE_CHUTE_HISTORY,
    THRASH_COOLDOWNS,
    METAGRAPH,
    UTILIZATION,
    BOUNTIES,
    ROLLING_UPDATES,
    MAINTENANCE,
    HELD_GPUS,
    MINER_GPUS,
    SUPPORTED_GPUS,
    TEE_MEASUREMENTS,
)

ON_REQUEST: tuple[Endpoint[Any], ...] = (COMPUTE_HISTORY,)
"""Endpoints that are heavy for the service. Only a command requests them, and only if the user asks for it."""
