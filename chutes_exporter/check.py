"""The command ``check``: asks each endpoint once and says how it went, and what to do where it did not."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chutes_exporter.api import endpoints as e
from chutes_exporter.api.client import NONCE_TOLERANCE, ChutesClient
from chutes_exporter.api.errors import ApiError, NotFoundError
from chutes_exporter.duration import human_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chutes_exporter.api.client import Answer
    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.config import Credentials, Settings

Verdict = Literal["ok", "failed", "not asked"]
_NOTABLE_OFFSET = 30.0
_COLUMNS = ("endpoint", "credentials", "status", "records", "time", "age", "what to know and do")


@dataclass(frozen=True)
class Line:
    """How one question went.

    Attributes:
        endpoint: Its name.
        credentials: The hotkey that signed, or ``none``.
        verdict: ``ok``, ``failed`` or ``not asked``.
        status: The HTTP status, or None without one.
        records: How many records came, or None without an answer.
        seconds: How long it took, or None.
        age: Seconds since the newest time in the data, or None where it has none.
        note: Why it failed or was not asked, or what else to know.
        advice: What to do about it; empty where there is nothing to do.
    """

    endpoint: str
    credentials: str
    verdict: Verdict
    status: int | None = None
    records: int | None = None
    seconds: float | None = None
    age: float | None = None
    note: str = ""
    advice: str = ""


async def run_check(settings: Settings, credentials: Credentials, as_json: bool) -> int:  # noqa: FBT001
    """Ask, print, and return the exit status: 0 when all that should work does."""
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        lines = [line async for line in _Check(settings, credentials, client).lines()]
        offset = client.clock_offset
    lines = [*_credential_lines(credentials), *lines, *_clock_line(offset)]
    if as_json:
        report = {"api": settings.api_url, "ok": _all_ok(lines), "checks": [asdict(line) for line in lines]}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print_table(settings, lines)
    return 0 if _all_ok(lines) else 1


def _all_ok(lines: list[Line]) -> bool:
    return all(line.verdict != "failed" for line in lines)


def _credential_lines(credentials: Credentials) -> Iterator[Line]:
    for error in credentials.errors:
        advice = "Fix it or leave it out: without it the miner's private data is not exported."
        yield Line("credentials", "unusable", "failed", note=error, advice=advice)
    for warning in credentials.warnings:
        yield Line("credentials", "readable by others", "ok", note=warning)


def _clock_line(offset: float | None) -> Iterator[Line]:
    if offset is not None and abs(offset) > _NOTABLE_OFFSET:
        side = "ahead of" if offset > 0 else "behind"
        yield Line(
            "clock",
            "none",
            "failed" if abs(offset) > NONCE_TOLERANCE else "ok",
            note=f"the local clock is {human_duration(offset)} {side} the API's",
            advice="Set it right (NTP); beyond 10 minutes every signature is refused.",
        )


class _Check:
    def __init__(self, settings: Settings, credentials: Credentials, client: ChutesClient) -> None:
        self._watched = sorted(settings.watched)
        self._keys = settings.keys
        self._unusable = bool(credentials.errors)
        self._client = client

    async def lines(self) -> Any:
        """Ask every endpoint, and yield a line for each."""
        answer, line = await self._ask(e.METAGRAPH)
        yield line
        nodes = answer.value if answer is not None else None
        if nodes is not None:
            for line in self._seats(nodes):
                yield line
        for public in (e.SCORES, e.STATS, e.METRICS):
            _, line = await self._ask(public)
            yield line
        _, line = await self._ask(e.STATS, "stats (per chute)", params=self._per_chute())
        yield line
        for hotkey in self._watched or [node.hotkey for node in (nodes or [])[:1]]:
            _, line = await self._ask(e.UNIQUE_CHUTE_HISTORY, path={"hotkey": hotkey})
            yield line
        if not self._watched and not nodes:
            yield Line(e.UNIQUE_CHUTE_HISTORY.name, "none", "not asked", note="needs a hotkey: give --hotkey")
        async for line in self._signed():
            yield line
        yield Line(e.RELEASE_JOB.name, "none", "not asked", note="it changes something: never asked by a check")

    def _per_chute(self) -> dict[str, str]:
        return {"per_chute": "true"} | ({"miner_hotkey": self._watched[0]} if self._watched else {})

    def _seats(self, nodes: list[Any]) -> Iterator[Line]:
        """Say what the metagraph tells of the watched miners."""
        seats = {node.hotkey: node for node in nodes}
        coldkeys = {node.coldkey for node in nodes}
        for hotkey in self._watched:
            node = seats.get(hotkey)
            if node is None:
                cold = " It is the cold key of a miner: give the hotkey." if hotkey in coldkeys else ""
                yield Line(
                    "registration",
                    _short(hotkey),
                    "failed",
                    note=f"hotkey not registered: {hotkey} has no seat on the subnet.{cold}",
                    advice="Register it on subnet 64, or watch another.",
                )
            elif node.blacklist_reason:
                yield Line(
                    "registration",
                    _short(hotkey),
                    "failed",
                    note=f"blacklisted: {node.blacklist_reason}",
                    advice="It earns nothing: ask the operators of Chutes.",
                )
            else:
                yield Line("registration", _short(hotkey), "ok", note=f"registered as UID {node.node_id}")

    async def _signed(self) -> Any:
        """Ask what must be signed: what is a miner's own with each key, the rest with the first."""
        platform = [x for x in e.ENDPOINTS if x.signed and x.scope == "platform" and x is not e.CHUTE]
        own = [x for x in e.ENDPOINTS if x.signed and x.scope == "signer" and x is not e.RELEASE_JOB]
        if not self._keys:
            why = "no usable key: see above" if self._unusable else "needs --hotkey-file, or MINER_SEED and MINER_SS58"
            for endpoint in (*platform, e.CHUTE, *own):
                yield Line(endpoint.name, "none", "not asked", note=why)
            return
        chute = None
        for endpoint in platform:
            answer, line = await self._ask(endpoint, key=self._keys[0])
            yield line
            if endpoint is e.CHUTES and answer is not None:
                chute = next((one for one in answer.value if one.version), None)
        if chute is not None:
            path = {"chute_id": chute.chute_id, "version": chute.version}
            _, line = await self._ask(e.CHUTE, key=self._keys[0], path=path)
            yield line
        else:
            yield Line(e.CHUTE.name, "none", "not asked", note="chutes named none to ask for")
        for key in self._keys:
            for endpoint in own:
                _, line = await self._ask(endpoint, key=key)
                yield line

    async def _ask(
        self,
        endpoint: e.Endpoint[Any],
        name: str = "",
        *,
        key: Hotkey | None = None,
        params: dict[str, str] | None = None,
        path: dict[str, str] | None = None,
    ) -> tuple[Answer[Any] | None, Line]:
        credentials = _short(key.address) if key is not None else "none"
        name = name or endpoint.name
        started = time.monotonic()
        try:
            answer = await self._client.fetch(endpoint, key=key, params=params, path=path)
        except ApiError as error:
            # A miner that is new, or never ran anything, has no history: nothing is wrong with that.
            harmless = endpoint is e.UNIQUE_CHUTE_HISTORY and isinstance(error, NotFoundError)
            return None, Line(
                name,
                credentials,
                "ok" if harmless else "failed",
                status=error.status,
                seconds=time.monotonic() - started,
                note="the API has no history of this miner (yet)" if harmless else str(error),
                advice="" if harmless else error.advice,
            )
        rejected = (
            f"{answer.rejected} records cannot be read and are left out: {answer.first_error}"
            if answer.rejected
            else ""
        )
        return answer, Line(
            name,
            credentials,
            "ok",
            status=200,
            records=answer.count,
            seconds=answer.seconds,
            age=_age(answer),
            note=rejected,
            advice="Update the exporter, or report it." if rejected else "",
        )


