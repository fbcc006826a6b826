"""Each image. Off by default because there are many."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.images import status_of
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import IMAGES

METRICS = Metrics()
_SOURCE = "GET /miner/images/"
_IMAGE = ("image_id",)

INFO = METRICS.info(
    "chutes_image_info",
    "The image's name and status, and the error if its build failed.",
    ("image_id", "username", "name", "tag", "patch_version", "chutes_version", "public", "status", "error"),
    f"{_SOURCE}: username, name, tag, patch_version, chutes_version, public, status",
)
CREATED = METRICS.gauge(
    "chutes_image_created_timestamp_seconds",
    "When the image was created.",
    _IMAGE,
    f"{_SOURCE}: created_at",
    changes="once",
)
BUILD_STARTED = METRICS.gauge(
    "chutes_image_build_started_timestamp_seconds",
    "When the image's build started.",
    _IMAGE,
    f"{_SOURCE}: build_started_at",
)
BUILD_COMPLETED = METRICS.gauge(
    "chutes_image_build_completed_timestamp_seconds",
    "When the image's build was completed.",
    _IMAGE,
    f"{_SOURCE}: build_completed_at",
)


def collect(answers: Answers, _scope: Scope, out: Samples) -> None:
    """Add all images."""
    for image in distinct(answers[IMAGES], lambda image: image.image_id, out):
        key, status = image.image_id, status_of(image)
        out.add(
            INFO,
            1,
            key,
            image.username,
            image.name,
            image.tag,
            image.patch_version,
            image.chutes_version,
            image.public,
            status,
            str(image.status) if status == "error" else "",
        )
        out.add(CREATED, image.created_at, key)
        out.add(BUILD_STARTED, image.build_started_at, key)
        out.add(BUILD_COMPLETED, image.build_completed_at, key)


COLLECTOR = Collector(
    name="image_details",
    summary="each image's name, status and times",
    feeds=(IMAGES,),
    metrics=METRICS,
    collect=collect,
    cost=Cost(item=4),
    default="off",
)
