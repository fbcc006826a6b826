"""Each kind of a declaration, once. What it makes of the service's records is in tests/test_recordings.py."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from msgspec import UNSET

from chutes_exporter.api.decoding import list_of
from chutes_exporter.api.endpoints import Endpoint
from chutes_exporter.api.records import Chute, Nullable, Record
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table, Total
from chutes_exporter.feeds.feed import Feed
from chutes_exporter.feeds.table import CHUTES
from tests.collectors.support import Collected, collected


class Place(Record, frozen=True):
    city: str | None = None


class Shop(Record, frozen=True):
    shop_id: str
    hotkey: str | None = None
    price: float | None = None
    open: Nullable[bool] = UNSET
    place: Place | None = None
    stock: dict[str, float | None] | None = None
    sorts: list[str] | None = None


OWN = Feed("own", Endpoint("own", "/own/", list_of(Shop), "signer"), 1, 1)
PUBLIC = Feed("public", Endpoint("public", "/public/", list_of(Shop)), 1, 1)


def run(table: Table[Shop], *shops: dict[str, Any], **options: Any) -> Collected:
    answer = [{"shop_id": f"s{number}"} | shop for number, shop in enumerate(shops)]
    return collected(Collector("c", "summary", (table,)), {table.feed: answer}, **options)


public = partial(Table[Shop], PUBLIC, key="shop_id")
"""Makes a table of public data."""


def test_a_field_of_each_record_is_labelled_with_the_miner_and_the_key() -> None:
    table = Table[Shop](OWN, key="shop_id", label="shop", x_price=Row("Price.", "price"))
    assert run(table, {"price": 2}, {"price": 0}).samples == {
        "x_price{hotkey=me,shop=s0}": 2,
        "x_price{hotkey=me,shop=s1}": 0,
    }


@pytest.mark.parametrize("shop", [{}, {"open": None}, {"place": None}, {"place": {"city": None}}])
def test_an_unknown_value_makes_no_sample(shop: dict[str, Any]) -> None:
    table = public(x_open=Row("Open.", "open"), x_city=Row("Length.", "place.city", convert=len))
    assert run(table, shop).samples == {}


def test_a_value_is_a_field_of_a_field_or_a_function_of_either() -> None:
    table = public(
        x_length=Row("Length of the city.", "place.city", convert=len),
        x_double=Row("Twice the price.", lambda shop: 2 * shop.price),
    )
    assert run(table, {"place": {"city": "Ulm"}, "price": 4}).samples == {
        "x_length{shop_id=s0}": 3,
        "x_double{shop_id=s0}": 8,
    }


def test_a_row_with_a_further_label_has_several_values() -> None:
    table = public(
        x_stock=Row("Stock.", "stock", by="sort", times=9),
        x_prices=Row("Prices.", {"now": "price", "before": "price"}, by="time", times=2),
    )
    assert run(table, {"stock": {"tea": 1, "rum": None}, "price": 5}).samples == {
        "x_stock{shop_id=s0,sort=tea}": 1,
        "x_prices{shop_id=s0,time=now}": 5,
        "x_prices{shop_id=s0,time=before}": 5,
    }


def test_the_first_of_two_records_with_one_key_counts() -> None:
    made = run(public(x_price=Row("Price.", "price")), {"shop_id": "a", "price": 1}, {"shop_id": "a", "price": 2})
    assert made == Collected({"x_price{shop_id=a}": 1}, duplicates=1)


def test_a_joined_feed_makes_all_metrics_absent_while_it_is_not_whole() -> None:
    def with_bounty(shops: list[Shop], chutes: list[Chute]) -> list[Shop]:
        return [shop for shop in shops if shop.shop_id in {chute.chute_id for chute in chutes}]

    table = Table[Shop](PUBLIC, CHUTES, key="shop_id", records=with_bounty, x_price=Row("Price.", "price"))
    answers: dict[Any, Any] = {PUBLIC: [{"shop_id": "a", "price": 1}, {"shop_id": "b"}], CHUTES: [{"chute_id": "a"}]}
    collector = Collector("c", "summary", (table,))
    assert collected(collector, answers).samples == {"x_price{shop_id=a}": 1}
    assert collected(collector, answers, doubted=[PUBLIC]).samples == {"x_price{shop_id=a}": 1}
    assert collected(collector, answers, doubted=[CHUTES]).samples == {}


def test_an_info_has_texts_for_the_records_that_have_them() -> None:
    table = public(
        x_shop_info=Info("City.", {"city": "place.city", "size": lambda shop: len(shop.shop_id)}, only="open")
    )
    assert run(table, {"open": True}, {"open": True, "place": {"city": "Ulm"}}, {"open": False}, {}).samples == {
        "x_shop_info{shop_id=s0,size=2}": 1,
        "x_shop_info{shop_id=s1,city=Ulm,size=2}": 1,
    }


def test_a_total_needs_all_values_and_a_whole_answer() -> None:
    table = public(x_shops=Total("Shops.", len), x_sum=Total("Sum.", sum, of="price"))
    assert run(table, {"price": 1}, {"price": 2}).samples == {"x_shops": 2, "x_sum": 3}
    assert run(table, {"price": 1}, {}).samples == {"x_shops": 2}
    assert run(table, {"price": 1}, doubted=[PUBLIC]).samples == {}


def test_a_total_of_some_records_is_unknown_if_one_may_belong_to_them() -> None:
    def opened(shop: Shop) -> bool | None:
        return None if shop.open is UNSET else bool(shop.open)

    table = Table[Shop](OWN, key="shop_id", x_sum=Total("Prices of open shops.", sum, of="price", where=opened))
    assert run(table, {"open": True, "price": 2}, {"open": False}).samples == {"x_sum{hotkey=me}": 2}
    assert run(table, {"open": True, "price": 2}, {"price": 2}).samples == {}


def test_groups_have_a_value_each() -> None:
    table = public(x_sum=Total("Prices by city.", sum, of="price", by="place.city", label="city"))
    ulm, bonn = ({"place": {"city": city}, "price": 1} for city in ("Ulm", "Bonn"))
    assert run(table, ulm, ulm, bonn).samples == {"x_sum{city=Ulm}": 2, "x_sum{city=Bonn}": 1}
    # An unknown value hides its group, and an unknown group hides all.
    assert run(table, ulm, bonn, bonn | {"price": None}).samples == {"x_sum{city=Ulm}": 1}
    assert run(table, ulm, {"price": 1}).samples == {}


def test_all_possible_groups_are_there_and_a_record_can_be_in_several() -> None:
    table = public(x_shops=Total("Shops by sort.", len, by="sorts", label="sort", among=("rum", "tea")))
    assert run(table, {"sorts": ["tea", "nut"]}, {"sorts": ["tea"]}).samples == {
        "x_shops{sort=rum}": 0,
        "x_shops{sort=tea}": 2,
        "x_shops{sort=nut}": 1,
    }


MINERS = Table[Shop](
    PUBLIC,
    key="hotkey",
    miner="hotkey",
    active="price",
    x_registered=Row("Registered.", lambda _: 1, missing=0),
    x_rank=Total("Rank.", lambda shops: {shop.hotkey: rank for rank, shop in enumerate(shops)}, label="hotkey"),
)


@pytest.mark.parametrize(("miners", "exported"), [("watched", "m"), ("active", "am"), ("all", "abm")])
def test_only_exported_miners_have_samples(miners: str, exported: str) -> None:
    shops = [{"hotkey": "a", "price": 1}, {"hotkey": "m", "price": 0}, {"hotkey": "b", "price": 0}]
    made = run(MINERS, *shops, watched=["m"], miners=miners)
    assert made.of("x_registered") == {f"x_registered{{hotkey={hotkey}}}": 1 for hotkey in exported}
    assert made.of("x_rank") == {f"x_rank{{hotkey={hotkey}}}": "amb".index(hotkey) for hotkey in exported}


def test_a_watched_miner_without_a_record_has_the_missing_value_if_the_answer_is_whole() -> None:
    assert run(MINERS, {"hotkey": "a"}).samples == {"x_registered{hotkey=me}": 0}
    assert run(MINERS, {"hotkey": "a"}, doubted=[PUBLIC]).samples == {}
    table = public(key="hotkey shop_id", miner="hotkey", x_price=Row("Price.", "price", missing=0))
    # For each rest of the key that another miner has.
    shops: list[dict[str, Any]] = [{"hotkey": "a", "shop_id": "s"}, {"hotkey": "me", "shop_id": "t", "price": 1}]
    assert run(table, *shops).samples == {"x_price{hotkey=me,shop_id=s}": 0, "x_price{hotkey=me,shop_id=t}": 1}


def test_each_watched_miner_is_a_group_and_no_other_without_a_field_for_it() -> None:
    total = Total("Shops by miner.", len, by="hotkey", label="hotkey")
    shops = [{"hotkey": "a"}, {"hotkey": "c"}]
    made = run(public(x_shops=total), *shops, watched=["a", "b"], miners="all")
    assert made.samples == {"x_shops{hotkey=a}": 1, "x_shops{hotkey=b}": 0}
    table = Table[Shop](PUBLIC, key="shop_id", miner="hotkey", x_shops=total)
    assert run(table, *shops, watched=["a"], miners="active").samples == {
        "x_shops{hotkey=a}": 1,
        "x_shops{hotkey=c}": 1,
    }


def test_the_source_and_the_number_of_series_follow_from_the_declarations() -> None:
    table = Table[Shop](
        OWN,
        key="shop_id",
        x_shop_info=Info("Texts.", {"city": "place.city", "price": "price"}),
        x_stock=Row("Stock.", "stock", by="sort", times=4),
        x_double=Row("Twice the price.", lambda shop: 2 * shop.price),
        x_shops=Total("Shops.", len),
        x_open=Total("Shops by state.", len, by="open", label="state", among=("true", "false")),
    )
    assert [metric.source for metric in table.metrics] == [
        "GET /own/: place.city, price",
        "GET /own/: stock",
        "GET /own/",
        "GET /own/",
        "GET /own/: open",
    ]
    assert Collector("c", "summary", (table,)).series == {"hotkey with a key": 3, "shop": 6}
