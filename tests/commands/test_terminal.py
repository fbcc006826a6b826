"""Text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.commands.terminal import print_table, printable, say

if TYPE_CHECKING:
    import pytest
    from _pytest.capture import CaptureFixture


def test_a_control_character_becomes_a_space_and_text_of_any_language_is_kept() -> None:
    for character in "\x1b\n\r\x07\x9b\u202e\u2028":
        assert printable(f"a{character}b") == "a b"
    assert printable("Ünïcödé 模型 → 5 %") == "Ünïcödé 模型 → 5 %"


def test_long_text_is_folded_at_80_columns_and_indented(capsys: CaptureFixture[str]) -> None:
    say("word " * 40, indent="    ", start="  ")
    text = capsys.readouterr().out
    first, *others = text.splitlines()
    assert first.startswith("  word")
    assert all(line.startswith("    word") for line in others)
    assert all(len(line) <= 80 for line in (first, *others))
    assert text.count("word") == 40


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


def test_a_table_has_a_width_and_a_number_of_digits_for_each_column(
    monkeypatch: pytest.MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    # With 0 columns, the width is unlimited.
    assert table(monkeypatch, capsys, "0") == (
        [
            "id                    name                            units_per_second  tee  at",
            "aaaaaaaaaaaaaaaaaaaa  vendor/model-of-thirty-letters              1234  yes  -",
            (
                "bbbbbbbbbbbbbbbbbbbb  short                                          2  no   "
                "2026-11-27T00:16Z"
            ),
            (
                "cccccccccccccccccccc   [2J                                           0  -    "
                '{"key": [1]}'
            ),
        ],
        [],
    )


def test_a_table_that_is_too_wide_has_shorter_texts_and_fewer_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
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
