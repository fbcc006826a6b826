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
from chutes_exporter.api.schema_drift import UNREADABLE, FieldCheck

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R", bound=r.Record)
RawBody = bytes | bytearray

MAX_LINE_BYTES = 1024 * 1024
"""Longest record of a stream. A chute contains its whole code and readme, tens of KB."""
MAX_STREAM_BYTES = 512 * 1024 * 1024
"""Longest stream, with the parts of its records that are not kept. 2,000 chutes are about 100 MB.
"""
MAX_REJECTED = 10_000
"""How many more unreadable than readable records may come before an answer ends, if it does."""

_PIECE_BYTES = 64 * 1024
_ZLIB_GZIP_FORMAT = 31

_BYTES_PER_WIDE_CHARACTER = 4
# A string of JSON, with its quotes and escapes. The last one may be cut off. A quantifier with a
# second plus never gives back what it matched, so that the time grows only with the length.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
# Memory that a value or a record takes, however short its text is.
_BYTES_PER_VALUE = 16
_BYTES_PER_RECORD = 128


encode = msgspec.json.Encoder(enc_hook=str).encode
"""Returns the JSON of a record."""


def memory_of(text: RawBody) -> int:
    """Estimate the memory in bytes that the records of a JSON text take.

    Usually this is the length of the text. It is more with many short values (commas) or records
    (braces), or with wide characters, also escaped ones. Python stores each character of their
    strings in up to 4 bytes.
    """
    wide_length = 0
    if _is_wide(text):
        for match in _STRING.finditer(text):
            string = match[0]
            if _is_wide(string):
                wide_length += len(string)
    # The length of the text has one byte of each wide character already.
    memory_of_text = len(text) + (_BYTES_PER_WIDE_CHARACTER - 1) * wide_length
    memory_of_values = _BYTES_PER_VALUE * text.count(b",")
    memory_of_records = _BYTES_PER_RECORD * text.count(b"{")
    # An answer is mostly text, mostly short values or mostly records.
    return max(memory_of_text, memory_of_values, memory_of_records)


def _is_wide(text: RawBody) -> bool:
    """Return whether JSON may have a character outside ASCII, written as it is or escaped."""
    return not text.isascii() or b"\\u" in text


async def inflated(chunks: AsyncIterable[bytes], coding: str) -> AsyncIterator[bytes]:
    """Decompress a body in small pieces, so that a small body that expands to a huge one does no
    harm.

    The coding is its ``Content-Encoding``. Without one, the chunks are yielded as they are. Any
    other body must be complete gzip and nothing else, or ApiError is raised. Each yielded piece
    takes about the same time, but some are empty.
    """
    if coding.strip().lower() in ("", "identity"):
        async for chunk in chunks:
            yield chunk
        return
    body = zlib.decompressobj(wbits=_ZLIB_GZIP_FORMAT)
    async for chunk in chunks:
        compressed = chunk
        while compressed:
            try:
                yield body.decompress(compressed, _PIECE_BYTES)
            except zlib.error:
                raise UndecodableError("the compressed body cannot be read") from None
            if body.unused_data:
                raise UndecodableError("more follows the compressed body")
            # The piece may have had no room for all.
            compressed = body.unconsumed_tail
    if not body.eof:
        raise CutOffError("the compressed body ends too early")


@dataclass
class Tally:
    """Counts of the records of an answer, and of the bytes of its decompressed body.

    Attributes:
        check: Checks the fields of the answer. None if they need no check now.
    """

    accepted: int = 0
    rejected: int = 0
    size: int = 0
    first_error: str = ""
    check: FieldCheck | None = None

    def reject(self, error: Exception) -> None:
        """Count a record that cannot be read, or raise UndecodableError if there are too many."""
        self.rejected += 1
        self.first_error = self.first_error or scrub(str(error))[:200]
        # Readable records may follow until the answer ends.
        self.require_mostly_readable(tolerance=MAX_REJECTED)

    def require_mostly_readable(self, tolerance: int = 0) -> None:
        """Raise UndecodableError if most records could not be read, as in an error page or the
        answer of another API.

        The tolerance is how many more records may be unreadable than readable.
        """
        if self.rejected > self.accepted + tolerance:
            total = self.rejected + self.accepted
            raise UndecodableError(
                f"{self.rejected} of {total} records cannot be read: {self.first_error}", status=200
            )


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=r.decode_hook)


