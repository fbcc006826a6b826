"""What needs action at a miner, and what is worth knowing.

A finding is a row of the table :data:`KINDS`. A server, an instance or a GPU stands in one finding
that needs action at most: in the first one of the table.
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from chutes_exporter.duration import DAY, HOUR, human_duration
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chutes_exporter.fleet.failures import Failures
    from chutes_exporter.fleet.model import Fleet, Gpu, Instance, Server, Use
    from chutes_exporter.rules.maintenance import Measured
    from chutes_exporter.rules.money import Costs

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
        text: Its name, if it is none of these.
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
    return [_of_instance(fleet, one) for one in fleet.instances if one.is_in_vain]


def _failing_chutes(fleet: Fleet, _now: float) -> list[Subject]:
    """Return the chutes that failed again and again, the worst first."""
    failures = fleet.failures
    if failures is None:
        return []
    return [_of_chute(fleet, failures, chute_id) for chute_id in failures.failing]


def _of_chute(fleet: Fleet, failures: Failures, chute_id: str) -> Subject:
    """Return a chute that fails, with the server on which an instance of it starts now."""
    (reason, _), *others = failures.reasons[chute_id].most_common(2)
    part = "most" if others else "all"
    text = f"{failures.names[chute_id]} ({failures.known[chute_id]} times, {part} by {reason})"
    for instance in fleet.instances:
        if instance.chute_id == chute_id and instance.state == "starting":
            server = fleet.servers_by_id.get(instance.server_id or "")
            if server is not None:
                place = _server_name(server)
                return Subject(server, text=f"{text}, which starts on {place} now")
    return Subject(text=text)


def _purges(fleet: Fleet, now: float) -> list[Subject]:
    found = _with_deadline(fleet, "starting", "purge")
    return [one for one in found if one.when is not None and one.when - now < _PURGE_SOON]


def _disabled(fleet: Fleet, _now: float) -> list[Subject]:
    return _with_deadline(fleet, "disabled", "purge")


def _with_deadline(
    fleet: Fleet, state: Literal["starting", "disabled"], kind: Literal["purge"]
) -> list[Subject]:
    """Return the instances in a state that have a deadline, the soonest first."""
    found = [
        _of_instance(fleet, one, one.deadlines[kind])
        for one in fleet.instances
        if one.state == state and kind in one.deadlines
    ]
    return sorted(found, key=lambda one: one.when or 0.0)


def _unsecured(fleet: Fleet, now: float) -> list[Subject]:
    """Return the public instances in their first hour, that which ends it last first."""
    found = [
        _of_instance(fleet, one, one.deadlines["secured"])
        for one in fleet.instances
        if one.deadlines.get("secured", now) > now
    ]
    return sorted(found, key=lambda one: -(one.when or 0.0))


def _last_active(fleet: Fleet, _now: float) -> list[Subject]:
    return [_of_instance(fleet, one) for one in fleet.instances if one.is_last_active]


def _without_gpus(fleet: Fleet, _now: float) -> list[Subject]:
    """Return the active instances that hold no GPU.

    If no instance holds one, the answer contradicts another one.
    """
    if not any(one.gpus for one in fleet.instances):
        return []
    return [
        _of_instance(fleet, one)
        for one in fleet.instances
        if one.state == "active" and one.gpus == 0
    ]


def _of_instance(fleet: Fleet, instance: Instance, when: float | None = None) -> Subject:
    server = fleet.servers_by_id.get(instance.server_id or "")
    gpus = tuple(fleet.gpus_by_instance.get(instance.instance_id, ()))
    is_known = instance.gpus is not None and len(gpus) == instance.gpus
    return Subject(server, instance, gpus if is_known else None, when=when)


def _in_maintenance(fleet: Fleet, _now: float) -> list[Subject]:
    """Return the servers in maintenance on which nothing runs for certain."""
    return [
        _of_server(server)
        for server in fleet.servers
        if _is_down(server) and not server.cannot_come_back
    ]


def _maintenance_pending(fleet: Fleet, _now: float) -> list[Subject]:
    return [
        _of_server(server)
        for server in fleet.servers
        if _runs_in_slot(server) and not server.cannot_come_back
    ]


def _runs_in_slot(server: Server) -> bool:
    """Return whether something may still run on a server that is pending or in maintenance."""
    return server.maintenance in ("pending", "maintenance") and not _is_down(server)


def _is_down(server: Server) -> bool:
    """Return whether a server is in maintenance, and nothing runs there for certain."""
    if server.maintenance != "maintenance":
        return False
    return server.earning_instances == 0 and not server.instances


def _versions_refused(fleet: Fleet, _now: float) -> list[Subject]:
    # Chutes can be launched on the idle GPUs of these servers, so they are in another finding.
    return [
        Subject(server)
        for server in fleet.servers
        if server.boots is False and server.holds_slot is not True and not server.cannot_come_back
    ]


def _unmeasured(fleet: Fleet, now: float) -> list[Subject]:
    """Return the servers that cannot come back from an upgrade that may come soon."""
    window = fleet.window
    is_near = window is not None and (window.is_open or _begins_later(fleet, now))
    found = []
    for server in fleet.servers:
        is_asked = is_near or server.holds_slot or server.boots is False
        if not server.cannot_come_back or not is_asked:
            continue
        # What runs there earns until a reboot.
        found.append(_of_server(server) if _is_down(server) else Subject(server))
    return found


def _upgrades(fleet: Fleet, _now: float) -> list[Subject]:
    return _in_window(fleet, "measured")


def _undecided_upgrades(fleet: Fleet, _now: float) -> list[Subject]:
    return _in_window(fleet, "undecided")


def _in_window(fleet: Fleet, measured: Measured) -> list[Subject]:
    """Return the servers to upgrade in the open window, by whether they can come back.

    While that is not known, nobody is told to upgrade them.
    """
    window = fleet.window
    if window is None or not window.is_open:
        return []
    found = _older(fleet, window.ends_at)
    return [one for one in found if one.server is not None and one.server.measured == measured]


def _next_upgrades(fleet: Fleet, now: float) -> list[Subject]:
    window = fleet.window
    if window is None or window.is_open is not False or not _begins_later(fleet, now):
        return []
    found = _older(fleet, window.starts_at)
    return [one for one in found if one.server is not None and not one.server.cannot_come_back]


def _older_servers(fleet: Fleet, now: float) -> list[Subject]:
    window = fleet.window
    if window is None or window.is_open is not False or _begins_later(fleet, now):
        return []
    return _older(fleet, None)


def _begins_later(fleet: Fleet, now: float) -> bool:
    starts_at = None if fleet.window is None else fleet.window.starts_at
    return starts_at is not None and starts_at > now


def _older(fleet: Fleet, when: float | None) -> list[Subject]:
    """Return the servers below the target that neither hold a slot nor have a refused version."""
    return [
        Subject(server, when=when)
        for server in fleet.servers
        if server.needs_upgrade and server.holds_slot is not True and server.boots is not False
    ]


def _uncertain_versions(fleet: Fleet, _now: float) -> list[Subject]:
    return [Subject(server) for server in fleet.servers if server.may_be_refused]


def _without_tee(fleet: Fleet, _now: float) -> list[Subject]:
    return [
        _of_server(server)
        for server in fleet.servers
        if server.tee is False and server.runs_chutes is False and server.gpus
    ]


def _of_server(server: Server) -> Subject:
    """Return a server with its GPUs that earn nothing, if the states of all are known."""
    if not server.is_whole or any(gpu.state is None for gpu in server.gpus):
        return Subject(server, gpus=None)
    return Subject(
        server, gpus=tuple(gpu for gpu in server.gpus if gpu.state in ("idle", "unverified"))
    )


def _unverified(fleet: Fleet, _now: float) -> list[Subject]:
    return _gpus_on_servers(
        fleet, "unverified", lambda server: server is None or server.runs_chutes is not False
    )


def _idle(fleet: Fleet, _now: float) -> list[Subject]:
    """Return the idle GPUs that could earn, or of which that is not known."""

    def could_earn(server: Server | None) -> bool:
        if server is None:
            return True
        return server.holds_slot is False and fleet.idle_can_earn(server) is not False

    return _idle_where(could_earn, fleet)


def _idle_without_offer(fleet: Fleet, _now: float) -> list[Subject]:
    def has_no_offer(server: Server | None) -> bool:
        if server is None or server.runs_chutes is False:
            return False
        return server.holds_slot is False and fleet.idle_can_earn(server) is False

    return _idle_where(has_no_offer, fleet)


def _idle_where(wanted: Callable[[Server | None], bool], fleet: Fleet) -> list[Subject]:
    """Return idle GPUs. The service refuses all launches of a blacklisted miner."""
    if fleet.blacklisted:
        return []
    return _gpus_on_servers(fleet, "idle", wanted)


def _gpus_on_servers(
    fleet: Fleet, state: Literal["idle", "unverified"], wanted: Callable[[Server | None], bool]
) -> list[Subject]:
    """Return the GPUs in a state, by model and server, those without a server last."""
    found: dict[tuple[str, str | None], list[Gpu]] = {}
    for gpu in fleet.gpus:
        if gpu.state == state and gpu.model is not None:
            found.setdefault((gpu.model, gpu.server_id), []).append(gpu)
    subjects = []
    for (_, server_id), gpus in sorted(found.items(), key=lambda item: str(item[0])):
        server = fleet.servers_by_id.get(server_id or "")
        if wanted(server):
            subjects.append(Subject(server, gpus=tuple(gpus), are_gpus=True, count=len(gpus)))
    return subjects


_loss, _action, _note = (partial(Kind, severity) for severity in ("loss", "action", "note"))

ABOUT_MAINTENANCE = frozenset(
    {
        "maintenance",
        "maintenance_pending",
        "next_upgrades",
        "older_servers",
        "uncertain_versions",
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
        "Stop {it|them} and launch another chute: chutes-exporter advise",
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
        "COUNT TEE {server is|servers are} in maintenance. No instance is left on {it|them}.",
        "Boot {it|them} with the target version: chutes-exporter status --maintenance",
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
        "See when a slot is free, and request the maintenance in this order: chutes-exporter "
        "status --maintenance",
    ),
    "undecided_upgrades": _action(
        _undecided_upgrades,
        "COUNT TEE {server needs|servers need} the upgrade of the maintenance window, which "
        "ends WHEN. Whether {it|they} can come back is not known: the service lists version TARGET "
        "for no host, or the API has no GPUs of {it|them}.",
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
    "idle_gpus": _loss(
        _idle,
        "COUNT {GPU is|GPUs are} idle. WORTH",
        "Deploy chutes on {it|them}: chutes-exporter advise --plan",
    ),
    "unsecured_instances": _note(
        _unsecured,
        "Do not stop {this instance|these COUNT instances} before CLOCK: {it|they} would lose "
        "{its|their} score.",
    ),
    "last_active_instances": _note(
        _last_active,
        "COUNT {instance is the last active one of its chute|instances are the last active ones "
        "of their chutes} on the platform. Deleting {it|one} costs up to nine tenths of its score, "
        "or up to all of it if it is private.",
    ),
    "instances_without_gpus": _note(
        _without_gpus,
        "COUNT active {instance holds|instances hold} no GPU, because it was deleted. The service "
        "may delete {the instance|the instances}, too.",
    ),
    "disabled_instances": _note(
        _disabled,
        "COUNT {instance is|instances are} disabled. The service deletes {it|the first} WHEN. A "
        "private one then loses its score.",
    ),
    "idle_gpus_without_offer": _note(
        _idle_without_offer,
        "COUNT {GPU is|GPUs are} idle, and nothing can be launched on {it|them} now.",
    ),
    "uncertain_versions": _note(
        _uncertain_versions,
        "The service may refuse the version of COUNT TEE {server|servers} at the next boot. Only "
        "the highest listed version boots for certain: no answer shows the least one, nor who may "
        "boot a release candidate.",
    ),
    "next_upgrades": _note(
        _next_upgrades,
        "COUNT TEE {server is|servers are} older than the target of the next maintenance "
        "window, which begins WHEN.",
    ),
    "older_servers": _note(
        _older_servers,
        "COUNT TEE {server is|servers are} older than the target of the last maintenance window. "
        "No window is open now.",
    ),
}
"""All findings, the most urgent first."""


def find(fleet: Fleet, now: float, costs: Costs) -> list[Finding]:
    """Return what needs action at a miner, the most expensive first, and then the notes.

    What is unknown gives no finding.
    """
    found: list[Finding] = []
    seen: set[str] = set()
    for name, kind in KINDS.items():
        subjects = kind.test(fleet, now)
        if kind.severity != "note":
            # What is in a finding that is more urgent is in no other one.
            subjects = [one for one in subjects if not _is_seen(one, seen)]
            if name not in ("not_registered", "blacklisted"):
                for one in subjects:
                    seen.update(_ids(one))
        if subjects:
            found.append(_finding(name, fleet, subjects, now, costs))
    return sorted(found, key=_urgency)


def _urgency(finding: Finding) -> tuple[bool, float, int]:
    """Return what sorts findings: actions before notes, the most expensive first."""
    cost_usd = finding.cost_usd_per_hour or 0.0
    return not finding.needs_action, -cost_usd, -sum(finding.gpus.values())


def _is_seen(subject: Subject, seen: set[str]) -> bool:
    ids = _ids(subject)
    return bool(ids) and seen.issuperset(ids)


def _ids(subject: Subject) -> list[str]:
    """Return the ids of what a subject is about: its instance, or else its GPUs."""
    if subject.instance is not None:
        return [subject.instance.instance_id]
    return [gpu.gpu_id for gpu in subject.gpus or ()]


def _finding(
    name: str, fleet: Fleet, subjects: Sequence[Subject], now: float, costs: Costs
) -> Finding:
    """Return a finding about some subjects. A time in its sentence is that of the first."""
    kind = KINDS[name]
    count = sum(one.count for one in subjects)
    servers = _servers_of(subjects)
    words = _words(fleet, subjects, servers, now)
    advice, _, command = kind.advice.partition(": ")
    gpus = _gpus_of(subjects) if kind.severity == "loss" else []
    return Finding(
        kind=name,
        hotkey=fleet.hotkey,
        count=count,
        problem=filled(kind.sentence, count, **words),
        things=list(filter(None, map(_name, subjects))),
        servers=[{"server_id": one.server_id, "name": one.name} for one in servers],
        instances=[_instance(one, one.instance) for one in subjects if one.instance is not None],
        needs_action=kind.severity != "note",
        advice=filled(advice, count, **words),
        command=filled(command, count, **words),
        when=subjects[0].when if re.search("WHEN|CLOCK", kind.sentence) else None,
        gpus=dict(_models(gpus or ())),
        cost_usd_per_hour=None if gpus is None else cost(gpus, fleet, costs),
    )


def _servers_of(subjects: Iterable[Subject]) -> list[Server]:
    """Return the servers of subjects, each once."""
    servers = {one.server.server_id: one.server for one in subjects if one.server is not None}
    return list(servers.values())


def _words(
    fleet: Fleet, subjects: Sequence[Subject], servers: Iterable[Server], now: float
) -> dict[str, str]:
    """Return what stands for the names in the texts of a kind."""
    server, when = subjects[0].server, subjects[0].when
    window = fleet.window
    earning = total(server.earning_instances for server in servers)
    return {
        "SERVER": shlex.quote((server and server.name) or "SERVER"),
        "TARGET": (window and window.target) or "of the window",
        "EARNING": "not known" if earning is None else f"{earning:g}",
        "WHEN": "at an unknown time" if when is None else time_until(when, now),
        "CLOCK": f"{datetime.fromtimestamp(when or 0, UTC):%H:%M} UTC",
        "WORTH": _worth(fleet, subjects),
    }


def _worth(fleet: Fleet, subjects: Sequence[Subject]) -> str:
    """Return a sentence about what idle GPUs could earn in the first day, and later."""
    uses = _uses_of(_gpus_of(subjects), fleet)
    first = total(use.first_day_units for use in uses)
    later = total(use.later_units_per_second for use in uses)
    if first is None or later is None or not uses:
        return "What {it|they} could earn is not known."
    least = "at least " if any(use.is_least for use in uses) else ""
    text = f"In the first day, {{it|they}} could earn {least}{first:,.0f} compute units"
    return f"{text}, and {DAY * later:,.0f} a day later."


def _uses_of(gpus: Iterable[Gpu] | None, fleet: Fleet) -> list[Use]:
    """Return the best uses of idle GPUs, none if one of them is not known."""
    uses = {(use.server_id, use.model): use for use in fleet.uses}
    places = {(gpu.server_id or "", gpu.model or "") for gpu in gpus or ()}
    if not places <= uses.keys():
        return []
    return [uses[place] for place in places]


def _gpus_of(subjects: Sequence[Subject]) -> list[Gpu] | None:
    """Return the GPUs of subjects, None if some, or the model of one, are not known."""
    found: list[Gpu] = []
    for subject in subjects:
        if subject.gpus is None:
            return None
        found += subject.gpus
    return None if any(gpu.model is None for gpu in found) else found


def _name(subject: Subject) -> str:
    """Return the name of what a subject is, an empty one for the miner."""
    if subject.text:
        return subject.text
    if subject.instance is not None:
        return _instance_name(subject.instance)
    server = subject.server
    if subject.are_gpus:
        gpus = _models_text(subject.gpus or ())
        return gpus if server is None else f"{gpus} on {_server_name(server)}"
    if server is None:
        return ""
    version = f" ({server.version})" if server.version else ""
    return f"{_server_name(server)}{version}"


def _instance_name(instance: Instance) -> str:
    private = " (private)" if instance.private else ""
    return f"{instance.chute or instance.instance_id}{private}"


def _server_name(server: Server) -> str:
    return server.name or server.server_id


def _models(gpus: Iterable[Gpu]) -> Counter[str]:
    """Return the number of GPUs by model."""
    return Counter(gpu.model or "" for gpu in gpus)


def _models_text(gpus: Iterable[Gpu]) -> str:
    counts = _models(gpus).items()
    return ", ".join(f"{count} {model or 'of an unknown model'}" for model, count in counts)


def _instance(subject: Subject, instance: Instance) -> dict[str, Any]:
    return {
        "instance_id": instance.instance_id,
        "chute_id": instance.chute_id,
        "chute_name": instance.chute,
        "private": instance.private,
        "server_name": subject.server.name if subject.server is not None else None,
        "created_at": instance.created_at,
    }


def verdict(findings: Sequence[Finding], *, has_prices: bool, all_known: bool) -> str:
    """Return the state of all miners in one line: ``3 things need action, 14.40 USD per hour
    idle``.

    ``all_known`` is whether everything is known that could need action.
    """
    count = sum(finding.needs_action for finding in findings)
    if not count and not all_known:
        return "Not everything is known. Nothing that is known needs action."
    if not count:
        return "Nothing needs action."
    text = filled("COUNT {thing needs|things need} action", count)
    idle = [finding for finding in findings if finding.kind == "idle_gpus"]
    return f"{text}{_cost_of_idle(idle, has_prices=has_prices)}."


def _cost_of_idle(idle: Iterable[Finding], *, has_prices: bool) -> str:
    """Return what idle GPUs cost, and how many have an unknown cost, as the end of a sentence."""
    costs = []
    others = 0
    for finding in idle:
        if finding.cost_usd_per_hour is None:
            others += sum(finding.gpus.values())
        else:
            costs.append(finding.cost_usd_per_hour)
    text = ""
    if costs:
        text += f", {math.fsum(costs):,.2f} USD per hour idle"
    if others:
        text += filled(", COUNT {GPU|GPUs} idle", others)
        text += " at an unknown cost" if has_prices else ""
    return text


def cost(gpus: Iterable[Gpu], fleet: Fleet, costs: Costs) -> float | None:
    """Return what GPUs of a fleet cost in US dollars per hour, None if the price of one of them is
    unknown.
    """
    if not costs:
        return None
    return total(costs.of_gpu(fleet.server_name(gpu), gpu.model) for gpu in gpus)


def filled(text: str, count: int, **words: str) -> str:
    """Return a text with its words in place of their names, and with the verbs that fit the
    number.
    """
    for name, word in {"COUNT": str(count), **words}.items():
        text = text.replace(name, word)
    return re.sub(r"\{(.*?)\|(.*?)\}", r"\1" if count == 1 else r"\2", text)


def time_until(moment: float, now: float) -> str:
    """Return a time as ``in 39 minutes (19:56 UTC)``, with the date if it is more than half a day
    away. A time that is over is ``now, overdue since 19:56 UTC``.
    """
    form = "%H:%M" if abs(moment - now) < 12 * HOUR else "%Y-%m-%d %H:%M"
    clock = f"{datetime.fromtimestamp(moment, UTC):{form}} UTC"
    if moment <= now:
        return f"at any time, overdue since {clock}"
    return f"in {human_duration(max(moment - now, 60))} ({clock})"
