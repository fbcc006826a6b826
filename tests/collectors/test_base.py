from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.api.records import Instance
from chutes_exporter.collectors import COLLECTORS, Collector, MinersChoice, Scope
from chutes_exporter.collectors.base import MAX_LABEL_CHARACTERS, Answers, LabelValue, Metrics, Samples, distinct
from chutes_exporter.feeds.table import INSTANCES, INVENTORY, METAGRAPH, NODES
from tests.collectors.support import UNREADABLE, answer, collected

METRICS = Metrics("test", ("a", "b"))
GAUGE = METRICS.declare("chutes_thing_seconds", "Help.")
FLAG = METRICS.declare("chutes_flag", "Help.", labels=())
INFO = METRICS.declare("chutes_thing_info", "Text.", labels=("text",))


def values(samples: Samples) -> dict[str, dict[tuple[str, ...], float]]:
    return {
        family.samples[0].name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
        for family in samples.collect()
    }


def label(value: LabelValue) -> str:
    """Return what becomes of a label value."""
    samples = Samples()
    samples.add(INFO, 1, value)
    ((text,),) = values(samples)["chutes_thing_info"]
    return text


@pytest.mark.parametrize(
    ("miners", "exported"),
    [
        ("watched", {("me", True), ("me", False)}),
        ("active", {("me", True), ("me", False), ("other", True)}),
        ("all", {("me", True), ("me", False), ("other", True), ("other", False)}),
    ],
)
def test_a_scope_exports_the_watched_miners_and_those_that_the_user_chose(
    miners: MinersChoice, exported: set[tuple[str, bool]]
) -> None:
    scope = Scope(frozenset({"me"}), miners)
    pairs = {(hotkey, active) for hotkey in ("me", "other") for active in (True, False)}
    assert {(hotkey, active) for hotkey, active in pairs if scope.exports(hotkey, active=active)} == exported


def test_answers_are_complete_if_every_record_was_read_and_none_is_doubted() -> None:
    whole = answer(NODES, [{"uuid": "g"}])
    rejected = answer(INVENTORY, [{"gpu_id": "g"}, UNREADABLE])
    doubted = answer(INSTANCES, [], doubted=True)
    assert Answers({"nodes": whole}).complete()
    assert not Answers({"nodes": whole, "instances": doubted}).complete()
    mixed = Answers({"nodes": whole, "inventory": rejected})
    assert mixed.complete(NODES)
    assert not mixed.complete(NODES, INVENTORY)


def test_extra_answers_are_found_by_hotkey_and_are_none_if_they_are_incomplete() -> None:
    extra = {
        ("instances", "a"): answer(INSTANCES, [{"instance_id": "i"}]),
        ("instances", "b"): answer(INSTANCES, [{"instance_id": "i"}, UNREADABLE]),
        ("nodes", "d"): answer(NODES, []),
    }
    assert Answers({}, extra).by_hotkey(INSTANCES) == {"a": [Instance("i")], "b": None}


def test_the_first_record_of_each_identity_stays_and_the_others_are_counted() -> None:
    out = Samples()
    records: list[tuple[str, int]] = [("a", 1), ("b", 2), ("a", 3), ("a", 4)]
    assert distinct(records, lambda record: record[0], out) == [("a", 1), ("b", 2)]
    assert out.duplicates == 2


def test_samples_keep_their_metric_their_labels_and_their_value() -> None:
    samples = Samples()
    samples.add(GAUGE, 1.5, "x", "y")
    samples.add(GAUGE, 2, "x", "z")
    samples.add(FLAG, True)  # noqa: FBT003 - collectors pass flags as values
    samples.add(INFO, 1, "text")
    assert values(samples) == {
        "chutes_thing_seconds": {("x", "y"): 1.5, ("x", "z"): 2.0},
        "chutes_flag": {(): 1.0},
        "chutes_thing_info": {("text",): 1.0},
    }
    assert [(family.name, family.type, family.unit) for family in samples.collect()] == [
        ("chutes_thing_seconds", "gauge", "seconds"),
        ("chutes_flag", "gauge", ""),
        ("chutes_thing", "info", ""),
    ]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_an_unknown_value_makes_no_sample(value: float | None) -> None:
    samples = Samples()
    samples.add(FLAG, value)
    assert values(samples) == {}


