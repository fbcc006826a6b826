"""What needs action at a miner, and what is worth knowing, from the samples of the collectors."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING

from chutes_exporter.duration import HOUR, human_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Labelled = list[tuple[dict[str, str], float]]
    """Labels and value of some samples."""
    Samples = Mapping[str, Labelled]

METRICS = frozenset(
    {
        "chutes_chute_active_instances",
        "chutes_fleet_gpus",
        "chutes_gpu_info",
        "chutes_instance_gpus",
        "chutes_instance_info",
        "chutes_jobs_stuck",
        "chutes_maintenance_window_open",
        "chutes_miner_registered",
        "chutes_server_info",
        "chutes_server_version_accepted",
    }
)
"""Metrics of all collectors whose samples :func:`find` needs."""

_GPUS = {
    "gpu": "",
    "instance_id": "chutes_instance_gpus",
    "server_id": "chutes_gpu_info",
    "hotkey": "chutes_fleet_gpus",
}
"""The metric that has the GPUs of a thing, by the label with its id."""
_PURGE_SOON = 0.75 * HOUR
"""Seconds before its purge from which an instance needs action, as for the alert ChutesInstancePurgeNear."""


@dataclass(frozen=True)
class Finding:
    """Something that needs action, or a note.

    Attributes:
        kind: A word for scripts.
        count: How many things it is about.
        things: Names of the things.
        advice: What to do, before the command.
        command: A command that helps. A note has none.
        when: Unix time of what happens next, if known.
        gpus: GPUs by model that earn nothing because of it.
        cost_usd_per_hour: What these GPUs cost; None if the price of a model is unknown.
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


_IDLE = {"not_registered", "blacklisted", "purges", "servers_without_tee", "unverified_gpus", "idle_gpus"}
"""Kinds whose GPUs earn nothing."""
_TEXTS: dict[str, tuple[str, str, str]] = {
    "not_registered": (
        "The hotkey has no seat on the subnet. It earns nothing.",
        "Register it",
        "btcli subnet register --netuid 64",
    ),
    "blacklisted": (
        "The miner is blacklisted. It gets no score and cannot launch.",
        "Ask the operators of Chutes. Reason",
        "chutes-exporter query metagraph",
    ),
    "stuck_jobs": (
        "COUNT {job is|jobs are} stuck with the miner.",
        "List and release them",
        "chutes-exporter release-job",
    ),
    "purges": (
        "COUNT {instance has|instances have} not started. The service deletes {it|the first} WHEN.",
        "Look at {its pod|their pods}",
        "kubectl --context SERVER -n chutes get pods",
    ),
    "launches_refused": (
        "COUNT TEE {server has|servers have} no version from 0.2.1 on. All launches of newer TEE chutes fail.",
        "Upgrade or remove {it|them}",
        "chutes-exporter query servers",
    ),
    "versions_refused": (
        "COUNT TEE {server|servers} cannot boot with {its|their} version any more.",
        "Do not reboot. Accepted versions",
        "chutes-exporter query tee_measurements",
    ),
    "upgrades": (
        "COUNT TEE {server needs|servers need} the upgrade of the maintenance window, which ends WHEN.",
        "See the target version, and upgrade",
        "chutes-exporter query maintenance",
    ),
    "servers_without_tee": (
        "COUNT {server has|servers have} no TEE. Today, all chutes need TEE.",
        "Set {it|them} up with TEE, or remove {it|them}",
        "chutes-exporter query servers",
    ),
    "unverified_gpus": (
        "COUNT {GPU is|GPUs are} not verified and in no instance.",
        "See the errors",
        "chutes-exporter query nodes",
    ),
    "idle_gpus": ("COUNT {GPU is|GPUs are} idle.", "Deploy chutes on {it|them}", "chutes-exporter advise"),
}
"""Problem, advice and command of what needs action, the most urgent first. ``{is|are}`` becomes what fits COUNT."""
_NOTES = {
    "unsecured_instances": (
        "Do not stop {this instance|these COUNT instances} before CLOCK: {it|they} would lose {its|their} score."
    ),
    "last_active_instances": (
        "COUNT {instance is the last active one of its chute|instances are the last active ones of their chutes} on "
        "the platform. Deleting {it|one} costs nine tenths of its score, or all of it if it is private."
    ),
    "instances_without_gpus": (
        "COUNT active {instance holds|instances hold} no GPU, because it was deleted. The service will delete "
        "{the instance|the instances}, too."
    ),
    "next_upgrades": (
        "COUNT TEE {server is|servers are} older than the target of the next maintenance window, which begins WHEN."
    ),
    "older_servers": (
        "COUNT TEE {server is|servers are} older than the target of the last maintenance window. No window is open now."
    ),
}
"""Texts of notes."""


