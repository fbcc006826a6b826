"""The command ``check``: requests the endpoints and reports the results with advice."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import click
from msgspec import UNSET
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chutes_exporter import defaults
from chutes_exporter.api import endpoints as e
from chutes_exporter.api.client import NONCE_TOLERANCE, ChutesClient
from chutes_exporter.api.errors import ApiError, NotFoundError
from chutes_exporter.api.meaning import is_old_tee_server
from chutes_exporter.api.records import HistoryPoint
from chutes_exporter.commands.options import (
    Command,
    api_options,
    checked,
    hotkey_options,
    json_option,
    read_credentials,
    run,
    serving_options,
    settings_of,
    with_variable,
)
from chutes_exporter.commands.terminal import json_text, printable
from chutes_exporter.config import ConfigError
from chutes_exporter.duration import human_duration
from chutes_exporter.feeds.table import FEEDS
from chutes_exporter.web.config_file import load_web_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chutes_exporter.api.client import Answer
    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.api.records import MetagraphNode, Server
    from chutes_exporter.config import Credentials, Settings

Verdict = Literal["ok", "failed", "not asked"]
_NOTABLE_OFFSET = 30.0
_HARMLESS_404 = dict.fromkeys(
    (feed.endpoint.name for feed in FEEDS if feed.optional),
    "this deployment does not have the endpoint: collectors that need it are off",
) | {
    # A miner that is new, or never ran anything, has no history.
    e.UNIQUE_CHUTE_HISTORY.name: "the API has no history of this miner (yet)"
}
"""Endpoints whose 404 is no failure, with its meaning."""
_COLUMNS = {
    "endpoint": False,
    "credentials": False,
    "about": False,
    "status": False,
    "records": True,
    "time": True,
    "age": True,
}
"""The table's columns, and whether they are right-aligned."""


@dataclass(frozen=True)
class Line:
    """The result of one check.

    Attributes:
        endpoint: The endpoint's name.
        verdict: ``ok``, ``failed`` or ``not asked``.
        credentials: The hotkey that signed, or ``none``.
        about: The hotkey that the answer is about, or None for platform-wide answers.
        status: The HTTP status, or None.
        records: Number of records, or None without an answer.
        seconds: Duration, or None.
        age: Seconds since the newest time in the data, or None.
        note: Why it failed or was not asked, or another remark.
        advice: What to do, or empty.
    """

    endpoint: str
    verdict: Verdict
    credentials: str = "none"
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
@serving_options(defaults.LISTEN_ADDRESS)
@json_option
def check(**flags: Any) -> None:
    """Request all endpoints once, and explain what fails.

    check accepts the flags of serve, so that you can check a command line without changes. It ignores flags that do
    not matter. The exit status is 0 if all checks pass, and 1 if one fails or a setting cannot be used.
    """
    credentials = read_credentials(flags)
    # Endpoints without a signature are checked even if a key cannot be used.
    settings = checked(settings_of, flags, replace(credentials, errors=()))
    click.get_current_context().exit(run(run_check, settings, credentials, flags["as_json"]))


async def run_check(settings: Settings, credentials: Credentials, as_json: bool) -> int:  # noqa: FBT001
    """Check, print the results, and return the exit status, which is 0 if nothing failed."""
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        lines = await _Check(settings, credentials, client).lines()
        offset = client.clock_offset
    lines = [*_setting_lines(settings, credentials), *_web_line(settings), *lines, *_clock_line(offset)]
    if as_json:
        report = {"api": settings.api_url, "ok": _all_ok(lines), "checks": [asdict(line) for line in lines]}
        click.echo(json_text(report))
    else:
        _print_report(settings, lines)
    return 0 if _all_ok(lines) else 1


def _all_ok(lines: list[Line]) -> bool:
    return all(line.verdict != "failed" for line in lines)


def _setting_lines(settings: Settings, credentials: Credentials) -> Iterator[Line]:
    for error in credentials.errors:
        advice = "Correct or remove it. Private data needs a usable key."
        yield Line("credentials", "failed", note=error, advice=advice)
    for warning in credentials.warnings:
        yield Line("credentials", "ok", note=warning)
    for warning in settings.warnings:
        if warning not in credentials.warnings:
            yield Line("settings", "ok", note=warning)


def _web_line(settings: Settings) -> Iterator[Line]:
    if settings.web_config is not None:
        try:
            load_web_config(settings.web_config)
        except ConfigError as error:
            advice = "Correct the file, or run check as the user of the service."
            yield Line("web configuration", "failed", note=with_variable(str(error)), advice=advice)


def _clock_line(offset: float | None) -> Iterator[Line]:
    if offset is not None and abs(offset) > _NOTABLE_OFFSET:
        side = "ahead of" if offset > 0 else "behind"
        yield Line(
            "clock",
            "failed" if abs(offset) > NONCE_TOLERANCE else "ok",
            note=f"the local clock is {human_duration(offset)} {side} the API's",
            advice="Set the local clock (NTP). The API refuses signatures that differ by more than 10 minutes.",
        )


