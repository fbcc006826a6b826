"""Requests to a node of the chain, with JSON-RPC.

All requests of a reading are about one finalized block.
"""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import unquote, urlsplit

import msgspec
import structlog

from chutes_exporter.api import errors as e
from chutes_exporter.api.answer import Answer
from chutes_exporter.api.clock import steady
from chutes_exporter.api.decoding import object_of
from chutes_exporter.api.endpoints import MB, Endpoint
from chutes_exporter.api.records import Record
from chutes_exporter.api.transport import Transport
from chutes_exporter.chain import subnet as s
from chutes_exporter.duration import MINUTE, human_duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from chutes_exporter.api.request_metrics import RequestCounters

_log = structlog.get_logger("chain")

GENESIS: Final = "0x2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03"
"""The hash of the main network's first block."""
_MAX_AGE: Final = 10 * MINUTE
_SHORTEST_KEY: Final = 4
_ADVICE: Final = (
    "Check that --chain.url is the address of a node of Bittensor's main network. Try another "
    "node, or your own. "
    "Until a node answers, only the metrics of the chain are missing."
)


class _Reply(Record, frozen=True):
    UNUSED: ClassVar = {"envelope": "jsonrpc id"}
    SOMETIMES = ("result", "error")

    result: Any = None
    error: Any = None


class _Changes(msgspec.Struct):
    block: str
    changes: list[tuple[str, str | None]]


_Version: Final = msgspec.defstruct("_Version", [("specVersion", int)])
CHAIN: Final = Endpoint("chain", "", object_of(_Reply), method="POST", max_bytes=4 * MB)
"""The address of the node."""


class Node:
    """A node of the chain.

    The ``clock`` decides how old a block is.

    Attributes:
        pause: Minimum seconds from one request to the next. Public nodes refuse more than one a
            second.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 20.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = steady,
        counters: RequestCounters | None = None,
    ) -> None:
        self._without_keys = partial(_remove, _keys_in(url))
        self._transport = Transport(
            url,
            timeout=timeout,
            clock=clock,
            monotonic=monotonic,
            counters=counters,
            scrub=self._scrub,
        )
        self._clock = clock
        self.pause = 0.0 if urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1") else 1.0
        self._free_at = 0.0
        # The hash of the block that is asked for, and what errors name: the newest request, and the
        # block.
        self._head = self._method = self._block = ""
        # The pay in the newest block, for the block of an epoch.
        self._miners_per_block: float | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def read(self) -> Answer[s.Subnet]:
        """Return the subnet in the newest finalized block, or raise ApiError.

        It sends six requests.

        Errors name the block by the best that is known of it so far: its hash, later its number.
        """
        started, self._block = time.monotonic(), "the newest block"
        try:
            subnet = await self._subnet()
        except e.ApiError as error:
            error.args, error.advice = (f"{self._method} of {self._block}: {error}",), _ADVICE
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
            raise e.WrongChainError(f"it begins with {self._start(genesis)}, not {GENESIS[:14]}…")
        self._head = await self._call(str, "chain_getFinalizedHead")
        self._block = f"block {self._start(self._head)}"
        version = await self._call(_Version, "state_getRuntimeVersion", self._head)
        state = s.State(*await self._values([*s.ITEMS.values()]))
        self._block = f"block {state.block}"
        age = self._clock() - state.time
        if age > _MAX_AGE:
            raise e.UnavailableError(f"it is {human_duration(age)} old, the node is behind")
        state.check()
        items = [s.OWNED_HOTKEYS.of_account(state.owner)]
        items += [s.HOTKEY.of_uid(uid) for uid in range(state.seats)]
        items += [s.REGISTERED.of_uid(uid) for uid in range(state.seats)]
        owned, *found = await self._values(items)
        hotkeys, registered = found[: state.seats], found[state.seats :]
        if len(set(hotkeys)) < state.seats:
            raise e.UndecodableError(f"{s.HOTKEY.name}: a hotkey has two seats")
        self._miners_per_block = state.miners_per_block(self._miners_per_block)
        price = await self._price()
        return s.Subnet(
            state=state,
            hotkeys=hotkeys,
            registered=registered,
            owned=owned,
            spec_version=version.specVersion,
            price=price,
            miners_per_block=self._miners_per_block,
        )

    async def _price(self) -> int | None:
        """Return the price of one alpha in rao, None if the runtime has no such function any
        more.
        """
        try:
            text = await self._call(
                str, "state_call", "SwapRuntimeApi_current_alpha_price", "0x4000", self._head
            )
        except e.NotFoundError as error:
            _log.warning("no price of alpha", reason=str(error))
            return None
        price: int = s.PRICE.value(text)
        if not price:
            _log.warning("no price of alpha", reason=f"it is 0 in {self._block}")
        return price or None

    async def _values(self, items: list[s.Item]) -> list[Any]:
        """Return the values of items in the block."""
        (answer,) = await self._call(
            tuple[_Changes], "state_queryStorageAt", [one.key for one in items], self._head
        )
        if answer.block != self._head:
            raise e.UndecodableError(
                f"the answer is about another block, {self._start(answer.block)}"
            )
        texts = dict(answer.changes)
        # No item has an empty text, so that one that the answer lacks is an error.
        return [item.value(texts.get(item.key, "")) for item in items]

    async def _call(self, kind: Any, method: str, *params: Any) -> Any:
        """Call a method of the node, as soon as the pause after the last request is over."""
        self._method = method
        await asyncio.sleep(self._free_at - time.monotonic())
        self._free_at = time.monotonic() + self.pause
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        reply = (await self._transport.send(CHAIN, body=body)).value
        if reply.error is None:
            try:
                return msgspec.convert(reply.result, kind)
            except msgspec.ValidationError as error:
                raise e.UndecodableError(str(error)) from None
        text = self._scrub(" ".join(str(reply.error).split()))[:200]
        # Nodes use different codes if the runtime does not export a function.
        is_missing = "-32601" in text or "Exported method" in text
        raise (e.NotFoundError if is_missing else e.UnavailableError)(text)

    def _scrub(self, text: str) -> str:
        return e.scrub(self._without_keys(text))

    def _start(self, text: str) -> str:
        """Return the start of a hash, or of what the node sent as one."""
        return f"{self._without_keys(text)[:14]}…"


def _keys_in(url: str) -> list[str]:
    """Return the parts of an address that may be keys, the longest first, as they stand there and
    decoded.
    """
    parts = urlsplit(url)
    found = set(parts.path.split("/"))
    for pair in parts.query.split("&"):
        name, _, value = pair.partition("=")
        found.add(value or name)
    found |= {unquote(part) for part in found}
    return sorted((part for part in found if len(part) >= _SHORTEST_KEY), key=len, reverse=True)


def _remove(keys: list[str], text: str) -> str:
    """Return a text of a node without keys, which it may echo."""
    for key in keys:
        text = re.sub(re.escape(key), "[key]", text, flags=re.IGNORECASE)
    return text
