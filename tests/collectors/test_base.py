from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.api.records import Instance
from chutes_exporter.collectors import COLLECTORS, Collector, Cost, MinersChoice, Scope
from chutes_exporter.collectors.base import Answers, distinct
from chutes_exporter.collectors.samples import Samples
from chutes_exporter.feeds.table import INSTANCES, INVENTORY, METAGRAPH, NODES
from tests.collectors.support import UNREADABLE, answer


@pytest.mark.parametrize(
    ("miners", "exported"),
    [
        ("watched", {("me", True), ("me", False)}),
        ("active", {("me", True), ("me", False), ("other", True)}),
        ("all", {("me", True), ("me", False), ("other", True), ("other", False)}),
    ],
)
def test_a_scope_exports_the_watched_and_whom_the_user_wants_besides(
    miners: MinersChoice, exported: set[tuple[str, bool]]
) -> None:
    scope = Scope(frozenset({"me"}), miners)
    pairs = {(hotkey, active) for hotkey in ("me", "other") for active in (True, False)}
    assert {(hotkey, active) for hotkey, active in pairs if scope.exports(hotkey, active=active)} == exported


def test_answers_are_found_by_feed_also_where_the_feed_is_of_one_hotkey() -> None:
    answers = Answers({"nodes": answer(NODES, [{"uuid": "g"}])})
    assert [gpu.uuid for gpu in answers[NODES]] == ["g"]
    assert answers[NODES.of("me")] is answers[NODES]


def test_answers_are_complete_where_every_record_was_read_and_none_is_doubted() -> None:
    whole = answer(NODES, [{"uuid": "g"}])
    rejected = answer(INVENTORY, [{"gpu_id": "g"}, UNREADABLE])
    doubted = answer(INSTANCES, [], doubted=True)
    assert Answers({"nodes": whole}).complete()
    assert not Answers({"nodes": whole, "inventory": rejected}).complete()
    assert not Answers({"nodes": whole, "instances": doubted}).complete()
    mixed = Answers({"nodes": whole, "inventory": rejected})
    assert mixed.complete(NODES)
    assert not mixed.complete(NODES, INVENTORY)


def test_extra_answers_are_found_by_hotkey_and_none_where_they_are_incomplete() -> None:
    extra = {
        ("instances", "a"): answer(INSTANCES, [{"instance_id": "i"}]),
        ("instances", "b"): answer(INSTANCES, [{"instance_id": "i"}, UNREADABLE]),
        ("instances", "c"): answer(INSTANCES, [], doubted=True),
        ("nodes", "d"): answer(NODES, []),
    }
    found = Answers({}, extra).by_hotkey(INSTANCES)
    assert found == {"a": [Instance("i")], "b": None, "c": None}
    assert Answers({}).by_hotkey(INSTANCES) == {}


def test_the_first_record_of_each_identity_stays_and_the_others_are_counted() -> None:
    out = Samples()
    records: list[tuple[str, int]] = [("a", 1), ("b", 2), ("a", 3), ("a", 4)]
    assert distinct(records, lambda record: record[0], out) == [("a", 1), ("b", 2)]
    assert out.duplicates == 2


def test_a_cost_is_the_sum_over_what_it_grows_with() -> None:
    cost = Cost(fixed=2, miner=3, miner_chute=4, gpu=5)
    assert cost.in_words() == "2, 3 for each miner, 4 for each chute of each miner, 5 for each GPU"
    assert cost.in_words(" for each hotkey").startswith("2 for each hotkey, ")
    assert cost.series() == 2
    assert cost.series(fixed=10, miner=100, gpu=1) == 20 + 300 + 5


def collector(*feeds: Any, default: Any = "on") -> Collector:
    return Collector("c", "", feeds, (), lambda *_: None, Cost(), default=default)


def test_a_collector_runs_once_or_for_each_hotkey_as_its_feeds_do() -> None:
    assert {one.name: one.scope for one in COLLECTORS if one.scope != "platform"} == {
        "fleet": "signer",
        "servers": "signer",
        "maintenance": "signer",
        "nodes": "signer",
        "instance_gpus": "miner",
        "instances": "signer",
        "launch": "signer",
        "server_versions": "signer",
        "thrash_cooldowns": "signer",
        "unique_chute_history": "miner",
    }
    assert collector(METAGRAPH, NODES).scope == "signer"


def test_a_collector_needs_a_key_where_one_of_its_feeds_is_signed() -> None:
    assert not collector(METAGRAPH).needs_key
    assert collector(METAGRAPH, NODES).needs_key


def test_a_collector_says_when_it_is_on() -> None:
    assert collector(METAGRAPH).default_in_words == "on"
    assert collector(NODES).default_in_words == "on, with a hotkey's seed"
    assert collector(METAGRAPH, default="off").default_in_words == "off"
    assert collector(METAGRAPH, default="few").default_in_words.startswith("on if 1 to 16 ")
    assert collector(METAGRAPH, default="key").default_in_words == "on if a hotkey's seed is configured (not required)"
    assert collector(METAGRAPH, default="watched").default_in_words.startswith("on if only configured ")


def test_every_collector_has_its_own_name_and_metrics() -> None:
    assert len({one.name for one in COLLECTORS}) == len(COLLECTORS)
    metrics = [metric.name for one in COLLECTORS for metric in one.metrics]
    assert len(set(metrics)) == len(metrics)
