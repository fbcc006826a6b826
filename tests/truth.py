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

    from tests.pages import Page

Labels = frozenset[tuple[str, str]]
Values = dict[Labels, float]

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
        only_in: The last letters of the recorded worlds whose truth has it, if not all do.
    """

    shown: str
    true: str
    rel: float = 1e-9
    exceptions: Mapping[str, float] = field(default_factory=dict)
    only_in: str = ""


def values_at(tree: Any, place: str) -> Values | None:
    """Return the numbers at a place by their labels, None if the tree has no such place.

    Numbers with the same labels are added. Zeros are left out, because the truth lacks them.
    """
    root, steps = _as_dicts(tree), place.split(".")
    node = root
    for step in steps:
        if not isinstance(node, dict) or step == "*" or step.startswith("{"):
            break
        if step not in node:
            return None
        node = node[step]
    sums: dict[Labels, float] = defaultdict(float)
    for labels, value in _walk(root, steps, {}):
        sums[frozenset(labels.items())] += value
    return {labels: value for labels, value in sums.items() if value}


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
    node: Any, steps: list[str], labels: dict[str, str]
) -> Iterator[tuple[dict[str, str], float]]:
    if not steps:
        # A thing counts as one.
        yield labels, bool(node) if isinstance(node, (dict, list)) else float(node)
        return
    step, *rest = steps
    if isinstance(node, list):
        names = step[1:-1].split(",") if step.startswith("{") else []
        for record in node:
            texts = _fields(record, names)
            if texts is not None:
                yield from _walk(record, rest if names or step == "*" else steps, labels | texts)
    elif isinstance(node, dict):
        key: str
        for key, child in node.items():
            if step in (key, "*") or step.startswith("{"):
                word = {step[1:-1]: WORDS.get(key, key)} if step.startswith("{") else {}
                yield from _walk(child, rest, labels | word)


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
        truth: The truth.
        rows: What to compare. The truth has the places of all.
    """
    wrong = set()
    for row in rows:
        true = values_at(truth, row.true)
        assert true is not None, f"the truth has no {row.true}"
        if row.shown.startswith("chutes_"):
            shown = shown_on(page, row.shown)
        else:
            shown = values_at(outputs, row.shown) or {}
        for labels in true.keys() | shown.keys():
            texts = dict(labels)
            rel = next((row.exceptions[t] for t in texts.values() if t in row.exceptions), row.rel)
            found, want = shown.get(labels, 0.0), true.get(labels, 0.0)
            if found != pytest.approx(want, rel=rel):
                wrong.add(f"{row.shown} {texts}: {found} instead of {want} ({row.true})")
    return "\n".join(sorted(wrong))
