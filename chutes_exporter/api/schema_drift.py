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
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw] | None)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


class Known(NamedTuple):
    """What is known about the fields of a record, by their names in the API.

    Attributes:
        fields: All of them, those that the exporter does not use included.
        always: Those in use that a good answer always has.
        inner: The types of the fields with records inside, by name.
    """

    fields: frozenset[str]
    always: frozenset[str]
    inner: dict[str, Any]


@cache
def known(record: type[Record]) -> Known:
    """Return what is known about the fields of a record."""
    used: set[str] = set()
    inner: dict[str, Any] = {}
    for declared in msgspec.structs.fields(record):
        used.add(declared.encode_name)
        if any(records_in(declared.type)):
            inner[declared.encode_name] = declared.type
    unused = " ".join(record.UNUSED.values()).split()
    return Known(
        fields=frozenset(used.union(unused)),
        always=frozenset(used.difference(record.SOMETIMES)),
        inner=inner,
    )


def not_none(kind: Any) -> Any:
    """Return a type without None, and a Nullable one without UNSET, too."""
    parts = get_args(kind)
    if NoneType not in parts:
        return kind
    # The first part is the type itself. UnsetType comes after it.
    return next(part for part in parts if part is not NoneType)


def records_in(kind: Any, path: str = "") -> Iterator[tuple[str, type[Record]]]:
    """Yield the record classes in a type, each with its path: empty, or such as ``servers.gpus.``.

    ``path`` is the path of the type itself.
    """
    if isinstance(kind, type) and issubclass(kind, Record):
        yield path, kind
        for declared in msgspec.structs.fields(kind):
            yield from records_in(declared.type, f"{path}{declared.encode_name}.")
    # The types inside a list, a dictionary or a union.
    for part in get_args(kind):
        yield from records_in(part, path)


def objects(
    kind: Any, value: Any, path: str = ""
) -> Iterator[tuple[str, type[Record], dict[str, Any]]]:
    """Yield the path, the class and the fields of each object in an answer of a type.

    A path is empty, or such as ``servers.gpus.``. The answer and the fields are JSON text or plain
    values. Text that cannot be read is skipped, because decoding reports it.
    """
    # The type may allow null, in which there is no object.
    kind = not_none(kind)
    if isinstance(value, bytes | bytearray | msgspec.Raw):
        value = _decoded(kind, value)
    if value is None:
        return
    if get_origin(kind) in (list, dict):
        # The items of a list, or the values of a dictionary.
        item_kind = get_args(kind)[-1]
        items = value.values() if isinstance(value, dict) else value
        for item in items:
            yield from objects(item_kind, item, path)
        return
    yield path, kind, value
    for name, inner_kind in known(kind).inner.items():
        yield from objects(inner_kind, value.get(name), f"{path}{name}.")


def _decoded(kind: Any, text: bytes | bytearray | msgspec.Raw) -> Any:
    """Return the items of a JSON list, or else the fields of an object by name, all as JSON text.

    None is null, or text that cannot be read.
    """
    try:
        if get_origin(kind) is list:
            return _ITEMS.decode(text)
        return _OBJECT.decode(text)
    except UNREADABLE:
        return None


@dataclass
class FieldCheck:
    """What an answer has that this version does not know, and what it lacks.

    Attributes:
        at: Monotonic time of the check.
        unknown: Fields that this version does not know.
        values: Values outside the closed set of a field, for each field that has such a set.
        lacks: For each path with at least one record, the fields that are always sent, and that no
            record has.
    """

    at: float
    unknown: set[str] = field(default_factory=set)
    values: dict[str, set[str]] = field(default_factory=dict)
    lacks: dict[str, frozenset[str]] = field(default_factory=dict)

    def add(self, kind: Any, text: bytes | bytearray) -> None:
        """Add what is found in the JSON text of an answer, or of one record of a stream."""
        for path, record, fields in objects(kind, text):
            about = known(record)
            # Only what all records of a path lack is missing.
            lacking_so_far = self.lacks.get(path, about.always)
            self.lacks[path] = lacking_so_far.difference(fields)
            unknown = fields.keys() - about.fields
            _add_names(self.unknown, (f"{path}{name}" for name in unknown))
            for name, allowed in record.VALUES.items():
                # A field that the object lacks counts as null, which has no text to check.
                texts = _texts_to_check(fields.get(name, b"null"))
                outside = [one for one in texts if not allowed.fullmatch(one)]
                _add_names(self.values.setdefault(f"{path}{name}", set()), outside)

    @property
    def missing(self) -> list[str]:
        """Fields that every answer of the service has, and no record of this one."""
        fields: list[str] = []
        for path, names in self.lacks.items():
            fields += [f"{path}{name}" for name in sorted(names)]
        return fields

    @property
    def found(self) -> list[str]:
        """A phrase about each change of the API that was found."""
        phrases = [f"unknown field {name}" for name in sorted(self.unknown)]
        phrases += [f"missing field {name}" for name in self.missing]
        for name, texts in self.values.items():
            phrases += [f"unknown value {text!r} of {name}" for text in sorted(texts)]
        return phrases


def _texts_to_check(value: bytes | msgspec.Raw) -> list[str]:
    """Return the texts of a field that must be in its closed set, see ``Record.VALUES``.

    These are the keys of an object, or else the value as a text. There are none for null, which is
    always possible, and for a value that cannot be read, because decoding reports it.
    """
    try:
        decoded = msgspec.json.decode(value)
        if decoded is None:
            return []
        if isinstance(decoded, dict):
            return list(decoded)
        return [str(decoded)]
    except UNREADABLE:
        return []


def _add_names(names: set[str], more: Iterable[str]) -> None:
    """Add more names to a set, up to the number and the length that a page and a log can take."""
    room = _MAX_NAMES - len(names)
    for name in islice(more, room):
        names.add(scrub(name)[:_MAX_CHARACTERS])
