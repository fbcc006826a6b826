"""The recorded worlds: the page, ``incidents`` and ``advise``, compared with ``expected.json``.

That file has what the service's database held, and how the service answered launches. This module
selects from it and renames, but works out nothing by a rule of the exporter.
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
    recorded_api,
    recording,
    report_bodies,
    report_index,
    rows,
    seconds,
)
from tests.support import HOTKEY, Clock
from tests.truth import Row, add_samples, differences, true_numbers

if TYPE_CHECKING:
    from pathlib import Path

SOON = 5e-3
"""How much a sum over time may have moved on when the service answers."""
OF_DAY = '{window="1d"}'
OF_MINER = f'{{hotkey="{HOTKEY}"}}'
WINDOWS = {"past_hour": "1h", "past_day": "1d", "all": "7d"}
STATES = {
    "launching": "starting",
    "verified": "starting",
    "active": "active",
    "disabled": "disabled",
}
IMAGES = {"built": "built and pushed", "pending": "pending build"}
REFUSALS = {
    "disabled": "disabled",
    "private: no active instance and no bounty": "no_bounty",
    "private: target reached": "no_room",
    "active >= target": "no_room",
    "TEE: live instances (active and starting) >= target + 1": "no_room",
    # In world F, the targets of all these chutes have expired.
    "activation refused": "target_expired",
    "accepted": "no_server",
}
SHOWN_REFUSALS = {
    "enough_starting": "no_room",
    # The service would accept the launch, but no server of the miner fits.
    "too_many_gpus": "no_server",
    "in_maintenance": "no_server",
    "tee_mismatch": "no_server",
}
ROWS = (
    # The subnet.
    Row("chutes_miner_incentive_ratio", "incentive_share", "hotkey"),
    Row("chutes_miner_registered_timestamp_seconds", "registered_at", "hotkey"),
    Row("chutes_metagraph_miners", "seats"),
    Row("chutes_miner_blacklisted", "blacklisted", "hotkey"),
    Row("chutes_metagraph_blacklisted_miners", "blacklisted"),
    # Scores and statistics.
    Row("chutes_miner_score_ratio", "score_share", "hotkey", SOON),
    Row("chutes_miner_score_rank", "score_rank", "hotkey"),
    Row("chutes_miner_score_window_instances" + OF_DAY, "score_raw", "hotkey", field="instances"),
    Row("chutes_miner_score_window_bounties" + OF_DAY, "score_raw", "hotkey", field="bounties"),
    Row(
        "chutes_miner_score_window_instance_seconds" + OF_DAY,
        "score_raw",
        "hotkey",
        SOON,
        "seconds",
    ),
    Row("chutes_miner_score_window_compute_units" + OF_DAY, "score_raw", "hotkey", SOON, "units"),
    Row("chutes_miner_window_instances", "stats", "window hotkey", field="instances"),
    Row("chutes_miner_window_bounties", "stats", "window hotkey", field="bounties"),
    Row("chutes_miner_window_compute_seconds", "stats", "window hotkey", SOON, "seconds"),
    Row("chutes_miner_window_compute_units", "stats", "window hotkey", SOON, "units"),
    Row("chutes_platform_window_miners", "scored", "window"),
    Row("chutes_platform_window_instances", "stats", "window", field="instances"),
    Row("chutes_platform_window_bounties", "stats", "window", field="bounties"),
    Row("chutes_platform_window_compute_seconds", "stats", "window", SOON, "seconds"),
    Row("chutes_platform_window_compute_units", "stats", "window", SOON, "units"),
    Row(
        "chutes_miner_chute_window_compute_units" + OF_MINER,
        "stats_per_chute_test_miner",
        "window chute_id",
        SOON,
        "units",
    ),
    # Instances of all miners.
    Row("chutes_platform_active_instances", "active_instances"),
    Row("chutes_miner_active_instances", "active_instances_per_miner", "hotkey"),
    Row("chutes_miner_active_compute_multiplier", "earning_rate_per_miner", "hotkey"),
    Row("chutes_platform_active_compute_multiplier", "earning_rate_per_miner"),
    Row("chutes_miner_score_heading_ratio", "heading_share_without_disabled", "hotkey"),
    Row("chutes_platform_gpus", "supply", "gpu state", field="platform"),
    # The miner's servers and GPUs.
    Row("chutes_fleet_gpus", "gpus_by_state", "state"),
    Row("chutes_fleet_gpus", "gpus_by_model_and_state", "gpu state", only_in="fh"),
    Row("chutes_gpu_state", "gpu_state", "gpu_id state"),
    Row("chutes_gpu_verification_error_info", "gpus_with_error", "gpu_id"),
    Row("chutes_server_info", "servers"),
    # A server without GPUs has no model.
    Row("chutes_server_gpus", "gpus_per_server", "server_id", absent=0),
    Row("chutes_server_gpus", "gpus_by_server_and_state", "server_id state", only_in="h"),
    Row(
        'chutes_server_maintenance_state{state="maintenance"}',
        "servers_in_maintenance",
        "server_id",
    ),
    Row(
        'chutes_server_maintenance_state{state="pending"}',
        "servers_pending",
        "server_id",
        only_in="h",
    ),
    Row('chutes_server_state{state="without_gpus"}', "servers_without_gpus", "server_id"),
    Row("chutes_maintenance_window_open", "in_maintenance_window", field="window_open"),
    Row("chutes_maintenance_window_start_timestamp_seconds", "window_start"),
    Row("chutes_maintenance_window_end_timestamp_seconds", "window_end"),
    Row(
        "chutes_maintenance_window_info", "in_maintenance_window", "target_version", field="target"
    ),
    Row(
        "chutes_server_upgrade_needed",
        "in_maintenance_window",
        "server_id",
        field="servers_needing_upgrade",
    ),
    # Each version is accepted but for these.
    Row("chutes_server_version_accepted", "refused_versions", "server_id", elsewhere=1),
    # The miner's instances.
    Row("chutes_fleet_instances", "instances_by_state", "state"),
    Row("chutes_instance_state", "instance_state", "instance_id state"),
    Row('chutes_instance_state{private="true"}', "instances_private", "instance_id"),
    Row(
        "chutes_instance_outdated",
        "instances_that_a_rolling_update_replaces",
        "instance_id",
        only_in="h",
    ),
    # The truth has those whose chutes other miners filled.
    Row(
        "chutes_instance_start_in_vain",
        "starts_in_vain",
        "instance_id",
        field="state",
        only_in="h",
        elsewhere=None,
    ),
    Row(
        "chutes_miner_disabled_compute_units_per_second" + OF_MINER,
        "disabled_multiplier_per_miner",
        field=HOTKEY,
    ),
    # Chutes, jobs, images.
    Row("chutes_chute_info", "chutes"),
    Row('chutes_chute_info{disabled="true"}', "chutes_disabled"),
    Row(
        "chutes_bounty_expires_timestamp_seconds", "bounties", "chute_id", 1e-8, "expires_at_about"
    ),
    Row("chutes_images", "images_by_status", "state", words=IMAGES),
    Row("chutes_jobs_waiting", "jobs", field="waiting", only_in="h"),
    Row("chutes_jobs_stuck" + OF_MINER, "jobs", field="stuck_with_test_miner"),
    Row("chutes_jobs_tried" + OF_MINER, "jobs", field="waiting_tried_by_test_miner", only_in="h"),
    # What can be launched. World C does not tell which activations the service refuses.
    Row("chutes_launch_room_instances", "possible", "gpu chute_id", only_in="fh", counted=True),
    Row("advise_miners_chutes", "possible", "gpu chute_id", only_in="fh"),
    Row(
        "chutes_launch_refused_chutes",
        "impossible",
        "gpu reason",
        only_in="fh",
        words=SHOWN_REFUSALS,
    ),
    # Ended instances of all miners, in the reports of a day.
    Row("chutes_audit_report_end_timestamp_seconds", "report_end"),
    Row("chutes_audit_reports_known", "reports"),
    Row(
        "incidents_miners_ended",
        "ended",
        "hotkey chute_id instance_id reason_text outcome",
        field="outcome",
    ),
    Row(
        'incidents_miners_ended{active_minutes="None"}',
        "ended",
        "hotkey chute_id instance_id",
        field="never_active",
        absent=0,
    ),
    Row(
        "incidents_miners_ended_active_minutes",
        "ended",
        "hotkey chute_id instance_id",
        1e-5,
        "active_minutes",
        absent=0,
    ),
    Row(
        "incidents_miners_ended_last_of_chute",
        "ended",
        "hotkey chute_id instance_id",
        field="last",
        only_in="fh",
        absent=0,
    ),
    # Without one of the reports, as in world F, a chute may have more ends.
    Row(
        "chutes_miner_chute_window_ended_instances" + OF_DAY,
        "ended",
        "hotkey chute_id",
        field="outcome",
        only_in="ch",
    ),
    # Some losses in world H are estimates. World C does not tell the penalties of last instances.
    # Without a report, as in world F, no known loss does not mean that nothing was lost.
    Row(
        "chutes_miner_chute_window_lost_compute_units" + OF_DAY,
        "ended",
        "hotkey chute_id",
        0.06,
        "lost",
        only_in="fh",
        absent=0,
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
    window, ended = true["in_maintenance_window"], true["ended"]
    states = {instance: STATES[state] for instance, state in true["instance_state"].items()}
    for fact in ("stats", "stats_per_chute_test_miner"):
        true[fact] = {WINDOWS[name]: numbers for name, numbers in true[fact].items()}
    true |= launches(true, rows(recording(directory, "chutes")))
    return true | {
        "scored": {window: [*miners] for window, miners in true["stats"].items()},
        "window_start": seconds(window["start"]),
        "window_end": seconds(window["end"]),
        "refused_versions": {
            server["server_id"]: 0
            for server in true["servers_that_cannot_boot"]
            # The public list of versions lacks release candidates, which can boot.
            if "rc" not in server["version"]
        },
        "instances_by_state": Counter(states.values()),
        "instance_state": states,
        "ended": ends(ended["instances"]),
        "report_end": seconds(ended["reports_24h"]["end"]),
        "reports": sum(hour["report"] in range(24) for hour in ended["hours"]),
    }


def launches(true: dict[str, Any], chutes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the service's answers to launches, for each model that a chute may run on and of
    which the miner has idle GPUs.
    """
    models = true["launch_models"]
    possible, impossible = defaultdict(list), defaultdict(list)
    for chute in chutes:
        chute_id = chute["chute_id"]
        launch = true["launch"][chute_id]
        # Some launches are accepted, but not the activations of their instances.
        reason = "activation refused" if launch.get("activation") is False else launch["why"]
        for gpu in models.keys() & chute["node_selector"]["supported_gpus"]:
            if reason == "accepted" and chute_id in models[gpu]["runnable_chutes"]:
                possible[gpu].append(chute_id)
            else:
                impossible[gpu].append(REFUSALS[reason])
    return {"possible": possible, "impossible": impossible}


