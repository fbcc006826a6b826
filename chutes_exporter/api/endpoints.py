"""The sixteen endpoints of the Miner API Reference, and others of the same service that miners
need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from chutes_exporter.api import decoding as d
from chutes_exporter.api import records as r

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
        path: The path, with ``{...}`` for arguments. Without a path, the base address itself is
            asked.
        shape: The shape of the answer. None if the answer has no content.
        signed: Whether a request must be signed. Other requests are never signed.
        scope: Data of the whole platform, of the signing miner, or of a miner in the path or the
            query.
        query: Query parameters of every request.
        purpose: The word that ends the signed message.
        max_bytes: Limit of an answer: of the body, or of the records that are kept of a stream. All
            answers together must fit into 512 MB, with an older answer beside each.
    """

    name: str
    path: str
    shape: d.Shape[T] | d.StreamShape[Any] | None
    scope: Literal["platform", "signer", "miner"] = "platform"
    signed: bool = False
    method: Literal["GET", "DELETE", "POST"] = "GET"
    query: Mapping[str, str] | None = None
    purpose: Purpose = "miner"
    max_bytes: int = MB

    @property
    def source(self) -> str:
        """What metrics name: the method and the path, or the name without a path."""
        return f"{self.method} {self.path}" if self.path else self.name


def _stream(
    name: str,
    record: type[R],
    scope: Literal["platform", "signer"] = "platform",
    *,
    signed: bool = True,
    may_be_empty: bool = False,
    max_bytes: int = 4 * MB,
    **more: Any,
) -> Endpoint[list[R]]:
    """Return an endpoint under ``/miner/`` that answers with a stream of records.

    All other arguments are those of :class:`Endpoint`.
    """
    return Endpoint(
        name,
        path=f"/miner/{name}/",
        shape=d.StreamShape(record, may_be_empty=may_be_empty),
        scope=scope,
        signed=signed,
        max_bytes=max_bytes,
        **more,
    )


_DETAILED = {"detailed": "true"}

# The limits are at least three times what an answer takes with 2,000 chutes, 10,000 active
# instances and a miner with 1,000 GPUs and 1,000 instances. Only two are less: stats of each chute
# have up to 90,000 records, each sent twice, which is 44 MB. An audit report is 13 MB.
CHUTES = _stream("chutes", r.Chute, max_bytes=16 * MB)
CHUTE = Endpoint("chute", "/miner/chutes/{chute_id}/{version}", d.object_of(r.Chute), signed=True)
IMAGES = _stream("images", r.Image)
NODES = _stream("nodes", r.Node, "signer", may_be_empty=True)
SERVERS = Endpoint("servers", "/miner/servers/", d.SERVERS, "signer", signed=True, max_bytes=4 * MB)
INSTANCES = _stream(
    "instances",
    r.Instance,
    "signer",
    query={"explicit_null": "true"},
)
# Usually no job waits on the whole platform.
JOBS = _stream("jobs", r.Job, may_be_empty=True, max_bytes=16 * MB)
RELEASE_JOB = Endpoint[None](
    "release_job", "/miner/jobs/{job_id}", None, "signer", signed=True, method="DELETE"
)
INVENTORY = Endpoint(
    "inventory",
    "/miner/inventory",
    d.list_of(r.InventoryItem),
    "signer",
    signed=True,
    max_bytes=4 * MB,
)
CHUTE_METRICS = _stream("metrics", r.ChuteMetrics, signed=False)
ACTIVE_INSTANCES = Endpoint(
    "active_instances",
    "/miner/active_instances/",
    d.list_of(r.ActiveInstance),
    signed=True,
    max_bytes=8 * MB,
)
STATS = Endpoint(
    "stats",
    "/miner/stats",
    d.STATS,
    max_bytes=48 * MB,
)
SCORES = Endpoint("scores", "/miner/scores", d.SCORES)
UNIQUE_CHUTE_HISTORY = Endpoint(
    "unique_chute_history",
    "/miner/unique_chute_history/{hotkey}",
    d.list_of(r.HistoryPoint),
    "miner",
)
THRASH_COOLDOWNS = Endpoint(
    "thrash_cooldowns",
    "/miner/thrash_cooldowns",
    d.list_of(r.ThrashCooldown),
    "signer",
    signed=True,
    max_bytes=MB,
)
METAGRAPH = Endpoint("metagraph", "/miner/metagraph", d.list_of(r.MetagraphNode, never_empty=True))
UTILIZATION = Endpoint(
    "utilization", "/chutes/utilization", d.list_of(r.ChuteUtilization), max_bytes=8 * MB
)
BOUNTIES = Endpoint("bounties", "/bounties/", d.list_of(r.Bounty))
ROLLING_UPDATES = Endpoint("rolling_updates", "/chutes/rolling_updates", d.list_of(r.RollingUpdate))
MAINTENANCE = Endpoint(
    "maintenance",
    "/servers/maintenance/policy",
    d.MAINTENANCE,
    "signer",
    signed=True,
    purpose="tee",
)
SERVER_MAINTENANCE = Endpoint(
    "server_maintenance",
    "/servers/{server_id}/maintenance",
    d.object_of(r.ServerMaintenance),
    "signer",
    signed=True,
    purpose="tee",
)
HELD_GPUS = Endpoint("held_gpus", "/nodes/", d.HELD_GPUS, query=_DETAILED, max_bytes=8 * MB)
MINER_GPUS = Endpoint(
    "miner_gpus", "/nodes/", d.HELD_GPUS, "miner", query=_DETAILED, max_bytes=4 * MB
)
PLATFORM_GPUS = Endpoint("platform_gpus", "/nodes/", d.by_model(r.ModelSupply))
SUPPORTED_GPUS = Endpoint("supported_gpus", "/nodes/supported", d.by_model(r.SupportedGpu))
TEE_MEASUREMENTS = Endpoint(
    "tee_measurements", "/servers/tee/measurements", d.list_of(r.TeeMeasurement, never_empty=True)
)
FMV = Endpoint("fmv", "/fmv", d.object_of(r.MarketValue))
AUDIT = Endpoint("audit", "/audit/", d.list_of(r.AuditEntry))
AUDIT_REPORT = Endpoint("audit_report", "/audit/download", d.AUDIT_REPORT, max_bytes=32 * MB)

ENDPOINTS: tuple[Endpoint[Any], ...] = tuple(
    value for value in [*globals().values()] if isinstance(value, Endpoint)
)
"""All of the above."""
