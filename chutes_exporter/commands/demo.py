"""The command ``demo``: the exporter and a simulated Chutes API together."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter import log
from chutes_exporter.commands.options import Command, Parsed, option, serving_options, settings_of
from chutes_exporter.commands.serve import Service
from chutes_exporter.config import Address, Credentials
from chutes_exporter.simulator import DEFAULT_TROUBLES, TROUBLES, DemoWorld, Simulator, parse_fault
from chutes_exporter.simulator.world import TEST_SEED
from chutes_exporter.web.server import signals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.simulator.world import Miner

_simulated = partial(option, "Simulated API")


@click.command(cls=Command)
@_simulated(
    "--trouble",
    "troubles",
    multiple=True,
    type=click.Choice(tuple(TROUBLES)),
    default=DEFAULT_TROUBLES,
    metavar="TROUBLE",
    help=f"Trouble of the simulated miner (repeatable): {', '.join(TROUBLES)}.",
)
@_simulated(
    "--simulator.listen-address",
    type=Parsed("[HOST]:PORT", Address.parse),
    default="127.0.0.1:10065",
    help="Address on which the simulated API listens.",
)
@_simulated(
    "--simulator.seed", type=int, default=64, help="Number that selects the simulated world."
)
@_simulated(
    "--simulator.fault",
    multiple=True,
    type=Parsed("ENDPOINT=FAULT", parse_fault),
    help="Fault of an endpoint (repeatable): scores=status:503, metrics=latency:5 (seconds), "
    "chutes=cut:1000 (bytes), "
    "metagraph=empty, stats=garbage. chutes=records:25 ends a stream early.",
)
@serving_options("127.0.0.1:10064")
def demo(**flags: Any) -> None:
    """Serve metrics of a simulated Chutes API, without a key.

    It writes a hotkey file for the watched miner, and prints how to run the other commands with it.
    """
    log.configure(flags["log_level"], flags["log_format"])
    asyncio.run(run_demo(flags))


async def run_demo(flags: Mapping[str, Any]) -> None:
    """Simulate and serve until SIGTERM or SIGINT. SIGHUP reads the web configuration again.

    A temporary directory has the hotkey file of the simulated miner.
    """
    world = DemoWorld(seed=flags["simulator_seed"], start=time.time(), troubles=flags["troubles"])
    simulator = Simulator(world, listen=flags["simulator_listen_address"])
    simulator.faults.update(dict(flags["simulator_fault"]))
    # The miner with the troubles is the first one.
    miner = world.miners[0]
    settings = settings_of(
        flags,
        Credentials(keys=(miner.key,), errors=(), warnings=()),
        api_url=simulator.url,
        chain_url=simulator.chain_url,
    )
    service = Service(settings, is_demo=True)
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(signals(service.hang_up.set))
        world.grow(time.time())  # before the server starts, because this takes seconds
        await stack.enter_async_context(simulator)
        await stack.enter_async_context(service)
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="chutes-exporter-demo-"))
        hotkey_file = _write_hotkey_file(directory, miner)
        _print_instructions(service, simulator, miner, hotkey_file)
        await stop.wait()


def _write_hotkey_file(directory: str, miner: Miner) -> Path:
    """Write the hotkey file of the first miner, whose seed is TEST_SEED."""
    path = Path(directory, "hotkey")
    # Only its owner may read a key.
    path.touch(mode=0o600)
    path.write_text(json.dumps({"ss58Address": miner.hotkey, "secretSeed": TEST_SEED}))
    return path


def _print_instructions(
    service: Service, simulator: Simulator, miner: Miner, hotkey_file: Path
) -> None:
    """Print what to open in a browser, and which commands to run for the simulated miner."""
    address = service.addresses[0]
    # An address without a host listens on all addresses of this machine.
    host_and_port = str(address) if address.host else f"localhost:{address.port}"
    base = f"{service.scheme}://{host_and_port}"
    # Without the program on the path, the commands run the module with this Python.
    is_on_path = shutil.which("chutes-exporter") is not None
    module = f"{shlex.quote(sys.executable)} -m chutes_exporter"
    program = "chutes-exporter" if is_on_path else module
    click.echo(
        f"The watched miner is simulated: {len(miner.gpus)} GPUs.\n"
        f"Open {base}/metrics (metrics) or {base}/ (status). Press Ctrl-C to stop.\n"
        f"Its hotkey file is {hotkey_file}. These commands work in another terminal:\n"
        f"  export CHUTES_EXPORTER_API_URL={simulator.url} "
        f"CHUTES_EXPORTER_CHAIN_URL={simulator.chain_url} "
        f"CHUTES_EXPORTER_HOTKEY_FILE={shlex.quote(str(hotkey_file))}"
    )
    for command in ("status", "advise", "query servers", "query scores", "check"):
        click.echo(f"  {program} {command}")
