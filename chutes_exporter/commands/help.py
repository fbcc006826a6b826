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
    # The root is always a group, but the type checker does not know it.
    commands = root.command.commands if isinstance(root.command, click.Group) else {}
    if topic == "collectors":
        _write_collectors(formatter)
    elif topic == "feeds":
        _write_feeds(formatter)
    elif topic in commands:
        command = commands[topic]
        # With this parent and name, the usage line shows the program and the command.
        context = click.Context(command, parent=root, info_name=topic)
        formatter.write(command.get_help(context))
    elif topic:
        raise click.UsageError(f"No such command {topic!r}.", root)
    else:
        formatter.write(root.get_help())
    click.echo(formatter.getvalue().rstrip("\n"))


def _write_collectors(formatter: click.HelpFormatter) -> None:
    """Write how to switch collectors, and what each one exports."""
    formatter.write_text(
        "Switch a collector on with --collector.NAME, or off with --no-collector.NAME."
    )
    entries = []
    for collector in COLLECTORS:
        text = f"{collector.summary} [default: {collector.default_in_words}]"
        entries.append((collector.name, text))
    write_entries(formatter, entries)


def _write_feeds(formatter: click.HelpFormatter) -> None:
    """Write how to change the lifetimes of answers, and those that each feed has by default."""
    formatter.write_text(
        "--feed.ttl changes how long an answer is fresh, --feed.max-age when it is dropped."
    )
    definitions = []
    for feed in FEEDS:
        ttl, max_age = human_duration(feed.ttl), human_duration(feed.max_age)
        definitions.append((feed.name, f"{ttl} fresh, dropped after {max_age}"))
    formatter.write_dl(definitions)
