"""What needs action at a miner, and what is worth knowing.

A finding is a row of the table :data:`KINDS`. A server, an instance or a GPU stands in one finding
that needs action at most: in the first one of the table.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from chutes_exporter.duration import DAY, HOUR, MINUTE, human_duration
from chutes_exporter.fleet.ends import sum_of_losses
from chutes_exporter.fleet.upgrades import is_down, plan_upgrades
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chutes_exporter.fleet.failures import Failures
    from chutes_exporter.fleet.model import (
        DeadlineKind,
        Fleet,
        Gpu,
        GpuState,
        Instance,
        Server,
        ServerPlan,
    )
    from chutes_exporter.fleet.outages import Outage
    from chutes_exporter.fleet.upgrades import Step, UpgradePlan
    from chutes_exporter.rules.instances import InstanceState
    from chutes_exporter.rules.money import Costs

_PURGE_SOON = 0.75 * HOUR
"""Seconds before its purge from which an instance needs action, as for the alert
ChutesInstancePurgeNear.
"""
_MAINTENANCE = "chutes-exporter query maintenance"
_TDX = (
    "While a TDX host refuses to start the image, its memory is not free yet, for more than 2 "
    "hours: wait, do not force the start, and do not reboot the host."
)


@dataclass(frozen=True)
class Subject:
    """What a finding is about: the miner, a server, an instance, or GPUs.

    Attributes:
        name: Empty for the miner.
        instance: The row of an instance.
        gpus: The GPUs that earn nothing because of it. None if they are not all known.
        count: How many things it is.
        when: Unix time of what happens next.
    """

    name: str = ""
    server: Server | None = None
    instance: dict[str, Any] | None = None
    gpus: tuple[Gpu, ...] | None = ()
    count: int = 1
    when: float | None = None


@dataclass(frozen=True)
class Finding:
    """Something that needs action, or a note.

    Attributes:
        kind: A word for scripts.
        count: How many things it is about.
        things: Their names.
        servers: The ids and names of the servers that it is about.
        instances: The instances that it is about, as rows of a table.
        advice: What to do, before the command. A note has none.
        command: A command that helps.
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
class Moment:
    """A fleet at a Unix time, and what a finding is about, the most urgent first."""

    fleet: Fleet
    now: float
    subjects: Sequence[Subject] = ()

    @cached_property
    def plan(self) -> UpgradePlan:
        """The maintenance of the servers."""
        return plan_upgrades(self.fleet, self.now)

    @property
    def count(self) -> int:
        """How many things the finding is about."""
        return sum(subject.count for subject in self.subjects)

    @property
    def when(self) -> str:
        """When it happens to the first subject."""
        when = self.subjects[0].when
        return "at an unknown time" if when is None else time_until(when, self.now)

    @property
    def gpus(self) -> list[Gpu] | None:
        """The GPUs of the subjects, None if some of them, or the model of one, are unknown."""
        gpus: list[Gpu] = []
        for subject in self.subjects:
            if subject.gpus is None or any(gpu.model is None for gpu in subject.gpus):
                return None
            gpus += subject.gpus
        return gpus


@dataclass(frozen=True)
class Kind:
    """A row of the table of findings.

    Attributes:
        severity: A loss means that GPUs earn nothing. A note needs no action.
        find: Returns what the finding is about, the most urgent first.
        problem: Says what is wrong.
        advice: What to do. A note has none.
        command: A command that helps. SERVER in it is the first server.
    """

    severity: Literal["loss", "action", "note"]
    find: Callable[[Moment], list[Subject]]
    problem: Callable[[Moment], str]
    advice: str = ""
    command: str = ""


# What the findings are about


def _miner(moment: Moment) -> Subject:
    """Return the miner with all its GPUs."""
    fleet = moment.fleet
    return Subject(gpus=fleet.gpus if fleet.known.get("gpus") else None)


