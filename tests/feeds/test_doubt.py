"""Answers that look right and are wrong: an exporter over recorded answers that change from one to the next."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.api.records import (
    ActiveInstance,
    Chute,
    ChuteMetrics,
    Instance,
    InventoryItem,
    Node,
    Server,
    ServerGpu,
)
from chutes_exporter.config import Credentials, make_settings
from chutes_exporter.feeds import doubt
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from tests.recorded import ALL_ON, Miner, rows, stream
from tests.support import HOTKEY, NOON, RECORDINGS, Clock, Page, parse_page, series, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.requests import Request

MINUTE = 60
HOUR = 3600


class Api:
    """Recorded answers that a test changes.

    Attributes:
        bodies: By name; an endpoint without one answers 404.
        once: Bodies that come before, each one time.
        asked: How often each endpoint was asked.
    """

    def __init__(self, miner: Miner) -> None:
        self.bodies: dict[str, bytes] = miner.bodies()
        self.once: dict[str, list[bytes]] = {}
        self.asked: Counter[str] = Counter()

    def records(self, name: str) -> list[dict[str, Any]]:
        return rows(self.bodies[name])

    def app(self) -> Starlette:
        def route(endpoint: str) -> Any:
            async def answer(request: Request) -> Response:
                name = "stats_per_chute" if "per_chute" in request.query_params else endpoint
                if endpoint == "held_gpus" and "hotkey" in request.query_params:
                    name = "miner_gpus"
                self.asked[name] += 1
                first = self.once.get(name)
                body = first.pop(0) if first else self.bodies.get(name)
                return Response(b"{}", 404) if body is None else Response(body)

            return answer

        return Starlette(routes=[Route(endpoint.path, route(endpoint.name)) for endpoint in ENDPOINTS])


class Scraper:
    """An exporter whose time a test moves.

    Attributes:
        api: What it asks.
        clock: Its time.
    """

    def __init__(self, api: Api, exporter: Exporter, clock: Clock) -> None:
        self.api = api
        self.clock = clock
        self._exporter = exporter

    async def page(self, *, at: float = 0.0) -> Page:
        """Return the page at so many seconds after noon."""
        self.clock.now = NOON + at
        return parse_page((await self._exporter.page(Format.TEXT, timeout=20)).decode())

    async def requests(self, *, at: float) -> Counter[str]:
        """Return how often a page at that time made the exporter ask each endpoint."""
        before = self.api.asked.copy()
        await self.page(at=at)
        return self.api.asked - before


@asynccontextmanager
async def scraping(role: str = "test_miner", *, ttl: Sequence[str] = ("chutes=600",)) -> AsyncIterator[Scraper]:
    miner, clock = Miner(RECORDINGS, role), Clock()
    api = Api(miner)
    async with served(api.app()) as url:
        credentials = Credentials((miner.key,), (), ())
        settings = make_settings(api_url=url, credentials=credentials, collectors=ALL_ON, ttl=ttl)
        async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
            yield Scraper(api, exporter, clock)


def doubts(page: Page) -> dict[str, str]:
    """Return the reason for which each feed is doubted."""
    found = {}
    for (name, labels), value in page.items():
        if name == "chutes_feed_doubted" and value:
            named = dict(labels)
            assert named["feed"] not in found
            found[named["feed"]] = named["reason"]
    return found


def count(page: Page, name: str) -> int:
    return sum(metric == name for metric, _ in page)


def feed(page: Page, metric: str, name: str, hotkey: str = "") -> float | None:
    return page.get(series(f"chutes_feed_{metric}", feed=name, hotkey=hotkey))


def sort_chutes(api: Api) -> list[dict[str, Any]]:
    """Put the chutes that run somewhere last, and return all."""
    running = {one["chute_id"] for one in api.records("metrics")}
    chutes = sorted(api.records("chutes"), key=lambda chute: chute["chute_id"] in running)
    api.bodies["chutes"] = stream(chutes)
    return chutes


async def test_a_stream_that_ends_early_is_not_believed_until_the_last_good_one_is_too_old() -> None:
    async with scraping() as scraper:
        chutes = sort_chutes(scraper.api)
        whole = await scraper.page()
        assert (count(whole, "chutes_chute_info"), doubts(whole)) == (len(chutes), {})
        scraper.api.bodies["chutes"] = stream(chutes[:25])
        for at in (601, 1801, HOUR - 1):
            page = await scraper.page(at=at)
            assert doubts(page) == {"chutes": "disagrees"}
            assert count(page, "chutes_chute_info") == feed(page, "records", "chutes") == len(chutes)
            assert feed(page, "up", "chutes") == 0
            assert page[series("chutes_feed_failure_info", feed="chutes", reason="doubted")] == 1
            assert feed(page, "last_success_timestamp_seconds", "chutes") == NOON
        page = await scraper.page(at=HOUR + 1201)
        assert doubts(page) == {"chutes": "disagrees"}
        assert count(page, "chutes_chute_info") == feed(page, "records", "chutes") == 25
        assert feed(page, "up", "chutes") == 1


async def test_a_doubted_answer_gives_way_to_a_newer_one_and_to_a_whole_one() -> None:
    async with scraping() as scraper:
        chutes = sort_chutes(scraper.api)
        whole = scraper.api.bodies["chutes"]
        scraper.api.bodies["chutes"] = stream(chutes[:25])
        # The other answers are under way as well, and the chutes wait for them.
        page = await scraper.page()
        assert doubts(page) == {"chutes": "disagrees"}
        assert count(page, "chutes_chute_info") == 25
        scraper.api.bodies["chutes"] = stream(chutes[:20])
        page = await scraper.page(at=601)
        assert doubts(page) == {"chutes": "disagrees"}
        assert count(page, "chutes_chute_info") == 20
        assert feed(page, "last_success_timestamp_seconds", "chutes") == NOON + 601
        scraper.api.bodies["chutes"] = whole
        page = await scraper.page(at=1202)
        assert doubts(page) == {}
        assert count(page, "chutes_chute_info") == len(chutes)


async def test_a_stream_that_ends_early_once_is_asked_for_again_at_once() -> None:
    async with scraping() as scraper:
        chutes = sort_chutes(scraper.api)
        await scraper.page()
        scraper.api.once["chutes"] = [stream(chutes[:25])]
        assert (await scraper.requests(at=601))["chutes"] == 2
        page = await scraper.page(at=602)
        assert (count(page, "chutes_chute_info"), doubts(page)) == (len(chutes), {})
        assert (await scraper.requests(at=660))["chutes"] == 0


async def test_two_short_answers_that_differ_confirm_nothing() -> None:
    async with scraping() as scraper:
        chutes = sort_chutes(scraper.api)
        await scraper.page()
        scraper.api.once["chutes"] = [stream(chutes[:25]), stream(chutes[:10])]
        page = await scraper.page(at=601)
        assert doubts(page) == {"chutes": "shrunk"}
        assert count(page, "chutes_chute_info") == len(chutes)


async def test_a_list_that_really_shrank_is_accepted_when_a_second_answer_confirms_it() -> None:
    async with scraping() as scraper:
        await scraper.page()
        seats = json.loads(scraper.api.bodies["metagraph"])
        scraper.api.bodies["metagraph"] = json.dumps(seats[:9]).encode()
        assert (await scraper.requests(at=181))["metagraph"] == 2
        page = await scraper.page(at=182)
        assert (page[series("chutes_metagraph_miners")], doubts(page)) == (9, {})
        # From now on 9 is what is usual.
        assert (await scraper.requests(at=362))["metagraph"] == 1


async def test_chutes_that_are_gone_everywhere_are_gone() -> None:
    async with scraping() as scraper:
        chutes = sort_chutes(scraper.api)
        await scraper.page()
        left = chutes[:40]
        ids = {chute["chute_id"] for chute in left}
        running = json.loads(scraper.api.bodies["active_instances"])
        scraper.api.bodies["active_instances"] = json.dumps([one for one in running if one["chute_id"] in ids]).encode()
        demand = [one for one in scraper.api.records("metrics") if one["chute_id"] in ids]
        scraper.api.bodies["metrics"] = stream(demand)
        scraper.api.bodies["chutes"] = stream(left)
        asked = await scraper.requests(at=601)
        page = await scraper.page(at=602)
        assert doubts(page) == {}
        assert count(page, "chutes_chute_info") == 40
        # Each of the lists that shrank is confirmed by one more request.
        assert (asked["chutes"], asked["active_instances"], asked["metrics"]) == (2, 2, 2)


async def test_a_shorter_list_by_a_fifth_needs_no_confirmation() -> None:
    async with scraping() as scraper:
        chutes = sort_chutes(scraper.api)
        await scraper.page()
        scraper.api.bodies["chutes"] = stream(chutes[len(chutes) // 5 :])
        assert (await scraper.requests(at=601))["chutes"] == 1
        page = await scraper.page(at=602)
        assert (count(page, "chutes_chute_info"), doubts(page)) == (len(chutes) - len(chutes) // 5, {})


def all_but_one(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the GPUs without one that a server lists."""
    lost = next(node for node in nodes if node["server_id"] is not None)
    return [node for node in nodes if node is not lost]


