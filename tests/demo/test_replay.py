from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.errors import NotFoundError
from chutes_exporter.demo import day as module
from chutes_exporter.demo.day import DayError, open_day
from chutes_exporter.demo.replay import GARBAGE, Fault, Replay, parse_fault
from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.definitions import JOBS, RELEASE_JOB
from chutes_exporter.page.exporter import Exporter
from tests.support import (
    NOON,
    Clock,
    asked_by,
    data_of,
    get,
    page_of,
    read_reports,
    recorded_day,
    successes,
    until,
    watching,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from chutes_exporter.demo.day import Day
    from tests.support import Page

RECORDING = Path(module.__file__).with_name("day.tar.xz")
RECORDED = recorded_day()
TROUBLED, HEALTHY = RECORDED.miners["troubled"], RECORDED.miners["healthy"]


async def whole_page(replay: Replay, clock: Clock) -> Page:
    """Return the page of an exporter that has read everything, also in the background."""
    settings = watching(replay.url, TROUBLED, HEALTHY, chain_url=replay.chain_url)
    async with Exporter(settings, clock=clock) as exporter:
        await page_of(exporter)
        await read_reports(exporter)
        await page_of(exporter)
        await until(lambda: not asked_by(exporter))
        return await page_of(exporter)


async def test_the_exporter_believes_each_answer_of_the_day_and_of_its_chain() -> None:
    for hour in (0, 22, 25):
        clock = Clock(NOON)
        async with Replay(RECORDED, at=hour * HOUR, clock=clock) as replay:
            page = await whole_page(replay, clock)
        assert set(successes(page).values()) == {1}
        for (name, labels), value in page.items():
            if name == "chutes_feed_up":
                assert value == 1, labels
            if name in ("chutes_feed_doubted", "chutes_feed_rejected_records"):
                assert value == 0, labels


async def test_all_times_move_with_the_day() -> None:
    pages = []
    for start in (RECORDED.first + 22 * HOUR, NOON):
        clock = Clock(start)
        async with Replay(RECORDED, clock=clock) as replay:
            page = data_of(await whole_page(replay, clock))
        moved = {}
        for (name, labels), value in page.items():
            since = value - start if name.endswith("_timestamp_seconds") else value
            moved[name, labels] = pytest.approx(since, abs=1e-3)
        pages.append(moved)
    recorded, today = pages
    assert today == recorded


async def test_the_day_goes_on_at_its_speed_and_stands_still_at_its_end() -> None:
    clock = Clock(NOON)
    async with Replay(RECORDED, at=23 * HOUR, speed=60, clock=clock) as replay:
        bounties = f"{replay.url}/bounties/"
        first = await get(bounties)
        clock.now += 50
        later = await get(bounties)
        clock.now += 50
        assert replay.moment() == RECORDED.last
        end = await get(bounties)
        clock.now += 3600
        after = await get(bounties)
        assert replay.clock() == NOON + 3700 * 60
    assert first.text != later.text
    assert end.text == after.text
    assert first.headers["date"] == "Tue, 24 Nov 2026 12:00:00 GMT"
    assert after.headers["date"] == "Fri, 27 Nov 2026 01:40:00 GMT"


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (TROUBLED.headers(int(NOON) - 601), "Invalid nonce!"),
        (TROUBLED.headers(int(NOON), "tee"), "Invalid request signature for hotkey"),
        ({}, "Invalid nonce!"),
    ],
)
async def test_a_request_must_be_signed_as_for_the_service(
    headers: dict[str, str], why: str
) -> None:
    async with Replay(RECORDED, clock=Clock(NOON)) as replay:
        refused = await get(f"{replay.url}/miner/servers/", **headers)
        accepted = await get(f"{replay.url}/miner/servers/", **TROUBLED.headers(int(NOON)))
    assert refused.status_code == 401
    assert refused.json()["detail"].startswith(why)
    assert "hugin" in {server["name"] for server in accepted.json()["servers"]}


async def test_an_edit_changes_an_answer_and_what_is_made_of_it() -> None:
    def without_troubled(held: dict[str, Any]) -> dict[str, Any]:
        del held[TROUBLED.address]
        return held

    async with Replay(RECORDED, clock=Clock(NOON)) as replay:
        url = f"{replay.url}/nodes/?detailed=true&hotkey={TROUBLED.address}"
        before = (await get(url)).json()
        replay.edits["held_gpus"] = without_troubled
        edited = (await get(url)).json()
        replay.edits.clear()
        after = (await get(url)).json()
    assert list(before) == [TROUBLED.address]
    assert edited == {}
    assert after == before


async def test_a_released_job_waits_for_a_miner() -> None:
    clock = Clock(NOON)
    async with (
        Replay(RECORDED, clock=clock) as replay,
        Exporter(watching(replay.url), clock=clock) as exporter,
    ):
        fetch = exporter.client.fetch
        before = {job.job_id: job for job in (await fetch(JOBS, key=TROUBLED)).value}
        for job in before.values():
            release = fetch(RELEASE_JOB, key=TROUBLED, path={"job_id": str(job.job_id)})
            if job.finished_at is None and job.miner_hotkey == TROUBLED.address:
                await release
                continue
            with pytest.raises(NotFoundError, match="is not associated with your miner"):
                await release
        after = (await fetch(JOBS, key=TROUBLED)).value
    hotkeys = {job.job_id: (before[job.job_id].miner_hotkey, job.miner_hotkey) for job in after}
    released = [ids for ids, (old, new) in hotkeys.items() if old != new]
    assert [before[job_id].status for job_id in released] == ["pending"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("status:503", Fault(status=503)),
        ("latency:0.5", Fault(latency=0.5)),
        ("cut:10", Fault(cut_after=10)),
        ("empty", Fault(body=b"")),
        ("garbage", Fault(body=GARBAGE)),
        ("records:25", Fault(records=25)),
    ],
)
def test_faults_can_be_written_on_the_command_line(text: str, fault: Fault) -> None:
    assert parse_fault(f"scores={text}") == ("scores", fault)


@pytest.mark.parametrize(
    "text", ["", "scores", "scores=status:99", "scores=explode", "nothing=status:500"]
)
def test_an_invalid_fault_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="for example scores=status:503"):
        parse_fault(text)


def _repacked(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """Write the recording with other contents of its files. None leaves a file out."""
    with tarfile.open(RECORDING) as old, tarfile.open(path, "w:xz", preset=0) as new:
        for member in old:
            file = old.extractfile(member)
            content = change(member.name, file.read()) if file else None
            if content is not None:
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
    return path


def _without_field(name: str, content: bytes) -> bytes:
    if not name.endswith("manifest.json"):
        return content
    manifest = json.loads(content)
    del manifest["last"]
    return json.dumps(manifest).encode()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda name, old: None if "scores" in name else old, "KeyError..scores"),
        (_without_field, "missing required field `last`"),
    ],
)
def test_a_recording_of_another_format_is_refused(
    tmp_path: Path, change: Callable[[str, bytes], bytes | None], why: str
) -> None:
    path = _repacked(tmp_path / "day.tar.xz", change)
    with pytest.raises(DayError, match=why) as caught:
        open_day(path)
    assert str(path) in str(caught.value)


def test_a_day_is_answered_in_any_order() -> None:
    day: Day = open_day()
    moments = [HOUR * hour for hour in (22, 3, 3, 23, 0)]
    in_any_order = [day.answer("chutes", moment) for moment in moments]
    for moment, answer in zip(moments, in_any_order, strict=True):
        assert open_day().answer("chutes", moment) == answer