def _stuck_jobs(moment: Moment) -> list[Subject]:
    jobs = moment.fleet.stuck_jobs
    return [Subject(count=jobs)] if jobs else []


def _starts_in_vain(moment: Moment) -> list[Subject]:
    instances = moment.fleet.instances
    return [_of_instance(moment, instance) for instance in instances if instance.is_in_vain]


def _failing_chutes(moment: Moment) -> list[Subject]:
    """Return the chutes that failed again and again, the worst first.

    A fleet that was read without the audit reports has no failures to look at.
    """
    failures = moment.fleet.failures
    if failures is None:
        return []
    return [_of_chute(moment.fleet, failures, chute_id) for chute_id in failures.failing]


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
            return Subject(f"{text}, which starts on {_server_name(server)} now", server)
    return Subject(text)


def _purges(moment: Moment) -> list[Subject]:
    starting = _with_deadline(moment, "starting", "purge")
    return [one for one in starting if _when(one) - moment.now < _PURGE_SOON]


def _unsecured(moment: Moment) -> list[Subject]:
    """Return the public instances in their first hour, the one whose hour ends last first."""
    instances = _with_deadline(moment, None, "secured")
    return [one for one in reversed(instances) if _when(one) > moment.now]


def _with_deadline(
    moment: Moment, state: InstanceState | None, deadline: DeadlineKind
) -> list[Subject]:
    """Return the instances in a state, or in any, that have a deadline, the soonest first."""
    subjects = []
    for instance in moment.fleet.instances:
        if state in (None, instance.state) and deadline in instance.deadlines:
            subject = _of_instance(moment, instance)
            subjects.append(replace(subject, when=instance.deadlines[deadline]))
    return sorted(subjects, key=_when)


def _when(subject: Subject) -> float:
    return subject.when or 0.0


def _dead_servers(moment: Moment) -> list[Subject]:
    """Return the servers that probably died, with the GPUs that are idle since.

    If instances can have ended on one of several servers, it is unknown which GPUs these are.
    """
    subjects = []
    for outage in moment.fleet.outages:
        names = " or ".join(_server_name(server) for server in outage.servers)
        name = f"{names}: {_outage_text(outage)}"
        if len(outage.servers) > 1:
            subjects.append(Subject(name, gpus=None))
        else:
            [server] = outage.servers
            subjects.append(replace(_of_server(server), name=name))
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


def _of_instance(moment: Moment, instance: Instance) -> Subject:
    """Return an instance with its server, and with its GPUs if they are all known."""
    server = moment.fleet.servers_by_id.get(instance.server_id or "")
    gpus = tuple(gpu for gpu in moment.fleet.gpus if gpu.instance_id == instance.instance_id)
    created_at = instance.created_at
    row = {
        "chute": instance.chute,
        "private": instance.private,
        "chute_id": instance.chute_id,
        "server": None if server is None else server.name,
        "age_minutes": None if created_at is None else round((moment.now - created_at) / MINUTE),
        "instance_id": instance.instance_id,
    }
    name = instance.chute or instance.instance_id
    # instance.gpus is their number, or None if it is unknown.
    return Subject(name, server, row, gpus=gpus if len(gpus) == instance.gpus else None)


def _with_step(step: Step, *, in_slot: bool | None = None) -> Callable[[Moment], list[Subject]]:
    """Return a function that finds the servers with a step, in the order of the plan.

    ``in_slot`` selects those that hold an upgrade slot, or the others.
    """

    def find_servers(moment: Moment) -> list[Subject]:
        upgrades = [upgrade for upgrade in moment.plan.servers if upgrade.step == step]
        if in_slot is not None:
            upgrades = [one for one in upgrades if (one.server.holds_slot is True) == in_slot]
        return [_of_upgrade(upgrade.server, step) for upgrade in upgrades]

    return find_servers


