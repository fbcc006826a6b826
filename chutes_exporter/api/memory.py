"""One limit for the memory that all answers take together: those under way, and those that are kept."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import weakref
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import msgspec

from chutes_exporter.api.errors import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 2 * 1024 * 1024
_SPARE_BYTES = 8 * 1024 * 1024
_KEPT_SHARE = 3
"""The answers of one endpoint may keep a third of the budget."""


def keep_memory_compact() -> None:
    """Have the C library return large pieces of memory to the system as soon as they are free.

    Otherwise glibc keeps them once one was freed, and what is free but scattered counts towards a container's limit.
    """
    _call_c_library("mallopt", _M_MMAP_THRESHOLD, _LARGE_BYTES)
    _call_c_library("mallopt", _M_TRIM_THRESHOLD, _SPARE_BYTES)


def trim_memory() -> None:
    """Have the C library return the free memory between what is in use; for when much was given up."""
    _call_c_library("malloc_trim", 0)


def _call_c_library(function: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        getattr(ctypes.CDLL(None), function)(*arguments)


class MemoryBudget:
    """The bytes that all answers may take together.

    When they are used up, the endpoint that takes most loses its largest request. So an endpoint that sends too much
    stops itself, and the small answers of the others always find room.

    Args:
        total: The bytes.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._used: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._claims: set[Claim] = set()
        # An answer may be dropped in any thread, at any moment: only note it there.
        self._dropped: deque[tuple[str, int]] = deque()

    @property
    def used(self) -> int:
        """The bytes in use."""
        while self._dropped:
            endpoint, size = self._dropped.popleft()
            self._used[endpoint] -= size
            self._kept[endpoint] -= size
        return self._used.total()

    def open(self, endpoint: str, cancel: Callable[[], None]) -> Claim:
        """Start to account for a request.

        Args:
            endpoint: The endpoint's name.
            cancel: Ends the request as soon as possible, when others need its memory.
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

    def _keep(self, claim: Claim, answer: object) -> None:
        if self._kept[claim.endpoint] + claim.size > self.total // _KEPT_SHARE:
            raise self.error(claim.endpoint)
        self._kept[claim.endpoint] += claim.size
        weakref.finalize(answer, self._dropped.append, (claim.endpoint, claim.size)).atexit = False
        claim.size = 0

    def error(self, endpoint: str) -> TooLargeError:
        """Return the error of an endpoint that takes too much."""
        return TooLargeError(
            f"all answers together may take {self.total // 1_000_000} MB of memory, and {endpoint} takes the most",
            status=200,
            advice="Check that --api.url is a Chutes API. If it is, raise --max-series, which also raises this limit.",
        )


class Claim:
    """What one request takes of the budget.

    Attributes:
        endpoint: The endpoint's name.
        size: The bytes that it takes now.
        busy: Whether it cannot be cancelled now.
        cancelled: Whether it had to give way.
    """

    def __init__(self, budget: MemoryBudget, endpoint: str, cancel: Callable[[], None]) -> None:
        self.endpoint = endpoint
        self.size = 0
        self.busy = False
        self.cancelled = False
        self._budget = budget
        self._cancel = cancel

    def add(self, size: int) -> None:
        """Take more bytes, or give some back where the size is negative.

        Raises:
            TooLargeError: The budget is used up, and this request is the largest of the endpoint that takes most.
        """
        if self.cancelled:
            raise self.error()
        self._budget._add(self, size)  # noqa: SLF001 - two halves of one thing

    def keep(self, answer: object, size: int) -> None:
        """Account for an answer for as long as it exists, in the place of what the request took.

        Raises:
            TooLargeError: As above, or the endpoint keeps too much already.
        """
        self.add(size - self.size)
        self._budget._keep(self, answer)  # noqa: SLF001

    def cancel(self) -> None:
        """Give way to others."""
        self.cancelled = True
        self.close()
        self._cancel()

    def close(self) -> None:
        """Give everything back."""
        self._budget._close(self)  # noqa: SLF001

    def error(self) -> TooLargeError:
        """Return why the request was cancelled."""
        return self._budget.error(self.endpoint)


def size_of(value: Any) -> int:
    """Return the bytes that records take, strings that they share counted each time."""
    size = sys.getsizeof(value)
    if isinstance(value, msgspec.Struct):
        return size + sum([size_of(getattr(value, name)) for name in value.__struct_fields__])
    if isinstance(value, list):
        return size + sum(map(size_of, value))
    if isinstance(value, dict):
        return size + sum([size_of(key) + size_of(one) for key, one in value.items()])
    return size
