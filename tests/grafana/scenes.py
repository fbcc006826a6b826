"""The worlds in which boards declare their data: simulator, exporter, and what a real Prometheus
answers.

All times are simulated: a day ends at `END`, so that a world is the same each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import pickle
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.config import make_settings
from chutes_exporter.simulator import DemoWorld, Fault, Simulator, Size
from chutes_exporter.simulator.demo import FLEET, DemoServer
from chutes_exporter.simulator.service import End
from chutes_exporter.simulator.world import Slot
from grafana.parts import ANNOTATION, VARIABLES
from grafana.worlds import CHAINED, COVERED, World
from tests.grafana.display import PANELS
from tests.grafana.timeline import RULES as ALL_RULES
from tests.grafana.timeline import Timeline, seconds
from tests.recorded import raw_json
from tests.support import (
    NOON,
    PATIENCE,
    Clock,
    Prometheus,
    get,
    patient_client,
    read_reports,
    served_exporter,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from chutes_exporter.config import Settings
    from chutes_exporter.page.exporter import Exporter
    from chutes_exporter.simulator.world import Job, Miner, Server

JOB: Final = "chutes"
TARGETS: Final = ("exporter-1:9109", "exporter-2:9109")
END: Final = NOON
"""The moment at which somebody looks at the boards."""
STEP: Final = 600
"""Seconds between two scrapes."""
MINUTE: Final = 60
"""Seconds between two scrapes in pictures. Rules are evaluated at each `STEP` of them."""
_EACH_HOUR: Final = (24.5, 24, *(hour + 0.5 for hour in range(23, 1, -1)))
"""Scrapes that suffice for queries that need each hour of a day, in hours before the end."""
_LAST_HOUR: Final = tuple(minutes / 60 for minutes in range(40, -1, -10))
HOURS: Final = (24.5, 24, 12, 6, 2, *_LAST_HOUR)
"""When scrapes were, in hours before the end.

These few suffice for queries that look back a day.
"""
HEALTHY_HOURS: Final = (*_EACH_HOUR, 1.5, *_LAST_HOUR)
SICK_HOURS: Final = (
    *_EACH_HOUR,
    *(minutes / 60 for minutes in (140, 130, 120, 100, 80, 60, 50)),
    *_LAST_HOUR,
)
"""The same, with alerts that fire after two hours."""
DOWN_SINCE: Final = 25 / 60
"""Hours before the end at which an exporter goes down."""
SICK_TROUBLES: Final = ("crash-loop", "dead-server", "upgrade", "idle")
"""Another miner is blacklisted, whose score does not matter."""
RULES: Final[dict[str, dict[str, Any]]] = {
    rule.get("record") or f"{rule['alert']} ({rule['labels']['severity']})": rule
    for rule in ALL_RULES
}
"""Recording rules by name, and alerts by name and severity."""
OPTIONAL: Final = {"job_details": True}
"""Collectors that are off by default, and need a key."""
COSTS: Final = {"4090": 0.25, "h200": 1.9, "pro_6000": 0.8}
"""The cost of a GPU in dollars an hour, by model."""
UNKNOWN: Final = Hotkey.from_seed("0x" + "42" * 32, source="test")
"""A key whose hotkey has no seat."""


QUESTIONS: Final = {
    "metagraph": "/miner/metagraph",
    "scores": "/miner/scores",
    "stats": "/miner/stats",
    "stats_per_chute": "/miner/stats?per_chute=true",
    "metrics": "/miner/metrics/",
    "chutes": "/miner/chutes/",
    "jobs": "/miner/jobs/",
    "active_instances": "/miner/active_instances/",
    "utilization": "/chutes/utilization",
    "bounties": "/bounties/",
    "servers": "/miner/servers/",
    "nodes": "/miner/nodes/",
    "inventory": "/miner/inventory",
    "instances": "/miner/instances/?explicit_null=true",
    "maintenance": "/servers/maintenance/policy",
    "tee_measurements": "/servers/tee/measurements",
    "held_gpus": "/nodes/?detailed=true",
    "platform_gpus": "/nodes/",
    "supported_gpus": "/nodes/supported",
    "fmv": "/fmv",
}
"""The request of each feed that the values of boards are recomputed from."""
PAST: Final = ("nodes", "inventory", "instances", "scores")
"""The feeds that values about the past are recomputed from."""


@dataclass
class Answers:
    """Answers of Prometheus in a world.

    Attributes:
        hotkeys: The watched, the miner with the GPUs first.
        gpus: How many GPUs the first of them has.
        scored: The miner that the Subnet board shows.
        now: `data` of the answer to an instant query at the end, by expression.
        over_time: Likewise for the day before, for range queries.
        errors: What it said instead.
        variables: The values that may be chosen.
        ranks: The number that orders each value of a variable whose answer has an order.
        firing: The names of alerts.
        api: The JSON of the API at the end by feed: about the platform and the first miner.
        past: The same at each scrape, of the feeds in `PAST`, where an exporter ran for a day.
        reports: The hourly audit reports that were there at the end, by the Unix time at which
            their hour ends.
    """

    hotkeys: list[str]
    gpus: int
    scored: str
    now: dict[str, Any] = field(default_factory=dict)
    over_time: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    variables: dict[str, list[str]] = field(default_factory=dict)
    ranks: dict[str, dict[str, float]] = field(default_factory=dict)
    firing: set[str] = field(default_factory=set)
    api: dict[str, Any] = field(default_factory=dict)
    past: dict[float, dict[str, Any]] = field(default_factory=dict)
    reports: dict[float, Any] = field(default_factory=dict)

    def of_panel(self, panel: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answers to the queries of a panel, by their letters."""
        found = {}
        for target in panel["targets"]:
            answers = self.over_time if target["range"] else self.now
            found[target["refId"]] = answers[target["expr"]]
        return found


