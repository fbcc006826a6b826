"""What is not known about the watched miners: an answer is missing or incomplete, or does not say
something.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.feeds.definitions import INSTANCES, JOBS, METAGRAPH, NODES, SERVERS
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.feeds.fleet import FLEET_FEEDS
from chutes_exporter.feeds.sanity_checks import WORDS
from chutes_exporter.fleet.upgrades import plan_upgrades
from chutes_exporter.rules import instances, maintenance
from chutes_exporter.rules.jobs import is_stuck
from chutes_exporter.rules.score import is_blacklisted

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import FeedState, States
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.fleet.servers import Server

NO_KEY = (
    "not known without a key",
    "Add --hotkey-file, or MINER_SS58 with MINER_SEED or MINER_PRIVATE_KEY.",
)
"""Reason and advice for data that only a key gives."""
TRY_AGAIN = "Try again. If the problem remains, report it."
_MISSING = "Ask the operators of Chutes for a newer service."
"""Advice about an endpoint that the deployment does not have."""
BUG = ("the collector failed, which is a bug", "Report it with the log.")
"""Reason and advice for what a collector makes."""
UPDATE = "Update the exporter. If that does not help, report a bug."
"""Advice about records and words that this version cannot read."""
_UNKNOWN_MAINTENANCE = (
    "Reboot no such server. See chutes-exporter query maintenance, and update the exporter."
)
"""Advice about a step that is not known. Meanwhile, a reboot may do harm."""


@dataclass(frozen=True)
class NotKnown:
    """Something that is not known, and why: an answer, what a collector makes, or a part of it.

    A subject of the platform has no hotkey.
    """

    subject: str
    hotkey: str
    reason: str
    advice: str

    @classmethod
    def after(cls, error: BaseException, subject: str, hotkey: str) -> NotKnown:
        """Return what is not known because a request failed."""
        return cls(subject, hotkey, str(error), getattr(error, "advice", "Try again later."))


def grouped(gaps: Iterable[NotKnown]) -> dict[tuple[str, str], str]:
    """Return all subjects with the same reason and advice, so that an outage is one line."""
    # The inner dictionary keeps the order of subjects, and each of them once.
    subjects_by_texts: dict[tuple[str, str], dict[str, None]] = {}
    for gap in gaps:
        subjects = subjects_by_texts.setdefault((gap.reason, gap.advice), {})
        subjects[gap.subject] = None
    return {texts: ", ".join(subjects) for texts, subjects in subjects_by_texts.items()}


def main_reason(gaps: Iterable[NotKnown]) -> str:
    """Return the reason why most is not known, empty if everything is known."""
    subjects_by_reason = Counter(gap.reason for gap in gaps)
    if not subjects_by_reason:
        return ""
    [(reason, _)] = subjects_by_reason.most_common(1)
    return reason.rstrip(".")


def find_gaps(
    states: States,
    failed: Iterable[NotKnown],
    fleets: Mapping[str, Fleet],
    settings: Settings,
    now: float,
) -> list[NotKnown]:
    """Return what is not known.

    ``failed`` are the collectors that failed.
    """
    incomplete = [*filter(None, map(gap_of, states.values())), *failed]
    gaps = [*incomplete, *_unknown_fields(states, settings)]
    with_key = {key.address for key in settings.keys}
    lack_feeds = {gap.hotkey for gap in incomplete if gap.subject in _NAMES_OF_FLEET_FEEDS}
    for hotkey, fleet in fleets.items():
        if hotkey not in with_key:
            gaps.append(NotKnown("servers, GPUs, instances, jobs", hotkey, *NO_KEY))
        # A missing feed, of the miner or of the platform, explains what the fleet lacks.
        elif hotkey not in lack_feeds and THE_PLATFORM not in lack_feeds:
            gaps += [*_unknown_in_fleet(fleet), *_unknown_upgrades(fleet, now)]
    return gaps


def _unknown_in_fleet(fleet: Fleet) -> Iterator[NotKnown]:
    """Yield what the answers together do not say about GPUs and instances, of all that decides what
    needs action.
    """
    reasons = [_unknown_in_server(fleet, server) for server in fleet.servers]
    if not fleet.known["gpus"]:
        reasons.insert(0, "the answers do not give the states of all GPUs")
    if any(one.state == "starting" and one.is_in_vain is None for one in fleet.instances):
        reasons.append("the answers do not say whether a starting instance can become active")
    for reason in filter(None, reasons):
        yield NotKnown("fleet", fleet.hotkey, reason, "Try again in a minute.")


def _unknown_upgrades(fleet: Fleet, now: float) -> Iterator[NotKnown]:
    plan = plan_upgrades(fleet, now)
    for upgrade in plan.servers:
        if upgrade.step == "not known":
            reason = f"the step of {upgrade.server.shown_name}: {upgrade.reason}"
            yield NotKnown("maintenance", fleet.hotkey, reason, _UNKNOWN_MAINTENANCE)
    if plan.late is None:
        reason = "the answers do not say whether all servers will be upgraded in time"
        yield NotKnown("maintenance", fleet.hotkey, reason, _UNKNOWN_MAINTENANCE)


def _unknown_in_server(fleet: Fleet, server: Server) -> str | None:
    name = server.shown_name
    # A blacklisted miner can launch nothing, so that is known.
    may_launch = server.known_idle_gpus and not fleet.blacklisted
    if may_launch and fleet.idle_units_per_second(server) is None:
        return f"the answers do not say whether something can be launched on {name}"
    if server.count_in("idle") and fleet.left_out.get(server.server_id) == "use_not_known":
        return f"the answers do not say whether {name} can be used, or has died"
    return None


def gap_of(state: FeedState) -> NotKnown | None:
    """Return why a feed is missing, old or not completely known, None if it is none of these."""
    feed, error = state.feed, state.last_error
    answer = state.kept.answer if state.kept else None
    if state.missing:
        reason, advice = str(error), _MISSING
    elif error is not None:
        return NotKnown.after(error, feed.name, feed.hotkey)
    elif answer is None:
        reason, advice = "no answer yet", "Try again in a minute."
    elif answer.rejected:
        reason = (
            f"{answer.rejected} records could not be read and are left out ({answer.first_error})"
        )
        advice = UPDATE
    elif answer.doubt:
        reason, advice = WORDS[answer.doubt], TRY_AGAIN
    else:
        return None
    return NotKnown(feed.name, feed.hotkey, reason, advice)


def _unknown_fields(states: States, settings: Settings) -> Iterator[NotKnown]:
    """Yield what the answers do not say, of all that decides whether something needs action."""
    for feed, state in states.items():
        if state.kept is None or feed.name not in _UNKNOWN_IN:
            continue
        find_unknown = _UNKNOWN_IN[feed.name]
        reasons = find_unknown(state.kept.answer.value, settings.watched)
        # Many records can have the same reason, which is yielded once.
        for reason in dict.fromkeys(reasons):
            yield NotKnown(feed.name, feed.hotkey, reason, UPDATE)


_UNKNOWN_IN: Final[dict[str, Callable[[Any, Container[str]], Iterable[str]]]] = {
    METAGRAPH.name: lambda seats, watched: [
        f"the answer does not say whether {seat.hotkey} is blacklisted"
        for seat in seats
        if seat.hotkey in watched and is_blacklisted(seat) is None
    ],
    SERVERS.name: lambda servers, _: maintenance.unknown_in_servers(servers),
    NODES.name: lambda gpus, _: [
        "the answer does not say on which server a GPU is" for gpu in gpus if gpu.server_id is None
    ],
    INSTANCES.name: lambda found, _: instances.unknown_in(found),
    JOBS.name: lambda jobs, _: [
        "the answer does not say whether a job is stuck" for job in jobs if is_stuck(job) is None
    ],
}
"""What an answer does not say about the watched hotkeys, by feed."""
_NAMES_OF_FLEET_FEEDS: Final = frozenset(feed.name for feed in FLEET_FEEDS)
