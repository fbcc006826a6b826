"""Recorded worlds: answers of the service's own code, and the truth of its database
(``expected.json``).

Each world is an archive ``tests/recordings/world-*.tar.xz``, which is unpacked for each run.
``meta.json`` in it says how the world was made.
"""

from __future__ import annotations

import email.utils
import json
import re
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

import msgspec
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from chutes_exporter.api.decoding import StreamShape
from chutes_exporter.api.keys import Hotkey
from chutes_exporter.api.records import Record
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.feeds.definitions import ENDPOINTS
from tests.support import RECORDINGS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from starlette.requests import Request

    from chutes_exporter.api.endpoint import Endpoint

Row = dict[str, Any]

_UNPACKED = tempfile.TemporaryDirectory(prefix="chutes-exporter-test-")
for _archive in sorted(RECORDINGS.glob("world-*.tar.xz")):
    with tarfile.open(_archive) as _files:
        _files.extractall(_UNPACKED.name, filter="data")
DIRECTORIES = sorted(Path(_UNPACKED.name).iterdir())
"""All worlds."""
WORLD_C = Path(_UNPACKED.name) / "world-c"
"""A world in which the service of May 2026 answers. Tests take it if any world will do."""
WORLD_F = Path(_UNPACKED.name) / "world-f"
"""A world with what the service changed in August and September 2026."""
WORLD_H = Path(_UNPACKED.name) / "world-h"
"""A world with what the service changed until November 2026."""
NAMES = [
    "metagraph",
    "scores",
    "stats",
    "stats_per_chute",
    "metrics",
    "chutes",
    "images",
    "jobs",
    "active_instances",
    "thrash_cooldowns",
    "servers",
    "nodes",
    "inventory",
    "instances",
    "unique_chute_history",
]
EXTRA = {
    "held_gpus": "nodes_detailed",
    "supported_gpus": "nodes_supported",
    "platform_gpus": "nodes",
    "maintenance": "maintenance_policy",
    "fmv": "fmv",
    "utilization": "utilization",
    "bounties": "bounties",
    "rolling_updates": "rolling_updates",
    "tee_measurements": "tee_measurements",
    "audit": "audit",
    "audit_report": "audit_report",
}
"""Endpoints outside the miner API, and the files of their answers, which are in the folder
``extra``.
"""
NOT_RECORDED: dict[str, Any] = {
    "server_maintenance": {
        "awaiting_replacement": [{"chute_id": "b", "instance_id": "c"}],
        "pending_deadline": None,
    },
    "thrash_cooldowns": [
        {
            "chute_id": "b",
            "chute_name": None,
            "deleted_at": "2026-05-01T10:00:00",
            "cooldown_expires_at": "2026-05-01T12:00:00",
        }
    ],
}
"""The fields of answers that no world has, from the service's code of today or before May 2026."""
META = json.loads((WORLD_C / "meta.json").read_text())
RECORDED_AT: float = META["recorded_at"]
ALL_ON = {collector.name: "chain" not in collector.needs for collector in COLLECTORS}
_TIME = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?")
_UNIX_TIME = re.compile(rb'("created_at":)(\d{10}(?:\.\d+)?)')


