from __future__ import annotations

import pytest

from chutes_exporter.collectors.samples import MAX_LABEL_CHARACTERS, LabelValue, Metrics, Samples

METRICS = Metrics()
GAUGE = METRICS.gauge("chutes_thing_seconds", "Help.", ("a", "b"), "test")
COUNTER = METRICS.counter("chutes_events_total", "Events.", (), "test")
INFO = METRICS.info("chutes_thing_info", "Text.", ("text",), "test")


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


def test_samples_keep_their_metric_their_labels_and_their_value() -> None:
    samples = Samples()
    samples.add(GAUGE, 1.5, "x", "y")
    samples.add(GAUGE, 2, "x", "z")
    samples.add(COUNTER, True)  # noqa: FBT003 - collectors pass flags as values
    assert values(samples) == {
        "chutes_thing_seconds": {("x", "y"): 1.5, ("x", "z"): 2.0},
        "chutes_events_total": {(): 1.0},
    }
    assert samples.count == 3


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_an_unknown_value_makes_no_sample(value: float | None) -> None:
    samples = Samples()
    samples.add(COUNTER, value)
    assert values(samples) == {}


def test_the_first_sample_of_a_series_stays_and_the_second_is_counted() -> None:
    samples = Samples()
    samples.add(COUNTER, 1)
    samples.add(COUNTER, 5)
    assert values(samples) == {"chutes_events_total": {(): 1.0}}
    assert (samples.count, samples.duplicates) == (1, 1)


def test_a_wrong_number_of_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match="labels"):
        Samples().add(GAUGE, 1, "only one")


def test_more_samples_than_the_limit_are_counted_and_all_dropped() -> None:
    samples = Samples(limit=2)
    for number in range(2):
        samples.add(INFO, 1, number)
    assert (len(values(samples)["chutes_thing_info"]), samples.overflowed) == (2, False)
    for number in range(2, 5):
        samples.add(INFO, 1, number)
    assert (values(samples), samples.count, samples.overflowed) == ({}, 5, True)


def test_families_have_the_types_and_units_of_their_metrics() -> None:
    samples = Samples()
    samples.add(GAUGE, 1, "x", "y")
    samples.add(COUNTER, 1, created=1000.0)
    samples.add(INFO, 1, "x")
    assert [(family.name, family.type, family.unit) for family in samples.collect()] == [
        ("chutes_thing_seconds", "gauge", "seconds"),
        ("chutes_events", "counter", ""),
        ("chutes_thing", "info", ""),
    ]
    assert samples.collect()[1].samples[1][:3] == ("chutes_events_created", {}, 1000.0)


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
