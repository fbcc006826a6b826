"""Which chutes are exported with ``--chutes relevant``."""

from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.chutes import CHUTES_COLLECTOR as COLLECTOR
from chutes_exporter.feeds.definitions import (
    ACTIVE_INSTANCES,
    AUDIT_REPORT,
    BOUNTIES,
    CHUTES,
    HELD_GPUS,
    STATS_PER_CHUTE,
    UTILIZATION,
)
from tests.api.reports import INSTANCE
from tests.collectors.support import NOON_TEXT, collected

Row = dict[str, Any]


def chute(chute_id: str, **fields: Any) -> Row:
    """Return a public chute."""
    return {
        "chute_id": chute_id,
        "name": chute_id,
        "public": True,
        "tee": True,
        "disabled": False,
        "node_selector": {"gpu_count": 8, "supported_gpus": ["b200"]},
        "effective_compute_multiplier": 1.0,
        "compute_multiplier_factors": {},
    } | fields


def record(chute_id: str, allowance: int) -> Row:
    """Return the autoscaler's record of a chute with an active instance."""
    return {
        "chute_id": chute_id,
        "timestamp": NOON_TEXT,
        "active_instance_count": 1,
        "total_instance_count": 1,
        "instance_count": 1,
        "scale_allowance": allowance,
        "target_count": 1 + allowance,
    }


def stats(miner: str, chute_id: str) -> Row:
    """Return the record of a miner's instances of a chute."""
    return {"miner_hotkey": miner, "chute_id": chute_id, "total_instances": 1}


def provisioned(chute_id: str) -> Row:
    """Return a GPU on which an instance of a chute starts."""
    place = {"chute_id": chute_id, "instance_id": f"i-{chute_id}", "activated_at": None}
    return {"provisioned": [{"gpu": "h200", "server_id": "s", "chute": place}]}


def ended(miner: str, chute_id: str, hours_ago: int = 0) -> Row:
    """Return an instance that ended half an hour before noon, or so many hours before that, in the
    report of the hour until noon.
    """
    at = f"2026-11-24T{11 - hours_ago}:30:00"
    return INSTANCE | {
        "instance_id": chute_id,
        "miner_hotkey": miner,
        "chute_id": chute_id,
        "deleted_at": at,
    }


NAMES = (
    *("runs", "starts", "ran", "ran a week ago", "has room", "is full", "is disabled"),
    *("ended", "still runs", "runs elsewhere", "starts elsewhere", "ran elsewhere"),
    "ended elsewhere",
)
"""Chutes, named by what a watched miner does with them, or other miners ("elsewhere")."""
ANSWERS: dict[Any, Any] = {
    CHUTES: [chute(name, disabled=name == "is disabled") for name in NAMES],
    UTILIZATION: [record(name, int(name in ("has room", "is disabled"))) for name in NAMES],
    BOUNTIES: [],
    ACTIVE_INSTANCES: [
        {"instance_id": "i1", "miner_hotkey": "me", "chute_id": "runs"},
        {"instance_id": "i2", "miner_hotkey": "other", "chute_id": "runs elsewhere"},
        {"instance_id": "i3", "miner_hotkey": "me"},
    ],
    HELD_GPUS: {"me": provisioned("starts"), "other": provisioned("starts elsewhere")},
    STATS_PER_CHUTE: {
        "past_hour": {"instance_stats": []},
        "past_day": {"instance_stats": [stats("me", "ran"), stats("other", "ran elsewhere")]},
        "all": {"instance_stats": [stats("me", "ran a week ago")]},
    },
    AUDIT_REPORT: {
        "instance_audit": [
            ended("me", "ended"),
            ended("other", "ended elsewhere"),
            ended("me", "is full", hours_ago=1),
            ended("me", "still runs") | {"deleted_at": None},
            ended("me", "unknown") | {"chute_id": None},
        ],
        "compute_history": [],
    },
}
"""What a watched miner runs and could launch. It has no key and no GPU of any of these chutes."""


def exported(without: Any = None, **options: Any) -> set[str]:
    """Return the chutes that are exported. ``without`` is a feed whose answer is missing."""
    given = {feed: body for feed, body in ANSWERS.items() if feed is not without}
    made = collected(COLLECTOR, given, **{"chutes": "relevant"} | options)
    return {name for name in NAMES if f"chute_id={name}," in str(made)}


def test_chutes_are_exported_that_a_watched_miner_runs_ran_in_the_past_day_or_could_launch() -> (
    None
):
    assert exported() == {"runs", "starts", "ran", "has room", "ended"}
    elsewhere = {"runs elsewhere", "starts elsewhere", "ran elsewhere", "ended elsewhere"}
    assert exported(watched=["me", "other"]) == exported() | elsewhere
    # Whether other miners are exported does not matter.
    assert exported(miners="all") == exported()


@pytest.mark.parametrize(
    ("feed", "gone"),
    [
        (ACTIVE_INSTANCES, {"runs", "has room"}),
        (HELD_GPUS, {"starts", "has room"}),
        (STATS_PER_CHUTE, {"ran"}),
        (AUDIT_REPORT, {"ended"}),
        (UTILIZATION, {"has room"}),
        (BOUNTIES, {"has room"}),
    ],
)
def test_without_an_answer_the_others_still_choose(feed: Any, gone: set[str]) -> None:
    assert exported(feed) == exported() - gone
