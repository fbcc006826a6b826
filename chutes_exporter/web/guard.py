"""The checks before every page: bodies and passwords, and the headers of every answer."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response

from chutes_exporter.web.auth import BusyError, PasswordCheck

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from chutes_exporter.web.config_file import WebConfig

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # The landing page has inline styles, and loads nothing.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'",
}


class Guard:
    """Passes on requests without a body and with a right password, if there are users."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._passwords = PasswordCheck()
        self._headers = Headers(_HEADERS).raw

    def adopt(self, web: WebConfig) -> None:
        """Use this configuration from now on."""
        self._passwords.adopt(web.users)
        headers = {**_HEADERS, **web.headers}
        # A blank value in the configuration removes a header.
        self._headers = Headers({name: value for name, value in headers.items() if value}).raw

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with the reason."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = (b"date", formatdate(usegmt=True).encode())
                message["headers"] = [*message["headers"], date, *self._headers]
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
        headers = Headers(scope=scope)
        # Parsing a body in small chunks takes much time. A length of zeros means no body.
        if "transfer-encoding" in headers or headers.get("content-length", "0").strip("0"):
            return PlainTextResponse("Send no request body: nothing here reads one.\n", 413)
        # The address of a client is its host and port. A client that has gone has none.
        client = scope["client"][0] if scope["client"] else ""
        try:
            if await self._passwords.admits(headers.get("authorization", ""), client):
                return None
        except BusyError:
            return PlainTextResponse(
                "Too many concurrent password checks: try again later.\n", 503, {"Retry-After": "5"}
            )
        return PlainTextResponse(
            "Unauthorized\n", 401, {"WWW-Authenticate": 'Basic realm="chutes-exporter"'}
        )
