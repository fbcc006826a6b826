from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.simulator import Simulator, Size, World
from deploy.reference import ALL_METRICS
from tests.support import HOTKEY, NOON, Clock, data_of, page_of, scrape, watching

if TYPE_CHECKING:
    from chutes_exporter.simulator.world import Job


class FewJobs(World):
    """A world whose list of jobs has just begun."""

    def jobs(self, now: float) -> list[Job]:
        return super().jobs(now)[-5:]


@pytest.mark.parametrize(
    "size", [Size(miners=3, active_miners=3, chutes=40), Size(miners=40, active_miners=20, chutes=200)]
)
async def test_no_collector_costs_more_than_it_says(size: Size, clock: Clock) -> None:
    world = FewJobs(start=NOON, size=size)
    async with Simulator(world, clock=clock) as simulator:
        on = {collector.name: True for collector in COLLECTORS}
        settings = watching(simulator.url, collectors=on, hotkeys=world.by_hotkey, chain_url=simulator.chain_url)
        async with Exporter(settings, clock=clock) as exporter:
            page = await page_of(exporter)
    counts = {
        "": 1,
        "hotkey with a key": 1,
        "watched hotkey": size.miners,
        "miner": size.miners,
        "chute": size.chutes,
        "window": 3,
        "miner and window": 3 * size.miners,
        "chute of each miner, and window": 3 * len(world.work(NOON, 7 * 86400, per_chute=True)),
        "server": len(world.miners[0].servers),
        "GPU": len(world.miners[0].gpus),
        "GPU model": len({gpu.gpu_identifier for miner in world.miners for gpu in miner.gpus}),
        "image": 8,
        "method": 8,
        "waiting job": len([job for job in world.jobs(NOON) if job.finished_at is None and job.miner is None]),
    }
    for collector in COLLECTORS:
        names_of = {metric.name for metric in collector.metrics}
        made = len([key for key in page if key[0] in names_of])
        counts["instance"] = len(world.instances(NOON, *([] if collector.scope == "miner" else [HOTKEY])))
        assert made <= sum(number * counts[each] for each, number in collector.series.items()), collector.name


def test_every_metric_is_declared_once_with_all_that_the_docs_need() -> None:
    assert len({metric.name for metric in ALL_METRICS}) == len(ALL_METRICS)
    for metric in ALL_METRICS:
        assert metric.name.startswith("chutes_")
        assert metric.help.endswith(".")
        assert metric.source
        assert not {"instance", "job", "node", "pod", "namespace", "service", "cluster"} & set(metric.labels)
        # A ratio of a recent window is no sum over it, and a maintenance window is another thing.
        sums = "_window_" in metric.name and "_maintenance_window_" not in metric.name
        assert sums == ("window" in metric.labels and metric.unit != "ratio")


async def test_no_collector_makes_a_metric_that_it_does_not_declare(simulator: Simulator) -> None:
    page = await scrape(watching(simulator.url))
    declared = {metric.name for collector in COLLECTORS for metric in collector.metrics}
    assert {name for name, _ in data_of(page)} <= declared
