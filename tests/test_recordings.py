"""Recorded answers, through the whole exporter and a socket, value by value against what the raw
JSON says.

A value that is declared to be a field of a record must be that field of the JSON. Values by a rule
are worked out from the JSON without any code of the package: other parsing, other loops.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from fractions import Fraction
from inspect import ismodule
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter import collectors
from chutes_exporter.collectors import table as tables
from tests.commands.support import Target, run
from tests.recorded import MINERS, Miner, Row, raw_json, rows, seconds, stream
from tests.support import (
    HOTKEY,
    Page,
    data_of,
    replay,
    reported_at,
    scrape,
    series,
    served,
    successes,
    watching,
)
from tests.test_facts import MARKED, NUMBERS, VALUES
from tests.test_secrets import everything_shown

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKER = "zq7-secret"
SECRETS: dict[str, Row] = {
    "instances": {"cacert": MARKER, "extra": {"key": MARKER}},
    "jobs": {"job_args": {"prompt": MARKER}, "result": {"text": MARKER}},
}
"""Fields of the service that hold keys and users' data."""

ELSEWHERE = (
    *(metric for metric, _ in (*VALUES.values(), MARKED["blacklisted"])),
    *NUMBERS.values(),
    *("chutes_fleet_", "chutes_gpu_state", "chutes_images"),
    *("chutes_server_gpus", "chutes_server_state", "chutes_server_maintenance_status"),
    *("chutes_server_upgrade_", "chutes_server_version_accepted"),
    *("chutes_server_idle_", "chutes_server_launch_"),
    *("chutes_instance_outdated", "chutes_instance_start_in_vain"),
    *("chutes_maintenance_window_open", "chutes_maintenance_older_slots_in_use"),
    *("chutes_platform_", "chutes_miner_score_heading_ratio", "chutes_launch_", "chutes_audit_"),
    *("chutes_miner_ended_", "chutes_miner_lost_", "chutes_miner_total_lost_"),
    *("chutes_miner_chute_ended_", "chutes_miner_chute_lost_", "chutes_miner_disabled_"),
)
"""Metrics that other tests compare with the service's own answers and its database."""

TABLES = [
    value
    for module in map(vars, filter(ismodule, vars(collectors).values()))
    for value in module.values()
    if isinstance(value, tables.Table) and value is not collectors.chain.TAO
]
WINDOWS = {"past_hour": "1h", "past_day": "1d", "all": "7d"}
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:")


def text(value: object) -> str:
    """Return a label's text."""
    if value is None:
        return ""
    found = str(value).lower() if isinstance(value, bool) else str(value)
    return found[:200]


class Expected:
    def __init__(self, hotkey: str) -> None:
        self.hotkey = hotkey
        self.page: Page = {}

    def put(self, name: str, number: Any, /, **labels: Any) -> None:
        if number is not None:
            key = series(name, **{label: text(value) for label, value in labels.items()})
            assert key not in self.page
            self.page[key] = float(number)

    def mine(self, name: str, value: Any, /, **labels: Any) -> None:
        self.put(name, value, hotkey=self.hotkey, **labels)


def records_of(table: tables.Table[Any], raw: dict[str, Any], hotkey: str) -> list[Row]:
    """Return the records of a table from the JSON."""
    found = raw[table.feed.name]
    match table.feed.name:
        case "metagraph":
            found = [seat for seat in found if seat["hotkey"] == hotkey]
        case "scores":
            found = score_records(found, hotkey)
        case "servers":
            found = found["servers"]
        case "maintenance":
            found = found["servers"] if table.key else [found]
        case "platform_gpus":
            found = [{"gpu": gpu} | counts for gpu, counts in found.items()]
        case "jobs":
            found = waiting_jobs(raw)
        case "stats":
            found = stats_records(found, hotkey)
        case "stats_per_chute":
            found = stats_records(raw["stats_per_chute_one"], hotkey)
    return list(found)


def score_records(scores: Row, hotkey: str) -> list[Row]:
    if hotkey not in scores["final_scores"]:
        return []
    fields = ("final_scores", "raw_values")
    return [{"hotkey": hotkey} | {field: scores[field][hotkey] for field in fields}]


