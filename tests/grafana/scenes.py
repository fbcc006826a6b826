"""The worlds that boards declare their looks for, for real: simulator, exporter, Prometheus, and what it answers.

Times are the real ones here, as Prometheus' own queries use them. A day of history comes before them, in steps, so
that queries that look back find something.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import yaml

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.api.meaning import GPU_MODELS
from chutes_exporter.config import make_settings
from chutes_exporter.simulator import TROUBLES, DemoWorld, Fault, Simulator, Size
from chutes_exporter.simulator.times import HOUR
from grafana.boards import BOARDS
from grafana.parts import ANNOTATION, VARIABLES
from grafana.worlds import World
from tests.support import (
    RULES as RULES_DIRECTORY,
)
from tests.support import (
    Clock,
    History,
    Prometheus,
    fast_rules,
    get,
    parse_page,
    series,
    served_exporter,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from chutes_exporter.config import Settings
    from chutes_exporter.simulator.world import Job, Miner
    from tests.support import Labels

JOB: Final = "chutes"
ACTIVE: Final = 8
"""How many miners of a world have GPUs."""
SICK_TROUBLES: Final = tuple(name for name in TROUBLES if name != "blacklisted")
"""Another miner is blacklisted, whose score does not matter."""
SETTLED: Final = "time() - max(chutes_feed_last_success_timestamp_seconds) > 4"
"""True while no answer is so new that rules, which are evaluated every second one after the other, can lack it."""
RULES: Final[dict[str, dict[str, Any]]] = {
    rule.get("record") or f"{rule['alert']} ({rule['labels']['severity']})": rule
    for path in sorted(RULES_DIRECTORY.glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
}
"""Recording rules by name, and alerts by name and severity."""
STEPS: Final = (24.02, 18, 12, 6.02, 3, 1, 0.5, 0.2)
"""Hours before now of which there is history."""
OPTIONAL: Final = {"chute_gpus": True, "job_details": True, "stats_per_chute": True}
FIGURES: Final[dict[str, Any]] = {
    "gpu_costs": dict.fromkeys(GPU_MODELS, 1.5),
    "daily_emission": 2900.0,
    "alpha_price": 4.0,
}
"""Figures that only the user knows."""
UNKNOWN: Final = Hotkey.from_seed("0x" + "42" * 32, source="test")
"""A key whose hotkey has no seat."""
NEWCOMER: Final = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"


QUESTIONS: Final = {
    "metagraph": "/miner/metagraph",
    "scores": "/miner/scores",
    "stats": "/miner/stats",
    "stats_per_chute": "/miner/stats?per_chute=true",
    "metrics": "/miner/metrics/",
    "chutes": "/miner/chutes/",
    "images": "/miner/images/",
    "jobs": "/miner/jobs/",
    "active_instances": "/miner/active_instances/",
    "utilization": "/chutes/utilization",
    "bounties": "/bounties/",
    "rolling_updates": "/chutes/rolling_updates",
}
"""The request of each feed about the platform."""
OWN_QUESTIONS: Final = {
    "servers": "/miner/servers/",
    "nodes": "/miner/nodes/",
    "inventory": "/miner/inventory",
    "instances": "/miner/instances/?explicit_null=true",
    "unique_chute_history": "/miner/unique_chute_history/{hotkey}",
    "maintenance": "/servers/maintenance/policy",
}
"""The request of each feed about a miner."""


class Now(Clock):
    """The real time, or one that lies behind."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def __call__(self) -> float:
        return time.time() + self.now


@dataclass
class Answers:
    """Answers of Prometheus in a world.

    Attributes:
        hotkeys: The watched, the miner with the GPUs first.
        gpus: How many GPUs the first of them has.
        at: When it was asked.
        now: `data` of the answer to an instant query, by expression.
        over_time: Likewise for the past day in steps of five minutes, for queries of lines.
        errors: What it said instead.
        variables: The values that may be chosen.
        ranks: The number that orders each value of a variable whose answer has an order.
        firing: The names of alerts.
        api: The API's JSON by feed, of which the exporter showed the values: about the platform and the first miner.
        newest: The exporter with the newest answer to each feed of `api`, as the label `instance`.
        scored: The miner that the Subnet board shows.
    """

    hotkeys: list[str]
    gpus: int
    at: float
    now: dict[str, Any] = field(default_factory=dict)
    over_time: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    variables: dict[str, list[str]] = field(default_factory=dict)
    ranks: dict[str, dict[str, float]] = field(default_factory=dict)
    firing: set[str] = field(default_factory=set)
    api: dict[str, Any] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)
    scored: str = ""


