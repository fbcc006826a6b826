"""The command ``release-job``, the only one that changes something upstream."""

from __future__ import annotations

import asyncio
from itertools import compress
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.commands.options import (
    Command,
    fetch_once,
    miner_options,
    require_key,
    settings_with_warnings,
)
from chutes_exporter.commands.terminal import printable
from chutes_exporter.duration import utc_text
from chutes_exporter.feeds import definitions as e
from chutes_exporter.rules.jobs import is_stuck_with

if TYPE_CHECKING:
    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.api.records import Job
    from chutes_exporter.config import Settings


@click.command("release-job", cls=Command)
@miner_options("The request must be signed, so a key is required.")
def release_job(**flags: Any) -> None:
    """Release jobs that are stuck with the miner. It asks before it releases each of them.

    This is the only command that changes anything at the API.
    """
    settings = settings_with_warnings(flags)
    key = require_key(settings)
    if len(settings.keys) > 1:
        raise click.UsageError(
            "release-job needs exactly one key: keep only the key of the miner that holds the job"
        )
    answer = asyncio.run(fetch_once(settings, e.JOBS, "jobs", key))
    # The answer has the jobs of all miners. None is a job of which it is not known whether it is
    # stuck with this one.
    are_stuck = [is_stuck_with(job, key.address) for job in answer.value]
    stuck = [*compress(answer.value, are_stuck)]
    if not answer.complete or None in are_stuck:
        click.echo("The list may be incomplete, because some jobs could not be read.", err=True)
    elif not stuck:
        click.echo(f"No job is stuck with {key.address}.", err=True)
    for job in stuck:
        _release(settings, key, job)


def _release(settings: Settings, key: Hotkey, job: Job) -> None:
    created = "" if job.created_at is None else f", created {utc_text(job.created_at)}"
    about = printable(f"job {job.job_id} (chute {job.chute_id}{created})")
    if not click.confirm(f"Release {about} of {key.address} at {settings.api_url}?"):
        return
    # The service may have released the job before it failed, or before its answer was lost.
    hint = (
        "the release failed. Run release-job again to see whether the job is still stuck. "
        "Releasing it again does no harm"
    )
    asyncio.run(fetch_once(settings, e.RELEASE_JOB, hint, key, job_id=job.job_id))
    click.echo(f"Released job {printable(job.job_id)}.")
