"""What the command ``status`` finds, misses and asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.definitions import FEEDS
from tests.commands.support import MINE, run
from tests.replay import Fault, Replay
from tests.support import AT_22, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

BALDER = "a1c5d9a7-3ee0-4645-a107-3bdcbecedc3a"


async def status(replay: Replay, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run the command; returns its exit status and what it wrote, with single blanks."""
    code, output, errors = await run(replay, "status", *arguments, variables=variables)
    assert errors == ""
    return code, " ".join(output.split())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            Fault(body=b'{"awaiting_replacement": []}'),
            " are active elsewhere, with any miner: none.",
        ),
        (
            Fault(body=b'{"awaiting_replacement": [{"chute_id": "c"}]}'),
            " are active elsewhere, with any miner: c.",
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
    assert words in output
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
    _, output = await status(replay, "--json", **MINE)
    reasons = [gap["reason"] for gap in json.loads(output)["not_known"]]
    assert any(reason.startswith("the step of balder: ") for reason in reasons)


OPEN = AT_22 - 15.5 * HOUR
"""06:30, in the window: hugin and freya wait for their upgrade, and idun cannot come back."""


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("active_window.max_concurrent_per_miner", "free_slots"),
        ("current_slots", "free_slots"),
        ("active_window.upgrade_window_end", "ends_at"),
        ("active_window.target_measurement_version", "target_version"),
        ("window_open", "window"),
    ],
)
async def test_a_field_of_the_window_that_is_not_known_is_said(
    replay: Replay, clock: Clock, path: str, name: str
) -> None:
    clock.now = OPEN

    def forget(policy: Any) -> Any:
        *parents, field = path.split(".")
        record = policy
        for parent in parents:
            record = record[parent]
        record[field] = None
        return policy

    replay.edits["maintenance"] = forget
    _, output, _ = await run(replay, "status", "--json", variables=MINE)
    found = json.loads(output)
    assert "maintenance" in {gap["subject"] for gap in found["not_known"]}
    window = found["miners"][0]["window"]
    assert (window["late"], window[name]) == (None, None)


async def test_a_price_that_fits_no_gpu_and_a_model_without_a_price_are_named(
    replay: Replay,
) -> None:
    prices = ("--gpu.cost", "pro6000=1.05", "--gpu.cost", "h200=1.9", "--server.cost", "oden=2")
    said = (
        "Without --gpu.cost, the price of these is not known: 4090, b300, pro_6000. "
        "These prices fit no GPU: pro6000, oden."
    )
    for command in ("status", "check"):
        _, output, _ = await run(replay, command, *prices)
        assert said in " ".join(output.split())
    # A GPU that is not listed may be the one.
    replay.faults["servers"] = Fault(status=503)
    for command in ("status", "check"):
        _, output, _ = await run(replay, command, *prices)
        assert "fit no GPU" not in output
    _, output, _ = await run(replay, "status", "--json", "--gpu.cost", "pro6000=1.05")
    assert json.loads(output)["prices"]["prices_without_gpu"] is None


async def test_what_is_not_known_begins_with_its_cause(replay: Replay) -> None:
    for feed in FEEDS:
        replay.faults[feed.name] = Fault(status=503)
    _, output = await status(replay, **MINE)
    assert output.startswith("Nothing is known, because no request succeeded: 503")
    del replay.faults["metagraph"]
    _, output = await status(replay, **MINE)
    assert output.startswith("Not everything is known: 503")
    assert "Nothing that is known needs action." in output
