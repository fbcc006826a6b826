"""What the API changed: fields of a checked answer that are new here, and those that are gone."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import structlog

from chutes_exporter.api.errors import scrub
from chutes_exporter.duration import HOUR

if TYPE_CHECKING:
    from collections.abc import Collection

    from chutes_exporter.api.records import Record

_log = structlog.get_logger("exporter")

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
        lacks: By type of record, the fields that are always sent, and that no record has.
    """

    at: float
    unknown: set[str] = field(default_factory=set)
    lacks: dict[type[Record], frozenset[str]] = field(default_factory=dict)

    def add(self, record: type[Record], fields: Collection[str] | None) -> None:
        """Add what is found in a record with these fields, nothing for a null in its place."""
        if fields is None:
            return
        used = used_fields(record)
        always_sent = used.difference(record.SOMETIMES)
        # Only what all records lack is missing.
        self.lacks[record] = self.lacks.get(record, always_sent).difference(fields)
        unused = " ".join(record.UNUSED.values()).split()
        unknown = set(fields) - used.union(unused)
        # A page and a log cannot take any number of names of any length.
        for name in islice(unknown, _MAX_NAMES - len(self.unknown)):
            self.unknown.add(scrub(name)[:_MAX_CHARACTERS])

    @property
    def missing(self) -> list[str]:
        """Fields that every answer of the service has, and no record of this one."""
        fields: list[str] = []
        for names in self.lacks.values():
            fields += sorted(names)
        return fields

    @property
    def found(self) -> list[str]:
        """A phrase about each change of the API that was found."""
        phrases = [f"unknown field {name}" for name in sorted(self.unknown)]
        phrases += [f"missing field {name}" for name in self.missing]
        return phrases


class FieldChecks(dict[str, FieldCheck]):
    """The newest check by the name of the endpoint."""

    def begin(self, endpoint: str, now: float) -> FieldCheck | None:
        """Return a new check at a monotonic time, None if the fields need none now."""
        last = self.get(endpoint)
        if last is None or now >= last.at + CHECKED_EVERY:
            return FieldCheck(now)
        return None

    def keep(self, endpoint: str, check: FieldCheck) -> None:
        """Keep a check, and log what the last one did not find."""
        last = self.get(endpoint)
        # A check of an answer without records does not replace an earlier one.
        if last is not None and not check.lacks:
            return
        self[endpoint] = check
        for change in check.found:
            if last is None or change not in last.found:
                _log.info("the API changed", endpoint=endpoint, found=change)
