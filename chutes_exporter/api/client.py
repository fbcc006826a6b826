"""The client sends a request over HTTP. It returns an answer or raises an error with advice."""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
import urllib.request
from collections import defaultdict
from contextlib import aclosing, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx
import msgspec
import structlog

from chutes_exporter import __version__
from chutes_exporter.api import errors
from chutes_exporter.api.answer import Answer
from chutes_exporter.api.clock import ApiClock, steady
from chutes_exporter.api.decoding import StreamShape, Tally, encode, inflated, memory_of
from chutes_exporter.api.errors import ApiError, scrub
from chutes_exporter.api.request_metrics import RequestCounters
from chutes_exporter.api.schema_drift import FieldChecks
from chutes_exporter.api.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from typing import Self

    from chutes_exporter.api.endpoint import Endpoint
    from chutes_exporter.api.keys import Hotkey

_log = structlog.get_logger("exporter")

T = TypeVar("T")

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
NONCE_TOLERANCE = 600.0
"""Seconds that a nonce may differ from the service's clock."""
# A limit for each endpoint: one that hangs must not take the connections of others.
_MAX_CONNECTIONS_PER_ENDPOINT = 4
_MAX_PORT = 65535
_OK = "200"
_TOTAL_TIMEOUT = 120.0
_MAX_ERROR_BYTES = 64 * 1024
_DETAIL_CHARACTERS = 200
_ERRORS: dict[int, type[ApiError]] = {
    400: errors.BadRequestError,
    401: errors.SignatureRefusedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    422: errors.BadRequestError,
    429: errors.RateLimitedError,
}


def problem_of_address(address: str) -> str | None:
    """Return why no request can go to an address, or None if one can."""
    try:
        url = httpx.URL(address)
        # Reading the host decodes it, which can fail, too.
        host, port = url.host, url.port
    except (httpx.InvalidURL, UnicodeError) as error:
        return str(error).rstrip(".")
    if not host:
        return "it has no host"
    if port is not None and not 0 < port <= _MAX_PORT:
        return f"port {port} is not between 1 and {_MAX_PORT}"
    return None


class ClientSetupError(ValueError):
    """The environment's proxies or certificates cannot be used.

    The message names the variables to check.
    """


