"""The command line. Each command stands in its own module of ``commands/``, with its flags."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from chutes_exporter import __version__
from chutes_exporter.commands.advise import advise
from chutes_exporter.commands.backfill import backfill
from chutes_exporter.commands.check import check
from chutes_exporter.commands.demo import demo
from chutes_exporter.commands.query import query
from chutes_exporter.commands.release_job import release_job
from chutes_exporter.commands.serve import serve
from chutes_exporter.commands.status import status
from chutes_exporter.config import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXAMPLES = (
    ("chutes-exporter demo", "try it without a miner"),
    ("chutes-exporter serve --hotkey-file PATH", "export a miner"),
    ("chutes-exporter status --hotkey-file PATH", "see what needs action"),
)


class _DefaultToServe(click.Group):
    """Runs ``serve`` if no command is given. Lists the commands in the order of use, with whole descriptions."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {name for command in self.commands.values() for option in command.params for name in option.opts}
        flags |= {"--help", "--version"}
        for word in args:
            # Otherwise -hotkey would mean -h.
            if f"-{word.partition('=')[0]}" in flags and word not in flags:
                raise click.UsageError(one_line(f"{word} has only one dash: write -{word}"), ctx)
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h", "--version")):
            if named := [word for word in args if word in self.commands]:
                raise click.UsageError(f"the command must come first: chutes-exporter {named[0]} [OPTIONS]", ctx)
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def format_options(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(200)) for name, command in self.commands.items()])
        with formatter.section("Examples"):
            formatter.write_dl(_EXAMPLES, col_max=45)


@click.group(cls=_DefaultToServe, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="chutes-exporter", message="%(prog)s %(version)s")
def cli() -> None:
    """Prometheus exporter for the Chutes miner API (Bittensor subnet 64).

    Each flag of a command has an environment variable, which the command's --help names.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        click.get_current_context().color = False


@cli.command("help")
@click.argument("command", required=False)
@click.pass_context
def help_command(context: click.Context, command: str | None) -> None:
    """Show the help of a command, or this list."""
    root = context.find_root()
    if command is None:
        click.echo(root.get_help())
        return
    found = cli.get_command(root, command)
    if found is None:
        raise click.UsageError(f"No such command {command!r}", root)
    click.echo(found.get_help(click.Context(found, root, command)))


for command in (demo, serve, check, status, advise, query, backfill, release_job):
    cli.add_command(command)
cli.add_command(cli.commands.pop("help"))


def _message(error: click.ClickException) -> str:
    """Return an error's text. A text of click takes one line, shows no seed, and names the help."""
    if not isinstance(error, click.UsageError):
        return error.message
    text = one_line(" ".join(error.format_message().split())).removesuffix(".")
    return f"{text} (see {error.ctx.command_path} --help)" if error.ctx else text


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    try:
        exit_status = cli.main(arguments, prog_name="chutes-exporter", standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"Error: {_message(error)}", err=True)
        exit_status = error.exit_code
    except click.Abort:
        click.echo("Aborted.", err=True)
        exit_status = 1
    sys.exit(exit_status)
