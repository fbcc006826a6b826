"""The command line. Each command has its own module in ``commands/``, imported when it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from chutes_exporter import __version__, defaults
from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.commands.sources import source_of, with_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chutes_exporter.config import Credentials, Settings

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

ENV_PREFIX = "CHUTES_EXPORTER_"


def _option(flag: str, *aliases: str, **settings: Any) -> Decorator:
    """Declare a flag with its environment variable, and with aliases used by the miners' tools."""
    name = flag.partition("/")[0].removeprefix("--")
    variable = ENV_PREFIX + name.translate(str.maketrans(".-", "__")).upper()
    parameter = name.translate(str.maketrans(".-", "__"))
    return click.option(flag, parameter, envvar=[variable, *aliases], show_envvar=True, **settings)


def _options(*decorators: Decorator) -> Decorator:
    """Put several flags into one decorator."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


class _Seconds(click.FloatRange):
    """A number of seconds, whose error explains that there is no unit."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of seconds: write a plain number, for example 20", param, ctx)
        return super().convert(value, param, ctx)


def _hotkey_options(without: str) -> Decorator:
    """Add the options that choose hotkeys.

    Args:
        without: A sentence about what the command does without a hotkey.
    """
    return _options(
        _option(
            "--hotkey",
            multiple=True,
            metavar="SS58",
            help=f"Hotkey of a miner whose public data is exported (repeatable). {without}",
        ),
        _option(
            "--hotkey-file",
            "HOTKEY",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="Bittensor hotkey file of a miner whose public and private data is exported (repeatable). "
            "Alternative: set MINER_SS58 and MINER_SEED. A seed is never a flag.",
        ),
    )


_watched = _hotkey_options("Without a hotkey, the whole subnet is watched.")
_optional = _hotkey_options("Without a hotkey, stats, scores, metagraph and active_instances have all miners.")
_signing = _hotkey_options("The request must be signed, so a hotkey file or MINER_SEED is required.")
_required = _hotkey_options("At least one hotkey is required.")
_api = _options(
    _option(
        "--api.url",
        "VALIDATOR_API",
        default=defaults.API_URL,
        show_default=True,
        metavar="URL",
        help="Base address of the Chutes API.",
    ),
    _option(
        "--api.timeout",
        type=_Seconds(min=0, min_open=True),
        default=defaults.API_TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        help="Abort a request after this many seconds without data.",
    ),
)
_log = _options(
    _option(
        "--log.level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="Minimum log level.",
    ),
    _option(
        "--log.format",
        type=click.Choice(["logfmt", "json"]),
        default="logfmt",
        show_default=True,
        help="Format of log lines.",
    ),
)


def _listen_address(default: str) -> Decorator:
    return _option(
        "--web.listen-address",
        multiple=True,
        default=[default],
        show_default=True,
        metavar="[HOST]:PORT",
        help="Address to listen on (repeatable). Use unix:/PATH for a Unix socket.",
    )


