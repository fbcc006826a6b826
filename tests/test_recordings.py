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
    *("chutes_server_gpus", "chutes_server_state", "chutes_server_maintenance_state"),
    *("chutes_server_upgrade_", "chutes_server_version_accepted"),
    *("chutes_server_idle_", "chutes_server_launch_"),
    *("chutes_instance_outdated", "chutes_instance_start_in_vain", "chutes_instance_decision"),
    *("chutes_maintenance_window_open", "chutes_maintenance_older_slots_in_use"),
    *("chutes_platform_", "chutes_miner_score_heading_ratio", "chutes_launch_", "chutes_audit_"),
    *("chutes_miner_window_ended_", "chutes_miner_window_lost_", "chutes_miner_window_total_lost_"),
    "chutes_instance_planned_start_end",
    *("chutes_miner_chute_window_ended_", "chutes_miner_chute_window_lost_"),
    "chutes_miner_disabled_",
)
"""Metrics that other tests compare with the service's own answers and its database."""


def _tables() -> list[tables.Table[Any]]:
    """Return the tables of all collectors, without the one about the price of TAO.

    The collector of the chain is off here. Of its tables, only that one has a recorded answer.
    """
    values: list[object] = []
    for module in vars(collectors).values():
        if ismodule(module):
            values += vars(module).values()
    found = [value for value in values if isinstance(value, tables.Table)]
    return [table for table in found if table is not collectors.chain.TAO]


TABLES = _tables()
WINDOWS = {"past_hour": "1h", "past_day": "1d", "all": "7d"}
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:")


def text(value: object) -> str:
    """Return a label's text."""
    if value is None:
        return ""
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    # Free text is cut.
    return shown[:200]


class Expected:
    """The samples that a page must have."""

    def __init__(self, hotkey: str) -> None:
        self.hotkey = hotkey
        self.page: Page = {}

    def put(self, name: str, number: Any, /, **labels: Any) -> None:
        """Expect a sample, or none if its number is None."""
        if number is not None:
            key = series(name, **{label: text(value) for label, value in labels.items()})
            assert key not in self.page
            self.page[key] = float(number)

    def mine(self, name: str, value: Any, /, **labels: Any) -> None:
        """Expect a sample about the miner."""
        self.put(name, value, hotkey=self.hotkey, **labels)


def records_of(table: tables.Table[Any], raw: dict[str, Any], hotkey: str) -> list[Row]:
    """Return the records of a table from the JSON."""
    answer = raw[table.feed.name]
    match table.feed.name:
        case "metagraph":
            records = [seat for seat in answer if seat["hotkey"] == hotkey]
        case "scores":
            records = score_records(answer, hotkey)
        case "servers":
            records = answer["servers"]
        case "maintenance":
            # One table is about the servers, and the other one about the whole answer.
            records = answer["servers"] if table.key else [answer]
        case "platform_gpus":
            records = [{"gpu": gpu} | counts for gpu, counts in answer.items()]
        case "jobs":
            records = waiting_jobs(raw)
        case "stats":
            records = stats_records(answer, hotkey)
        case "stats_per_chute":
            records = stats_records(raw["stats_per_chute_one"], hotkey)
        case _:
            records = answer
    return list(records)


def score_records(scores: Row, hotkey: str) -> list[Row]:
    """Return the score of a miner as a record with its hotkey, none if it has no score."""
    if hotkey not in scores["final_scores"]:
        return []
    return [
        {
            "hotkey": hotkey,
            "final_scores": scores["final_scores"][hotkey],
            "raw_values": scores["raw_values"][hotkey],
        }
    ]


def stats_records(stats: Row, hotkey: str) -> list[Row]:
    """Return the records about a miner in all windows, each with its window."""
    records = []
    for field, window in WINDOWS.items():
        rows = stats[field]["instance_stats"]
        records += [{"window": window} | row for row in rows if row["miner_hotkey"] == hotkey]
    return records


def value_of(record: Row, field: str) -> Any:
    """Return a field, or a field of a field with a dot. Times become seconds."""
    value: Any = record
    for name in field.split("."):
        if value is None:
            return None
        value = value.get(name)
    if isinstance(value, str) and TIME.match(value):
        return seconds(value)
    return value