def find(samples: Samples, hotkey: str, now: float, prices: Mapping[str, float]) -> list[Finding]:
    """Return what needs action at a miner, the most expensive first, and then the notes.

    Args:
        samples: Samples of :data:`METRICS`. A metric without samples gives no finding.
        hotkey: The miner.
        now: Unix time.
        prices: US dollars per hour of a GPU, by model.
    """
    miner = _Miner(samples, hotkey, now, prices)
    about = miner.about()
    findings = [miner.finding(kind, about[kind]) for kind in (*_TEXTS, *_NOTES) if about.get(kind)]
    return sorted(findings, key=lambda it: (not it.needs_action, -(it.cost_usd_per_hour or 0), -sum(it.gpus.values())))


class _Miner:
    """The samples about a miner."""

    def __init__(self, samples: Samples, hotkey: str, now: float, prices: Mapping[str, float]) -> None:
        self._samples, self._hotkey, self._now, self._prices = samples, hotkey, now, prices
        chutes = {labels["chute_id"]: labels["chute_name"] for labels, _ in self._of("chutes_gpu_allocation_info")}
        instances = [labels for labels, _ in self._of("chutes_instance_info")]
        self._chutes = {labels["instance_id"]: labels["chute_id"] for labels in instances}
        self._servers = {labels["instance_id"]: labels["server_id"] for labels, _ in self._of("chutes_instance_gpus")}
        self._names = {labels["server_id"]: labels["name"] for labels, _ in self._of("chutes_server_info")}
        for instance in instances:
            name = chutes.get(instance["chute_id"]) or instance["instance_id"]
            self._names[instance["instance_id"]] = f"{name} (private)" if instance["billed_to"] else name

    def _of(self, metric: str, applies: Callable[[float], bool] = bool, /, **labels: str) -> Labelled:
        """Return the samples about the miner with these labels and with a value that applies."""
        wanted = labels | {"hotkey": self._hotkey}
        return [(has, v) for has, v in self._samples.get(metric, ()) if wanted.items() <= has.items() and applies(v)]

    def about(self) -> dict[str, Labelled]:
        """Return the samples that each finding is about. If something happens next, the first value is its time."""
        of, now = self._of, self._now
        begin, end = (
            max((value for _, value in of(f"chutes_maintenance_window_{bound}_timestamp_seconds")), default=0.0)
            for bound in ("start", "end")
        )
        in_window = of("chutes_maintenance_window_open")
        older = [(labels, end if in_window else begin) for labels, _ in of("chutes_server_upgrade_needed")]
        purges = of("chutes_instance_purge_timestamp_seconds", lambda value: value - now < _PURGE_SOON)
        unsecured = of("chutes_instance_secured_timestamp_seconds", lambda value: value > now)
        active = of("chutes_instance_active")
        last = {labels["chute_id"] for labels, v in self._samples.get("chutes_chute_active_instances", ()) if v == 1}
        return {
            "upgrades" if in_window else "next_upgrades" if begin > now else "older_servers": older,
            "not_registered": of("chutes_miner_registered", lambda value: not value),
            "blacklisted": of("chutes_miner_blacklisted"),
            "stuck_jobs": of("chutes_jobs_stuck"),
            "purges": sorted(purges, key=itemgetter(1)),
            "launches_refused": of("chutes_server_launches_refused"),
            "versions_refused": of("chutes_server_version_accepted", lambda value: not value),
            "servers_without_tee": of("chutes_server_info", tee="false"),
            "unverified_gpus": of("chutes_fleet_gpus", state="unverified"),
            "idle_gpus": of("chutes_fleet_gpus", state="idle"),
            "unsecured_instances": sorted(unsecured, key=itemgetter(1), reverse=True),
            "last_active_instances": [item for item in active if self._chutes.get(item[0]["instance_id"]) in last],
            # Without any GPU in an instance, the answer is missing or contradicts another one.
            "instances_without_gpus": [
                item for item in active if self._servers and item[0]["instance_id"] not in self._servers
            ],
        }

    def finding(self, kind: str, about: Labelled) -> Finding:
        """Return the finding about some samples."""
        texts, (first, value) = _TEXTS.get(kind) or (_NOTES[kind], "", ""), about[0]
        # The values of jobs and GPUs are numbers of things.
        count = int(sum(value if "gpu" in labels or kind == "stuck_jobs" else 1 for labels, value in about))
        words = {
            "COUNT": str(count),
            "SERVER": shlex.quote(self._names.get(self._servers.get(first.get("instance_id", ""), "")) or "SERVER"),
            "WHEN": _time_until(value, self._now),
            "CLOCK": f"{datetime.fromtimestamp(value, UTC):%H:%M} UTC",
        }
        problem, advice, command = (_filled(part, count, words) for part in texts)
        gpus = self._gpus(about) if kind in _IDLE else {}
        return Finding(
            kind=kind,
            hotkey=self._hotkey,
            count=count,
            problem=problem,
            things=[name for labels, value in about if (name := self._name(labels, value))],
            needs_action=bool(command),
            advice=advice,
            command=command,
            when=value if re.search("WHEN|CLOCK", texts[0]) else None,
            gpus=gpus,
            cost_usd_per_hour=cost(gpus, self._prices),
        )

    def _name(self, labels: Mapping[str, str], value: float) -> str:
        """Return the name of what a sample is about, nothing if that is the miner."""
        key = labels.get("instance_id") or labels.get("server_id", "")
        return f"{value:.0f} {labels['gpu']}" if "gpu" in labels else self._names.get(key) or key

    def _gpus(self, about: Labelled) -> dict[str, int]:
        """Count the GPUs of samples by model: those of an instance, of a server, or all of the miner."""
        counts: Counter[str] = Counter()
        for labels, value in about:
            key = next(name for name in _GPUS if name in labels)
            for sample, count in self._of(_GPUS[key], **{key: labels[key]}) if key != "gpu" else [(labels, value)]:
                counts[sample["gpu"]] += int(count)
        return dict(counts)


