"""What needs action at a miner, and what is worth knowing.

A finding is a row of the table :data:`KINDS`. A server, an instance or a GPU stands in one finding
that needs action at most: in the first one of the table.
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from chutes_exporter.duration import DAY, HOUR, human_duration
from chutes_exporter.fleet.ends import sum_of_losses
from chutes_exporter.fleet.upgrades import upgrade_order
from chutes_exporter.rules.losses import deletion_penalty
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chutes_exporter.fleet.failures import Failures
    from chutes_exporter.fleet.model import Fleet, Gpu, Instance, Server, ServerPlan, Window
    from chutes_exporter.fleet.outages import Outage
    from chutes_exporter.rules.maintenance import Measured
    from chutes_exporter.rules.money import Costs

_BOOT = "Boot {it|them} with the target version"
_NO_BOOT = (
    "Whether {it|they} can come back is not known. Ask the operators of Chutes before you boot "
    "{it|them} with the target version"
)
_STOP = "Stop {it|them}, because it cannot earn: chutes-exporter query instances"
_STOP_AND_LAUNCH = "Stop {it|them} and launch another chute: chutes-exporter advise"
_PURGE_SOON = 0.75 * HOUR
"""Seconds before its purge from which an instance needs action, as for the alert
ChutesInstancePurgeNear.
"""


@dataclass(frozen=True)
class Subject:
    """What a finding is about: the miner, a server, an instance, or GPUs.

    Attributes:
        gpus: The GPUs that earn nothing because of it. None if they are not all known.
        are_gpus: Whether it is the GPUs themselves.
        count: How many things it is.
        when: Unix time of what happens next.
        text: The name of something else, such as a chute. It replaces the other names.
    """

    server: Server | None = None
    instance: Instance | None = None
    gpus: tuple[Gpu, ...] | None = ()
    are_gpus: bool = False
    count: int = 1
    when: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Finding:
    """Something that needs action, or a note.

    Attributes:
        kind: A word for scripts.
        count: How many things it is about.
        things: Their names.
        servers: The ids and names of the servers that it is about.
        instances: The instances that it is about, each with its chute, server and age.
        advice: What to do, before the command.
        command: A command that helps. A note has none.
        when: Unix time of what happens next, if known.
        gpus: GPUs by model that earn nothing because of it, if all of them are known.
        cost_usd_per_hour: What these GPUs cost. None if they, or the price of a model, are unknown.
    """

    kind: str
    hotkey: str
    count: int
    problem: str
    things: list[str]
    servers: list[dict[str, str | None]]
    instances: list[dict[str, Any]]
    needs_action: bool
    advice: str
    command: str
    when: float | None
    gpus: dict[str, int]
    cost_usd_per_hour: float | None


@dataclass(frozen=True)
class Kind:
    """A row of the table of findings.

    Attributes:
        severity: A loss means that GPUs earn nothing. A note needs no action.
        test: Returns what the finding is about at a Unix time, the most urgent first.
        sentence: What is wrong. ``{is|are}`` becomes what fits COUNT.
        advice: What to do, and after the colon a command that helps. A note has none.
    """

    severity: Literal["loss", "action", "note"]
    test: Callable[[Fleet, float], list[Subject]]
    sentence: str
    advice: str = ""


# What the findings are about


def _not_registered(fleet: Fleet, _now: float) -> list[Subject]:
    if fleet.registered is not False:
        return []
    return [Subject(gpus=_all_gpus(fleet))]


def _blacklisted(fleet: Fleet, _now: float) -> list[Subject]:
    if not fleet.blacklisted:
        return []
    return [Subject(gpus=_all_gpus(fleet))]


def _all_gpus(fleet: Fleet) -> tuple[Gpu, ...] | None:
    return fleet.gpus if fleet.known.get("gpus") else None


def _stuck_jobs(fleet: Fleet, _now: float) -> list[Subject]:
    if not fleet.stuck_jobs:
        return []
    return [Subject(count=fleet.stuck_jobs)]


def _starts_in_vain(fleet: Fleet, _now: float) -> list[Subject]:
    return [_of_instance(fleet, instance) for instance in fleet.instances if instance.is_in_vain]


def _failing_chutes(fleet: Fleet, _now: float) -> list[Subject]:
    """Return the chutes that failed again and again, the worst first.

    A fleet that was read without the audit reports has no failures to look at.
    """
    failures = fleet.failures
    if failures is None:
        return []
    return [_of_chute(fleet, failures, chute_id) for chute_id in failures.failing]


def _of_chute(fleet: Fleet, failures: Failures, chute_id: str) -> Subject:
    """Return a chute that fails, with a server on which an instance of it starts now, if there is
    one. The audit reports do not tell on which server it failed.

    Its text is such as ``gemma (4 times, most by probes), which starts on tee-1 now``.
    """
    reasons = failures.reasons[chute_id]
    [(main_reason, _)] = reasons.most_common(1)
    share = "all" if len(reasons) == 1 else "most"
    times = failures.known[chute_id]
    text = f"{failures.names[chute_id]} ({times} times, {share} by {main_reason})"
    for instance in fleet.instances:
        starts = instance.chute_id == chute_id and instance.state == "starting"
        server = fleet.servers_by_id.get(instance.server_id or "")
        if starts and server is not None:
            return Subject(server, text=f"{text}, which starts on {_server_name(server)} now")
    return Subject(text=text)


def _purges(fleet: Fleet, now: float) -> list[Subject]:
    starting = _with_purge_time(fleet, "starting")
    return [subject for subject in starting if _when(subject) - now < _PURGE_SOON]


def _disabled(fleet: Fleet, _now: float) -> list[Subject]:
    return _with_purge_time(fleet, "disabled")


def _with_purge_time(fleet: Fleet, state: Literal["starting", "disabled"]) -> list[Subject]:
    """Return the instances in a state whose purge has a known time, the soonest first."""
    subjects = [
        _of_instance(fleet, instance, instance.deadlines["purge"])
        for instance in fleet.instances
        if instance.state == state and "purge" in instance.deadlines
    ]
    return sorted(subjects, key=_when)


def _unsecured(fleet: Fleet, now: float) -> list[Subject]:
    """Return the public instances in their first hour, in which a deletion would cost their score.

    The first is the one whose hour ends last. The finding names only its time, at which the first
    hour of all of them has ended.
    """
    subjects = []
    for instance in fleet.instances:
        secured_at = instance.deadlines.get("secured")
        if secured_at is not None and secured_at > now:
            subjects.append(_of_instance(fleet, instance, secured_at))
    return sorted(subjects, key=_when, reverse=True)


def _when(subject: Subject) -> float:
    return subject.when or 0.0


def _dead_servers(fleet: Fleet, _now: float) -> list[Subject]:
    """Return the servers that probably died, with the GPUs that are idle since.

    If instances can have ended on one of several servers, it is unknown which GPUs these are.
    """
    subjects = []
    for outage in fleet.outages:
        names = " or ".join(_server_name(server) for server in outage.servers)
        text = f"{names}: {_outage_text(outage)}"
        if len(outage.servers) > 1:
            subjects.append(Subject(text=text, gpus=None))
        else:
            [server] = outage.servers
            subjects.append(replace(_of_server(server), text=text))
    return subjects


def _outage_text(outage: Outage) -> str:
    """Return how many instances ended when, and what they lost."""
    times = [f"{datetime.fromtimestamp(end.ended_at, UTC):%H:%M}" for end in outage.ends]
    lost = sum_of_losses(outage.ends)
    about = "at least " if lost.unknown else "about " if lost.are_about else ""
    units = f"lost {about}{lost.known:,.0f} units"
    if not lost.known:
        units = "lost an unknown number of units" if lost.unknown else "keep their score"
    return f"{len(times)} instances from {times[0]} to {times[-1]} UTC, which {units}"


def _last_active(fleet: Fleet, _now: float) -> list[Subject]:
    return [
        _of_instance(fleet, instance) for instance in fleet.instances if instance.is_last_active
    ]


def _of_instance(fleet: Fleet, instance: Instance, when: float | None = None) -> Subject:
    """Return an instance with its server, and with its GPUs if they are all known.

    ``when`` is the Unix time of what happens to it next, None if the finding names no time.
    """
    server = fleet.servers_by_id.get(instance.server_id or "")
    gpus = tuple(fleet.gpus_by_instance.get(instance.instance_id, ()))
    # instance.gpus is their number, or None if it is unknown.
    if len(gpus) != instance.gpus:
        return Subject(server, instance, gpus=None, when=when)
    return Subject(server, instance, gpus, when=when)


def _in_maintenance(fleet: Fleet, _now: float) -> list[Subject]:
    """Return the servers in maintenance on which certainly nothing runs.

    Those that cannot come back are in another finding.
    """
    return [
        _of_server(server)
        for server in fleet.servers
        if _is_down(server) and not server.cannot_come_back
    ]


def _maintenance_pending(fleet: Fleet, _now: float) -> list[Subject]:
    """Return the servers that must not be rebooted yet, because something may still run there.

    Those that cannot come back are in another finding.
    """
    return [
        _of_server(server)
        for server in fleet.servers
        if _may_run_in_slot(server) and not server.cannot_come_back
    ]


def _may_run_in_slot(server: Server) -> bool:
    """Return whether something may still run on a server that is pending or in maintenance."""
    return server.maintenance in ("pending", "maintenance") and not _is_down(server)


def _is_down(server: Server) -> bool:
    """Return whether a server is in maintenance, and certainly nothing runs there."""
    if server.maintenance != "maintenance":
        return False
    return server.earning_instances == 0 and not server.instances


def _versions_refused(fleet: Fleet, _now: float) -> list[Subject]:
    """Return the servers whose version is refused at a boot.

    Those that hold an upgrade slot, and those that cannot boot with the target of the newest window
    either, are in other findings. The GPUs are left out: they can still be used, so idle ones are
    in another finding, too.
    """
    return [
        Subject(server)
        for server in fleet.servers
        if server.boots is False and _may_lack_slot(server) and not server.cannot_come_back
    ]


def _may_lack_slot(server: Server) -> bool:
    """Return whether a server holds no upgrade slot, or that is unknown."""
    return server.holds_slot is not True


def _unmeasured(fleet: Fleet, now: float) -> list[Subject]:
    """Return the servers that cannot come back from an upgrade that their miner may start soon."""
    window = fleet.window
    window_is_near = window is not None and (window.is_open or _begins_later(window, now))
    subjects = []
    for server in fleet.servers:
        # A server is upgraded while it holds a slot, and must be if its version is refused.
        upgrade_is_near = window_is_near or server.holds_slot or server.boots is False
        if not server.cannot_come_back or not upgrade_is_near:
            continue
        if _is_down(server):
            subjects.append(_of_server(server))
        else:
            # Its GPUs are left out, because what runs there earns until a reboot.
            is_known = server.earning_instances is not None
            subjects.append(Subject(server, gpus=() if is_known else None))
    return subjects


def _upgrades(fleet: Fleet, _now: float) -> list[Subject]:
    return _in_open_window(fleet, "measured")


def _undecided_upgrades(fleet: Fleet, _now: float) -> list[Subject]:
    return _in_open_window(fleet, "undecided", None)


def _in_open_window(fleet: Fleet, *measured: Measured | None) -> list[Subject]:
    """Return the servers to upgrade in the open window, in the order in which to upgrade them.

    ``measured`` selects them by whether the service lists the window's target for hosts with their
    GPUs. All servers are left out while it is unknown whether the window is open.
    """
    window = fleet.window
    if window is None or not window.is_open:
        return []
    return [
        Subject(server, when=window.ends_at)
        for server in sorted(_servers_to_upgrade(fleet), key=upgrade_order)
        if server.measured in measured
    ]


def _next_upgrades(fleet: Fleet, now: float) -> list[Subject]:
    """Return the servers to upgrade in a window that begins later.

    Those that cannot come back are in another finding.
    """
    window = fleet.window
    if window is None or window.is_open is not False or not _begins_later(window, now):
        return []
    return [
        Subject(server, when=window.starts_at)
        for server in _servers_to_upgrade(fleet)
        if not server.cannot_come_back
    ]


def _begins_later(window: Window, now: float) -> bool:
    return window.starts_at is not None and window.starts_at > now


def _servers_to_upgrade(fleet: Fleet) -> list[Server]:
    """Return the servers that are older than the target of the newest window.

    Those that hold a slot, or have a refused version, are left out: they are in other findings.
    """
    servers = []
    for server in fleet.servers:
        is_refused = server.boots is False
        if server.needs_upgrade and _may_lack_slot(server) and not is_refused:
            servers.append(server)
    return servers


def _without_tee(fleet: Fleet, _now: float) -> list[Subject]:
    """Return the servers with GPUs but without TEE for which there is no chute.

    Something may still run there, but nothing new can be launched.
    """
    return [
        _of_server(server)
        for server in fleet.servers
        if server.tee is False and server.runs_chutes is False and server.gpus
    ]


def _of_server(server: Server) -> Subject:
    """Return a server with those of its GPUs that are in no instance.

    They are None while a GPU may be missing, or has an unknown state.
    """
    if not server.is_whole or any(gpu.state is None for gpu in server.gpus):
        return Subject(server, gpus=None)
    unused = tuple(gpu for gpu in server.gpus if gpu.state in ("idle", "unverified"))
    return Subject(server, gpus=unused)


def _unverified(fleet: Fleet, _now: float) -> list[Subject]:
    """Return the unverified GPUs that chutes may run on once they are verified.

    Those of a server are left out only if it is certain that no chute runs there.
    """
    return [
        subject
        for subject in _gpus_by_server(fleet, "unverified")
        if subject.server is None or subject.server.runs_chutes is not False
    ]


def _idle(fleet: Fleet, _now: float) -> list[Subject]:
    """Return the idle GPUs that could earn, or of which that is not known.

    The service refuses all launches of a blacklisted miner, and another finding says so.
    """
    if fleet.blacklisted:
        return []
    subjects = _gpus_by_server(fleet, "idle")
    return [subject for subject in subjects if _may_earn(fleet, subject.server)]


def _may_earn(fleet: Fleet, server: Server | None) -> bool:
    if server is None:
        return True
    return server.holds_slot is False and fleet.idle_can_earn(server) is not False


def _gpus_by_server(fleet: Fleet, state: Literal["idle", "unverified"]) -> list[Subject]:
    """Return the GPUs in a state: a subject for each model on each server.

    GPUs of an unknown model are left out.
    """
    by_place: dict[tuple[str, str | None], list[Gpu]] = {}
    for gpu in fleet.gpus:
        if gpu.state == state and gpu.model is not None:
            by_place.setdefault((gpu.model, gpu.server_id), []).append(gpu)
    subjects = []
    # Sorted as text, because the id of a server may be None.
    for place in sorted(by_place, key=str):
        gpus = tuple(by_place[place])
        _, server_id = place
        server = fleet.servers_by_id.get(server_id or "")
        subjects.append(Subject(server, gpus=gpus, are_gpus=True, count=len(gpus)))
    return subjects


_loss, _action, _note = (partial(Kind, severity) for severity in ("loss", "action", "note"))

ABOUT_MAINTENANCE = frozenset(
    {
        "maintenance",
        "maintenance_pending",
        "next_upgrades",
        "undecided_upgrades",
        "unmeasured_servers",
        "upgrades",
        "versions_refused",
    }
)
"""The kinds of findings about the maintenance of servers and their versions."""

KINDS = {
    "not_registered": _loss(
        _not_registered,
        "The hotkey has no seat on the subnet. It earns nothing.",
        "Register it: btcli subnet register --netuid 64",
    ),
    "blacklisted": _loss(
        _blacklisted,
        "The miner is blacklisted. It gets no score, and its launches are refused, so idle "
        "GPUs cannot be used.",
        "First ask the operators of Chutes to end it. Reason: chutes-exporter query metagraph",
    ),
    "stuck_jobs": _action(
        _stuck_jobs,
        "COUNT {job is|jobs are} stuck with the miner.",
        "List and release them: chutes-exporter release-job",
    ),
    "starts_in_vain": _loss(
        _starts_in_vain,
        "COUNT {instance starts|instances start} in vain: {its chute has|their chutes have} enough "
        "active instances or no target any more. {It|They} cannot become active unless that "
        "changes.",
        "VAIN",
    ),
    "purges": _loss(
        _purges,
        "COUNT {instance has|instances have} not started. The service deletes {it|the first} WHEN.",
        "Look at {its pod|their pods}: kubectl --context SERVER -n chutes get pods",
    ),
    "failing_chutes": _action(
        _failing_chutes,
        "COUNT {chute fails|chutes fail} again and again: 3 times or more in the 6 hours before "
        "the newest audit report.",
        "Find out why before {it is|they are} launched again: chutes-exporter incidents --hours 6",
    ),
    "maintenance": _loss(
        _in_maintenance,
        "COUNT TEE {server is|servers are} in maintenance. No instance is left on {it|them}. While "
        "a TDX host refuses to start the image, its memory is not free yet, for more than 2 hours: "
        "wait, do not force the start, and do not reboot the host.",
        "BOOT: chutes-exporter status --maintenance",
    ),
    "unmeasured_servers": _loss(
        _unmeasured,
        "COUNT TEE {server|servers} cannot come back from the upgrade: the service lists version "
        "TARGET for no host with {its|their} GPUs. Instances that earn there now: EARNING.",
        "Do not reboot {it|them}, do not request {its|their} maintenance, and ask the operators of "
        "Chutes: chutes-exporter status --maintenance",
    ),
    "maintenance_pending": _action(
        _maintenance_pending,
        "COUNT TEE {server waits|servers wait} for maintenance: the last instances of their chutes "
        "may still serve, for up to 3 hours.",
        "Do not reboot {it|them} before the status is maintenance and nothing runs there: "
        "chutes-exporter status --maintenance",
    ),
    "versions_refused": _action(
        _versions_refused,
        "The service refuses the version that COUNT TEE {server has|servers have}. Do not reboot "
        "{it|them} before maintenance has ended {its|their} instances. Instances that earn there "
        "now: EARNING.",
        "See when a slot is free: chutes-exporter status --maintenance",
    ),
    "upgrades": _action(
        _upgrades,
        "COUNT TEE {server needs|servers need} the upgrade of the maintenance window, which "
        "ends WHEN.",
        "When a slot is free, request {its|their} maintenanceIN_ORDER: chutes-exporter status "
        "--maintenance",
    ),
    "undecided_upgrades": _action(
        _undecided_upgrades,
        "COUNT TEE {server needs|servers need} the upgrade of the maintenance window, which "
        "ends WHEN. Whether {it|they} can come back is not known: the service lists version TARGET "
        "for no host, the API has no GPUs of {it|them}, or the list cannot be read.",
        "Do not request {its|their} maintenance before the version is listed, unless the operators "
        "of Chutes say so: chutes-exporter status --maintenance",
    ),
    "servers_without_tee": _loss(
        _without_tee,
        "COUNT {server has|servers have} no TEE, and no chute runs on {its|their} GPUs without it.",
        "Set {it|them} up with TEE, or remove {it|them}, once nothing earns there: chutes-exporter "
        "query servers",
    ),
    "unverified_gpus": _loss(
        _unverified,
        "COUNT {GPU is|GPUs are} not verified and in no instance.",
        "See the errors: chutes-exporter query nodes",
    ),
    "dead_servers": _loss(
        _dead_servers,
        "COUNT {server has|servers have} probably died: several instances ended within minutes, "
        "and nothing earns there since.",
        "First see whether {it answers|they answer}: chutes-miner tee node-health --name SERVER",
    ),
    "idle_gpus": _loss(
        _idle,
        "COUNT {GPU is|GPUs are} idle. WORTH",
        "Deploy chutes on {it|them}: chutes-exporter advise",
    ),
    "unsecured_instances": _note(
        _unsecured,
        "Do not stop {this instance|these COUNT instances} before CLOCK: {it|they} would lose "
        "{its|their} score.",
    ),
    "last_active_instances": _note(
        _last_active,
        "COUNT {instance is the last active one of its chute|instances are the last active ones "
        "of their chutes} on the platform. PENALTY",
    ),
    "disabled_instances": _note(
        _disabled,
        "COUNT {instance is|instances are} disabled. The service deletes {it|the first} WHEN. A "
        "private one then loses its score.",
    ),
    "next_upgrades": _note(
        _next_upgrades,
        "COUNT TEE {server is|servers are} older than the target of the next maintenance "
        "window, which begins WHEN.",
    ),
}
"""All findings, the most urgent first."""


def find(fleet: Fleet, now: float, costs: Costs) -> list[Finding]:
    """Return what needs action at a miner, the most expensive first, and then the notes.

    What is unknown gives no finding.
    """
    findings: list[Finding] = []
    reported_ids: set[str] = set()
    for name, kind in KINDS.items():
        subjects = kind.test(fleet, now)
        if kind.severity != "note":
            # What is in a finding that is more urgent is in no other one. Notes may repeat it.
            subjects = [subject for subject in subjects if not _is_reported(subject, reported_ids)]
            # These two kinds are about all GPUs, and must not hide what else is wrong with a GPU.
            if name not in ("not_registered", "blacklisted"):
                for subject in subjects:
                    reported_ids.update(_ids(subject))
        if subjects:
            findings.append(_finding(name, fleet, subjects, now, costs))
    return sorted(findings, key=_urgency)


def _urgency(finding: Finding) -> tuple[bool, float, int]:
    """Return what sorts findings: actions before notes, the most expensive first.

    Among those with the same or an unknown cost, that of the most GPUs is the first. Otherwise they
    stay in the order of KINDS.
    """
    is_note = not finding.needs_action
    cost_usd = finding.cost_usd_per_hour or 0.0
    gpus = sum(finding.gpus.values())
    return is_note, -cost_usd, -gpus


def _is_reported(subject: Subject, reported_ids: set[str]) -> bool:
    ids = _ids(subject)
    return bool(ids) and reported_ids.issuperset(ids)


def _ids(subject: Subject) -> list[str]:
    """Return the ids of what a subject is about: its instance, or else its GPUs."""
    if subject.instance is not None:
        return [subject.instance.instance_id]
    return [gpu.gpu_id for gpu in subject.gpus or ()]


def _finding(
    name: str, fleet: Fleet, subjects: Sequence[Subject], now: float, costs: Costs
) -> Finding:
    """Return the finding ``name`` of KINDS about some subjects. Its time is that of the first."""
    kind = KINDS[name]
    count = sum(subject.count for subject in subjects)
    servers = _servers_of(subjects)
    words = _words(fleet, subjects, servers, now)
    advice, _, command = filled(kind.advice, count, **words).partition(": ")
    things = [_name(subject) for subject in subjects]
    # Only in a loss, the GPUs of subjects earn nothing. None means that not all are known.
    lost_gpus: list[Gpu] | None = []
    if kind.severity == "loss":
        lost_gpus = _gpus_of(subjects)
    return Finding(
        kind=name,
        hotkey=fleet.hotkey,
        count=count,
        problem=filled(kind.sentence, count, **words),
        things=[thing for thing in things if thing],
        servers=[{"server_id": server.server_id, "name": server.name} for server in servers],
        instances=[
            _instance_fields(subject.instance, subject.server)
            for subject in subjects
            if subject.instance is not None
        ],
        needs_action=kind.severity != "note",
        advice=advice,
        command=command,
        when=subjects[0].when,
        gpus=dict(_models(lost_gpus or ())),
        cost_usd_per_hour=None if lost_gpus is None else cost(lost_gpus, fleet, costs),
    )


def _servers_of(subjects: Iterable[Subject]) -> list[Server]:
    """Return the servers of subjects, each once."""
    by_id = {}
    for subject in subjects:
        if subject.server is not None:
            by_id[subject.server.server_id] = subject.server
    return list(by_id.values())


def _words(
    fleet: Fleet, subjects: Sequence[Subject], servers: Iterable[Server], now: float
) -> dict[str, str]:
    """Return what replaces each word in capitals in the texts of a kind.

    A server and a time are those of the first subject.
    """
    server, when = subjects[0].server, subjects[0].when
    server_name = None if server is None else server.name
    target = None if fleet.window is None else fleet.window.target
    earning = total(server.earning_instances for server in servers)
    return {
        # Without a known name, the word itself stays in the command.
        "SERVER": shlex.quote(server_name or "SERVER"),
        # The texts say "version TARGET".
        "TARGET": target or "of the window",
        "EARNING": "not known" if earning is None else f"{earning:g}",
        "WHEN": "at an unknown time" if when is None else time_until(when, now),
        # Only texts about subjects with a time have this word.
        "CLOCK": f"{datetime.fromtimestamp(when or 0, UTC):%H:%M} UTC",
        "WORTH": _worth(fleet, subjects),
        "IN_ORDER": _in_order(subjects),
        "BOOT": _BOOT if all(server.measured == "measured" for server in servers) else _NO_BOOT,
        "VAIN": _STOP if fleet.blacklisted else _STOP_AND_LAUNCH,
        "PENALTY": _penalty(fleet, subjects, now),
    }


def _in_order(subjects: Sequence[Subject]) -> str:
    """Return words for servers to upgrade whose order is known. They are named in this order."""
    servers = [subject.server for subject in subjects]
    numbers = [(one.last_instances, one.idle_gpus) for one in servers if one is not None]
    is_known = all(None not in pair for pair in numbers)
    return " in this order" if is_known and len(servers) > 1 else ""


def _penalty(fleet: Fleet, subjects: Iterable[Subject], now: float) -> str:
    """Return what the deletion of last active instances costs.

    Their multipliers may have changed since the newest report.
    """
    texts, public_units = [], []
    for subject in subjects:
        instance = subject.instance
        if instance is not None and instance.private is False:
            record = fleet.open_records.get(instance.instance_id)
            public_units.append(None if record is None else deletion_penalty(record, now))
    if public_units:
        units = total(public_units)
        number = "an unknown number of" if units is None else f"about {units:,.0f}"
        texts.append(f"To delete the public ones now costs {number} compute units.")
    if any(subject.instance is not None and subject.instance.private for subject in subjects):
        texts.append("A private one loses all of its score.")
    return " ".join(texts)


def _worth(fleet: Fleet, subjects: Sequence[Subject]) -> str:
    """Return a sentence about what idle GPUs could earn in the first day, and later.

    ``{it|they}`` in it becomes what fits their number, as in the sentence of a kind.
    """
    uses = _uses_of(_gpus_of(subjects), fleet)
    first_day_units = total(use.first_day_units for use in uses)
    later_units_per_second = total(use.later_units_per_second for use in uses)
    if not uses or first_day_units is None or later_units_per_second is None:
        return "What {it|they} could earn is not known."
    at_least = "at least " if any(use.may_be_more for use in uses) else ""
    return (
        f"In the first day, {{it|they}} could earn {at_least}{first_day_units:,.0f} compute units, "
        f"and {DAY * later_units_per_second:,.0f} a day later."
    )


def _uses_of(gpus: Iterable[Gpu] | None, fleet: Fleet) -> list[ServerPlan]:
    """Return the best uses of idle GPUs, one for each model on a server.

    The list is empty if the GPUs, or the best use of one of them, are unknown.
    """
    use_by_place = {(use.server_id, use.model): use for use in fleet.plans}
    # No use has an empty id. So with a GPU that has no server, the list is empty, too.
    places = {(gpu.server_id or "", gpu.model or "") for gpu in gpus or ()}
    if not places <= use_by_place.keys():
        return []
    return [use_by_place[place] for place in places]


def _gpus_of(subjects: Sequence[Subject]) -> list[Gpu] | None:
    """Return the GPUs of subjects, None if some of them, or the model of one, are unknown.

    What GPUs could earn depends on their model.
    """
    gpus: list[Gpu] = []
    for subject in subjects:
        if subject.gpus is None or any(gpu.model is None for gpu in subject.gpus):
            return None
        gpus += subject.gpus
    return gpus


def _name(subject: Subject) -> str:
    """Return the name of what a subject is, an empty one for the miner."""
    if subject.text:
        return subject.text
    if subject.instance is not None:
        return _instance_name(subject.instance)
    if subject.are_gpus:
        return _name_of_gpus(subject.gpus or (), subject.server)
    if subject.server is None:
        return ""
    version = f" ({subject.server.version})" if subject.server.version else ""
    return f"{_server_name(subject.server)}{version}"


def _name_of_gpus(gpus: Iterable[Gpu], server: Server | None) -> str:
    """Return the numbers of GPUs by model, and their server: ``4 h200, 1 h100 on tee-1``."""
    parts = []
    for model, count in _models(gpus).items():
        parts.append(f"{count} {model or 'of an unknown model'}")
    text = ", ".join(parts)
    return text if server is None else f"{text} on {_server_name(server)}"


def _instance_name(instance: Instance) -> str:
    private = " (private)" if instance.private else ""
    return f"{instance.chute or instance.instance_id}{private}"


def _server_name(server: Server) -> str:
    return server.name or server.server_id


def _models(gpus: Iterable[Gpu]) -> Counter[str]:
    """Return the number of GPUs by model."""
    return Counter(gpu.model or "" for gpu in gpus)


def _instance_fields(instance: Instance, server: Server | None) -> dict[str, Any]:
    """Return what a finding says about an instance on a server, for ``status --json``."""
    return {
        "instance_id": instance.instance_id,
        "chute_id": instance.chute_id,
        "chute_name": instance.chute,
        "private": instance.private,
        "server_name": None if server is None else server.name,
        "created_at": instance.created_at,
    }


def verdict(
    findings: Sequence[Finding], fleets: Iterable[Fleet], costs: Costs, *, all_known: bool
) -> str:
    """Return the state of all miners in one line: ``3 things need action, 14.40 USD per hour
    idle``.

    The idle GPUs are those of ``fleets``. Without a price of any GPU, the line names no costs.
    ``all_known`` is whether everything is known that could need action.
    """
    count = sum(finding.needs_action for finding in findings)
    if not count and not all_known:
        return "Not everything is known. Nothing that is known needs action."
    if not count:
        return "Nothing needs action."
    text = filled("COUNT {thing needs|things need} action", count)
    return f"{text}{_cost_of_idle(fleets, costs)}."


def _cost_of_idle(fleets: Iterable[Fleet], costs: Costs) -> str:
    """Return what idle GPUs cost, and how many have an unknown cost, as the end of a sentence.

    Those of a miner are left out while it is unknown how many these are.
    """
    known_costs = []
    gpus_without_cost = 0
    for fleet in fleets:
        idle = [gpu for gpu in _all_gpus(fleet) or () if gpu.state == "idle"]
        for gpu in idle:
            usd = costs.of_gpu(fleet.server_name(gpu), gpu.model)
            if usd is None:
                gpus_without_cost += 1
            else:
                known_costs.append(usd)
    text = ""
    if known_costs:
        text += f", {math.fsum(known_costs):,.2f} USD per hour idle"
    if gpus_without_cost:
        text += filled(", COUNT {GPU|GPUs} idle", gpus_without_cost)
        # Without any price, every cost is unknown, which needs no words.
        text += " at an unknown cost" if costs else ""
    return text


def cost(gpus: Iterable[Gpu], fleet: Fleet, costs: Costs) -> float | None:
    """Return what GPUs of a fleet cost in US dollars per hour, None if the price of one of them is
    unknown, or if the miner gave no price at all.
    """
    if not costs:
        return None
    return total(costs.of_gpu(fleet.server_name(gpu), gpu.model) for gpu in gpus)


def filled(text: str, count: int, **words: str) -> str:
    """Return a text with each word in capitals replaced, and with what fits the count.

    ``COUNT {GPU is|GPUs are} idle`` becomes ``1 GPU is idle`` or ``2 GPUs are idle``.
    """
    for name, word in {"COUNT": str(count), **words}.items():
        text = text.replace(name, word)
    chosen_form = r"\1" if count == 1 else r"\2"
    return re.sub(r"\{(.*?)\|(.*?)\}", chosen_form, text)


def time_until(moment: float, now: float) -> str:
    """Return a time as ``in 39 minutes (19:56 UTC)``, with the date if it is half a day away or
    more. A time that is over is ``at any time, overdue since 19:56 UTC``.
    """
    form = "%H:%M" if abs(moment - now) < 12 * HOUR else "%Y-%m-%d %H:%M"
    clock = f"{datetime.fromtimestamp(moment, UTC):{form}} UTC"
    if moment <= now:
        return f"at any time, overdue since {clock}"
    # Less than a minute is shown as one minute.
    return f"in {human_duration(max(moment - now, 60))} ({clock})"