def _read(kind: Any, text: RawBody | msgspec.Raw, tally: Tally) -> Any:
    """Decode JSON text into a type: a list, an object with any keys, a Body, or another record.

    An item of a list or an object that cannot be read is counted in the tally and left out.
    """
    if get_origin(kind) is list:
        if tally.check is None:
            with suppress(*UNREADABLE):
                # Usually all items can be read. Then this is faster and takes less memory.
                return _decoder(kind).decode(text)
        item_texts = _decoder(list[msgspec.Raw]).decode(text)
        return list(_readable(kind, enumerate(item_texts), tally).values())
    if get_origin(kind) is dict:
        return _readable(kind, _decoder(dict[str, msgspec.Raw]).decode(text).items(), tally)
    if isinstance(kind, type) and issubclass(kind, r.Body):
        return _read_body(kind, text, tally)
    record = _not_none(kind)
    if tally.check is not None and issubclass(record, r.Record):
        tally.check.add(record, _decoder(dict[str, msgspec.Raw] | None).decode(text))
    return _decoder(kind).decode(text)


def _read_body(kind: type[r.Body], text: RawBody | msgspec.Raw, tally: Tally) -> r.Body:
    """Decode each field of a Body by itself, so that items of its lists can be left out, too.

    Null is like a missing field, unless the field's type has null.
    """
    texts = _decoder(dict[str, msgspec.Raw]).decode(text)
    if tally.check is not None:
        tally.check.add(kind, texts)
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        name = field.encode_name
        if name not in texts:
            continue
        # A memoryview compares the text, which may have megabytes, without a copy of it.
        if memoryview(texts[name]) != memoryview(b"null"):
            values[name] = _read(_not_none(field.type), texts[name], tally)
        elif NoneType in get_args(field.type):
            values[name] = None
    return msgspec.convert(values, kind)


def _not_none(kind: Any) -> Any:
    """Return a type without None, and a Nullable one without UNSET, too."""
    parts = get_args(kind)
    if NoneType not in parts:
        return kind
    # As everywhere here, the type itself stands first: ``int | None``.
    return parts[0]


def _readable(
    kind: Any, texts_by_key: Iterable[tuple[K, msgspec.Raw]], tally: Tally
) -> dict[K, Any]:
    """Decode the texts of a list or an object of a type, and count those that cannot be read."""
    *_, item_kind = get_args(kind)
    values = {}
    for key, text in texts_by_key:
        try:
            values[key] = _read(item_kind, text, tally)
        except UNREADABLE as error:
            tally.reject(error)
    return values


@dataclass(frozen=True)
class Shape(Generic[T]):
    """The shape of a JSON answer.

    Attributes:
        kind: The type into which the JSON text is decoded.
        value: Makes the value of the answer from what was decoded, by default the same.
        count: Returns the number of records of a value. Without it, a value is a list.
        never_empty: Whether an answer without records is an error.
    """

    kind: Any
    value: Callable[[Any], T] = lambda decoded: decoded
    count: Callable[[Any], int] = len
    never_empty: bool = False

    def decode(self, body: RawBody, tally: Tally) -> T:
        """Decode a whole body, and count its records in the tally.

        An empty, strange or mostly unreadable one raises ApiError.
        """
        if not body.strip():
            raise CutOffError("the answer is empty", status=200)
        try:
            value = self.value(_read(self.kind, body, tally))
        except UNREADABLE as error:
            raise UndecodableError(
                f"the answer has an unexpected format: {str(error)[:200]}", status=200
            ) from None
        tally.accepted += self.count(value)
        if self.never_empty and not tally.accepted + tally.rejected:
            raise CutOffError("the list is empty", status=200)
        tally.require_mostly_readable()
        return value


