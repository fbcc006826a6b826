"""The client requests an endpoint, signs the request if necessary, and raises errors that say what to do."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import math
import re
import ssl
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec
import structlog

from chutes_exporter import __version__
from chutes_exporter.api import endpoints as e
from chutes_exporter.api.decoding import StreamShape, Tally, encode, inflated, memory_of
from chutes_exporter.api.errors import (
    ApiError,
    BadRequestError,
    CutOffError,
    ForbiddenError,
    NotFoundError,
    NotRegisteredError,
    RateLimitedError,
    RedirectedError,
    SignatureRefusedError,
    TimedOutError,
    TooLargeError,
    UnavailableError,
    UnexpectedStatusError,
    scrub,
)
from chutes_exporter.api.exchanges import Exchange, ExchangeCounters
from chutes_exporter.duration import human_duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from typing import Self

    from chutes_exporter.api.keys import Hotkey

_log = structlog.get_logger("exporter")

T = TypeVar("T")

NONCE_TOLERANCE = 600.0
"""Seconds that a nonce may differ from the service's clock."""

# A separate limit for each endpoint: an endpoint that hangs must not take the connections of others.
_MAX_CONNECTIONS_PER_ENDPOINT = 4
_MAX_ERROR_BYTES = 64 * 1024
_DETAIL_CHARACTERS = 200
_SMALL_BODY = 256 * 1024
_PLAIN_HTTP_SIGNS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "record layer failure")
"""Words of OpenSSL about a server that answers without TLS."""
_PLAIN_HTTP_ADVICE = "The server answers without TLS. Set --api.url to an address with http://, or to another port."
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
_ERRORS: dict[int, type[ApiError]] = {
    400: BadRequestError,
    403: ForbiddenError,
    404: NotFoundError,
    422: BadRequestError,
}


@dataclass(frozen=True)
class Answer(Generic[T]):
    """A decoded answer of an endpoint.

    Attributes:
        value: The records.
        count: Number of records.
        rejected: Number of records that could not be read and were left out.
        first_error: Error of the first rejected record.
        doubt: Reason to think that the answer is incomplete, or None. The client never sets it.
        received_at: Unix time at which the answer was complete.
        seconds: Duration of the request.
        size: Bytes of the body, decompressed.
    """

    value: T
    count: int
    rejected: int
    first_error: str
    received_at: float
    seconds: float
    size: int
    doubt: str | None = None

    @property
    def whole(self) -> bool:
        """Whether every record could be read and nothing suggests that some are missing."""
        return not self.rejected and self.doubt is None

    @property
    def listed(self) -> int:
        """Number of records, including the rejected ones."""
        return self.count + self.rejected

    @classmethod
    def nothing(cls, value: T) -> Self:
        """Return an answer without records."""
        return cls(value, count=0, rejected=0, first_error="", received_at=0.0, seconds=0.0, size=0)


class ClientSetupError(ValueError):
    """The environment's proxies or certificates cannot be used. The message names the variables to check."""


