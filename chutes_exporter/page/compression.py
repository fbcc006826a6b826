"""Compression: pages as gzip members (RFC 1952), made of parts that are compressed only once."""

from __future__ import annotations

import struct
import zlib

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
"""Deflate, without a name and a time, at the fastest level, on an unknown system."""
_LEVEL = 1
"""It takes a ninth of the time of the default level, for a fifth more bytes."""


class Compressor:
    """Compresses pages, and keeps what it made of the parts that the next page can have again."""

    def __init__(self) -> None:
        # The parts of the last page without its end, each part compressed, and their checksum.
        self._parts: list[bytes] = []
        self._deflated: dict[bytes, bytes] = {}
        self._checksum = 0

    def compress(self, parts: list[bytes], end: bytes) -> bytes:
        """Return a page as one gzip member.

        Only the end, which is kept for no other page, and parts that the last page did not have
        are compressed.
        """
        if parts != self._parts:
            self._keep(parts)
        checksum = zlib.crc32(end, self._checksum)
        size = sum(map(len, parts)) + len(end)
        # A gzip member ends with the checksum and the size of the whole page, modulo 2**32.
        trailer = struct.pack("<LL", checksum, size & 0xFFFFFFFF)
        deflated = [self._deflated[part] for part in parts]
        return b"".join([_HEADER, *deflated, deflate(end, zlib.Z_FINISH), trailer])

    def _keep(self, parts: list[bytes]) -> None:
        """Compress the parts that are not kept yet, and forget those that are no longer needed.

        If memory runs out, what was kept stays as it was.
        """
        deflated: dict[bytes, bytes] = {}
        checksum = 0
        for part in parts:
            deflated[part] = self._deflated.get(part) or deflate(part)
            checksum = zlib.crc32(part, checksum)
        self._parts, self._deflated, self._checksum = parts, deflated, checksum


def deflate(data: bytes, flush: int = zlib.Z_FULL_FLUSH) -> bytes:
    """Return a piece of a deflate stream, after which any other piece can follow.

    With Z_FINISH, the stream ends.
    """
    # Negative bits leave out the header and the checksum, which a gzip member has only once.
    compressor = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush(flush)
