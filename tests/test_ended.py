"""Ended instances of recorded worlds, against the truth of the service's database."""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.page.exporter import Exporter
from chutes_exporter.rules.losses import END_REASONS
from tests.commands.support import Target, run
from tests.recorded import DIRECTORIES, WORLD_H, Miner, Row, seconds
from tests.support import Clock, Page, page_of, patient, read_reports, replay, series, served

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

of_each_world = pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)


ENDED = "chutes_miner_window_ended_instances"
LOST = "chutes_miner_window_lost_compute_units"
CHUTE_ENDED = "chutes_miner_chute_window_ended_instances"
UNKNOWN_LOSSES = "chutes_miner_window_unknown_losses"
TOTAL_LOST = "chutes_miner_window_total_lost_compute_units"
CHUTE_LOST = "chutes_miner_chute_window_lost_compute_units"


@functools.cache
def expected_of(directory: Path) -> dict[str, Any]:
    """Return what is true of a world by the service's database."""
    found: dict[str, Any] = json.loads((directory / "expected.json").read_bytes())
    return found


def meta_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "meta.json").read_bytes())
    return found


def reported_ends(directory: Path) -> list[Row]:
    """Return the ended instances that stand in a report. The newest report has the number 0."""
    ended = expected_of(directory)["ended"]["instances"]
    return [row for row in ended if row["report"] is not None]


def report_bodies(directory: Path) -> dict[str, bytes]:
    """Return the body of each report by its path."""
    folder = directory / "extra" / "audit_reports"
    bodies = {}
    for entry in report_index(directory):
        file = folder / f"{entry['n']:02}.json"
        bodies[entry["path"]] = file.read_bytes()
    return bodies


def report_index(directory: Path) -> list[Row]:
    """Return the number, path and hour of each report, the newest first."""
    file = directory / "extra" / "audit_reports" / "index.json"
    index: list[Row] = json.loads(file.read_bytes())
    return index


LOSSES_WITH_PENALTY = {
    "c4e5cc96-5964-4844-ac90-0e921592754f": 3316.7588529669833,
    "95fed1f0-4a83-4493-b2af-7526cd3a5a47": 63024.935140058165,
    "8317f0dd-c890-4e1f-89f6-cc4943c79eb3": 12052.8,
}
"""What instances of the older world lost that their miners deleted as the last ones of their
chutes.

It is worked out from the reports before and after the service cut their multipliers."""


@functools.cache
def losses_with_penalty(directory: Path) -> dict[str, float]:
    """Return the units that instances lost, by id, of those whose miner deleted them as the last
    ones of their chute. The loss includes the penalty for that.
    """
    units = {}
    for row in reported_ends(directory):
        instance_id = row["instance_id"]
        # The older world lacks the number, so that it stands in the table. An instance without a
        # penalty is in neither.
        lost = row.get(
            "lost_units_with_penalty_at_newest_report", LOSSES_WITH_PENALTY.get(instance_id)
        )
        if lost is not None:
            units[instance_id] = lost
    return units


ESTIMATES = {
    "720a49dd-d784-4444-ba82-e20a69d569a7": 0.001,
    "f67801dc-0ecc-4ed3-ac51-582140e05691": 0.06,
    "d85422a8-b564-48da-ac5c-28ad87e4dd6b": 0.01,
}
"""Private instances whose miners deleted them as the last ones of their chutes, and whose last
multiplier is in no report before it was cut to 0; and the relative error of the estimate."""


def hours_without_report(directory: Path, hours: int) -> list[int]:
    """Return which of the newest hours have no report. The newest hour is 0."""
    missing = expected_of(directory)["ended"].get("missing_report_hours", [])
    return [hour for hour in missing if hour < hours]


UNCLEAR_LOSSES = {
    "61ee0ebb-3ea7-4a61-9b62-e89d934cb21e",
    "c9b45cf3-9a1e-41dc-941f-0dcf172a083a",
    "e03d0700-e8f1-410a-be9b-c2437e9cdad6",
}
"""Instances that their miners deleted in the oldest hour, which shows a single multiplier. Only the
report before would show whether the service cut it."""


def has_unclear_loss(row: Row) -> bool:
    return row["instance_id"] in UNCLEAR_LOSSES


def has_unclear_reason(row: Row) -> bool:
    """Return whether only the name of its private chute says why an instance ended."""
    return bool(row["private"] and not row["reason"] and not row["valid_termination"])


def outcome(row: Row) -> str:
    """Return what became of the score of an ended instance."""
    if row["failed_start"]:
        return "never_active"
    return "counts" if row["counts"] else "lost"


