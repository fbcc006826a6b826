"""Costs and earnings, while a part of the answers is missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from chutes_exporter.api.records import Node, Server, ServerGpu
from chutes_exporter.collectors import money
from chutes_exporter.config import make_settings
from chutes_exporter.rules.money import Costs, fleet_cost, server_costs
from tests.chain.support import EXPECTED, FakeNode
from tests.recorded import answers, key, rows, stream
from tests.support import PATIENCE, Clock, Page, data_of, replay, scrape, served

if TYPE_CHECKING:
    from chutes_exporter.collectors import Answers, Miners
    from chutes_exporter.collectors.base import Samples

COSTS = {
    "gpu_costs": {"4090": 0.25, "pro_6000": 0.8, "h200": 1.9},
    "server_costs": {"tee-pro-2": 0.65, "gone": 9},
}
"""The user's prices of an hour of a GPU in USD. The miner has no server "gone"."""
PRICE = EXPECTED["subnet"]["price_rao_per_alpha"] / 1e9
"""TAO for an alpha."""
ME = key().address
COLLECTORS = (
    *(money.COSTS, money.EARNINGS, money.COMPUTE_UNIT),
    *(money.PROFIT_OF_DAY, money.PROFIT_BY_SERVER),
)
NAMES = {"chutes_server_idle_cost_usd_per_day"} | {
    metric.name for one in COLLECTORS for metric in one.metrics
}


async def page(bodies: dict[str, bytes], chain: FakeNode | None = None, **more: Any) -> Page:
    """Return the metrics of money on a page about the recorded miner.

    More settings replace those of the test, such as ``COSTS``.
    """
    async with served(replay(bodies)) as url, (chain or FakeNode()).serve() as node:
        choices: dict[str, Any] = {
            "api_url": url,
            "chain_url": node,
            "api_timeout": PATIENCE,
            "keys": [key()],
            "miners": "watched",
        }
        whole_page = data_of(await scrape(make_settings(**choices | COSTS | more), Clock()))
    return {series: value for series, value in whole_page.items() if series[0] in NAMES}


def without(found: Page, *names: str) -> Page:
    return {name: value for name, value in found.items() if name[0] not in names}


SERVER_COST, MINER_COST = "chutes_server_cost_usd_per_gpu_hour", "chutes_miner_cost_usd_per_hour"
PROFIT, UNIT = "chutes_miner_estimated_profit_usd_per_day", "chutes_compute_unit_usd"
IDLE_COST = "chutes_server_idle_cost_usd_per_day"
SERVER_PROFIT = "chutes_server_estimated_profit_usd_per_day"
ALPHA, EARNED = "chutes_alpha_price_usd", "chutes_miner_estimated_usd_per_day"


@pytest.mark.parametrize(
    ("change", "absent"),
    [
        ({"stats": None}, {UNIT, SERVER_PROFIT}),
        ({"fmv": None}, {ALPHA, EARNED, PROFIT, UNIT, SERVER_PROFIT}),
        ({"nodes": None}, {MINER_COST, PROFIT, SERVER_PROFIT, IDLE_COST}),
        ({"servers": None}, {SERVER_COST, MINER_COST, PROFIT, SERVER_PROFIT, IDLE_COST}),
        ({"inventory": None}, {SERVER_PROFIT, IDLE_COST}),
        ({"instances": None}, {SERVER_PROFIT, IDLE_COST}),
        ({"fmv": b'{"tao": null}'}, {ALPHA, EARNED, PROFIT, UNIT, SERVER_PROFIT}),
        ({"stats": b'{"past_day": {"instance_stats": []}}'}, {UNIT, SERVER_PROFIT}),
    ],
    ids=[
        *("no stats", "no TAO", "no GPUs", "no servers", "no places", "no instances"),
        *("price unknown", "no units"),
    ],
)
async def test_what_is_missing_takes_away_only_what_needs_it(
    change: dict[str, bytes | None], absent: set[str]
) -> None:
    bodies = answers()
    changed = {name: body for name, body in (bodies | change).items() if body is not None}
    assert await page(changed) == pytest.approx(without(await page(bodies), *absent))


async def test_without_an_answer_of_the_node_only_the_costs_are_known() -> None:
    node = FakeNode(change=lambda _, __: {"error": "no"})
    found = await page(answers(), node)
    assert found == pytest.approx(
        without(await page(answers()), ALPHA, EARNED, PROFIT, UNIT, SERVER_PROFIT)
    )


