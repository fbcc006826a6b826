"""Decodes answers into records.

A record that cannot be read is counted and left out. An answer of another shape fails, and so does
an answer of which most records cannot be read.
"""

from __future__ import annotations

import re
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_origin

import msgspec

from chutes_exporter.api import records as r
from chutes_exporter.api.errors import CutOffError, TooLargeError, UndecodableError, scrub
from chutes_exporter.api.schema_drift import UNREADABLE, FieldCheck, not_none

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R", bound=r.Record)
Body = bytes | bytearray

MAX_LINE_BYTES = 1024 * 1024
"""Longest record of a stream. A chute contains its whole code and readme, tens of KB."""
MAX_STREAM_BYTES = 512 * 1024 * 1024
"""Longest stream, with the parts of its records that are not kept. 2,000 chutes are about 100 MB.
"""
MAX_REJECTED = 10_000
"""More unreadable than readable records of an answer of which the end may never come.

It is also the limit of more empty lines than records.
"""
MAX_PIECES = 20_000
"""Pieces of a body, each of which takes some time, however small it is.

The service sends each record of a stream as a piece, and networks cut bodies into pieces of 1.4 KB.
"""
BYTES_PER_MORE_PIECE = 500
"""Bytes of a body for which one more piece is allowed."""

_PIECE_BYTES = 64 * 1024
_ZLIB_GZIP_FORMAT = 31

_BYTES_PER_WIDE_CHARACTER = 4
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BYTES_PER_VALUE = 16
_BYTES_PER_RECORD = 128


encode = msgspec.json.Encoder(enc_hook=str).encode
"""Returns the JSON of a record."""


def memory_of(text: Body) -> int:
    """Estimate the memory in bytes that the records of a JSON text take.

    Usually this is the length of the text. It is more with many short values (commas) or records
    (braces), or with wide characters, also escaped ones. Python stores each character of their
    strings in up to 4 bytes.
    """
    strings = _STRING.finditer(text) if _is_wide(text) else ()
    wide = sum(len(match[0]) for match in strings if _is_wide(match[0]))
    return max(
        len(text) + (_BYTES_PER_WIDE_CHARACTER - 1) * wide,
        _BYTES_PER_VALUE * text.count(b","),
        _BYTES_PER_RECORD * text.count(b"{"),
    )


def _is_wide(text: Body) -> bool:
    return not text.isascii() or b"\\u" in text


async def inflated(chunks: AsyncIterable[bytes], coding: str) -> AsyncIterator[bytes]:
    """Decompress a body in small pieces, so that a small body that expands to a huge one does no
    harm.

    The coding is its ``Content-Encoding``. Without one, the chunks are yielded as they are. Any
    other body must be complete gzip, of one or more members and nothing else, or ApiError is
    raised. Each yielded piece takes about the same time, but some are empty.
    """
    if coding.strip().lower() in ("", "identity"):
        async for chunk in chunks:
            yield chunk
        return
    member = zlib.decompressobj(wbits=_ZLIB_GZIP_FORMAT)
    async for chunk in chunks:
        left = chunk
        while left:
            if member.eof:
                member = zlib.decompressobj(wbits=_ZLIB_GZIP_FORMAT)
            try:
                yield member.decompress(left, _PIECE_BYTES)
            except zlib.error:
                raise UndecodableError("the compressed body cannot be read") from None
            left = member.unused_data if member.eof else member.unconsumed_tail
    if not member.eof:
        raise CutOffError("the compressed body ends too early")