def _age(answer: Answer[Any]) -> float | None:
    """Return the seconds since the newest moment that the service itself dates its data with."""
    if not isinstance(answer.value, list):
        return None
    times = [
        moment
        for record in answer.value
        for name in ("synced_at", "time")
        if (moment := getattr(record, name, None)) is not None
    ]
    return max(0.0, answer.received_at - max(times)) if times else None


def _short(hotkey: str) -> str:
    return f"{hotkey[:6]}…{hotkey[-4:]}"


def _print_table(settings: Settings, lines: list[Line]) -> None:
    # A file has no edge to fold at.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        right = column in ("records", "time", "age")
        table.add_column(column, justify="right" if right else "left", overflow="fold", no_wrap=right)
    styles = {"ok": "green", "failed": "bold red", "not asked": "dim"}
    for line in lines:
        style = styles[line.verdict]
        status = line.verdict if line.status is None else f"{line.verdict} {line.status}"
        told = " → ".join(part for part in (line.note, line.advice) if part)
        table.add_row(
            Text(line.endpoint),
            Text(line.credentials),
            Text(status, style=style),
            "" if line.records is None else str(line.records),
            "" if line.seconds is None else f"{line.seconds:.2f} s",
            "" if line.age is None else human_duration(line.age),
            Text(told),
        )
    console.print(Text(f"Chutes API at {settings.api_url}"))
    console.print(table)
    failed = sum(1 for line in lines if line.verdict == "failed")
    skipped = sum(1 for line in lines if line.verdict == "not asked")
    good = Text("All that should work does", style="green")
    summary = Text(f"{failed} failed", style="bold red") if failed else good
    console.print(summary + Text(f"; {skipped} not asked." if skipped else "."))