def filled_in(expression: str, hotkeys: Iterable[str], rate_interval: str = "4m", miner: str = "") -> str:
    """Fill in Grafana's variables: everything is chosen, and of all miners the named or the first one."""
    chosen = list(hotkeys)
    values = {
        **{f"${name}": variable.all_value for name, variable in VARIABLES.items() if variable.all_value},
        "$hotkey": f"({'|'.join(chosen)})",
        "$miner": miner or chosen[0],
        "$__rate_interval": rate_interval,
    }
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


class Tried(DemoWorld):
    """A world whose first miner has tried every job."""

    def jobs(self, now: float) -> list[Job]:
        return [replace(job, tried_by=(self.miners[0].hotkey, *job.tried_by)) for job in super().jobs(now)]


def _has_offers(world: DemoWorld, now: float) -> bool:
    """Return whether the market has everything: demand above capacity, a bounty, jobs."""
    return (
        any(one.chute.utilization(now) > 1 for one in world.instances(now))
        and any(world.bounty_age(chute, now) is not None for chute in world.chutes)
        and any(job.miner is None for job in world.jobs(now))
    )


def _is_rising(world: DemoWorld, miner: Miner, now: float) -> bool:
    """Return whether a miner's score has grown in 6 hours, which is green. It is neither the best nor the worst."""
    shares = world.shares(now)
    share = shares[miner.hotkey]
    return min(shares.values()) < share < max(shares.values()) and share > world.shares(now - 6 * HOUR)[miner.hotkey]


def _make(kind: World) -> tuple[DemoWorld, Miner]:
    """Make a world, and choose whom to watch in it."""
    now = time.time()
    if kind is World.SICK:
        # The miner is the best of few, in a subnet whose seats are all taken.
        size = Size(miners=256, active_miners=ACTIVE, chutes=150, other_servers=2)
        world: DemoWorld = Tried(start=now, size=size, troubles=SICK_TROUBLES)
        return world, world.miners[0]
    size = Size(miners=64, active_miners=ACTIVE, chutes=150, other_servers=8)
    for seed in range(100):
        world = DemoWorld(seed=seed, start=now, size=size, troubles=())
        if _is_rising(world, world.miners[0], now) and all(_has_offers(world, now + later) for later in (-60, 0, 120)):
            return world, world.miners[ACTIVE if kind is World.EMPTY else 0]
    raise AssertionError(f"no world is {kind}")


def _settings(kind: World, url: str, world: DemoWorld, miner: Miner) -> Settings:
    keys = {World.KEYLESS: (), World.SICK: (miner.key, UNKNOWN)}.get(kind, (miner.key,))
    others = {World.KEYLESS: [miner.hotkey], World.SICK: [world.miners[-1].hotkey]}.get(kind, [])
    optional = {"stats_per_chute": True} if kind is World.KEYLESS else OPTIONAL
    return make_settings(
        api_url=url,
        keys=keys,
        hotkeys=others,
        miners="all",
        collectors=optional,
        # Asked again within the last minute, so that it can be doubted.
        ttl={"unique_chute_history": 30},
        **(FIGURES if kind is World.SICK else {}),
    )


class Recorder:
    """Keeps the last good answers of an API to each question.

    Args:
        clock: The API's clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bodies: defaultdict[tuple[str, str], deque[tuple[float, int, bytes]]] = defaultdict(
            lambda: deque(maxlen=10)
        )

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Return an application that does the same, and whose answers are kept with the time of the request."""

        async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
            at, parts, status = self._clock(), list[bytes](), 0

            async def keep(message: Message) -> None:
                nonlocal status
                status = message.get("status", status)
                parts.append(message.get("body", b""))
                await send(message)

            await app(scope, receive, keep)
            if status in (200, 404):
                query = scope["query_string"].decode()
                question = f"{scope['path']}?{query}" if query else scope["path"]
                # Without a hotkey, it is an answer to anybody.
                for asker in {"", dict(scope["headers"]).get(b"x-chutes-hotkey", b"").decode()}:
                    self._bodies[question, asker].append((at, status, b"".join(parts)))

        return recorded

    def answer(self, question: str, hotkey: str, since: float) -> Any:
        """Return the JSON of the first answer to a question that was asked at a Unix time or later.

        Something that is not found is an empty list.
        """
        # The exported time is rounded, and no feed asks twice in such a short time.
        first = since - 0.1
        status, body = next((status, body) for at, status, body in self._bodies[question, hotkey] if at >= first)
        if status == 404:
            return []
        if body and not body.startswith(b"data: "):
            return json.loads(body)
        lines = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line]
        return [json.loads(line) for line in lines if line != b"NO_ITEMS"]


