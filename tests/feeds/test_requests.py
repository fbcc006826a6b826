from __future__ import annotations

import structlog

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.feeds.definitions import CHAIN, CHUTES, ENDPOINTS, FEEDS, JOBS
from chutes_exporter.page.exporter import Exporter
from tests.exporters import page_of, patient, scrape, watching
from tests.pages import names, series, successes
from tests.replay import Fault, Replay
from tests.support import HOTKEY, KEY


def test_nothing_that_a_scrape_asks_changes_anything() -> None:
    assert {feed.method for feed in FEEDS if feed is not CHAIN} == {"GET"}
    # A preflight of maintenance is a GET that changes something: it clears stale upgrade slots.
    assert not [endpoint for endpoint in ENDPOINTS if "preflight" in endpoint.path]


async def test_a_refused_key_hides_nothing_from_the_others_and_is_not_tried_first_again(
    replay: Replay,
) -> None:
    # The API refuses the key of a hotkey that is not registered.
    stranger = Hotkey.from_seed("22" * 32)
    settings = patient(replay.url, keys=(stranger, KEY))
    async with Exporter(settings, clock=replay.clock) as exporter:
        for _ in range(2):
            await page_of(exporter)
            exporter.feeds.expire(CHUTES)
            exporter.feeds.expire(JOBS)
        page = await page_of(exporter)
    keys = [asked.hotkey for asked in replay.requests if asked.endpoint in ("chutes", "jobs")]
    # Both feeds are requested for each of three pages. The stranger's key is tried at most once for
    # each of them.
    assert keys.count(stranger.address) <= 2
    assert keys.count(HOTKEY) == 2 * 3
    assert "chutes_chute_info" in names(page)
    success = {
        hotkey: page[series("chutes_scrape_collector_success", collector="servers", hotkey=hotkey)]
        for hotkey in (HOTKEY, stranger.address)
    }
    assert success == {HOTKEY: 1, stranger.address: 0}
    assert page[series("chutes_feed_up", feed="servers", hotkey=stranger.address)] == 0


async def test_records_that_cannot_be_read_are_counted_and_logged(replay: Replay) -> None:
    replay.faults["metrics"] = Fault(
        body=b'data: {"chute_id": 1}\n\ndata: {"chute_id": "a", "instance_count": 2}\n\n'
    )
    with structlog.testing.capture_logs() as logs:
        page = await scrape(patient(replay.url))
    assert page[series("chutes_chute_instances", chute_id="a")] == 2
    assert successes(page)["metrics"] == 0
    assert page[series("chutes_api_rejected_records_total", endpoint="metrics")] == 1
    assert page[series("chutes_feed_rejected_records", feed="metrics")] == 1
    assert page[series("chutes_feed_rejected_records", feed="scores")] == 0
    # The number of records is unknown: the rejected one is a record, too.
    assert series("chutes_feed_records", feed="metrics") not in page
    warnings = [log["event"] for log in logs if log["log_level"] == "warning"]
    assert warnings == ["records left out"]


async def test_a_404_is_a_failure_unless_it_means_that_a_new_miner_has_no_history(
    replay: Replay,
) -> None:
    for name in ("scores", "unique_chute_history"):
        replay.faults[name] = Fault(status=404)
    page = await scrape(watching(replay.url))
    assert page[series("chutes_feed_up", feed="scores")] == 0
    assert page[series("chutes_feed_up", feed="unique_chute_history", hotkey=HOTKEY)] == 1