def list_of(record: type[R], *, never_empty: bool = False) -> Shape[list[R]]:
    """Make the shape of a JSON list of records."""
    return Shape(list[record], never_empty=never_empty)  # type: ignore[valid-type]


def object_of(record: type[R], count: Callable[[R], int] = lambda _: 1) -> Shape[R]:
    """Make the shape of a JSON object that becomes one record.

    ``count`` returns how many records of the API are in it.
    """
    return Shape(record, count=count)


def by_model(record: type[R]) -> Shape[list[R]]:
    """Make the shape of ``{model: {...}}``. The model becomes the field ``gpu`` of the record."""

    def records(models: dict[str, R]) -> list[R]:
        return [msgspec.structs.replace(fields, gpu=model) for model, fields in models.items()]

    return Shape(dict[str, record], records, never_empty=True)  # type: ignore[valid-type]


def _held_gpus(miners: dict[str, r.MinerGpus]) -> list[r.HeldGpu]:
    held_gpus = []
    for hotkey, miner in miners.items():
        for gpu in miner.provisioned:
            held_gpu = r.HeldGpu(
                hotkey=hotkey,
                gpu=gpu.gpu,
                server_id=gpu.server_id,
                chute_id=gpu.chute.chute_id,
                instance_id=gpu.chute.instance_id,
                activated_at=gpu.chute.activated_at,
            )
            held_gpus.append(held_gpu)
    return held_gpus


def _stats(body: r.StatsBody) -> list[r.MinerStats]:
    """Return the records of all windows, each with the name of its window.

    Raise ValidationError if no window has a list of records. The list may be empty.
    """
    # The service calls the past 7 days "all".
    windows = {"1h": body.past_hour, "1d": body.past_day, "7d": body.all}
    stats: list[r.MinerStats] = []
    has_window = False
    for name, window in windows.items():
        if window is not None and window.instance_stats is not None:
            has_window = True
            stats += [msgspec.structs.replace(one, window=name) for one in window.instance_stats]
    if not has_window:
        raise msgspec.ValidationError("the answer has no window of stats")
    return stats


def _audit_report(report: r.HourlyAudit) -> r.HourlyAudit:
    """Return a report, or raise ValidationError if it has no instances.

    It lists all instances of the platform, of which there are always some.
    """
    if not report.instances:
        raise msgspec.ValidationError("the report has no instances")
    return report


SERVERS: Shape[list[r.Server]] = Shape(r.ServersBody, lambda body: body.servers)
HELD_GPUS: Shape[list[r.HeldGpu]] = Shape(dict[str, r.MinerGpus], _held_gpus)
MAINTENANCE = object_of(r.MaintenancePolicy, lambda policy: 1 + len(policy.servers or ()))
STATS: Shape[list[r.MinerStats]] = Shape(r.StatsBody, _stats)
SCORES = object_of(r.Scores, lambda scores: len(scores.shares))
AUDIT_REPORT: Shape[r.HourlyAudit] = Shape(
    r.HourlyAudit,
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
        """Yield the readable records of a body as lines arrive, and count all in the tally.

        Raise ApiError for a body that is too long, or empty if it may not be, and for too many
        unreadable records. At the end, most of the records must have been readable.
        """
        is_empty = True
        async for line in _lines(chunks):
            if not line:
                continue
            is_empty = False
            payload = line.removeprefix(b"data:").strip()
            if payload == b"NO_ITEMS":
                continue
            try:
                record = _read(self.kind, payload, tally)
            except UNREADABLE as error:
                tally.reject(error)
                continue
            tally.accepted += 1
            yield record
        if is_empty and not self.may_be_empty:
            raise CutOffError("the answer is empty", status=200)
        tally.require_mostly_readable()


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
            *complete_lines, pending = pending.split(b"\n")
            for line in complete_lines:
                yield line.strip()
        if len(pending) > MAX_LINE_BYTES:
            raise TooLargeError(f"a record is longer than {MAX_LINE_BYTES} bytes")
    yield pending.strip()
