from __future__ import annotations

import pytest

from chutes_exporter.api.records import UnixTime, decode_hook


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-24T13:31:01.479547+00:00", 1795527061.479547),
        ("2026-11-24T14:31:01.479547+01:00", 1795527061.479547),
        ("2026-11-24T13:31:01", 1795527061.0),
        ("2026-11-17 13:00:00+00", 1794920400.0),
    ],
)
def test_all_three_ways_to_write_a_time_are_read(text: str, seconds: float) -> None:
    assert decode_hook(UnixTime, text) == seconds


@pytest.mark.parametrize(
    "value", ["9999-12-31 23:59:59-23:59", "0001-01-01 00:00:00+23:59", "", "yesterday", 5]
)
def test_an_invalid_time_is_refused_and_not_shown(value: object) -> None:
    with pytest.raises(ValueError, match=r"^not a time$"):
        decode_hook(UnixTime, value)
