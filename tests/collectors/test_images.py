from __future__ import annotations

from chutes_exporter.collectors.images import COLLECTOR
from chutes_exporter.feeds.table import IMAGES
from tests.collectors.support import UNREADABLE, collected


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


def test_a_status_that_no_image_has_is_zero() -> None:
    assert collected(COLLECTOR, {IMAGES: [{"image_id": "i", "status": "building"}]}).samples == {
        "chutes_images{status=pending}": 0,
        "chutes_images{status=building}": 1,
        "chutes_images{status=built}": 0,
        "chutes_images{status=error}": 0,
        "chutes_images{status=other}": 0,
    }


def test_an_image_that_is_listed_twice_counts_once() -> None:
    image = {"image_id": "i", "status": "building"}
    made = collected(COLLECTOR, {IMAGES: [image, image]})
    assert made.samples["chutes_images{status=building}"] == 1
    assert made.duplicates == 1


def test_an_image_without_a_status_field_hides_all_counts() -> None:
    answer = [{"image_id": "i", "status": "building"}, {"image_id": "j"}]
    assert collected(COLLECTOR, {IMAGES: answer}).samples == {}


def test_an_incomplete_answer_counts_nothing() -> None:
    image = {"image_id": "i", "status": "building"}
    assert collected(COLLECTOR, {IMAGES: [image, UNREADABLE]}).samples == {}
    assert collected(COLLECTOR, {IMAGES: [image]}, doubted=[IMAGES]).samples == {}
