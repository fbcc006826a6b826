"""The recorded states of GPUs and instances, which boards show."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from grafana import states
from tests.prometheus.history import FILES

if TYPE_CHECKING:
    from pathlib import Path

    from grafana.states import State

ME = "5Me"
UNKNOWN = ', state="STATE", server="unknown", gpu="unknown"'
INSTANCES = {
    "starting": {"chutes_instance_active": 0},
    "disabled": {"chutes_instance_active": 0, "chutes_instance_activated_timestamp_seconds": 100},
    "active": {"chutes_instance_active": 1, "chutes_instance_activated_timestamp_seconds": 100},
}
"""Samples of an instance, by its state."""


def series(name: str, **labels: str) -> str:
    every = {"job": "chutes", "instance": "exporter:10064", "hotkey": ME, **labels}
    return f"{name}{{{','.join(f'{key}={json.dumps(value)}' for key, value in every.items())}}}"


def check(
    path: Path, present: dict[str, float], record: str, label: str, table: tuple[State, ...], more: str = ""
) -> None:
    expected = [
        {
            "labels": f'{record}{{hotkey="{ME}", {label}="{one.text}"{more.replace("STATE", one.text)}}}',
            "value": one.value,
        }
        for one in table
    ]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": f"{value}x9"} for name, value in present.items()],
        "promql_expr_test": [{"expr": record, "eval_time": "9m", "exp_samples": expected}],
    }
    path.write_text(json.dumps({"rule_files": list(map(str, FILES)), "evaluation_interval": "1m", "tests": [test]}))
    result = subprocess.run(
        ["promtool", "test", "rules", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_state_of_a_gpu_is_the_number_that_boards_map(tmp_path: Path) -> None:
    present: dict[str, float] = {
        series("chutes_gpu_state_info", gpu_id=one.text, state=one.text): 1 for one in states.GPU
    }
    present[series("chutes_feed_last_success_timestamp_seconds", feed="inventory")] = 60
    check(tmp_path / "test.yml", present, "hotkey_gpu_id:chutes_gpu_state:newest", "gpu_id", states.GPU, UNKNOWN)


def test_the_state_of_an_instance_is_the_number_that_boards_map(tmp_path: Path) -> None:
    present: dict[str, float] = {
        series(name, instance_id=state): value
        for state, samples in INSTANCES.items()
        for name, value in samples.items()
    }
    present[series("chutes_feed_last_success_timestamp_seconds", feed="instances")] = 60
    check(
        tmp_path / "test.yml",
        present,
        "hotkey_instance_id:chutes_instance_state:newest",
        "instance_id",
        states.INSTANCE,
    )
