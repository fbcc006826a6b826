from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.api.records import Instance, Node, UnixTime
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.collectors.samples import Samples
from chutes_exporter.config import Credentials, make_settings
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.page.observed import Observations
from chutes_exporter.simulator import Fault, Simulator, Size, World
from chutes_exporter.simulator.times import HOUR
from tests.support import HOTKEY, NOON, Clock, parse_page, series, watching

if TYPE_CHECKING:
    from collections.abc import Iterable

MINER = "5miner"


@pytest.fixture
def seen() -> Observations:
    return Observations()


def counts(seen: Observations) -> dict[str, float]:
    out = Samples()
    seen.collect(out)
    return {family.name.removeprefix("chutes_observed_"): family.samples[0].value for family in out.collect()}


def instances(ids: str, *, created: float | None = NOON) -> list[Instance]:
    return [Instance(one, created_at=None if created is None else UnixTime(created)) for one in ids]


def watch(seen: Observations, answers: Iterable[list[Instance]], still_active: str = "") -> dict[str, float]:
    """Tell of answers a minute apart, the first of them at noon."""
    for number, answer in enumerate(answers):
        seen.see_instances(MINER, answer, NOON + 60 * number, still_active)
    return counts(seen)


LATER = NOON + 3600


def test_the_first_answer_is_only_where_counting_starts(seen: Observations) -> None:
    assert watch(seen, [instances("ab")]) == {"instances_started": 0, "instances_stopped": 0}


def test_a_new_instance_has_started_and_a_missing_one_has_stopped(seen: Observations) -> None:
    new = instances("cd", created=LATER)
    found = watch(seen, [instances("ab"), instances("b") + new, new, new, new])
    assert (found["instances_started"], found["instances_stopped"]) == (2, 2)


def test_a_stream_that_stopped_early_once_counts_nothing(seen: Observations) -> None:
    whole = instances("abc", created=LATER)
    found = watch(seen, [whole, whole[:1], whole, [], whole])
    assert (found["instances_started"], found["instances_stopped"]) == (0, 0)


def test_streams_that_stop_early_again_and_again_count_nothing_that_another_endpoint_contradicts(
    seen: Observations,
) -> None:
    whole = instances("abc", created=LATER)
    found = watch(seen, [whole, [], [], whole, [], [], [], whole], still_active="abc")
    assert (found["instances_started"], found["instances_stopped"]) == (0, 0)


def test_a_stopped_instance_is_counted_once_even_if_it_returns(seen: Observations) -> None:
    whole = instances("a", created=LATER)
    found = watch(seen, [whole, [], [], [], whole, [], [], whole])
    assert (found["instances_started"], found["instances_stopped"]) == (0, 1)


def test_a_first_answer_that_stopped_early_makes_no_starts_of_what_was_there(seen: Observations) -> None:
    found = watch(seen, [instances("a"), instances("abc", created=NOON - 61)])
    assert found["instances_started"] == 0


def test_an_instance_without_a_creation_time_does_not_count_as_started(seen: Observations) -> None:
    assert watch(seen, [[], instances("a", created=None)])["instances_started"] == 0


def test_an_instance_that_starts_while_requests_fail_is_counted(seen: Observations) -> None:
    seen.see_instances(MINER, [], NOON)
    seen.see_instances(MINER, instances("a", created=NOON + 60), NOON + 1800)
    assert counts(seen)["instances_started"] == 1


def test_an_instance_that_returns_after_a_long_time_does_not_count_as_started(seen: Observations) -> None:
    both = instances("ab")
    found = watch(seen, [both, *[both[:1]] * 150])
    assert found["instances_stopped"] == 1
    assert len(seen._instances[MINER].seen) == 1  # noqa: SLF001 - memory is what this is about
    seen.see_instances(MINER, both, NOON + 60 * 151)
    assert counts(seen)["instances_started"] == 0


def test_an_instance_that_is_listed_twice_counts_once(seen: Observations) -> None:
    twice = instances("aa", created=LATER)
    found = watch(seen, [[], twice, twice, [], []])
    assert found == {"instances_started": 1, "instances_stopped": 1}


def test_gpus_fail_when_their_error_is_new(seen: Observations) -> None:
    def gpus(**errors: str | None) -> list[Node]:
        return [Node(uuid, verification_error=error) for uuid, error in errors.items()]

    for answer in (
        gpus(a="x", b=None),  # where counting starts
        gpus(a="x", b="x"),  # b fails
        gpus(a=None, b="y", c="x"),  # c was never seen without its error
        gpus(a="z"),  # a fails again
        gpus(a="z", b="y", c="x"),  # b and c were only left out
    ):
        seen.see_gpus(MINER, answer, NOON)
    assert counts(seen) == {"gpu_verification_failures": 2}


