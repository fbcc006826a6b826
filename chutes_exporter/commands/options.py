"""Flags that several commands have, and the settings that they make."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from chutes_exporter import config, log
from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.errors import ApiError, scrub_input
from chutes_exporter.api.keys import parse_address
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.commands.terminal import printable
from chutes_exporter.config import ConfigError, Credentials, Settings
from chutes_exporter.page.plan import require_what_collectors_need

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.api.endpoint import Endpoint
    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.commands.result import Result

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
    Question = Callable[[Settings, Any], Coroutine[Any, Any, Result]]

_GUARDS = ("hotkeys", "hotkey_files", "listen", "web_config")
"""Parameters without which the whole subnet would be watched, or everybody could read the metrics.
"""
_VARIABLES: set[str] = set()
"""The environment variables of the flags of all commands."""
_KUBERNETES_OR_TEST = re.compile(r"CHUTES_EXPORTER_(TEST|SERVICE|PORT)(_.*)?")
"""Variables of tests, and those that Kubernetes sets for a Service named chutes-exporter."""


class Parsed(click.ParamType):  # type: ignore[type-arg] # generic since click 8.4
    """A type of flags whose values a function parses. It raises ValueError if it cannot."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a text. Another value is a default that needs no parsing."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Command(click.Command):
    """A command that refuses some empty environment variables, and names variables in errors."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, or raise ConfigError if the variable of a guard is set but empty."""
        for parameter in self.params:
            for variable in parameter.envvar or ():
                is_empty = not os.environ.get(variable, "set").strip()
                # Click would ignore it, and the guard would be missing.
                if is_empty and parameter.name in _GUARDS:
                    raise ConfigError(f"{variable} is empty: set it or unset it")
        # Commands print failed requests themselves. serve and demo configure the log by flags.
        log.configure("error", "logfmt")
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise ConfigError(with_variables(str(error))) from None


def with_variables(text: str) -> str:
    """Return a text that names, beside each flag, the environment variables that set it.

    A user who set the variable does not know the flag. Outside a command, the text stays as it is.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return text
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is ParameterSource.ENVIRONMENT:
            variables = " or ".join(parameter.envvar or ())
            # The flag may be the beginning of a longer one. A full stop is that of a sentence.
            flag = re.escape(parameter.opts[0]) + r"(?![\w.-]*\w)"
            text = re.sub(flag, rf"\g<0> ({variables})", text)
    return text


def option(flag: str, name: str = "", *aliases: str, **arguments: Any) -> Decorator:
    """Declare a flag with its environment variables.

    Its value becomes the argument ``name`` of the command, by default ``api_url`` for
    ``--api.url``. If Settings has a field of this name, its default is also that of the flag.
    Aliases are variables of the miners' other tools. ``arguments`` are those of click.option.
    """
    # The first of two flags, such as --collector.chutes/--no-collector.chutes, names the variable.
    first_flag = flag.partition("/")[0]
    words = re.sub(r"[.-]", "_", first_flag.removeprefix("--"))
    name = name or words
    # The default of a field is an attribute of its class.
    if hasattr(Settings, name):
        arguments.setdefault("default", getattr(Settings, name))
    arguments.setdefault("show_default", True)
    variables = [f"CHUTES_EXPORTER_{words.upper()}", *aliases]
    _VARIABLES.update(variables)
    return click.option(flag, name, envvar=variables, show_envvar=True, **arguments)


def options(*decorators: Decorator) -> Decorator:
    """Put several flags into one decorator. The first flag comes first in ``--help``."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        # As with decorators above a function, the last one is applied first.
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def miner_options(without: str) -> Decorator:
    """Add the flags that choose hotkeys, the API and a node of the chain.

    ``without`` is a sentence for the help: what the command does without a hotkey.
    """
    return options(
        option(
            "--hotkey",
            "hotkeys",
            multiple=True,
            type=Parsed("SS58", parse_address),
            help=f"Hotkey of a miner whose public data is exported (repeatable). {without}",
        ),
        option(
            "--hotkey-file",
            "hotkey_files",
            "HOTKEY",
            multiple=True,
            type=click.Path(path_type=Path),
            help="Bittensor hotkey file of a miner whose public and private data is exported "
            "(repeatable). "
            "Alternative: set MINER_SS58, and MINER_SEED or MINER_PRIVATE_KEY. A key is never a "
            "flag.",
        ),
        option(
            "--api.url",
            "api_url",
            "VALIDATOR_API",
            type=Parsed("URL", config.parse_url),
            help="Base address of the Chutes API.",
        ),
        option(
            "--api.timeout",
            type=Parsed("SECONDS", config.parse_number),
            help="Abort a request after this many seconds without data.",
        ),
        option(
            "--chain.url",
            type=Parsed("URL", config.parse_node_url),
            help="Address of a node of the chain, for seats, pay and the price of alpha. Without "
            "it, nothing is asked from the chain. Only the host is ever shown. If the rest has a "
            "key, use the variable. Example: https://entrypoint-finney.opentensor.ai",
        ),
    )


def _as_mapping(_context: object, _flag: object, pairs: Iterable[tuple[str, float]]) -> Any:
    return dict(pairs)


cost_options = options(
    option(
        "--gpu.cost",
        "gpu_costs",
        multiple=True,
        callback=_as_mapping,
        type=Parsed("MODEL=USD_PER_HOUR", lambda text: config.parse_cost(text.lower())),
        help="Price that you pay for one GPU of a model, in US dollars per hour (repeatable). It "
        "is used to compute the cost of the fleet and of idle GPUs.",
    ),
    option(
        "--server.cost",
        "server_costs",
        multiple=True,
        callback=_as_mapping,
        type=Parsed("NAME=USD_PER_GPU_HOUR", config.parse_cost),
        help="Price that you pay for one GPU of a server, by the server's name, in US dollars per "
        "hour (repeatable). It comes before --gpu.cost.",
    ),
)


