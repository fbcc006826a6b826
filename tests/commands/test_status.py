"""What the command ``status`` finds, misses and asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.demo.replay import Fault, Replay
from tests.commands.support import MINE, run
from tests.support import HOTKEY

if TYPE_CHECKING:
    from collections.abc import Callable

BALDER = "a1c5d9a7-3ee0-4645-a107-3bdcbecedc3a"


async def status(replay: Replay, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run the command; returns its exit status and what it wrote, with single blanks."""
    code, output, errors = await run(replay, "status", *arguments, variables=variables)
    assert errors == ""
    return code, " ".join(output.split())


async def report(
    replay: Replay, *arguments: str, **variables: str
) -> tuple[int, dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the exit status, the JSON, and the findings by their kind."""
    code, output = await status(replay, "--json", *arguments, **variables)
    found = json.loads(output)
    return code, found, {finding["kind"]: finding for finding in found["findings"]}


async def test_a_share_that_is_too_large_for_percent_is_a_dash(replay: Replay) -> None:
    body = {"final_scores": {HOTKEY: 1e307}, "raw_values": {}}
    replay.faults["scores"] = Fault(body=json.dumps(body).encode())
    _, output = await status(replay, **MINE)
    assert "Score share -, heading for" in output
    assert "inf" not in output


async def test_the_price_of_a_server_comes_before_that_of_its_model(replay: Replay) -> None:
    # Of 22 pro_6000, 3 of the 4 on the dead balder are idle, and 1 on munin.
    prices = ("--gpu.cost=pro_6000=7", "--gpu.cost=h200=3", "--gpu.cost=b300=4")
    own = ("--gpu.cost=4090=1", "--server.cost=balder=2", "--server.cost=gone=9")
    _, found, findings = await report(replay, *prices, *own, **MINE)
    *_, everything = found["miners"][0]["gpus"]
    assert everything["cost_usd_per_hour"] == 18 * 7 + 4 * 2 + 10 * 3 + 4 * 4 + 2 * 1
    assert everything["idle_cost_usd_per_hour"] == 7 + 3 * 2 + 2 * 3 + 4 * 4
    assert findings["dead_servers"]["cost_usd_per_hour"] == 3 * 2
    assert found["servers_not_found"] == ["gone"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(body=b'{"awaiting_replacement": []}'), " It waits for replacements of: none."),
        (
            Fault(body=b'{"awaiting_replacement": [{"chute_id": "c"}]}'),
            " It waits for replacements of: c.",
        ),
        (Fault(status=503), ""),
    ],
)
async def test_a_pending_server_without_a_deadline_still_says_what_it_waits_for(
    replay: Replay, fault: Fault, words: str
) -> None:
    replay.edits["maintenance"] = maintenance_of("pending")
    replay.faults["server_maintenance"] = fault
    code, output = await status(replay, **MINE)
    assert code == 1
    assert f"nothing runs there: at most 3 hours.{words} " in output
    assert ("? server_maintenance of balder: 503" in output) == (not words)


def maintenance_of(status_of_balder: str) -> Callable[[Any], Any]:
    """Return a function that gives balder a maintenance status."""

    def edit(policy: Any) -> Any:
        (server,) = (one for one in policy["servers"] if one["server_id"] == BALDER)
        server["maintenance_status"] = status_of_balder
        return policy

    return edit


async def test_a_maintenance_status_that_is_not_known_is_never_fine(replay: Replay) -> None:
    replay.edits["maintenance"] = maintenance_of("draining")
    _, found, _ = await report(replay, **MINE)
    reasons = {gap["feed"]: gap["reason"] for gap in found["not_known"]}
    assert reasons["maintenance"] == "the answer has no known maintenance status of balder"
