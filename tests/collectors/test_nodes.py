from __future__ import annotations

from chutes_exporter.collectors.nodes import COLLECTOR
from chutes_exporter.feeds.table import NODES
from tests.collectors.support import ELEVEN_TEXT, HOUR, NOON, NOON_TEXT, UNREADABLE, collected


def test_a_gpu_has_its_model_its_place_and_its_hardware_in_base_units() -> None:
    gpu = {
        "uuid": "2791c6267cdced2a19679d6341469e5f",
        "server_id": "s",
        "gpu_identifier": "h100",
        "name": "NVIDIA H100",
        "device_index": 0,
        "verification_host": "192.0.2.1",
        "verified_at": NOON_TEXT,
        "verification_error": None,
        "memory": 85_000_000_000,
        "clock_rate": 1_980_000,
        "processors": 132,
        "created_at": ELEVEN_TEXT,
    }
    labels = "{hotkey=me,gpu_id=2791c6267cdced2a19679d6341469e5f}"
    assert collected(COLLECTOR, {NODES: [gpu]}).samples == {
        "chutes_gpu_info{hotkey=me,gpu_id=2791c6267cdced2a19679d6341469e5f,server_id=s,gpu=h100,name=NVIDIA H100,"
        "device_index=0,verification_host=192.0.2.1,uuid=GPU-2791c626-7cdc-ed2a-1967-9d6341469e5f}": 1,
        f"chutes_gpu_verified{labels}": 1,
        f"chutes_gpu_verified_timestamp_seconds{labels}": NOON,
        f"chutes_gpu_memory_bytes{labels}": 85e9,
        # The API has kHz.
        f"chutes_gpu_clock_rate_hertz{labels}": 1.98e9,
        f"chutes_gpu_processors{labels}": 132,
        f"chutes_gpu_created_timestamp_seconds{labels}": NOON - HOUR,
    }


def test_a_gpu_without_a_time_of_verification_is_not_verified() -> None:
    made = collected(COLLECTOR, {NODES: [{"uuid": "g", "verified_at": None, "verification_error": "timeout"}]})
    assert made.samples == {
        "chutes_gpu_info{hotkey=me,gpu_id=g}": 1,
        "chutes_gpu_verified{hotkey=me,gpu_id=g}": 0,
        "chutes_gpu_verification_error_info{hotkey=me,gpu_id=g,error=timeout}": 1,
    }


def test_a_gpu_with_a_time_and_an_error_is_verified() -> None:
    made = collected(COLLECTOR, {NODES: [{"uuid": "g", "verified_at": NOON_TEXT, "verification_error": "timeout"}]})
    assert made.of("chutes_gpu_verified", "chutes_gpu_verification_error_info") == {
        "chutes_gpu_verified{hotkey=me,gpu_id=g}": 1,
        "chutes_gpu_verification_error_info{hotkey=me,gpu_id=g,error=timeout}": 1,
    }


def test_a_missing_field_is_unknown() -> None:
    assert collected(COLLECTOR, {NODES: [{"uuid": "g"}]}).samples == {"chutes_gpu_info{hotkey=me,gpu_id=g}": 1}


def test_a_miner_without_gpus_has_no_samples() -> None:
    assert collected(COLLECTOR, {NODES: []}).samples == {}


def test_a_gpu_that_is_listed_twice_is_one_series() -> None:
    made = collected(COLLECTOR, {NODES: [{"uuid": "g", "memory": 1}, {"uuid": "g", "memory": 2}]})
    assert made.of("chutes_gpu_memory_bytes") == {"chutes_gpu_memory_bytes{hotkey=me,gpu_id=g}": 1}
    assert made.duplicates == 1


def test_the_gpus_that_are_known_stay_where_the_answer_is_incomplete() -> None:
    expected = {"chutes_gpu_info{hotkey=me,gpu_id=g}": 1}
    assert collected(COLLECTOR, {NODES: [{"uuid": "g"}, UNREADABLE]}).samples == expected
    assert collected(COLLECTOR, {NODES: [{"uuid": "g"}]}, doubted=[NODES]).samples == expected
