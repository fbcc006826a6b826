from __future__ import annotations

from chutes_exporter.rules.sums import total


def test_a_sum_is_unknown_where_a_part_is_or_no_number_is_large_enough() -> None:
    assert total([0.1] * 10) == 1
    assert total([1.0, None]) is None
    assert total([1e308, 1e308]) is None
    assert total([1e308, float("inf")]) is None