def lost_units(directory: Path, row: Row) -> float:
    """Return the compute units that an ended instance lost, with the penalty for a last one."""
    penalty = losses_with_penalty(directory).get(row["instance_id"])
    if penalty is not None:
        return penalty
    return float(row["lost_units_at_newest_report"])


async def page_with_all_reports(directory: Path, hotkeys: Iterable[str], **more: Any) -> Page:
    """Return a page that watches some miners, when all reports of the day are read."""
    miner = Miner(directory, "test_miner")
    now = seconds(report_index(directory)[0]["made"])
    assert now is not None
    api = replay(miner.bodies(), report_bodies(directory), now)
    clock = Clock(now)
    async with served(api) as url:
        settings = patient(url, hotkeys=hotkeys, **more)
        async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
            await read_reports(exporter)
            return await page_of(exporter)


@of_each_world
@pytest.mark.parametrize(("window", "hours"), [("1h", 1), ("1d", 24)])
async def test_the_page_knows_every_end_and_exactly_what_it_cost(
    directory: Path, window: str, hours: int
) -> None:
    rows = reported_ends(directory)
    hotkeys = sorted({row["miner"] for row in rows})
    page = await page_with_all_reports(directory, hotkeys)
    newest = report_index(directory)[0]
    assert page[series("chutes_audit_report_end_timestamp_seconds")] == seconds(newest["end"])
    missing_in_a_day = hours_without_report(directory, 24)
    assert page[series("chutes_audit_reports_known")] == 24 - len(missing_in_a_day)
    missing = hours_without_report(directory, hours)
    for hotkey in hotkeys:
        ends = [row for row in rows if row["miner"] == hotkey and row["report"] < hours]
        labels = {"hotkey": hotkey, "window": window}
        samples = samples_of_ends(page, hotkey, window)
        assert_losses(values_by_chute(samples, CHUTE_LOST), directory, ends)
        # The sum over all reasons has all losses.
        total_lost = page.get(series(TOTAL_LOST, **labels))
        assert (total_lost or 0) == pytest.approx(sum_of(samples, CHUTE_LOST))
        unknown_losses = page.get(series(UNKNOWN_LOSSES, **labels))
        if missing:
            # The missing report may have more ends. So losses are lower bounds, and no number of
            # ends is known.
            assert unknown_losses is None
            assert {name for name, _ in samples} <= {LOST, CHUTE_LOST}
            assert 0 not in samples.values()
            continue
        assert unknown_losses == sum(map(has_unclear_loss, ends))
        assert values_by_chute(samples, CHUTE_ENDED) == end_counts(ends)
        if not any(map(has_unclear_reason, ends)):
            assert sum_of(samples, ENDED) == len(ends)
            assert total_lost == pytest.approx(sum_of(samples, LOST))


def samples_of_ends(page: Page, hotkey: str, window: str) -> Page:
    """Return the samples about the ended instances of a miner in a window."""
    labels = {("hotkey", hotkey), ("window", window)}
    names = (ENDED, LOST, CHUTE_ENDED, CHUTE_LOST)
    return {key: value for key, value in page.items() if key[0] in names and labels <= key[1]}


def sum_of(samples: Page, metric: str) -> float:
    return sum(value for (name, _), value in samples.items() if name == metric)


def assert_losses(
    shown: dict[tuple[str, str], float], directory: Path, ends: Iterable[Row]
) -> None:
    """Assert that chutes lost what the ends of their instances cost, or at least nearly so, if one
    of the losses is unclear.

    ``shown`` are the units by chute. The second part of its keys is empty: losses have no outcome.
    """
    ends = list(ends)
    lost = lost_by_chute(directory, ends)
    unclear = {(end["chute_id"], "") for end in ends if has_unclear_loss(end)}
    assert lost.keys() - unclear <= shown.keys() <= lost.keys()
    for key, units in shown.items():
        chute_id, _ = key
        # The largest error of an end of the chute. Most losses are exact.
        error = 1e-6
        for end in ends:
            if end["chute_id"] == chute_id:
                error = max(error, ESTIMATES.get(end["instance_id"], 0))
        if key in unclear:
            # The unclear part may be 0.
            assert 0 < units <= lost[key] * (1 + error)
        else:
            assert units == pytest.approx(lost[key], rel=error)


def values_by_chute(samples: Page, metric: str) -> dict[tuple[str, str], float]:
    """Return the values of a metric that are not 0, by chute and outcome."""
    values = {}
    for (name, pairs), value in samples.items():
        if name == metric and value:
            labels = dict(pairs)
            values[labels.get("chute_id", ""), labels.get("outcome", "")] = value
    return values


REPLACED = ("autoscaler - downscale", "maintenance - ", "SGLang/image upgrade", "chute deleted")
"""The reasons in the worlds of ends that do not count, and are no failures."""


