"""What the API changed: fields in a checked answer that this version does not know, and known ones
that are gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from chutes_exporter.api.errors import scrub
from chutes_exporter.duration import HOUR

if TYPE_CHECKING:
    from collections.abc import Collection

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
        lacks: For each path with at least one record, the fields that are always sent, and that no
            record has. A path is empty, or such as ``past_day.instance_stats.``.
    """

    at: float
    unknown: set[str] = field(default_factory=set)
    lacks: dict[str, frozenset[str]] = field(default_factory=dict)

    def add(self, path: str, record: type[Record], fields: Collection[str]) -> None:
        """Add what is found in a record with these fields at a path."""
        used = used_fields(record)
        always_sent = used.difference(record.SOMETIMES)
        # Only what all records of a path lack is missing.
        self.lacks[path] = self.lacks.get(path, always_sent).difference(fields)
        unused = " ".join(record.UNUSED.values()).split()
        unknown = set(fields) - used.union(unused)
        # A page and a log cannot take any number of names of any length.
        for name in islice(unknown, _MAX_NAMES - len(self.unknown)):
            self.unknown.add(scrub(f"{path}{name}")[:_MAX_CHARACTERS])

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
        return phrases