def ends(instances: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return how instances ended in the reports of a day, by hotkey, chute and id."""
    ended: dict[str, Any] = defaultdict(lambda: defaultdict(dict))
    for row in instances:
        if row["report"] not in range(24):
            continue
        penalty = row.get("lost_units_with_penalty_at_newest_report")
        outcome = "counts" if row["counts"] else "lost"
        if row["failed_start"]:
            outcome = "never_active"
        ended[row["miner"]][row["chute_id"]][row["instance_id"]] = {
            "outcome": {str(row["reason"]): outcome},
            "never_active": row["failed_start"],
            "active_minutes": row["active_seconds"] / 60,
            "lost": row["lost_units_at_newest_report"] if penalty is None else penalty,
            "last": penalty is not None,
        }
    return ended


def wrong_losses(incidents: dict[str, Any], true: dict[str, Any]) -> list[str]:
    """Return the shown losses that differ from the truth by more than their precision says."""
    wrong = []
    for miner in incidents["miners"]:
        for shown in miner["ended"]:
            end = true["ended"][miner["hotkey"]][shown["chute_id"]][shown["instance_id"]]
            if shown["last_of_chute"] and not end["last"]:
                # World C does not tell the penalties.
                continue
            least, most = (share * end["lost"] for share in SHOWN_LOSSES[shown["lost_precision"]])
            if not least <= (shown["lost_compute_units"] or 0) <= most:
                wrong.append(f"{shown} instead of {end['lost']}")
    return wrong


def rows_of(directory: Path) -> list[Row]:
    """Return the rows whose facts the truth of a world has."""
    return [row for row in ROWS if not row.only_in or directory.name[-1] in row.only_in]


def test_each_row_is_compared_with_a_number_in_some_world() -> None:
    compared = set()
    for directory in DIRECTORIES:
        true = truth_of(directory)
        for row in rows_of(directory):
            if {*true_numbers(true, row).values()} - {row.elsewhere}:
                compared.add(row)
    assert compared == {*ROWS}


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
async def test_the_page_and_the_commands_show_the_truth_of_a_world(directory: Path) -> None:
    miner = Miner(directory)
    true = truth_of(directory)
    clock = Clock(seconds(report_index(directory)[0]["made"]) or 0)
    hotkeys = sorted(true["ended"])
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
            add_samples(page, command, outputs[command])
    assert set(successes(page).values()) == {1.0}
    assert {value for (name, _), value in page.items() if name == "chutes_feed_doubted"} == {0.0}
    assert differences(page, true, rows_of(directory)) == ""
    assert wrong_losses(outputs["incidents"], true) == []
