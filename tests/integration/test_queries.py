"""docs/queries.md: every query runs on a real Prometheus, and says what the simulated world knows."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from chutes_exporter.simulator import Simulator, World
from chutes_exporter.simulator.chutes import MODELS, bounty_amount
from chutes_exporter.simulator.times import DAY, HOUR
from tests.simulator.odd import OddWorld
from tests.support import HOTKEY, NOON, RULES, Clock, Labels, Prometheus, served, served_exporter, watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chutes_exporter.simulator.instances import Gpu, Instance
    from chutes_exporter.simulator.world import Miner

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "queries.md"
QUERIES: dict[str, str] = dict(re.findall(r"```promql name=(\S+)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
Known = dict[str, float]


def by(label: str, answer: dict[Labels, float]) -> Known:
    return {dict(labels).get(label, ""): value for labels, value in answer.items()}


class Truth:
    """Expected results of each query, computed from the world. Each query has a method."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.miner = world.miners[0]
        self.instances = world.instances(NOON, HOTKEY)
        self.held = {gpu.uuid: one for one in self.instances for gpu in one.gpus}

    def score_heading(self) -> tuple[str, Known]:
        scored = {one.hotkey for one in self.world.miners if not one.blacklist_reason}
        active = [one for one in self.world.instances(NOON) if one.active(NOON) and one.hotkey in scored]
        disabled = [
            one for one in self.instances if one.activated_at and one.activated_at <= NOON and one not in active
        ]
        mine = sum(one.multiplier(NOON) for one in active if one.hotkey == HOTKEY)
        kept = sum(one.multiplier(NOON) for one in disabled)
        everybody = sum(one.multiplier(NOON) for one in active)
        return "hotkey", {HOTKEY: (mine + kept) / (everybody + kept)}

    def score_to_heading(self) -> tuple[str, Known]:
        _, heading = self.score_heading()
        return "hotkey", {HOTKEY: heading[HOTKEY] - self.world.shares(NOON)[HOTKEY]}

    def share_of_compute(self) -> tuple[str, Known]:
        shares = {}
        for window, seconds in (("1h", HOUR), ("1d", DAY), ("7d", 7 * DAY)):
            work = self.world.work(NOON, seconds)
            shares[window] = work[HOTKEY, ""].units / sum(entry.units for entry in work.values())
        return "window", shares

    def score_change(self) -> tuple[str, Known]:
        return "", {}  # nothing is six hours old yet

    def earning_now(self) -> tuple[str, Known]:
        active = [one for one in self.world.instances(NOON) if one.active(NOON)]
        mine = sum(one.multiplier(NOON) for one in active if one.hotkey == HOTKEY)
        return "hotkey", {HOTKEY: mine / sum(one.multiplier(NOON) for one in active)}

    def by_chute(self) -> tuple[str, Known]:
        units: Known = defaultdict(float)
        for one in self.world.all_instances(NOON, HOTKEY):
            if one.counts(NOON) and (found := one.units_within(NOON - HOUR, NOON)):
                units[one.chute.name or ""] += found
        return "name", units

    def _ladder(self) -> tuple[list[float], float]:
        shares = self.world.shares(NOON)
        return sorted(shares.values(), reverse=True), shares[HOTKEY]

    def rank(self) -> tuple[str, Known]:
        ladder, mine = self._ladder()
        return "hotkey", {HOTKEY: ladder.index(mine) + 1}

    def to_the_next_better(self) -> tuple[str, Known]:
        ladder, mine = self._ladder()
        better = [share for share in ladder if share > mine]
        return "hotkey", {HOTKEY: min(better) - mine} if better else {}

    def to_the_next_worse(self) -> tuple[str, Known]:
        ladder, mine = self._ladder()
        return "hotkey", {HOTKEY: mine - max(share for share in ladder if share < mine)}

    def idle_gpus(self) -> tuple[str, Known]:
        return "gpu_id", {gpu.uuid: 1 for gpu in self.miner.gpus if gpu.uuid not in self.held and gpu.verified_at}

    def unverified_gpus(self) -> tuple[str, Known]:
        return "gpu_id", {gpu.uuid: 0 for gpu in self.miner.gpus if not gpu.verified_at}

    def gpus_by_state(self) -> tuple[str, Known]:
        def state(gpu: Gpu) -> str:
            one = self.held.get(gpu.uuid)
            if one is None:
                return "idle" if gpu.verified_at else "unverified"
            return "earning" if one.active(NOON) else "disabled" if one.disabled(NOON) else "starting"

        count = Counter((gpu.model, state(gpu)) for gpu in self.miner.gpus)
        return "gpu+state", {f"{model}+{name}": number for (model, name), number in count.items()}

    def not_earning_since(self) -> tuple[str, Known]:
        return "", {}  # time stands still: what does not earn never did

    def allocated_and_unused(self) -> tuple[str, Known]:
        return "gpu_id", {uuid: 1 for uuid in self.held if uuid in unused(self.miner)}

    def empty_servers(self) -> tuple[str, Known]:
        return "server_id", {server.server_id: 1 for server in self.miner.servers if not server.gpus}

    def _waiting(self) -> Iterator[Instance]:
        return (one for one in self.instances if not one.activated(NOON))

    def stuck_instances(self) -> tuple[str, Known]:
        ages = {one.instance_id: NOON - one.created_at for one in self._waiting()}
        return "instance_id", {key: age for key, age in ages.items() if age > 1800}

    def time_to_purge(self) -> tuple[str, Known]:
        purged = {
            one.instance_id: one.created_at + 3.5 * HOUR if one.verified_at is None else one.verified_at + 3 * HOUR
            for one in self._waiting()
        }
        return "instance_id", {key: at - NOON for key, at in purged.items()}

    def unsecured_instances(self) -> tuple[str, Known]:
        secured = {one.instance_id: one.activated_at + HOUR for one in self.instances if one.activated_at is not None}
        return "instance_id", {key: at - NOON for key, at in secured.items() if at > NOON}

    def runnable_chutes(self) -> tuple[str, Known]:
        _, idle = self.idle_gpus()
        gate_open = bool(self.private_gate()[1][HOTKEY])
        total = Counter(one.chute.chute_id for one in self.world.instances(NOON))
        found: Known = {}
        for model in {gpu.model for gpu in self.miner.gpus if gpu.uuid in idle}:
            free = {
                server: sum(gpu.model == model and gpu.uuid in idle for gpu in server.gpus)
                for server in self.miner.servers
            }
            for chute in self.world.chutes:
                key, bounty = chute.chute_id, self.world.bounty_age(chute, NOON)
                active = self.world.active_counts(NOON)[key]
                room = max(0, self.world.target_instances(chute, NOON) - active) if chute.scaled else 0
                if (
                    model in chute.models
                    and not chute.disabled
                    and room
                    and any(count >= chute.gpu_count for one, count in free.items() if one.is_tee or not chute.tee)
                    and (chute.public or (gate_open and bounty is not None))
                    and (not chute.tee or total[key] - active <= room)
                ):
                    cheapest = min(MODELS[one].hourly_rate for one in chute.models)
                    pay = math.prod(chute.factors(NOON, bounty).values()) / chute.gpu_count
                    found[f"{model}+{key}"] = pay * MODELS[model].hourly_rate / cheapest
        return "gpu+chute_id", found

    def bounties(self) -> tuple[str, Known]:
        ages = {chute.chute_id: self.world.bounty_age(chute, NOON) for chute in self.world.chutes}
        return "chute_id", {key: max(0, (bounty_amount(age) - 100) / 3) for key, age in ages.items() if age is not None}

    def overloaded_chutes(self) -> tuple[str, Known]:
        running = {one.chute for one in self.world.instances(NOON)}
        loads = {chute.chute_id: chute.utilization(NOON) for chute in running}
        return "chute_id", {key: load for key, load in loads.items() if load > 1}

    def blacklisted(self) -> tuple[str, Known]:
        return "hotkey", {}

    def deregistered(self) -> tuple[str, Known]:
        return "hotkey", {}

    def seats_behind_me(self) -> tuple[str, Known]:
        incentives = self.world.incentives(NOON)
        worse = [one for one in self.world.miners if incentives.get(one.hotkey, 0) < incentives[HOTKEY]]
        return "hotkey", {HOTKEY: len(worse)}

    def active_gpus(self) -> tuple[str, Known]:
        history = self.world.history(HOTKEY, NOON)
        assert history is not None
        return "hotkey", {HOTKEY: history[-1][2]}

    def private_gate(self) -> tuple[str, Known]:
        active = [one for one in self.instances if one.active(NOON)]
        tee = any(one.chute.tee for one in active)
        old = any(one.activated_at is not None and NOON - one.activated_at >= 3 * DAY for one in active)
        hours = [NOON - hour * HOUR for hour in range(169)]
        points = [
            sum(len(one.gpus) for one in self.world.instances(hour, HOTKEY) if one.active(hour)) for hour in hours
        ]
        enough = len(active) >= 4 and sum(len(one.gpus) for one in active) >= 12 and sum(points) / len(points) >= 16
        return "hotkey", {HOTKEY: float(tee or (old and enough))}

    def stuck_jobs(self) -> tuple[str, Known]:
        return "hotkey", {HOTKEY: 0}

    def doubted(self) -> tuple[str, Known]:
        return "feed", {}

    def age(self) -> tuple[str, Known]:
        return "feed", dict.fromkeys(FEEDS, 0)


