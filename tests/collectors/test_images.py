from __future__ import annotations

from chutes_exporter.collectors.images import COLLECTOR, DETAILS
from chutes_exporter.feeds.table import IMAGES
from tests.collectors.support import collected


def test_images_are_counted_by_what_their_status_means() -> None:
    statuses = (
        "built and pushed",
        "built and pushed",
        "building",
        "pending build",
        "error: no space left",
        "error",
        "something new",
        None,
    )
    answer = [{"image_id": f"i{number}", "status": status} for number, status in enumerate(statuses)]
    assert collected(COLLECTOR, {IMAGES: answer}).samples == {
        "chutes_images{status=pending}": 1,
        "chutes_images{status=building}": 1,
        "chutes_images{status=built}": 2,
        "chutes_images{status=error}": 2,
        "chutes_images{status=other}": 2,
    }


def test_only_a_failed_build_has_an_error() -> None:
    answer = [
        {"image_id": "a", "status": "error: no space left"},
        {"image_id": "b", "status": "building"},
        {"image_id": "c"},
    ]
    assert collected(DETAILS, {IMAGES: answer}).samples == {
        "chutes_image_info{image_id=a,status=error,error=error: no space left}": 1,
        "chutes_image_info{image_id=b,status=building}": 1,
        "chutes_image_info{image_id=c}": 1,
    }
