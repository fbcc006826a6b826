"""What a declaration leaves out.

What it makes of the service's records is in the golden pages.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from chutes_exporter.api.decoding import list_of
from chutes_exporter.api.endpoints import Endpoint
from chutes_exporter.api.records import Chute, Record
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Row, Table, Total
from chutes_exporter.feeds.definitions import CHUTES
from chutes_exporter.feeds.feed import Feed
from tests.collectors.support import Samples, collected


class Shop(Record, frozen=True):
    shop_id: str
    hotkey: str | None = None
    price: float | None = None
    city: str | None = None


SHOPS = Feed("shops", Endpoint("shops", "/shops/", list_of(Shop)), ttl=1, max_age=1)


def run(table: Table[Shop], *shops: dict[str, Any], **options: Any) -> Samples:
    """Return the samples of a table for an answer with these shops."""
    answer = [{"shop_id": f"s{number}"} | shop for number, shop in enumerate(shops)]
    return collected(Collector("c", "summary", (table,)), {SHOPS: answer}, **options)


table_of = partial(Table[Shop], SHOPS, key="shop_id")
"""Makes a table of shops with these metrics."""


def test_a_joined_feed_makes_all_metrics_absent_while_it_is_not_whole() -> None:
    def with_a_chute(shops: list[Shop], chutes: list[Chute]) -> list[Shop]:
        chute_ids = {chute.chute_id for chute in chutes}
        return [shop for shop in shops if shop.shop_id in chute_ids]

    table = Table[Shop](
        SHOPS, CHUTES, key="shop_id", records=with_a_chute, x_price=Row("Price.", "price")
    )
    answers: dict[Any, Any] = {
        SHOPS: [{"shop_id": "a", "price": 1}, {"shop_id": "b"}],
        CHUTES: [{"chute_id": "a"}],
    }
    collector = Collector("c", "summary", (table,))
    assert collected(collector, answers) == {"x_price{shop_id=a}": 1}
    assert collected(collector, answers, doubted=[SHOPS]) == {"x_price{shop_id=a}": 1}
    assert collected(collector, answers, doubted=[CHUTES]) == {}


def test_a_total_needs_all_values_and_a_whole_answer() -> None:
    table = table_of(x_shops=Total("Shops.", len), x_sum=Total("Sum.", sum, of="price"))
    assert run(table, {"price": 1}, {"price": 2}) == {"x_shops": 2, "x_sum": 3}
    assert run(table, {"price": 1}, {}) == {"x_shops": 2}
    assert run(table, {"price": 1}, doubted=[SHOPS]) == {}


def test_groups_have_a_value_each() -> None:
    table = table_of(x_sum=Total("Prices by city.", sum, of="price", by="city"))
    ulm, bonn = ({"city": city, "price": 1} for city in ("Ulm", "Bonn"))
    assert run(table, ulm, ulm, bonn) == {"x_sum{city=Ulm}": 2, "x_sum{city=Bonn}": 1}
    # An unknown value hides its group, and an unknown group hides all.
    assert run(table, ulm, bonn, bonn | {"price": None}) == {"x_sum{city=Ulm}": 1}
    assert run(table, ulm, {"price": 1}) == {}


def test_a_watched_miner_without_a_record_has_the_missing_value_if_the_answer_is_whole() -> None:
    table = table_of(
        key="hotkey shop_id", miner="hotkey", x_price=Row("Price.", "price", missing=0)
    )
    # The shop "s" has a record of another miner, so it exists, but none of the watched one.
    shops: list[dict[str, Any]] = [
        {"hotkey": "a", "shop_id": "s"},
        {"hotkey": "me", "shop_id": "t", "price": 1},
    ]
    assert run(table, *shops) == {
        "x_price{hotkey=me,shop_id=s}": 0,
        "x_price{hotkey=me,shop_id=t}": 1,
    }
    assert run(table, *shops, doubted=[SHOPS]) == {"x_price{hotkey=me,shop_id=t}": 1}
