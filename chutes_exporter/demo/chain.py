"""A node of the chain, with a recorded block whose successors have the seats of a metagraph."""

from __future__ import annotations

import hashlib
import json
import lzma
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bittensor_core import decode_ss58

from chutes_exporter.chain import subnet as s
from chutes_exporter.chain.node import GENESIS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RECORDING: Final = Path(__file__).with_name("block.json.xz")
_BLOCK_SECONDS: Final = 12
_TEMPO: Final = 360
"""Blocks from one epoch to the next."""


@dataclass(frozen=True)
class Block:
    """A finalized block: its hash, the values of the storage, and the price of an alpha."""

    hash: str
    storage: Mapping[str, str | None]
    price: str


@cache
def recorded_block() -> Block:
    """Return the recorded block. Its time is the default, 0."""
    return Block(**json.loads(lzma.decompress(_RECORDING.read_bytes())))


def respond(call: Mapping[str, Any], head: Block, blocks: Mapping[str, Block]) -> dict[str, Any]:
    """Answer a call of JSON-RPC. One about an unknown block is refused like an unknown method.

    ``head`` is the newest finalized block. ``blocks`` are those that the node still knows, by hash.
    """
    match call["method"], call["params"]:
        case "chain_getBlockHash", [0]:
            result: Any = GENESIS
        case "chain_getFinalizedHead", []:
            result = head.hash
        case "state_getRuntimeVersion", [at] if at in blocks:
            result = {"specName": "node-subtensor", "specVersion": 475}
        case "state_queryStorageAt", [keys, at] if at in blocks:
            storage = blocks[at].storage
            result = [{"block": at, "changes": [[key, storage.get(key)] for key in keys]}]
        # The argument 0x4000 is the number of the subnet, 64.
        case "state_call", ["SwapRuntimeApi_current_alpha_price", "0x4000", at] if at in blocks:
            result = blocks[at].price
        case _:
            return {"id": call["id"], "error": {"code": -32601, "message": "Method not found"}}
    return {"jsonrpc": "2.0", "id": call["id"], "result": result}


def block_at(now: float, start: float, seats: Sequence[Mapping[str, Any]]) -> Block:
    """Return the newest block at a time, with the seats of the API's metagraph.

    The recorded block is the one of ``start``. All that the metagraph does not say stays as
    recorded, also when the seats were registered. The miners share what the subnet pays them by
    their incentive.
    """
    recorded = recorded_block()
    blocks_since = int((now - start) // _BLOCK_SECONDS)
    old = {name: item.value(recorded.storage.get(item.key)) for name, item in _PACE.items()}
    number = old["block"] + blocks_since
    pay_per_block = old["pending_miners"] // (old["block"] - old["last_paid_epoch"])
    # A block begins with the state after the one before it, in which its epoch is not paid yet.
    epochs = (number - old["last_paid_epoch"] - 1) // _TEMPO
    last_epoch = old["last_paid_epoch"] + epochs * _TEMPO
    by_uid = {seat["node_id"]: seat for seat in seats}
    uids = range(max(by_uid) + 1)
    incentive = [int(by_uid[uid]["incentive"]) if uid in by_uid else 0 for uid in uids]
    emission_of_all = _TEMPO * pay_per_block
    values: dict[s.Item, Any] = {
        s.ITEMS["block"]: number,
        s.ITEMS["milliseconds"]: int(1000 * (start + _BLOCK_SECONDS * blocks_since)),
        s.ITEMS["seats"]: len(uids),
        s.ITEMS["max_seats"]: len(uids),
        s.ITEMS["incentive"]: incentive,
        s.ITEMS["emission"]: [emission_of_all * part // sum(incentive) for part in incentive],
        s.ITEMS["last_paid_epoch"]: last_epoch,
        s.ITEMS["pending_miners"]: pay_per_block * (number - last_epoch),
    }
    values |= {s.HOTKEY.of_uid(uid): seat["hotkey"] for uid, seat in by_uid.items()}
    storage = {item.key: scale_text(item, value) for item, value in values.items()}
    digest = hashlib.sha256(json.dumps(storage).encode()).hexdigest()
    return Block(f"0x{digest}", {**recorded.storage, **storage}, recorded.price)


_PACE: Final = {name: s.ITEMS[name] for name in ("block", "last_paid_epoch", "pending_miners")}


def scale_text(item: s.Item, value: Any) -> str:
    """Return a value as a node sends it: hexadecimal digits of its SCALE encoding."""
    if not item.is_list:
        return "0x" + _bytes(item, value).hex()
    # Before a list of 64 to 16383 elements, SCALE has its length in two bytes, with 1 in the lowest
    # two bits.
    length = (len(value) << 2 | 1).to_bytes(2, "little")
    return "0x" + (length + b"".join(_bytes(item, part) for part in value)).hex()


def _bytes(item: s.Item, value: str | int) -> bytes:
    if isinstance(value, str):
        return bytes(decode_ss58(value))
    return value.to_bytes(item.size, "little")
