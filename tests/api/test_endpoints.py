"""The table of endpoints. Each endpoint also reads the answers of older deployments (2024 to early 2026)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.decoding import Shape, StreamShape, Tally
from chutes_exporter.api.endpoints import ENDPOINTS, RELEASE_JOB, stats_params
from tests.support import HOTKEY, RECORDINGS, recording

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OLDER = sorted(RECORDINGS.glob("20*/*"))


async def decoded(path: Path) -> tuple[Any, Tally]:
    name = path.stem.partition("_per_chute")[0]
    (shape,) = (endpoint.shape for endpoint in ENDPOINTS if endpoint.name == name)
    tally = Tally()
    if isinstance(shape, StreamShape):

        async def body() -> AsyncIterator[bytes]:
            yield recording(path.parent, path.stem)

        return [record async for record in shape.decode(body(), tally)], tally
    assert isinstance(shape, Shape)
    return shape.decode(recording(path.parent, path.stem), tally), tally


def test_every_endpoint_has_its_own_name_and_address() -> None:
    assert len({endpoint.name for endpoint in ENDPOINTS}) == len(ENDPOINTS)
    assert len({(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}) == len(ENDPOINTS)


def test_only_the_release_of_a_job_changes_something() -> None:
    assert [endpoint for endpoint in ENDPOINTS if endpoint.method != "GET"] == [RELEASE_JOB]


def test_answers_about_the_signing_miner_need_a_signature() -> None:
    assert all(endpoint.signed for endpoint in ENDPOINTS if endpoint.scope == "signer")


def test_stats_can_be_asked_about_one_miner_and_about_each_chute() -> None:
    assert stats_params() == {}
    assert stats_params(HOTKEY) == {"miner_hotkey": HOTKEY}
    assert stats_params(per_chute=True) == {"per_chute": "true"}
    assert stats_params(HOTKEY, per_chute=True) == {"miner_hotkey": HOTKEY, "per_chute": "true"}


@pytest.mark.parametrize("path", OLDER, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_every_record_can_be_read(path: Path) -> None:
    _, tally = await decoded(path)
    assert tally.accepted > 1
    assert tally.rejected == 0


async def test_scores_of_2025_have_shares_and_what_is_still_called_the_same() -> None:
    raw = json.loads((RECORDINGS / "2025" / "scores.json").read_bytes())
    scores, _ = await decoded(RECORDINGS / "2025" / "scores.json")
    assert scores.shares == raw["final_scores"]
    assert scores.raw[HOTKEY].instance_compute_units is None
    raw = json.loads((RECORDINGS / "2025-12" / "scores.json").read_bytes())
    scores, _ = await decoded(RECORDINGS / "2025-12" / "scores.json")
    assert scores.shares == raw["final_scores"]
    assert scores.raw[HOTKEY].instance_compute_units == raw["raw_values"][HOTKEY]["instance_compute_units"]


async def test_demand_of_2025_has_errors_and_no_utilization() -> None:
    metrics, _ = await decoded(RECORDINGS / "2025" / "metrics.stream")
    assert [one.error_count for one in metrics[:3]] == [0, 3, 6]
    assert {one.utilization for one in metrics} == {None}


async def test_instances_of_2025_have_failures_and_errors() -> None:
    instances, _ = await decoded(RECORDINGS / "2025" / "instances.stream")
    assert [one.consecutive_failures for one in instances] == [0, 2, 0, 1]
    assert [bool(one.verification_error) for one in instances] == [False, False, False, True]
    assert [one.last_queried_at is not None for one in instances] == [True, False, False, False]


async def test_histories_of_2025_have_no_total() -> None:
    history, _ = await decoded(RECORDINGS / "2025" / "unique_chute_history.json")
    assert {one.total_count for one in history} == {None}
    assert None not in {one.count for one in history}
