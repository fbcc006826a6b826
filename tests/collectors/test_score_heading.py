from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.score_heading import COLLECTOR
from chutes_exporter.feeds.table import ACTIVE_INSTANCES, AUDIT_REPORT, HELD_GPUS, METAGRAPH
from tests.api.reports import INSTANCE
from tests.collectors.support import ME, NOON_TEXT, Samples, collected


def active(number: int, hotkey: str, multiplier: float | None) -> dict[str, Any]:
    return {"instance_id": f"i{number}", "miner_hotkey": hotkey, "compute_multiplier": multiplier}


def seat(hotkey: str, **fields: Any) -> dict[str, Any]:
    return {"hotkey": hotkey, "blacklist_reason": None} | fields


MINE = [active(1, ME, 1.0), active(2, ME, 0.5)]
OTHERS = [active(3, "other", 4.5)]
SEATS = [seat(ME), seat("other"), seat("idle")]
ENDED = INSTANCE | {"instance_id": "gone", "deleted_at": "2026-11-24T11:30:00"}


def run(
    instances: list[dict[str, Any]],
    seats: list[dict[str, Any]],
    report: tuple[dict[str, Any], ...] = (ENDED,),
    held: dict[str, Any] | None = None,
    **options: Any,
) -> Samples:
    answers: dict[Any, Any] = {
        ACTIVE_INSTANCES: instances,
        METAGRAPH: seats,
        AUDIT_REPORT: {"instance_audit": report, "compute_history": []},
        HELD_GPUS: held or {"other": {"provisioned": []}},
    }
    return collected(COLLECTOR, answers, **options)


def ratios(**values: float) -> dict[str, float]:
    return {
        f"chutes_miner_score_heading_ratio{{hotkey={hotkey}}}": value
        for hotkey, value in values.items()
    }


def test_a_miner_approaches_its_share_of_all_compute_units_per_second() -> None:
    assert run(MINE + OTHERS, SEATS) == ratios(me=0.25)


@pytest.mark.parametrize("seats", [[seat(ME)], [seat(ME), seat("other", blacklist_reason="abuse")]])
def test_unregistered_and_blacklisted_miners_do_not_count_in_the_sum(
    seats: list[dict[str, Any]],
) -> None:
    assert run(MINE + OTHERS, seats, miners="all") == ratios(me=1)


def test_where_it_is_unknown_whether_a_miner_is_blacklisted_nobody_has_a_share() -> None:
    assert run(MINE + OTHERS, [seat(ME), {"hotkey": "other"}]) == {}


def test_a_watched_miner_without_instances_approaches_zero_and_one_without_a_seat_nothing() -> None:
    assert run(OTHERS, SEATS, watched=[ME, "unknown"]) == ratios(me=0)


def test_disabled_instances_of_others_count_while_they_hold_gpus() -> None:
    others = [active(3, "other", 2.0)]
    theirs = INSTANCE | {
        "miner_hotkey": "other",
        "activated_at": NOON_TEXT,
        "compute_multiplier": 1.0,
    }
    report = tuple(theirs | {"instance_id": key} for key in ("disabled", "disabled", "ended"))
    gpu = {"chute_id": "c", "instance_id": "disabled"}
    held = {"other": {"provisioned": [{"gpu": "h200", "chute": gpu}]}}
    assert run([*MINE[:1], *others], SEATS, (*report, ENDED), held) == ratios(me=0.25)
    # The list of GPUs may be newer than the report.
    started = theirs | {"instance_id": "disabled", "activated_at": None}
    newer = {
        "other": {"provisioned": [{"gpu": "h200", "chute": gpu | {"activated_at": NOON_TEXT}}]}
    }
    assert run([*MINE[:1], *others], SEATS, (started, ENDED), newer) == ratios(me=0.25)
    assert run([*MINE[:1], *others], SEATS, (started, ENDED), held) == ratios(me=1 / 3)
    # The report may be newer than the list of GPUs.
    ended = theirs | {"instance_id": "disabled", "deleted_at": NOON_TEXT}
    assert run([*MINE[:1], *others], SEATS, (ended, ENDED), held) == ratios(me=1 / 3)
    assert run(MINE[:1], SEATS, (*report, ENDED), held) == ratios(me=0.5)
    unknown = theirs | {"instance_id": "disabled", "compute_multiplier": None}
    assert run([*MINE[:1], *others], SEATS, (unknown, ENDED), held) == {}


def test_where_nobody_earns_nobody_has_a_share() -> None:
    assert run([], SEATS) == {}
