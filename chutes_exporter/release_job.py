"""The command ``release-job``: the one thing here that changes something upstream."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.api.errors import CutOffError, TimedOutError
from chutes_exporter.check import printable
from chutes_exporter.query import first_key

if TYPE_CHECKING:
    from chutes_exporter.config import Settings

_JOB_ID = re.compile(r"[0-9A-Za-z_-]{1,60}")


async def run_release_job(settings: Settings, job_id: str, confirmed: bool) -> None:  # noqa: FBT001
    """Release a job of the signing miner.

    Args:
        settings: Whom to ask, and with which key.
        job_id: The job.
        confirmed: Whether the user has said yes already.

    Raises:
        Abort: The user says no.
        ClickException: There is no key, or the API refuses; the message says what to do.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise click.ClickException("that is no id of a job: letters, digits and dashes")
    key = first_key(settings)
    if len(settings.keys) > 1:
        raise click.ClickException("several keys are given: give only that of the miner that has the job")
    if not confirmed:
        click.confirm(f"Release job {job_id} of {key.address} at {settings.api_url}?", abort=True)
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        try:
            await client.release_job(job_id, key)
        except (TimedOutError, CutOffError) as error:
            raise click.ClickException(
                f"it is not known whether job {job_id} is released: {printable(str(error))}\n"
                "→ Look with chutes-exporter query jobs; releasing it again does no harm."
            ) from None
        except ApiError as error:
            raise click.ClickException(
                f"job {job_id} is not released: {printable(str(error))}\n→ {error.advice}"
            ) from None
    click.echo(f"Released job {job_id}.")