@dataclass
class Tally:
    """Counts of the records of an answer, the bytes and pieces of its body, decompressed, and the
    check of its fields.
    """

    accepted: int = 0
    rejected: int = 0
    empty_lines: int = 0
    size: int = 0
    pieces: int = 0
    first_error: str = ""
    check: FieldCheck | None = None

    def add_piece(self, size: int) -> None:
        """Count a piece of the body, or raise TooLargeError if too many pieces are too small."""
        self.size += size
        self.pieces += 1
        if self.pieces > MAX_PIECES + self.size // BYTES_PER_MORE_PIECE:
            raise TooLargeError(f"{self.size} bytes came in {self.pieces} pieces")

    def add_empty_line(self) -> None:
        """Count a line without a record, or raise UndecodableError if there are too many."""
        self.empty_lines += 1
        if self.empty_lines > self.accepted + self.rejected + MAX_REJECTED:
            raise UndecodableError(f"{self.empty_lines} lines are empty", status=200)

    def reject(self, error: Exception) -> None:
        """Count a record that cannot be read."""
        self.rejected += 1
        self.first_error = self.first_error or scrub(str(error))[:200]
        self.require_most(MAX_REJECTED)

    def require_most(self, allowed: int = 0) -> None:
        """Raise if most records could not be read, as in an error page or the answer of another
        API.
        """
        if self.rejected > self.accepted + allowed:
            total = self.rejected + self.accepted
            raise UndecodableError(
                f"{self.rejected} of {total} records cannot be read: {self.first_error}", status=200
            )


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=r.decode_hook)


def _read(kind: Any, text: Body | msgspec.Raw, tally: Tally) -> Any:
    """Decode text of a type.

    An item of a list or an object that cannot be read is counted and left out.

    Each field of a Body is decoded by itself, so that this applies to its lists, too. Null is a
    missing field, unless the field's type has it.
    """
    if get_origin(kind) is list:
        with suppress(*UNREADABLE):
            # Usually all can be read. Then this is faster and takes less memory.
            return _decoder(kind).decode(text)
        rows = dict(enumerate(_decoder(list[msgspec.Raw]).decode(text)))
        return list(_readable(get_args(kind)[0], rows, tally).values())
    if get_origin(kind) is dict:
        return _readable(get_args(kind)[1], _decoder(dict[str, msgspec.Raw]).decode(text), tally)
    if isinstance(kind, type) and issubclass(kind, r.Body):
        return _read_body(kind, text, tally)
    return _decoder(kind).decode(text)


def _read_body(kind: type[r.Body], text: Body | msgspec.Raw, tally: Tally) -> r.Body:
    """Decode each field of a Body by itself."""
    texts = _decoder(dict[str, msgspec.Raw]).decode(text)
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        name = field.encode_name
        if name not in texts:
            continue
        if memoryview(texts[name]) != memoryview(b"null"):
            values[name] = _read(not_none(field.type), texts[name], tally)
        elif NoneType in get_args(field.type):
            values[name] = None
    return msgspec.convert(values, kind)


def _readable(kind: Any, texts: dict[K, msgspec.Raw], tally: Tally) -> dict[K, Any]:
    values = {}
    for key, text in texts.items():
        try:
            values[key] = _read(kind, text, tally)
        except UNREADABLE as error:
            tally.reject(error)
    return values


@dataclass(frozen=True)
class Shape(Generic[T]):
    """The shape of a JSON answer.

    Attributes:
        kind: The type of the answer.
        value: Makes the value of an answer.
        count: Returns the number of records of a value. Without it, a value is a list.
        never_empty: Whether an answer without records is an error.
    """

    kind: Any
    value: Callable[[Any], T]
    count: Callable[[Any], int] = len
    never_empty: bool = False

    def decode(self, body: Body, tally: Tally) -> T:
        """Decode a whole body and count its records.

        An empty, strange or mostly unreadable one raises ApiError.
        """
        if not body.strip():
            raise CutOffError("the answer is empty", status=200)
        if tally.check is not None:
            tally.check.add(self.kind, body)
        try:
            value = self.value(_read(self.kind, body, tally))
        except UNREADABLE as error:
            raise UndecodableError(
                f"the answer has an unexpected format: {str(error)[:200]}", status=200
            ) from None
        tally.accepted += self.count(value)
        if self.never_empty and not tally.accepted + tally.rejected:
            raise CutOffError("the list is empty", status=200)
        tally.require_most()
        return value


def list_of(record: type[R], *, never_empty: bool = False) -> Shape[list[R]]:
    """Make the shape of a JSON list of records."""
    return Shape(list[record], lambda rows: rows, never_empty=never_empty)  # type: ignore[valid-type]


