from __future__ import annotations

from chutes_exporter.feeds.table import ACTIVE_INSTANCES, CHUTES, NODES, SCORES, SERVERS


def test_a_feed_with_other_lifetimes_is_the_same_question() -> None:
    feed = SCORES.with_lifetimes({"scores": 1.0}, {"scores": 2.0})
    assert (feed.ttl, feed.max_age) == (1.0, 2.0)
    assert {SCORES: "answer"}[feed] == "answer"


def test_the_feeds_of_two_miners_are_two_questions() -> None:
    assert SERVERS.of("alice") != SERVERS.of("bob")
    assert SERVERS.of("alice") == SERVERS.of("alice") != SERVERS


def test_the_evidence_has_the_miner_and_the_lifetimes_of_its_own_feed() -> None:
    (servers,) = NODES.of("alice").with_lifetimes({"servers": 1.0}, {"servers": 2.0}).evidence
    assert servers == SERVERS.of("alice")
    assert (servers.ttl, servers.max_age) == (1.0, 2.0)
    assert ACTIVE_INSTANCES in CHUTES.of("alice").evidence
