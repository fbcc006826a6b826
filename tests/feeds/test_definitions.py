from __future__ import annotations

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.feeds.definitions import (
    ACTIVE_INSTANCES,
    CHAIN,
    CHUTES,
    FEEDS,
    NODES,
    SCORES,
    SERVERS,
    THRASH_COOLDOWNS,
)


def test_an_answer_is_kept_for_longer_than_it_is_fresh() -> None:
    assert [feed.name for feed in FEEDS if not 0 < feed.ttl < feed.max_age] == []


def test_nothing_that_a_scrape_asks_changes_anything() -> None:
    assert {feed.endpoint.method for feed in FEEDS if feed is not CHAIN} == {"GET"}
    # A preflight of a server's maintenance is a GET that changes something: it clears stale upgrade
    # slots.
    assert not [endpoint for endpoint in ENDPOINTS if "preflight" in endpoint.path]


def test_a_feed_is_the_same_question_with_other_lifetimes_and_another_one_for_another_miner() -> (
    None
):
    feed = SCORES.with_lifetimes({"scores": 1.0}, {"scores": 2.0})
    assert (feed, feed.ttl, feed.max_age) == (SCORES, 1.0, 2.0)
    assert SERVERS.of("bob") != SERVERS.of("alice") == SERVERS.of("alice") != SERVERS


def test_the_evidence_has_the_miner_and_the_lifetimes_of_its_own_feed() -> None:
    (servers,) = NODES.of("alice").with_lifetimes({"servers": 1.0}, {"servers": 2.0}).evidence
    assert (servers, servers.ttl, servers.max_age) == (SERVERS.of("alice"), 1.0, 2.0)
    assert ACTIVE_INSTANCES in CHUTES.of("alice").evidence


def test_a_deployment_can_lack_all_endpoints_outside_the_reference_and_the_cooldowns() -> None:
    # The reference of the API describes the endpoints below /miner/.
    outside = {
        feed for feed in FEEDS if not feed.endpoint.path.startswith("/miner/") and feed is not CHAIN
    }
    assert {feed for feed in FEEDS if feed.optional} == outside | {THRASH_COOLDOWNS}
