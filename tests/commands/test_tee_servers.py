"""The warnings of ``status`` and ``check`` about TEE servers: maintenance windows, versions, lost GPUs."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands.support import Target, run
from tests.recorded import EXPECTED, META, answers, shifted
from tests.support import RECORDINGS, Page, replay, scrape, series, served, watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NEWEST_SHAPES = RECORDINGS / "2026-09"
NOW = datetime.fromisoformat(json.loads((NEWEST_SHAPES / "expected.json").read_text())["now"]).timestamp()
"""When the answers in the newest shapes were made."""
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


async def report(target: Target) -> dict[str, Any]:
    """Return the report of ``status``, with its actions and notes by kind."""
    _, output, _ = await run(target, "status", "--json", variables=MINE)
    found: dict[str, Any] = json.loads(output)
    return found | {name: {one["kind"]: one for one in found[name]} for name in ("actions", "notes")}


def policy(name: str) -> dict[str, bytes]:
    """Return an answer about maintenance and the servers of its world, as if they were made now."""
    bodies = {
        "maintenance": (NEWEST_SHAPES / f"maintenance_policy_{name}.json").read_bytes(),
        "servers": (NEWEST_SHAPES / "servers.json").read_bytes(),
    }
    return shifted(bodies, time.time() - NOW)


async def page_of(api: dict[str, bytes]) -> Page:
    async with served(replay(api)) as url:
        return await scrape(watching(url))


@pytest.mark.parametrize(
    ("name", "is_open", "needed"),
    [("open", 1, 3), ("may", 1, 3), ("closed", 0, 3), ("scheduled", 0, 4), ("none", 0, 0)],
)
async def test_the_page_says_whether_the_newest_window_is_open(
    api: dict[str, bytes], name: str, is_open: int, needed: int
) -> None:
    page = await page_of(api | policy(name))
    assert page[series("chutes_maintenance_window_open", hotkey=HOTKEY)] == is_open
    assert sum(value for (metric, _), value in page.items() if metric == "chutes_server_upgrade_needed") == needed
    bounds = [metric for metric, _ in page if metric.startswith("chutes_maintenance_window_") and "_seconds" in metric]
    assert len(bounds) == (0 if name == "none" else 2)


@pytest.mark.parametrize("name", ["open", "may"])
async def test_status_urges_an_upgrade_while_the_window_is_open(
    target: Target, api: dict[str, bytes], name: str
) -> None:
    api.update(policy(name))
    found = await report(target)
    end = json.loads(api["maintenance"])["active_window"]["upgrade_window_end"][:16]
    assert found["actions"]["upgrades"]["count"] == 3
    assert found["actions"]["upgrades"]["text"] == (
        f"3 TEE servers need the upgrade of the maintenance window, which ends at {end} UTC: tee-a0, tee-a2, tee-a3."
    )
    assert "older_servers" not in found["notes"]


async def test_status_says_when_the_next_window_begins(target: Target, api: dict[str, bytes]) -> None:
    api.update(policy("scheduled"))
    found = await report(target)
    start = json.loads(api["maintenance"])["active_window"]["upgrade_window_start"][:16]
    assert "upgrades" not in found["actions"]
    assert found["notes"]["older_servers"]["text"] == (
        f"4 TEE servers are older than the target of the next maintenance window, which begins at {start} UTC: "
        "tee-a0, tee-a1, tee-a2 and 1 more."
    )


async def test_status_only_notes_older_servers_after_a_window(target: Target, api: dict[str, bytes]) -> None:
    api.update(policy("closed"))
    found = await report(target)
    assert "upgrades" not in found["actions"]
    assert found["notes"]["older_servers"]["text"] == (
        "3 TEE servers are older than the target of the last maintenance window: tee-a0, tee-a2, tee-a3. "
        "No window is open now."
    )
    _, output, _ = await run(target, "status", variables=MINE)
    assert "\n- 3 TEE servers are older than" in output


async def test_status_is_silent_about_windows_before_the_first_one(target: Target, api: dict[str, bytes]) -> None:
    api.update(policy("none"))
    found = await report(target)
    assert not {"upgrades", "older_servers"} & {*found["actions"], *found["notes"]}


async def test_the_page_has_the_servers_that_cannot_boot(api: dict[str, bytes]) -> None:
    page = await page_of(api)
    refused = {
        dict(labels)["server_id"]
        for (name, labels), value in page.items()
        if name == "chutes_server_version_accepted" and not value
    }
    assert refused == {server["server_id"] for server in EXPECTED["servers_that_cannot_boot"]}
    accepted = [name for name, _ in page if name == "chutes_server_version_accepted"]
    assert len(accepted) == sum(server["is_tee"] for server in json.loads(api["servers"])["servers"])


async def test_status_and_check_warn_of_servers_that_cannot_boot_or_run_chutes(
    target: Target, api: dict[str, bytes]
) -> None:
    servers = json.loads(api["servers"])
    tee = [server for server in servers["servers"] if server["is_tee"]]
    tee[0] |= {"name": "never-booted", "version": None}
    tee[1] |= {"name": "ancient", "version": "0.2.0"}
    tee[2] |= {"name": "oldest-allowed", "version": "0.2.1"}
    api["servers"] = json.dumps(servers).encode()
    actions = (await report(target))["actions"]
    assert actions["launches_refused"]["text"] == (
        "2 TEE servers have no version or one below 0.2.1: never-booted, ancient. "
        "The service refuses all launches of newer TEE chutes."
    )
    assert {"never-booted", "ancient", "oldest-allowed"} == set(
        re.findall(r"never-booted|ancient|oldest-allowed", actions["versions_refused"]["text"])
    )
    assert actions["servers_without_tee"]["text"].startswith("1 server has no TEE: plain-1.")
    _, output, _ = await run(target, "check", "--json", variables=MINE)
    notes = " ".join(line["note"] for line in json.loads(output)["checks"] if line["endpoint"] == "TEE")
    assert "below 0.2.1: never-booted, ancient" in notes
    assert re.search(r"no longer accepts their version: .*oldest-allowed", notes)
    assert "today all chutes are TEE: plain-1" in notes


async def test_status_notes_an_active_instance_whose_gpu_was_deleted(target: Target, api: dict[str, bytes]) -> None:
    assert "instances_without_gpus" not in (await report(target))["notes"]
    gpus = json.loads(api["miner_gpus"])
    active = {key for key, state in EXPECTED["instance_state"].items() if state == "active"}
    deleted = min(active)
    gpus[HOTKEY]["provisioned"] = [gpu for gpu in gpus[HOTKEY]["provisioned"] if gpu["chute"]["instance_id"] != deleted]
    api["miner_gpus"] = json.dumps(gpus).encode()
    note = (await report(target))["notes"]["instances_without_gpus"]
    assert note["count"] == 1
    assert note["text"].startswith("1 active instance holds no GPU, because it was deleted: ")
    del api["miner_gpus"]
    assert "instances_without_gpus" not in (await report(target))["notes"]


async def test_each_instance_has_its_server_and_gpus(api: dict[str, bytes]) -> None:
    page = await page_of(api)
    rows = json.loads(api["miner_gpus"])[HOTKEY]["provisioned"]
    want: dict[tuple[str, str, str], int] = {}
    for row in rows:
        labels = (row["chute"]["instance_id"], row["server_id"], row["gpu"])
        want[labels] = want.get(labels, 0) + 1
    found = {
        (by["instance_id"], by["server_id"], by["gpu"]): value
        for (name, labels), value in page.items()
        if name == "chutes_instance_gpus" and (by := dict(labels))
    }
    assert found == want
