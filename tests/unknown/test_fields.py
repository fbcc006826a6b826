"""A field that a record lacks, or that is null, changes no number and adds none: each field of
recorded answers.
"""

from __future__ import annotations

import asyncio
import copy
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.errors import ApiError
from chutes_exporter.collectors import COLLECTORS, Answers, Miners
from chutes_exporter.collectors.base import Samples
from chutes_exporter.feeds.definitions import FEEDS
from chutes_exporter.feeds.fleet import Joined
from tests.collectors.support import decoded
from tests.recorded import (
    DIRECTORIES,
    EXTRA,
    NAMES,
    WORLD_H,
    Miner,
    raw_json,
    report_index,
    seconds,
    stream,
)
from tests.support import HOTKEY, examples, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path as FilePath

    from prometheus_client import Metric as Family

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.feeds.feed import Feed

Path = tuple[str | int, ...]
Key = tuple[str, frozenset[tuple[str, str]]]
Answered = dict["Feed[Any]", "Answer[Any] | None"]
Families = dict[str, "Family"]
"""Families of samples by name."""

INSTANCES = """
    instance_compute_units_per_second instance_deadline_timestamp_seconds instance_decision
    instance_gpus instance_later_compute_units_per_second instance_start_in_vain instance_state
"""
GPUS = "fleet_gpus gpu_state server_gpus server_state"
ENDS = """
    miner_chute_window_ended_instances miner_chute_window_lost_compute_units
    miner_window_ended_instances miner_window_lost_compute_units
    miner_window_total_lost_compute_units
"""
JOBS = """
    job_compute_multiplier job_created_timestamp_seconds job_info job_tries jobs_available
    jobs_oldest_created_timestamp_seconds jobs_stuck jobs_tried jobs_waiting
"""
BEST_USE = """
    fleet_idle_compute_units_per_second server_idle_compute_units_per_second
    server_launch_compute_units_per_second server_launch_instances
"""
FACTORS = f"""{BEST_USE} instance_later_compute_units_per_second
    launch_first_day_units_per_gpu_second launch_later_units_per_gpu_second launch_room_instances
"""
NULL_MEANS = {
    # Not blacklisted, so scored.
    "metagraph.blacklist_reason": """
        metagraph_blacklisted_miners miner_blacklisted miner_score_heading_ratio""",
    # Not disabled, so it may be launched.
    "chutes.disabled": "launch_first_day_units_per_gpu_second",
    # No window. A deployment of May 2026 sends nothing else about it.
    "maintenance.active_window": "maintenance_window_open server_maintenance_step",
    # Not verified.
    "nodes.verified_at": f"{GPUS} gpu_verified",
    # Any number of GPUs.
    "tee_measurements.gpu_count": "server_maintenance_step server_upgrade_done_timestamp_seconds",
    # Never active.
    "instances.activated_at": f"""{INSTANCES} {GPUS} fleet_instances
        miner_disabled_compute_units_per_second server_compute_units_per_second
        server_earning_instances""",
    "held_gpus.provisioned.chute.activated_at": "launch_starting_instances",
    # Nobody is billed, so the instance is public, which is a label.
    "instances.billed_to": INSTANCES,
    # Never active, so its start ended when it ended.
    "audit_report.instance_audit.activated_at": f"{ENDS} instance_planned_start_end",
    # Not yet, a public instance, no reason, and an end that is not valid.
    "audit_report.instance_audit.deleted_at": ENDS,
    "audit_report.instance_audit.stop_billing_at": ENDS,
    "audit_report.instance_audit.billed_to": ENDS,
    "audit_report.instance_audit.deletion_reason": ENDS,
    "audit_report.instance_audit.valid_termination": ENDS,
    # A text of its own: another state.
    "images.status": "image_state images",
    # Not over, and claimed by nobody.
    "jobs.finished_at": JOBS,
    "jobs.miner_hotkey": JOBS,
}
"""Metrics that null in a field may change, because null has a meaning there."""
ABSENCE_MEANS = {
    # A factor is present only if it applies. Without these, a chute follows the rules of public
    # chutes, and has neither bounty nor boost.
    "chutes.compute_multiplier_factors.private": FACTORS,
    "chutes.compute_multiplier_factors.private_tee": FACTORS,
    "chutes.compute_multiplier_factors.integrated_subnet": FACTORS,
    "chutes.compute_multiplier_factors.bounty_boost": FACTORS,
    "chutes.compute_multiplier_factors.urgency_boost": FACTORS,
    # A deployment before October 2026 does not send it, and has no pending maintenance.
    "maintenance.servers.maintenance_status": """
        server_maintenance_state server_maintenance_step server_state
        server_upgrade_done_timestamp_seconds""",
}
"""Metrics that the absence of a field may change."""
SAYS_WHAT_IS_KNOWN = {
    "chutes_audit_reports_known",
    "chutes_fleet_known",
    "chutes_miner_unknown_losses",
}
"""Metrics that must change when a record cannot be read."""
PARTS_OF_ANSWERS = {
    # Sums that say how many of their parts are unknown, and then are at least so much.
    "audit_report": "miner_window_lost_compute_units miner_window_total_lost_compute_units",
    # A missing part takes a server or a chute out of the choice. What a server would launch is then
    # given to others, and the best use is that of the chutes of which all is known.
    "chutes": BEST_USE,
    # A server on which something may run, or that may not come back, is not to be rebooted.
    "instances": f"{BEST_USE} server_maintenance_step",
    "maintenance": BEST_USE,
    "inventory": "server_maintenance_step",
    "nodes": f"{BEST_USE} server_maintenance_step",
    "servers": f"{BEST_USE} server_maintenance_step",
    "utilization": BEST_USE,
}
"""Metrics that any missing field of a feed may change."""
WORLDS = DIRECTORIES if examples(1) > 1 else [WORLD_H]
"""The newest service. CI's deeper run takes all."""
FIELDS = [feed for feed in FEEDS if feed.name in (*NAMES, *EXTRA, "maintenance")]


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the place of every field, at any depth. Of many records, some are chosen."""
    if isinstance(value, list):
        records = list(enumerate(value))
    elif isinstance(value, dict):
        records = list(value.items())
    else:
        return
    is_by_name = isinstance(value, dict)
    if is_by_name and not _has_records(value):
        for name, content in records:
            yield (*at, name)
            yield from paths(content, (*at, name))
        return
    for name, record in records[:: 1 + len(records) // examples(1)]:
        yield from paths(record, (*at, name))


def _has_records(value: dict[str, Any]) -> bool:
    """Return whether an object has records by hotkey or model, and no fields.

    No record has more than 5 fields that are all objects or lists.
    """
    are_names = len(value) > 5 or all(len(name) == len(HOTKEY) for name in value)
    return are_names and all(isinstance(record, dict | list) for record in value.values())


def changed(value: Any, kind: str, path: Path) -> Any:
    """Return an answer without a field, or with null in it if the kind is "null".

    It shares what is unchanged with the original.
    """
    step, *inner_path = path
    copied = copy.copy(value)
    if inner_path:
        copied[step] = changed(value[step], kind, tuple(inner_path))
    elif kind == "null":
        copied[step] = None
    else:
        del copied[step]
    return copied


def samples(answers: Answered, *, of: Feed[Any]) -> Families:
    """Return the samples of all collectors that need a feed."""
    families: Families = {}
    known = {feed.name: answer for feed, answer in answers.items() if answer is not None}
    for collector in COLLECTORS:
        if of not in collector.feeds:
            continue
        out = Samples()
        # First for the platform, then for the miner.
        for hotkey in ("", HOTKEY):
            miners = Miners(frozenset({HOTKEY}), "all", hotkey)
            assert collector.run(Answers(known, Joined({"": known})), miners, out)
        families |= {family.name: family for family in out.families()}
    return families


class World:
    """A recorded world, whose answers are decoded once."""

    def __init__(self, directory: FilePath) -> None:
        self.bodies = Miner(directory).bodies()
        self.json = raw_json(self.bodies)
        self._report_end = seconds(report_index(directory)[0]["end"]) or 0.0
        self.answers = asyncio.run(self._read_all())
        assert None not in self.answers.values()

    async def _read_all(self) -> Answered:
        feeds = [feed for feed in FEEDS if feed.name in self.bodies]
        return {feed: await self.read(feed, self.bodies[feed.name]) for feed in feeds}

    async def read(self, feed: Feed[Any], body: bytes) -> Answer[Any] | None:
        """Return what an answer says, None if it cannot be read."""
        try:
            return await decoded(feed, body, report_end=self._report_end)
        except ApiError:
            return None

    async def without(self, feed: Feed[Any], kind: str, path: Path) -> Families:
        """Return the samples when a field of an answer is changed."""
        value = changed(self.json[feed.name], kind, path)
        is_stream = self.bodies[feed.name].startswith(b"data: ")
        body = stream(value) if is_stream else json.dumps(value).encode()
        return samples({**self.answers, feed: await self.read(feed, body)}, of=feed)


@pytest.fixture(scope="module", params=WORLDS, ids=lambda path: path.name)
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def numbers(families: Families, names: Iterable[str]) -> dict[Key, float]:
    """Return the values of some families."""
    values = {}
    for name in names:
        if name in families:
            for sample in families[name].samples:
                labels = frozenset((label, text) for label, text in sample.labels.items() if text)
                values[sample.name, labels] = sample.value
    return values


def false_values(before: Families, after: Families) -> set[str]:
    """Return the names of the samples that say something else than before, or something new."""
    # To compare families is faster than to compare all numbers.
    differing = [
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    ]
    known, shown = numbers(before, differing), numbers(after, differing)
    gone = known.keys() - shown.keys()
    names = set()
    for (name, labels), value in shown.items():
        # A description may lack a label that it had before.
        is_shorter = name.endswith("_info") and any(
            name == gone_name and labels < gone_labels for gone_name, gone_labels in gone
        )
        if known.get((name, labels)) != value and not is_shorter:
            names.add(name)
    return names


@pytest.mark.parametrize("kind", ["missing", "null"])
@pytest.mark.parametrize("feed", FIELDS, ids=lambda feed: feed.name)
async def test_a_missing_field_changes_no_number_and_adds_none(
    world: World, feed: Feed[Any], kind: str
) -> None:
    before = samples(world.answers, of=feed)
    meanings = NULL_MEANS if kind == "null" else ABSENCE_MEANS
    wrong = []
    all_paths = list(paths(world.json[feed.name]))
    for path in all_paths if kind == "missing" else some(all_paths):
        after = await world.without(feed, kind, path)
        # Hotkeys are no names of fields.
        names = [step for step in path if isinstance(step, str) and len(step) != len(HOTKEY)]
        place = ".".join([feed.name, *names])
        may_change = [
            *meanings.get(place, "").split(),
            *PARTS_OF_ANSWERS.get(feed.name, "").split(),
            # A missing field moves a refused chute to another reason, or to "unknown".
            "launch_refused_chutes",
        ]
        false = false_values(before, after) - SAYS_WHAT_IS_KNOWN
        if false := false - {f"chutes_{name}" for name in may_change}:
            wrong.append((place, false))
    assert all_paths or world.json[feed.name] == []
    assert wrong == []


def test_a_record_that_is_listed_twice_counts_once(world: World) -> None:
    for feed, answer in world.answers.items():
        # Records of held GPUs have no ids.
        if answer is None or not isinstance(answer.value, list) or feed.name == "miner_gpus":
            continue
        twice = {**world.answers, feed: replace(answer, value=answer.value * 2)}
        assert samples(twice, of=feed) == samples(world.answers, of=feed), feed