async def test_gpus_that_only_the_servers_list_make_the_nodes_doubtful() -> None:
    async with scraping() as scraper:
        nodes = scraper.api.records("nodes")
        scraper.api.bodies["nodes"] = stream(all_but_one(nodes))
        page = await scraper.page()
        assert doubts(page) == {"nodes": "disagrees"}
        # Nothing older is there: what is listed is shown, and nothing is counted.
        assert count(page, "chutes_gpu_info") == len(nodes) - 1
        assert count(page, "chutes_fleet_gpus") == 0
        assert scraper.api.asked["nodes"] == 2
        scraper.api.bodies["nodes"] = stream(nodes)
        page = await scraper.page(at=2 * MINUTE)
        assert doubts(page) == {}
        assert count(page, "chutes_gpu_info") == len(nodes)
        assert count(page, "chutes_fleet_gpus") > 0


async def test_the_last_good_gpus_stay_while_the_nodes_disagree_with_the_servers() -> None:
    async with scraping() as scraper:
        before = await scraper.page()
        scraper.api.bodies["nodes"] = stream(all_but_one(scraper.api.records("nodes")))
        page = await scraper.page(at=2 * MINUTE)
        assert doubts(page) == {"nodes": "disagrees"}
        of_gpus = {key: value for key, value in before.items() if key[0] in ("chutes_gpu_info", "chutes_fleet_gpus")}
        assert of_gpus.items() <= page.items()


