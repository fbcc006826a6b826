"""What the command ``status`` finds, misses and asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.demo.replay import Fault, Replay
from tests.commands.support import MINE, hotkey_file, run
from tests.support import HOTKEY, recorded_day

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEALTHY = recorded_day().miners["healthy"].address
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


@pytest.fixture
def only_healthy(tmp_path: Path) -> str:
    """The flag with the key of the miner without trouble."""
    return f"--hotkey-file={hotkey_file(tmp_path)}"


async def test_a_share_that_is_too_large_for_percent_is_a_dash(replay: Replay) -> None:
    body = {"final_scores": {HOTKEY: 1e307}, "raw_values": {}}
    replay.faults["scores"] = Fault(body=json.dumps(body).encode())
    _, output = await status(replay, **MINE)
    assert "Score share -, heading for" in output
    assert "inf" not in output


async def test_where_nothing_needs_action_the_exit_status_is_0(
    replay: Replay, only_healthy: str
) -> None:
    code, found, _ = await report(replay, only_healthy)
    assert (code, found["action_needed"], found["all_known"]) == (0, False, True)


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


async def test_a_model_without_a_cost_is_named_and_leaves_the_sum_unknown(replay: Replay) -> None:
    _, found, findings = await report(replay, "--gpu.cost=h200=3", **MINE)
    (miner,) = found["miners"]
    priced = [row["gpu"] for row in miner["gpus"] if row["cost_usd_per_hour"] is not None]
    assert priced == ["h200"]
    assert findings["dead_servers"]["cost_usd_per_hour"] is None
    _, output = await status(replay, "--gpu.cost=h200=3", **MINE)
    assert "The cost of b300 is unknown: add --gpu.cost b300=USD_PER_HOUR." in output


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


async def test_a_miner_without_a_seat_is_said_beside_what_is_refused(replay: Replay) -> None:
    replay.edits["metagraph"] = lambda seats: [seat for seat in seats if seat["hotkey"] != HOTKEY]
    # As the service says it.
    refused = Fault(status=401, body=b'{"detail": "Hotkey is not registered on netuid 64"}')
    for endpoint in ENDPOINTS:
        if endpoint.signed:
            replay.faults[endpoint.name] = refused
    code, found, findings = await report(replay, **MINE)
    # What public answers say of the past stays.
    assert (code, [*findings]) == (1, ["not_registered", "failing_chutes"])
    assert "nodes" in {one["feed"] for one in found["not_known"]}
    _, output = await status(replay, **MINE)
    assert " GPUs: - " in output
    # Not again for each feed that is refused.
    assert output.count("not registered") == 1


async def test_without_the_reports_it_is_not_known_what_fails_and_they_are_named(
    replay: Replay,
) -> None:
    assert "failing_chutes" in (await report(replay, **MINE))[2]
    replay.faults["audit_report"] = Fault(status=503)
    _, found, findings = await report(replay, **MINE)
    assert "failing_chutes" not in findings
    assert "the report of " in "".join(gap["feed"] for gap in found["not_known"])


async def test_without_a_key_only_public_data_is_shown(replay: Replay) -> None:
    code, output = await status(replay, "--hotkey", HEALTHY)
    assert code == 3
    assert output.startswith("Not everything is known. Nothing that is known needs action.")
    assert "? servers, GPUs, instances, jobs: not known without a key → Add --hotkey-file" in output
    asked = {one.endpoint for one in replay.requests}
    assert asked == {"metagraph", "scores", "audit", "audit_report"}
    assert not any(one.signed for one in replay.requests)


async def test_several_miners_have_a_section_each(replay: Replay) -> None:
    code, found, _ = await report(replay, "--hotkey", HEALTHY, **MINE)
    assert code == 1
    assert [one["hotkey"] for one in found["miners"]] == sorted([HOTKEY, HEALTHY])
    in_need = {one["hotkey"] for one in found["findings"] if one["needs_action"]}
    assert in_need == {HOTKEY}
