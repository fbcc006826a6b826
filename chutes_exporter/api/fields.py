"""Notices what the API changed: fields that this version does not know, known ones that are gone, unknown values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin

import msgspec

from chutes_exporter.api.errors import scrub
from chutes_exporter.api.records import Record
from chutes_exporter.duration import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHECKED_EVERY = HOUR
"""Seconds between two checks of an endpoint's answers, because a check takes as long as decoding."""
_MAX_NAMES = 20
_MAX_CHARACTERS = 100

# msgspec raises RecursionError for deeply nested JSON.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_ROWS = msgspec.json.Decoder(list[msgspec.Raw] | None)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


class Known(NamedTuple):
    """The fields of a record: all, those that are always sent, and the types of those with records."""

    fields: frozenset[str]
    always: frozenset[str]
    inner: dict[str, Any]


@cache
def known(record: type[Record]) -> Known:
    """Return what is known about the fields of a record."""
    kinds = {one.encode_name: one.type for one in msgspec.structs.fields(record)}
    fields = frozenset(kinds).union(*map(str.split, record.UNUSED.values()))
    inner = {name: kind for name, kind in kinds.items() if any(records_in(kind))}
    return Known(fields, fields - set(record.SOMETIMES.split()), inner)


def not_none(kind: Any) -> Any:
    """Return a type without None."""
    parts = get_args(kind)
    return next(part for part in parts if part is not NoneType) if NoneType in parts else kind


def records_in(kind: Any, path: str = "") -> Iterator[tuple[str, type[Record]]]:
    """Yield the records of a type, each with its path, which ends with a dot unless it is empty."""
    if isinstance(kind, type) and issubclass(kind, Record):
        yield path, kind
        for one in msgspec.structs.fields(kind):
            yield from records_in(one.type, f"{path}{one.encode_name}.")
    for part in get_args(kind):
        yield from records_in(part, path)


def objects(kind: Any, value: Any, path: str = "") -> Iterator[tuple[str, type[Record], dict[str, Any]]]:
    """Yield each object in an answer of a type: its path (such as ``servers.gpus.``), record class and fields.

    The answer is JSON text or plain values. Text that cannot be read is skipped, because decoding reports it.
    """
    kind = not_none(kind)
    if isinstance(value, bytes | bytearray | msgspec.Raw):
        try:
            value = (_ROWS if get_origin(kind) is list else _OBJECT).decode(value)
        except UNREADABLE:
            return
    if value is None:
        return
    if get_origin(kind) in (list, dict):
        row_kind = get_args(kind)[-1]
        for row in value.values() if isinstance(value, dict) else value:
            yield from objects(row_kind, row, path)
        return
    yield path, kind, value
    for name, inner in known(kind).inner.items():
        yield from objects(inner, value.get(name), f"{path}{name}.")


@dataclass
class FieldCheck:
    """The check of one answer.

    Attributes:
        at: Its Unix time.
        unknown: Fields that this version does not know.
        values: Values outside a closed set, by field, for each such field of the answer.
        seen: For each path with at least one record, the fields that are always sent, and those that some record has.
    """

    at: float = 0.0
    unknown: set[str] = field(default_factory=set)
    values: dict[str, set[str]] = field(default_factory=dict)
    seen: dict[str, tuple[frozenset[str], set[str]]] = field(default_factory=dict)

    def run(self, kind: Any, text: bytes | bytearray) -> None:
        """Add what is found in an answer of a type, or in one record of a stream."""
        for path, record, fields in objects(kind, text):
            about = known(record)
            _, seen = self.seen.setdefault(path, (about.always, set()))
            seen.update(fields.keys() & about.always)
            _keep(self.unknown, (f"{path}{name}" for name in fields.keys() - about.fields))
            for name, allowed in record.VALUES.items():
                unknown = self.values.setdefault(f"{path}{name}", set())
                value = msgspec.json.decode(fields.get(name, b"null"))
                if value is not None:
                    # The closed set may be of the keys of an object.
                    texts = value if isinstance(value, dict) else [str(value)]
                    _keep(unknown, (text for text in texts if not allowed.fullmatch(text)))

    @property
    def missing(self) -> set[str]:
        """Fields that every record of the service has, and no record of the answer."""
        return {f"{path}{name}" for path, (always, seen) in self.seen.items() for name in always - seen}


def _keep(names: set[str], more: Iterable[str]) -> None:
    """Add names, but not more and none longer than a page and a log can take."""
    names.update(islice((scrub(name)[:_MAX_CHARACTERS] for name in more), _MAX_NAMES - len(names)))


class Changes:
    """What checks of an endpoint's answers found.

    Attributes:
        unknown: Unknown fields since the start.
        missing: Missing fields of the newest checked answer that has records in their place.
        values: Values outside a closed set since the start, by field.
        checks: Number of checks.
    """

    def __init__(self) -> None:
        self.unknown: frozenset[str] = frozenset()
        self.missing: frozenset[str] = frozenset()
        self.values: dict[str, frozenset[str]] = {}
        self.checks = 0
        self._checked_at = -math.inf
        self._logged: set[str] = set()

    def begin(self, now: float) -> FieldCheck | None:
        """Return the check of the next answer, None if it is not its turn."""
        return FieldCheck(now) if now >= self._checked_at + CHECKED_EVERY else None

    def end(self, check: FieldCheck) -> list[str]:
        """Add what the check of a complete answer found, and return in words what no check had found before."""
        self._checked_at = check.at
        self.checks += 1
        self.unknown = _more(self.unknown, check.unknown)
        self.values |= {name: _more(self.values.get(name, frozenset()), texts) for name, texts in check.values.items()}
        # Without a record at their path, this answer does not show whether they are still missing.
        not_checked = {name for name in self.missing if name[: name.rfind(".") + 1] not in check.seen}
        self.missing = frozenset(not_checked | check.missing)
        new = [found for found in self.found if found not in self._logged]
        self._logged.update(new)
        return new

    @property
    def found(self) -> list[str]:
        """All that was found, in words."""
        return [
            *(f"unknown field {name}" for name in sorted(self.unknown)),
            *(f"missing field {name}" for name in sorted(self.missing)),
            *(f"unknown value {text!r} of {name}" for name, texts in self.values.items() for text in sorted(texts)),
        ]


def _more(names: frozenset[str], more: set[str]) -> frozenset[str]:
    """Return the names with others, of which those that fit are added."""
    kept = set(names)
    _keep(kept, more - names)
    return frozenset(kept)
