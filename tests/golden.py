"""Golden outputs: the page, and what ``status``, ``advise``, ``incidents`` and ``check`` print as
text and JSON, at moments of the recorded day and in the recorded worlds.

They say what changed. Whether it is true, tests/test_day.py and tests/test_worlds.py say.
``make generate`` writes them anew, and prints the difference: look at it.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import functools
import json
import lzma
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.commands.result import Result
from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.definitions import METAGRAPH
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from tests.commands.support import Target, run
from tests.exporters import patient, read_reports, served
from tests.recorded import (
    ALL_ON,
    WORLD_C,
    WORLD_F,
    WORLD_H,
    Miner,
    recorded_api,
    report_bodies,
    report_index,
    seconds,
)
from tests.replay import Fault, Replay
from tests.support import HOTKEY, PATIENCE, SEEDS, Clock, recorded_day
from tests.unknown.taken import asked_once

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

FILE = Path(__file__).with_name("golden.json.xz")
COMMANDS = ("status", "advise", "incidents", "check")


@dataclass(frozen=True)
class Case:
    """A situation.

    Attributes:
        at: The hour of the recorded day.
        miner: Whose key there is, none if it is empty.
        also: The hotkeys of miners without a key.
        world: A recorded world, instead of the day.
        missing: The endpoint that does not answer.
        edits: Functions that change the JSON of answers, by endpoint.
        chain: Whether there is a node of the chain, and the user gives costs.
    """

    at: float = 22
    miner: str = "troubled"
    also: tuple[str, ...] = ()
    world: Path | None = None
    missing: str = ""
    edits: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    chain: bool = False


def blacklist(seats: Any) -> Any:
    """Blacklist the miner."""
    for seat in seats:
        if seat["hotkey"] == HOTKEY:
            seat["blacklist_reason"] = "invented"
    return seats


def take_seat(seats: Any) -> Any:
    """Take away the miner's seat."""
    return [seat for seat in seats if seat["hotkey"] != HOTKEY]


COSTS = ("--gpu.cost=h200=3", "--gpu.cost=pro_6000=0.8", "--server.cost=hugin=2.4")


def cool_down(_: Any) -> Any:
    """Let a chute cool down. The service has no such rule any more, but the endpoint."""
    return [
        {
            "chute_id": "21822836-bfa6-5426-b27e-dd5fdda1249e",
            "cooldown_expires_at": "2026-12-02T00:00:00Z",
        }
    ]


HEALTHY = recorded_day().miners["healthy"].address
CASES = {
    "01:00": Case(1),
    "07:30, with pending maintenance": Case(7.5),
    "11:00, after a bounty and a failed boot": Case(11),
    "17:00, in a crash loop": Case(17),
    "22:00": Case(),
    "24:00": Case(24),
    "healthy": Case(miner="healthy"),
    "with the chain and costs": Case(chain=True, edits={"thrash_cooldowns": cool_down}),
    "with another miner": Case(also=(HEALTHY,)),
    "without a key": Case(miner="", also=(HOTKEY,)),
    "blacklisted": Case(edits={"metagraph": blacklist}),
    "blacklisted, without nodes": Case(edits={"metagraph": blacklist}, missing="nodes"),
    "without a seat": Case(edits={"metagraph": take_seat}),
    "world C": Case(world=WORLD_C),
    "world F": Case(world=WORLD_F),
    "world H": Case(world=WORLD_H),
} | {
    f"without {name}": Case(missing=name)
    for name in (
        "chutes",
        "instances",
        "nodes",
        "servers",
        "utilization",
        "held_gpus",
        "maintenance",
    )
}


@contextlib.asynccontextmanager
async def api_of(case: Case) -> AsyncIterator[tuple[Target, str, dict[str, str]]]:
    """Yield the API of a case, the address of its node if there is one, and the variables that
    bring the key.
    """
    if case.world is not None:
        miner = Miner(case.world)
        clock = Clock(seconds(report_index(case.world)[0]["made"]) or 0)
        app = recorded_api(miner.bodies(), report_bodies(case.world), clock())
        async with served(app) as url:
            yield Target(url, clock), "", miner.variables
        return
    day = recorded_day()
    clock = Clock(day.first + case.at * HOUR)
    async with Replay(day, at=case.at * HOUR, clock=clock) as api:
        api.edits.update(case.edits)
        if case.missing:
            api.faults[case.missing] = Fault(status=503)
        variables = {}
        if case.miner:
            address = day.miners[case.miner].address
            variables = {"MINER_SS58": address, "MINER_SEED": SEEDS[case.miner]}
        yield Target(api.url, clock), api.chain_url if case.chain else "", variables


