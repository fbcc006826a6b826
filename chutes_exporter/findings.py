"""What needs action at a miner, and what is worth knowing.

A finding is a row of the table :data:`KINDS`.
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter, not_
from typing import TYPE_CHECKING, Any, Literal

from chutes_exporter.duration import HOUR, human_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Labelled = list[tuple[dict[str, str], float]]
    """Labels and value of some samples."""
    Place = tuple[str, str]
    """The id of a server, and a GPU model."""

NEEDED_METRICS = frozenset(
    {
        "chutes_chute_active_instances",
        "chutes_fleet_gpus",
        "chutes_gpu_info",
        "chutes_instance_gpus",
        "chutes_gpu_state_info",
        "chutes_instance_info",
        "chutes_jobs_stuck",
        "chutes_maintenance_window_open",
        "chutes_miner_registered",
        "chutes_server_cost_usd_per_gpu_hour",
        "chutes_server_info",
        "chutes_server_version_accepted",
    }
)
"""Metrics of all collectors whose samples :func:`find` needs."""

_PURGE_SOON = 0.75 * HOUR
"""Seconds before its purge from which an instance needs action, as for the alert
ChutesInstancePurgeNear.
"""


@dataclass(frozen=True)
class Finding:
    """Something that needs action, or a note.

    Attributes:
        kind: A word for scripts.
        count: How many things it is about.
        advice: What to do, before the command.
        command: A command that helps. A note has none.
        when: Unix time of what happens next, if known.
        gpus: GPUs by model that earn nothing because of it, if all of them are known.
        cost_usd_per_hour: What these GPUs cost. None if they, or the price of one, are unknown.
        instances: The instances that it is about, each with its chute, server and age.
    """

    kind: str
    hotkey: str
    count: int
    problem: str
    things: list[str]
    needs_action: bool
    advice: str
    command: str
    when: float | None
    gpus: dict[str, int]
    cost_usd_per_hour: float | None
    instances: list[dict[str, Any]]


class _Miner:
    """The samples about a miner."""

    def __init__(self, samples: Mapping[str, Labelled], hotkey: str, now: float) -> None:
        self._samples, self.hotkey, self.now = samples, hotkey, now
        self._chutes = {
            labels["chute_id"]: labels["chute_name"]
            for labels, _ in self.of("chutes_gpu_allocation_info")
        }
        self._instances = {
            labels["instance_id"]: labels for labels, _ in self.of("chutes_instance_info")
        }
        self._created = {
            labels["instance_id"]: time for labels, time in self.times("created", bool)
        }
        self.servers = {
            labels["instance_id"]: labels["server_id"]
            for labels, _ in self.of("chutes_instance_gpus")
        }
        self._info = {labels["server_id"]: labels for labels, _ in self.of("chutes_server_info")}

    def of(
        self, metric: str, applies: Callable[[float], bool] = bool, /, **labels: str
    ) -> Labelled:
        """Return the samples about the miner with these labels and with a value that applies."""
        wanted = labels | {"hotkey": self.hotkey}
        return [
            (has, v)
            for has, v in self._samples.get(metric, ())
            if wanted.items() <= has.items() and applies(v)
        ]

    def times(self, event: str, applies: Callable[[float], bool]) -> Labelled:
        """Return the instances with an event at a time that applies, the soonest first."""
        return sorted(
            self.of(f"chutes_instance_{event}_timestamp_seconds", applies), key=itemgetter(1)
        )

    def purges(self, state: Literal["starting", "disabled"]) -> Labelled:
        """Return the instances in a state with the time of their purge, the soonest first."""
        activated = {labels["instance_id"] for labels, _ in self.times("activated", bool)}
        purged = self.times("purge", bool)
        return [
            item
            for item in purged
            if (item[0]["instance_id"] in activated) == (state == "disabled")
        ]

    def in_slot(self) -> set[str]:
        """Return the ids of the servers that hold an upgrade slot."""
        statuses = self.of("chutes_server_maintenance_status")
        return {labels["server_id"] for labels, _ in statuses if labels["status"] != "none"}

    def waiting(self) -> set[str]:
        """Return the ids of the servers that are in maintenance or wait for it."""
        pending = self.of("chutes_server_maintenance_pending")
        return {labels["server_id"] for labels, _ in pending} | self.in_slot()

    def idle_gpus(self, *, in_maintenance: bool) -> Labelled:
        """Return the number of idle GPUs by model, on servers that are in maintenance or wait for
        it, or on others.
        """
        idle = {labels["gpu_id"] for labels, _ in self.of("chutes_gpu_state_info", state="idle")}
        waiting = self.waiting()
        info = [labels for labels, _ in self.of("chutes_gpu_info") if labels["gpu_id"] in idle]
        counts = Counter(
            {
                labels["gpu"]: int(count)
                for labels, count in self.of("chutes_fleet_gpus", state="idle")
            }
        )
        wait = Counter(labels["gpu"] for labels in info if labels["server_id"] in waiting) & counts
        return [
            ({"gpu": gpu}, count)
            for gpu, count in sorted((wait if in_maintenance else counts - wait).items())
        ]

    def uncertain_versions(self) -> Labelled:
        """Return the servers of which nobody knows whether their version still boots."""
        known = {
            labels["server_id"]
            for labels, _ in self.of("chutes_server_version_accepted", lambda _: True)
        }
        listed = self.of("chutes_server_version_listed", lambda _: True)
        return [item for item in listed if item[0]["server_id"] not in known]

    def older_servers(self, window: Literal["open", "next", "last"]) -> Labelled:
        """Return the servers below the target of the newest maintenance window, none if it is not
        of this kind.

        Each has the end of an open window, or the start of another. Those that hold an upgrade slot
        need no other one.
        """
        start, end = (
            max(
                (
                    value
                    for _, value in self.of(f"chutes_maintenance_window_{bound}_timestamp_seconds")
                ),
                default=0.0,
            )
            for bound in ("start", "end")
        )
        is_open = max(
            (value for _, value in self.of("chutes_maintenance_window_open", lambda _: True)),
            default=None,
        )
        if_closed = "next" if start > self.now else "last"
        if is_open is None or window != ("open" if is_open else if_closed):
            return []
        older = [labels for labels, _ in self.of("chutes_server_upgrade_needed")]
        return [
            (labels, end if is_open else start)
            for labels in older
            if labels["server_id"] not in self.in_slot()
        ]

    def last_active(self) -> Labelled:
        """Return the active instances that are the only active one of their chute."""
        chutes = {
            has["chute_id"]
            for has, n in self._samples.get("chutes_chute_active_instances", ())
            if n == 1
        }
        active = self.of("chutes_instance_active")
        return [
            item for item in active if self.instance(item[0]["instance_id"])["chute_id"] in chutes
        ]

    def without_gpus(self) -> Labelled:
        """Return the active instances that hold no GPU.

        Without any GPU in an instance, the answer is missing or contradicts another one.
        """
        active = self.of("chutes_instance_active") if self.servers else []
        return [item for item in active if item[0]["instance_id"] not in self.servers]

    def name(self, labels: Mapping[str, str], value: float) -> str:
        """Return the name of what a sample is about, an empty one for the miner.

        For a model, the value is a number.
        """
        if "gpu" in labels:
            return f"{value:.0f} {labels['gpu']}"
        if "instance_id" in labels:
            instance = self.instance(labels["instance_id"])
            private = " (private)" if instance["private"] else ""
            return f"{instance['chute_name'] or labels['instance_id']}{private}"
        server = self._info.get(labels.get("server_id", ""), {})
        name = server.get("name") or labels.get("server_id", "")
        return f"{name} ({server['version']})" if server.get("version") else name

    def instance(self, instance_id: str) -> dict[str, Any]:
        """Return an instance with its chute, its server and the Unix time of its creation.

        What is unknown is None.
        """
        info = self._instances.get(instance_id)
        return {
            "instance_id": instance_id,
            "chute_id": info and info["chute_id"],
            "chute_name": (info and self._chutes.get(info["chute_id"])) or None,
            "private": info and bool(info["billed_to"]),
            "server_name": self._info.get(self.servers.get(instance_id, ""), {}).get("name")
            or None,
            "created_at": self._created.get(instance_id),
        }

    def gpus(self, about: Labelled) -> dict[str, int] | None:
        """Count the GPUs of samples by model: those of an instance, of a server, or all of the
        miner.

        None if some are not known, because a part of them would look like all.
        """
        counts: Counter[str] = Counter()
        for labels, value in about:
            found = self.of("chutes_fleet_gpus")
            if "gpu" in labels:
                found = [(labels, value)]
            elif "instance_id" in labels:
                found = self.of("chutes_instance_gpus", instance_id=labels["instance_id"])
            elif "server_id" in labels and found:
                # While answers are not whole, a server may have other GPUs, too, and
                # chutes_fleet_gpus is absent.
                found = self.of("chutes_gpu_info", server_id=labels["server_id"])
            if not found:
                return None
            for sample, count in found:
                counts[sample["gpu"]] += int(count)
        return dict(counts)

    def cost(self, about: Labelled) -> float | None:
        """Return what the GPUs of samples cost in US dollars per hour, None if one of them, or its
        price, is unknown.
        """
        gpus = self.gpus(about)
        places: Counter[Place] = Counter()
        for labels, _ in about:
            places.update(self._places(labels))
        found: Counter[str] = Counter()
        for (_, model), count in places.items():
            found[model] += count
        is_whole = gpus is not None and found == Counter(gpus)
        return cost(places, prices_of(self._samples, self.hotkey)) if is_whole else None

    def _places(self, labels: Mapping[str, str]) -> Counter[Place]:
        """Count the GPUs of a sample by server and model, as far as they are known."""
        if "instance_id" in labels:
            found = self.of("chutes_instance_gpus", instance_id=labels["instance_id"])
            return Counter({_place(has): int(count) for has, count in found})
        if "gpu" in labels:
            state = labels.get("state", "idle")
            places = placed_gpus(self._samples, self.hotkey, state)
            waiting = self.waiting() if state == "idle" else set()
            return Counter(
                {
                    place: count
                    for place, count in places.items()
                    if place[1] == labels["gpu"] and place[0] not in waiting
                }
            )
        info = self.of("chutes_gpu_info")
        if "server_id" in labels:
            info = self.of("chutes_gpu_info", server_id=labels["server_id"])
        return Counter(_place(has) for has, _ in info)


@dataclass(frozen=True)
class Kind:
    """A row of the table of findings.

    Attributes:
        severity: A loss means that GPUs earn nothing. A note needs no action.
        test: Returns the samples that the finding is about. If something happens next, the first
            value is its time.
        sentence: What is wrong. ``{is|are}`` becomes what fits COUNT.
        advice: What to do, and after the colon a command that helps. A note has none.
    """

    severity: Literal["loss", "action", "note"]
    test: Callable[[_Miner], Labelled]
    sentence: str
    advice: str = ""


_loss, _action, _note = (partial(Kind, severity) for severity in ("loss", "action", "note"))

KINDS = {
    "not_registered": _loss(
        lambda miner: miner.of("chutes_miner_registered", not_),
        "The hotkey has no seat on the subnet. It earns nothing.",
        "Register it: btcli subnet register --netuid 64",
    ),
    "blacklisted": _loss(
        lambda miner: miner.of("chutes_miner_blacklisted"),
        "The miner is blacklisted. It gets no score, and its launches are refused, so idle "
        "GPUs cannot be used.",
        "First ask the operators of Chutes to end it. Reason: chutes-exporter query metagraph",
    ),
    "stuck_jobs": _action(
        lambda miner: miner.of("chutes_jobs_stuck"),
        "COUNT {job is|jobs are} stuck with the miner.",
        "List and release them: chutes-exporter release-job",
    ),
    "purges": _loss(
        lambda miner: [
            item for item in miner.purges("starting") if item[1] - miner.now < _PURGE_SOON
        ],
        "COUNT {instance has|instances have} not started. The service deletes {it|the first} WHEN.",
        "Look at {its pod|their pods}: kubectl --context SERVER -n chutes get pods",
    ),
    "maintenance": _loss(
        lambda miner: miner.of("chutes_server_maintenance_status", status="maintenance"),
        "COUNT TEE {server is|servers are} in maintenance, which has ended {its|their} instances.",
        "When no instance is listed on {it|them}, boot the target version: "
        "chutes-exporter query maintenance",
    ),
    "versions_refused": _action(
        lambda miner: miner.of("chutes_server_version_accepted", not_),
        "The service refuses the version that COUNT TEE {server has|servers have}. Do not reboot "
        "{it|them} before maintenance has ended {its|their} instances.",
        "See when a slot is free: chutes-exporter query maintenance",
    ),
    "upgrades": _action(
        lambda miner: miner.older_servers("open"),
        "COUNT TEE {server needs|servers need} the upgrade of the maintenance window, which "
        "ends WHEN.",
        "See when a slot is free, and request the maintenance: chutes-exporter query maintenance",
    ),
    "servers_without_tee": _loss(
        lambda miner: miner.of("chutes_server_info", tee="false"),
        "COUNT {server has|servers have} no TEE. Today, all chutes need TEE.",
        "Set {it|them} up with TEE, or remove {it|them}: chutes-exporter query servers",
    ),
    "unverified_gpus": _loss(
        lambda miner: miner.of("chutes_fleet_gpus", state="unverified"),
        "COUNT {GPU is|GPUs are} not verified and in no instance.",
        "See the errors: chutes-exporter query nodes",
    ),
    "idle_gpus": _loss(
        # The service refuses all launches of a blacklisted miner.
        lambda miner: (
            [] if miner.of("chutes_miner_blacklisted") else miner.idle_gpus(in_maintenance=False)
        ),
        "COUNT {GPU is|GPUs are} idle and can be used now.",
        "Deploy chutes on {it|them}: chutes-exporter advise",
    ),
    "unsecured_instances": _note(
        lambda miner: miner.times("secured", lambda time: time > miner.now)[::-1],
        "Do not stop {this instance|these COUNT instances} before CLOCK: {it|they} would lose "
        "{its|their} score.",
    ),
    "last_active_instances": _note(
        _Miner.last_active,
        "COUNT {instance is the last active one of its chute|instances are the last active ones "
        "of their chutes} on "
        "the platform. Deleting {it|one} costs up to nine tenths of its score, or all of it if it "
        "is private.",
    ),
    "instances_without_gpus": _note(
        _Miner.without_gpus,
        "COUNT active {instance holds|instances hold} no GPU, because it was deleted. The service "
        "may delete {the instance|the instances}, too.",
    ),
    "disabled_instances": _note(
        lambda miner: miner.purges("disabled"),
        "COUNT {instance is|instances are} disabled. The service deletes {it|the first} WHEN. A "
        "private one then loses "
        "its score.",
    ),
    "maintenance_pending": _note(
        lambda miner: miner.of("chutes_server_maintenance_status", status="pending"),
        "COUNT TEE {server waits|servers wait} for maintenance. Do not reboot {it|them}: the last "
        "instances of their chutes still serve, for at most 3 hours after the request.",
    ),
    "idle_gpus_in_maintenance": _note(
        lambda miner: miner.idle_gpus(in_maintenance=True),
        "COUNT idle {GPU waits|GPUs wait} for the end of maintenance.",
    ),
    "uncertain_versions": _note(
        _Miner.uncertain_versions,
        "The service may refuse the version of COUNT TEE {server|servers} at the next boot. Only "
        "the highest listed "
        "version boots for certain: no answer shows the least one, nor who may boot a release "
        "candidate.",
    ),
    "next_upgrades": _note(
        lambda miner: miner.older_servers("next"),
        "COUNT TEE {server is|servers are} older than the target of the next maintenance "
        "window, which begins WHEN.",
    ),
    "older_servers": _note(
        lambda miner: miner.older_servers("last"),
        "COUNT TEE {server is|servers are} older than the target of the last maintenance window. "
        "No window is open now.",
    ),
}
"""All findings, the most urgent first."""


def find(samples: Mapping[str, Labelled], hotkey: str, now: float) -> list[Finding]:
    """Return what needs action at a miner, the most expensive first, and then the notes.

    A metric without samples gives no finding.
    """
    miner = _Miner(samples, hotkey, now)
    findings = [
        _finding(name, miner, about) for name, kind in KINDS.items() if (about := kind.test(miner))
    ]
    return sorted(
        findings,
        key=lambda it: (not it.needs_action, -(it.cost_usd_per_hour or 0), -sum(it.gpus.values())),
    )


def _finding(name: str, miner: _Miner, about: Labelled) -> Finding:
    """Return a finding about some samples.

    A time in its sentence is the value of the first sample.
    """
    kind, (_, first) = KINDS[name], about[0]
    instances = [
        miner.instance(labels["instance_id"]) for labels, _ in about if "instance_id" in labels
    ]
    # The values of jobs and GPUs are numbers of things.
    count = int(
        sum(value if name == "stuck_jobs" or "gpu" in labels else 1 for labels, value in about)
    )
    words = {
        "SERVER": shlex.quote(str(instances[0]["server_name"] or "SERVER") if instances else ""),
        "WHEN": time_until(first, miner.now) if first else "at an unknown time",
        "CLOCK": f"{datetime.fromtimestamp(first, UTC):%H:%M} UTC",
    }
    advice, _, command = kind.advice.partition(": ")
    problem, advice, command = (
        filled(text, count, **words) for text in (kind.sentence, advice, command)
    )
    is_loss = kind.severity == "loss"
    return Finding(
        kind=name,
        hotkey=miner.hotkey,
        count=count,
        problem=problem,
        things=[thing for labels, value in about if (thing := miner.name(labels, value))],
        needs_action=kind.severity != "note",
        advice=advice,
        command=command,
        when=(first or None) if re.search("WHEN|CLOCK", kind.sentence) else None,
        gpus=(miner.gpus(about) if is_loss else None) or {},
        cost_usd_per_hour=miner.cost(about) if is_loss else 0.0,
        instances=instances,
    )


def verdict(findings: Sequence[Finding], *, has_prices: bool, all_known: bool) -> str:
    """Return the state of all miners in one line: ``3 things need action, 14.40 USD per hour
    idle``.

    ``has_prices`` is whether the user said what some GPUs cost, and ``all_known`` whether
    everything is known that could need action.
    """
    count = sum(finding.needs_action for finding in findings)
    text = (
        filled("COUNT {thing needs|things need} action", count) if count else "Nothing needs action"
    )
    idle = [finding for finding in findings if finding.kind == "idle_gpus"]
    costs = [one.cost_usd_per_hour for one in idle if one.cost_usd_per_hour is not None]
    if costs:
        text += f", {math.fsum(costs):,.2f} USD per hour idle"
    others = sum(sum(one.gpus.values()) for one in idle if one.cost_usd_per_hour is None)
    if others:
        text += filled(", COUNT {GPU|GPUs} idle", others)
        text += " at an unknown cost" if has_prices else ""
    return (
        f"{text}."
        if count or all_known
        else "Not everything is known. Nothing that is known needs action."
    )


def _place(labels: Mapping[str, str]) -> Place:
    return labels["server_id"], labels["gpu"]


def placed_gpus(samples: Mapping[str, Labelled], hotkey: str, state: str = "") -> Counter[Place]:
    """Count the GPUs of a miner by server and model: those in a state, or all."""
    of_state = {
        labels["gpu_id"]
        for labels, _ in samples.get("chutes_gpu_state_info", ())
        if labels["state"] == state
    }
    return Counter(
        _place(labels)
        for labels, _ in samples.get("chutes_gpu_info", ())
        if labels["hotkey"] == hotkey and (not state or labels["gpu_id"] in of_state)
    )


def prices_of(samples: Mapping[str, Labelled], hotkey: str) -> dict[Place, float]:
    """Return the known prices of a miner's GPUs in US dollars per hour."""
    prices = samples.get("chutes_server_cost_usd_per_gpu_hour", ())
    return {_place(labels): price for labels, price in prices if labels["hotkey"] == hotkey}


def cost(gpus: Mapping[Place, int], prices: Mapping[Place, float]) -> float | None:
    """Return what GPUs cost in US dollars per hour, None if the price of one of them is unknown."""
    if not prices or not gpus.keys() <= prices.keys():
        return None
    return math.fsum(count * prices[place] for place, count in gpus.items())


def filled(text: str, count: int, **words: str) -> str:
    """Return a text with its words in place of their names, and with the verbs that fit the
    number.
    """
    for name, word in {"COUNT": str(count), **words}.items():
        text = text.replace(name, word)
    return re.sub(r"\{(.*?)\|(.*?)\}", r"\1" if count == 1 else r"\2", text)


def time_until(moment: float, now: float) -> str:
    """Return a time as ``in 39 minutes (19:56 UTC)``, with the date if it is more than half a day
    away.
    """
    form = "%H:%M" if moment - now < 12 * HOUR else "%Y-%m-%d %H:%M"
    return (
        f"in {human_duration(max(moment - now, 60))} "
        f"({datetime.fromtimestamp(moment, UTC):{form}} UTC)"
    )
