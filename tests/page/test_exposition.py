from __future__ import annotations

import copy
import gzip
import zlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.openmetrics import exposition

from chutes_exporter.collectors.base import Samples
from chutes_exporter.metric import Metric
from chutes_exporter.page.exposition import END_OF_OPENMETRICS, Format, Part, accepts_gzip, gzip_page, negotiate, render
from tests.support import count_openmetrics, parse_page

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

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


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,9}", fullmatch=True).filter(
    lambda name: not name.startswith("__") and not name.endswith(("_total", "_created", "_info", "_seconds"))
)
NUMBERS = st.one_of(st.floats(), st.integers(-(10**20), 10**20).map(float))


@st.composite
def families(draw: st.DrawFn) -> list[Family]:
    """Families of all kinds, with any text."""
    made: list[Family] = []
    for name in draw(st.lists(NAMES, max_size=5, unique=True)):
        text, labels = draw(st.text()), draw(st.lists(NAMES, max_size=3, unique=True))
        rows = draw(st.lists(st.tuples(*[st.text()] * len(labels)), max_size=4, unique=True))
        kind = draw(st.sampled_from([GaugeMetricFamily, CounterMetricFamily, InfoMetricFamily, HistogramMetricFamily]))
        family: Any = kind(
            f"{name}_seconds", text, labels=labels, **({} if kind is InfoMetricFamily else {"unit": "seconds"})
        )
        for values in rows:
            match family:
                case HistogramMetricFamily():
                    family.add_metric(values, [("0.5", 1), ("+Inf", 2)], draw(NUMBERS))
                case InfoMetricFamily():
                    family.add_metric(values, {})
                case CounterMetricFamily():
                    family.add_metric(values, draw(NUMBERS), created=draw(st.floats(0, 2e9)))
                case _:
                    family.add_metric(values, draw(NUMBERS))
        made.append(family)
    return made


def without_created(family: Family) -> Family:
    copied = copy.copy(family)
    copied.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return copied


@given(families())
def test_lines_are_those_of_the_client_library(made: list[Family]) -> None:
    # The library's types say that a registry is a CollectorRegistry, and its OpenMetrics has no types.
    plain: Any = SimpleNamespace(collect=lambda: map(without_created, made))
    whole: Any = SimpleNamespace(collect=lambda: made)
    openmetrics: Any = exposition.generate_latest
    assert render(made, Format.TEXT) == generate_latest(plain)
    assert render(made, Format.OPENMETRICS) + END_OF_OPENMETRICS == openmetrics(plain)
    assert render(made, Format.OPENMETRICS, created=True) + END_OF_OPENMETRICS == openmetrics(whole)


@given(st.lists(st.tuples(st.text(), st.text(), st.floats()), max_size=20))
def test_any_text_and_any_number_make_a_page_that_both_reference_parsers_read(
    rows: list[tuple[str, str, float]],
) -> None:
    samples = Samples()
    for a, b, value in rows:
        samples.add(GAUGE, value, a, b)
    assert len(parse_page(render(samples.collect(), Format.TEXT).decode())) == samples.count
    openmetrics = render(samples.collect(), Format.OPENMETRICS) + END_OF_OPENMETRICS
    assert count_openmetrics(openmetrics.decode()) == samples.count


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    samples = Samples()
    samples.add(INFO, 1, "a\ud800b")
    assert b'text="a?b"' in render(samples.collect(), Format.TEXT)


# Text like a page's, bytes that do not get smaller, and more than the 32 KB that deflate refers back to.
PARTS = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda text, times: text.encode() * times, st.text(max_size=20), st.integers(0, 5000)),
    st.builds(lambda start, size: bytes((start + n * n) % 251 for n in range(size)), st.integers(0, 250), st.just(999)),
)


@given(st.lists(PARTS, max_size=6), PARTS)
def test_a_page_of_any_parts_is_one_gzip_member_that_zlib_reads(plain: list[bytes], rest: bytes) -> None:
    stream = zlib.decompressobj(wbits=31)
    assert stream.decompress(b"".join(gzip_page([*map(Part, plain)], rest))) == b"".join([*plain, rest])
    # zlib ends the stream only if the checksum and the length are right.
    assert (stream.eof, stream.unused_data) == (True, b"")


def test_a_part_is_compressed_once_and_can_stand_anywhere() -> None:
    parts = [Part(b"some lines\n" * 99), Part(b"other lines\n" * 9)]
    gzip_page(parts, b"")
    compressed = [part.deflated for part in parts]
    page = gzip_page(parts[::-1], b"end")
    assert gzip.decompress(b"".join(page)) == parts[1].plain + parts[0].plain + b"end"
    assert all(part.deflated is data for part, data in zip(parts, compressed, strict=True))
