"""What is not known is absent on the page: one thing at a time is taken away of the recorded day,
and nothing that remains is new or another. Only what depends on it goes.
"""

from __future__ import annotations

import asyncio
import fnmatch
import functools
import math
from typing import TYPE_CHECKING, Final

import pytest
import structlog

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.demo.replay import Replay
from chutes_exporter.feeds.definitions import AUDIT_REPORT, FEEDS
from chutes_exporter.page.exporter import Exporter
from tests.golden import cool_down
from tests.support import (
    HOTKEY,
    PATIENCE,
    Clock,
    data_of,
    find_collector,
    page_of,
    patient,
    read_reports,
    recorded_day,
    series,
)
from tests.unknown.taken import AT_24, CASES, OLDER, Case, doubt, more_bounties, without
from tests.unknown.test_fields import SAYS_WHAT_IS_KNOWN

if TYPE_CHECKING:
    from tests.support import Labels, Page

WHOLE: Final = "whole"
SUCCESS: Final = "chutes_scrape_collector_success"
LAUNCH: Final = """
    fleet_idle_* launch_* server_idle_*compute_units_per_second server_launch_*
"""
"""What can be launched, and what it would earn."""
GPUS: Final = """
    fleet_gpus gpu_state server_compute_units_per_second server_earning_instances
    server_estimated_profit_usd_per_day server_gpus server_idle_cost_usd_per_day
"""
"""The states of GPUs, and what they earn and cost."""
UPGRADES: Final = """
    fleet_late_servers_to_upgrade fleet_servers_to_upgrade fleet_unmeasured_servers_to_upgrade
    server_maintenance_state server_upgrade_measured server_upgrade_needed
"""
UNIT: Final = "compute_unit_usd server_estimated_profit_usd_per_day"
"""What a compute unit is worth."""
GONE: Final = {
    "metagraph": f"@metagraph {LAUNCH} miner_score_heading_ratio",
    "scores": "@scores",
    "stats": f"@stats {UNIT}",
    "stats_per_chute": "@stats_per_chute",
    # The utilization has the invocations, too.
    "metrics": "@metrics -chute_window_invocations",
    "active_instances": f"""@active_instances {LAUNCH} miner_score_heading_ratio
        instance_last_active instance_start_in_vain""",
    "chutes": f"""@chutes @job_details {LAUNCH} instance_later_compute_units_per_second
        instance_start_in_vain jobs_abandoned jobs_available
        jobs_oldest_created_timestamp_seconds jobs_tried jobs_waiting""",
    "servers": f"""@servers {LAUNCH} {GPUS} {UPGRADES} instance_gpus
        server_cost_usd_per_gpu_hour server_state server_version_accepted""",
    "nodes": f"@nodes {LAUNCH} {GPUS} server_state server_upgrade_measured",
    "inventory": f"{LAUNCH} {GPUS}",
    "instances": f"""@instances {LAUNCH} {GPUS} fleet_instances
        instance_compute_units_per_second instance_deadline_timestamp_seconds
        instance_decision instance_gpus instance_last_active
        instance_later_compute_units_per_second instance_outdated instance_start_in_vain
        instance_state""",
    "images": "@images",
    "jobs": "@jobs @job_details",
    "unique_chute_history": "@unique_chute_history",
    "thrash_cooldowns": "@thrash_cooldowns",
    "utilization": f"@utilization {LAUNCH} instance_start_in_vain",
    "bounties": f"@bounties {LAUNCH} instance_start_in_vain",
    "rolling_updates": "@rolling_updates",
    "maintenance": f"@maintenance {LAUNCH} {UPGRADES}",
    "held_gpus": f"{LAUNCH} instance_start_in_vain",
    # Another answer places the instances.
    "miner_gpus": "",
    "supported_gpus": LAUNCH,
    "tee_measurements": "server_upgrade_measured server_version_accepted",
    "fmv": f"""{UNIT} alpha_price_usd miner_estimated_profit_usd_per_day
        miner_estimated_usd_per_day tao_price_usd""",
    "platform_gpus": "@platform_gpus",
    "audit_report": "@ended_instances",
    "chain": f"@chain @earnings {UNIT} miner_estimated_profit_usd_per_day -tao_price_usd",
}
"""The metrics that go with each answer, without their prefix. All those of a collector have its
name after an @, and a minus leaves one out.
"""


