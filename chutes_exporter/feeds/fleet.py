"""What several answers make together: fleets, demand for chutes, ended instances, neighbours."""

from __future__ import annotations

import operator
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.duration import DAY_HOURS
from chutes_exporter.feeds import definitions as f
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.fleet.answers import FleetAnswers
from chutes_exporter.fleet.ends import NO_REPORTS, Ledger
from chutes_exporter.fleet.model import join_fleet
from chutes_exporter.fleet.offers import find_demand

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.api.records import HourlyAudit
    from chutes_exporter.feeds.cache import States
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.rules.launch import Demand

FLEET_FEEDS: Final[tuple[Feed[Any], ...]] = (
    *(f.SERVERS, f.NODES, f.INVENTORY, f.INSTANCES, f.MINER_GPUS),
    *(f.MAINTENANCE, f.TEE_MEASUREMENTS, f.JOBS, f.METAGRAPH, f.CHUTES, f.ACTIVE_INSTANCES),
    *(f.UTILIZATION, f.BOUNTIES, f.HELD_GPUS, f.SUPPORTED_GPUS, f.AUDIT_REPORT),
)
"""All feeds that a fleet is joined from."""
RELEVANCE_FEEDS: Final[tuple[Feed[Any], ...]] = (
    *(f.CHUTES, f.UTILIZATION, f.BOUNTIES, f.ACTIVE_INSTANCES, f.HELD_GPUS, f.STATS_PER_CHUTE),
    f.AUDIT_REPORT,
)
"""The feeds that tell which chutes watched miners need."""
_NEAR: Final = 4
"""Places on either side at which a miner is a neighbour."""


def fleet_answers(
    answers: Mapping[str, Answer[Any]],
    hotkey: str,
    demand: Mapping[str | None, Demand] | None = None,
    ledger: Ledger = NO_REPORTS,
) -> FleetAnswers:
    """Return the answers that a fleet is joined from.

    ``answers`` are by the name of the feed.
    """
    known = {feed.name: answers[feed.name] for feed in FLEET_FEEDS if feed.name in answers}
    # The ledger has what the reports say.
    known.pop(f.AUDIT_REPORT.name, None)
    return FleetAnswers(hotkey, demand, ledger, **known)


JoinedFleets = dict[str, tuple[list["Answer[Any] | None"], "Fleet"]]
"""The fleet of each miner at the last moment, with the answers of which it was joined."""


def known_answers(states: States) -> dict[str, dict[str, Answer[Any]]]:
    """Return the kept answers by the name of their feed, by hotkey."""
    answers: dict[str, dict[str, Answer[Any]]] = defaultdict(dict)
    for feed, state in states.items():
        if state.kept is not None:
            answers[feed.hotkey][feed.name] = state.kept.answer
    return answers


