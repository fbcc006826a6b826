"""Ended and disabled instances of recorded worlds, against the truth of the service's database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands.support import Target, run
from tests.recorded import DIRECTORIES, Miner, Row, seconds
from tests.support import Page, patient, replay, scrape, series, served

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)


def truth(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "expected.json").read_bytes())
    return found


def ended(directory: Path) -> list[Row]:
    """Return the ended instances that stand in a report. 0 is the newest."""
    return [row for row in truth(directory)["ended"]["instances"] if row["report"] is not None]


def reports(directory: Path) -> dict[str, bytes]:
    """Return the body of each report by its path."""
    folder = directory / "extra" / "audit_reports"
    index = json.loads((folder / "index.json").read_bytes())
    return {entry["path"]: (folder / f"{entry['n']:02}.json").read_bytes() for entry in index}


async def page_of_all(directory: Path) -> Page:
    """Return a page that watches every miner whose instances ended."""
    miner = Miner(directory, "test_miner")
    hotkeys = sorted({row["miner"] for row in ended(directory)})
    async with served(replay(miner.bodies())) as url:
        return await scrape(patient(url, hotkeys=hotkeys))


async def test_the_page_counts_the_ends_of_the_newest_report(directory: Path) -> None:
    page = await page_of_all(directory)
    rows = ended(directory)
    for hotkey in {row["miner"] for row in rows}:
        mine = [row for row in rows if row["miner"] == hotkey and row["report"] == 0]
        found = {
            counts: sum(
                value
                for (name, labels), value in page.items()
                if name == "chutes_miner_window_ended_instances"
                and {("hotkey", hotkey), ("counts", counts), ("window", "1h")} <= labels
            )
            for counts in ("true", "false")
        }
        assert found == {"true": sum(row["counts"] for row in mine), "false": sum(not row["counts"] for row in mine)}
        failed = page[series("chutes_miner_window_failed_starts", hotkey=hotkey, window="1h")]
        assert failed == sum(row["failed_start"] for row in mine)
        # An estimate, from the last multiplier alone.
        lost = page[series("chutes_miner_window_lost_compute_units", hotkey=hotkey, window="1h")]
        assert lost == pytest.approx(sum(row["lost_units_at_newest_report"] for row in mine), rel=0.5, abs=1)
    newest = json.loads((directory / "extra" / "audit_reports" / "index.json").read_bytes())[0]
    assert page[series("chutes_audit_report_end_timestamp_seconds")] == seconds(newest["end"])


async def test_the_page_knows_the_reason_of_every_end(directory: Path) -> None:
    page = await page_of_all(directory)
    assert {
        value
        for (name, labels), value in page.items()
        if name == "chutes_miner_window_ended_instances" and ("reason", "other") in labels
    } == {0}


@pytest.mark.parametrize("hours", [2, 24])
async def test_incidents_lists_every_end_with_exactly_what_it_cost(directory: Path, hours: int) -> None:
    listed = sorted({row["miner"] for row in ended(directory)})
    bodies = Miner(directory, "test_miner").bodies()
    async with served(replay(bodies, reports(directory))) as url:
        flags = [flag for hotkey in listed for flag in ("--hotkey", hotkey)]
        status, output, _ = await run(Target(url), "incidents", *flags, "--hours", str(hours), "--json", variables={})
    summary = json.loads(output)
    assert (status, summary["not_known"]) == (0, [])
    assert [miner["hotkey"] for miner in summary["miners"]] == listed
    found = {row["instance_id"]: (miner["hotkey"], row) for miner in summary["miners"] for row in miner["ended"]}
    wanted = {row["instance_id"]: row for row in ended(directory) if row["report"] < hours}
    assert found.keys() == wanted.keys()
    for key, (hotkey, row) in found.items():
        want = wanted[key]
        assert (hotkey, row["chute_id"], row["counts"], row["failed_start"], row["reason_text"]) == (
            *(want["miner"], want["chute_id"], want["counts"], want["failed_start"], want["reason"]),
        )
        assert seconds(row["ended_at"]) == pytest.approx(want["deleted_at"], abs=1e-3)
        assert row["active_seconds"] == pytest.approx(want["active_seconds"], abs=1e-3)
        assert row["lost_compute_units"] == pytest.approx(want["lost_units_at_newest_report"], rel=1e-6)
    for miner in summary["miners"]:
        lost = [row["lost_compute_units"] for row in miner["ended"]]
        assert lost == sorted(lost, reverse=True)
