from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from starlette.responses import Response

from chutes_exporter.chain.subnet import HOTKEY as HOTKEYS
from chutes_exporter.duration import DAY
from chutes_exporter.feeds.definitions import CHAIN, METAGRAPH
from chutes_exporter.page.exporter import Exporter
from tests.chain.support import EXPECTED, FakeNode, number, recorded_block
from tests.exporters import patient
from tests.pages import Page, data_of, series
from tests.support import NOON, PATIENCE, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.replay import Replay

SUBNET = EXPECTED["subnet"]
VERSION = series("chutes_chain_info", spec_version=str(EXPECTED["spec_version"]))
PAID = sum(seat["alpha_per_day_rao"] for seat in EXPECTED["seats"].values())
"""Rao of alpha that all miners are paid a day."""
MINERS_PART = 88_970_496_713 / 217 / 1e9
"""The rao that gathered for miners in 217 blocks since the epoch, of an alpha for each block."""
TAO = {series("chutes_tao_price_usd"): 400}
"""What does not come from the node, but from the API."""
UP = series("chutes_feed_up", feed="chain")


def expected_page() -> Page:
    """Return what the page has to say about the recorded block."""
    price = SUBNET["price_rao_per_alpha"]
    page = {
        series("chutes_chain_block"): EXPECTED["head"]["number"],
        VERSION: 1,
        **TAO,
        series("chutes_subnet_alpha_price_tao"): price / 1e9,
        series("chutes_subnet_emission_alpha_per_day"): PAID / 1e9,
        series("chutes_subnet_miners_emission_ratio"): MINERS_PART,
        series("chutes_subnet_registration_cost_tao"): SUBNET["burn_rao"] / 1e9,
        series("chutes_subnet_registration_open"): float(SUBNET["registration_allowed"]),
        series("chutes_subnet_free_seats"): SUBNET["free_seats"],
        series("chutes_subnet_window_registrations", window="1d"): SUBNET[
            "registrations_last_7200_blocks_at_least"
        ],
    }
    for hotkey, seat in EXPECTED["seats"].items():
        page |= expected_seat(hotkey, seat)
    return page


def expected_seat(hotkey: str, seat: dict[str, Any]) -> Page:
    """Return what the page has to say about a seat."""
    alpha = seat["alpha_per_day_rao"] / 1e9
    page = {
        series("chutes_miner_seat_immune", hotkey=hotkey): float(seat["immune"]),
        series("chutes_miner_emission_alpha_per_day", hotkey=hotkey): alpha,
    }
    registrations = seat["registrations_before"]
    if registrations is not None:
        page[series("chutes_miner_registrations_before_loss", hotkey=hotkey)] = registrations
    if seat["immune"]:
        # A block takes 12 seconds. The newest one is of half a minute before noon.
        blocks = seat["immune_until_block"] - EXPECTED["head"]["number"]
        end = NOON - 30 + 12 * blocks
        page[series("chutes_miner_immunity_end_timestamp_seconds", hotkey=hotkey)] = end
    return page


async def test_the_page_has_every_number_of_a_recorded_block() -> None:
    page = await FakeNode().page()
    assert data_of(page) == pytest.approx(expected_page())
    assert page[UP] == 1


def storage_of(**changes: str | None) -> FakeNode:
    """Return a node with other texts of some items of the subnet. None is no value."""
    return FakeNode(recorded_block(**changes))


def other_value(key: str, text: str | None) -> FakeNode:
    """Return a node with another text of a key, such as that of a seat."""
    block = recorded_block()
    return FakeNode(replace(block, storage={**block.storage, key: text}))


def replying(method: str, reply: Callable[[dict[str, Any]], Any]) -> FakeNode:
    """Return a node that changes its good replies to a method."""
    return FakeNode(change=lambda asked, answer: reply(answer) if asked == method else answer)


def error(code: int, message: str = "no") -> dict[str, Any]:
    """Return a reply of JSON-RPC with an error."""
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}


def another_block(reply: dict[str, Any]) -> dict[str, Any]:
    """Return a reply about the storage as if it were about another block."""
    return {"result": [reply["result"][0] | {"block": "0x" + "ab" * 32}]}


def without_a_key(reply: dict[str, Any]) -> dict[str, Any]:
    """Return a reply about the storage without the last key that was requested."""
    answer = reply["result"][0]
    return {"result": [answer | {"changes": answer["changes"][:-1]}]}


