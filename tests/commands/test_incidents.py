"""The command ``incidents`` when something is missing. tests/test_ended.py compares it with the truth."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.test_reports import INSTANCE, RECORD, body
from tests.collectors.test_ended_instances import ENDED
from tests.commands.support import ALPHA_USD, EMISSION, Target, chain_flag, run
from tests.recorded import Miner
from tests.support import HOTKEY, RECORDINGS, replay, served
from tests.test_ended import reports

if TYPE_CHECKING:
    from chutes_exporter.simulator import Simulator

Reports = dict[int, bytes]
"""The body of each report by the hour of its end."""
NAMES = b'[{"chute_id": "c", "name": "vendor/model"}]'
MINE = ENDED | {"miner_hotkey": HOTKEY, "chute_id": "c", "activated_at": "2026-11-24T11:00:01"}


def record(start: str, end: str | None, multiplier: float | None = 2.0) -> dict[str, Any]:
    times = {"started_at": f"2026-11-24T{start}:00", "ended_at": end and f"2026-11-24T{end}:00"}
    return RECORD | times | {"compute_multiplier": multiplier}


async def incidents(found: Reports, *flags: str, minutes: int = 69, **more: bytes) -> tuple[int, str]:
    """Run the command on reports that end at some hours, minutes after the newest; returns status and output."""
    paths = {hour: f"audit/validator/{HOTKEY}/{hour + 24}.json" for hour in found}
    starts = {path: datetime(2026, 11, 24, tzinfo=UTC) + timedelta(hours=hour - 1) for hour, path in paths.items()}
    listed = [
        {"path": path, "start_time": start.isoformat(), "end_time": (start + timedelta(hours=1)).isoformat()}
        for path, start in starts.items()
    ]
    now = datetime(2026, 11, 24, tzinfo=UTC) + timedelta(hours=max(found, default=0), minutes=minutes)
    bodies = {"audit": json.dumps(listed).encode(), "utilization": NAMES, **more}
    api = replay(bodies, {paths[hour]: text for hour, text in found.items()}, now.timestamp())
    async with served(api, date_header=False) as url:
        status, output, _ = await run(Target(url), "incidents", "--hotkey", HOTKEY, *flags, variables={})
    return status, output


async def lost(found: Reports, *flags: str) -> tuple[int, list[float | None], list[str]]:
    """Return the status, the lost units and what is not known."""
    status, output = await incidents(found, "--json", *flags)
    summary = json.loads(output)
    units = [row["lost_compute_units"] for row in summary["miners"][0]["ended"]]
    return status, units, [gap["feed"] for gap in summary["not_known"]]


async def test_older_reports_are_read_for_the_multipliers_that_the_newest_lacks() -> None:
    newest = body([MINE | {"created_at": "2026-11-24T10:00:00"}], [record("11:00", None)])
    older = body([INSTANCE], [record("10:00", "11:00", 3.0), record("11:00", "11:00", 9.0)])
    assert await lost({12: newest, 11: older}, "--hours", "1") == (0, [3600 * 3.0 + 1800 * 2.0], [])
    # Without them the units are unknown.
    status, units, gaps = await lost({12: newest}, "--hours", "1")
    assert (status, units, len(gaps)) == (3, [None], 23 + 1)


@pytest.mark.parametrize("multiplier", [None, 1e308, -2.0])
async def test_an_instance_whose_multiplier_is_unknown_is_named_and_older_reports_are_not_read(
    multiplier: float | None,
) -> None:
    newest = body([MINE], [record("11:00", None, multiplier)])
    assert await lost({12: newest}, "--hours", "1") == (3, [None], ["the loss of i"])


async def test_the_25th_report_is_named_if_it_is_asked_for_and_not_listed() -> None:
    _, _, gaps = await lost({12: body([INSTANCE], [])}, "--hours", "25")
    assert len(gaps) == 24
    _, output = await incidents({12: body([INSTANCE], [])}, "--hours", "25")
    assert "? the report of 2026-11-23 12:00 UTC: the service lists the 25th report only" in " ".join(output.split())
    assert "→ Use --hours 24." in output
    _, _, gaps = await lost({12: body([INSTANCE], [])}, "--hours", "24")
    assert len(gaps) == 23


LONG = MINE | {"created_at": "2026-11-24T08:00:00", "activated_at": "2026-11-24T08:00:00"}
"""It ends with its score, 3.5 hours after its activation."""


async def test_the_last_instance_of_its_chute_loses_what_older_reports_show() -> None:
    first, second, penalized = record("08:00", "10:00", 2.0), record("10:00", None, 3.0), record("10:00", "11:30", 0.3)
    found = {12: body([LONG], [penalized]), 11: body([LONG], [second]), 10: body([LONG], [first])}
    status, units, _ = await lost(found, "--hours", "1")
    assert status == 0
    assert units == pytest.approx([5400 * (3.0 - 0.3)])
    _, output = await incidents(found, "--hours", "1")
    assert " miner, last of its chute  yes " in output
    private = {hour: text.replace(b'"billed_to": null', b'"billed_to": "user"') for hour, text in found.items()}
    status, units, _ = await lost(private, "--hours", "1")
    assert (status, units) == (0, [7200 * 2.0 + 5400 * 3.0])


async def test_a_penalty_on_a_record_that_no_older_report_has_is_seen_by_the_record_before() -> None:
    found = {12: body([LONG], [record("08:00", "11:15", 2.0), record("11:15", "11:30", 0.2)])}
    status, units, _ = await lost(found, "--hours", "1")
    assert status == 0
    assert units == pytest.approx([900 * (2.0 - 0.2)])
    same = {12: body([LONG], [record("08:00", "11:15", 2.0), record("11:15", "11:30", 1.9)])}
    assert await lost(same, "--hours", "1") == (0, [0], [])


async def test_whether_an_instance_was_the_last_of_its_chute_is_not_known_without_an_older_report() -> None:
    status, units, gaps = await lost({12: body([LONG], [record("08:00", "11:30", 2.0)])}, "--hours", "1")
    assert (status, units, gaps[-1]) == (3, [None], "the loss of i")
    status, units, gaps = await lost({12: body([MINE], [record("11:00", "11:30", 0.0)])}, "--hours", "1")
    assert (status, units, gaps[-1]) == (3, [None], "the loss of i")


async def test_an_end_more_than_a_day_ago_cost_nothing_of_the_past_day() -> None:
    early = {
        **LONG,
        **{name: LONG[name].replace("24T", "23T") for name in ("created_at", "activated_at", "deleted_at")},
    }
    found = {12: body([INSTANCE], []), -12: body([early], [])}
    assert (await lost(found, "--hours", "25"))[1] == [0]


async def test_an_end_before_the_activation_has_no_active_time_and_huge_units_are_short() -> None:
    newest = body([MINE | {"activated_at": "2026-11-24T11:40:00"}], [record("11:00", None, 1e300)])
    _, output = await incidents({12: newest}, "--hours", "1")
    assert output.splitlines()[2].split()[:6] == ["2026-11-24T11:30Z", "30", "0", "miner", "no", "1.8e+303"]
    assert max(map(len, output.splitlines())) < 110


async def test_missing_and_bad_reports_are_named_and_nothing_is_invented() -> None:
    good = body([MINE], [record("11:00", None)])
    bad = {12: good, 10: b"{}", 9: body([MINE | {"instance_id": 5}, MINE | {"deleted_at": "2026-11-24T08:30:00"}], [])}
    status, units, gaps = await lost(bad, "--hours", "4")
    assert (status, units) == (3, [3600.0])
    assert gaps == [f"the report of 2026-11-24 {hour} UTC" for hour in ("11:00", "10:00", "09:00")]


async def test_an_ended_instance_has_the_name_of_its_chute_and_its_age() -> None:
    found = {12: body([MINE], [record("11:00", None)])}
    _, output = await incidents(found, "--hours", "1")
    assert output.splitlines()[2].split()[1:] == ["30", "30", "miner", "no", "3600", "vendor/model", "c"]
    for broken in (b"", b'[{"chute_id": "c"}, {"chute_id": 5}]'):
        status, output = await incidents(found, "--hours", "1", utilization=broken)
        assert status == 3
        assert "? names of chutes: " in output


async def test_hours_that_no_report_covers_yet_are_named() -> None:
    found = {12: body([INSTANCE], [])}
    assert (await incidents(found, "--hours", "1"))[0] == 0
    status, output = await incidents(found, "--hours", "1", minutes=71)
    assert status == 3
    assert "\nNo ended instance is known.\nNot known\n? the ends since 2026-11-24 12:00 UTC: " in output


async def test_an_api_without_reports_and_a_command_without_a_miner_say_so(simulator: Simulator) -> None:
    assert await lost({}) == (3, [], ["the list of reports"])
    assert (await incidents({}))[1].startswith(f"{HOTKEY}\nNo ended instance is known.\nNot known\n")
    status, _, errors = await run(simulator, "incidents", variables={})
    assert status == 2
    assert "--hotkey" in errors


async def test_the_screen_shows_the_dearest_ends_and_the_sums_by_reason() -> None:
    miner = Miner(RECORDINGS, "test_miner")
    async with served(replay(miner.bodies(), reports(RECORDINGS))) as url, chain_flag() as chain:
        _, output, _ = await run(Target(url), "incidents", "--hotkey", miner.hotkey, chain, variables={})
    day = json.loads(miner.bodies()["stats"])["past_day"]["instance_stats"]
    usd = 146803 * EMISSION * ALPHA_USD / sum(row["compute_units"] for row in day)
    lines = output.splitlines()
    assert lines[2].split() == [
        *("2026-11-26T14:28Z", "523", "497", "gpu_missing", "no", "146803", f"{usd:.1f}"),
        *2 * ["56fda629-0f64-4d1a-8f1d-d34779ffba08"],
    ]
    assert "Not shown: 31 more instances. --json has everything." in lines
    assert "51 ended: 2 gpu_missing (146803 units), " in output
    assert "Never active: 15." in lines


@pytest.mark.parametrize(
    ("stats", "gaps"),
    [(None, ["stats"]), ({"past_day": {"instance_stats": []}}, [])],
    ids=["no answer", "nothing was computed"],
)
async def test_money_is_unknown_without_the_compute_units_of_all_miners(stats: Any, gaps: list[str]) -> None:
    answer: dict[str, Any] = {} if stats is None else {"stats": json.dumps(stats).encode()}
    async with chain_flag() as chain:
        _, output = await incidents(
            {12: body([MINE], [record("11:00", None)])}, "--hours", "1", "--json", chain, fmv=b'{"tao": 400}', **answer
        )
        # All ends are known, though not what a unit is worth.
        status, text = await incidents({12: body([INSTANCE], [])}, "--hours", "1", chain, fmv=b'{"tao": 400}', **answer)
    assert (status, text.splitlines()[1]) == (3 if gaps else 0, "No instance ended.")
    summary = json.loads(output)
    assert [gap["feed"] for gap in summary["not_known"]] == gaps
    assert summary["miners"][0]["ended"][0]["lost_usd"] is None