def filled_in(expression: str, hotkeys: Iterable[str], miner: str = "") -> str:
    """Fill in Grafana's variables.

    The hotkeys are chosen in `$hotkey`, and the miner, by default the first of these, in `$miner`.
    Of all other variables, everything is chosen.
    """
    chosen = list(hotkeys)
    values = {}
    for name, variable in VARIABLES.items():
        if variable.all_value:
            values[f"${name}"] = variable.all_value
    values["$hotkey"] = f"({'|'.join(chosen)})"
    values["$miner"] = miner or chosen[0]
    # Four steps, and a little more, because a range of Prometheus 3 leaves out its left end.
    values["$__rate_interval"] = f"{4 * STEP + 60}s"
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


class Tried(DemoWorld):
    """A world whose first miner has tried every job.

    If servers of this miner need an upgrade, its first one needs it, too, but cannot come back from
    it.
    """

    # The first server has this model and number of GPUs.
    unmeasured_hosts = frozenset({(DemoWorld.target_version, "h200", 4)})

    def make_server(self, uid: int, index: int) -> Server:
        """Make a server.

        The first one of the first miner has an old version if other servers need an upgrade.
        """
        server = super().make_server(uid, index)
        has_upgrades = any(demo_server.trouble == "upgrade" for demo_server in self._fleet)
        is_first = uid == 0 and index == 0
        if has_upgrades and is_first:
            return replace(server, version="1.3.1")
        return server

    def jobs(self, now: float) -> list[Job]:
        """Return the jobs, each with the first miner as the first that tried it."""
        return [
            replace(job, tried_by=(self.miners[0].hotkey, *job.tried_by))
            for job in super().jobs(now)
        ]


class Troubled(Tried):
    """A world whose first miner has also tried to use its idle server: one start failed, one is in
    vain, and a public instance is in its first hour.
    """

    def _lives(self, miner: Miner, server: Server) -> Iterator[Iterator[float]]:
        """Yield the lives on a server: what runs on its GPUs, as the simulator steps through it.

        The idle server has three more, each with one instance on a GPU of its own.
        """
        yield from super()._lives(miner, server)
        is_idle_server = miner.uid == 0 and server.name == "pro-6000-6"
        if not is_idle_server:
            return
        # The world starts at `END`, when somebody looks at it. Any other private and public chute
        # would do as well.
        now, private, public = self.start, self.chutes[131], self.chutes[132]
        slots = [
            Slot(
                seed=f"try/{gpu.uuid}",
                hotkey=miner.hotkey,
                gpus=(gpu,),
                chutes=(),
                begins_at=now,
                outages=(),
            )
            for gpu in server.gpus
        ]
        # A launch has a name, which is 1 for the only one of a slot, a chute, the times of its
        # creation, verification, activation and end, and the reason of the end. What never happens
        # is infinitely late.
        failed_at = now - 100 * 60
        times = failed_at, math.inf, math.inf, failed_at + 20 * 60
        yield self._staged(slots[0].launch(1, private, *times, End.FAILURES))
        launched_at = now - 40 * 60
        times = launched_at, launched_at + 120, launched_at + 540, math.inf
        yield self._staged(slots[1].launch(1, public, *times, End.SCALED_DOWN))
        # A private chute with little load wants no more instances than it has, so that the service
        # would refuse the activation.
        with_little_load = next(
            chute for chute in self.chutes if not chute.public and chute.utilization(now) < 0.3
        )
        times = launched_at, launched_at + 120, math.inf, launched_at + 3.5 * 3600
        yield self._staged(slots[2].launch(1, with_little_load, *times, End.PURGED))