def end_counts(rows: Iterable[Row]) -> dict[tuple[str, str], float]:
    """Return the number of ends by chute and outcome."""
    return dict(Counter((row["chute_id"], outcome_by_chute(row)) for row in rows))


def outcome_by_chute(row: Row) -> str:
    """Return the outcome of an end in metrics by chute, where failures are told from other ends.

    Without a key, nothing is known of the chutes.
    """
    if row["counts"]:
        return "counts"
    if (row["reason"] or "").startswith(REPLACED):
        return "replaced"
    if not row["reason"] or may_have_lost_race(row):
        return "unclear"
    return outcome(row)


def may_have_lost_race(row: Row) -> bool:
    """Return whether others may have filled the chute of an instance that started well."""
    was_purged = (row["reason"] or "").startswith("autoscaler - instance failed to verify")
    return was_purged and row["failed_start"] and row["verified_at"] is not None


def lost_by_chute(directory: Path, rows: Iterable[Row]) -> dict[tuple[str, str], float]:
    """Return the units that each chute lost.

    The keys are those of :func:`values_by_chute`, with an empty outcome.
    """
    lost: dict[tuple[str, str], float] = defaultdict(float)
    for row in rows:
        lost[row["chute_id"], ""] += lost_units(directory, row)
    return {key: units for key, units in lost.items() if units > 0}


@of_each_world
@pytest.mark.parametrize("hours", [2, 24])
async def test_incidents_lists_every_end_with_exactly_what_it_cost(
    directory: Path, hours: int
) -> None:
    hotkeys = sorted({row["miner"] for row in reported_ends(directory)})
    true_ends = {
        row["instance_id"]: row for row in reported_ends(directory) if row["report"] < hours
    }
    status, summary = await run_incidents(directory, hotkeys, hours)
    gaps = {gap["feed"] for gap in summary["not_known"]}
    unclear = gaps_of_unclear_ends(true_ends)
    assert unclear <= gaps
    # Each report that is missing is another gap.
    assert len(gaps - unclear) == len(hours_without_report(directory, hours))
    # 3 means that something is not known.
    assert status == (3 if gaps else 0)
    assert [miner["hotkey"] for miner in summary["miners"]] == hotkeys
    listed = set()
    for miner in summary["miners"]:
        for row in miner["ended"]:
            listed.add(row["instance_id"])
            true_end = true_ends[row["instance_id"]]
            assert miner["hotkey"] == true_end["miner"]
            assert_is_end(row, true_end)
            assert_has_loss(row, true_end, directory)
        # The largest loss comes first, and unknown ones last.
        units = [row["lost_compute_units"] or 0 for row in miner["ended"]]
        assert units == sorted(units, reverse=True)
    assert listed == true_ends.keys()


async def run_incidents(
    directory: Path, hotkeys: Iterable[str], hours: int
) -> tuple[int, dict[str, Any]]:
    """Run the command about some miners without a key; return its status and JSON."""
    bodies = Miner(directory, "test_miner").bodies()
    now = seconds(report_index(directory)[0]["end"])
    flags = [f"--hotkey={hotkey}" for hotkey in hotkeys]
    async with served(replay(bodies, report_bodies(directory), now)) as url:
        status, output, _ = await run(
            Target(url), "incidents", *flags, "--hours", str(hours), "--json", variables={}
        )
    return status, json.loads(output)


def gaps_of_unclear_ends(rows: dict[str, Row]) -> set[str]:
    """Return what the command says is not known of some ends."""
    gaps = set()
    for instance_id, row in rows.items():
        if has_unclear_loss(row):
            gaps.add(f"the loss of {instance_id}")
        if has_unclear_reason(row):
            gaps.add(f"why {instance_id} ended")
    return gaps


def assert_is_end(row: Row, want: Row) -> None:
    """Assert that a row of the command tells how an instance ended, as the database has it."""
    assert row["chute_id"] == want["chute_id"]
    assert row["counts"] == want["counts"]
    assert row["failed_start"] == want["failed_start"]
    assert row["reason_text"] == want["reason"]
    assert (row["reason"] is None) == has_unclear_reason(want)
    assert seconds(row["ended_at"]) == pytest.approx(want["deleted_at"], abs=1e-3)
    assert row["active_seconds"] == pytest.approx(want["active_seconds"], abs=1e-3)


