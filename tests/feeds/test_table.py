from __future__ import annotations

import pytest

from chutes_exporter.api.endpoints import CHUTE, ENDPOINTS, RELEASE_JOB
from chutes_exporter.feeds import table
from chutes_exporter.feeds.feed import Feed
from chutes_exporter.feeds.table import FEEDS


def test_the_list_has_every_feed_of_the_table_once() -> None:
    declared = [value for value in vars(table).values() if isinstance(value, Feed)]
    assert len(declared) == len(FEEDS)
    assert {feed.name for feed in FEEDS} == {feed.name for feed in declared}
    assert len({feed.name for feed in FEEDS}) == len(FEEDS)


def test_every_endpoint_has_a_feed_except_those_about_one_chute_and_one_job() -> None:
    assert {feed.endpoint for feed in FEEDS} == set(ENDPOINTS) - {CHUTE, RELEASE_JOB}


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: feed.name)
def test_an_answer_is_kept_for_longer_than_it_is_fresh(feed: Feed[object]) -> None:
    assert 0 < feed.ttl < feed.max_age


def test_nothing_that_a_scrape_asks_changes_anything() -> None:
    asked = [feed.endpoint for feed in FEEDS]
    assert len(asked) >= 15
    assert RELEASE_JOB not in asked
    assert {endpoint.method for endpoint in asked} == {"GET"}
