"""The checks before every page: headers, passwords and the rate limit."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

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
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
}


class Guard:
    """Passes on the requests that the current web configuration allows."""

    def __init__(self, app: ASGIApp, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._monotonic = monotonic
        self._passwords: PasswordCheck | None = None
        self._headers = Headers(_HEADERS).raw
        self._limit: RateLimit | None = None

    def adopt(self, config: WebConfig) -> None:
        """Use a configuration from now on."""
        if self._passwords is not None:
            self._passwords.close()
        self._passwords = PasswordCheck(config.users) if config.users else None
        self._headers = Headers({**_HEADERS, **config.headers}).raw
        self._limit = config.rate_limit
        # See _refusal.
        self._paced_until = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with the reason."""
        headers = self._headers

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        refusal = await self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, send_with_headers)

    async def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is refused. None allows it, and counts it for the rate limit."""
        # Check passwords first. Otherwise, clients without a password use up the rate limit of clients with one.
        if self._passwords is not None and (refusal := await self._unauthorized(self._passwords, scope)) is not None:
            return refusal
        if self._limit is None:
            return None
        now, interval = self._monotonic(), self._limit.seconds
        # When all requests, with this one, would end if each took one interval. They may be ahead of it by a burst.
        paced_until = max(self._paced_until, now) + interval
        wait = paced_until - now - self._limit.burst * interval
        if wait > 0:
            return PlainTextResponse(
                "Too many requests: rate_limit in --web.config.file is exceeded. Try again later.\n",
                429,
                {"Retry-After": str(int(wait) + 1)},
            )
        self._paced_until = paced_until
        return None

    async def _unauthorized(self, passwords: PasswordCheck, scope: Scope) -> Response | None:
        """Return the answer to a request without a right password, None if it has one."""
        # The client of a Unix socket has no address.
        client, *_ = scope["client"] or ("",)
        try:
            if await passwords.admits(Headers(scope=scope).get("authorization", ""), client):
                return None
        except BusyError:
            return PlainTextResponse(
                "Too many concurrent password checks: try again later.\n", 503, {"Retry-After": "5"}
            )
        return PlainTextResponse("Unauthorized\n", 401, {"WWW-Authenticate": 'Basic realm="chutes-exporter"'})
