"""The command ``release-job``: the one thing here that changes something upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.query import first_key

if TYPE_CHECKING:
    from chutes_exporter.config import Settings


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
    key = first_key(settings)
    if not confirmed:
        click.confirm(f"Release job {job_id} of {key.address} at {settings.api_url}?", abort=True)
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        try:
            await client.release_job(job_id, key)
        except ApiError as error:
            raise click.ClickException(f"job {job_id} is not released: {error}\n→ {error.advice}") from None
    click.echo(f"Released job {job_id}.")