class ChutesClient:
    """A client for one Chutes API.

    Args:
        base_url: The API's address. Signatures go nowhere else.
        timeout: Abort a request after this many seconds without data.
        total_timeout: Abort a request after this many seconds.
        clock: Returns the Unix time in seconds.
        counters: Counts the exchanges with the API.

    Attributes:
        clock_offset: Seconds by which the local clock is ahead of the API's. None before the first answer with a date.
        clock_checked_at: Monotonic time of that answer.

    Use it as an asynchronous context manager, or call :meth:`aclose`.

    Raises:
        ClientSetupError: The environment's proxies or certificates cannot be used.
    """

    def __init__(
        self,
        base_url: str = "https://api.chutes.ai",
        *,
        timeout: float = 20.0,
        total_timeout: float = 120.0,
        clock: Callable[[], float] = time.time,
        counters: ExchangeCounters | None = None,
    ) -> None:
        self.clock_offset: float | None = None
        self.clock_checked_at = -math.inf
        self._clock = clock
        self._total_timeout = total_timeout
        self._counters = counters or ExchangeCounters()
        self._decoding = asyncio.Lock()
        endpoints = (*e.ENDPOINTS, *e.ON_REQUEST)
        self._slots = {endpoint.name: asyncio.Semaphore(_MAX_CONNECTIONS_PER_ENDPOINT) for endpoint in endpoints}
        encrypted = base_url.startswith("https:")
        try:
            self._http = httpx.AsyncClient(
                base_url=base_url,
                headers={"User-Agent": f"chutes-exporter/{__version__}", "Accept-Encoding": "gzip"},
                timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0), pool=total_timeout),
                limits=httpx.Limits(max_connections=len(endpoints) * _MAX_CONNECTIONS_PER_ENDPOINT),
                # Loading the certificates of all authorities takes time. Without https, no connection needs them, and
                # this context trusts nobody.
                verify=encrypted or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                # A proxy could read the signatures of unencrypted requests, so those ignore the environment's proxies.
                trust_env=encrypted,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            )
        except (ValueError, ImportError, OSError) as error:
            raise ClientSetupError(
                f"cannot set up connections: {error}. Check HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
            ) from None
        # As in the address. httpx would leave out the port of the scheme, and the brackets of IPv6.
        self._server = urlsplit(base_url).netloc.rpartition("@")[2]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def fetch(
        self,
        endpoint: e.Endpoint[T],
        *,
        key: Hotkey | None = None,
        params: Mapping[str, str] | None = None,
        path: Mapping[str, str] | None = None,
        progress: Callable[[int], None] | None = None,
        keep: Callable[[Any], bool] | None = None,
    ) -> Answer[T]:
        """Request an endpoint and wait for the whole answer.

        Args:
            endpoint: One of :mod:`chutes_exporter.api.endpoints`.
            key: Signs the request if the endpoint needs it, and is unused otherwise.
            params: Query parameters.
            path: Values for the braces in the endpoint's path.
            progress: Called with the number of bytes received so far.
            keep: Returns whether to keep a record of a stream. The others are counted, and take no memory.

        Raises:
            ApiError: There is no usable answer.
        """
        if endpoint.signed and key is None:
            raise TypeError(f"{endpoint.name} must be signed: a key is needed")
        # Each value is one segment of the path and must stay one. `quote` escapes slashes, but not "." and "..".
        if any(value in ("", ".", "..") for value in (path or {}).values()):
            raise BadRequestError("the id is invalid", advice="Check the id.")
        url = endpoint.path.format_map({name: quote(value, safe="") for name, value in (path or {}).items()})
        exchange, tally = Exchange(endpoint.name), Tally()
        started = time.monotonic()
        try:
            async with (
                _mapped_errors(self._server),
                asyncio.timeout(self._total_timeout),
                self._slots[endpoint.name],
                self._response(endpoint, url, {**(endpoint.query or {}), **(params or {})}, key, exchange) as response,
            ):
                value = await self._read(endpoint, _received(response, exchange, progress), tally, keep)
        except ApiError as error:
            if error.status is None or error.status == httpx.codes.OK:
                exchange.code = error.reason
            # Drop the traceback: its frames hold the whole answer, and the error may be kept for long.
            error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        except BaseException:
            exchange.code = "abandoned"
            raise
        finally:
            exchange.rejected = tally.rejected
            exchange.seconds = time.monotonic() - started
            self._counters.add(exchange)
            _log_exchange(exchange)
        return Answer(
            value=value,
            count=tally.accepted,
            rejected=tally.rejected,
            first_error=tally.first_error,
            received_at=self._clock(),
            seconds=exchange.seconds,
            size=exchange.size,
        )

    @asynccontextmanager
    async def _response(
        self,
        endpoint: e.Endpoint[Any],
        url: str,
        params: Mapping[str, str],
        key: Hotkey | None,
        exchange: Exchange,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and yield a successful response.

        A server may close a kept-alive connection just when a request is sent on it. A GET is then repeated once.
        """
        headers = key.headers(int(self._clock()), endpoint.purpose) if key is not None and endpoint.signed else {}
        connected = False

        async def trace(event: str, _info: Any) -> None:
            nonlocal connected
            connected = connected or event.startswith("connection.connect")

        request = self._http.build_request(
            endpoint.method, url, params=params, headers=headers, extensions={"trace": trace}
        )
        try:
            response = await self._http.send(request, stream=True)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if connected or endpoint.method != "GET":
                raise
            response = await self._http.send(request, stream=True)
        try:
            exchange.code = str(response.status_code)
            self._note_clock(response)
            if response.status_code != httpx.codes.OK:
                raise await self._refusal(response)
            yield response
        finally:
            await response.aclose()

    async def _read(
        self,
        endpoint: e.Endpoint[Any],
        chunks: AsyncIterator[bytes],
        tally: Tally,
        keep: Callable[[Any], bool] | None,
    ) -> Any:
        """Read and decode a body within the endpoint's limit."""
        if isinstance(endpoint.shape, StreamShape):
            records = []
            taken = 0
            async for record in endpoint.shape.decode(chunks, tally):
                if keep is None or keep(record):
                    records.append(record)
                    taken += memory_of(encode(record))
                    _require_room(endpoint, taken)
            return records
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            _require_room(endpoint, len(body))
        if endpoint.shape is None:
            return None
        _require_room(endpoint, memory_of(body))
        if len(body) < _SMALL_BODY:
            return endpoint.shape.decode(body, tally)
        # In a thread, so that other requests do not wait. One body at a time, because decoding takes more memory than
        # its result.
        async with self._decoding:
            return await asyncio.to_thread(endpoint.shape.decode, body, tally)

    def _note_clock(self, response: httpx.Response) -> None:
        date = _http_date(response.headers.get("date", ""))
        if date is None:
            return
        # The header is rounded down to whole seconds, which is half a second on average.
        self.clock_offset = self._clock() - (date + 0.5)
        self.clock_checked_at = time.monotonic()

    async def _refusal(self, response: httpx.Response) -> ApiError:
        """Return the error that an unsuccessful response means."""
        status = response.status_code
        detail = await _error_detail(response)
        if response.has_redirect_location:
            return RedirectedError(f"{status} redirect, not followed", status=status)
        message = f"{status} {detail}".strip()
        match status:
            case 401 if "not registered" in detail.lower():
                return NotRegisteredError(message, status=status)
            case 401:
                return SignatureRefusedError(message, status=status, advice=self._clock_advice(detail))
            case 429:
                wait = _retry_after(response)
                advice = None if wait is None else f"Wait {human_duration(wait)}. If this continues, raise --feed.ttl."
                return RateLimitedError(message, status=status, advice=advice, retry_after=wait)
            case _ if status >= httpx.codes.INTERNAL_SERVER_ERROR:
                advice = "The API has a problem or restarts. Try again later. The exporter retries by itself."
                return UnavailableError(message, status=status, advice=advice, retry_after=_retry_after(response))
        return _ERRORS.get(status, UnexpectedStatusError)(message, status=status)

    def _clock_advice(self, detail: str) -> str | None:
        """Return advice about the local clock if it may be the reason of a refused signature."""
        offset = self.clock_offset
        if offset is not None and abs(offset) > NONCE_TOLERANCE:
            side = "ahead of" if offset > 0 else "behind"
            return (
                f"The local clock is {human_duration(offset)} {side} the API's: "
                "set the local clock (NTP). The API refuses signatures that differ by more than 10 minutes."
            )
        if "nonce" in detail.lower():
            return "The API refuses the time in the signature. Check the local clock (NTP)."
        return None


def _log_exchange(exchange: Exchange) -> None:
    """Log a request. Paths and headers are not logged, because they can be private."""
    # Without a configuration, structlog would print these lines too.
    if logging.getLogger("exporter").isEnabledFor(logging.DEBUG):
        seconds = round(exchange.seconds, 3)
        _log.debug("requested", endpoint=exchange.endpoint, status=exchange.code, seconds=seconds, bytes=exchange.size)


async def _error_detail(response: httpx.Response) -> str:
    """Return the start of an error's text on one line."""
    body = b""
    async for chunk in _inflated(response):
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
    # Scrub before cutting: `scrub` does not recognize half a signature.
    return scrub(" ".join(text.split()))[:_DETAIL_CHARACTERS]


def _inflated(response: httpx.Response) -> AsyncIterator[bytes]:
    return inflated(response.aiter_raw(), response.headers.get("content-encoding", ""))


async def _received(
    response: httpx.Response, exchange: Exchange, progress: Callable[[int], None] | None
) -> AsyncIterator[bytes]:
    """Yield the body, and count its bytes."""
    async for chunk in _inflated(response):
        exchange.size += len(chunk)
        if progress is not None:
            progress(exchange.size)
        yield chunk


def _http_date(value: str) -> float | None:
    """Parse the date of an HTTP header into Unix time. Return None if it is not a date."""
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of ``Retry-After``. A date in it counts from the response's own date."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    date, now = _http_date(value), _http_date(response.headers.get("date", ""))
    return None if date is None or now is None else max(0.0, date - now)


def _require_room(endpoint: e.Endpoint[Any], size: int) -> None:
    if size > endpoint.max_bytes:
        raise TooLargeError(f"the answer takes more than {endpoint.max_bytes / 1e6:g} MB", status=httpx.codes.OK)


@asynccontextmanager
async def _mapped_errors(server: str) -> AsyncIterator[None]:
    """Turn the errors of the HTTP library into :class:`ApiError`."""
    try:
        yield
    except TimeoutError:
        raise TimedOutError("no complete answer in time") from None
    except httpx.TimeoutException as error:
        raise TimedOutError(_words(error, "no answer in time")) from None
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
        raise CutOffError(_words(error, "the connection was cut")) from None
    except (httpx.TransportError, httpx.InvalidURL) as error:
        reason = _ERRNO.sub("", _words(error, "no reason given"))
        advice = _PLAIN_HTTP_ADVICE if any(sign in reason for sign in _PLAIN_HTTP_SIGNS) else None
        raise UnavailableError(f"cannot connect to {server}: {reason}", advice=advice) from None


def _words(error: Exception, otherwise: str) -> str:
    return _shortened(str(error)) or otherwise