class ChutesClient:
    """A client for one API, with limits for all that it can send.

    Use it as an asynchronous context manager, or call :meth:`aclose`. Its constructor may raise
    ClientSetupError.

    Args:
        base_url: The API's address. Signatures go nowhere else.
        timeout: Abort a request after this many seconds without data.
        clock: Returns the Unix time in seconds, by the local clock.
        monotonic: Returns the seconds of a clock that no correction changes.
        counters: Counts the requests.

    Attributes:
        api_clock: Returns the Unix time of the API, for all that is compared with its answers.
        changes: The newest check of each endpoint's fields.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 20.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = steady,
        counters: RequestCounters | None = None,
    ) -> None:
        self._base_url = base_url
        self.api_clock = ApiClock(clock, monotonic)
        self.changes = FieldChecks()
        self._monotonic = monotonic
        self._counters = counters or RequestCounters()
        # These belong to the event loop of the worker.
        self._decoding = asyncio.Lock()
        self._slots = defaultdict[str, asyncio.Semaphore](
            lambda: asyncio.Semaphore(_MAX_CONNECTIONS_PER_ENDPOINT)
        )
        self._http = _http_client(base_url, timeout)
        # httpx calls these before it reads the address in a redirect, which may fail.
        self._http.event_hooks = {"response": [self._set_api_clock, _require_ok]}
        self._worker = Worker()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._worker.aclose(self._http.aclose())

    async def fetch(
        self,
        endpoint: Endpoint[T],
        *,
        key: Hotkey | None = None,
        params: Mapping[str, str] = _NOTHING,
        body: Mapping[str, Any] | None = None,
    ) -> Answer[T]:
        """Request an endpoint and wait for the whole answer, or raise ApiError.

        The key is used only if the endpoint needs a signature. For ``params``, see
        :meth:`Endpoint.path_and_query`. The body is sent as JSON.
        """
        path, query = endpoint.path_and_query(params)
        # An empty query would replace the one of the base address. None keeps it.
        request = {"url": path or self._base_url, "params": query or None, "json": body}
        tally = Tally(check=self.changes.begin(endpoint.name, self._monotonic()))
        code = "abandoned"  # It remains if the caller cancels the request.
        started = time.monotonic()
        try:
            value = await self._worker.run(self._exchange(endpoint, tally, key, request))
            code = _OK
        except ApiError as error:
            code = error.code
            # The frames of a traceback hold the whole answer, and the error may be kept for long.
            error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        finally:
            seconds = time.monotonic() - started
            self._counters.add(endpoint.name, code, seconds, tally)
            # Paths and headers can be private, so the log has only the endpoint's name.
            _log.debug(
                "requested",
                endpoint=endpoint.name,
                status=code,
                seconds=round(seconds, 3),
                bytes=tally.size,
            )
            # An answer that cannot be decoded is complete, too, and its changes may be the reason.
            if tally.check is not None and code in (_OK, errors.UndecodableError.reason):
                self.changes.keep(endpoint.name, tally.check)
        return Answer(
            value,
            count=tally.accepted,
            rejected=tally.rejected,
            first_error=tally.first_error,
            received_at=self.api_clock(),
            seconds=seconds,
        )

    async def _exchange(
        self, endpoint: Endpoint[Any], tally: Tally, key: Hotkey | None, request: dict[str, Any]
    ) -> Any:
        """Send a request and return the decoded answer, or raise ApiError.

        It runs in the worker. The answer's records and bytes are counted in the tally, and its date
        sets the API's clock. ``request`` has the address, the query and the body, in httpx's names.
        """
        try:
            async with asyncio.timeout(_TOTAL_TIMEOUT), self._slots[endpoint.name]:
                headers = {}
                if key and endpoint.signed:
                    headers = key.headers(int(self.api_clock()), endpoint.purpose)
                built = self._http.build_request(endpoint.method, headers=headers, **request)
                response = await self._http.send(built, stream=True)
                async with aclosing(response):
                    return await self._read(endpoint, _received(response, tally), tally)
        except (TimeoutError, httpx.TimeoutException):
            raise errors.TimedOutError("no complete answer in time") from None
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            raise errors.CutOffError("the connection was cut") from None
        except httpx.TransportError as error:
            server = self._http.base_url.netloc.decode()
            raise errors.UnavailableError(
                f"cannot connect to {server}: {_shortened(str(error))}"
            ) from None

    async def _set_api_clock(self, response: httpx.Response) -> None:
        """Set the API's clock to the date of a response, which may have no valid one."""
        # An answer with an age comes from a cache, and its date is the time at which it was made.
        if "age" in response.headers:
            return
        with suppress(ValueError, TypeError, OverflowError):
            date = email.utils.parsedate_to_datetime(response.headers.get("date", ""))
            # The header is rounded down to whole seconds, which is half a second on average.
            self.api_clock.set(date.timestamp() + 0.5)

    async def _read(
        self, endpoint: Endpoint[Any], chunks: AsyncIterator[bytes], tally: Tally
    ) -> Any:
        """Read and decode a body, or raise TooLargeError above the endpoint's limit of bytes.

        Of a stream, only what is kept of its records counts towards the limit.
        """
        if isinstance(endpoint.shape, StreamShape):
            records = []
            kept_bytes = 0
            async for record in endpoint.shape.decode(chunks, tally):
                records.append(record)
                kept_bytes += memory_of(encode(record))
                _require_room(endpoint, kept_bytes)
            return records
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            _require_room(endpoint, len(body))
        if endpoint.shape is None:
            return None
        # In a thread, so that other requests do not wait. One body at a time, because decoding
        # takes more memory than its result.
        async with self._decoding:
            _require_room(endpoint, await asyncio.to_thread(memory_of, body))
            return await asyncio.to_thread(endpoint.shape.decode, body, tally)