def stats_records(stats: Row, hotkey: str) -> list[Row]:
    found = []
    for field, window in WINDOWS.items():
        rows = stats[field]["instance_stats"]
        found += [{"window": window} | row for row in rows if row["miner_hotkey"] == hotkey]
    return found


def value_of(record: Row, field: str) -> Any:
    """Return a field, or a field of a field. Times become seconds."""
    value: Any = record
    for name in field.split("."):
        value = None if value is None else value.get(name)
    return seconds(value) if isinstance(value, str) and TIME.match(value) else value


def values_of(record: Row, declared: tables.Row | tables.Info) -> list[tuple[Row, Any]]:
    """Return the values that are declared as fields of a record, with their labels after the
    key.
    """
    match declared:
        case tables.Info(value=texts, only=only):
            return texts_of(record, texts, only)
        case tables.Row(value={**fields}, by=by):
            return [({by: label}, value_of(record, str(field))) for label, field in fields.items()]
        case tables.Row(value=str(field), by="", convert=None):
            return [({}, value_of(record, field))]
        case tables.Row(value=str(field), by=by, convert=None):
            return [({by: label}, number) for label, number in value_of(record, field).items()]
    return []


def texts_of(record: Row, texts: Mapping[str, Any], only: Any) -> list[tuple[Row, Any]]:
    """Return the texts of an Info, nothing if a function makes one of them or chooses records."""
    if not all(isinstance(field, str) for field in (*texts.values(), only)):
        return []
    if only and not value_of(record, only):
        return []
    return [({label: value_of(record, field) for label, field in texts.items()}, 1)]


def expect_fields(want: Expected, raw: dict[str, Any]) -> None:
    for table in TABLES:
        if table.feed.name not in raw:
            continue
        for record in records_of(table, raw, want.hotkey):
            for metric, declared in table.rows.items():
                for labels, number in values_of(record, declared):
                    others = {"hotkey", *declared.labels}
                    names = [name for name in metric.labels if name not in others]
                    key = key_of(record, table, names)
                    if "hotkey" in metric.labels:
                        key["hotkey"] = want.hotkey
                    want.put(metric.name, number, **key, **labels)


def key_of(record: Row, table: tables.Table[Any], names: list[str]) -> Row:
    """Return the labels that tell the records of a table apart, without the hotkey."""
    fields = [field for field in table.key if field not in ("hotkey", "miner_hotkey")]
    return {name: record[field] for name, field in zip(names, fields, strict=True)}


def expect_metagraph(want: Expected, raw: dict[str, Any]) -> None:
    (seat,) = (seat for seat in raw["metagraph"] if seat["hotkey"] == want.hotkey)
    incentives = sorted(seat["incentive"] for seat in raw["metagraph"])
    ahead = [one for one in incentives if one > seat["incentive"]]
    want.mine("chutes_miner_incentive_rank", 1 + len(ahead))
    want.mine("chutes_miner_consensus_ratio", Fraction(seat["vtrust"]) / 65535)
    want.mine("chutes_miner_registered", 1)


def expect_scores(want: Expected, raw: dict[str, Any]) -> None:
    final = raw["scores"]["final_scores"]
    share = final.get(want.hotkey)
    if share is not None:
        better = [other for other in final.values() if other > share]
        want.mine("chutes_miner_score_next_better_ratio", min(better, default=None))


def expect_stats(want: Expected, raw: dict[str, Any]) -> None:
    for field, window in WINDOWS.items():
        listed = {record["miner_hotkey"] for record in raw["stats"][field]["instance_stats"]}
        if want.hotkey not in listed:
            # A watched miner that is not listed did nothing in the window.
            for metric in ("instances", "bounties", "compute_seconds", "compute_units"):
                want.mine(f"chutes_miner_window_{metric}", 0, window=window)


