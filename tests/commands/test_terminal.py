"""Text for a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.commands.terminal import called_as, json_text, printable, say

if TYPE_CHECKING:
    from pathlib import Path

    from _pytest.capture import CaptureFixture


@pytest.mark.parametrize("character", ["\x1b", "\n", "\r", "\x07", "\x9b", "\u202e", "\u2028"])
def test_a_character_that_could_control_the_terminal_becomes_a_space(character: str) -> None:
    assert printable(f"a{character}b") == "a b"


def test_text_of_any_language_is_kept() -> None:
    assert printable("Ünïcödé 模型 → 5 %") == "Ünïcödé 模型 → 5 %"


def test_json_has_escapes_where_the_encoding_lacks_a_character() -> None:
    assert json_text("→") == '"→"'
    assert json_text("\ud800→") == '"\\ud800\\u2192"'


def test_long_text_is_folded_at_80_columns_and_indented(capsys: CaptureFixture[str]) -> None:
    say("word " * 40, indent="    ", start="  ")
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("  word")
    assert all(line.startswith("    word") for line in others)
    assert max(map(len, (first, *others))) <= 80
    assert sum(line.count("word") for line in (first, *others)) == 40


def test_a_command_is_shown_as_it_works_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    program = folder / "chutes-exporter"
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(folder))
    assert called_as(str(program)) == "chutes-exporter"
    assert called_as("a b/chutes-exporter") == "chutes-exporter"
    assert called_as("./other/chutes-exporter") == f"{tmp_path}/other/chutes-exporter"
    monkeypatch.setenv("PATH", "")
    assert called_as("a b/chutes-exporter") == f"'{program}'"
    assert called_as("/any/__main__.py") == f"{sys.executable} -m chutes_exporter"
