"""The checks before every page: bodies, rate and passwords, and the headers of every answer."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import cachetools
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response

from chutes_exporter.web.auth import BusyError, PasswordCheck

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from chutes_exporter.web.config_file import RateLimit, WebConfig

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # The landing page has inline styles, and loads nothing.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'",
}
_MAX_CLIENTS = 4096
"""Clients whose requests are counted. Above that, those that are quiet longest are forgotten."""

_BODY_REFUSED = PlainTextResponse("Send no request body: nothing here reads one.\n", 413)


class Guard:
    """Passes on requests that have no body, are within the rate limit, and have a right password.

    Without users, no password is needed.
    """

    def __init__(self, app: ASGIApp, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._monotonic = monotonic
        self._passwords = PasswordCheck()
        self._headers = Headers(_HEADERS).raw
        self._limit: RateLimit | None = None
        self._rate = _Rate(monotonic)

    def adopt(self, web: WebConfig) -> None:
        """Use this configuration from now on."""
        self._passwords.adopt(web.users)
        headers = {**_HEADERS, **web.headers}
        # A blank value in the configuration removes a header.
        self._headers = Headers({name: value for name, value in headers.items() if value}).raw
        # A reload that leaves the limit as it is must not give clients another burst.
        if web.rate_limit != self._limit:
            self._limit = web.rate_limit
            self._rate = _Rate(self._monotonic)

    def end(self) -> None:
        """Refuse the requests whose passwords wait to be checked, and all later ones like them."""
        self._passwords.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with the reason."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        answer: ASGIApp = self._app
        refusal = await self._refusal(scope)
        if refusal is not None:
            # Clients that are refused thousands of times a second on connections that they keep
            # would take the turns of the event loop that a new connection needs.
            refusal.headers["Connection"] = "close"
            answer = refusal
        await answer(scope, receive, send_with_headers)

    async def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that must not be passed on, None for any other."""
        if _has_body(scope):
            return _BODY_REFUSED
        # The address of a client is its host and port. A client that has gone has none.
        client = scope["client"][0] if scope["client"] else ""
        if self._limit is not None:
            seconds = self._rate.seconds_to_wait(client, self._limit)
            if seconds:
                return _too_many(seconds)
        return await _check_password(self._passwords, scope, client)


class _Rate:
    """Counts the requests of each client with a bucket of tokens, of which each request takes one.

    One client cannot use up the tokens of another.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        # By client: its tokens, and the time at which it had them.
        self._buckets: cachetools.LRUCache[str, tuple[float, float]]
        self._buckets = cachetools.LRUCache(_MAX_CLIENTS)

    def seconds_to_wait(self, client: str, limit: RateLimit) -> float:
        """Count a request, and return 0 if it is within the limit, or else the seconds until the
        client may send another.
        """
        now = self._monotonic()
        # A new client has a full bucket. Each interval adds a token, up to the full bucket.
        tokens, since = self._buckets.get(client, (limit.burst, now))
        tokens = min(tokens + (now - since) / limit.interval, limit.burst)
        if tokens < 1:
            self._buckets[client] = tokens, now
            return (1 - tokens) * limit.interval
        self._buckets[client] = tokens - 1, now
        return 0.0


def _too_many(seconds: float) -> Response:
    """Return the answer to a request above the rate limit, with the seconds until the next one."""
    return PlainTextResponse(
        "Too many requests: rate_limit in --web.config.file is exceeded. Try again later.\n",
        429,
        {"Retry-After": str(math.ceil(seconds))},
    )


def _has_body(scope: Scope) -> bool:
    """Return whether a body follows a request. To parse one in small chunks takes much time."""
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers:
        return True
    # A length of any number of zeros means that there is no body.
    return headers.get("content-length", "0").strip("0") != ""


async def _check_password(passwords: PasswordCheck, scope: Scope, client: str) -> Response | None:
    """Return the answer to a request without a right password, None if it has one."""
    try:
        if await passwords.admits(Headers(scope=scope).get("authorization", ""), client):
            return None
    except BusyError:
        return PlainTextResponse(
            "Too many concurrent password checks: try again later.\n", 503, {"Retry-After": "5"}
        )
    return PlainTextResponse(
        "Unauthorized\n", 401, {"WWW-Authenticate": 'Basic realm="chutes-exporter"'}
    )