async def test_instances_that_hold_gpus_and_are_not_listed_make_the_instances_doubtful() -> None:
    async with scraping() as scraper:
        before = await scraper.page()
        instances = scraper.api.records("instances")
        scraper.api.bodies["instances"] = stream([one for one in instances if not one["active"]])
        page = await scraper.page(at=MINUTE)
        assert doubts(page) == {"instances": "disagrees"}
        states = {key: value for key, value in before.items() if key[0] == "chutes_fleet_instances"}
        assert states.items() <= page.items()
        # Instances that are missing from a doubted answer have not stopped.
        for minute in (2, 3, 4, 5):
            page = await scraper.page(at=minute * MINUTE)
        assert page[series("chutes_observed_instances_stopped_total", hotkey=HOTKEY)] == 0
        # Ten minutes are the most that instances may be old.
        page = await scraper.page(at=15 * MINUTE)
        assert doubts(page) == {"instances": "disagrees"}
        assert count(page, "chutes_fleet_instances") == 0
        assert count(page, "chutes_fleet_gpus") == 0
        assert count(page, "chutes_instance_info") == len([one for one in instances if not one["active"]])


async def test_an_instance_that_just_ended_is_no_doubt() -> None:
    async with scraping(ttl=["instances=20"]) as scraper:
        await scraper.page()
        inventory = json.loads(scraper.api.bodies["inventory"])
        gone = inventory[0]["chute_id"]
        left = [one for one in scraper.api.records("instances") if one["chute_id"] != gone]
        scraper.api.bodies["instances"] = stream(left)
        scraper.api.bodies["inventory"] = json.dumps([one for one in inventory if one["chute_id"] != gone]).encode()
        # The inventory is still fresh and names the chute: both are asked once more, and agree.
        assert await scraper.requests(at=30) == {"instances": 2, "inventory": 1}
        page = await scraper.page(at=31)
        assert doubts(page) == {}
        assert sum(value for (name, _), value in page.items() if name == "chutes_fleet_instances") == len(left)


