"""The command ``status``: how the miners stand and what needs action, on one screen."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.collectors.fleet import STATES
from chutes_exporter.commands.options import (
    Command,
    api_options,
    hotkey_options,
    json_option,
    money_options,
    run_with_status,
)
from chutes_exporter.commands.report import Labels, Report, Samples, collect_report, print_not_known, samples_of
from chutes_exporter.commands.terminal import json_text, say
from chutes_exporter.feeds.table import MINER_GPUS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from chutes_exporter.config import Settings

NOTHING_TO_DO, ACTION_NEEDED, NOT_KNOWN = 0, 1, 3
"""The exit status; 2 is that of a wrong command line. 3 means that nothing needs action as far as known, but some
answers are missing or incomplete."""

_PURGE_SOON = 45 * 60
"""Seconds before its purge from which an instance needs action, as for the alert ChutesInstancePurgeNear."""
_SHOWN = 3
"""Most names in a line."""


@dataclass(frozen=True)
class Action:
    """Something that needs action.

    Attributes:
        kind: A word for scripts.
        hotkey: The miner.
        count: How many things it is about.
        text: What is wrong, in a sentence.
        advice: What to do about it.
    """

    kind: str
    hotkey: str
    count: int
    text: str
    advice: str


@dataclass(frozen=True)
class Note:
    """Something to know that needs no action now.

    Attributes:
        kind: A word for scripts.
        hotkey: The miner.
        count: How many things it is about.
        text: What it is, in a sentence.
    """

    kind: str
    hotkey: str
    count: int
    text: str


@dataclass(frozen=True)
class Miner:
    """How a miner stands. A number that is not known is None.

    Attributes:
        hotkey: The miner.
        private: Whether there is a key: otherwise GPUs, instances and jobs are not known.
        rank: Its place by score.
        scored_miners: How many miners have a score.
        share: Its score share.
        heading_share: The score share that it approaches.
        incentive_share: Its share of the incentive.
        gpus: GPUs by model and state; None without a key, or where they are not known.
        cost_usd_per_hour: What all GPUs cost.
        idle_cost_usd_per_hour: What the idle ones cost.
        estimated_alpha_per_day: Incentive share x daily emission.
        estimated_usd_per_day: That x the price of alpha.
    """

    hotkey: str
    private: bool
    rank: int | None
    scored_miners: int | None
    share: float | None
    heading_share: float | None
    incentive_share: float | None
    gpus: dict[str, dict[str, int]] | None
    cost_usd_per_hour: float | None
    idle_cost_usd_per_hour: float | None
    estimated_alpha_per_day: float | None
    estimated_usd_per_day: float | None


@dataclass(frozen=True)
class _Rule:
    """When samples of a metric need action.

    Attributes:
        kind: A word for scripts.
        metric: The metric.
        applies: Whether a value needs action at a Unix time.
        text: Makes the sentence of the samples that need action.
        advice: What to do.
        labels: Only samples with these labels.
        counts: Whether the values are counts, which are added up. Otherwise each sample counts as one.
        in_window: Whether the rule applies only while a maintenance window is open.
    """

    kind: str
    metric: str
    applies: Callable[[float, float], bool]
    text: Callable[[_Found], str]
    advice: str
    labels: Mapping[str, str] = field(default_factory=dict)
    counts: bool = False
    in_window: bool = False


@dataclass(frozen=True)
class _Found:
    """The samples that need action by a rule.

    Attributes:
        count: How many things they are about.
        samples: Their labels and values.
        names: Names of chutes and servers by id.
        window_end: When the maintenance window ends, None if it is unknown.
    """

    count: int
    samples: list[tuple[Labels, float]]
    names: Mapping[str, str]
    window_end: float | None

    def things(self, singular: str, plural: str = "") -> str:
        """Return the number with its noun."""
        return f"{self.count} {singular if self.count == 1 else plural or singular + 's'}"

    def verb(self, singular: str, plural: str) -> str:
        """Return the verb that fits the number."""
        return singular if self.count == 1 else plural

    def each(self, label: str) -> str:
        """List what a label says, by name where it has one."""
        counts = Counter(self.names.get(labels[label], labels[label]) for labels, _ in self.samples)
        return _listed(name if count == 1 else f"{count} x {name}" for name, count in counts.items())

    def by_model(self) -> str:
        """List the GPU models with their counts."""
        return _listed(f"{value:.0f} {labels['gpu']}" for labels, value in self.samples)

    def first(self) -> str:
        """Return the earliest time."""
        return _clock_time(min(value for _, value in self.samples))

    def last(self) -> str:
        """Return the latest time."""
        return _clock_time(max(value for _, value in self.samples))


_RULES = (
    _Rule(
        "not_registered",
        "chutes_miner_registered",
        lambda value, _: value == 0,
        lambda _: "The hotkey has no seat on the subnet.",
        "Register it on subnet 64. Without a seat it earns nothing.",
    ),
    _Rule(
        "blacklisted",
        "chutes_miner_blacklisted",
        lambda value, _: value == 1,
        lambda _: "The miner is blacklisted. It gets no score and cannot launch.",
        "Ask the operators of Chutes.",
    ),
    _Rule(
        "stuck_jobs",
        "chutes_jobs_stuck",
        lambda value, _: value > 0,
        lambda found: f"{found.things('job')} {found.verb('is', 'are')} stuck with the miner.",
        "List and release them: chutes-exporter release-job",
        counts=True,
    ),
    _Rule(
        "purges",
        "chutes_instance_purge_timestamp_seconds",
        lambda value, now: value - now < _PURGE_SOON,
        lambda found: (
            f"{found.things('instance')} {found.verb('does', 'do')} not become active. The first purge is at "
            f"{found.first()}: {found.each('instance_id')}."
        ),
        "Look at the pods. A start-up that ends in a purge earns nothing.",
    ),
    _Rule(
        "launches_refused",
        "chutes_server_launches_refused",
        lambda value, _: value == 1,
        lambda found: (
            f"{found.things('TEE server')} {found.verb('has', 'have')} no version or one below 0.2.1: "
            f"{found.each('server_id')}. The service refuses all launches of newer TEE chutes."
        ),
        "Upgrade or remove these servers.",
    ),
    _Rule(
        "versions_refused",
        "chutes_server_version_accepted",
        lambda value, _: value == 0,
        lambda found: (
            f"{found.things('TEE server')} cannot boot with {found.verb('its', 'their')} version any more: "
            f"{found.each('server_id')}."
        ),
        "Do not reboot before the upgrade. See the accepted versions: chutes-exporter query tee_measurements",
    ),
    _Rule(
        "upgrades",
        "chutes_server_upgrade_needed",
        lambda value, _: value == 1,
        lambda found: (
            f"{found.things('TEE server')} {found.verb('needs', 'need')} the upgrade of the maintenance window"
            f"{'' if found.window_end is None else f', which ends at {_date(found.window_end)}'}: "
            f"{found.each('server_id')}."
        ),
        "Upgrade before the window ends: chutes-exporter query maintenance",
        in_window=True,
    ),
    _Rule(
        "servers_without_tee",
        "chutes_server_info",
        lambda _value, _now: True,
        lambda found: (
            f"{found.things('server')} {found.verb('has', 'have')} no TEE: {found.each('server_id')}. "
            "Chutes that need TEE cannot run there, and today these are all chutes."
        ),
        "Set it up again as a TEE server, or remove it.",
        labels={"tee": "false"},
    ),
    _Rule(
        "unsecured_instances",
        "chutes_instance_secured_timestamp_seconds",
        lambda value, now: value > now,
        lambda found: (
            f"{found.things('public instance')} would lose the whole score at an end before {found.last()}: "
            f"{found.each('instance_id')}."
        ),
        "Do not delete an instance in its first hour.",
    ),
    _Rule(
        "unverified_gpus",
        "chutes_fleet_gpus",
        lambda value, _: value > 0,
        lambda found: (
            f"{found.things('GPU')} {found.verb('is', 'are')} not verified and in no instance: {found.by_model()}."
        ),
        "See the errors: chutes-exporter query nodes",
        labels={"state": "unverified"},
        counts=True,
    ),
    _Rule(
        "idle_gpus",
        "chutes_fleet_gpus",
        lambda value, _: value > 0,
        lambda found: f"{found.things('GPU')} {found.verb('is', 'are')} idle: {found.by_model()}.",
        "Deploy chutes on them. This command ranks them: chutes-exporter advise",
        labels={"state": "idle"},
        counts=True,
    ),
)
"""The rules, the most urgent first. A metric without samples needs no action."""

_METRICS = frozenset(rule.metric for rule in _RULES) | {
    "chutes_fleet_gpus",
    "chutes_gpu_info",
    "chutes_instance_gpus",
    "chutes_instance_info",
    "chutes_maintenance_window_open",
    "chutes_miner_incentive_ratio",
    "chutes_miner_score_heading_ratio",
    "chutes_miner_score_rank",
    "chutes_miner_score_ratio",
    "chutes_scored_miners",
    "chutes_server_info",
}


@click.command(cls=Command)
@hotkey_options("At least one hotkey is required.")
@api_options
@money_options
@json_option
def status(**flags: Any) -> None:
    """Show how a miner stands, and what needs action.

    The exit status is 0 if nothing needs action, 1 if something does, 2 if the command line is wrong, and 3 if nothing
    needs action as far as known, but requests failed or answers are incomplete.
    """
    run_with_status(run_status, flags)


async def run_status(settings: Settings, as_json: bool) -> int:  # noqa: FBT001 - a flag of the command line
    """Ask once, print, and return the exit status.

    Raises:
        ClickException: Nobody is watched.
    """
    if not settings.watched:
        raise click.ClickException("status needs a miner: add --hotkey or --hotkey-file")
    report = await collect_report(settings, _METRICS)
    samples, gaps, now = report.samples, report.gaps, report.now
    miners = [
        _miner(settings, hotkey, samples, gpus_known=hotkey in report.counted) for hotkey in sorted(settings.watched)
    ]
    actions = [action for miner in miners for action in _actions(miner.hotkey, samples, now)]
    notes = [note for miner in miners for note in _notes(miner.hotkey, report)]
    if as_json:
        summary = {
            "api": settings.api_url,
            "action_needed": bool(actions),
            "all_known": not gaps,
            "miners": [asdict(one) for one in miners],
            "actions": [asdict(one) for one in actions],
            "notes": [asdict(one) for one in notes],
            "not_known": [asdict(one) for one in gaps],
        }
        click.echo(json_text(summary))
    else:
        _print_screen(miners, actions, notes, report)
    if actions:
        return ACTION_NEEDED
    return NOT_KNOWN if gaps else NOTHING_TO_DO


def _value(samples: Samples, metric: str, hotkey: str) -> float | None:
    return next((value for _, value in samples_of(samples, metric, hotkey)), None)


def _miner(settings: Settings, hotkey: str, samples: Samples, *, gpus_known: bool) -> Miner:
    rank = _value(samples, "chutes_miner_score_rank", hotkey)
    scored = next((value for _, value in samples.get("chutes_scored_miners", ())), None)
    gpus: dict[str, dict[str, int]] = {}
    for labels, value in samples_of(samples, "chutes_fleet_gpus", hotkey):
        gpus.setdefault(labels["gpu"], {})[labels["state"]] = int(value)
    known = gpus if gpus_known else None
    incentive = _value(samples, "chutes_miner_incentive_ratio", hotkey)
    alpha = _product(incentive, settings.daily_emission)
    return Miner(
        hotkey=hotkey,
        private=any(key.address == hotkey for key in settings.keys),
        rank=None if rank is None else int(rank),
        scored_miners=None if scored is None else int(scored),
        share=_value(samples, "chutes_miner_score_ratio", hotkey),
        heading_share=_value(samples, "chutes_miner_score_heading_ratio", hotkey),
        incentive_share=incentive,
        gpus=known,
        cost_usd_per_hour=_cost(known, settings.gpu_costs, STATES),
        idle_cost_usd_per_hour=_cost(known, settings.gpu_costs, ("idle",)),
        estimated_alpha_per_day=alpha,
        estimated_usd_per_day=_product(alpha, settings.alpha_price),
    )


def _product(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one * other


def _cost(
    gpus: Mapping[str, Mapping[str, int]] | None, costs: Mapping[str, float], states: Iterable[str]
) -> float | None:
    """Return what GPUs in some states cost per hour, None where the cost of one of them is not known."""
    if gpus is None or not costs:
        return None
    counts = {model: sum(by_state[state] for state in states) for model, by_state in gpus.items()}
    if any(count and model not in costs for model, count in counts.items()):
        return None
    return math.fsum(count * costs.get(model, 0.0) for model, count in counts.items())


def _actions(hotkey: str, samples: Samples, now: float) -> Iterator[Action]:
    """Return what needs action, by the table of rules."""
    names = _names(hotkey, samples)
    window_open = _value(samples, "chutes_maintenance_window_open", hotkey) == 1
    window_end = _value(samples, "chutes_maintenance_window_end_timestamp_seconds", hotkey)
    for rule in _RULES:
        found = [
            (labels, value)
            for labels, value in samples_of(samples, rule.metric, hotkey)
            if rule.labels.items() <= labels.items() and rule.applies(value, now)
        ]
        if found and (window_open or not rule.in_window):
            count = int(sum(value for _, value in found)) if rule.counts else len(found)
            text = rule.text(_Found(count, found, names, window_end))
            yield Action(rule.kind, hotkey, count, text, rule.advice)


def _older_servers(hotkey: str, samples: Samples, names: Mapping[str, str]) -> _Found:
    """Return the TEE servers that are older than the target of the newest maintenance window."""
    upgrades = samples_of(samples, "chutes_server_upgrade_needed", hotkey)
    older = [(labels, value) for labels, value in upgrades if value]
    return _Found(len(older), older, names, window_end=None)


def _notes(hotkey: str, report: Report) -> Iterator[Note]:
    """Return what is worth knowing without action."""
    samples, names = report.samples, _names(hotkey, report.samples)
    older = _older_servers(hotkey, samples, names)
    if older.count and _value(samples, "chutes_maintenance_window_open", hotkey) == 0:
        text = f"{older.things('TEE server')} {older.verb('is', 'are')} older than the target of the"
        start = _value(samples, "chutes_maintenance_window_start_timestamp_seconds", hotkey)
        if start is not None and start > report.now:
            text += f" next maintenance window, which begins at {_date(start)}: {older.each('server_id')}."
        else:
            text += f" last maintenance window: {older.each('server_id')}. No window is open now."
        yield Note("older_servers", hotkey, older.count, text)
    if (MINER_GPUS.name, hotkey) not in report.known:
        return
    with_gpus = {labels["instance_id"] for labels, _ in samples_of(samples, "chutes_instance_gpus", hotkey)}
    without_gpus = [
        (labels, value)
        for labels, value in samples_of(samples, "chutes_instance_active", hotkey)
        if value and labels["instance_id"] not in with_gpus
    ]
    if without_gpus:
        found = _Found(len(without_gpus), without_gpus, names, window_end=None)
        yield Note(
            "instances_without_gpus",
            hotkey,
            found.count,
            f"{found.things('active instance')} {found.verb('holds', 'hold')} no GPU, because it was deleted: "
            f"{found.each('instance_id')}. The service will purge {found.verb('it', 'them')}.",
        )


def _names(hotkey: str, samples: Samples) -> dict[str, str]:
    """Return a name for each instance (its chute's) and each server, by id."""
    chutes = {
        labels["chute_id"]: labels["chute_name"]
        for labels, _ in samples_of(samples, "chutes_gpu_allocation_info", hotkey)
    }
    instances = {
        labels["instance_id"]: chutes.get(labels["chute_id"]) or labels["instance_id"]
        for labels, _ in samples_of(samples, "chutes_instance_info", hotkey)
    }
    servers = {
        labels["server_id"]: labels["name"] or labels["server_id"]
        for labels, _ in samples_of(samples, "chutes_server_info", hotkey)
    }
    return instances | servers


# The screen


def _print_screen(miners: list[Miner], actions: list[Action], notes: list[Note], report: Report) -> None:
    for miner in miners:
        say(f"{miner.hotkey}  {datetime.fromtimestamp(report.now, UTC):%Y-%m-%d %H:%M} UTC", bold=True)
        for line in _sheet(miner):
            say(line)
        for action in (one for one in actions if one.hotkey == miner.hotkey):
            say(f"! {action.text}", indent="  ", fg="red")
            say(f"→ {action.advice}", indent="    ", start="  ")
        for note in (one for one in notes if one.hotkey == miner.hotkey):
            say(f"- {note.text}", indent="  ")
        click.echo()
    print_not_known(report.gaps)
    if not report.answered:
        say("Nothing is known, because no request succeeded.", fg="red")
    elif not actions:
        say("Nothing needs action, as far as known." if report.gaps else "Nothing needs action.", fg="green")


def _sheet(miner: Miner) -> Iterator[str]:
    """Return the lines about a miner: what is not known has a dash."""
    rank = "-" if miner.rank is None else f"{miner.rank} of {miner.scored_miners}"
    yield f"Score      rank {rank}, share {_percent(miner.share)}, heading for {_percent(miner.heading_share)}"
    yield f"Incentive  share {_percent(miner.incentive_share)}"
    if miner.estimated_alpha_per_day is not None:
        dollars = "" if miner.estimated_usd_per_day is None else f", {miner.estimated_usd_per_day:,.2f} USD"
        yield f"Estimate   {miner.estimated_alpha_per_day:,.2f} alpha{dollars} a day"
    if not miner.private:
        yield "GPUs, instances and jobs are not known: they need the hotkey file."
        return
    if miner.gpus is None:
        yield "GPUs       -"
        return
    yield _row("GPUs", (*STATES, "all"))
    totals: Counter[str] = Counter()
    for model, counts in miner.gpus.items():
        totals.update(counts)
        yield _row(f"  {model}", [*(counts[state] for state in STATES), sum(counts.values())])
    if len(miner.gpus) != 1:
        yield _row("  all", [*(totals[state] for state in STATES), totals.total()])
    if miner.cost_usd_per_hour is not None or miner.idle_cost_usd_per_hour is not None:
        every, idle = _dollars(miner.cost_usd_per_hour), _dollars(miner.idle_cost_usd_per_hour)
        yield f"Cost       all GPUs {every} an hour, idle GPUs {idle} an hour"


def _row(head: str, cells: Iterable[str | int]) -> str:
    return f"{head:<14}" + "".join(f"{cell:>11}" for cell in cells)


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.3g} %"


def _dollars(amount: float | None) -> str:
    return "-" if amount is None else f"{amount:,.2f} USD"


def _date(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


def _clock_time(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%H:%M} UTC"


def _listed(names: Iterable[str]) -> str:
    """List some names."""
    every = list(names)
    shown = ", ".join(every[:_SHOWN])
    return shown if len(every) <= _SHOWN else f"{shown} and {len(every) - _SHOWN} more"
