"""What the API changes: every field of a recorded answer is known, and a field that comes or goes is found."""

from __future__ import annotations

import json
import logging
import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import pytest

from chutes_exporter import log
from chutes_exporter.api.decoding import StreamShape
from chutes_exporter.api.endpoints import ENDPOINTS, IMAGES, SERVERS
from chutes_exporter.api.fields import CHECKED_SHARE, EACH, Changes, FieldCheck, known, records_in
from chutes_exporter.api.records import Record
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.simulator import Fault, Simulator, World
from tests.recorded import DIRECTORIES, Miner, raw_json, stream
from tests.support import NOON, PATIENCE, RECORDINGS, parse_page, series, watching

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chutes_exporter.api.endpoints import Endpoint
    from chutes_exporter.api.fields import Layout

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


class Part(Record, frozen=True):
    name: str = ""


class Whole(Record, frozen=True):
    UNUSED: ClassVar = {"text": "unused rare"}
    SOMETIMES: ClassVar = "rare"

    number: int
    parts: list[Part] | None = None


def layout_of(endpoint: Endpoint[Any]) -> Layout:
    assert endpoint.shape is not None
    return endpoint.shape.layout


def checked(endpoint: Endpoint[Any], answer: Any) -> FieldCheck:
    """Check an answer, as decoding does."""
    check = FieldCheck()
    for part in answer if isinstance(endpoint.shape, StreamShape) else [answer]:
        check.run(layout_of(endpoint), json.dumps(part).encode())
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


def objects(layout: Layout, value: Any, path: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield the objects of an answer whose fields are known, each with its path and its layout."""
    if isinstance(layout, list):
        for row in value or ():
            yield from objects(layout[0], row, path)
    elif isinstance(layout, dict) and EACH in layout:
        for row in value.values():
            yield from objects(layout[EACH], row, path)
    elif layout is not None and value is not None:
        yield path, layout, value
        for name, inner in known(layout).fields.items():
            yield from objects(inner, value.get(name), f"{path}{name}.")


@pytest.mark.parametrize("role", ["test_miner", "second_miner", "newcomer"])
@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_every_field_of_a_recorded_world_is_known(directory: Path, role: str) -> None:
    found = {name: findings(checked(endpoint, answer)) for name, endpoint, answer in answers_of(directory, role)}
    assert len(found) > 20
    assert {name: changes for name, changes in found.items() if changes} == {}


def test_a_field_that_comes_or_goes_is_found_in_every_answer_and_at_every_depth() -> None:
    tried = set()
    for name, endpoint, answer in answers_of(RECORDINGS, "test_miner"):
        rows = list(answer) if isinstance(endpoint.shape, StreamShape) else [answer]
        layout = layout_of(endpoint)
        found = [one for row in rows for one in objects(layout, row)]
        for path, of in {path: of for path, of, _ in found}.items():
            here = [fields for there, _, fields in found if there == path]
            here[-1]["invented"] = None
            assert findings(checked(endpoint, answer)) == [f"unknown field {path}invented"], name
            del here[-1]["invented"]
            for field in known(of).always:
                removed = [fields.pop(field, None) for fields in here]
                assert f"missing field {path}{field}" in findings(checked(endpoint, answer)), name
                for fields, value in zip(here, removed, strict=True):
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
    whole = {"number": 1, "unused": None, "parts": [{"name": "a"}]}

    def answer(**fields: Any) -> list[str]:
        check = FieldCheck()
        check.run(Whole, json.dumps(fields).encode())
        return changes.end(check)

    assert answer(**whole, new=1) == ["unknown field new"]
    assert answer(number=1, parts=[{}]) == ["missing field parts.name", "missing field unused"]
    assert (sorted(changes.unknown), sorted(changes.missing)) == (["new"], ["parts.name", "unused"])
    # An answer without records proves nothing.
    assert changes.end(FieldCheck()) == []
    assert answer(**whole | {"parts": []}) == []
    assert [*changes.missing] == ["parts.name"]
    assert answer(**whole) == []
    assert [*changes.unknown, *changes.missing] == ["new"]
    # Nothing is told twice.
    assert answer(number=1, parts=[{}]) == []
    assert (len(changes.missing), changes.checks) == (2, 6)


def test_one_answer_in_a_few_is_checked() -> None:
    changes = Changes()
    turns = []
    for _ in range(2 * CHECKED_SHARE):
        check = changes.begin(NOON)
        turns.append(check is not None)
        changes.end(check)
    assert turns == ([True] + [False] * (CHECKED_SHARE - 1)) * 2


def test_an_answer_that_is_seldom_requested_is_checked_all_the_same() -> None:
    changes = Changes()
    turns = []
    for hour in range(13):
        check = changes.begin(NOON + 3600 * hour)
        turns.append(check is not None)
        changes.end(check)
    assert [hour for hour, checked in enumerate(turns) if checked] == [0, 6, 12]


@pytest.mark.parametrize("body", [b"", b"\xff", b"nonsense", b"3", b'[{"servers":[3]}', b'{"a":' * 100_000])
def test_a_body_that_cannot_be_read_changes_nothing(body: bytes) -> None:
    for endpoint in ENDPOINTS:
        if endpoint.shape is not None:
            check = FieldCheck()
            check.run(endpoint.shape.layout, body)
            assert findings(check) == []


def test_names_and_values_of_the_api_are_limited() -> None:
    check = FieldCheck()
    for number in range(1000):
        row = {f"{number}" + "x" * 1000: 1, "status": "a" * 64 + f"x{number}" + "y" * 1000}
        check.run(layout_of(IMAGES), json.dumps(row).encode())
    changes = Changes()
    for _ in range(2):
        changes.end(check)
    text = "".join(changes.found)
    assert len(text) < 10_000
    assert re.search("a{64}", text) is None
    assert (len(changes.unknown), len(changes.values["status"])) == (20, 20)


async def test_a_change_is_counted_on_the_page_and_logged_once(
    small_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info", "json")
    try:
        async with Simulator(small_world) as simulator, Exporter(watching(simulator.url)) as exporter:
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
            for _ in range(2 * CHECKED_SHARE):
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
    records = {record for shape in shapes for _, record in records_in(shape.layout)}
    assert len(records) > 20
    for record in records:
        used = {field.encode_name for field in msgspec.structs.fields(record)}
        unused = " ".join(record.UNUSED.values()).split()
        assert len(set(unused)) == len(unused)
        assert used & set(unused) == set(), record
        assert [reason for reason in record.UNUSED if not reason.startswith(REASONS)] == []
        assert {*record.SOMETIMES.split(), *record.VALUES} <= {*used, *unused}
