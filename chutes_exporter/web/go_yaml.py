"""Decodes YAML as Go's ``yaml.v2`` decodes it into a struct in strict mode. exporter-toolkit does that.

PyYAML parses the text. This module interprets the nodes, because Go does it differently: only the first document
counts, ``y`` is a boolean, ``010`` is 8, a float fits into an integer, a later anchor replaces an earlier one, and
merge keys take effect at their position.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import yaml

_PLAIN = ""
"""The tag of a scalar without quotes and without an explicit tag."""
_TAG = "tag:yaml.org,2002:"
_STRING = f"{_TAG}str"
_MAX_STEPS = 100_000
_MAX_INT = 2**63 - 1
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|([1-9][0-9]*|0))")
_BASES = (16, 2, 8, 10)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_MAX_DIGITS = 80
# Both letters for a millionth, the Greek mu and the micro sign.
_DURATION = re.compile(r"[-+]?(?:0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)")
_DURATION_PART = re.compile(r"([0-9.]+)([a-z\u00b5\u03bc]+)")
_NANOSECONDS = {
    **dict.fromkeys(("us", "\u00b5s", "\u03bcs"), 1000),
    "ns": 1,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}


class NodeError(ValueError):
    """A node that cannot be used. The message says why.

    Attributes:
        line: The number of the node's line, from 1.
    """

    def __init__(self, node: yaml.Node, reason: str) -> None:
        super().__init__(reason)
        self.line = node.start_mark.line + 1


@dataclass(frozen=True)
class Found:
    """A decoded value.

    Attributes:
        value: The value. None is null, which sets a field to Go's zero value.
        node: Its position.
    """

    value: Any
    node: yaml.Node


class Section(dict[str, Any]):
    """Decoded fields by name. Fields that the document does not mention are absent.

    Attributes:
        node: Its position.
    """

    def __init__(self, node: yaml.Node) -> None:
        super().__init__()
        self.node = node

    def get_value(self, name: str, default: Any = None) -> Any:
        """Return a field's value, or the default if the document does not mention the field."""
        return self[name].value if name in self else default


Kind: TypeAlias = Callable[[yaml.Node, str], Any]
Schema: TypeAlias = Mapping[str, "Schema | Kind | None"]
"""The kind of each field: a schema for a nested struct, a function for a value, or None for a map of texts."""


class _Loader(yaml.SafeLoader):
    anchors: dict[str | None, yaml.Node]
    yaml_version: tuple[int, int] | None

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> str:
        # The meaning of a plain scalar depends on its position. PyYAML decides too early, and differently.
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _STRING
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # A later anchor replaces an earlier one of the same name. PyYAML alone would refuse it.
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if not isinstance(event, yaml.AliasEvent):
            self.anchors.pop(event.anchor, None)
            # A lone "!" makes a text.
            if isinstance(event, yaml.ScalarEvent) and event.tag == "!":
                event.tag = _STRING
        return super().compose_node(parent, index)


def first_document(text: bytes) -> yaml.Node | None:
    """Parse the first document, because Go ignores all others. Return None if there is none.

    Raises:
        yaml.YAMLError: The text is not YAML.
        RecursionError: It is nested too deeply.
        ValueError: It escapes a character that does not exist.
    """
    loader = _Loader(text)
    try:
        node = loader.get_node() if loader.check_node() else None
        if loader.yaml_version not in (None, (1, 1)):
            raise yaml.YAMLError("only YAML 1.1 is supported")
    finally:
        loader.dispose()
    return node


def decode(node: yaml.Node, schema: Schema, what: str) -> Section:
    """Decode a document into a struct.

    Args:
        node: The document's root.
        schema: Its fields.
        what: Name of the document, for messages.

    Raises:
        NodeError: A field does not fit, is unknown or is set twice.
    """
    section = Section(node)
    _Decoder().struct(node, schema, what, section)
    return section


