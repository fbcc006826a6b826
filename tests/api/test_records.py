from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from chutes_exporter.api import records as r
from chutes_exporter.api.records import AxonAddress, UnixTime, decode_hook


def read(kind: type[Any], **fields: Any) -> Any:
    return msgspec.json.decode(json.dumps(fields), type=kind, dec_hook=decode_hook)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-24T13:31:01.479547+00:00", 1795527061.479547),
        ("2026-11-24T14:31:01.479547+01:00", 1795527061.479547),
        ("2026-11-24T13:31:01.479547", 1795527061.479547),
        ("2026-11-24T13:31:01", 1795527061.0),
        ("2026-11-17 13:00:00+00", 1794920400.0),
        ("1970-01-01T00:00:00Z", 0.0),
    ],
)
def test_all_three_ways_to_write_a_time_are_read(text: str, seconds: float) -> None:
    assert UnixTime.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00", "0001-01-01T00:00:00+23:59x"])
def test_an_invalid_time_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a time$"):
        UnixTime.parse(text)


@pytest.mark.parametrize("kind", [UnixTime, AxonAddress])
def test_a_time_and_an_address_must_be_text(kind: type) -> None:
    with pytest.raises(ValueError, match=kind.__name__):
        decode_hook(kind, 5)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("3405803776", "203.0.113.0"),
        ("42540766411282592856903984951653826583", "2001:db8::17"),
        ("203.0.113.7", ""),
        ("0", ""),
        ("", ""),
        ("host.example", ""),
        ("-1", ""),
        ("340282366920938463463374607431768211456", ""),  # 2 to the 128th
        ("9" * 5000, ""),
        ("\N{SUPERSCRIPT TWO}", ""),
    ],
)
def test_an_address_is_read_from_decimal_text(text: str, address: str) -> None:
    assert AxonAddress.parse(text) == address
    assert read(r.MetagraphNode, hotkey="h", ip=text).ip == address


NULLABLE = {
    r.MetagraphNode: {"blacklist_reason"},
    r.Chute: {"bounty", "disabled", "chutes_version"},
    r.Image: {"status"},
    r.Node: {"verified_at", "verification_error"},
    r.ServerGpu: {"verified_at"},
    r.Instance: {"activated_at", "billed_to"},
    r.Job: {"finished_at", "miner_hotkey"},
    r.InventoryItem: {"last_verified_at"},
    r.ChuteMetrics: set(),
    r.ActiveInstance: set(),
    r.MinerStats: set(),
    r.HistoryPoint: set(),
    r.ThrashCooldown: set(),
    r.Server: {"version"},
    r.ChuteUtilization: set(),
    r.Bounty: set(),
    r.RollingUpdate: set(),
    r.MaintenanceServer: set(),
}
"""Fields whose null says something, by record: a missing one differs from it."""


@pytest.mark.parametrize("kind", NULLABLE)
def test_null_and_missing_differ_where_null_says_something(kind: type[r.Record]) -> None:
    fields = msgspec.structs.fields(kind)
    # The first is what the record is about, and cannot be missing.
    identity = "2026-11-24T12:00:00" if fields[0].type is UnixTime else "a"
    given = {fields[0].encode_name: identity}
    missing = read(kind, **given)
    null = read(kind, **given, **{field.encode_name: None for field in fields[1:]})
    for field in fields[1:]:
        assert getattr(null, field.name) is None
        assert getattr(missing, field.name) is (UNSET if field.name in NULLABLE[kind] else None)
    with pytest.raises(msgspec.ValidationError):
        read(kind)
    with pytest.raises(msgspec.ValidationError):
        read(kind, **given | {fields[0].encode_name: None})
