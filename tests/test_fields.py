"""docs/dev/fields.md: every field that the service sends is used by a record or listed there with a reason."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from chutes_exporter.api import records
from tests.recorded import DIRECTORIES, Miner, raw_json
from tests.support import RECORDINGS, ROOT

if TYPE_CHECKING:
    from pathlib import Path

TABLE = [
    (match[1], set(re.findall(r"`(\w+)`", match[2])), match[3])
    for match in re.finditer(
        r"^\| ([a-z_.]+) \| (`[^|]+) \| ([^|]+) \|$", (ROOT / "docs" / "dev" / "fields.md").read_text(), re.MULTILINE
    )
]
REASONS = ("constant", "dead", "duplicate", "secret", "users' data", "text", "no use")

RECORDS: dict[str, type[records.Record]] = {
    "metagraph": records.MetagraphNode,
    "chutes": records.Chute,
    "chutes.node_selector": records.NodeSelector,
    "images": records.Image,
    "nodes": records.Node,
    "servers": records.Server,
    "servers.gpus": records.ServerGpu,
    "instances": records.Instance,
    "jobs": records.Job,
    "inventory": records.InventoryItem,
    "metrics": records.ChuteMetrics,
    "active_instances": records.ActiveInstance,
    "stats": records.MinerStats,
    "scores": records.RawScore,
    "unique_chute_history": records.HistoryPoint,
    "utilization": records.ChuteUtilization,
    "bounties": records.Bounty,
    "rolling_updates": records.RollingUpdate,
    "maintenance": records.MaintenancePolicy,
    "maintenance.active_window": records.MaintenanceWindow,
    "maintenance.servers": records.MaintenanceServer,
    "held_gpus": records.HeldGpu,
    "supported_gpus": records.SupportedGpu,
    "tee_measurements": records.TeeMeasurement,
    "platform_gpus": records.ModelSupply,
    "audit": records.AuditEntry,
    "audit_report": records.AuditInstance,
}
"""The record that is decoded, by endpoint."""


def sent_in(directory: Path) -> dict[str, set[str]]:
    """Return the fields of all recorded answers, by endpoint."""
    raw = raw_json(Miner(directory, "test_miner").bodies())
    rows: dict[str, list[Any]] = {name: answer for name, answer in raw.items() if isinstance(answer, list)}
    rows["chutes.node_selector"] = [chute["node_selector"] for chute in raw["chutes"]]
    rows["servers"] = raw["servers"]["servers"]
    rows["servers.gpus"] = [gpu for server in rows["servers"] for gpu in server["gpus"]]
    rows["stats"] = [
        row for name in ("stats", "stats_per_chute") for part in raw[name].values() for row in part["instance_stats"]
    ]
    rows["scores"] = list(raw["scores"]["raw_values"].values())
    rows["maintenance"] = [raw["maintenance"]]
    rows["maintenance.active_window"] = [raw["maintenance"]["active_window"]]
    rows["maintenance.servers"] = raw["maintenance"]["servers"]
    rows["held_gpus"] = [
        gpu.pop("chute") | gpu | {"hotkey": hotkey}
        for hotkey, miner in raw["held_gpus"].items()
        for gpu in miner["provisioned"]
    ]
    for name in ("supported_gpus", "platform_gpus"):
        rows[name] = [{"gpu": gpu} | model for gpu, model in raw[name].items()]
    rows["audit_report"] = raw["audit_report"]["instance_audit"]
    return {name: {field for row in found if row for field in row} for name, found in rows.items()}


def used_by(endpoint: str) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(RECORDS[endpoint])}


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_every_field_is_used_or_listed_with_a_reason(directory: Path) -> None:
    sent = sent_in(directory)
    listed = {(name, field) for name, fields, _ in TABLE for field in fields}
    unused = {(name, field) for name, fields in sent.items() if fields for field in fields - used_by(name)}
    assert unused - listed == set()


def test_no_field_is_decoded_that_the_service_does_not_send() -> None:
    sent = sent_in(RECORDINGS)
    # The service has sent it since October 2026. The newest world is a recording of September's rules.
    newer = ("maintenance.servers", "maintenance_status")
    assert [(name, field) for name in RECORDS for field in used_by(name) - sent[name]] == [newer]


def test_each_row_of_the_table_has_one_of_its_reasons() -> None:
    assert len(TABLE) > 10
    assert {name for name, _, _ in TABLE} <= RECORDS.keys()
    assert [row for row in TABLE if not row[2].startswith(REASONS)] == []
    listed = [(endpoint, field) for endpoint, fields, _ in TABLE for field in fields]
    assert len(set(listed)) == len(listed)


def test_no_field_that_holds_a_secret_is_used() -> None:
    private = {
        (name, field)
        for name, fields, reason in TABLE
        if reason.startswith(("secret", "users' data"))
        for field in fields
    }
    assert len(private) > 5
    assert [(name, field) for name, field in private if field in used_by(name)] == []
