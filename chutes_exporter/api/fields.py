"""Notices what the API changed: fields that this version does not know, known ones that are gone, unknown values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, get_args, get_origin

import msgspec

from chutes_exporter.api.errors import scrub
from chutes_exporter.api.records import Record
from chutes_exporter.duration import HOUR

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator, Mapping

Layout: TypeAlias = type[Record] | list[Any] | dict[str, Any] | None
"""Where an answer has its records: a record, a list of one layout, an object of layouts, or None for a plain value.

An object with the one field :data:`EACH` has data as keys, and the same layout behind each.
"""
EACH = "*"

CHECKED_SHARE = 19
"""One answer in so many is checked, so that decoding all takes little longer.

A prime number, so that the answers of several hotkeys take turns.
"""
CHECKED_AFTER = 6 * HOUR
"""Seconds after a check until another is due in any case. Some answers are requested only once an hour or a day."""
_MAX_NAMES = 20
_MAX_CHARACTERS = 100

# msgspec raises RecursionError for deeply nested JSON.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_ROWS = msgspec.json.Decoder(list[msgspec.Raw] | None)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


@dataclass(frozen=True)
class _Known:
    """What is known about an object: its fields with their layouts, those that are always sent, and closed sets."""

    fields: Mapping[str, Layout]
    always: frozenset[str]
    values: Mapping[str, re.Pattern[str]]

    @cached_property
    def layouts(self) -> frozenset[str]:
        """The fields with records."""
        return frozenset(name for name, layout in self.fields.items() if layout is not None)


@cache
def _of_record(record: type[Record]) -> _Known:
    fields: dict[str, Layout] = {one.encode_name: _layout_of(one.type) for one in msgspec.structs.fields(record)}
    fields |= dict.fromkeys(" ".join(record.UNUSED.values()).split())
    return _Known(fields, frozenset(fields) - set(record.SOMETIMES.split()), record.VALUES)


def _layout_of(kind: Any) -> Layout:
    """Return the layout of a field's type."""
    if isinstance(kind, type) and issubclass(kind, Record):
        return kind
    for part in get_args(kind):
        if (inner := _layout_of(part)) is not None:
            return [inner] if get_origin(kind) is list else inner
    return None


def known(layout: type[Record] | dict[str, Any]) -> _Known:
    """Return what is known about a record, or about an object around records."""
    return _of_record(layout) if isinstance(layout, type) else _Known(layout, frozenset(layout), {})


def records_in(layout: Layout, path: str = "") -> Iterator[tuple[str, type[Record]]]:
    """Yield the records of a layout, each with its path, which ends with a dot unless it is empty."""
    if isinstance(layout, list):
        yield from records_in(layout[0], path)
    elif layout is not None:
        if isinstance(layout, type):
            yield path, layout
        for name, inner in known(layout).fields.items():
            yield from records_in(inner, path if name == EACH else f"{path}{name}.")


@dataclass
class FieldCheck:
    """The check of one answer.

    Attributes:
        unknown: Fields that this version does not know.
        values: Values outside a closed set, by field, for each such field of the answer.
        seen: For each path with at least one record, the fields that are always sent, and those that some record has.
    """

    unknown: set[str] = field(default_factory=set)
    values: dict[str, set[str]] = field(default_factory=dict)
    seen: dict[str, tuple[frozenset[str], set[str]]] = field(default_factory=dict)

    def run(self, layout: Layout, text: bytes | bytearray | msgspec.Raw, path: str = "") -> None:
        """Check a part of the answer. Nothing follows from one that cannot be read, which decoding reports."""
        try:
            if isinstance(layout, list):
                for row in _ROWS.decode(text) or ():
                    self.run(layout[0], row, path)
            elif layout is not None and (fields := _OBJECT.decode(text)) is not None:
                self._object(layout, fields, path)
        except UNREADABLE:
            return

    def _object(self, layout: type[Record] | dict[str, Any], fields: dict[str, msgspec.Raw], path: str) -> None:
        if isinstance(layout, dict) and EACH in layout:
            for row in fields.values():
                self.run(layout[EACH], row, path)
            return
        about = known(layout)
        _, seen = self.seen.setdefault(path, (about.always, set()))
        if len(seen) < len(about.always):
            seen |= fields.keys() & about.always
        if not about.fields.keys() >= fields.keys():
            _keep(self.unknown, (f"{path}{name}" for name in fields.keys() - about.fields.keys()))
        for name in about.layouts & fields.keys():
            self.run(about.fields[name], fields[name], f"{path}{name}.")
        for name, form in about.values.items():
            others = self.values.setdefault(f"{path}{name}", set())
            # The keys of an object, and one text in a list of one.
            value = msgspec.json.decode(fields.get(name, b"null"))
            texts = value if isinstance(value, dict) else [] if value is None else [str(value)]
            _keep(others, (text for text in texts if not form.fullmatch(text)))

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
        self._answers = 0
        self._begun_at = -math.inf
        self._told: set[str] = set()

    def begin(self, now: float) -> FieldCheck | None:
        """Return the check of the next answer, None if it is not its turn."""
        if self._answers % CHECKED_SHARE and now < self._begun_at + CHECKED_AFTER:
            return None
        self._begun_at = now
        return FieldCheck()

    def end(self, check: FieldCheck | None) -> list[str]:
        """Note that an answer was complete, and return what its check was the first to find."""
        self._answers += 1
        if check is None:
            return []
        self.checks += 1
        self.unknown = self._more(self.unknown, check.unknown)
        self.values |= {name: self._more(self.values.get(name, ()), found) for name, found in check.values.items()}
        elsewhere = (name for name in self.missing if name[: name.rfind(".") + 1] not in check.seen)
        self.missing = frozenset({*elsewhere, *check.missing})
        new = [found for found in self.found if found not in self._told]
        self._told.update(new)
        return new

    @staticmethod
    def _more(names: Iterable[str], more: Iterable[str]) -> frozenset[str]:
        kept = set(names)
        _keep(kept, (name for name in more if name not in names))
        return frozenset(kept)

    @property
    def found(self) -> list[str]:
        """All that was found, in words."""
        return [
            *(f"unknown field {name}" for name in sorted(self.unknown)),
            *(f"missing field {name}" for name in sorted(self.missing)),
            *(f"unknown value {text!r} of {name}" for name, texts in self.values.items() for text in sorted(texts)),
        ]