def _of_upgrade(server: Server, step: Step) -> Subject:
    subject = _of_server(server)
    if is_down(server):
        return subject
    # What runs there earns until a reboot, and idle GPUs that can be used are in another finding.
    is_unknown = step == "cannot come back" and server.earning_instances is None
    return replace(subject, gpus=None if is_unknown else ())


def _undecided_maintenance(moment: Moment) -> list[Subject]:
    in_slot = _with_step("not known", in_slot=True)(moment)
    return [subject for subject in in_slot if subject.server and is_down(subject.server)]


def _in_open_window(step: Step) -> Callable[[Moment], list[Subject]]:
    """Return a function that finds the servers to upgrade with a step in the open window."""

    def find_servers(moment: Moment) -> list[Subject]:
        window = moment.plan.window
        if window is None or moment.plan.phase != "open":
            return []
        return [
            replace(subject, when=window.ends_at)
            for subject in _with_step(step, in_slot=False)(moment)
            if subject.server is not None and subject.server.needs_upgrade
        ]

    return find_servers


def _next_upgrades(moment: Moment) -> list[Subject]:
    window = moment.plan.window
    if window is None or moment.plan.phase != "announced":
        return []
    return [replace(one, when=window.starts_at) for one in _with_step("wait")(moment)]


def _without_tee(moment: Moment) -> list[Subject]:
    """Return the servers with GPUs but without TEE for which there is no chute.

    Something may still run there, but nothing new can be launched.
    """
    return [
        _of_server(server)
        for server in moment.fleet.servers
        if server.tee is False and server.runs_chutes is False and server.gpus
    ]


def _of_server(server: Server) -> Subject:
    """Return a server with those of its GPUs that are in no instance.

    They are None while a GPU may be missing, or has an unknown state.
    """
    name = _server_name(server)
    if server.version:
        name = f"{name} ({server.version})"
    if not server.is_complete or any(gpu.state is None for gpu in server.gpus):
        return Subject(name, server, gpus=None)
    unused = tuple(gpu for gpu in server.gpus if gpu.state in ("idle", "unverified"))
    return Subject(name, server, gpus=unused)


def _unverified(moment: Moment) -> list[Subject]:
    """Return the unverified GPUs that chutes may run on once they are verified.

    Those of a server are left out only if it is certain that no chute runs there.
    """
    return [
        subject
        for subject in _gpus_by_server(moment.fleet, "unverified")
        if subject.server is None or subject.server.runs_chutes is not False
    ]


def _idle(moment: Moment) -> list[Subject]:
    """Return the idle GPUs that could earn, or of which that is not known.

    The service refuses all launches of a blacklisted miner, and another finding says so.
    """
    fleet = moment.fleet
    if fleet.blacklisted:
        return []
    return [
        subject
        for subject in _gpus_by_server(fleet, "idle")
        if subject.server is None or _may_earn(fleet, subject.server)
    ]


def _may_earn(fleet: Fleet, server: Server) -> bool:
    pay = fleet.idle_pay(server)
    return server.holds_slot is False and (pay is None or pay.first_day > 0)


def _gpus_by_server(fleet: Fleet, state: GpuState) -> list[Subject]:
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
        model, server_id = place
        server = fleet.servers_by_id.get(server_id or "")
        name = f"{len(gpus)} {model}"
        if server is not None:
            name += f" on {_server_name(server)}"
        subjects.append(Subject(name, server, gpus=gpus, count=len(gpus)))
    return subjects


def _worth(moment: Moment) -> str:
    """Return a sentence about what idle GPUs could earn in the first day, and later."""
    plans = _plans_of(moment.gpus, moment.fleet)
    first_day_units = total(plan.first_day_units for plan in plans)
    later_units_per_second = total(plan.later_units_per_second for plan in plans)
    if not plans or first_day_units is None or later_units_per_second is None:
        return "What they could earn is not known."
    at_least = "at least " if any(plan.may_be_more for plan in plans) else ""
    return (
        f"In the first day, they could earn {at_least}{first_day_units:,.0f} compute units, and "
        f"{DAY * later_units_per_second:,.0f} a day later."
    )


