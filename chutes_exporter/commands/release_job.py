"""The command ``release-job``, the only one that changes something upstream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.commands.options import (
    Command,
    client_of,
    miner_options,
    settings_with_warnings,
)
from chutes_exporter.commands.query import first_key
from chutes_exporter.commands.terminal import moment, printable
from chutes_exporter.feeds import definitions as e
from chutes_exporter.rules.jobs import is_stuck

if TYPE_CHECKING:
    from chutes_exporter.api import Hotkey
    from chutes_exporter.api.records import Job
    from chutes_exporter.config import Settings


@click.command("release-job", cls=Command)
@click.argument("job_id", required=False)
@miner_options("The request must be signed, so a key is required.")
@click.option("--yes", is_flag=True, help="Release without confirmation.")
def release_job(job_id: str | None, **flags: Any) -> None:
    """List jobs that are stuck with the miner, or release one.

    Without JOB_ID, it lists the stuck jobs. It releases a job only if the job is stuck with the
    miner. This is the only command that changes anything at the API.
    """
    settings = settings_with_warnings(flags)
    key = first_key(settings)
    if len(settings.keys) > 1:
        raise click.UsageError(
            "release-job needs exactly one key: keep only the key of the miner that holds the job"
        )
    jobs, is_complete = asyncio.run(_stuck_jobs(settings, key))
    if job_id is None:
        _print_jobs(jobs, key, is_complete=is_complete)
        return
    if job_id not in [job.job_id for job in jobs]:
        maybe = "" if is_complete else ", or the list of jobs is incomplete"
        raise click.ClickException(
            f"job {job_id} is not released: it is not stuck with {key.address}{maybe}\n"
            "→ Run release-job without JOB_ID to list stuck jobs."
        )
    if not flags["yes"]:
        # Outside the event loop, in which Ctrl-C would not end the question.
        click.confirm(f"Release job {job_id} of {key.address} at {settings.api_url}?", abort=True)
    asyncio.run(_release(settings, key, job_id))


async def _stuck_jobs(settings: Settings, key: Hotkey) -> tuple[list[Job], bool]:
    """Return the jobs that are stuck with the miner of a key, and whether these are all."""
    async with client_of(settings, "jobs") as client:
        answer = await client.fetch(e.JOBS, key=key)
    # The answer has the jobs of all miners.
    stuck = [job for job in answer.value if is_stuck(job) and job.miner_hotkey == key.address]
    # None is a job of which it is not known whether it is stuck.
    is_complete = answer.complete and all(is_stuck(job) is not None for job in answer.value)
    return stuck, is_complete


def _print_jobs(jobs: list[Job], key: Hotkey, *, is_complete: bool) -> None:
    for job in jobs:
        created = "" if job.created_at is None else moment(job.created_at)
        click.echo(printable(f"{job.job_id}  chute {job.chute_id}  created {created}"))
    if not is_complete:
        click.echo("The list may be incomplete, because some jobs could not be read.", err=True)
    if jobs:
        click.echo(
            "These jobs are stuck with the miner. Release each with: chutes-exporter "
            "release-job JOB_ID",
            err=True,
        )
    elif is_complete:
        click.echo(f"No job is stuck with {key.address}.", err=True)


async def _release(settings: Settings, key: Hotkey, job_id: str) -> None:
    try:
        async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
            await client.fetch(e.RELEASE_JOB, key=key, path={"job_id": job_id})
    except ApiError as error:
        # The service may have released the job before it failed, or before its answer was lost.
        raise click.ClickException(
            f"the release of job {job_id} failed: {printable(str(error))}\n→ {error.advice}\n"
            "→ Run release-job without JOB_ID to see whether the job is still stuck. Releasing it "
            "again does no harm."
        ) from None
    click.echo(f"Released job {job_id}.")
