"""The client of the Chutes API: it puts ids into paths, and signs requests if necessary."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from chutes_exporter.api.clock import steady
from chutes_exporter.api.errors import BadRequestError
from chutes_exporter.api.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.api.clock import ApiClock
    from chutes_exporter.api.endpoints import Endpoint
    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.api.request_metrics import RequestCounters
    from chutes_exporter.api.schema_drift import FieldCheck

T = TypeVar("T")

NONCE_TOLERANCE = 600.0
"""Seconds that a nonce may differ from the service's clock."""


class ChutesClient:
    """A client for one Chutes API.

    Args:
        base_url: The API's address. Signatures go nowhere else.
        timeout: Abort a request after this many seconds without data.
        clock: Returns the Unix time in seconds, by the local clock.
        monotonic: Returns the seconds of a clock that no correction changes.
        counters: Counts the requests.

    Use it as an asynchronous context manager, or call :meth:`aclose`. Its constructor may raise
    ClientSetupError.
    """

    def __init__(
        self,
        base_url: str = "https://api.chutes.ai",
        *,
        timeout: float = 20.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = steady,
        counters: RequestCounters | None = None,
    ) -> None:
        self._transport = Transport(
            base_url, timeout=timeout, clock=clock, monotonic=monotonic, counters=counters
        )

    @property
    def api_clock(self) -> ApiClock:
        """Returns the Unix time of the API, for all that is compared with its answers."""
        return self._transport.api_clock

    @property
    def clock_offset(self) -> float | None:
        """Seconds by which the local clock is ahead of the API's. None before the first date."""
        return self._transport.api_clock.offset

    @property
    def clock_checked_at(self) -> float:
        """Monotonic time of the newest answer with a date, minus infinity before the first."""
        return self._transport.clock_checked_at

    @property
    def changes(self) -> Mapping[str, FieldCheck]:
        """The newest check of the fields of an answer, by the name of the endpoint."""
        return self._transport.changes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def fetch(
        self,
        endpoint: Endpoint[T],
        *,
        key: Hotkey | None = None,
        params: Mapping[str, str] | None = None,
        path: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Answer[T]:
        """Request an endpoint and wait for the whole answer, or raise ApiError.

        The key is used only if the endpoint needs a signature. ``path`` has the values for the
        braces in the endpoint's path. The body is sent as JSON.
        """
        if endpoint.signed and key is None:
            raise TypeError(f"{endpoint.name} must be signed: a key is needed")
        query = {**(endpoint.query or {}), **(params or {})}
        return await self._transport.send(
            endpoint,
            _url(endpoint, path or {}),
            key=key,
            # An empty query would replace the one of the base address. None keeps it.
            params=query or None,
            body=body,
        )


def _url(endpoint: Endpoint[Any], path: Mapping[str, str]) -> str:
    """Return the path of an endpoint with the values for its braces, or raise BadRequestError."""
    # Each value is one segment of the path and must stay one. `quote` escapes slashes, but not "."
    # and "..".
    if any(value in ("", ".", "..") for value in path.values()):
        raise BadRequestError("the id is invalid", advice="Check the id.")
    segments = {name: quote(value, safe="") for name, value in path.items()}
    return endpoint.path.format_map(segments)