def _http_client(base_url: str, timeout: float) -> httpx.AsyncClient:
    is_encrypted = base_url.startswith("https:")
    try:
        if is_encrypted:
            _check_proxies()
        return httpx.AsyncClient(
            base_url=base_url,
            headers={"User-Agent": f"chutes-exporter/{__version__}", "Accept-Encoding": "gzip"},
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0), pool=_TOTAL_TIMEOUT),
            # Servers close idle connections after 5 seconds or more. A request must not meet one
            # that closes. The number of connections is limited for each endpoint.
            limits=httpx.Limits(max_connections=None, keepalive_expiry=2.0),
            # Loading the certificates of all authorities takes time. Without https, no connection
            # needs them, and this context trusts nobody.
            verify=is_encrypted or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            # A proxy could read the signatures of unencrypted requests, so those use none.
            trust_env=is_encrypted,
            # No domain may set a cookie.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )
    except (ValueError, ImportError, OSError) as error:
        raise ClientSetupError(
            f"cannot set up connections: {error}. Check HTTPS_PROXY, ALL_PROXY, "
            "SSL_CERT_FILE and SSL_CERT_DIR"
        ) from None


def _check_proxies() -> None:
    """Raise ValueError if the address of one of the environment's proxies cannot be used."""
    proxies = urllib.request.getproxies()
    for scheme in ("https", "all"):
        address = proxies.get(scheme)
        if address is None:
            continue
        # httpx takes an address without a scheme for one of HTTP.
        url = address if "://" in address else f"http://{address}"
        # The error does not show the address, because it may have a password.
        if problem_of_address(url) is not None:
            raise ValueError("the address of the proxy is invalid")


async def _require_ok(response: httpx.Response) -> None:
    """Raise ApiError for a response with another status than 200."""
    status = response.status_code
    if status == httpx.codes.OK:
        return
    detail = await _error_detail(response)
    kind = _ERRORS.get(status, errors.UnexpectedStatusError)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        kind = errors.UnavailableError
    elif response.has_redirect_location:
        kind = errors.RedirectedError
    elif kind is errors.SignatureRefusedError and "not registered" in detail.lower():
        # Only the text tells this 401 from one for a wrong signature.
        kind = errors.NotRegisteredError
    # Some servers send a date instead of seconds, which is ignored. Nine digits are 30 years. A
    # number of hundreds of digits would be infinite.
    wait = response.headers.get("retry-after", "")
    is_number = wait.isascii() and wait.isdigit()
    retry_after = float(wait[:9]) if is_number else None
    raise kind(f"{status} {detail}".strip(), status=status, retry_after=retry_after)


async def _error_detail(response: httpx.Response) -> str:
    """Return the start of an error's text on one line.

    It is the field ``detail`` of a JSON body, or else the body itself unless that is HTML.
    """
    body = b""
    # What this tally counts is no answer, and is not kept.
    async for chunk in _received(response, Tally()):
        body += chunk
        if len(body) > _MAX_ERROR_BYTES:
            break
    text = body[:_MAX_ERROR_BYTES].decode(errors="replace")
    try:
        text = str(msgspec.json.decode(text, type=dict[str, Any])["detail"])
    except (msgspec.DecodeError, KeyError, RecursionError):
        if text.lstrip().startswith("<"):
            return "(an HTML page)"
    return _shortened(text)


def _shortened(text: str) -> str:
    # Scrub before cutting: half a secret is not recognized.
    return scrub(" ".join(text.split()))[:_DETAIL_CHARACTERS]


async def _received(response: httpx.Response, tally: Tally) -> AsyncIterator[bytes]:
    """Yield the body, decompressed, and count its bytes in the tally."""
    coding = response.headers.get("content-encoding", "")
    async for piece in inflated(response.aiter_raw(), coding):
        tally.size += len(piece)
        yield piece


def _require_room(endpoint: Endpoint[Any], size: int) -> None:
    """Raise TooLargeError if so many bytes are above the endpoint's limit."""
    if size > endpoint.max_bytes:
        raise errors.TooLargeError(
            f"the answer takes more than {endpoint.max_bytes / 1e6:g} MB", status=httpx.codes.OK
        )
