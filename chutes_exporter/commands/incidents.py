"""The command ``incidents``: why instances ended, and what each end cost, from the validator's hourly reports."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.api import ApiError, ChutesClient
from chutes_exporter.api import endpoints as e
from chutes_exporter.commands.options import Command, asks, cost_option, json_option, miner_options
from chutes_exporter.commands.report import DOLLARS_ADVICE, collect_report
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.terminal import cell_text, moment, print_first, say
from chutes_exporter.duration import DAY, HOUR, MINUTE
from chutes_exporter.feeds.requests import list_reports
from chutes_exporter.page.gaps import TRY_AGAIN, NotKnown
from chutes_exporter.rules.losses import end_reason, ended_counts, is_last_of_chute, lost_compute_units, scored_seconds
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import AuditInstance, ComputeRecord
    from chutes_exporter.config import Settings

_LISTED_HOURS = 25
_DAY_HOURS = int(DAY / HOUR)
_MADE_WITHIN = 10 * MINUTE
"""Seconds after the hour within which the service has always published its report."""
_UNITS = "chutes_platform_window_compute_units"
_SHOWN = 20
"""Most ended instances of a miner on the screen."""


@click.command(cls=Command)
@click.option(
    "--hours",
    type=click.IntRange(1, _LISTED_HOURS),
    default=24,
    show_default=True,
    help="Number of hourly reports, the newest first.",
)
@miner_options("At least one hotkey is required. Its key is not.")
@cost_option
@json_option
@asks(needs_miner=True)
async def incidents(settings: Settings, flags: Mapping[str, Any]) -> Result:
    """List the instances that ended, why, and what it cost.

    The service publishes this once an hour, for all miners and without a key. The exit status is 0, or 3 if a report,
    a multiplier, a chute's name or a score is missing or cannot be read. It is 2 if the command line is wrong.
    """
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        ledger = Ledger(client, settings.watched)
        await ledger.read(flags["hours"])
        gaps: list[NotKnown] = []
        names = await _chute_names(client, gaps)
    usd_per_unit = None
    if settings.chain_url is not None:
        report = await collect_report(settings, frozenset({_UNITS}))
        gaps.extend(gap for gap in report.gaps if not gap.hotkey)
        usd_per_unit = report.usd_per_part(report.value(_UNITS, window="1d"))
    miners: list[dict[str, Any]] = [
        {"hotkey": hotkey, "ended": ledger.ended_of(hotkey, names, usd_per_unit)} for hotkey in sorted(settings.watched)
    ]

    def show() -> None:
        for miner in miners:
            _print_miner(miner["hotkey"], miner["ended"], ledger)
        if settings.chain_url is None and any(miner["ended"] for miner in miners):
            say(DOLLARS_ADVICE)

    return Result({"miners": miners}, show, [*ledger.gaps, *gaps])


class Ledger:
    """The instances of some miners that ended, with their multipliers, up to the end of the newest report."""

    def __init__(self, client: ChutesClient, hotkeys: frozenset[str]) -> None:
        self.end = 0.0
        self.gaps: list[NotKnown] = []
        self._client = client
        self._hotkeys = hotkeys
        self._ended: dict[str, AuditInstance] = {}
        # By instance and start time: the newest record of each multiplier, and what the oldest report says it was.
        self._records: defaultdict[str, dict[float, ComputeRecord]] = defaultdict(dict)
        self._earlier: defaultdict[str, dict[float, float | None]] = defaultdict(dict)

    async def read(self, hours: int) -> None:
        """Read the newest reports, and older ones while an ended instance may have unknown multipliers in them."""
        try:
            entries = await list_reports(self._client)
        except ApiError as error:
            self._miss("the list of reports", error)
            return
        paths = {entry.end_time or 0.0: entry.path for entry in entries}
        self.end = max(paths)
        api_time = time.time() - (self._client.clock_offset or 0.0)
        if api_time - self.end > HOUR + _MADE_WITHIN:
            self._miss(
                f"the ends since {moment(self.end)}", "the service has not published the report of the last hour"
            )
        for hour in range(_LISTED_HOURS):
            end, is_older = self.end - hour * HOUR, hour >= hours
            if is_older and not any(self._needs_report(instance, end) for instance in self._ended.values()):
                break
            if end in paths:
                await self._read_report(end, paths[end], is_older=is_older)
            elif hour < _DAY_HOURS:
                self._miss(f"the report of {moment(end)}", "it is not listed")
            elif not is_older:
                reason = "the service lists the 25th report only for about a minute, until it has made the newest"
                self.gaps.append(NotKnown(f"the report of {moment(end)}", "", reason, "Use --hours 24."))
        for instance in self._ended.values():
            if self._lost(instance) is None:
                self._miss(
                    f"the loss of {instance.instance_id}", "its multipliers are not known", instance.miner_hotkey
                )

    async def _read_report(self, end: float, path: str, *, is_older: bool) -> None:
        """Read a report. One older than the user chose gives only the multipliers of known instances."""
        try:
            answer = await self._client.fetch(e.AUDIT_REPORT, params={"path": path})
        except ApiError as error:
            self._miss(f"the report of {moment(end)}", error)
            return
        if answer.rejected:
            self._miss(f"the report of {moment(end)}", f"{answer.rejected} records cannot be read")
        # A newer report knows better how an instance and a multiplier ended, so setdefault keeps it.
        for instance in () if is_older else answer.value.instances:
            if instance.miner_hotkey in self._hotkeys and end - HOUR <= (instance.deleted_at or 0.0) <= end:
                self._ended.setdefault(instance.instance_id, instance)
        for record in answer.value.multipliers:
            if record.instance_id in self._ended:
                newest = self._records[record.instance_id].setdefault(record.started_at, record)
                if newest is not record:
                    self._earlier[record.instance_id][record.started_at] = record.compute_multiplier

    def _miss(self, what: str, reason: ApiError | str, hotkey: str = "") -> None:
        advice = reason.advice if isinstance(reason, ApiError) else TRY_AGAIN
        self.gaps.append(NotKnown(what, hotkey, str(reason), advice))

    def _needs_report(self, instance: AuditInstance, end: float) -> bool:
        """Return whether the report of an hour may have multipliers of an ended instance that are not known yet.

        If the miner deleted it, an older report has its last multiplier before the service cut it (see
        :func:`records_before_end`). If it lost its score, each second needs a multiplier.
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

    def _multipliers(self, instance: AuditInstance) -> tuple[list[ComputeRecord], dict[float, float | None]]:
        return list(self._records[instance.instance_id].values()), self._earlier[instance.instance_id]

    def ended_of(
        self, hotkey: str, chute_names: Mapping[str, str | None], usd_per_unit: float | None
    ) -> list[dict[str, Any]]:
        """Return a miner's ended instances, the dearest first, with the keys that docs/commands.md shows."""
        rows = []
        for instance in self._ended.values():
            if instance.miner_hotkey == hotkey:
                lost, ended_at = self._lost(instance), instance.deleted_at or 0.0
                row = {
                    "instance_id": instance.instance_id,
                    "chute_id": instance.chute_id,
                    # Only private chutes are billed, and the API names them by a placeholder.
                    "chute_name": None if instance.billed_to else chute_names.get(instance.chute_id or ""),
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


async def _chute_names(client: ChutesClient, gaps: list[NotKnown]) -> dict[str, str | None]:
    """Return the names of public chutes by id, and add to the gaps if some or all are missing."""
    try:
        answer = await client.fetch(e.UTILIZATION)
    except ApiError as error:
        gaps.append(NotKnown("names of chutes", "", str(error), error.advice))
        return {}
    if not answer.whole:
        gaps.append(NotKnown("names of chutes", "", f"{answer.rejected} records cannot be read", TRY_AGAIN))
    return {chute.chute_id: chute.name for chute in answer.value}


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
            "reason": f"{row['reason']}, last of its chute" if row["last_of_chute"] else row["reason"],
            "counts": row["counts"],
            "lost units": _rounded(row["lost_compute_units"]),
        }
        | ({} if row["lost_usd"] is None else {"lost USD": round(row["lost_usd"], 2)})
        | {"chute": row["chute_name"] or row["chute_id"], "chute id": row["chute_id"]}
        for row in ended
    ]
    print_first(rows, _SHOWN, "instances", cut=("chute", "reason"))
    lost: defaultdict[str, list[float | None]] = defaultdict(list)
    for row in ended:
        lost[row["reason"]].append(row["lost_compute_units"])
    sums = [f"{len(units)} {reason} ({cell_text(_rounded(total(units)))} units)" for reason, units in lost.items()]
    say(f"{len(ended)} ended: {', '.join(sums)}.", indent="  ")
    say(f"Never active: {sum(row['failed_start'] for row in ended)}.")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 0)
