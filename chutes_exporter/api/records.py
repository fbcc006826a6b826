"""What the endpoints answer, as typed records.

Only what the exporter uses is kept; unknown fields are ignored. A field that may be null or missing is ``None``
then: unknown, which is not zero. Times are Unix seconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec


class UnixTime(float):
    """Seconds since 1970-01-01 UTC, read from any of the API's three ways to write a time."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> UnixTime:
        """Read an ISO 8601 or PostgreSQL timestamp; without an offset it is UTC.

        Raises:
            ValueError: The text is no time.
        """
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            # Python's message would quote the text.
            raise ValueError("not a time") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return cls(moment.timestamp())


def decode_hook(kind: type, value: Any) -> Any:
    """Read the types that msgspec does not know (its ``dec_hook``)."""
    if kind is UnixTime and isinstance(value, str):
        return UnixTime.parse(value)
    raise ValueError(f"expected {kind.__name__}")


class Record(msgspec.Struct, frozen=True, gc=False):
    """What all records share."""


class NodeSelector(Record, frozen=True):
    """Which GPUs a chute asks for. Source: ``node_selector`` of chutes and jobs."""

    gpu_count: int | None = None
    min_vram_gb_per_gpu: float | None = None
    compute_multiplier: float | None = None
    supported_gpus: list[str] | None = None


class Chute(Record, frozen=True):
    """A workload that miners can run. Source: ``/miner/chutes/`` and ``/miner/chutes/{chute_id}/{version}``."""

    chute_id: str
    name: str | None = None
    slug: str | None = None
    version: str | None = None
    image: str | None = None
    standard_template: str | None = None
    public: bool | None = None
    tee: bool | None = None
    disabled: bool | None = None
    preemptible: bool | None = None
    concurrency: float | None = None
    boost: float | None = None
    discount: float | None = None
    max_instances: float | None = None
    scaling_threshold: float | None = None
    shutdown_after_seconds: float | None = None
    invocation_count: float | None = None
    node_selector: NodeSelector | None = None
    effective_compute_multiplier: float | None = None
    compute_multiplier_factors: dict[str, float | None] | None = None
    bounty: float | None = None


class Image(Record, frozen=True):
    """A container image that chutes are built on. Source: ``/miner/images/``."""

    image_id: str
    username: str | None = None
    name: str | None = None
    tag: str | None = None
    patch_version: str | None = None
    chutes_version: str | None = None
    public: bool | None = None
    status: str | None = None
    created_at: UnixTime | None = None
    build_started_at: UnixTime | None = None
    build_completed_at: UnixTime | None = None


class Node(Record, frozen=True):
    """One GPU of the signing miner. Source: ``/miner/nodes/``. ``memory`` in bytes, ``clock_rate`` in MHz."""

    uuid: str
    name: str | None = None
    memory: float | None = None
    gpu_identifier: str | None = None
    device_index: int | None = None
    server_id: str | None = None
    clock_rate: float | None = None
    processors: float | None = None
    verified_at: UnixTime | None = None
    verification_error: str | None = None
    verification_host: str | None = None
    created_at: UnixTime | None = None


class ServerGpu(Record, frozen=True):
    """A GPU as its server lists it. Source: ``gpus`` of ``/miner/servers/``."""

    uuid: str
    gpu_identifier: str | None = None
    device_index: int | None = None
    verified_at: UnixTime | None = None
    verification_error: str | None = None


class Server(Record, frozen=True):
    """A machine of the signing miner. Source: ``/miner/servers/``. Only ``server_id`` is unique."""

    server_id: str
    name: str | None = None
    ip: str | None = None
    is_tee: bool | None = None
    version: str | None = None
    maintenance_pending: bool | None = None
    created_at: UnixTime | None = None
    updated_at: UnixTime | None = None
    gpus: list[ServerGpu] | None = None


class Instance(Record, frozen=True):
    """A chute that runs, or starts, on the signing miner's GPUs. Source: ``/miner/instances/``.

    ``hourly_rate`` in USD per hour; ``verified`` but not ``active`` is still starting.
    """

    instance_id: str
    chute_id: str | None = None
    version: str | None = None
    region: str | None = None
    chutes_version: str | None = None
    active: bool | None = None
    verified: bool | None = None
    created_at: UnixTime | None = None
    activated_at: UnixTime | None = None
    last_verified_at: UnixTime | None = None
    last_queried_at: UnixTime | None = None
    stop_billing_at: UnixTime | None = None
    billed_to: str | None = None
    verification_error: str | None = None
    consecutive_failures: float | None = None
    bounty: bool | None = None
    hourly_rate: float | None = None
    compute_multiplier: float | None = None


