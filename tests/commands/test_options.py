from __future__ import annotations

from typing import TYPE_CHECKING

import click

from chutes_exporter.commands.options import source_of, with_variable

if TYPE_CHECKING:
    import pytest


@click.command()
@click.option("--web.listen-address", "listen", envvar=["FIRST", "SECOND"])
@click.option("--plain")
def command(listen: str | None, plain: str | None) -> None:
    click.echo(f"{source_of('listen')} {source_of('plain')} {listen} {plain}")
    click.echo(with_variable("--web.listen-address x is wrong"))
    click.echo(with_variable("--web.listen is wrong, and --web.listen-address"))
    click.echo(with_variable("it is wrong"))


def test_an_error_names_the_flag_or_the_variable_that_has_the_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command.main(["--web.listen-address", "x", "--plain", "y"], standalone_mode=False)
    assert capsys.readouterr().out.splitlines()[:2] == [
        "--web.listen-address --plain x y",
        "--web.listen-address x is wrong",
    ]
    monkeypatch.setenv("SECOND", "z")
    command.main([], standalone_mode=False)
    assert capsys.readouterr().out.splitlines() == [
        "SECOND --plain z None",
        "SECOND x is wrong",
        "--web.listen is wrong, and --web.listen-address",
        "it is wrong",
    ]
