"""Which chutes fail. tests/commands/test_advise.py has a world."""

from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.fleet.ends import End, Ledger
from chutes_exporter.fleet.failures import find_failures


def end(**fields: Any) -> End:
    """Return an end of an instance of the chute c. By default, it is a failure."""
    given: dict[str, Any] = {
        "instance_id": "i",
        "hotkey": "me",
        "chute_id": "c",
        "chute": None,
        "private": False,
        "created_at": 0.0,
        "activated_at": 1.0,
        "ended_at": 2.0,
        "reason": "requests",
        "text": None,
        "is_failure": True,
        "outcome": "lost",
        "lost_units": 0.0,
        "loss_precision": "exact",
        "is_last_of_chute": False,
    }
    return End(**given | fields)


UNCLEAR = end(is_failure=None)


@pytest.mark.parametrize(
    ("ends", "are_all_known", "count", "fails"),
    [
        # A chute fails from three failures on. An end that counts is none, nor is another miner's.
        ([end()] * 2, True, 2, False),
        ([end(), end(), end(is_failure=False), end(hotkey="other")], True, 2, False),
        ([end()] * 3, True, 3, True),
        # Enough failures prove it, and fewer prove nothing while some are not known.
        ([end()] * 2, False, None, None),
        ([end()] * 3, False, None, True),
        # Two ends are not enough, whatever they were.
        ([end(), UNCLEAR], True, 1, False),
        ([end(), UNCLEAR, UNCLEAR], True, 1, None),
        # It may be a failure of any chute.
        ([end(chute_id=None)], True, None, None),
    ],
)
def test_a_chute_fails_from_three_failures_on(
    ends: list[End],
    are_all_known: bool,  # noqa: FBT001 - a parameter
    count: int | None,
    fails: bool | None,  # noqa: FBT001 - a parameter
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Ledger, "ends", lambda _, hours: ends if hours == 6 else [])
    monkeypatch.setattr(Ledger, "missing_hours", lambda _, hours: [] if are_all_known else [hours])
    found = find_failures(Ledger([]), "me")
    assert (found.count("c"), found.fails("c")) == (count, fails)