class _Check:
    def __init__(self, settings: Settings, credentials: Credentials, client: ChutesClient) -> None:
        self._watched = sorted(settings.watched)
        self._keys = settings.keys
        self._unusable = bool(credentials.errors)
        self._client = client

    async def lines(self) -> list[Line]:
        """Request every endpoint and return a line for each."""
        about = self._watched[0] if self._watched else None
        (metagraph, seats_line), *public = await asyncio.gather(
            self._ask(e.METAGRAPH),
            self._ask(e.SCORES),
            self._ask(e.STATS),
            self._ask(e.METRICS),
            self._ask(e.STATS, "stats (per chute)", params=e.stats_params(about, per_chute=True), about=about),
            self._ask(e.UTILIZATION),
            self._ask(e.BOUNTIES),
            self._ask(e.ROLLING_UPDATES),
            self._ask(e.HELD_GPUS),
            self._ask(e.SUPPORTED_GPUS),
        )
        measurements, measurements_line = await self._ask(e.TEE_MEASUREMENTS)
        lines = [seats_line, *self._seats(metagraph), *(line for _, line in public), measurements_line]
        hotkeys = self._watched or [node.hotkey for node in (metagraph.value if metagraph is not None else [])[:1]]
        histories = await asyncio.gather(
            *(self._ask(e.UNIQUE_CHUTE_HISTORY, path={"hotkey": hotkey}, about=hotkey) for hotkey in hotkeys)
        )
        lines.extend(line for _, line in histories)
        held = await asyncio.gather(
            *(self._ask(e.MINER_GPUS, params={"hotkey": hotkey}, about=hotkey) for hotkey in hotkeys)
        )
        lines.extend(line for _, line in held)
        if not hotkeys:
            note = "no --hotkey is given, and the metagraph lists no hotkey"
            lines.append(Line(e.UNIQUE_CHUTE_HISTORY.name, "not asked", note=note))
        versions = None if measurements is None else {measurement.version for measurement in measurements.value}
        lines.extend(await self._signed(versions))
        lines.append(Line(e.RELEASE_JOB.name, "not asked", note="check sends no request that changes anything"))
        return lines

    def _seats(self, metagraph: Answer[list[MetagraphNode]] | None) -> Iterator[Line]:
        """Return lines about the seats of the watched miners. Return none if the metagraph is incomplete."""
        if metagraph is None or metagraph.rejected:
            return
        nodes = metagraph.value
        seats = {node.hotkey: node for node in nodes}
        coldkeys = {node.coldkey for node in nodes}
        for hotkey in self._watched:
            node = seats.get(hotkey)
            if node is None:
                cold = " It is the cold key of a miner: use the hotkey." if hotkey in coldkeys else ""
                yield Line(
                    "registration",
                    "failed",
                    about=hotkey,
                    note=f"hotkey not registered: {hotkey} has no seat on the subnet.{cold}",
                    advice="Register it on subnet 64, or watch another hotkey.",
                )
            elif node.blacklist_reason:
                yield Line(
                    "registration",
                    "failed",
                    about=hotkey,
                    note=f"blacklisted: {node.blacklist_reason}",
                    advice="The miner gets no score and cannot launch instances. Ask the operators of Chutes.",
                )
            else:
                yield Line("registration", "ok", about=hotkey, note=f"registered as UID {node.node_id}")

    async def _signed(self, versions: set[str] | None) -> list[Line]:
        """Request the signed endpoints: those about the signing miner with each key, the others with the first key.

        Args:
            versions: The versions with which TEE servers may boot. None if they are unknown.
        """
        platform = [x for x in e.ENDPOINTS if x.signed and x.scope == "platform" and x is not e.CHUTE]
        per_key = [x for x in e.ENDPOINTS if x.signed and x.scope == "signer" and x is not e.RELEASE_JOB]
        if not self._keys:
            why = "the key cannot be used" if self._unusable else "needs --hotkey-file, or MINER_SS58 and MINER_SEED"
            return [Line(endpoint.name, "not asked", note=why) for endpoint in (*platform, e.CHUTE, *per_key)]
        first = self._keys[0]
        answers = dict(
            zip(platform, await asyncio.gather(*(self._ask(one, key=first) for one in platform)), strict=True)
        )
        lines = [line for _, line in answers.values()]
        chutes, _ = answers[e.CHUTES]
        chute = next((one for one in (chutes.value if chutes is not None else ()) if one.version), None)
        if chute is not None:
            path = {"chute_id": chute.chute_id, "version": chute.version}
            lines.append((await self._ask(e.CHUTE, key=first, path=path))[1])
        else:
            note = (
                "chutes failed, so the id and the version of a chute are not known"
                if chutes is None
                else "the answer of chutes has no chute with a version"
            )
            lines.append(Line(e.CHUTE.name, "not asked", note=note))
        for key in self._keys:
            results = await asyncio.gather(*(self._ask(one, key=key, about=key.address) for one in per_key))
            lines.extend(line for _, line in results)
            servers = dict(zip(per_key, results, strict=True))[e.SERVERS][0]
            if servers is not None:
                lines.extend(_tee_lines(key.address, servers.value, versions))
        return lines

    async def _ask(
        self,
        endpoint: e.Endpoint[Any],
        name: str = "",
        *,
        key: Hotkey | None = None,
        params: dict[str, str] | None = None,
        path: dict[str, str] | None = None,
        about: str | None = None,
    ) -> tuple[Answer[Any] | None, Line]:
        credentials = key.address if key is not None else "none"
        name = name or endpoint.name
        started = time.monotonic()
        try:
            answer = await self._client.fetch(endpoint, key=key, params=params, path=path)
        except ApiError as error:
            harmless = _HARMLESS_404.get(endpoint.name, "") if isinstance(error, NotFoundError) else ""
            return None, Line(
                name,
                "ok" if harmless else "failed",
                credentials,
                about,
                status=error.status,
                seconds=time.monotonic() - started,
                note=harmless or str(error),
                advice="" if harmless else error.advice,
            )
        rejected = f"{answer.rejected} records could not be read and are left out ({answer.first_error})"
        return answer, Line(
            name,
            "ok",
            credentials,
            about,
            status=200,
            records=answer.count,
            seconds=answer.seconds,
            age=_age(answer),
            note=rejected if answer.rejected else "",
            advice="Update the exporter. If that does not help, report a bug." if answer.rejected else "",
        )