@pytest.mark.parametrize(
    "costs",
    [
        {"gpu_costs": {}, "server_costs": {"tee-pro-2": 0.65}},
        {"gpu_costs": {"pro_6000": 0.8, "h200": 1.9}},
    ],
    ids=["one server", "no price of a model"],
)
async def test_the_cost_of_a_fleet_is_absent_if_the_price_of_one_gpu_is_unknown(
    costs: dict[str, Any],
) -> None:
    found = await page(answers(), **costs)
    assert {name[0] for name in found} == {
        *(SERVER_COST, SERVER_PROFIT, IDLE_COST),
        *(ALPHA, EARNED, UNIT),
    }
    # What is there is the same as with all prices.
    known = await page(answers())
    assert found == pytest.approx({name: known[name] for name in found})
    # Some servers have a GPU without a price, and so no profit.
    assert len(found) < len(without(known, MINER_COST, PROFIT))


def server(name: str | None, *gpus: tuple[str, str | None]) -> Server:
    """Return a server with GPUs, each with its id and model."""
    listed = [ServerGpu(uuid, gpu_identifier=model) for uuid, model in gpus]
    return Server(f"id-{name}", name=name, gpus=listed)


def node(uuid: str, model: str | None, server_name: str) -> Node:
    """Return a GPU of the list of GPUs, which the API calls nodes."""
    return Node(uuid, gpu_identifier=model, server_id=f"id-{server_name}")


COSTS_OF_A = Costs({"h200": 2}, {"a": 1.5})
"""An h200 has a price, and so has any GPU of server "a"."""


@pytest.mark.parametrize(
    ("servers", "nodes", "expected"),
    [
        ([], [], 0),
        # Each GPU counts once, whichever answer lists it: 1.5 on "a", and 2 on "b".
        (
            [server("a", ("1", "h200")), server("b")],
            [node("1", "h200", "a"), node("2", "h200", "b")],
            3.5,
        ),
        # A server with a price of its own needs no model.
        ([server("a", ("1", None))], [], 1.5),
        ([server("a")], [node("1", None, "a")], 1.5),
        # Another one needs a model with a price.
        ([server("b", ("1", None))], [node("1", "h200", "b")], 2),
        ([server("b", ("1", None))], [], None),
        ([server("b", ("1", "4090"))], [], None),
        # The server without a name may be the one with a price.
        ([server(None, ("1", "h200"))], [], None),
    ],
)
def test_a_server_has_its_own_price_or_that_of_the_model(
    servers: list[Server], nodes: list[Node], expected: float | None
) -> None:
    assert fleet_cost(servers, nodes, COSTS_OF_A) == expected


NAMELESS = [server("", ("4", "h200")), server(None, ("5", "h200"))]


def test_a_server_or_a_gpu_without_a_name_has_no_series() -> None:
    named = [server("a", ("1", None), ("2", "4090")), server("b", ("3", "h200"))]
    found = server_costs([*named, *NAMELESS], COSTS_OF_A)
    assert [(one.server, one.gpu, one.usd_per_gpu_hour) for one in found] == [
        ("a", "4090", 1.5),
        ("b", "h200", 2),
    ]


async def test_a_server_whose_name_or_gpus_are_unknown_has_no_profit() -> None:
    bodies = answers()
    listed = json.loads(bodies["servers"])
    first, second, *others = sorted(listed["servers"], key=lambda one: one["server_id"])
    first["name"] = None
    # Neither answer has the GPUs of the second one.
    second["gpus"] = []
    nodes = [row for row in rows(bodies["nodes"]) if row["server_id"] != second["server_id"]]
    changed = {"servers": json.dumps(listed).encode(), "nodes": stream(nodes)}
    found = await page(bodies | changed)
    servers = {dict(labels)["server"] for name, labels in found if name == SERVER_PROFIT}
    assert servers == {one["name"] for one in others}


async def test_one_part_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Answers, __: Miners, ___: Samples) -> None:
        raise ZeroDivisionError

    # The first part has the costs of servers, and the other one that of the miner.
    of_servers, _ = money.COSTS.parts
    monkeypatch.setattr(of_servers, "collect", fails)
    with structlog.testing.capture_logs() as logs:
        found = await page(answers())
    assert found == pytest.approx(without(await page(answers()), SERVER_COST))
    assert [log["collector"] for log in logs if log["event"] == "collector failed"] == ["costs"]
