"""Which other miners are exported with the watched ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from chutes_exporter.feeds.definitions import SCORES
from chutes_exporter.feeds.fleet import Joined
from chutes_exporter.page.exporter import Exporter
from tests.chain.support import EXPECTED, FakeNode
from tests.collectors.support import answer
from tests.exporters import page_of, watching
from tests.replay import Fault, Replay
from tests.support import HOTKEY, Clock, get

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.pages import Page

REGISTERED = "chutes_miner_registered"
LINE = [f"miner-{place:02}" for place in range(30)]
"""Miners in the order of their scores, the best first."""
MIDDLE = LINE[15]


def neighbours(line: Iterable[str], watched: str = MIDDLE, **options: Any) -> list[str]:
    """Return the neighbours of a miner, if miners have scores in this order, the best first."""
    shares = {hotkey: 1 / place for place, hotkey in enumerate(line, 1)}
    # A score of 0 has a rank, the last one. A miner without a score has none.
    body = {"final_scores": {**shares, "zero": 0.0, "none": None}, "raw_values": {}}
    answers = {"": {SCORES.name: answer(SCORES, body, **options)}}
    return sorted(Joined(answers, {watched}).neighbours)


def test_neighbours_are_the_four_miners_on_either_side_in_rank() -> None:
    assert neighbours(LINE) == [*LINE[11:15], *LINE[16:20]]
    assert neighbours(LINE, LINE[1]) == [LINE[0], *LINE[2:6]]
    assert neighbours(LINE, LINE[-1]) == [*LINE[25:29], "zero"]
    assert neighbours(LINE, "without-score") == []


def test_without_complete_scores_nobody_is_a_neighbour_by_score() -> None:
    assert neighbours(LINE, doubted=True) == []


def hotkeys(page: Page, metric: str) -> set[str]:
    """Return the miners of which a page has a metric."""
    return {dict(labels)["hotkey"] for name, labels in page if name == metric}


async def test_the_neighbours_in_line_for_the_seat_are_exported_with_the_watched_miner() -> None:
    registrations_before_loss = {}
    for hotkey, seat in EXPECTED["seats"].items():
        if seat["registrations_before"] is not None:
            registrations_before_loss[hotkey] = seat["registrations_before"]
    # The first in line loses its seat next.
    line = sorted(registrations_before_loss, key=registrations_before_loss.__getitem__)
    me = line[20]
    page = await FakeNode().page(hotkeys=[me])
    # Four on either side.
    assert hotkeys(page, "chutes_miner_registrations_before_loss") == {*line[16:25]}


async def scores_of(replay: Replay) -> dict[str, float]:
    """Return the shares of the miners, as the API sends them."""
    body = (await get(f"{replay.url}/miner/scores")).json()
    shares: dict[str, float] = body["final_scores"]
    return shares


async def test_a_new_neighbour_gets_metrics_of_answers_that_have_not_changed(
    replay: Replay, clock: Clock
) -> None:
    seats = replay.day.answer("metagraph", replay.moment())
    assert seats
    newcomer = seats[-1]["hotkey"]
    async with Exporter(watching(replay.url), clock=clock, monotonic=clock) as exporter:
        await exporter.warm_up()
        assert newcomer not in hotkeys(await page_of(exporter), REGISTERED)
        shares = await scores_of(replay)
        # It comes just before the watched miner.
        shares[newcomer] = shares[HOTKEY] + 1e-6
        body = json.dumps({"final_scores": shares, "raw_values": {}})
        replay.faults["scores"] = Fault(body=body.encode())
        # Only the scores are requested again, and not the metagraph.
        exporter.feeds.expire(SCORES)
        assert newcomer in hotkeys(await page_of(exporter), REGISTERED)
