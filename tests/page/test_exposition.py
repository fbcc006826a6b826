from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chutes_exporter.collectors.base import Samples
from chutes_exporter.metric import Metric
from chutes_exporter.page.exposition import END_OF_OPENMETRICS, Format, lines, negotiate
from tests.pages import count_openmetrics, parse_page

GAUGE = Metric("chutes_thing_seconds", 'Help with "quotes", a \\ and\na line.', ("a", "b"), "test")
INFO = Metric("chutes_thing_info", "Text.", ("text",), "test")

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
        ("", Format.TEXT),
        ("application/openmetrics-text", Format.OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", Format.TEXT),
        ('application/openmetrics-text; version="1.0.0"; q=1.0', Format.OPENMETRICS),
        ("application/openmetrics-text;version=1.0.0;q=0,text/plain", Format.TEXT),
        (
            "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5",
            Format.TEXT,
        ),
        (";;,,=;q", Format.TEXT),
    ],
)
def test_a_scraper_that_names_openmetrics_gets_it_unless_it_prefers_text(
    accept: str, form: Format
) -> None:
    assert negotiate(accept) is form


@given(st.lists(st.tuples(st.text(), st.text(), st.floats()), max_size=20))
def test_any_text_and_any_number_make_a_page_that_both_reference_parsers_read(
    rows: list[tuple[str, str, float]],
) -> None:
    samples = Samples()
    for a, b, value in rows:
        samples.add(GAUGE, value, a, b)
    assert len(parse_page(lines(samples.families(), Format.TEXT).decode())) == samples.count
    openmetrics = lines(samples.families(), Format.OPENMETRICS) + END_OF_OPENMETRICS
    assert count_openmetrics(openmetrics.decode()) == samples.count