FEEDS = [
    "metagraph",
    "scores",
    "stats",
    "servers",
    "nodes",
    "inventory",
    "instances",
    "unique_chute_history",
    "jobs",
    "images",
    "active_instances",
    "stats_per_chute",
    "metrics",
    "chutes",
    "utilization",
    "bounties",
    "rolling_updates",
    "maintenance",
]


def unused(miner: Miner) -> set[str]:
    """Choose the GPUs that DCGM says do nothing."""
    return {gpu.uuid for gpu in miner.gpus[::2]}


def of_nvidia(gpu_id: str) -> str:
    """Write a GPU's id as NVIDIA's tools do."""
    return f"GPU-{UUID(hex=gpu_id.removeprefix('GPU-'))}"


def dcgm(miner: Miner) -> Starlette:
    """Answer as NVIDIA's DCGM exporter does on the miner's servers."""
    idle = unused(miner)
    lines = [
        f'DCGM_FI_DEV_GPU_UTIL{{gpu="{gpu.device_index}",UUID="{of_nvidia(gpu.uuid)}"}} {0 if gpu.uuid in idle else 93}'
        for gpu in miner.gpus
    ]
    page = "\n".join(["# TYPE DCGM_FI_DEV_GPU_UTIL gauge", *lines, ""])
    return Starlette(routes=[Route("/metrics", lambda _request: PlainTextResponse(page))])


