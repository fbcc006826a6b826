"""The command ``check``: requests what the exporter needs, and reports the results with advice."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import click

from chutes_exporter.api.client import NONCE_TOLERANCE
from chutes_exporter.commands.options import (
    Command,
    json_option,
    miner_options,
    serving_options,
    settings_of,
    with_variables,
)
from chutes_exporter.commands.prices import PriceGaps
from chutes_exporter.commands.result import Result, print_remarks
from chutes_exporter.commands.snapshot import PATIENCE
from chutes_exporter.commands.terminal import print_table, say
from chutes_exporter.config import ConfigError, find_credentials
from chutes_exporter.duration import human_duration
from chutes_exporter.feeds.definitions import CHAIN, FEEDS, METAGRAPH, SERVERS
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.gaps import NO_KEY, UPDATE, NotKnown, gap_of
from chutes_exporter.page.plan import hotkeys_of
from chutes_exporter.rules.score import is_blacklisted
from chutes_exporter.web.config_file import load_web_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.api.records import MetagraphNode
    from chutes_exporter.api.schema_drift import FieldCheck
    from chutes_exporter.config import Credentials, Settings
    from chutes_exporter.feeds.cache import FeedState, States
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.rules.money import Costs

Verdict = Literal["ok", "failed", "not known"]
_COLUMNS = ("subject", "verdict", "status", "records", "hotkey", "seconds")
"""Columns on the screen. Reasons stand before and after the table."""
_NOTABLE_OFFSET = 30.0
"""Seconds by which the local clock may differ without a line about it."""
_CHANGED = (
    "Update the exporter, and compare its changelog. Until then, numbers about these fields can "
    "be wrong."
)
_NO_HOTKEY = ("not known without a hotkey", "Add --hotkey or --hotkey-file.")
"""Reason and advice for data about a miner."""


@dataclass(frozen=True)
class Line(NotKnown):
    """The result of one check, of a feed or another subject. Without a hotkey, it is about the
    platform.

    Attributes:
        verdict: ``ok`` also if the line only warns. Its reason is then the warning.
        status: Of the HTTP response.
        records: Number of records in the answer.
        seconds: Duration of the request.
    """

    verdict: Verdict
    status: int | None = None
    records: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, state: FeedState) -> Line:
        """Return the line of a requested feed: its answer, and why that is missing or incomplete.

        Only a failed request is ``failed``. If the deployment lacks the endpoint, or an answer is
        incomplete, it is ``not known``.
        """
        gap = gap_of(state)
        line = cls(state.feed.name, state.feed.hotkey, "", "", "ok")
        if gap is not None:
            # ``up`` is None if the deployment lacks the endpoint or no answer came in time, and
            # True if the answer is only incomplete.
            verdict: Verdict = "failed" if state.up is False else "not known"
            line = replace(line, reason=gap.reason, advice=gap.advice, verdict=verdict)
        if state.kept is None:
            # A request that got no response has no status.
            return replace(line, status=getattr(state.last_error, "status", None))
        answer = state.kept.answer
        return replace(line, status=answer.status, records=answer.count, seconds=answer.seconds)


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
    result = asyncio.run(run_check(settings, credentials))
    click.get_current_context().exit(result.print(as_json=flags["as_json"]))


async def run_check(settings: Settings, credentials: Credentials) -> Result:
    """Request each feed once. Return the results, with those about the settings, the seats, the
    clock and changes of the API.
    """
    requested, missing = _requests(settings)
    async with Exporter(settings) as exporter:
        await exporter.feeds.read_all(requested, PATIENCE)
        states, client = exporter.feeds.states(), exporter.client
    lines = [*_setting_lines(settings, credentials)]
    lines += _price_lines(settings.costs, states)
    lines += [Line.of(states[feed]) for feed in requested]
    # A failed request for the metagraph has its line.
    metagraph = states[METAGRAPH].kept
    if metagraph is not None:
        lines += [_seat_line(hotkey, metagraph.answer) for hotkey in sorted(settings.watched)]
    lines += missing
    lines += _clock_lines(client.api_clock.offset, states)
    lines += _change_lines(client.changes)
    summary = {"api": settings.api_url, "checks": [asdict(line) for line in lines]}
    by_verdict = defaultdict[Verdict, list[Line]](list)
    for line in lines:
        by_verdict[line.verdict].append(line)
    show = partial(_print_report, summary, by_verdict)
    failed = bool(by_verdict["failed"])
    return Result(summary, show, by_verdict["not known"], needs_action=failed)


def _requests(settings: Settings) -> tuple[list[Feed[Any]], list[Line]]:
    """Return the feeds to request, and a line for each that needs a key or a hotkey."""
    requested: list[Feed[Any]] = []
    missing: list[Line] = []
    for feed in FEEDS:
        if feed is CHAIN and settings.chain_url is None:
            continue
        hotkeys = hotkeys_of(feed.scope, settings, needs_key=feed.signed)
        requested += [feed.of(hotkey) for hotkey in hotkeys]
        if not hotkeys:
            reason, advice = NO_KEY if feed.signed else _NO_HOTKEY
            missing.append(Line(feed.name, "", reason, advice, "not known"))
    return requested, missing


def _setting_lines(settings: Settings, credentials: Credentials) -> Iterator[Line]:
    # The settings are without these keys already, as if the user had removed them.
    advice = (
        f"Correct it. If you remove it, {settings.watched_in_words} is watched, without the "
        "private data of this key."
    )
    for error in credentials.errors:
        yield Line("credentials", "", with_variables(error), advice, "failed")
    if settings.web_config is not None:
        try:
            load_web_config(settings.web_config)
        except ConfigError as error:
            advice = "Correct the file, or run check as the user of the service."
            yield Line("web configuration", "", with_variables(str(error)), advice, "failed")
    for warning in settings.warnings:
        yield Line("settings", "", warning, "", "ok")


def _price_lines(costs: Costs, states: States) -> Iterator[Line]:
    """Yield a line if the prices of GPUs do not fit the servers of all keys."""
    of_servers = [state for feed, state in states.items() if feed.name == SERVERS.name]
    answers = [state.kept.answer for state in of_servers if state.kept is not None]
    places = []
    for answer in answers:
        for server in answer.value:
            places += [(server.name, gpu.gpu_identifier) for gpu in server.gpus or ()]
    are_all = len(answers) == len(of_servers) and all(answer.complete for answer in answers)
    # Without a key, no server is known.
    prices = PriceGaps.of(costs, places, are_all=bool(of_servers) and are_all)
    if str(prices):
        yield Line("prices", "", str(prices), "Correct --gpu.cost or --server.cost.", "ok")


def _clock_lines(offset: float | None, states: States) -> Iterator[Line]:
    """Yield a line if the local clock could not be compared, or is notably ahead of the API's, by
    positive seconds, or behind.
    """
    if not any(state.kept for state in states.values()):
        # Without an answer, it is no wonder that the clock is unknown.
        return
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
        # A smaller offset is only a warning.
        is_refused = abs(offset) > NONCE_TOLERANCE
        yield Line("clock", "", reason, advice, "failed" if is_refused else "ok")


def _change_lines(checks_by_endpoint: Mapping[str, FieldCheck]) -> Iterator[Line]:
    for endpoint, field_check in sorted(checks_by_endpoint.items()):
        if field_check.found:
            reason = f"{endpoint}: {', '.join(field_check.found)}"
            # An unknown field is only a warning.
            verdict: Verdict = "not known" if field_check.missing else "ok"
            yield Line("changes of the API", "", reason, _CHANGED, verdict)


def _seat_line(hotkey: str, metagraph: Answer[list[MetagraphNode]]) -> Line:
    seats = {seat.hotkey: seat for seat in metagraph.value}
    if hotkey in seats:
        seat = seats[hotkey]
        blacklisted = is_blacklisted(seat)
        if blacklisted is False:
            return Line("registration", hotkey, f"registered as UID {seat.node_id}", "", "ok")
        if blacklisted:
            reason = f"blacklisted: {seat.blacklist_reason}"
            advice = (
                "The miner gets no score and cannot launch instances. Ask the operators of Chutes."
            )
            return Line("registration", hotkey, reason, advice, "failed")
    # Only a complete answer shows that a miner has no seat.
    elif metagraph.complete:
        reason = f"hotkey not registered: {hotkey} has no seat on the subnet."
        if hotkey in {seat.coldkey for seat in metagraph.value}:
            reason += " It is the cold key of a miner: use the hotkey."
        advice = "Register it on subnet 64, or watch another hotkey."
        return Line("registration", hotkey, reason, advice, "failed")
    reason = "the metagraph does not say whether the miner has a seat and is not blacklisted"
    return Line("registration", hotkey, reason, UPDATE, "not known")


def _print_report(summary: Mapping[str, Any], by_verdict: Mapping[Verdict, list[Line]]) -> None:
    """Print all but what is not known, which Result.print adds at the end."""
    say(f"Chutes API at {summary['api']}")
    if failed := by_verdict["failed"]:
        say(f"{len(failed)} failed.", fg="red")
    elif by_verdict["not known"]:
        say("Not everything is known. Nothing that is known failed.", fg="yellow")
    else:
        say("All checks of the API and of the settings passed.", fg="green")
    print_remarks("failed", failed, "red")
    print_table(summary["checks"], _COLUMNS)
    # Most lines that passed have no reason.
    print_remarks("ok", [line for line in by_verdict["ok"] if line.reason], "green")
