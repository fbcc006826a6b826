"""The warnings of ``check`` about TEE servers."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.commands.support import Target, run
from tests.recorded import META, answers
from tests.support import replay, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOTKEY = META["test_miner"]
MINE = {"MINER_SEED": META["invented_seeds"][HOTKEY], "MINER_SS58": HOTKEY}


@pytest.fixture
def api() -> dict[str, bytes]:
    """The recorded answers. What a test changes counts from the next request on."""
    return answers(now=time.time())


@pytest.fixture
async def target(api: dict[str, bytes]) -> AsyncIterator[Target]:
    async with served(replay(api)) as url:
        yield Target(url)


async def test_check_warns_of_servers_that_cannot_boot_or_run_chutes(target: Target, api: dict[str, bytes]) -> None:
    servers = json.loads(api["servers"])
    tee = [server for server in servers["servers"] if server["is_tee"]]
    tee[0] |= {"name": "never-booted", "version": None}
    tee[1] |= {"name": "ancient", "version": "0.2.0"}
    tee[2] |= {"name": "oldest-allowed", "version": "0.2.1"}
    api["servers"] = json.dumps(servers).encode()
    _, output, _ = await run(target, "check", "--json", variables=MINE)
    notes = " ".join(line["note"] for line in json.loads(output)["checks"] if line["endpoint"] == "TEE")
    assert "below 0.2.1: never-booted, ancient" in notes
    assert re.search(r"no longer accepts their version: .*oldest-allowed", notes)
    assert "today all chutes are TEE: plain-1" in notes


async def test_check_does_not_warn_of_versions_if_some_cannot_be_read(target: Target, api: dict[str, bytes]) -> None:
    measurements = json.loads(api["tee_measurements"])
    api["tee_measurements"] = json.dumps([*measurements[:-2], 5, {"name": "no version"}]).encode()
    _, output, _ = await run(target, "check", "--json", variables=MINE)
    assert not [line for line in json.loads(output)["checks"] if "no longer accepts" in line["note"]]
