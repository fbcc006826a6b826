"""What is not known about the watched miners: an answer is missing or incomplete, or does not say something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.api.errors import ApiError
from chutes_exporter.collectors.fleet import COLLECTOR as FLEET
from chutes_exporter.feeds.doubt import WORDS
from chutes_exporter.feeds.table import INSTANCES, JOBS, MAINTENANCE, METAGRAPH, NODES, SERVERS
from chutes_exporter.rules import instances, maintenance
from chutes_exporter.rules.jobs import is_stuck
from chutes_exporter.rules.score import is_blacklisted

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from chutes_exporter.config import Settings
    from chutes_exporter.page.exporter import Collected
    from chutes_exporter.page.telemetry import States

NO_KEY = ("not known without a key", "Add --hotkey-file, or MINER_SS58 with MINER_SEED or MINER_PRIVATE_KEY.")
"""Reason and advice for data that only a key gives."""
TRY_AGAIN = "Try again. If the problem remains, report it."
MISSING = "Ask the operators of Chutes for a newer service."
"""Advice about an endpoint that the deployment does not have."""
_BUG = ("the collector failed, which is a bug", "Report it with the log.")
_UNCOUNTED = ("the answers do not give the states of all GPUs", "Try again in a minute.")
_UPDATE = "Update the exporter. If that does not help, report a bug."
_UNKNOWN_MAINTENANCE = "Reboot no such server. See chutes-exporter query maintenance, and update the exporter."


@dataclass(frozen=True)
class NotKnown:
    """Data of a feed, or of a collector, that the API did not send. Data of the platform has no hotkey."""

    feed: str
    hotkey: str
    reason: str
    advice: str


def grouped(remarks: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Return remarks with the same text once, with all subjects. An outage is not repeated for each feed."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for subject, text, advice in remarks:
        found.setdefault((text, advice), {})[subject] = None
    return [(", ".join(subjects), *texts) for texts, subjects in found.items()]


def find_gaps(collected: Collected, settings: Settings) -> tuple[list[NotKnown], set[str]]:
    """Return what is not known, and the miners for which the state of every GPU is known."""
    gaps = [*_feeds(collected.states), *(NotKnown(name, hotkey, *_BUG) for name, hotkey in collected.failed)]
    incomplete = {(gap.feed, gap.hotkey) for gap in gaps}
    gaps += _fields(collected.states, settings)
    keys, counted = {key.address for key in settings.keys}, set()
    for hotkey in sorted(settings.watched):
        if hotkey not in keys:
            gaps.append(NotKnown("servers, GPUs, instances, jobs", hotkey, *NO_KEY))
        # Otherwise, a gap already names the feed without which the GPUs are not known.
        elif not incomplete & {(feed.name, hotkey) for feed in FLEET.feeds}:
            if _is_counted(collected, hotkey):
                counted.add(hotkey)
            else:
                gaps.append(NotKnown("fleet", hotkey, *_UNCOUNTED))
    return gaps, counted


def _feeds(states: States) -> Iterator[NotKnown]:
    """Yield the feeds that are missing, old or could not be completely read."""
    for feed, state in states.items():
        error, snapshot = state.last_error, state.snapshot
        if state.missing:
            yield NotKnown(feed.name, feed.hotkey, f"the deployment has no {feed.endpoint.path}", MISSING)
        elif snapshot is None or error is not None:
            advice = error.advice if isinstance(error, ApiError) else "Try again later."
            yield NotKnown(feed.name, feed.hotkey, str(error or "no answer yet"), advice)
        elif not snapshot.answer.whole:
            rejected, doubt = snapshot.answer.rejected, snapshot.answer.doubt
            reason = f"{rejected} records cannot be read" if rejected else WORDS[doubt or ""]
            yield NotKnown(feed.name, feed.hotkey, reason, TRY_AGAIN)


def _fields(states: States, settings: Settings) -> Iterator[NotKnown]:
    """Yield what the answers do not say, of all that decides whether something needs action."""
    for feed, state in states.items():
        if state.snapshot is not None and feed.name in _UNKNOWN_IN:
            advice = _UNKNOWN_MAINTENANCE if feed.name == MAINTENANCE.name else _UPDATE
            for reason in dict.fromkeys(_UNKNOWN_IN[feed.name](state.snapshot.answer.value, settings.watched)):
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


def _is_counted(collected: Collected, hotkey: str) -> bool:
    def of(metric: str) -> set[str | None]:
        return {has.get("gpu") for has, _ in collected.samples.get(metric, ()) if has["hotkey"] == hotkey}

    counted, described = of("chutes_fleet_gpus"), of("chutes_gpu_info")
    has_no_gpu = not described and not of("chutes_gpu_in_use")
    # A GPU in an unknown state removes the counts of its model, and one of an unknown model all counts.
    return has_no_gpu or (bool(counted) and described <= counted)
