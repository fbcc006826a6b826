"""Compression: pages as gzip, from pieces that are compressed once and kept.

A piece ends on a byte boundary and refers to no bytes before it, so pieces can follow each other in any order. A page
is one gzip member: a header, the pieces, and a trailer with the checksum and the length of the page.
"""

from __future__ import annotations

import struct
import zlib
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

# Level 1 takes a ninth of the time of the default level, for a fifth more bytes.
_LEVEL = 1
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"  # deflate, no name, no time, fastest level, unknown system
_POLYNOMIAL = 0xEDB88320  # of CRC-32; the highest bit is the coefficient of 1
_ONE = 0x80000000
_BYTE = 0x00800000  # x to the power of 8


class _Deflated(NamedTuple):
    """A compressed piece.

    Attributes:
        data: Raw deflate blocks, none of them the last one of a stream.
        checksum: CRC-32 of the plain bytes.
        shift: The factor by which the checksum of bytes before the piece is multiplied.
    """

    data: bytes
    checksum: int
    shift: int


class Piece:
    """Bytes of a page that are compressed at most once, when a gzip page first needs them.

    Args:
        parts: The bytes, in any number of parts.

    Attributes:
        size: Number of bytes.
    """

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts
        self.size = sum(map(len, parts))

    @property
    def is_compressed(self) -> bool:
        """Whether the piece was compressed."""
        return "deflated" in self.__dict__

    @cached_property
    def deflated(self) -> _Deflated:
        """The compressed piece."""
        checksum = 0
        for part in self.parts:
            checksum = zlib.crc32(part, checksum)
        return _Deflated(_deflate(self.parts, zlib.Z_FULL_FLUSH), checksum, _power(_BYTE, self.size))


def gzip_page(pieces: Iterable[Piece], rest: bytes) -> list[bytes]:
    """Return a page as the parts of one gzip member.

    Args:
        pieces: The bytes that are likely to stand on the next page too.
        rest: The bytes after them, which are compressed for this page.
    """
    data, checksum, size = [_HEADER], 0, len(rest)
    for piece in pieces:
        data.append(piece.deflated.data)
        checksum = _multiply(checksum, piece.deflated.shift) ^ piece.deflated.checksum
        size += piece.size
    trailer = struct.pack("<II", zlib.crc32(rest, checksum), size & 0xFFFFFFFF)
    return [*data, _deflate([rest], zlib.Z_FINISH), trailer]


def _deflate(parts: Iterable[bytes], end: int) -> bytes:
    stream = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
    return b"".join([*map(stream.compress, parts), stream.flush(end)])


# The checksum of A and B together is that of A, times x to the power of the bits of B, plus that of B.
@lru_cache(maxsize=1024)
def _multiply(a: int, b: int) -> int:
    """Multiply two polynomials modulo that of CRC-32."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = a << 1 & 0xFFFFFFFF
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


def _power(base: int, exponent: int) -> int:
    """Raise a polynomial to a power modulo that of CRC-32."""
    power = _ONE
    while exponent:
        if exponent & 1:
            power = _multiply(power, base)
        base = _multiply(base, base)
        exponent >>= 1
    return power
