"""docs/dev/fields.md: every field that the service sends is used by a record or listed there with a reason."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chutes_exporter.api import records
from tests.support import RECORDINGS, ROOT

DIRECTORIES = [RECORDINGS, *map(Path, filter(None, [os.environ.get("CHUTES_EXPORTER_TEST_RECORDINGS")]))]
TABLE = [
    (match[1], set(re.findall(r"`(\w+)`", match[2])), match[3])
    for match in re.finditer(
        r"^\| ([a-z_.]+) \| (`[^|]+) \| ([^|]+) \|$", (ROOT / "docs" / "dev" / "fields.md").read_text(), re.MULTILINE
    )
]
LEFT_OUT = {
    endpoint: {field for name, fields, _ in TABLE for field in fields if name == endpoint} for endpoint, _, _ in TABLE
}
REASONS = ("constant", "dead", "duplicate", "secret", "users' data", "text", "no use")

SENT: dict[str, tuple[type[records.Record], str]] = {
    "metagraph": (
        records.MetagraphNode,
        (
            "netuid hotkey coldkey node_id incentive trust vtrust stake tao_stake alpha_stake last_updated synced_at "
            "ip ip_type port protocol real_host real_port blacklist_reason checksum"
        ),
    ),
    "chutes": (
        records.Chute,
        (
            "chute_id user_id name tagline readme tool_description image_id logo_id public standard_template cords "
            "jobs node_selector slug code filename ref_str version concurrency boost chutes_version revision "
            "openrouter discount created_at updated_at max_instances scaling_threshold shutdown_after_seconds "
            "allow_external_egress encrypted_fs tee lock_modules immutable disabled invocation_count supported_gpus "
            "preemptible image effective_compute_multiplier compute_multiplier_factors bounty"
        ),
    ),
    "chutes.node_selector": (
        records.NodeSelector,
        (
            "gpu_count min_vram_gb_per_gpu max_hourly_price_per_gpu include exclude dynamic compute_multiplier "
            "supported_gpus"
        ),
    ),
    "images": (
        records.Image,
        (
            "image_id user_id username name tag readme logo_id public status created_at chutes_version patch_version "
            "build_started_at build_completed_at"
        ),
    ),
    "nodes": (
        records.Node,
        (
            "uuid name memory major minor processors sxm clock_rate max_threads_per_processor concurrent_kernels ecc "
            "seed miner_hotkey gpu_identifier device_index server_id created_at verification_host verification_port "
            "verification_error verified_at"
        ),
    ),
    "servers": (
        records.Server,
        "server_id name ip is_tee version maintenance_pending created_at updated_at gpus",
    ),
    "servers.gpus": (records.ServerGpu, "uuid gpu_identifier device_index verified_at verification_error"),
    "instances": (
        records.Instance,
        (
            "instance_id chute_id version miner_uid miner_hotkey miner_coldkey region active verified last_queried_at "
            "created_at updated_at activated_at last_verified_at stop_billing_at billed_to verification_error "
            "consecutive_failures chutes_version config_id deployment_id cacert bounty extra hourly_rate "
            "compute_multiplier"
        ),
    ),
    "jobs": (
        records.Job,
        (
            "job_id user_id chute_id version chutes_version method miner_uid miner_hotkey miner_coldkey instance_id "
            "active verified last_queried_at created_at updated_at started_at finished_at job_args node_selector "
            "status result error_detail output_files miner_terminated miner_history compute_multiplier"
        ),
    ),
    "inventory": (
        records.InventoryItem,
        "gpu_id last_verified_at verification_error active chute_id chute_name",
    ),
    "metrics": (
        records.ChuteMetrics,
        (
            "chute_id start_date end_date compute_multiplier total_invocations total_compute_time error_count "
            "rate_limit_count instance_count utilization per_second_price_usd total_usage_usd"
        ),
    ),
    "active_instances": (
        records.ActiveInstance,
        "instance_id miner_hotkey chute_id activated_at compute_multiplier",
    ),
    "stats": (
        records.MinerStats,
        (
            "miner_hotkey chute_id total_instances bounty_count compute_seconds compute_units invocation_count "
            "total_bounty"
        ),
    ),
    "scores": (records.RawScore, "total_instances bounty_score instance_seconds instance_compute_units"),
    "unique_chute_history": (records.HistoryPoint, "time count total_count"),
    "thrash_cooldowns": (records.ThrashCooldown, "chute_id chute_name deleted_at cooldown_expires_at"),
    "utilization": (
        records.ChuteUtilization,
        (
            "chute_id name timestamp utilization_current utilization_5m utilization_15m utilization_1h "
            "rate_limit_ratio_5m rate_limit_ratio_15m rate_limit_ratio_1h total_requests_5m total_requests_15m "
            "total_requests_1h completed_requests_5m completed_requests_15m completed_requests_1h "
            "rate_limited_requests_5m rate_limited_requests_15m rate_limited_requests_1h instance_count action_taken "
            "target_count effective_multiplier total_instance_count active_instance_count scalable scale_allowance "
            "avg_busy_ratio total_invocations total_rate_limit_errors"
        ),
    ),
    "bounties": (records.Bounty, "chute_id bounty_amount seconds_elapsed time_remaining created_at"),
    "rolling_updates": (records.RollingUpdate, "chute_id old_version new_version started_at permitted"),
    "maintenance": (records.MaintenancePolicy, "active_window current_slots servers"),
    "maintenance.active_window": (
        records.MaintenanceWindow,
        "id target_measurement_version upgrade_window_start upgrade_window_end max_concurrent_per_miner",
    ),
    "maintenance.servers": (records.MaintenanceServer, "server_id name version needs_upgrade in_maintenance"),
}
"""By endpoint: the record that is decoded, and the fields that the service sends since 2026."""


def used_by(endpoint: str) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(SENT[endpoint][0])}


@pytest.mark.parametrize("endpoint", SENT)
def test_every_field_is_used_or_listed_with_a_reason(endpoint: str) -> None:
    sent = set(SENT[endpoint][1].split())
    assert sent - used_by(endpoint) - LEFT_OUT.get(endpoint, set()) == set()
    # The record decodes nothing that the service does not send, and the table lists nothing else.
    assert used_by(endpoint) - sent == set()
    assert LEFT_OUT.get(endpoint, set()) - sent == set()


def test_each_row_of_the_table_has_one_of_its_reasons() -> None:
    assert len(TABLE) > len(LEFT_OUT) > 10
    assert {endpoint for endpoint, _, _ in TABLE} <= SENT.keys()
    assert [row for row in TABLE if not row[2].startswith(REASONS)] == []
    listed = [(endpoint, field) for endpoint, fields, _ in TABLE for field in fields]
    assert len(set(listed)) == len(listed)
    assert used_by("instances").isdisjoint(
        field
        for endpoint, fields, reason in TABLE
        if endpoint == "instances" and reason.startswith(("secret", "users' data"))
        for field in fields
    )


def rows_in(directory: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the raw records of a directory of recorded answers, by endpoint."""

    def stream(name: str) -> list[dict[str, Any]]:
        lines = (directory / f"{name}.stream").read_text().split("\n")
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]

    def answer(name: str) -> Any:
        return json.loads((directory / f"{name}.json").read_text())

    rows = {name: stream(name) for name in ("chutes", "images", "nodes", "instances", "jobs", "metrics")}
    rows |= {name: answer(name) for name in ("metagraph", "inventory", "active_instances", "unique_chute_history")}
    rows["thrash_cooldowns"] = answer("thrash_cooldowns")
    for name in ("utilization", "bounties", "rolling_updates"):
        rows[name] = answer(f"extra/{name}")
    rows["maintenance"] = [answer("extra/maintenance_policy"), answer("extra/maintenance_policy_none")]
    policies = rows["maintenance"]
    rows["maintenance.active_window"] = [one["active_window"] for one in policies if one["active_window"]]
    rows["maintenance.servers"] = [server for one in policies for server in one["servers"]]
    rows["servers"] = answer("servers")["servers"]
    rows["servers.gpus"] = [gpu for server in rows["servers"] for gpu in server["gpus"] or ()]
    rows["chutes.node_selector"] = [chute["node_selector"] for chute in rows["chutes"] if chute.get("node_selector")]
    rows["stats"] = [
        row
        for name in ("stats", "stats_per_chute")
        for window in answer(name).values()
        for row in window.get("instance_stats") or ()
    ]
    rows["scores"] = [raw for raw in answer("scores")["raw_values"].values() if raw]
    return rows


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_recorded_answers_have_no_other_fields(directory: Path) -> None:
    rows = rows_in(directory)
    assert rows.keys() == SENT.keys()
    unknown = {
        (endpoint, field)
        for endpoint, records_ in rows.items()
        for row in records_
        for field in row
        if field not in SENT[endpoint][1].split()
    }
    assert unknown == set()
