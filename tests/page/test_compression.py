from __future__ import annotations

import gzip
import subprocess
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chutes_exporter.page.compression import Piece
from chutes_exporter.page.compression import gzip_page as parts_of_gzip_page

if TYPE_CHECKING:
    from collections.abc import Iterable

# Text like a page's, bytes that do not get smaller, and more than the 32 KB that deflate refers back to.
PARTS = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda text, times: text.encode() * times, st.text(max_size=20), st.integers(0, 5000)),
    st.builds(lambda start, size: bytes((start + n * n) % 251 for n in range(size)), st.integers(0, 250), st.just(999)),
)
PIECES = st.lists(st.lists(PARTS, max_size=4), max_size=6)


def gzip_page(pieces: Iterable[Piece], rest: bytes) -> bytes:
    return b"".join(parts_of_gzip_page(pieces, rest))


@given(PIECES, PARTS)
def test_a_page_of_any_pieces_is_one_gzip_member_that_zlib_reads(pieces: list[list[bytes]], rest: bytes) -> None:
    stream = zlib.decompressobj(wbits=31)
    plain = stream.decompress(gzip_page(map(Piece, pieces), rest))
    assert plain == b"".join([*(part for parts in pieces for part in parts), rest])
    # zlib ends the stream only if the checksum and the length are right.
    assert (stream.eof, stream.unused_data) == (True, b"")


@given(PIECES)
def test_a_piece_is_compressed_once_and_can_stand_anywhere(parts: list[list[bytes]]) -> None:
    pieces = [Piece(one) for one in parts]
    gzip_page(pieces, b"")
    compressed = [piece.deflated.data for piece in pieces]
    page = gzip_page(reversed(pieces), b"end")
    assert gzip.decompress(page) == b"".join(b"".join(one) for one in reversed(parts)) + b"end"
    assert all(piece.deflated.data is data for piece, data in zip(pieces, compressed, strict=True))


def test_a_piece_is_compressed_only_when_a_gzip_page_needs_it() -> None:
    piece = Piece([b"lines\n" * 100])
    assert not piece.is_compressed
    assert len(gzip_page([piece], b"")) < 60
    assert piece.is_compressed


@pytest.mark.parametrize("position", [20, -8, -4], ids=["data", "checksum", "length"])
def test_a_damaged_page_is_noticed(position: int) -> None:
    page = bytearray(gzip_page([Piece([b"some lines\n" * 9]), Piece([b"other lines\n" * 9])], b"rest\n"))
    page[position] ^= 1
    with pytest.raises((zlib.error, OSError)):
        gzip.decompress(page)


def test_the_program_gzip_reads_a_page() -> None:
    page = gzip_page([Piece([b"some lines\n" * 9999]), Piece([]), Piece([b"other lines\n"])], b"rest\n")
    subprocess.run(["gzip", "--test"], input=page, check=True)
