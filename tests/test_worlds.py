"""The recorded worlds: what a page and the commands say, against the truth of the service's
database (``expected.json``), which no code of ours made.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.page.exporter import Exporter
from tests.commands.support import Target, run
from tests.exporters import page_of, patient, read_reports, served
from tests.pages import successes
from tests.recorded import (
    DIRECTORIES,
    Miner,
    raw_json,
    recorded_api,
    report_bodies,
    report_index,
    seconds,
)
from tests.support import HOTKEY, Clock
from tests.truth import Row, differences, values_at

if TYPE_CHECKING:
    from pathlib import Path

SOON = 5e-3
"""How much a sum over time may have moved on when the service answers."""
ESTIMATES = {
    "720a49dd-d784-4444-ba82-e20a69d569a7": 0.001,
    "f67801dc-0ecc-4ed3-ac51-582140e05691": 0.06,
    "d85422a8-b564-48da-ac5c-28ad87e4dd6b": 0.01,
}
"""Private instances whose miners deleted them as the last ones of their chutes, and whose last
multiplier is in no report before it was cut to 0; and the relative error of the estimate."""

UNCLEAR_LOSSES = {
    "61ee0ebb-3ea7-4a61-9b62-e89d934cb21e",
    "c9b45cf3-9a1e-41dc-941f-0dcf172a083a",
    "e03d0700-e8f1-410a-be9b-c2437e9cdad6",
}
"""Instances that their miners deleted in the oldest hour, which shows a single multiplier. Only the
report before would show whether the service cut it."""

ROWS = (
    # The subnet.
    Row("chutes_miner_incentive_ratio{hotkey}", "incentive_share.{hotkey}"),
    Row("chutes_miner_registered_timestamp_seconds{hotkey}", "registered_at.{hotkey}"),
    Row("chutes_metagraph_miners{}", "seats"),
    Row("chutes_miner_blacklisted{hotkey}", "blacklisted.{hotkey}"),
    Row("chutes_metagraph_blacklisted_miners{}", "blacklisted.*"),
    # Scores and statistics.
    Row("chutes_miner_score_ratio{hotkey}", "score_share.{hotkey}", SOON),
    Row("chutes_miner_score_rank{hotkey}", "score_rank.{hotkey}"),
    Row("chutes_miner_score_window_instances{hotkey,window=1d}", "score_raw.{hotkey}.instances"),
    Row("chutes_miner_score_window_bounties{hotkey,window=1d}", "score_raw.{hotkey}.bounties"),
    Row(
        "chutes_miner_score_window_instance_seconds{hotkey,window=1d}",
        "score_raw.{hotkey}.seconds",
        SOON,
    ),
    Row(
        "chutes_miner_score_window_compute_units{hotkey,window=1d}",
        "score_raw.{hotkey}.units",
        SOON,
    ),
    Row("chutes_miner_window_instances{window,hotkey}", "stats.{window}.{hotkey}.instances"),
    Row("chutes_miner_window_bounties{window,hotkey}", "stats.{window}.{hotkey}.bounties"),
    Row(
        "chutes_miner_window_compute_seconds{window,hotkey}",
        "stats.{window}.{hotkey}.seconds",
        SOON,
    ),
    Row("chutes_miner_window_compute_units{window,hotkey}", "stats.{window}.{hotkey}.units", SOON),
    Row("chutes_platform_window_miners{window}", "stats.{window}.*"),
    Row("chutes_platform_window_instances{window}", "stats.{window}.*.instances"),
    Row("chutes_platform_window_bounties{window}", "stats.{window}.*.bounties"),
    Row("chutes_platform_window_compute_seconds{window}", "stats.{window}.*.seconds", SOON),
    Row("chutes_platform_window_compute_units{window}", "stats.{window}.*.units", SOON),
    Row(
        f"chutes_miner_chute_window_compute_units{{hotkey={HOTKEY},window,chute_id}}",
        "stats_per_chute_test_miner.{window}.{chute_id}.units",
        SOON,
    ),
    # Instances of all miners.
    Row("chutes_platform_active_instances{}", "active_instances"),
    Row("chutes_miner_active_instances{hotkey}", "active_instances_per_miner.{hotkey}"),
    Row("chutes_miner_active_compute_multiplier{hotkey}", "earning_rate_per_miner.{hotkey}"),
    Row("chutes_platform_active_compute_multiplier{}", "earning_rate_per_miner.*"),
    Row("chutes_miner_score_heading_ratio{hotkey}", "heading_share_without_disabled.{hotkey}"),
    Row("chutes_platform_gpus{gpu,state}", "supply.platform.{gpu}.{state}"),
    # The miner's servers and GPUs.
    Row("chutes_fleet_gpus{state}", "gpus_by_state.{state}"),
    Row("chutes_fleet_gpus{gpu,state}", "gpus_by_model_and_state.{gpu}.{state}"),
    Row("chutes_gpu_state{gpu_id,state}", "gpu_state.{gpu_id}.{state}"),
    Row("chutes_gpu_verification_error_info{gpu_id}", "gpus_with_error.{gpu_id}"),
    Row("chutes_server_info{}", "servers"),
    Row("chutes_server_gpus{server_id}", "gpus_per_server.{server_id}"),
    Row(
        "chutes_server_gpus{server_id,state}",
        "gpus_by_server_and_state.{server_id}.{state}",
        only_in="h",
    ),
    Row(
        "chutes_server_maintenance_state{server_id,state=maintenance}",
        "servers_in_maintenance.{server_id}",
    ),
    Row(
        "chutes_server_maintenance_state{server_id,state=pending}",
        "servers_pending.{server_id}",
        only_in="h",
    ),
    Row("chutes_server_state{server_id,state=without_gpus}", "servers_without_gpus.{server_id}"),
    Row("chutes_maintenance_window_open{}", "in_maintenance_window.window_open"),
    Row("chutes_maintenance_window_start_timestamp_seconds{}", "in_maintenance_window.start"),
    Row("chutes_maintenance_window_end_timestamp_seconds{}", "in_maintenance_window.end"),
    Row(
        "chutes_maintenance_window_info{target_version}",
        "in_maintenance_window.target.{target_version}",
    ),
    Row(
        "chutes_server_upgrade_needed{server_id}",
        "in_maintenance_window.servers_needing_upgrade.{server_id}",
    ),
    Row("chutes_server_version_accepted{server_id} == 0", "refused_versions.{server_id}"),
    # The miner's instances.
    Row("chutes_fleet_instances{state}", "instances_by_state.{state}"),
    Row("chutes_instance_state{instance_id,state}", "instance_state.{instance_id}.{state}"),
    Row("chutes_instance_state{instance_id,private=true}", "instances_private.{instance_id}"),
    Row(
        "chutes_instance_outdated{instance_id}",
        "instances_that_a_rolling_update_replaces.{instance_id}",
        only_in="h",
    ),
    Row("chutes_instance_start_in_vain{instance_id}", "starts_in_vain.{instance_id}"),
    Row(
        f"chutes_miner_disabled_compute_units_per_second{{hotkey={HOTKEY}}}",
        f"disabled_multiplier_per_miner.{HOTKEY}",
    ),
    # Chutes, jobs, images.
    Row("chutes_chute_info{}", "chutes"),
    Row("chutes_chute_info{disabled=true}", "chutes_disabled"),
    Row(
        "chutes_bounty_expires_timestamp_seconds{chute_id}",
        "bounties.{chute_id}.expires_at_about",
        1e-8,
    ),
    Row("chutes_images{state}", "images_by_status.{state}"),
    Row("chutes_jobs_waiting{}", "jobs.waiting", only_in="h"),
    Row(f"chutes_jobs_stuck{{hotkey={HOTKEY}}}", "jobs.stuck_with_test_miner.*"),
    Row(
        f"chutes_jobs_tried{{hotkey={HOTKEY}}}",
        "jobs.waiting_tried_by_test_miner",
        only_in="h",
    ),
    # What can be launched.
    Row("chutes_launch_room_instances{gpu,chute_id} exists", "offers.{gpu}.{chute_id}"),
    Row("chutes_launch_refused_chutes{gpu,reason}", "refused.{gpu}.{reason}"),
    Row("advise.miners.*.chutes.{gpu,chute_id}", "offers.{gpu}.{chute_id}"),
    # Ended instances of all miners, in the reports of a day.
    Row("chutes_audit_report_end_timestamp_seconds{}", "report_end"),
    Row("chutes_audit_reports_known{}", "reports"),
    Row("incidents.miners.*.ended.{instance_id,chute_id}", "ended.{instance_id,chute_id}"),
    Row("incidents.miners.{hotkey}.ended.{instance_id}", "ended.{hotkey,instance_id}"),
    Row("incidents.miners.*.ended.{instance_id,reason_text}", "ended.{instance_id,reason_text}"),
    Row("incidents.miners.*.ended.{instance_id,outcome}", "ended.{instance_id,outcome}"),
    Row("incidents.miners.*.ended.{instance_id}.last_of_chute", "ended.{instance_id}.last"),
    Row(
        "incidents.miners.*.ended.{instance_id}.active_minutes",
        "ended.{instance_id}.active_minutes",
        1e-5,
    ),
    Row(
        "incidents.miners.*.ended.{instance_id}.lost_compute_units",
        "ended.{instance_id}.lost",
        1e-6,
        ESTIMATES | dict.fromkeys(UNCLEAR_LOSSES, 1),
    ),
    Row(
        "incidents.miners.*.ended.{instance_id,lost_precision}",
        "ended.{instance_id,lost_precision}",
    ),
)
"""What a page or a command shows, and where the truth has it."""

ENDS = (
    Row(
        "chutes_miner_window_total_lost_compute_units{hotkey,window=1d}",
        "miners.{hotkey}.sums.{reason=all}.lost_compute_units",
    ),
    Row(
        "chutes_miner_window_lost_compute_units{hotkey,window=1d,reason}",
        "miners.{hotkey}.ended.{reason}.lost_compute_units",
    ),
    Row(
        "chutes_miner_window_ended_instances{hotkey,window=1d,reason}",
        "miners.{hotkey}.ended.{reason}",
    ),
    Row(
        "chutes_miner_chute_window_lost_compute_units{hotkey,window=1d,chute_id}",
        "miners.{hotkey}.ended.{chute_id}.lost_compute_units",
    ),
    Row(
        "chutes_miner_chute_window_ended_instances{hotkey,window=1d,chute_id}",
        "miners.{hotkey}.ended.{chute_id}",
    ),
)
"""What the page shows of ended instances, and where ``incidents`` has it."""

LOSSES_WITH_PENALTY = {
    "c4e5cc96-5964-4844-ac90-0e921592754f": 3316.7588529669833,
    "95fed1f0-4a83-4493-b2af-7526cd3a5a47": 63024.935140058165,
    "8317f0dd-c890-4e1f-89f6-cc4943c79eb3": 12052.8,
}
"""What instances of the oldest world lost that their miners deleted as the last ones of their
chutes. It is worked out from the reports before and after the service cut their multipliers."""
REASONS = {
    "disabled": "disabled",
    "private: no active instance and no bounty": "no_bounty",
    "private: target reached": "no_room",
    "active >= target": "no_room",
    "TEE: live instances (active and starting) >= target + 1": "no_room",
    # The service would accept the launch, but no server of the miner fits.
    "accepted": "server",
}
"""Why a launch is refused, by the service's reason."""
OUR_REASONS = {
    "enough_starting": "no_room",
    "too_many_gpus": "server",
    "in_maintenance": "server",
    "tee_mismatch": "server",
}
"""The same words by the exporter's reason, where it tells more of them apart."""


