"""The recorded day: all answers of the service's public code, from a snapshot every 10 minutes."""

from __future__ import annotations

import tarfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from chutes_exporter.api.keys import Hotkey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RECORDING: Final = Path(__file__).with_name("day.tar.xz")
_SNAPSHOT_SECONDS: Final = 60.0
"""More than a snapshot takes."""


class _Line(msgspec.Struct):
    """A changed answer, as a whole or as the difference to the answer before."""

    at: float
    hotkey: str = ""
    server_id: str = ""
    path: str = ""
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    delta: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_DECODER: Final = msgspec.json.Decoder(_Line)


class _Timeline:
    """The answers of an endpoint over time, each of which is told from the one before."""

    def __init__(self, lines: Sequence[_Line]) -> None:
        self._lines = lines
        self._restart()

    def _restart(self) -> None:
        self._next = 0
        self._body: Any = None
        # The newest answer about each path.
        self._body_by_path: dict[str, Any] = {}

    def answer(self, moment: float, path: str) -> Any | None:
        """Return the newest answer until a moment, None before the first one."""
        if self._next and self._lines[self._next - 1].at > moment:
            self._restart()
        while self._next < len(self._lines) and self._lines[self._next].at <= moment:
            line = self._lines[self._next]
            if line.body is not msgspec.UNSET:
                self._body = msgspec.json.decode(line.body)
            else:
                self._body = _apply(self._body, msgspec.json.decode(line.delta or b""))
            self._body_by_path[line.path] = self._body
            self._next += 1
        return self._body_by_path.get(path)


class Day:
    """A recorded day of the service. Answers are made when they are asked for.

    Attributes:
        first: Unix time of the first snapshot.
        last: Seconds from the first snapshot to the last one.
        miners: The keys of the recorded miners, by their names in the recording.
        seeds: Their invented seeds, which have no value.
    """

    def __init__(self) -> None:
        """Read the recording."""
        contents = {}
        with tarfile.open(_RECORDING, "r:xz") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None:
                    contents[Path(member.name).stem] = file.read()
        manifest = msgspec.json.decode(contents.pop("manifest"))
        self.first: float = manifest["first_snapshot"]
        self.last: float = manifest["last"]
        self._step: float = manifest["step"]
        self.seeds: Mapping[str, str] = manifest["seeds"]
        self.miners: Mapping[str, Hotkey] = {
            name: Hotkey.from_seed(seed, address=manifest["miners"][name])
            for name, seed in self.seeds.items()
        }
        lines: defaultdict[tuple[str, str, str], list[_Line]] = defaultdict(list)
        for name, content in contents.items():
            for line in _DECODER.decode_lines(content):
                lines[name, line.hotkey, line.server_id].append(line)
        self._timelines = {key: _Timeline(lines_of_key) for key, lines_of_key in lines.items()}

    def answer(self, endpoint: str, moment: float, hotkey: str = "", part: str = "") -> Any | None:
        """Return the JSON of an answer with the recorded times, None if there was none.

        It is kept and must not be changed. As long as nothing changes, it is the same object.

        Args:
            endpoint: A name in the recording, which has two for stats: ``stats`` and
                ``stats_per_chute``. It has no answers for ``chute`` and ``miner_gpus``, which are
                in ``chutes`` and ``held_gpus``.
            moment: Seconds since the first snapshot. It means the snapshot that began last.
            hotkey: The miner. Answers about the whole platform are the same for all.
            part: The id of a server, or the path of an audit report.
        """
        # A report is told from the one before, whatever its path.
        server_id, path = ("", part) if endpoint == "audit_report" else (part, "")
        of_miner, of_all = (endpoint, hotkey, server_id), (endpoint, "", server_id)
        timeline = self._timelines.get(of_miner) or self._timelines.get(of_all)
        if timeline is None:
            return None
        # All answers of a snapshot begin with it, so that they agree with each other.
        began = max(0.0, moment // self._step * self._step)
        return timeline.answer(began + _SNAPSHOT_SECONDS, path)


def _apply(old: Any, delta: Any) -> Any:
    """Return an answer, made of the answer before and of what changed.

    - ``{"=": value}`` is a new value.
    - ``{"[": parts}`` is a list. A part is the start and the number of old records, or a record by
      itself, or the change of the old record at the index in ``@``.
    - Any other delta is of an object: new values in ``~``, deltas of values in ``+``, and the names
      that are gone in ``-``.
    """
    if "=" in delta:
        return delta["="]
    if "[" in delta:
        new = []
        for part in delta["["]:
            if isinstance(part, list):
                start, count = part
                new += old[start : start + count]
            else:
                new.append(_apply(old[part["@"]] if "@" in part else None, part))
        return new
    new = old | delta.get("~", {})
    for name, part in delta.get("+", {}).items():
        new[name] = _apply(old[name], part)
    for name in delta.get("-", ()):
        del new[name]
    return new