STORAGE, PRICE = "state_queryStorageAt", "state_call"
HOTKEY_7, FIRST_HOTKEY = HOTKEYS.of_uid(7).key, recorded_block().storage[HOTKEYS.of_uid(0).key]
FAULTS: dict[str, tuple[FakeNode, str]] = {
    "null": (storage_of(registration_cost=None), "Burn: it has no value"),
    "cut list": (storage_of(incentive="0x080100"), "Incentive: it has 3 bytes instead of 5"),
    "old": (
        storage_of(milliseconds=number(1000 * (NOON - 3600), 8)),
        "its newest block is 1 hour old, it is behind",
    ),
    "a hotkey twice": (other_value(HOTKEY_7, FIRST_HOTKEY), "Keys: a hotkey has two seats"),
    "another block": (replying(STORAGE, another_block), "the answer is about another block"),
    "a key less": (replying(STORAGE, without_a_key), "MechanismCountCurrent: it has 0 bytes"),
    "unknown method": (
        replying(STORAGE, lambda _: error(-32601)),
        "state_queryStorageAt fails with code -32601",
    ),
    "HTML": (
        replying(STORAGE, lambda _: Response("<html>")),
        "the answer has an unexpected format",
    ),
}
"""Bad nodes, and what the log says about them."""


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_bad_answer_leaves_no_metric_and_the_log_says_what_is_wrong(
    fault: str,
) -> None:
    node, reason = FAULTS[fault]
    with structlog.testing.capture_logs() as logs:
        page = await node.page()
    assert data_of(page) == TAO
    assert page[UP] == 0
    (line,) = (log for log in logs if log["event"] == "feed failed")
    assert reason in line["detail"]
    assert "--chain.url" in line["advice"]


PAY = {
    "chutes_miner_emission_alpha_per_day",
    "chutes_subnet_emission_alpha_per_day",
    "chutes_subnet_miners_emission_ratio",
}


@pytest.mark.parametrize(
    ("node", "absent"),
    [
        (storage_of(mechanisms="0x02"), PAY),
        (storage_of(consensus="0x01"), PAY),
        (storage_of(incentive="0x00"), PAY),
        (storage_of(pending_miners=None), PAY),
        (storage_of(last_paid_epoch=None), PAY),
        (storage_of(last_paid_epoch=number(EXPECTED["head"]["number"], 8)), PAY),
        (storage_of(emission_per_block=None), {"chutes_subnet_miners_emission_ratio"}),
        (storage_of(min_not_immune=None, max_safe=None, mechanisms=None), set()),
        (replying(PRICE, lambda _: error(-32601)), {"chutes_subnet_alpha_price_tao"}),
        (
            replying(PRICE, lambda _: error(1, "Exported method X is not found")),
            {"chutes_subnet_alpha_price_tao"},
        ),
        (replying(PRICE, lambda _: {"result": "0x" + "00" * 8}), {"chutes_subnet_alpha_price_tao"}),
        (FakeNode(fmv=b'{"tao": 0}'), {"chutes_tao_price_usd"}),
        (FakeNode(fmv=b'{"tao": null}'), {"chutes_tao_price_usd"}),
    ],
    ids=[
        "mechanisms",
        "consensus",
        "no incentive",
        "nothing gathered",
        "no epoch",
        "the block of an epoch",
        "no emission",
        "defaults",
        "no price",
        "no function",
        "price of 0",
        "TAO for nothing",
        "no price of TAO",
    ],
)
async def test_what_cannot_be_known_is_absent_and_the_rest_stays(
    node: FakeNode, absent: set[str]
) -> None:
    page = data_of(await node.page())
    assert page == pytest.approx(
        {key: value for key, value in expected_page().items() if key[0] not in absent}
    )


# The block is of about noon.
@pytest.mark.parametrize(
    ("own", "of_api", "is_good"), [(NOON + DAY, NOON, True), (NOON, NOON + DAY, False)]
)
async def test_the_age_of_a_block_counts_by_the_clock_of_the_api(
    replay: Replay, clock: Clock, *, own: float, of_api: float, is_good: bool
) -> None:
    clock.now = of_api
    async with FakeNode().serve() as url:
        settings = patient(replay.url, chain_url=url)
        async with Exporter(settings, clock=Clock(own)) as exporter:
            # Any answer of the API tells its time.
            await exporter.feeds.read(METAGRAPH, PATIENCE)
            assert await exporter.feeds.read(CHAIN, PATIENCE) == is_good


async def test_there_is_a_pause_between_two_requests_to_a_node() -> None:
    fake = FakeNode()
    async with fake.reader() as node:
        node.pause = 0.05
        started = time.monotonic()
        await node.read()
    # A reading has six requests.
    assert time.monotonic() - started >= 5 * 0.05
