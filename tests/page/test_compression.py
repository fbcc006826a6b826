from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.feeds.definitions import CHUTE_METRICS
from chutes_exporter.page import compression
from chutes_exporter.page.compression import Compressor
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from tests.recorded import NAMES, WORLD_C
from tests.support import PATIENCE, Clock, recording, replay, served, watching

# The parts and the end of each page.
PAGES = st.lists(st.tuples(st.lists(st.binary(max_size=200), max_size=5), st.binary(max_size=200)))


def decompressed(page: bytes) -> bytes:
    """Return what zlib reads in the only gzip member of a page, whose checksum and size it
    checks.
    """
    reader = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    content = reader.decompress(page)
    assert reader.eof
    assert not reader.unused_data
    return content


@given(PAGES)
def test_any_pages_in_a_row_are_valid_members(pages: list[tuple[list[bytes], bytes]]) -> None:
    compressor = Compressor()
    for parts, end in pages:
        assert decompressed(compressor.compress(parts, end)) == b"".join([*parts, end])


def test_the_page_after_one_that_ran_out_of_memory_is_valid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> bytes:
        raise MemoryError

    compressor = Compressor()
    compressor.compress([b"old"], b"")
    with monkeypatch.context() as patch:
        patch.setattr(compression, "deflate", fail)
        # The second part is known from the first page, so only the new one fails.
        with pytest.raises(MemoryError):
            compressor.compress([b"new", b"old"], b"")
    assert decompressed(compressor.compress([b"old"], b"")) == b"old"


async def test_only_what_changed_is_compressed_again(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    deflate = compression.deflate
    compressed: list[bytes] = []

    def noted_deflate(data: bytes, *flush: int) -> bytes:
        compressed.append(data)
        return deflate(data, *flush)

    async def compressed_for_a_page(form: Format) -> bytes:
        compressed.clear()
        await exporter.metrics(form, timeout=PATIENCE, gzipped=True)
        return b"".join(compressed)

    monkeypatch.setattr(compression, "deflate", noted_deflate)
    # How lines of metrics begin that do not depend on the chutes' metrics.
    independent = []
    for collector in COLLECTORS:
        if CHUTE_METRICS not in collector.feeds:
            independent += [f"\n{metric.name}{{".encode() for metric in collector.metrics]
    bodies = {name: recording(WORLD_C, name) for name in NAMES}
    whole = bodies["metrics"]
    # The chutes' metrics are due at each scrape, and everything else stays fresh.
    ttl = {"metrics": 1}
    async with (
        served(replay(bodies)) as api,
        Exporter(watching(api, chutes="all", ttl=ttl), clock=clock, monotonic=clock) as exporter,
    ):
        for form in Format:
            bodies["metrics"] = whole
            clock.now += 2
            first = await compressed_for_a_page(form)
            assert any(name in first for name in independent)
            # Nothing is requested for the second page, so only lines about the process change.
            second = await compressed_for_a_page(form)
            assert b"\nprocess_cpu_seconds_total" in second
            assert b"\nchutes_api_" not in second
            # The third page has one chute more.
            bodies["metrics"] += b'data: {"chute_id": "another", "instance_count": 25}\n\n'
            clock.now += 2
            third = await compressed_for_a_page(form)
            assert b'\nchutes_chute_instances{chute_id="another"} 25.0' in third
            assert b"\nchutes_api_requests_total" in third
            assert not any(name in third for name in independent)
