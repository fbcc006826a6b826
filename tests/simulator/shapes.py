"""The fields that the service sends, and the JSON types that each of them was seen with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

Row = dict[str, Any]
Fields = dict[str, set[str]]

_NAMES = {"NoneType": "null", "dict": "object", "list": "list"}

_GPU = "uuid:str gpu_identifier:str device_index:int verified_at:str|null verification_error:str|null"
_WORK = "miner_hotkey:str total_instances:int bounty_count:int compute_seconds:float compute_units:float"

_FIELDS = {
    "metagraph": "hotkey:str alpha_stake:float real_host:null checksum:str trust:float real_port:null vtrust:float "
    "synced_at:str coldkey:str last_updated:null blacklist_reason:str|null node_id:int ip:str incentive:float "
    "ip_type:int stake:float port:int netuid:int tao_stake:float protocol:int",
    "metrics": "chute_id:str end_date:str start_date:str compute_multiplier:float total_invocations:int "
    "total_compute_time:float|int error_count:int rate_limit_count:int instance_count:int utilization:float|int "
    "per_second_price_usd:float total_usage_usd:float|int",
    "nodes": f"{_GPU} name:str memory:int major:int|null minor:int|null processors:int sxm:bool|null clock_rate:float "
    "max_threads_per_processor:int concurrent_kernels:bool|null ecc:bool|null seed:int miner_hotkey:str "
    "server_id:str|null created_at:str|null verification_host:str verification_port:int",
    "instances": "instance_id:str chute_id:str version:str miner_uid:int miner_hotkey:str miner_coldkey:str "
    "region:str|null active:bool|null verified:bool|null last_queried_at:null created_at:str|null updated_at:null "
    "activated_at:str|null last_verified_at:str|null stop_billing_at:str|null billed_to:str|null "
    "verification_error:null consecutive_failures:int|null chutes_version:str|null config_id:str|null "
    "deployment_id:str|null cacert:str|null bounty:bool|null extra:object|null hourly_rate:float|null "
    "compute_multiplier:float|null",
    "inventory": "gpu_id:str last_verified_at:str|null verification_error:null active:bool|null chute_id:str "
    "chute_name:str|null",
    "jobs": "job_id:str user_id:str chute_id:str version:str chutes_version:str|null method:str miner_uid:int|null "
    "miner_hotkey:str|null miner_coldkey:str|null instance_id:null active:bool verified:bool last_queried_at:null "
    "created_at:str|null updated_at:str|null started_at:str|null finished_at:str|null job_args:object "
    "node_selector:null status:str result:object|null error_detail:str|null output_files:null miner_terminated:null "
    "miner_history:list compute_multiplier:float",
    "images": "image_id:str user_id:str name:str tag:str readme:str|null logo_id:str|null public:bool|null "
    "status:str|null created_at:str chutes_version:str|null patch_version:str|null build_started_at:str|null "
    "build_completed_at:str|null username:str",
    "chutes": "chute_id:str user_id:str name:str|null tagline:str|null readme:str|null tool_description:str|null "
    "image_id:str logo_id:str|null public:bool|null standard_template:str|null cords:list jobs:list|null "
    "node_selector:object slug:str|null code:str filename:str ref_str:str version:str concurrency:int|null "
    "boost:float|null chutes_version:str|null revision:str|null openrouter:bool|null discount:float|null "
    "created_at:str|null updated_at:str|null max_instances:int|null scaling_threshold:float|null "
    "shutdown_after_seconds:int|null allow_external_egress:bool|null encrypted_fs:bool|null tee:bool|null "
    "lock_modules:bool|null immutable:bool|null disabled:bool|null invocation_count:int supported_gpus:list "
    "preemptible:bool image:str effective_compute_multiplier:float compute_multiplier_factors:object bounty:int|null",
    "node_selector": "dynamic:bool exclude:list|null include:list|null gpu_count:int min_vram_gb_per_gpu:int|null "
    "max_hourly_price_per_gpu:null compute_multiplier:float supported_gpus:list",
    "active_instances": "instance_id:str miner_hotkey:str chute_id:str activated_at:str compute_multiplier:float",
    "unique_chute_history": "time:str count:int total_count:int",
    "servers": "server_id:str name:str ip:str is_tee:bool version:str|null maintenance_pending:bool "
    "created_at:str|null updated_at:str|null gpus:list",
    "server_gpus": _GPU,
    "stats": f"{_WORK} invocation_count:int total_bounty:float",
    "stats_bounties": "miner_hotkey:str total_bounty:float",
    "stats_per_chute": f"{_WORK} chute_id:str invocation_count:int",
    "utilization": "chute_id:str name:str|null timestamp:str utilization_current:float|null utilization_5m:float|null "
    "utilization_15m:float|null utilization_1h:float|null rate_limit_ratio_5m:float|null "
    "rate_limit_ratio_15m:float|null rate_limit_ratio_1h:float|null total_requests_5m:float|null "
    "total_requests_15m:float|null total_requests_1h:float|null completed_requests_5m:float|null "
    "completed_requests_15m:float|null completed_requests_1h:float|null rate_limited_requests_5m:float|null "
    "rate_limited_requests_15m:float|null rate_limited_requests_1h:float|null instance_count:int action_taken:str "
    "target_count:int effective_multiplier:float|null total_instance_count:int active_instance_count:int "
    "scalable:bool scale_allowance:int avg_busy_ratio:float|null total_invocations:float|null "
    "total_rate_limit_errors:float|null",
    "bounties": "chute_id:str bounty_amount:int seconds_elapsed:int time_remaining:int created_at:float",
    "rolling_updates": "chute_id:str old_version:str new_version:str started_at:str permitted:object",
    "maintenance": "active_window:object|null current_slots:int servers:list",
    "maintenance_window": "id:str target_measurement_version:str upgrade_window_start:str upgrade_window_end:str "
    "max_concurrent_per_miner:int",
    "maintenance_servers": "server_id:str name:str|null version:str|null needs_upgrade:bool in_maintenance:bool",
    "scores": "total_instances:float bounty_score:float instance_seconds:float instance_compute_units:float",
}
SHAPES: dict[str, Fields] = {
    name: {field: set(types.split("|")) for field, types in (one.split(":") for one in text.split())}
    for name, text in _FIELDS.items()
}
"""Written down from recorded answers of the service of May 2026, by the name of the record."""


def rows(body: bytes) -> list[Row]:
    """Return the records of a stream."""
    return [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: {")]


def records(name: str, body: bytes) -> dict[str, list[Row]]:
    """Return the records of an answer, and those inside of them, by the name that their shape has."""
    if name in ("metrics", "nodes", "instances", "jobs", "images", "chutes"):
        found = rows(body)
        return {name: found} | ({"node_selector": [row["node_selector"] for row in found]} if name == "chutes" else {})
    value = json.loads(body)
    match name:
        case "servers":
            return {name: value["servers"], "server_gpus": [gpu for one in value["servers"] for gpu in one["gpus"]]}
        case "stats" | "stats_per_chute":
            windows = [value[window] for window in ("past_hour", "past_day", "all")]
            lists = {name: [row for one in windows for key in ("instance_stats", "compute_units") for row in one[key]]}
            return lists | (
                {"stats_bounties": [row for one in windows for row in one["bounties"]]} if name == "stats" else {}
            )
        case "maintenance":
            window, servers = value["active_window"], value["servers"]
            return {name: [value], "maintenance_window": [window], "maintenance_servers": servers}
        case "scores":
            return {name: [row for row in value["raw_values"].values() if row]}
    return {name: value}


def shape(found: Iterable[Row]) -> Fields:
    """Return the fields of records, and the types that each of them has."""
    fields: Fields = {}
    for row in found:
        for field, value in row.items():
            kind = type(value).__name__
            fields.setdefault(field, set()).add(_NAMES.get(kind, kind))
    return fields
