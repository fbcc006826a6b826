"""The command ``check``: requests what the exporter needs, and reports the results with advice."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import click

from chutes_exporter.api.client import NONCE_TOLERANCE
from chutes_exporter.api.errors import scrub_input
from chutes_exporter.commands.options import (
    Command,
    json_option,
    miner_options,
    name_sources,
    serving_options,
    settings_of,
)
from chutes_exporter.commands.report import PATIENCE, servers_not_found
from chutes_exporter.commands.result import Result, print_remarks
from chutes_exporter.commands.terminal import print_table, say
from chutes_exporter.config import ConfigError, find_credentials
from chutes_exporter.duration import human_duration
from chutes_exporter.feeds.definitions import CHAIN, FEEDS, METAGRAPH
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.gaps import NO_KEY, UPDATE, NotKnown, gap_of
from chutes_exporter.rules.score import is_blacklisted
from chutes_exporter.web.config_file import load_web_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chutes_exporter.api.records import MetagraphNode
    from chutes_exporter.api.schema_drift import FieldCheck
    from chutes_exporter.config import Credentials, Settings
    from chutes_exporter.feeds.cache import FeedCache, FeedState
    from chutes_exporter.feeds.feed import Feed, Snapshot

Verdict = Literal["ok", "failed", "not known"]
_NOTABLE_OFFSET = 30.0
_CHANGED = (
    "Update the exporter, and compare its changelog. Until then, numbers about these fields can "
    "be wrong."
)
_NO_HOTKEY = ("not known without a hotkey", "Add --hotkey or --hotkey-file.")


@dataclass(frozen=True)
class Line(NotKnown):
    """The result of one check, of a feed or another subject. Without a hotkey, it is about the
    platform.
    """

    verdict: Verdict
    status: int | None = None
    records: int | None = None
    seconds: float | None = None


@click.command(cls=Command)
@miner_options("Without a hotkey, the whole subnet is watched.")
@serving_options(":10064")
@json_option
def check(**flags: Any) -> None:
    """Request all data once, and explain what fails.

    check accepts the flags of serve, so that you can check a command line without changes. It
    ignores flags that do not matter. The exit status is 0 if all checks pass, 1 if one fails, 2 if
    the command line is wrong, and 3 if none fails but something is not known: a key or a hotkey is
    missing, an answer is incomplete or contradicts another one, or all records lack a field.
    """
    credentials = find_credentials(flags["hotkey_files"], os.environ)
    # Endpoints without a signature are checked even if a key cannot be used.
    settings = settings_of(flags, replace(credentials, errors=()))
    click.get_current_context().exit(
        asyncio.run(run_check(settings, credentials)).print(as_json=flags["as_json"])
    )


async def run_check(settings: Settings, credentials: Credentials) -> Result:
    """Request each feed, and return the results with those about the settings, seats, clock and
    API.
    """
    hotkeys = _hotkeys_by_feed(settings)
    asked = [feed.of(hotkey) for feed, of_feed in hotkeys.items() for hotkey in of_feed]
    async with Exporter(settings) as exporter:
        await _read_all(exporter.feeds, asked)
        states, client = exporter.feeds.states(), exporter.client
    lines = [
        *_setting_lines(settings, credentials),
        *_server_cost_line(servers_not_found(settings, states)),
        *map(_feed_line, states.values()),
        # The metagraph belongs to no hotkey, and is always asked for.
        *(_seat_line(hotkey, states[METAGRAPH].snapshot) for hotkey in sorted(settings.watched)),
        *(_line_without_hotkey(feed) for feed, of_feed in hotkeys.items() if not of_feed),
        *_clock_line(client.clock_offset),
        *_change_lines(client.changes),
    ]
    return _result(settings, lines)


async def _read_all(feeds: FeedCache, asked: list[Feed[Any]]) -> None:
    async def read(feed: Feed[Any]) -> None:
        # A contradiction shows only if the answers to compare with have arrived.
        await asyncio.gather(*(read(other) for other in feed.evidence if other in asked))
        await feeds.read(feed, PATIENCE)

    await asyncio.gather(*map(read, asked))


def _result(settings: Settings, lines: list[Line]) -> Result:
    gaps = [line for line in lines if line.verdict == "not known"]
    failed = [line for line in lines if line.verdict == "failed"]
    summary = {
        "api": settings.api_url,
        "ok": not gaps and not failed,
        "checks": list(map(asdict, lines)),
    }
    return Result(summary, partial(_print_report, settings, lines), gaps, bool(failed))


def _hotkeys_by_feed(settings: Settings) -> dict[Feed[Any], list[str]]:
    """Return the hotkeys to ask each feed for."""
    found = {feed: _hotkeys(feed, settings) for feed in FEEDS}
    if settings.chain_url is None:
        del found[CHAIN]
    return found


def _hotkeys(feed: Feed[Any], settings: Settings) -> list[str]:
    """Return the hotkeys to ask a feed for, one empty text for the platform, or none if a key or
    miner is missing.
    """
    if feed.endpoint.scope == "miner":
        return sorted(settings.watched)
    if feed.endpoint.scope == "signer":
        return [key.address for key in settings.keys]
    return [THE_PLATFORM] if settings.keys or not feed.endpoint.signed else []


def _setting_lines(settings: Settings, credentials: Credentials) -> Iterator[Line]:
    """Yield a line for each unusable key, each warning, and an unusable web configuration."""
    watched = ", ".join(sorted(settings.watched)) or "the whole subnet"
    for error in credentials.errors:
        advice = (
            f"Correct it. If you remove it, {watched} is watched, without the private data of "
            "this key."
        )
        yield Line("credentials", "", name_sources(error), advice, "failed")
    for warning in settings.warnings:
        yield Line("settings", "", warning, "", "ok")
    if settings.web_config is not None:
        try:
            load_web_config(settings.web_config)
        except ConfigError as error:
            advice = "Correct the file, or run check as the user of the service."
            yield Line("web configuration", "", name_sources(str(error)), advice, "failed")


def _server_cost_line(names: list[str]) -> Iterator[Line]:
    """Yield a line about the names of --server.cost that no server has."""
    if names:
        reason = scrub_input(
            name_sources(f"--server.cost has the name of no server: {', '.join(names)}")
        )
        advice = "Compare it with the names that chutes-exporter query servers lists."
        yield Line("settings", "", reason, advice, "ok")


def _feed_line(state: FeedState) -> Line:
    """Return the line of a feed. A missing endpoint is no failure, and neither is an incomplete
    answer.
    """
    feed, gap, snapshot = state.feed, gap_of(state), state.snapshot
    verdict, reason, advice = _verdict(state, gap), "", ""
    if gap is not None:
        reason, advice = gap.reason, gap.advice
    if snapshot is None:
        status = getattr(state.last_error, "status", None)
        return Line(feed.name, feed.hotkey, reason, advice, verdict, status)
    answer = snapshot.answer
    if gap is None and feed == CHAIN:
        block = answer.value.state
        age = human_duration(answer.received_at - block.time)
        reason = (
            f"block {block.block} of the main network, {age} old, runtime version "
            f"{answer.value.spec_version}"
        )
    return Line(feed.name, feed.hotkey, reason, advice, verdict, 200, answer.count, answer.seconds)


def _verdict(state: FeedState, gap: NotKnown | None) -> Verdict:
    if gap is None:
        return "ok"
    return "failed" if state.up is False else "not known"


def _line_without_hotkey(feed: Feed[Any]) -> Line:
    reason, advice = NO_KEY if feed.endpoint.signed else _NO_HOTKEY
    return Line(feed.name, "", reason, advice, "not known")


def _clock_line(offset: float | None) -> Iterator[Line]:
    """Yield a line if the local clock could not be compared, or differs notably. A right clock has
    none.
    """
    if offset is None:
        reason = "no answer has the time of the API, so that the local clock could not be compared"
        yield Line("clock", "", reason, "Set the local clock (NTP), and try again.", "not known")
    elif abs(offset) > _NOTABLE_OFFSET:
        side = "ahead of" if offset > 0 else "behind"
        reason = f"the local clock is {human_duration(offset)} {side} the API's"
        advice = (
            "Set the local clock (NTP). Requests before the first answer are signed with its time. "
            "The API refuses signatures that differ by more than 10 minutes."
        )
        yield Line("clock", "", reason, advice, "failed" if abs(offset) > NONCE_TOLERANCE else "ok")


def _change_lines(checks: Mapping[str, FieldCheck]) -> Iterator[Line]:
    """Yield a line for each endpoint that the API changed. Nobody knows what depends on a missing
    field.
    """
    for endpoint, found in sorted(checks.items()):
        if found.found:
            reason = f"{endpoint}: {', '.join(found.found)}"
            yield Line(
                "changes of the API", "", reason, _CHANGED, "not known" if found.missing else "ok"
            )


def _seat_line(hotkey: str, metagraph: Snapshot[list[MetagraphNode]] | None) -> Line:
    line = partial(Line, "registration", hotkey)
    nodes = metagraph.answer.value if metagraph else []
    node = next((one for one in nodes if one.hotkey == hotkey), None)
    if node is None and metagraph is not None and metagraph.answer.whole:
        advice = "Register it on subnet 64, or watch another hotkey."
        return line(_no_seat_text(hotkey, nodes), advice, "failed")
    if node is None or is_blacklisted(node) is None:
        reason = "the metagraph does not say whether the miner has a seat and is not blacklisted"
        return line(reason, UPDATE, "not known")
    if is_blacklisted(node):
        advice = "The miner gets no score and cannot launch instances. Ask the operators of Chutes."
        return line(f"blacklisted: {node.blacklist_reason}", advice, "failed")
    return line(f"registered as UID {node.node_id}", "", "ok")


def _no_seat_text(hotkey: str, nodes: list[MetagraphNode]) -> str:
    text = f"hotkey not registered: {hotkey} has no seat on the subnet."
    if hotkey in {node.coldkey for node in nodes}:
        text += " It is the cold key of a miner: use the hotkey."
    return text


def _print_report(settings: Settings, lines: list[Line]) -> None:
    """Print a table, and each remark once. Result.print adds the remarks about what is not
    known.
    """
    say(f"Chutes API at {settings.api_url}")
    print_table(list(map(_row, lines)))
    remarks = [line for line in lines if line.reason]
    for verdict, color in (("ok", "green"), ("failed", "red")):
        print_remarks(verdict, [line for line in remarks if line.verdict == verdict], color)
    verdicts = [line.verdict for line in lines]
    if count := verdicts.count("failed"):
        say(f"{count} failed.", fg="red")
    elif "not known" in verdicts:
        say("Not everything is known. Nothing that is known failed.", fg="yellow")
    else:
        say("All checks passed.", fg="green")


def _row(line: Line) -> dict[str, Any]:
    return {
        "feed": line.feed,
        "about": line.hotkey and f"{line.hotkey[:4]}…{line.hotkey[-4:]}",
        "status": f"{line.verdict} {line.status or ''}".rstrip(),
        "records": line.records,
        "seconds": line.seconds,
    }
