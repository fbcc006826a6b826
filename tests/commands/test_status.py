"""The command ``status`` where the recorded day is changed. The golden outputs have the screens,
tests/unknown what a missing answer takes away, and tests/fleet/test_upgrades.py the order of
upgrades.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter import collectors, log
from chutes_exporter.commands import report as module
from chutes_exporter.demo.replay import Fault
from tests.commands.support import run
from tests.golden import golden
from tests.support import HOTKEY, SEEDS, recorded_day

if TYPE_CHECKING:
    from chutes_exporter.demo.replay import Replay

Answer = dict[str, Any]


async def status(replay: Replay, *flags: str, miner: str = "troubled") -> tuple[int, str]:
    """Run the command; returns its exit status and its output, on one line."""
    variables = {"MINER_SS58": recorded_day().miners[miner].address, "MINER_SEED": SEEDS[miner]}
    code, output, _ = await run(replay, "status", *flags, variables=variables)
    return code, " ".join(output.split())


async def report(replay: Replay, *flags: str, miner: str = "troubled") -> tuple[int, Answer]:
    code, output = await status(replay, "--json", *flags, miner=miner)
    return code, json.loads(output)


def window(**fields: Any) -> Any:
    """Return an edit that changes fields of the maintenance window, or of the whole answer."""

    def edit(policy: Answer) -> Answer:
        for name, value in fields.items():
            (policy if name in policy else policy["active_window"])[name] = value
        return policy

    return edit


def change(name: str, **fields: Any) -> Any:
    """Return an edit that changes fields of a server in the answer about maintenance."""

    def edit(policy: Answer) -> Answer:
        (server,) = (one for one in policy["servers"] if one["name"] == name)
        server.update(fields)
        return policy

    return edit


WINDOWS = {
    "A maintenance window opens in 5 hours (19:05 UTC)": window(
        window_open=False, upgrade_window_start="2026-12-01T19:05:00Z"
    ),
    "No maintenance window is open or announced. The last one ended 2026-12-01 10:05": window(
        window_open=False, upgrade_window_end="2026-12-01T10:05:00Z"
    ),
    "No maintenance window is open or announced.": window(window_open=False, active_window=None),
}
"""Words of a healthy miner's screen by what the answer says about the window."""


@pytest.mark.parametrize("words", WINDOWS)
async def test_a_window_that_is_not_open_needs_no_action(replay: Replay, words: str) -> None:
    replay.edits["maintenance"] = WINDOWS[words]
    code, text = await status(replay, "--maintenance", miner="healthy")
    assert code == 0
    assert text.startswith("No maintenance needs action. ")
    assert words in text


UNKNOWN = {
    "How many slots are free is not known.": window(max_concurrent_per_miner=None),
    "How many slots are free is not known": window(current_slots=None),
    "and ends at an unknown time.": window(upgrade_window_end=None),
    "Target version: not known.": window(target_measurement_version=None),
    "Whether a maintenance window is open or announced is not known.": window(window_open=None),
    "the answer has no known maintenance status of freya": change(
        "freya", maintenance_status="draining"
    ),
}
"""Words of the screen by what a field does not say."""


@pytest.mark.parametrize("words", UNKNOWN)
async def test_a_field_about_maintenance_that_is_not_known_is_said(
    replay: Replay, words: str
) -> None:
    replay.edits["maintenance"] = UNKNOWN[words]
    code, text = await status(replay, "--maintenance")
    assert code != 0
    assert words in text
    assert "Not known" in text
    for fine in ("All will make it", "No maintenance needs action"):
        assert fine not in text


async def test_a_target_that_is_listed_for_no_host_is_no_reason_to_upgrade(replay: Replay) -> None:
    replay.edits["tee_measurements"] = lambda listed: [
        one for one in listed if one["version"] != "1.5.0"
    ]
    _, found = await report(replay, "--maintenance")
    kinds = {one["kind"] for one in found["findings"] if one["needs_action"]}
    assert "upgrades" not in kinds
    assert "undecided_upgrades" in kinds
    _, text = await status(replay, "--maintenance")
    assert "Whether freya can come back is not known. Do not request its maintenance" in text


async def test_a_pending_server_says_what_it_waits_for_and_until_when(replay: Replay) -> None:
    # In the recorded day, it is pending from 23:12 on, for at most 3 hours.
    pending = {
        "maintenance_status": "pending",
        "awaiting_replacement": [{"chute_id": "c"}],
        "pending_deadline": "2026-12-01T16:05:00Z",
    }
    replay.edits["maintenance"] = change("freya", maintenance_status="pending")
    replay.faults["server_maintenance"] = Fault(body=json.dumps(pending).encode())
    _, text = await status(replay)
    waits = "freya: pending, until 1 instance has a replacement (chutes c)"
    assert f"{waits}, at the latest in 2 hours (16:05 UTC)." in text
    # Without a deadline, it still says what it waits for, and without an answer that it waits.
    del pending["pending_deadline"]
    replay.faults["server_maintenance"] = Fault(body=json.dumps(pending).encode())
    _, text = await status(replay)
    assert f"{waits}. " in text
    replay.faults["server_maintenance"] = Fault(status=503)
    _, text = await status(replay)
    assert "freya: pending. " in text
    assert "? server_maintenance of freya: 503" in text


def test_each_sentence_about_a_reboot_warns_of_it() -> None:
    """A reboot ends what still earns."""
    warning = re.compile(r"not reboot|by reboot now|A reboot now would lose|Reboot no")
    sentences = []
    for outputs in golden().values():
        for command in ("status", "status --maintenance"):
            text = " ".join(outputs[command].partition("\n{\n")[0].split())
            # The heading of a table says what a reboot now would cost.
            text = re.sub(r"Upgrade in this order.*", "", text)
            sentences += re.findall(r"[^.]*\breboot\b[^.]*", text, re.IGNORECASE)
    assert sentences
    assert [one for one in sentences if not warning.search(one)] == []


async def test_a_share_that_is_too_large_for_percent_is_a_dash(replay: Replay) -> None:
    body = {"final_scores": {HOTKEY: 1e307}, "raw_values": {}}
    replay.faults["scores"] = Fault(body=json.dumps(body).encode())
    _, text = await status(replay)
    assert "Score share -, heading for" in text
    assert "inf" not in text


async def test_the_price_of_a_server_comes_before_that_of_its_model(replay: Replay) -> None:
    models = ("pro_6000=1", "b300=1", "4090=1", "h200=7")
    prices = ("--server.cost=tyr=2", "--server.cost=gone=9")
    _, found = await report(replay, *prices, *(f"--gpu.cost={price}" for price in models))
    # 22 pro_6000, 4 b300, 2 4090, 8 h200 on freya, and 2 on tyr.
    assert found["miners"][0]["cost_usd_per_hour"] == 22 + 4 + 2 + 8 * 7 + 2 * 2
    assert found["servers_not_found"] == ["gone"]
    # If the price of a model is unknown, so is that of the fleet.
    _, found = await report(replay, *prices)
    assert found["miners"][0]["cost_usd_per_hour"] is None


async def test_an_answer_that_does_not_come_in_time_and_a_bug_are_gaps(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(collectors.scores.SCORE, "collect", fail)
    monkeypatch.setattr(module, "PATIENCE", 3)
    replay.faults["jobs"] = Fault(latency=60)
    log.configure("error", "logfmt")
    _, found = await report(replay)
    reasons = {gap["feed"]: gap["reason"] for gap in found["not_known"]}
    assert reasons["scores"] == "the collector failed, which is a bug"
    assert "jobs" in reasons