async def _yesterdays_seats(simulator: Simulator) -> Fault:
    """Make an answer in which somebody is there who is gone now, and somebody new is not."""
    seats = (await get(f"{simulator.url}/miner/metagraph")).json()
    del seats[3]
    return Fault(body=json.dumps([*seats, {**seats[-1], "hotkey": NEWCOMER, "node_id": 999}]).encode())


@dataclass
class Scene:
    """A world with a Prometheus that knows it.

    Attributes:
        prometheus: It scrapes the exporter, or both of a pair.
        hotkeys: The watched, the miner with the GPUs first.
        gpus: How many GPUs the first of them has.
        scored: A miner with a score.
        recorder: It knows what the exporter was told.
    """

    prometheus: Prometheus
    hotkeys: list[str]
    gpus: int
    scored: str
    recorder: Recorder

    def api(self) -> dict[str, Any]:
        """Return the API's JSON by feed, of which the exporter shows the values at the moment that queries see."""
        asked = self._last_successes()
        found = {}
        for labels, at in asked.items():
            feed, hotkey = dict(labels)["feed"], dict(labels).get("hotkey", "")
            if feed in QUESTIONS:
                found[feed] = self.recorder.answer(QUESTIONS[feed], "", at)
            elif feed in OWN_QUESTIONS and hotkey == self.hotkeys[0]:
                question = OWN_QUESTIONS[feed].format(hotkey=hotkey)
                found[feed] = self.recorder.answer(question, "" if hotkey in question else hotkey, at)
        return found

    def newest(self) -> dict[str, str]:
        """Return the exporter with the newest answer to each feed of `api`, as the label `instance`."""
        newest = self._last_successes().items()
        asked = self.prometheus.query("chutes_feed_last_success_timestamp_seconds")
        found = {}
        for labels, at in asked.items():
            its = dict(labels)
            if any(dict(one).items() <= its.items() and at == last for one, last in newest):
                found[its["feed"], its.get("hotkey", "")] = its["instance"]
        return {feed: instance for (feed, hotkey), instance in found.items() if hotkey in ("", self.hotkeys[0])}

    def _last_successes(self) -> dict[Labels, float]:
        return self.prometheus.query("max by (feed, hotkey) (chutes_feed_last_success_timestamp_seconds)")


def _settle(kind: World, prometheus: Prometheus) -> None:
    """Wait until the alerts of a world fire and no other is about to."""
    if kind is World.DOWN:
        # The recorded series follows the alert by an evaluation.
        prometheus.wait_for('alert:chutes_alerts:severity{alertname="ChutesMinerUnwatched"}')
        return
    if kind is World.SICK:
        for name in ("ChutesGpusIdle", "ChutesGpusUnverified"):
            prometheus.wait_for(f'ALERTS{{alertname="{name}",alertstate="firing"}}')
        prometheus.wait_for('ALERTS{alertstate="firing"} and on() absent(ALERTS{alertstate="pending"})')
        # A recorded series follows by an evaluation.
        firing = (
            'max by (alertname, severity, hotkey, server, gpu, feed) (ALERTS{alertstate="firing",severity!="none"})'
        )
        prometheus.wait_for(f"count(alert:chutes_alerts:severity) == count({firing})")
    prometheus.stand_still(SETTLED)


