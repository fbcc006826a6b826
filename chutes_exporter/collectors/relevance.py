"""Which chutes are exported: those that a watched miner runs, ran in the past day (also if their
instances lost their score), or could launch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.collectors.fleet import fleet_answers
from chutes_exporter.duration import DAY_HOURS
from chutes_exporter.feeds import definitions as f
from chutes_exporter.fleet.ends import Ledger
from chutes_exporter.fleet.offers import find_demand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chutes_exporter.collectors.base import Answers, Miners
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.fleet.offers import Demand

FEEDS: Final[tuple[Feed[Any], ...]] = (
    *(f.CHUTES, f.UTILIZATION, f.BOUNTIES, f.ACTIVE_INSTANCES, f.HELD_GPUS, f.STATS_PER_CHUTE),
    f.AUDIT_REPORT,
)


def relevant_chutes(answers: Answers, miners: Miners) -> set[str] | None:
    """Return the ids of the chutes that watched miners need, None for all.

    A chute that could be launched has room for another instance and is not disabled. Which GPUs it
    needs does not matter.
    """
    if miners.chutes == "all":
        return None
    chute_ids: set[str] = set()
    for hotkey, chute_id in _miners_and_chutes(answers):
        if hotkey in miners.watched and chute_id is not None:
            chute_ids.add(chute_id)
    # While an answer is not whole, it is unknown what could be launched.
    demands = find_demand(fleet_answers(answers.by_name, miners.hotkey)) or []
    for demand in demands:
        if _can_be_launched(demand):
            chute_ids.add(demand.chute.chute_id)
    return chute_ids


def _can_be_launched(demand: Demand) -> bool:
    return demand.room_now is not None and demand.room_now > 0 and not demand.chute.disabled


def _miners_and_chutes(answers: Answers) -> Iterator[tuple[str | None, str | None]]:
    """Yield each miner with each chute that it runs, or ran in the past day."""
    for instance in answers.get(f.ACTIVE_INSTANCES, []):
        yield instance.miner_hotkey, instance.chute_id
    for gpu in answers.get(f.HELD_GPUS, []):
        yield gpu.hotkey, gpu.chute_id
    for stats in answers.get(f.STATS_PER_CHUTE, []):
        if stats.window == "1d":
            yield stats.miner_hotkey, stats.chute_id
    if f.AUDIT_REPORT in answers:
        # Statistics leave out instances that lost their score.
        for ended in Ledger(answers[f.AUDIT_REPORT].hours).ended_instances(DAY_HOURS):
            yield ended.miner_hotkey, ended.chute_id