def _plans_of(gpus: Iterable[Gpu] | None, fleet: Fleet) -> list[ServerPlan]:
    """Return the best uses of idle GPUs, one for each model on a server.

    The list is empty if the GPUs, or the best use of one of them, are unknown.
    """
    plan_by_place = {(plan.server_id, plan.model): plan for plan in fleet.plans}
    # No plan has an empty id. So with a GPU that has no server, the list is empty, too.
    places = {(gpu.server_id or "", gpu.model or "") for gpu in gpus or ()}
    if not places <= plan_by_place.keys():
        return []
    return [plan_by_place[place] for place in places]


def _server_name(server: Server) -> str:
    return server.name or server.server_id


KINDS = {
    "not_registered": Kind(
        "loss",
        lambda moment: [_miner(moment)] if moment.fleet.registered is False else [],
        lambda _: "The hotkey has no seat on the subnet. It earns nothing.",
        "Register it",
        "btcli subnet register --netuid 64",
    ),
    "blacklisted": Kind(
        "loss",
        lambda moment: [_miner(moment)] if moment.fleet.blacklisted else [],
        lambda _: (
            "The miner is blacklisted. It gets no score, and its launches are refused, so "
            "idle GPUs cannot be used."
        ),
        "First ask the operators of Chutes to end it. Reason",
        "chutes-exporter query metagraph",
    ),
    "stuck_jobs": Kind(
        "action",
        _stuck_jobs,
        lambda moment: f"Jobs that are stuck with the miner: {moment.count}.",
        "List and release them",
        "chutes-exporter release-job",
    ),
    "starts_in_vain": Kind(
        "loss",
        _starts_in_vain,
        lambda moment: (
            f"Instances that start in vain: {moment.count}. Their chutes have enough "
            "active instances or no target any more. They cannot become active unless that changes."
        ),
        "Stop them, because they cannot earn",
        "chutes-exporter query instances",
    ),
    "purges": Kind(
        "loss",
        _purges,
        lambda moment: (
            f"Instances that have not started: {moment.count}. The service deletes the "
            f"first {moment.when}."
        ),
        "Look at their pods",
        "kubectl --context SERVER -n chutes get pods",
    ),
    "failing_chutes": Kind(
        "action",
        _failing_chutes,
        lambda moment: (
            f"Chutes that fail again and again: {moment.count}, each 3 times or more in "
            "the 6 hours before the newest audit report."
        ),
        "Find out why before they are launched again",
        "chutes-exporter incidents --hours 6",
    ),
    "maintenance": Kind(
        "loss",
        _with_step("boot"),
        lambda moment: (
            f"TEE servers in maintenance, on which no instance is left: {moment.count}. {_TDX}"
        ),
        "Boot them with the target version",
        _MAINTENANCE,
    ),
    "undecided_maintenance": Kind(
        "loss",
        _undecided_maintenance,
        lambda moment: (
            "TEE servers in maintenance, of which it is not known whether they can "
            f"come back: {moment.count}. {_TDX}"
        ),
        "Ask the operators of Chutes before you boot them with the target version",
        _MAINTENANCE,
    ),
    "unmeasured_servers": Kind(
        "loss",
        _with_step("cannot come back"),
        lambda moment: (
            f"TEE servers that cannot come back from the upgrade: {moment.count}. The "
            "service lists the target version for no host with their GPUs."
        ),
        "Do not reboot them, do not request their maintenance, and ask the operators of Chutes",
        _MAINTENANCE,
    ),
    "maintenance_pending": Kind(
        "action",
        _with_step("do not reboot until", in_slot=True),
        lambda moment: (
            f"TEE servers that wait for maintenance: {moment.count}. The last instances "
            "of their chutes may still serve, for up to 3 hours."
        ),
        "Do not reboot them before their status is maintenance and nothing runs there",
        _MAINTENANCE,
    ),
    "versions_refused": Kind(
        "action",
        _with_step("do not reboot until", in_slot=False),
        lambda moment: f"TEE servers with a version that the service refuses: {moment.count}.",
        "Do not reboot them before maintenance has ended their instances. Free slots",
        _MAINTENANCE,
    ),
    "upgrades": Kind(
        "action",
        _in_open_window("request now"),
        lambda moment: (
            "TEE servers that need the upgrade of the maintenance window, and for which "
            f"a slot is free: {moment.count}. The window ends {moment.when}."
        ),
        "Reboot none of them yet. Request their maintenance in this order",
        "chutes-miner tee start-maintenance --name SERVER",
    ),
    "waiting_upgrades": Kind(
        "action",
        _in_open_window("wait"),
        lambda moment: (
            "TEE servers that need the upgrade of the maintenance window, and for which "
            f"no slot is free yet: {moment.count}. The window ends {moment.when}."
        ),
        "When a slot is free, request their maintenance in this order",
        _MAINTENANCE,
    ),
    "undecided_upgrades": Kind(
        "action",
        _in_open_window("not known"),
        lambda moment: (
            "TEE servers that need the upgrade of the maintenance window, and of which "
            "it is not known whether they can come back, or whether a slot is free: "
            f"{moment.count}. The window ends {moment.when}."
        ),
        "Do not request their maintenance before that is known, unless the operators of Chutes "
        "say so",
        _MAINTENANCE,
    ),
    "servers_without_tee": Kind(
        "loss",
        _without_tee,
        lambda moment: (
            f"Servers without TEE, on whose GPUs no chute runs without it: {moment.count}."
        ),
        "Set them up with TEE, or remove them, once nothing earns there",
        "chutes-exporter query servers",
    ),
    "unverified_gpus": Kind(
        "loss",
        _unverified,
        lambda moment: f"GPUs that are not verified and in no instance: {moment.count}.",
        "See the errors",
        "chutes-exporter query nodes",
    ),
    "dead_servers": Kind(
        "loss",
        _dead_servers,
        lambda moment: (
            f"Servers that have probably died: {moment.count}. Several instances ended "
            "within minutes, and nothing earns there since."
        ),
        "First see whether they answer",
        "chutes-miner tee node-health --name SERVER",
    ),
    "idle_gpus": Kind(
        "loss",
        _idle,
        lambda moment: f"Idle GPUs: {moment.count}. {_worth(moment)}",
        "Deploy chutes on them",
        "chutes-exporter advise",
    ),
    "unsecured_instances": Kind(
        "note",
        _unsecured,
        lambda moment: (
            f"Instances in their first hour: {moment.count}. If you stop one before its "
            f"hour is over, it loses its score. The last hour is over {moment.when}."
        ),
    ),
    "disabled_instances": Kind(
        "note",
        lambda moment: _with_deadline(moment, "disabled", "purge"),
        lambda moment: (
            f"Disabled instances: {moment.count}. The service deletes the first "
            f"{moment.when}. A private one then loses its score."
        ),
    ),
    "next_upgrades": Kind(
        "note",
        _next_upgrades,
        lambda moment: (
            "TEE servers that are older than the target of the next maintenance window: "
            f"{moment.count}. The window begins {moment.when}."
        ),
    ),
}
"""All findings, the most urgent first."""