@contextlib.asynccontextmanager
async def scene(
    kind: World, directory: Path, steps: Iterable[float] = STEPS, remote_write: str = ""
) -> AsyncIterator[Scene]:
    """Make a world.

    Args:
        kind: What it is like.
        directory: For Prometheus.
        steps: Hours before now of which there is history.
        remote_write: URL of a store that gets every sample of Prometheus, without the history.
    """
    sick = kind is World.SICK
    world, miner = _make(kind)
    clock = Now()
    async with contextlib.AsyncExitStack() as stack:
        simulator = Simulator(world, clock=clock)
        recorder = Recorder(clock)
        simulator.app.add_middleware(recorder.middleware)
        await stack.enter_async_context(simulator)
        settings = _settings(kind, simulator.url, world, miner)
        leaving = await stack.enter_async_context(contextlib.AsyncExitStack())
        url, _ = await leaving.enter_async_context(served_exporter(settings, clock, monotonic=clock))
        targets = [url.removeprefix("http://")]
        if kind is World.HEALTHY:
            # A pair that watches the same: nothing may be counted twice.
            second, _ = await stack.enter_async_context(served_exporter(settings, clock, monotonic=clock))
            targets.append(second.removeprefix("http://"))
        history = History(directory, job=JOB, instance=targets[0])
        if sick:
            simulator.faults["metagraph"] = await _yesterdays_seats(simulator)
        for hours in steps:
            clock.now = -hours * HOUR
            # Both of a pair ask at the same moments, so that their answers are equal.
            pages = [await get(f"http://{target}/metrics") for target in targets]
            history.add(clock(), parse_page(pages[0].text) | {series("up"): 1.0})
            if sick:
                simulator.faults["images"] = Fault(status=503)
        if sick:
            del simulator.faults["metagraph"]
        clock.now = -60
        for target in targets:
            await get(f"http://{target}/metrics")
        if sick:
            simulator.faults["unique_chute_history"] = Fault(status=404, body=b'{"detail": "Not found in the cache"}')
        clock.now = 0
        await asyncio.to_thread(history.load)
        with Prometheus(directory, targets, rule_files=fast_rules(directory), remote_write=remote_write) as prometheus:
            await asyncio.to_thread(prometheus.wait_for, "count_over_time(up[1m]) >= 5 and up == 1")
            if kind is World.DOWN:
                await leaving.aclose()
            await asyncio.to_thread(_settle, kind, prometheus)
            shares = world.shares(clock())
            scored = miner.hotkey if shares.get(miner.hotkey) else max(shares, key=shares.__getitem__)
            # A set has no order: the miner with the GPUs comes first.
            watched = sorted(settings.watched, key=lambda hotkey: (hotkey != miner.hotkey, hotkey))
            yield Scene(prometheus, watched, len(miner.gpus), scored, recorder)


def ask(prometheus: Prometheus, path: str, **parameters: str | float) -> Any:
    """Ask Prometheus' HTTP API."""
    url = f"{prometheus.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return json.load(error)


def ask_everything(found: Scene, rate_interval: str = "4m") -> Answers:
    """Ask every query of every board and rule, for now and over the past day."""
    prometheus, hotkeys = found.prometheus, found.hotkeys
    answers = Answers(hotkeys, found.gpus, prometheus.at or time.time(), scored=found.scored)
    everything = {query.expr for board in BOARDS for panel in board.panels for query in panel.queries}
    for expression in {*everything, ANNOTATION.expr, *(rule["expr"] for rule in RULES.values())}:
        query = filled_in(expression, hotkeys, rate_interval, found.scored)
        now = ask(prometheus, "query", query=query, time=answers.at)
        answers.now[expression] = now.get("data")
        past = ask(prometheus, "query_range", query=query, start=answers.at - 24 * HOUR, end=answers.at, step=600)
        answers.over_time[expression] = past.get("data")
        for answer in (now, past):
            if answer["status"] != "success" or answer.get("warnings") or answer.get("infos"):
                answers.errors[expression] = str({**answer, "data": None})
    for name, variable in VARIABLES.items():
        # As the data source does.
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable.query)
        if match is None:
            query, (label,) = (
                variable.query[len("query_result(") : -1],
                re.findall(r'(\w+)="\(\?<value>', variable.regex),
            )
            rows = ask(prometheus, "query", query=filled_in(query, hotkeys), time=answers.at)["data"]["result"]
            offered = [(row["metric"][label], float(row["value"][1])) for row in rows if label in row["metric"]]
            answers.variables[name] = [value for value, _ in offered]
            if variable.ordered:
                answers.ranks[name] = dict(offered)
            continue
        selector: dict[str, str | float] = {
            "match[]": filled_in(match[1], hotkeys),
            "start": answers.at - 24 * HOUR,
            "end": answers.at,
        }
        answers.variables[name] = ask(prometheus, f"label/{match[2]}/values", **selector)["data"]
    firing = prometheus.query('ALERTS{alertstate="firing"}')
    answers.firing = {dict(labels)["alertname"] for labels in firing}
    return answers


async def answers_in(kind: World, directory: Path) -> Answers:
    """Make a world, and ask everything in it."""
    async with scene(kind, directory) as found:
        answers = await asyncio.to_thread(ask_everything, found)
        answers.api = await asyncio.to_thread(found.api)
        answers.newest = await asyncio.to_thread(found.newest)
        return answers
