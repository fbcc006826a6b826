"""Images by state, and each image."""

from __future__ import annotations

from msgspec import UNSET

from chutes_exporter.api.records import Image
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table, Total
from chutes_exporter.feeds.definitions import IMAGES

_STATE_OF_TEXT = {"pending build": "pending", "building": "building", "built and pushed": "built"}
"""States by the API's texts. All errors become ``error``, and unknown texts become ``other``."""
_STATES = (*_STATE_OF_TEXT.values(), "error", "other")


def _state(image: Image) -> str | None:
    """Return one of the states, ``other`` if the image has none, and None if that is unknown."""
    if image.status is UNSET:
        return None
    text = image.status or ""
    if text.startswith("error"):
        return "error"
    return _STATE_OF_TEXT.get(text, "other")


def _is_in_state(image: Image) -> dict[str, bool]:
    """Return whether an image is in each state, nothing if that is unknown."""
    present = _state(image)
    return {} if present is None else {state: state == present for state in _STATES}


IMAGE_COUNT = Table[Image](
    IMAGES,
    key="image_id",
    chutes_images=Total(
        "Images by state: pending, building, built, error (any error), other (any other text).",
        len,
        by=_state,
        label="state",
        among=_STATES,
    ),
)

IMAGE = Table[Image](
    IMAGES,
    key="image_id",
    chutes_image_info=Info(
        "The image's name, and the error if its build failed.",
        {
            "username": "username",
            "name": "name",
            "tag": "tag",
            "patch_version": "patch_version",
            "chutes_version": "chutes_version",
            "public": "public",
            "error": lambda image: str(image.status) if _state(image) == "error" else None,
        },
    ),
    chutes_image_state=Row(
        "Whether the image is in this state (1): pending, building, built, error (any error), "
        "other (any other text).",
        _is_in_state,
        by="state",
    ),
    chutes_image_created_timestamp_seconds=Row("When the image was created.", "created_at"),
    chutes_image_build_started_timestamp_seconds=Row(
        "When the image's build started.", "build_started_at"
    ),
    chutes_image_build_completed_timestamp_seconds=Row(
        "When the image's build was completed.", "build_completed_at"
    ),
)

COLLECTOR = Collector(
    "images", "how many images are built, wait, or failed to build", (IMAGE_COUNT,)
)
DETAILS = Collector("image_details", "each image's name, state and times", (IMAGE,), default="off")
