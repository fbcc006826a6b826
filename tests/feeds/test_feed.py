from __future__ import annotations

from dataclasses import replace

from chutes_exporter.feeds.table import SCORES, SERVERS


def test_a_feed_with_other_lifetimes_is_the_same_question() -> None:
    tuned = replace(SCORES, ttl=1.0, max_age=2.0)
    assert tuned == SCORES
    assert {SCORES: "answer"}[tuned] == "answer"


def test_the_feeds_of_two_miners_are_two_questions() -> None:
    alice, bob = SERVERS.of("alice"), SERVERS.of("bob")
    assert alice != bob
    assert alice == SERVERS.of("alice")


def test_the_feed_of_a_miner_is_requested_like_the_one_in_the_table() -> None:
    alice = SERVERS.of("alice")
    assert (alice.name, alice.hotkey, alice.endpoint) == ("servers", "alice", SERVERS.endpoint)
    assert (alice.ttl, alice.max_age, alice.doubts) == (SERVERS.ttl, SERVERS.max_age, SERVERS.doubts)