def expect_instances(want: Expected, raw: dict[str, Any]) -> None:
    places = places_of(want.hotkey, raw)
    active = [row["chute_id"] for row in raw["active_instances"]]
    for row in raw["instances"]:
        labels = labels_of(row, raw)
        expect_state(want, row, labels)
        units = row["compute_multiplier"]
        want.mine("chutes_instance_compute_units_per_second", units, **labels)
        for deadline, at in deadlines_of(row).items():
            name = "chutes_instance_deadline_timestamp_seconds"
            want.mine(name, at, **labels, deadline=deadline)
        gpus = places[row["instance_id"]]
        place = {"server_id": "", "server": "", "gpu": ""}
        if gpus:
            # All GPUs of an instance are on one server.
            ((server, model),) = set(gpus)
            names = {one["server_id"]: one["name"] for one in raw["servers"]["servers"]}
            place = {"server_id": server, "server": names[server], "gpu": model}
            later = later_of(row["chute_id"], model, raw)
            want.mine("chutes_instance_later_compute_units_per_second", later, **labels)
        want.mine("chutes_instance_gpus", len(gpus), **labels, **place)
        if row["active"]:
            is_last = active.count(row["chute_id"]) == 1
            want.mine("chutes_instance_last_active", is_last, **labels)


def expect_state(want: Expected, row: Row, labels: Row) -> None:
    is_disabled = not row["active"] and row["activated_at"]
    is_starting = not row["active"] and not row["activated_at"]
    metric = "chutes_instance_state"
    want.mine(metric, bool(row["active"]), **labels, state="active")
    want.mine(metric, bool(is_starting), **labels, state="starting")
    want.mine(metric, bool(is_disabled), **labels, state="disabled")


def labels_of(row: Row, raw: dict[str, Any]) -> Row:
    """Return the labels of an instance."""
    names = {chute["chute_id"]: chute["name"] for chute in raw["chutes"]}
    return {
        "instance_id": row["instance_id"],
        "chute_id": row["chute_id"],
        "chute": names[row["chute_id"]],
        "private": row["billed_to"] is not None,
    }


