"""The platform's GPUs, jobs and images."""

from __future__ import annotations

from functools import partial
from itertools import compress
from typing import TYPE_CHECKING

from msgspec import UNSET

from chutes_exporter.api.records import Chute, Image, Job, ModelSupply
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table, Total, fields_named
from chutes_exporter.feeds.definitions import CHUTES, IMAGES, JOBS, PLATFORM_GPUS
from chutes_exporter.rules.jobs import is_stuck, waits_for_miner

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = Table[ModelSupply](
    PLATFORM_GPUS,
    key="gpu",
    chutes_platform_gpus=Row(
        "GPUs of the model of all miners: provisioned (in an instance of any state), or idle (in "
        "none, verified or not).",
        {"provisioned": "provisioned", "idle": "idle"},
        by="state",
    ),
)

PLATFORM_GPUS_COLLECTOR = Collector(
    "platform_gpus", "the platform's GPUs by model, in an instance or idle", (MODEL,)
)


def _those(jobs: list[Job], answer: Callable[[Job], bool | None]) -> list[Job] | None:
    """Return the jobs for which the answer is yes, None if it is unknown for one."""
    answers = [answer(job) for job in jobs]
    return None if None in answers else list(compress(jobs, answers))


def _waits(chutes: list[Chute]) -> Callable[[Job], bool | None]:
    return partial(waits_for_miner, chutes={chute.chute_id for chute in chutes})


# The list also has all finished jobs.
STUCK = Table[Job](
    JOBS,
    key="job_id",
    records=lambda jobs: _those(jobs, is_stuck),
    chutes_jobs_stuck=Total(
        "Unfinished jobs that the watched miner claimed and that have no instance any more. No "
        "other miner can claim them until `chutes-exporter release-job` releases them.",
        len,
        by="miner_hotkey",
        label="hotkey",
    ),
)
WAITING = Table[Job](
    JOBS,
    CHUTES,
    key="job_id",
    records=lambda jobs, chutes: _those(jobs, _waits(chutes)),
    chutes_jobs_waiting=Total("Jobs of the platform that wait for a miner.", len),
    chutes_jobs_available=Total(
        "Jobs of the platform that wait for a miner, by method. Absent for methods without any.",
        len,
        by="method",
    ),
    chutes_jobs_oldest_created_timestamp_seconds=Total(
        "When the oldest waiting job was created. Absent if no job waits.",
        partial(min, default=None),
        of="created_at",
    ),
    chutes_jobs_tried=Total(
        "Waiting jobs for which the watched miner requested a launch token.",
        len,
        by=lambda job: list(dict.fromkeys(job.miner_history or ())),
        label="hotkey",
    ),
)
EACH = Table[Job](
    JOBS,
    CHUTES,
    key="job_id",
    records=lambda jobs, chutes: list(filter(_waits(chutes), jobs)),
    chutes_job_info=Info(
        "The chute and method of a waiting job.",
        fields_named("chute_id", "method", "status"),
    ),
    chutes_job_created_timestamp_seconds=Row("When the waiting job was created.", "created_at"),
    chutes_job_compute_multiplier=Row(
        "Base compute multiplier of the waiting job. The launch computes it again from the "
        "real GPUs.",
        "compute_multiplier",
    ),
    chutes_job_tries=Row(
        "Miners that requested a launch token for the waiting job. With 15, no miner can "
        "claim it any more.",
        lambda job: len(job.miner_history or ()),
    ),
)

JOBS_COLLECTOR = Collector(
    "jobs",
    "jobs that wait for a miner, jobs that the miner has tried, and jobs that are stuck with it",
    (STUCK, WAITING),
)
JOB_DETAILS_COLLECTOR = Collector(
    "job_details", "each job that waits for a miner", (EACH,), on=False
)


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


IMAGE_COUNT = Table[Image](
    IMAGES,
    key="image_id",
    chutes_images=Total(
        "Images by state: pending, building, built, error (any error), other (any other text).",
        lambda states: {state: states.count(state) for state in _STATES},
        of=_state,
        label="state",
    ),
)

IMAGE = Table[Image](
    IMAGES,
    key="image_id",
    chutes_image_info=Info(
        "The image's name, and the error if its build failed.",
        fields_named("username", "name", "tag", "patch_version", "chutes_version", "public")
        | {"error": lambda image: str(image.status) if _state(image) == "error" else None},
    ),
    chutes_image_state=Row(
        "Whether the image is in this state (1): pending, building, built, error (any error), "
        "other (any other text).",
        _state,
        convert=lambda present: {state: state == present for state in _STATES},
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

IMAGES_COLLECTOR = Collector(
    "images", "how many images are built, wait, or failed to build", (IMAGE_COUNT,)
)
IMAGE_DETAILS_COLLECTOR = Collector(
    "image_details", "each image's name, state and times", (IMAGE,), on=False
)
