"""The recorded world: answers of the service's own code, and the truth of its database (``expected.json``)."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from chutes_exporter.api.keys import Hotkey
from tests.support import RECORDINGS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

META = json.loads((RECORDINGS / "meta.json").read_text())
EXPECTED = json.loads((RECORDINGS / "expected.json").read_text())
RECORDED_AT: float = META["recorded_at"]

_PLATFORM = ("chutes", "images", "jobs", "active_instances", "metagraph", "scores", "stats", "metrics")
_OWN = ("servers", "nodes", "inventory", "instances", "thrash_cooldowns")
_EXTRA = {
    "utilization": "utilization",
    "bounties": "bounties",
    "rolling_updates": "rolling_updates",
    "maintenance": "maintenance_policy",
    "held_gpus": "nodes_detailed",
    "miner_gpus": "nodes_detailed_one",
    "supported_gpus": "nodes_supported",
    "tee_measurements": "tee_measurements",
}
_TIME = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?")
_UNIX_TIME = re.compile(rb'("created_at":)(\d{10}(?:\.\d+)?)')


def key(role: str = "test_miner") -> Hotkey:
    """Return the key of a miner by its role in ``meta.json``."""
    return Hotkey.from_seed(META["invented_seeds"][META[role]])


def answers(role: str = "test_miner", *, now: float = RECORDED_AT) -> dict[str, bytes]:
    """Return the answers that a miner gets, by the endpoint's name.

    Args:
        role: ``test_miner``, ``second_miner`` or ``newcomer``, who owns nothing.
        now: Unix time to which the times in the answers are shifted from the time of the recording.
    """
    bodies = {name: _body(RECORDINGS, name) for name in _PLATFORM}
    bodies |= {name: _body(RECORDINGS / "extra", file) for name, file in _EXTRA.items()}
    directory, pattern = {
        "test_miner": (RECORDINGS, "{}"),
        "second_miner": (RECORDINGS / "second", "{}"),
        "newcomer": (RECORDINGS / "second", "newcomer_{}_none"),
    }[role]
    bodies |= {name: _body(directory, pattern.format(name)) for name in _OWN if name != "thrash_cooldowns"}
    return shifted(bodies, now - RECORDED_AT)


def rows(body: bytes) -> list[dict[str, Any]]:
    """Return the records of a stream, by plain JSON."""
    return [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: {")]


def shifted(bodies: Mapping[str, bytes], seconds: float) -> dict[str, bytes]:
    """Move all times in some bodies."""
    delta = timedelta(seconds=seconds)

    def move(match: re.Match[bytes]) -> bytes:
        moment = datetime.fromisoformat(match[0].decode()).replace(tzinfo=UTC) + delta
        return moment.isoformat(match[0][10:11].decode()).removesuffix("+00:00").encode()

    return {
        name: _UNIX_TIME.sub(lambda match: b"%b%.3f" % (match[1], float(match[2]) + seconds), _TIME.sub(move, body))
        for name, body in bodies.items()
    }


def _body(directory: Path, name: str) -> bytes:
    (path,) = (path for ending in (".json", ".stream") if (path := directory / f"{name}{ending}").exists())
    return path.read_bytes()
