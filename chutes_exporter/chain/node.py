"""Requests to a node of the chain, with JSON-RPC.

All requests of a reading are about one finalized block.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from chutes_exporter.api import errors as e
from chutes_exporter.api.answer import Answer
from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.decoding import Shape
from chutes_exporter.api.endpoint import MB, Endpoint
from chutes_exporter.chain import subnet as s

if TYPE_CHECKING:
    from collections.abc import Callable

GENESIS: Final = "0x2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03"
"""The hash of the main network's first block."""
_METHOD_NOT_FOUND: Final = -32601
_ADVICE: Final = (
    "Check that --chain.url is the address of a node of Bittensor's main network. Try another "
    "node, or your own. Until a node answers, only the metrics of the chain are missing."
)


class _Error(msgspec.Struct):
    code: int
    message: str = ""


class _Reply(msgspec.Struct):
    result: Any = None
    error: _Error | None = None


class _Changes(msgspec.Struct):
    block: str
    changes: list[tuple[str, str | None]]


_Version: Final = msgspec.defstruct("_Version", [("specVersion", int)])
_REPLY: Final = Shape[_Reply](_Reply, count=lambda _: 1)
CHAIN: Final = Endpoint("chain", "", _REPLY, method="POST", max_bytes=4 * MB)
"""The address of the node."""


class Node:
    """A node of the chain.

    The ``clock`` decides how old a block is. ``options`` are the other arguments of ChutesClient.

    Attributes:
        pause: Minimum seconds from one request to the next. Public nodes refuse more than one a
            second.
    """

    def __init__(self, url: str, *, clock: Callable[[], float], **options: Any) -> None:
        self._client = ChutesClient(url, clock=clock, **options)
        self._clock = clock
        is_own_node = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
        self.pause = 0.0 if is_own_node else 1.0
        # Monotonic time at which the pause after the last request is over.
        self._free_at = 0.0
        # The hash of the block that a reading asks about.
        self._block_hash = ""

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def read(self) -> Answer[s.Subnet]:
        """Return the subnet in the newest finalized block, or raise ApiError.

        It sends six requests.
        """
        started = time.monotonic()
        try:
            subnet = await self._subnet()
        except e.ApiError as error:
            # The advice is about nodes, not about the API.
            error.advice = _ADVICE
            raise
        return Answer(
            subnet,
            count=len(subnet.seats),
            received_at=self._clock(),
            seconds=time.monotonic() - started,
        )

    async def _subnet(self) -> s.Subnet:
        genesis = await self._call(str, "chain_getBlockHash", 0)
        if genesis != GENESIS:
            raise e.WrongChainError(f"its first block is not {GENESIS[:14]}…")
        self._block_hash = await self._call(str, "chain_getFinalizedHead")
        version = await self._call(_Version, "state_getRuntimeVersion", self._block_hash)
        values = await self._values(list(s.ITEMS.values()))
        state = s.State(**dict(zip(s.ITEMS, values, strict=True)))
        state.check(self._clock())
        # One request for all seats: first the owner's hotkeys, then the hotkey of each seat, then
        # the block of its registration.
        items = [s.OWNED_HOTKEYS.of_account(state.owner)]
        items += [s.HOTKEY.of_uid(uid) for uid in range(state.seat_count)]
        items += [s.REGISTERED.of_uid(uid) for uid in range(state.seat_count)]
        owned, *values_of_seats = await self._values(items)
        hotkeys = values_of_seats[: state.seat_count]
        registered = values_of_seats[state.seat_count :]
        if len(set(hotkeys)) < state.seat_count:
            raise e.UndecodableError(f"{s.HOTKEY.name}: a hotkey has two seats")
        try:
            text = await self._call(
                str,
                "state_call",
                "SwapRuntimeApi_current_alpha_price",
                f"0x{s.NETUID}",
                self._block_hash,
            )
            # With a price of 0, all pay would seem to be worth nothing.
            price = s.PRICE.value(text) or None
        except e.NotFoundError:
            # The runtime no longer has it.
            price = None
        return s.Subnet(
            state=state,
            hotkeys=hotkeys,
            registered=registered,
            owned=owned,
            spec_version=version.specVersion,
            price=price,
        )

    async def _values(self, items: list[s.Item]) -> list[Any]:
        """Return the values of items in the block, in their order, or raise ApiError."""
        keys = [item.key for item in items]
        # The answer is a list with one entry for the block.
        (answer,) = await self._call(
            tuple[_Changes], "state_queryStorageAt", keys, self._block_hash
        )
        if answer.block != self._block_hash:
            raise e.UndecodableError("the answer is about another block")
        text_by_key = dict(answer.changes)
        # Item.value refuses an empty text, so that an item that the answer lacks is an error. None
        # would be the default.
        return [item.value(text_by_key.get(item.key, "")) for item in items]

    async def _call(self, kind: Any, method: str, *params: Any) -> Any:
        """Call a method of the node, and convert its result to a type, or raise ApiError.

        It waits until the pause after the last request is over. An error does not quote the node,
        which may echo the key in its address.
        """
        # A pause that is over is negative here, and asyncio.sleep then does not wait.
        await asyncio.sleep(self._free_at - time.monotonic())
        self._free_at = time.monotonic() + self.pause
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            reply = (await self._client.fetch(CHAIN, body=body)).value
        except e.ApiError as error:
            if error.status not in (None, 200):
                error.args = (f"{method} is answered with status {error.status}",)
            raise
        if reply.error is None:
            try:
                return msgspec.convert(reply.result, kind)
            except msgspec.ValidationError as error:
                raise e.UndecodableError(str(error)) from None
        text = f"{method} fails with code {reply.error.code}"
        # Some nodes have another code for a function that the runtime does not export.
        is_missing = reply.error.code == _METHOD_NOT_FOUND
        if is_missing or "Exported method" in reply.error.message:
            raise e.NotFoundError(text)
        raise e.UnavailableError(text)
