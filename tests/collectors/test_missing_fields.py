"""What is missing is not zero: without it, every number stays as it was or is absent.

Of each recorded answer, one thing is taken away at a time: each field of a record of each kind, a whole record, or the
answer, and the answer is doubted.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.errors import ApiError
from chutes_exporter.collectors import COLLECTORS, Answers, Miners
from chutes_exporter.collectors.base import Samples
from chutes_exporter.feeds.table import FEEDS
from tests.collectors.support import decoded
from tests.recorded import ALL_ON, DIRECTORIES, EXTRA, NAMES, Miner, raw_json, stream
from tests.support import HOTKEY, RECORDINGS, data_of, examples, replay, scrape, served, watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import Metric as Family

    from chutes_exporter.api.client import Answer
    from chutes_exporter.feeds.feed import Feed

Path = tuple[str | int, ...]
Key = tuple[str, frozenset[tuple[str, str]]]
Numbers = dict[Key, float]
Families = dict[str, "Family"]
"""Families of samples by name."""

_INSTANCES = {"chutes_fleet_instances", "chutes_fleet_gpus", "chutes_miner_score_heading_ratio"}
NULL_MEANS = {
    # Not blacklisted, so scored.
    "metagraph.blacklist_reason": {
        "chutes_miner_blacklisted",
        "chutes_metagraph_blacklisted_miners",
        "chutes_miner_score_heading_ratio",
    },
    # Not disabled, so it may be launched.
    "chutes.disabled": {"chutes_launch_units_per_gpu_second"},
    # No window. A deployment of May 2026 sends nothing else about it.
    "maintenance.active_window": {"chutes_maintenance_window_open"},
    # Not verified.
    "nodes.verified_at": {"chutes_gpu_verified", "chutes_gpu_state_info", "chutes_fleet_gpus"},
    # Never active.
    "instances.activated_at": {*_INSTANCES, "chutes_gpu_state_info", "chutes_instance_purge_timestamp_seconds"},
    # Nobody is billed, so the instance is public.
    "instances.billed_to": {"chutes_instance_secured_timestamp_seconds"},
    # Not yet, a public instance, no reason, and an end that is not valid.
    **{
        f"audit_report.instance_audit.{field}": {
            "chutes_miner_window_ended_instances",
            "chutes_miner_window_failed_starts",
            "chutes_miner_window_lost_compute_units",
        }
        for field in (
            "activated_at",
            "deleted_at",
            "stop_billing_at",
            "billed_to",
            "deletion_reason",
            "valid_termination",
        )
    },
    # A text of its own: no status.
    "images.status": {"chutes_images", "chutes_image_info"},
    # Not over.
    "jobs.finished_at": {
        "chutes_jobs_waiting",
        "chutes_jobs_available",
        "chutes_jobs_oldest_created_timestamp_seconds",
        "chutes_jobs_tried",
        "chutes_jobs_stuck",
        "chutes_job_info",
        "chutes_job_created_timestamp_seconds",
        "chutes_job_compute_multiplier",
        "chutes_job_tries",
    },
}
"""Samples that null in a field may change, because null has a meaning there."""
ABSENCE_MEANS = {
    f"chutes.compute_multiplier_factors.{factor}": {
        "chutes_launch_units_per_gpu_second",
        "chutes_launch_room_instances",
    }
    for factor in ("private", "private_tee", "integrated_subnet")
}
"""A factor is present only if it applies. Without these, a chute follows the rules of public chutes."""
BY_REASON = {"chutes_launch_refused_chutes"}
"""Counts by the first reason that is known. A missing field moves a chute to another reason, or to ``unknown``."""
# Claimed by nobody.
NULL_MEANS["jobs.miner_hotkey"] = NULL_MEANS["jobs.finished_at"]
_MANY = examples(1)
KINDS = ("missing", "null")


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Return the place of every field, at any depth."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    # Of many records, in a list or by hotkey or model, some evenly spread.
    many = isinstance(value, list) or (
        isinstance(value, dict)
        and (len(value) > 5 or all(len(key) == len(HOTKEY) for key in value))
        and all(isinstance(part, dict | list) for part in value.values())
    )
    for step, part in itertools.islice(inner, 0, None, 1 + len(value) // _MANY if many else 1):
        if isinstance(value, dict) and not many:
            yield (*at, step)
        yield from paths(part, (*at, step))


def name_of(path: Path) -> str:
    """Return a field's name: its path without the places in lists."""
    return ".".join(step for step in path if isinstance(step, str))


