"""The checks before every page: headers, sizes, passwords and the rate limit."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from chutes_exporter.web.auth import PasswordCheck
    from chutes_exporter.web.config_file import RateLimit, WebConfig

_log = structlog.get_logger("web")

_MAX_TARGET_BYTES = 4096
_MAX_HEADER_BYTES = 16 * 1024
_MAX_BODY_BYTES = 16 * 1024
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # The landing page has inline styles and a form, and loads nothing.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
}


class Guard:
    """Passes on the requests that the current web configuration allows.

    Args:
        app: The application to guard.
        monotonic: A monotonic clock in seconds.
    """

    def __init__(self, app: ASGIApp, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._monotonic = monotonic
        self._passwords: PasswordCheck | None = None
        self._headers = _raw(_HEADERS)
        self._bucket: _Bucket | None = None

    def adopt(self, config: WebConfig) -> None:
        """Use a configuration from now on."""
        for warning in config.warnings:
            _log.warning("web configuration warning", reason=warning)
        if self._passwords is not None:
            self._passwords.close()
        self._passwords = None
        if config.users:
            # Import the library only if there are passwords.
            from chutes_exporter.web.auth import PasswordCheck  # noqa: PLC0415

            self._passwords = PasswordCheck(config.users)
        # Send headers as UTF-8, as Go does. Starlette encodes them as Latin-1.
        configured = {name: value.encode().decode("latin-1") for name, value in config.headers.items()}
        self._headers = _raw({**_HEADERS, **configured})
        self._bucket = None if config.rate_limit is None else _Bucket(config.rate_limit, self._monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with the reason."""
        headers = self._headers

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if name not in headers]
                message["headers"] = [*kept, *headers.items()]
            await send(message)

        refusal = await self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, send_with_headers)

    async def _refusal(self, scope: Scope) -> Response | None:
        if len(scope["raw_path"]) + len(scope["query_string"]) > _MAX_TARGET_BYTES:
            return PlainTextResponse("The URL is too long: use at most 4096 bytes.\n", 414)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > _MAX_HEADER_BYTES:
            return PlainTextResponse("The headers are too long: use at most 16 KiB.\n", 431)
        if (refusal := _body_refusal(Headers(scope=scope))) is not None:
            return refusal
        # Check passwords first. Otherwise, clients without a password use up the rate limit of clients with one.
        if self._passwords is not None and (refusal := await self._unauthorized(self._passwords, scope)) is not None:
            return refusal
        if self._bucket is not None and (wait := self._bucket.take()) > 0:
            retry = {"Retry-After": str(int(wait) + 1)} if wait < math.inf else None
            return PlainTextResponse(
                "Too many requests: rate_limit in --web.config.file is exceeded. Try again later.\n", 429, retry
            )
        return None

    async def _unauthorized(self, passwords: PasswordCheck, scope: Scope) -> Response | None:
        from chutes_exporter.web.auth import BusyError  # noqa: PLC0415 - see above

        client, *_ = scope["client"] or ("",)
        try:
            if await passwords.admits(Headers(scope=scope).get("authorization", ""), client):
                return None
        except BusyError:
            return PlainTextResponse(
                "Too many concurrent password checks: try again later.\n", 503, {"Retry-After": "5"}
            )
        return PlainTextResponse("Unauthorized\n", 401, {"WWW-Authenticate": 'Basic realm="chutes-exporter"'})


def _body_refusal(headers: Headers) -> Response | None:
    """Refuse bodies that could hide another request (RFC 9112, section 6.1) or take much memory."""
    close = {"Connection": "close"}
    if "transfer-encoding" in headers:
        if "content-length" in headers:
            return PlainTextResponse(
                "The request has both Content-Length and Transfer-Encoding: send only one.\n", 400, close
            )
        return PlainTextResponse("A request body needs a Content-Length header.\n", 411, close)
    if int(headers.get("content-length", "0")) > _MAX_BODY_BYTES:
        return PlainTextResponse("The body is too long: use at most 16 KiB.\n", 413, close)
    return None


def _raw(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return headers as ASGI has them, with names in small letters."""
    return dict(Headers(headers).raw)


class _Bucket:
    """A token bucket: it gets a token at every interval, up to a maximum."""

    def __init__(self, limit: RateLimit, monotonic: Callable[[], float]) -> None:
        self._limit = limit
        self._monotonic = monotonic
        self._tokens = float(limit.burst)
        self._at = monotonic()

    def take(self) -> float:
        """Take a token and return 0, or return the seconds until there is one (infinity: never)."""
        if self._limit.burst < 1:
            return math.inf
        now = self._monotonic()
        self._tokens = min(self._tokens + (now - self._at) / self._limit.interval, float(self._limit.burst))
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) * self._limit.interval
        self._tokens -= 1
        return 0.0
