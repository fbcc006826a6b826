"""The command ``check``: requests what the exporter needs, and reports the results with advice."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import click
from msgspec import UNSET

from chutes_exporter.api.client import NONCE_TOLERANCE, ChutesClient
from chutes_exporter.api.errors import ApiError, NotFoundError
from chutes_exporter.chain.node import Node
from chutes_exporter.commands.options import (
    Command,
    json_option,
    miner_options,
    name_sources,
    serving_options,
    settings_of,
)
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.terminal import print_table, say
from chutes_exporter.config import ConfigError, find_credentials
from chutes_exporter.duration import human_duration
from chutes_exporter.feeds.doubt import REPEAT_REQUEST, WORDS, reason_to_doubt
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.feeds.requests import Requests
from chutes_exporter.feeds.table import CHAIN, FEEDS, METAGRAPH
from chutes_exporter.page.gaps import MISSING, NO_KEY, TRY_AGAIN, NotKnown, grouped
from chutes_exporter.web.config_file import load_web_config

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from chutes_exporter.api.client import Answer
    from chutes_exporter.api.records import MetagraphNode
    from chutes_exporter.config import Credentials, Settings
    from chutes_exporter.feeds.feed import Feed

Results = dict["Feed[Any]", tuple["Answer[Any] | None", "Line"]]
"""The answer of each feed, if there is one, and the line that describes it."""
Verdict = Literal["ok", "failed", "not known"]
_NOTABLE_OFFSET = 30.0
_CHANGED = "Update the exporter, and compare its changelog. Until then, numbers about these fields can be wrong."
_NO_HOTKEY = ("not known without a hotkey", "Add --hotkey or --hotkey-file.")
_UNREADABLE = "Update the exporter. If that does not help, report a bug."


@dataclass(frozen=True)
class Line(NotKnown):
    """The result of one check, of a feed or another subject. Without a hotkey, it is about the platform."""

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

    check accepts the flags of serve, so that you can check a command line without changes. It ignores flags that do
    not matter. The exit status is 0 if all checks pass, 1 if one fails, 2 if the command line is wrong, and 3 if none
    fails but something is not known: a key or a hotkey is missing, an answer is incomplete or contradicts another one,
    or all records lack a field.
    """
    credentials = find_credentials(flags["hotkey_files"], os.environ)
    # Endpoints without a signature are checked even if a key cannot be used.
    settings = settings_of(flags, replace(credentials, errors=()))
    click.get_current_context().exit(asyncio.run(run_check(settings, credentials)).print(as_json=flags["as_json"]))


async def run_check(settings: Settings, credentials: Credentials) -> Result:
    """Request each feed once, and return the results with those about the settings, seats, clock and API."""
    node = None if settings.chain_url is None else Node(settings.chain_url, timeout=settings.api_timeout)
    feeds = [feed for feed in FEEDS if feed is not CHAIN or node is not None]
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        requests = Requests(client, node)
        requests.use(settings.keys)
        asked = [feed.of(hotkey) for feed in feeds for hotkey in _hotkeys(feed, settings)]
        results = await _ask_all(requests, asked)
        doubted = [feed for feed in asked if _doubt(feed, results) in REPEAT_REQUEST]
        # Something may have begun or ended between two answers.
        results |= await _ask_all(
            requests, {one for feed in doubted for one in (feed, *feed.evidence)} & results.keys()
        )
        offset, changes = client.clock_offset, client.changes
    if node is not None:
        await node.aclose()
    lines = [
        *_setting_lines(settings, credentials),
        *(
            replace(line, reason=WORDS[doubt], advice=TRY_AGAIN, verdict="not known")
            if line.verdict == "ok" and (doubt := _doubt(feed, results))
            else line
            for feed, (_, line) in results.items()
        ),
        *(_seat_line(hotkey, results[METAGRAPH][0]) for hotkey in sorted(settings.watched)),
        *(
            Line(feed.name, "", *(NO_KEY if feed.endpoint.signed else _NO_HOTKEY), "not known")
            for feed in feeds
            if not _hotkeys(feed, settings)
        ),
        *_clock_line(offset),
        *(
            Line(
                "changes of the API",
                "",
                f"{endpoint}: {', '.join(change.found)}",
                _CHANGED,
                "not known" if change.missing else "ok",
            )
            for endpoint, change in sorted(changes.items())
            if change.found
        ),
    ]
    verdicts = Counter(line.verdict for line in lines)
    summary = {
        "api": settings.api_url,
        "ok": verdicts.total() == verdicts["ok"],
        "checks": [asdict(line) for line in lines],
    }
    gaps = [line for line in lines if line.verdict == "not known"]
    show = partial(_print_report, settings, lines, verdicts)
    return Result(summary, show, gaps, bool(verdicts["failed"]))


def _hotkeys(feed: Feed[Any], settings: Settings) -> list[str]:
    """Return the hotkeys to ask a feed for, one empty text for the platform, or none if a key or miner is missing."""
    if feed.endpoint.scope == "miner":
        return sorted(settings.watched)
    if feed.endpoint.scope == "signer":
        return [key.address for key in settings.keys]
    return [THE_PLATFORM] if settings.keys or not feed.endpoint.signed else []


