"""Flags that several commands have, and what becomes of them: settings, warnings, errors."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from chutes_exporter import defaults, log
from chutes_exporter.api import ClientSetupError
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.config import (
    ConfigError,
    find_credentials,
    make_settings,
    require_a_choice,
    require_protection,
    variable_warnings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chutes_exporter.config import Credentials, Settings

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


_SETTINGS = inspect.signature(make_settings).parameters


class _Option(click.Option):
    """A flag that ``--help`` shows under a topic."""

    def __init__(self, *names: Any, topic: str = "Options", **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.topic = topic


class Command(click.Command):
    """A command whose ``--help`` groups flags by topic."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the flags, and refuse words that are not text, except in paths."""
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as error:
            # Some errors of click do not know their command, whose help the message names.
            error.ctx = error.ctx or ctx
            raise
        for parameter in self.params:
            if not isinstance(parameter.type, click.Path) and not _is_text(ctx.params.get(parameter.name or "")):
                raise click.BadParameter("it has bytes that are not UTF-8", ctx, parameter)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags, topic by topic."""
        topics: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            # A parameter that the help does not list has no record.
            record = parameter.get_help_record(ctx)
            topics.setdefault(getattr(parameter, "topic", "Options"), []).extend([record] if record else [])
        for topic, records in topics.items():
            with formatter.section(topic):
                formatter.write_dl(records)


def _is_text(value: Any) -> bool:
    """Tell whether a value, or each of several, can be encoded. Python keeps other bytes as lone surrogates."""
    try:
        "".join(value if isinstance(value, tuple) else [str(value)]).encode()
    except UnicodeEncodeError:
        return False
    return True


class _Seconds(click.FloatRange):
    """A number of seconds, whose error explains that there is no unit."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of seconds: write a plain number, for example 20", param, ctx)
        return super().convert(value, param, ctx)


def option(flag: str, name: str, *aliases: str, **settings: Any) -> Decorator:
    """Declare a flag with its environment variable.

    Args:
        flag: The flag, such as ``--api.url``.
        name: Name of the parameter. Those of settings are the names of :func:`~chutes_exporter.config.make_settings`.
        aliases: Variables of the miners' other tools.
        settings: As for ``click.option``, and ``topic``, the heading in ``--help``.
    """
    variable = defaults.ENV_PREFIX + re.sub(r"[.-]", "_", flag.partition("/")[0].removeprefix("--")).upper()
    return click.option(flag, name, cls=_Option, envvar=[variable, *aliases], show_envvar=True, **settings)


