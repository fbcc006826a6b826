"""A miner's fleet, joined from the answers: what it has, what it can launch, and what failed.

In all classes of a fleet, None is unknown, and a known absence is 0 or the empty text.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Literal, get_args

from chutes_exporter.duration import DAY
from chutes_exporter.fleet.answers import Window, are_complete
from chutes_exporter.fleet.failures import FAILURE_HOURS, Failures, find_failures, find_outages
from chutes_exporter.fleet.gpus import find_gpus
from chutes_exporter.fleet.instances import find_instances
from chutes_exporter.fleet.offers import find_markets
from chutes_exporter.fleet.placement import find_left_out, plan_servers
from chutes_exporter.fleet.servers import find_servers
from chutes_exporter.rules.score import is_blacklisted
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.fleet.answers import FleetAnswers, StuckJob
    from chutes_exporter.fleet.ends import End
    from chutes_exporter.fleet.failures import Outage
    from chutes_exporter.fleet.gpus import Gpu
    from chutes_exporter.fleet.instances import Instance
    from chutes_exporter.fleet.offers import Market
    from chutes_exporter.fleet.placement import LeftOut, ServerPlan
    from chutes_exporter.fleet.servers import Server
    from chutes_exporter.rules.money import Costs

Topic = Literal["servers", "gpus", "instances", "pay", "reports"]
"""What a sum over the fleet, or a verdict on it, needs to know."""
TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)


@dataclass(frozen=True)
class Fleet:
    """A miner's fleet at one moment.

    Attributes:
        registered, blacklisted: Its seat.
        gpus: All GPUs, also those without a server.
        markets: What it can launch, for each model of its idle GPUs. None while it is unknown.
        left_out: Why nothing is launched on a server, by the server's id, for those left out.
        plans: The best use of its idle GPUs, one for each server and model.
        stuck_jobs: Jobs that it holds without an instance. None if they are unknown.
        failures: What failed in the 6 hours before the newest audit report.
        outages: Servers that probably died in these hours.
        known: Whether all of a topic is known, so that a sum over the fleet means all of it.
    """

    hotkey: str
    registered: bool | None = None
    blacklisted: bool | None = None
    servers: tuple[Server, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    instances: tuple[Instance, ...] = ()
    markets: tuple[Market, ...] | None = None
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)
    plans: tuple[ServerPlan, ...] = ()
    stuck_jobs: tuple[StuckJob, ...] | None = None
    window: Window = field(default_factory=Window)
    failures: Failures = field(default_factory=Failures)
    outages: tuple[Outage, ...] = ()
    known: Mapping[Topic, bool] = field(default_factory=dict)

    def servers_of(self, end: End) -> list[Server]:
        """Return the servers on which an instance that ended can have been. No report names it."""
        # GPUs that others held when it ended, on servers that died later.
        held: Counter[str] = Counter()
        for outage in self.outages:
            if end in outage.ends:
                return [*outage.servers]
            if len(outage.servers) == 1:
                held[outage.servers[0].server_id] += outage.gpus_at(end.ended_at)
        return [one for one in self.servers if one.can_have_held(end, held[one.server_id])]

    def suspects(self, ends: Iterable[End]) -> list[str]:
        """Return the names of the servers on which each of these failures can have been."""
        suspects = [*self.servers]
        for end in ends:
            of_end = self.servers_of(end)
            suspects = [server for server in suspects if server in of_end]
        return sorted(server.shown_name for server in suspects)

    @property
    def suspected_servers(self) -> set[str]:
        """The names of the servers that may be at fault for all failures of a chute, or for all
        instances that did not answer probes.
        """
        failures = self.failures
        groups = [failures.of_main_reason(chute_id) for chute_id in failures.failing]
        if failures.silent:
            groups.append(failures.silent)
        return {name for ends in groups for name in self.suspects(ends)}

    @cached_property
    def servers_by_id(self) -> dict[str, Server]:
        """Its servers by their ids."""
        return {server.server_id: server for server in self.servers}

    def plans_of(self, server: Server) -> list[ServerPlan]:
        """Return the best uses of the idle GPUs of a server, one for each model."""
        return [plan for plan in self.plans if plan.server_id == server.server_id]

    def idle_units_per_second(self, server: Server) -> float | None:
        """Return the compute units per second that the idle GPUs of a server would earn in their
        best use, on average of the first day, None if that is unknown.

        It is 0 if all its GPUs are in instances, if no chute runs on them, and while nothing should
        be launched on the server. It is None for a server with unverified GPUs but no idle ones,
        because what the unverified ones would earn is unknown.
        """
        idle_gpus = server.count_in("idle")
        if None in (idle_gpus, server.holds_slot):
            return None
        if not idle_gpus:
            return None if server.unused_gpus else 0.0
        reason = self.left_out.get(server.server_id)
        if server.runs_chutes is False or reason not in (None, "use_not_known"):
            return 0.0
        plans = self.plans_of(server)
        # A model has no plan while it is unknown what can be launched, or whether the server has
        # TEE.
        if len(plans) < len(server.known_idle_gpus):
            return None
        return product(total(plan.first_day_units for plan in plans), 1 / DAY)

    @property
    def idle_units_of_all(self) -> float | None:
        """The units per second that all idle GPUs would earn, on average of the first day.

        GPUs without a server are left out, because nobody can use them. None while the pay of a
        server with idle GPUs is unknown, or if no server with GPUs has a known pay.
        """
        pays: dict[str | None, float | None] = {}
        for server in self.servers:
            if server.gpus:
                pays[server.server_id] = self.idle_units_per_second(server)
        if not self.known.get("gpus") or {*pays.values()} <= {None}:
            return None
        # The servers come from the GPUs, because the list of servers may lack the newest one. The
        # pay of its idle GPUs is unknown.
        idle_ids = {gpu.server_id for gpu in self.gpus if gpu.state == "idle"} - {"", None}
        return total(pays.get(server_id) for server_id in idle_ids)

    def price_of(self, gpu: Gpu, costs: Costs) -> float | None:
        """Return what the miner pays for a GPU in US dollars an hour, None if it is unknown."""
        server = self.servers_by_id.get(gpu.server_id or "")
        return costs.of_gpu(None if server is None else server.name, gpu.model)


def join_fleet(answers: FleetAnswers) -> Fleet:
    """Return the fleet of a miner, with everything that the answers tell."""
    gpus = find_gpus(answers)
    instances = find_instances(answers, gpus)
    servers = find_servers(answers, gpus, instances)
    outages, may_be_dead = find_outages(answers.ledger, answers.hotkey, servers)
    now = answers.instances.received_at
    left_out = find_left_out(servers, answers.window, may_be_dead, now)
    failures = find_failures(answers.ledger, answers.hotkey, outages)
    markets = find_markets(answers, servers, instances)
    plans: tuple[ServerPlan, ...] = ()
    if markets is not None:
        plans = plan_servers(servers, markets, left_out, failures.failing)
    registered, blacklisted = None, None
    if answers.seat is not None:
        registered, blacklisted = True, is_blacklisted(answers.seat)
    elif answers.metagraph.complete:
        registered = False
    return Fleet(
        hotkey=answers.hotkey,
        registered=registered,
        blacklisted=blacklisted,
        servers=servers,
        gpus=gpus,
        instances=instances,
        markets=markets,
        left_out=left_out,
        plans=plans,
        stuck_jobs=answers.stuck_jobs,
        window=answers.window,
        failures=failures,
        outages=outages,
        known=_known_topics(answers, gpus, instances, servers),
    )


def _known_topics(
    answers: FleetAnswers,
    gpus: Iterable[Gpu],
    instances: Iterable[Instance],
    servers: Sequence[Server],
) -> dict[Topic, bool]:
    """Return for each topic whether everything about it is known, so that no sum is too low."""
    are_listed = are_complete(answers.servers, answers.nodes, answers.inventory, answers.instances)
    are_whole = all(server.is_complete for server in servers)
    gpus_are_known = are_listed and are_whole and _are_known(gpus, "model", "state", "server_id")
    names = ("state", "private", "chute")
    instances_are_known = answers.instances.complete and _are_known(instances, *names)
    # The pay of each server is looked up last, because that takes the longest.
    pay_can_be_known = gpus_are_known and instances_are_known
    return {
        "servers": answers.servers.complete and _are_known(servers, "name", "holds_slot"),
        "gpus": gpus_are_known,
        "instances": instances_are_known,
        "pay": pay_can_be_known and _are_known(servers, "name", "earned_units_per_second"),
        "reports": not answers.ledger.missing_hours(FAILURE_HOURS),
    }


def _are_known(things: Iterable[object], *names: str) -> bool:
    """Return whether these fields, which are several, are known of all things."""
    values_of = attrgetter(*names)
    return all(None not in values_of(thing) for thing in things)