def test_an_answer_that_does_not_have_a_gpus_error_does_not_clear_it(seen: Observations) -> None:
    for answer in ([Node("a", verification_error="x")], [Node("a")], [Node("a", verification_error="x")]):
        seen.see_gpus(MINER, answer, NOON)
    assert counts(seen) == {"gpu_verification_failures": 0}
    # One that never said anything is no failure either.
    for answer in ([Node("b")], [Node("b", verification_error="x")], [Node("b", verification_error=None)]):
        seen.see_gpus(MINER, answer, NOON)
    assert counts(seen) == {"gpu_verification_failures": 0}


async def test_over_two_days_of_a_moving_world_the_counts_are_the_worlds_own(clock: Clock) -> None:
    world = World(start=NOON, size=Size(miners=2, active_miners=2, chutes=40))
    only = {collector.name: collector.name in ("instances", "nodes") for collector in COLLECTORS}
    async with (
        Simulator(world, clock=clock) as simulator,
        Exporter(watching(simulator.url, collectors=only), clock=clock) as exporter,
    ):
        there: list[set[str]] = []
        text = b""
        for quarter in range(2 * 24 * 4):
            clock.now = NOON + quarter * HOUR / 4
            if quarter == 96:
                world.miners[0].gpus[0].error = "GraVal challenge timed out"
            # One fetch in five fails, in all ways.
            fault = [Fault(status=500), Fault(body=b""), Fault(cut_after=300), Fault(body=b"<")][quarter // 5 % 4]
            simulator.faults.update({"instances": fault, "nodes": fault} if quarter % 5 == 3 else {})
            if quarter % 5 != 3:
                simulator.faults.clear()
                there.append({one.instance_id for one in world.instances(clock.now, HOTKEY)})
            for feed in exporter.feeds.states():
                feed.fresh_until = feed.closed_until = 0
            text = await exporter.page(Format.TEXT, timeout=5)
    page = parse_page(text.decode())
    first, *rest = there
    started = set().union(*rest) - first
    # The last answer's absences are not confirmed yet.
    stopped = {one for before, after in zip(there, rest, strict=False) for one in before - after} - (
        there[-2] - there[-1]
    )
    assert page[series("chutes_observed_instances_started_total", hotkey=HOTKEY)] == len(started) > 20
    assert page[series("chutes_observed_instances_stopped_total", hotkey=HOTKEY)] == len(stopped) > 20
    assert page[series("chutes_observed_gpu_verification_failures_total", hotkey=HOTKEY)] == 1


async def test_openmetrics_has_the_start_of_each_counter_on_request(simulator: Simulator, clock: Clock) -> None:
    keys = tuple(miner.key for miner in simulator.world.miners[:2])
    credentials = Credentials(keys, (), ())
    async with Exporter(make_settings(api_url=simulator.url, credentials=credentials), clock=clock) as exporter:
        assert b"_created" not in (await exporter.page(Format.OPENMETRICS, timeout=5)).replace(b"_created_time", b"")
    settings = make_settings(api_url=simulator.url, credentials=credentials, created_timestamps=True)
    async with Exporter(settings, clock=clock) as exporter:
        text = (await exporter.page(Format.OPENMETRICS, timeout=5)).decode()
    assert "\nchutes_api_requests_created{" in text
    for name in ("instances_started", "gpu_verification_failures"):
        lines = [line for line in text.splitlines() if line.startswith(f"chutes_observed_{name}")]
        first, second = (f'hotkey="{key.address}"' for key in keys)
        assert lines == [
            f"chutes_observed_{name}_total{{{first}}} 0.0",
            f"chutes_observed_{name}_created{{{first}}} 1.7955216e+09",
            f"chutes_observed_{name}_total{{{second}}} 0.0",
            f"chutes_observed_{name}_created{{{second}}} 1.7955216e+09",
        ]


async def test_a_miner_that_is_not_watched_any_more_has_no_counters(simulator: Simulator) -> None:
    async with Exporter(watching(simulator.url), clock=Clock()) as exporter:
        page = parse_page((await exporter.page(Format.TEXT, timeout=5)).decode())
        assert page[series("chutes_observed_instances_started_total", hotkey=HOTKEY)] == 0
        simulator.faults["instances"] = Fault(latency=0.5)
        for feed in exporter.feeds.states():
            feed.fresh_until = 0
        await exporter.page(Format.TEXT, timeout=0.2)
        exporter.reconfigure(make_settings(api_url=simulator.url, hotkeys=[simulator.world.miners[1].hotkey]))
        await asyncio.sleep(0.6)
        page = parse_page((await exporter.page(Format.TEXT, timeout=5)).decode())
    assert not [key for key in page if ("hotkey", HOTKEY) in key[1]]