def options(*decorators: Decorator) -> Decorator:
    """Put several flags into one decorator."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def hotkey_options(without: str) -> Decorator:
    """Add the flags that choose hotkeys.

    Args:
        without: A sentence about what the command does without a hotkey.
    """
    return options(
        option(
            "--hotkey",
            "hotkeys",
            multiple=True,
            metavar="SS58",
            topic="Miners",
            help=f"Hotkey of a miner whose public data is exported (repeatable). {without}",
        ),
        option(
            "--hotkey-file",
            "hotkey_files",
            "HOTKEY",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="PATH",
            topic="Miners",
            help="Bittensor hotkey file of a miner whose public and private data is exported (repeatable). "
            "Alternative: set MINER_SS58 and MINER_SEED. A seed is never a flag.",
        ),
    )


api_options = options(
    option(
        "--api.url",
        "api_url",
        "VALIDATOR_API",
        default=defaults.API_URL,
        show_default=True,
        metavar="URL",
        topic="Chutes API",
        help="Base address of the Chutes API.",
    ),
    option(
        "--api.timeout",
        "api_timeout",
        type=_Seconds(min=0, min_open=True),
        default=defaults.API_TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        topic="Chutes API",
        help="Abort a request after this many seconds without data.",
    ),
)
money_options = options(
    option(
        "--gpu.cost",
        "gpu_costs",
        multiple=True,
        metavar="MODEL=USD_PER_HOUR",
        topic="Money",
        help="Price that you pay for one GPU of a model, in US dollars per hour (repeatable). It is used to compute "
        "the cost of the fleet and of idle GPUs.",
    ),
    option(
        "--subnet.daily-emission",
        "daily_emission",
        type=float,
        metavar="ALPHA",
        topic="Money",
        help="Alpha that all miners of the subnet receive per day. It is used to estimate earnings.",
    ),
    option(
        "--alpha.price",
        "alpha_price",
        type=float,
        metavar="USD",
        topic="Money",
        help="Price of one alpha in US dollars. It is used to estimate earnings.",
    ),
)


def serving_options(listen: str) -> Decorator:
    """Add the flags of a command that serves metrics.

    Args:
        listen: The default address to listen on.
    """
    return options(
        option(
            "--web.listen-address",
            "listen",
            multiple=True,
            default=[listen],
            show_default=True,
            metavar="[HOST]:PORT",
            topic="Web server",
            help="Address to listen on (repeatable). Use unix:/PATH for a Unix socket.",
        ),
        _web_options,
        _data_options,
        money_options,
        _log_options,
    )


_web_options = options(
    option(
        "--web.systemd-socket",
        "systemd_socket",
        is_flag=True,
        topic="Web server",
        help="Listen on the sockets that systemd passes, instead of --web.listen-address.",
    ),
    option(
        "--web.config.file",
        "web_config",
        type=click.Path(path_type=Path),
        metavar="PATH",
        topic="Web server",
        help="File with TLS, passwords, headers and a rate limit, in the format of Prometheus' exporter-toolkit.",
    ),
    option(
        "--web.enable-lifecycle",
        "enable_lifecycle",
        is_flag=True,
        topic="Web server",
        help="Serve POST /-/reload. Like SIGHUP, it reloads hotkey files and the web configuration.",
    ),
    option(
        "--web.max-requests",
        "max_requests",
        type=click.IntRange(min=0),
        default=defaults.MAX_REQUESTS,
        show_default=True,
        metavar="NUMBER",
        topic="Web server",
        help="Maximum concurrent scrapes. Others wait for up to 5 s, then get 503. 0 means unlimited.",
    ),
    option(
        "--web.telemetry-path",
        "telemetry_path",
        default=defaults.TELEMETRY_PATH,
        show_default=True,
        metavar="PATH",
        topic="Web server",
        help="Path of the metrics.",
    ),
    option(
        "--scrape.timeout-offset",
        "timeout_offset",
        type=_Seconds(min=0),
        default=defaults.TIMEOUT_OFFSET,
        show_default=True,
        metavar="SECONDS",
        topic="Web server",
        help="Answer this many seconds before Prometheus' timeout.",
    ),
)
_data_options = options(
    option(
        "--miners",
        "miners",
        type=click.Choice(["watched", "active", "all"]),
        default=None,
        topic="Data",
        help="Miners whose public data is exported: watched (the configured hotkeys), active (also all miners that "
        "earn), or all. [default: watched if hotkeys are configured, otherwise all]",
    ),
    option(
        "--max-series",
        "max_series",
        type=click.IntRange(min=0),
        default=defaults.MAX_SERIES,
        show_default=True,
        metavar="NUMBER",
        topic="Data",
        help="Maximum series of all collectors. Beyond it, whole collectors are left out, the least important first.",
    ),
    option(
        "--openmetrics.created",
        "created_timestamps",
        is_flag=True,
        topic="Data",
        help="Write the _created lines of counters in OpenMetrics. Prometheus stores each as an additional series.",
    ),
    option(
        "--feed.ttl",
        "ttl",
        multiple=True,
        metavar="FEED=SECONDS",
        topic="Data",
        help="Seconds for which an answer is fresh (repeatable). docs/metrics.md lists the feeds and their defaults.",
    ),
    option(
        "--feed.max-age",
        "max_age",
        multiple=True,
        metavar="FEED=SECONDS",
        topic="Data",
        help="Age at which an answer is dropped if the API gives no newer one (repeatable).",
    ),
    *(
        option(
            f"--collector.{collector.name}/--no-collector.{collector.name}",
            f"collector_{collector.name}",
            default=None,
            topic="Collectors",
            help=f"Export {collector.summary} [default: {collector.default_in_words}]",
        )
        for collector in COLLECTORS
    ),
)
_log_options = options(
    option(
        "--log.level",
        "log_level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        topic="Log",
        help="Minimum log level.",
    ),
    option(
        "--log.format",
        "log_format",
        type=click.Choice(["logfmt", "json"]),
        default="logfmt",
        show_default=True,
        topic="Log",
        help="Format of log lines.",
    ),
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def source_of(name: str) -> str:
    """Return the flag or the variable that a parameter's value comes from."""
    context = click.get_current_context()
    parameter = next(parameter for parameter in context.command.params if parameter.name == name)
    if context.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
        return next(variable for variable in parameter.envvar or () if os.environ.get(variable))
    return parameter.opts[0]


