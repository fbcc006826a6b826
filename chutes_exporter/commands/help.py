"""The command ``help``: the help of a command, and lists that are too long for it."""

from __future__ import annotations

import click

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.commands.options import write_entries
from chutes_exporter.duration import human_duration
from chutes_exporter.feeds.definitions import FEEDS


@click.command("help")
@click.argument("topic", metavar="[COMMAND|collectors|feeds]", default="")
@click.pass_context
def help_command(ctx: click.Context, topic: str) -> None:
    """Show the help of a command, the collectors, or the feeds."""
    root, formatter = ctx.find_root(), ctx.make_formatter()
    commands = root.command.commands if isinstance(root.command, click.Group) else {}
    if topic == "collectors":
        formatter.write_text(
            "Switch a collector on with --collector.NAME, or off with --no-collector.NAME."
        )
        write_entries(
            formatter,
            [(it.name, f"{it.summary} [default: {it.default_in_words}]") for it in COLLECTORS],
        )
    elif topic == "feeds":
        formatter.write_text(
            "--feed.ttl changes how long an answer is fresh, --feed.max-age when it is dropped."
        )
        lifetimes = [
            (feed.name, human_duration(feed.ttl), human_duration(feed.max_age)) for feed in FEEDS
        ]
        formatter.write_dl(
            [(name, f"{ttl} fresh, dropped after {max_age}") for name, ttl, max_age in lifetimes]
        )
    elif topic in commands:
        formatter.write(commands[topic].get_help(click.Context(commands[topic], root, topic)))
    elif topic:
        raise click.UsageError(f"No such command {topic!r}.", root)
    else:
        formatter.write(root.get_help())
    click.echo(formatter.getvalue().rstrip("\n"))
