"""The command ``check``: requests what the exporter needs, and reports the results with advice."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import click

from chutes_exporter.api.client import NONCE_TOLERANCE, ChutesClient
from chutes_exporter.api.errors import ApiError, NotFoundError
from chutes_exporter.commands.options import (
    Command,
    json_option,
    miner_options,
    name_sources,
    serving_options,
    settings_of,
)
from chutes_exporter.commands.terminal import print_table, say
from chutes_exporter.config import ConfigError, find_credentials
from chutes_exporter.duration import human_duration
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.feeds.requests import Requests
from chutes_exporter.feeds.table import FEEDS, METAGRAPH
from chutes_exporter.web.config_file import load_web_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chutes_exporter.api.client import Answer
    from chutes_exporter.api.records import MetagraphNode
    from chutes_exporter.config import Credentials, Settings
    from chutes_exporter.feeds.feed import Feed

Verdict = Literal["ok", "failed", "not asked"]
_NOTABLE_OFFSET = 30.0
_CHANGED = "Update the exporter, and compare its changelog. Until then, numbers about these fields can be wrong."
_COLORS: dict[Verdict, str] = {"ok": "green", "failed": "red", "not asked": "yellow"}


@dataclass(frozen=True)
class Line:
    """The result of one check, of a feed or another subject, about a hotkey or the platform, with a remark."""

    feed: str
    verdict: Verdict
    about: str | None = None
    status: int | None = None
    records: int | None = None
    seconds: float | None = None
    note: str = ""
    advice: str = ""


@click.command(cls=Command)
@miner_options("Without a hotkey, the whole subnet is watched.")
@serving_options(":10064")
@json_option
def check(**flags: Any) -> None:
    """Request all data once, and explain what fails.

    check accepts the flags of serve, so that you can check a command line without changes. It ignores flags that do
    not matter. The exit status is 0 if all checks pass, 1 if one fails, and 2 if the command line is wrong.
    """
    credentials = find_credentials(flags["hotkey_files"], os.environ)
    # Endpoints without a signature are checked even if a key cannot be used.
    settings = settings_of(flags, replace(credentials, errors=()))
    click.get_current_context().exit(asyncio.run(run_check(settings, credentials, flags["as_json"])))


async def run_check(settings: Settings, credentials: Credentials, as_json: bool) -> int:  # noqa: FBT001
    """Check, print the results, and return the exit status, which is 0 if nothing failed."""
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        requests = Requests(client)
        requests.use(settings.keys)
        asked = [feed.of(hotkey) for feed in FEEDS for hotkey in _hotkeys(feed, settings)]
        results = await asyncio.gather(*(_ask(requests, feed) for feed in asked))
        offset, changes = client.clock_offset, client.changes
    metagraph, _ = results[asked.index(METAGRAPH)]
    why = "the key cannot be used" if credentials.errors else "needs --hotkey-file, or MINER_SS58 with a key"
    lines = [
        *_setting_lines(settings, credentials),
        *(line for _, line in results),
        *_seats(settings, metagraph),
        *(
            Line(feed.name, "not asked", note=why if feed.endpoint.signed else "needs --hotkey")
            for feed in FEEDS
            if not _hotkeys(feed, settings)
        ),
        *_clock_line(offset),
        *(
            Line("changes of the API", "ok", note=f"{endpoint}: {', '.join(one.found)}", advice=_CHANGED)
            for endpoint, one in sorted(changes.items())
            if one.found
        ),
    ]
    failed = sum(line.verdict == "failed" for line in lines)
    if as_json:
        report = {"api": settings.api_url, "ok": not failed, "checks": [asdict(line) for line in lines]}
        click.echo(json.dumps(report, indent=2))
    else:
        _print_report(settings, lines, failed)
    return min(failed, 1)


def _hotkeys(feed: Feed[Any], settings: Settings) -> list[str]:
    """Return the hotkeys for which a feed can be asked. It is an empty text for the whole platform."""
    if feed.endpoint.scope == "miner":
        return sorted(settings.watched)
    if feed.endpoint.scope == "signer":
        return [key.address for key in settings.keys]
    return [THE_PLATFORM] if settings.keys or not feed.endpoint.signed else []


def _setting_lines(settings: Settings, credentials: Credentials) -> Iterator[Line]:
    watched = ", ".join(sorted(settings.watched)) or "the whole subnet"
    for error in credentials.errors:
        advice = f"Correct it. If you remove it, {watched} is watched, without the private data of this key."
        yield Line("credentials", "failed", note=name_sources(error), advice=advice)
    for warning in settings.warnings:
        yield Line("settings", "ok", note=warning)
    if settings.web_config is not None:
        try:
            load_web_config(settings.web_config)
        except ConfigError as error:
            advice = "Correct the file, or run check as the user of the service."
            yield Line("web configuration", "failed", note=name_sources(str(error)), advice=advice)


def _clock_line(offset: float | None) -> Iterator[Line]:
    if offset is not None and abs(offset) > _NOTABLE_OFFSET:
        side = "ahead of" if offset > 0 else "behind"
        yield Line(
            "clock",
            "failed" if abs(offset) > NONCE_TOLERANCE else "ok",
            note=f"the local clock is {human_duration(offset)} {side} the API's",
            advice="Set the local clock (NTP). The API refuses signatures that differ by more than 10 minutes.",
        )


def _seats(settings: Settings, metagraph: Answer[list[MetagraphNode]] | None) -> Iterator[Line]:
    """Return lines about the seats of the watched miners. Return none if the metagraph is incomplete."""
    if metagraph is None or metagraph.rejected:
        return
    seats = {node.hotkey: node for node in metagraph.value}
    coldkeys = {node.coldkey for node in metagraph.value}
    for hotkey in sorted(settings.watched):
        if (node := seats.get(hotkey)) is None:
            note = f"hotkey not registered: {hotkey} has no seat on the subnet."
            cold = " It is the cold key of a miner: use the hotkey." if hotkey in coldkeys else ""
            advice = "Register it on subnet 64, or watch another hotkey."
            yield Line("registration", "failed", hotkey, note=note + cold, advice=advice)
        elif node.blacklist_reason:
            note = f"blacklisted: {node.blacklist_reason}"
            advice = "The miner gets no score and cannot launch instances. Ask the operators of Chutes."
            yield Line("registration", "failed", hotkey, note=note, advice=advice)
        else:
            yield Line("registration", "ok", hotkey, note=f"registered as UID {node.node_id}")


async def _ask(requests: Requests, feed: Feed[Any]) -> tuple[Answer[Any] | None, Line]:
    started = time.monotonic()
    about = feed.hotkey or None
    try:
        answer = await requests.fetch(feed)
    except ApiError as error:
        seconds = time.monotonic() - started
        if feed.optional and isinstance(error, NotFoundError):
            note = "this deployment does not have the endpoint: collectors that need it are off"
            return None, Line(feed.name, "ok", about, status=404, seconds=seconds, note=note)
        line = Line(feed.name, "failed", about, error.status, seconds=seconds, note=str(error), advice=error.advice)
        return None, line
    note = advice = ""
    if answer.rejected:
        note = f"{answer.rejected} records could not be read and are left out ({answer.first_error})"
        advice = "Update the exporter. If that does not help, report a bug."
    return answer, Line(feed.name, "ok", about, 200, answer.count, answer.seconds, note, advice)


def _print_report(settings: Settings, lines: list[Line], failed: int) -> None:
    """Print a table, and below it each remark once, with advice."""
    say(f"Chutes API at {settings.api_url}")
    print_table(
        [
            {
                "feed": line.feed,
                "about": f"{line.about[:4]}…{line.about[-4:]}" if line.about else "",
                "status": f"{line.verdict} {line.status or ''}".rstrip(),
                "records": line.records,
                "seconds": line.seconds,
            }
            for line in lines
        ]
    )
    # An outage is reported once and not for each feed.
    remarks: dict[tuple[Verdict, str, str], dict[str, None]] = {}
    for line in lines:
        if line.note:
            remarks.setdefault((line.verdict, line.note, line.advice), {})[line.feed] = None
    for (verdict, note, advice), feeds in remarks.items():
        click.echo()
        say(f"{', '.join(feeds)}: {verdict}", fg=_COLORS[verdict])
        say(note, indent="  ", start="  ")
        if advice:
            say(f"→ {advice}", indent="    ", start="  ")
    click.echo()
    say(f"{failed} failed." if failed else "All checks passed.", fg="red" if failed else "green")
