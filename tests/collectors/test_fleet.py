"""The series of a fleet. tests/fleet/ has what is known of it, and in which worlds."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from chutes_exporter.collectors.fleet import COLLECTOR
from chutes_exporter.feeds.definitions import INSTANCES
from chutes_exporter.feeds.fleet import FEEDS
from chutes_exporter.fleet.model import TOPICS
from tests.collectors.support import Samples, collected, of
from tests.fleet.test_join import ANSWERS, gpu

PLACE = "server_id=s1,server=box"
SERVER = f"hotkey=me,{PLACE}"
ACTIVE = "hotkey=me,instance_id=i1,chute_id=c1,chute=llama,private=false"
STARTING = "hotkey=me,instance_id=i2,chute_id=c2,chute=flux,private=false"
STATES = {"unverified": 0, "idle": 1, "starting": 1, "disabled": 0, "earning": 2}
"""The GPUs of the fleet by state."""


def run(changes: dict[str, Any] | None = None, **options: Any) -> Samples:
    """Return the samples of a fleet with an active instance on two GPUs, a starting one on one GPU,
    and an idle GPU.

    The changes replace answers by name. None is a missing answer.
    """
    bodies = ANSWERS | (changes or {})
    answers = {FEEDS[name]: body for name, body in bodies.items() if body is not None}
    return collected(COLLECTOR, answers, **options)


def with_gpus(*gpus: dict[str, Any], **server: Any) -> dict[str, Any]:
    """Return the answers of a miner whose server has only these GPUs, which are in no instance.

    Other fields of the server can be replaced.
    """
    bodies = deepcopy(ANSWERS)
    bodies["servers"]["servers"][0] |= {"gpus": [*gpus]} | server
    nodes = [one | {"device_index": 0} for one in gpus]
    return bodies | {"nodes": nodes, "inventory": [], "instances": []}


def test_without_any_answer_all_that_is_known_is_that_no_topic_is() -> None:
    assert collected(COLLECTOR, {}) == {
        f"chutes_fleet_known{{hotkey=me,topic={topic}}}": 0 for topic in TOPICS
    }


def test_the_gpus_of_a_miner_that_has_none_and_everything_without_a_seat_are_no_topics() -> None:
    assert "topic=gpus" not in str(of(run(with_gpus()), "chutes_fleet_known"))
    assert of(run({"metagraph": [{"hotkey": "other"}]}), "chutes_fleet_known") == {}


def test_after_a_failure_no_topic_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("an unforeseen answer")

    # Its samples are the last ones before those of the topics.
    monkeypatch.setattr("chutes_exporter.collectors.fleet.plan_upgrades", fail)
    made = run(succeeds=False)
    assert "chutes_fleet_late_servers_to_upgrade{hotkey=me}" not in made
    assert set(of(made, "chutes_fleet_known").values()) == {0}


@pytest.mark.parametrize("nameless", ["server", "gpu"])
def test_a_name_that_is_unknown_makes_no_series_that_would_be_renamed(nameless: str) -> None:
    bodies = deepcopy(ANSWERS)
    if nameless == "server":
        del bodies["servers"]["servers"][0]["name"]
    else:
        del bodies["nodes"][0]["uuid"]
    made = run(bodies)
    assert of(made, "chutes_gpu_state", "chutes_server_gpus", "chutes_server_state") == {}
    # Series are gone, and none has come instead.
    assert set(made) < set(run())


def test_an_instance_without_the_name_of_its_chute_has_no_series() -> None:
    bodies = deepcopy(ANSWERS)
    for chute in bodies["chutes"]:
        del chute["name"]
    for held_gpu in bodies["inventory"]:
        del held_gpu["chute_name"]
    assert "instance_id=" not in str(run(bodies))


def test_an_instance_of_which_it_is_unknown_whether_a_user_pays_for_it_has_no_series() -> None:
    bodies = deepcopy(ANSWERS)
    del bodies["instances"][0]["billed_to"]
    made = run(bodies)
    assert "instance_id=i1" not in str(made)
    assert "instance_id=i2" in str(made)
    # The GPUs and the pay of its server are known.
    assert of(made, "chutes_fleet_gpus") == of(run(), "chutes_fleet_gpus")
    assert made["chutes_fleet_known{hotkey=me,topic=instances}"] == 0


def test_an_instance_in_an_unknown_state_hides_the_counts_and_nothing_of_others() -> None:
    bodies = deepcopy(ANSWERS)
    # The second instance may be starting or disabled.
    del bodies["instances"][1]["activated_at"]
    made = run(bodies)
    assert of(made, "chutes_fleet_instances", "chutes_fleet_gpus", "chutes_server_gpus") == {}
    assert f"chutes_instance_state{{{STARTING},state=starting}}" not in made
    assert made[f"chutes_instance_state{{{ACTIVE},state=active}}"] == 1
    assert made[f"chutes_instance_gpus{{{STARTING},{PLACE},gpu=h200}}"] == 1


def counts(made: Samples, model: str = "h200") -> dict[str, float]:
    """Return how many GPUs of a model are in each state, without zeros."""
    beginning = f"chutes_fleet_gpus{{hotkey=me,gpu={model},state="
    gpus = {}
    for series, value in made.items():
        if series.startswith(beginning) and value:
            state = series.removeprefix(beginning).rstrip("}")
            gpus[state] = value
    return gpus


def test_a_gpu_without_a_server_counts_in_the_fleet() -> None:
    made = run(with_gpus() | {"nodes": [gpu(1, device_index=7)]})
    assert counts(made) == {"idle": 1}
    labels = "hotkey=me,gpu_id=g1,gpu=h200,device_index=7"
    assert made[f"chutes_gpu_state{{{labels},state=idle}}"] == 1
    # The only server has none.
    assert of(made, "chutes_server_gpus") == {}
    assert made[f"chutes_server_state{{{SERVER},state=without_gpus}}"] == 1


def test_a_gpu_in_an_unknown_state_hides_the_counts_of_its_model_alone() -> None:
    unknown = gpu(2)
    del unknown["verified_at"]
    made = run(with_gpus(gpu(1), unknown, gpu(3, gpu_identifier="a100")))
    assert (counts(made), counts(made, "a100")) == ({}, {"idle": 1})
    # It is the state of the worst GPU, which may be this one.
    assert of(made, "chutes_server_state") == {}
    assert "gpu=a100,state=idle" in str(of(made, "chutes_server_gpus"))
    assert "gpu=h200" not in str(of(made, "chutes_server_gpus"))


def test_a_gpu_of_an_unknown_model_hides_the_counts_of_all_models() -> None:
    made = run(with_gpus(gpu(1), gpu(2, gpu_identifier=None)))
    assert of(made, "chutes_fleet_gpus", "chutes_server_gpus") == {}
    assert "gpu_id=g1" in str(of(made, "chutes_gpu_state"))
    assert "gpu_id=g2" not in str(made)


@pytest.mark.parametrize("tee", [True, False, None])
def test_only_a_server_with_tee_has_a_maintenance_and_a_version_that_boots(
    tee: bool | None,  # noqa: FBT001 - a parameter
) -> None:
    made = run(with_gpus(gpu(1), is_tee=tee))
    found = of(
        made,
        "chutes_server_maintenance_state",
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
    assert found == (expected if tee else {})
    assert f"chutes_server_gpus{{{SERVER},gpu=h200,state=idle}}" in made


def test_a_server_in_an_unknown_step_of_its_maintenance_has_no_state_and_keeps_the_rest() -> None:
    bodies = deepcopy(ANSWERS)
    # The service may get a step that this version does not know.
    bodies["maintenance"]["servers"][0]["maintenance_status"] = "draining"
    made = run(bodies)
    gone = run().keys() - made.keys()
    assert {key.partition("{")[0] for key in gone} == {
        "chutes_fleet_late_servers_to_upgrade",
        "chutes_fleet_servers_to_upgrade",
        "chutes_fleet_unmeasured_servers_to_upgrade",
        "chutes_server_maintenance_state",
        "chutes_server_state",
    }
    assert made["chutes_fleet_known{hotkey=me,topic=servers}"] == 0


# ``waiting`` are the servers to upgrade, those of them that cannot come back, and the place of the
# server in the order of upgrades.
@pytest.mark.parametrize(
    ("measurement", "measured", "waiting"),
    [
        ({"expected_gpus": ["h200", "b200"], "gpu_count": 4}, 1, (1, 0, 1)),
        # Any number, and names in capital letters.
        ({"expected_gpus": ["H200"], "gpu_count": None}, 1, (1, 0, 1)),
        ({"expected_gpus": ["h200"], "gpu_count": 0}, 1, (1, 0, 1)),
        ({"expected_gpus": ["b200"], "gpu_count": 4}, 0, (1, 1, None)),
        ({"expected_gpus": ["h200"], "gpu_count": 8}, 0, (1, 1, None)),
        ({"expected_gpus": [], "gpu_count": 4}, 0, (1, 1, None)),
        # No answer decides it for a version that is listed for no host.
        ({"version": "1.5.0", "expected_gpus": ["h200"], "gpu_count": 4}, None, (1, 0, 1)),
        # What the list does not say is unknown.
        ({"expected_gpus": None, "gpu_count": 4}, None, (1, None, None)),
        ({"expected_gpus": ["h200"]}, None, (1, None, None)),
        ({"expected_gpus": ["b200"]}, 0, (1, 1, None)),
        ({"version": 5, "expected_gpus": ["h200"], "gpu_count": 4}, None, (1, None, None)),
    ],
)
def test_a_server_cannot_come_back_if_the_target_is_listed_for_no_host_with_its_gpus(
    measurement: dict[str, Any],
    measured: float | None,
    waiting: tuple[float | None, ...],
) -> None:
    bodies = deepcopy(ANSWERS)
    bodies["maintenance"]["servers"][0]["needs_upgrade"] = True
    # The server has 4 h200, and the target is 1.6.2.
    other = {"version": "1.4.0", "expected_gpus": ["h200"], "gpu_count": 4}
    bodies["measurements"] = [other, {"version": "1.6.2"} | measurement]
    made = run(bodies)
    assert made.get(f"chutes_server_upgrade_measured{{{SERVER}}}") == measured
    found = (
        made.get("chutes_fleet_servers_to_upgrade{hotkey=me}"),
        made.get("chutes_fleet_unmeasured_servers_to_upgrade{hotkey=me}"),
        made.get(f"chutes_server_upgrade_order{{{SERVER}}}"),
    )
    assert found == waiting


def test_an_answer_that_is_off_or_missing_takes_only_what_needs_it_away() -> None:
    # The series of an instance need the name of its chute, which the answer about chutes has.
    made = run(dict.fromkeys(ANSWERS) | {"instances": ANSWERS["instances"]})
    assert {key.partition("{")[0] for key in made} == {"chutes_fleet_known"}
    made = run(dict.fromkeys(ANSWERS) | {name: ANSWERS[name] for name in ("instances", "chutes")})
    assert f"chutes_instance_state{{{ACTIVE},state=active}}" in made
    # Its GPUs are in others.
    assert of(made, "chutes_instance_gpus") == {}


def test_while_the_instances_are_doubted_no_count_of_them_is_certain() -> None:
    made = run(doubted=[INSTANCES])
    assert of(made, "chutes_fleet_instances", "chutes_fleet_gpus") == {}
    assert made[f"chutes_instance_state{{{ACTIVE},state=active}}"] == 1
