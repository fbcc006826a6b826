"""What is not known is absent on the page, in rules and on boards.

One thing at a time is taken away of the recorded day, and nothing that remains is new or another.
Only what depends on it goes.
"""

from __future__ import annotations

import asyncio
import fnmatch
import math
from typing import TYPE_CHECKING, Final

import pytest
import structlog

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.feeds.definitions import AUDIT_REPORT, FEEDS
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from tests.day import COSTS, LAST, evaluate, scraped_day
from tests.exporters import patient, read_reports
from tests.golden import cool_down
from tests.grafana.answers import QUERIES, filled_in
from tests.pages import data_of, parse_page, series
from tests.prometheus.rule_files import GROUPS
from tests.replay import Replay
from tests.support import HOTKEY, PATIENCE, Clock, find_collector, recorded_day, some
from tests.unknown.taken import AT_24, CASES, DOUBTED, MINERS, OLDER, Case, more_bounties, without
from tests.unknown.test_fields import SAYS_WHAT_IS_KNOWN

if TYPE_CHECKING:
    from tests.pages import Labels, Page
    from tests.promtool import Answer

WHOLE: Final = "whole"
STEP: Final = "chutes_server_maintenance_step"
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
    server_maintenance_state server_maintenance_step server_upgrade_done_timestamp_seconds
    server_upgrade_needed
