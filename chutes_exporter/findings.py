"""What needs action at a miner, and what is worth knowing.

A finding is a row of the table :data:`KINDS`. A server, an instance or a GPU stands in one finding
that needs action at most: in the first one of the table.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import attrgetter
from typing import TYPE_CHECKING

from chutes_exporter.duration import DAY, HOUR, human_duration, utc_text
from chutes_exporter.fleet.answers import by_field
from chutes_exporter.fleet.ends import sum_of_losses
from chutes_exporter.fleet.upgrades import plan_upgrades
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from chutes_exporter.fleet.ends import End
    from chutes_exporter.fleet.gpus import Gpu, GpuState
    from chutes_exporter.fleet.instances import Instance
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.fleet.servers import Server
    from chutes_exporter.fleet.upgrades import Step, UpgradePlan
    from chutes_exporter.rules.money import Costs

_PURGE_SOON = 0.75 * HOUR
"""Seconds before its purge from which an instance needs action, as for the alert
ChutesInstancePurgeNear.
"""
_DEADLINE_SOON = 2 * HOUR
"""Seconds before a deadline from which it matters more than money."""
_MAINTENANCE = "chutes-exporter query maintenance"


@dataclass(frozen=True)
class Subject:
    """What a finding is about: the miner, a server, an instance, or GPUs.

    Attributes:
        name: Empty for the miner.
        instance_id: That of an instance.
        gpus: The GPUs that earn nothing because of it. None if they are not all known.
        when: Unix time of what happens next.
        lost_units: Compute units of a day that are not earned because of it. None is unknown.
        may_lose_more: Whether ``lost_units`` is a lower bound.
    """

    name: str = ""
    server: Server | None = None
    instance_id: str = ""
    gpus: tuple[Gpu, ...] | None = ()
    when: float | None = None
    lost_units: float | None = None
    may_lose_more: bool = False

    @property
    def ids(self) -> set[str]:
        """The ids of what it is about: its instance or its GPUs, or else its name."""
        if self.instance_id:
            return {self.instance_id}
        # The GPUs of the miner must not hide what else is wrong with them.
        if not self.name or not self.gpus:
            return {self.name}
        return {gpu.gpu_id for gpu in self.gpus}

    @property
    def server_name(self) -> str:
        """The name of its server for a command, or the word SERVER."""
        return (self.server and self.server.name) or "SERVER"


@dataclass(frozen=True)
class Finding:
    """Something that needs action, or a note.

    Attributes:
        kind: A word for scripts.
        count: How many servers, instances, jobs or chutes it is about, or 1 for the miner.
        things: Their names.
        advice: What to do, before the command. A note has none.
        command: A command that helps.
        gpus: GPUs by model that earn nothing because of it, if all of them are known.
        cost_usd_per_hour: What these GPUs cost. None if they, or the price of a model, are unknown.
        deadline: Unix time until which the action must be taken, None without one.
        lost_units_per_day: Compute units of a day that are not earned because of it, in the best
            use of ``advise``. None is unknown.
        lost_usd_per_day: What they would pay. None also while the value of a unit is unknown.
        may_lose_more: Whether these are lower bounds.
    """

    kind: str
    hotkey: str
    count: int
    problem: str
    things: list[str]
    needs_action: bool
    advice: str
    command: str
    gpus: dict[str, int]
    cost_usd_per_hour: float | None
    deadline: float | None
    lost_units_per_day: float | None
    lost_usd_per_day: float | None
    may_lose_more: bool

    @property
    def worth(self) -> str:
        """What is not earned because of it, as a text, empty while it is unknown."""
        if self.lost_units_per_day is None:
            return ""
        if self.lost_usd_per_day is None:
            text = f"{self.lost_units_per_day:,.0f} compute units a day"
        else:
            text = f"{self.lost_usd_per_day:,.0f} USD a day"
        return f"at least {text}" if self.may_lose_more else text

    def urgency(self, now: float) -> tuple[bool, bool, float, bool, float, int]:
        """Return a key that is smallest for what is to be done first at a Unix time.

        A deadline counts when it is near or over. All else is sorted by what is not earned because
        of it, and then by the GPUs. What only others can do comes after that, and notes come last.
        """
        kind = KINDS[self.kind]
        deadline = math.inf
        if self.deadline is not None and self.deadline < now + _DEADLINE_SOON:
            deadline = self.deadline
        return (
            not self.needs_action,
            kind.by_others,
            deadline,
            not kind.costs_all,
            -(self.lost_units_per_day or 0.0),
            -sum(self.gpus.values()),
        )


@dataclass(frozen=True)
class Moment:
    """A fleet at a Unix time."""

    fleet: Fleet
    now: float

    @cached_property
    def plan(self) -> UpgradePlan:
        """The maintenance of the servers."""
        return plan_upgrades(self.fleet, self.now)


@dataclass(frozen=True)
class Kind:
    """A row of the table of findings.

    Attributes:
        find: Returns what the finding is about, the most urgent first.
        problem: Says what is wrong, with the number of subjects or GPUs, and when it happens to the
            first.
        advice: What to do. A note has none.
        command: A command that helps. SERVER in it is the first server.
        costs_all: Whether the miner earns nothing because of it.
        by_others: Whether only the operators of Chutes can end it.
    """

    find: Callable[[Moment], Iterable[Subject]]
    problem: str
    advice: str = ""
    command: str = ""
    costs_all: bool = False
    by_others: bool = False


# The miner, its jobs and its chutes


def _about_miner(moment: Moment) -> tuple[Subject]:
    fleet = moment.fleet
    return (Subject(gpus=fleet.gpus if fleet.known.get("gpus") else None),)


def _stuck_jobs(moment: Moment) -> Iterator[Subject]:
    for job in moment.fleet.stuck_jobs or ():
        name = job.chute or "unknown chute"
        if job.created_at is not None:
            name += f", created {utc_text(job.created_at)}"
        yield Subject(f"{name} ({job.job_id})")


def _failing_chutes(moment: Moment) -> Iterator[Subject]:
    """Yield the chutes that failed again and again, the worst first, such as ``gemma: 4 times
    (probes 3, requests 1), 900 units lost. Only s1 or s2 had GPUs free for each of the 3``.
    """
    failures = moment.fleet.failures
    silent_chutes = {end.chute_id for end in failures.silent}
    for chute_id in failures.failing:
        ends = failures.ends[chute_id]
        reasons = Counter(end.reason for end in ends).most_common()
        by_reason = ", ".join(f"{reason} {times}" for reason, times in reasons)
        name = ends[0].chute or chute_id
        text = f"{name}: {len(ends)} times ({by_reason}), {_lost_units(ends)}"
        if [reason for reason, _ in reasons] == ["probes"] and len(silent_chutes) > 1:
            yield Subject(f"{text}. Other chutes failed like this, too: see the next item")
        else:
            yield Subject(text + _suspects(moment, failures.of_main_reason(chute_id)))


def _suspects(moment: Moment, ends: Sequence[End]) -> str:
    """Return the end of a text: which servers may be at fault for failures of one reason."""
    names = moment.fleet.suspects(ends)
    # Those of all servers say nothing.
    if len(names) in (0, len(moment.fleet.servers)):
        return ""
    return f". Only {' or '.join(names)} had GPUs free for each of the {len(ends)}"


def _silent_instances(moment: Moment) -> Iterator[Subject]:
    ends = moment.fleet.failures.silent
    if ends:
        chutes = {end.chute_id for end in ends}
        text = f"{len(ends)} instances of {len(chutes)} chutes, {_lost_units(ends)}"
        yield Subject(text + _suspects(moment, ends))


def _deleted_instances(moment: Moment) -> Iterator[Subject]:
    deleted = moment.fleet.failures.deleted
    if not any(end.outcome == "lost" for end in deleted):
        return
    by_chute = by_field(deleted, "chute_id")
    # The largest known loss comes first.
    for ends in sorted(by_chute.values(), key=lambda ends: -sum_of_losses(ends).known):
        name = ends[0].chute or ends[0].chute_id or "unknown chute"
        text = f"{name}: {len(ends)} deleted"
        if last := sum(end.loss.is_last_of_chute is True for end in ends):
            text += f" (last of the chute: {last})"
        yield Subject(f"{text}, {_lost_units(ends)}")


def _lost_units(ends: Iterable[End]) -> str:
    lost = sum_of_losses(ends)
    if lost.unknown and not lost.known:
        return "unknown units lost"
    return f"{'at least ' if lost.unknown else ''}{lost.known:,.0f} units lost"


# Instances


def _purges(moment: Moment) -> list[Subject]:
    soon = moment.now + _PURGE_SOON
    due = [
        _about_instance(moment, one, when=one.deadlines["purge"])
        for one in moment.fleet.instances
        if one.state == "starting" and one.deadlines.get("purge", soon) < soon
    ]
    return sorted(due, key=attrgetter("when"))


def _unsecured(moment: Moment) -> list[Subject]:
    unsecured = [
        _about_instance(moment, one, when=one.deadlines["secured"])
        for one in moment.fleet.instances
        if one.deadlines.get("secured", moment.now) > moment.now
    ]
    # The text says when the last hour is over.
    return sorted(unsecured, key=attrgetter("when"), reverse=True)


def _about_instance(moment: Moment, instance: Instance, when: float | None = None) -> Subject:
    """Return an instance with its server, and with its GPUs if they are all known."""
    fleet = moment.fleet
    place = _on_server(fleet, instance.server_id)
    name = f"{instance.chute or instance.chute_id}{place} ({instance.instance_id})"
    gpus = tuple(gpu for gpu in fleet.gpus if gpu.instance_id == instance.instance_id)
    # instance.gpus is their number, or None if it is unknown.
    known_gpus = gpus if len(gpus) == instance.gpus else None
    server = fleet.servers_by_id.get(instance.server_id or "")
    return Subject(name, server, instance.instance_id, known_gpus, when)


# Servers


def _dead_servers(moment: Moment) -> Iterator[Subject]:
    for outage in moment.fleet.outages:
        names = " or ".join(server.shown_name for server in outage.servers)
        first, last = outage.ends[0].ended_at, outage.ends[-1].ended_at
        times = f"from {utc_text(first, '%H:%M')} to {utc_text(last, '%H:%M')}"
        text = f"{names}: {len(outage.ends)} instances ended {times}"
        if starting := sum(len(server.instances) for server in outage.servers):
            text += f". Starts there that will probably fail: {starting}"
        # Of several servers, it is unknown which one died.
        subject = Subject(gpus=None)
        if len(outage.servers) == 1:
            [server] = outage.servers
            # What starts on it does not earn either.
            subject = replace(_about_server(server), gpus=server.gpus)
        yield replace(subject, name=text)


def _at_step(step: Step, moment: Moment, *, down: bool | None = None) -> Iterator[Subject]:
    """Yield the servers with a step, in the order of the plan: all, those that are down, or the
    others.
    """
    for upgrade in moment.plan.servers:
        server = upgrade.server
        if upgrade.step != step or down not in (None, server.is_down):
            continue
        subject = _about_server(server)
        if step == "cannot_return" and server.earning_instances is None:
            subject = replace(subject, gpus=None)
        elif not server.holds_slot:
            # Its idle GPUs can be used, so they are in another finding.
            subject = replace(subject, gpus=())
        yield subject


def _to_upgrade(step: Step, moment: Moment) -> list[Subject]:
    """Return the servers with a step in an open window, and the last moment to request their
    maintenance in it.
    """
    if moment.plan.phase != "open":
        return []
    return [
        replace(one, when=moment.fleet.window.last_request_at) for one in _at_step(step, moment)
    ]


def _undecided_upgrades(moment: Moment) -> Iterator[Subject]:
    yield from _at_step("not known", moment, down=True)
    if moment.plan.phase == "open":
        others = _at_step("not known", moment, down=False)
        yield from (one for one in others if one.server and one.server.needs_upgrade)


def _without_tee(moment: Moment) -> Iterator[Subject]:
    for server in moment.fleet.servers:
        # Something may still run there, but nothing new can be launched.
        if server.tee is False and server.runs_chutes is False and server.gpus:
            yield _about_server(server)


def _about_server(server: Server) -> Subject:
    """Return a server with those of its GPUs that are in no instance.

    They are None while a GPU may be missing, or has an unknown state.
    """
    name = server.shown_name
    if server.version:
        name = f"{name} ({server.version})"
    if not server.is_complete or any(gpu.state is None for gpu in server.gpus):
        return Subject(name, server, gpus=None)
    unused = tuple(gpu for gpu in server.gpus if gpu.state in ("idle", "unverified"))
    return Subject(name, server, gpus=unused)


def _on_server(fleet: Fleet, server_id: str | None) -> str:
    """Return the end of a text: on which server something is, empty if that is unknown."""
    server = fleet.servers_by_id.get(server_id or "")
    return "" if server is None else f" on {server.shown_name}"


# GPUs


def _unverified(moment: Moment) -> Iterator[Subject]:
    for subject in _gpus_by_server(moment.fleet, "unverified"):
        # Where certainly no chute runs, it does not matter whether a GPU is verified.
        if subject.server is None or subject.server.runs_chutes is not False:
            yield subject


def _idle(moment: Moment) -> Iterator[Subject]:
    """Yield the idle GPUs that could earn, or of which that is not known, with their pay."""
    fleet = moment.fleet
    # Another finding says that the service refuses all launches of the miner.
    if fleet.blacklisted:
        return
    for subject in _gpus_by_server(fleet, "idle"):
        server = subject.server
        # Nobody can use GPUs without a server.
        pay = None if server is None else fleet.idle_units_per_second(server)
        if server and (server.holds_slot is not False or pay == 0):
            continue
        if server is None or pay is None:
            yield replace(subject, name=f"{subject.name}: what they could earn is not known")
            continue
        units = DAY * pay
        may_be_more = any(plan.may_be_more for plan in fleet.plans_of(server))
        worth = f"{'at least ' if may_be_more else ''}{units:,.0f} units in the first day"
        name = f"{subject.name}: {worth}"
        yield replace(subject, name=name, lost_units=units, may_lose_more=may_be_more)


def _gpus_by_server(fleet: Fleet, state: GpuState) -> list[Subject]:
    """Return the GPUs in a state, by server. Those of an unknown model are left out."""
    by_server: defaultdict[str, list[Gpu]] = defaultdict(list)
    for gpu in fleet.gpus:
        if gpu.state == state and gpu.model is not None:
            by_server[gpu.server_id or ""].append(gpu)
    subjects = []
    for server_id, gpus in by_server.items():
        models = Counter(gpu.model for gpu in gpus)
        counts = " and ".join(f"{count} {model}" for model, count in sorted(models.items()))
        name = f"{counts}{_on_server(fleet, server_id)}"
        subjects.append(Subject(name, fleet.servers_by_id.get(server_id), gpus=tuple(gpus)))
    # The most GPUs come first, and then those with the first model and server.
    return sorted(subjects, key=lambda subject: (-len(subject.ids), subject.name))


KINDS = {
    "not_registered": Kind(
        lambda moment: _about_miner(moment) if moment.fleet.registered is False else (),
        "The hotkey has no seat on the subnet. It earns nothing.",
        "Register it",
        "btcli subnet register --netuid 64",
        costs_all=True,
    ),
    "blacklisted": Kind(
        lambda moment: _about_miner(moment) if moment.fleet.blacklisted else (),
        "The miner is blacklisted. It gets no score, and its launches are refused, so idle "
        "GPUs cannot be used.",
        "First ask the operators of Chutes to end it. Reason",
        "chutes-exporter query metagraph",
        costs_all=True,
    ),
    "stuck_jobs": Kind(
        _stuck_jobs,
        "Jobs that are stuck with the miner: {count}. They have no instance any more, so they "
        "hold no GPU and earn nothing. No other miner can run them.",
        "Release them",
        "chutes-exporter release-job",
    ),
    "starts_in_vain": Kind(
        lambda moment: [
            _about_instance(moment, one) for one in moment.fleet.instances if one.is_in_vain
        ],
        "Instances that start in vain: {count}. Their chutes have enough active "
        "instances or no target any more. They cannot become active unless that changes.",
        "Stop them, unless they run a job, because they cannot earn. Then run advise again. See",
        "chutes-exporter query instances",
    ),
    "purges": Kind(
        _purges,
        "Instances that have not started: {count}. The service deletes them. The first: {when}.",
        "Look at their pods",
        "kubectl --context SERVER -n chutes get pods",
    ),
    "failing_chutes": Kind(
        _failing_chutes,
        "Chutes that fail again and again: {count}, each 3 times or more in the 6 hours "
        "before the newest audit report. The reports do not say on which servers.",
        "Find out why before they are launched again",
        "chutes-exporter incidents --hours 6",
    ),
    "silent_instances": Kind(
        _silent_instances,
        "Instances that lost their score because they did not answer probes, in the 6 hours before "
        "the newest audit report, also those of failing chutes. The reports do not say on which "
        "servers. It need not be the server on which a chute fails for another reason.",
        "Look at the servers and their network",
        "chutes-exporter incidents --hours 6",
    ),
    "deleted_instances": Kind(
        _deleted_instances,
        "Chutes of which the miner deleted instances before their score was safe, or the last one: "
        "{count}, in the 6 hours before the newest audit report.",
        "If you did not delete them, your own software did: look at gepetto's log. Let a public "
        "instance be active for an hour, and a private one until its user is done. Do not delete "
        "the last instance of a chute. See",
        "chutes-exporter incidents --hours 6",
    ),
    "maintenance": Kind(
        partial(_at_step, "boot"),
        "TEE servers in maintenance, on which no instance is left: {count}. While a TDX "
        "host refuses to start the image, its memory is not free yet, for more than 2 hours: "
        "wait, do not force the start, and do not reboot the host.",
        "Nothing earns there while they are in maintenance: boot them with the target version. See",
        _MAINTENANCE,
    ),
    "refused_boots": Kind(
        partial(_at_step, "cannot_return", down=True),
        "TEE servers in maintenance that cannot come back: {count}. The service refuses to boot "
        "the target version there, because it lists it for no host with their GPUs.",
        "Ask the operators of Chutes to list it for these GPUs. Do not boot the servers before. "
        "See",
        _MAINTENANCE,
        by_others=True,
    ),
    "unmeasured_servers": Kind(
        partial(_at_step, "cannot_return", down=False),
        "TEE servers that would not boot after an upgrade: {count}. The service lists "
        "the target version for no host with their GPUs.",
        "Do not reboot them, do not request their maintenance, and ask the operators of Chutes. "
        "See",
        _MAINTENANCE,
        by_others=True,
    ),
    "maintenance_pending": Kind(
        partial(_at_step, "await_drain"),
        "TEE servers that must not be rebooted yet: {count}. Maintenance must end their "
        "instances first, which takes up to 3 hours.",
        "Do not reboot them before their status is maintenance and nothing runs there. See",
        _MAINTENANCE,
    ),
    "upgrades": Kind(
        partial(_to_upgrade, "request"),
        "TEE servers that need the upgrade of the maintenance window, and for which a slot is "
        "free: {count}. An upgrade takes up to 4 hours. Last moment to request it in this window: "
        "{when}.",
        "Request their maintenance in this order, and reboot none of them yet",
        "chutes-miner tee start-maintenance --name SERVER",
    ),
    "waiting_upgrades": Kind(
        partial(_to_upgrade, "wait"),
        "TEE servers that need the upgrade of the maintenance window, and for which no slot is "
        "free yet: {count}. An upgrade takes up to 4 hours. Last moment to request it in this "
        "window: {when}.",
        "Reboot none of them yet. When a slot is free, request their maintenance in this order. "
        "See",
        _MAINTENANCE,
    ),
    "undecided_upgrades": Kind(
        _undecided_upgrades,
        "TEE servers to upgrade, of which it is not known whether they can come back, whether "
        "a slot is free, or whether something runs there: {count}.",
        "Do not boot or reboot them, and do not request their maintenance, before that is known, "
        "unless the operators of Chutes say so. See",
        _MAINTENANCE,
    ),
    "servers_without_tee": Kind(
        _without_tee,
        "Servers without TEE, on whose GPUs no chute runs without it: {count}.",
        "Set them up with TEE, or remove them, once nothing earns there",
        "chutes-exporter query servers",
    ),
    "unverified_gpus": Kind(
        _unverified,
        "GPUs that are not verified and in no instance: {gpus}.",
        "See the errors",
        "chutes-exporter query nodes --columns server_id,uuid,verification_error",
    ),
    "dead_servers": Kind(
        _dead_servers,
        "Servers that have probably died: {count}. Several instances ended within "
        "minutes, and nothing earns there since.",
        "First see whether they answer",
        "chutes-miner tee node-health --name SERVER",
    ),
    "idle_gpus": Kind(
        _idle,
        "Idle GPUs that can be used: {gpus}.",
        "Deploy chutes on them",
        "chutes-exporter advise",
    ),
    "unsecured_instances": Kind(
        _unsecured,
        "Instances in their first hour: {count}. If you stop one before its hour is "
        "over, it loses its score. The last hour is over {when}.",
    ),
}
"""All findings, the most urgent first."""


def find(fleet: Fleet, now: float, costs: Costs, unit_usd: float | None = None) -> list[Finding]:
    """Return what needs action at a miner, the most urgent first, and then the notes.

    What is unknown gives no finding. ``unit_usd`` is what a compute unit pays.
    """
    moment = Moment(fleet, now)
    findings: list[Finding] = []
    reported_ids: set[str] = set()
    for name, kind in KINDS.items():
        subjects = [*kind.find(moment)]
        if kind.advice:
            # What is in a finding that is more urgent is in no other one. Notes may repeat it.
            subjects = [one for one in subjects if one.ids - reported_ids]
            reported_ids.update(*(one.ids for one in subjects))
        if subjects:
            findings.append(_finding(name, subjects, moment, costs, unit_usd))
    # Those of the same urgency stay in the order of KINDS.
    return sorted(findings, key=lambda finding: finding.urgency(now))


def _finding(
    name: str,
    subjects: Sequence[Subject],
    moment: Moment,
    costs: Costs,
    unit_usd: float | None,
) -> Finding:
    kind, first = KINDS[name], subjects[0]
    known = [one.lost_units for one in subjects if one.lost_units is not None]
    lost_units = total(known) if known else None
    # The instances of a note earn. None means that not all GPUs are known.
    lost_gpus = _gpus_of(subjects) if kind.advice else []
    return Finding(
        kind=name,
        hotkey=moment.fleet.hotkey,
        count=len(subjects),
        problem=kind.problem.format(
            count=len(subjects), gpus=len(lost_gpus or ()), when=_time_until(first.when, moment.now)
        ),
        things=[one.name for one in subjects if one.name],
        needs_action=bool(kind.advice),
        advice=kind.advice,
        command=kind.command.replace("SERVER", shlex.quote(first.server_name)),
        gpus=dict(Counter(str(gpu.model) for gpu in lost_gpus or ())),
        cost_usd_per_hour=cost(lost_gpus, moment.fleet, costs),
        deadline=first.when if kind.advice else None,
        lost_units_per_day=lost_units,
        lost_usd_per_day=product(lost_units, unit_usd),
        may_lose_more=len(known) < len(subjects) or any(one.may_lose_more for one in subjects),
    )


def _gpus_of(subjects: Iterable[Subject]) -> list[Gpu] | None:
    gpus: list[Gpu] = []
    for subject in subjects:
        if subject.gpus is None:
            return None
        gpus += subject.gpus
    return None if any(gpu.model is None for gpu in gpus) else gpus


def verdict(findings: Iterable[Finding], unknown_because: str) -> str:
    """Return the state of all miners in one line.

    ``unknown_because`` is the main reason why something is not known that could need action, empty
    if everything is known.
    """
    count = sum(finding.needs_action for finding in findings)
    if not count and unknown_because:
        cause = f"Not everything is known: {unknown_because}."
        return f"{cause} Nothing that is known needs action."
    if not count:
        return "Nothing needs action."
    return "1 thing needs action." if count == 1 else f"{count} things need action."


def summary(findings: Iterable[Finding]) -> str:
    """Return what is not earned because of all findings of a miner together, and what to do first.

    The text is empty if nothing needs action.
    """
    actions = [finding for finding in findings if finding.needs_action]
    if not actions:
        return ""
    first_step = f"First: {actions[0].advice}: {actions[0].command}"
    priced = [one for one in actions if one.lost_units_per_day is not None]
    if not priced:
        return first_step
    # The loss of the others is not known.
    may_lose_more = len(priced) < len(actions) or any(one.may_lose_more for one in priced)
    whole = replace(
        priced[0],
        lost_units_per_day=total(one.lost_units_per_day for one in priced),
        lost_usd_per_day=total(one.lost_usd_per_day for one in priced),
        may_lose_more=may_lose_more,
    )
    return f"Not earned: {whole.worth}. {first_step}"


def cost(gpus: Iterable[Gpu] | None, fleet: Fleet, costs: Costs) -> float | None:
    """Return what GPUs of a fleet cost in US dollars per hour, None if they or the price of one of
    them are unknown, or if the miner gave no price at all.
    """
    if gpus is None or not costs:
        return None
    return total(fleet.price_of(gpu, costs) for gpu in gpus)


def _time_until(time: float | None, now: float) -> str:
    """Return a time as ``in 39 minutes (19:56 UTC)``, with the date if it is half a day away or
    more. A time that is over is ``overdue since 19:56 UTC``.
    """
    if time is None:
        return "at an unknown time"
    shown = utc_text(time, "%H:%M") if abs(time - now) < DAY / 2 else utc_text(time)
    if time <= now:
        return f"overdue since {shown}"
    # Less than a minute is shown as one minute.
    return f"in {human_duration(max(time - now, 60))} ({shown})"
