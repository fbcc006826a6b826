"""The checks before every page: bodies and passwords, and the headers of every answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response

from chutes_exporter.web.auth import BusyError, PasswordCheck

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = Headers(
    {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        # The landing page has inline styles, and loads nothing.
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action "
        "'none'; "
        "base-uri 'none'; frame-ancestors 'none'",
    }
).raw

_BODY_REFUSED = PlainTextResponse(
    "Send no request body: nothing here reads one.\n", 413, {"Connection": "close"}
)


class Guard:
    """Passes on requests that have no body, and a right password if there are users."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._passwords = PasswordCheck()

    def adopt(self, users: Mapping[str, str]) -> None:
        """Use these users, with their bcrypt hashes, from now on."""
        self._passwords.adopt(users)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with the reason."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        refusal = _BODY_REFUSED if _has_body(scope) else await _refusal(self._passwords, scope)
        await (self._app if refusal is None else refusal)(scope, receive, send_with_headers)


def _has_body(scope: Scope) -> bool:
    """Return whether a body follows a request. To parse one in small chunks takes much time."""
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""


async def _refusal(passwords: PasswordCheck, scope: Scope) -> Response | None:
    """Return the answer to a request without a right password, None if it has one."""
    # A client that has gone has no address.
    client, *_ = scope["client"] or ("",)
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
