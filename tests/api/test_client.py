from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from chutes_exporter.api import errors
from chutes_exporter.api.client import ChutesClient, ClientSetupError
from chutes_exporter.api.request_metrics import RequestCounters
from chutes_exporter.feeds import definitions as e
from tests.exporters import served
from tests.replay import Fault, Replay
from tests.support import AT_22, HOTKEY, KEY, PATIENCE, Clock, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from chutes_exporter.api.endpoint import Endpoint


@pytest.fixture
async def client(replay: Replay, clock: Clock) -> AsyncIterator[ChutesClient]:
    async with ChutesClient(replay.url, clock=clock, timeout=PATIENCE) as running:
        yield running


@asynccontextmanager
async def asking(
    endpoint: Endpoint[Any], answer: Callable[[Request], Response]
) -> AsyncIterator[ChutesClient]:
    """Yield a client of an API with one endpoint."""
    routes = [Route(endpoint.path, answer, methods=[endpoint.method])]
    async with (
        served(Starlette(routes=routes)) as url,
        ChutesClient(url, timeout=PATIENCE) as client,
    ):
        yield client


async def test_only_what_must_be_signed_is_signed(client: ChutesClient, replay: Replay) -> None:
    def recorded(name: str) -> Any:
        return replay.day.answer(name, replay.moment(), HOTKEY)

    chute, *_ = recorded("chutes")
    # A miner can release only a job that it holds.
    stuck = next(job for job in recorded("jobs") if job["miner_hotkey"] and not job["finished_at"])
    # Only servers whose maintenance has been pending have an answer.
    hugin = next(one for one in recorded("maintenance")["servers"] if one["name"] == "hugin")
    params: dict[Endpoint[Any], dict[str, str]] = {
        e.CHUTE: {"chute_id": chute["chute_id"], "version": chute["version"]},
        e.RELEASE_JOB: {"job_id": stuck["job_id"]},
        e.UNIQUE_CHUTE_HISTORY: {"hotkey": HOTKEY},
        e.SERVER_MAINTENANCE: {"server_id": hugin["server_id"]},
        e.AUDIT_REPORT: {"path": recorded("audit")[-1]["path"]},
    }
    for endpoint in e.ENDPOINTS:
        answer = await client.fetch(endpoint, key=KEY, params=params.get(endpoint, {}))
        assert answer.complete
    signed = {asked.endpoint for asked in replay.requests if asked.signed or asked.hotkey}
    assert signed == {endpoint.name for endpoint in e.ENDPOINTS if endpoint.signed}


def test_only_requests_about_maintenance_are_signed_with_the_word_tee() -> None:
    # The replay takes the word from the same table, so that only this finds a wrong one.
    for_tee = {endpoint for endpoint in e.ENDPOINTS if endpoint.purpose == "tee"}
    assert for_tee == {e.MAINTENANCE, e.SERVER_MAINTENANCE}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=401), errors.SignatureRefusedError),
        (Fault(status=403, body=b"<html>denied</html>"), errors.ForbiddenError),
        (Fault(status=400), errors.BadRequestError),
        (Fault(status=404), errors.NotFoundError),
        (Fault(status=429), errors.RateLimitedError),
        (Fault(status=500, body=b"\xff" * 100_000), errors.UnavailableError),
        (Fault(status=204, body=b""), errors.UnexpectedStatusError),
        (Fault(status=304, body=b""), errors.UnexpectedStatusError),
        (Fault(body=b""), errors.CutOffError),
        (Fault(body=b"<html>"), errors.UndecodableError),
        (Fault(cut_after=0), errors.CutOffError),
        (Fault(cut_after=100), errors.CutOffError),
        (Fault(latency=30), errors.TimedOutError),
    ],
)
@pytest.mark.parametrize("endpoint", [e.METAGRAPH, e.CHUTE_METRICS])
async def test_each_error_has_its_class_and_its_count(
    replay: Replay,
    clock: Clock,
    endpoint: Endpoint[Any],
    fault: Fault,
    kind: type[errors.ApiError],
) -> None:
    replay.faults[endpoint.name] = fault
    counters = RequestCounters()
    timeout = 0.5 if fault.latency else PATIENCE
    async with ChutesClient(replay.url, clock=clock, timeout=timeout, counters=counters) as client:
        with pytest.raises(kind) as error:
            await client.fetch(endpoint)
    assert type(error.value) is kind
    # An answer is counted by its status, and a request without one by the reason.
    labels = {"endpoint": endpoint.name, "code": str(fault.status) if fault.status else kind.reason}
    assert counters.registry.get_sample_value("chutes_api_requests_total", labels) == 1


