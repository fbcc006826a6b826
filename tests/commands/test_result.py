"""What is printed of a result, and the exit status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
import pytest

from chutes_exporter.commands.result import Result
from chutes_exporter.page.gaps import NotKnown

if TYPE_CHECKING:
    from collections.abc import Sequence

GAPS = [
    NotKnown("jobs", "a", "503 down", "Try again."),
    NotKnown("jobs", "b", "503 down", "Try again."),
    NotKnown("nodes", "a", "503 down", "Try again."),
    NotKnown("scores", "", "404 gone", "Ask."),
]


@pytest.mark.parametrize(
    ("gaps", "needs_action", "status"),
    [([], False, 0), ([], True, 1), (GAPS, True, 1), (GAPS, False, 3)],
)
def test_what_needs_action_decides_the_status_before_what_is_not_known(
    gaps: Sequence[NotKnown],
    needs_action: bool,  # noqa: FBT001 - a parameter of the test
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = Result({"found": 1}, lambda: click.echo("found"), gaps, needs_action)
    assert result.print(as_json=False) == status
    lines = [
        "Not known",
        "? jobs, nodes: 503 down",
        "  → Try again.",
        "? scores: 404 gone",
        "  → Ask.",
    ]
    assert capsys.readouterr().out.splitlines() == ["found", *(lines if gaps else [])]
    assert result.print(as_json=True) == status
    printed = json.loads(capsys.readouterr().out)
    assert printed["found"] == 1
    assert printed["all_known"] is not bool(gaps)
    assert len(printed["not_known"]) == len(gaps)
