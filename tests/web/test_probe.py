from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

import pytest
from bittensor_core import encode_ss58

from chutes_exporter.config import Settings, make_settings
from chutes_exporter.simulator import Fault, Simulator
from tests.support import (
    HOTKEY,
    NOON,
    count_openmetrics,
    get,
    parse_page,
    promtool_complaints,
    series,
    served_exporter,
    successes,
    watching,
)

if TYPE_CHECKING:
    from httpx import Response

STRANGER = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"


async def probe(settings: Settings, target: str, query: str = "") -> Response:
    async with served_exporter(settings) as (url, _):
        return await get(f"{url}/probe?target={target}{query}")


async def test_any_miner_of_the_subnet_has_a_page_of_its_own(simulator: Simulator) -> None:
    miner = simulator.world.miners[3]
    response = await probe(Settings(api_url=simulator.url), miner.hotkey)
    assert response.status_code == 200
    assert promtool_complaints(response.content) == ""
    page = parse_page(response.text)
    assert successes(page) == {"metagraph": 1, "scores": 1, "stats": 1}
    assert page[series("chutes_miner_registered", hotkey=miner.hotkey)] == 1
    assert page[series("chutes_miner_score_ratio", hotkey=miner.hotkey)] == pytest.approx(
        simulator.world.shares(NOON)[miner.hotkey]
    )
    data = {key for key in page if not key[0].startswith("chutes_scrape_")}
    assert {dict(labels)["hotkey"] for _, labels in data} == {miner.hotkey}
    assert not [asked for asked in simulator.requests if asked.signed]


async def test_the_exporters_own_metrics_stay_on_its_own_page(simulator: Simulator) -> None:
    async with served_exporter(watching(simulator.url)) as (url, _):
        page = parse_page((await get(f"{url}/probe?target={HOTKEY}")).text)
        own = ("process_", "python_", "chutes_api_", "chutes_feed_", "chutes_exporter_")
        assert not [name for name, _ in page if name.startswith(own)]
        whole = parse_page((await get(f"{url}/metrics")).text)
    # There they tell of what a probe asked, too.
    assert whole[series("chutes_feed_requests_total", feed="scores", result="hit")] == 1


async def test_a_target_whose_key_is_configured_shows_its_private_data(simulator: Simulator) -> None:
    page = parse_page((await probe(watching(simulator.url), HOTKEY)).text)
    assert page[series("chutes_fleet_servers", hotkey=HOTKEY)] == len(simulator.world.miners[0].servers)
    other = simulator.world.miners[3].hotkey
    page = parse_page((await probe(watching(simulator.url), other)).text)
    assert not [labels for _, labels in page if ("hotkey", HOTKEY) in labels]
    assert "servers" not in successes(page)
    # A signed answer about all miners is on the page, no matter which key signed it.
    assert series("chutes_miner_active_instances", hotkey=other) in page


async def test_a_page_about_a_miner_has_the_numbers_of_the_metrics_page(simulator: Simulator) -> None:
    async with served_exporter(watching(simulator.url)) as (url, _):
        whole = parse_page((await get(f"{url}/metrics")).text)
        page = parse_page((await get(f"{url}/probe?target={HOTKEY}")).text)
    changing = ("chutes_scrape_collector_duration_seconds",)
    shared = {key for key in page.keys() & whole.keys() if key[0] not in changing}
    assert {key: page[key] for key in shared} == {key: whole[key] for key in shared}
    assert {key for key in page if not key[0].startswith("chutes_scrape_")} <= whole.keys()


async def test_collectors_are_chosen_by_name_and_shown_whole(simulator: Simulator) -> None:
    target = simulator.world.miners[3].hotkey
    page = parse_page((await probe(Settings(api_url=simulator.url), target, "&collect[]=metrics")).text)
    assert set(successes(page)) == {"metrics"}
    assert [name for name, _ in page if name == "chutes_chute_utilization_ratio"]
    page = parse_page(
        (await probe(Settings(api_url=simulator.url), target, "&collect[]=stats_per_chute&collect[]=scores")).text
    )
    assert set(successes(page)) == {"stats_per_chute", "scores"}
    # All miners' in one request, whoever is asked about.
    assert [asked.query for asked in simulator.requests if asked.endpoint == "stats"][-1] == {"per_chute": "true"}
    simulator.faults["metagraph"] = Fault(latency=0.1)
    history = parse_page((await probe(Settings(api_url=simulator.url), target, "&collect[]=unique_chute_history")).text)
    assert successes(history) == {"unique_chute_history": 1}


async def test_collector_flags_apply_to_every_target(simulator: Simulator) -> None:
    settings = make_settings(
        api_url=simulator.url, collectors={"scores": False, "unique_chute_history": True}, hotkeys=[HOTKEY]
    )
    page = parse_page((await probe(settings, simulator.world.miners[3].hotkey)).text)
    assert set(successes(page)) == {"metagraph", "stats", "unique_chute_history"}