def without_demand(metrics: list[dict[str, Any]]) -> bytes:
    zero = dict.fromkeys(
        ("total_invocations", "total_compute_time", "rate_limit_count", "utilization", "total_usage_usd"), 0
    )
    return stream([one | zero for one in metrics])


DEMAND = (
    "chutes_chute_window_compute_seconds",
    "chutes_chute_window_rate_limits",
    "chutes_chute_window_usage_usd",
    "chutes_chute_utilization_ratio",
)


async def test_a_platform_without_any_demand_is_unknown_not_idle() -> None:
    async with scraping() as scraper:
        recorded = scraper.api.bodies["metrics"]
        metrics = scraper.api.records("metrics")
        scraper.api.bodies["metrics"] = without_demand(metrics)
        page = await scraper.page()
        assert doubts(page) == {"metrics": "no_demand"}
        assert [count(page, name) for name in DEMAND] == [0] * len(DEMAND)
        assert not [key for key in page if key[0] == "chutes_chute_window_invocations" and ("window", "1h") in key[1]]
        # Values that do not come from the service's monitoring stay.
        assert count(page, "chutes_chute_instances") == len(metrics)
        # Asking again at once would bring the same.
        assert scraper.api.asked["metrics"] == 1
        scraper.api.bodies["metrics"] = recorded
        page = await scraper.page(at=2 * MINUTE)
        assert doubts(page) == {}
        assert [count(page, name) for name in DEMAND] == [len(metrics)] * len(DEMAND)


async def test_the_last_demand_stays_while_the_services_monitoring_is_down() -> None:
    async with scraping() as scraper:
        metrics = scraper.api.records("metrics")
        before = await scraper.page()
        scraper.api.bodies["metrics"] = without_demand(metrics)
        page = await scraper.page(at=14 * MINUTE)
        assert doubts(page) == {"metrics": "no_demand"}
        demand = {key: value for key, value in before.items() if key[0] in DEMAND}
        assert len(demand) == len(metrics) * len(DEMAND)
        assert demand.items() <= page.items()
        page = await scraper.page(at=30 * MINUTE)
        assert doubts(page) == {"metrics": "no_demand"}
        assert [count(page, name) for name in DEMAND] == [0] * len(DEMAND)


@pytest.mark.parametrize(
    ("field", "metric"),
    [
        ("total_compute_time", "chutes_chute_window_compute_seconds"),
        ("total_usage_usd", "chutes_chute_window_usage_usd"),
        ("utilization", "chutes_chute_utilization_ratio"),
    ],
)
async def test_a_field_that_is_zero_for_every_chute_was_not_measured(field: str, metric: str) -> None:
    async with scraping() as scraper:
        metrics = scraper.api.records("metrics")
        scraper.api.bodies["metrics"] = stream([one | {field: 0} for one in metrics])
        page = await scraper.page()
        assert doubts(page) == {}
        assert count(page, metric) == 0
        others = [count(page, name) for name in DEMAND if name != metric]
        assert others == [len(metrics)] * len(others)


