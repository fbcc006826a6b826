"""The command ``incidents``: why instances ended, and what each end cost, from the validator's
hourly reports.
"""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.api import endpoints as e
from chutes_exporter.commands.options import Command, asks, json_option, miner_options
from chutes_exporter.commands.report import DOLLARS_ADVICE, collect_report
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.terminal import cell_text, moment, print_first, say
from chutes_exporter.duration import DAY, HOUR, MINUTE
from chutes_exporter.feeds.requests import list_reports
from chutes_exporter.page.gaps import TRY_AGAIN, NotKnown
from chutes_exporter.rules.losses import (
    end_reason,
    ended_counts,
    is_last_of_chute,
    lost_compute_units,
    scored_seconds,
)
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import AuditInstance, ComputeRecord
    from chutes_exporter.config import Settings

T = TypeVar("T")

_DAY_HOURS = int(DAY / HOUR)
_MADE_WITHIN = 10 * MINUTE
"""Seconds after the hour within which the service has always published its report."""
_UNITS = "chutes_platform_window_compute_units"
_SHOWN = 20
"""Most ended instances of a miner on the screen."""


@click.command(cls=Command)
@click.option(
    "--hours",
    type=click.IntRange(1, _DAY_HOURS),
    default=_DAY_HOURS,
    show_default=True,
    help="Number of hourly reports, the newest first.",
)
@miner_options("At least one hotkey is required. Its key is not.")
@json_option
@asks(needs_miner=True)
async def incidents(settings: Settings, flags: Mapping[str, Any]) -> Result:
    """List the instances that ended, why, and what it cost.

    The service publishes this once an hour, for all miners and without a key. The exit status is 0,
    or 3 if a report, a multiplier, a chute's name or a score is missing or cannot be read. It is 2
    if the command line is wrong.
    """
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        ledger = Ledger(client, settings.watched)
        await ledger.read(flags["hours"])
        names = await ledger.chute_names()
    usd_per_unit = None
    if settings.chain_url is not None and ledger.ended:
        report = await collect_report(settings, frozenset({_UNITS}))
        ledger.gaps.extend(gap for gap in report.gaps if not gap.hotkey)
        usd_per_unit = report.usd_per_part(report.value(_UNITS, window="1d"))
    miners: list[dict[str, Any]] = [
        {"hotkey": hotkey, "ended": ledger.ended_of(hotkey, names, usd_per_unit)}
        for hotkey in sorted(settings.watched)
    ]

    def show() -> None:
        for miner in miners:
            _print_miner(miner["hotkey"], miner["ended"], ledger)
        if settings.chain_url is None and ledger.ended:
            say(DOLLARS_ADVICE)

    return Result({"miners": miners}, show, ledger.gaps)


