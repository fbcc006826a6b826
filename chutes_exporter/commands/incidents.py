"""The command ``incidents``: why instances ended, and what each end cost, from the validator's
hourly reports.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.api import ChutesClient
from chutes_exporter.commands.audit import AuditReading
from chutes_exporter.commands.options import Command, asks, json_option, miner_options
from chutes_exporter.commands.report import DOLLARS_ADVICE, collect_report
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.terminal import (
    cell_text,
    iso_time,
    moment,
    percent,
    print_first_rows,
    say,
)
from chutes_exporter.duration import DAY_HOURS
from chutes_exporter.feeds import definitions as e
from chutes_exporter.fleet.ends import Ledger
from chutes_exporter.page.gaps import NO_KEY, TRY_AGAIN, NotKnown
from chutes_exporter.rules.losses import NO_REASON, REDEPLOYED
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.ends import End

_WORDS = {"exact": None, "about": "about", "at_least": "at least"}
_UNIT_USD = "chutes_compute_unit_usd"
_UNCLEAR = f"{REDEPLOYED} or {NO_REASON}"
"""The reason if only the name of a private chute would tell."""
_AT_LEAST = "It is at least what is shown. No later report tells more."
_MOST_INSTANCES = 20
"""Most ended instances of a miner on the screen."""


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
@asks(needs_miner=True)
async def incidents(settings: Settings, flags: Mapping[str, Any]) -> Result:
    """List the instances that ended, why, and what it cost.

    The service publishes this once an hour, for all miners and without a key. A key names private
    chutes, which tells whether they were redeployed. The exit status is 0, or 3 if a report, a
    multiplier, a chute's name or a score is missing or cannot be read. It is 2 if the command line
    is wrong.
    """
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        reading = Reading(client, settings)
        await reading.read(flags["hours"])
    ended = reading.watched_ends(flags["hours"])
    has_chain = settings.chain_url is not None
    usd_per_unit = None
    # The price comes from the chain, and is only for losses.
    if has_chain and ended:
        usd_per_unit = await _usd_per_unit(settings, reading)
    miners = []
    for hotkey in sorted(settings.watched):
        ended_of_miner = [instance for instance in ended if instance.hotkey == hotkey]
        rows = _rows(ended_of_miner, reading.chute_names, usd_per_unit)
        miners.append(_miner(hotkey, rows, reading, flags["hours"]))

    def show() -> None:
        for miner in miners:
            # The screen shows until when the reports go: the end of the newest one.
            _print_miner(miner, reading.ledger.end, flags["hours"], has_gaps=bool(reading.gaps))
        if not has_chain and ended:
            say(DOLLARS_ADVICE)

    return Result({"miners": miners}, show, reading.gaps)


async def _usd_per_unit(settings: Settings, reading: Reading) -> float | None:
    """Return what a compute unit is worth. What is not known for it becomes a gap."""
    # The price needs no fleet, only answers about the platform. Their gaps have no hotkey.
    report = await collect_report(settings, frozenset({_UNIT_USD}), feeds=())
    reading.gaps.extend(gap for gap in report.gaps if not gap.hotkey)
    return report.value(_UNIT_USD)


def _miner(hotkey: str, rows: list[dict[str, Any]], reading: Reading, hours: int) -> dict[str, Any]:
    """Return what a miner lost, with the rows of its ended instances. What is not known is None.

    ``lost_precision`` says whether the lost units are exact, about right, or a lower bound.
    """
    lost_ratio = None
    lost_units, precision = _lost_units(rows)
    missing_hours = reading.ledger.missing_hours(hours)
    if missing_hours:
        # The missing reports may have more ends.
        lost_units, precision = lost_units or None, "at_least"
    day_units = reading.day_units.get(hotkey)
    # The units of the day may be unknown or 0.
    if day_units:
        lost_ratio = product(lost_units, 1 / day_units)
    return {
        "hotkey": hotkey,
        "lost_compute_units": lost_units,
        "lost_precision": precision,
        "lost_ratio_of_day": lost_ratio,
        "hours_missing": len(missing_hours),
        "ended": rows,
    }


class Reading:
    """What the command reads.

    Attributes:
        audit: The reports of ended instances, and what could not be read of anything.
        chute_names: The names of chutes by id, if an instance of a watched miner ended: those of
            public chutes, and with a key also those of private ones.
        day_units: The compute units of each miner in the past day, if an instance of a watched
            miner ended.
    """

    def __init__(self, client: ChutesClient, settings: Settings) -> None:
        self.audit = AuditReading(client, settings.watched)
        self.chute_names: dict[str, str | None] = {}
        self.day_units: dict[str, float | None] = {}
        self._settings = settings

    @property
    def ledger(self) -> Ledger:
        """The ended instances."""
        return self.audit.ledger

    @property
    def gaps(self) -> list[NotKnown]:
        """What could not be read."""
        return self.audit.gaps

    async def read(self, hours: int) -> None:
        """Read the reports of the newest hours, and if an instance of a watched miner ended, also
        the names of chutes and the compute units of miners.

        What is not known becomes a gap.
        """
        await self.audit.read(hours)
        if self.watched_ends(hours):
            await self._read_names()
            await self._read_day_units()
        # The ends are taken from the ledger again, because the names that were read since may tell
        # why instances ended.
        for end in self.watched_ends(hours):
            if end.loss_precision == "at_least":
                reason = "not all of its multipliers are known"
                self.audit.miss(f"the loss of {end.instance_id}", reason, _AT_LEAST, end.hotkey)
            if end.reason is None:
                # Only the name of its chute tells whether it was redeployed.
                reason, advice = self._why_unnamed()
                self.gaps.append(
                    NotKnown(f"why {end.instance_id} ended", end.hotkey, reason, advice)
                )

    def watched_ends(self, hours: int) -> list[End]:
        """Return the ended instances of the watched miners in the newest hours."""
        return [end for end in self.ledger.ends(hours) if end.hotkey in self._settings.watched]

    async def _read_day_units(self) -> None:
        stats = await self.audit.fetch("the compute units of the day", e.STATS)
        for miner in stats or ():
            if miner.window == "1d":
                self.day_units[miner.miner_hotkey] = miner.compute_units

    async def _read_names(self) -> None:
        """Read the names of chutes, with any key also those of private ones.

        The name of a private chute tells whether it was redeployed, so the ledger needs them, too.
        """
        if not self._settings.keys:
            self.chute_names = await self._public_names()
            return
        key = self._settings.keys[0]
        chutes = await self.audit.fetch("names of chutes", e.CHUTES, key=key) or ()
        self.chute_names = {chute.chute_id: chute.name for chute in chutes}
        self.audit.ledger = Ledger(self.audit.reports, chutes)

    async def _public_names(self) -> dict[str, str | None]:
        chutes = await self.audit.fetch("names of chutes", e.UTILIZATION) or ()
        # This answer names private chutes by a placeholder.
        private = {end.chute_id for end in self.ledger.ends(DAY_HOURS) if end.private}
        return {chute.chute_id: chute.name for chute in chutes if chute.chute_id not in private}

    def _why_unnamed(self) -> tuple[str, str]:
        """Return why the name of a private chute is not known, and advice."""
        if not self._settings.keys:
            return NO_KEY
        return "the name of its chute is not known", TRY_AGAIN


def _rows(
    ends: Iterable[End], chute_names: Mapping[str, str | None], usd_per_unit: float | None
) -> list[dict[str, Any]]:
    """Return ended instances with the keys that docs/commands.md shows.

    The one that lost most comes first. An unknown loss counts as 0. Of equal losses, the one that
    ended first comes first.
    """
    rows = [_row(end, chute_names, usd_per_unit) for end in ends]
    return sorted(rows, key=lambda row: (-(row["lost_compute_units"] or 0.0), row["ended_at"]))


def _row(
    end: End, chute_names: Mapping[str, str | None], usd_per_unit: float | None
) -> dict[str, Any]:
    """Return an ended instance. ``counts`` is whether its score still counts.

    An unknown chute has no name. A duration is never negative, even if the times contradict each
    other.
    """
    # An instance that was never active has 0 active seconds.
    activated_at = end.activated_at or end.ended_at
    return {
        "instance_id": end.instance_id,
        "chute_id": end.chute_id,
        "chute_name": chute_names.get(end.chute_id or ""),
        "private": end.private,
        "ended_at": iso_time(end.ended_at),
        "age_seconds": max(0.0, end.ended_at - end.created_at),
        "active_seconds": max(0.0, end.ended_at - activated_at),
        "reason": end.reason,
        "reason_text": end.text,
        "last_of_chute": end.is_last_of_chute,
        "counts": end.outcome == "counts",
        "failed_start": end.outcome == "never_active",
        "lost_compute_units": end.lost_units,
        "lost_precision": end.loss_precision,
        "lost_usd": product(end.lost_units, usd_per_unit),
    }


# The screen


def _print_miner(miner: Mapping[str, Any], until: float, hours: int, *, has_gaps: bool) -> None:
    """Print what a miner lost in the hours until a Unix time, which is 0 without any report.

    ``has_gaps`` is whether something is not known, so that an end may be missing.
    """
    hotkey, ended = miner["hotkey"], miner["ended"]
    say(f"{hotkey}  until {moment(until)}" if until else hotkey, bold=True)
    if not ended:
        say("No ended instance is known." if has_gaps else "No instance ended.")
        return
    say(_summary(miner, hours), indent="  ")
    has_price = any(row["lost_usd"] is not None for row in ended)
    all_exact = all(row["lost_precision"] == "exact" for row in ended)
    cells = [_screen_row(row, has_price=has_price, all_exact=all_exact) for row in ended]
    print_first_rows(cells, _MOST_INSTANCES, "instances", cut=("chute", "reason"))
    rows_by_reason: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in ended:
        rows_by_reason[_reason_of(row)].append(row)
    sums = []
    for reason, rows in rows_by_reason.items():
        sums.append(f"{len(rows)} {reason} ({_rounded(*_lost_units(rows))} units)")
    say(f"By reason: {', '.join(sums)}.", indent="  ")


def _screen_row(row: Mapping[str, Any], *, has_price: bool, all_exact: bool) -> dict[str, Any]:
    """Return the cells of an ended instance, in the order of the columns.

    The cell ``counts`` says whether its score counts, and ``loss is`` whether a loss is an estimate
    or a lower bound. Without a price of compute units, no row has dollars.
    """
    cells = {
        "ended": row["ended_at"],
        "age min": round(row["age_seconds"] / 60),
        "active min": None if row["failed_start"] else round(row["active_seconds"] / 60),
        "reason": _reason_text(row),
        "counts": row["counts"],
    }
    if not all_exact:
        cells["loss is"] = _WORDS[row["lost_precision"]]
    cells["lost units"] = row["lost_compute_units"]
    if has_price:
        cells["lost USD"] = row["lost_usd"]
    cells["chute"] = _chute_text(row)
    cells["chute id"] = row["chute_id"]
    return cells


def _summary(miner: Mapping[str, Any], hours: int) -> str:
    """Return how many instances ended and failed, what they lost, and where most of it was lost."""
    ended, precision = miner["ended"], miner["lost_precision"]
    failed_starts = sum(row["failed_start"] for row in ended)
    # A report that is missing may have more ends.
    more = "at least " if miner["hours_missing"] else ""
    text = f"{hours} h: {more}{len(ended)} ended, {failed_starts} of them never became active."
    losses = [row for row in ended if row["lost_compute_units"]]
    if not losses:
        is_known = precision == "exact"
        return f"{text} None lost its score." if is_known else f"{text} Their losses are not known."
    text += f" {len(losses)} lost {_rounded(miner['lost_compute_units'], precision)} units"
    if miner["lost_ratio_of_day"] is not None:
        text += f" ({percent(miner['lost_ratio_of_day'])} of the units of the day)"
    worst_reason, _ = _group_with_largest_loss(losses, _reason_of)
    worst_chute, units = _group_with_largest_loss(losses, _chute_text)
    return f"{text}, most by {worst_reason}, and most with {worst_chute} ({_rounded(units)})."


def _group_with_largest_loss(
    rows: Iterable[dict[str, Any]], group_of: Callable[[dict[str, Any]], str]
) -> tuple[str, float]:
    """Return the group of rows that lost most, and the compute units that it is known to have lost.

    The rows have a known loss.
    """
    lost_units_by_group: Counter[str] = Counter()
    for row in rows:
        lost_units_by_group[group_of(row)] += row["lost_compute_units"]
    return max(lost_units_by_group.items(), key=itemgetter(1))


def _lost_units(rows: Iterable[dict[str, Any]]) -> tuple[float | None, str]:
    """Return what rows lost, None if nothing is known of it, and whether that is exact."""
    rows = list(rows)
    units = total(row["lost_compute_units"] or 0.0 for row in rows)
    precisions = {row["lost_precision"] for row in rows}
    if units is None or "at_least" in precisions:
        return units or None, "at_least"
    return units, "about" if "about" in precisions else "exact"


def _reason_of(row: Mapping[str, Any]) -> str:
    return row["reason"] or _UNCLEAR


def _reason_text(row: Mapping[str, Any]) -> str:
    reason = _reason_of(row)
    return f"{reason}, last of its chute" if row["last_of_chute"] else reason


def _chute_text(row: Mapping[str, Any]) -> str:
    """Return the name of a chute. Without a key, those of private ones are not known."""
    name = row["chute_name"]
    if name is None:
        return "(private)" if row["private"] else "-"
    return f"{name} (private)" if row["private"] else str(name)


def _rounded(units: float | None, precision: str = "exact") -> str:
    if units is None:
        return "an unknown number of"
    return f"{_WORDS[precision] or ''} {cell_text(round(units, 0))}".lstrip()
