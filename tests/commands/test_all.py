"""What holds for each command that reports about miners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.commands.support import Target, run
from tests.golden import COMMANDS
from tests.support import HOTKEY, SEEDS

if TYPE_CHECKING:
    from tests.replay import Replay

of_each_command = pytest.mark.parametrize("command", COMMANDS)


@of_each_command
async def test_a_screen_fits_80_columns_and_cannot_be_steered_by_the_api(
    replay: Replay, command: str
) -> None:
    def rename(value: Any) -> Any:
        """Give all things long names. Printed as they are, these would clear the screen."""
        if isinstance(value, list):
            return [rename(part) for part in value]
        if isinstance(value, dict):
            named = {"name": f"\x1b[2J{'x' * 60}"} if "name" in value else {}
            return {key: rename(part) for key, part in value.items()} | named
        return value

    for answer in ("servers", "chutes", "maintenance", "utilization", "metagraph"):
        replay.edits[answer] = rename
    variables = {"MINER_SS58": HOTKEY, "MINER_SEED": SEEDS["troubled"], "COLUMNS": "80"}
    _, output, _ = await run(replay, command, variables=variables)
    assert all(len(line) <= 80 and line == line.rstrip() for line in output.splitlines())
    assert "\x1b" not in output


@of_each_command
async def test_each_question_is_asked_once(replay: Replay, command: str) -> None:
    await run(replay, command)
    asked = [(request.endpoint, request.hotkey, request.query) for request in replay.requests]
    assert [question for question in asked if asked.count(question) > 1] == []


@of_each_command
async def test_without_any_answer_nothing_is_said_to_be_fine(command: str) -> None:
    status, output, _ = await run(Target("http://127.0.0.1:9"), command)
    assert status == (1 if command == "check" else 3)
    assert "The API is down or restarts" in " ".join(output.split())
    for fine in ("needs action.", "No GPU is idle", "No instance ended", "passed"):
        assert fine not in output.replace("that is known needs action.", "")
