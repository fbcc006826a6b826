"""Recorded answers, through the whole exporter and a socket, value by value against what the raw JSON says.

The expectation is worked out from the JSON itself, without any code of the package: other parsing, other loops.
More recordings than the project's own can be checked by naming their directory in CHUTES_EXPORTER_TEST_RECORDINGS.
"""

from __future__ import annotations

import calendar
import json
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from chutes_exporter.collectors import COLLECTORS
from tests.support import (
    HOTKEY,
    RECORDINGS,
    Page,
    data_of,
    promtool_complaints,
    recording,
    replay,
    scrape,
    series,
    served,
    served_exporter,
    watching,
)
from tests.support import get as ask

Row = dict[str, Any]

DIRECTORIES = [RECORDINGS, *map(Path, filter(None, [os.environ.get("CHUTES_EXPORTER_TEST_RECORDINGS")]))]
NAMES = (
    "metagraph",
    "scores",
    "stats",
    "stats_per_chute",
    "metrics",
    "chutes",
    "servers",
    "nodes",
    "inventory",
    "instances",
    "images",
    "jobs",
    "active_instances",
    "thrash_cooldowns",
    "unique_chute_history",
)
ALL_ON = {collector.name: True for collector in COLLECTORS}
_TIME = re.compile(r"(\d+)-(\d+)-(\d+)[T ](\d+):(\d+):(\d+)(\.\d+)?(?:([+-])(\d\d)(?::?(\d\d))?)?")


def seconds(text: str | None) -> float | None:
    if text is None:
        return None
    match = _TIME.fullmatch(text)
    assert match is not None, text
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    shift = (int(match[9] or 0) * 60 + int(match[10] or 0)) * (-1 if match[8] == "-" else 1)
    whole = calendar.timegm((year, month, day, hour, minute, second)) - shift * 60
    return float(whole + Fraction(match[7] or "0"))


