"""Decodes answers into records.

A record that cannot be read is counted and left out. An answer of another shape fails, and so does an answer of which
most records cannot be read.
"""

from __future__ import annotations

import asyncio
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from chutes_exporter.api.errors import CutOffError, TooLargeError, UndecodableError, scrub
from chutes_exporter.api.records import (
    HeldGpu,
    MaintenancePolicy,
    MaintenanceServer,
    MaintenanceWindow,
    MinerStats,
    RawScore,
    Record,
    Scores,
    Server,
    ServerGpu,
    Stats,
    SupportedGpu,
    UnixTime,
    decode_hook,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

T = TypeVar("T")
R = TypeVar("R", bound=Record)
Body = bytes | bytearray

MAX_LINE_BYTES = 1024 * 1024
"""Longest record of a stream. A chute contains its whole code and readme, tens of KB."""
MAX_STREAM_BYTES = 512 * 1024 * 1024
"""Longest stream, with the parts of its records that are not kept. 2,000 chutes are about 100 MB."""
MAX_STREAM_LINES = 5_000_000
"""Maximum lines of a stream. 10,000 instances whose multipliers change every hour have 1.9 million lines in 8 days."""
MAX_REJECTED = 10_000

MAX_PIECE_BYTES = 64 * 1024
_ZLIB_GZIP_FORMAT = 31

_BYTES_PER_WIDE_CHARACTER = 4
_BYTES_PER_VALUE = 16
_BYTES_PER_RECORD = 128

# msgspec raises RecursionError for deeply nested JSON.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


encode = msgspec.json.Encoder(enc_hook=str).encode
"""Returns the JSON of a record."""


def memory_of(text: Body) -> int:
    """Estimate the memory in bytes that the records of a JSON text take.

    Usually this is the length of the text. It is more if the text has many short values or records, or a character
    that needs more than one byte: Python then stores the whole string with up to four bytes for each character.
    """
    plain = text.isascii() and b"\\u" not in text
    return max(
        len(text) if plain else _BYTES_PER_WIDE_CHARACTER * len(text),
        _BYTES_PER_VALUE * text.count(b","),
        _BYTES_PER_RECORD * text.count(b"{"),
    )


async def inflated(chunks: AsyncIterable[bytes], coding: str) -> AsyncIterator[bytes]:
    """Decompress a body in small pieces, so that a small body that expands to a huge one does no harm.

    Args:
        chunks: The body as received.
        coding: Its ``Content-Encoding``.

    Raises:
        UndecodableError: The encoding is not gzip, or the body is not valid gzip.
        CutOffError: The body ends too early.
    """
    coding = coding.strip().lower()
    if coding not in ("", "identity", "gzip"):
        raise UndecodableError("the answer has an unsupported compression")
    if coding != "gzip":
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
    """Counts of the records of an answer."""

    accepted: int = 0
    rejected: int = 0
    first_error: str = ""

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
    """The shape of a JSON answer.

    Args:
        read: Decodes the body and counts its records in the tally. Raises msgspec's errors for another shape.
    """

    def __init__(self, read: Callable[[Body, Tally], T]) -> None:
        self._read = read

    def decode(self, body: Body, tally: Tally) -> T:
        """Decode a whole body.

        Raises:
            CutOffError: The body is empty.
            UndecodableError: The body has another shape, or most of its records cannot be read.
        """
        if not body.strip():
            raise CutOffError("the answer is empty", status=200)
        try:
            value = self._read(body, tally)
        except _UNREADABLE as error:
            raise UndecodableError(f"the answer has an unexpected format: {str(error)[:200]}", status=200) from None
        tally.require_most()
        return value


class ListReader(Generic[R]):
    """Decodes a JSON list of records and leaves out those that cannot be read."""

    def __init__(self, record: type[R]) -> None:
        self._all = msgspec.json.Decoder(list[record], dec_hook=decode_hook)  # type: ignore[valid-type] # a variable
        self._each: msgspec.json.Decoder[R] = msgspec.json.Decoder(record, dec_hook=decode_hook)

    def __call__(self, body: Body | msgspec.Raw, tally: Tally) -> list[R]:
        """Return the records that can be read."""
        with suppress(*_UNREADABLE):
            records: list[R] = self._all.decode(body)
            tally.accepted += len(records)
            return records
        records = []
        for raw in msgspec.json.decode(body, type=list[msgspec.Raw]):
            try:
                records.append(self._each.decode(raw))
            except _UNREADABLE as error:
                tally.reject(error)
        tally.accepted += len(records)
        return records


def list_of(record: type[R], *, never_empty: bool = False) -> Shape[list[R]]:
    """Make the shape of a JSON list of records.

    Args:
        record: The type of a record.
        never_empty: Whether an empty list is an error.
    """
    reader = ListReader(record)

    def read(body: Body, tally: Tally) -> list[R]:
        records = reader(body, tally)
        if never_empty and not (records or tally.rejected):
            raise CutOffError("the list is empty", status=200)
        return records

    return Shape(read)


def one(record: type[R]) -> Shape[R]:
    """Make the shape of a single JSON object."""
    decoder: msgspec.json.Decoder[R] = msgspec.json.Decoder(record, dec_hook=decode_hook)

    def read(body: Body, tally: Tally) -> R:
        value = decoder.decode(body)
        tally.accepted += 1
        return value

    return Shape(read)


class _ServersBody(msgspec.Struct):
    servers: msgspec.Raw


_NULL = msgspec.Raw(b"null")


class _RawServer(Server, frozen=True):
    """A server with undecoded GPUs, so that one bad GPU does not reject the server."""

    gpus: msgspec.Raw = _NULL  # type: ignore[assignment]


_read_servers = ListReader(Server)
_read_server: msgspec.json.Decoder[_RawServer] = msgspec.json.Decoder(_RawServer, dec_hook=decode_hook)
_read_server_gpus = ListReader(ServerGpu)


def _servers(body: Body, tally: Tally) -> list[Server]:
    raw_servers = msgspec.json.decode(body, type=_ServersBody).servers
    attempt = Tally()
    servers = _read_servers(raw_servers, attempt)
    if not attempt.rejected:
        tally.accepted += attempt.accepted
        return servers
    # At least one server cannot be read as a whole: decode its GPUs one by one.
    servers = []
    for raw in msgspec.json.decode(raw_servers, type=list[msgspec.Raw]):
        try:
            fields = msgspec.structs.asdict(_read_server.decode(raw))
            gpus: msgspec.Raw = fields.pop("gpus")
            server = Server(**fields, gpus=None if _is_null(gpus) else _read_server_gpus(gpus, tally))
        except _UNREADABLE as error:
            tally.reject(error)
        else:
            tally.accepted += 1
            servers.append(server)
    return servers


def servers_body() -> Shape[list[Server]]:
    """Make the shape of ``{"servers": [...]}``."""
    return Shape(_servers)


class _SupportedGpu(msgspec.Struct):
    hourly_rate: float | None = None


def _supported_gpus(body: Body, tally: Tally) -> list[SupportedGpu]:
    raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    gpus = [SupportedGpu(gpu, model.hourly_rate) for gpu, model in _values(raw, _SupportedGpu, tally).items()]
    tally.accepted += len(gpus)
    return gpus


def supported_gpus_body() -> Shape[list[SupportedGpu]]:
    """Make the shape of ``{model: {"hourly_rate": ...}}``."""
    return Shape(_supported_gpus)


class _HeldGpuChute(msgspec.Struct):
    chute_id: str
    instance_id: str
    activated_at: UnixTime | msgspec.UnsetType | None = msgspec.UNSET


class _HeldGpu(msgspec.Struct):
    gpu: str
    chute: _HeldGpuChute
    server_id: str | None = None


class _MinerGpus(msgspec.Struct):
    provisioned: list[msgspec.Raw] = []


_read_held_gpu: msgspec.json.Decoder[_HeldGpu] = msgspec.json.Decoder(_HeldGpu, dec_hook=decode_hook)


def _held_gpus(body: Body, tally: Tally) -> list[HeldGpu]:
    gpus: list[HeldGpu] = []
    for hotkey, miner in msgspec.json.decode(body, type=dict[str, _MinerGpus]).items():
        for raw in miner.provisioned:
            try:
                held = _read_held_gpu.decode(raw)
            except _UNREADABLE as error:
                tally.reject(error)
                continue
            chute = held.chute
            gpus.append(
                HeldGpu(hotkey, held.gpu, held.server_id, chute.chute_id, chute.instance_id, chute.activated_at)
            )
    tally.accepted += len(gpus)
    return gpus


def held_gpus_body() -> Shape[list[HeldGpu]]:
    """Make the shape of ``{hotkey: {"provisioned": [...]}}``. A GPU that cannot be read costs only itself."""
    return Shape(_held_gpus)


class _MaintenanceBody(msgspec.Struct):
    active_window: MaintenanceWindow | msgspec.UnsetType | None = msgspec.UNSET
    window_open: bool | None = None
    current_slots: float | None = None
    servers: msgspec.Raw = _NULL


_read_maintenance: msgspec.json.Decoder[_MaintenanceBody] = msgspec.json.Decoder(_MaintenanceBody, dec_hook=decode_hook)
_read_maintenance_servers = ListReader(MaintenanceServer)


def _maintenance(body: Body, tally: Tally) -> MaintenancePolicy:
    found = _read_maintenance.decode(body)
    servers = None if _is_null(found.servers) else _read_maintenance_servers(found.servers, tally)
    if found.active_window is msgspec.UNSET and found.current_slots is None and servers is None:
        raise msgspec.ValidationError("the answer has no maintenance policy")
    tally.accepted += 1
    return MaintenancePolicy(found.active_window, found.window_open, found.current_slots, servers)


def maintenance_body() -> Shape[MaintenancePolicy]:
    """Make the shape of the maintenance policy. A server that cannot be read costs only itself."""
    return Shape(_maintenance)


class _WindowBody(msgspec.Struct):
    instance_stats: msgspec.Raw = _NULL


class _StatsBody(msgspec.Struct):
    past_hour: _WindowBody | None = None
    past_day: _WindowBody | None = None
    all: _WindowBody | None = None


_read_miner_stats = ListReader(MinerStats)


def _is_null(raw: msgspec.Raw) -> bool:
    return memoryview(raw).nbytes == len(b"null") and bytes(raw) == b"null"


def _window(body: _WindowBody | None, tally: Tally) -> list[MinerStats] | None:
    if body is None or _is_null(body.instance_stats):
        return None
    return _read_miner_stats(body.instance_stats, tally)


def _stats(body: Body, tally: Tally) -> Stats:
    parsed = msgspec.json.decode(body, type=_StatsBody)
    stats = Stats(
        hour=_window(parsed.past_hour, tally),
        day=_window(parsed.past_day, tally),
        week=_window(parsed.all, tally),
    )
    if stats.hour is None and stats.day is None and stats.week is None:
        raise msgspec.ValidationError("the answer has no window of stats")
    return stats


def stats_body() -> Shape[Stats]:
    """Make the shape of the stats."""
    return Shape(_stats)


class _ScoresBody(msgspec.Struct):
    final_scores: dict[str, msgspec.Raw]
    raw_values: dict[str, msgspec.Raw] | None = None


def _values(raw: dict[str, msgspec.Raw], kind: Any, tally: Tally) -> dict[str, Any]:
    values = {}
    for hotkey, text in raw.items():
        try:
            values[hotkey] = msgspec.json.decode(text, type=kind)
        except _UNREADABLE as error:
            tally.reject(error)
    return values


def _scores(body: Body, tally: Tally) -> Scores:
    parsed = msgspec.json.decode(body, type=_ScoresBody)
    scores = Scores(
        raw=_values(parsed.raw_values or {}, RawScore | None, tally),
        shares=_values(parsed.final_scores, float | None, tally),
    )
    tally.accepted += len(scores.shares)
    return scores


def scores_body() -> Shape[Scores]:
    """Make the shape of the scores."""
    return Shape(_scores)


class StreamShape(Generic[R]):
    """The shape of a stream of ``data: {json}`` lines.

    Args:
        record: The type of a line.
        may_be_empty: Whether a stream without lines is valid. Otherwise only the line ``NO_ITEMS`` means that there
            are no records, and an empty stream is an error.
    """

    def __init__(self, record: type[R], *, may_be_empty: bool) -> None:
        self._decoder: msgspec.json.Decoder[R] = msgspec.json.Decoder(record, dec_hook=decode_hook)
        self._may_be_empty = may_be_empty

    async def decode(self, chunks: AsyncIterable[bytes], tally: Tally) -> AsyncIterator[R]:
        """Yield records as their lines arrive.

        Args:
            chunks: The body.
            tally: Counts the records.

        Raises:
            CutOffError: The stream is empty without saying so, or ends inside a record.
            UndecodableError: Most lines cannot be read.
            TooLargeError: A line or the stream is too large.
        """
        no_items = False
        async for line, terminated in _lines(chunks):
            if line.startswith(b":"):  # a comment, in the grammar of event streams
                continue
            payload = line.removeprefix(b"data:").strip()
            if payload == b"NO_ITEMS":
                no_items = True
                continue
            try:
                record = self._decoder.decode(payload)
            except _UNREADABLE as error:
                if not terminated and b"data:".startswith(line[:5]):
                    raise CutOffError("the stream ends inside a record", status=200) from None
                tally.reject(error)
                continue
            tally.accepted += 1
            yield record
        tally.require_most()
        if not (tally.accepted or no_items or self._may_be_empty):
            raise CutOffError("the stream is empty", status=200)


class CsvShape(StreamShape[R]):
    """How a CSV with a line of column names is read, line by line. Its values are never quoted.

    Args:
        record: The type of one line. A value that is empty is null.
    """

    def __init__(self, record: type[R]) -> None:
        super().__init__(record, may_be_empty=True)
        self._record = record

    async def decode(self, chunks: AsyncIterable[bytes], tally: Tally) -> AsyncIterator[R]:
        """Yield records as their lines arrive.

        Args:
            chunks: The body.
            tally: Counts the records.

        Raises:
            CutOffError: The body is empty, or ends inside a line.
            UndecodableError: It has other columns, or most lines cannot be read.
            TooLargeError: A line or the body is too large.
        """
        columns: list[str] = []
        async for line, terminated in _lines(chunks):
            if not terminated:
                raise CutOffError("the list ends inside a line", status=200)
            if not columns:
                columns = line.decode(errors="replace").split(",")
                if missing := [field for field in self._record.__struct_fields__ if field not in columns]:
                    raise UndecodableError(f"the CSV has no column {missing[0]}", status=200)
                continue
            try:
                values = zip(columns, line.decode().split(","), strict=True)
                row = {name: value or None for name, value in values}
                record = msgspec.convert(row, self._record, dec_hook=decode_hook, strict=False)
            except (*_UNREADABLE, ValueError) as error:
                tally.reject(error)
                continue
            tally.accepted += 1
            yield record
        if not columns:
            raise CutOffError("the answer is empty", status=200)
        tally.require_most()


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield non-empty lines, and for each whether it was terminated."""
    # A bytearray grows in place, so a long line in small chunks takes linear time.
    pending = bytearray()
    total = count = 0
    async for chunk in chunks:
        total += len(chunk)
        first, *more = chunk.split(b"\n")
        count += len(more)
        if total > MAX_STREAM_BYTES or count > MAX_STREAM_LINES:
            raise TooLargeError(f"the stream is longer than {MAX_STREAM_BYTES} bytes or {MAX_STREAM_LINES} lines")
        pending += first
        if len(pending) > MAX_LINE_BYTES:
            raise TooLargeError(f"a record is longer than {MAX_LINE_BYTES} bytes")
        for line in more:
            if stripped := bytes(pending).strip():
                yield stripped, True
            pending = bytearray(line)
    if stripped := bytes(pending).strip():
        yield stripped, False
