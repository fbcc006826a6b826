from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors import Answers, Collector, Miners
from chutes_exporter.collectors.base import MAX_LABEL_CHARACTERS, LabelValue, Part, Samples, metrics_of
from chutes_exporter.feeds.table import INVENTORY, METAGRAPH, NODES
from chutes_exporter.metric import Metrics
from tests.collectors.support import UNREADABLE, collected

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


def part(*feeds: Any) -> Part:
    """Return a part with a metric that needs the first feed to be whole, and one that does not."""
    metrics = [FLAG, metrics_of(feeds[0]).declare("chutes_flags", "Help.")]

    def add(_answers: Answers, _miners: Miners, out: Samples) -> None:
        for metric in metrics:
            out.add(metric, 1)

    return Part(feeds, metrics, add)


@pytest.mark.parametrize(
    ("changes", "doubted", "names"),
    [
        ({}, [], {"chutes_flag", "chutes_flags"}),
        ({}, [INVENTORY], {"chutes_flag", "chutes_flags"}),
        ({}, [NODES], {"chutes_flag"}),
        ({NODES: [{"uuid": "g"}, UNREADABLE]}, [], {"chutes_flag"}),
        ({INVENTORY: None}, [], set()),
    ],
)
def test_a_metric_is_left_out_while_a_feed_that_it_needs_is_missing_or_not_whole(
    changes: Any, doubted: Any, names: set[str]
) -> None:
    answers = {NODES: [{"uuid": "g"}], INVENTORY: []} | changes
    known = {feed: answer for feed, answer in answers.items() if answer is not None}
    assert {*collected(Collector("c", "", (part(NODES, INVENTORY),)), known, doubted=doubted).samples} == names


def test_a_part_runs_once_for_the_platform_or_once_for_each_miner() -> None:
    collector = Collector("c", "", (part(METAGRAPH), part(NODES)))
    assert (collector.scope, collector.needs_key, collector.feeds) == ("platform", False, (METAGRAPH, NODES))
    seats: Any = {METAGRAPH: [{"hotkey": "me"}]}
    assert collected(collector, seats).duplicates == 0
    assert collected(collector, seats | {NODES: [{"uuid": "g"}]}).duplicates == 2


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
    for number in range(5):
        assert samples.overflowed is (number > 2)
        assert len(values(samples).get("chutes_thing_info", ())) == (0 if number > 2 else number)
        samples.add(INFO, 1, number)
    assert (values(samples), samples.count) == ({}, 5)


SIGNATURE = "0123456789abcdef" * 8


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
        (SIGNATURE[:16], SIGNATURE[:16]),
        (f"refused: {SIGNATURE}", "refused: [hex]"),
    ],
)
def test_a_label_is_text_of_a_bounded_length_without_a_signature(value: LabelValue, text: str) -> None:
    assert label(value) == text


def test_a_collector_says_when_it_is_on() -> None:
    assert Collector("c", "", (part(METAGRAPH),)).default_in_words == "on"
    assert Collector("c", "", (part(NODES),)).default_in_words == "on, with a hotkey's key"
    assert Collector("c", "", (part(METAGRAPH),), default="few").default_in_words.startswith("on if 1 to 16 ")