def truth_of(miner: Miner) -> dict[str, Any]:
    """Return what is true of a world, in the form of its rows."""
    true: dict[str, Any] = json.loads((miner.directory / "expected.json").read_bytes())
    ended = [row for row in true["ended"]["instances"] if row["report"] in range(24)]
    index = report_index(miner.directory)
    by_model = true["gpus_by_model_and_state"]
    if any(" " in key for key in by_model):
        # The oldest world has both in one key.
        split = [(*key.split(), count) for key, count in by_model.items()]
        by_model = {gpu: {s: count for g, s, count in split if g == gpu} for gpu, _, _ in split}
    raw = raw_json(miner.bodies())
    launch = true["launch"]
    window = true["in_maintenance_window"]
    derived = {
        "in_maintenance_window": window
        | {name: seconds(window[name]) for name in ("start", "end")},
        "gpus_by_model_and_state": by_model,
        "refused_versions": [
            row for row in true["servers_that_cannot_boot"] if "rc" not in row["version"]
        ],
        "offers": offers(true),
        "refused": refused(true, raw["chutes"]),
        "starts_in_vain": [
            row["instance_id"]
            for row in raw["instances"]
            if not row["activated_at"] and is_full(launch[row["chute_id"]])
        ],
        "ended": [end_of(row) for row in ended],
        "report_end": seconds(index[0]["end"]),
        "reports": 24 - len(true["ended"].get("missing_report_hours", ())),
    }
    return true | derived