def seconds(text: str | None) -> float | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def rows(body: bytes) -> list[Row]:
    return [
        json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: {")
    ]


def stream(records: list[Row]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(record).encode() for record in records)


def raw_json(bodies: dict[str, bytes]) -> dict[str, Any]:
    """Return what plain JSON makes of recorded bodies. Of a stream, it is the list of records."""
    values: dict[str, Any] = {}
    for name, body in bodies.items():
        # An empty body is a stream without records.
        is_stream = body.startswith(b"data: ") or not body
        values[name] = rows(body) if is_stream else json.loads(body)
    return values


def report_bodies(directory: Path) -> dict[str, bytes]:
    """Return the body of each audit report of a world by its path, the newest first."""
    folder = directory / "extra" / "audit_reports"
    return {
        entry["path"]: (folder / f"{entry['n']:02}.json").read_bytes()
        for entry in report_index(directory)
    }


def report_index(directory: Path) -> list[Row]:
    """Return the number, path and hour of each report, the newest first."""
    file = directory / "extra" / "audit_reports" / "index.json"
    index: list[Row] = json.loads(file.read_bytes())
    return index


def reported_ends(directory: Path) -> list[Row]:
    """Return the ended instances of a world that stand in a report, by its database. The newest
    report has the number 0.
    """
    ended = json.loads((directory / "expected.json").read_bytes())["ended"]["instances"]
    return [row for row in ended if row["report"] is not None]


def may_have_lost_race(row: Row) -> bool:
    """Return whether others may have filled the chute of an instance that started well."""
    was_purged = (row["reason"] or "").startswith("autoscaler - instance failed to verify")
    return was_purged and row["failed_start"] and row["verified_at"] is not None


class Miner:
    """The miner of a recorded world whose private answers were recorded.

    Attributes:
        directory: The recordings.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        meta = json.loads((directory / "meta.json").read_bytes())
        self.hotkey: str = meta["test_miner"]
        self._seed: str = meta["invented_seeds"][self.hotkey]

    @property
    def key(self) -> Hotkey:
        return Hotkey.from_seed(self._seed)

    @property
    def variables(self) -> dict[str, str]:
        """The variables that bring its key to a command."""
        return {"MINER_SS58": self.hotkey, "MINER_SEED": self._seed}

    def bodies(self) -> dict[str, bytes]:
        """Return the recorded bodies by name; where the service answers 404, there is none."""
        names = (*NAMES, "stats_per_chute_one")
        bodies = {name: recording(self.directory, name) for name in names}
        # Not all worlds have all of these.
        folder = self.directory / "extra"
        for name, file in EXTRA.items():
            if (folder / f"{file}.json").exists():
                bodies[name] = recording(folder, file)
        held = json.loads(bodies["held_gpus"])
        # Asked for one hotkey, the service answers with the GPUs of this miner only.
        own = {self.hotkey: held[self.hotkey]} if self.hotkey in held else {}
        return bodies | {"miner_gpus": json.dumps(own).encode()}


def key() -> Hotkey:
    """Return the key of the miner of the first world."""
    return Miner(WORLD_C).key


def answers(*, now: float = RECORDED_AT) -> dict[str, bytes]:
    """Return the answers that the miner of the first world gets, by the endpoint's name.

    ``now`` is the Unix time to which the times in them are shifted from the time of the recording.
    """
    return shifted(Miner(WORLD_C).bodies(), now - RECORDED_AT)


def shifted(bodies: Mapping[str, bytes], seconds: float) -> dict[str, bytes]:
    """Move all times in some bodies."""
    delta = timedelta(seconds=seconds)

    def moved_text(match: re.Match[bytes]) -> bytes:
        text = match[0].decode()
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC) + delta
        # Date and time stay separated by what was between them.
        return moment.isoformat(text[10]).removesuffix("+00:00").encode()

    def moved_number(match: re.Match[bytes]) -> bytes:
        field, unix_time = match.groups()
        return b"%b%.3f" % (field, float(unix_time) + seconds)

    moved = {}
    for name, body in bodies.items():
        moved[name] = _UNIX_TIME.sub(moved_number, _TIME.sub(moved_text, body))
    return moved


def records_by_path(
    endpoint: Endpoint[Any], answer: Any
) -> dict[str, tuple[type[Record], list[Any]]]:
    """Return each type of record in an answer, and its rows, by where these are.

    The rows are parts of the answer: what is changed in them is changed there.
    """
    assert endpoint.shape is not None
    record_and_rows: dict[str, tuple[type[Record], list[Any]]] = {}
    parts = answer if isinstance(endpoint.shape, StreamShape) else [answer]
    for part in parts:
        for path, record, fields in _objects(endpoint.shape.kind, part):
            _, rows = record_and_rows.setdefault(path, (record, []))
            rows.append(fields)
    return record_and_rows


def _objects(kind: Any, value: Any, path: str = "") -> Iterator[tuple[str, type[Record], Row]]:
    """Yield the path, the class and the fields of each object in an answer of a type."""
    if type(None) in get_args(kind):
        kind = get_args(kind)[0]
    if value is None:
        return
    if get_origin(kind) in (list, dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _objects(get_args(kind)[-1], item, path)
    elif isinstance(kind, type) and issubclass(kind, Record):
        yield path, kind, value
        for field in msgspec.structs.fields(kind):
            inner = value.get(field.encode_name)
            yield from _objects(field.type, inner, f"{path}{field.encode_name}.")


def recording(directory: Path, name: str) -> bytes:
    """Return a recorded answer. Its file is JSON or a stream."""
    files = [directory / f"{name}.json", directory / f"{name}.stream"]
    (existing,) = [file for file in files if file.exists()]
    return existing.read_bytes()


def recorded_api(
    answers: Mapping[str, bytes],
    reports: Mapping[str, bytes] | None = None,
    now: float | None = None,
) -> Starlette:
    """Make an API that gives recorded answers to every client.

    Args:
        answers: The bodies by the name of the endpoint, or by a name of :func:`_name_of_answer`.
            An endpoint without a body answers 404. A test may change them at any time.
        reports: The audit reports by path, if there are more than the newest.
        now: The time that answers say, if they say one.
    """
    headers = {}
    if now is not None:
        headers["date"] = email.utils.formatdate(now, usegmt=True)

    def body_for(endpoint: str, request: Request) -> bytes | None:
        # Only requests for an audit report have a path.
        path = request.query_params.get("path", "")
        if path and reports is not None:
            return reports.get(path)
        name = _name_of_answer(endpoint, request.query_params)
        # Without an answer about one miner, the one about all miners has to do.
        if name == "stats_per_chute_one" and name not in answers:
            name = "stats_per_chute"
        return answers.get(name)

    def route(endpoint: str) -> Any:
        """Return what answers the requests to an endpoint."""

        async def answer(request: Request) -> Response:
            body = body_for(endpoint, request)
            if body is None:
                return Response(b'{"detail":"Not Found"}', 404, headers)
            return Response(body, 200, headers)

        return answer

    return Starlette(routes=[Route(endpoint.path, route(endpoint.name)) for endpoint in ENDPOINTS])


def _name_of_answer(endpoint: str, asked: Collection[str]) -> str:
    """Return the name of an endpoint's answer to a request.

    Some endpoints have several answers, and ``asked`` are the names of the parameters that choose.
    """
    if endpoint == "held_gpus" and "hotkey" in asked:
        return "miner_gpus"
    if endpoint == "held_gpus" and "detailed" not in asked:
        return "platform_gpus"
    if endpoint == "stats" and "per_chute" in asked:
        return "stats_per_chute_one" if "miner_hotkey" in asked else "stats_per_chute"
    return endpoint
