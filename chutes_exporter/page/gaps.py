"""What is not known about the watched miners: an answer is missing or incomplete, or does not say
something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.collectors.fleet import FEEDS
from chutes_exporter.feeds.doubt import WORDS
from chutes_exporter.feeds.table import (
    INSTANCES,
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
    from chutes_exporter.fleet.model import Fleet
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
_FLEET_FEEDS: Final = frozenset(feed.name for feed in FEEDS.values())
"""The names of the feeds that a fleet is joined from."""
_UNCOUNTED = "the answers do not give the states of all GPUs"
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
            continue
        fleet = collected.fleets[hotkey]
        if fleet.known["gpus"]:
            counted.add(hotkey)
        # Otherwise, a gap already names the feed without which it is not known.
        if not incomplete & {(feed, of) for feed in _FLEET_FEEDS for of in ("", hotkey)}:
            gaps += (
                NotKnown("fleet", hotkey, reason, "Try again in a minute.")
                for reason in _unknown_in(fleet)
            )
    return gaps, counted


def _unknown_in(fleet: Fleet) -> Iterator[str]:
    """Yield what the answers together do not say, of all that decides what needs action."""
    if not fleet.known["gpus"]:
        yield _UNCOUNTED
    if any(one.state == "starting" and one.is_in_vain is None for one in fleet.instances):
        yield "the answers do not say whether a starting instance can become active"
    for server in fleet.servers:
        has_idle = any(gpu.state == "idle" for gpu in server.gpus)
        if has_idle and not fleet.blacklisted and fleet.idle_can_earn(server) is None:
            name = server.name or server.server_id
            yield f"the answers do not say whether something can be launched on {name}"
        is_open = fleet.window is not None and fleet.window.is_open
        if is_open and server.waits_for_upgrade and server.measured is None:
            name = server.name or server.server_id
            yield f"the answers do not say whether {name} can come back from the upgrade"


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