def assert_has_loss(row: Row, want: Row, directory: Path) -> None:
    """Assert that a row of the command tells what the end cost, if the reports tell it."""
    key = row["instance_id"]
    if has_unclear_loss(want):
        assert row["last_of_chute"] is None
        assert row["lost_precision"] == "at_least"
        assert (row["lost_compute_units"] or 0) <= lost_units(directory, want)
        return
    assert row["last_of_chute"] == (key in losses_with_penalty(directory))
    assert row["lost_precision"] == ("about" if key in ESTIMATES else "exact")
    lost = pytest.approx(lost_units(directory, want), rel=ESTIMATES.get(key, 1e-6))
    assert row["lost_compute_units"] == lost


REDEPLOYED = {
    "5496d990-1d5c-4b9b-9a57-9f7b172a961a": 17615.35,
    "a99902fa-3ac1-4d0d-ae13-ac493452416d": 15242.12,
    "b3a8f958-3477-4afd-9145-78c3ee7fffb9": 47059.84,
}
"""The test miner's instances of chutes that integrated subnets redeployed, and what each lost."""


async def test_with_a_key_redeployments_have_their_own_reason_and_loss() -> None:
    miner = Miner(WORLD_H, "test_miner")
    page = await page_with_all_reports(WORLD_H, [], keys=[miner.key])

    def value_of(metric: str, window: str, **labels: str) -> float:
        return page[series(metric, hotkey=miner.hotkey, window=window, **labels)]

    assert value_of(TOTAL_LOST, "1d") > sum(REDEPLOYED.values())
    lost_in_day = value_of(LOST, "1d", reason="redeployed")
    assert lost_in_day == pytest.approx(sum(REDEPLOYED.values()), abs=0.1)
    # Only the first of them ended in the newest hour.
    assert value_of(LOST, "1h", reason="redeployed") == pytest.approx(17615.35, abs=0.1)
    assert value_of(ENDED, "1d", reason="redeployed", outcome="lost") == 3
    # A job that is over has no reason, either.
    assert value_of(ENDED, "1d", reason="none", outcome="never_active") == 1


@pytest.mark.parametrize(
    ("window", "hours", "units"), [("1h", 1, 208432.8), ("1d", 24, 599267.8)], ids=["1h", "1d"]
)
async def test_with_a_key_the_losses_of_all_reasons_are_those_of_all_ends(
    window: str, hours: int, units: float
) -> None:
    miner = Miner(WORLD_H, "test_miner")
    page = await page_with_all_reports(WORLD_H, [], keys=[miner.key])
    rows = [row for row in reported_ends(WORLD_H) if row["miner"] == miner.hotkey]
    true = sum(lost_units(WORLD_H, row) for row in rows if row["report"] < hours)
    # The sum is also written down as ``units``, in case a helper of this file is wrong.
    assert true == pytest.approx(units, abs=0.1)
    # Some losses are estimates.
    lost = sum_of(samples_of_ends(page, miner.hotkey, window), LOST)
    assert lost == pytest.approx(true, abs=10)


async def test_with_a_key_incidents_tells_redeployments_from_other_ends() -> None:
    miner = Miner(WORLD_H, "test_miner")
    bodies = miner.bodies()
    now = seconds(report_index(WORLD_H)[0]["end"])
    api = replay(bodies, report_bodies(WORLD_H), now)
    seeds = meta_of(WORLD_H)["invented_seeds"]
    variables = {"MINER_SS58": miner.hotkey, "MINER_SEED": seeds[miner.hotkey]}

    async def run_again() -> tuple[int, dict[str, str | None], list[str]]:
        """Return the status, the reason of each instance, and what is not known."""
        status, output, _ = await run(Target(url), "incidents", "--json", variables=variables)
        summary = json.loads(output)
        (miner_summary,) = summary["miners"]
        reasons = {row["instance_id"]: row["reason"] for row in miner_summary["ended"]}
        return status, reasons, [gap["feed"] for gap in summary["not_known"]]

    async with served(api) as url:
        status, reasons, gaps = await run_again()
        assert (status, gaps) == (0, [])
        redeployed = {key for key, reason in reasons.items() if reason == "redeployed"}
        assert redeployed == set(REDEPLOYED)
        # Only the name of its chute tells that an instance was redeployed.
        del bodies["chutes"]
        status, reasons, gaps = await run_again()
        assert (status, gaps[0]) == (3, "names of chutes")
        unknown = {key for key, reason in reasons.items() if reason is None}
        assert unknown > set(REDEPLOYED)


async def test_without_a_key_the_reasons_that_a_name_decides_are_absent_and_no_others() -> None:
    hotkey = Miner(WORLD_H, "test_miner").hotkey
    page = await page_with_all_reports(WORLD_H, [hotkey])
    samples = samples_of_ends(page, hotkey, "1d")
    reasons = {dict(labels)["reason"] for name, labels in samples if name == LOST}
    assert reasons == set(END_REASONS) - {"none", "redeployed"}
