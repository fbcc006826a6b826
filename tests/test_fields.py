"""What the API changes: every field of a recorded answer is known, and a field that comes or goes is found."""

from __future__ import annotations

import json
import logging
import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from chutes_exporter import log
from chutes_exporter.api.decoding import StreamShape
from chutes_exporter.api.endpoints import ENDPOINTS, IMAGES, SERVERS
from chutes_exporter.api.fields import CHECKED_EVERY, Changes, FieldCheck, known, objects, records_in
from chutes_exporter.api.records import Image
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.simulator import Fault, Simulator
from tests.recorded import DIRECTORIES, Miner, raw_json, stream
from tests.support import NOON, PATIENCE, RECORDINGS, Clock, parse_page, series, watching

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chutes_exporter.api.endpoints import Endpoint

BY_NAME = {endpoint.name: endpoint for endpoint in ENDPOINTS}
BY_NAME |= dict.fromkeys(("stats_per_chute", "stats_per_chute_one"), BY_NAME["stats"])
SERVER = dict.fromkeys(("server_id", "name", "ip", "version", "created_at", "updated_at"))
NOT_RECORDED: dict[str, dict[str, Any]] = {
    "server_slot": SERVER | {"maintenance_pending_window_id": None, "target_version": "0.4.0"},
    "server_maintenance": {
        "server_id": "a",
        "maintenance_status": "pending",
        "awaiting_replacement": [{"chute_id": "b", "instance_id": "c"}],
        "pending_deadline": None,
        "reconciled_at": None,
    },
}
"""The fields of answers that no world has, from the service's code."""
REASONS = ("constant", "dead", "duplicate", "secret", "users' data", "text", "no use")


def checked(endpoint: Endpoint[Any], answer: Any) -> FieldCheck:
    """Check an answer, as decoding does."""
    assert endpoint.shape is not None
    check = FieldCheck()
    for part in answer if isinstance(endpoint.shape, StreamShape) else [answer]:
        check.run(endpoint.shape.kind, json.dumps(part).encode())
    return check


def findings(check: FieldCheck) -> list[str]:
    return Changes().end(check)


def answers_of(directory: Path, role: str) -> Iterator[tuple[str, Endpoint[Any], Any]]:
    """Yield all answers that a miner gets."""
    for name, answer in raw_json(Miner(directory, role).bodies()).items():
        yield name, BY_NAME[name], answer
    yield "chute", BY_NAME["chute"], json.loads((directory / "chute.json").read_bytes())
    for name, answer in deepcopy(NOT_RECORDED).items():
        yield name, BY_NAME[name], answer


@pytest.mark.parametrize("role", ["test_miner", "second_miner", "newcomer"])
@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_every_field_of_a_recorded_world_is_known(directory: Path, role: str) -> None:
    found = {name: findings(checked(endpoint, answer)) for name, endpoint, answer in answers_of(directory, role)}
    assert len(found) > 20
    assert {name: changes for name, changes in found.items() if changes} == {}


def test_a_field_that_comes_or_goes_is_found_in_every_answer_and_at_every_depth() -> None:
    tried = set()
    for name, endpoint, answer in answers_of(RECORDINGS, "test_miner"):
        assert endpoint.shape is not None
        by_path: dict[str, list[Any]] = {}
        for row in answer if isinstance(endpoint.shape, StreamShape) else [answer]:
            for path, record, fields in objects(endpoint.shape.kind, row):
                by_path.setdefault(path, [record]).append(fields)
        for path, (record, *rows) in by_path.items():
            rows[-1]["invented"] = None
            assert findings(checked(endpoint, answer)) == [f"unknown field {path}invented"], name
            del rows[-1]["invented"]
            for field in known(record).always:
                removed = [fields.pop(field, None) for fields in rows]
                assert f"missing field {path}{field}" in findings(checked(endpoint, answer)), name
                for fields, value in zip(rows, removed, strict=True):
                    fields[field] = value
        tried.add(endpoint.name)
    # Nobody needs the list of cooldowns, which is always empty, and no answer releases a job.
    assert tried == {endpoint.name for endpoint in ENDPOINTS} - {"thrash_cooldowns", "release_job"}


def test_a_field_that_one_record_has_is_not_missing_and_neither_is_one_of_an_empty_list() -> None:
    images = raw_json(Miner(RECORDINGS, "test_miner").bodies())["images"]
    for image in images[1:]:
        del image["tag"]
    assert findings(checked(IMAGES, images)) == []
    assert findings(checked(IMAGES, [])) == []
    assert findings(checked(SERVERS, {"servers": [{"gpus": []}]})) != []
    assert "gpus" not in "".join(findings(checked(SERVERS, {"servers": None})))


@pytest.mark.parametrize(
    ("name", "field", "good", "bad"),
    [
        ("images", "status", ["built and pushed", "error: exit 1", "", None], "vanished"),
        ("chutes", "compute_multiplier_factors", [{"base": 1, "tee": 2}, {}, None], {"base": 1, "vanished": 2}),
        ("maintenance", "servers.maintenance_status", ["none", "pending", "maintenance", None], "vanished"),
        (
            "audit_report",
            "instance_audit.deletion_reason",
            ["miner initialized", "watchtower - x\ny", "Instance x has an old version", None],
            "vanished",
        ),
    ],
)
def test_a_value_outside_its_closed_set_is_found(name: str, field: str, good: list[Any], bad: Any) -> None:
    *parents, last = field.split(".")

    def answer(value: Any) -> Any:
        row: Any = {last: value}
        for parent in reversed(parents):
            row = {parent: [row]}
        return [row] if isinstance(BY_NAME[name].shape, StreamShape) else row

    for value in good:
        assert checked(BY_NAME[name], answer(value)).values[field] == set()
    assert f"unknown value 'vanished' of {field}" in findings(checked(BY_NAME[name], answer(bad)))


