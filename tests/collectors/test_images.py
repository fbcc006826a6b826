from __future__ import annotations

from chutes_exporter.collectors.images import COLLECTOR, DETAILS
from chutes_exporter.feeds.definitions import IMAGES
from tests.collectors.support import collected


def test_another_status_or_none_is_a_state_of_its_own() -> None:
    answer = [
        {"image_id": "i0", "status": "something new"},
        {"image_id": "i1", "status": None},
        {"image_id": "i2", "status": "error"},
    ]
    samples = collected(COLLECTOR, {IMAGES: answer})
    assert {series: value for series, value in samples.items() if value} == {
        "chutes_images{state=error}": 1,
        "chutes_images{state=other}": 2,
    }


def test_only_a_failed_build_has_an_error() -> None:
    answer = [
        {"image_id": "a", "status": "error: no space left"},
        {"image_id": "b", "status": "building"},
        {"image_id": "c"},
    ]
    samples = collected(DETAILS, {IMAGES: answer})
    assert {series: value for series, value in samples.items() if value} == {
        "chutes_image_info{image_id=a,error=error: no space left}": 1,
        "chutes_image_info{image_id=b}": 1,
        "chutes_image_info{image_id=c}": 1,
        "chutes_image_state{image_id=a,state=error}": 1,
        "chutes_image_state{image_id=b,state=building}": 1,
    }
    # Nothing is known of the state of the third one.
    assert "chutes_image_state{image_id=c" not in str(samples)