def serving_options(listen: str) -> Decorator:
    """Add the flags of a command that serves metrics, by default on the address ``listen``."""
    return options(
        option(
            "--web.listen-address",
            "listen",
            multiple=True,
            default=[listen],
            type=Parsed("[HOST]:PORT", config.Address.parse),
            help="Address to listen on (repeatable).",
        ),
        option(
            "--web.config.file",
            "web_config",
            type=click.Path(path_type=Path),
            help="File with TLS and passwords, in the format of Prometheus' exporter-toolkit.",
        ),
        option(
            "--scrape.timeout-offset",
            "timeout_offset",
            type=Parsed("SECONDS", config.parse_number),
            help="Answer this many seconds before Prometheus' timeout.",
        ),
        option(
            "--miners",
            type=click.Choice(["neighbours", "watched", "all"], case_sensitive=False),
            default=None,
            help="Miners whose public data is exported: neighbours (the configured hotkeys, and "
            "the four miners on either side in rank and in line for the seat), watched (the "
            "configured hotkeys), or all. "
            "[default: neighbours if hotkeys are configured, otherwise all]",
        ),
        option(
            "--chutes",
            type=click.Choice(["relevant", "all"], case_sensitive=False),
            default=None,
            help="Chutes that are exported: relevant (a watched miner runs them, ran them in the "
            "past day, or could launch them now if it had the GPUs), or all. "
            "[default: all with --miners all, otherwise relevant]",
        ),
        option(
            "--max-series",
            type=click.IntRange(0),
            metavar="NUMBER",
            help="Maximum series of all collectors. The most important ones come first, and each "
            "that no longer fits is left out as a whole.",
        ),
        *(
            option(
                f"--collector.{one.name}/--no-collector.{one.name}",
                default=None,
                show_default=one.default_in_words,
                help=one.summary,
            )
            for one in COLLECTORS
        ),
        cost_options,
        option(
            "--log.level",
            type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
            default="info",
            help="Minimum log level.",
        ),
        option(
            "--log.format",
            type=click.Choice(["logfmt", "json"], case_sensitive=False),
            default="logfmt",
            help="Format of log lines.",
        ),
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def settings_of(flags: Mapping[str, Any], credentials: Credentials | None = None) -> Settings:
    """Return the settings of the running command, or raise ConfigError.

    Flags without a setting, such as ``--json``, are left to the command. Without ``credentials``,
    the hotkey files and the environment are read for them.
    """
    credentials = credentials or config.find_credentials(flags["hotkey_files"], os.environ)
    if credentials.errors:
        raise ConfigError("; ".join(credentials.errors))
    # The hotkeys become a part of Settings.watched.
    names = {"hotkeys", *(field.name for field in fields(Settings))}
    arguments = {name: value for name, value in flags.items() if name in names}
    collectors = {one.name: flags.get(f"collector_{one.name}") for one in COLLECTORS}
    settings = config.make_settings(**arguments, collectors=collectors, keys=credentials.keys)
    require_what_collectors_need(settings)
    warnings = (*credentials.warnings, *_unknown_variables(), *config.find_risks(settings))
    shown = [scrub_input(with_variables(warning)) for warning in warnings]
    return replace(settings, warnings=tuple(shown))


def _unknown_variables() -> Iterator[str]:
    for name in sorted(os.environ.keys() - _VARIABLES):
        if name.startswith("CHUTES_EXPORTER_") and not _KUBERNETES_OR_TEST.fullmatch(name):
            yield f"{name} is unknown and has no effect: see chutes-exporter --help"


def settings_with_warnings(flags: Mapping[str, Any]) -> Settings:
    """Return the settings, and print their warnings."""
    settings = settings_of(flags)
    for warning in settings.warnings:
        click.echo(f"Warning: {warning}.", err=True)
    return settings


def asks(function: Question) -> Callable[..., None]:
    """Make a command of a coroutine function that takes the settings and the flags, and add --json.

    The command prints the result and exits with its status.
    """

    @wraps(function)
    def command(**flags: Any) -> None:
        settings = settings_with_warnings(flags)
        result = asyncio.run(function(settings, flags))
        click.get_current_context().exit(result.print(as_json=flags["as_json"]))

    return json_option(command)


def require_miner(settings: Settings) -> None:
    """Raise ConfigError if no miner is watched."""
    if not settings.watched:
        name = click.get_current_context().info_name
        raise ConfigError(f"{name} needs a miner: add --hotkey or --hotkey-file")


def require_key(settings: Settings) -> Hotkey:
    """Return the first key, or raise UsageError if there is none."""
    if not settings.keys:
        raise click.UsageError(
            "the request must be signed: add --hotkey-file, or set MINER_SS58 with a key"
        )
    return settings.keys[0]


async def fetch_once(
    settings: Settings, endpoint: Endpoint[Any], subject: str, key: Hotkey | None, **params: str
) -> Answer[Any]:
    """Request an endpoint. If that fails, end the command with an error, which begins with the
    subject.
    """
    try:
        async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
            return await client.fetch(endpoint, key=key, params=params)
    except ApiError as error:
        raise click.ClickException(
            f"{subject}: {printable(str(error))}\n→ {error.advice}"
        ) from None
