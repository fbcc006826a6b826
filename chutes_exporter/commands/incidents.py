"""The command ``incidents``: why instances ended, and what each end cost, from the validator's
hourly reports.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from chutes_exporter.api import ChutesClient
from chutes_exporter.commands.options import (
    Command,
    asks,
    json_option,
    miner_options,
    require_miner,
)
from chutes_exporter.commands.reports import read_reports
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.snapshot import DOLLARS_ADVICE, Snapshot, take_snapshot
from chutes_exporter.commands.terminal import (
    iso_time,
    moment,
    percent,
    print_first_rows,
    say,
    with_columns,
)
from chutes_exporter.duration import DAY_HOURS, MINUTE
from chutes_exporter.feeds.definitions import CHUTES, UTILIZATION
from chutes_exporter.fleet.ends import Ledger, sum_of_losses
from chutes_exporter.page.gaps import NO_KEY, TRY_AGAIN, NotKnown
from chutes_exporter.rules.losses import NO_REASON, REDEPLOYED
from chutes_exporter.rules.sums import product

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.ends import End

Row = dict[str, Any]
"""A row of a table. Its keys are the headings on the screen and the names in the JSON."""

_UNIT_USD: Final = "chutes_compute_unit_usd"
_DAY_UNITS: Final = "chutes_miner_score_window_compute_units"
_UNCLEAR: Final = f"{REDEPLOYED} or {NO_REASON}"
"""The reason if only the name of a private chute would tell."""
_MEANINGS: Final = {
    "probes": "no answer to probes: look at server and network",
    "requests": "many requests failed: look at its log",
    "verification": "a check of its start failed",
    "not_active_in_time": "starting or disabled for too long",
    "gpu_missing": "one of its GPUs was deleted at the API",
    "miner": "its miner deleted it (a last one loses most)",
    REDEPLOYED: "its chute got a new version",
    "scale_down": "fewer instances were wanted",
    "update": "its chute was updated",
    "maintenance": "its server was in maintenance",
    "idle": "nobody used it",
    "no_balance": "its user had no balance",
    "chute_removed": "its chute was deleted",
    NO_REASON: "none is given, as of a job that is over",
    "other": "unknown: see reason_text in --json",
    _UNCLEAR: "the name of the private chute would tell",
}
"""What each reason says, and where to look."""
_WORDS: Final = {"exact": "", "about": "about ", "at_least": "at least "}
_MOST_ROWS: Final = 20
"""Most rows of a table on the screen."""
_MOST_CHUTES: Final = 5
"""Most chutes on the screen, those that lost most."""


@click.command(cls=Command)
@click.option(
    "--hours",
    type=click.IntRange(1, DAY_HOURS),
    default=DAY_HOURS,
    show_default=True,
    help="Number of hourly reports, the newest first.",
)
@miner_options("At least one hotkey is required. Its key is not.")
@json_option
@asks
async def incidents(settings: Settings, flags: Mapping[str, Any]) -> Result:
    """List the instances that ended, why, and what it cost.

    The service publishes this once an hour, for all miners and without a key. A key names private
    chutes, which tells whether they were redeployed. The exit status is 0, or 3 if a report, a
    multiplier, a chute's name or a score is missing or cannot be read. It is 2 if the command line
    is wrong.
    """
    require_miner(settings)
    names_feed = CHUTES if settings.keys else UTILIZATION
    snapshot = await take_snapshot(settings, frozenset({_UNIT_USD, _DAY_UNITS}), [names_feed])
    # A fleet needs a key, but what ended does not. Gaps of a fleet have a hotkey.
    snapshot.gaps[:] = [gap for gap in snapshot.gaps if not gap.hotkey]
    hours = flags["hours"]
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        reports, gaps = await read_reports(client, settings, hours, all_losses=True)
    snapshot.gaps.extend(gaps)
    ledger = Ledger(reports, snapshot.records(CHUTES))
    ends = [end for end in ledger.ends(hours) if end.hotkey in settings.watched]
    snapshot.gaps.extend(_gaps(ends, has_key=bool(settings.keys)))
    maker = _Maker(snapshot, ledger.missing_hours(hours), _chute_names(snapshot, ends))
    miners = [maker.miner(hotkey, ends) for hotkey in sorted(settings.watched)]

    def show() -> None:
        for miner in miners:
            _print_miner(miner, ledger.end, hours, has_gaps=bool(snapshot.gaps))
        if settings.chain_url is None and ends:
            say(DOLLARS_ADVICE)

    return Result({"miners": miners}, show, snapshot.gaps)


def _gaps(ends: Iterable[End], *, has_key: bool) -> list[NotKnown]:
    """Return which losses and reasons are not known."""
    gaps = []
    for end in ends:
        if end.loss_precision == "at_least":
            subject, reason = f"the loss of {end.instance_id}", "not all its multipliers are known"
            advice = "It is at least what is shown. No later report tells more."
            gaps.append(NotKnown(subject, end.hotkey, reason, advice))
        if end.reason is None:
            # Only the name of its chute tells whether it was redeployed.
            reason, advice = "the name of its chute is not known", TRY_AGAIN
            if not has_key:
                reason, advice = NO_KEY
            gaps.append(NotKnown(f"why {end.instance_id} ended", end.hotkey, reason, advice))
    return gaps


def _chute_names(snapshot: Snapshot, ends: Iterable[End]) -> dict[str, str | None]:
    """Return the names of chutes by id: with a key also those of private ones."""
    # The public answer names private chutes by a placeholder.
    private_ids = {end.chute_id for end in ends if end.private}
    names = {}
    for chute in snapshot.records(UTILIZATION):
        if chute.chute_id not in private_ids:
            names[chute.chute_id] = chute.name
    return names | {chute.chute_id: chute.name for chute in snapshot.records(CHUTES)}


@dataclass(frozen=True)
class _Maker:
    """Makes the rows of miners. What is not known is None."""

    snapshot: Snapshot
    hours_missing: list[float]
    chute_names: Mapping[str, str | None]

    def miner(self, hotkey: str, ends: Iterable[End]) -> Row:
        """Return the ended instances of a miner, the most costly first, and sums by reason and by
        chute.

        An unknown loss counts as 0. Of equal losses, the one that ended first comes first.
        """
        ends = [end for end in ends if end.hotkey == hotkey]
        ends.sort(key=lambda end: (-(end.lost_units or 0.0), end.ended_at))
        by_reason: dict[str, list[End]] = defaultdict(list)
        by_chute: dict[str | None, list[End]] = defaultdict(list)
        # Such an end has one of these two reasons.
        is_unclear = any(end.reason is None for end in ends)
        for end in ends:
            reason = end.reason or _UNCLEAR
            if is_unclear and reason in (NO_REASON, REDEPLOYED):
                reason = _UNCLEAR
            by_reason[reason].append(end)
            by_chute[end.chute_id].append(end)
        sums: list[Row] = []
        for reason, of_reason in by_reason.items():
            meaning = {"meaning": _MEANINGS[reason]}
            sums.append({"reason": reason} | self._sum(of_reason) | meaning)
        chutes: list[Row] = []
        for chute_id, of_chute in by_chute.items():
            name = {"chute": self.chute_names.get(chute_id or "")}
            chutes.append(name | self._sum(of_chute) | {"chute_id": chute_id})
        for rows in (sums, chutes):
            rows.sort(key=lambda row: -(row["lost_compute_units"] or 0.0))
        everything: Row = {"reason": "all"} | self._sum(ends)
        ratio = None
        # The units of the day may be unknown or 0.
        if day_units := self.snapshot.value(_DAY_UNITS, hotkey=hotkey, window="1d"):
            ratio = product(everything["lost_compute_units"], 1 / day_units)
        return {
            "hotkey": hotkey,
            "hours_missing": len(self.hours_missing),
            "lost_ratio_of_day": ratio,
            "sums": [*sums, everything],
            "chutes": chutes,
            "ended": [self._ended(end) for end in ends],
        }

    def _sum(self, ends: list[End]) -> Row:
        """Return how many ended, what they lost, and whether that is exact.

        The report of a missing hour may have more ends.
        """
        lost = sum_of_losses(ends)
        units: float | None = lost.known
        precision = "about" if lost.are_about else "exact"
        if lost.unknown or self.hours_missing:
            # A lower bound of 0 says nothing.
            units, precision = lost.known or None, "at_least"
        return {
            "instances": None if self.hours_missing else len(ends),
            "lost_compute_units": units,
            "lost_usd": product(units, self.snapshot.value(_UNIT_USD)),
            "lost_precision": precision,
        }

    def _ended(self, end: End) -> Row:
        """Return an ended instance. An unknown chute has no name.

        A duration is never negative, even if the times contradict each other.
        """
        active_minutes = None
        if end.activated_at is not None:
            active_minutes = max(0.0, end.ended_at - end.activated_at) / MINUTE
        return {
            "ended_at": iso_time(end.ended_at),
            "reason": end.reason,
            "outcome": end.outcome,
            "last_of_chute": end.is_last_of_chute,
            "lost_compute_units": end.lost_units,
            "lost_usd": product(end.lost_units, self.snapshot.value(_UNIT_USD)),
            "lost_precision": end.loss_precision,
            "chute": self.chute_names.get(end.chute_id or ""),
            "active_minutes": active_minutes,
            "age_minutes": max(0.0, end.ended_at - end.created_at) / MINUTE,
            "private": end.private,
            "chute_id": end.chute_id,
            "instance_id": end.instance_id,
            "reason_text": end.text,
        }


def _print_miner(miner: Row, until: float, hours: int, *, has_gaps: bool) -> None:
    """Print what a miner lost in the hours until a Unix time, which is 0 without any report.

    ``has_gaps`` is whether something is not known, so that an end may be missing.
    """
    say(f"{miner['hotkey']}  until {moment(until)}" if until else miner["hotkey"], bold=True)
    if not miner["ended"]:
        say("No ended instance is known." if has_gaps else "No instance ended.")
        return
    more = "at least " if miner["hours_missing"] else ""
    text = f"{hours} h: {more}{len(miner['ended'])} ended."
    if miner["lost_ratio_of_day"]:
        precision = _WORDS[miner["sums"][-1]["lost_precision"]]
        ratio = percent(miner["lost_ratio_of_day"])
        text += f" They lost {precision}{ratio} of the units of the day."
    say(text, indent="  ")
    _print_table(miner["sums"], _MOST_ROWS, "reasons")
    click.echo()
    _print_table(miner["chutes"], _MOST_CHUTES, "chutes")
    click.echo()
    _print_table(miner["ended"], _MOST_ROWS, "instances")


def _print_table(rows: list[Row], most: int, noun: str) -> None:
    """Print rows without the column of precision, if all is exact."""
    names = list(rows[0])
    if all(row["lost_precision"] == "exact" for row in rows):
        names.remove("lost_precision")
    print_first_rows(with_columns(rows, names), most, noun)
