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
            "chutes_miner_ended_instances",
            "chutes_miner_lost_compute_units",
            "chutes_miner_total_lost_compute_units",
            "chutes_miner_chute_ended_instances",
            "chutes_miner_chute_lost_compute_units",
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
        *_BEST_USE,
        "chutes_launch_first_day_units_per_gpu_second",
        "chutes_launch_later_units_per_gpu_second",
        "chutes_launch_room_instances",
    }
    for factor in ("private", "private_tee", "integrated_subnet", "bounty_boost")
}
"""A factor is present only if it applies.

Without these, a chute follows the rules of public chutes and has no bounty.
"""
# A deployment before October 2026 does not send it, and has no pending maintenance.
ABSENCE_MEANS["maintenance.servers.maintenance_status"] = {
    "chutes_fleet_servers_to_upgrade",
    "chutes_server_upgrade_order",
    "chutes_server_maintenance_status",
    "chutes_server_state",
    "chutes_maintenance_older_slots_in_use",
}
SAYS_WHAT_IS_KNOWN = {
    "chutes_audit_reports_known",
    "chutes_fleet_known",
}
"""Metrics that must change when a record cannot be read."""
BY_REASON = {"chutes_launch_refused_chutes"}
"""Counts by the first reason that is known.

A missing field moves a chute to another reason, or to ``unknown``.
"""
SHARE_ROOM = {"servers", "nodes", "maintenance", "chutes", "instances", "utilization"}
"""Answers of which a missing part takes a server or a chute out of the choice.

What a server would launch is then given to others, and the best use is that of the chutes of which
all is known: at least so much is possible.
"""
# Claimed by nobody.
NULL_MEANS["jobs.miner_hotkey"] = NULL_MEANS["jobs.finished_at"]
_MANY = examples(1)
FIELDS = [feed for feed in FEEDS if feed.name in (*NAMES, *EXTRA, "maintenance")]


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Return the place of every field, at any depth."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
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


def changed(value: Any, kind: str, path: Path) -> Any:
    """Return an answer without a field, or with null in it.

    It shares what is unchanged with the original.
    """
    step, *way = path
    copied = copy.copy(value)
    if way:
        copied[step] = changed(value[step], kind, tuple(way))
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
    listed = [
        row["end_time"]
        for row in json.loads(bodies["audit"])
        if row["path"].startswith("audit/validator/")
    ]
    return seconds(max(listed)) or 0.0


def samples(answers: Answered, *, of: Feed[Any]) -> Families:
    """Return the samples of all collectors that need a feed."""
    found: Families = {}
    known = {feed.name: answer for feed, answer in answers.items() if answer is not None}
    for collector in COLLECTORS:
        if of in collector.feeds:
            out = Samples()
            for hotkey in ("", HOTKEY):
                assert collector.run(
                    Answers(known), Miners(frozenset({HOTKEY}), "all", hotkey), out
                )
            found |= {family.name: family for family in out.collect()}
    return found


@pytest.fixture(scope="module", params=DIRECTORIES, ids=lambda path: path.name)
def bodies(request: pytest.FixtureRequest) -> dict[str, bytes]:
    return Miner(request.param, "test_miner").bodies()


@pytest.fixture(scope="module")
def answers(bodies: dict[str, bytes]) -> Answered:
    async def read() -> Answered:
        return {
            feed: await answer_of(feed, bodies[feed.name], report_end_in(bodies))
            for feed in FEEDS
            if feed.name in bodies
        }

    found = asyncio.run(read())
    assert None not in found.values()
    return found


def numbers(families: Families, names: Iterable[str]) -> dict[Key, float]:
    """Return the values of some families."""
    return {
        (
            sample.name,
            frozenset((label, text) for label, text in sample.labels.items() if text),
        ): sample.value
        for name in names
        if name in families
        for sample in families[name].samples
    }


def false_values(before: dict[Key, float], after: dict[Key, float]) -> set[str]:
    """Return the names of the samples that say something else than before, or something new."""
    gone = before.keys() - after.keys()
    return {
        key[0]
        for key, value in after.items()
        if (before[key] != value if key in before else not _lacks_a_label(key, gone))
    }


def _lacks_a_label(key: Key, gone: set[Key]) -> bool:
    """Tell whether a sample only describes with fewer words what another one described."""
    name, labels = key
    return name.endswith("_info") and any(name == other and labels < more for other, more in gone)


@pytest.mark.parametrize("kind", ["missing", "null"])
@pytest.mark.parametrize("feed", FIELDS, ids=lambda feed: feed.name)
async def test_a_missing_field_changes_no_number_and_adds_none(
    bodies: dict[str, bytes], answers: Answered, feed: Feed[Any], kind: str
) -> None:
    before = samples(answers, of=feed)
    wrong: dict[str, set[str]] = {}
    raw = raw_json(bodies)[feed.name]
    places = list(paths(raw))
    for path in places:
        value = changed(raw, kind, path)
        body = (
            stream(value) if bodies[feed.name].startswith(b"data: ") else json.dumps(value).encode()
        )
        after = samples(
            {**answers, feed: await answer_of(feed, body, report_end_in(bodies))}, of=feed
        )
        differing = [
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        ]
        # Hotkeys are no names of fields.
        steps = [step for step in path if isinstance(step, str) and len(step) != len(HOTKEY)]
        place = ".".join([feed.name, *steps])
        allowed = (NULL_MEANS if kind == "null" else ABSENCE_MEANS).get(place, set())
        allowed = allowed | BY_REASON | SAYS_WHAT_IS_KNOWN
        allowed |= _BEST_USE if feed.name in SHARE_ROOM else set()
        if false := false_values(numbers(before, differing), numbers(after, differing)) - allowed:
            wrong.setdefault(place, set()).update(false)
    assert places or raw == []
    assert wrong == {}


def test_a_record_that_is_listed_twice_counts_once(answers: Answered) -> None:
    for feed, answer in answers.items():
        # Records of held GPUs have no ids.
        if answer is not None and isinstance(answer.value, list) and feed.name != "miner_gpus":
            twice = {**answers, feed: replace(answer, value=answer.value * 2)}
            assert samples(twice, of=feed) == samples(answers, of=feed), feed
