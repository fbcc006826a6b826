"""The recorded worlds: the page, ``incidents`` and ``advise``, compared with ``expected.json``.

That file has what the service's database held, and how the service answered launches. This module
selects from it and renames, but works out nothing by a rule of the exporter.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.page.exporter import Exporter
from tests.commands.support import Target, run
from tests.exporters import page_of, patient, read_reports, served
from tests.pages import successes
from tests.recorded import (
    DIRECTORIES,
    Miner,
    recorded_api,
    recording,
    report_bodies,
    report_index,
    rows,
    seconds,
)
from tests.support import HOTKEY, Clock
from tests.truth import Row, differences, values_at

if TYPE_CHECKING:
    from pathlib import Path

SOON = 5e-3
"""How much a sum over time may have moved on when the service answers."""
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
    Row("chutes_fleet_gpus{gpu,state}", "gpus_by_model_and_state.{gpu}.{state}", only_in="fh"),
    Row("chutes_gpu_state{gpu_id,state}", "gpu_state.{gpu_id}.{state}"),
    Row("chutes_gpu_verification_error_info{gpu_id}", "gpus_with_error.{gpu_id}"),
    Row("chutes_server_info{}", "servers"),
    # A server without GPUs has no model.
    Row("chutes_server_gpus{server_id}", "gpus_per_server.{server_id}", zero_may_be_absent=True),
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
    Row("chutes_maintenance_window_start_timestamp_seconds{}", "window_start"),
    Row("chutes_maintenance_window_end_timestamp_seconds{}", "window_end"),
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
    # The truth has those whose chutes other miners filled.
    Row(
        "chutes_instance_start_in_vain{instance_id}",
        "starts_in_vain.{instance_id}",
        only_in="h",
        partial=True,
    ),
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
    # What can be launched. World C does not tell which activations the service refuses.
    Row(
        "chutes_launch_room_instances{gpu,chute_id} exists",
        "launches.possible.{gpu,chute_id}",
        only_in="fh",
    ),
    Row(
        "chutes_launch_refused_chutes{gpu,reason}", "launches.impossible.{gpu,reason}", only_in="fh"
    ),
    Row("advise.miners.*.chutes.{gpu,chute_id}", "launches.possible.{gpu,chute_id}", only_in="fh"),
    # Ended instances of all miners, in the reports of a day.
    Row("chutes_audit_report_end_timestamp_seconds{}", "report_end"),
    Row("chutes_audit_reports_known{}", "reports"),
    Row(
        "incidents.miners.{hotkey}.ended.{instance_id,chute_id,reason_text,outcome}",
        "ended.{hotkey,instance_id,chute_id,reason_text,outcome}",
    ),
    Row(
        "incidents.miners.*.ended.{instance_id}.last_of_chute",
        "ended.{instance_id}.last",
        only_in="fh",
    ),
    Row(
        "incidents.miners.*.ended.{instance_id}.active_minutes",
        "ended.{instance_id}.active_minutes",
        1e-5,
    ),
    # Without one of the reports, as in world F, a chute may have more ends.
    Row(
        "chutes_miner_chute_window_ended_instances{hotkey,window=1d,chute_id}",
        "ended.{hotkey,chute_id}",
        only_in="ch",
    ),
    # Some losses in world H are estimates. World C does not tell the penalties of last instances.
    # Without a report, as in world F, no known loss does not mean that nothing was lost.
    Row(
        "chutes_miner_chute_window_lost_compute_units{hotkey,window=1d,chute_id}",
        "ended.{hotkey,chute_id}.lost",
        0.06,
        only_in="fh",
        zero_may_be_absent=True,
    ),
)
"""What the page or a command shows, and where the truth has it."""

SHOWN_LOSSES = {
    "exact": (1 - 1e-6, 1 + 1e-6),
    "about": (0.94, 1.06),
    "at_least": (0, 1 + 1e-6),
}
"""The least and the largest share of a true loss that may be shown, by the precision shown."""


def truth_of(directory: Path) -> dict[str, Any]:
    """Return ``expected.json``, with some of its facts in the form of the rows."""
    true: dict[str, Any] = json.loads((directory / "expected.json").read_bytes())
    ended, window = true["ended"], true["in_maintenance_window"]
    return true | {
        "window_start": seconds(window["start"]),
        "window_end": seconds(window["end"]),
        # The public list of versions lacks release candidates, which can boot.
        "refused_versions": [
            row for row in true["servers_that_cannot_boot"] if "rc" not in row["version"]
        ],
        "launches": launches(true, rows(recording(directory, "chutes"))),
        "ended": [end_of(row) for row in ended["instances"] if row["report"] in range(24)],
        "report_end": seconds(ended["reports_24h"]["end"]),
        "reports": sum(hour["report"] in range(24) for hour in ended["hours"]),
    }


def launches(true: dict[str, Any], chutes: list[dict[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """Return the service's answers to launches, for each model that a chute may run on and of
    which the miner has idle GPUs.
    """
    models = true["launch_models"]
    decided: dict[str, list[dict[str, str]]] = {"possible": [], "impossible": []}
    for chute in chutes:
        chute_id = chute["chute_id"]
        launch = true["launch"][chute_id]
        # Some launches are accepted, but not the activations of their instances.
        reason = "activation refused" if launch.get("activation") is False else launch["why"]
        for gpu in models.keys() & chute["node_selector"]["supported_gpus"]:
            can_run = reason == "accepted" and chute_id in models[gpu]["runnable_chutes"]
            row = {"gpu": gpu, "chute_id": chute_id, "reason": reason}
            decided["possible" if can_run else "impossible"].append(row)
    return decided


def end_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return how an instance ended, with the penalty of a last one in its loss."""
    penalty = row.get("lost_units_with_penalty_at_newest_report")
    outcome = "counts" if row["counts"] else "lost"
    return row | {
        "hotkey": row["miner"],
        "reason_text": row["reason"],
        "outcome": "never_active" if row["failed_start"] else outcome,
        "active_minutes": row["active_seconds"] / 60,
        "lost": row["lost_units_at_newest_report"] if penalty is None else penalty,
        "last": penalty is not None,
    }


def wrong_losses(incidents: dict[str, Any], true: dict[str, Any]) -> list[str]:
    """Return the shown losses that differ from the truth by more than their precision says."""
    ended = {row["instance_id"]: row for row in true["ended"]}
    wrong = []
    for miner in incidents["miners"]:
        for shown in miner["ended"]:
            end = ended[shown["instance_id"]]
            if shown["last_of_chute"] and not end["last"]:
                # World C does not tell the penalties.
                continue
            least, most = (share * end["lost"] for share in SHOWN_LOSSES[shown["lost_precision"]])
            if not least <= (shown["lost_compute_units"] or 0) <= most:
                wrong.append(f"{shown} instead of {end['lost']}")
    return wrong


def rows_of(directory: Path) -> list[Row]:
    """Return the rows whose places the truth of a world has."""
    return [row for row in ROWS if not row.only_in or directory.name[-1] in row.only_in]


def test_each_row_is_compared_with_a_number_in_some_world() -> None:
    compared = set()
    for directory in DIRECTORIES:
        true = truth_of(directory)
        compared |= {row for row in rows_of(directory) if values_at(true, row.true)}
    assert compared == {*ROWS}


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
async def test_the_page_and_the_commands_show_the_truth_of_a_world(directory: Path) -> None:
    miner = Miner(directory)
    true = truth_of(directory)
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
    assert differences(page, outputs, true, rows_of(directory)) == ""
    assert wrong_losses(outputs["incidents"], true) == []
