"""The command ``demo``: the exporter and a simulated Chutes API together."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter import defaults, log
from chutes_exporter.commands.options import Command, option, run, serving_options, setting_flags, unknown_variables
from chutes_exporter.commands.serve import Service
from chutes_exporter.commands.terminal import called_as
from chutes_exporter.config import Address, ConfigError, Credentials, make_settings
from chutes_exporter.simulator import DEFAULT_TROUBLES, TROUBLES, DemoWorld, Simulator, parse_fault
from chutes_exporter.simulator.world import TEST_SEED
from chutes_exporter.web.server import signals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.keys import Hotkey


@click.command(cls=Command)
@option(
    "--trouble",
    "troubles",
    multiple=True,
    type=click.Choice(tuple(TROUBLES)),
    default=DEFAULT_TROUBLES,
    show_default=True,
    topic="Simulated API",
    help="Trouble of the simulated miner (repeatable).",
)
@option(
    "--simulator.listen-address",
    "simulator_listen_address",
    default="127.0.0.1:10065",
    show_default=True,
    metavar="[HOST]:PORT",
    topic="Simulated API",
    help="Address on which the simulated API listens.",
)
@option(
    "--simulator.seed",
    "simulator_seed",
    type=int,
    default=64,
    show_default=True,
    topic="Simulated API",
    help="Number that selects the simulated world.",
)
@option(
    "--simulator.fault",
    "simulator_fault",
    multiple=True,
    metavar="ENDPOINT=FAULT",
    topic="Simulated API",
    help="Fault of an endpoint (repeatable): scores=status:503, metrics=latency:5 (seconds), chutes=cut:1000 (bytes), "
    "metagraph=empty, stats=garbage. chutes=records:25 ends a stream early.",
)
@serving_options(defaults.DEMO_LISTEN_ADDRESS)
def demo(**flags: Any) -> None:
    """Serve metrics of a simulated Chutes API, without a key.

    It writes a hotkey file for the watched miner, and prints how to run the other commands with it.
    """
    log.configure(flags["log_level"], flags["log_format"])
    run(run_demo, flags, unknown_variables())


async def run_demo(flags: Mapping[str, Any], warnings: tuple[str, ...]) -> None:
    """Simulate and serve until SIGTERM or SIGINT. SIGHUP reads the web configuration again.

    Args:
        flags: The command's flags.
        warnings: Sentences about the environment to log.

    Raises:
        ConfigError: A setting cannot be used, or a fault is unknown.
    """
    try:
        faults = dict(parse_fault(text) for text in flags["simulator_fault"])
    except ValueError as error:
        raise ConfigError(str(error)) from None
    world = DemoWorld(seed=flags["simulator_seed"], start=time.time(), troubles=flags["troubles"])
    try:
        listen = Address.parse(flags["simulator_listen_address"])
    except ConfigError as error:
        raise ConfigError(f"--simulator.listen-address: {error}") from None
    if listen.path:
        raise ConfigError(
            "--simulator.listen-address: the API needs an address with a port, for example 127.0.0.1:10065"
        )
    simulator = Simulator(world, listen=listen)
    simulator.faults.update(faults)
    key = simulator.world.miners[0].key
    settings = make_settings(
        **setting_flags(flags), api_url=simulator.url, credentials=Credentials((key,), (), warnings)
    )
    service = Service(settings, is_demo=True)
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(signals(service.hang_up))
        world.prepare(time.time())
        await stack.enter_async_context(simulator)
        await stack.enter_async_context(service)
        address, *_ = service.addresses
        base = f"{service.scheme}://{address if address.host else f'localhost:{address.port}'}"
        where = (
            f"Read the metrics with: curl --unix-socket {shlex.quote(address.path)} "
            f"{service.scheme}://localhost{settings.telemetry_path}\n"
            if address.path
            else f"Open {base}{settings.telemetry_path} (metrics) or {base}/ (status). "
        )
        now = time.time()
        miner = world.miners[0]
        shares = sorted(world.shares(now).values(), reverse=True)
        rank = shares.index(world.shares(now)[miner.hotkey]) + 1
        click.echo(
            f"The watched miner is simulated: {len(miner.gpus)} GPUs, rank {rank} of {len(shares)}.\n"
            f"{where}Press Ctrl-C to stop.\n"
            f"{_commands(stack, simulator.url, key)}"
        )
        await stop.wait()


def _commands(stack: AsyncExitStack, url: str, key: Hotkey) -> str:
    """Write the miner's hotkey file, and return the commands that use it.

    Args:
        stack: Removes the file at its end.
        url: Address of the simulated API.
        key: The miner's key.
    """
    try:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chutes-exporter-demo-"))
        path = Path(folder) / "hotkey"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"ss58Address": key.address, "secretSeed": TEST_SEED}))
    except OSError as error:
        return f"There is no hotkey file for the other commands: {error.strerror}. Set TMPDIR to a writable folder."
    program = called_as(sys.argv[0])
    return "\n".join(
        (
            f"Its hotkey file is {path}. These commands work in another terminal:",
            f"  export CHUTES_EXPORTER_API_URL={url} CHUTES_EXPORTER_HOTKEY_FILE={shlex.quote(str(path))}",
            *(f"  {program} {command}" for command in ("status", "advise", "query servers", "query scores", "check")),
        )
    )