class Joined:
    """What the answers of one moment make together. Each thing is made when it is first needed.

    Args:
        answers: The known answers by the name of their feed, by hotkey. Those about the platform
            are under :data:`THE_PLATFORM`.
        watched: The watched miners.
        fleets: The fleets of an earlier moment. Those whose answers are the same stay.
        reports: Audit reports, instead of those of the feed.
    """

    def __init__(
        self,
        answers: Mapping[str, Mapping[str, Answer[Any]]],
        watched: Collection[str] = (),
        fleets: JoinedFleets | None = None,
        reports: Sequence[HourlyAudit] | None = None,
    ) -> None:
        self._answers = answers
        self._watched = watched
        self._fleets = {} if fleets is None else fleets
        self._reports = reports

    def about(self, hotkey: str) -> Mapping[str, Answer[Any]]:
        """Return the answers about a miner and the platform, by the name of their feed."""
        return {**self._answers.get(THE_PLATFORM, {}), **self._answers.get(hotkey, {})}

    def platform(self, feed: Feed[Any]) -> Answer[Any] | None:
        """Return the answer of a feed about the platform, None if it is not known."""
        return self.about(THE_PLATFORM).get(feed.name)

    def _records(self, feed: Feed[Any]) -> Sequence[Any]:
        answer = self.platform(feed)
        return () if answer is None else answer.value

    @cached_property
    def demand(self) -> Mapping[str | None, Demand] | None:
        """All chutes with the instances of all miners, by the id of the chute. None while an answer
        is not complete.
        """
        return find_demand(fleet_answers(self.about(THE_PLATFORM), THE_PLATFORM))

    @cached_property
    def ledger(self) -> Ledger:
        """The ended instances in the known reports."""
        reports = self._reports
        if reports is None:
            answer = self.platform(f.AUDIT_REPORT)
            reports = () if answer is None else answer.value.hours
        # The names of chutes show which ends were redeployments. Without a key, they are not known.
        return Ledger(reports, self._records(f.CHUTES))

    def fleet(self, hotkey: str) -> Fleet:
        """Return the fleet of a miner, the same one as long as its answers are the same."""
        answers = self.about(hotkey)
        sources = [answers.get(feed.name) for feed in FLEET_FEEDS]
        known_sources, fleet = self._fleets.get(hotkey, ([], None))
        if fleet is None or not all(map(operator.is_, sources, known_sources)):
            fleet = join_fleet(fleet_answers(answers, hotkey, self.demand, self.ledger))
            self._fleets[hotkey] = sources, fleet
        return fleet

    @cached_property
    def neighbours(self) -> frozenset[str]:
        """The miners that are near a watched one, by score or in line for the seat."""
        near: set[str] = set()
        scores = self.platform(f.SCORES)
        # While a score may be missing, no place is known.
        if scores is not None and scores.complete:
            shares = {hotkey: one for hotkey, one in scores.value.shares.items() if one is not None}
            near |= self._near(sorted(shares, key=lambda hotkey: (-shares[hotkey], hotkey)))
        chain = self.platform(f.CHAIN)
        if chain is not None:
            near |= self._near(chain.value.in_line)
        return frozenset(near.difference(self._watched))

    def _near(self, line: list[str]) -> set[str]:
        """Return the watched miners of a line, and those that are near them."""
        near: set[str] = set()
        for place, hotkey in enumerate(line):
            if hotkey in self._watched:
                near.update(line[max(0, place - _NEAR) : place + _NEAR + 1])
        return near

    @cached_property
    def relevant_chutes(self) -> set[str | None]:
        """The ids of the chutes that watched miners need: those that they run, ran in the past day
        (also if their instances lost their score), or could launch.

        A chute that could be launched has room for another instance and is not disabled. Which GPUs
        it needs does not matter.
        """
        chute_ids: set[str | None] = set()
        for hotkey, chute_id in self._miners_and_chutes():
            if hotkey in self._watched:
                chute_ids.add(chute_id)
        # While an answer is not complete, it is unknown what could be launched.
        for demand in (self.demand or {}).values():
            if (demand.room_now or 0) > 0 and not demand.chute.disabled:
                chute_ids.add(demand.chute.chute_id)
        return chute_ids

    def _miners_and_chutes(self) -> Iterator[tuple[str | None, str | None]]:
        """Yield each miner with each chute that it runs, or ran in the past day."""
        for instance in self._records(f.ACTIVE_INSTANCES):
            yield instance.miner_hotkey, instance.chute_id
        for gpu in self._records(f.HELD_GPUS):
            yield gpu.hotkey, gpu.chute_id
        # These are about the platform, or about the only watched miner.
        for answers in self._answers.values():
            stats = answers.get(f.STATS_PER_CHUTE.name)
            for one in stats.value if stats else ():
                if one.window == "1d":
                    yield one.miner_hotkey, one.chute_id
        # Statistics leave out instances that lost their score.
        for ended in self.ledger.ended_instances(DAY_HOURS):
            yield ended.miner_hotkey, ended.chute_id