class _Decoder:
    def __init__(self) -> None:
        self._open: list[yaml.Node] = []
        self._steps = 0

    def struct(self, node: yaml.Node, schema: Schema, what: str, into: Section) -> None:
        """Decode into an existing section. A merge key adds to it, and the last value of a field counts."""
        into.node = node
        if _is_null(node, what):
            into.clear()
            into.update({name: Found(None, node) for name, kind in schema.items() if callable(kind)})
            return
        seen = set()
        for key, value in self._entries(node, what):
            if key is None:
                self.struct(value, schema, what, into)
                continue
            name = text(key, f"a key of {what}") or ""
            if name not in schema:
                raise NodeError(key, f"{name!r} is unknown in {what}: use {', '.join(schema)}")
            if name in seen:
                raise NodeError(key, f"{name!r} is set twice in {what}: remove one")
            seen.add(name)
            kind = schema[name]
            if isinstance(kind, Mapping):
                self.struct(value, kind, name, into.setdefault(name, Section(value)))
            elif kind is None:
                self._texts_by_name(value, name, into.setdefault(name, Section(value)))
            else:
                into[name] = Found(kind(value, name), value)

    def _texts_by_name(self, node: yaml.Node, what: str, into: Section) -> None:
        if _is_null(node, what):
            into.clear()
            return
        for key, value in self._entries(node, what):
            if key is None:
                self._texts_by_name(value, what, into)
                continue
            name = text(key, f"a key of {what}") or ""
            if name in into:
                raise NodeError(key, f"{name!r} is set twice in {what}: remove one")
            into[name] = Found(text(value, f"{name} in {what}") or "", value)

    def _entries(self, node: yaml.Node, what: str) -> Iterator[tuple[yaml.Node | None, yaml.Node]]:
        """Yield a mapping's keys and values. For a merge key, yield None with each mapping to merge."""
        if not isinstance(node, yaml.MappingNode):
            raise NodeError(node, f"{what} must be a mapping")
        if any(node is outer for outer in self._open):
            raise NodeError(node, f"{what} contains itself")
        self._steps += 1 + len(node.value)
        if self._steps > _MAX_STEPS:
            raise NodeError(node, f"{what} is too long, or repeats its aliases too often")
        self._open.append(node)
        for key, value in node.value:
            if not _is_merge(key):
                yield key, value
                continue
            # Go accepts a list of mappings directly after the key, but not as an alias.
            listed = isinstance(value, yaml.SequenceNode) and value.start_mark.index > key.start_mark.index
            for merged in reversed(value.value) if listed else [value]:
                if not isinstance(merged, yaml.MappingNode):
                    raise NodeError(key, "a merge key needs a mapping or a list of mappings")
                yield None, merged
        self._open.pop()


def _is_merge(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == "<<" and node.tag in (_PLAIN, f"{_TAG}merge")


def _is_null(node: yaml.Node, what: str) -> bool:
    return isinstance(node, yaml.ScalarNode) and _resolve(node, what) is None


def text(node: yaml.Node, what: str) -> str | None:
    """Return a text. Numbers and booleans are texts, too, as they are written."""
    if not isinstance(node, yaml.ScalarNode):
        raise NodeError(node, f"{what} must be a text")
    if any("\ud800" <= character <= "\udfff" for character in node.value):
        raise NodeError(node, f"{what} has a character that does not exist")
    return None if _resolve(node, what) is None else str(node.value)


def texts(node: yaml.Node, what: str) -> list[Found] | None:
    """Return a list of texts."""
    if _is_null(node, what):
        return None
    if not isinstance(node, yaml.SequenceNode):
        raise NodeError(node, f"{what} must be a list")
    return [Found(text(item, f"an item of {what}"), item) for item in node.value]


def boolean(node: yaml.Node, what: str) -> bool | None:
    """Return a boolean."""
    value = _resolve(node, what) if isinstance(node, yaml.ScalarNode) else ""
    if value is None or isinstance(value, bool):
        return value
    raise NodeError(node, f"{what} must be true or false")


def integer(node: yaml.Node, what: str) -> int | None:
    """Return an integer of 64 bits. Floats are truncated."""
    value = _resolve(node, what) if isinstance(node, yaml.ScalarNode) else ""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and value <= _MAX_INT:
        return int(max(value, -_MAX_INT))
    raise NodeError(node, f"{what} must be a number")


def nanoseconds(node: yaml.Node, what: str) -> int | None:
    """Return the nanoseconds of a duration like ``1m30s``. A plain number is in nanoseconds."""
    value = _resolve(node, what) if isinstance(node, yaml.ScalarNode) else ""
    if not isinstance(value, str):
        return integer(node, what)
    if _DURATION.fullmatch(value):
        parts = _DURATION_PART.findall(value)
        total = sum(int(Decimal(number) * _NANOSECONDS[unit]) for number, unit in parts)
        if total <= _MAX_INT:
            return -total if value.startswith("-") else total
    raise NodeError(node, f"{what} {value[:40]!r} is not a duration: write one like 1s or 100ms")


def _resolve(node: yaml.ScalarNode, what: str) -> bool | float | str | None:
    """Return the meaning of a scalar: null, a boolean, a number or a text."""
    tag = node.tag.removeprefix(_TAG)
    if tag in ("binary", "timestamp"):
        raise NodeError(node, f"{what} cannot have the tag !!{tag}")
    if tag not in (_PLAIN, "null", "bool", "int", "float"):
        return str(node.value)
    value = _meaning(node.value)
    kind = {type(None): "null", bool: "bool", int: "int", float: "float"}.get(type(value), "str")
    if tag not in (_PLAIN, kind) and (tag, kind) != ("float", "int"):
        raise NodeError(node, f"{what} does not fit its tag !!{tag}")
    return value


def _meaning(written: str) -> bool | float | str | None:
    if written in _WORDS:
        return _WORDS[written]
    plain = written if written.startswith(".") else written.replace("_", "")
    match = _INTEGER.fullmatch(plain)
    if match is not None and len(plain) <= _MAX_DIGITS:
        digits, base = next((digits, base) for digits, base in zip(match.groups()[1:], _BASES, strict=True) if digits)
        number = int(match[1] + digits, base)
        if -_MAX_INT - 1 <= number < 2**64:
            return number
    if _FLOAT.fullmatch(plain) and math.isfinite(value := float(plain)):
        return value
    return written