class Ledger:
    """The instances of some miners that ended, with their multipliers, up to the end of the newest
    report.
    """

    def __init__(self, client: ChutesClient, hotkeys: frozenset[str]) -> None:
        self.end = 0.0
        self.gaps: list[NotKnown] = []
        self._client = client
        self._hotkeys = hotkeys
        self.ended: dict[str, AuditInstance] = {}
        # By instance and start time: the newest record of each multiplier, and what the oldest
        # report says it was.
        self._records: defaultdict[str, dict[float, ComputeRecord]] = defaultdict(dict)
        self._earlier: defaultdict[str, dict[float, float | None]] = defaultdict(dict)

    async def read(self, hours: int) -> None:
        """Read the newest reports, and older ones while an ended instance may have unknown
        multipliers in them.
        """
        try:
            entries = await list_reports(self._client)
        except ApiError as error:
            self.gaps.append(NotKnown.after(error, "the list of reports", ""))
            return
        paths = {entry.end_time or 0.0: entry.path for entry in entries}
        self.end = max(paths)
        api_time = time.time() - (self._client.clock_offset or 0.0)
        if api_time - self.end > HOUR + _MADE_WITHIN:
            self._miss(
                f"the ends since {moment(self.end)}",
                "the service has not published the report of the last hour",
            )
        # For about a minute, the service lists the report of a 25th hour.
        for hour in range(_DAY_HOURS + 1):
            end, is_older = self.end - hour * HOUR, hour >= hours
            if is_older and not any(
                self._needs_report(instance, end) for instance in self.ended.values()
            ):
                break
            if end in paths:
                await self._read_report(end, paths[end], is_older=is_older)
            elif hour < _DAY_HOURS:
                self._miss(f"the report of {moment(end)}", "it is not listed")
        for instance in self.ended.values():
            if self._lost(instance) is None:
                self._miss(
                    f"the loss of {instance.instance_id}",
                    "its multipliers are not known",
                    instance.miner_hotkey,
                )

    async def _read_report(self, end: float, path: str, *, is_older: bool) -> None:
        """Read a report. One older than the user chose gives only the multipliers of known
        instances.
        """
        report = await self._fetch(f"the report of {moment(end)}", e.AUDIT_REPORT, path=path)
        # A newer report knows better how an instance and a multiplier ended, so setdefault keeps
        # it.
        for instance in () if is_older or report is None else report.instances:
            if (
                instance.miner_hotkey in self._hotkeys
                and end - HOUR <= (instance.deleted_at or 0.0) <= end
            ):
                self.ended.setdefault(instance.instance_id, instance)
        for record in () if report is None else report.multipliers:
            if record.instance_id in self.ended:
                newest = self._records[record.instance_id].setdefault(record.started_at, record)
                if newest is not record:
                    self._earlier[record.instance_id][record.started_at] = record.compute_multiplier

    async def chute_names(self) -> dict[str, str | None]:
        """Return the names of public chutes by id, if there is an ended instance."""
        if not self.ended:
            return {}
        chutes = await self._fetch("names of chutes", e.UTILIZATION)
        return {chute.chute_id: chute.name for chute in chutes or ()}

    async def _fetch(self, what: str, endpoint: e.Endpoint[T], **params: str) -> T | None:
        """Return the value of an answer, None after an error. What cannot be read becomes a gap."""
        try:
            answer = await self._client.fetch(endpoint, params=params)
        except ApiError as error:
            self.gaps.append(NotKnown.after(error, what, ""))
            return None
        if answer.rejected:
            self._miss(what, f"{answer.rejected} records cannot be read")
        return answer.value

    def _miss(self, what: str, reason: str, hotkey: str = "") -> None:
        self.gaps.append(NotKnown(what, hotkey, reason, TRY_AGAIN))

    def _needs_report(self, instance: AuditInstance, end: float) -> bool:
        """Return whether the report of an hour may have multipliers of an ended instance that are
        not known yet.

        If the miner deleted it, an older report has its last multiplier before the service cut it
        (see :func:`records_before_end`). If it lost its score, each second needs a multiplier.
        """
        if instance.activated_at is None:
            return False
        records, earlier = self._multipliers(instance)
        last_start = max((record.started_at for record in records), default=end)
        may_be_cut = end_reason(instance.deletion_reason) == "miner" and last_start not in earlier
        if may_be_cut and last_start < end:
            return True
        loses = is_last_of_chute(instance, records, earlier) or not ended_counts(instance)
        _, seconds_without_record = scored_seconds(instance, records, self.end)
        return loses and seconds_without_record > 1

    def _lost(self, instance: AuditInstance) -> float | None:
        return lost_compute_units(instance, *self._multipliers(instance), self.end)

    def _multipliers(
        self, instance: AuditInstance
    ) -> tuple[list[ComputeRecord], dict[float, float | None]]:
        return list(self._records[instance.instance_id].values()), self._earlier[
            instance.instance_id
        ]

    def ended_of(
        self, hotkey: str, chute_names: Mapping[str, str | None], usd_per_unit: float | None
    ) -> list[dict[str, Any]]:
        """Return a miner's ended instances, the dearest first, with the keys that docs/commands.md
        shows.
        """
        rows = []
        for instance in self.ended.values():
            if instance.miner_hotkey == hotkey:
                lost, ended_at = self._lost(instance), instance.deleted_at or 0.0
                row = {
                    "instance_id": instance.instance_id,
                    "chute_id": instance.chute_id,
                    # Only private chutes are billed, and the API names them by a placeholder.
                    "chute_name": None
                    if instance.billed_to
                    else chute_names.get(instance.chute_id or ""),
                    "ended_at": datetime.fromtimestamp(ended_at, UTC).isoformat(),
                    "age_seconds": max(0.0, ended_at - instance.created_at),
                    "active_seconds": max(0.0, ended_at - (instance.activated_at or ended_at)),
                    "reason": end_reason(instance.deletion_reason),
                    "reason_text": instance.deletion_reason,
                    "last_of_chute": is_last_of_chute(instance, *self._multipliers(instance)),
                    "counts": ended_counts(instance),
                    "failed_start": instance.activated_at is None,
                    "lost_compute_units": lost,
                    "lost_usd": product(lost, usd_per_unit),
                }
                rows.append(row)
        return sorted(rows, key=lambda row: (-(row["lost_compute_units"] or 0.0), row["ended_at"]))


# The screen


def _print_miner(hotkey: str, ended: list[dict[str, Any]], ledger: Ledger) -> None:
    say(f"{hotkey}  until {moment(ledger.end)}" if ledger.end else hotkey, bold=True)
    if not ended:
        say("No ended instance is known." if ledger.gaps else "No instance ended.")
        return
    rows = [
        {
            "ended": row["ended_at"],
            "age min": round(row["age_seconds"] / 60),
            "active min": None if row["failed_start"] else round(row["active_seconds"] / 60),
            "reason": f"{row['reason']}, last of its chute"
            if row["last_of_chute"]
            else row["reason"],
            "counts": row["counts"],
            "lost units": row["lost_compute_units"],
        }
        | ({} if row["lost_usd"] is None else {"lost USD": row["lost_usd"]})
        | {"chute": row["chute_name"] or row["chute_id"], "chute id": row["chute_id"]}
        for row in ended
    ]
    print_first(rows, _SHOWN, "instances", cut=("chute", "reason"))
    lost: defaultdict[str, list[float | None]] = defaultdict(list)
    for row in ended:
        lost[row["reason"]].append(row["lost_compute_units"])
    sums = [
        f"{len(units)} {reason} ({_rounded(total(units))} units)" for reason, units in lost.items()
    ]
    say(f"{len(ended)} ended: {', '.join(sums)}.", indent="  ")
    say(f"Never active: {sum(row['failed_start'] for row in ended)}.")


def _rounded(units: float | None) -> str:
    return cell_text(units and round(units, 0))