def test_the_first_sample_of_a_series_stays_and_the_second_is_counted() -> None:
    samples = Samples()
    samples.add(FLAG, 1)
    samples.add(FLAG, 5)
    assert values(samples) == {"chutes_flag": {(): 1.0}}
    assert (samples.count, samples.duplicates) == (1, 1)


def test_more_samples_than_the_limit_are_counted_and_all_dropped() -> None:
    samples = Samples(limit=2)
    for number in range(2):
        samples.add(INFO, 1, number)
    assert (len(values(samples)["chutes_thing_info"]), samples.overflowed) == (2, False)
    for number in range(2, 5):
        samples.add(INFO, 1, number)
    assert (values(samples), samples.count, samples.overflowed) == ({}, 5, True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        ("text", "text"),
        ("a\0b", "a\N{REPLACEMENT CHARACTER}b"),
        ("y" * 300, "y" * MAX_LABEL_CHARACTERS),
    ],
)
def test_a_label_is_text_of_a_bounded_length(value: LabelValue, text: str) -> None:
    assert label(value) == text


def test_a_label_never_holds_a_signature() -> None:
    signature = "0123456789abcdef" * 8
    assert signature not in label(f"refused: {signature}")
    assert label("0123456789abcdef") == "0123456789abcdef"


def collector(*feeds: Any, default: Any = "on") -> Collector:
    return Collector("c", "", feeds, (), lambda *_: None, "", default=default)


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
        "unique_chute_history": "miner",
    }


def test_a_collector_says_when_it_is_on() -> None:
    assert collector(METAGRAPH).default_in_words == "on"
    assert collector(NODES).default_in_words == "on, with a hotkey's key"
    assert collector(METAGRAPH, default="few").default_in_words.startswith("on if 1 to 16 ")


NOTHING_KNOWN: dict[str, Any] = {
    "metagraph": [{"hotkey": "me"}],
    "stats": {"past_hour": {"instance_stats": [{"miner_hotkey": "me"}]}},
    "metrics": [{"chute_id": "c"}],
    "active_instances": [{"instance_id": "i", "miner_hotkey": "me"}],
    "chutes": [{"chute_id": "c"}, {"chute_id": "d", "node_selector": {"gpu_count": None}}],
    "servers": {"servers": [{"server_id": "s"}]},
    "nodes": [{"uuid": "g"}],
    "inventory": [{"gpu_id": "g"}],
    "instances": [{"instance_id": "i"}],
    "images": [{"image_id": "i"}],
    "jobs": [{"job_id": "j", "finished_at": None, "miner_hotkey": None}],
    "utilization": [{"chute_id": "c"}],
    "bounties": [{"chute_id": "c"}],
    "rolling_updates": [{"chute_id": "c"}],
    "maintenance": {"active_window": {}},
}
"""Answers whose records have ids, and nothing else that could become a number."""
COUNTED_BY_ID = {
    "chutes_metagraph_miners",
    "chutes_miner_registered",
    "chutes_platform_active_instances",
    "chutes_miner_active_instances",
    "chutes_fleet_servers",
    "chutes_gpu_in_use",
    "chutes_jobs_waiting",
    "chutes_jobs_stuck",
    "chutes_maintenance_window_open",
}


OF_IDS = [collector for collector in COLLECTORS if {feed.name for feed in collector.feeds} <= NOTHING_KNOWN.keys()]


@pytest.mark.parametrize("collector", OF_IDS, ids=lambda collector: collector.name)
def test_records_with_nothing_but_an_id_make_no_numbers(collector: Collector) -> None:
    made = collected(collector, {feed: NOTHING_KNOWN[feed.name] for feed in collector.feeds})
    names = {key.partition("{")[0] for key in made.samples}
    assert {name for name in names if not name.endswith("_info")} <= COUNTED_BY_ID
