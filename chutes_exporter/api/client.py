"""The client requests an endpoint, signs the request if necessary, and raises errors that say what to do."""

from __future__ import annotations

import asyncio
import email.utils
import importlib
import logging
import math
import re
import ssl
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec
import structlog

from chutes_exporter import __version__
from chutes_exporter.api import endpoints as e
from chutes_exporter.api.decoding import MAX_BODY_BYTES, Shape, StreamShape, Tally, inflated
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
from chutes_exporter.api.memory import Claim, Kept, MemoryBudget, size_of, trim_memory
from chutes_exporter.duration import human_duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from chutes_exporter.api import records as r
    from chutes_exporter.api.keys import Hotkey

with suppress(ImportError):  # a private module
    # Otherwise the first request imports it, and takes 30 ms longer.
    importlib.import_module("anyio._backends._asyncio")

_log = structlog.get_logger("exporter")

T = TypeVar("T")

NONCE_TOLERANCE = 600.0
"""Seconds that a nonce may differ from the service's clock."""

MAX_MEMORY = 256_000_000
"""Default limit in bytes for the memory that all answers of a client take together."""

# A separate limit for each endpoint: an endpoint that hangs must not take the connections of others.
_MAX_CONNECTIONS_PER_ENDPOINT = 4
_MAX_ERROR_BYTES = 64 * 1024
_DETAIL_CHARACTERS = 200
_SMALL_BODY = 256 * 1024
_PLAIN_HTTP_SIGNS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "record layer failure")
"""Words of OpenSSL about a server that answers without TLS."""
_PLAIN_HTTP_ADVICE = "The server answers without TLS. Set --api.url to an address with http://, or to another port."
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")


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
        kept: The memory of the records, which counts as long as the answer or a copy of it exists.
    """

    value: T
    count: int
    rejected: int
    first_error: str
    received_at: float
    seconds: float
    size: int
    doubt: Any = None
    kept: Kept | None = field(default=None, repr=False, compare=False)

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


@dataclass
class _Opened:
    """A response whose body was not read yet."""

    response: httpx.Response
    exchange: Exchange
    claim: Claim
    tally: Tally = field(default_factory=Tally)

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in _inflated(self.response):
            self.exchange.size += len(chunk)
            yield chunk


class ChutesClient:
    """A client for one Chutes API.

    Args:
        base_url: The API's address. Signatures go nowhere else.
        timeout: Abort a request after this many seconds without data.
        total_timeout: Abort a request after this many seconds.
        clock: Returns the Unix time in seconds.
        counters: Counts the exchanges with the API.
        max_memory: Limit in bytes for the memory that all answers take together, in progress and kept.

    Attributes:
        clock_offset: Seconds by which the local clock is ahead of the API's. None before the first answer with a date.
        clock_checked_at: Monotonic time of that answer.

    Use it as an asynchronous context manager, or call :meth:`aclose`. All methods raise :class:`ApiError`.

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
        max_memory: int = MAX_MEMORY,
    ) -> None:
        self.clock_offset: float | None = None
        self.clock_checked_at = -math.inf
        self._clock = clock
        self._total_timeout = total_timeout
        self._counters = counters or ExchangeCounters()
        self._memory = MemoryBudget(max_memory)
        self._decoding = asyncio.Lock()
        self._slots = {
            endpoint.name: asyncio.Semaphore(_MAX_CONNECTIONS_PER_ENDPOINT)
            for endpoint in (*e.ENDPOINTS, *e.ON_REQUEST)
        }
        try:
            self._http = httpx.AsyncClient(
                base_url=base_url,
                headers={"User-Agent": f"chutes-exporter/{__version__}", "Accept-Encoding": "gzip"},
                timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0), pool=total_timeout),
                limits=httpx.Limits(max_connections=len(e.ENDPOINTS) * _MAX_CONNECTIONS_PER_ENDPOINT),
                follow_redirects=False,
                # Loading the certificates of all authorities takes 2 MB and a tenth of the start. Without https, no
                # connection needs them, and this context trusts nobody.
                verify=base_url.startswith("https:") or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                # A proxy could read the signatures of unencrypted requests, so those ignore the environment's proxies.
                trust_env=base_url.startswith("https:"),
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

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        replaced: Iterable[Kept] = (),
    ) -> Answer[T]:
        """Request an endpoint and wait for the whole answer.

        Args:
            endpoint: One of :mod:`chutes_exporter.api.endpoints`.
            key: Signs the request if the endpoint needs it, and is unused otherwise.
            params: Query parameters.
            path: Values for the braces in the endpoint's path.
            progress: Called with the number of bytes received so far, after each record of a stream.
            keep: Returns whether to keep a record of a stream. The others are counted, and take no memory.
            replaced: The memory of older answers that are dropped for this one. It may exceed the endpoint's limit.
        """
        try:
            async with self._opened(endpoint, key, params, path or {}) as opened:
                return await self._read(endpoint, opened, progress or (lambda _size: None), keep, replaced)
        except ApiError as error:
            # Drop the traceback: its frames hold the whole answer, and the error may be kept for long.
            error.__context__ = None
            if isinstance(error, TooLargeError):
                trim_memory()
            raise error.with_traceback(None)  # noqa: B904 - it is the same error

    async def _read(
        self,
        endpoint: e.Endpoint[T],
        opened: _Opened,
        progress: Callable[[int], None],
        keep: Callable[[Any], bool] | None,
        replaced: Iterable[Kept],
    ) -> Answer[T]:
        started = time.monotonic()
        value: Any = None
        size = 0
        if isinstance(endpoint.shape, StreamShape):
            value = []
            async for record in endpoint.shape.decode(opened.chunks(), opened.tally, opened.claim.add):
                progress(opened.exchange.size)
                if keep is not None and not keep(record):
                    continue
                value.append(record)
                taken = size_of(record)
                size += taken
                opened.claim.add(taken)
        elif isinstance(endpoint.shape, Shape):
            value, size = await self._decode(endpoint.shape, opened)
        return Answer(
            value=value,
            count=opened.tally.accepted,
            rejected=opened.tally.rejected,
            first_error=opened.tally.first_error,
            received_at=self._clock(),
            seconds=opened.exchange.seconds + time.monotonic() - started,
            size=opened.exchange.size,
            kept=opened.claim.keep(size, replaced),
        )

    async def stream(self, endpoint: e.Endpoint[list[T]], *, key: Hotkey | None = None) -> AsyncIterator[T]:
        """Request a streaming endpoint and yield each record as it arrives.

        If the stream breaks, the error follows the records that arrived before.
        """
        if not isinstance(endpoint.shape, StreamShape):
            raise TypeError(f"{endpoint.name} is not a stream")
        async with self._opened(endpoint, key, None, {}) as opened:
            async for record in endpoint.shape.decode(opened.chunks(), opened.tally, opened.claim.add):
                yield record

    async def chutes(self, key: Hotkey) -> Answer[list[r.Chute]]:
        """Return all chutes of the platform."""
        return await self.fetch(e.CHUTES, key=key)

    async def chute(self, chute_id: str, version: str, key: Hotkey) -> Answer[r.Chute]:
        """Return one version of a chute."""
        return await self.fetch(e.CHUTE, key=key, path={"chute_id": chute_id, "version": version})

    async def images(self, key: Hotkey) -> Answer[list[r.Image]]:
        """Return all images of the platform."""
        return await self.fetch(e.IMAGES, key=key)

    async def nodes(self, key: Hotkey) -> Answer[list[r.Node]]:
        """Return the signing miner's GPUs."""
        return await self.fetch(e.NODES, key=key)

    async def servers(self, key: Hotkey) -> Answer[list[r.Server]]:
        """Return the signing miner's servers."""
        return await self.fetch(e.SERVERS, key=key)

    async def instances(self, key: Hotkey) -> Answer[list[r.Instance]]:
        """Return the signing miner's instances."""
        return await self.fetch(e.INSTANCES, key=key)

    async def jobs(self, key: Hotkey) -> Answer[list[r.Job]]:
        """Return the jobs that no instance has claimed."""
        return await self.fetch(e.JOBS, key=key)

    async def release_job(self, job_id: str, key: Hotkey) -> None:
        """Release a job. This is the only method that changes anything upstream."""
        await self.fetch(e.RELEASE_JOB, key=key, path={"job_id": job_id})

    async def inventory(self, key: Hotkey) -> Answer[list[r.InventoryItem]]:
        """Return the signing miner's GPUs in use."""
        return await self.fetch(e.INVENTORY, key=key)

    async def metrics(self) -> Answer[list[r.ChuteMetrics]]:
        """Return each chute's demand over the past hour."""
        return await self.fetch(e.METRICS)

    async def active_instances(self, key: Hotkey) -> Answer[list[r.ActiveInstance]]:
        """Return the active instances of all miners."""
        return await self.fetch(e.ACTIVE_INSTANCES, key=key)

    async def stats(self, hotkey: str | None = None, *, per_chute: bool = False) -> Answer[r.Stats]:
        """Return the compute of all miners or one."""
        return await self.fetch(e.STATS, params=e.stats_params(hotkey, per_chute=per_chute))

    async def scores(self, hotkey: str | None = None) -> Answer[r.Scores]:
        """Return the scores of all miners or one."""
        return await self.fetch(e.SCORES, params={"hotkey": hotkey} if hotkey else None)

    async def unique_chute_history(self, hotkey: str) -> Answer[list[r.HistoryPoint]]:
        """Return the hours of a miner's past 7 days, oldest first."""
        return await self.fetch(e.UNIQUE_CHUTE_HISTORY, path={"hotkey": hotkey})

    async def thrash_cooldowns(self, key: Hotkey) -> Answer[list[r.ThrashCooldown]]:
        """Return the chutes that the signing miner currently may not deploy."""
        return await self.fetch(e.THRASH_COOLDOWNS, key=key)

    async def metagraph(self) -> Answer[list[r.MetagraphNode]]:
        """Return the seats of the subnet."""
        return await self.fetch(e.METAGRAPH)

    async def utilization(self) -> Answer[list[r.ChuteUtilization]]:
        """Return what the autoscaler knows of each chute, and how many instances it still allows."""
        return await self.fetch(e.UTILIZATION)

    async def bounties(self) -> Answer[list[r.Bounty]]:
        """Return the open bounties."""
        return await self.fetch(e.BOUNTIES)

    async def rolling_updates(self) -> Answer[list[r.RollingUpdate]]:
        """Return the rolling updates that are under way."""
        return await self.fetch(e.ROLLING_UPDATES)

    async def maintenance(self, key: Hotkey) -> Answer[r.MaintenancePolicy]:
        """Return the maintenance window, and which of the signing miner's TEE servers need its upgrade."""
        return await self.fetch(e.MAINTENANCE, key=key)

    async def compute_history(
        self, instance_ids: Collection[str], *, progress: Callable[[int], None] | None = None
    ) -> Answer[list[r.ComputeRecord]]:
        """Return the records of some instances of the past 8 days.

        The API answers with the records of all instances, which is heavy for both sides. ``count`` of the answer is
        the number of these.
        """
        wanted = frozenset(instance_ids)
        return await self.fetch(e.COMPUTE_HISTORY, progress=progress, keep=lambda record: record.instance_id in wanted)

    @asynccontextmanager
    async def _opened(
        self,
        endpoint: e.Endpoint[Any],
        key: Hotkey | None,
        params: Mapping[str, str] | None,
        path: Mapping[str, str],
    ) -> AsyncIterator[_Opened]:
        """Send a request, check its status, and map all errors until its body is read."""
        if endpoint.signed and key is None:
            raise TypeError(f"{endpoint.name} must be signed: a key is needed")
        # Each value is one segment of the path and must stay one. `quote` escapes slashes, but not "." and "..".
        if any(value in ("", ".", "..") for value in path.values()):
            raise BadRequestError("the id is invalid", advice="Check the id.")
        url = endpoint.path.format_map({name: quote(value, safe="") for name, value in path.items()})
        slots = self._slots[endpoint.name]
        try:
            async with asyncio.timeout(self._total_timeout):
                await slots.acquire()
        except TimeoutError:
            raise TimedOutError("too many earlier requests to this endpoint") from None
        try:
            async with self._sent(endpoint, url, key, params) as opened:
                yield opened
        finally:
            slots.release()

    @asynccontextmanager
    async def _sent(
        self, endpoint: e.Endpoint[Any], url: str, key: Hotkey | None, params: Mapping[str, str] | None
    ) -> AsyncIterator[_Opened]:
        # Sign after the wait for a slot: the signature covers the time, and the service refuses old ones.
        signing = key if endpoint.signed else None
        headers = {} if signing is None else signing.headers(int(self._clock()), endpoint.purpose)
        exchange = Exchange(endpoint.name)
        started = time.monotonic()
        limit = asyncio.timeout(self._total_timeout)
        claim = self._memory.open(endpoint.name, lambda: None if limit.expired() else limit.reschedule(-1))
        try:
            async with (
                _mapped_errors(self._server, claim),
                limit,
                self._response(endpoint, url, {**(endpoint.query or {}), **(params or {})}, headers) as response,
            ):
                exchange.code = str(response.status_code)
                self._note_clock(response)
                await self._require_ok(response)
                opened = _Opened(response, exchange, claim)
                exchange.seconds = time.monotonic() - started
                try:
                    yield opened
                finally:
                    exchange.rejected = opened.tally.rejected
        except ApiError as error:
            if error.status is None or error.status == httpx.codes.OK:
                exchange.code = error.reason
            raise
        except BaseException:
            exchange.code = "abandoned"
            raise
        finally:
            claim.close()
            exchange.seconds = time.monotonic() - started
            self._counters.add(exchange)
            _log_exchange(exchange)

    @asynccontextmanager
    async def _response(
        self, endpoint: e.Endpoint[Any], url: str, params: Mapping[str, str], headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and yield the response.

        A server may close a kept-alive connection just when a request is sent on it. A GET is then repeated once.
        """
        connected = False

        async def trace(event: str, _info: Any) -> None:
            nonlocal connected
            connected = connected or event.startswith("connection.connect")

        def request() -> httpx.Request:
            return self._http.build_request(
                endpoint.method, url, params=params, headers=headers, extensions={"trace": trace}
            )

        try:
            response = await self._http.send(request(), stream=True)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if connected or endpoint.method != "GET":
                raise
            response = await self._http.send(request(), stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def _decode(self, shape: Shape[T], opened: _Opened) -> tuple[T, int]:
        """Read and decode the body. Return the value and its size in memory in bytes."""
        body = await _body(opened)

        def decode() -> tuple[T, int]:
            value = shape.decode(body, opened.tally)
            return value, size_of(value)

        if len(body) < _SMALL_BODY:
            return decode()
        # Decode in a thread, so that other requests do not wait. Decode one body at a time, because decoding takes
        # much more memory than the result.
        claim = opened.claim
        async with self._decoding:
            claim.add(await asyncio.to_thread(shape.memory, body))
            claim.busy = True
            try:
                return await asyncio.to_thread(decode)
            finally:
                claim.busy = False

    def _note_clock(self, response: httpx.Response) -> None:
        date = _http_date(response.headers.get("date", ""))
        if date is None:
            return
        # The header is rounded down to whole seconds, which is half a second on average.
        self.clock_offset = self._clock() - (date + 0.5)
        self.clock_checked_at = time.monotonic()

    async def _require_ok(self, response: httpx.Response) -> None:
        if response.status_code != httpx.codes.OK:
            raise await self._refusal(response)

    async def _refusal(self, response: httpx.Response) -> ApiError:
        status = response.status_code
        detail = await _error_detail(response)
        if response.has_redirect_location:
            return RedirectedError(f"{status} redirect, not followed", status=status)
        message = f"{status} {detail}".strip()
        wait = _retry_after(response)
        error: ApiError
        match status:
            case 401 if "not registered" in detail.lower():
                error = NotRegisteredError(message, status=status)
            case 401:
                error = SignatureRefusedError(message, status=status, advice=self._clock_advice(detail))
            case 403:
                error = ForbiddenError(message, status=status)
            case 404:
                error = NotFoundError(message, status=status)
            case 429:
                error = RateLimitedError(message, status=status, retry_after=wait)
            case _ if status >= httpx.codes.INTERNAL_SERVER_ERROR:
                error = UnavailableError(
                    message,
                    status=status,
                    retry_after=wait,
                    advice="The API has a problem or restarts. Try again later. The exporter retries by itself.",
                )
            case 400 | 422:
                error = BadRequestError(message, status=status)
            case _:
                error = UnexpectedStatusError(message, status=status)
        return error

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


async def _body(opened: _Opened) -> bytearray:
    body = bytearray()
    async for chunk in opened.chunks():
        opened.claim.add(len(chunk))
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise TooLargeError(f"the answer is longer than {MAX_BODY_BYTES} bytes")
    return body


@asynccontextmanager
async def _mapped_errors(server: str, claim: Claim) -> AsyncIterator[None]:
    """Turn the errors of the HTTP library into :class:`ApiError`."""
    try:
        yield
    except TimeoutError:
        if claim.cancelled:
            raise claim.error() from None
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
