"""Which state the tables of GPUs and instances show, for each that there is."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from grafana import states
from grafana.boards import fleet, instances
from tests.grafana.scenes import filled_in

if TYPE_CHECKING:
    from pathlib import Path

    from grafana.states import State

ME = "5Me"
GPU_STATES: dict[str, dict[str, int | str]] = {
    "unverified": {"verified": 0, "in_use": 0, "active": 0},
    "idle": {"verified": 1, "in_use": 0, "active": 0},
    "starting": {"verified": 1, "in_use": 1, "active": 0, "chute": "c-starting"},
    "disabled": {"verified": 1, "in_use": 1, "active": 0, "chute": "c-disabled"},
    "earning": {"verified": 1, "in_use": 1, "active": 1, "chute": "c-active"},
}
"""GPUs, by the state that they must be in."""
INSTANCES: dict[str, dict[str, int]] = {
    "failed": {"active": 0, "activated": 0, "error": 1},
    "starting": {"active": 0, "activated": 0, "error": 0},
    "disabled": {"active": 0, "activated": 1, "error": 0},
    "active": {"active": 1, "activated": 1, "error": 0},
}
"""Instances, by the state that they must be in; each runs a chute of its own."""


def mine(name: str, **labels: str) -> str:
    every = {"job": "chutes", "instance": "exporter:10064", "hotkey": ME, **labels}
    return f"{name}{{{','.join(f'{key}={json.dumps(value)}' for key, value in every.items())}}}"


def world() -> dict[str, float]:
    series: dict[str, float] = {}
    for name, gpu in GPU_STATES.items():
        for what in ("verified", "in_use", "active"):
            series[mine(f"chutes_gpu_{what}", gpu_id=name)] = float(gpu[what])
        if "chute" in gpu:
            series[mine("chutes_gpu_allocation_info", gpu_id=name, chute_id=str(gpu["chute"]), chute_name="kokoro")] = 1
    for name, one in INSTANCES.items():
        series[mine("chutes_instance_info", instance_id=name, chute_id=f"c-{name}")] = 1
        series[mine("chutes_instance_active", instance_id=name)] = float(one["active"])
        if one["activated"]:
            series[mine("chutes_instance_activated_timestamp_seconds", instance_id=name)] = 1000
        if one["error"]:
            series[mine("chutes_instance_verification_error_info", instance_id=name, error="timeout")] = 1
    return series


def complaints(path: Path, expression: str, label: str, expected: dict[str, float]) -> str:
    samples = [{"labels": f'{{hotkey="{ME}", {label}="{name}"}}', "value": value} for name, value in expected.items()]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": f"{value}+0x9"} for name, value in world().items()],
        "promql_expr_test": [{"expr": filled_in(expression, [ME]), "eval_time": "9m", "exp_samples": samples}],
    }
    path.write_text(json.dumps({"rule_files": [], "evaluation_interval": "1m", "tests": [test]}))
    result = subprocess.run(
        ["promtool", "test", "rules", str(path)],  # noqa: S607 - Debian's, from the path
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if result.returncode == 0 else result.stdout + result.stderr


@pytest.mark.parametrize(
    ("expression", "label", "table", "things"),
    [
        (fleet.STATE, "gpu_id", states.GPU, GPU_STATES),
        (instances.STATE, "instance_id", states.INSTANCE, INSTANCES),
    ],
    ids=["GPUs", "instances"],
)
def test_the_table_shows_each_state(
    tmp_path: Path, expression: str, label: str, table: tuple[State, ...], things: dict[str, dict[str, int | str]]
) -> None:
    expected = {state.text: float(state.value) for state in table}
    assert expected.keys() == things.keys()
    assert complaints(tmp_path / "test.yml", expression, label, expected) == ""
