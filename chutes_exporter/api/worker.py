"""A thread for the work that an upstream causes."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class Worker:
    """Runs coroutines in the event loop of a thread.

    However much work an upstream causes there, the caller's event loop goes on.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon, so that a program ends even if it did not close the worker.
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result. Cancelling the caller cancels the coroutine."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return await asyncio.wrap_future(future)

    async def aclose(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancel all coroutines, run a last one, and end the thread."""
        await self.run(_end(last))
        self._loop.call_soon_threadsafe(self._loop.stop)
        # The thread has nothing left to do, so that this takes no time.
        self._thread.join()
        self._loop.close()


async def _end(last: Coroutine[Any, Any, None]) -> None:
    """Cancel all other tasks of this loop, await a last coroutine, and close all generators."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        # A task that is being cancelled already may be closing connections. A second cancellation
        # would interrupt it, and leave some connections open.
        if not task.cancelling():
            task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await last
    # The loop has a task to close each generator of a body that was dropped. That for one that was
    # just dropped is made in the next round of the loop.
    await asyncio.sleep(0)
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    # Close the generators that were not dropped, too.
    await asyncio.get_running_loop().shutdown_asyncgens()