_web = _options(
    _option(
        "--web.systemd-socket",
        is_flag=True,
        help="Listen on the sockets that systemd passes, instead of --web.listen-address.",
    ),
    _option(
        "--web.config.file",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="File with TLS, passwords, headers and a rate limit, in the format of Prometheus' exporter-toolkit.",
    ),
    _option(
        "--web.enable-lifecycle",
        is_flag=True,
        help="Serve POST /-/reload. Like SIGHUP, it reloads hotkey files and the web configuration.",
    ),
    _option(
        "--web.max-requests",
        type=click.IntRange(min=0),
        default=defaults.MAX_REQUESTS,
        show_default=True,
        metavar="NUMBER",
        help="Maximum concurrent scrapes. Others wait for up to 5 s, then get 503. 0 means unlimited.",
    ),
    _option(
        "--web.telemetry-path",
        default=defaults.TELEMETRY_PATH,
        show_default=True,
        metavar="PATH",
        help="Path of the metrics.",
    ),
    _option(
        "--scrape.timeout-offset",
        type=_Seconds(min=0),
        default=defaults.TIMEOUT_OFFSET,
        show_default=True,
        metavar="SECONDS",
        help="Answer this many seconds before Prometheus' timeout.",
    ),
)
_collectors = _options(
    _option(
        "--miners",
        type=click.Choice(["watched", "active", "all"]),
        default=None,
        help="Miners whose public data is exported: watched (the configured hotkeys), active (also all miners that "
        "earn), or all. "
        "[default: watched if hotkeys are configured, otherwise all]",
    ),
    _option(
        "--max-series",
        type=click.IntRange(min=0),
        default=defaults.MAX_SERIES,
        show_default=True,
        metavar="NUMBER",
        help="Maximum series of all collectors. Beyond it, whole collectors are left out, the least important first.",
    ),
    _option(
        "--openmetrics.created",
        is_flag=True,
        help="Write the _created lines of counters in OpenMetrics. Prometheus stores each as an additional series.",
    ),
    _option(
        "--feed.ttl",
        multiple=True,
        metavar="FEED=SECONDS",
        help="Seconds for which an answer is fresh (repeatable). docs/metrics.md lists the feeds and their defaults.",
    ),
    _option(
        "--feed.max-age",
        multiple=True,
        metavar="FEED=SECONDS",
        help="Age at which an answer is dropped if the API gives no newer one (repeatable).",
    ),
    *(
        _option(
            f"--collector.{one.name}/--no-collector.{one.name}",
            default=None,
            help=f"Export {one.summary} [default: {one.default_in_words}]",
        )
        for one in COLLECTORS
    ),
)

_money = _options(
    _option(
        "--gpu.cost",
        multiple=True,
        metavar="MODEL=USD_PER_HOUR",
        help="Price that you pay for one GPU of a model, in US dollars per hour (repeatable). It is used to compute "
        "the cost of the fleet and of idle GPUs.",
    ),
    _option(
        "--subnet.daily-emission",
        type=float,
        metavar="ALPHA",
        help="Alpha that all miners of the subnet receive per day. It is used to estimate earnings.",
    ),
    _option(
        "--alpha.price",
        type=float,
        metavar="USD",
        help="Price of one alpha in US dollars. It is used to estimate earnings.",
    ),
)


class _Command(click.Command):
    """A command that refuses words that are not text, except in paths."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
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


def _is_text(value: Any) -> bool:
    """Tell whether a value, or each of several, can be encoded. Python keeps other bytes as lone surrogates."""
    try:
        "".join(value if isinstance(value, tuple) else [str(value)]).encode()
    except UnicodeEncodeError:
        return False
    return True


class _DefaultToServe(click.Group):
    """Runs ``serve`` if no command is given."""

    command_class = _Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {option for command in self.commands.values() for one in command.params for option in one.opts}
        flags |= {"--help", "--version"}
        for word in args:
            # Otherwise -hotkey would mean -h.
            if f"-{word.partition('=')[0]}" in flags and word not in flags:
                from chutes_exporter.config import one_line

                raise click.UsageError(one_line(f"{word} has only one dash: write -{word}"), ctx)
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h", "--version")):
            if named := [word for word in args if word in self.commands]:
                raise click.UsageError(f"the command must come first: chutes-exporter {named[0]} [OPTIONS]", ctx)
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        # Most users look for the flags of the default command.
        serve = self.commands["serve"]
        with formatter.section("Options of serve, the default command"):
            formatter.write_dl(
                [
                    record
                    for parameter in serve.params
                    if (record := parameter.get_help_record(ctx)) is not None and parameter.name != "help"
                ]
            )


@click.group(cls=_DefaultToServe, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="chutes-exporter", message="%(prog)s %(version)s")
def cli() -> None:
    """Prometheus exporter for the Chutes miner API (Bittensor subnet 64).

    Without a command and without flags it listens on :10064 and exports the whole subnet from the public endpoints.
    Each flag can be set by the environment variable that its help names.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        click.get_current_context().color = False