def changed(value: Any, kind: str, path: Path) -> Any:
    """Return an answer without a field, or with null in it. It shares what is unchanged with the original."""
    step, *way = path
    copied = copy.copy(value)
    if way:
        copied[step] = changed(value[step], kind, tuple(way))
    elif kind == "null":
        copied[step] = None
    else:
        del copied[step]
    return copied


def changes(raw: Any, kind: str) -> Iterator[tuple[str, Any]]:
    """Return each field's name with the answer in which a record has lost it."""
    for path in paths(raw):
        yield name_of(path), changed(raw, kind, path)


def json_body(value: Any) -> bytes:
    return json.dumps(value).encode()


async def answer_of(source: Feed[Any], body: bytes) -> Answer[Any] | None:
    """Return what an answer says, None where it cannot be read."""
    try:
        return await decoded(source, body)
    except ApiError:
        return None


@dataclass
class World:
    """Recorded answers, and what the collectors make of them.

    Attributes:
        hotkey: The miner that the answers are about.
        bodies: The bodies by name.
        answers: What they say.
    """

    hotkey: str
    bodies: dict[str, bytes]
    answers: dict[Feed[Any], Answer[Any] | None]

    def body_of(self, name: str, value: Any) -> bytes:
        """Return a changed answer in the form that the recorded one has."""
        return (stream if self.bodies[name].startswith(b"data: ") else json_body)(value)

    def samples(self, *, of: Feed[Any]) -> Families:
        """Return all samples that depend on a source."""
        found: Families = {}
        scope = Miners(frozenset({self.hotkey}), "all", self.hotkey)
        for collector in COLLECTORS:
            if of not in (*collector.feeds, *collector.of_each_key):
                continue
            known = {source.name: answer for source in collector.feeds if (answer := self.answers.get(source))}
            of_keys = {(one.name, self.hotkey): self.answers.get(one) for one in collector.of_each_key}
            out = Samples()
            answers = dict.fromkeys(("", self.hotkey), Answers(known, of_keys))
            assert not any(outcome.failed for outcome in collector.run(answers, scope, out).values())
            for family in out.collect():
                assert family.name not in found
                found[family.name] = family
        return found


@pytest.fixture(scope="module", params=DIRECTORIES, ids=lambda path: path.name)
def world(request: pytest.FixtureRequest) -> World:
    """Recorded answers, to be left as they are."""
    bodies = Miner(request.param, "test_miner").bodies()

    async def read() -> dict[Feed[Any], Answer[Any] | None]:
        return {source: await answer_of(source, bodies[source.name]) for source in FEEDS if source.name in bodies}

    answers = asyncio.run(read())
    assert None not in answers.values()
    return World(HOTKEY, bodies, answers)


def numbers(families: Families, names: Iterable[str]) -> Numbers:
    """Return the values of some families."""
    return {
        (sample.name, frozenset((label, text) for label, text in sample.labels.items() if text)): sample.value
        for name in names
        if name in families
        for sample in families[name].samples
    }


def false_values(before: Numbers, after: Numbers) -> list[Key]:
    """Return the samples that say something else than before, and those that say something new."""
    gone = before.keys() - after.keys()
    return [
        key
        for key, value in after.items()
        if (before[key] != value if key in before else not _lacks_a_label(key, gone))
    ]


def _lacks_a_label(key: Key, gone: set[Key]) -> bool:
    """Tell whether a sample only describes with fewer words what another one described."""
    name, labels = key
    return name.endswith("_info") and any(name == other and labels < more for other, more in gone)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in (*NAMES, *EXTRA, "maintenance") if name != "audit"])
async def test_a_missing_field_changes_no_number_and_adds_none(world: World, name: str, kind: str) -> None:
    (source,) = (source for source in FEEDS if source.name == name)
    before = world.samples(of=source)
    wrong: dict[str, set[str]] = {}
    tried, raw = 0, raw_json(world.bodies)[name]
    for field, answer in changes(raw, kind):
        changed_answer = await answer_of(source, world.body_of(name, answer))
        after = replace(world, answers={**world.answers, source: changed_answer}).samples(of=source)
        differing = [family for family in before.keys() | after.keys() if before.get(family) != after.get(family)]
        place = f"{name}.{field}"
        allowed = (NULL_MEANS if kind == "null" else ABSENCE_MEANS).get(place, set())
        false = false_values(numbers(before, differing), numbers(after, differing))
        if found := {key[0] for key in false} - allowed - BY_REASON:
            wrong.setdefault(place, set()).update(found)
        tried += 1
    assert tried > 1 or raw == []
    assert wrong == {}