def told(label: str, answer: dict[Labels, float]) -> Known:
    """Return a query's answer by the label that tells its rows apart."""
    if "+" in label:
        return {"+".join(dict(row)[name] for name in label.split("+")): value for row, value in answer.items()}
    return by(label, answer)


async def test_every_query_returns_the_values_of_the_world(tmp_path: Path) -> None:
    # A world in which every trouble is there at noon.
    world = OddWorld(seed=15, start=NOON)
    truth: Any = Truth(world)
    answers: dict[str, dict[Labels, float]] = {}
    async with (
        Simulator(world, clock=Clock()) as simulator,
        served_exporter(watching(simulator.url)) as (url, _),
        served(dcgm(world.miners[0])) as dcgm_url,
    ):
        targets = [one.removeprefix("http://") for one in (url, dcgm_url)]
        with Prometheus(tmp_path, targets, rule_files=sorted(RULES.glob("*.yml"))) as prometheus:
            await asyncio.to_thread(prometheus.wait_for, "count(count_over_time(up[1m]) >= 2 and up == 1) == 2")
            # A scrape may come before the API's answers on a busy machine.
            await asyncio.to_thread(prometheus.wait_for, "min(chutes_scrape_collector_success) == 1")
            await asyncio.to_thread(
                prometheus.wait_for, "hotkey_gpu_chute_id:chutes_chute_units_per_gpu_second:runnable"
            )
            await asyncio.to_thread(prometheus.stand_still)
            for name, query in QUERIES.items():
                # The simulated time stands still at noon, Prometheus' own goes on.
                asked = query.replace("$hotkey", HOTKEY).replace("time()", f"{NOON:.0f}")
                answers[name] = await asyncio.to_thread(prometheus.query, asked)
    empty = set()
    for name, answer in answers.items():
        method: Callable[[], tuple[str, Known]] = getattr(truth, name.replace("-", "_"))
        label, expected = method()
        assert told(label, answer) == pytest.approx(expected), name
        if not expected:
            empty.add(name)
    # Most queries must have a result in this world.
    assert empty <= {
        "score-change",
        "not-earning-since",
        "blacklisted",
        "deregistered",
        "to-the-next-better",
        "doubted",
    }


async def test_the_troubles_of_another_miner_show_too(tmp_path: Path) -> None:
    world = World(start=NOON)
    blacklisted, gone = world.miners[-1].hotkey, "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"
    clock = Clock(NOON - HOUR)
    async with (
        Simulator(world, clock=clock) as simulator,
        served_exporter(watching(simulator.url, hotkeys=[blacklisted, gone]), clock, monotonic=clock) as (url, _),
    ):
        with Prometheus(tmp_path, [url.removeprefix("http://")]) as prometheus:

            async def ask(name: str) -> dict[Labels, float]:
                return await asyncio.to_thread(prometheus.wait_for, QUERIES[name].replace("$hotkey", HOTKEY))

            await asyncio.to_thread(prometheus.wait_for, "up == 1")
            earning = {
                gpu.uuid for one in world.instances(clock.now, HOTKEY) if one.active(clock.now) for gpu in one.gpus
            }
            assert by("hotkey", await ask("blacklisted")) == {blacklisted: 1}
            assert by("hotkey", await ask("deregistered")) == {gone: 0}
            behind = QUERIES["seats-behind-me"].replace("$hotkey", blacklisted)
            assert by("hotkey", await asyncio.to_thread(prometheus.wait_for, behind)) == {blacklisted: 0}
            # A day later some GPUs earn no longer: Prometheus remembers that they did.
            clock.now += DAY
            still = {
                gpu.uuid for one in world.instances(clock.now, HOTKEY) if one.active(clock.now) for gpu in one.gpus
            }
            name = "not-earning-since"
            subquery = QUERIES[name].replace("1d:1m", "1d:1s").replace("$hotkey", HOTKEY)
            answer = await asyncio.to_thread(prometheus.wait_for, subquery)
            assert set(by("gpu_id", answer)) == earning - still != set()
            assert all(0 < seconds < 120 for seconds in answer.values())


def test_each_query_of_the_document_has_an_expected_result() -> None:
    methods = {name.replace("_", "-") for name in vars(Truth) if not name.startswith("_")}
    assert methods == QUERIES.keys()
    assert "```promql\n" not in DOCUMENT.read_text()
