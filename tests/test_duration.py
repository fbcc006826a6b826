from __future__ import annotations

import pytest

from chutes_exporter.duration import human_duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 seconds"),
        (0.44, "0.4 seconds"),
        (42, "42 seconds"),
        (60, "1 minute"),
        (90, "90 seconds"),
        (91, "2 minutes"),
        (-720, "12 minutes"),
        (3600, "1 hour"),
        (7200, "2 hours"),
        (86400, "1 day"),
        (6e5, "7 days"),
    ],
)
def test_durations_are_written_in_words(seconds: float, words: str) -> None:
    assert human_duration(seconds) == words
