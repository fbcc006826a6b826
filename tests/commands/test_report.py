"""One collection for the commands that report about miners, from a simulated API whose first
miner's GPUs all earn.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter import collectors, log
from chutes_exporter.commands import report as module
from chutes_exporter.commands.report import collect_report
from chutes_exporter.feeds import cache
from chutes_exporter.simulator import Fault, Simulator
from tests.recorded import stream
from tests.simulator.farm import Farm, Machine
from tests.support import HOTKEY, PATIENCE, watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

METRICS = frozenset(
    {
        "chutes_fleet_gpus",
        "chutes_jobs_waiting",
        "chutes_miner_score_rank",
        "chutes_server_upgrade_needed",
    }
)


@pytest.fixture
def farm() -> Farm:
    return Farm(time.time(), [(Machine("l40s", 4), Machine("h200", 4))])


@pytest.fixture
async def simulator(farm: Farm) -> AsyncIterator[Simulator]:
    # The machine's own clock: the report's time comes from it.
    async with Simulator(farm, clock=time.time) as simulator:
        yield simulator


async def gaps_of(simulator: Simulator) -> dict[str, str]:
    """Return the reason of each gap, by feed."""
    report = await collect_report(watching(simulator.url), METRICS)
    return {gap.feed: gap.reason for gap in report.gaps}


async def test_a_report_has_the_samples_of_the_metrics_and_counts_every_gpu(
    simulator: Simulator,
) -> None:
    report = await collect_report(watching(simulator.url), METRICS)
    assert report.gaps == []
    assert report.counted == {HOTKEY}
    assert sum(value for _, value in report.of("chutes_fleet_gpus", hotkey=HOTKEY)) == 8
    assert report.of("chutes_fleet_gpus", hotkey="another miner") == []


async def test_the_time_is_that_of_the_api(farm: Farm) -> None:
    async with Simulator(farm, clock=lambda: time.time() - 500) as simulator:
        report = await collect_report(watching(simulator.url), METRICS)
        assert report.now == pytest.approx(time.time() - 500, abs=100)


async def test_answers_that_are_not_whole_are_gaps_and_the_gpus_are_not_counted(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine, the answers with which the list of nodes is compared need more time.
    monkeypatch.setattr(cache, "_EVIDENCE_WAIT", PATIENCE)
    # One item of the inventory cannot be read, and the list of nodes ends after its first record.
    rows = [{"gpu_id": 5}, {"gpu_id": "a"}]
    simulator.faults["inventory"] = Fault(body=json.dumps(rows).encode())
    simulator.faults["nodes"] = Fault(records=1)
    report = await collect_report(watching(simulator.url), METRICS)
    assert {gap.feed: gap.reason for gap in report.gaps} == {
        "inventory": (
            "1 records could not be read and are left out (Expected `str`, got `int` - at "
            "`$.gpu_id`)"
        ),
        "nodes": "the list contradicts another answer",
    }
    assert report.counted == set()


async def test_a_gpu_in_an_unknown_state_is_a_gap(simulator: Simulator, farm: Farm) -> None:
    instances: list[dict[str, Any]] = []
    inventory: list[dict[str, Any]] = []
    for number, instance in enumerate(farm.instances(time.time(), HOTKEY)):
        # The first is not active, and nothing says whether it ever was. So it starts, or it is
        # disabled.
        common = {"chute_id": instance.chute.chute_id, "active": number > 0}
        instances.append({"instance_id": instance.instance_id, "billed_to": None} | common)
        inventory += [{"gpu_id": gpu.uuid} | common for gpu in instance.gpus]
    simulator.faults["instances"] = Fault(body=stream(instances))
    simulator.faults["inventory"] = Fault(body=json.dumps(inventory).encode())
    report = await collect_report(watching(simulator.url), METRICS)
    assert report.gaps[-1].feed == "fleet"
    assert report.counted == set()


async def test_an_answer_that_does_not_come_in_time_is_a_gap(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    simulator.faults["jobs"] = Fault(latency=60)
    assert "jobs" in await gaps_of(simulator)


async def test_a_collector_with_a_bug_is_a_gap(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(collectors.scores.SCORE, "collect", fail)
    log.configure("error", "logfmt")
    assert await gaps_of(simulator) == {"scores": "the collector failed, which is a bug"}