def object_of(record: type[R], count: Callable[[R], int] = lambda _: 1) -> Shape[R]:
    """Make the shape of a JSON object that is one record, or has as many records as ``count``
    returns.
    """
    return Shape(record, lambda value: value, count)


def by_model(record: type[R]) -> Shape[list[R]]:
    """Make the shape of ``{model: {...}}``. The model becomes the field ``gpu`` of the record."""

    def records(models: dict[str, R]) -> list[R]:
        return [msgspec.structs.replace(fields, gpu=model) for model, fields in models.items()]

    return Shape(dict[str, record], records, never_empty=True)  # type: ignore[valid-type]


def _held_gpus(miners: dict[str, r.MinerGpus]) -> list[r.HeldGpu]:
    found = []
    for hotkey, miner in miners.items():
        for gpu in miner.provisioned:
            held = r.HeldGpu(
                hotkey,
                gpu.gpu,
                gpu.server_id,
                gpu.chute.chute_id,
                gpu.chute.instance_id,
                gpu.chute.activated_at,
            )
            found.append(held)
    return found


def _stats(body: r.StatsBody) -> list[r.MinerStats]:
    windows = {"1h": body.past_hour, "1d": body.past_day, "7d": body.all}
    known = {name: window.instance_stats for name, window in windows.items() if window}
    if all(records is None for records in known.values()):
        raise msgspec.ValidationError("the answer has no window of stats")
    stats: list[r.MinerStats] = []
    for name, records in known.items():
        stats += (msgspec.structs.replace(record, window=name) for record in records or ())
    return stats


def _audit_report(report: r.AuditReport) -> r.AuditReport:
    if not report.instances:
        raise msgspec.ValidationError("the report has no instances")
    return report


SERVERS: Shape[list[r.Server]] = Shape(r.ServersBody, lambda body: body.servers)
HELD_GPUS: Shape[list[r.HeldGpu]] = Shape(dict[str, r.MinerGpus], _held_gpus)
MAINTENANCE = object_of(r.MaintenancePolicy, lambda policy: 1 + len(policy.servers or ()))
STATS: Shape[list[r.MinerStats]] = Shape(r.StatsBody, _stats)
SCORES = object_of(r.Scores, lambda scores: len(scores.shares))
AUDIT_REPORT: Shape[r.AuditReport] = Shape(
    r.AuditReport,
    _audit_report,
    lambda report: len(report.instances) + len(report.multipliers),
)


@dataclass(frozen=True)
class StreamShape(Generic[R]):
    """The shape of a stream of ``data: {json}`` lines.

    If it may not be empty, only the line ``NO_ITEMS`` means that there are no records.
    """

    kind: type[R]
    may_be_empty: bool = False

    async def decode(self, chunks: AsyncIterable[bytes], tally: Tally) -> AsyncIterator[R]:
        """Yield the readable records of a body as lines arrive.

        Raise ApiError, at the end if most are unreadable.
        """
        has_lines = False
        async for line in _lines(chunks):
            has_lines = has_lines or bool(line)
            payload = line.removeprefix(b"data:").strip()
            if not line or payload == b"NO_ITEMS":
                tally.add_empty_line()
                continue
            if tally.check is not None:
                tally.check.add(self.kind, payload)
            try:
                record = _decoder(self.kind).decode(payload)
            except UNREADABLE as error:
                tally.reject(error)
                continue
            tally.accepted += 1
            yield record
        if not (has_lines or self.may_be_empty):
            raise CutOffError("the answer is empty", status=200)
        tally.require_most()


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytearray]:
    """Yield the lines of a stream without spaces around them, or raise TooLargeError."""
    # A bytearray grows in place, so a long line in small chunks takes linear time.
    pending = bytearray()
    total = 0
    async for chunk in chunks:
        total += len(chunk)
        pending += chunk
        if total > MAX_STREAM_BYTES:
            raise TooLargeError(f"the stream is longer than {MAX_STREAM_BYTES} bytes")
        if b"\n" in chunk:
            *lines, pending = pending.split(b"\n")
            for line in lines:
                yield line.strip()
        if len(pending) > MAX_LINE_BYTES:
            raise TooLargeError(f"a record is longer than {MAX_LINE_BYTES} bytes")
    yield pending.strip()
