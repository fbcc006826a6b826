from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chutes_exporter.collectors.samples import Metric, Metrics, Samples
from chutes_exporter.page.exposition import Format, TooLongError, accepts_gzip, negotiate, render, sections
from tests.support import count_openmetrics, parse_page

if TYPE_CHECKING:
    from chutes_exporter.page.exposition import Family

GAUGE = Metric("chutes_thing_seconds", 'Help with "quotes", a \\ and\na line.', ("a", "b"), "test")
COUNTER = Metric("chutes_events_total", "Events.", (), "test", kind="counter")
INFO = Metrics().info("chutes_thing_info", "Text.", ("text",), "test")
ORDER = {GAUGE: "things", COUNTER: "things", INFO: "texts"}

PROMETHEUS_2_53 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
VICTORIAMETRICS = "text/plain;version=0.0.4;q=1,*/*;q=0.1"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (PROMETHEUS_2_53, Format.OPENMETRICS),
        (PROMETHEUS_3, Format.OPENMETRICS),
        (VICTORIAMETRICS, Format.TEXT),
        ("*/*", Format.TEXT),
        ("", Format.TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Format.TEXT),
        ("text/*", Format.TEXT),
        ("application/openmetrics-text", Format.OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", Format.TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0.1,text/plain;q=0.9", Format.TEXT),
        ("application/openmetrics-text;q=0", Format.TEXT),
        ("application/openmetrics-text;q=nonsense", Format.TEXT),
        ('APPLICATION/OpenMetrics-Text; Version="1.0.0"', Format.OPENMETRICS),
        ("image/png", Format.TEXT),
        (";;,,=;q", Format.TEXT),
    ],
)
def test_the_format_is_the_one_that_the_scraper_prefers(accept: str, form: Format) -> None:
    assert negotiate(accept) is form


@pytest.mark.parametrize(
    ("header", "accepted"),
    [("gzip", True), ("deflate, gzip;q=0.5", True), ("gzip;q=0", False), ("*", True), ("br", False), ("", False)],
)
def test_gzip_only_where_it_is_accepted(header: str, accepted: bool) -> None:  # noqa: FBT001
    assert accepts_gzip(header) is accepted


def page_of(families: list[Family], form: Format) -> str:
    return b"".join(part for section in sections(families, ORDER) for part in section.pieces[form].parts).decode()


def some_samples() -> Samples:
    samples = Samples()
    samples.add(GAUGE, 1.5, "x", 'quote " slash \\ line\nend')
    samples.add(GAUGE, 3e10, None, 7)
    samples.add(COUNTER, 3)
    samples.add(INFO, 1, "\N{SNOWMAN}")
    return samples


def test_the_text_format_is_as_its_description_says() -> None:
    assert page_of(render(some_samples()), Format.TEXT) == (
        '# HELP chutes_thing_seconds Help with "quotes", a \\\\ and\\na line.\n'
        "# TYPE chutes_thing_seconds gauge\n"
        'chutes_thing_seconds{a="x",b="quote \\" slash \\\\ line\\nend"} 1.5\n'
        'chutes_thing_seconds{a="",b="7"} 30000000000\n'
        "# HELP chutes_events_total Events.\n"
        "# TYPE chutes_events_total counter\n"
        "chutes_events_total 3\n"
        "# HELP chutes_thing_info Text.\n"
        "# TYPE chutes_thing_info gauge\n"
        'chutes_thing_info{text="\N{SNOWMAN}"} 1\n'
    )


def test_openmetrics_names_families_without_the_suffixes_of_their_types() -> None:
    assert page_of(render(some_samples()), Format.OPENMETRICS) == (
        '# HELP chutes_thing_seconds Help with \\"quotes\\", a \\\\ and\\na line.\n'
        "# TYPE chutes_thing_seconds gauge\n"
        "# UNIT chutes_thing_seconds seconds\n"
        'chutes_thing_seconds{a="x",b="quote \\" slash \\\\ line\\nend"} 1.5\n'
        'chutes_thing_seconds{a="",b="7"} 30000000000\n'
        "# HELP chutes_events Events.\n"
        "# TYPE chutes_events counter\n"
        "chutes_events_total 3\n"
        "# HELP chutes_thing Text.\n"
        "# TYPE chutes_thing info\n"
        'chutes_thing_info{text="\N{SNOWMAN}"} 1\n'
    )


def test_samples_of_one_metric_from_several_collectors_stand_together() -> None:
    first, second = Samples(), Samples()
    first.add(INFO, 1, "a")
    first.add(COUNTER, 1)
    second.add(INFO, 1, "b")
    page = page_of([*render(first), *render(second)], Format.TEXT)
    assert page.count("# TYPE chutes_thing_info") == 1
    assert 'text="a"} 1\nchutes_thing_info{text="b"} 1\n' in page


def test_unknown_values_make_no_sample_and_second_ones_are_counted() -> None:
    samples = Samples()
    samples.add(COUNTER, None)
    samples.add(COUNTER, float("nan"))
    samples.add(COUNTER, float("inf"))
    assert len(samples) == 0
    samples.add(COUNTER, True)  # noqa: FBT003
    samples.add(COUNTER, 5)
    assert [dict(family) for _, family in samples.families()] == [{(): 1.0}]
    assert samples.duplicates == 1
    with pytest.raises(ValueError, match="labels"):
        samples.add(GAUGE, 1, "only one")


def test_long_text_is_cut_and_nul_replaced() -> None:
    samples = Samples()
    samples.add(INFO, 1, "x\0" + "y" * 300)
    ((_, family),) = samples.families()
    ((text,),) = family
    assert text == "x\N{REPLACEMENT CHARACTER}" + "y" * 198


@given(st.lists(st.tuples(st.text(), st.text(), st.floats()), max_size=20))
def test_any_text_and_any_number_make_a_page_that_both_reference_parsers_read(
    rows: list[tuple[str, str, float]],
) -> None:
    samples = Samples()
    for a, b, value in rows:
        samples.add(GAUGE, value, a, b)
    families = render(samples)
    text = page_of(families, Format.TEXT)
    assert len(parse_page(text)) == len(samples)
    openmetrics = page_of(families, Format.OPENMETRICS) + "# EOF\n"
    assert count_openmetrics(openmetrics) == len(samples)


def test_a_section_is_the_same_until_one_of_its_families_changes() -> None:
    families = render(some_samples())
    things, texts = sections(families, ORDER)
    assert sections(families, ORDER) == [things, texts]
    info = next(family for family in families if family.metric is INFO)
    changed = [*(family for family in families if family is not info), *render(some_samples())[-1:]]
    assert sections(changed, ORDER)[0] is things
    assert sections(changed, ORDER)[1] is not texts
    fewer = [family for family in families if family.metric is not COUNTER]
    assert sections(fewer, ORDER)[0] is not things
    assert sections(fewer, ORDER)[1] is texts


def test_more_bytes_of_lines_than_there_is_room_for_are_not_rendered() -> None:
    size = sum(len(family.lines) for family in render(some_samples()))
    assert render(some_samples(), max_bytes=size)
    with pytest.raises(TooLongError):
        render(some_samples(), max_bytes=size - 1)