def values_of(record: Row, declared: tables.Row | tables.Info) -> list[tuple[Row, Any]]:
    """Return the values that are declared as fields of a record, with their labels after the
    key. Values of functions are none of them.

    A ``Row`` is an object of the JSON. A ``tables.Row`` declares a metric.
    """
    match declared:
        case tables.Info(value=texts, only=only):
            return texts_of(record, texts, only)
        case tables.Row(value={**fields}, by=by):
            # A field for each value of a label.
            return [({by: label}, value_of(record, str(field))) for label, field in fields.items()]
        case tables.Row(value=str(field), by="", convert=None):
            return [({}, value_of(record, field))]
        case tables.Row(value=str(field), by=by, convert=None):
            # A field with a number for each value of a label.
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
    """Expect all values that tables declare as fields."""
    for table in TABLES:
        if table.feed.name in raw:
            for record in records_of(table, raw, want.hotkey):
                expect_fields_of(record, table, want)


def expect_fields_of(record: Row, table: tables.Table[Any], want: Expected) -> None:
    """Expect the values that a table declares as fields of a record."""
    for metric, declared in table.rows.items():
        for labels, number in values_of(record, declared):
            # The other labels of the metric tell the record from others.
            others = {"hotkey", *declared.labels}
            names = [name for name in metric.labels if name not in others]
            key = key_of(record, table, names)
            if "hotkey" in metric.labels:
                key["hotkey"] = want.hotkey
            want.put(metric.name, number, **key, **labels)


def key_of(record: Row, table: tables.Table[Any], names: list[str]) -> Row:
    """Return the labels that tell the records of a table apart, without the hotkey.

    ``names`` are the labels in the order of the table's key, which has the fields.
    """
    fields = [field for field in table.key if field not in ("hotkey", "miner_hotkey")]
    return {name: record[field] for name, field in zip(names, fields, strict=True)}


def expect_metagraph(want: Expected, raw: dict[str, Any]) -> None:
    (seat,) = (seat for seat in raw["metagraph"] if seat["hotkey"] == want.hotkey)
    ahead = [other for other in raw["metagraph"] if other["incentive"] > seat["incentive"]]
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
    gpus_of_instances = places_of(want.hotkey, raw)
    active_of_chute = Counter(row["chute_id"] for row in raw["active_instances"])
    for row in raw["instances"]:
        labels = labels_of(row, raw)
        expect_state(want, row, labels)
        units = row["compute_multiplier"]
        want.mine("chutes_instance_compute_units_per_second", units, **labels)
        for deadline, at in deadlines_of(row).items():
            name = "chutes_instance_deadline_timestamp_seconds"
            want.mine(name, at, **labels, deadline=deadline)
        if row["active"]:
            is_last = active_of_chute[row["chute_id"]] == 1
            want.mine("chutes_instance_last_active", is_last, **labels)
        expect_place(want, row, gpus_of_instances[row["instance_id"]], raw)


def expect_place(
    want: Expected, row: Row, gpus: list[tuple[str, str]], raw: dict[str, Any]
) -> None:
    """Expect where an instance is, and what it earns there later.

    ``gpus`` are the server and model of each of its GPUs.
    """
    labels = labels_of(row, raw)
    if not gpus:
        want.mine("chutes_instance_gpus", 0, **labels)
        return
    # All GPUs of an instance are on one server.
    ((server, model),) = set(gpus)
    names = {one["server_id"]: one["name"] for one in raw["servers"]["servers"]}
    place = {"server_id": server, "server": names[server], "gpu": model}
    want.mine("chutes_instance_gpus", len(gpus), **labels, **place)
    later = later_of(row["chute_id"], model, raw)
    want.mine("chutes_instance_later_compute_units_per_second", later, **labels)


def expect_state(want: Expected, row: Row, labels: Row) -> None:
    """Expect the state of an instance: 1 for one state, and 0 for the others."""
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
    """Return what happens to an instance, and the Unix time when, None if it is not known."""
    activated_at = seconds(row["activated_at"])
    is_starting = row["activated_at"] is None
    deadlines = {"end_of_billing": seconds(row["stop_billing_at"])}
    if activated_at is not None and row["billed_to"] is None:
        deadlines["secured"] = activated_at + 60 * 60
    if row["active"]:
        return deadlines
    # Two rules delete an instance that is not active: the first that applies counts.
    purges = []
    verified_at = seconds(row["last_verified_at"])
    # Within 3 hours of its verification, it must be active. A disabled one was verified before.
    is_verified = row["verified"] or not is_starting
    if verified_at is not None and is_verified:
        purges.append(verified_at + 180 * 60)
    # Within 3.5 hours of its creation, it must be verified and active.
    is_verification_known = row["verified"] is not None
    if is_starting and is_verification_known:
        purges.append((seconds(row["created_at"]) or 0) + 210 * 60)
    deadlines["purge"] = min(purges, default=None)
    return deadlines