def target_of(launch: dict[str, Any]) -> int | None:
    """Return the target that the answers show. In the oldest world, that is the one of the
    autoscaler's log where its database has none.
    """
    target: int | None = launch["target_redis"]
    if target is None and "activation" not in launch:
        target = launch["target_log"]
    return target


def is_full(launch: dict[str, Any]) -> bool:
    """Return whether a chute is private, and the service activates no more instances of it."""
    if launch.get("rules") != "private" or (launch["bounty"] and not launch["active"]):
        # A first instance needs a bounty, and no target.
        return False
    return bool(launch["active"] >= (target_of(launch) or 0))


def offers(true: dict[str, Any]) -> dict[str, list[str]]:
    """Return the chutes of each model that the service lets start and become active."""
    full = {chute for chute, launch in true["launch"].items() if is_full(launch)}
    models = true["launch_models"]
    return {gpu: [*{*model["runnable_chutes"]} - full] for gpu, model in models.items()}


def refused(true: dict[str, Any], chutes: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    """Return the number of other chutes of each model by the reason."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    offered = offers(true)
    for chute in chutes:
        launch = true["launch"].get(chute["chute_id"])
        for gpu in offered.keys() & chute["node_selector"]["supported_gpus"]:
            if launch is None or chute["chute_id"] in offered[gpu]:
                continue
            reason = REASONS[launch["why"]]
            if launch["accepted"] and is_full(launch):
                reason = "target_expired" if target_of(launch) is None else "no_room"
            counts[gpu][reason] += 1
    return counts


def end_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return how an instance ended, with the penalty of a last one in its loss."""
    key = row["instance_id"]
    penalty = row.get("lost_units_with_penalty_at_newest_report", LOSSES_WITH_PENALTY.get(key))
    precision = "about" if key in ESTIMATES else "exact"
    if key in UNCLEAR_LOSSES:
        precision = "at_least"
    outcome = "counts" if row["counts"] else "lost"
    if row["failed_start"]:
        outcome = "never_active"
    return {
        "instance_id": key,
        "chute_id": row["chute_id"],
        "outcome": outcome,
        "active_minutes": row["active_seconds"] / 60,
        "hotkey": row["miner"],
        "reason_text": row["reason"],
        "lost": row["lost_units_at_newest_report"] if penalty is None else penalty,
        "lost_precision": precision,
        "last": precision != "at_least" and penalty is not None,
    }


def rows_of(directory: Path) -> list[Row]:
    """Return the rows whose places the truth of a world has."""
    return [row for row in ROWS if not row.only_in or directory.name[-1] in row.only_in]


def test_each_row_is_compared_with_a_number_in_some_world() -> None:
    compared = set()
    for directory in DIRECTORIES:
        true = truth_of(Miner(directory))
        compared |= {row.true for row in rows_of(directory) if values_at(true, row.true)}
    assert compared == {row.true for row in ROWS}


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
async def test_the_page_and_the_commands_show_the_truth_of_a_world(directory: Path) -> None:
    miner = Miner(directory)
    true = truth_of(miner)
    clock = Clock(seconds(report_index(directory)[0]["made"]) or 0)
    hotkeys = sorted({row["hotkey"] for row in true["ended"]})
    outputs = {}
    async with served(recorded_api(miner.bodies(), report_bodies(directory), clock())) as url:
        settings = patient(url, keys=(miner.key,), hotkeys=hotkeys, miners="all", chutes="all")
        async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
            await read_reports(exporter)
            page = await page_of(exporter)
        flags = [f"--hotkey={hotkey}" for hotkey in hotkeys]
        for command, more in {"incidents": flags, "advise": ()}.items():
            arguments = (command, *more, "--json")
            _, output, _ = await run(Target(url, clock), *arguments, variables=miner.variables)
            outputs[command] = json.loads(output)
    assert set(successes(page).values()) == {1.0}
    assert {value for (name, _), value in page.items() if name == "chutes_feed_doubted"} == {0.0}
    for (name, labels), value in list(page.items()):
        if name == "chutes_launch_refused_chutes":
            page.pop((name, labels))
            texts = dict(labels)
            texts["reason"] = OUR_REASONS.get(texts["reason"], texts["reason"])
            key = name, frozenset(texts.items())
            page[key] = page.get(key, 0) + value
    assert differences(page, outputs, true, rows_of(directory)) == ""
    if true["reports"] == 24:
        # A missing report may have more ends, so that the page shows none of the day.
        assert differences(page, {}, outputs["incidents"], ENDS) == ""