def find(fleet: Fleet, now: float, costs: Costs) -> list[Finding]:
    """Return what needs action at a miner, the most expensive first, and then the notes.

    What is unknown gives no finding.
    """
    moment = Moment(fleet, now)
    findings: list[Finding] = []
    reported_ids: set[str] = set()
    for name, kind in KINDS.items():
        subjects = kind.find(moment)
        if kind.severity != "note":
            # What is in a finding that is more urgent is in no other one. Notes may repeat it.
            subjects = [subject for subject in subjects if not _is_reported(subject, reported_ids)]
            # These two kinds are about all GPUs, and must not hide what else is wrong with a GPU.
            if name not in ("not_registered", "blacklisted"):
                for subject in subjects:
                    reported_ids.update(_ids(subject))
        if subjects:
            findings.append(_finding(name, Moment(fleet, now, subjects), costs))
    return sorted(findings, key=_urgency)


def _urgency(finding: Finding) -> tuple[bool, float, int]:
    """Return what sorts findings: actions before notes, the most expensive first.

    Among those with the same or an unknown cost, that of the most GPUs is the first. Otherwise they
    stay in the order of KINDS.
    """
    cost_usd = finding.cost_usd_per_hour or 0.0
    return not finding.needs_action, -cost_usd, -sum(finding.gpus.values())