def later_of(chute_id: str, model: str, raw: dict[str, Any]) -> Fraction:
    """Return what an instance certainly earns 8 hours after its activation."""
    (chute,) = (one for one in raw["chutes"] if one["chute_id"] == chute_id)
    pay = Fraction(chute["effective_compute_multiplier"])
    if not chute["public"]:
        # It is paid for its own GPUs, not for the cheapest ones that its chute allows.
        models = chute["node_selector"]["supported_gpus"]
        rates = {gpu: Fraction(raw["supported_gpus"][gpu]["hourly_rate"]) for gpu in models}
        pay *= rates[model] / min(rates.values())
    factors = chute["compute_multiplier_factors"]
    for passing in ("bounty_boost", "urgency_boost"):
        pay /= Fraction(factors.get(passing, 1))
    return pay


def expect_servers(want: Expected, raw: dict[str, Any]) -> None:
    places = places_of(want.hotkey, raw)
    # A disabled instance earns until it is deleted.
    earning = [row for row in raw["instances"] if row["activated_at"]]
    for server in raw["servers"]["servers"]:
        labels = {"server_id": server["server_id"], "server": server["name"]}
        units = []
        for model in {gpu["gpu_identifier"] for gpu in server["gpus"]}:
            place = (server["server_id"], model)
            on_server = [row for row in earning if place in places[row["instance_id"]]]
            units += [row["compute_multiplier"] for row in on_server]
        if server["gpus"]:
            want.mine("chutes_server_compute_units_per_second", sum(units), **labels)
        want.mine("chutes_server_earning_instances", len(units), **labels)


def expect_active_instances(want: Expected, raw: dict[str, Any]) -> None:
    mine = [row for row in raw["active_instances"] if row["miner_hotkey"] == want.hotkey]
    newest = max((seconds(row["activated_at"]) or 0 for row in mine), default=None)
    want.mine("chutes_miner_last_activation_timestamp_seconds", newest)


def expect_images(want: Expected, raw: dict[str, Any]) -> None:
    state_of_text = {
        "pending build": "pending",
        "building": "building",
        "built and pushed": "built",
        "error": "error",
    }
    for row in raw["images"]:
        state = "other"
        if row["status"] is not None:
            # What went wrong follows after a colon.
            state = state_of_text[row["status"].split(":")[0]]
        want.put(
            "chutes_image_info",
            1,
            image_id=row["image_id"],
            username=row["username"],
            name=row["name"],
            tag=row["tag"],
            patch_version=row["patch_version"],
            chutes_version=row["chutes_version"],
            public=text(row["public"]),
            error=row["status"] if state == "error" else "",
        )
        for one in (*state_of_text.values(), "other"):
            want.put("chutes_image_state", one == state, image_id=row["image_id"], state=one)


def waiting_jobs(raw: dict[str, Any]) -> list[Row]:
    """Return the jobs that a miner can still claim: of existing chutes, with less than 15 tries."""
    chutes = {row["chute_id"] for row in raw["chutes"]}
    unclaimed = [job for job in unclaimed_jobs(raw) if job["chute_id"] in chutes]
    return [job for job in unclaimed if len(job["miner_history"]) < 15]


def unfinished_jobs(raw: dict[str, Any]) -> list[Row]:
    return [row for row in raw["jobs"] if row["finished_at"] is None]


def unclaimed_jobs(raw: dict[str, Any]) -> list[Row]:
    return [row for row in unfinished_jobs(raw) if row["miner_hotkey"] is None]


