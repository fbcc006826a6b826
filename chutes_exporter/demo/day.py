"""The recorded day: all answers of the service's public code, from a snapshot every 10 minutes."""

from __future__ import annotations

import lzma
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RECORDING: Final = Path(__file__).with_name("day.tar.xz")
"""The recording of this package."""
_SNAPSHOT_SECONDS: Final = 60.0
"""More than a snapshot takes."""


_UNREADABLE: Final = (
    *(KeyError, IndexError, TypeError, AttributeError, EOFError),
    *(msgspec.MsgspecError, lzma.LZMAError, tarfile.TarError),
)
"""Errors that a damaged recording causes."""


class DayError(ConfigError):
    """A recording cannot be used. The message names the file and says what is wrong."""


class _Manifest(msgspec.Struct):
    first_snapshot: float
    last: float
    step: float
    miners: dict[str, str]
    seeds: dict[str, str]
    endpoints: dict[str, Any]


class _Line(msgspec.Struct):
    """A changed answer, as a whole or as the difference to the answer before."""

    at: float
    hotkey: str = ""
    server_id: str = ""
    path: str = ""
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    delta: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_DECODER: Final = msgspec.json.Decoder(_Line)


class _Chain:
    """Answers of which each is told from the one before."""

    def __init__(self, lines: Sequence[_Line]) -> None:
        self._lines = lines
        self._restart()

    def _restart(self) -> None:
        self._next = 0
        self._body: Any = None
        # The newest answer about each path.
        self._bodies: dict[str, Any] = {}

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
            self._bodies[line.path] = self._body
            self._next += 1
        return self._bodies.get(path)


class Day:
    """A recorded day of the service. Answers are made when they are asked for.

    Attributes:
        first: Unix time of the first snapshot.
        last: Seconds from the first snapshot to the last one.
        miners: The keys of the recorded miners, by their names in the recording.
        seeds: Their invented seeds, which have no value.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            files = _unpacked(path)
            manifest = msgspec.json.decode(files["manifest"], type=_Manifest)
            self.first, self.last = manifest.first_snapshot, manifest.last
            self._step = manifest.step
            self.seeds: Mapping[str, str] = manifest.seeds
            self.miners: Mapping[str, Hotkey] = {
                name: Hotkey.from_seed(seed, address=manifest.miners[name])
                for name, seed in manifest.seeds.items()
            }
            chains: defaultdict[tuple[str, str, str], list[_Line]] = defaultdict(list)
            for name in manifest.endpoints:
                for line in _DECODER.decode_lines(files[name]):
                    chains[name, line.hotkey, line.server_id].append(line)
            self._chains = {key: _Chain(lines) for key, lines in chains.items()}
        except (*_UNREADABLE, OSError, ValueError) as error:
            raise DayError(
                f"{path} is damaged, or of another format: {error!r}. Install the exporter again"
            ) from None

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

        Raises:
            DayError: The recording is damaged.
        """
        # A report is told from the one before, whatever its path.
        server_id, path = ("", part) if endpoint == "audit_report" else (part, "")
        chains = (self._chains.get((endpoint, miner, server_id)) for miner in (hotkey, ""))
        chain = next(filter(None, chains), None)
        if chain is None:
            return None
        # All answers of a snapshot begin with it, so that they agree with each other.
        began = max(0.0, moment // self._step * self._step)
        try:
            return chain.answer(began + _SNAPSHOT_SECONDS, path)
        except _UNREADABLE as error:
            raise DayError(f"{self._path} is damaged: {endpoint}: {error!r}") from None


def open_day(path: Path | None = None) -> Day:
    """Open a recording, by default the one of this package.

    Raises:
        DayError: It is damaged, or of another format.
    """
    return Day(path or RECORDING)


def _unpacked(path: Path) -> dict[str, bytes]:
    """Return the contents of the files by their names without folders and endings."""
    contents = {}
    with tarfile.open(path, "r:xz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                contents[Path(member.name).stem] = file.read()
    return contents


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
    changed = {name: _apply(old[name], part) for name, part in delta.get("+", {}).items()}
    gone = delta.get("-", ())
    kept = {name: value for name, value in old.items() if name not in gone}
    return kept | delta.get("~", {}) | changed
