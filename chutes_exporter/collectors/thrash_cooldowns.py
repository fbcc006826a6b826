"""Cooldowns of the signing miner. Off by default because the service removed the rule in May 2026."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope
from chutes_exporter.feeds.table import THRASH_COOLDOWNS

METRICS = Metrics("GET /miner/thrash_cooldowns", ("hotkey", "chute_id"))

COUNT = METRICS.declare(
    "chutes_miner_thrash_cooldowns",
    "Cooldowns of the miner. Since May 2026 the service sends an empty list.",
    labels=("hotkey",),
)
EXPIRES = METRICS.declare(
    "chutes_thrash_cooldown_expires_timestamp_seconds",
    "When the miner may deploy the chute again.",
    "cooldown_expires_at",
)
DELETED = METRICS.declare(
    "chutes_thrash_cooldown_deleted_timestamp_seconds",
    "When the miner deleted the instance that caused the cooldown.",
    "deleted_at",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Add the longest cooldown of each chute."""
    cooldowns = answers[THRASH_COOLDOWNS]
    if not answers.complete():
        return
    out.add(COUNT, len(cooldowns), scope.hotkey)
    # A cooldown without an end may be the longest of its chute.
    endless = {cooldown.chute_id for cooldown in cooldowns if cooldown.cooldown_expires_at is None}
    by_end = sorted(cooldowns, key=lambda cooldown: cooldown.cooldown_expires_at or 0)
    for cooldown in {cooldown.chute_id: cooldown for cooldown in by_end if cooldown.chute_id not in endless}.values():
        out.add(EXPIRES, cooldown.cooldown_expires_at, scope.hotkey, cooldown.chute_id)
        out.add(DELETED, cooldown.deleted_at, scope.hotkey, cooldown.chute_id)


COLLECTOR = Collector(
    name="thrash_cooldowns",
    summary="cooldowns of the miner, an empty list since May 2026",
    feeds=(THRASH_COOLDOWNS,),
    metrics=METRICS,
    collect=collect,
    cost="1 for each hotkey with a key, 2 for each item",
    default="off",
)