async def outputs_of(case: Case) -> dict[str, str]:
    """Return the page and the outputs of the commands, by their names."""
    outputs = {}
    async with api_of(case) as (target, chain_url, variables):
        outputs["page"] = await page_for(case, target, chain_url, variables)
        flags = [f"--hotkey={hotkey}" for hotkey in case.also]
        if chain_url:
            flags.append(f"--chain.url={chain_url}")
        with asked_once():
            for command in COMMANDS:
                costs = COSTS if chain_url and command == "status" else ()
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(Result, "print", print_both)
                    status, output, errors = await run(
                        target,
                        *(command, *flags, *costs),
                        variables={"COLUMNS": "100"} | variables,
                    )
                text = f"{output}{errors}exit status {status}\n"
                outputs[command] = text.replace(target.url, "URL")
    return {name: _LONG_NUMBER.sub(_rounded, text) for name, text in outputs.items()}


_LONG_NUMBER = re.compile(r"\d+\.\d{9,}(?:e[-+]\d+)?")


def _rounded(number: re.Match[str]) -> str:
    """Return a number with 12 digits: since Python 3.12, sums are rounded in another way."""
    return f"{float(number[0]):.12g}"


_print = Result.print


def print_both(result: Result, *, as_json: bool) -> int:
    """Print a result as text and as JSON."""
    assert not as_json
    _print(result, as_json=False)
    return _print(result, as_json=True)


async def page_for(case: Case, target: Target, chain_url: str, variables: dict[str, str]) -> str:
    """Return the page of an exporter with all collectors, without what differs from run to run."""
    keys = [Hotkey.from_seed(variables["MINER_SEED"])] if variables else []
    more: dict[str, Any] = {"collectors": ALL_ON}
    if chain_url:
        costs = {"server_costs": {"hugin": 2.4}, "gpu_costs": {"h200": 3, "pro_6000": 0.8}}
        more |= costs | {"chain_url": chain_url, "collectors": dict.fromkeys(ALL_ON, True)}
    settings = patient(target.url, keys=keys, hotkeys=case.also, **more)
    assert target.clock is not None
    async with Exporter(settings, clock=target.clock, monotonic=target.clock) as exporter:
        # The answer of the chain is dated by the clock of the API, so that must be known before.
        await exporter.feeds.read(METAGRAPH, PATIENCE)
        await exporter.warm_up()
        await read_reports(exporter)
        return steady((await exporter.metrics(Format.TEXT, timeout=PATIENCE)).decode())


# Values that differ between runs: durations, the process, its Python.
_VARYING = re.compile(
    r"^((?:chutes_api_request_duration_seconds_(?:bucket|sum)|chutes_api_clock_offset_seconds"
    r"|chutes_api_response_bytes_total|process_\w+|python_gc_\w+)(?:\{.*\})?) \S+$",
    re.MULTILINE,
)
_VERSIONS = re.compile(r"^(chutes_exporter_build_info|python_info)\{.*$", re.MULTILINE)


def steady(page: str) -> str:
    """Return a page without what differs from run to run. Requests are made at the same time, and
    their order on the page differs, so that their lines are sorted.
    """
    lines = page.splitlines(keepends=True)
    numbers = [number for number, line in enumerate(lines) if line.startswith("chutes_api_")]
    about_requests = sorted(lines[number] for number in numbers)
    for number, line in zip(numbers, about_requests, strict=True):
        lines[number] = line
    return _VERSIONS.sub(r"\1 (varies)", _VARYING.sub(r"\1 (varies)", "".join(lines)))


@functools.cache
def golden() -> dict[str, dict[str, str]]:
    """Return the outputs that were reviewed, by case and name."""
    found: dict[str, dict[str, str]] = json.loads(lzma.decompress(FILE.read_bytes()))
    return found


def write() -> None:
    """Write the outputs anew, and print how they differ from those that were there."""
    old = golden() if FILE.exists() else {}
    new = {name: asyncio.run(outputs_of(case)) for name, case in CASES.items()}
    for name, outputs in new.items():
        for output, text in outputs.items():
            before = old.get(name, {}).get(output, "").splitlines()
            title = f"{name}: {output}"
            sys.stdout.writelines(
                f"{line}\n"
                for line in difflib.unified_diff(
                    before, text.splitlines(), title, title, n=1, lineterm=""
                )
            )
    FILE.write_bytes(lzma.compress(json.dumps(new).encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    write()