async def test_bounties_that_disappear_all_at_once_are_doubted() -> None:
    async with scraping() as scraper:
        before = await scraper.page()
        assert count(before, "chutes_chute_bounty_age_seconds") > 2
        chutes = scraper.api.records("chutes")
        scraper.api.bodies["chutes"] = stream([chute | {"bounty": None} for chute in chutes])
        asked = await scraper.requests(at=601)
        assert asked["chutes"] == 1
        page = await scraper.page(at=602)
        assert doubts(page) == {"chutes": "no_bounties"}
        ages = {key: value for key, value in before.items() if key[0] == "chutes_chute_bounty_age_seconds"}
        assert ages.items() <= page.items()


async def test_one_bounty_may_be_claimed() -> None:
    async with scraping() as scraper:
        await scraper.page()
        chutes = scraper.api.records("chutes")
        with_bounty = [chute["chute_id"] for chute in chutes if chute["bounty"] is not None]
        left = [chute | {"bounty": None} if chute["chute_id"] != with_bounty[0] else chute for chute in chutes]
        scraper.api.bodies["chutes"] = stream(left)
        page = await scraper.page(at=601)
        assert doubts(page) == {}
        assert count(page, "chutes_chute_bounty_age_seconds") == 1


async def test_a_history_that_the_service_does_not_find_is_kept() -> None:
    async with scraping() as scraper:
        before = await scraper.page()
        del scraper.api.bodies["unique_chute_history"]
        history = {key: value for key, value in before.items() if key[0] == "chutes_miner_average_active_gpus"}
        assert len(history) == 1
        for at in (901, 2 * HOUR - 1):
            page = await scraper.page(at=at)
            assert doubts(page) == {"unique_chute_history": "no_history"}
            assert history.items() <= page.items()
        page = await scraper.page(at=3 * HOUR)
        assert count(page, "chutes_miner_average_active_gpus") == 0


async def test_a_miner_that_owns_nothing_has_zeros_and_no_doubt() -> None:
    async with scraping("newcomer") as scraper:
        hotkey = Miner(RECORDINGS, "newcomer").hotkey
        for at in (0, 60, 120, 1000):
            page = await scraper.page(at=at)
            assert doubts(page) == {}
            for name in (
                "chutes_fleet_servers",
                "chutes_fleet_servers_without_gpus",
                "chutes_miner_active_instances",
                "chutes_jobs_stuck",
            ):
                assert page[series(name, hotkey=hotkey)] == 0
            for state in ("active", "starting", "disabled"):
                assert page[series("chutes_fleet_instances", hotkey=hotkey, state=state)] == 0
            assert count(page, "chutes_gpu_info") == count(page, "chutes_miner_average_active_gpus") == 0
            assert feed(page, "up", "unique_chute_history", hotkey) == 1
        # Each of its feeds was asked once for each time to live.
        assert scraper.api.asked["nodes"] == scraper.api.asked["servers"] == 3
        assert scraper.api.asked["instances"] == scraper.api.asked["inventory"] == 4


async def test_all_feeds_that_are_doubted_together_neither_block_each_other_nor_ask_without_end() -> None:
    async with scraping() as scraper:
        api = scraper.api
        api.bodies["nodes"] = stream(api.records("nodes")[:3])
        api.bodies["instances"] = stream(api.records("instances")[:2])
        api.bodies["chutes"] = stream(api.records("chutes")[:2])
        api.bodies["metrics"] = without_demand(api.records("metrics"))
        pages = await asyncio.gather(*(scraper.page() for _ in range(10)))
        expected = {"nodes": "disagrees", "instances": "disagrees", "chutes": "disagrees", "metrics": "no_demand"}
        assert [doubts(page) for page in pages] == [expected] * 10
        # Two requests each, their evidence once more, and one for each of the others.
        again = {"nodes": 2, "instances": 2, "servers": 2, "inventory": 2, "chutes": 2}
        assert {name: number for name, number in api.asked.items() if number > 1} == again