def _is_reported(subject: Subject, reported_ids: set[str]) -> bool:
    ids = _ids(subject)
    return bool(ids) and reported_ids.issuperset(ids)


def _ids(subject: Subject) -> list[str]:
    """Return the ids of what a subject is about: its instance, or else its GPUs."""
    if subject.instance is not None:
        return [subject.instance["instance_id"]]
    return [gpu.gpu_id for gpu in subject.gpus or ()]


def _finding(name: str, moment: Moment, costs: Costs) -> Finding:
    """Return the finding ``name`` of KINDS about some subjects. Its time is that of the first."""
    kind, fleet, subjects = KINDS[name], moment.fleet, moment.subjects
    servers = {one.server.server_id: one.server.name for one in subjects if one.server}
    first = subjects[0].server
    first_name = shlex.quote(first.name) if first and first.name else "SERVER"
    # Only in a loss, the GPUs of subjects earn nothing. None means that not all are known.
    lost_gpus = moment.gpus if kind.severity == "loss" else []
    return Finding(
        kind=name,
        hotkey=fleet.hotkey,
        count=moment.count,
        problem=kind.problem(moment),
        things=[subject.name for subject in subjects if subject.name],
        servers=[{"server_id": server_id, "name": name} for server_id, name in servers.items()],
        instances=[subject.instance for subject in subjects if subject.instance],
        needs_action=kind.severity != "note",
        advice=kind.advice,
        command=kind.command.replace("SERVER", first_name),
        when=subjects[0].when,
        gpus=dict(Counter(gpu.model or "" for gpu in lost_gpus or ())),
        cost_usd_per_hour=None if lost_gpus is None else cost(lost_gpus, fleet, costs),
    )


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
    text = "1 thing needs action" if count == 1 else f"{count} things need action"
    return f"{text}{_cost_of_idle(fleets, costs)}."


def _cost_of_idle(fleets: Iterable[Fleet], costs: Costs) -> str:
    """Return what idle GPUs cost, and how many have an unknown cost, as the end of a sentence.

    Those of a miner are left out while it is unknown how many these are.
    """
    known_costs = []
    gpus_without_cost = 0
    for fleet in fleets:
        if not fleet.known.get("gpus"):
            continue
        for gpu in fleet.gpus:
            usd = fleet.price_of(gpu, costs)
            if gpu.state == "idle" and usd is not None:
                known_costs.append(usd)
            elif gpu.state == "idle":
                gpus_without_cost += 1
    text = ""
    if known_costs:
        text += f", {math.fsum(known_costs):,.2f} USD per hour idle"
    if gpus_without_cost:
        text += f", idle GPUs: {gpus_without_cost}"
        # Without any price, every cost is unknown, which needs no words.
        text += " at an unknown cost" if costs else ""
    return text


def cost(gpus: Iterable[Gpu], fleet: Fleet, costs: Costs) -> float | None:
    """Return what GPUs of a fleet cost in US dollars per hour, None if the price of one of them is
    unknown, or if the miner gave no price at all.
    """
    if not costs:
        return None
    return total(fleet.price_of(gpu, costs) for gpu in gpus)


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