def rows(body: bytes) -> list[Row]:
    return [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: ")]


def cut(text: object) -> str:
    return "" if text is None else str(text)[:200]


def flag(value: bool | None) -> str:  # noqa: FBT001
    return {True: "true", False: "false", None: ""}[value]


class Expected:
    def __init__(self) -> None:
        self.page: Page = {}

    def put(self, name: str, value: Any, /, **labels: Any) -> None:
        if value is not None:
            key = series(name, **{label: cut(text) for label, text in labels.items()})
            assert key not in self.page
            self.page[key] = float(value)


def expect_platform(want: Expected, raw: dict[str, Any]) -> None:
    metagraph = raw["metagraph"]
    want.put("chutes_metagraph_miners", len(metagraph))
    want.put("chutes_metagraph_blacklisted_miners", len([1 for n in metagraph if n["blacklist_reason"]]))
    synced = [n["synced_at"] for n in metagraph if n["synced_at"]]
    want.put("chutes_metagraph_synced_timestamp_seconds", seconds(max(synced)))
    (seat,) = (n for n in metagraph if n["hotkey"] == HOTKEY)
    for metric, field in {
        "incentive_ratio": "incentive",
        "trust_ratio": "trust",
        "validator_trust_ratio": "vtrust",
        "stake": "stake",
        "stake_tao": "tao_stake",
        "stake_alpha": "alpha_stake",
        "last_update_block": "last_updated",
    }.items():
        want.put(f"chutes_miner_{metric}", seat[field], hotkey=HOTKEY)
    better = [n for n in metagraph if n["incentive"] is not None and n["incentive"] > seat["incentive"]]
    want.put("chutes_miner_incentive_rank", 1 + len(better), hotkey=HOTKEY)
    miners = [n for n in metagraph if n["incentive"] is not None and not n["vtrust"]]
    worse = [n for n in miners if n["incentive"] < seat["incentive"]]
    want.put("chutes_miner_seats_behind", len(worse), hotkey=HOTKEY)
    want.put("chutes_miner_registered", 1, hotkey=HOTKEY)
    want.put("chutes_miner_blacklisted", 0, hotkey=HOTKEY)
    want.put("chutes_miner_info", 1, hotkey=HOTKEY, coldkey=seat["coldkey"], uid=seat["node_id"])

    final = raw["scores"]["final_scores"]
    scored = [share for share in final.values() if share is not None]
    want.put("chutes_scored_miners", len(scored))
    want.put("chutes_miner_score_ratio", final[HOTKEY], hotkey=HOTKEY)
    want.put("chutes_miner_score_rank", 1 + len([1 for share in scored if share > final[HOTKEY]]), hotkey=HOTKEY)
    higher, lower = ([s for s in scored if s > final[HOTKEY]], [s for s in scored if s < final[HOTKEY]])
    want.put("chutes_miner_score_next_better_ratio", min(higher, default=None), hotkey=HOTKEY)
    want.put("chutes_miner_score_next_worse_ratio", max(lower, default=None), hotkey=HOTKEY)
    mine = raw["scores"]["raw_values"][HOTKEY]
    want.put("chutes_miner_score_instances", mine["total_instances"], hotkey=HOTKEY)
    want.put("chutes_miner_score_bounties", mine["bounty_score"], hotkey=HOTKEY)
    want.put("chutes_miner_score_instance_seconds", mine["instance_seconds"], hotkey=HOTKEY)
    want.put("chutes_miner_score_compute_units", mine["instance_compute_units"], hotkey=HOTKEY)


STATS_FIELDS = {
    "instances": "total_instances",
    "bounties": "bounty_count",
    "compute_seconds": "compute_seconds",
    "compute_units": "compute_units",
}
WINDOWS = {"past_hour": "1h", "past_day": "1d", "all": "7d"}


def expect_stats(want: Expected, raw: dict[str, Any]) -> None:
    for field, window in WINDOWS.items():
        part = raw["stats"][field]
        old = "instance_stats" not in part
        records = part["compute_units" if old else "instance_stats"]
        mine = [record for record in records if record["miner_hotkey"] == HOTKEY]
        want.put("chutes_platform_window_miners", len(records), window=window)
        for metric, name in STATS_FIELDS.items():
            if old and metric != "compute_units":
                continue
            # A watched miner that is not listed did nothing in the window.
            value = mine[0][name] if mine else 0
            want.put(f"chutes_miner_window_{metric}", value, hotkey=HOTKEY, window=window)
            total = 0.0
            for record in records:
                total += record[name]
            want.put(f"chutes_platform_window_{metric}", total, window=window)
        for record in raw["stats_per_chute"][field]["instance_stats"]:
            for metric, name in STATS_FIELDS.items():
                labels = {"hotkey": HOTKEY, "chute_id": record["chute_id"], "window": window}
                want.put(f"chutes_miner_chute_window_{metric}", record[name], **labels)


def expect_chutes(want: Expected, raw: dict[str, Any]) -> None:
    for row in raw["metrics"]:
        chute = row["chute_id"]
        for metric, field in {
            "invocations": "total_invocations",
            "compute_seconds": "total_compute_time",
            "errors": "error_count",
            "rate_limits": "rate_limit_count",
            "usage_usd": "total_usage_usd",
        }.items():
            want.put(f"chutes_chute_window_{metric}", row[field], chute_id=chute, window="1h")
        for metric, field in {
            "utilization_ratio": "utilization",
            "instances": "instance_count",
            "compute_multiplier": "compute_multiplier",
            "price_usd_per_second": "per_second_price_usd",
        }.items():
            want.put(f"chutes_chute_{metric}", row[field], chute_id=chute)
    for row in raw["chutes"]:
        chute = row["chute_id"]
        want.put(
            "chutes_chute_info",
            1,
            chute_id=chute,
            name=row["name"],
            slug=row["slug"],
            version=row["version"],
            image=row["image"],
            template=row["standard_template"],
            public=flag(row["public"]),
            tee=flag(row["tee"]),
            disabled=flag(row["disabled"]),
            preemptible=flag(row["preemptible"]),
        )
        selector = row["node_selector"] or {}
        want.put("chutes_chute_gpus", selector.get("gpu_count"), chute_id=chute)
        if "min_vram_gb_per_gpu" in selector:
            want.put("chutes_chute_min_vram_bytes", selector["min_vram_gb_per_gpu"] * 10**9, chute_id=chute)
        for metric, field in {
            "effective_compute_multiplier": "effective_compute_multiplier",
            "bounty": "bounty",
            "concurrency": "concurrency",
            "max_instances": "max_instances",
            "scaling_threshold_ratio": "scaling_threshold",
            "discount_ratio": "discount",
            "shutdown_after_seconds": "shutdown_after_seconds",
        }.items():
            want.put(f"chutes_chute_{metric}", row[field], chute_id=chute)
        want.put("chutes_chute_window_invocations", row["invocation_count"], chute_id=chute, window="1d")
        for gpu in selector.get("supported_gpus") or []:
            want.put("chutes_chute_supported_gpu_info", 1, chute_id=chute, gpu=gpu)
        for factor, value in (row["compute_multiplier_factors"] or {}).items():
            want.put("chutes_chute_compute_multiplier_factor", value, chute_id=chute, factor=factor)


def expect_servers(want: Expected, raw: dict[str, Any]) -> None:
    servers = raw["servers"]["servers"]
    for row in servers:
        labels = {"hotkey": HOTKEY, "server_id": row["server_id"]}
        tee = flag(row["is_tee"])
        want.put("chutes_server_info", 1, **labels, name=row["name"], ip=row["ip"], tee=tee, version=row["version"])
        want.put("chutes_server_gpus", len(row["gpus"]), **labels)
        want.put("chutes_server_maintenance_pending", row["maintenance_pending"], **labels)
        want.put("chutes_server_created_timestamp_seconds", seconds(row["created_at"]), **labels)
        want.put("chutes_server_updated_timestamp_seconds", seconds(row["updated_at"]), **labels)
    want.put("chutes_fleet_servers", len(servers), hotkey=HOTKEY)
    want.put("chutes_fleet_servers_without_gpus", len([1 for row in servers if not row["gpus"]]), hotkey=HOTKEY)
    for metric, field in {"ips": "ip", "names": "name"}.items():
        values = [row[field] for row in servers if row[field]]
        repeated = {value for value in values if values.count(value) > 1}
        want.put(f"chutes_fleet_duplicate_server_{metric}", len(repeated), hotkey=HOTKEY)


def expect_gpus(want: Expected, raw: dict[str, Any]) -> None:
    used = {row["gpu_id"] for row in raw["inventory"]}
    active = {row["gpu_id"] for row in raw["inventory"] if row["active"] is True}
    states: dict[str, list[str]] = {}
    for row in raw["nodes"]:
        labels = {"hotkey": HOTKEY, "gpu_id": row["uuid"]}
        want.put(
            "chutes_gpu_info",
            1,
            **labels,
            server_id=row["server_id"],
            gpu=row["gpu_identifier"],
            name=row["name"],
            device_index=row["device_index"],
            verification_host=row["verification_host"],
        )
        verified = row["verified_at"] is not None and row["verification_error"] is None
        want.put("chutes_gpu_verified", verified, **labels)
        want.put("chutes_gpu_verified_timestamp_seconds", seconds(row["verified_at"]), **labels)
        if row["verification_error"]:
            want.put("chutes_gpu_verification_error_info", 1, **labels, error=row["verification_error"])
        want.put("chutes_gpu_memory_bytes", row["memory"], **labels)
        want.put("chutes_gpu_clock_rate_hertz", row["clock_rate"] and row["clock_rate"] * 1e6, **labels)
        want.put("chutes_gpu_processors", row["processors"], **labels)
        want.put("chutes_gpu_created_timestamp_seconds", seconds(row["created_at"]), **labels)
        want.put("chutes_gpu_in_use", row["uuid"] in used, **labels)
        unsaid = row["uuid"] in {item["gpu_id"] for item in raw["inventory"] if item["active"] is None}
        want.put("chutes_gpu_active", None if unsaid else row["uuid"] in active, **labels)
        busy = "earning" if row["uuid"] in active else "starting" if row["uuid"] in used else "idle"
        states.setdefault(row["gpu_identifier"] or "unknown", []).append(busy if verified else "unverified")
    for model, found in states.items():
        for state in ("earning", "starting", "idle", "unverified"):
            want.put("chutes_fleet_gpus", found.count(state), hotkey=HOTKEY, gpu=model, state=state)
    for row in raw["inventory"]:
        labels = {"hotkey": HOTKEY, "gpu_id": row["gpu_id"]}
        want.put("chutes_gpu_allocation_info", 1, **labels, chute_id=row["chute_id"], chute_name=row["chute_name"])


def expect_instances(want: Expected, raw: dict[str, Any]) -> None:
    states = []
    for row in raw["instances"]:
        labels = {"hotkey": HOTKEY, "instance_id": row["instance_id"]}
        states.append("active" if row["active"] else "failed" if row["verification_error"] else "starting")
        described = ("chute_id", "version", "chutes_version", "region", "billed_to")
        want.put("chutes_instance_info", 1, **labels, **{name: row[name] for name in described})
        for metric, field in {
            "active": "active",
            "verified": "verified",
            "consecutive_failures": "consecutive_failures",
            "compute_multiplier": "compute_multiplier",
            "price_usd_per_hour": "hourly_rate",
            "bounty": "bounty",
        }.items():
            want.put(f"chutes_instance_{metric}", row[field], **labels)
        for metric, field in {
            "created": "created_at",
            "activated": "activated_at",
            "last_verified": "last_verified_at",
            "last_queried": "last_queried_at",
            "stop_billing": "stop_billing_at",
        }.items():
            want.put(f"chutes_instance_{metric}_timestamp_seconds", seconds(row[field]), **labels)
        if row["verification_error"]:
            want.put("chutes_instance_verification_error_info", 1, **labels, error=row["verification_error"])
    for state in ("active", "starting", "failed"):
        want.put("chutes_fleet_instances", states.count(state), hotkey=HOTKEY, state=state)


def expect_active_instances(want: Expected, raw: dict[str, Any]) -> None:
    rows_of = raw["active_instances"]
    mine = [row for row in rows_of if row["miner_hotkey"] == HOTKEY]
    want.put("chutes_platform_active_instances", len(rows_of))
    want.put("chutes_platform_active_compute_multiplier", sum(row["compute_multiplier"] for row in rows_of))
    for chute_id in {row["chute_id"] for row in rows_of}:
        count = len([1 for row in rows_of if row["chute_id"] == chute_id])
        want.put("chutes_chute_active_instances", count, chute_id=chute_id)
    want.put("chutes_miner_active_instances", len(mine), hotkey=HOTKEY)
    total = sum(row["compute_multiplier"] for row in mine)
    want.put("chutes_miner_active_compute_multiplier", total, hotkey=HOTKEY)
    newest = max((seconds(row["activated_at"]) or 0 for row in mine), default=0)
    want.put("chutes_miner_last_activation_timestamp_seconds", newest or None, hotkey=HOTKEY)


def expect_images(want: Expected, raw: dict[str, Any]) -> None:
    texts = {"pending build": "pending", "building": "building", "built and pushed": "built"}
    found = []
    for row in raw["images"]:
        image, status = row["image_id"], row["status"]
        failed = status.startswith("error")
        found.append("error" if failed else texts[status])
        named = ("username", "name", "tag", "patch_version", "chutes_version")
        labels = {name: row[name] for name in named} | {"public": flag(row["public"]), "status": found[-1]}
        want.put("chutes_image_info", 1, image_id=image, error=status if failed else "", **labels)
        for metric, field in {
            "created": "created_at",
            "build_started": "build_started_at",
            "build_completed": "build_completed_at",
        }.items():
            want.put(f"chutes_image_{metric}_timestamp_seconds", seconds(row[field]), image_id=image)
    for status in ("pending", "building", "built", "error", "other"):
        want.put("chutes_images", found.count(status), status=status)


def expect_jobs(want: Expected, raw: dict[str, Any]) -> None:
    methods = [row["method"] or "" for row in raw["jobs"]]
    want.put("chutes_jobs_waiting", len(methods))
    for method in set(methods):
        want.put("chutes_jobs_available", methods.count(method), method=method)
    oldest = min(row["created_at"] for row in raw["jobs"])
    want.put("chutes_jobs_oldest_created_timestamp_seconds", seconds(oldest))
    tried = [row for row in raw["jobs"] if HOTKEY in (row["miner_history"] or [])]
    want.put("chutes_jobs_tried", len(tried), hotkey=HOTKEY)
    for row in raw["jobs"]:
        job = row["job_id"]
        labels = {name: row[name] for name in ("chute_id", "method", "status")}
        want.put("chutes_job_info", 1, job_id=job, **labels)
        want.put("chutes_job_created_timestamp_seconds", seconds(row["created_at"]), job_id=job)
        want.put("chutes_job_compute_multiplier", row["compute_multiplier"], job_id=job)
        if row["miner_history"] is not None:
            want.put("chutes_job_tries", len(row["miner_history"]), job_id=job)


def expect_history_and_cooldowns(want: Expected, raw: dict[str, Any]) -> None:
    # The answer is oldest first.
    newest = raw["unique_chute_history"][-1]
    want.put("chutes_miner_unique_chute_gpus", newest["count"], hotkey=HOTKEY)
    want.put("chutes_miner_active_gpus", newest["total_count"], hotkey=HOTKEY)
    want.put("chutes_miner_history_timestamp_seconds", seconds(newest["time"]), hotkey=HOTKEY)
    want.put("chutes_miner_thrash_cooldowns", len(raw["thrash_cooldowns"]), hotkey=HOTKEY)
    for row in raw["thrash_cooldowns"]:
        for metric, field in {"deleted": "deleted_at", "expires": "cooldown_expires_at"}.items():
            name = f"chutes_thrash_cooldown_{metric}_timestamp_seconds"
            want.put(name, seconds(row[field]), hotkey=HOTKEY, chute_id=row["chute_id"])


def expect_observed(want: Expected) -> None:
    # The first answer is where counting starts.
    for event in ("instances_started", "instances_stopped", "instance_verification_failures"):
        want.put(f"chutes_observed_{event}_total", 0, hotkey=HOTKEY)
    want.put("chutes_observed_gpu_verification_failures_total", 0, hotkey=HOTKEY)


def load(directory: Path, **other: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return recorded bodies, and what plain JSON makes of them."""
    bodies = {name: recording(directory, other.get(name, name)) for name in NAMES}
    raw = {name: rows(body) if body.startswith(b"data: ") else json.loads(body) for name, body in bodies.items()}
    return bodies, raw


def expected(raw: dict[str, Any]) -> Page:
    want = Expected()
    for expect in (
        expect_platform,
        expect_stats,
        expect_chutes,
        expect_servers,
        expect_gpus,
        expect_instances,
        expect_active_instances,
        expect_images,
        expect_jobs,
        expect_history_and_cooldowns,
    ):
        expect(want, raw)
    expect_observed(want)
    return want.page


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
async def test_recorded_answers_give_exactly_the_metrics_that_their_json_says(directory: Path) -> None:
    bodies, raw = load(directory)
    async with served(replay(bodies)) as url:
        page = data_of(await scrape(watching(url, collectors=ALL_ON)))
    want = expected(raw)
    assert page.keys() == want.keys()
    assert {key: value for key, value in page.items() if value != pytest.approx(want[key], rel=1e-12)} == {}


async def test_a_window_that_the_stats_leave_out_is_unknown_not_zero() -> None:
    bodies, raw = load(RECORDINGS)
    bodies["stats"] = json.dumps({**raw["stats"], "past_day": None}).encode()
    async with served(replay(bodies)) as url:
        page = await scrape(watching(url, collectors=ALL_ON))
    windows = {dict(labels)["window"] for name, labels in page if name == "chutes_platform_window_miners"}
    assert windows == {"1h", "7d"}
    assert series("chutes_miner_window_compute_units", hotkey=HOTKEY, window="1d") not in page


async def test_chutes_may_lack_what_they_ask_for() -> None:
    bodies, _ = load(RECORDINGS)
    bodies["chutes"] = b'data: {"chute_id":"a","node_selector":{"gpu_count":2}}\n\n'
    async with served(replay(bodies)) as url:
        page = await scrape(watching(url, collectors=ALL_ON))
    assert page[series("chutes_chute_gpus", chute_id="a")] == 2
    assert series("chutes_chute_min_vram_bytes", chute_id="a") not in page


async def test_the_stats_of_2025_give_what_they_have_and_invent_nothing() -> None:
    bodies, raw = load(RECORDINGS, stats="stats_2025")
    async with served(replay(bodies)) as url:
        page = data_of(await scrape(watching(url, collectors=ALL_ON)))
    want = expected(raw)
    assert page.keys() == want.keys()
    assert {key: value for key, value in page.items() if value != pytest.approx(want[key], rel=1e-12)} == {}
    assert not [key for key in page if key[0] in ("chutes_miner_window_instances", "chutes_miner_window_bounties")]


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
async def test_promtool_has_nothing_to_say_about_a_page_of_recorded_answers(directory: Path) -> None:
    bodies, _ = load(directory)
    async with served(replay(bodies)) as url, served_exporter(watching(url, collectors=ALL_ON)) as (exporter_url, _):
        page = (await ask(f"{exporter_url}/metrics")).content
    assert promtool_complaints(page) == ""


NULLABLE = {
    "metagraph": ("hotkey",),
    "metrics": ("chute_id",),
    "chutes": ("chute_id",),
    "nodes": ("uuid",),
    "inventory": ("gpu_id",),
    "instances": ("instance_id",),
    "images": ("image_id",),
    "jobs": ("job_id",),
    "active_instances": ("instance_id",),
    "thrash_cooldowns": ("chute_id",),
    "unique_chute_history": ("time",),
}


def nulled(records: list[Row], *identity: str) -> list[Row]:
    """Return records with null in every field but those that identify them."""
    return [{field: value if field in identity else None for field, value in row.items()} for row in records]


def all_null() -> dict[str, bytes]:
    """Return the recordings with null wherever null can be."""
    bodies, raw = load(RECORDINGS)
    for name, identity in NULLABLE.items():
        rows_of = nulled(raw[name], *identity)
        if bodies[name].startswith(b"["):
            bodies[name] = json.dumps(rows_of).encode()
        else:
            bodies[name] = b"".join(f"data: {json.dumps(row)}\n\n".encode() for row in rows_of)
    bodies["servers"] = json.dumps({"servers": nulled(raw["servers"]["servers"], "server_id")}).encode()
    for name in ("stats", "stats_per_chute"):
        windows = {
            window: {"instance_stats": nulled(part["instance_stats"], "miner_hotkey", "chute_id")}
            for window, part in raw[name].items()
        }
        bodies[name] = json.dumps(windows).encode()
    bodies["scores"] = json.dumps({key: dict.fromkeys(values) for key, values in raw["scores"].items()}).encode()
    return bodies


async def test_null_in_every_field_that_can_be_null_makes_no_sample_of_it() -> None:
    async with served(replay(all_null())) as url:
        page = await scrape(watching(url, collectors=ALL_ON))
    success = {value for (name, _), value in page.items() if name == "chutes_scrape_collector_success"}
    assert success == {1.0}
    # What is known without any field: that something is there, and how many.
    known = {
        "chutes_metagraph_miners": 12,
        "chutes_metagraph_blacklisted_miners": 0,
        "chutes_miner_registered": 1,
        "chutes_miner_blacklisted": 0,
        "chutes_miner_info": 1,
        "chutes_scored_miners": 0,
        "chutes_chute_info": 1,
        "chutes_server_info": 1,
        "chutes_gpu_info": 1,
        "chutes_gpu_verified": 0,
        "chutes_gpu_allocation_info": 1,
        "chutes_instance_info": 1,
        "chutes_platform_active_instances": 8,
        "chutes_miner_active_instances": 0,
        "chutes_miner_active_compute_multiplier": 0,
        "chutes_image_info": 1,
        "chutes_job_info": 1,
        "chutes_jobs_waiting": 3,
        "chutes_jobs_available": 3,
        "chutes_jobs_tried": 0,
        "chutes_miner_history_timestamp_seconds": 1795323600,
        "chutes_miner_thrash_cooldowns": 2,
    }
    counted = (
        "chutes_observed_",
        "chutes_images",
        "chutes_fleet_",
        "chutes_gpu_in_use",
        "chutes_gpu_active",
        "chutes_platform_window_",
    )
    for (name, labels), value in data_of(page).items():
        if name.startswith("chutes_miner_window_"):
            # The miner has no record in the past hour at all, which says that it did nothing.
            assert (value, ("window", "1h") in labels) == (0, True)
        elif not name.startswith(counted):
            assert value == known[name], name