async def test_the_api_is_asked_about_a_miner_alone_only_where_it_has_a_seat(simulator: Simulator) -> None:
    settings = make_settings(api_url=simulator.url, collectors={"unique_chute_history": True}, hotkeys=[HOTKEY])
    async with served_exporter(settings) as (url, _):
        for number in range(20):
            made_up = encode_ss58(bytes([number]) * 32)
            response = await get(f"{url}/probe?target={made_up}&collect[]=unique_chute_history")
            assert (
                response.status_code,
                "the miner is not registered, or the metagraph is not available yet" in response.text,
            ) == (400, True)
            # Its page is there without.
            page = parse_page((await get(f"{url}/probe?target={made_up}")).text)
            assert page[series("chutes_miner_registered", hotkey=made_up)] == 0
        seated = simulator.world.miners[3].hotkey
        assert "unique_chute_history" in successes(parse_page((await get(f"{url}/probe?target={seated}")).text))
        assert "unique_chute_history" in successes(parse_page((await get(f"{url}/probe?target={HOTKEY}")).text))
        whole = parse_page((await get(f"{url}/metrics")).text)
    asked = [one.endpoint for one in simulator.requests]
    assert asked.count("unique_chute_history") == 2
    # Feeds of a probe's target have no series on the metrics page.
    feeds = {dict(labels).get("hotkey", "") for name, labels in whole if name == "chutes_feed_up"}
    assert feeds == {"", HOTKEY}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("&collect[]=nothing", "There is no collector 'nothing'"),
        ("&collect[]=scores", "The collector scores is switched off"),
        ("&collect[]=servers", "needs the target's key"),
        ("&collect[]=chutes", "needs a hotkey's key: add --hotkey-file"),
    ],
)
async def test_a_collector_without_data_about_the_target_is_refused_with_the_reason(
    simulator: Simulator, query: str, reason: str
) -> None:
    settings = make_settings(api_url=simulator.url, collectors={"scores": False})
    response = await probe(settings, HOTKEY, query)
    assert response.status_code == 400
    assert reason in response.text


async def test_a_miner_without_a_seat_gets_a_page_that_says_so(simulator: Simulator) -> None:
    response = await probe(Settings(api_url=simulator.url), STRANGER)
    assert response.status_code == 200
    page = parse_page(response.text)
    assert page[series("chutes_miner_registered", hotkey=STRANGER)] == 0
    assert set(successes(page).values()) == {1}


@pytest.mark.parametrize(
    "target",
    [
        "",
        "5Invalid",
        HOTKEY[:-1] + ("x" if HOTKEY[-1] != "x" else "y"),
        "http://169.254.169.254/latest/meta-data",
        "127.0.0.1:22",
        "localhost",
        "../../etc/passwd",
        f"{HOTKEY}\r\nX-Injected: yes",
        f"{HOTKEY}%00",
        "<script>alert(1)</script>",
        "0" * 3000,
        encode_ss58(bytes(32))[:-2],
    ],
)
async def test_an_invalid_target_is_refused_with_the_reason(simulator: Simulator, target: str) -> None:
    response = await probe(Settings(api_url=simulator.url), urllib.parse.quote(target, safe=""))
    assert response.status_code == 400
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert "x-injected" not in response.headers
    assert len(response.text) < 500
    assert response.text.endswith(".\n")
    # The next step.
    assert ("/sd?miners=all lists the hotkeys" if target else "use /probe?target=HOTKEY") in response.text
    assert not simulator.requests


async def test_a_probe_has_one_target(simulator: Simulator) -> None:
    async with served_exporter(Settings(api_url=simulator.url)) as (url, _):
        assert (await get(f"{url}/probe")).status_code == 400
        assert (await get(f"{url}/probe?target={HOTKEY}&target={STRANGER}")).status_code == 400


async def test_targets_share_the_platforms_answers(simulator: Simulator) -> None:
    async with served_exporter(Settings(api_url=simulator.url)) as (url, _):
        for miner in simulator.world.miners:
            assert (await get(f"{url}/probe?target={miner.hotkey}")).status_code == 200
    assert sorted(asked.endpoint for asked in simulator.requests) == ["metagraph", "scores", "stats"]


async def test_a_probe_speaks_openmetrics_and_gzip_as_the_metrics_do(simulator: Simulator) -> None:
    async with served_exporter(Settings(api_url=simulator.url)) as (url, _):
        response = await get(f"{url}/probe?target={HOTKEY}", accept="application/openmetrics-text;version=1.0.0")
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert response.headers["content-encoding"] == "gzip"
    assert count_openmetrics(response.text) > 10


async def test_probes_of_a_page_too_large_are_cut_too(simulator: Simulator) -> None:
    page = parse_page((await probe(Settings(api_url=simulator.url, max_series=1), HOTKEY)).text)
    assert page[series("chutes_scrape_collector_cut", collector="metagraph")] == 1