FLEETS: Final[dict[int, Sequence[DemoServer]]] = {
    8: (DemoServer("pro_6000", 4, ""), DemoServer("pro_6000", 4, "idle")),
    # 36 without any trouble, because one server is there only with its trouble.
    38: FLEET,
    104: (*FLEET, *[DemoServer("pro_6000", 8, "")] * 8, DemoServer("h200", 2, "")),
}
"""Servers of the miner with GPUs, by the number of its GPUs in the sick world."""
ORDINARY: Final = 38
"""The number of GPUs, unless another one is asked for."""


def _make(kind: World, *, readme: bool, gpus: int) -> tuple[DemoWorld, Miner]:
    """Make a world, and choose the miner to watch in it. ``gpus`` chooses servers from `FLEETS`.

    With ``readme``, it is for pictures, and therefore larger.
    """
    fleet = FLEETS[gpus]
    active = 40 if readme else 10
    miners = 64 if readme else 24
    size = Size(miners=miners, active_miners=active, chutes=150, other_servers=3)
    if kind is World.SICK:
        return _make_sick(Tried if readme else Troubled, size, fleet)
    if kind is World.KEYLESS and not readme:
        # The miner with the lowest score: its seat can be lost, and others are in line before and
        # after it.
        world = DemoWorld(start=END, size=replace(size, active_miners=14), troubles=())
        shares = world.shares(END)
        worst = min(shares, key=shares.__getitem__)
        return world, world.by_hotkey[worst]
    world = DemoWorld(start=END, size=size, troubles=(), fleet=fleet)
    if kind is World.EMPTY:
        # The first of the miners that run nothing.
        return world, world.miners[active]
    return world, world.miners[0]


def _make_sick(
    make: type[DemoWorld], size: Size, fleet: Sequence[DemoServer]
) -> tuple[DemoWorld, Miner]:
    """Make a world whose first miner has troubles, and whose last one, which is on the blacklist,
    is the next to lose its seat.
    """
    # As many seats as the real subnet has: the more there are, the more miners register in a day.
    size = replace(size, miners=256)
    world = make(start=END, size=size, troubles=SICK_TROUBLES, fleet=fleet)
    # Of the seats without a score, the oldest is lost first.
    world.miners[-1].registered_at = END - 30 * 86400
    return world, world.miners[0]


def _settings(
    kind: World, simulator: Simulator, world: DemoWorld, miner: Miner, *, readme: bool
) -> Settings:
    """Return the settings of the exporter that watches a miner.

    In the sick world of the tests, it also watches two more miners, and has costs of GPUs. With
    ``readme``, it is for pictures, which show one miner and no costs.
    """
    keys: tuple[Hotkey, ...] = (miner.key,)
    without_key: list[str] = []
    collectors = OPTIONAL
    costs: dict[str, float] = {}
    if kind is World.KEYLESS:
        keys, without_key, collectors = (), [miner.hotkey], {}
    elif kind is World.SICK and not readme:
        # A second key, of a miner without a seat, and the hotkey of a miner on the blacklist.
        blacklisted = world.miners[-1]
        keys, without_key, costs = (miner.key, UNKNOWN), [blacklisted.hotkey], COSTS
    # All pictures show dollars, which need the chain.
    asks_chain = readme or kind in CHAINED
    return make_settings(
        api_url=simulator.url,
        chain_url=simulator.chain_url if asks_chain else None,
        api_timeout=PATIENCE,
        keys=keys,
        hotkeys=without_key,
        collectors=collectors,
        gpu_costs=costs,
    )


async def ask_api(
    simulator: Simulator, miner: Miner, feeds: Iterable[str] = QUESTIONS
) -> dict[str, Any]:
    """Return the JSON of the API by feed, as a miner gets it."""
    bodies = {}
    for feed in feeds:
        # A signature is for a purpose, and the service demands "tee" for maintenance.
        purpose: Literal["tee", "miner"] = "tee" if feed == "maintenance" else "miner"
        headers = miner.key.headers(int(simulator.clock()), purpose)
        async with patient_client(headers) as client:
            bodies[feed] = (await client.get(f"{simulator.url}{QUESTIONS[feed]}")).content
    return raw_json(bodies)


async def ask_reports(simulator: Simulator) -> dict[float, Any]:
    """Return the audit reports by the Unix time at which their hour ends."""
    reports = {}
    async with patient_client({}) as client:
        listed = await client.get(f"{simulator.url}/audit/")
        for entry in listed.json():
            end = datetime.fromisoformat(entry["end_time"])
            report = await client.get(f"{simulator.url}/audit/download?path={entry['path']}")
            reports[end.timestamp()] = report.json()
    return reports


