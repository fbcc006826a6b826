"""Answers as deployments of 2024, 2025 and early 2026 gave them, in invented recordings: all of them can be read."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api import endpoints as e
from chutes_exporter.api.decoding import Shape, StreamShape, Tally
from chutes_exporter.api.endpoints import ENDPOINTS, Endpoint
from tests.support import HOTKEY, RECORDINGS, recording, replay, scrape, series, served, watching
from tests.test_recordings import NAMES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OLDER: dict[str, Endpoint[Any]] = {
    "metagraph_2024": e.METAGRAPH,
    "scores_2025": e.SCORES,
    "scores_2025_12": e.SCORES,
    "stats_2025": e.STATS,
    "metrics_2025": e.METRICS,
    "instances_2025": e.INSTANCES,
    "chutes_2025": e.CHUTES,
    "unique_chute_history_2025": e.UNIQUE_CHUTE_HISTORY,
    "thrash_cooldowns": e.THRASH_COOLDOWNS,
}


def decoded(name: str) -> tuple[Any, Tally]:
    shape, tally = OLDER[name].shape, Tally()
    if isinstance(shape, StreamShape):

        async def body() -> AsyncIterator[bytes]:
            yield recording(RECORDINGS, name)

        async def every() -> list[Any]:
            return [record async for record in shape.decode(body(), tally)]

        return asyncio.run(every()), tally
    assert isinstance(shape, Shape)
    return shape.decode(recording(RECORDINGS, name), tally), tally


@pytest.mark.parametrize("name", OLDER)
def test_every_record_can_be_read(name: str) -> None:
    _, tally = decoded(name)
    assert tally.accepted > 1
    assert tally.rejected == 0


def test_scores_of_2025_have_shares_and_what_is_still_called_the_same() -> None:
    raw = json.loads(recording(RECORDINGS, "scores_2025"))
    scores, _ = decoded("scores_2025")
    assert scores.shares == raw["final_scores"]
    assert scores.raw[HOTKEY].instance_compute_units is None
    raw = json.loads(recording(RECORDINGS, "scores_2025_12"))
    scores, _ = decoded("scores_2025_12")
    assert scores.shares == raw["final_scores"]
    assert scores.raw[HOTKEY].instance_compute_units == raw["raw_values"][HOTKEY]["instance_compute_units"]


def test_demand_of_2025_has_errors_and_no_utilization() -> None:
    metrics, _ = decoded("metrics_2025")
    assert [one.error_count for one in metrics] == [0, 1, 2, 3]
    assert {one.utilization for one in metrics} == {None}


def test_instances_of_2025_keep_none_of_their_secrets() -> None:
    text = recording(RECORDINGS, "instances_2025").decode()
    instances, _ = decoded("instances_2025")
    assert [one.instance_id[:8] for one in instances] == ["00000001", "00000002", "00000003"]
    assert instances[1].verification_error.startswith("Envdump mismatch")
    for secret in ("00ff00ff", "inspecto-hash", "environment", "rint-nonce", "203.0.113.7"):
        assert secret in text
        assert secret not in repr(instances)


def test_histories_of_2025_have_no_total() -> None:
    history, _ = decoded("unique_chute_history_2025")
    assert {one.total_count for one in history} == {None}
    assert [one.count for one in history[:5]] == [0, 1, 2, 3, 4]


async def test_a_page_of_older_answers_is_whole_and_shows_no_secret() -> None:
    bodies = {name: recording(RECORDINGS, name) for name in NAMES}
    for name in OLDER:
        bodies[name.partition("_20")[0]] = recording(RECORDINGS, name)
    assert bodies.keys() <= {endpoint.name for endpoint in ENDPOINTS} | {"stats_per_chute"}
    async with served(replay(bodies)) as url:
        page = await scrape(watching(url))
    assert {value for (name, _), value in page.items() if name == "chutes_scrape_collector_success"} == {1}
    assert {value for (name, _), value in page.items() if name == "chutes_feed_up"} == {1}
    share = json.loads(bodies["scores"])["final_scores"][HOTKEY]
    assert page[series("chutes_miner_score_ratio", hotkey=HOTKEY)] == share
    assert "00ff00ff" not in str(page)
