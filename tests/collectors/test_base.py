from __future__ import annotations

import pytest

from chutes_exporter.collectors.base import (
    MAX_LABEL_CHARACTERS,
    LabelValue,
    Samples,
)
from chutes_exporter.metric import Metric

FLAG = Metric("chutes_flag", "Help.")
INFO = Metric("chutes_thing_info", "Text.", ("text",))


def test_an_unknown_value_and_a_second_sample_of_a_series_are_left_out() -> None:
    samples = Samples()
    for value in (None, float("nan"), float("inf"), float("-inf"), 5, 1):
        samples.add(FLAG, value)
    ((sample,),) = (family.samples for family in samples.families())
    assert (sample.value, samples.count) == (5, 1)


def test_above_the_limit_samples_are_counted_and_none_is_kept() -> None:
    samples = Samples(limit=2)
    for number in range(5):
        samples.add(INFO, 1, number)
    assert (samples.families(), samples.count, samples.overflowed) == ([], 5, True)


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
    ((sample,),) = (family.samples for family in samples.families())
    assert sample.labels == {"text": text}
