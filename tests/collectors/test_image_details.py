from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.image_details import COLLECTOR
from chutes_exporter.feeds.table import IMAGES
from tests.collectors.support import ELEVEN_TEXT, HOUR, NOON, NOON_TEXT, UNREADABLE, collected


def test_an_image_has_its_name_its_status_and_its_times() -> None:
    image = {
        "image_id": "i",
        "username": "org",
        "name": "vllm",
        "tag": "1.0",
        "patch_version": "initial",
        "chutes_version": "0.4.0",
        "public": True,
        "status": "built and pushed",
        "created_at": ELEVEN_TEXT,
        "build_started_at": ELEVEN_TEXT,
        "build_completed_at": NOON_TEXT,
    }
    assert collected(COLLECTOR, {IMAGES: [image]}).samples == {
        "chutes_image_info{image_id=i,username=org,name=vllm,tag=1.0,patch_version=initial,chutes_version=0.4.0,"
        "public=true,status=built}": 1,
        "chutes_image_created_timestamp_seconds{image_id=i}": NOON - HOUR,
        "chutes_image_build_started_timestamp_seconds{image_id=i}": NOON - HOUR,
        "chutes_image_build_completed_timestamp_seconds{image_id=i}": NOON,
    }


@pytest.mark.parametrize(
    ("status", "labels"),
    [
        ({"status": "error: no space left"}, ",status=error,error=error: no space left"),
        ({"status": "building"}, ",status=building"),
        ({"status": "gone"}, ",status=other"),
        ({"status": None}, ",status=other"),
        ({}, ""),
    ],
)
def test_only_a_failed_build_has_an_error(status: dict[str, Any], labels: str) -> None:
    made = collected(COLLECTOR, {IMAGES: [{"image_id": "i"} | status]})
    assert made.samples == {f"chutes_image_info{{image_id=i{labels}}}": 1}


def test_an_image_that_is_listed_twice_is_one_series() -> None:
    made = collected(COLLECTOR, {IMAGES: [{"image_id": "i"}, {"image_id": "i"}]})
    assert made.samples == {"chutes_image_info{image_id=i}": 1}
    assert made.duplicates == 1


def test_the_images_that_are_known_stay_where_the_answer_is_incomplete() -> None:
    expected = {"chutes_image_info{image_id=i}": 1}
    assert collected(COLLECTOR, {IMAGES: [{"image_id": "i"}, UNREADABLE]}).samples == expected
    assert collected(COLLECTOR, {IMAGES: [{"image_id": "i"}]}, doubted=[IMAGES]).samples == expected
