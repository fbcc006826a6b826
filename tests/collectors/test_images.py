from __future__ import annotations

from chutes_exporter.collectors.platform import IMAGES_COLLECTOR as COLLECTOR
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