class Job(Record, frozen=True):
    """A job that no instance has claimed yet. Source: ``/miner/jobs/``."""

    job_id: str
    chute_id: str | None = None
    method: str | None = None
    status: str | None = None
    created_at: UnixTime | None = None
    compute_multiplier: float | None = None
    miner_history: list[str] | None = None
    node_selector: NodeSelector | None = None


class InventoryItem(Record, frozen=True):
    """A GPU in use and the chute on it. Source: ``/miner/inventory``. A GPU that is not listed is idle."""

    gpu_id: str
    chute_id: str | None = None
    chute_name: str | None = None
    active: bool | None = None
    last_verified_at: UnixTime | None = None
    verification_error: str | None = None


class ChuteMetrics(Record, frozen=True):
    """Demand for a chute over the past hour. Source: ``/miner/metrics/``.

    ``total_compute_time`` in seconds, money in USD, ``utilization`` a ratio that may exceed 1.
    """

    chute_id: str
    total_invocations: float | None = None
    total_compute_time: float | None = None
    error_count: float | None = None
    rate_limit_count: float | None = None
    instance_count: float | None = None
    utilization: float | None = None
    compute_multiplier: float | None = None
    per_second_price_usd: float | None = None
    total_usage_usd: float | None = None


class ActiveInstance(Record, frozen=True):
    """An active instance of any miner. Source: ``/miner/active_instances/``."""

    instance_id: str
    miner_hotkey: str | None = None
    chute_id: str | None = None
    activated_at: UnixTime | None = None
    compute_multiplier: float | None = None


class MinerStats(Record, frozen=True):
    """What a miner computed in a window, in all or on one chute. Source: ``/miner/stats``.

    ``compute_units`` are seconds weighted by the compute multiplier.
    """

    miner_hotkey: str
    chute_id: str | None = None
    total_instances: float | None = None
    bounty_count: float | None = None
    compute_seconds: float | None = None
    compute_units: float | None = None


class StatsWindow(Record, frozen=True):
    """The records of one window.

    Attributes:
        records: One a miner (and chute, where asked per chute). A miner with nothing in the window has none.
        complete: False for the shape of 2025, which knows only ``compute_units``.
    """

    records: list[MinerStats]
    complete: bool


class Stats(Record, frozen=True):
    """Sums over sliding windows. Source: ``/miner/stats``. A window that the answer leaves out is None.

    Attributes:
        hour: ``past_hour``.
        day: ``past_day``.
        week: ``all``, which covers 7 days whatever its name says.
    """

    hour: StatsWindow | None
    day: StatsWindow | None
    week: StatsWindow | None


class RawScore(Record, frozen=True):
    """What a score is made of. Source: ``raw_values`` of ``/miner/scores``."""

    total_instances: float | None = None
    bounty_score: float | None = None
    instance_seconds: float | None = None
    instance_compute_units: float | None = None


class Scores(Record, frozen=True):
    """Every miner's score. Source: ``/miner/scores``.

    Attributes:
        raw: By hotkey; None for a hotkey without a score.
        shares: ``final_scores``: by hotkey, the share of all scores (they sum to 1); None without a score.
    """

    raw: dict[str, RawScore | None]
    shares: dict[str, float | None]


class HistoryPoint(Record, frozen=True):
    """One hour of a miner's week. Source: ``/miner/unique_chute_history/{hotkey}``.

    Attributes:
        time: The hour.
        count: Chutes that ran, weighted by GPUs.
        total_count: GPUs that were active.
    """

    time: UnixTime
    count: float | None = None
    total_count: float | None = None


class ThrashCooldown(Record, frozen=True):
    """A chute that the signing miner may not deploy for now. Source: ``/miner/thrash_cooldowns``."""

    chute_id: str
    chute_name: str | None = None
    deleted_at: UnixTime | None = None
    cooldown_expires_at: UnixTime | None = None


class MetagraphNode(Record, frozen=True):
    """A seat on the subnet. Source: ``/miner/metagraph``.

    ``node_id`` is the UID, ``last_updated`` a block number, ``incentive``, ``trust`` and ``vtrust`` are ratios.
    """

    hotkey: str
    coldkey: str | None = None
    node_id: int | None = None
    incentive: float | None = None
    trust: float | None = None
    vtrust: float | None = None
    stake: float | None = None
    tao_stake: float | None = None
    alpha_stake: float | None = None
    last_updated: float | None = None
    blacklist_reason: str | None = None
    ip: str | None = None
    port: int | None = None
    synced_at: UnixTime | None = None