@dataclass
class Scene:
    """A world with a Prometheus that knows it."""

    prometheus: Prometheus
    answers: Answers


@dataclass
class _Day:
    """The scrapes of an exporter in a world.

    Attributes:
        kind: What the world is like.
        readme: Whether it is for pictures.
        miner: The one with the GPUs.
        past: The answers of the API to each scrape, of the feeds in `PAST`.
    """

    kind: World
    readme: bool
    miner: Miner
    simulator: Simulator
    exporter: Exporter
    url: str
    clock: Clock
    timeline: Timeline
    past: dict[float, dict[str, Any]] = field(default_factory=dict)

    async def scrape(self, before: float) -> None:
        """Scrape some hours before the end, and evaluate the rules."""
        self.clock.now = END - before * 3600
        # Only in these worlds do boards show values of the past that tests recompute.
        if self.kind in COVERED and not self.readme:
            self.past[self.clock()] = await ask_api(self.simulator, self.miner, PAST)
        self._set_faults(before)
        # By itself, the exporter reads one report with each scrape, and these are few. So in the
        # keyless world, some hours of the day are not known.
        if self.kind is not World.KEYLESS:
            await read_reports(self.exporter)
        page = await self._page_or_nothing(before)
        # A pair watches the healthy miner: nothing may be counted twice. Two exporters would have
        # the same page.
        is_pair = self.kind is World.HEALTHY and not self.readme
        targets = TARGETS if is_pair else TARGETS[:1]
        for target in targets:
            await asyncio.to_thread(self.timeline.scrape, self.clock(), JOB, target, page)
        await asyncio.to_thread(self.timeline.evaluate, self.clock())

    async def _page_or_nothing(self, before: float) -> str:
        """Return the page some hours before the end, an empty text if the exporter is down."""
        if self.kind is World.DOWN and before < DOWN_SINCE:
            return ""
        page = await self._page()
        if before > 0:
            return page
        # A page does not wait for the chain, and shows its previous answer. The last page must
        # show the newest one.
        await until(self._is_idle)
        return await self._page()

    async def scrape_each_minute(self, *, next_before: float) -> None:
        """Scrape in each minute from now to the next scrape, which is some hours before the end."""
        while self.clock() + MINUTE < END - next_before * 3600:
            self.clock.now += MINUTE
            page = await self._page()
            await asyncio.to_thread(self.timeline.scrape, self.clock(), JOB, TARGETS[0], page)

    def _set_faults(self, before: float) -> None:
        """Let requests fail as they do some hours before the end."""
        faults = self.simulator.faults
        faults.clear()
        # Without the price of TAO, the healthy world has no dollars.
        if self.kind is World.HEALTHY and not self.readme:
            faults["fmv"] = Fault(status=404)
        # At the end, the last good answer of this feed is too old to be shown.
        if self.kind is World.SICK and before < 2:
            faults["images"] = Fault(status=503)
        # The exporter doubts this answer, and shows the last good one.
        if self.kind is World.SICK and before < 1:
            body = b'{"detail": "Not found in the cache"}'
            faults["unique_chute_history"] = Fault(status=404, body=body)

    async def _page(self) -> str:
        return (await get(f"{self.url}/metrics")).text

    def _is_idle(self) -> bool:
        """Return whether the exporter waits for no answer."""
        return not any(state.flight for state in self.exporter.feeds.states().values())


