"""Open bounties: their start, their end, and their factor of the multiplier."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import BOUNTIES
from chutes_exporter.rules.bounties import bounty_boost, bounty_expires_at

METRICS = Metrics("GET /bounties/", ("chute_id",))

CREATED = METRICS.declare(
    "chutes_bounty_created_timestamp_seconds",
    "When the open bounty of the chute was created. The chute may be gone.",
    "created_at",
)
EXPIRES = METRICS.declare(
    "chutes_bounty_expires_timestamp_seconds",
    "When the open bounty of the chute expires, accurate to 2 seconds. It ends earlier if an instance becomes active "
    "and takes it.",
    "created_at + seconds_elapsed + time_remaining",
)
BOOST = METRICS.declare(
    "chutes_bounty_boost_ratio",
    "Factor by which the bounty multiplies the compute multiplier of an instance that is activated at the time of the "
    "answer. It is 1.1 for a new bounty and rises to 1.5 within 3 hours.",
    "seconds_elapsed",
)


def _collect(answers: Answers, _scope: Scope, out: Samples) -> None:
    for bounty in distinct(answers[BOUNTIES], lambda bounty: bounty.chute_id, out):
        out.add(CREATED, bounty.created_at, bounty.chute_id)
        out.add(EXPIRES, bounty_expires_at(bounty), bounty.chute_id)
        out.add(BOOST, bounty_boost(bounty), bounty.chute_id)


COLLECTOR = Collector(
    name="bounties",
    summary="open bounties: their age, their end and their boost",
    feeds=(BOUNTIES,),
    metrics=METRICS,
    collect=_collect,
    cost="3 for each chute",
)