async def _pages() -> dict[str, Page]:
    day = recorded_day()
    clock = Clock(day.first + AT_24)
    pages = {}
    async with Replay(day, at=AT_24, clock=clock) as replay:
        replay.edits |= {"bounties": more_bounties, "thrash_cooldowns": cool_down}
        settings = patient(
            replay.url,
            keys=tuple(day.miners.values()),
            chain_url=replay.chain_url,
            collectors={"job_details": True},
            gpu_costs={"h200": 1.9, "pro_6000": 0.8},
        )
        async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
            await exporter.feeds.read_all(exporter.plan.feeds, PATIENCE)
            await read_reports(exporter)
            pages[WHOLE] = await page_of(exporter)
            for case in CASES:
                # An exporter keeps the reports that it has read, so only a new one lacks one.
                async with Exporter(settings, clock=clock, monotonic=clock) as new:
                    asking = new if case.feed is AUDIT_REPORT else exporter
                    pages[str(case)] = await _page_without(case, replay, asking)
    return pages


async def _page_without(case: Case, replay: Replay, exporter: Exporter) -> Page:
    feeds = {(feed.name, feed.hotkey): feed for feed in exporter.plan.feeds}
    feed = feeds.get((case.feed.name, HOTKEY)) or feeds[case.feed.name, ""]
    exporter.feeds.forget([feed])
    if case.loss == "doubted":
        await doubt(feed, replay, exporter)
        page = await page_of(exporter)
    else:
        with without(replay, case):
            if case.feed is AUDIT_REPORT:
                await exporter.feeds.read_all(exporter.plan.feeds, PATIENCE)
                await read_reports(exporter)
            await exporter.feeds.read(feed, PATIENCE)
            page = await page_of(exporter)
    # The next case must not find what this one left.
    exporter.feeds.forget([feed])
    await exporter.feeds.read(feed, PATIENCE)
    return page


@functools.cache
def pages_of_cases() -> dict[str, Page]:
    """Return the page of each case."""
    with structlog.testing.capture_logs():
        return asyncio.run(_pages())


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    """The page of each case."""
    return pages_of_cases()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_number_of_a_page_is_new_or_another(pages: dict[str, Page], case: Case) -> None:
    whole, page = data_of(pages[WHOLE]), data_of(pages[str(case)])
    for key, value in page.items():
        if not math.isclose(whole.get(key, math.inf), value, rel_tol=1e-3):
            assert key[0] in SAYS_WHAT_IS_KNOWN or _is_lower_bound(page, key), key
            assert value < whole[key], key


def _is_lower_bound(page: Page, key: tuple[str, Labels]) -> bool:
    """Return whether a value is about losses, and the page says that there may be more."""
    labels = {name: value for name, value in key[1] if name in ("hotkey", "window")}
    says_all = page.get(series("chutes_miner_unknown_losses", **labels)) == 0
    return key[0].endswith("lost_compute_units") and not says_all


@pytest.mark.parametrize("feed", GONE)
def test_exactly_what_depends_on_an_answer_goes_with_it(pages: dict[str, Page], feed: str) -> None:
    ours = {key for key in data_of(pages[WHOLE]) if dict(key[1]).get("hotkey", HOTKEY) == HOTKEY}
    kept = {name for name, _ in ours & pages[f"{feed}-missing"].keys()}
    whole = {name for name, _ in ours}
    expected: set[str] = set()
    for word in GONE[feed].split():
        if word.startswith("@"):
            expected |= {metric.name for metric in find_collector(word[1:]).metrics}
        elif word.startswith("-"):
            expected.remove(f"chutes_{word[1:]}")
        else:
            expected.update(fnmatch.filter(whole, f"chutes_{word}"))
    assert whole - kept == expected & whole


def test_each_feed_is_taken_away() -> None:
    assert [*GONE] == [feed.name for feed in FEEDS]


@pytest.mark.parametrize("case", [case for case in CASES if case.loss != "doubted"], ids=str)
def test_what_lacks_something_lacks_a_number(pages: dict[str, Page], case: Case) -> None:
    # The list of a miner's GPUs is only used where other answers do not place an instance.
    if case.feed.name != "miner_gpus":
        assert data_of(pages[str(case)]).keys() < data_of(pages[WHOLE]).keys()


@pytest.mark.parametrize("case", [case for case in CASES if case.loss != OLDER], ids=str)
def test_a_collector_that_lacks_a_metric_is_not_successful(
    pages: dict[str, Page], case: Case
) -> None:
    whole, page = pages[WHOLE], pages[str(case)]
    for collector in COLLECTORS:
        # It is no failure if a deployment lacks an endpoint, which may only choose the chutes.
        only_chooses = case.loss == "404" and case.feed.name not in collector.source_feeds
        if page.get(series("chutes_scrape_collector_off", collector=collector.name)):
            continue
        metrics = {metric.name for metric in collector.metrics}
        if not only_chooses and any(name in metrics for name, _ in whole.keys() - page.keys()):
            label = "collector", collector.name
            outcomes = [key for key in whole if key[0] == SUCCESS and label in key[1]]
            assert any(page.get(key) != 1 for key in outcomes), collector.name
