"""Which other miners are exported with the watched ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chutes_exporter.collectors import Answers
from chutes_exporter.collectors.neighbours import Neighbours, find_neighbours
from chutes_exporter.demo.replay import Fault, Replay
from chutes_exporter.feeds.definitions import SCORES
from chutes_exporter.page.exporter import Exporter
from tests.chain.support import EXPECTED, FakeNode
from tests.collectors.support import answer
from tests.support import HOTKEY, Clock, get, page_of, watching

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support import Page

REGISTERED = "chutes_miner_registered"
LINE = [f"miner-{place:02}" for place in range(30)]
"""Miners in the order of their scores, the best first."""
MIDDLE = LINE[15]


def scores(line: Iterable[str], **others: float | None) -> Answers:
    """Return the answer in which miners have scores in this order, the best first, and others have
    these scores.
    """
    shares = {hotkey: 1 / place for place, hotkey in enumerate(line, 1)}
    body = {"final_scores": {**shares, **others}, "raw_values": {}}
    return Answers({SCORES.name: answer(SCORES, body)})


def by_score(answers: Answers, before: Iterable[str] = (), watched: str = MIDDLE) -> list[str]:
    """Return the neighbours of a miner in rank. ``before`` are those that it had until now."""
    known = Neighbours(by_score=frozenset(before))
    return sorted(find_neighbours(answers, {watched}, known).by_score)


def moved(places: int) -> list[str]:
    """Return the line in which the miner in the middle has lost some places."""
    line = [hotkey for hotkey in LINE if hotkey != MIDDLE]
    line.insert(15 + places, MIDDLE)
    return line


def test_neighbours_are_the_four_miners_on_either_side_in_rank() -> None:
    assert by_score(scores(LINE)) == [*LINE[11:15], *LINE[16:20]]
    assert by_score(scores(LINE), watched=LINE[1]) == [LINE[0], *LINE[2:6]]
    assert by_score(scores(LINE), watched=LINE[-1]) == LINE[25:29]
    # A score of 0 has a rank, the last one. A miner without a score has none.
    assert by_score(scores(LINE, zero=0.0, none=None), watched=LINE[-1]) == [*LINE[25:29], "zero"]
    assert by_score(scores(LINE), watched="without-score") == []


def test_a_neighbour_stays_until_it_is_more_than_eight_places_away() -> None:
    before = by_score(scores(LINE))
    after = moved(4)
    found = by_score(scores(after), before)
    # The miner is in place 19 now. All of those before are at most eight places away, and the four
    # on either side came.
    assert found == sorted({*before, *after[15:19], *after[20:24]})
    assert by_score(scores(after), found) == found
    # In place 20, it is nine places away from the miner in place 11.
    assert LINE[11] in found
    assert LINE[11] not in by_score(scores(moved(5)), found)


def test_neighbours_stay_while_the_scores_are_not_known_or_not_complete() -> None:
    before = by_score(scores(LINE))
    assert by_score(Answers({}), before) == before
    body = {"final_scores": {MIDDLE: 1.0}, "raw_values": {}}
    doubted = Answers({SCORES.name: answer(SCORES, body, doubted=True)})
    assert by_score(doubted, before) == before


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
    # Only the scores are requested again, and not the metagraph.
    settings = watching(replay.url, ttl={"scores": 10})
    async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
        await exporter.warm_up()
        assert newcomer not in hotkeys(await page_of(exporter), REGISTERED)
        shares = await scores_of(replay)
        # It comes just before the watched miner.
        shares[newcomer] = shares[HOTKEY] + 1e-6
        body = json.dumps({"final_scores": shares, "raw_values": {}})
        replay.faults["scores"] = Fault(body=body.encode())
        clock.now += 11
        assert newcomer in hotkeys(await page_of(exporter), REGISTERED)
