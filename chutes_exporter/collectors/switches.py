"""What the signing miner could run instead of its active instances, and what that would gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chutes_exporter.collectors.base import Answers, Collector, Miners, Part, Samples, metric_of
from chutes_exporter.collectors.fleet import OF_SERVER, fleet_answers
from chutes_exporter.collectors.launch import LAUNCH_FEEDS
from chutes_exporter.duration import DAY, DAY_HOURS
from chutes_exporter.feeds import definitions as f
from chutes_exporter.fleet.ends import Ledger
from chutes_exporter.fleet.failures import find_failures
from chutes_exporter.fleet.join import join_fleet
from chutes_exporter.fleet.switch import switches_by_reports

if TYPE_CHECKING:
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.fleet.switch import Switch

_FEEDS: Final = (f.AUDIT_REPORT, *LAUNCH_FEEDS)
_metric = metric_of(*_FEEDS, whole=False)
_OF_LAUNCH: Final = (*OF_SERVER, "instance_id", "chute", "new_chute_id", "new_chute")

SWITCHES = _metric(
    "chutes_fleet_switches",
    "Active instances for which other chutes on the same GPUs would earn over 10 % more in the "
    "first day, cover the score that the deletion costs, and not earn less later. chutes-exporter "
    "advise --switch lists them, and also those that should wait until the end of their first "
    "hour, which are left out here. Absent while an answer, the report of an hour of the past day, "
    "or what one of the instances earns or would lose is unknown.",
    ("hotkey",),
)
LAUNCH = _metric(
    "chutes_instance_switch_launch_instances",
    "Instances of the new chute to launch instead of the instance. Each room of a chute is given "
    "once, and to idle GPUs first.",
    _OF_LAUNCH,
)
GAIN = _metric(
    "chutes_instance_switch_gain_compute_units_per_day",
    "Compute units that all new instances together would earn more than the instance, without what "
    "its deletion costs, by pay: first_day, later (a day from 8 hours after their activation on). "
    "If several chutes replace the instance, each has the value of all together.",
    (*_OF_LAUNCH, "pay"),
)
COST = _metric(
    "chutes_instance_switch_cost_compute_units",
    "Compute units that the score of the past day loses, at most, if the miner deletes the "
    "instance now. The first day covers them. If several chutes replace the instance, each has the "
    "value of all together.",
    _OF_LAUNCH,
)


def _collect(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add which active instances the miner should replace now, and by what.

    The reports show what the deletion of an instance costs, and which chutes failed.
    """
    reports = answers[f.AUDIT_REPORT]
    # An answer from before a reload may lack the data of hotkeys that the reload added. None means
    # that it has the data of all miners.
    if reports.hotkeys is not None and miners.hotkey not in reports.hotkeys:
        return
    answers_of_fleet = fleet_answers(answers.by_name, miners.hotkey)
    fleet = join_fleet(answers_of_fleet)
    chutes = answers[f.CHUTES]
    ledger = Ledger(reports.hours, chutes)
    failures = find_failures(ledger, miners.hotkey, DAY_HOURS)
    now = answers_of_fleet.at
    switches = switches_by_reports(answers_of_fleet, fleet, ledger, failures, now)
    if switches is None:
        return
    # The other switches wait until the first hour of the instance is over. An instance that is
    # deleted before loses its score.
    ready = [switch for switch in switches.proposed if switch.waits_until is None]
    # An instance that cannot be compared may be one to replace, so the number is unknown then.
    if not switches.not_compared:
        out.add(SWITCHES, len(ready), miners.hotkey)
    for switch in ready:
        _add_switch(switch, fleet, out)


def _add_switch(switch: Switch, fleet: Fleet, out: Samples) -> None:
    """Add the launches that replace an instance, with what they gain and cost all together.

    A launch with an unknown label is left out, because it would make another series when the label
    becomes known.
    """
    instance = switch.instance
    server = fleet.servers_by_id.get(instance.server_id or "")
    for launch in switch.launches:
        new_chute = launch.offer.chute
        if server is None or None in (server.name, instance.chute, new_chute):
            continue
        place = (fleet.hotkey, server.server_id, server.name)
        old = (instance.instance_id, instance.chute)
        labels = (*place, *old, launch.offer.chute_id, new_chute)
        out.add(LAUNCH, launch.instances, *labels)
        out.add(GAIN, switch.first_day_gain, *labels, "first_day")
        out.add(GAIN, switch.later_gain * DAY, *labels, "later")
        out.add(COST, switch.cost.units, *labels)


COLLECTOR = Collector(
    "switches",
    "what the miner could run instead of its active instances, and what that would gain",
    (Part(_FEEDS, (SWITCHES, LAUNCH, GAIN, COST), _collect, also=(f.MINER_GPUS,)),),
)
