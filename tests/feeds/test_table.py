from __future__ import annotations

from chutes_exporter.api.endpoints import RELEASE_JOB
from chutes_exporter.feeds.table import FEEDS


def test_nothing_that_a_scrape_asks_changes_anything() -> None:
    asked = [feed.endpoint for feed in FEEDS]
    assert len(asked) >= 15
    assert RELEASE_JOB not in asked
    assert {endpoint.method for endpoint in asked} == {"GET"}
