"""Decodes answers into records.

A record that cannot be read is counted and left out. An answer of another shape fails, and so does an answer of which
most records cannot be read.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec

from chutes_exporter.api import records as r
from chutes_exporter.api.errors import CutOffError, TooLargeError, UndecodableError, scrub
from chutes_exporter.api.fields import EACH, UNREADABLE, FieldCheck, Layout

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R", bound=r.Record)
Body = bytes | bytearray

MAX_LINE_BYTES = 1024 * 1024
"""Longest record of a stream. A chute contains its whole code and readme, tens of KB."""
MAX_STREAM_BYTES = 512 * 1024 * 1024
"""Longest stream, with the parts of its records that are not kept. 2,000 chutes are about 100 MB."""
MAX_REJECTED = 10_000

MAX_PIECE_BYTES = 64 * 1024
_ZLIB_GZIP_FORMAT = 31

_BYTES_PER_WIDE_CHARACTER = 4
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BYTES_PER_VALUE = 16
_BYTES_PER_RECORD = 128


encode = msgspec.json.Encoder(enc_hook=str).encode
"""Returns the JSON of a record."""


def memory_of(text: Body) -> int:
    """Estimate the memory in bytes that the records of a JSON text take.

    Usually this is the length of the text. It is more if the text has many short values or records, or strings with a
    character that needs more than one byte: Python stores each of them with up to four bytes for each character.
    """
    wide = 0
    if not text.isascii() or b"\\u" in text:
        strings = (match[0] for match in _STRING.finditer(text))
        wide = sum(len(string) for string in strings if not string.isascii() or b"\\u" in string)
    return max(
        len(text) + (_BYTES_PER_WIDE_CHARACTER - 1) * wide,
        _BYTES_PER_VALUE * text.count(b","),
        _BYTES_PER_RECORD * text.count(b"{"),
    )


async def inflated(chunks: AsyncIterable[bytes], coding: str) -> AsyncIterator[bytes]:
    """Decompress a body in small pieces, so that a small body that expands to a huge one does no harm.

    The coding is its ``Content-Encoding``. A body that is not gzip, or ends too early, is an ApiError.
    """
    if coding.strip().lower() in ("", "identity"):
        async for chunk in chunks:
            yield chunk
        return
    stream = zlib.decompressobj(wbits=_ZLIB_GZIP_FORMAT)
    async for chunk in chunks:
        left = chunk
        while left and not stream.eof:
            try:
                piece = stream.decompress(left, MAX_PIECE_BYTES)
            except zlib.error:
                raise UndecodableError("the compressed body cannot be read") from None
            left = stream.unconsumed_tail
            yield piece
            # A chunk may expand to a thousand pieces. Let other tasks run in between.
            await asyncio.sleep(0)
    if not stream.eof:
        raise CutOffError("the compressed body ends too early")


@dataclass
class Tally:
    """Counts of the records of an answer, the bytes of its body, decompressed, and the check of its fields."""

    accepted: int = 0
    rejected: int = 0
    size: int = 0
    first_error: str = ""
    check: FieldCheck | None = None

    def reject(self, error: Exception) -> None:
        """Count a record that cannot be read."""
        self.rejected += 1
        self.first_error = self.first_error or scrub(str(error))[:200]
        if self.rejected > MAX_REJECTED:
            raise UndecodableError(f"more than {MAX_REJECTED} records cannot be read: {self.first_error}", status=200)

    def require_most(self) -> None:
        """Raise if most records could not be read, as in an error page or the answer of another API."""
        if self.rejected > self.accepted:
            raise UndecodableError(
                f"{self.rejected} of {self.rejected + self.accepted} records cannot be read: {self.first_error}",
                status=200,
            )


class Shape(Generic[T]):
    """The shape of a JSON answer, with the layout of its records. ``read`` decodes and counts them."""

    def __init__(self, layout: Layout, read: Callable[[Body, Tally], T]) -> None:
        self.layout = layout
        self._read = read

    def decode(self, body: Body, tally: Tally) -> T:
        """Decode a whole body, or raise ApiError if it is empty, or another shape, or most of it cannot be read."""
        if not body.strip():
            raise CutOffError("the answer is empty", status=200)
        if tally.check is not None:
            tally.check.run(self.layout, body)
        try:
            value = self._read(body, tally)
        except UNREADABLE as error:
            raise UndecodableError(f"the answer has an unexpected format: {str(error)[:200]}", status=200) from None
        tally.require_most()
        return value


def _decode(body: Body, kind: type[T]) -> T:
    return msgspec.json.decode(body, type=kind, dec_hook=r.decode_hook)


def _readable_values(rows: dict[K, msgspec.Raw], kind: Any, tally: Tally) -> dict[K, Any]:
    """Return the values that can be read, and count the others."""
    decoder = msgspec.json.Decoder(kind, dec_hook=r.decode_hook)
    values = {}
    for key, row in rows.items():
        try:
            values[key] = decoder.decode(row)
        except UNREADABLE as error:
            tally.reject(error)
    return values


def _readable(rows: Iterable[msgspec.Raw], record: type[T], tally: Tally) -> list[T]:
    """Return the records that can be read, and count all."""
    records = list(_readable_values(dict(enumerate(rows)), record, tally).values())
    tally.accepted += len(records)
    return records


def list_of(record: type[R], *, never_empty: bool = False) -> Shape[list[R]]:
    """Make the shape of a JSON list of records. With ``never_empty``, an empty list is an error."""

    def read(body: Body, tally: Tally) -> list[R]:
        rows = _decode(body, list[msgspec.Raw])
        if never_empty and not rows:
            raise CutOffError("the list is empty", status=200)
        return _readable(rows, record, tally)

    return Shape([record], read)


def object_of(kind: type[R], count: Callable[[R], int] = lambda _: 1) -> Shape[R]:
    """Make the shape of a single JSON object, in which a function counts the records."""

    def read(body: Body, tally: Tally) -> R:
        value = _decode(body, kind)
        tally.accepted += count(value)
        return value

    return Shape(kind, read)


class _ServersBody(msgspec.Struct):
    servers: list[msgspec.Raw]


def _servers(body: Body, tally: Tally) -> list[r.Server]:
    return _readable(_decode(body, _ServersBody).servers, r.Server, tally)


SERVERS: Shape[list[r.Server]] = Shape({"servers": [r.Server]}, _servers)
"""``{"servers": [...]}``."""


def by_model(record: type[R]) -> Shape[list[R]]:
    """Make the shape of ``{model: {...}}``. The model becomes the field ``gpu`` of the record."""

    def read(body: Body, tally: Tally) -> list[R]:
        by_model = _readable_values(_decode(body, dict[str, msgspec.Raw]), record, tally)
        records = [msgspec.structs.replace(fields, gpu=model) for model, fields in by_model.items()]
        tally.accepted += len(records)
        if not (records or tally.rejected):
            raise CutOffError("the list is empty", status=200)
        return records

    return Shape({EACH: record}, read)


class _MinerGpus(msgspec.Struct):
    provisioned: list[msgspec.Raw]


def _held_gpus(body: Body, tally: Tally) -> list[r.HeldGpu]:
    return [
        r.HeldGpu(hotkey, gpu.gpu, gpu.server_id, gpu.chute.chute_id, gpu.chute.instance_id, gpu.chute.activated_at)
        for hotkey, miner in _readable_values(_decode(body, dict[str, msgspec.Raw]), _MinerGpus, tally).items()
        for gpu in _readable(miner.provisioned, r.ProvisionedGpu, tally)
    ]


# The exporter does not use the plain values, which have None.
HELD_GPUS: Shape[list[r.HeldGpu]] = Shape({EACH: {"provisioned": [r.ProvisionedGpu], "idle": None}}, _held_gpus)
"""``{hotkey: {"provisioned": [...]}}``."""


MAINTENANCE = object_of(r.MaintenancePolicy, lambda policy: 1 + len(policy.servers or ()))


class _WindowBody(msgspec.Struct):
    instance_stats: list[msgspec.Raw] | None = None


class _StatsBody(msgspec.Struct):
    past_hour: _WindowBody | None = None
    past_day: _WindowBody | None = None
    all: _WindowBody | None = None


def _stats(body: Body, tally: Tally) -> list[r.MinerStats]:
    windows = _decode(body, _StatsBody)
    named = {"1h": windows.past_hour, "1d": windows.past_day, "7d": windows.all}
    known = {
        name: window.instance_stats for name, window in named.items() if window and window.instance_stats is not None
    }
    if not known:
        raise msgspec.ValidationError("the answer has no window of stats")
    return [
        msgspec.structs.replace(record, window=name)
        for name, rows in known.items()
        for record in _readable(rows, r.MinerStats, tally)
    ]


_WINDOW: Layout = {"instance_stats": [r.MinerStats], "bounties": None, "compute_units": None}
STATS: Shape[list[r.MinerStats]] = Shape({"past_hour": _WINDOW, "past_day": _WINDOW, "all": _WINDOW}, _stats)


class _ScoresBody(msgspec.Struct):
    final_scores: dict[str, msgspec.Raw]
    raw_values: dict[str, msgspec.Raw] | None = None


def _scores(body: Body, tally: Tally) -> r.Scores:
    scores = _decode(body, _ScoresBody)
    shares = _readable_values(scores.final_scores, float | None, tally)
    tally.accepted += len(shares)
    return r.Scores(shares, _readable_values(scores.raw_values or {}, r.RawScore | None, tally))


SCORES: Shape[r.Scores] = Shape({"final_scores": None, "raw_values": {EACH: r.RawScore}}, _scores)


class _ReportBody(msgspec.Struct):
    instance_audit: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]
    compute_history: list[msgspec.Raw]


def _report(body: Body, tally: Tally) -> r.AuditReport:
    report = _decode(body, _ReportBody)
    return r.AuditReport(
        instances=_readable(report.instance_audit, r.AuditInstance, tally),
        multipliers=_readable(report.compute_history, r.ComputeRecord, tally),
    )


AUDIT_REPORT: Shape[r.AuditReport] = Shape(
    {"instance_audit": [r.AuditInstance], "compute_history": [r.ComputeRecord]}, _report
)


class StreamShape(Generic[R]):
    """The shape of a stream of ``data: {json}`` lines.

    If it may not be empty, only the line ``NO_ITEMS`` means that there are no records.
    """

    def __init__(self, record: type[R], *, may_be_empty: bool = False) -> None:
        self.layout: Layout = record
        self._decoder: msgspec.json.Decoder[R] = msgspec.json.Decoder(record, dec_hook=r.decode_hook)
        self._may_be_empty = may_be_empty

    async def decode(self, chunks: AsyncIterable[bytes], tally: Tally) -> AsyncIterator[R]:
        """Yield the records of a body as its lines arrive, or raise ApiError."""
        empty = not self._may_be_empty
        async for line in _lines(chunks):
            empty = False
            payload = line.removeprefix(b"data:").strip()
            if payload == b"NO_ITEMS":
                continue
            if tally.check is not None:
                tally.check.run(self.layout, payload)
            try:
                record = self._decoder.decode(payload)
            except UNREADABLE as error:
                tally.reject(error)
                continue
            tally.accepted += 1
            yield record
        if empty:
            raise CutOffError("the answer is empty", status=200)
        tally.require_most()


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines that are not empty."""
    # A bytearray grows in place, so a long line in small chunks takes linear time.
    pending = bytearray()
    total = 0
    async for chunk in chunks:
        total += len(chunk)
        if total > MAX_STREAM_BYTES:
            raise TooLargeError(f"the stream is longer than {MAX_STREAM_BYTES} bytes")
        first, *more = chunk.split(b"\n")
        pending += first
        if len(pending) > MAX_LINE_BYTES:
            raise TooLargeError(f"a record is longer than {MAX_LINE_BYTES} bytes")
        for line in more:
            if stripped := bytes(pending).strip():
                yield stripped
            pending = bytearray(line)
    if stripped := bytes(pending).strip():
        yield stripped