def places_of(hotkey: str, raw: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Return the server and model of each GPU by its instance, from the public list."""
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for gpu in raw["miner_gpus"].get(hotkey, {"provisioned": []})["provisioned"]:
        places[gpu["chute"]["instance_id"]].append((gpu["server_id"], gpu["gpu"]))
    return places


def deadlines_of(row: Row) -> dict[str, float | None]:
    """Return what happens to an instance, and when."""
    activated, is_starting = seconds(row["activated_at"]), row["activated_at"] is None
    found = {"end_of_billing": seconds(row["stop_billing_at"])}
    if activated is not None and row["billed_to"] is None:
        found["secured"] = activated + 60 * 60
    if row["active"]:
        return found
    limits = []
    verified = seconds(row["last_verified_at"])
    if verified is not None and (row["verified"] or not is_starting):
        limits.append(verified + 180 * 60)
    if is_starting and row["verified"] is not None:
        limits.append((seconds(row["created_at"]) or 0) + 210 * 60)
    found["purge"] = min(limits, default=None)
    return found


def later_of(chute_id: str, model: str, raw: dict[str, Any]) -> Fraction:
    """Return what an instance earns 8 hours after its activation."""
    (chute,) = (one for one in raw["chutes"] if one["chute_id"] == chute_id)
    pay = Fraction(chute["effective_compute_multiplier"])
    if not chute["public"]:
        # It is paid for its own GPUs, not for the cheapest ones that its chute allows.
        models = chute["node_selector"]["supported_gpus"]
        rates = {gpu: Fraction(raw["supported_gpus"][gpu]["hourly_rate"]) for gpu in models}
        pay *= rates[model] / min(rates.values())
    return pay / Fraction(chute["compute_multiplier_factors"].get("bounty_boost", 1))


def expect_servers(want: Expected, raw: dict[str, Any]) -> None:
    places = places_of(want.hotkey, raw)
    for server in raw["servers"]["servers"]:
        labels = {"server_id": server["server_id"], "server": server["name"]}
        units = []
        for model in {gpu["gpu_identifier"] for gpu in server["gpus"]}:
            # A disabled instance earns until it is deleted.
            place = (server["server_id"], model)
            units += [
                row["compute_multiplier"]
                for row in raw["instances"]
                if row["activated_at"] and place in places[row["instance_id"]]
            ]
        if server["gpus"]:
            want.mine("chutes_server_compute_units_per_second", sum(units), **labels)
        want.mine("chutes_server_earning_instances", len(units), **labels)


def expect_active_instances(want: Expected, raw: dict[str, Any]) -> None:
    mine = [row for row in raw["active_instances"] if row["miner_hotkey"] == want.hotkey]
    newest = max((seconds(row["activated_at"]) or 0 for row in mine), default=None)
    want.mine("chutes_miner_last_activation_timestamp_seconds", newest)


def expect_images(want: Expected, raw: dict[str, Any]) -> None:
    texts = {
        "pending build": "pending",
        "building": "building",
        "built and pushed": "built",
        "error": "error",
    }
    for row in raw["images"]:
        image, status = row["image_id"], row["status"]
        found = "other" if status is None else texts[status.split(":")[0]]
        named = ("username", "name", "tag", "patch_version", "chutes_version")
        labels = {name: row[name] for name in named} | {
            "public": text(row["public"]),
            "status": found,
        }
        want.put(
            "chutes_image_info",
            1,
            image_id=image,
            error=status if found == "error" else "",
            **labels,
        )


def waiting_jobs(raw: dict[str, Any]) -> list[Row]:
    chutes = {row["chute_id"] for row in raw["chutes"]}
    return [
        row
        for row in unclaimed_jobs(raw)
        if len(row["miner_history"]) < 15 and row["chute_id"] in chutes
    ]


def unfinished_jobs(raw: dict[str, Any]) -> list[Row]:
    return [row for row in raw["jobs"] if row["finished_at"] is None]


def unclaimed_jobs(raw: dict[str, Any]) -> list[Row]:
    return [row for row in unfinished_jobs(raw) if row["miner_hotkey"] is None]


def expect_jobs(want: Expected, raw: dict[str, Any]) -> None:
    waiting = waiting_jobs(raw)
    want.put("chutes_jobs_waiting", len(waiting))
    want.put("chutes_jobs_abandoned", len(unclaimed_jobs(raw)) - len(waiting))
    for method, count in Counter(row["method"] for row in waiting).items():
        want.put("chutes_jobs_available", count, method=method)
    created = [seconds(row["created_at"]) for row in waiting]
    # One of unknown age may be the oldest.
    if created and None not in created:
        oldest = min(created, key=lambda at: at or 0)
        want.put("chutes_jobs_oldest_created_timestamp_seconds", oldest)
    tried = [row for row in waiting if want.hotkey in row["miner_history"]]
    stuck = [row for row in unfinished_jobs(raw) if row["miner_hotkey"] == want.hotkey]
    want.mine("chutes_jobs_tried", len(tried))
    want.mine("chutes_jobs_stuck", len(stuck))
    for row in waiting:
        want.put("chutes_job_tries", len(row["miner_history"]), job_id=row["job_id"])


def expect_history(want: Expected, raw: dict[str, Any]) -> None:
    # The answer is oldest first.
    newest = raw["unique_chute_history"][-1]
    want.mine("chutes_miner_unique_chute_gpus", newest["count"])
    want.mine("chutes_miner_active_gpus", newest["total_count"])
    want.mine("chutes_miner_history_timestamp_seconds", seconds(newest["time"]))
    counts = [point["total_count"] for point in raw["unique_chute_history"]]
    want.mine("chutes_miner_average_active_gpus", Fraction(sum(counts), len(counts)))


def expect_utilization(want: Expected, raw: dict[str, Any]) -> None:
    for row in raw["utilization"]:
        chute, active = row["chute_id"], row["active_instance_count"]
        starting = row["total_instance_count"] - active
        want.put("chutes_chute_starting_instances", starting, chute_id=chute)
        allowance, target = row["scale_allowance"], row["target_count"]
        # What the last run wanted cannot be what counts now where it is above the active ones, and
        # none is allowed.
        if allowance:
            want.put("chutes_chute_target_instances", active + allowance, chute_id=chute)
        elif target <= active:
            want.put("chutes_chute_target_instances", target, chute_id=chute)
        expect_load(want, row)
    newest = max(row["timestamp"] for row in raw["utilization"])
    want.put("chutes_autoscaler_timestamp_seconds", seconds(newest))


def expect_load(want: Expected, row: Row) -> None:
    for window in ("15m", "1h"):
        labels = {"chute_id": row["chute_id"], "window": window}
        utilization, limited = row[f"utilization_{window}"], row[f"rate_limit_ratio_{window}"]
        # A zero of a chute without instances was not measured.
        if utilization or row["instance_count"]:
            want.put("chutes_chute_recent_utilization_ratio", utilization, **labels)
        if limited or row["instance_count"]:
            want.put("chutes_chute_rate_limited_ratio", limited, **labels)


def expect_bounties(want: Expected, raw: dict[str, Any]) -> None:
    want.put("chutes_open_bounties", len(raw["bounties"]))
    for row in raw["bounties"]:
        chute, age = row["chute_id"], row["seconds_elapsed"]
        expires = Fraction(row["created_at"]) + age + row["time_remaining"]
        want.put("chutes_bounty_expires_timestamp_seconds", expires, chute_id=chute)
        # It grows from 1.1 to 1.5 in 3 hours.
        grown = Fraction(min(age, 180 * 60), 180 * 60)
        boost = Fraction(11, 10) + Fraction(4, 10) * grown
        want.put("chutes_bounty_boost_ratio", boost, chute_id=chute)


EXPECTATIONS = {
    expect_fields: (),
    expect_metagraph: ("metagraph",),
    expect_scores: ("scores",),
    expect_stats: ("stats",),
    expect_instances: ("instances", "chutes", "miner_gpus", "servers"),
    expect_servers: ("instances", "miner_gpus", "servers"),
    expect_active_instances: ("active_instances",),
    expect_images: ("images",),
    expect_jobs: ("jobs", "chutes"),
    expect_history: ("unique_chute_history",),
    expect_utilization: ("utilization",),
    expect_bounties: ("bounties",),
}
"""The expected value if all required answers are known."""


def expected(raw: dict[str, Any], hotkey: str) -> Page:
    want = Expected(hotkey)
    for expect, needed in EXPECTATIONS.items():
        if all(name in raw for name in needed):
            expect(want, raw)
    return {key: value for key, value in want.page.items() if not key[0].startswith(ELSEWHERE)}


def differences(page: Page, want: Page) -> Page:
    assert page.keys() == want.keys()
    return {
        key: value for key, value in page.items() if value != pytest.approx(want[key], rel=1e-12)
    }


@pytest.mark.parametrize("miner", MINERS, ids=str)
async def test_recorded_answers_are_not_doubted_and_give_exactly_the_metrics_that_their_json_says(
    miner: Miner,
) -> None:
    bodies = miner.bodies()
    async with served(replay(bodies, now=reported_at(bodies))) as url:
        page = await scrape(miner.settings(url, chutes="all"))
    assert set(successes(page).values()) == {1.0}
    doubts = {key[1]: value for key, value in page.items() if key[0] == "chutes_feed_doubted"}
    assert len(doubts) > 10
    assert set(doubts.values()) == {0.0}
    data = {key: value for key, value in data_of(page).items() if not key[0].startswith(ELSEWHERE)}
    assert differences(data, expected(raw_json(bodies), miner.hotkey)) == {}


def with_secrets(bodies: dict[str, bytes], *, spoiled: bool = False) -> dict[str, bytes]:
    """Put markers into secret fields.

    Spoiled answers also have unreadable records, and end within a marker.
    """
    told = {}
    for name, fields in SECRETS.items():
        told[name] = [row | fields for row in rows(bodies[name])]
    if spoiled:
        told["instances"] += [row | {"instance_id": 7} for row in told["instances"][:2]]
    found = bodies | {name: stream(records) for name, records in told.items()}
    if spoiled:
        found["jobs"] = found["jobs"][: found["jobs"].rindex(MARKER.encode()) + 4]
    return found


@pytest.mark.parametrize("spoiled", [False, True])
async def test_no_page_log_line_or_error_shows_secrets(
    spoiled: bool,  # noqa: FBT001 - a parameter
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with served(replay(with_secrets(MINERS[0].bodies(), spoiled=spoiled))) as url:
        shown = await everything_shown(watching(url), capsys)
    assert HOTKEY in shown
    assert ("records left out" in shown) is spoiled
    assert MARKER[:4] not in shown


@pytest.mark.parametrize("form", [(), ("--json",)], ids=str)
@pytest.mark.parametrize("name", SECRETS)
async def test_no_query_prints_secrets(name: str, form: tuple[str, ...]) -> None:
    bodies = with_secrets(MINERS[0].bodies())
    async with served(replay(bodies)) as url:
        status, output, errors = await run(Target(url), "query", name, *form)
    assert status == 0, errors
    assert output.count("\n") > len(rows(bodies[name]))
    assert MARKER not in output + errors
