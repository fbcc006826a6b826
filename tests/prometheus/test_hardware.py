"""The example alerts about hardware: what a miner's page and dcgm-exporter say minute by minute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.prometheus.scenario import EXAMPLE, HOTKEY, run_promtool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Series = tuple[str, str]
"""A series with its labels, and its values in promtool's notation: one for each minute."""

RULES: list[dict[str, Any]] = yaml.safe_load(EXAMPLE.read_text())["groups"][0]["rules"]
ALERTS = [rule for rule in RULES if "alert" in rule]
NAMES = "|".join(sorted({rule["alert"] for rule in ALERTS}))
XID, OFF_BUS = "ChutesGpuXidError warning", "ChutesGpuOffBus warning"
HOT, ECC = "ChutesGpuHot warning", "ChutesGpuEccErrors warning"
MEMORY = "ChutesGpuMemoryFailed warning"
NO_LOAD, NO_LOAD_INFO = "ChutesGpuWithoutLoad warning", "ChutesGpuWithoutLoad info"

HOT_NOW = "91x400"
FINE = "60x400"


def page(index: int, values: str = "1x400", exporter: str = "one:1") -> Series:
    """Return whether a GPU is in the state earning, as an exporter says it."""
    labels = {
        "job": "chutes",
        "instance": exporter,
        "hotkey": HOTKEY,
        "gpu_id": f"a{index}",
        "uuid": f"GPU-a{index}",
        "server_id": "id-alpha",
        "server": "alpha",
        "gpu": "pro_6000",
        "device_index": str(index),
        "state": "earning",
    }
    return f"chutes_gpu_state{{{written(labels)}}}", values


def written(labels: Mapping[str, str]) -> str:
    return ",".join(f'{label}="{text}"' for label, text in labels.items())


def dcgm(name: str, index: int, values: str, pod: str = "dcgm-1", **more: str) -> Series:
    """Return a metric of a GPU, as a pod of dcgm-exporter says it."""
    labels = {"UUID": f"GPU-a{index}", "gpu": str(index), "pod": pod, "Hostname": "alpha"} | more
    return f"DCGM_FI_DEV_{name}{{{written(labels)}}}", values


def check(
    directory: Path,
    series: Sequence[Series],
    firing: Mapping[int, Sequence[str]],
    texts: Sequence[dict[str, Any]] = (),
) -> None:
    """Evaluate the example, and expect exactly these alerts about GPU 0 at each minute.

    Each must fire once, and none about another GPU.
    """
    expression = f'ALERTS{{alertstate="firing",alertname=~"{NAMES}"}}'
    tests = []
    for minute, alerts in firing.items():
        samples = []
        for alert in alerts:
            name, severity = alert.split()
            labels = f'alertname="{name}",severity="{severity}",device_index="0"'
            samples.append({"labels": f"{{{labels}}}", "value": 1})
        by = f"count by (alertname, severity, device_index) ({expression})"
        tests.append({"expr": by, "eval_time": f"{minute}m", "exp_samples": samples})
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": tests,
        "alert_rule_test": list(texts),
    }
    run_promtool(
        directory / "hardware.yml",
        rule_files=[str(EXAMPLE)],
        tests=[test],
        evaluation_interval="1m",
    )


BOTH = [page(0), page(1)]
TROUBLES = [
    dcgm("XID_ERRORS", 0, "79x400"),
    dcgm("GPU_TEMP", 0, HOT_NOW),
    dcgm("GPU_TEMP", 1, FINE),
    dcgm("ECC_DBE_VOL_TOTAL", 0, "2x400"),
    dcgm("ROW_REMAP_FAILURE", 0, "1x400"),
    dcgm("GPU_UTIL", 0, "0x400"),
    dcgm("FB_USED", 0, "4x400"),
]
"""All that can be wrong with GPU 0, while DCGM sees it."""
ALL = [XID, HOT, ECC, MEMORY, NO_LOAD]


@pytest.mark.parametrize(
    ("series", "firing"),
    [
        pytest.param(
            [
                dcgm("XID_ERRORS", 0, "0x29 stale", err_code="0"),
                dcgm("XID_ERRORS", 0, "_x30 79x2 stale", err_code="79"),
                dcgm("XID_ERRORS", 0, "_x33 45x400", err_code="45"),
            ],
            {30: [], 60: [XID], 90: [XID], 110: []},
            id="an XID error is named for an hour, also if the next one follows at once",
        ),
        pytest.param(
            [dcgm("GPU_TEMP", 0, "60x29 stale"), dcgm("GPU_TEMP", 1, FINE)],
            # Prometheus 3 leaves out the left end of a range, so there it fires at 44.
            {35: [], 43: [], 47: [OFF_BUS], 300: [OFF_BUS], 400: []},
            id="a GPU that DCGM no longer sees is named within 20 minutes, for 6 hours",
        ),
        pytest.param(
            [dcgm("GPU_TEMP", index, "60x29 stale", pod="dcgm-1") for index in (0, 1)]
            + [dcgm("GPU_TEMP", index, "_x90 60x300", pod="dcgm-2") for index in (0, 1)],
            {minute: [] for minute in (34, 40, 46, 60, 90, 91, 96, 120)},
            id="DCGM that is down for an hour is no fallen GPU",
        ),
        pytest.param(
            [dcgm("GPU_TEMP", 0, "60x29 91x400"), dcgm("GPU_TEMP", 1, "60x29 91x2 60x400")],
            {35: [], 47: [HOT], 200: [HOT]},
            id="a GPU that stays hot is named, and a short peak is not",
        ),
        pytest.param(
            [
                *(dcgm("GPU_UTIL", 0, "50x29 0x400"), dcgm("FB_USED", 0, "9000x29 4x400")),
                # GPU 1 works once an hour.
                *(dcgm("GPU_UTIL", 1, "0x59 9 " * 8), dcgm("FB_USED", 1, "4x400")),
            ],
            {100: [], 145: [], 155: [NO_LOAD], 300: [NO_LOAD], 395: [NO_LOAD, NO_LOAD_INFO]},
            id="a GPU that earns without load and without a model is named after 2 hours",
        ),
        pytest.param([], {60: [], 200: [], 380: []}, id="without DCGM all are silent"),
    ],
)
def test_alerts_about_hardware(
    series: list[Series], firing: Mapping[int, Sequence[str]], tmp_path: Path
) -> None:
    check(tmp_path, [*BOTH, *series], firing)


def test_two_exporters_of_a_miner_give_each_alert_once(tmp_path: Path) -> None:
    pair = [page(index, exporter=exporter) for index in (0, 1) for exporter in ("one:1", "two:2")]
    check(tmp_path, [*pair, *TROUBLES], {150: ALL})


def test_a_new_address_of_the_exporter_restarts_no_timer(tmp_path: Path) -> None:
    # The lack of load is named after 2 hours, also of GPU 0, whose exporter moves at 1:30.
    moved = [page(0, "1x89 stale", "one:1"), page(0, "_x91 1x300", "two:2"), page(1)]
    check(tmp_path, [*moved, *TROUBLES], {86: [XID, HOT, ECC, MEMORY], 130: ALL})


def test_all_are_silent_while_the_miners_gpus_are_unknown(tmp_path: Path) -> None:
    unknown = [page(0, "1x199 stale"), page(1, "1x199 stale")]
    check(tmp_path, [*unknown, *TROUBLES], {150: ALL, 215: []})
