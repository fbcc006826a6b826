"""Alerts about instances and jobs, in scenarios of one miner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.prometheus.scenario import HOTKEY, HOUR, Scenario, Text

if TYPE_CHECKING:
    from pathlib import Path

ME = {"hotkey": HOTKEY}
SLOW, PURGE = ("ChutesInstanceStartSlow", "warning"), ("ChutesInstancePurgeNear", "warning")
PLACE = {"chute_id": "chute-1", "name": "glm-5", "server": "alpha", "gpu": "pro_6000", "billed_to": "user"}


def test_an_instance_that_starts_for_an_hour_is_named_within_75_minutes(tmp_path: Path) -> None:
    miner = Scenario(2 * HOUR, {"alpha": 8})
    miner.instance("i-1", 20, 20, server="alpha")
    said = (
        f"An instance of glm-5 of {HOTKEY} (1 pro_6000 on server alpha) was created more than an hour ago and has "
        "never been active. It earns nothing until then. An ordinary start takes 10 to 35 minutes."
    )
    labels = {**PLACE, "instance_id": "i-1"}
    text = Text(SLOW, 2 * HOUR, labels, "an instance of glm-5 has been starting for an hour", said)
    miner.check(tmp_path, {20 + HOUR: [], 20 + 75: [SLOW]}, texts=[text])


def test_it_is_named_without_its_server_and_in_spite_of_missed_scrapes(tmp_path: Path) -> None:
    # Every third scrape fails.
    miner = Scenario(2 * HOUR, {"alpha": 8})
    miner.instance("i-1", 20, 20)
    miner.fail("one:1", range(0, 2 * HOUR, 3))
    miner.check(tmp_path, {20 + 75: [SLOW]})


def test_an_ordinary_start_is_silent(tmp_path: Path) -> None:
    miner = Scenario(2 * HOUR)
    for number, minutes in enumerate((10, 35)):
        miner.instance(f"i-{number}", 20, 20)
        miner.activate(f"i-{number}", 20 + minutes)
    miner.check(tmp_path, {2 * HOUR: []})


def test_a_purge_is_announced_45_minutes_before_whichever_limit_comes_first(tmp_path: Path) -> None:
    # At the end, the instance is 3 hours old and was verified 20 minutes ago: its 3.5 hours end in 30 minutes.
    miner = Scenario(3 * HOUR, step=2)
    miner.instance("i-1", 0, purge=3.5 * HOUR)
    miner.check(tmp_path, {2 * HOUR + 30: [SLOW], 2 * HOUR + 45: [SLOW, PURGE]})


def test_the_purge_of_a_disabled_instance_is_not_one_of_a_start(tmp_path: Path) -> None:
    miner = Scenario(HOUR)
    miner.instance("i-1", -3 * HOUR, private=False)
    miner.activate("i-1", 0, private=False)
    miner.set("chutes_instance_active", 0, 20, **ME, instance_id="i-1")
    miner.set("chutes_instance_purge_timestamp_seconds", 50 * 60, 20, **ME, instance_id="i-1")
    miner.check(tmp_path, {HOUR: []})


def test_a_healthy_private_instance_that_nobody_checks_is_silent(tmp_path: Path) -> None:
    # The service does not check TEE instances after their verification, which was 20 hours ago.
    miner = Scenario(HOUR)
    labels = {**ME, "instance_id": "i-1"}
    miner.instance("i-1", -20 * HOUR)
    miner.activate("i-1", 0)
    miner.set("chutes_instance_last_verified_timestamp_seconds", -20 * 3600, **labels)
    miner.check(tmp_path, {HOUR: []})


def test_a_disabled_private_instance_is_at_risk(tmp_path: Path) -> None:
    miner = Scenario(50, {"alpha": 8})
    for number, private in (("i-1", True), ("i-2", False)):
        miner.instance(number, -5 * HOUR, server="alpha", private=private)
        miner.activate(number, 0, private=private)
        miner.set("chutes_instance_active", 0, 20, **ME, instance_id=number)
    risk = ("ChutesPrivateInstanceAtRisk", "warning")
    said = (
        f"A private instance of glm-5 of {HOTKEY} (1 pro_6000 on server alpha) is disabled. The service deletes it 3 "
        "hours after its verification, or soon if it is older. Then it loses all that it scored in the past day. Do "
        "not delete it."
    )
    text = Text(risk, 40, {**PLACE, "instance_id": "i-1"}, "a private instance of glm-5 is disabled", said)
    miner.check(tmp_path, {25: [], 40: [risk]}, texts=[text])


def test_two_public_instances_lost_within_their_first_hour_are_a_warning(tmp_path: Path) -> None:
    miner = Scenario(3 * HOUR)
    # A third one ended too, but was older than an hour.
    for number, activated, ended in (("i-1", 20, 60), ("i-2", 40, 90), ("i-3", 5, 90)):
        miner.instance(number, 0, private=False)
        miner.activate(number, activated, private=False)
        miner.remove(number, ended)
    lost = ("ChutesInstancesLostEarly", "warning")
    said = (
        f"2 instances of glm-5 of {HOTKEY} ended in the past 6 hours, each within its first hour. They lost all that "
        "they had scored, unless the service replaced them in a rolling update."
    )
    labels = {"chute_id": "chute-1", "name": "glm-5"}
    text = Text(lost, 110, labels, "2 instances of glm-5 lost within their first hour", said)
    miner.check(tmp_path, {90: [], 110: [lost]}, texts=[text])


def test_a_stuck_job_is_info(tmp_path: Path) -> None:
    miner = Scenario(2 * HOUR)
    miner.set("chutes_jobs_stuck", 0, **ME)
    miner.set("chutes_jobs_stuck", 1, 20, **ME)
    miner.check(tmp_path, {40: [], 70: [("ChutesJobStuck", "info")]})


def test_lost_units_from_two_percent_of_a_day_are_a_warning_within_10_minutes_of_the_report(tmp_path: Path) -> None:
    # The report of 1:00 is out at 1:01, and a scrape at 1:02 has it.
    miner = Scenario(HOUR + 20, {"alpha": 8}, step=1)
    miner.set("chutes_miner_window_compute_units", 1000, hotkey=HOTKEY, window="1d")
    miner.set("chutes_miner_window_lost_compute_units", 20, hotkey=HOTKEY, window="1h")
    miner.set("chutes_audit_report_end_timestamp_seconds", 0)
    miner.set("chutes_miner_window_lost_compute_units", 21, HOUR + 2, hotkey=HOTKEY, window="1h")
    miner.set("chutes_audit_report_end_timestamp_seconds", 3600, HOUR + 2)
    lost = ("ChutesComputeUnitsLost", "warning")
    said = (
        f"Instances of {HOTKEY} that ended in the hour before 1970-01-01 01:00:00 +0000 UTC lost 21 compute units of "
        "the past day, more than 2 % of the miner's units of a day."
    )
    text = Text(lost, HOUR + 11, {}, "ended instances lost 21 compute units", said)
    miner.check(tmp_path, {HOUR + 1: [], HOUR + 11: [lost]}, texts=[text])
