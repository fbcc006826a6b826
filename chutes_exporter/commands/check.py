"""The command ``check``: requests what the exporter needs, and reports the results with advice."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chutes_exporter.api.client import NONCE_TOLERANCE, ChutesClient
from chutes_exporter.api.errors import ApiError, NotFoundError
from chutes_exporter.api.records import HistoryPoint
from chutes_exporter.commands.options import (
    Command,
    api_options,
    hotkey_options,
    json_option,
    read_credentials,
    run,
    serving_options,
    settings_of,
)
from chutes_exporter.commands.terminal import json_text, printable
from chutes_exporter.config import ConfigError
from chutes_exporter.duration import human_duration
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
_STYLES: dict[Verdict, str] = {"ok": "green", "failed": "bold red", "not asked": "dim"}


@dataclass(frozen=True)
class Line:
    """The result of one check.

    Attributes:
        feed: The feed's name, or another subject.
        verdict: ``ok``, ``failed`` or ``not asked``.
        about: The hotkey that it is about, or None for the whole platform.
        status: The HTTP status, or None.
        records: Number of records, or None without an answer.
        seconds: Duration, or None.
        age: Seconds since the newest time in the data, or None.
        note: Why it failed or was not asked, or another remark.
        advice: What to do, or empty.
    """

    feed: str
    verdict: Verdict
    about: str | None = None
    status: int | None = None
    records: int | None = None
    seconds: float | None = None
    age: float | None = None
    note: str = ""
    advice: str = ""


@click.command(cls=Command)
@hotkey_options("Without a hotkey, the whole subnet is watched.")
@api_options
@serving_options(":10064")
@json_option
def check(**flags: Any) -> None:
    """Request all data once, and explain what fails.

    check accepts the flags of serve, so that you can check a command line without changes. It ignores flags that do
    not matter. The exit status is 0 if all checks pass, and 1 if one fails or a setting cannot be used.
    """
    credentials = read_credentials(flags)
    # Endpoints without a signature are checked even if a key cannot be used.
    settings = settings_of(flags, replace(credentials, errors=()))
    click.get_current_context().exit(run(run_check, settings, credentials, flags["as_json"]))


async def run_check(settings: Settings, credentials: Credentials, as_json: bool) -> int:  # noqa: FBT001
    """Check, print the results, and return the exit status, which is 0 if nothing failed."""
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        requests = Requests(client)
        requests.use(settings.keys)
        asked = [feed.of(hotkey) for feed in FEEDS for hotkey in _hotkeys(feed, settings)]
        results = await asyncio.gather(*(_ask(requests, feed) for feed in asked))
        offset = client.clock_offset
    metagraph = next(answer for feed, (answer, _) in zip(asked, results, strict=True) if feed == METAGRAPH)
    why = "the key cannot be used" if credentials.errors else "needs --hotkey-file, or MINER_SS58 and MINER_SEED"
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
    ]
    failed = sum(line.verdict == "failed" for line in lines)
    if as_json:
        report = {"api": settings.api_url, "ok": not failed, "checks": [asdict(line) for line in lines]}
        click.echo(json_text(report))
    else:
        _print_report(settings, lines, failed)
    return min(failed, 1)


def _hotkeys(feed: Feed[Any], settings: Settings) -> list[str]:
    """Return the hotkeys for which a feed can be asked. It is an empty text for the whole platform."""
    if feed.endpoint.scope == "miner":
        return sorted(settings.watched)
    if feed.endpoint.scope == "signer":
        return [key.address for key in settings.keys]
    return [""] if settings.keys or not feed.endpoint.signed else []


def _setting_lines(settings: Settings, credentials: Credentials) -> Iterator[Line]:
    for error in credentials.errors:
        yield Line("credentials", "failed", note=error, advice="Correct or remove it.")
    for warning in settings.warnings:
        yield Line("settings", "ok", note=warning)
    if settings.web_config is not None:
        try:
            load_web_config(settings.web_config)
        except ConfigError as error:
            advice = "Correct the file, or run check as the user of the service."
            yield Line("web configuration", "failed", note=str(error), advice=advice)


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
    return answer, Line(feed.name, "ok", about, 200, answer.count, answer.seconds, _age(answer), note, advice)


def _age(answer: Answer[Any]) -> float | None:
    """Return the seconds since the newest time in a history, None for other answers."""
    records = answer.value if isinstance(answer.value, list) else []
    times = [record.time for record in records if isinstance(record, HistoryPoint)]
    return max(0.0, answer.received_at - max(times)) if times else None


def _print_report(settings: Settings, lines: list[Line], failed: int) -> None:
    """Print a table, and below it each remark once, with advice."""
    # Text in a file is folded at 120 columns. The table fits into 80 columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    table = Table("feed", "about", "status", box=None, pad_edge=False, header_style="bold")
    for column in ("records", "time", "age"):
        table.add_column(column, justify="right")
    # An outage is reported once and not for each feed.
    remarks: dict[tuple[Verdict, str, str], dict[str, None]] = {}
    for line in lines:
        table.add_row(
            line.feed,
            f"{line.about[:4]}…{line.about[-4:]}" if line.about else "",
            Text(f"{line.verdict} {line.status or ''}".rstrip(), style=_STYLES[line.verdict]),
            "" if line.records is None else str(line.records),
            "" if line.seconds is None else f"{line.seconds:.2f} s",
            "" if line.age is None else human_duration(line.age),
        )
        if line.note:
            remarks.setdefault((line.verdict, line.note, line.advice), {})[line.feed] = None
    with console.capture() as capture:
        console.print(Text(f"Chutes API at {settings.api_url}"), table)
        for (verdict, note, advice), feeds in remarks.items():
            console.print(Text(f"\n{', '.join(feeds)}: {verdict}", style=_STYLES[verdict]))
            console.print(Padding(Text(printable(note) + (f"\n→ {advice}" if advice else "")), (0, 0, 0, 2)))
        good = Text("\nAll checks passed.", style="green")
        console.print(Text(f"\n{failed} failed.", style="bold red") if failed else good)
    for text in capture.get().splitlines():
        click.echo(text.rstrip())
