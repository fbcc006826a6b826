from __future__ import annotations

import pytest

from chutes_exporter.rules.losses import end_reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("miner initialized", "miner"),
        ("Rolling update timeout", "update"),
        ("instance 1 of chute 2 has an old version of the chute", "update"),
        (
            (
                "Private chute chute.chute_id='1' chute.name='x' already has >= target_count=1 "
                "active instances"
            ),
            # The service takes this end back with the request that it refused.
            "other",
        ),
        ("Private chute has an old versio", "other"),
        ("a text of tomorrow", "other"),
        ("", "none"),
        (None, "none"),
    ],
)
def test_a_text_of_the_service_has_a_reason(text: str | None, reason: str) -> None:
    assert end_reason(text) == reason