@contextlib.asynccontextmanager
async def scene(
    kind: World,
    directory: Path,
    hours: Sequence[float] = (),
    *,
    readme: bool = False,
    gpus: int = ORDINARY,
    stores: Sequence[str] = (),
) -> AsyncIterator[Scene]:
    """Make a world, scrape its exporter for a day, and ask its API at the end.

    Prometheus is not asked anything yet, see :func:`ask_everything`.

    Args:
        kind: What it is like.
        directory: For Prometheus.
        hours: When scrapes were, in hours before the end, if not at the times that suffice for the
            world.
        readme: Whether it is for pictures: one miner, without costs, and scrapes in each minute.
        gpus: GPUs of the miner, a key of `FLEETS`.
        stores: URLs of the remote write of other stores that get every sample.
    """
    if not hours:
        hours = {World.SICK: SICK_HOURS, World.HEALTHY: HEALTHY_HOURS}.get(kind, HOURS)
    world, miner = _make(kind, readme=readme, gpus=gpus)
    clock = Clock(END - hours[0] * 3600)
    async with contextlib.AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(world, clock=clock))
        settings = _settings(kind, simulator, world, miner, readme=readme)
        url, exporter = await stack.enter_async_context(
            served_exporter(settings, clock, monotonic=clock)
        )
        prometheus = stack.enter_context(Prometheus(directory))
        timeline = stack.enter_context(
            contextlib.closing(Timeline(f"{prometheus.url}/api/v1/write", *stores))
        )
        day = _Day(kind, readme, miner, simulator, exporter, url, clock, timeline)
        # The last scrape is its own next one, because nothing comes after it.
        for before, next_before in itertools.pairwise((*hours, hours[-1])):
            await day.scrape(before)
            if readme:
                await day.scrape_each_minute(next_before=next_before)
        prometheus.at = END
        # A set has no order: the miner with the GPUs comes first.
        watched = sorted(settings.watched, key=lambda hotkey: (hotkey != miner.hotkey, hotkey))
        answers = Answers(
            hotkeys=watched,
            gpus=len(miner.gpus),
            scored=watched[0],
            api=await ask_api(simulator, miner),
            past=day.past,
            reports=await ask_reports(simulator),
        )
        yield Scene(prometheus, answers)


async def ask_everything(prometheus: Prometheus, answers: Answers) -> Answers:
    """Add the answers to the queries of all boards and rules at the end, and return all answers.

    For range queries of boards, it also adds those over the day before, and for variables, the
    values that may be chosen.
    """
    targets: list[dict[str, Any]] = [
        {"expr": ANNOTATION.expr, "interval": ANNOTATION.step, "range": True}
    ]
    for _, panel in PANELS:
        targets += panel["targets"]
    of_rules = {rule["expr"] for rule in RULES.values()}
    of_boards = {target["expr"] for target in targets}
    for expression in of_rules | of_boards:
        answers.now[expression] = await _ask(prometheus, answers, expression, "query", time=END)
    for target in targets:
        if target["range"]:
            answers.over_time[target["expr"]] = await _ask(
                prometheus,
                answers,
                target["expr"],
                "query_range",
                start=END - 86400,
                end=END,
                step=float(max(STEP, seconds(target["interval"]))),
            )
    for name in VARIABLES:
        _add_variable(name, prometheus, answers)
    answers.firing = {
        dict(labels)["alertname"] for labels in prometheus.query('ALERTS{alertstate="firing"}')
    }
    return answers


async def _ask(
    prometheus: Prometheus, answers: Answers, expression: str, path: str, **times: float
) -> Any:
    """Return the data of Prometheus' answer, and add its error or warning to the answers."""
    query = filled_in(expression, answers.hotkeys, answers.scored)
    answer = await asyncio.to_thread(prometheus.api, path, query=query, **times)
    if answer["status"] != "success" or answer.get("warnings") or answer.get("infos"):
        answers.errors[expression] = str({**answer, "data": None})
    return answer.get("data")


def _add_variable(name: str, prometheus: Prometheus, answers: Answers) -> None:
    """Add the values of a variable to the answers, as Grafana's data source finds them.

    A variable asks for `label_values(...)`, or for `query_result(...)` with a regular expression
    that takes the value from a label.
    """
    variable = VARIABLES[name]
    if match := re.fullmatch(r"label_values\((.+), (\w+)\)", variable.query):
        selector, label = match.groups()
        parameters = {"match[]": filled_in(selector, answers.hotkeys)}
        path = f"label/{label}/values"
        answer = prometheus.api(path, **parameters, start=END - 86400, end=END)
        answers.variables[name] = answer["data"]
        return
    query = variable.query.removeprefix("query_result(").removesuffix(")")
    # The regular expression has `hotkey="(?<value>[^"]+)`, for example.
    (label,) = re.findall(r'(\w+)="\(\?<value>', variable.regex)
    answer = prometheus.api("query", query=filled_in(query, answers.hotkeys), time=END)
    rows = [row for row in answer["data"]["result"] if label in row["metric"]]
    answers.variables[name] = [row["metric"][label] for row in rows]
    # The values of all other variables are sorted by the alphabet.
    if variable.single:
        answers.ranks[name] = {row["metric"][label]: float(row["value"][1]) for row in rows}


def write_answers(kind: str, directory: str) -> None:
    """Make a world, ask everything in it, and write the answers to a directory, pickled.

    The kind is the name of a `World`.
    """

    async def ask() -> Answers:
        async with scene(World[kind], Path(directory)) as day:
            return await ask_everything(day.prometheus, day.answers)

    Path(directory, "answers.pickle").write_bytes(pickle.dumps(asyncio.run(ask())))
