from __future__ import annotations

import pytest

from chutes_exporter.simulator.times import HOUR, MINUTE, last, next_run
from tests.support import NOON


@pytest.mark.parametrize(
    ("now", "before", "after"),
    [
        (NOON, NOON, NOON),
        (NOON + 1, NOON, NOON + 10 * MINUTE),
        (NOON + 10 * MINUTE - 1, NOON, NOON + 10 * MINUTE),
        (NOON + HOUR, NOON + HOUR, NOON + HOUR),
    ],
)
def test_a_program_runs_at_every_full_period(now: float, before: float, after: float) -> None:
    assert last(now, 10 * MINUTE) == before
    assert next_run(now, 10 * MINUTE) == after
