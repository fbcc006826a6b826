"""Limits the memory of all answers together, in progress and kept."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import weakref
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import msgspec

from chutes_exporter.api.errors import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE_BYTES = 2 * 1024 * 1024
_SPARE_BYTES = 8 * 1024 * 1024
_LEAVES = frozenset((str, int, float, bool, type(None), msgspec.UnsetType))
"""Types of values without parts."""
_MAX_KEPT_FRACTION = 1 / 3
"""Fraction of the budget that the kept answers of one endpoint may take."""


def keep_memory_compact() -> None:
    """Make the C library return large pieces of memory to the system as soon as they are free.

    By default, glibc keeps them after the first was freed, and they count towards a container's limit. It also keeps
    free memory for each thread.
    """
    _call_c_library("mallopt", _M_ARENA_MAX, 1)
    _call_c_library("mallopt", _M_MMAP_THRESHOLD, _LARGE_BYTES)
    _call_c_library("mallopt", _M_TRIM_THRESHOLD, _SPARE_BYTES)


def trim_memory() -> None:
    """Make the C library return free memory to the system. Call it after much memory was freed."""
    _call_c_library("malloc_trim", 0)


@contextlib.contextmanager
def garbage_collector_paused() -> Iterator[None]:
    """Pause Python's garbage collector, for work that makes many objects without cycles.

    The collector would search the objects again and again. All threads stand still meanwhile, for up to 50 ms.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _call_c_library(function: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        getattr(ctypes.CDLL(None), function)(*arguments)


class Kept:
    """The memory of an answer's records. It counts until nobody refers to this object any more.

    Attributes:
        size: Bytes.
    """

    __slots__ = ("__weakref__", "size")

    def __init__(self, size: int) -> None:
        self.size = size


class MemoryBudget:
    """The memory that all answers may take together.

    When it is used up, the largest request of the endpoint that uses most is cancelled. So an endpoint that sends too
    much does not affect the others.

    Args:
        total: Size of the budget in bytes.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._used: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._claims: set[Claim] = set()
        # Any thread may drop an answer at any time. It only appends here, and `used` subtracts later.
        self._dropped: deque[tuple[str, int]] = deque()

    @property
    def used(self) -> int:
        """Bytes in use."""
        while self._dropped:
            endpoint, size = self._dropped.popleft()
            self._used[endpoint] -= size
            self._kept[endpoint] -= size
        return self._used.total()

    def open(self, endpoint: str, cancel: Callable[[], None]) -> Claim:
        """Start to account for a request.

        Args:
            endpoint: The endpoint's name.
            cancel: Cancels the request. Called when others need its memory.
        """
        claim = Claim(self, endpoint, cancel)
        self._claims.add(claim)
        return claim

    def _add(self, claim: Claim, size: int) -> None:
        claim.size += size
        self._used[claim.endpoint] += size
        while size > 0 and self.used > self.total:
            largest = max(
                (one for one in self._claims if not one.busy), key=lambda one: (self._used[one.endpoint], one.size)
            )
            if largest is claim:
                raise self.error(claim.endpoint)
            largest.cancel()

    def _close(self, claim: Claim) -> None:
        self._used[claim.endpoint] -= claim.size
        claim.size = 0
        self._claims.discard(claim)

    def _keep(self, claim: Claim, replaced: Iterable[Kept]) -> Kept:
        # An answer and the one that it replaces exist together only for a moment.
        others = self._kept[claim.endpoint] - sum(one.size for one in replaced)
        if others + claim.size > self.total * _MAX_KEPT_FRACTION:
            raise self.error(claim.endpoint)
        kept = Kept(claim.size)
        self._kept[claim.endpoint] += claim.size
        weakref.finalize(kept, self._dropped.append, (claim.endpoint, claim.size)).atexit = False
        claim.size = 0
        return kept

    def error(self, endpoint: str) -> TooLargeError:
        """Return the error for an endpoint that takes too much."""
        return TooLargeError(
            f"all answers together may take {self.total // 1_000_000} MB of memory, and {endpoint} takes the most",
            status=200,
            advice="Check that --api.url is a Chutes API. If it is, raise --max-series, which also raises this limit.",
        )


class Claim:
    """The part of the budget that one request takes.

    Attributes:
        endpoint: The endpoint's name.
        size: Bytes that it takes now.
        busy: Whether it cannot be cancelled now.
        cancelled: Whether it was cancelled because others needed its memory.
    """

    def __init__(self, budget: MemoryBudget, endpoint: str, cancel: Callable[[], None]) -> None:
        self.endpoint = endpoint
        self.size = 0
        self.busy = False
        self.cancelled = False
        self._budget = budget
        self._cancel = cancel

    def add(self, size: int) -> None:
        """Take more bytes, or return bytes if the size is negative.

        Raises:
            TooLargeError: The budget is used up, and this request is the largest of the endpoint that takes most.
        """
        if self.cancelled:
            raise self.error()
        self._budget._add(self, size)  # noqa: SLF001 - two halves of one thing

    def keep(self, size: int, replaced: Iterable[Kept] = ()) -> Kept:
        """Replace the bytes of the request by those of its records, as long as the returned object exists.

        Args:
            size: Bytes of the records.
            replaced: Older answers that are dropped when this one is there.

        Raises:
            TooLargeError: The budget is used up, or the kept answers of the endpoint take too much.
        """
        self.add(size - self.size)
        return self._budget._keep(self, replaced)  # noqa: SLF001 - two halves of one thing

    def cancel(self) -> None:
        """Free the memory for others and cancel the request."""
        self.cancelled = True
        self.close()
        self._cancel()

    def close(self) -> None:
        """Return all bytes."""
        self._budget._close(self)  # noqa: SLF001

    def error(self) -> TooLargeError:
        """Return the error for a cancelled request."""
        return self._budget.error(self.endpoint)


def size_of(value: Any) -> int:
    """Return the bytes that records take. Shared strings count each time."""
    parts: Iterable[Any]
    if isinstance(value, msgspec.Struct):
        parts = msgspec.structs.astuple(value)
    elif isinstance(value, list):
        parts = value
    elif isinstance(value, dict):
        parts = [*value, *value.values()]
    else:
        return sys.getsizeof(value)
    # Most parts are leaves. A call for each of them would take three times as long.
    return sys.getsizeof(value) + sum(
        [sys.getsizeof(part) if type(part) in _LEAVES else size_of(part) for part in parts]
    )