@cli.command()
@_watched
@_api
@_listen_address(defaults.LISTEN_ADDRESS)
@_web
@_collectors
@_money
@_log
def serve(**flags: Any) -> None:
    """Serve metrics. This is the default command."""
    from chutes_exporter import log
    from chutes_exporter.commands.serve import run_serve

    def read_settings() -> Settings:
        # During a reload, Service handles the errors.
        return _make_settings(flags, _credentials(flags))

    settings = _settings(flags, _credentials(flags))
    log.configure(flags["log_level"], flags["log_format"])
    _exit_on_config_error(run_serve, settings, read_settings)


@cli.command()
@_option(
    "--trouble",
    multiple=True,
    type=click.Choice(("crash-loop", "dead-server", "blacklisted", "upgrade", "idle")),
    default=("crash-loop", "idle"),
    show_default=True,
    help="Trouble of the simulated miner (repeatable).",
)
@_option(
    "--simulator.listen-address",
    default="127.0.0.1:10065",
    show_default=True,
    metavar="[HOST]:PORT",
    help="Address on which the simulated API listens.",
)
@_option(
    "--simulator.seed",
    type=int,
    default=64,
    show_default=True,
    help="Number that selects the simulated world.",
)
@_option(
    "--simulator.fault",
    multiple=True,
    metavar="ENDPOINT=FAULT",
    help="Fault of an endpoint (repeatable): scores=status:503, metrics=latency:5 (seconds), chutes=cut:1000 (bytes), "
    "metagraph=empty, stats=garbage. chutes=records:25 ends a stream early.",
)
@_listen_address(defaults.DEMO_LISTEN_ADDRESS)
@_web
@_collectors
@_money
@_log
def demo(**flags: Any) -> None:
    """Serve metrics of a simulated Chutes API. It needs no network and no key.

    It writes a hotkey file for the watched miner, and prints how to run the other commands with it.
    """
    from chutes_exporter import log
    from chutes_exporter.commands.demo import run_demo

    log.configure(flags["log_level"], flags["log_format"])
    _exit_on_config_error(run_demo, flags, _collector_choices(flags), _variable_warnings())


@cli.command()
@_watched
@_api
@_listen_address(defaults.LISTEN_ADDRESS)
@_web
@_collectors
@_money
@_log
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(**flags: Any) -> None:
    """Request the endpoints, and report what works, what fails and how to fix it.

    check accepts the flags of serve, so that you can check a command line without changes. It ignores flags that do
    not matter. The exit status is 0 if all checks pass, and 1 if one fails or a setting cannot be used.
    """
    from dataclasses import replace

    from chutes_exporter.commands.check import run_check

    credentials = _credentials(flags)
    # Endpoints without a signature are checked even if a key cannot be used.
    settings = _settings(flags, replace(credentials, errors=()))
    sys.exit(_exit_on_config_error(run_check, settings, credentials, flags["as_json"]))


@cli.command()
@_required
@_api
@_money
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def status(**flags: Any) -> None:
    """Show a miner's rank, shares, GPUs and costs, and everything that needs action, on one screen.

    The exit status is 0 if nothing needs action, 1 if something does, 2 if the command line is wrong, and 3 if nothing
    needs action as far as known, but requests failed or answers are incomplete.
    """
    from chutes_exporter.commands.status import run_status

    sys.exit(_exit_with_status(run_status, flags))


def _exit_with_status(run: Callable[[Settings, bool], Any], flags: dict[str, Any]) -> int:
    """Run a command whose exit status is an answer, and return it."""
    from chutes_exporter import log

    # The command prints failed requests itself, so the log only shows bugs.
    log.configure("error", "logfmt")
    try:
        return int(_exit_on_config_error(run, _settings_with_warnings(flags), flags["as_json"]))
    except click.ClickException as error:
        # The exit status is 2, because 1 is a result of the command.
        raise click.UsageError(error.message) from None


@cli.command()
@_signing
@_api
@_option(
    "--collector.thrash_cooldowns/--no-collector.thrash_cooldowns",
    default=None,
    help="Leave out chutes for which the miner has a cooldown. Only deployments before May 2026 have cooldowns. "
    "[default: off]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with everything that is known, for scripts.")
