"""The series of a fleet. tests/fleet/ has what is known of it, and in which worlds."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from chutes_exporter.collectors.fleet import COLLECTOR
from chutes_exporter.feeds.fleet import FLEET_FEEDS
from tests.collectors.support import Samples, collected, of
from tests.fleet.test_join import ANSWERS, gpu

SERVER = "hotkey=me,server_id=s1,server=box"


def run(changes: dict[str, Any] | None = None, **options: Any) -> Samples:
    """Return the samples of a fleet with an active instance on two GPUs, a starting one on one GPU,
    and an idle GPU.

    The changes replace answers by name. None is a missing answer.
    """
    bodies = ANSWERS | (changes or {})
    answers = {feed: bodies[feed.name] for feed in FLEET_FEEDS if bodies.get(feed.name) is not None}
    return collected(COLLECTOR, answers, **options)


def with_gpus(*gpus: dict[str, Any], **server: Any) -> dict[str, Any]:
    """Return the answers of a miner whose server has only these GPUs, which are in no instance.

    Other fields of the server can be replaced.
    """
    bodies = deepcopy(ANSWERS)
    bodies["servers"]["servers"][0] |= {"gpus": [*gpus]} | server
    nodes = [one | {"device_index": 0} for one in gpus]
    return bodies | {"nodes": nodes, "inventory": [], "instances": []}


def test_the_gpus_of_a_miner_that_has_none_and_everything_without_a_seat_are_no_topics() -> None:
    assert "topic=gpus" not in str(of(run(with_gpus()), "chutes_fleet_known"))
    assert of(run({"metagraph": [{"hotkey": "other"}]}), "chutes_fleet_known") == {}


def test_after_a_failure_no_topic_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("an unforeseen answer")

    # Its samples are the last ones before those of the topics.
    monkeypatch.setattr("chutes_exporter.collectors.fleet.plan_upgrades", fail)
    made = run(succeeds=False)
    assert of(made, "chutes_server_maintenance_step") == {}
    assert set(of(made, "chutes_fleet_known").values()) == {0}


@pytest.mark.parametrize("tee", [True, False, None])
def test_only_a_server_with_tee_has_a_maintenance_and_a_version_that_boots(
    tee: bool | None,  # noqa: FBT001 - a parameter
) -> None:
    made = run(with_gpus(gpu(1), is_tee=tee))
    found = of(
        made,
        "chutes_server_maintenance_state",
        "chutes_server_maintenance_step",
        "chutes_server_upgrade_needed",
        "chutes_server_version_accepted",
    )
    expected = {
        f"chutes_server_maintenance_state{{{SERVER},state=none}}": 1,
        f"chutes_server_maintenance_state{{{SERVER},state=pending}}": 0,
        f"chutes_server_maintenance_state{{{SERVER},state=maintenance}}": 0,
        f"chutes_server_upgrade_needed{{{SERVER}}}": 0,
        f"chutes_server_version_accepted{{{SERVER}}}": 1,
    }
    for step in ("cannot_return", "boot", "await_drain", "request", "wait"):
        expected[f"chutes_server_maintenance_step{{{SERVER},step={step}}}"] = 0
    expected[f"chutes_server_maintenance_step{{{SERVER},step=nothing}}"] = 1
    assert found == (expected if tee else {})
    assert f"chutes_server_gpus{{{SERVER},gpu=h200,state=idle}}" in made


@pytest.mark.parametrize(
    ("measurement", "step"),
    [
        ({"expected_gpus": ["h200", "b200"], "gpu_count": 4}, "request"),
        # Any number, and names in capital letters.
        ({"expected_gpus": ["H200"], "gpu_count": None}, "request"),
        ({"expected_gpus": ["b200"], "gpu_count": 4}, "cannot_return"),
        ({"expected_gpus": ["h200"], "gpu_count": 8}, "cannot_return"),
        # No answer decides it for a version that is listed for no host. The server has it now.
        ({"version": "1.5.0", "expected_gpus": ["h200"], "gpu_count": 4}, "await_drain"),
        # What the list does not say is unknown.
        ({"expected_gpus": None, "gpu_count": 4}, None),
        ({"expected_gpus": ["h200"]}, None),
        ({"version": 5, "expected_gpus": ["h200"], "gpu_count": 4}, None),
    ],
)
def test_a_server_cannot_come_back_if_the_target_is_listed_for_no_host_with_its_gpus(
    measurement: dict[str, Any], step: str | None
) -> None:
    bodies = deepcopy(ANSWERS)
    bodies["maintenance"] |= {"window_open": True, "current_slots": 0}
    bodies["maintenance"]["servers"][0]["needs_upgrade"] = True
    # The server has 4 h200, and the target is 1.6.2.
    other = {"version": "1.4.0", "expected_gpus": ["h200"], "gpu_count": 4}
    bodies["tee_measurements"] = [other, {"version": "1.6.2"} | measurement]
    steps = of(run(bodies), "chutes_server_maintenance_step")
    expected = f"chutes_server_maintenance_step{{{SERVER},step={step}}}"
    assert [name for name, value in steps.items() if value] == ([expected] if step else [])
