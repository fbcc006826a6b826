"""Typed records of the endpoints' answers.

Records have only the fields that the exporter uses. Decoding skips all others. So secrets and
users' data (``extra`` and ``cacert`` of instances, ``job_args`` of jobs) never reach a record, a
log line or an error.

A field that is null or missing is ``None``, which means unknown and not zero. Some fields use null
for "not yet", such as "not verified". They have the type :data:`Nullable`: null is ``None``, and a
missing field is ``UNSET``. Times are Unix seconds. Fields whose API name is misleading are renamed.
"""

from __future__ import annotations

from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Annotated, Any, ClassVar, Final, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

T = TypeVar("T")

Nullable: TypeAlias = T | UnsetType | None
"""A field in which null has a meaning. It is ``None`` for null, and ``UNSET`` if it is missing."""

Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""A whole number that a float can hold.

A longer one has no meaning, and would end a computation with an error.
"""


class UnixTime(float):
    """Seconds since 1970-01-01 UTC."""

    __slots__ = ()


def decode_hook(_kind: type[UnixTime], value: Any) -> UnixTime:
    """Decode a time (msgspec's ``dec_hook``) from any of the API's three formats.

    These are ``2026-11-24T13:31:01+00:00``, the same without an offset, which is UTC, and
    ``2026-11-24 13:31:01+00``.

    Raises:
        ValueError: The value is not a timestamp. The message does not quote it.
    """
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("not a time") from None
    # In the first and the last year, a conversion to UTC or some added hours may leave Python's
    # calendar.
    if not MINYEAR < moment.year < MAXYEAR:
        raise ValueError("not a time")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return UnixTime(moment.timestamp())


OLD_VERSION: Final = "has an old version"
"""A part of the text of an end by an update."""
PURGED: Final = "autoscaler - instance failed to verify"
"""The beginning of the text about an instance that was not active in time."""
END_TEXTS: Final = {
    "miner": ("miner initialized",),
    "scale_down": ("autoscaler - downscale adjustment",),
    "update": ("Rolling update", "VLLM/image upgrade", "SGLang/image upgrade"),
    "maintenance": ("maintenance - ",),
    "idle": ("user-defined/private chute instance has not been used since shutdown_after_seconds",),
    "no_balance": (
        "job has been terminated due to insufficient user balance",
        "user has zero/negative balance (private chute)",
    ),
    "chute_removed": ("chute deleted", "chute disabled", "stale make_public chute removed"),
    "not_active_in_time": (PURGED, "Instance took too long to activate"),
    "gpu_missing": ("autoscaler - instance node count mismatch",),
    "verification": (
        "Failed port verification",
        "Filesystem challenge failed",
        "Instance has failed filesystem verification",
        "PoVW ",
        "Live TLS cert verification failed",
    ),
    "probes": (
        "Failed 3 or more consecutive logging server probes",
        "CONNPROBE: ",
        "watchtower - ",
    ),
    "requests": (
        "catastrophic error",
        "server error after",
        "max failures reached",
        "miner responded with 426",
    ),
}
"""The beginnings of all texts in the service's code, by reason.

``docs/earnings.md`` explains the reasons.
"""


class Record(msgspec.Struct, frozen=True, gc=False):
    """Base class of all records.

    A class also declares what else is known about its objects in answers, which
    :mod:`~chutes_exporter.api.schema_drift` checks:

    Attributes:
        UNUSED: Names of fields that the service sends and that no metric shows, by the reason. Some
            are decoded, because answers are compared by them.
        SOMETIMES: Fields in use that a good answer may lack. Every other one is missing if no
            object has it.
    """

    UNUSED: ClassVar[dict[str, str]] = {}
    SOMETIMES: ClassVar[tuple[str, ...]] = ()


class Body(Record, frozen=True):
    """An object around records, of which each that can be read counts."""


class NodeSelector(Record, frozen=True):
    """The GPUs that a chute needs. Source: ``node_selector`` of chutes."""

    UNUSED: ClassVar = {
        "duplicate of the factor `base`": "compute_multiplier",
        "duplicate of their result `supported_gpus`": (
            "include exclude max_hourly_price_per_gpu dynamic"
        ),
    }
    # Only if the chute's author set it.
    SOMETIMES: ClassVar = ("min_vram_gb_per_gpu",)

    gpu_count: Whole | None = None
    min_vram_gb_per_gpu: float | None = None
    supported_gpus: list[str] | None = None


class Chute(Record, frozen=True):
    """A workload that miners can run.

    Source: ``/miner/chutes/`` and ``/miner/chutes/{chute_id}/{version}``.

    ``effective_compute_multiplier`` and its factors apply to the cheapest GPU that the chute
    allows. ``bounty`` is 100 plus 3 for each second of the bounty's age, and null without a bounty.
    ``disabled`` and ``chutes_version`` are null in old rows.
    """

    UNUSED: ClassVar = {
        "text": (
            "code readme tagline tool_description filename ref_str cords jobs logo_id revision"
        ),
        "users' data": "user_id",
        "duplicate of `image`": "image_id",
        "duplicate of the factor `urgency_boost` when it has an effect": "boost",
        "duplicate of `node_selector.supported_gpus`": "supported_gpus",
        "duplicate of `created_at` of `/bounties/`: it is 100 plus 3 for each second": "bounty",
        "constant (`hosted`)": "execution_backend",
    }

    chute_id: str
    name: str | None = None
    slug: str | None = None
    version: str | None = None
    image: str | None = None
    standard_template: str | None = None
    public: bool | None = None
    tee: bool | None = None
    disabled: Nullable[bool] = UNSET
    preemptible: bool | None = None
    concurrency: float | None = None
    discount: float | None = None
    max_instances: float | None = None
    scaling_threshold: float | None = None
    shutdown_after_seconds: float | None = None
    allow_external_egress: bool | None = None
    encrypted_fs: bool | None = None
    lock_modules: bool | None = None
    immutable: bool | None = None
    openrouter: bool | None = None
    created_at: UnixTime | None = None
    updated_at: UnixTime | None = None
    chutes_version: Nullable[str] = UNSET
    invocation_count: float | None = None
    node_selector: NodeSelector | None = None
    effective_compute_multiplier: float | None = None
    compute_multiplier_factors: dict[str, float | None] | None = None
    bounty: Nullable[float] = UNSET


class Image(Record, frozen=True):
    """A container image that chutes are built on.

    Source: ``/miner/images/``. ``status`` is null in old rows.
    """

    UNUSED: ClassVar = {"users' data": "user_id", "text": "readme logo_id"}

    image_id: str
    username: str | None = None
    name: str | None = None
    tag: str | None = None
    patch_version: str | None = None
    chutes_version: str | None = None
    public: bool | None = None
    status: Nullable[str] = UNSET
    created_at: UnixTime | None = None
    build_started_at: UnixTime | None = None
    build_completed_at: UnixTime | None = None


class Node(Record, frozen=True):
    """One GPU of the signing miner. Source: ``/miner/nodes/``.

    ``memory`` is in bytes, ``clock_rate`` in kHz. ``verified_at`` is null until a verification
    succeeds. ``verification_error`` belongs to the last failed verification. A GPU with both is
    usable.
    """

    UNUSED: ClassVar = {
        "duplicate of `gpu_identifier`, which decides them": (
            "max_threads_per_processor concurrent_kernels"
        ),
        "no use: a random number of the GPU's verification, which says nothing about it": "seed",
        "duplicate of the signing hotkey": "miner_hotkey",
        "duplicate of the server that lists the GPU": "server_id",
    }

    uuid: str
    name: str | None = None
    memory: float | None = None
    gpu_identifier: str | None = None
    device_index: Whole | None = None
    server_id: str | None = None
    clock_rate: float | None = None
    processors: float | None = None
    major: Whole | None = None
    minor: Whole | None = None
    sxm: bool | None = None
    ecc: bool | None = None
    verified_at: Nullable[UnixTime] = UNSET
    verification_error: Nullable[str] = UNSET
    verification_host: str | None = None
    verification_port: Whole | None = None
    created_at: UnixTime | None = None


class ServerGpu(Record, frozen=True):
    """A GPU as its server lists it. Source: ``gpus`` of ``/miner/servers/``."""

    UNUSED: ClassVar = {
        "duplicate of `/miner/nodes/`": (
            "gpu_identifier device_index verified_at verification_error"
        )
    }

    uuid: str
    gpu_identifier: str | None = None
    verified_at: Nullable[UnixTime] = UNSET


class Server(Record, frozen=True):
    """A machine of the signing miner. Source: ``/miner/servers/``. Only ``server_id`` is unique.

    ``version`` is that of the image at the last boot of a TEE server. It is null for a server that
    never booted one.
    """

    server_id: str
    name: str | None = None
    ip: str | None = None
    is_tee: bool | None = None
    version: Nullable[str] = UNSET
    maintenance_pending: bool | None = None
    created_at: UnixTime | None = None
    updated_at: UnixTime | None = None
    gpus: list[ServerGpu] | None = None


class ServersBody(Body, frozen=True):
    """The answer of ``/miner/servers/``."""

    servers: list[Server]


class Instance(Record, frozen=True):
    """A chute that runs or starts on the signing miner's GPUs. Source: ``/miner/instances/``.

    ``hourly_rate`` is in USD per hour. ``activated_at`` is null until the first activation. Its
    miner disabled an instance that has ``activated_at`` but is not ``active``. ``billed_to`` is
    null for public instances.
    """

    UNUSED: ClassVar = {
        "dead": "last_queried_at updated_at verification_error",
        "constant (0)": "consecutive_failures",
        "constant (`n/a`)": "region",
        "secret": "extra cacert",
        "duplicate of the signing hotkey and its seat": "miner_uid miner_hotkey miner_coldkey",
    }

    instance_id: str
    chute_id: str | None = None
    version: str | None = None
    chutes_version: str | None = None
    config_id: str | None = None
    deployment_id: str | None = None
    active: bool | None = None
    verified: bool | None = None
    created_at: UnixTime | None = None
    activated_at: Nullable[UnixTime] = UNSET
    last_verified_at: UnixTime | None = None
    stop_billing_at: UnixTime | None = None
    billed_to: Nullable[str] = UNSET
    bounty: bool | None = None
    hourly_rate: float | None = None
    compute_multiplier: float | None = None


class Job(Record, frozen=True):
    """A job without an instance: waiting, stuck or finished. Source: ``/miner/jobs/``.

    ``finished_at`` is null until the job is finished, ``miner_hotkey`` until a miner claims it.
    ``miner_history`` lists the miners that requested a launch token.
    """

    UNUSED: ClassVar = {
        "users' data": "job_args result output_files error_detail user_id",
        "dead (false)": "active verified",
        "dead": "last_queried_at",
        "constant (null: the list has only jobs without an instance)": "instance_id",
        "dead: the chute's selector is the right one": "node_selector",
        "duplicate of the chute's, when the job was created": "version chutes_version",
        "duplicate of `miner_hotkey` and its seat": "miner_uid miner_coldkey",
        "no use: only a job that ran has them, and no miner can run such a job again": (
            "started_at updated_at miner_terminated"
        ),
    }

    job_id: str
    chute_id: str | None = None
    method: str | None = None
    status: str | None = None
    created_at: UnixTime | None = None
    finished_at: Nullable[UnixTime] = UNSET
    miner_hotkey: Nullable[str] = UNSET
    compute_multiplier: float | None = None
    miner_history: list[str] | None = None


class InventoryItem(Record, frozen=True):
    """A GPU that an instance in any state holds. Source: ``/miner/inventory``.

    ``active`` and ``last_verified_at`` belong to the instance.
    """

    UNUSED: ClassVar = {
        "dead": "verification_error",
        "duplicate of `/miner/instances/`": "last_verified_at",
    }

    gpu_id: str
    chute_id: str | None = None
    chute_name: str | None = None
    active: bool | None = None
    last_verified_at: Nullable[UnixTime] = UNSET


class ChuteMetrics(Record, frozen=True):
    """Demand for a chute over the past hour.

    Source: ``/miner/metrics/``. A chute without an instance is missing.

    ``total_compute_time`` is in seconds, and ``utilization`` is a ratio that may exceed 1. All
    values of the service's own monitoring are 0 if the monitoring fails. ``end_date`` is when they
    were computed.
    """

    UNUSED: ClassVar = {"constant (0)": "error_count", "duplicate of `end_date`": "start_date"}

    chute_id: str
    total_invocations: float | None = None
    total_compute_time: float | None = None
    rate_limit_count: float | None = None
    instance_count: float | None = None
    utilization: float | None = None
    compute_multiplier: float | None = None
    per_second_price_usd: float | None = None
    total_usage_usd: float | None = None
    end_date: UnixTime | None = None


class ActiveInstance(Record, frozen=True):
    """An active instance of any miner, blacklisted or not. Source: ``/miner/active_instances/``."""

    instance_id: str
    miner_hotkey: str | None = None
    chute_id: str | None = None
    activated_at: UnixTime | None = None
    compute_multiplier: float | None = None


class MinerStats(Record, frozen=True, kw_only=True):
    """The compute of a miner in a sliding window, in total or on one chute.

    Source: ``/miner/stats``.

    A miner without compute in the window has no record. ``compute_units`` are seconds weighted by
    the compute multiplier.
    """

    UNUSED: ClassVar = {
        "duplicate of `total_instances`": "invocation_count",
        "duplicate of `bounty_count`": "total_bounty",
    }
    # The first is the key of the object, the second only in stats for each chute.
    SOMETIMES: ClassVar = ("window", "chute_id")

    window: str = ""
    miner_hotkey: str
    chute_id: str | None = None
    total_instances: float | None = None
    bounty_count: float | None = None
    compute_seconds: float | None = None
    compute_units: float | None = None


class StatsWindow(Body, frozen=True):
    """A window of ``/miner/stats``."""

    UNUSED: ClassVar = {"duplicate of `instance_stats`": "bounties compute_units"}

    instance_stats: list[MinerStats] | None = None


class StatsBody(Body, frozen=True):
    """The answer of ``/miner/stats``. ``all`` covers 7 days despite its name."""

    past_hour: StatsWindow | None = None
    past_day: StatsWindow | None = None
    all: StatsWindow | None = None


class RawScore(Record, frozen=True):
    """The values behind a score. Source: ``raw_values`` of ``/miner/scores``."""

    total_instances: float | None = None
    bounty_score: float | None = None
    instance_seconds: float | None = None
    instance_compute_units: float | None = None


class Scores(Body, frozen=True, rename={"shares": "final_scores", "raw": "raw_values"}):
    """The scores of all miners, by hotkey.

    Source: ``/miner/scores``. A hotkey without a score has None.

    ``shares`` have the sum 1. ``raw`` are the values over the past day.
    """

    shares: dict[str, float | None]
    raw: dict[str, RawScore | None] = {}


class HistoryPoint(Record, frozen=True):
    """One hour of a miner's week. Source: ``/miner/unique_chute_history/{hotkey}``.

    ``count`` are the chutes that ran, weighted by GPUs. ``total_count`` are the GPUs that were
    active.
    """

    time: UnixTime
    count: float | None = None
    total_count: float | None = None


class ComputeRecord(Record, frozen=True):
    """The compute multiplier of an instance for a time.

    Source: ``compute_history`` of an audit report.

    An instance has records once it was activated. They begin at its creation. The newest record has
    no end.
    """

    instance_id: str
    started_at: UnixTime
    compute_multiplier: float | None = None
    ended_at: UnixTime | None = None


class AuditEntry(Record, frozen=True):
    """An hourly audit report of the validator or of a miner. Source: ``/audit/``."""

    UNUSED: ClassVar = {"duplicate of `path`": "entry_id hotkey block"}

    path: str
    created_at: UnixTime | None = None
    start_time: UnixTime | None = None
    end_time: UnixTime | None = None


class AuditInstance(Record, frozen=True):
    """An instance of any miner that exists, or ended within the hour.

    Source: ``instance_audit`` of an audit report.

    Null means "not yet" in times, a public instance in ``billed_to``, and no in
    ``valid_termination``, which marks ends that do not cost the score. Without one of the fields,
    nothing follows from a record, so it cannot be read.
    """

    UNUSED: ClassVar = {
        "no use: only ends and multipliers are exported": (
            "version miner_uid region hourly_rate bounty"
        ),
        "no use: the multiplier at the claim, without later changes": "compute_multiplier",
    }

    instance_id: str
    miner_hotkey: str
    created_at: UnixTime
    activated_at: UnixTime | None
    deleted_at: UnixTime | None
    stop_billing_at: UnixTime | None
    billed_to: str | None
    deletion_reason: str | None
    valid_termination: bool | None
    chute_id: str | None = None
    verified_at: Nullable[UnixTime] = UNSET


class HourlyAudit(
    Body, frozen=True, rename={"instances": "instance_audit", "multipliers": "compute_history"}
):
    """The validator's report of an hour.

    Source: ``/audit/download``.

    ``end`` is the end of the hour, from the list of reports. ``complete`` says whether each record
    could be read.
    """

    SOMETIMES: ClassVar = ("end", "complete")  # not in the answer

    instances: list[AuditInstance]
    multipliers: list[ComputeRecord]
    end: float = 0.0
    complete: bool = True


class ThrashCooldown(Record, frozen=True):
    """A chute of which the signing miner lost an active instance in the past two hours.

    Source: ``/miner/thrash_cooldowns``, an empty list since May 2026. Until the cooldown expired, a
    new instance got neither urgency boost nor bounty.
    """

    UNUSED: ClassVar = {
        "duplicate of `/miner/chutes/`": "chute_name",
        "duplicate of `cooldown_expires_at`, two hours before": "deleted_at",
    }

    chute_id: str
    cooldown_expires_at: UnixTime | None = None


class ChuteUtilization(Record, frozen=True):
    """A chute as the autoscaler sees it.

    Source: ``/chutes/utilization``. Chutes that it never logged are missing.

    ``scale_allowance``, ``scalable``, ``total_instance_count`` and ``active_instance_count`` are
    current. All other fields are from the autoscaler's last run, at ``timestamp``. ``name`` is a
    placeholder for private chutes. The ratios are 0 if the autoscaler has no data, for example for
    a chute without an instance.
    """

    UNUSED: ClassVar = {
        "no use: the value of one moment, at the autoscaler's run": "utilization_current",
        "no use: the share of refused requests follows from them, and is exported": (
            "total_requests_5m total_requests_15m total_requests_1h "
            "completed_requests_5m completed_requests_15m completed_requests_1h "
            "rate_limited_requests_5m rate_limited_requests_15m rate_limited_requests_1h"
        ),
        "text: the autoscaler's own word for its decision": "action_taken",
        (
            "duplicate of `/miner/chutes/` `effective_compute_multiplier`, at the autoscaler's "
            "run, without the bounty"
        ): "effective_multiplier",
        "duplicate of `utilization_1h`, `total_requests_1h` and `rate_limited_requests_1h`": (
            "avg_busy_ratio total_invocations total_rate_limit_errors"
        ),
    }

    chute_id: str
    name: str | None = None
    timestamp: UnixTime | None = None
    utilization_5m: float | None = None
    utilization_15m: float | None = None
    utilization_1h: float | None = None
    rate_limit_ratio_5m: float | None = None
    rate_limit_ratio_15m: float | None = None
    rate_limit_ratio_1h: float | None = None
    instance_count: float | None = None
    target_count: float | None = None
    total_instance_count: float | None = None
    active_instance_count: float | None = None
    scalable: bool | None = None
    scale_allowance: float | None = None


class Bounty(Record, frozen=True):
    """An open bounty. Source: ``/bounties/``. Its chute may be gone.

    ``created_at`` is Unix time, ``seconds_elapsed`` its age and ``time_remaining`` the seconds
    until it expires, both when the answer was made and in whole seconds. ``time_remaining`` is 0
    where the service does not know it.
    """

    UNUSED: ClassVar = {
        "duplicate of `seconds_elapsed`: it is 100 plus 3 for each second": "bounty_amount"
    }

    chute_id: str
    created_at: float | None = None
    seconds_elapsed: float | None = None
    time_remaining: float | None = None


class RollingUpdate(Record, frozen=True):
    """A chute whose old instances are being replaced. Source: ``/chutes/rolling_updates``.

    All instances of another version than ``new_version`` are old.
    """

    UNUSED: ClassVar = {
        "no use: the number of instances that each miner had when the update started": "permitted",
        "no use: instances of any other version than `new_version` are old": "old_version",
    }

    chute_id: str
    new_version: str | None = None
    started_at: UnixTime | None = None


class ProvisionedChute(Record, frozen=True):
    """The instance that holds a GPU. Source: ``chute`` in ``/nodes/?detailed=true``."""

    UNUSED: ClassVar = {
        "no use: only the GPUs of instances are counted": "username name created_at verified bounty"
    }

    chute_id: str
    instance_id: str
    activated_at: Nullable[UnixTime] = UNSET


class ProvisionedGpu(Record, frozen=True):
    """A GPU that an instance holds. Source: ``provisioned`` in ``/nodes/?detailed=true``."""

    gpu: str
    chute: ProvisionedChute
    server_id: str | None = None


class MinerGpus(Body, frozen=True):
    """The GPUs of a miner. Source: ``/nodes/?detailed=true``."""

    UNUSED: ClassVar = {"no use: only GPUs in instances are counted": "idle"}

    provisioned: list[ProvisionedGpu]


class HeldGpu(Record, frozen=True):
    """A GPU that an instance of any miner holds, whatever the instance's state.

    Source: ``/nodes/?detailed=true``.

    ``gpu`` is the model. ``activated_at`` is null until the instance becomes active.
    """

    hotkey: str
    gpu: str
    server_id: str | None
    chute_id: str
    instance_id: str
    activated_at: Nullable[UnixTime] = UNSET


class ModelSupply(Record, frozen=True):
    """The GPUs of a model on the whole platform: in an instance, and in none.

    Source: ``/nodes/``.
    """

    SOMETIMES: ClassVar = ("gpu",)  # the key of the object in the answer

    gpu: str = ""
    provisioned: float | None = None
    idle: float | None = None


class SupportedGpu(Record, frozen=True):
    """A GPU model.

    Source: ``/nodes/supported``. ``hourly_rate`` is in USD and determines the compute multiplier.
    """

    UNUSED: ClassVar = {
        "no use: the same for all miners": (
            "memory clock_rate processors major minor sxm ecc max_threads_per_processor "
            "concurrent_kernels tensor_cores graval model_name_check"
        )
    }
    SOMETIMES: ClassVar = ("gpu",)  # the key of the object in the answer

    gpu: str = ""
    hourly_rate: float | None = None


class MarketValue(Record, frozen=True):
    """The price of TAO in US dollars. Source: ``/fmv``."""

    tao: Annotated[float, msgspec.Meta(gt=0)] | None = None


class TeeMeasurement(Record, frozen=True):
    """A version of the TEE image that may boot, on one class of hosts.

    Source: ``/servers/tee/measurements``. A host has only models of ``expected_gpus``, and
    ``gpu_count`` GPUs, or any number if that is null or 0. Its class also depends on hardware that
    no answer shows.
    """

    UNUSED: ClassVar = {
        "no use: no answer has the hashes of a server": (
            "name mrtd boot_rtmrs runtime_rtmrs fingerprint"
        )
    }

    version: str
    expected_gpus: list[str] | None = None
    gpu_count: Nullable[float] = UNSET


class MaintenanceWindow(Record, frozen=True):
    """A time in which TEE servers are upgraded.

    Source: ``active_window`` of ``/servers/maintenance/policy``.
    """

    id: str | None = None
    target_measurement_version: str | None = None
    upgrade_window_start: UnixTime | None = None
    upgrade_window_end: UnixTime | None = None
    max_concurrent_per_miner: float | None = None


class MaintenanceServer(Record, frozen=True):
    """A TEE server of the signing miner. Source: ``servers`` of ``/servers/maintenance/policy``.

    ``needs_upgrade`` is measured against the target of the newest window, whether it is open or
    not. ``maintenance_status`` is missing before October 2026. ``in_maintenance`` is false while it
    is pending.
    """

    SOMETIMES: ClassVar = ("maintenance_status",)

    server_id: str
    name: str | None = None
    version: str | None = None
    needs_upgrade: bool | None = None
    in_maintenance: bool | None = None
    maintenance_status: Nullable[str] = UNSET


class WaitingInstance(Record, frozen=True):
    """An instance that serves until another one of its chute is active.

    Source: ``awaiting_replacement``.
    """

    chute_id: str
    instance_id: str | None = None


class ServerMaintenance(Record, frozen=True):
    """What a server waits for whose maintenance is pending.

    Source: ``/servers/{server_id}/maintenance``.
    """

    UNUSED: ClassVar = {
        "duplicate of `/servers/maintenance/policy`": "server_id maintenance_status",
        "no use: when the service last looked": "reconciled_at",
    }

    awaiting_replacement: list[WaitingInstance]
    pending_deadline: UnixTime | None = None


class MaintenancePolicy(Body, frozen=True):
    """The newest maintenance window and the signing miner's TEE servers.

    Source: ``/servers/maintenance/policy``.

    ``active_window`` has the latest start: it is over, open or to come, or null before the first
    window. ``window_open`` is missing on a deployment of May 2026, which lists only open windows.
    ``current_slots`` are the miner's servers that hold an upgrade slot of this window. ``servers``
    is empty before the first window.
    """

    SOMETIMES: ClassVar = ("window_open",)

    active_window: MaintenanceWindow | None
    window_open: Nullable[bool] = UNSET
    current_slots: float | None = None
    servers: list[MaintenanceServer] | None = None


class MetagraphNode(
    Record, frozen=True, rename={"consensus": "vtrust", "registered_at": "synced_at"}
):
    """A seat on the subnet. Source: ``/miner/metagraph``.

    ``node_id`` is the UID. ``incentive`` and ``consensus`` are the chain's numbers from 0 to 65535.
    :mod:`~chutes_exporter.rules.score` converts them to ratios. The API calls ``consensus``
    ``vtrust``. ``registered_at`` is the time at which the service first saw this hotkey in the
    seat. The API calls it ``synced_at``. ``blacklist_reason`` is null or empty for miners that are
    not blacklisted.
    """

    UNUSED: ClassVar = {
        "constant (0)": "trust",
        "dead": "last_updated real_host real_port",
        "no use: nothing connects to the axon of a miner of this subnet": (
            "ip ip_type port protocol"
        ),
        "constant (64)": "netuid",
        "text": "checksum",
    }

    hotkey: str
    coldkey: str | None = None
    node_id: Whole | None = None
    incentive: float | None = None
    consensus: float | None = None
    stake: float | None = None
    tao_stake: float | None = None
    alpha_stake: float | None = None
    blacklist_reason: Nullable[str] = UNSET
    registered_at: UnixTime | None = None
