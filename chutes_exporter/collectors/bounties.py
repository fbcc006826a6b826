"""Open bounties: their start, their end, and their factor of the multiplier."""

from __future__ import annotations

from chutes_exporter.api.meaning import bounty_boost, bounty_expires_at
from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import BOUNTIES

METRICS = Metrics()
_SOURCE = "GET /bounties/"
_CHUTE = ("chute_id",)

CREATED = METRICS.gauge(
    "chutes_bounty_created_timestamp_seconds",
    "When the open bounty of the chute was created. The chute may be gone.",
    _CHUTE,
    f"{_SOURCE}: created_at",
    changes="once",
)
EXPIRES = METRICS.gauge(
    "chutes_bounty_expires_timestamp_seconds",
    "When the open bounty of the chute expires, accurate to 2 seconds. It ends earlier if an instance becomes active "
    "and takes it.",
    _CHUTE,
    f"{_SOURCE}: created_at + seconds_elapsed + time_remaining",
    changes="once",
)
BOOST = METRICS.gauge(
    "chutes_bounty_boost_ratio",
    "Factor by which the bounty multiplies the compute multiplier of an instance that is activated at the time of the "
    "answer. It is 1.1 for a new bounty and rises to 1.5 within 3 hours.",
    _CHUTE,
    f"{_SOURCE}: seconds_elapsed",
    changes="every second",
)


def collect(answers: Answers, _scope: Scope, out: Samples) -> None:
    """Translate the open bounties."""
    for bounty in distinct(answers[BOUNTIES], lambda bounty: bounty.chute_id, out):
        out.add(CREATED, bounty.created_at, bounty.chute_id)
        out.add(EXPIRES, bounty_expires_at(bounty), bounty.chute_id)
        out.add(BOOST, bounty_boost(bounty), bounty.chute_id)


COLLECTOR = Collector(
    name="bounties",
    summary="open bounties: their age, their end and their boost",
    feeds=(BOUNTIES,),
    metrics=METRICS,
    collect=collect,
    cost=Cost(chute=3),
)
