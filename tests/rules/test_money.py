from __future__ import annotations

from chutes_exporter.rules.money import in_usd


def test_an_amount_has_a_value_if_it_and_all_prices_are_known() -> None:
    assert in_usd(5e9, 0.1, 400.0) == 200
    assert in_usd(None, 0.1, 400.0) is None
    assert in_usd(5e9, 0.1, None) is None
