"""The simulated answers have the fields of recorded ones, and the demo shows its troubles."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.api.keys import Hotkey
from chutes_exporter.duration import HOUR
from chutes_exporter.simulator import TROUBLES, DemoWorld, Fault, Simulator, Size, World, parse_fault
from chutes_exporter.simulator.answers import audit_list
from chutes_exporter.simulator.app import GARBAGE
from tests.support import HOTKEY, KEY, NOON, RECORDINGS, Clock, get

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PATHS = {
    **{one.name: one.path for one in ENDPOINTS if "{" not in one.path and one.name != "thrash_cooldowns"},
    "unique_chute_history": f"/miner/unique_chute_history/{HOTKEY}",
    "stats_per_chute": "/miner/stats?per_chute=true",
    "held_gpus": "/nodes/?detailed=true",
    "miner_gpus": f"/nodes/?detailed=true&hotkey={HOTKEY}",
    "instances": "/miner/instances/?explicit_null=true",
    "audit_report": f"/audit/download?path={audit_list(NOON)[0]['path']}",
}
"""The request of each answer."""
FILES = {
    "maintenance": "maintenance_policy",
    "held_gpus": "nodes_detailed",
    "miner_gpus": "nodes_detailed_one",
    "supported_gpus": "nodes_supported",
    "platform_gpus": "extra/nodes",
}
"""The recordings whose names differ."""
FREE_KEYS = {
    "compute_multiplier_factors",
    "permitted",
    "job_args",
    "result",
    "extra",
    "raw_values",
    "final_scores",
    "idle",
}
"""Objects whose keys are no fields."""


def parsed(body: bytes) -> Any:
    """Return the JSON of an answer. A stream is a list."""
    if not body.startswith(b"data: "):
        return json.loads(body)
    return [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: {")]


def fields(value: Any, path: str = "") -> set[str]:
    """Return the paths of all fields of an answer. Ids and models that are keys are left out."""
    if isinstance(value, list):
        return {field for one in value for field in fields(one, path)}
    if not isinstance(value, dict):
        return set()
    found = set()
    for key, part in value.items():
        name = "*" if key[0].isdigit() or key[0].isupper() or key in ("a100", "b200", "l40s", "pro_6000") else key
        found.add(f"{path}.{name}")
        if key not in FREE_KEYS:
            found |= fields(part, f"{path}.{name}")
    return found


def recorded(name: str) -> Any:
    """Return the recorded answer of an endpoint."""
    file = FILES.get(name, name)
    paths: list[Path] = [*RECORDINGS.glob(f"{file}.*"), *(RECORDINGS / "extra").glob(f"{file}.*")]
    return parsed(paths[0].read_bytes())


@pytest.mark.parametrize("name", PATHS)
async def test_an_answer_has_fields_of_a_recorded_one(small_world: World, name: str) -> None:
    headers = KEY.headers(int(NOON), "tee" if name == "maintenance" else "miner")
    async with Simulator(small_world, clock=Clock()) as simulator:
        simulated = fields(parsed((await get(simulator.url + PATHS[name], **headers)).content))
    assert simulated
    # The service has sent the status since October 2026.
    assert simulated - {".servers.maintenance_status"} <= fields(recorded(name))


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "Invalid nonce!"),
        (KEY.headers(int(NOON) - 600), "Invalid nonce!"),
        (KEY.headers(int(NOON), "tee"), f"Invalid request signature for hotkey {HOTKEY}"),
        (Hotkey.from_seed("33" * 32).headers(int(NOON)), "Hotkey is not registered on netuid 64"),
    ],
)
async def test_signatures_are_checked_for_real(simulator: Simulator, headers: Mapping[str, str], detail: str) -> None:
    response = await get(f"{simulator.url}/miner/inventory", **headers)
    assert response.status_code == 401
    assert response.json()["detail"].startswith(detail)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("scores=status:503", Fault(status=503)),
        ("scores=latency:0.5", Fault(latency=0.5)),
        ("scores=cut:10", Fault(cut_after=10)),
        ("scores=empty", Fault(body=b"")),
        ("scores=garbage", Fault(body=GARBAGE)),
        ("chutes=records:25", Fault(records=25)),
    ],
)
def test_faults_can_be_written_on_the_command_line(text: str, fault: Fault) -> None:
    assert parse_fault(text) == (text.partition("=")[0], fault)


@pytest.mark.parametrize("text", ["", "scores", "scores=status:99", "scores=explode", "nothing=status:500"])
def test_an_invalid_fault_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="for example scores=status:503"):
        parse_fault(text)


@pytest.mark.parametrize(
    ("troubles", "servers"),
    [((), 0), (["crash-loop"], 1), (["dead-server"], 1), (["upgrade"], 1), (["idle"], 2), (list(TROUBLES), 5)],
)
def test_all_gpus_of_the_demos_miner_earn_except_on_the_servers_in_trouble(troubles: list[str], servers: int) -> None:
    world = DemoWorld(start=NOON, troubles=troubles, size=Size(active_miners=8, chutes=150, other_servers=3))
    for now in (NOON, NOON + 2 * HOUR - 1):
        active = {gpu for one in world.instances(now, HOTKEY) if one.active(now) for gpu in one.gpus}
        assert sum(not active.issuperset(server.gpus) for server in world.miners[0].servers) == servers
    assert (HOTKEY in world.shares(NOON)) == ("blacklisted" not in troubles)
