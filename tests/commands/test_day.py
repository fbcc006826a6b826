"""What the commands say on a recorded day with a dead server, a crash loop and an open window."""

from __future__ import annotations

import json
from typing import Any

from chutes_exporter.demo.replay import Fault, Replay
from chutes_exporter.duration import HOUR
from tests.commands.support import MINE, Target, run
from tests.support import recorded_day


async def output_of(replay: Replay, *arguments: str) -> str:
    """Return what a command of the troubled miner prints, with single spaces."""
    _, output, _ = await run(Target(replay.url), *arguments, variables=MINE)
    return " ".join(output.split())


async def test_a_server_that_died_is_named_with_what_ended_and_has_no_idle_gpus() -> None:
    async with Replay(recorded_day(), at=22.2 * HOUR) as replay:
        screen = await output_of(replay, "status", "--gpu.cost=pro_6000=1.5")
        found = json.loads(await output_of(replay, "status", "--json"))
        plan = await output_of(replay, "advise")
    assert "Servers that have probably died: 1. Several instances ended within minutes" in screen
    assert "which keep their score" in screen
    assert "First see whether they answer: chutes-miner tee node-health --name balder" in screen
    findings = {finding["kind"]: finding for finding in found["findings"]}
    (dead,) = findings["dead_servers"]["things"]
    # The starting instances on other servers, the crash loop and the probes that fail again and
    # again are no outage.
    assert dead.startswith("balder: 3 instances from ")
    assert not any("balder" in thing for thing in findings["idle_gpus"]["things"])
    # Nothing is to be launched there.
    assert plan.count("balder") == 1
    assert "balder 3 pro_6000 may_be_dead the server has probably died" in plan


async def test_the_headline_counts_the_idle_gpus_of_the_table() -> None:
    async with Replay(recorded_day(), at=21 * HOUR) as replay:
        found = json.loads(await output_of(replay, "status", "--json"))
    (miner,) = found["miners"]
    idle = miner["gpus"][-1]["idle"]
    # Those of the server in maintenance cannot be used.
    (finding,) = [one for one in found["findings"] if one["kind"] == "idle_gpus"]
    assert finding["count"] < idle
    assert f", idle GPUs: {idle}." in found["verdict"]


async def test_without_measurements_it_is_said_that_nobody_knows_which_server_comes_back() -> None:
    async with Replay(recorded_day(), at=20 * HOUR) as replay:
        replay.faults["tee_measurements"] = Fault(status=503)
        found = json.loads(await output_of(replay, "status", "--json"))
    findings = {finding["kind"]: finding for finding in found["findings"]}
    undecided = findings["undecided_upgrades"]
    assert (undecided["things"], undecided["needs_action"]) == (["freya (1.4.0)"], True)
    assert "ends in 10 hours" in undecided["problem"]
    assert "not known whether they can come back" in undecided["problem"]
    # It would not come back.
    assert "maintenance" not in findings
    advice = findings["undecided_maintenance"]["advice"]
    assert "Ask the operators of Chutes before you boot them" in advice


def blacklisted(seats: Any) -> Any:
    """Blacklist all miners."""
    for seat in seats:
        seat["blacklist_reason"] = "fraud"
    return seats


async def test_a_blacklisted_miner_is_not_told_to_launch() -> None:
    # An instance starts in vain.
    async with Replay(recorded_day(), at=23.3 * HOUR) as replay:
        replay.edits["metagraph"] = blacklisted
        screen = await output_of(replay, "status")
    assert "The miner is blacklisted." in screen
    assert "Stop them, because they cannot earn" in screen
    assert "launch another" not in screen
