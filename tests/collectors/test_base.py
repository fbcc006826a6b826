from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.api.records import Instance
from chutes_exporter.collectors import Collector, Miners, MinersChoice
from chutes_exporter.collectors.base import (
    MAX_LABEL_CHARACTERS,
    Answers,
    LabelValue,
    Metrics,
    Samples,
    distinct,
    metrics_of,
)
from chutes_exporter.feeds.table import INSTANCES, INVENTORY, METAGRAPH, NODES
from tests.collectors.support import UNREADABLE, answer, collected

DECLARED = Metrics("test", ("a", "b"))
GAUGE = DECLARED.declare("chutes_thing_seconds", "Help.")
FLAG = DECLARED.declare("chutes_flag", "Help.", labels=())
INFO = DECLARED.declare("chutes_thing_info", "Text.", labels=("text",))


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
    scope = Miners(frozenset({"me"}), miners)
    pairs = {(hotkey, active) for hotkey in ("me", "other") for active in (True, False)}
    assert {(hotkey, active) for hotkey, active in pairs if scope.exports(hotkey, active=active)} == exported


def test_a_metric_is_left_out_while_a_feed_that_it_needs_is_not_whole() -> None:
    needing = metrics_of(NODES)
    metrics = [FLAG, needing.declare("chutes_flags", "Help.")]
    feeds = (NODES, INVENTORY)

    def add(_answers: Answers, _scope: Miners, out: Samples) -> None:
        for metric in metrics:
            out.add(metric, 1)

    one = Collector("c", "", feeds, metrics, add)
    gpus = [{"uuid": "g"}]
    assert collected(one, {NODES: gpus, INVENTORY: []}, doubted=[INVENTORY]).samples == {
        "chutes_flag": 1,
        "chutes_flags": 1,
    }
    assert collected(one, {NODES: [*gpus, UNREADABLE], INVENTORY: []}).samples == {"chutes_flag": 1}
    assert collected(one, {NODES: gpus, INVENTORY: []}, doubted=[NODES]).samples == {"chutes_flag": 1}


def test_what_an_answer_does_not_list_is_known_only_while_it_is_whole() -> None:
    answers = Answers({"nodes": answer(NODES, []), "inventory": answer(INVENTORY, [], doubted=True)})
    assert answers.unlisted(NODES, ["a", "b"], {"a"}) == ["b"]
    assert answers.unlisted(INVENTORY, ["a", "b"], {"a"}) == []


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
    return Collector("c", "", feeds, (), lambda *_: None, default)


def test_a_collector_says_when_it_is_on() -> None:
    assert collector(METAGRAPH).default_in_words == "on"
    assert collector(NODES).default_in_words == "on, with a hotkey's key"
    assert collector(METAGRAPH, default="few").default_in_words.startswith("on if 1 to 16 ")
