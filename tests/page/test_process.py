from __future__ import annotations

import gc
import os
import platform
import resource
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest

from chutes_exporter.page import process
from chutes_exporter.page.exposition import Format
from chutes_exporter.page.process import render_process
from tests.support import count_openmetrics, parse_page, promtool_complaints, series

if TYPE_CHECKING:
    from pathlib import Path


def test_process_metrics_are_written_in_both_formats() -> None:
    text = render_process(Format.TEXT)
    page = parse_page(text.decode())
    assert promtool_complaints(text) == ""
    assert count_openmetrics(render_process(Format.OPENMETRICS).decode() + "# EOF\n") == len(page)


def test_process_metrics_have_the_names_help_and_labels_of_the_client_library() -> None:
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    ours, theirs = render_process(Format.TEXT).decode(), generate_latest(registry).decode()
    assert set(parse_page(ours)) == set(parse_page(theirs))
    assert headers_of(ours) == headers_of(theirs)


def headers_of(page: str) -> list[str]:
    return sorted(line for line in page.splitlines() if line.startswith("#"))


def test_process_metrics_have_the_values_of_the_system() -> None:
    page = parse_page(render_process(Format.TEXT).decode())
    assert 1e6 < page[series("process_resident_memory_bytes")] < page[series("process_virtual_memory_bytes")]
    assert page[series("process_max_fds")] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert page[series("process_cpu_seconds_total")] == pytest.approx(sum(os.times()[:2]), abs=0.1)
    assert time.time() - 3 * 3600 < page[series("process_start_time_seconds")] <= time.time() + 2
    version = platform.python_version()
    assert [labels for name, labels in page if name == "python_info" and ("version", version) in labels]
    collections = page[series("python_gc_collections_total", generation="2")]
    gc.collect()
    again = parse_page(render_process(Format.TEXT).decode())
    assert again[series("python_gc_collections_total", generation="2")] == collections + 1


def test_open_files_are_counted(tmp_path: Path) -> None:
    before = parse_page(render_process(Format.TEXT).decode())[series("process_open_fds")]
    with (tmp_path / "file").open("w"):
        after = parse_page(render_process(Format.TEXT).decode())[series("process_open_fds")]
    assert after == before + 1


def test_a_system_without_proc_has_only_the_metrics_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_STAT", tmp_path / "absent")
    page = parse_page(render_process(Format.TEXT).decode())
    assert {name.partition("_")[0] for name, _ in page} == {"python"}
