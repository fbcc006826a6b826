"""Requests to a node of the chain, with JSON-RPC. All requests of a reading are about one finalized block."""

from __future__ import annotations

import asyncio
import time
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
import structlog

from chutes_exporter.api import errors as e
from chutes_exporter.api.client import Answer, ChutesClient
from chutes_exporter.api.decoding import object_of
from chutes_exporter.api.endpoints import MB, Endpoint
from chutes_exporter.api.fields import UNREADABLE
from chutes_exporter.api.records import Record
from chutes_exporter.chain import storage as s
from chutes_exporter.chain.seats import Seat, Subnet
from chutes_exporter.duration import MINUTE, human_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

_log = structlog.get_logger("chain")

GENESIS: Final = "0x2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03"
"""The hash of the main network's first block."""
_MAX_AGE: Final = 10 * MINUTE
# The error of each code of JSON-RPC. Public nodes use two codes for too many requests.
_ERRORS: Final = {-32601: e.NotFoundError, -32004: e.RateLimitedError, -32029: e.RateLimitedError}
_ADVICE: Final = (
    "Check that --chain.url is the address of a node of Bittensor's main network. Try another node, or your own. "
    "Until a node answers, only the metrics of the chain are missing."
)


class _Error(msgspec.Struct):
    code: int
    message: str = ""


class _Reply(Record, frozen=True):
    UNUSED: ClassVar = {"envelope": "jsonrpc id"}
    SOMETIMES = ("result", "error")

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


class _Changes(msgspec.Struct):
    block: str
    changes: list[tuple[str, str | None]]


class _Version(msgspec.Struct, rename="camel"):
    spec_version: int


CHAIN: Final = Endpoint("chain", "", object_of(_Reply), method="POST", max_bytes=4 * MB)
"""The address of the node."""


class Node:
    """A node of the chain. It takes the arguments of ChutesClient.

    Attributes:
        pause: Minimum seconds from one request to the next. Public nodes refuse more than one a second.
        aclose: Closes all connections.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time, **more: Any) -> None:
        self.pause = 0.0 if urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1") else 1.0
        self._client = ChutesClient(url, clock=clock, **more)
        self.aclose = self._client.aclose
        self._clock = clock
        self._free_at = 0.0
        # The hash of the block that is asked for, and how errors name it.
        self._head = self._block = ""

    async def read(self) -> Answer[Subnet]:
        """Return the subnet in the newest finalized block, or raise ApiError. It sends seven requests.

        Errors name the block by the best that is known of it so far: its hash, later its number.
        """
        started, self._block = time.monotonic(), "the newest block"
        if (genesis := await self._call(str, "chain_getBlockHash", 0)) != GENESIS:
            raise self._error("The chain", f"it begins with {genesis[:14]}…, not {GENESIS[:14]}…", e.WrongChainError)
        self._head = await self._call(str, "chain_getFinalizedHead")
        self._block = f"block {self._head[:14]}…"
        version = await self._call(_Version, "state_getRuntimeVersion", self._head)
        state = s.State(**await self._values(s.SUBNET_ITEMS))
        self._block = f"block {state.block}"
        if (age := self._clock() - state.time) > _MAX_AGE:
            raise self._error("The time", f"it was {human_duration(age)} ago, the node is behind", e.UnavailableError)
        for name, why in state.nonsense():
            raise self._error(s.SUBNET_ITEMS[name].name, why)
        seats, withheld = await self._seats(state)
        subnet = Subnet(state, seats, withheld, version.spec_version, await self._price())
        return Answer(subnet, count=state.seats, received_at=self._clock(), seconds=time.monotonic() - started)

    async def _seats(self, state: s.State) -> tuple[list[Seat], set[bytes]]:
        """Return the seats by UID, and the hotkeys whose pay is withheld: those of the subnet's owner."""
        uids, items = range(state.seats), (s.HOTKEY, s.REGISTERED)
        found = await self._values({(item, uid): item.of_uid(uid) for uid in uids for item in items})
        hotkeys = [found[s.HOTKEY, uid] for uid in uids]
        if len(set(hotkeys)) < len(hotkeys):
            raise self._error(s.HOTKEY.name, "a hotkey has two seats")
        wanted = {hotkey: s.COLDKEY.of_account(hotkey) for hotkey in hotkeys}
        coldkeys = await self._values(wanted | {"owned": s.OWNED_HOTKEYS.of_account(state.owner)})
        # A new seat can be younger than the last epoch. Then these lists have no value for it.
        amounts = zip_longest(state.emission, state.incentive, state.dividends, uids, fillvalue=0)
        seats = [
            Seat(hotkey, coldkeys[hotkey], found[s.REGISTERED, uid], emission, incentive, dividends)
            for hotkey, (emission, incentive, dividends, uid) in zip(hotkeys, amounts, strict=True)
        ]
        return seats, {*coldkeys["owned"], state.owner_hotkey}

    async def _price(self) -> int | None:
        """Return the price of one alpha in rao, None if the runtime has no such function any more."""
        try:
            text = await self._call(str, "state_call", "SwapRuntimeApi_current_alpha_price", "0x4000", self._head)
        except e.NotFoundError as error:
            _log.warning("no price of alpha", reason=str(error))
            return None
        price: int = self._value(s.PRICE, text)
        if not price:
            raise self._error(s.PRICE.name, "it is 0")
        return price

    async def _values(self, wanted: Mapping[Any, s.Item]) -> dict[Any, Any]:
        """Return the values of items in the block."""
        keys = [item.key for item in wanted.values()]
        (answer,) = await self._call(tuple[_Changes], "state_queryStorageAt", keys, self._head)
        if answer.block != self._head:
            raise self._error("state_queryStorageAt", f"the answer is about another block, {answer.block[:14]}…")
        texts = dict(answer.changes)
        if missing := next((item.name for item in wanted.values() if item.key not in texts), ""):
            raise self._error(missing, "the answer lacks it")
        return {name: self._value(item, texts[item.key]) for name, item in wanted.items()}

    def _value(self, item: s.Item, text: str | None) -> Any:
        try:
            return item.value(text)
        except ValueError as error:
            raise self._error(item.name, str(error)) from None

    def _error(self, name: str, why: str, kind: type[e.ApiError] = e.UndecodableError) -> e.ApiError:
        return kind(f"{name} of {self._block}: {why}", status=200, advice=_ADVICE)

    async def _call(self, kind: type[T], method: str, *params: Any) -> T:
        """Call a method of the node, as soon as the pause after the last request is over."""
        await asyncio.sleep(self._free_at - time.monotonic())
        self._free_at = time.monotonic() + self.pause
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            reply = (await self._client.fetch(CHAIN, body=body)).value
            if reply.error is None:
                return msgspec.json.decode(reply.result, type=kind)
        except UNREADABLE as error:
            raise self._error(method, str(error)) from None
        except e.ApiError as error:
            text, wait = f"{method} of {self._block}: {error}", error.retry_after
            raise type(error)(text, status=error.status, retry_after=wait, advice=_ADVICE) from None
        code, message = reply.error.code, " ".join(reply.error.message.split())[:200]
        # Nodes use different codes if the runtime does not export a function.
        lacks_function = "Exported method" in message
        kind_of_error = e.NotFoundError if lacks_function else _ERRORS.get(code, e.UnavailableError)
        raise self._error(method, f"error {code} {message}", kind_of_error)
