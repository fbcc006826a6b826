"""The recorded day with more GPUs and miners, which are copies of recorded ones under new ids."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

from cachetools import LRUCache

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.demo.day import Day
from chutes_exporter.duration import HOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Row = dict[str, Any]

_STEP: Final = 600
"""Seconds between two snapshots."""
_AT: Final = 22 * HOUR
"""The moment at which GPUs are counted."""
_IDS: Final = {"server_id", "uuid", "gpu_id", "instance_id", "config_id", "deployment_id"}
_HOTKEYS: Final = {"hotkey", "miner_hotkey"}
_COUNTS_OF_INSTANCES: Final = {
    "metrics": ("instance_count",),
    "utilization": (
        *("instance_count", "active_instance_count", "total_instance_count", "target_count"),
    ),
}
_TOTALS: Final = {
    *("total_instances", "bounty_count", "bounty_score", "total_bounty", "compute_seconds"),
    *("compute_units", "invocation_count", "instance_seconds", "instance_compute_units"),
}
"""Totals of a miner, which grow with its GPUs."""


@dataclass(frozen=True)
class _Copy:
    """A copy of a miner under another hotkey, or of a server, whose miner stays the same."""

    number: int
    uid: int | None = None
    hotkey: str = ""

    def of_id(self, old: str) -> str:
        new = uuid.uuid5(uuid.NAMESPACE_OID, f"{self.number} {old}")
        return str(new) if "-" in old else new.hex

    def of(self, value: Any) -> Any:
        """Return what an answer says about the copy, where it says this about the original."""
        if isinstance(value, list):
            return [self.of(one) for one in value]
        if not isinstance(value, dict):
            return value
        copied = {name: self._field(name, old) for name, old in value.items()}
        # GPUs have the name of their model, but servers have one of their own.
        if "server_id" in value and "name" in value and "uuid" not in value:
            copied["name"] = f"{value['name']}-{self.number}"
        return copied

    def _field(self, name: str, old: Any) -> Any:
        if name in _IDS and old is not None:
            return self.of_id(old)
        if name in _HOTKEYS and self.hotkey:
            return self.hotkey
        if name == "miner_uid" and self.uid is not None:
            return type(old)(self.uid)
        return self.of(old)


class LargeDay(Day):
    """A day with copies, for a Replay. Its answers agree with each other, and with the chain.

    Copied miners take seats that earned nothing. Servers run the chutes of their originals.

    Attributes:
        miners: Also the copies of watched miners, as ``copy-1`` and so on.
    """

    def __init__(self, gpus: int = 38, miners: int = 24, keys: int = 2) -> None:
        """Copy servers and miners.

        Args:
            gpus: What each of the two recorded miners with a key has at 22:00, an even number.
            miners: All that have GPUs, at most 256.
            keys: How many of them have a key. Copies of watched miners have 38 GPUs.
        """
        super().__init__()
        self._cache: LRUCache[tuple[str, int, str, str], Any] = LRUCache(1000)
        # Copies by the hotkey of a miner, or by the id of a server, and those of miners by hotkey.
        self._copies: defaultdict[str, list[_Copy]] = defaultdict(list)
        self._sources: dict[str, tuple[str, _Copy]] = {}
        self._seats: dict[int, str] = {}
        # The servers and the miners of instances and of GPUs.
        self._servers: dict[str, str] = {}
        self._miners: dict[str, str] = {}
        self._old_servers: dict[str, str] = {}
        self._number = 0
        # What changes an answer of an endpoint at a moment.
        self._changes: dict[str, Callable[[Any, float], Any]] = {
            "active_instances": lambda rows, _: self._with_copies(rows, own=False),
            "servers": lambda old, _: {"servers": self._with_copies(old["servers"])},
            "maintenance": self._maintenance,
            "audit_report": self._report,
            "stats": self._stats,
            "stats_per_chute": self._stats,
            "scores": self._scores,
            "metagraph": self._metagraph,
            "held_gpus": self._held,
            "platform_gpus": self._platform_gpus,
            "metrics": partial(self._counted, "metrics"),
            "utilization": partial(self._counted, "utilization"),
        }
        self._growth = {key.address: gpus / 38 for key in self.miners.values()}
        for key in list(self.miners.values()):
            self._note_servers(key.address)
            self._copy_servers(key.address, gpus - 38)
        self._copy_miners(miners - 24, keys - 2)

    def answer(self, endpoint: str, moment: float, hotkey: str = "", part: str = "") -> Any:
        """Return an answer, as a Day does."""
        asked = endpoint, int(moment // _STEP), hotkey, part
        if asked not in self._cache:
            self._cache[asked] = self._answer(endpoint, moment, hotkey, part)
        return self._cache[asked]

    def _recorded(self, endpoint: str, moment: float, hotkey: str = "", part: str = "") -> Any:
        return super().answer(endpoint, moment, hotkey, part)

    # Who is copied

    def _next(self, uid: int | None = None, hotkey: str = "") -> _Copy:
        self._number += 1
        return _Copy(self._number, uid, hotkey)

    def _copy_servers(self, hotkey: str, gpus: int) -> None:
        """Copy servers of a miner until they have so many GPUs, the largest first."""
        servers = self._recorded("servers", _AT, hotkey)["servers"]
        for server in cycle(sorted(servers, key=lambda server: -len(server["gpus"]))):
            if not gpus:
                return
            if len(server["gpus"]) <= gpus:
                gpus -= len(server["gpus"])
                self._note_copy(server["server_id"], self._next(), [server["server_id"]])

    def _copy_miners(self, count: int, keys: int) -> None:
        """Copy miners, and as the first of them some with a key."""
        with_key = [key.address for key in self.miners.values()]
        everybody = self._recorded("held_gpus", _AT)
        others = cycle([hotkey for hotkey in everybody if hotkey not in with_key])
        seats = self._recorded("metagraph", _AT)
        free = [seat for seat in seats if not seat["incentive"] and seat["hotkey"] not in everybody]
        copies = {}
        for number, seat in enumerate(free[:count], start=1):
            source, hotkey = next(others), seat["hotkey"]
            if number <= keys:
                source = with_key[number % len(with_key)]
                key = Hotkey.from_seed(f"{number:064x}")
                copies[f"copy-{number}"], hotkey = key, key.address
            copy = self._next(seat["node_id"], hotkey)
            self._seats[seat["node_id"]] = hotkey
            self._sources[hotkey] = source, copy
            servers = [one for one, miner in self._miners.items() if miner == source]
            self._note_copy(source, copy, servers)
        self.miners = {**self.miners, **copies}

    def _note_copy(self, source: str, copy: _Copy, servers: Iterable[str]) -> None:
        self._copies[source].append(copy)
        self._old_servers |= {copy.of_id(server): server for server in servers}

    def _note_servers(self, hotkey: str) -> None:
        """Note on which servers the instances and GPUs of a miner are, at any time of the day."""
        for moment in range(0, int(self.last) + 1, _STEP):
            held = self._recorded("held_gpus", moment).get(hotkey, {}).get("provisioned", ())
            servers = {_launch(one["chute"]): one["server_id"] for one in held}
            for instance in self._recorded("instances", moment, hotkey):
                if _launch(instance) in servers:
                    self._servers[instance["instance_id"]] = servers[_launch(instance)]
            for server in self._recorded("servers", moment, hotkey)["servers"]:
                self._miners[server["server_id"]] = hotkey
                gpus = [gpu["uuid"] for gpu in server["gpus"] or ()]
                self._servers |= dict.fromkeys(gpus, server["server_id"])

    def _copies_of(self, row: Row, *, own: bool = False) -> Iterator[_Copy]:
        """Yield the copies of the miner of a record, and of its server.

        ``own``: The answer is the miner's own, and not about its copies.
        """
        thing = row.get("instance_id") or row.get("gpu_id") or ""
        miner = row.get("miner_hotkey") or self._miners.get(thing, "")
        server = row.get("server_id") or self._servers.get(thing, "")
        for source in (server,) if own else (miner, server):
            yield from self._copies.get(source, ())

    def _with_copies(self, rows: list[Row], *, own: bool = True) -> list[Row]:
        return rows + [copy.of(row) for row in rows for copy in self._copies_of(row, own=own)]

    # Answers

    def _answer(self, endpoint: str, moment: float, hotkey: str, part: str) -> Any:
        if hotkey in self._sources:
            source, copy = self._sources[hotkey]
            part = self._old_servers.get(part, part)
            recorded = self._recorded(endpoint, moment, source, part)
            # The private answers about the original, without those about its own copies.
            if recorded is not self._recorded(endpoint, moment):
                return copy.of(recorded)
        old_part = self._old_servers.get(part, part)
        recorded = self._recorded(endpoint, moment, hotkey, old_part)
        if recorded is None:
            return None
        if part != old_part:
            return self._copy_of_server(old_part, part).of(recorded)
        if endpoint in ("nodes", "inventory", "instances"):
            return self._with_copies(recorded)
        change = self._changes.get(endpoint)
        return change(recorded, moment) if change else recorded

    def _copy_of_server(self, old: str, new: str) -> _Copy:
        return next(copy for copy in self._copies[old] if copy.of_id(old) == new)

    def _maintenance(self, recorded: Row, _: float) -> Row:
        servers = self._with_copies(recorded["servers"])
        upgrading = sum(server["in_maintenance"] for server in servers)
        more = upgrading - sum(server["in_maintenance"] for server in recorded["servers"])
        window = recorded["active_window"]
        if window is not None:
            most = window["max_concurrent_per_miner"] + more
            window = window | {"max_concurrent_per_miner": most}
        slots = recorded["current_slots"] + more
        return recorded | {"servers": servers, "current_slots": slots, "active_window": window}

    def _report(self, recorded: Row, _: float) -> Row:
        for row in recorded["instance_audit"]:
            self._miners[row["instance_id"]] = row["miner_hotkey"]
        lists = ("instance_audit", "compute_history")
        return recorded | {name: self._with_copies(recorded[name], own=False) for name in lists}

    def _grown(self, hotkey: str, totals: Row) -> Row:
        growth = self._growth.get(hotkey, 1)
        # Numbers of instances stay whole.
        return {
            name: type(value)(value * growth) if name in _TOTALS else value
            for name, value in totals.items()
        }

    def _stats(self, recorded: Row, _: float) -> Row:
        return {window: self._window(kinds) for window, kinds in recorded.items()}

    def _window(self, kinds: dict[str, list[Row]]) -> dict[str, list[Row]]:
        stats = {}
        for kind, rows in kinds.items():
            copies = [copy.of(row) for row in rows for copy in self._copies_of(row)]
            stats[kind] = [self._grown(row["miner_hotkey"], row) for row in rows] + copies
        return stats

    def _scores(self, recorded: Row, _: float) -> Row:
        return {kind: self._of_kind(kind, scores) for kind, scores in recorded.items()}

    def _of_kind(self, kind: str, recorded: Row) -> Row:
        copies = {
            hotkey: recorded[source]
            for hotkey, (source, _) in self._sources.items()
            if source in recorded
        }
        if kind == "raw_values":
            return {hotkey: self._grown(hotkey, row) for hotkey, row in recorded.items()} | copies
        scores = recorded | copies
        part = sum(recorded.values()) / (sum(scores.values()) or 1)
        return {hotkey: score * part for hotkey, score in scores.items()}

    def _metagraph(self, recorded: list[Row], _: float) -> list[Row]:
        by_hotkey = {seat["hotkey"]: seat for seat in recorded}
        seats = []
        for seat in recorded:
            hotkey = self._seats.get(seat["node_id"], seat["hotkey"])
            source = self._sources[hotkey][0] if hotkey in self._sources else hotkey
            seats.append(seat | {"hotkey": hotkey, "incentive": by_hotkey[source]["incentive"]})
        part = _incentive(recorded) / (_incentive(seats) or 1)
        return [seat | {"incentive": float(int(seat["incentive"] * part))} for seat in seats]

    def _held(self, recorded: Row, moment: float) -> Row:
        held = dict(recorded)
        for hotkey in self._growth.keys() & held.keys():
            provisioned = self._with_copies(held[hotkey]["provisioned"])
            idle: Counter[str] = Counter()
            for server in self.answer("servers", moment, hotkey)["servers"]:
                idle.update(gpu["gpu_identifier"] for gpu in server["gpus"] or ())
            idle.subtract(one["gpu"] for one in provisioned)
            held[hotkey] = {"provisioned": provisioned, "idle": dict(+idle)}
        for hotkey, (source, copy) in self._sources.items():
            if source in recorded:
                held[hotkey] = copy.of(recorded[source])
        return held

    def _platform_gpus(self, recorded: Row, moment: float) -> Row:
        counts = {gpu: {"provisioned": 0, "idle": 0} for gpu in recorded}
        for held in self.answer("held_gpus", moment).values():
            for one in held["provisioned"]:
                counts[one["gpu"]]["provisioned"] += 1
            for gpu, count in held["idle"].items():
                counts[gpu]["idle"] += count
        return counts

    def _counted(self, endpoint: str, recorded: list[Row], moment: float) -> list[Row]:
        """Add the copies of active instances to the counts of each chute."""
        more = Counter(one["chute_id"] for one in self.answer("active_instances", moment) or ())
        more.subtract(one["chute_id"] for one in self._recorded("active_instances", moment))
        counted = []
        for row in recorded:
            names = [name for name in _COUNTS_OF_INSTANCES[endpoint] if row[name] is not None]
            counted.append(row | {name: row[name] + more[row["chute_id"]] for name in names})
        return counted


def _launch(instance: Row) -> tuple[str, str]:
    """Return what all answers say about an instance."""
    return instance["chute_id"], instance["created_at"]


def _incentive(seats: Iterable[Row]) -> float:
    return float(sum(seat["incentive"] for seat in seats))