NEED_WHOLE_ANSWERS = {
    "metagraph": {"chutes_miner_score_heading_ratio", "chutes_launch_refused_chutes"},
    "stats": {"chutes_platform_window_compute_units", "chutes_platform_window_miners"},
    "servers": {"chutes_server_gpus", "chutes_fleet_gpus", "chutes_launch_refused_chutes"},
    "nodes": {"chutes_fleet_gpus", "chutes_gpu_state_info"},
    "inventory": {"chutes_fleet_gpus", "chutes_gpu_state_info", "chutes_launch_refused_chutes"},
    "instances": {"chutes_fleet_gpus", "chutes_gpu_state_info", "chutes_miner_score_heading_ratio"},
    "active_instances": {"chutes_miner_score_heading_ratio", "chutes_launch_units_per_gpu_second"},
    "utilization": {"chutes_launch_refused_chutes"},
    "rolling_updates": {"chutes_instance_outdated"},
    "tee_measurements": {"chutes_server_version_accepted"},
    "audit_report": {
        "chutes_miner_window_ended_instances",
        "chutes_miner_window_lost_compute_units",
        "chutes_miner_score_heading_ratio",
    },
    "held_gpus": {"chutes_miner_score_heading_ratio"},
}
"""Metrics of functions that would be false if a record of the feed's answer was missing."""


RECORDED = [feed for feed in FEEDS if feed.name in (*NAMES, *EXTRA, "maintenance", "miner_gpus")]


def without_a_record(answer: Answer[Any]) -> Answer[Any]:
    """Return an answer of which a record could not be read."""
    value = answer.value
    return replace(answer, value=value[1:] if isinstance(value, list) else value, rejected=1)


LOSSES: dict[str, Callable[[Answer[Any]], Answer[Any] | None]] = {
    "missing": lambda _: None,
    "doubted": lambda answer: replace(answer, doubt="shrunk"),
    "record": without_a_record,
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("feed", RECORDED, ids=lambda feed: feed.name)
def test_what_is_missing_only_removes_samples_and_all_that_it_could_make_false(
    world: World, feed: Feed[Any], loss: str
) -> None:
    answer = world.answers[feed]
    assert answer is not None
    before = world.samples(of=feed)
    after = replace(world, answers={**world.answers, feed: LOSSES[loss](answer)}).samples(of=feed)
    needing = NEED_WHOLE_ANSWERS.get(feed.name, set())
    assert needing <= {sample.name for family in before.values() for sample in family.samples}
    assert needing & {sample.name for family in after.values() for sample in family.samples} == set()
    false = numbers(after, after).items() - numbers(before, before).items()
    assert {name for (name, _), _ in false} <= BY_REASON


def test_a_record_that_is_listed_twice_counts_once(world: World) -> None:
    for feed, answer in world.answers.items():
        # Records of held GPUs have no ids.
        if answer is not None and isinstance(answer.value, list) and feed.name != "miner_gpus":
            twice = replace(world, answers={**world.answers, feed: replace(answer, value=answer.value * 2)})
            assert twice.samples(of=feed) == world.samples(of=feed), feed


ON_A_PAGE = (
    ("metagraph", "incentive"),
    ("instances", "activated_at"),
    ("stats", "past_day.instance_stats.compute_units"),
)


@pytest.mark.parametrize(("name", "field"), ON_A_PAGE)
async def test_missing_fields_make_their_samples_absent(name: str, field: str) -> None:
    bodies = Miner(RECORDINGS, "test_miner").bodies()
    raw = raw_json(bodies)[name]
    whole = stream if bodies[name].startswith(b"data: ") else json_body
    async with served(replay(bodies)) as url:
        before = data_of(await scrape(watching(url, collectors=ALL_ON)))
        bodies[name] = whole(next(answer for place, answer in changes(raw, "missing") if place == field))
        after = data_of(await scrape(watching(url, collectors=ALL_ON)))
    assert [key for key in false_values(before, after) if key[0] not in BY_REASON] == []
    assert [key for key in before if key not in after and not key[0].endswith("_info")]
