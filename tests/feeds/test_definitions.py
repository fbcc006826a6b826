from __future__ import annotations

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.feeds.definitions import (
    CHAIN,
    FEEDS,
)


def test_nothing_that_a_scrape_asks_changes_anything() -> None:
    assert {feed.endpoint.method for feed in FEEDS if feed is not CHAIN} == {"GET"}
    # A preflight of a server's maintenance is a GET that changes something: it clears stale upgrade
    # slots.
    assert not [endpoint for endpoint in ENDPOINTS if "preflight" in endpoint.path]
