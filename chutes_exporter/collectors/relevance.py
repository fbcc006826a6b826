"""Which chutes are exported: those that a watched miner runs, ran in the past day (also if their
instances lost their score), or could launch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.collectors.fleet import fleet_answers
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.feeds import table as f
from chutes_exporter.fleet.ends import Ledger
from chutes_exporter.fleet.offers import find_demand

if TYPE_CHECKING:
    from chutes_exporter.collectors.base import Answers, Miners
    from chutes_exporter.feeds.feed import Feed

FEEDS: Final[tuple[Feed[Any], ...]] = (
    *(f.CHUTES, f.UTILIZATION, f.BOUNTIES, f.ACTIVE_INSTANCES, f.HELD_GPUS, f.STATS_PER_CHUTE),
    f.AUDIT_REPORT,
)

_DAY_HOURS: Final = int(DAY / HOUR)


def relevant_chutes(answers: Answers, miners: Miners) -> set[str] | None:
    """Return the ids of the chutes that watched miners need, None for all.

    A chute that could be launched has room for another instance and is not disabled. Which GPUs it
    needs does not matter.
    """
    if miners.chutes == "all":
        return None
    found = _own_chutes(answers, miners)
    for demand in find_demand(fleet_answers(answers.by_name, miners.hotkey)) or ():
        if demand.room is not None and demand.room > 0 and not demand.chute.disabled:
            found.add(demand.chute.chute_id)
    return {chute for chute in found if chute is not None}


def _own_chutes(answers: Answers, miners: Miners) -> set[str | None]:
    """Return the ids of the chutes that watched miners run, or ran in the past day."""
    found: set[str | None] = set()
    if f.ACTIVE_INSTANCES in answers:
        found.update(
            one.chute_id
            for one in answers[f.ACTIVE_INSTANCES]
            if one.miner_hotkey in miners.watched
        )
    if f.HELD_GPUS in answers:
        found.update(gpu.chute_id for gpu in answers[f.HELD_GPUS] if gpu.hotkey in miners.watched)
    if f.STATS_PER_CHUTE in answers:
        found.update(
            one.chute_id
            for one in answers[f.STATS_PER_CHUTE]
            if one.miner_hotkey in miners.watched and one.window == "1d"
        )
    if f.AUDIT_REPORT in answers:
        # Statistics leave out instances that lost their score.
        ended = Ledger(answers[f.AUDIT_REPORT].hours).ended(_DAY_HOURS)
        found.update(one.chute_id for one in ended if one.miner_hotkey in miners.watched)
    return found
