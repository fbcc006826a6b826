"""Large fleets and subnets, for pictures, load and benchmarks: the recorded day with copies of its
servers, miners and chutes under new ids.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.demo.day import Day

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Record = dict[str, Any]
IDS: Final = ("server_id", "instance_id", "uuid", "gpu_id")
PER_MINER: Final = {
    *("instances", "inventory", "nodes", "servers", "maintenance"),
    *("server_maintenance", "thrash_cooldowns", "unique_chute_history"),
}
"""Answers that each miner has of its own."""
RECORDS: Final = {
    "active_instances": "",
    "instances": "",
    "inventory": "",
    "nodes": "",
    "servers": "servers",
    "maintenance": "servers",
}
"""Answers with records of a miner's things, and where these are."""
OF_CHUTES: Final = ("chutes", "utilization", "metrics")
COUNTS: Final = ("instance_count", "active_instance_count", "total_instance_count", "target_count")
"""The numbers of a chute's instances."""


@dataclass(frozen=True)
class Copy:
    """A copy of a recorded miner's servers, with all that runs there.

    Attributes:
        of: The recorded miner.
        hotkey: Whose servers the copies are: another miner's, or the same one's.
        number: Begins the ids of the copies.
    """

    of: str
    hotkey: str
    number: int

    def renamed(self, value: Any, *, name: bool = False) -> Any:
        """Return a record with new ids, and with a new ``name`` if it is one of a server."""
        if isinstance(value, list):
            return [self.renamed(part) for part in value]
        if not isinstance(value, dict):
            return self.hotkey if value == self.of else value
        record = {key: self.renamed(part) for key, part in value.items()}
        for key in IDS:
            if record.get(key):
                record[key] = new_id(record[key], self.number)
        return record | ({"name": f"{record['name']}-{self.number}"} if name else {})


def new_id(of: str, number: int) -> str:
    """Return the id of a copy, which begins with its number. Recorded ones are random."""
    return f"{number:04x}{of[4:]}"


class LargeDay(Day):
    """A recorded day with more servers, miners and chutes. Use it like the recorded one.

    Args:
        day: The recorded day.
        servers: How many times each miner with a key has its servers.
        miners: How many miners with a key there are.
        chutes: How many times there is each chute. The copies have no instance.

    Attributes:
        first: As of the recorded day.
        last: As of the recorded day.
        miners: All miners with a key. Copies have the names of recorded ones with a number.
    """

    def __init__(self, day: Day, *, servers: int = 1, miners: int = 2, chutes: int = 1) -> None:
        self.first, self.last = day.first, day.last
        self._day, self._chutes = day, chutes
        keys = dict(day.miners)
        self._recorded = [(name, key.address) for name, key in day.miners.items()]
        self._copies = []
        for name, address in self._recorded:
            self._copies += [Copy(address, address, n + 1) for n in range(servers - 1)]
        for number in range(len(self._recorded), miners):
            name, address = self._recorded[number % len(self._recorded)]
            key = Hotkey.from_seed(hashlib.sha256(b"large %d" % number).hexdigest())
            keys[f"{name}-{number}"] = key
            self._copies.append(Copy(address, key.address, servers + number))
        self.miners: Mapping[str, Hotkey] = keys
        self._made: dict[tuple[str, ...], tuple[Any, Any]] = {}

    def answer(self, endpoint: str, moment: float, hotkey: str = "", part: str = "") -> Any | None:
        """Return the JSON of an answer, as the recorded day does."""
        if endpoint not in PER_MINER:
            hotkey = ""
        copies = [copy for copy in self._copies if not hotkey or copy.hotkey == hotkey]
        asked, asked_part = hotkey, part
        for copy in copies:
            asked = copy.of if hotkey else ""
            # The id of a copied server has its number.
            if endpoint == "server_maintenance" and part.startswith(f"{copy.number:04x}"):
                asked_part = self._server(copy, part, moment)
        recorded = self._day.answer(endpoint, moment, asked, asked_part)
        key = (endpoint, hotkey, part)
        before, made = self._made.get(key, (None, None))
        if recorded is not None and before is not recorded:
            is_own = any(copy.hotkey != copy.of for copy in copies)
            made = self._enlarged(
                endpoint, moment, recorded, copies, is_own=bool(hotkey) and is_own
            )
            self._made[key] = recorded, made
        return None if recorded is None else made

    def _server(self, copy: Copy, part: str, moment: float) -> str:
        """Return the recorded id of a copied server."""
        servers = (self._day.answer("servers", moment, copy.of) or {"servers": []})["servers"]
        ids = {new_id(one["server_id"], copy.number): one["server_id"] for one in servers}
        return ids.get(part, part)

    def _enlarged(
        self, endpoint: str, moment: float, recorded: Any, copies: list[Copy], *, is_own: bool
    ) -> Any:
        """Return an answer with copies.

        ``is_own`` is whether it is an answer to a copied miner, which has nothing recorded.
        """
        if endpoint in RECORDS:
            place = RECORDS[endpoint]
            records = recorded[place] if place else recorded
            more = [] if is_own else [*records]
            for copy in copies:
                of_miner = [one for one in records if one.get("miner_hotkey", copy.of) == copy.of]
                named = endpoint in ("servers", "maintenance")
                more += [copy.renamed(one, name=named) for one in of_miner]
            if endpoint == "maintenance":
                used = [one for one in more if one["maintenance_status"] != "none"]
                return recorded | {"servers": more, "current_slots": len(used)}
            return recorded | {place: more} if place else more
        if endpoint == "unique_chute_history":
            times = len(copies) + (not is_own)
            return [one | {"total_count": times * one["total_count"]} for one in recorded]
        if endpoint == "server_maintenance":
            return copies[0].renamed(recorded) if copies else recorded
        made = {
            "stats": _stats,
            "stats_per_chute": _stats,
            "scores": _scores,
            "held_gpus": _held,
            "metagraph": _seats,
            "audit_report": _report,
        }.get(endpoint, lambda answer, _: answer)(recorded, copies)
        if endpoint == "platform_gpus":
            return self._platform_gpus(recorded, moment)
        return self._of_chutes(endpoint, made, moment) if endpoint in OF_CHUTES else made

    def _platform_gpus(self, recorded: Any, moment: float) -> Any:
        """Return the GPUs of the platform, with those of the copies."""
        held = self._day.answer("held_gpus", moment) or {}
        counts = {gpu: Counter(states) for gpu, states in recorded.items()}
        for copy in self._copies:
            for gpu in held[copy.of]["provisioned"]:
                counts[gpu["gpu"]]["provisioned"] += 1
            for gpu, idle in held[copy.of]["idle"].items():
                counts[gpu]["idle"] += idle
        return counts

    def _of_chutes(self, endpoint: str, recorded: list[Record], moment: float) -> list[Record]:
        """Return the records of chutes with the instances of copies, and copies of chutes."""
        active = self._day.answer("active_instances", moment) or []
        chutes = Counter((one["miner_hotkey"], one["chute_id"]) for one in active)
        made = []
        for one in recorded:
            more = sum(chutes[copy.of, one["chute_id"]] for copy in self._copies)
            made.append(one | {name: one[name] + more for name in COUNTS if name in one})
        for number in range(1, self._chutes):
            for one in recorded:
                chute = {"chute_id": new_id(one["chute_id"], number)}
                if one.get("name"):
                    chute["name"] = f"{one['name']}-{number}"
                nothing = dict.fromkeys(("scale_allowance", *COUNTS), 0)
                made.append(one | chute | dict.fromkeys(nothing.keys() & one.keys(), 0))
        return made


