from __future__ import annotations

from typing import TYPE_CHECKING

import click

from chutes_exporter.commands.sources import source_of, with_variable

if TYPE_CHECKING:
    import pytest


@click.command()
@click.option("--web.listen-address", "listen", envvar=["FIRST", "SECOND"])
@click.option("--plain")
def command(listen: str | None, plain: str | None) -> None:
    click.echo(f"{source_of('listen')} {source_of('plain')} {listen} {plain}")
    click.echo(with_variable("--web.listen-address x is wrong"))
    click.echo(with_variable("--web.listen is wrong, and --web.listen-address"))


def test_an_error_names_the_flag_or_the_variable_that_has_the_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command.main(["--web.listen-address", "x", "--plain", "y"], standalone_mode=False)
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["--web.listen-address --plain x y", "--web.listen-address x is wrong"]
    monkeypatch.setenv("SECOND", "z")
    command.main([], standalone_mode=False)
    assert capsys.readouterr().out.splitlines() == [
        "SECOND --plain z None",
        "SECOND x is wrong",
        "--web.listen is wrong, and --web.listen-address",
    ]


def test_outside_a_command_the_flag_is_named() -> None:
    assert source_of("hotkey_file") == "--hotkey-file"
    assert with_variable("--hotkey-file: no") == "--hotkey-file: no"
