"""The command line. Each command stands in its own module of ``commands/``, with its flags."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from chutes_exporter import __version__
from chutes_exporter.api.client import ClientSetupError
from chutes_exporter.api.errors import scrub_input
from chutes_exporter.commands.advise import advise
from chutes_exporter.commands.check import check
from chutes_exporter.commands.demo import demo
from chutes_exporter.commands.incidents import incidents
from chutes_exporter.commands.query import query
from chutes_exporter.commands.release_job import release_job
from chutes_exporter.commands.serve import serve
from chutes_exporter.commands.status import status
from chutes_exporter.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_READER_GONE = 141
"""The exit status of a program that SIGPIPE ends, in a shell."""
_EXAMPLES = """\b
Examples:
  chutes-exporter demo                       try it without a miner
  chutes-exporter serve --hotkey-file PATH   export a miner
  chutes-exporter status --hotkey-file PATH  see what needs action
"""


class _DefaultToServe(click.Group):
    """Runs ``serve`` if no command is given, and lists the commands in the order of use."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # These flags belong to the whole command line, and all others to a command.
        is_own_flag = bool(args) and args[0] in ("--help", "-h", "--version")
        has_command = bool(args) and not args[0].startswith("-")
        # At the first word, a shell that completes wants the commands.
        is_first_completed = ctx.resilient_parsing and not args
        if not (is_own_flag or has_command or is_first_completed):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return [*self.commands]


@click.group(
    cls=_DefaultToServe,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=_EXAMPLES,
)
@click.help_option(
    "-h", "--help", help="Show this help. After a command: its flags and their variables."
)
@click.version_option(__version__, prog_name="chutes-exporter", message="%(prog)s %(version)s")
def cli() -> None:
    """Prometheus exporter for the Chutes miner API (Bittensor subnet 64)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        click.get_current_context().color = False


for command in (demo, serve, check, status, advise, incidents, query, release_job):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. An error is a line without a traceback and without a secret."""
    try:
        # Without the standalone mode, click returns the status of Context.exit(), or None, which
        # is 0 for sys.exit.
        exit_status = cli.main(arguments, prog_name="chutes-exporter", standalone_mode=False)
    except (click.ClickException, ConfigError, ClientSetupError) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        line = f"Error: {scrub_input(text)}"
        # Errors of click know the command whose help explains its flags.
        context = getattr(error, "ctx", None)
        if context:
            line += f" (see {context.command_path} --help)"
        click.echo(line, err=True)
        # A setting that cannot be used counts as a wrong command line.
        exit_status = getattr(error, "exit_code", click.UsageError.exit_code)
    except SystemExit as end:
        # Click exits by itself after a completion, and with 1 if the reader of the output has gone.
        # Here, that would mean that action is needed.
        exit_status = _READER_GONE if end.code == 1 else end.code
    except click.Abort:
        click.echo("Aborted.", err=True)
        exit_status = 1
    sys.exit(exit_status)