async def test_a_doubt_that_lasts_costs_two_requests_for_each_time_to_live() -> None:
    async with scraping() as scraper:
        await scraper.page()
        api = scraper.api
        api.bodies["nodes"] = stream(api.records("nodes")[:3])
        api.bodies["instances"] = stream(api.records("instances")[:2])
        api.bodies["chutes"] = stream(api.records("chutes")[:2])
        before = api.asked.copy()
        for minute in range(1, 61):
            await scraper.page(at=minute * MINUTE)
        asked = api.asked - before
        assert asked["chutes"] <= 2 * 6
        assert asked["nodes"] <= 2 * 31
        assert asked["instances"] <= 2 * 60
        # The evidence is asked again with each doubt, and for itself.
        assert asked["servers"] <= 2 * 31
        assert asked["inventory"] <= 2 * 60


async def test_gpus_are_believed_while_the_servers_are_unknown() -> None:
    async with scraping() as scraper:
        del scraper.api.bodies["servers"]
        page = await scraper.page()
        assert doubts(page) == {}
        assert count(page, "chutes_gpu_verified") == len(scraper.api.records("nodes"))


async def test_a_record_that_cannot_be_read_is_no_reason_to_doubt_the_list() -> None:
    async with scraping() as scraper:
        first, *others = scraper.api.records("nodes")
        scraper.api.bodies["nodes"] = stream([first | {"uuid": 7}, *others])
        page = await scraper.page()
        assert doubts(page) == {}
        assert feed(page, "rejected_records", "nodes", HOTKEY) == 1
        assert count(page, "chutes_fleet_gpus") == 0


@pytest.mark.parametrize(
    ("now", "last", "shrinks"), [(8, 10, False), (7, 10, True), (0, 1, True), (0, 0, False), (12, 10, False)]
)
def test_a_list_shrinks_when_it_loses_more_than_a_fifth(now: int, last: int, shrinks: bool) -> None:  # noqa: FBT001
    assert doubt.shrinks(now, last) is shrinks


def test_a_few_chutes_may_be_missing() -> None:
    chutes = [Chute(f"c{number}") for number in range(5)]
    running = [ActiveInstance(f"i{number}", chute_id=f"c{number}") for number in range(7)]
    assert doubt.check_chutes(chutes, None, running, None) is None  # two may have been deleted meanwhile
    assert doubt.check_chutes(chutes, None, [*running, ActiveInstance("i7", chute_id="c7")], None) == "disagrees"
    assert doubt.check_chutes(chutes, None, None, [ChuteMetrics(f"x{number}") for number in range(3)]) == "disagrees"
    assert doubt.check_chutes(chutes, None, [ActiveInstance("i", chute_id=None)] * 9, None) is None
    assert doubt.check_chutes(chutes, None, None, None) is None


async def test_open_bounties_that_disappear_all_at_once_are_doubted() -> None:
    async with scraping() as scraper:
        before = await scraper.page()
        bounties = {key: value for key, value in before.items() if key[0].startswith("chutes_bounty_")}
        assert bounties
        scraper.api.bodies["bounties"] = b"[]"
        # Asking again at once would bring the same.
        assert (await scraper.requests(at=2 * MINUTE))["bounties"] == 1
        for minute in (3, 14):
            page = await scraper.page(at=minute * MINUTE)
            assert doubts(page) == {"bounties": "no_bounties"}
            assert bounties.items() <= page.items()
        page = await scraper.page(at=20 * MINUTE)
        assert [key for key in page if key[0].startswith("chutes_bounty_")] == []


async def test_no_bounties_are_doubted_where_the_chutes_have_some() -> None:
    async with scraping() as scraper:
        scraper.api.bodies["bounties"] = b"[]"
        page = await scraper.page()
        assert doubts(page) == {"bounties": "no_bounties"}
        chutes = scraper.api.records("chutes")
        scraper.api.bodies["chutes"] = stream([chute | {"bounty": None} for chute in chutes[:-2]] + chutes[-2:])
    async with scraping("newcomer", ttl=["chutes=0"]) as scraper:
        scraper.api.bodies["bounties"] = b"[]"
        chutes = scraper.api.records("chutes")
        scraper.api.bodies["chutes"] = stream([chute | {"bounty": None} for chute in chutes])
        assert doubts(await scraper.page()) == {}


