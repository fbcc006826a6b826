"""A field that a record lacks, or that is null, changes no number and adds none: each field of
recorded answers.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.errors import ApiError
from chutes_exporter.collectors import COLLECTORS, Answers, Miners
from chutes_exporter.collectors.base import Samples
from chutes_exporter.feeds.definitions import FEEDS
from tests.collectors.support import decoded
from tests.recorded import DIRECTORIES, EXTRA, NAMES, Miner, raw_json, seconds, stream
from tests.support import HOTKEY, examples

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric as Family

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.feeds.feed import Feed

Path = tuple[str | int, ...]
Key = tuple[str, frozenset[tuple[str, str]]]
Answered = dict["Feed[Any]", "Answer[Any] | None"]
Families = dict[str, "Family"]
"""Families of samples by name."""

_OF_INSTANCES = {
    "chutes_instance_compute_units_per_second",
    "chutes_instance_deadline_timestamp_seconds",
    "chutes_instance_gpus",
    "chutes_instance_last_active",
    "chutes_instance_later_compute_units_per_second",
    "chutes_instance_decision",
    "chutes_instance_start_in_vain",
    "chutes_instance_state",
}
_BEST_USE = {
    "chutes_fleet_idle_compute_units_per_second",
    "chutes_fleet_idle_later_compute_units_per_second",
    "chutes_server_idle_compute_units_per_second",
    "chutes_server_idle_later_compute_units_per_second",
    "chutes_server_launch_compute_units_per_second",
    "chutes_server_launch_instances",
}
NULL_MEANS = {
    # Not blacklisted, so scored.
    "metagraph.blacklist_reason": {
        "chutes_miner_blacklisted",
        "chutes_metagraph_blacklisted_miners",
        "chutes_miner_score_heading_ratio",
    },
    # Not disabled, so it may be launched.
    "chutes.disabled": {"chutes_launch_first_day_units_per_gpu_second"},
    # No window. A deployment of May 2026 sends nothing else about it.
    "maintenance.active_window": {"chutes_maintenance_window_open"},
    # Not verified.
    "nodes.verified_at": {
        "chutes_gpu_verified",
        "chutes_fleet_gpus",
        "chutes_gpu_state",
        "chutes_server_gpus",
        "chutes_server_state",
    },
    # Any number of GPUs.
    "tee_measurements.gpu_count": {"chutes_server_upgrade_measured"},
    # Never active.
    "instances.activated_at": {
        *_OF_INSTANCES,
        "chutes_fleet_gpus",
        "chutes_fleet_instances",
        "chutes_gpu_state",
        "chutes_miner_disabled_compute_units_per_second",
        "chutes_server_compute_units_per_second",
        "chutes_server_earning_instances",
        "chutes_server_gpus",
        "chutes_server_state",
    },
    "held_gpus.provisioned.chute.activated_at": {"chutes_launch_starting_instances"},
    # Nobody is billed, so the instance is public, which is a label.
    "instances.billed_to": _OF_INSTANCES,
    # Not yet, a public instance, no reason, and an end that is not valid.
    **{
        f"audit_report.instance_audit.{field}": {
            "chutes_miner_window_ended_instances",
            "chutes_miner_window_lost_compute_units",
            "chutes_miner_window_total_lost_compute_units",
            "chutes_miner_chute_window_ended_instances",
            "chutes_miner_chute_window_lost_compute_units",
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
    # A text of its own: another state.
    "images.status": {"chutes_images", "chutes_image_state"},
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
        *_BEST_USE,
        "chutes_instance_later_compute_units_per_second",
        "chutes_launch_first_day_units_per_gpu_second",
        "chutes_launch_later_units_per_gpu_second",
        "chutes_launch_room_instances",
    }
    for factor in (
        "private",
        "private_tee",
        "integrated_subnet",
        "bounty_boost",
        "urgency_boost",
    )
}
"""A factor is present only if it applies.

Without these, a chute follows the rules of public chutes, and has neither bounty nor boost.
"""
# A deployment before October 2026 does not send it, and has no pending maintenance.
ABSENCE_MEANS["maintenance.servers.maintenance_status"] = {
    "chutes_fleet_servers_to_upgrade",
    "chutes_server_upgrade_order",
    "chutes_server_maintenance_state",
    "chutes_server_state",
    "chutes_maintenance_older_slots_in_use",
}
SAYS_WHAT_IS_KNOWN = {
    "chutes_audit_reports_known",
    "chutes_fleet_known",
    "chutes_miner_unknown_losses",
}
"""Metrics that must change when a record cannot be read."""
LOWER_BOUNDS = {
    "chutes_miner_window_lost_compute_units",
    "chutes_miner_window_total_lost_compute_units",
}
"""Sums that say how many of their parts are unknown, and then are at least so much."""
BY_REASON = {"chutes_launch_refused_chutes"}
"""Counts by the first reason that is known.

A missing field moves a chute to another reason, or to ``unknown``.
"""
SHARE_ROOM = {"servers", "nodes", "maintenance", "chutes", "instances", "utilization"}
"""Answers of which a missing part takes a server or a chute out of the choice.

What a server would launch is then given to others, and the best use is that of the chutes of which
all is known: at least so much is possible.
"""
# Never active, so its start ended when it ended.
NULL_MEANS["audit_report.instance_audit.activated_at"].add("chutes_instance_planned_start_end")
# Claimed by nobody.
NULL_MEANS["jobs.miner_hotkey"] = NULL_MEANS["jobs.finished_at"]
_MANY = examples(1)
FIELDS = [feed for feed in FEEDS if feed.name in (*NAMES, *EXTRA, "maintenance")]


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Return the place of every field, at any depth. Of many records, some are chosen."""
    if isinstance(value, list):
        for number, record in _some(enumerate(value), len(value)):
            yield from paths(record, (*at, number))
    elif isinstance(value, dict) and _has_records(value):
        for name, record in _some(value.items(), len(value)):
            yield from paths(record, (*at, name))
    elif isinstance(value, dict):
        for name, content in value.items():
            yield (*at, name)
            yield from paths(content, (*at, name))