async def test_the_api_says_how_long_to_wait(client: ChutesClient, replay: Replay) -> None:
    for header, seconds in (("90", 90.0), ("soon", None)):
        replay.faults["scores"] = Fault(status=429, headers={"retry-after": header})
        with pytest.raises(errors.RateLimitedError) as error:
            await client.fetch(e.SCORES)
        assert error.value.retry_after == seconds


async def test_an_endpoint_that_hangs_takes_four_connections_and_none_of_another_endpoint(
    replay: Replay,
) -> None:
    replay.faults["scores"] = Fault(latency=300)
    async with ChutesClient(replay.url) as client:
        waiting = [asyncio.create_task(client.fetch(e.SCORES)) for _ in range(12)]
        await until(lambda: len(replay.requests) == 4)
        assert (await client.fetch(e.METAGRAPH)).count > 0
        assert [asked.endpoint for asked in replay.requests].count("scores") == 4
        for task in waiting:
            task.cancel()


# The last three are no addresses at all.
@pytest.mark.parametrize(
    "location", ["/elsewhere", "javascript:alert(1)", "http://xn--a", "http://[::::]"]
)
async def test_redirects_are_not_followed_so_that_signatures_stay_with_the_configured_host(
    location: str,
) -> None:
    def redirect(_request: Request) -> Response:
        return Response(status_code=307, headers={"location": location})

    async with asking(e.INSTANCES, redirect) as client:
        with pytest.raises(errors.RedirectedError, match=r"^307$"):
            await client.fetch(e.INSTANCES, key=KEY)


async def test_a_signature_that_the_server_echoes_is_not_shown_even_where_the_text_is_cut() -> None:
    def echo(request: Request) -> Response:
        # The text is cut at 200 characters, within the signature: 45 times "nok " are 180.
        return PlainTextResponse(f"{'nok ' * 45}{request.headers['x-chutes-signature']}", 500)

    async with asking(e.NODES, echo) as client:
        with pytest.raises(errors.UnavailableError) as error:
            await client.fetch(e.NODES, key=KEY)
    assert str(error.value).endswith("nok [hex]")


async def test_without_encryption_no_proxy_sees_a_signature(
    monkeypatch: pytest.MonkeyPatch, replay: Replay, clock: Clock
) -> None:
    # Nobody listens there, so that a request to this proxy would fail.
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with ChutesClient(replay.url, clock=clock) as client:
        assert (await client.fetch(e.NODES, key=KEY)).count > 0


@pytest.mark.parametrize(
    "proxy", ["garbage://x", "http://256.1.1.1", "127.0.0.1:99999", "http://xn--a:9", "http://"]
)
def test_proxies_and_certificates_that_cannot_be_used_are_named(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ClientSetupError, match="HTTPS_PROXY"):
        ChutesClient("https://api.example")


