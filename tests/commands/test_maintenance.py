"""The command ``status --maintenance`` when something is missing. tests/fleet/test_upgrades.py
tests the plan, and tests/test_golden.py has whole outputs.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.demo.replay import Fault, Replay
from chutes_exporter.duration import HOUR
from tests.commands.support import MINE, run
from tests.support import AT_22, HOTKEY, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

OPEN = AT_22 - 15.5 * HOUR
"""06:30, in the window: hugin and freya wait for their upgrade, and idun cannot come back."""
ANNOUNCED = AT_22 - 21 * HOUR


async def texts(replay: Replay) -> tuple[int, str]:
    """Return the status and the text, with single spaces."""
    code, output, errors = await run(replay, "status", "--maintenance", variables=MINE)
    assert errors == ""
    # A reboot ends what still earns, so each sentence that speaks of a reboot must warn of it.
    warning = re.compile(r"not reboot|by reboot now|A reboot now would lose|Reboot no")
    for sentence in re.findall(r"[^.]*\breboot\b[^.]*", output, re.IGNORECASE):
        words = " ".join(sentence.split())
        assert warning.search(words), words
    return code, " ".join(output.split())


async def summary(replay: Replay) -> tuple[int, dict[str, Any], set[str]]:
    """Return the status, the upgrades of the miner, and the feeds that are not known."""
    code, output, _ = await run(replay, "status", "--maintenance", "--json", variables=MINE)
    found = json.loads(output)
    (miner,) = found["miners"]
    assert miner["hotkey"] == HOTKEY
    return code, miner["upgrades"], {gap["feed"] for gap in found["not_known"]}


def order(upgrades: dict[str, Any]) -> list[str]:
    return [server["name"] for server in upgrades["order"]]


@pytest.mark.parametrize("hour", [1, 6.5, 7.5, 9, 11, 22, 24])
async def test_at_no_hour_of_the_day_a_reboot_is_advised(
    replay: Replay, clock: Clock, hour: float
) -> None:
    clock.now = AT_22 + (hour - 22) * HOUR
    code, _ = await texts(replay)
    assert code == 1


async def test_a_server_that_cannot_come_back_is_in_no_order(replay: Replay, clock: Clock) -> None:
    clock.now = OPEN
    _, upgrades, _ = await summary(replay)
    assert order(upgrades) == ["freya", "hugin"]
    assert [one["name"] for one in upgrades["cannot_come_back"]] == ["idun"]
    replay.faults["active_instances"] = Fault(status=503)
    _, text = await texts(replay)
    assert "In which order to upgrade these is not known: freya, hugin." in text


@pytest.mark.parametrize(
    ("edit", "state", "words"),
    [
        (
            lambda policy: policy["active_window"].update(
                upgrade_window_end="2026-12-01 13:05:00+00:00"
            ),
            "over",
            "No maintenance window is open or announced. The last one ended 2026-12-01 13:05 UTC.",
        ),
        (
            lambda policy: policy.update(active_window=None),
            "none",
            "No maintenance window is open or announced.",
        ),
    ],
    ids=["over", "none"],
)
async def test_without_a_window_there_is_nothing_to_plan(
    replay: Replay, edit: Callable[[Any], Any], state: str, words: str
) -> None:
    def close(policy: Any) -> Any:
        edit(policy)
        return policy | {"window_open": False}

    replay.edits["maintenance"] = close
    _, upgrades, _ = await summary(replay)
    assert (upgrades["window"], upgrades["order"]) == (state, None)
    assert words in (await texts(replay))[1]


UNKNOWN = {
    "maintenance": "Whether a maintenance window is open or announced is not known.",
    "servers": "Which servers wait for their upgrade is not known.",
    "nodes": "Which of them can come back with the target version is not known.",
    "tee_measurements": "Which of them can come back with the target version is not known.",
    "instances": "In which order to upgrade these is not known: ",
    "inventory": "In which order to upgrade these is not known: ",
    "active_instances": "In which order to upgrade these is not known: ",
}
"""What the screen says without each answer."""


@pytest.mark.parametrize(("feed", "words"), UNKNOWN.items())
@pytest.mark.parametrize("moment", [OPEN, ANNOUNCED], ids=["open", "announced"])
async def test_what_is_not_known_is_said_and_is_never_fine(
    replay: Replay, clock: Clock, feed: str, words: str, moment: float
) -> None:
    clock.now = moment
    _, before, _ = await summary(replay)
    replay.faults[feed] = Fault(status=503)
    code, upgrades, gaps = await summary(replay)
    assert code in (1, 3)
    assert upgrades["order"] is None
    assert "upgrades" in gaps
    # Without one of these answers, only the order is unknown.
    only_order = feed in ("instances", "inventory", "active_instances")
    assert upgrades["late"] == (before["late"] if only_order else None)
    _, text = await texts(replay)
    assert words in text
    for fine in ("All will make it", "request the maintenance of", "No maintenance needs action"):
        assert fine not in text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("active_window.max_concurrent_per_miner", "How many slots are free is not known."),
        ("current_slots", "How many slots are free is not known."),
        ("active_window.upgrade_window_end", "and ends at an unknown time."),
        ("active_window.target_measurement_version", "Target version: not known."),
        ("window_open", "Whether a maintenance window is open or announced is not known."),
    ],
)
async def test_a_field_of_the_window_that_is_not_known_is_said(
    replay: Replay, path: str, words: str
) -> None:
    def forget(policy: Any) -> Any:
        *parents, field = path.split(".")
        record = policy
        for parent in parents:
            record = record[parent]
        record[field] = None
        return policy

    replay.edits["maintenance"] = forget
    _, upgrades, gaps = await summary(replay)
    assert "upgrades" in gaps
    assert upgrades["late"] is None
    _, text = await texts(replay)
    assert words in text
    assert "All will make it" not in text


async def test_a_target_that_is_listed_for_no_host_is_no_reason_to_upgrade(replay: Replay) -> None:
    replay.edits["tee_measurements"] = lambda listed: [
        one for one in listed if one["version"] != "1.5.0"
    ]
    code, upgrades, _ = await summary(replay)
    assert (code, order(upgrades)) == (1, ["freya"])
    assert {one["measured"] for one in upgrades["order"]} == {"undecided"}
    _, text = await texts(replay)
    assert "Whether freya can come back is not known. Do not request its maintenance" in text


async def test_without_a_key_nothing_about_maintenance_is_known(replay: Replay) -> None:
    code, output, _ = await run(
        replay, "status", "--maintenance", f"--hotkey={HOTKEY}", variables={}
    )
    assert code == 3
    assert "Whether a maintenance window is open or announced is not known." in output
