"""The command ``demo``: the exporter, and a recorded day in place of the Chutes API."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter import log
from chutes_exporter.commands.options import Command, Parsed, option, serving_options, settings_of
from chutes_exporter.commands.serve import Service
from chutes_exporter.config import Address, Credentials
from chutes_exporter.demo.day import Day
from chutes_exporter.demo.replay import Replay
from chutes_exporter.duration import HOUR, MINUTE, utc_text
from chutes_exporter.web.server import signals

if TYPE_CHECKING:
    from collections.abc import Mapping


def _parse_time(text: str) -> float:
    """Return the seconds of the day at a time such as 06:00."""
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    if found is None:
        raise ValueError(f"{text!r} is no time of the day: write hours and minutes, as in 06:00")
    return int(found[1]) * HOUR + int(found[2]) * MINUTE


@click.command(cls=Command)
@option(
    "--miner",
    type=click.Choice(("troubled", "healthy")),
    default="troubled",
    help="Miner to watch. Each has 38 GPUs.",
)
@option(
    "--from",
    "start",
    type=Parsed("HH:MM", _parse_time),
    default="22:00",
    help="Time of the recorded day at which the demo starts.",
)
@option(
    "--demo.listen-address",
    type=Parsed("[HOST]:PORT", Address.parse),
    default="127.0.0.1:10065",
    help="Address on which the recorded API listens.",
)
@serving_options("127.0.0.1:10064")
def demo(**flags: Any) -> None:
    """Serve metrics of a recorded day of the service, without a key.

    The miners are invented, and the service's public code made their data. It writes a hotkey file
    for the watched miner, and prints how to run the other commands with it.
    """
    log.configure(flags["log_level"], flags["log_format"])
    day = Day()
    with tempfile.TemporaryDirectory(prefix="chutes-exporter-demo-") as directory:
        hotkey_file = Path(directory, "hotkey")
        # Only its owner may read a key.
        hotkey_file.touch(mode=0o600)
        miner = flags["miner"]
        key = {"ss58Address": day.miners[miner].address, "secretSeed": day.seeds[miner]}
        hotkey_file.write_text(json.dumps(key))
        asyncio.run(run_demo(day, hotkey_file, flags))


async def run_demo(day: Day, hotkey_file: Path, flags: Mapping[str, Any]) -> None:
    """Replay and serve until SIGTERM or SIGINT. SIGHUP reads the web configuration again."""
    replay = Replay(day, at=flags["start"], listen=flags["demo_listen_address"])
    credentials = Credentials(keys=(day.miners[flags["miner"]],), errors=(), warnings=())
    urls = {"api_url": replay.url, "chain_url": replay.chain_url}
    settings = settings_of({**flags, **urls}, credentials)
    service = Service(settings, is_demo=True)
    with signals(service.hang_up.set) as stop:
        async with replay, service:
            _print_instructions(service, replay, flags["miner"], hotkey_file)
            await stop.wait()


def _print_instructions(service: Service, replay: Replay, miner: str, hotkey_file: Path) -> None:
    address = service.addresses[0]
    # An address without a host listens on all addresses of this machine.
    host_and_port = str(address) if address.host else f"localhost:{address.port}"
    base = f"{service.scheme}://{host_and_port}"
    program = "chutes-exporter"
    if shutil.which(program) is None:
        program = f"{shlex.quote(sys.executable)} -m chutes_exporter"
    end = utc_text(replay.clock() - replay.moment() + replay.day.last, "%H:%M")
    click.echo(
        f"The watched miner is {miner!r}. It is invented, and the service's public code made its "
        "data.\n"
        f"The recorded day ends at {end}. From then on, the answers stay the same.\n"
        f"Open {base}/metrics (metrics) or {base}/ (status). Press Ctrl-C to stop.\n"
        f"Its hotkey file is {hotkey_file}. These commands work in another terminal:\n"
        f"  export CHUTES_EXPORTER_API_URL={replay.url} "
        f"CHUTES_EXPORTER_CHAIN_URL={replay.chain_url} "
        f"CHUTES_EXPORTER_HOTKEY_FILE={shlex.quote(str(hotkey_file))}"
    )
    for command in ("status", "advise", "query servers", "query scores", "check"):
        click.echo(f"  {program} {command}")
