"""Images by status, and each image."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec import UNSET

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import IMAGES

if TYPE_CHECKING:
    from chutes_exporter.api.records import Image

_STATUS_OF_TEXT = {"pending build": "pending", "building": "building", "built and pushed": "built"}
"""Statuses by the API's texts. All errors become ``error``, and unknown texts become ``other``."""

METRICS = Metrics("GET /miner/images/", ("status",))
COUNT = METRICS.declare(
    "chutes_images",
    "Images by status: pending, building, built, error (any error), other (any other status).",
    "status",
)

DETAIL_METRICS = Metrics("GET /miner/images/", ("image_id",))

INFO = DETAIL_METRICS.declare(
    "chutes_image_info",
    "The image's name and status, and the error if its build failed.",
    "username, name, tag, patch_version, chutes_version, public, status",
    labels=("image_id", "username", "name", "tag", "patch_version", "chutes_version", "public", "status", "error"),
)
CREATED = DETAIL_METRICS.declare(
    "chutes_image_created_timestamp_seconds",
    "When the image was created.",
    "created_at",
)
BUILD_STARTED = DETAIL_METRICS.declare(
    "chutes_image_build_started_timestamp_seconds",
    "When the image's build started.",
    "build_started_at",
)
BUILD_COMPLETED = DETAIL_METRICS.declare(
    "chutes_image_build_completed_timestamp_seconds",
    "When the image's build was completed.",
    "build_completed_at",
)


def _status(image: Image) -> str | None:
    if image.status is UNSET:
        return None
    text = image.status or ""
    return "error" if text.startswith("error") else _STATUS_OF_TEXT.get(text, "other")


def _collect(answers: Answers, _scope: Scope, out: Samples) -> None:
    count = Counter(_status(image) for image in distinct(answers[IMAGES], lambda image: image.image_id, out))
    if answers.complete() and None not in count:
        for status in (*_STATUS_OF_TEXT.values(), "error", "other"):
            out.add(COUNT, count[status], status)


def _collect_details(answers: Answers, _scope: Scope, out: Samples) -> None:
    for image in distinct(answers[IMAGES], lambda image: image.image_id, out):
        key, status = image.image_id, _status(image)
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
    name="images",
    summary="how many images are built, wait, or failed to build",
    feeds=(IMAGES,),
    metrics=METRICS,
    collect=_collect,
    cost="5",
)
DETAILS = Collector(
    name="image_details",
    summary="each image's name, status and times",
    feeds=(IMAGES,),
    metrics=DETAIL_METRICS,
    collect=_collect_details,
    cost="4 for each item",
    default="off",
)
