"""What is not known about the watched miners: an answer is missing or incomplete, or does not say
something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.feeds.doubt import WORDS
from chutes_exporter.feeds.table import (
    INSTANCES,
    INVENTORY,
    JOBS,
    MAINTENANCE,
    METAGRAPH,
    NODES,
    SERVERS,
)
from chutes_exporter.rules import instances, maintenance
from chutes_exporter.rules.jobs import is_stuck
from chutes_exporter.rules.score import is_blacklisted

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.page.exporter import Collected
    from chutes_exporter.page.rendering import States

NO_KEY = (
    "not known without a key",
    "Add --hotkey-file, or MINER_SS58 with MINER_SEED or MINER_PRIVATE_KEY.",
)
"""Reason and advice for data that only a key gives."""
TRY_AGAIN = "Try again. If the problem remains, report it."
_MISSING = "Ask the operators of Chutes for a newer service."
"""Advice about an endpoint that the deployment does not have."""
_BUG = ("the collector failed, which is a bug", "Report it with the log.")
_FLEET_FEEDS = (SERVERS, NODES, INVENTORY, INSTANCES)
"""The feeds that give the states of GPUs."""
_UNCOUNTED = ("the answers do not give the states of all GPUs", "Try again in a minute.")
UPDATE = "Update the exporter. If that does not help, report a bug."
_UNKNOWN_MAINTENANCE = (
    "Reboot no such server. See chutes-exporter query maintenance, and update the exporter."
)


@dataclass(frozen=True)
class NotKnown:
    """Data of a feed, or of a collector, that the API did not send.

    Data of the platform has no hotkey.
    """

    feed: str
    hotkey: str
    reason: str
    advice: str

    @classmethod
    def after(cls, error: BaseException, feed: str, hotkey: str) -> NotKnown:
        """Return the data that a failed request would have brought."""
        return cls(feed, hotkey, str(error), getattr(error, "advice", "Try again later."))


def grouped(gaps: Iterable[NotKnown]) -> list[tuple[str, str, str]]:
    """Return feeds, reason and advice of gaps, each reason once.

    An outage is not repeated for each feed.
    """
    found: dict[tuple[str, str], dict[str, None]] = {}
    for gap in gaps:
        found.setdefault((gap.reason, gap.advice), {})[gap.feed] = None
    return [(", ".join(feeds), *texts) for texts, feeds in found.items()]


def find_gaps(collected: Collected, settings: Settings) -> tuple[list[NotKnown], set[str]]:
    """Return what is not known, and the miners for which the state of every GPU is known."""
    gaps = [gap for state in collected.states.values() if (gap := gap_of(state))]
    gaps += (NotKnown(name, hotkey, *_BUG) for name, hotkey in collected.failed)
    incomplete = {(gap.feed, gap.hotkey) for gap in gaps}
    gaps += _fields(collected.states, settings)
    keys, counted = {key.address for key in settings.keys}, set()
    for hotkey in sorted(settings.watched):
        if hotkey not in keys:
            gaps.append(NotKnown("servers, GPUs, instances, jobs", hotkey, *NO_KEY))
        # Otherwise, a gap already names the feed without which the GPUs are not known.
        elif not incomplete & {(feed.name, hotkey) for feed in _FLEET_FEEDS}:
            if collected.fleets[hotkey].known["gpus"]:
                counted.add(hotkey)
            else:
                gaps.append(NotKnown("fleet", hotkey, *_UNCOUNTED))
    return gaps, counted


def gap_of(state: FeedState) -> NotKnown | None:
    """Return why a feed is missing, old or not completely known, None if it is none of these."""
    feed, error = state.feed, state.last_error
    if state.missing:
        return NotKnown(feed.name, feed.hotkey, str(error), _MISSING)
    if error is not None:
        return NotKnown.after(error, feed.name, feed.hotkey)
    if state.snapshot is None:
        return NotKnown(feed.name, feed.hotkey, "no answer yet", TRY_AGAIN)
    answer = state.snapshot.answer
    if answer.rejected:
        reason = (
            f"{answer.rejected} records could not be read and are left out ({answer.first_error})"
        )
        return NotKnown(feed.name, feed.hotkey, reason, UPDATE)
    return (
        NotKnown(feed.name, feed.hotkey, WORDS[answer.doubt], TRY_AGAIN) if answer.doubt else None
    )


def _fields(states: States, settings: Settings) -> Iterator[NotKnown]:
    """Yield what the answers do not say, of all that decides whether something needs action."""
    for feed, state in states.items():
        if state.snapshot is not None and feed.name in _UNKNOWN_IN:
            advice = _UNKNOWN_MAINTENANCE if feed.name == MAINTENANCE.name else UPDATE
            for reason in dict.fromkeys(
                _UNKNOWN_IN[feed.name](state.snapshot.answer.value, settings.watched)
            ):
                yield NotKnown(feed.name, feed.hotkey, reason, advice)


_UNKNOWN_IN: Final[dict[str, Callable[[Any, Container[str]], Iterable[str]]]] = {
    METAGRAPH.name: lambda nodes, watched: (
        f"the answer does not say whether {node.hotkey} is blacklisted"
        for node in nodes
        if node.hotkey in watched and is_blacklisted(node) is None
    ),
    SERVERS.name: lambda servers, _: maintenance.unknown_in_servers(servers),
    NODES.name: lambda gpus, _: (
        "the answer does not say on which server a GPU is" for gpu in gpus if gpu.server_id is None
    ),
    INSTANCES.name: lambda found, _: instances.unknown_in(found),
    JOBS.name: lambda jobs, _: (
        "the answer does not say whether a job is stuck" for job in jobs if is_stuck(job) is None
    ),
    MAINTENANCE.name: lambda policy, _: maintenance.unknown_in(policy),
}
"""What an answer does not say about the watched hotkeys, by feed."""