def _times(copies: Iterable[Copy], hotkey: str) -> int:
    """Return how many times a recorded miner has its servers."""
    return 1 + sum(copy.of == copy.hotkey == hotkey for copy in copies)


def _multiplied(record: Record, times: int) -> Record:
    """Return a record whose numbers are so many times larger."""
    numbers = {key: times * one for key, one in record.items() if type(one) in (int, float)}
    return record | numbers


def _others(copies: Iterable[Copy]) -> list[Copy]:
    """Return the copies that are other miners."""
    return [copy for copy in copies if copy.of != copy.hotkey]


def _stats(recorded: Any, copies: list[Copy]) -> Any:
    made: dict[str, dict[str, list[Record]]] = {}
    for window, kinds in recorded.items():
        made[window] = {}
        for kind, rows in kinds.items():
            more = [_multiplied(row, _times(copies, row["miner_hotkey"])) for row in rows]
            for copy in _others(copies):
                more += [copy.renamed(row) for row in rows if row["miner_hotkey"] == copy.of]
            made[window][kind] = more
    return made


def _scores(recorded: Any, copies: list[Copy]) -> Any:
    raw = {}
    for hotkey, values in recorded["raw_values"].items():
        raw[hotkey] = _multiplied(values, _times(copies, hotkey))
    raw |= {copy.hotkey: recorded["raw_values"][copy.of] for copy in _others(copies)}
    total = sum(values["instance_compute_units"] for values in raw.values())
    shares = {key: values["instance_compute_units"] / total for key, values in raw.items()}
    return {"raw_values": raw, "final_scores": shares}


def _held(recorded: Any, copies: list[Copy]) -> Any:
    made = {}
    for hotkey, held in recorded.items():
        made[hotkey] = {
            "provisioned": [*held["provisioned"]],
            "idle": _multiplied(held["idle"], _times(copies, hotkey)),
        }
    for copy in copies:
        held = recorded[copy.of]
        of_copy = made.setdefault(copy.hotkey, {"provisioned": [], "idle": held["idle"]})
        of_copy["provisioned"] += copy.renamed(held["provisioned"])
    return made


def _seats(recorded: Any, copies: list[Copy]) -> Any:
    """Return the seats, of which the copies have those of other miners, first without incentive."""
    kept = {copy.of for copy in copies}
    seats = sorted(recorded, key=lambda seat: (seat["hotkey"] in kept, seat["incentive"]))
    for number, copy in enumerate(_others(copies)):
        seats[number] = seats[number] | {"hotkey": copy.hotkey, "blacklist_reason": None}
    return seats


def _report(recorded: Any, copies: list[Copy]) -> Any:
    instances, history = [*recorded["instance_audit"]], [*recorded["compute_history"]]
    for copy in copies:
        of_miner = [one for one in recorded["instance_audit"] if one["miner_hotkey"] == copy.of]
        ids = {one["instance_id"] for one in of_miner}
        instances += copy.renamed(of_miner)
        rows = [one for one in recorded["compute_history"] if one["instance_id"] in ids]
        history += copy.renamed(rows)
    return recorded | {"instance_audit": instances, "compute_history": history}
