"""Number of images by status."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, get_args

from msgspec import UNSET

from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import IMAGES

if TYPE_CHECKING:
    from chutes_exporter.api.records import Image

Status = Literal["pending", "building", "built", "error", "other"]
"""The API's status texts. All errors become ``error``, and unknown texts become ``other``."""
STATUSES: tuple[Status, ...] = get_args(Status)
_STATUS_OF_TEXT: dict[str, Status] = {
    "pending build": "pending",
    "building": "building",
    "built and pushed": "built",
}

METRICS = Metrics()
COUNT = METRICS.gauge(
    "chutes_images",
    "Images by status: pending, building, built, error (any error), other (any other status).",
    ("status",),
    "GET /miner/images/: status",
)


def status_of(image: Image) -> Status | None:
    """Return an image's status, None if the answer does not have it."""
    text = image.status
    if text is UNSET:
        return None
    if text is not None and text.startswith("error"):
        return "error"
    return _STATUS_OF_TEXT.get(text or "", "other")


def collect(answers: Answers, _scope: Scope, out: Samples) -> None:
    """Count the images."""
    count = Counter(status_of(image) for image in distinct(answers[IMAGES], lambda image: image.image_id, out))
    if answers.complete() and None not in count:
        for status in STATUSES:
            out.add(COUNT, count[status], status)


COLLECTOR = Collector(
    name="images",
    summary="how many images are built, wait, or failed to build",
    feeds=(IMAGES,),
    metrics=METRICS,
    collect=collect,
    cost=Cost(fixed=len(STATUSES)),
)
