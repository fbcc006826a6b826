"""Every field of a recorded answer is known, and a field that comes or goes is found."""

from __future__ import annotations

import contextlib
import json
import logging
from collections import defaultdict
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import structlog

from chutes_exporter.api import records as r
from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.decoding import StreamShape, Tally
from chutes_exporter.api.errors import UndecodableError
from chutes_exporter.api.schema_drift import CHECKED_EVERY, FieldCheck, used_fields
from chutes_exporter.feeds.definitions import BOUNTIES, ENDPOINTS
from tests.exporters import scrape, watching
from tests.pages import series
from tests.recorded import (
    NOT_RECORDED,
    WORLD_C,
    Miner,
    raw_json,
    records_by_path,
    stream,
)
from tests.replay import Fault, Replay
from tests.support import NOON, Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from chutes_exporter.api.endpoint import Endpoint


BY_NAME = {endpoint.name: endpoint for endpoint in ENDPOINTS}
BY_NAME |= dict.fromkeys(("stats_per_chute", "stats_per_chute_one"), BY_NAME["stats"])


NESTED = {"node_selector.", "servers.gpus.", "provisioned.chute.", "awaiting_replacement."}
"""Objects in fields of records, which are not checked."""


async def found(endpoint: Endpoint[Any], answer: Any) -> list[str]:
    """Return what the check of an answer finds when it is decoded."""
    tally = Tally(check=FieldCheck(NOON))
    # Not all records can be read without a field that they need.
    with contextlib.suppress(UndecodableError):
        if isinstance(endpoint.shape, StreamShape):
            body = stream(answer)
            _ = [one async for one in endpoint.shape.decode(parts(body), tally)]
        else:
            assert endpoint.shape is not None
            endpoint.shape.decode(json.dumps(answer).encode(), tally)
    assert tally.check is not None
    return tally.check.found


async def parts(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def test_a_field_of_a_record_that_comes_or_goes_is_found_in_every_answer() -> None:
    tried = set()
    chute = json.loads((WORLD_C / "chute.json").read_bytes())
    answers = raw_json(Miner(WORLD_C).bodies()) | {"chute": chute} | deepcopy(NOT_RECORDED)
    for name, answer in answers.items():
        endpoint = BY_NAME[name]
        rows_by_record = defaultdict[type[r.Record], list[Any]](list)
        for path, (record, rows) in records_by_path(endpoint, answer).items():
            if path not in NESTED:
                rows_by_record[record] += rows
        for record, rows in rows_by_record.items():
            # A field is new if one row has it, and missing if none has it.
            rows[-1]["invented"] = None
            assert "unknown field invented" in await found(endpoint, answer), name
            del rows[-1]["invented"]
            always = used_fields(record).difference(record.SOMETIMES)
            for field in always:
                values = [row.pop(field, None) for row in rows]
                assert f"missing field {field}" in await found(endpoint, answer), name
                for row, value in zip(rows, values, strict=True):
                    row[field] = value
        tried.add(endpoint.name)
    # The answer about a released job has no content.
    assert tried == {endpoint.name for endpoint in ENDPOINTS} - {"release_job"}


async def test_one_answer_an_hour_is_checked_and_each_change_is_logged_once(
    replay: Replay, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "exporter")
    good = {"chute_id": "a", "created_at": 1, "seconds_elapsed": 1, "time_remaining": 1}

    async def changes(wait: float, *bounties: dict[str, Any]) -> list[str]:
        """Return the changes that the client knows after some seconds and a list of bounties."""
        clock.now += wait
        replay.faults["bounties"] = Fault(body=json.dumps(bounties).encode())
        # A bounty without its fields cannot be read.
        with contextlib.suppress(UndecodableError):
            await client.fetch(BOUNTIES)
        return client.changes["bounties"].found

    new = ["unknown field new"]
    gone = [f"missing field {name}" for name in sorted(good)]
    with structlog.testing.capture_logs() as logs:
        async with ChutesClient(replay.url, clock=clock, monotonic=clock) as client:
            assert await changes(0, good) == []
            assert await changes(CHECKED_EVERY - 1, good | {"new": 1}) == []
            assert await changes(1, good | {"new": 1}) == new
            # A check of an empty list finds nothing, and the next answer is checked at once.
            assert await changes(CHECKED_EVERY) == new
            assert await changes(0, {"new": 1}) == new + gone
            assert await changes(CHECKED_EVERY, good) == []
    assert [line["found"] for line in logs if line["event"] == "the API changed"] == new + gone


def test_the_number_and_length_of_unknown_names_are_limited() -> None:
    check = FieldCheck(NOON)
    for number in range(1000):
        check.add(r.Image, {f"{number}" + "x" * 1000})
    assert len(check.unknown) == 20
    assert len("".join(check.unknown)) == 20 * 100


async def test_changes_are_counted_on_the_page(replay: Replay) -> None:
    page = await scrape(watching(replay.url))
    beginnings = ("chutes_api_unknown_", "chutes_api_missing_")
    counts = [value for (name, _), value in page.items() if name.startswith(beginnings)]
    assert len(counts) > 40
    assert set(counts) == {0}
    images = raw_json(Miner(WORLD_C).bodies())["images"]
    for image in images:
        image["invented"] = "x"
        del image["tag"]
    replay.faults["images"] = Fault(body=stream(images))
    page = await scrape(watching(replay.url))
    assert page[series("chutes_api_unknown_fields", endpoint="images")] == 1
    assert page[series("chutes_api_missing_fields", endpoint="images")] == 1
