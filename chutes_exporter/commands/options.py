"""Flags that several commands have, and the settings that they make."""

from __future__ import annotations

import asyncio
import difflib
import os
import re
import textwrap
from contextlib import asynccontextmanager, suppress
from dataclasses import fields, replace
from functools import partial, reduce, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from chutes_exporter import config, log
from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.api.errors import scrub_input
from chutes_exporter.api.keys import HotkeyError
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.commands.terminal import printable
from chutes_exporter.config import ConfigError, Credentials, Settings
from chutes_exporter.feeds.definitions import FEEDS
from chutes_exporter.page.plan import require_what_collectors_need

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping

    from chutes_exporter.commands.result import Result

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_GUARDS = ("hotkeys", "hotkey_files", "listen", "web_config")
"""Parameters without which the whole subnet would be watched, or everybody could read the metrics.
"""
_PAIRS = ("ttl", "max_age", "gpu_costs", "server_costs")
"""Parameters that are pairs of a name and a number."""
_KUBERNETES_OR_TEST = re.compile(r"CHUTES_EXPORTER_(TEST|SERVICE|PORT)(_.*)?")
"""Variables of the test suite, and those that Kubernetes sets for a Service with the name
chutes-exporter.
"""


class Parsed(click.ParamType):  # type: ignore[type-arg] # generic since click 8.4
    """A type of flags whose values a function parses. It raises ValueError for a text that it
    cannot parse.
    """

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a value, unless it is a default that needs no parsing."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Option(click.Option):
    """A flag that ``--help`` shows under a topic. Errors name the variable instead, if one set the
    value.
    """

    def __init__(self, *names: Any, topic: str = "Options", **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.topic = topic

    def source(self, ctx: click.Context | None) -> str:
        """Return what an error about the value names: the variable that set it, or the flag."""
        if (
            ctx is None
            or ctx.get_parameter_source(self.name or "") is not ParameterSource.ENVIRONMENT
        ):
            return self.opts[0]
        return next(variable for variable in self.envvar or () if os.environ.get(variable))

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return what an error about the value names."""
        return f"'{self.source(ctx)}'"


def name_sources(text: str) -> str:
    """Replace each flag in an error or warning by the variable that set its value, if one did."""
    context = click.get_current_context(silent=True)
    parameters = [] if context is None else context.command.params
    options = [parameter for parameter in parameters if isinstance(parameter, _Option)]
    sources = {option.opts[0]: option.source(context) for option in options}
    return re.sub(r"--[a-z][\w.-]*\w", lambda flag: sources.get(flag[0], flag[0]), text)


class Command(click.Command):
    """A command whose ``--help`` groups flags by topic."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and name variables in its errors."""
        # Commands print failed requests themselves, so their log only shows bugs. serve and demo
        # configure it by flags.
        log.configure("error", "logfmt")
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise ConfigError(name_sources(str(error))) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags, topic by topic, each with its variables."""
        topics: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            # A hidden flag has no record, and an argument has no text.
            if (record := parameter.get_help_record(ctx)) and record[1]:
                names = f"{record[0]}  {', '.join(parameter.envvar or ())}".rstrip()
                topics.setdefault(getattr(parameter, "topic", "Options"), []).append(
                    (names, record[1])
                )
        # Only the flags of collectors are hidden. One entry stands for all of them.
        if any(isinstance(parameter, _Option) and parameter.hidden for parameter in self.params):
            names = "--[no-]collector.NAME  CHUTES_EXPORTER_COLLECTOR_NAME"
            text = "Switch a collector on or off. chutes-exporter help collectors lists them."
            topics["Data"].append((names, text))
        for topic, records in topics.items():
            with formatter.section(topic):
                write_entries(formatter, records)


def write_entries(formatter: click.HelpFormatter, entries: Iterable[tuple[str, str]]) -> None:
    """Write a line with names for each entry, and its text below. No name is broken."""
    fill = partial(
        textwrap.fill, width=formatter.width, break_on_hyphens=False, break_long_words=False
    )
    for names, text in entries:
        formatter.write(fill(names, initial_indent="  ", subsequent_indent="    ") + "\n")
        formatter.write(fill(text, initial_indent="      ", subsequent_indent="      ") + "\n")


def option(topic: str, flag: str, name: str = "", *aliases: str, **settings: Any) -> Decorator:
    """Declare a flag with its environment variable, and with the default of the setting of the same
    name.

    The parameter of ``--api.url`` is ``api_url`` if it has no other name. Aliases are variables of
    the miners' other tools.
    """
    words = re.sub(r"[.-]", "_", flag.partition("/")[0].removeprefix("--"))
    name = name or words
    if hasattr(Settings, name):
        settings.setdefault("default", getattr(Settings, name))
    variables = [f"CHUTES_EXPORTER_{words.upper()}", *aliases]
    settings |= {"envvar": variables, "show_default": True}
    return click.option(flag, name, cls=_Option, topic=topic, **settings)


def options(*decorators: Decorator) -> Decorator:
    """Put several flags into one decorator."""
    return lambda function: reduce(
        lambda done, decorate: decorate(done), reversed(decorators), function
    )


_miners, _api, _web, _data, _log = (
    partial(option, it) for it in ("Miners", "Chutes API", "Web server", "Data", "Log")
)


def _hotkey_file(text: str) -> Path:
    """Parse a path, but refuse an address: ``HOTKEY`` sounds like one."""
    with suppress(HotkeyError):
        address = config.parse_hotkey(text)
        reason = (
            "is an address, but this needs the path of a hotkey file. To watch an address without "
            "its key, use"
        )
        raise ConfigError(f"{address} {reason} --hotkey")
    return Path(text)


def miner_options(without: str) -> Decorator:
    """Add the flags that choose hotkeys and the API. The sentence says what the command does
    without a hotkey.
    """
    return options(
        _miners(
            "--hotkey",
            "hotkeys",
            multiple=True,
            type=Parsed("SS58", config.parse_hotkey),
            help=f"Hotkey of a miner whose public data is exported (repeatable). {without}",
        ),
        _miners(
            "--hotkey-file",
            "hotkey_files",
            "HOTKEY",
            multiple=True,
            type=Parsed("PATH", _hotkey_file),
            help="Bittensor hotkey file of a miner whose public and private data is exported "
            "(repeatable). "
            "Alternative: set MINER_SS58, and MINER_SEED or MINER_PRIVATE_KEY. A key is never a "
            "flag.",
        ),
        _api(
            "--api.url",
            "api_url",
            "VALIDATOR_API",
            type=Parsed("URL", config.parse_url),
            help="Base address of the Chutes API.",
        ),
        _api(
            "--api.timeout",
            type=Parsed("SECONDS", config.parse_number),
            help="Abort a request after this many seconds without data.",
        ),
        _api(
            "--chain.url",
            "chain_url",
            type=Parsed("URL", config.parse_node_url),
            help="Address of a node of the chain, for seats, pay and the price of alpha. Without "
            "it, nothing is asked from the chain. Only the host is ever shown. If the rest has a "
            "key, use the variable. Example: https://entrypoint-finney.opentensor.ai",
        ),
    )


cost_options = options(
    option(
        "Money",
        "--gpu.cost",
        "gpu_costs",
        multiple=True,
        type=Parsed("MODEL=USD_PER_HOUR", config.parse_gpu_cost),
        help="Price that you pay for one GPU of a model, in US dollars per hour (repeatable). It "
        "is used to compute the cost of the fleet and of idle GPUs.",
    ),
    option(
        "Money",
        "--server.cost",
        "server_costs",
        multiple=True,
        type=Parsed("NAME=USD_PER_GPU_HOUR", config.parse_server_cost),
        help="Price that you pay for one GPU of a server, by the server's name, in US dollars per "
        "hour (repeatable). It comes before --gpu.cost.",
    ),
)


_lifetime = Parsed(
    "FEED=SECONDS", partial(config.parse_lifetime, feeds=[feed.name for feed in FEEDS])
)


def serving_options(listen: str) -> Decorator:
    """Add the flags of a command that serves metrics, by default on the address ``listen``."""
    return options(
        _web(
            "--web.listen-address",
            "listen",
            multiple=True,
            default=[listen],
            type=Parsed("[HOST]:PORT", config.Address.parse),
            help="Address to listen on (repeatable).",
        ),
        _web(
            "--web.config.file",
            "web_config",
            type=click.Path(path_type=Path),
            help="File with TLS and passwords, in the format of Prometheus' exporter-toolkit.",
        ),
        _web(
            "--scrape.timeout-offset",
            "timeout_offset",
            type=Parsed("SECONDS", config.parse_number),
            help="Answer this many seconds before Prometheus' timeout.",
        ),
        _data(
            "--miners",
            type=click.Choice(["neighbours", "watched", "all"], case_sensitive=False),
            default=None,
            help="Miners whose public data is exported: neighbours (the configured hotkeys, and "
            "the four miners on either side in rank and in line for the seat), watched (the "
            "configured hotkeys), or all. "
            "[default: neighbours if hotkeys are configured, otherwise all]",
        ),
        _data(
            "--chutes",
            type=click.Choice(["relevant", "all"], case_sensitive=False),
            default=None,
            help="Chutes that are exported: relevant (a watched miner runs them, ran them in the "
            "past day, or could launch them now if it had the GPUs), or all. "
            "[default: all with --miners all, otherwise relevant]",
        ),
        _data(
            "--max-series",
            type=click.IntRange(0),
            metavar="NUMBER",
            help="Maximum series of all collectors. Above it, the least important collectors are "
            "left out.",
        ),
        _data(
            "--feed.ttl",
            "ttl",
            multiple=True,
            type=_lifetime,
            help="Seconds for which an answer is fresh (repeatable), 1 to 604800. chutes-exporter "
            "help "
            "feeds lists the "
            "feeds.",
        ),
        _data(
            "--feed.max-age",
            "max_age",
            multiple=True,
            type=_lifetime,
            help="Age at which an old answer is dropped, at least --feed.ttl (repeatable).",
        ),
        *(
            option(
                "Collectors",
                f"--collector.{collector.name}/--no-collector.{collector.name}",
                f"collector_{collector.name}",
                default=None,
                hidden=True,
            )
            for collector in COLLECTORS
        ),
        cost_options,
        _log(
            "--log.level",
            type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
            default="info",
            help="Minimum log level.",
        ),
        _log(
            "--log.format",
            type=click.Choice(["logfmt", "json"], case_sensitive=False),
            default="logfmt",
            help="Format of log lines.",
        ),
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def settings_of(
    flags: Mapping[str, Any], credentials: Credentials | None = None, **others: Any
) -> Settings:
    """Return the settings of the running command, or raise ConfigError. ``others`` replace those of
    flags.
    """
    _refuse_empty_variables()
    credentials = credentials or config.find_credentials(flags["hotkey_files"], os.environ)
    if credentials.errors:
        raise ConfigError("; ".join(credentials.errors))
    names = {"hotkeys", *(field.name for field in fields(Settings))}
    given = {name: value for name, value in flags.items() if name in names}
    given |= {name: dict(given[name]) for name in _PAIRS if name in given}
    settings = config.make_settings(
        **given | others,
        collectors=_collector_choices(flags),
        keys=credentials.keys,
        warnings=(*credentials.warnings, *_unknown_variables()),
    )
    require_what_collectors_need(settings)
    return replace(settings, warnings=tuple(map(name_sources, settings.warnings)))


def _collector_choices(flags: Mapping[str, Any]) -> dict[str, bool]:
    """Return which collectors the user switches on or off."""
    choices = {}
    for collector in COLLECTORS:
        choice = flags.get(f"collector_{collector.name}")
        if choice is not None:
            choices[collector.name] = choice
    return choices


def _refuse_empty_variables() -> None:
    """Raise ConfigError if a variable of _GUARDS is set but empty, unless a flag sets its value."""
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name not in _GUARDS or source is ParameterSource.COMMANDLINE:
            continue
        for variable in parameter.envvar or ():
            if _is_set_but_empty(variable):
                raise ConfigError(f"{variable} is empty: set it or unset it")


def _is_set_but_empty(variable: str) -> bool:
    return variable in os.environ and not os.environ[variable].strip()


def _unknown_variables() -> Iterator[str]:
    """Return a warning about each variable of the exporter that no command knows."""
    group = click.get_current_context().find_root().command
    commands = group.commands.values() if isinstance(group, click.Group) else [group]
    known = sorted(
        {
            name
            for command in commands
            for parameter in command.params
            for name in parameter.envvar or ()
        }
    )
    for name in sorted(os.environ.keys() - known):
        if name.startswith("CHUTES_EXPORTER_") and not _KUBERNETES_OR_TEST.fullmatch(name):
            (nearest,) = difflib.get_close_matches(name, known, n=1, cutoff=0)
            yield scrub_input(f"{name} is unknown and has no effect: the nearest name is {nearest}")


def settings_with_warnings(flags: Mapping[str, Any]) -> Settings:
    """Return the settings, and print their warnings."""
    settings = settings_of(flags)
    for warning in settings.warnings:
        click.echo(f"Warning: {warning}.", err=True)
    return settings


def asks(
    *, needs_miner: bool
) -> Callable[[Callable[[Settings, Any], Coroutine[Any, Any, Result | None]]], Any]:
    """Run a coroutine function of the settings and flags as a command, print its result, and exit
    with its status.
    """

    def decorate(
        function: Callable[[Settings, Any], Coroutine[Any, Any, Result | None]],
    ) -> Callable[..., None]:
        @wraps(function)
        def command(**flags: Any) -> None:
            context, settings = click.get_current_context(), settings_with_warnings(flags)
            if needs_miner and not settings.watched:
                raise ConfigError(
                    f"{context.info_name} needs a miner: add --hotkey or --hotkey-file"
                )

            async def answer() -> int:
                result = await function(settings, flags)
                return 0 if result is None else result.print(as_json=flags["as_json"])

            context.exit(asyncio.run(answer()))

        return command

    return decorate


@asynccontextmanager
async def client_of(settings: Settings, asked: str) -> AsyncIterator[ChutesClient]:
    """Yield a client. A failed request ends the command with an error that says what was asked."""
    try:
        async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
            yield client
    except ApiError as error:
        raise click.ClickException(f"{asked}: {printable(str(error))}\n→ {error.advice}") from None
