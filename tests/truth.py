"""Compares what a page and the commands show with the truth that was recorded from the service."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.pages import identity, series

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.pages import Page

Numbers = dict[tuple[str, ...], float]
"""Numbers by the texts of some labels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """Numbers that are shown, and the truth about them.

    Attributes:
        shown: The metric, with the labels that its samples must have.
        fact: The name of the fact in the truth: a number, or dicts of numbers by the text of each
            label. A text, and each text of a list, is a last label whose number is 1.
        by: The labels, in the order of the dicts. Numbers that differ only in others are added.
        rel: How much the numbers may differ. The service computes sums over time some seconds
            before it answers.
        field: The field with the number, if the fact has records.
        only_in: The last letters of the recorded worlds whose truth has the fact, if not all do.
        counted: Whether samples are counted, whatever their values.
        words: The truth's words for texts that are shown, where they differ.
        elsewhere: What a number is that the truth lacks, None if that is not known.
        absent: What a number that is not shown counts as, None if it must be shown.
    """

    shown: str
    fact: str
    by: str = ""
    rel: float = 1e-9
    field: str = ""
    only_in: str = ""
    counted: bool = False
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)
    elsewhere: float | None = 0
    absent: float | None = None


def true_numbers(truth: Mapping[str, Any], row: Row) -> Numbers:
    """Return the numbers of a row that are true."""
    sums: Numbers = defaultdict(float)
    for texts, number in _numbers(truth[row.fact], row.field):
        sums[texts[: len(row.by.split())]] += number
    return sums


def _numbers(fact: Any, field: str) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(fact, dict) and field in fact:
        yield from _numbers(fact[field], "")
    elif isinstance(fact, dict):
        for key, inner in fact.items():
            for texts, number in _numbers(inner, field):
                yield (key, *texts), number
    elif isinstance(fact, list):
        for inner in fact:
            yield from _numbers(inner, field)
    else:
        assert not field, f"a record has no {field}"
        yield ((fact,), 1) if isinstance(fact, str) else ((), fact)


def shown_numbers(page: Page, row: Row) -> Numbers:
    """Return the numbers of a row that a page shows."""
    (metric, given), by = identity(row.shown), row.by.split()
    sums: Numbers = defaultdict(float)
    for (name, pairs), value in page.items():
        if name == metric and given <= pairs:
            texts = dict(pairs)
            key = tuple(row.words.get(texts[label], texts[label]) for label in by if label in texts)
            # A sample that lacks a label is about something unknown.
            if len(key) == len(by):
                sums[key] += 1 if row.counted else value
    return sums


def add_samples(page: Page, name: str, shown: Any, /, **labels: str) -> None:
    """Add what a command shows to a page, in samples such as ``advise_miners_idle_gpus``.

    Each number in its JSON is a sample, and so is each record, with the value 1. The texts of a
    record, and null as ``None``, are labels of everything in it.
    """
    if isinstance(shown, list):
        for record in shown:
            add_samples(page, name, record, **labels)
    elif isinstance(shown, dict):
        texts = {key: str(one) for key, one in shown.items() if one is None or isinstance(one, str)}
        labels |= texts
        add_samples(page, name, 1, **labels)
        for key, inner in shown.items():
            add_samples(page, f"{name}_{key}", inner, **labels)
    elif isinstance(shown, (int, float)):
        sample = series(name, **labels)
        page[sample] = page.get(sample, 0) + shown


def differences(page: Page, truth: Mapping[str, Any], rows: Iterable[Row]) -> str:
    """Return a line for each number that a page does not show as the truth has it."""
    wrong = []
    for row in rows:
        shown, true = shown_numbers(page, row), true_numbers(truth, row)
        for texts in true | shown:
            found, want = shown.get(texts, row.absent), true.get(texts, row.elsewhere)
            if want is not None and found != pytest.approx(want, rel=row.rel):
                wrong.append(f"{row.shown} {texts}: {found} instead of {want} ({row.fact})")
    return "\n".join(sorted(wrong))
