from __future__ import annotations

from chutes_exporter.feeds.table import CHAIN, FEEDS


def test_a_deployment_can_lack_all_endpoints_but_those_of_the_miner_api_reference() -> None:
    beside = {feed for feed in FEEDS if not feed.endpoint.path.startswith("/miner/") and feed is not CHAIN}
    assert {feed for feed in FEEDS if feed.optional} == beside
