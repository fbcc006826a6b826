"""What is not known about the watched miners: an answer is missing or incomplete, or does not say
something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chutes_exporter.feeds.definitions import (
    INSTANCES,
    JOBS,
    METAGRAPH,
    NODES,
    SERVERS,
)
from chutes_exporter.feeds.fleet import FLEET_FEEDS
from chutes_exporter.feeds.sanity_checks import WORDS
from chutes_exporter.fleet.upgrades import plan_upgrades
from chutes_exporter.rules import instances, maintenance
from chutes_exporter.rules.jobs import is_stuck
from chutes_exporter.rules.score import is_blacklisted

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from chutes_exporter.api.records import Job, MetagraphNode, Node
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.fleet.model import Fleet, Server
    from chutes_exporter.fleet.upgrades import UpgradePlan
    from chutes_exporter.page.exposition import States

NO_KEY = (
    "not known without a key",
    "Add --hotkey-file, or MINER_SS58 with MINER_SEED or MINER_PRIVATE_KEY.",
)
"""Reason and advice for data that only a key gives."""
TRY_AGAIN = "Try again. If the problem remains, report it."
_MISSING = "Ask the operators of Chutes for a newer service."
"""Advice about an endpoint that the deployment does not have."""
_BUG = ("the collector failed, which is a bug", "Report it with the log.")
_UNCOUNTED = "the answers do not give the states of all GPUs"
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


class SharedReason(NamedTuple):
    """A reason, with all subjects for which it holds."""

    subjects: str
    reason: str
    advice: str


def grouped(gaps: Iterable[NotKnown]) -> list[SharedReason]:
    """Return each reason of gaps once, so that an outage is not repeated for each feed."""
    # The inner dictionary keeps the order of subjects, and each of them once.
    subjects_by_texts: dict[tuple[str, str], dict[str, None]] = {}
    for gap in gaps:
        subjects = subjects_by_texts.setdefault((gap.reason, gap.advice), {})
        subjects[gap.subject] = None
    groups = []
    for (reason, advice), subjects in subjects_by_texts.items():
        groups.append(SharedReason(", ".join(subjects), reason, advice))
    return groups


def find_gaps(
    states: States,
    failed: Iterable[tuple[str, str]],
    fleets: Mapping[str, Fleet],
    settings: Settings,
    now: float,
) -> tuple[list[NotKnown], set[str]]:
    """Return what is not known, and the miners for which the state of every GPU is known.

    ``failed`` are name and hotkey of each collector that failed.
    """
    incomplete = [gap for gap in map(gap_of, states.values()) if gap is not None]
    incomplete += [NotKnown(collector, hotkey, *_BUG) for collector, hotkey in failed]
    gaps = [*incomplete, *_unknown_fields(states, settings)]
    with_key = {key.address for key in settings.keys}
    counted: set[str] = set()
    for hotkey in sorted(settings.watched):
        if hotkey not in with_key:
            gaps.append(NotKnown("servers, GPUs, instances, jobs", hotkey, *NO_KEY))
            continue
        fleet = fleets[hotkey]
        if fleet.known["gpus"]:
            counted.add(hotkey)
        # The missing feed explains what the fleet lacks.
        if _lacks_feed(hotkey, incomplete):
            continue
        reasons = _unknown_in_fleet(fleet)
        gaps += [NotKnown("fleet", hotkey, one, "Try again in a minute.") for one in reasons]
        reasons = _unknown_in_maintenance(plan_upgrades(fleet, now))
        gaps += [NotKnown("maintenance", hotkey, one, _UNKNOWN_MAINTENANCE) for one in reasons]
    return gaps, counted


def _lacks_feed(hotkey: str, gaps: Iterable[NotKnown]) -> bool:
    """Return whether a gap already names a feed that the fleet of a miner is joined from."""
    names = [feed.name for feed in FLEET_FEEDS]
    return any(gap.subject in names and gap.hotkey in ("", hotkey) for gap in gaps)


def _unknown_in_fleet(fleet: Fleet) -> Iterator[str]:
    """Yield what the answers together do not say, of all that decides what needs action."""
    if not fleet.known["gpus"]:
        yield _UNCOUNTED
    starting = [instance for instance in fleet.instances if instance.state == "starting"]
    if any(instance.is_in_vain is None for instance in starting):
        yield "the answers do not say whether a starting instance can become active"
    for server in fleet.servers:
        name = server.name or server.server_id
        if _launches_are_unknown(fleet, server):
            yield f"the answers do not say whether something can be launched on {name}"
        elif server.idle_models and fleet.left_out.get(server.server_id) == "use_not_known":
            yield f"the answers do not say whether {name} can be used, or has died"


def _unknown_in_maintenance(plan: UpgradePlan) -> Iterator[str]:
    for upgrade in plan.servers:
        if upgrade.step == "not known":
            name = upgrade.server.name or upgrade.server.server_id
            yield f"the step of {name}: {upgrade.reason}"
    if plan.late is None:
        yield "the answers do not say whether all servers will be upgraded in time"


def _launches_are_unknown(fleet: Fleet, server: Server) -> bool:
    """Return whether it is unknown if idle GPUs of a server can earn.

    A blacklisted miner can launch nothing, so that is known.
    """
    has_idle = any(gpu.state == "idle" for gpu in server.gpus)
    return has_idle and not fleet.blacklisted and fleet.idle_pay(server) is None


def gap_of(state: FeedState) -> NotKnown | None:
    """Return why a feed is missing, old or not completely known, None if it is none of these."""
    feed, error = state.feed, state.last_error
    if state.missing:
        return NotKnown(feed.name, feed.hotkey, str(error), _MISSING)
    if error is not None:
        return NotKnown.after(error, feed.name, feed.hotkey)
    if state.snapshot is None:
        return NotKnown(feed.name, feed.hotkey, "no answer yet", "Try again in a minute.")
    answer = state.snapshot.answer
    if answer.rejected:
        reason = (
            f"{answer.rejected} records could not be read and are left out ({answer.first_error})"
        )
        return NotKnown(feed.name, feed.hotkey, reason, UPDATE)
    if answer.doubt:
        return NotKnown(feed.name, feed.hotkey, WORDS[answer.doubt], TRY_AGAIN)
    return None


def _unknown_fields(states: States, settings: Settings) -> Iterator[NotKnown]:
    """Yield what the answers do not say, of all that decides whether something needs action."""
    for feed, state in states.items():
        if state.snapshot is None or feed.name not in _UNKNOWN_IN:
            continue
        find_unknown = _UNKNOWN_IN[feed.name]
        reasons = find_unknown(state.snapshot.answer.value, settings.watched)
        # Many records can have the same reason, which is yielded once.
        for reason in dict.fromkeys(reasons):
            yield NotKnown(feed.name, feed.hotkey, reason, UPDATE)


def _unknown_in_seats(seats: Iterable[MetagraphNode], watched: Container[str]) -> Iterator[str]:
    for seat in seats:
        if seat.hotkey in watched and is_blacklisted(seat) is None:
            yield f"the answer does not say whether {seat.hotkey} is blacklisted"


def _unknown_in_gpus(gpus: Iterable[Node]) -> Iterator[str]:
    for gpu in gpus:
        if gpu.server_id is None:
            yield "the answer does not say on which server a GPU is"


def _unknown_in_jobs(jobs: Iterable[Job]) -> Iterator[str]:
    for job in jobs:
        if is_stuck(job) is None:
            yield "the answer does not say whether a job is stuck"


_UNKNOWN_IN: Final[dict[str, Callable[[Any, Container[str]], Iterable[str]]]] = {
    METAGRAPH.name: _unknown_in_seats,
    SERVERS.name: lambda servers, _: maintenance.unknown_in_servers(servers),
    NODES.name: lambda gpus, _: _unknown_in_gpus(gpus),
    INSTANCES.name: lambda found, _: instances.unknown_in(found),
    JOBS.name: lambda jobs, _: _unknown_in_jobs(jobs),
}
"""What an answer does not say about the watched hotkeys, by feed."""
