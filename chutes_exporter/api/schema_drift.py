"""What the API changed: fields in a checked answer that this version does not know, known ones that
are gone, unknown values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from chutes_exporter.api.errors import scrub
from chutes_exporter.duration import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.api.records import Record

CHECKED_EVERY = HOUR
"""Seconds between two checks of an endpoint's answers, because a check takes as long as decoding.
"""
_MAX_NAMES = 20
_MAX_CHARACTERS = 100

# msgspec raises RecursionError for deeply nested JSON.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@cache
def used_fields(record: type[Record]) -> frozenset[str]:
    """Return the names in the API of the fields of a record that the exporter uses."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(record))


@dataclass
class FieldCheck:
    """What an answer has that this version does not know, and what it lacks.

    It is about the records of an answer, and not about objects in their fields.

    Attributes:
        at: Monotonic time of the check.
        unknown: Fields that this version does not know.
        values: Values outside the closed set of a field, for each field that has such a set.
        lacks: For each path with at least one record, the fields that are always sent, and that no
            record has. A path is empty, or such as ``past_day.instance_stats.``.
    """

    at: float
    unknown: set[str] = field(default_factory=set)
    values: dict[str, set[str]] = field(default_factory=dict)
    lacks: dict[str, frozenset[str]] = field(default_factory=dict)

    def add(self, path: str, record: type[Record], fields: dict[str, msgspec.Raw]) -> None:
        """Add what is found in a record at a path. Its fields are JSON text by name."""
        used = used_fields(record)
        always_sent = used.difference(record.SOMETIMES)
        # Only what all records of a path lack is missing.
        self.lacks[path] = self.lacks.get(path, always_sent).difference(fields)
        unused = " ".join(record.UNUSED.values()).split()
        unknown = fields.keys() - used.union(unused)
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
        decoded: Any = msgspec.json.decode(value)
    except UNREADABLE:
        return []
    if decoded is None:
        return []
    return list(decoded) if isinstance(decoded, dict) else [str(decoded)]


def _add_names(names: set[str], more: Iterable[str]) -> None:
    """Add more names to a set, up to the number and the length that a page and a log can take."""
    room = _MAX_NAMES - len(names)
    for name in islice(more, room):
        names.add(scrub(name)[:_MAX_CHARACTERS])