async def test_one_open_bounty_may_be_claimed_and_all_but_one() -> None:
    async with scraping() as scraper:
        await scraper.page()
        bounties = json.loads(scraper.api.bodies["bounties"])
        scraper.api.bodies["bounties"] = json.dumps(bounties[:1]).encode()
        page = await scraper.page(at=2 * MINUTE)
        assert doubts(page) == {}
        assert count(page, "chutes_bounty_boost_ratio") == 1


async def test_a_platform_without_any_load_is_unknown_to_the_autoscaler() -> None:
    async with scraping() as scraper:
        before = await scraper.page()
        recorded = json.loads(scraper.api.bodies["utilization"])
        silent = {field: 0.0 for field in recorded[0] if field.startswith(("utilization_", "rate_limit_ratio_"))}
        scraper.api.bodies["utilization"] = json.dumps([row | silent for row in recorded]).encode()
        page = await scraper.page(at=2 * MINUTE)
        assert doubts(page) == {"utilization": "no_demand"}
        assert count(page, "chutes_chute_recent_utilization_ratio") == count(
            before, "chutes_chute_recent_utilization_ratio"
        )
        page = await scraper.page(at=20 * MINUTE)
        assert doubts(page) == {"utilization": "no_demand"}
        assert count(page, "chutes_chute_recent_utilization_ratio") == 0
        assert count(page, "chutes_chute_scale_allowance") == len(recorded)
        assert count(page, "chutes_autoscaler_timestamp_seconds") == 0


async def test_chutes_that_are_missing_from_the_utilization_are_asked_for_again() -> None:
    async with scraping() as scraper:
        await scraper.page()
        recorded = json.loads(scraper.api.bodies["utilization"])
        scraper.api.once["utilization"] = [json.dumps(recorded[:3]).encode()]
        assert (await scraper.requests(at=2 * MINUTE))["utilization"] == 2
        page = await scraper.page(at=2 * MINUTE + 1)
        assert (doubts(page), count(page, "chutes_chute_scalable")) == ({}, len(recorded))


async def test_rolling_updates_and_maintenance_windows_may_end_all_at_once() -> None:
    async with scraping() as scraper:
        await scraper.page()
        scraper.api.bodies["rolling_updates"] = b"[]"
        scraper.api.bodies["maintenance"] = b'{"active_window":null,"current_slots":0,"servers":[]}'
        page = await scraper.page(at=6 * MINUTE)
        assert doubts(page) == {}
        assert {value for (name, _), value in page.items() if name == "chutes_instance_outdated"} == {0}
        assert count(page, "chutes_maintenance_window_end_timestamp_seconds") == 0
        assert page[series("chutes_maintenance_slots_in_use", hotkey=HOTKEY)] == 0


def test_an_answer_without_contrary_evidence_is_believed() -> None:
    nodes = [Node("g1")]
    assert doubt.check_nodes(nodes, None, None) is None
    assert doubt.check_nodes(nodes, None, [Server("s", gpus=[ServerGpu("g1")]), Server("t")]) is None
    assert doubt.check_nodes(nodes, None, [Server("s", gpus=[ServerGpu("g2")])]) == "disagrees"
    assert doubt.check_nodes([], None, None) == "disagrees"
    held = [InventoryItem("g1", chute_id="c1"), InventoryItem("g2")]
    assert doubt.check_instances([], None, held) == "disagrees"
    assert doubt.check_instances([Instance("i", chute_id="c1")], None, held) is None
    assert doubt.check_instances([Instance("i")], None, held) is None
    assert doubt.check_instances([], None, None) is None