def test_unknown_fields_count_since_the_start_and_missing_ones_in_the_newest_answer() -> None:
    changes = Changes()
    server = dict.fromkeys(("server_id", "name", "ip", "is_tee", "version", "maintenance_pending", "created_at"))
    server |= {"updated_at": None, "gpus": []}
    gpu = dict.fromkeys(("uuid", "gpu_identifier", "verified_at", "device_index"))

    def answer(**fields: Any) -> list[str]:
        return changes.end(checked(SERVERS, {"servers": [server | fields]}))

    assert answer(new=1) == ["unknown field servers.new"]
    assert answer(gpus=[gpu]) == ["missing field servers.gpus.verification_error"]
    # An answer without records proves nothing.
    assert changes.end(checked(SERVERS, {"servers": []})) == answer() == []
    assert changes.found == ["unknown field servers.new", "missing field servers.gpus.verification_error"]
    assert answer(gpus=[gpu | {"verification_error": None}]) == []
    assert changes.found == ["unknown field servers.new"]
    # Nothing is told twice.
    assert answer(gpus=[gpu]) == []
    assert (len(changes.missing), changes.checks) == (1, 6)


def test_one_answer_an_hour_is_checked() -> None:
    changes, turns = Changes(), []
    for minutes in range(0, 130, 10):
        if check := changes.begin(NOON + 60 * minutes):
            turns.append(minutes)
            # An answer that fails is no check.
            if minutes:
                changes.end(check)
    assert turns == [0, 10, 70]


@pytest.mark.parametrize("body", [b"", b"\xff", b"nonsense", b"3", b'[{"servers":[3]}', b'{"a":' * 100_000])
def test_a_body_that_cannot_be_read_changes_nothing(body: bytes) -> None:
    for endpoint in ENDPOINTS:
        if endpoint.shape is not None:
            check = FieldCheck()
            check.run(endpoint.shape.kind, body)
            assert findings(check) == []


def test_names_and_values_of_the_api_are_limited() -> None:
    check = FieldCheck()
    for number in range(1000):
        row = {f"{number}" + "x" * 1000: 1, "status": "a" * 64 + f"x{number}" + "y" * 1000}
        check.run(Image, json.dumps(row).encode())
    changes = Changes()
    for _ in range(2):
        changes.end(check)
    text = "".join(changes.found)
    assert len(text) < 10_000
    assert re.search("a{64}", text) is None
    assert (len(changes.unknown), len(changes.values["status"])) == (20, 20)


async def test_a_change_is_counted_on_the_page_and_logged_once(
    simulator: Simulator, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info", "json")
    try:
        async with Exporter(watching(simulator.url), clock=clock) as exporter:
            page = parse_page((await exporter.metrics(Format.TEXT, timeout=PATIENCE)).decode())
            changed = {key: value for key, value in page.items() if re.match("chutes_api_(unk|mis)", key[0])}
            assert len(changed) > 50
            assert set(changed.values()) == {0}
            images = raw_json(Miner(RECORDINGS, "test_miner").bodies())["images"]
            images = [{**image, "invented": "x", "status": "vanished"} for image in images]
            for image in images:
                # Without it, no record can be read.
                del image["image_id"]
            simulator.faults["images"] = Fault(body=stream(images))
            for _ in range(2):
                clock.now += CHECKED_EVERY
                with pytest.raises(Exception, match="cannot be read"):
                    await exporter.client.fetch(IMAGES, key=exporter.settings.keys[0])
            page = parse_page((await exporter.metrics(Format.TEXT, timeout=PATIENCE)).decode())
    finally:
        logging.getLogger().handlers = []
        logging.getLogger().setLevel(logging.WARNING)
    for name, labels in (("unknown_fields", {}), ("missing_fields", {}), ("unknown_values", {"field": "status"})):
        assert page[series(f"chutes_api_{name}", endpoint="images", **labels)] == 1
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["found"] for line in lines if line["msg"] == "the API changed"] == [
        "unknown field invented",
        "missing field image_id",
        "unknown value 'vanished' of status",
    ]


def test_a_record_says_of_each_unused_field_why_and_uses_none_of_them() -> None:
    shapes = [endpoint.shape for endpoint in ENDPOINTS if endpoint.shape]
    records = {record for shape in shapes for _, record in records_in(shape.kind)}
    assert len(records) > 20
    for record in records:
        used = {field.encode_name for field in msgspec.structs.fields(record)}
        unused = " ".join(record.UNUSED.values()).split()
        assert len(set(unused)) == len(unused)
        assert used & set(unused) == set(), record
        assert [reason for reason in record.UNUSED if not reason.startswith(REASONS)] == []
        assert {*record.SOMETIMES.split(), *record.VALUES} <= {*used, *unused}