"""
COST: Final = "miner_cost_usd_per_hour miner_estimated_profit_usd_per_day"
"""What all GPUs cost."""
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
        instance_start_in_vain""",
    "chutes": f"""@chutes @job_details {LAUNCH} instance_later_compute_units_per_second
        instance_start_in_vain jobs_available
        jobs_oldest_created_timestamp_seconds jobs_tried jobs_waiting""",
    "servers": f"""@servers {LAUNCH} {GPUS} {UPGRADES} {COST} instance_gpus
        server_cost_usd_per_gpu_hour server_state server_version_accepted""",
    "nodes": f"@nodes {LAUNCH} {GPUS} {COST} server_state",
    "inventory": f"{LAUNCH} {GPUS}",
    "instances": f"""@instances {LAUNCH} {GPUS} fleet_instances
        instance_compute_units_per_second instance_deadline_timestamp_seconds
        instance_decision instance_gpus
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
    "tee_measurements": "server_version_accepted",
    "fmv": f"""{UNIT} alpha_price_usd miner_estimated_profit_usd_per_day
        miner_estimated_usd_per_day tao_price_usd""",
    "platform_gpus": "@platform_gpus",
    # Whether a server on which nothing earns has died, and which chutes fail.
    "audit_report": "@ended_instances fleet_idle_* server_launch_compute_units_per_second "
    "server_launch_instances",
    "chain": f"@chain @earnings {UNIT} miner_estimated_profit_usd_per_day -tao_price_usd",
}
"""The metrics that go with each answer, without their prefix. All those of a collector have its
name after an @, and a minus leaves one out.
"""


async def _pages() -> dict[str, str]:
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
            gpu_costs=COSTS,
        )
        async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
            await exporter.feeds.read_all(exporter.plan.feeds, PATIENCE)
            await read_reports(exporter)
            pages[WHOLE] = await text_of(exporter)
            for case in CASES:
                # An exporter keeps the reports that it has read, so only a new one lacks one.
                async with Exporter(settings, clock=clock, monotonic=clock) as new:
                    asking = new if case.feed is AUDIT_REPORT else exporter
                    pages[str(case)] = await _page_without(case, replay, asking)
    return pages


async def text_of(exporter: Exporter) -> str:
    return (await exporter.metrics(Format.TEXT, timeout=PATIENCE)).decode()


async def _page_without(case: Case, replay: Replay, exporter: Exporter) -> str:
    feeds = {(feed.name, feed.hotkey): feed for feed in exporter.plan.feeds}
    feed = feeds.get((case.feed.name, HOTKEY)) or feeds[case.feed.name, ""]
    exporter.feeds.forget([feed])
    with without(replay, case):
        if case.feed is AUDIT_REPORT:
            await exporter.feeds.read_all(exporter.plan.feeds, PATIENCE)
            await read_reports(exporter)
        await exporter.feeds.read(feed, PATIENCE)
        page = await text_of(exporter)
    snapshot = exporter.feeds.peek(feed)
    assert bool(snapshot and snapshot.answer.doubt) == (case.loss == DOUBTED)
    # The next case must not find what this one left.
    exporter.feeds.forget([feed])
    await exporter.feeds.read(feed, PATIENCE)
    return page


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """The page of each case."""
    with structlog.testing.capture_logs():
        return asyncio.run(_pages())


@pytest.fixture(scope="module")
def pages(texts: dict[str, str]) -> dict[str, Page]:
    """The samples of each page."""
    return {case: parse_page(text) for case, text in texts.items()}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_number_of_a_page_is_new_or_another(pages: dict[str, Page], case: Case) -> None:
    whole, page = data_of(pages[WHOLE]), data_of(pages[str(case)])
    for key, value in page.items():
        if not math.isclose(whole.get(key, math.inf), value, rel_tol=1e-3):
            if _is_caution(page, key):
                continue
            assert key[0] in SAYS_WHAT_IS_KNOWN or _is_lower_bound(page, key), key
            assert value < whole[key], key


def _is_caution(page: Page, key: tuple[str, Labels]) -> bool:
    """Return whether a value is about a server that is not to be rebooted while it is unknown
    whether something runs there, or whether it comes back.
    """
    labels = dict(key[1]) | {"step": "await_drain"}
    return key[0] == STEP and page.get(series(STEP, **labels)) == 1


def _is_lower_bound(page: Page, key: tuple[str, Labels]) -> bool:
    """Return whether a value is about losses, and the page says that there may be more."""
    labels = {name: value for name, value in key[1] if name in ("hotkey", "window")}
    says_all = page.get(series("chutes_miner_unknown_losses", **labels)) == 0
    return key[0].endswith("lost_compute_units") and not says_all


OURS: Final = {None, HOTKEY}
"""The hotkeys of series about the platform, and about the watched miner."""


@pytest.mark.parametrize("feed", [feed.name for feed in FEEDS])
def test_exactly_what_depends_on_an_answer_goes_with_it(pages: dict[str, Page], feed: str) -> None:
    ours = {key for key in data_of(pages[WHOLE]) if dict(key[1]).get("hotkey") in OURS}
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


@pytest.mark.parametrize("case", [case for case in CASES if case.loss != OLDER], ids=str)
def test_a_collector_that_lacks_a_metric_is_not_successful(
    pages: dict[str, Page], case: Case
) -> None:
    whole, page = pages[WHOLE], pages[str(case)]
    # Without the scores, it is not known which other miners are neighbours.
    lost = {key for key in whole.keys() - page.keys() if dict(key[1]).get("hotkey") in OURS}
    for collector in COLLECTORS:
        # It is no failure if a deployment lacks an endpoint, which may only choose the chutes.
        only_chooses = case.loss == "404" and case.feed not in collector.feeds
        if page.get(series("chutes_scrape_collector_off", collector=collector.name)):
            continue
        metrics = {metric.name for metric in collector.metrics}
        if not only_chooses and any(name in metrics for name, _ in lost):
            label = "collector", collector.name
            outcomes = [key for key in whole if key[0] == SUCCESS and label in key[1]]
            assert any(page.get(key) != 1 for key in outcomes), collector.name


DECISIVE: Final = (
    *("metagraph", "scores", "stats", "active_instances", "chutes", "servers", "nodes"),
    *("inventory", "instances", "jobs", "utilization", "maintenance", "held_gpus"),
    *("tee_measurements", "audit_report", "chain"),
)
"""The feeds without which rules and boards are evaluated. The others are on fewer panels."""
PARTS: Final = (
    *(f"{feed}-record" for feed in ("servers", "nodes", "instances", "chutes", "held_gpus")),
    "audit_report-older",
)
"""Parts of answers without which they are evaluated."""
EVENING: Final = range(LAST - 120, LAST + 1, 20)
RULES: Final = [rule for group in GROUPS for rule in group["rules"]]
RECORDINGS: Final = {rule["record"] for rule in RULES if "record" in rule}
CONDITIONS: Final = "ALERTS"
ABOUT_GAPS: Final = {"ChutesFeedFailing"}
MAY_DIFFER: Final = {
    "alert:chutes_alerts:severity": "it counts the alerts about the gap, too",
    "hotkey:chutes_miner_verdict:number": "it says that not everything is known",
    "hotkey_feed:chutes_feed:blind": "it lists the missing feeds",
    "hotkey_server_id:chutes_idle_gpus:ratio": "without the pay, the number of idle GPUs decides",
    "hotkey_server_id:chutes_idle_gpus:part_of_gpus": "it is this number",
    "hotkey:chutes_fleet_gpus:planned_ratio": "it remembers the hour before",
    "variable miner": "without a score, the rank is a question mark",
    "variable report": "it names the hours that are not known",
    **{
        f"chutes-fleet: {query}": "a server on which something may run is not to be rebooted"
        for query in ("Maintenance A", "Servers D")
    },
    "chutes-fleet: Servers C": "it names the alert when the next step is not known",
    **{
        f"chutes-{board}: Not earned, next 24 h C": "it counts the GPUs whose pay is not known"
        for board in ("overview", "fleet", "market")
    },
    "chutes-instances: Lost in 24 h D": "it says how many hours are known",
    "chutes-overview: Verdict A": "it says that not everything is known",
    **{
        f"chutes-{panel}": "without a price, units and shares are shown instead of money"
        for panel in (
            "overview: Lost in 24 h B",
            "overview: Not earned, next 24 h B",
            "fleet: Not earned, next 24 h B",
            "market: Not earned, next 24 h B",
        )
    },
}
"""Recordings and queries that may show another number, by the reason."""
SHOWN: Final = {
    # The board of the exporter shows the feeds themselves.
    **{name: query for name, query in QUERIES.items() if not name.startswith("chutes-exporter")},
    **{name: name for name in (*RECORDINGS, CONDITIONS)},
}


@pytest.fixture(scope="module")
def evening() -> dict[int, str]:
    """The pages of two hours before."""
    with structlog.testing.capture_logs():
        return asyncio.run(scraped_day(EVENING, collectors={"job_details": True}, gpu_costs=COSTS))


def evaluated(evening: dict[int, str], page: str) -> dict[str, Answer]:
    """Return what rules and boards say when a page has been scraped for 40 minutes."""
    pages = {minute: text for minute, text in evening.items() if minute < LAST - 40}
    queries = {name: filled_in(query, MINERS) for name, query in SHOWN.items()}
    asked = {query: [LAST] for query in queries.values()}
    found = evaluate(pages | {LAST - 40: page}, step=20, queries=asked)
    return {name: found.answers[query][LAST] for name, query in queries.items()}


@pytest.fixture(scope="module")
def whole(texts: dict[str, str], evening: dict[int, str]) -> dict[str, Answer]:
    return evaluated(evening, texts[WHOLE])


@pytest.mark.parametrize("case", some([*(f"{feed}-missing" for feed in DECISIVE), *PARTS]))
def test_no_rule_and_no_board_shows_another_number(
    texts: dict[str, str],
    evening: dict[int, str],
    whole: dict[str, Answer],
    case: str,
) -> None:
    found = evaluated(evening, texts[case])
    started = found.pop(CONDITIONS).keys() - whole[CONDITIONS].keys()
    assert {dict(labels)["alertname"] for labels in started} <= ABOUT_GAPS
    wrong = []
    for name in found.keys() - MAY_DIFFER.keys():
        for labels, value in found[name].items():
            before = whole[name].get(labels, math.nan)
            is_about_gap = dict(labels).get("alertname") in ABOUT_GAPS
            if not is_about_gap and not math.isclose(before, value, rel_tol=1e-3):
                wrong.append((name, dict(labels), value, before))
    assert wrong == []