METAGRAPHS: dict[str, Callable[[int], bytes]] = {
    "text": lambda size: b'[{"hotkey": "a"}]' + b" " * size,
    "wide characters": lambda size: ('[{"hotkey": "%s😀"}]' % ("x" * (size // 4))).encode(),
    "escaped characters": lambda size: b'[{"hotkey": "%s\\ud83d\\ude00"}]' % (b"x" * (size // 4)),
    "values": lambda size: b"[%s1]" % (b"1," * (size // 15)),
    "records": lambda size: b'[%s{"hotkey": "a"}]' % (b'{"hotkey":"a"},' * (size // 120)),
}
"""Metagraphs that take more memory than some bytes, by the reason.

Only the first is longer than that. The others are shorter, but a wide character makes each
character of its text take 4 bytes, a value takes 16, and a record 128.
"""


@pytest.mark.parametrize("kind", METAGRAPHS)
async def test_an_answer_is_limited_by_the_memory_that_it_can_take(kind: str) -> None:
    async with asking(
        e.METAGRAPH, lambda _request: Response(METAGRAPHS[kind](e.METAGRAPH.max_bytes))
    ) as client:
        with pytest.raises(errors.TooLargeError, match="more than 1 MB") as error:
            await client.fetch(e.METAGRAPH)
    assert error.value.status == 200


async def test_of_a_stream_only_the_fields_that_are_kept_are_limited() -> None:
    name = b"x"
    # The record of an image has no readme. All readmes together are 33 MB.
    readme = b"y" * 800_000

    def images(_request: Request) -> Response:
        record = b'data: {"image_id": "a", "name": "%b", "readme": "%b"}\n\n' % (name, readme)
        return Response(record * 41)

    async with asking(e.IMAGES, images) as client:
        assert (await client.fetch(e.IMAGES, key=KEY)).count == 41
        # In the next answer, all names together are 4.1 MB.
        name = b"x" * 100_000
        with pytest.raises(errors.TooLargeError, match="more than 4 MB"):
            await client.fetch(e.IMAGES, key=KEY)


TEXT = json.dumps({"final_scores": {str(number): number / 7 for number in range(10_000)}}).encode()
BODY = gzip.compress(TEXT)


@pytest.mark.parametrize(
    ("body", "coding", "kind"),
    [
        (BODY, "gzip", None),
        (BODY[:-20], "gzip", errors.CutOffError),
        (BODY + b"garbage", "gzip", errors.UndecodableError),
        (BODY + bytes(8), "gzip", errors.UndecodableError),
        (b"{}", "gzip", errors.UndecodableError),
        (b"{}", "br", errors.UndecodableError),
    ],
)
async def test_only_whole_bodies_that_are_compressed_with_gzip_are_read(
    body: bytes, coding: str, kind: type[errors.ApiError] | None
) -> None:
    def scores(request: Request) -> Response:
        assert request.headers["accept-encoding"] == "gzip"
        return Response(body, headers={"content-encoding": coding})

    async with asking(e.SCORES, scores) as client:
        if kind is None:
            assert (await client.fetch(e.SCORES)).count == 10_000
        else:
            with pytest.raises(kind):
                await client.fetch(e.SCORES)


@pytest.mark.parametrize("value", ["", ".", "..", "../metagraph?x=1#y"])
async def test_a_value_in_a_path_stays_one_segment(
    client: ChutesClient, replay: Replay, value: str
) -> None:
    with pytest.raises((errors.BadRequestError, errors.NotFoundError)):
        await client.fetch(e.UNIQUE_CHUTE_HISTORY, params={"hotkey": value})
    assert {asked.endpoint for asked in replay.requests} <= {"unique_chute_history"}


async def test_a_correction_of_the_own_clock_shows_at_once(replay: Replay, clock: Clock) -> None:
    own = Clock(AT_22 - 86400)
    async with ChutesClient(replay.url, clock=own, monotonic=clock, timeout=PATIENCE) as client:
        assert (client.api_clock(), client.api_clock.offset) == (own.now, None)
        await client.fetch(e.METAGRAPH)
        # Dates have whole seconds. So the client adds half a second.
        assert (client.api_clock(), client.api_clock.offset) == (AT_22 + 0.5, -86400.5)
        # 3 seconds later, the own clock is corrected.
        own.now = clock.now = AT_22 + 3
        assert (client.api_clock(), client.api_clock.offset) == (AT_22 + 3.5, -0.5)


async def test_the_date_of_an_answer_from_a_cache_does_not_count() -> None:
    headers = {"date": "Tue, 01 Dec 2026 14:05:00 GMT", "age": "900"}
    async with asking(e.SCORES, lambda _request: Response(TEXT, headers=headers)) as client:
        await client.fetch(e.SCORES)
        assert client.api_clock.offset is None


async def test_requests_are_signed_with_the_time_of_the_api(replay: Replay, clock: Clock) -> None:
    wrong = Clock(AT_22 - 86400)
    async with ChutesClient(replay.url, clock=wrong, monotonic=clock, timeout=PATIENCE) as client:
        # No answer has told the API's time yet.
        with pytest.raises(errors.SignatureRefusedError):
            await client.fetch(e.NODES, key=KEY)
        assert (await client.fetch(e.NODES, key=KEY)).count > 0
