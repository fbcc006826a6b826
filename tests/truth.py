"""Compares numbers that the exporter shows with the truth that was recorded from the service.

Both are trees, and a place in one is a path such as ``{hotkey}.gpus.{gpu}.{state}``: a word is a
key, ``{label}`` is every key or text, ``{a,b=c}`` are fields of every record of a list, those with
a value only if they have it, and ``*`` is anything. A place on a page is a metric with the labels
that matter, and those that are given.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
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
    "private: no active instance and no bounty": "no_bounty",
    "private: target reached": "no_room",
    "active >= target": "no_room",
    "TEE: live instances (active and starting) >= target + 1": "no_room",
    "enough_starting": "no_room",
    # Of an accepted launch. In world F, the targets of all these chutes have expired.
    "activation refused": "target_expired",
    # The service would accept the launch, but no server of the miner fits.
    "too_many_gpus": "accepted",
    "in_maintenance": "accepted",
    "tee_mismatch": "accepted",
}
"""One word for each thing that the truth and the exporter name, or tell apart, differently."""


@dataclass(frozen=True)
class Row:
    """A number that is shown, and the place where the truth has it.

    Attributes:
        shown: Where it is shown.
        true: Where the truth has it.
        rel: How much they may differ. The service computes sums over time some seconds before it
            answers.
        only_in: The last letters of the recorded worlds whose truth has it, if not all do.
        partial: Whether the truth has some of the numbers only.
        zero_may_be_absent: Whether a number may be absent where the truth says 0. A 0 that is shown
            where the truth has no number is always right, because the truth lacks most of them.
    """

    shown: str
    true: str
    rel: float = 1e-9
    only_in: str = ""
    partial: bool = False
    zero_may_be_absent: bool = False


def values_at(tree: Any, place: str) -> Values | None:
    """Return the numbers at a place by their labels, None if the tree has no such place.

    Numbers with the same labels are added.
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
    return dict(sums)


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
    """Return the values of a metric by the labels that the place names.

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
            # A label that is missing is unknown.
            if all(texts.get(label) for label in wanted):
                words = {label: WORDS.get(texts[label], texts[label]) for label in wanted}
                sums[frozenset(words.items())] += _counted(value, number, exists=bool(exists))
    return dict(sums)


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
        for labels in true.keys() if row.partial else true.keys() | shown.keys():
            found, want = shown.get(labels), true.get(labels, 0.0)
            if row.zero_may_be_absent and found is None and not want:
                continue
            if found != pytest.approx(want, rel=row.rel):
                wrong.add(f"{row.shown} {dict(labels)}: {found} instead of {want} ({row.true})")
    return "\n".join(sorted(wrong))
