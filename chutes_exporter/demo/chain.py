"""A node of the chain, with a recorded block whose successors have the seats of a metagraph."""

from __future__ import annotations

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
    """Return the newest block at a time, with all seats of the API's metagraph.

    The recorded block is the one of ``start``. All that the metagraph does not say stays as
    recorded, also when the seats were registered. The miners share what the subnet pays them by
    their incentive.
    """
    recorded = recorded_block()

    def old(name: str) -> Any:
        item = s.ITEMS[name]
        return item.value(recorded.storage.get(item.key))

    blocks_since = int((now - start) // _BLOCK_SECONDS)
    number, last_epoch = old("block") + blocks_since, old("last_paid_epoch")
    pay_per_block = old("pending_miners") // (old("block") - last_epoch)
    # A block begins with the state after the one before it, in which its epoch is not paid yet.
    last_epoch += (number - last_epoch - 1) // _TEMPO * _TEMPO
    incentive = [0] * old("seat_count")
    for seat in seats:
        incentive[seat["node_id"]] = int(seat["incentive"])
    emission_of_all = _TEMPO * pay_per_block
    values: dict[s.Item, Any] = {
        s.ITEMS["block"]: number,
        s.ITEMS["milliseconds"]: int(1000 * (start + _BLOCK_SECONDS * blocks_since)),
        s.ITEMS["incentive"]: incentive,
        s.ITEMS["emission"]: [emission_of_all * part // sum(incentive) for part in incentive],
        s.ITEMS["last_paid_epoch"]: last_epoch,
        s.ITEMS["pending_miners"]: pay_per_block * (number - last_epoch),
    }
    values |= {s.HOTKEY.of_uid(seat["node_id"]): seat["hotkey"] for seat in seats}
    storage = {item.key: _scale_text(item, value) for item, value in values.items()}
    return Block(f"0x{number:064x}", {**recorded.storage, **storage}, recorded.price)


def _scale_text(item: s.Item, value: Any) -> str:
    """Return a value as a node sends it: hexadecimal digits of its SCALE encoding."""
    if isinstance(value, str):
        return f"0x{bytes(decode_ss58(value)).hex()}"
    if not item.is_list:
        return f"0x{value.to_bytes(item.size, 'little').hex()}"
    # Before a list of 64 to 16383 elements, SCALE has its length in two bytes, with 1 in the lowest
    # two bits.
    length = (len(value) << 2 | 1).to_bytes(2, "little")
    parts = [part.to_bytes(item.size, "little") for part in value]
    return f"0x{(length + b''.join(parts)).hex()}"
