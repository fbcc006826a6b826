"""Decides the advice to a miner: what to launch, what to run instead, and what more GPUs earn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chutes_exporter.api import ChutesClient
from chutes_exporter.collectors.fleet import fleet_answers
from chutes_exporter.commands.audit import AuditReading
from chutes_exporter.commands.forecast import forecast
from chutes_exporter.commands.terminal import moment
from chutes_exporter.duration import DAY_HOURS
from chutes_exporter.feeds.definitions import AUDIT_REPORT
from chutes_exporter.fleet.failures import find_failures, markets_in_order, markets_without
from chutes_exporter.fleet.offers import find_uses
from chutes_exporter.fleet.switch import switches_by_reports
from chutes_exporter.page.gaps import TRY_AGAIN, NotKnown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.commands.forecast import Forecast
    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.failures import Failures
    from chutes_exporter.fleet.forecast import Addition
    from chutes_exporter.fleet.model import Fleet, Market, Offer, Server, Use
    from chutes_exporter.fleet.switch import Switch, Switches

IdleReason = Literal[
    "failed_here",  # Only chutes that failed here have room for them.
    "not_known",  # Of some chutes, it is not known whether they can be launched.
    "no_room",  # No chute that can be launched has room for them.
    "upgrade_slot",  # The server holds an upgrade slot.
    "maintenance_not_known",  # Whether it holds one, or has TEE, is not known.
    "server_not_known",
]
"""Why GPUs stay idle in the plan."""
_NO_LAUNCHES = "an answer lacks whether the service accepts some chutes, or what they pay"


@dataclass(frozen=True)
class Wanted:
    """What a miner asks for, beside the chutes for idle GPUs."""

    plan: bool
    switch: bool
    additions: Sequence[Addition]

    @property
    def lists_chutes(self) -> bool:
        """Whether it asks for the chutes themselves: neither for a plan nor for switches."""
        return not self.plan and not self.switch


@dataclass(frozen=True)
class Advice:
    """The advice to a miner.

    Attributes:
        is_known: Whether the states of all its GPUs are known.
        failures: What failed on its servers in the past day.
        markets: What it can launch, for each model of its idle GPUs. What failed comes last. None
            while it is unknown.
        uses: The best use of its idle GPUs without what failed, the best paid first.
        switches: What to run instead of active instances, None if nobody asked or that is unknown.
        forecast: What more GPUs would earn, None likewise.
    """

    fleet: Fleet
    is_known: bool
    failures: Failures
    markets: tuple[Market, ...] | None
    uses: tuple[Use, ...]
    switches: Switches | None
    forecast: Forecast | None

    @property
    def offers(self) -> list[Offer]:
        """Everything that it can launch now."""
        if not self.is_known:
            return []
        return [offer for market in self.markets or () for offer in market.offers]

    @property
    def plan(self) -> tuple[Use, ...] | None:
        """The best use of its idle GPUs. None while that, or what failed here, is not known."""
        is_known = self.is_known and self.markets is not None
        may_fail = bool(self.offers) and not self.failures.are_all
        return self.uses if is_known and not may_fail else None

    @property
    def failing(self) -> list[Offer]:
        """The offers that the plan leaves out because they failed, one for each chute."""
        found: dict[str, Offer] = {}
        for offer in self.offers:
            if self.failures.fails(offer.chute_id):
                found.setdefault(offer.chute_id, offer)
        return list(found.values())

    @property
    def proposed(self) -> tuple[Switch, ...]:
        """The switches to make."""
        return () if self.switches is None else self.switches.proposed

    @property
    def needs_action(self) -> bool:
        """Whether there is something to launch."""
        return bool(self.offers or self.proposed)


def market_of(advice: Advice, model: str) -> Market | None:
    """Return what can be launched on the idle GPUs of a model."""
    return next((market for market in advice.markets or () if market.model == model), None)


async def find_advice(report: Report, settings: Settings, wanted: Wanted) -> list[Advice]:
    """Return the advice to each watched miner, and note in the report what is not known.

    It reads the audit reports of the past day if something depends on them.
    """
    hotkeys = sorted(settings.watched)
    offers = [market.offers for hotkey in hotkeys for market in report.fleets[hotkey].markets or ()]
    reads_audit = any(offers) or wanted.switch
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        audit = AuditReading(client, settings.watched)
        if reads_audit:
            await audit.read(DAY_HOURS)
    miners = []
    for hotkey in hotkeys:
        advice = _advice_to(hotkey, report, audit, settings, wanted)
        report.gaps.extend(_gaps(advice, wanted))
        miners.append(advice)
    if audit.gaps:
        report.gaps.append(_failures_gap(audit))
        report.gaps.extend(audit.gaps)
    return miners


def _advice_to(
    hotkey: str, report: Report, audit: AuditReading, settings: Settings, wanted: Wanted
) -> Advice:
    fleet = report.fleets[hotkey]
    ledger = audit.ledger_with_names(report, hotkey)
    is_known = hotkey in report.counted
    failures = find_failures(ledger, hotkey, DAY_HOURS, are_all=not audit.gaps)
    markets, uses = None, fleet.uses
    if fleet.markets is not None:
        markets = markets_in_order(fleet.markets, failures)
        uses = find_uses(fleet.servers, markets_without(fleet.markets, failures))
    switches = None
    if wanted.switch and is_known:
        answers = fleet_answers(report.answers(hotkey), hotkey)
        switches = switches_by_reports(answers, fleet, ledger, failures, report.now)
    more = None
    if wanted.additions:
        more = forecast(report, hotkey, wanted.additions, settings)
    return Advice(
        fleet=fleet,
        is_known=is_known,
        failures=failures,
        markets=markets,
        uses=_best_first(uses) if is_known else (),
        switches=switches,
        forecast=more,
    )


def _best_first(uses: Iterable[Use]) -> tuple[Use, ...]:
    return tuple(sorted(uses, key=lambda use: -(use.first_day_units or 0.0)))


def _failures_gap(audit: AuditReading) -> NotKnown:
    until = f" until {moment(audit.ledger.end)}" if audit.reports else ""
    what = f"the failures of the past day ({AUDIT_REPORT.name})"
    return NotKnown(what, "", f"not all hourly reports are known{until}", TRY_AGAIN)


def _gaps(advice: Advice, wanted: Wanted) -> list[NotKnown]:
    """Return what is not known about what a miner can launch."""
    hotkey = advice.fleet.hotkey
    gaps = _launch_gaps(advice)
    if wanted.additions and advice.forecast is None:
        reason = "an answer is missing or incomplete, or a sum is too large"
        gaps.append(NotKnown("what other GPUs would earn", hotkey, reason, TRY_AGAIN))
    if wanted.switch and advice.switches is None:
        reason = "it needs all GPUs, what can be launched, and all failures of the past day"
        gaps.append(NotKnown("what to run instead", hotkey, reason, TRY_AGAIN))
    for one in advice.switches.not_compared if advice.switches else ():
        what = f"what to run instead of {one.instance.instance_id}"
        gaps.append(NotKnown(what, hotkey, one.reason, TRY_AGAIN))
    return gaps


def _launch_gaps(advice: Advice) -> list[NotKnown]:
    """Return what is not known about the chutes for idle GPUs."""
    hotkey = advice.fleet.hotkey
    if advice.markets is None:
        has_idle = any(gpu.state == "idle" for gpu in advice.fleet.gpus)
        if advice.is_known and has_idle:
            return [NotKnown("chutes for idle GPUs", hotkey, _NO_LAUNCHES, TRY_AGAIN)]
        return []
    return [
        NotKnown(f"chutes for {market.model}", hotkey, _NO_LAUNCHES, TRY_AGAIN)
        for market in advice.markets
        if market.refused.get("unknown")
    ]


@dataclass(frozen=True)
class IdleRest:
    """Idle GPUs that stay idle in the plan."""

    server_id: str
    model: str
    count: int
    why: IdleReason


def _why_not_planned(server: Server | None) -> IdleReason:
    """Return why idle GPUs of a server are in no use."""
    if server is None:
        return "server_not_known"
    return "upgrade_slot" if server.holds_slot else "maintenance_not_known"


def idle_rests(advice: Advice, plan: Sequence[Use]) -> list[IdleRest]:
    """Return the idle GPUs that stay idle in the plan, and why."""
    rests = [
        IdleRest(use.server_id, use.model, use.free - use.used, _why_not_all(advice.fleet, use))
        for use in plan
        if use.used < use.free
    ]
    return rests + _rests_elsewhere(advice.fleet, {use.server_id for use in plan})


def _rests_elsewhere(fleet: Fleet, planned: set[str]) -> list[IdleRest]:
    """Return the idle GPUs that are on none of the planned servers."""
    idle: Counter[tuple[str, str]] = Counter()
    for gpu in fleet.gpus:
        if gpu.state == "idle" and gpu.model and gpu.server_id not in planned:
            idle[gpu.server_id or "", gpu.model] += 1
    rests = []
    for (server_id, model), count in idle.items():
        why = _why_not_planned(fleet.servers_by_id.get(server_id))
        rests.append(IdleRest(server_id, model, count, why))
    return rests


def _why_not_all(fleet: Fleet, planned: Use) -> IdleReason:
    """Return why the plan does not use all GPUs of a model on a server."""
    with_failing = {(use.server_id, use.model): use.used for use in fleet.uses}
    if with_failing[planned.server_id, planned.model] > planned.used:
        return "failed_here"
    return "not_known" if planned.is_least else "no_room"