def _tee_lines(hotkey: str, servers: list[Server], versions: set[str] | None) -> Iterator[Line]:
    """Return warnings about servers that cannot run chutes, or that cannot boot again."""
    tee = [server for server in servers if server.is_tee]
    warnings = {
        "the service refuses all launches of newer TEE chutes, because these servers have no version or one below "
        "0.2.1": [server for server in tee if is_old_tee_server(server)],
        "these servers do not come back after a reboot, because the service no longer accepts their version": [
            server
            for server in tee
            if versions is not None and server.version is not UNSET and server.version not in versions
        ],
        "these servers have no TEE and can run no TEE chute, and today all chutes are TEE": [
            server for server in servers if server.is_tee is False
        ],
    }
    for text, affected in warnings.items():
        if affected:
            names = ", ".join(server.name or server.server_id for server in affected)
            yield Line("TEE", "ok", about=hotkey, note=f"{text}: {names}", advice="Upgrade or replace the servers.")


def _age(answer: Answer[Any]) -> float | None:
    """Return the seconds since the newest time in the data, None without times."""
    if not isinstance(answer.value, list):
        return None
    times = [record.time for record in answer.value if isinstance(record, HistoryPoint)]
    return max(0.0, answer.received_at - max(times)) if times else None


def _short(hotkey: str) -> str:
    return hotkey if hotkey == "none" else f"{hotkey[:4]}…{hotkey[-4:]}"


_STYLES: dict[Verdict, str] = {"ok": "green", "failed": "bold red", "not asked": "dim"}


def _print_report(settings: Settings, lines: list[Line]) -> None:
    """Print a table, and below it each remark once, with advice."""
    # Text in a file is folded at 120 columns. The table fits into 80 columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120, soft_wrap=False)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column, right in _COLUMNS.items():
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    for line in lines:
        table.add_row(
            Text(line.endpoint),
            Text(_short(line.credentials)),
            Text(_short(line.about) if line.about else ""),
            Text(f"{line.verdict} {line.status or ''}".rstrip(), style=_STYLES[line.verdict]),
            "" if line.records is None else str(line.records),
            "" if line.seconds is None else f"{line.seconds:.2f} s",
            "" if line.age is None else human_duration(line.age),
        )
    with console.capture() as capture:
        console.print(Text(f"Chutes API at {settings.api_url}"))
        console.print(table)
        for (verdict, note, advice), endpoints in _grouped(lines).items():
            console.print()
            console.print(Text(f"{', '.join(endpoints)}: {verdict}", style=_STYLES[verdict]))
            console.print(Padding(Text(printable(note)), (0, 0, 0, 2)))
            if advice:
                console.print(Padding(Text(f"→ {advice}"), (0, 0, 0, 2)))
        failed = sum(1 for line in lines if line.verdict == "failed")
        console.print()
        good = Text("All checks passed.", style="green")
        console.print(Text(f"{failed} failed.", style="bold red") if failed else good)
    for text in capture.get().splitlines():
        click.echo(text.rstrip())


def _grouped(lines: list[Line]) -> dict[tuple[Verdict, str, str], list[str]]:
    """Group the endpoints of equal remarks, so that an outage is reported once and not for each endpoint."""
    groups: dict[tuple[Verdict, str, str], list[str]] = {}
    for line in lines:
        if line.note:
            groups.setdefault((line.verdict, line.note, line.advice), []).append(line.endpoint)
    return {key: list(dict.fromkeys(endpoints)) for key, endpoints in groups.items()}
