"""Decides the advice to a miner: what to launch on its idle GPUs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chutes_exporter.api import ChutesClient
from chutes_exporter.commands.audit import MADE_WITHIN, AuditReading
from chutes_exporter.duration import DAY_HOURS, HOUR
from chutes_exporter.fleet.failures import find_failures, markets_in_order, markets_without
from chutes_exporter.fleet.model import LeftOut
from chutes_exporter.fleet.offers import find_uses
from chutes_exporter.fleet.outages import with_reports
from chutes_exporter.page.gaps import TRY_AGAIN, NotKnown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings
    from chutes_exporter.fleet.failures import Failures
    from chutes_exporter.fleet.model import Fleet, Market, Offer, Use

IdleReason = (
    LeftOut
    | Literal[
        "failed_here",  # Only chutes that failed here have room for them.
        "not_known",  # Of some chutes, it is not known whether they can be launched.
        "no_room",  # No chute that can be launched has room for them.
        "server_not_known",
    ]
)
"""Why GPUs stay idle in the plan."""
_NO_LAUNCHES = "an answer lacks whether the service accepts some chutes, or what they pay"
"""Reason of a gap: it is not known what idle GPUs can run."""


@dataclass(frozen=True)
class Advice:
    """The advice to a miner.

    Attributes:
        is_known: Whether the states of all its GPUs are known.
        failures: What failed on its servers in the past day.
        missing_hours: The ends of the hours of this day without a whole report, in Unix time. None
            if no report could be read.
        markets: What it can launch, for each model of its idle GPUs. What failed comes last. None
            while it is unknown.
        uses: The best use of its idle GPUs without what failed, the best paid first.
    """

    fleet: Fleet
    is_known: bool
    failures: Failures
    missing_hours: tuple[float, ...] | None
    markets: tuple[Market, ...] | None
    uses: tuple[Use, ...]

    @property
    def offers(self) -> list[Offer]:
        """Everything that it can launch now."""
        if not self.is_known:
            return []
        return [offer for market in self.markets or () for offer in market.offers]

    @property
    def plan(self) -> tuple[Use, ...] | None:
        """The best use of its idle GPUs, without what is known to fail here. None if unknown."""
        return None if not self.is_known or self.markets is None else self.uses

    @property
    def failing(self) -> list[Offer]:
        """The offers that the plan leaves out because they failed, one for each chute."""
        offer_by_chute: dict[str, Offer] = {}
        for offer in self.offers:
            if self.failures.fails(offer.chute_id):
                # A chute has an offer for each model that it can run on.
                offer_by_chute.setdefault(offer.chute_id, offer)
        return list(offer_by_chute.values())

    @property
    def needs_action(self) -> bool:
        """Whether there is something to launch."""
        return bool(self.offers)


def market_of(advice: Advice, model: str) -> Market | None:
    """Return what can be launched on the idle GPUs of a model."""
    return next((market for market in advice.markets or () if market.model == model), None)


async def find_advice(report: Report, settings: Settings) -> list[Advice]:
    """Return the advice to each watched miner, and note in the report what is not known.

    It reads the audit reports of the past day if something depends on them: offers may be of chutes
    that failed.
    """
    hotkeys = sorted(settings.watched)
    has_offers = any(_has_offers(report.fleets[hotkey]) for hotkey in hotkeys)
    async with ChutesClient(settings.api_url, timeout=settings.api_timeout) as client:
        audit = AuditReading(client, settings.watched)
        if has_offers:
            await audit.read(DAY_HOURS)
    advice_to_miners = []
    for hotkey in hotkeys:
        advice = _advice_to(hotkey, report, audit)
        report.gaps.extend(_gaps(advice))
        advice_to_miners.append(advice)
    report.gaps.extend(audit.gaps)
    return advice_to_miners


def _has_offers(fleet: Fleet) -> bool:
    return any(market.offers for market in fleet.markets or ())


def _advice_to(hotkey: str, report: Report, audit: AuditReading) -> Advice:
    """Return the advice to a miner."""
    is_known = hotkey in report.counted
    ledger = audit.ledger_with_names(report, hotkey)
    failures = find_failures(ledger, hotkey, DAY_HOURS, are_all_known=not audit.gaps)
    fleet = with_reports(report.fleets[hotkey], ledger, failures)
    markets: tuple[Market, ...] | None = None
    uses: tuple[Use, ...] = ()
    if fleet.markets is not None:
        markets = markets_in_order(fleet.markets, failures)
        # Not those of the fleet, which may contain chutes that failed.
        good_markets = markets_without(fleet.markets, failures)
        uses = find_uses(fleet.servers, good_markets, fleet.left_out)
    return Advice(
        fleet=fleet,
        is_known=is_known,
        failures=failures,
        missing_hours=_missing_hours(audit, report.now) if _has_offers(fleet) else (),
        markets=markets,
        uses=_best_paid_first(uses) if is_known else (),
    )


def _missing_hours(audit: AuditReading, now: float) -> tuple[float, ...] | None:
    """Return the ends of the hours of the past day of which no whole report was read, None without
    any report.

    The day ends with the newest hour whose report must be out.
    """
    if not audit.reports:
        return None
    newest = audit.ledger.end
    while now - newest > HOUR + MADE_WITHIN:
        newest += HOUR
    ends_of_day = {newest - HOUR * age for age in range(DAY_HOURS)}
    ends_of_read = {report.end for report in audit.reports if report.whole}
    return tuple(sorted(ends_of_day - ends_of_read))


def _best_paid_first(uses: Iterable[Use]) -> tuple[Use, ...]:
    return tuple(sorted(uses, key=lambda use: use.first_day_units or 0.0, reverse=True))


def _gaps(advice: Advice) -> list[NotKnown]:
    """Return what is not known about the chutes for idle GPUs."""
    hotkey = advice.fleet.hotkey
    if advice.markets is None:
        has_idle = any(gpu.state == "idle" for gpu in advice.fleet.gpus)
        # While the states of GPUs are not known, the report has a gap about them.
        if advice.is_known and has_idle:
            return [NotKnown("chutes for idle GPUs", hotkey, _NO_LAUNCHES, TRY_AGAIN)]
        return []
    # Of the chutes under "unknown", it is not known whether they can be launched.
    return [
        NotKnown(f"chutes for {market.model}", hotkey, _NO_LAUNCHES, TRY_AGAIN)
        for market in advice.markets
        if market.refused.get("unknown")
    ]


@dataclass(frozen=True)
class UnusedGpus:
    """Idle GPUs of a model on a server that stay idle in the plan.

    An empty id is that of no server.
    """

    server_id: str
    model: str
    count: int
    why: IdleReason


def unused_gpus(advice: Advice, plan: Sequence[Use]) -> list[UnusedGpus]:
    """Return the idle GPUs that stay idle in the plan, and why.

    With a plan, the state, the model and the server's id of each GPU are known.
    """
    unused = []
    for use in plan:
        if use.used < use.free:
            why = _why_not_all(advice.fleet, use)
            unused.append(UnusedGpus(use.server_id, use.model, use.free - use.used, why))
    planned_servers = {use.server_id for use in plan}
    return unused + _unused_on_other_servers(advice.fleet, planned_servers)


def _why_not_all(fleet: Fleet, planned: Use) -> IdleReason:
    """Return why the plan does not use all idle GPUs of a model on a server."""
    # These uses are for the same servers and models as the plan, but may have chutes that failed.
    used_with_failing = {(use.server_id, use.model): use.used for use in fleet.uses}
    if used_with_failing[planned.server_id, planned.model] > planned.used:
        return "failed_here"
    return "not_known" if planned.may_be_more else "no_room"


def _unused_on_other_servers(fleet: Fleet, planned_servers: set[str]) -> list[UnusedGpus]:
    """Return the idle GPUs that are on no server of the plan, and why."""
    counts: Counter[tuple[str, str]] = Counter()
    for gpu in fleet.gpus:
        # With a plan, each model is known. The test of the model is for the type checker.
        if gpu.state == "idle" and gpu.model and gpu.server_id not in planned_servers:
            # A GPU without a server gets the empty id.
            counts[gpu.server_id or "", gpu.model] += 1
    unused = []
    for (server_id, model), count in counts.items():
        # The plan has each known server but those that are left out.
        why: IdleReason = fleet.left_out.get(server_id) or "server_not_known"
        unused.append(UnusedGpus(server_id, model, count, why))
    return unused
