"""Text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.commands.terminal import print_table

if TYPE_CHECKING:
    import pytest
    from _pytest.capture import CaptureFixture


ROWS = [
    {
        "id": "a" * 20,
        "name": "vendor/model-of-thirty-letters",
        "units_per_second": 1234.5,
        "tee": True,
        "at": None,
    },
    {
        "id": "b" * 20,
        "name": "short",
        "units_per_second": 2.345,
        "tee": False,
        "at": "2026-11-27T00:16:05.5+00:00",
    },
    {"id": "c" * 20, "name": "\x1b[2J", "units_per_second": 0.0, "tee": None, "at": {"key": [1]}},
]


def table(
    monkeypatch: pytest.MonkeyPatch, capsys: CaptureFixture[str], columns: str
) -> tuple[list[str], list[str]]:
    """Return the lines of a table, and the columns that are left out."""
    monkeypatch.setenv("COLUMNS", columns)
    left_out = print_table(ROWS, cut=["name"])
    return capsys.readouterr().out.splitlines(), left_out


def test_a_table_that_is_too_wide_has_shorter_texts_and_fewer_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    # With 0 columns, the width is unlimited, and each column has one number of digits.
    lines, left_out = table(monkeypatch, capsys, "0")
    assert left_out == []
    assert [line.split()[-3:] for line in lines[:3]] == [
        ["units_per_second", "tee", "at"],
        ["1234", "yes", "-"],
        ["2", "no", "2026-11-27T00:16Z"],
    ]
    assert "\x1b" not in lines[3]
    lines, left_out = table(monkeypatch, capsys, "60")
    assert left_out == ["at"]
    assert lines[:4] == [
        "                                                 units_",
        "                                                   per_",
        "id                    name                       second  tee",
        "aaaaaaaaaaaaaaaaaaaa  vendor/model…irty-letters    1234  yes",
    ]
    lines, left_out = table(monkeypatch, capsys, "10")
    assert left_out == ["name", "units_per_second", "tee", "at"]
    # An id is never shortened.
    assert lines == ["id", *("abc"[row] * 20 for row in range(3))]