def verdict(findings: Iterable[Finding], prices: Mapping[str, float], *, all_known: bool) -> str:
    """Return the state in one line: ``3 things need action, 14.40 USD per hour idle``.

    Args:
        findings: Those about all miners.
        prices: US dollars per hour of a GPU, by model.
        all_known: Whether everything is known that could need action.
    """
    findings = list(findings)
    count = sum(finding.needs_action for finding in findings)
    text = _filled("COUNT {thing needs|things need} action", count) if count else "Nothing needs action"
    idle = [item for finding in findings if finding.kind == "idle_gpus" for item in finding.gpus.items()]
    if priced := [gpus * prices[model] for model, gpus in idle if model in prices]:
        text += f", {math.fsum(priced):,.2f} USD per hour idle"
    if others := sum(gpus for model, gpus in idle if model not in prices):
        text += _filled(", COUNT {GPU|GPUs} idle", others) + (" at an unknown cost" if prices else "")
    return f"{text}." if count or all_known else f"{text}, as far as known."


def cost(gpus: Mapping[str, int], prices: Mapping[str, float]) -> float | None:
    """Return what GPUs cost in US dollars per hour, None if the price of one of them is unknown."""
    models = {model for model, count in gpus.items() if count}
    return math.fsum(gpus[model] * prices[model] for model in models) if prices and models <= prices.keys() else None


def _filled(text: str, count: int, words: Mapping[str, str] | None = None) -> str:
    """Return a text with its words in place of their names, and with the verbs that fit the number."""
    for name, word in (words or {"COUNT": str(count)}).items():
        text = text.replace(name, word)
    return re.sub(r"\{(.*?)\|(.*?)\}", r"\1" if count == 1 else r"\2", text)


def _time_until(moment: float, now: float) -> str:
    """Return a time as ``in 39 minutes (19:56 UTC)``, with the date if it is more than half a day away."""
    form = "%H:%M" if moment - now < 12 * HOUR else "%Y-%m-%d %H:%M"
    return f"in {human_duration(max(moment - now, 60))} ({datetime.fromtimestamp(moment, UTC):{form}} UTC)"
