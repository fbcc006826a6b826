"""Metrics of the process and its Python, under the names and with the help of Prometheus' client library."""

from __future__ import annotations

import gc
import os
import platform
import resource
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from chutes_exporter.collectors.samples import Metric
from chutes_exporter.page.exposition import Format, header, number, series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_STAT = Path("/proc/self/stat")
_DESCRIPTORS = Path("/proc/self/fd")
_BOOT = Path("/proc/stat")

_PROCESS = (
    Metric("process_virtual_memory_bytes", "Virtual memory size in bytes."),
    Metric("process_resident_memory_bytes", "Resident memory size in bytes."),
    Metric("process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
    Metric("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", kind="counter"),
    Metric("process_open_fds", "Number of open file descriptors."),
    Metric("process_max_fds", "Maximum number of open file descriptors."),
)
_GC = {
    "collected": Metric("python_gc_objects_collected_total", "Objects collected during gc", kind="counter"),
    "uncollectable": Metric(
        "python_gc_objects_uncollectable_total", "Uncollectable objects found during GC", kind="counter"
    ),
    "collections": Metric(
        "python_gc_collections_total", "Number of times this generation was collected", kind="counter"
    ),
}
_INFO = Metric("python_info", "Python platform information")


def render_process(form: Format) -> bytes:
    """Return the metrics of the process and its Python. Only Linux tells those of the process."""
    values = _process_values()
    generations = gc.get_stats()
    pattern = _pattern(form, with_process=bool(values), generations=len(generations))
    return (pattern % (*values, *(stat[key] for key in _GC for stat in generations))).encode()


def _process_values() -> list[str]:
    try:
        # The name of the program, in parentheses, may have spaces.
        fields = _STAT.read_bytes().rpartition(b")")[2].split()
        descriptors = len(os.listdir(_DESCRIPTORS))  # noqa: PTH208 - in half of the time
        started = _boot_time() + int(fields[19]) / _ticks()
    except OSError:
        return []
    values = (
        float(fields[20]),
        float(fields[21]) * resource.getpagesize(),
        started,
        (int(fields[11]) + int(fields[12])) / _ticks(),
        float(descriptors),
        float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    )
    return [number(value) for value in values]


@cache
def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK")


@cache
def _boot_time() -> float:
    return float(_BOOT.read_text().partition("\nbtime ")[2].split()[0])


@cache
def _pattern(form: Format, *, with_process: bool, generations: int) -> str:
    """Return the lines with a place for each value that changes."""
    python = dict(zip(("major", "minor", "patchlevel"), platform.python_version_tuple(), strict=True))
    about = {"version": platform.python_version(), "implementation": platform.python_implementation(), **python}
    by_generation = [{"generation": str(one)} for one in range(generations)]
    parts = [_family(metric, form, [{}]) for metric in _PROCESS if with_process]
    parts.append(f"{header(_INFO, form)}{series(_INFO.name, about)} 1\n")
    parts += [_family(metric, form, by_generation) for metric in _GC.values()]
    return "".join(parts)


def _family(metric: Metric, form: Format, labels: Iterable[Mapping[str, str]]) -> str:
    lines = "".join(f"{series(metric.name, one)} %s\n" for one in labels)
    return header(metric, form) + lines
