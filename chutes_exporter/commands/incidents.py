"""The command ``incidents``: why instances ended, and what each end cost, from the validator's
hourly reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from chutes_exporter.commands.options import Command, asks, miner_options, require_miner
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.snapshot import PATIENCE, read_reports
from chutes_exporter.commands.terminal import Row, iso_time, print_table, say
from chutes_exporter.duration import DAY_HOURS, HOUR, MINUTE, utc_text
from chutes_exporter.feeds.definitions import CHUTES, UTILIZATION
from chutes_exporter.fleet.answers import by_field
from chutes_exporter.fleet.ends import Ledger, sum_of_losses
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.gaps import NO_KEY, TRY_AGAIN, NotKnown
from chutes_exporter.rules.losses import NO_REASON, REDEPLOYED
from chutes_exporter.rules.sums import product

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.fleet.ends import End

Names = dict[str | None, str | None]
"""The names of chutes by their ids. That of a private one is None without a key."""

_UNIT_USD: Final = "chutes_compute_unit_usd"
_DAY_UNITS: Final = "chutes_miner_score_window_compute_units"
_UNCLEAR: Final = f"{REDEPLOYED} or {NO_REASON}"
"""The reason if only the name of a private chute would tell."""
_MEANINGS: Final = {
    "probes": "no answer: look at server and network",
    "requests": "many requests failed: look at its log",
    "verification": "a check of its start failed",
    "not_active_in_time": "starting or disabled for too long",
    "gpu_missing": "one of its GPUs was deleted at the API",
    "miner": "its miner deleted it: see active_minutes",
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
_MOST_ROWS: Final = 20
"""Most instances on the screen, those that lost most."""
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
@asks
async def incidents(settings: Settings, flags: Mapping[str, Any]) -> Result:
    """List the instances that ended, why, and what it cost.

    The service publishes this once an hour, for all miners and without a key. A key names private
    chutes, which tells whether they were redeployed. The exit status is 0, or 3 if a report, a
    multiplier, a chute's name or a score is missing or cannot be read. It is 2 if the command line
    is wrong.
    """
    require_miner(settings)
    hours, has_key = flags["hours"], bool(settings.keys)
    names_feed: Feed[Any] = CHUTES if has_key else UTILIZATION
    metrics = (_UNIT_USD, _DAY_UNITS)
    async with Exporter(settings) as exporter:
        snapshot = await exporter.snapshot(metrics, [names_feed], timeout=PATIENCE)
        chutes = snapshot.records(CHUTES)
        reports, gaps_of_reports = await read_reports(exporter.client, settings, hours, chutes)
    ledger = Ledger(reports, chutes)
    # The reports have only the watched miners.
    ends = ledger.ends(hours)
    # A fleet needs a key, but what ended does not. Gaps of a fleet have a hotkey.
    gaps = [gap for gap in snapshot.gaps if not gap.hotkey]
    gaps += [*gaps_of_reports, *_gaps_of_ends(ends, has_key=has_key)]
    names = _chute_names(snapshot.records(names_feed), ends, has_key=has_key)
    miners = []
    for hotkey in sorted(settings.watched):
        miner = _Miner(
            ends=ledger.ends_of(hotkey, hours),
            names=names,
            unit_usd=snapshot.value(_UNIT_USD),
            day_units=snapshot.value(_DAY_UNITS, hotkey=hotkey, window="1d"),
            is_complete=not ledger.missing_hours(hours),
        )
        miners.append({"hotkey": hotkey, **miner.tables()})
    period = f"From {utc_text(ledger.end - hours * HOUR)} to {utc_text(ledger.end)}."
    # Without any report, there is no time.
    show = partial(_show, miners, period if ledger.end else "", gaps)
    return Result({"miners": miners}, show, gaps)


def _gaps_of_ends(ends: Iterable[End], *, has_key: bool) -> list[NotKnown]:
    gaps = []
    for end in ends:
        if end.loss.precision == "at_least":
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


def _chute_names(chutes: Iterable[Any], ends: Iterable[End], *, has_key: bool) -> Names:
    names: Names = {chute.chute_id: chute.name for chute in chutes}
    if not has_key:
        # The public answer names private chutes by a placeholder.
        names |= {end.chute_id: None for end in ends if end.private}
    return names


@dataclass(frozen=True)
class _Miner:
    """The ended instances of a miner.

    Attributes:
        unit_usd: What a compute unit is worth.
        day_units: The compute units of its day.
        is_complete: Whether all its ends are known.
    """

    ends: list[End]
    names: Names
    unit_usd: float | None
    day_units: float | None
    is_complete: bool

    def tables(self) -> dict[str, list[Row]]:
        """Return losses by reason with their sum, those by chute, and the ends, largest first."""
        sums: list[Row] = []
        chutes: list[Row] = []
        for known_reason, ends in by_field(self.ends, "reason").items():
            reason = known_reason or _UNCLEAR
            sums.append({"reason": reason} | self.loss(ends, _MEANINGS[reason]))
        for chute_id, ends in by_field(self.ends, "chute_id").items():
            loss = self.loss(ends)
            chutes.append({"chute": self.names.get(chute_id)} | loss | {"chute_id": chute_id})
        ended = [self.ended(end) for end in self.ends]
        for rows in (sums, chutes, ended):
            rows.sort(key=lambda row: row["lost_compute_units"] or 0.0, reverse=True)
        sums.append({"reason": "all"} | self.loss(self.ends))
        return {"sums": sums, "chutes": chutes, "ended": ended}

    def loss(self, ends: list[End], meaning: str | None = None) -> Row:
        """Return what some of the instances lost together."""
        lost = sum_of_losses(ends)
        units: float | None = lost.known
        precision = "about" if lost.are_about else "exact"
        if lost.unknown or not self.is_complete:
            # The report of a missing hour may have more ends. A lower bound of 0 says nothing.
            units, precision = lost.known or None, "at_least"
        percent = None
        # The units of the day may be unknown or 0.
        if self.day_units:
            percent = product(units, 100 / self.day_units)
        return {
            "instances": len(ends) if self.is_complete else None,
            "lost_compute_units": units,
            "meaning": meaning,
            "lost_precision": precision,
            "percent_of_day": percent,
            "lost_usd": product(units, self.unit_usd),
        }

    def ended(self, end: End) -> Row:
        """Return an instance with what it lost."""
        # A duration is never negative, even if the times contradict each other.
        active_minutes = None
        if end.activated_at is not None:
            active_minutes = max(0.0, end.ended_at - end.activated_at) / MINUTE
        return {
            "ended_at": iso_time(end.ended_at),
            "reason": end.reason,
            "lost_compute_units": end.loss.units,
            "chute": self.names.get(end.chute_id),
            "last_of_chute": end.loss.is_last_of_chute,
            "active_minutes": active_minutes,
            "lost_usd": product(end.loss.units, self.unit_usd),
            "private": end.private,
            "lost_precision": end.loss.precision,
            "age_minutes": max(0.0, end.ended_at - end.created_at) / MINUTE,
            "outcome": end.outcome,
            "chute_id": end.chute_id,
            "instance_id": end.instance_id,
            "reason_text": end.text,
        }


def _show(miners: list[Row], period: str, gaps: list[NotKnown]) -> None:
    for miner in miners:
        say(miner["hotkey"], bold=True)
        say(period)
        if not miner["ended"]:
            # While something is not known, an end may be missing.
            say("No ended instance is known." if gaps else "No instance ended.")
            continue
        print_table(miner["sums"], title="By reason")
        print_table(miner["chutes"], title="By chute", most=_MOST_CHUTES)
        print_table(miner["ended"], title="Ended instances", most=_MOST_ROWS)
        say(
            "The reports do not say on which server an instance ran. Prometheus does, for an "
            'instance_id of --json: last_over_time(chutes_instance_gpus{instance_id="ID"}[1d])'
        )