def with_variable(text: str) -> str:
    """Return an error's text, with the variable in place of the flag at its beginning if the value comes from there."""
    match = re.match(r"--[\w.-]+", text)
    parameters = click.get_current_context().command.params if match else []
    names = [parameter.name or "" for parameter in parameters if match and match[0] in parameter.opts]
    return source_of(names[0]) + text[len(match[0]) :] if match and names else text


def read_credentials(flags: dict[str, Any]) -> Credentials:
    """Return the configured keys and their problems."""
    return find_credentials(flags["hotkey_files"], os.environ, source=source_of("hotkey_files"))


def settings_of(flags: dict[str, Any], credentials: Credentials) -> Settings:
    """Return the settings of a command's flags.

    Raises:
        ConfigError: A setting cannot be used. The message says which and why.
    """
    context = click.get_current_context()
    settings = make_settings(
        **setting_flags(flags),
        hotkeys_source=source_of("hotkeys"),
        credentials=credentials,
        miner_ss58=os.environ.get("MINER_SS58", ""),
    )
    if not settings.watched and flags.get("miners") is None:
        require_a_choice(os.environ)
    # The addresses do not matter if systemd passes sockets.
    limits = {"web_config": "WEB_CONFIG_FILE"} | ({} if settings.systemd_socket else {"listen": "WEB_LISTEN_ADDRESS"})
    unset = [name for name in limits if context.get_parameter_source(name) is ParameterSource.DEFAULT]
    require_protection(os.environ, [limits[name] for name in unset])
    return replace(settings, warnings=(*settings.warnings, *unknown_variables()))


def setting_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that are settings, as arguments of :func:`~chutes_exporter.config.make_settings`."""
    choices = {collector.name: flags.get(f"collector_{collector.name}") for collector in COLLECTORS}
    return {name: value for name, value in flags.items() if name in _SETTINGS} | {
        "collectors": {name: choice for name, choice in choices.items() if choice is not None}
    }


def unknown_variables() -> tuple[str, ...]:
    """Return warnings about variables of the exporter that no command knows."""
    group = click.get_current_context().find_root().command
    commands = group.commands.values() if isinstance(group, click.Group) else [group]
    known = {name for command in commands for parameter in command.params for name in parameter.envvar or ()}
    return variable_warnings(os.environ, known)


def settings_with_warnings(flags: dict[str, Any]) -> Settings:
    """Return the settings, and print their warnings.

    Raises:
        ClickException: A setting cannot be used.
    """
    settings: Settings = checked(settings_of, flags, read_credentials(flags))
    for warning in settings.warnings:
        click.echo(f"Warning: {warning}.", err=True)
    return settings


def checked(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function. Errors of the configuration become messages without a traceback.

    Raises:
        ClickException: A setting cannot be used.
    """
    try:
        return function(*arguments)
    except (ConfigError, ClientSetupError) as error:
        raise click.ClickException(with_variable(str(error))) from None


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a coroutine function to its end. Errors of the configuration become messages without a traceback.

    Raises:
        ClickException: A setting cannot be used.
    """
    return checked(lambda: asyncio.run(function(*arguments)))


def run_with_status(function: Callable[[Settings, bool], Any], flags: dict[str, Any]) -> None:
    """Run a command whose exit status is an answer, and exit with it. 2 means that the command line is wrong."""
    # The command prints failed requests itself, so the log only shows bugs.
    log.configure("error", "logfmt")
    try:
        click.get_current_context().exit(run(function, settings_with_warnings(flags), flags["as_json"]))
    except click.ClickException as error:
        raise click.UsageError(error.message) from None
