"""Notices what the API changed: fields that this version does not know, known ones that are gone,
unknown values.
"""

from __future__ import annotations

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
"""Seconds between two checks of an endpoint's answers, because a check takes as long as decoding.
"""
_MAX_NAMES = 20
_MAX_CHARACTERS = 100

# msgspec raises RecursionError for deeply nested JSON.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_ROWS = msgspec.json.Decoder(list[msgspec.Raw] | None)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


class Known(NamedTuple):
    """The fields of a record: all, those in use that are always sent, and the types of those with
    records.
    """

    fields: frozenset[str]
    always: frozenset[str]
    inner: dict[str, Any]


@cache
def known(record: type[Record]) -> Known:
    """Return what is known about the fields of a record."""
    kinds = {one.encode_name: one.type for one in msgspec.structs.fields(record)}
    used = frozenset(kinds)
    inner = {name: kind for name, kind in kinds.items() if any(records_in(kind))}
    return Known(
        used.union(*map(str.split, record.UNUSED.values())),
        used.difference(record.SOMETIMES),
        inner,
    )


def not_none(kind: Any) -> Any:
    """Return a type without None."""
    parts = get_args(kind)
    if NoneType not in parts:
        return kind
    return next(part for part in parts if part is not NoneType)


def records_in(kind: Any, path: str = "") -> Iterator[tuple[str, type[Record]]]:
    """Yield the records of a type, each with its path, which ends with a dot unless it is empty."""
    if isinstance(kind, type) and issubclass(kind, Record):
        yield path, kind
        for one in msgspec.structs.fields(kind):
            yield from records_in(one.type, f"{path}{one.encode_name}.")
    for part in get_args(kind):
        yield from records_in(part, path)


def objects(
    kind: Any, value: Any, path: str = ""
) -> Iterator[tuple[str, type[Record], dict[str, Any]]]:
    """Yield each object in an answer of a type: its path (such as ``servers.gpus.``), record class
    and fields.

    The answer is JSON text or plain values. Text that cannot be read is skipped, because decoding
    reports it.
    """
    kind = not_none(kind)
    if isinstance(value, bytes | bytearray | msgspec.Raw):
        value = _decoded(kind, value)
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


def _decoded(kind: Any, text: bytes | bytearray | msgspec.Raw) -> Any:
    """Return the rows or the fields of JSON text of a type, None if it cannot be read."""
    try:
        if get_origin(kind) is list:
            return _ROWS.decode(text)
        return _OBJECT.decode(text)
    except UNREADABLE:
        return None


@dataclass
class FieldCheck:
    """What an answer has that this version does not know, and what it lacks.

    Attributes:
        at: Unix time of the check.
        unknown: Fields that this version does not know.
        values: Values outside a closed set, by field, for each such field of the answer.
        lacks: For each path with at least one record, the fields that are always sent, and that no
            record has.
    """

    at: float
    unknown: set[str] = field(default_factory=set)
    values: dict[str, set[str]] = field(default_factory=dict)
    lacks: dict[str, frozenset[str]] = field(default_factory=dict)

    def add(self, kind: Any, text: bytes | bytearray) -> None:
        """Add what is found in an answer of a type, or in one record of a stream."""
        for path, record, fields in objects(kind, text):
            about = known(record)
            self.lacks[path] = self.lacks.get(path, about.always).difference(fields)
            _keep(self.unknown, (f"{path}{name}" for name in fields.keys() - about.fields))
            for name, allowed in record.VALUES.items():
                outside = [
                    one for one in _texts(fields.get(name, b"null")) if not allowed.fullmatch(one)
                ]
                _keep(self.values.setdefault(f"{path}{name}", set()), outside)

    @property
    def missing(self) -> list[str]:
        """Fields that every answer of the service has, and no record of this one."""
        found: list[str] = []
        for path, names in self.lacks.items():
            found += (f"{path}{name}" for name in sorted(names))
        return found

    @property
    def found(self) -> list[str]:
        """All that was found, in words."""
        found = [f"unknown field {name}" for name in sorted(self.unknown)]
        found += (f"missing field {name}" for name in self.missing)
        for name, texts in self.values.items():
            found += (f"unknown value {text!r} of {name}" for text in sorted(texts))
        return found


def _texts(value: bytes | msgspec.Raw) -> Iterable[str]:
    """Return the text of a value, or the keys of an object.

    Null has none, and neither has a value that cannot be read, because decoding reports it.
    """
    try:
        found = msgspec.json.decode(value)
        if found is None or isinstance(found, dict):
            return found or ()
        return [str(found)]
    except UNREADABLE:
        return ()


def _keep(names: set[str], more: Iterable[str]) -> None:
    """Add names, but not more and none longer than a page and a log can take."""
    names.update(islice((scrub(name)[:_MAX_CHARACTERS] for name in more), _MAX_NAMES - len(names)))
