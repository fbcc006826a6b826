from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors import Answers, Collector, Miners
from chutes_exporter.collectors.base import (
    MAX_LABEL_CHARACTERS,
    LabelValue,
    Part,
    Samples,
    metric_of,
)
from chutes_exporter.feeds.definitions import INVENTORY, NODES
from chutes_exporter.metric import Metric
from tests.collectors.support import collected

FLAG = Metric("chutes_flag", "Help.")
INFO = Metric("chutes_thing_info", "Text.", ("text",))


@pytest.mark.parametrize(
    ("changes", "doubted", "names"),
    [
        # Only "chutes_flags" needs a whole answer of NODES, and both need all answers.
        ({}, [], {"chutes_flag", "chutes_flags"}),
        ({}, [INVENTORY], {"chutes_flag", "chutes_flags"}),
        ({}, [NODES], {"chutes_flag"}),
        # A record that cannot be read.
        ({NODES: [{"uuid": "g"}, {"uuid": 5}]}, [], {"chutes_flag"}),
        ({INVENTORY: None}, [], set()),
    ],
)
def test_a_metric_is_left_out_while_a_feed_that_it_needs_is_missing_or_not_whole(
    changes: Any, doubted: Any, names: set[str]
) -> None:
    metrics = [FLAG, metric_of(NODES)("chutes_flags", "Help.")]

    def add(_answers: Answers, _miners: Miners, out: Samples) -> None:
        for metric in metrics:
            out.add(metric, 1)

    answers = {NODES: [{"uuid": "g"}], INVENTORY: []} | changes
    known = {feed: answer for feed, answer in answers.items() if answer is not None}
    collector = Collector("c", "", (Part((NODES, INVENTORY), metrics, add),))
    assert collected(collector, known, doubted=doubted).keys() == names


def test_an_unknown_value_and_a_second_sample_of_a_series_are_left_out() -> None:
    samples = Samples()
    for value in (None, float("nan"), float("inf"), float("-inf"), 5, 1):
        samples.add(FLAG, value)
    ((sample,),) = (family.samples for family in samples.collect())
    assert (sample.value, samples.count) == (5, 1)


def test_above_the_limit_samples_are_counted_and_none_is_kept() -> None:
    samples = Samples(limit=2)
    for number in range(5):
        samples.add(INFO, 1, number)
    assert (samples.collect(), samples.count, samples.overflowed) == ([], 5, True)


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
def test_a_label_is_text_of_a_bounded_length_without_a_signature(
    value: LabelValue, text: str
) -> None:
    samples = Samples()
    samples.add(INFO, 1, value)
    ((sample,),) = (family.samples for family in samples.collect())
    assert sample.labels == {"text": text}
