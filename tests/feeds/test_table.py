from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chutes_exporter.api.endpoints import (
    AUDIT,
    CHUTE,
    ENDPOINTS,
    RELEASE_JOB,
    SERVER_MAINTENANCE,
    SERVER_SLOT,
    THRASH_COOLDOWNS,
)
from chutes_exporter.feeds.table import CHAIN, FEEDS

if TYPE_CHECKING:
    from chutes_exporter.feeds.feed import Feed


def test_every_endpoint_has_a_feed_except_those_about_one_thing() -> None:
    # The node of the chain is no endpoint of the API. The feed of audit reports asks for their list, too. The list of
    # cooldowns is always empty.
    about_one = {CHUTE, RELEASE_JOB, SERVER_MAINTENANCE, SERVER_SLOT}
    assert {feed.endpoint for feed in FEEDS if feed is not CHAIN} == set(ENDPOINTS) - {
        AUDIT,
        THRASH_COOLDOWNS,
    } - about_one


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: feed.name)
def test_an_answer_is_kept_for_longer_than_it_is_fresh(feed: Feed[object]) -> None:
    assert 0 < feed.ttl < feed.max_age


def test_nothing_that_a_scrape_asks_changes_anything() -> None:
    assert {feed.endpoint.method for feed in FEEDS if feed is not CHAIN} == {"GET"}
    # A preflight is a GET that clears stale upgrade slots.
    assert not [endpoint for endpoint in ENDPOINTS if "preflight" in endpoint.path]