def _setting_lines(settings: Settings, credentials: Credentials) -> Iterator[Line]:
    """Yield a line for each unusable key, each warning, and an unusable web configuration."""
    watched = ", ".join(sorted(settings.watched)) or "the whole subnet"
    for error in credentials.errors:
        advice = f"Correct it. If you remove it, {watched} is watched, without the private data of this key."
        yield Line("credentials", "", name_sources(error), advice, "failed")
    for warning in settings.warnings:
        yield Line("settings", "", warning, "", "ok")
    if settings.web_config is not None:
        try:
            load_web_config(settings.web_config)
        except ConfigError as error:
            advice = "Correct the file, or run check as the user of the service."
            yield Line("web configuration", "", name_sources(str(error)), advice, "failed")


def _clock_line(offset: float | None) -> Iterator[Line]:
    """Yield a line if the local clock could not be compared, or differs notably. A right clock has none."""
    if offset is None:
        reason = "no answer has the time of the API, so that the local clock could not be compared"
        yield Line("clock", "", reason, "Set the local clock (NTP), and try again.", "not known")
    elif abs(offset) > _NOTABLE_OFFSET:
        side = "ahead of" if offset > 0 else "behind"
        reason = f"the local clock is {human_duration(offset)} {side} the API's"
        advice = "Set the local clock (NTP). The API refuses signatures that differ by more than 10 minutes."
        yield Line("clock", "", reason, advice, "failed" if abs(offset) > NONCE_TOLERANCE else "ok")


def _seat_line(hotkey: str, metagraph: Answer[list[MetagraphNode]] | None) -> Line:
    nodes = metagraph.value if metagraph else []
    node = next((one for one in nodes if one.hotkey == hotkey), None)
    line = partial(Line, "registration", hotkey)
    may_lack_node = metagraph is None or (node is None and not metagraph.whole)
    if may_lack_node or (node is not None and node.blacklist_reason is UNSET):
        reason = "the metagraph does not say whether the miner has a seat and is not blacklisted"
        return line(reason, _UNREADABLE, "not known")
    if node is None:
        reason = f"hotkey not registered: {hotkey} has no seat on the subnet."
        if hotkey in {node.coldkey for node in nodes}:
            reason += " It is the cold key of a miner: use the hotkey."
        return line(reason, "Register it on subnet 64, or watch another hotkey.", "failed")
    if node.blacklist_reason:
        advice = "The miner gets no score and cannot launch instances. Ask the operators of Chutes."
        return line(f"blacklisted: {node.blacklist_reason}", advice, "failed")
    return line(f"registered as UID {node.node_id}", "", "ok")


async def _ask_all(requests: Requests, feeds: Collection[Feed[Any]]) -> Results:
    return dict(zip(feeds, await asyncio.gather(*(_ask(requests, feed) for feed in feeds)), strict=True))


def _doubt(feed: Feed[Any], results: Results) -> str | None:
    """Return the reason to doubt an answer, which is compared with those of other feeds."""
    answer, *others = (results.get(one, (None, None))[0] for one in (feed, *feed.evidence))
    values = [other and other.value for other in others]
    return None if answer is None else reason_to_doubt(feed.checks, None, answer, values)


async def _ask(requests: Requests, feed: Feed[Any]) -> tuple[Answer[Any] | None, Line]:
    """Request a feed. Return its answer, or None after an error, and the line that describes the result."""
    started, line = time.monotonic(), partial(Line, feed.name, feed.hotkey)
    try:
        answer = await requests.fetch(feed)
    except ApiError as error:
        seconds = time.monotonic() - started
        if feed.optional and isinstance(error, NotFoundError):
            reason = "this deployment does not have the endpoint, and collectors that need it are off"
            return None, line(reason, MISSING, "not known", error.status, None, seconds)
        return None, line(str(error), error.advice, "failed", error.status, None, seconds)
    measured = (200, answer.count, answer.seconds)
    if answer.rejected:
        reason = f"{answer.rejected} records could not be read and are left out ({answer.first_error})"
        return answer, line(reason, _UNREADABLE, "not known", *measured)
    reason = ""
    if feed == CHAIN:
        state, age = answer.value.state, human_duration(answer.received_at - answer.value.state.time)
        reason = f"block {state.block} of the main network, {age} old, runtime version {answer.value.spec_version}"
    return answer, line(reason, "", "ok", *measured)


def _print_report(settings: Settings, lines: list[Line], verdicts: Counter[Verdict]) -> None:
    """Print a table, and each remark once. Result.print adds the remarks about what is not known."""
    say(f"Chutes API at {settings.api_url}")
    print_table(
        [
            {
                "feed": line.feed,
                "about": line.hotkey and f"{line.hotkey[:4]}…{line.hotkey[-4:]}",
                "status": f"{line.verdict} {line.status or ''}".rstrip(),
                "records": line.records,
                "seconds": line.seconds,
            }
            for line in lines
        ]
    )
    for verdict, color in (("ok", "green"), ("failed", "red")):
        remarks = [(line.feed, line.reason, line.advice) for line in lines if line.reason and line.verdict == verdict]
        for feeds, reason, advice in grouped(remarks):
            click.echo()
            say(f"{feeds}: {verdict}", fg=color)
            say(reason, indent="  ", start="  ")
            if advice:
                say(f"→ {advice}", indent="    ", start="  ")
    click.echo()
    if verdicts["failed"]:
        say(f"{verdicts['failed']} failed.", fg="red")
    elif verdicts["not known"]:
        say("Not everything is known. Nothing that is known failed.", fg="yellow")
    else:
        say("All checks passed.", fg="green")