def advise(**flags: Any) -> None:
    """List the chutes that the miner's idle GPUs can run now, the best paid first.

    For each idle GPU model, it ranks chutes by compute units per GPU-second. It leaves out chutes whose launch the
    service would refuse. It requests fresh data from the API. The exit status is 0 when there is nothing to deploy, 1
    when there is, 2 when the command line is wrong, and 3 when no such chute was found but some answers are missing or
    incomplete.
    """
    from chutes_exporter.commands.advise import run_advise

    sys.exit(_exit_with_status(run_advise, flags))


_ENDPOINTS = [endpoint.name for endpoint in ENDPOINTS if endpoint.method == "GET"]


@cli.command(
    help=f"""Request an endpoint and print its answer as a table.

    ENDPOINT is one of {", ".join(_ENDPOINTS)}. The table has the most useful columns. --json and --csv have all
    fields that the exporter reads.
    """
)
@click.argument("endpoint", type=click.Choice(_ENDPOINTS), metavar="ENDPOINT")
@_optional
@_api
@click.option("--per-chute", is_flag=True, help="Print stats for each chute. Works only with stats.")
@click.option("--chute-id", metavar="ID", help="Id of the chute. Works only with chute, which needs it.")
@click.option("--chute-version", metavar="VERSION", help="Version of the chute. Likewise; query chutes shows both.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def query(endpoint: str, **flags: Any) -> None:
    """Request an endpoint and print its answer."""
    from chutes_exporter.commands.query import QueryOptions, run_query

    if flags["as_json"] and flags["as_csv"]:
        raise click.UsageError("--json and --csv exclude each other: use only one")
    form = "json" if flags["as_json"] else "csv" if flags["as_csv"] else "table"
    # The variable adds watched miners, as for the other commands. Only the flag selects some of them.
    chosen = flags["hotkey"] if source_of("hotkey") == "--hotkey" else ()
    hotkeys = tuple(hotkey.strip() for hotkey in chosen)
    options = QueryOptions(hotkeys, flags["per_chute"], flags["chute_id"] or "", flags["chute_version"] or "")
    settings = _settings_with_warnings(flags)
    _exit_on_config_error(run_query, settings, endpoint, options, form)


@cli.command("release-job")
@click.argument("job_id", required=False)
@_signing
@_api
@click.option("--yes", is_flag=True, help="Release without confirmation.")
def release_job(job_id: str | None, **flags: Any) -> None:
    """Release a job that is stuck with the signing miner.

    Without JOB_ID, the command lists the stuck jobs. This is the only command that changes anything at the API.
    """
    from chutes_exporter.commands.release_job import confirmed_key, run_release_job

    settings = _settings_with_warnings(flags)
    key = confirmed_key(settings, job_id, confirmed=flags["yes"])
    _exit_on_config_error(run_release_job, settings, job_id, key)


@cli.command()
@_required
@_api
@click.option(
    "--output",
    required=True,
    type=click.Path(readable=False),
    metavar="FILE",
    help="File to write. - means standard output.",
)
@click.option(
    "--label",
    multiple=True,
    metavar="NAME=VALUE",
    help="Label to add to every series (repeatable). Use job=chutes and instance=HOST:PORT to continue scraped series.",
)
@click.option(
    "--compute-history",
    is_flag=True,
    help="Also write the compute units of each instance that exists now, hour by hour. Needs a key. Use it only once: "
    "the service must answer with the records of all miners' instances, which is a lot of work.",
)
def backfill(**flags: Any) -> None:
    """Write the past 7 days of the watched miners as OpenMetrics, so that promtool can import them.

    Import the file with: promtool tsdb create-blocks-from openmetrics FILE PATH-OF-PROMETHEUS-DATA
    """
    from chutes_exporter.commands.backfill import run_backfill

    if not flags["output"]:
        raise click.UsageError("--output is empty: write the path of a file, or - for the standard output")
    settings = _settings_with_warnings(flags)
    _exit_on_config_error(run_backfill, settings, flags["output"], flags["label"], flags["compute_history"])


def _credentials(flags: dict[str, Any]) -> Credentials:
    from chutes_exporter.config import find_credentials

    return find_credentials(flags["hotkey_file"], os.environ, source=source_of("hotkey_file"))


def _settings(flags: dict[str, Any], credentials: Credentials) -> Settings:
    from chutes_exporter.config import ConfigError

    try:
        return _make_settings(flags, credentials)
    except ConfigError as error:
        raise click.ClickException(with_variable(str(error))) from None


def _settings_with_warnings(flags: dict[str, Any]) -> Settings:
    """Return the settings, and print their warnings."""
    settings = _settings(flags, _credentials(flags))
    for warning in settings.warnings:
        click.echo(f"Warning: {warning}.", err=True)
    return settings


def _variable_warnings() -> tuple[str, ...]:
    from chutes_exporter.config import variable_warnings

    known = {
        name for command in cli.commands.values() for parameter in command.params for name in parameter.envvar or ()
    }
    return variable_warnings(os.environ, known)


def _is_default(parameter: str) -> bool:
    """Return whether neither a flag nor a variable sets a parameter that the command has."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(parameter) is ParameterSource.DEFAULT


def _make_settings(flags: dict[str, Any], credentials: Credentials) -> Settings:
    from dataclasses import replace

    from chutes_exporter.config import make_settings, require_a_choice, require_protection

    # Not every command has every flag.
    optional = {
        "listen": "web_listen_address",
        "systemd_socket": "web_systemd_socket",
        "web_config": "web_config_file",
        "enable_lifecycle": "web_enable_lifecycle",
        "max_requests": "web_max_requests",
        "telemetry_path": "web_telemetry_path",
        "timeout_offset": "scrape_timeout_offset",
        "miners": "miners",
        "max_series": "max_series",
        "created_timestamps": "openmetrics_created",
        "ttl": "feed_ttl",
        "max_age": "feed_max_age",
        "gpu_costs": "gpu_cost",
        "daily_emission": "subnet_daily_emission",
        "alpha_price": "alpha_price",
    }
    settings = make_settings(
        api_url=flags["api_url"],
        api_timeout=flags["api_timeout"],
        hotkeys=flags["hotkey"],
        hotkeys_source=source_of("hotkey"),
        credentials=credentials,
        miner_ss58=os.environ.get("MINER_SS58", ""),
        collectors=_collector_choices(flags),
        **{setting: flags[flag] for setting, flag in optional.items() if flag in flags},
    )
    if not settings.watched and flags.get("miners") is None:
        require_a_choice(os.environ)
    # The addresses do not matter if systemd passes sockets.
    limits = ["web_config_file"] if settings.systemd_socket else ["web_config_file", "web_listen_address"]
    require_protection(os.environ, [flag for flag in limits if _is_default(flag)])
    return replace(settings, warnings=(*settings.warnings, *_variable_warnings()))


def _collector_choices(flags: dict[str, Any]) -> dict[str, bool]:
    return {one.name: choice for one in COLLECTORS if (choice := flags.get(f"collector_{one.name}")) is not None}


def _exit_on_config_error(run: Callable[..., Any], *arguments: Any) -> Any:
    """Run a command. Show errors of the configuration as a message without a traceback."""
    import asyncio

    from chutes_exporter.api import ClientSetupError
    from chutes_exporter.config import ConfigError

    try:
        return asyncio.run(run(*arguments))
    except (ConfigError, ClientSetupError) as error:
        raise click.ClickException(with_variable(str(error))) from None


def _message(error: click.ClickException) -> str:
    """Return an error's text. A text of click takes one line, shows no seed, and names the help."""
    if not isinstance(error, click.UsageError):
        return error.message
    from chutes_exporter.config import one_line

    text = one_line(" ".join(error.format_message().split())).removesuffix(".")
    return f"{text} (see {error.ctx.command_path} --help)" if error.ctx else text


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    try:
        status = cli.main(arguments, prog_name="chutes-exporter", standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"Error: {_message(error)}", err=True)
        status = error.exit_code
    except click.Abort:
        click.echo("Aborted.", err=True)
        status = 1
    sys.exit(status)
