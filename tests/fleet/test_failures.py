"""Which chutes fail. tests/commands/test_advise.py has a world."""

from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.api.records import Chute, NodeSelector
from chutes_exporter.fleet.ends import End, Ledger
from chutes_exporter.fleet.failures import find_failures
from chutes_exporter.rules.losses import Loss
from tests.fleet.support import make_fleet, make_gpus, make_instance, make_server


def end(**fields: Any) -> End:
    """Return an end of an instance of the chute c. By default, it is a failure."""
    given: dict[str, Any] = {
        "instance_id": "i",
        "hotkey": "me",
        "chute_id": "c",
        "chute_record": None,
        "private": False,
        "created_at": 0.0,
        "activated_at": 1.0,
        "ended_at": 2.0,
        "reason": "requests",
        "text": None,
        "is_failure": True,
        "outcome": "lost",
        "loss": Loss(0.0, "exact"),
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
    monkeypatch.setattr(Ledger, "missing_hours", lambda _, hours: 0 if are_all_known else hours)
    found = find_failures(Ledger([]), "me")
    assert (found.count("c"), found.fails("c")) == (count, fails)


def test_older_instances_tell_on_which_servers_it_cannot_have_failed() -> None:
    selector = NodeSelector(gpu_count=1, supported_gpus=["pro_6000"])
    ends = [end(chute_record=Chute("c", node_selector=selector))] * 3
    # The ends are at 2. On both GPUs of each server runs an instance since then or before.
    servers = [
        make_server(
            name,
            *make_gpus("earning", 2, instance_id="i1"),
            instances=(make_instance(**fields),),
            **of,
        )
        for name, fields, of in (
            ("older", {"created_at": 1.0}, {}),
            ("newer", {"created_at": 3.0}, {}),
            ("unknown", {"created_at": None}, {}),
            ("incomplete", {"created_at": 1.0}, {"is_complete": False}),
        )
    ]
    assert make_fleet(*servers).suspects(ends) == ["tee incomplete", "tee newer", "tee unknown"]