def _has_records(value: dict[str, Any]) -> bool:
    """Return whether an object has records by hotkey or model, and no fields.

    No record has more than 5 fields that are all objects or lists.
    """
    are_names = len(value) > 5 or all(len(name) == len(HOTKEY) for name in value)
    return are_names and all(isinstance(record, dict | list) for record in value.values())


def _some(records: Iterable[tuple[Any, Any]], count: int) -> Iterator[tuple[Any, Any]]:
    """Return so many records at most as examples are asked for, evenly spread."""
    return itertools.islice(records, 0, None, 1 + count // _MANY)


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


async def answer_of(feed: Feed[Any], body: bytes, report_end: float) -> Answer[Any] | None:
    """Return what an answer says, None if it cannot be read."""
    try:
        return await decoded(feed, body, report_end=report_end)
    except ApiError:
        return None


def report_end_in(bodies: dict[str, bytes]) -> float:
    """Return the end of the hour of the newest audit report."""
    reports = json.loads(bodies["audit"])
    hourly = [report for report in reports if report["path"].startswith("audit/validator/")]
    newest = max(report["end_time"] for report in hourly)
    return seconds(newest) or 0.0


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
            assert collector.run(Answers(known), miners, out)
        families |= {family.name: family for family in out.collect()}
    return families


@pytest.fixture(scope="module", params=DIRECTORIES, ids=lambda path: path.name)
def bodies(request: pytest.FixtureRequest) -> dict[str, bytes]:
    return Miner(request.param, "test_miner").bodies()


@pytest.fixture(scope="module")
def answers(bodies: dict[str, bytes]) -> Answered:
    async def read() -> Answered:
        read_answers: Answered = {}
        for feed in FEEDS:
            if feed.name in bodies:
                body, report_end = bodies[feed.name], report_end_in(bodies)
                read_answers[feed] = await answer_of(feed, body, report_end)
        return read_answers

    answers = asyncio.run(read())
    assert None not in answers.values()
    return answers


def numbers(families: Families, names: Iterable[str]) -> dict[Key, float]:
    """Return the values of some families."""
    values = {}
    for name in names:
        if name not in families:
            continue
        for sample in families[name].samples:
            labels = frozenset((label, text) for label, text in sample.labels.items() if text)
            values[sample.name, labels] = sample.value
    return values


def false_values(before: dict[Key, float], after: dict[Key, float]) -> set[str]:
    """Return the names of the samples that say something else than before, or something new."""
    gone = before.keys() - after.keys()
    names = set()
    for key, value in after.items():
        is_other = key in before and before[key] != value
        is_new = key not in before and not _lacks_a_label(key, gone)
        if is_other or is_new:
            names.add(key[0])
    return names


def _lacks_a_label(key: Key, gone: set[Key]) -> bool:
    """Tell whether a sample only describes with fewer labels what one that is gone described."""
    name, labels = key
    if not name.endswith("_info"):
        return False
    return any(name == gone_name and labels < gone_labels for gone_name, gone_labels in gone)


@pytest.mark.parametrize("kind", ["missing", "null"])
@pytest.mark.parametrize("feed", FIELDS, ids=lambda feed: feed.name)
async def test_a_missing_field_changes_no_number_and_adds_none(
    bodies: dict[str, bytes], answers: Answered, feed: Feed[Any], kind: str
) -> None:
    before = samples(answers, of=feed)
    wrong: dict[str, set[str]] = {}
    raw = raw_json(bodies)[feed.name]
    is_stream = bodies[feed.name].startswith(b"data: ")
    all_paths = list(paths(raw))
    for path in all_paths:
        value = changed(raw, kind, path)
        body = stream(value) if is_stream else json.dumps(value).encode()
        changed_answer = await answer_of(feed, body, report_end_in(bodies))
        after = samples({**answers, feed: changed_answer}, of=feed)
        # To compare families is faster than to compare all numbers.
        differing = [
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        ]
        false = false_values(numbers(before, differing), numbers(after, differing))
        place = _name_of_place(feed, path)
        false -= _may_change(place, kind, feed)
        if false:
            wrong.setdefault(place, set()).update(false)
    assert all_paths or raw == []
    assert wrong == {}


def _name_of_place(feed: Feed[Any], path: Path) -> str:
    """Return the feed and the names of fields that lead to a place, such as ``chutes.disabled``."""
    # Hotkeys are no names of fields.
    fields = [step for step in path if isinstance(step, str) and len(step) != len(HOTKEY)]
    return ".".join([feed.name, *fields])


def _may_change(place: str, kind: str, feed: Feed[Any]) -> set[str]:
    """Return the metrics that may change if a field is absent, or null if the kind is "null"."""
    meanings = NULL_MEANS if kind == "null" else ABSENCE_MEANS
    names = meanings.get(place, set()) | BY_REASON | SAYS_WHAT_IS_KNOWN
    if feed.name in SHARE_ROOM:
        names |= _BEST_USE
    if feed.name == "audit_report":
        names |= LOWER_BOUNDS
    return names


def test_a_record_that_is_listed_twice_counts_once(answers: Answered) -> None:
    for feed, answer in answers.items():
        if answer is None or not isinstance(answer.value, list):
            continue
        # Records of held GPUs have no ids.
        if feed.name == "miner_gpus":
            continue
        twice = {**answers, feed: replace(answer, value=answer.value * 2)}
        assert samples(twice, of=feed) == samples(answers, of=feed), feed