def expect_jobs(want: Expected, raw: dict[str, Any]) -> None:
    waiting = waiting_jobs(raw)
    want.put("chutes_jobs_waiting", len(waiting))
    want.put("chutes_jobs_abandoned", len(unclaimed_jobs(raw)) - len(waiting))
    for method, count in Counter(job["method"] for job in waiting).items():
        want.put("chutes_jobs_available", count, method=method)
    creations = [seconds(job["created_at"]) for job in waiting]
    known_creations = [at for at in creations if at is not None]
    # A job of unknown age may be the oldest.
    if waiting and len(known_creations) == len(waiting):
        want.put("chutes_jobs_oldest_created_timestamp_seconds", min(known_creations))
    tried = [job for job in waiting if want.hotkey in job["miner_history"]]
    stuck = [job for job in unfinished_jobs(raw) if job["miner_hotkey"] == want.hotkey]
    want.mine("chutes_jobs_tried", len(tried))
    want.mine("chutes_jobs_stuck", len(stuck))
    for job in waiting:
        want.put("chutes_job_tries", len(job["miner_history"]), job_id=job["job_id"])


def expect_history(want: Expected, raw: dict[str, Any]) -> None:
    # The answer is oldest first.
    newest = raw["unique_chute_history"][-1]
    want.mine("chutes_miner_unique_chute_gpus", newest["count"])
    want.mine("chutes_miner_active_gpus", newest["total_count"])
    want.mine("chutes_miner_history_timestamp_seconds", seconds(newest["time"]))
    counts = [point["total_count"] for point in raw["unique_chute_history"]]
    average = Fraction(sum(counts), len(counts))
    want.mine("chutes_miner_average_active_gpus", average, window="7d")


def expect_utilization(want: Expected, raw: dict[str, Any]) -> None:
    for row in raw["utilization"]:
        chute, active = row["chute_id"], row["active_instance_count"]
        starting = row["total_instance_count"] - active
        want.put("chutes_chute_starting_instances", starting, chute_id=chute)
        allowance, target = row["scale_allowance"], row["target_count"]
        # The allowance is what the present target is above the active instances. Without one, the
        # target of the last run counts, unless it is above them, because then it is an old one.
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
"""What adds expected samples, and the answers that it needs."""


def expected(raw: dict[str, Any], hotkey: str) -> Page:
    """Return the samples that raw answers must give, without those that other tests compare."""
    want = Expected(hotkey)
    for expect, needed in EXPECTATIONS.items():
        if all(name in raw for name in needed):
            expect(want, raw)
    return compared_here(want.page)


def compared_here(page: Page) -> Page:
    """Return a page without the samples that other tests compare."""
    return {key: value for key, value in page.items() if not key[0].startswith(ELSEWHERE)}


def differences(page: Page, want: Page) -> Page:
    """Return the samples of a page that have another value than the expected one."""
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
        # By default, a miner's page lacks the chutes that do not concern it.
        page = await scrape(miner.settings(url, chutes="all"))
    assert set(successes(page).values()) == {1.0}
    # One sample for each feed and reason to doubt it.
    doubts = [value for (name, _), value in page.items() if name == "chutes_feed_doubted"]
    assert len(doubts) > 10
    assert set(doubts) == {0.0}
    data = compared_here(data_of(page))
    assert differences(data, expected(raw_json(bodies), miner.hotkey)) == {}


def with_secrets(bodies: dict[str, bytes], *, spoiled: bool = False) -> dict[str, bytes]:
    """Put markers into secret fields.

    Spoiled answers also have unreadable records, and end within a marker.
    """
    records = {}
    for name, fields in SECRETS.items():
        records[name] = [row | fields for row in rows(bodies[name])]
    if spoiled:
        # An id must be a text.
        unreadable = [row | {"instance_id": 7} for row in records["instances"][:2]]
        records["instances"] += unreadable
    marked = bodies | {name: stream(rows_of_name) for name, rows_of_name in records.items()}
    if spoiled:
        # After the first characters of the last marker.
        within_marker = marked["jobs"].rindex(MARKER.encode()) + 4
        marked["jobs"] = marked["jobs"][:within_marker]
    return marked


@pytest.mark.parametrize("spoiled", [False, True])
async def test_no_page_log_line_or_error_shows_secrets(
    spoiled: bool,  # noqa: FBT001 - a parameter
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with served(replay(with_secrets(MINERS[0].bodies(), spoiled=spoiled))) as url:
        shown = await everything_shown(watching(url), capsys)
    assert HOTKEY in shown
    assert ("records left out" in shown) is spoiled
    # Also the marker that is cut off is not shown.
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
