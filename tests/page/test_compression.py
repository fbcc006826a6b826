from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from chutes_exporter.page.exposition import Compressor

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
