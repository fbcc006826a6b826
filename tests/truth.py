"""Compares numbers that the exporter shows with the truth of the service's database.

Both are trees, and a place in one is a path such as ``{hotkey}.gpus.{gpu}.{state}``: a word is a
key, ``{label}`` is every key or text, ``{a,b=c}`` are fields of every record of a list, those with
a value only if they have it, and ``*`` is anything. A place on a page is a metric with the labels
that matter, and those that are given.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.support import Page

Labels = frozenset[tuple[str, str]]
Values = dict[Labels, float]
Path = tuple[Any, ...]
"""The keys and numbers from the top of a tree to a leaf."""

WORDS = {
    "past_hour": "1h",
    "past_day": "1d",
    "all": "7d",
    "launching": "starting",
    "verified": "starting",
    "built and pushed": "built",
    "pending build": "pending",
}
"""The exporter's words for some of the truth."""


@dataclass(frozen=True)
class Row:
    """A number that is shown, and the place where the truth has it.

    Attributes:
        shown: Where it is shown.
        true: Where the truth has it.
        rel: How much they may differ. The service computes sums over time some seconds before it
            answers.
        exceptions: How much a number with one of these labels may differ.
    """

    shown: str
    true: str
    rel: float = 1e-9
    exceptions: Mapping[str, float] = field(default_factory=dict)


def values_at(tree: Any, place: str) -> tuple[Values, set[Path]]:
    """Return the numbers at a place by their labels, and the leaves of the tree that it reads.

    Numbers with the same labels are added. Zeros are left out, because the truth lacks them.
    """
    sums: dict[Labels, float] = defaultdict(float)
    read: set[Path] = set()
    for labels, value, paths in _walk(_as_dicts(tree), place.split("."), {}, ()):
        read |= paths
        sums[frozenset(labels.items())] += value
    return {labels: value for labels, value in sums.items() if value}, read


def _as_dicts(node: Any) -> Any:
    """Return a tree in which each text, and each list of texts, is a dict from texts to 1."""
    if isinstance(node, dict):
        return {key: _as_dicts(child) for key, child in node.items()}
    if isinstance(node, list) and all(isinstance(child, str) for child in node):
        return {WORDS.get(text, text): 1 for text in node}
    if isinstance(node, list):
        return [_as_dicts(child) for child in node]
    if isinstance(node, str):
        return {WORDS.get(node, node): 1}
    # What is null is not shown.
    return {} if node is None else node


def _walk(
    node: Any, steps: list[str], labels: dict[str, str], path: Path
) -> Iterator[tuple[dict[str, str], float, set[Path]]]:
    if not steps:
        # A thing counts as one.
        yield labels, bool(node) if isinstance(node, (dict, list)) else float(node), {path}
        return
    step, *rest = steps
    if isinstance(node, list):
        names = step[1:-1].split(",") if step.startswith("{") else []
        for number, record in enumerate(node):
            texts = _fields(record, names)
            if texts is None:
                continue
            fields = {(*path, number, *key.split("=")[:1]) for key in names}
            later = rest if names or step == "*" else steps
            for found, value, paths in _walk(record, later, labels | texts, (*path, number)):
                yield found, value, paths | fields
    elif isinstance(node, dict):
        key: str
        for key, child in node.items():
            if step in (key, "*") or step.startswith("{"):
                word = {step[1:-1]: WORDS.get(key, key)} if step.startswith("{") else {}
                yield from _walk(child, rest, labels | word, (*path, key))


def _fields(record: dict[str, Any], names: list[str]) -> dict[str, str] | None:
    """Return the texts of some fields, None if the record lacks the value of a name such as
    ``a=b``.
    """
    fields = {}
    for name in names:
        field, _, wanted = name.partition("=")
        text = next(iter(record[field]), "None")
        if wanted and text != WORDS.get(wanted, wanted):
            return None
        if not wanted:
            fields[field] = text
    return fields


def shown_on(page: Page, place: str) -> Values:
    """Return the values of a metric by the labels that the place names, without zeros.

    A place that ends with ``== 2`` counts the samples with that value, and with ``exists`` all.
    """
    found = re.fullmatch(r"(\w+)\{(.*)\}(?: == (\d+)|( exists))?", place)
    assert found, place
    metric, names, number, exists = found[1], found[2].split(","), found[3], found[4]
    given = {tuple(name.split("=")) for name in names if "=" in name}
    wanted = [name for name in names if name and "=" not in name]
    sums: dict[Labels, float] = defaultdict(float)
    for (name, pairs), value in page.items():
        if name == metric and given <= pairs:
            texts = dict(pairs)
            labels = frozenset((label, texts.get(label, "")) for label in wanted)
            # A label that is missing is unknown.
            if all(texts.get(label) for label in wanted):
                sums[labels] += _counted(value, number, exists=bool(exists))
    return {labels: value for labels, value in sums.items() if value}


def _counted(value: float, number: str | None, *, exists: bool) -> float:
    if exists:
        return 1
    return value if number is None else value == float(number)


def differences(page: Page, outputs: Mapping[str, Any], truth: Any, rows: Iterable[Row]) -> str:
    """Return a line for each number that is not shown as the truth has it.

    Args:
        page: The samples of a page.
        outputs: The JSON of commands by their names. A place in it begins with its name.
        truth: The truth. A row is left out where it lacks the place.
        rows: What to compare.
    """
    wrong = set()
    for row in rows:
        true, read = values_at(truth, row.true)
        if row.shown.startswith("chutes_"):
            shown = shown_on(page, row.shown)
        else:
            shown, _ = values_at(outputs, row.shown)
        if not read:
            continue
        for labels in true.keys() | shown.keys():
            texts = dict(labels)
            rel = next((row.exceptions[t] for t in texts.values() if t in row.exceptions), row.rel)
            found, want = shown.get(labels, 0.0), true.get(labels, 0.0)
            if found != pytest.approx(want, rel=rel):
                wrong.add(f"{row.shown} {texts}: {found} instead of {want} ({row.true})")
    return "\n".join(sorted(wrong))


def unread(truth: Any, rows: Iterable[Row], reasons: Iterable[str]) -> str:
    """Return the places of the truth that no row reads and that have no reason."""
    read: set[Path] = set()
    for place in (*(row.true for row in rows), *reasons):
        _, found = values_at(truth, place)
        read |= found
    # A place may be that of a whole part.
    missed = []
    for leaf in _leaves(_as_dicts(truth), ()):
        parts = (leaf[:length] for length in range(len(leaf) + 1))
        if read.isdisjoint(parts):
            missed.append(".".join(map(str, leaf)))
    return "\n".join(missed)


def _leaves(node: Any, path: Path) -> Iterator[Path]:
    children: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    else:
        yield path
    for key, child in children:
        yield from _leaves(child, (*path, key))
