from __future__ import annotations

import asyncio
import gzip
import json
import resource
import subprocess
import sys
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from chutes_exporter.api import endpoints as e
from chutes_exporter.api.client import ChutesClient, ClientSetupError
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
    UndecodableError,
    UnexpectedStatusError,
)
from chutes_exporter.api.exchanges import ExchangeCounters
from chutes_exporter.api.keys import Hotkey, verify_headers
from chutes_exporter.simulator import Fault, Simulator, Size, World
from tests.support import HOTKEY, KEY, NOON, Clock, served, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

STRANGER = Hotkey.from_seed("11" * 32)


@pytest.fixture
async def client(simulator: Simulator, clock: Clock) -> AsyncIterator[ChutesClient]:
    async with ChutesClient(simulator.url, clock=clock, timeout=5) as running:
        yield running


async def test_all_endpoints_answer(client: ChutesClient, simulator: Simulator) -> None:
    world = simulator.world
    chutes = (await client.chutes(KEY)).value
    assert len(chutes) == 30
    chute = chutes[3]
    assert (await client.chute(chute.chute_id, chute.version or "", KEY)).value == chute
    assert len((await client.images(KEY)).value) == 8
    assert len((await client.nodes(KEY)).value) == len(world.miners[0].gpus)
    assert len((await client.servers(KEY)).value) == len(world.miners[0].servers)
    assert len((await client.instances(KEY)).value) == len(world.instances(NOON, HOTKEY))
    jobs = (await client.jobs(KEY)).value
    assert {job.job_id for job in jobs} == {job.job_id for job in world.jobs(NOON)}
    in_use = sum(len(instance.gpus) for instance in world.instances(NOON, HOTKEY))
    assert len((await client.inventory(KEY)).value) == in_use
    running = {instance.chute.chute_id for instance in world.instances(NOON)}
    assert {row.chute_id for row in (await client.metrics()).value} == running
    active = [instance for instance in world.instances(NOON) if instance.active(NOON)]
    assert len((await client.active_instances(KEY)).value) == len(active)
    stats = (await client.stats()).value
    assert stats.week is not None
    assert len(stats.week.records) == len(world.work(NOON, 7 * 86400))
    one = (await client.stats(HOTKEY, per_chute=True)).value
    assert one.hour is not None
    assert {record.miner_hotkey for record in one.hour.records} == {HOTKEY}
    assert all(record.chute_id for record in one.hour.records)
    assert (await client.scores()).value.shares == world.shares(NOON)
    assert (await client.scores(STRANGER.address)).value.shares == {STRANGER.address: None}
    assert len((await client.unique_chute_history(HOTKEY)).value) == 169
    assert (await client.thrash_cooldowns(KEY)).value == []
    assert len((await client.metagraph()).value) == 12
    scaled = [chute.chute_id for chute in world.chutes if chute.scaled]
    assert [row.chute_id for row in (await client.utilization()).value] == scaled
    assert {bounty.chute_id for bounty in (await client.bounties()).value} >= {
        chute.chute_id for chute in world.chutes if world.bounty(chute, NOON) is not None
    }
    updates = (await client.rolling_updates()).value
    assert [update.chute_id for update in updates] == [one.chute.chute_id for one in world.rolling_updates(NOON)]
    servers = (await client.maintenance(KEY)).value.servers
    assert servers is not None
    assert len(servers) == len([server for server in world.miners[0].servers if server.is_tee]) > 0
    stuck = next(job for job in world.jobs(NOON) if job.stuck and job.miner is world.miners[0])
    await client.release_job(stuck.job_id, KEY)
    assert stuck.job_id in world.released_jobs
    assert {asked.endpoint for asked in simulator.requests} == {endpoint.name for endpoint in e.ENDPOINTS}
    assert len(e.ENDPOINTS) == 20
    assert repr(e.CHUTE) == "<GET /miner/chutes/{chute_id}/{version}>"


async def test_only_what_must_be_signed_is_signed(client: ChutesClient, simulator: Simulator) -> None:
    for endpoint in e.ENDPOINTS:
        path = {"chute_id": "x", "version": "y", "job_id": "z", "hotkey": HOTKEY}
        needed = {name: value for name, value in path.items() if f"{{{name}}}" in endpoint.path}
        try:
            await client.fetch(endpoint, key=KEY, path=needed)
        except NotFoundError:
            assert endpoint in (e.CHUTE, e.RELEASE_JOB)
    signed = {asked.endpoint for asked in simulator.requests if asked.signed or asked.hotkey}
    public = {"metrics", "stats", "scores", "metagraph", "unique_chute_history"}
    public |= {"utilization", "bounties", "rolling_updates"}
    assert signed == {endpoint.name for endpoint in e.ENDPOINTS} - public


async def test_the_maintenance_policy_is_signed_with_a_word_of_its_own() -> None:
    brought: list[dict[str, str]] = []

    async def policy(request: Request) -> Response:
        brought.append({name.removeprefix("x-chutes-"): value for name, value in request.headers.items()})
        return Response(b'{"active_window": null, "current_slots": 0, "servers": []}')

    async with served(Starlette(routes=[Route(e.MAINTENANCE.path, policy)])) as url, ChutesClient(url) as client:
        found = (await client.maintenance(KEY)).value
    assert (found.active_window, found.current_slots, found.servers) == (None, 0, [])
    (headers,) = brought
    signed = headers["hotkey"], headers["nonce"], headers["signature"]
    assert verify_headers(*signed, "tee")
    assert not verify_headers(*signed)


async def test_a_signature_with_another_word_is_refused(client: ChutesClient) -> None:
    with pytest.raises(SignatureRefusedError, match=r":tee$"):
        await client.fetch(replace(e.MAINTENANCE, purpose="miner"), key=KEY)
    with pytest.raises(SignatureRefusedError, match=r":miner$"):
        await client.fetch(replace(e.NODES, purpose="tee"), key=KEY)


async def test_a_signed_endpoint_is_not_asked_without_a_key(client: ChutesClient, simulator: Simulator) -> None:
    with pytest.raises(TypeError, match="must be signed"):
        await client.fetch(e.NODES)
    assert simulator.requests == []


async def test_a_stream_yields_records_as_they_arrive(client: ChutesClient, simulator: Simulator) -> None:
    assert [chute.chute_id async for chute in client.stream(e.CHUTES, key=KEY)] == [
        chute.chute_id for chute in simulator.world.chutes
    ]
    # 64 KB hold some of the chutes, not all: the records before the cut have come.
    simulator.faults["chutes"] = Fault(cut_after=65_536)
    came = []

    async def read() -> None:
        async for chute in client.stream(e.CHUTES, key=KEY):
            came.append(chute)  # noqa: PERF401 - a comprehension would lose what came before the error

    with pytest.raises(CutOffError):
        await read()
    assert 0 < len(came) < 30
    with pytest.raises(TypeError, match="not a stream"):
        [_ async for _ in client.stream(e.SERVERS, key=KEY)]


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault(status=401), SignatureRefusedError, "seed belongs to the hotkey"),
        (Fault(status=403, body=b"<html>denied</html>"), ForbiddenError, "proxy"),
        (Fault(status=400), BadRequestError, "SS58"),
        (Fault(status=422), BadRequestError, "SS58"),
        (Fault(status=404), NotFoundError, "not know"),
        (Fault(status=429, headers={"retry-after": "90"}), RateLimitedError, "Wait 90 seconds"),
        (Fault(status=429), RateLimitedError, "Wait a while"),
        (Fault(status=503, headers={"retry-after": "Tue, 24 Nov 2026 12:02:00 GMT"}), UnavailableError, "by itself"),
        (Fault(status=500, body=b"\xff" * 100_000), UnavailableError, "by itself"),
        (Fault(status=204, body=b""), UnexpectedStatusError, "--api.url"),
        (Fault(status=418), UnexpectedStatusError, "--api.url"),
        (Fault(status=304, body=b""), UnexpectedStatusError, "--api.url"),
        (Fault(body=b""), CutOffError, "by itself"),
        (Fault(body=b"<html>"), UndecodableError, "--api.url"),
        (Fault(cut_after=0), CutOffError, "by itself"),
        (Fault(cut_after=100), CutOffError, "by itself"),
        (Fault(latency=30), TimedOutError, "--api.timeout"),
    ],
)
@pytest.mark.parametrize("endpoint", [e.METAGRAPH, e.METRICS])
async def test_each_error_has_its_class_and_advice(
    simulator: Simulator, clock: Clock, endpoint: e.Endpoint[Any], fault: Fault, kind: type[ApiError], words: str
) -> None:
    simulator.faults[endpoint.name] = fault
    counters = ExchangeCounters()
    async with ChutesClient(simulator.url, clock=clock, timeout=0.5, counters=counters) as client:
        with pytest.raises(kind) as error:
            await client.fetch(endpoint)
    assert type(error.value) is kind
    assert words in error.value.advice
    expected = str(fault.status) if fault.status else kind.reason
    assert (
        counters.registry.get_sample_value("chutes_api_requests_total", {"endpoint": endpoint.name, "code": expected})
        == 1
    )


async def test_the_wait_that_the_api_asks_for_is_known_in_seconds(client: ChutesClient, simulator: Simulator) -> None:
    for header, seconds in (("90", 90.0), ("Tue, 24 Nov 2026 12:02:00 GMT", 120.0), ("soon", None)):
        simulator.faults["scores"] = Fault(status=429, headers={"retry-after": header})
        with pytest.raises(RateLimitedError) as error:
            await client.scores()
        assert error.value.retry_after == seconds


async def test_an_unregistered_hotkey_differs_from_a_bad_signature(client: ChutesClient) -> None:
    with pytest.raises(NotRegisteredError, match="not registered") as error:
        await client.nodes(STRANGER)
    assert "subnet 64" in error.value.advice


@pytest.mark.parametrize(("offset", "words"), [(720, "12 minutes ahead of"), (-720, "12 minutes behind")])
async def test_a_wrong_clock_is_named_with_how_wrong_it_is(simulator: Simulator, offset: float, words: str) -> None:
    async with ChutesClient(simulator.url, clock=Clock(NOON + offset)) as client:
        with pytest.raises(SignatureRefusedError, match="nonce") as error:
            await client.nodes(KEY)
        assert words in error.value.advice
        assert client.clock_offset == pytest.approx(offset, abs=1)


async def test_a_clock_that_is_a_little_off_still_works(simulator: Simulator) -> None:
    async with ChutesClient(simulator.url, clock=Clock(NOON + 590)) as client:
        assert (await client.nodes(KEY)).count > 0


async def test_a_nonce_refused_without_a_date_still_points_at_the_clock() -> None:
    async def nodes(_request: Request) -> Response:
        return Response(b'{"detail":"Invalid nonce!"}', 401, headers={"date": "never"})

    async with served(Starlette(routes=[Route("/miner/nodes/", nodes)])) as url, ChutesClient(url) as client:
        client.clock_offset = None
        with pytest.raises(SignatureRefusedError) as error:
            await client.nodes(KEY)
    assert "clock" in error.value.advice


async def test_a_wait_until_a_date_is_counted_by_the_services_clock(simulator: Simulator) -> None:
    # The local clock is an hour fast, and the date a minute away.
    simulator.faults["scores"] = Fault(status=429, headers={"retry-after": "Tue, 24 Nov 2026 12:01:00 GMT"})
    async with ChutesClient(simulator.url, clock=Clock(NOON + 3600)) as client:
        with pytest.raises(RateLimitedError) as error:
            await client.scores()
    assert error.value.retry_after == 60


async def test_a_request_that_waits_too_long_for_a_connection_times_out(simulator: Simulator) -> None:
    simulator.faults["scores"] = Fault(latency=60)
    async with ChutesClient(simulator.url, total_timeout=0.3) as client:
        results = await asyncio.gather(*(client.scores() for _ in range(12)), return_exceptions=True)
    assert {type(result) for result in results} == {TimedOutError}
    assert any("too many earlier requests" in str(result) for result in results)


async def test_each_request_is_signed_afresh(client: ChutesClient, clock: Clock, simulator: Simulator) -> None:
    await client.nodes(KEY)
    clock.now += 3600
    await client.nodes(KEY)
    assert [asked.status for asked in simulator.requests] == [200, 200]


async def test_redirects_are_not_followed_so_that_signatures_stay_with_the_configured_host() -> None:
    elsewhere: list[str] = []

    async def other(request: Request) -> Response:
        elsewhere.append(request.url.path)
        return PlainTextResponse("data: NO_ITEMS\n\n")

    async with served(Starlette(routes=[Route("/miner/instances/", other)])) as target:

        async def redirect(request: Request) -> Response:
            return RedirectResponse(f"{target}{request.url.path}")

        async with (
            served(Starlette(routes=[Route("/miner/instances/", redirect)])) as url,
            ChutesClient(url) as client,
        ):
            with pytest.raises(RedirectedError, match="not followed"):
                await client.instances(KEY)
    assert elsewhere == []


async def test_a_signature_that_the_server_echoes_is_not_shown() -> None:
    async def echo(request: Request) -> Response:
        return PlainTextResponse(f"bad: {request.headers['x-chutes-signature'].upper()}", 500)

    async with served(Starlette(routes=[Route("/miner/nodes/", echo)])) as url, ChutesClient(url) as client:
        with pytest.raises(UnavailableError) as error:
            await client.nodes(KEY)
    assert str(error.value) == "500 bad: [hex]"


async def test_half_of_an_echoed_signature_is_not_shown_at_the_end_of_a_cut_text() -> None:
    async def echo(request: Request) -> Response:
        return PlainTextResponse(f"{'bad ' * 45}{request.headers['x-chutes-signature']}", 500)

    async with served(Starlette(routes=[Route("/miner/nodes/", echo)])) as url, ChutesClient(url) as client:
        with pytest.raises(UnavailableError) as error:
            await client.nodes(KEY)
    assert str(error.value).endswith("bad [hex]")


async def test_dates_beyond_all_time_are_no_dates() -> None:
    far = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"

    async def scores(_request: Request) -> Response:
        return Response(b"{}", 429, headers={"date": far, "retry-after": far})

    async with served(Starlette(routes=[Route("/miner/scores", scores)])) as url, ChutesClient(url) as client:
        with pytest.raises(RateLimitedError) as error:
            await client.scores()
        assert error.value.retry_after is None


async def test_the_api_cannot_make_the_client_carry_cookies() -> None:
    brought: list[str | None] = []

    async def scores(request: Request) -> Response:
        brought.append(request.headers.get("cookie"))
        return Response(b'{"final_scores": {}}', headers={"set-cookie": "a=b; Path=/"})

    async with served(Starlette(routes=[Route("/miner/scores", scores)])) as url, ChutesClient(url) as client:
        await client.scores()
        await client.scores()
    assert brought == [None, None]


async def test_without_encryption_no_proxy_sees_a_signature(
    monkeypatch: pytest.MonkeyPatch, simulator: Simulator, clock: Clock
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with ChutesClient(simulator.url, clock=clock) as client:
        assert (await client.nodes(KEY)).count > 0


def test_proxies_and_certificates_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "garbage://x")
    with pytest.raises(ClientSetupError, match="HTTPS_PROXY"):
        ChutesClient("https://api.example")


async def test_an_empty_metagraph_is_a_failure_not_a_subnet_without_miners(simulator: Simulator) -> None:
    simulator.faults["metagraph"] = Fault(body=b"[]")
    async with ChutesClient(simulator.url) as client:
        with pytest.raises(CutOffError):
            await client.metagraph()


BOMBS = {
    "newlines": (b"\n" * 1024, 200_000),
    "letters": (b"a\n" * 512, 100_000),
    "one line": (b"data: " + b"x" * 1018, 200_000),
    "records": (b'data: {"chute_id":"abc","x":"%s"}\n' % (b"y" * 988), 2_000_000),
}


@pytest.mark.parametrize("kind", BOMBS)
async def test_a_small_body_that_stands_for_a_huge_one_stays_harmless(kind: str) -> None:
    block, count = BOMBS[kind]

    async def metrics(_request: Request) -> Response:
        stream = zlib.compressobj(wbits=31)

        async def body() -> AsyncIterator[bytes]:
            for _ in range(count // 1000):
                if part := stream.compress(block * 1000):
                    yield part
            yield stream.flush()

        return StreamingResponse(body(), headers={"content-encoding": "gzip"})

    async with served(Starlette(routes=[Route("/miner/metrics/", metrics)])) as url, ChutesClient(url) as client:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises((TooLargeError, UndecodableError)):
            await asyncio.wait_for(client.metrics(), 60)
        # In kilobytes; the bodies stand for 100 MB to 2 GB.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("coding", ["gzip, gzip", "br", "deflate", "x"])
async def test_only_the_compression_that_was_asked_for_is_read(coding: str) -> None:
    async def scores(_request: Request) -> Response:
        return Response(gzip.compress(gzip.compress(b"{}")), headers={"content-encoding": coding})

    async with served(Starlette(routes=[Route("/miner/scores", scores)])) as url, ChutesClient(url) as client:
        with pytest.raises(UndecodableError, match="unsupported compression"):
            await client.scores()


async def test_compressed_answers_are_read_whole_and_short_ones_noticed() -> None:
    body = gzip.compress(json.dumps({"final_scores": {str(number): number / 7 for number in range(50_000)}}).encode())

    async def scores(request: Request) -> Response:
        assert request.headers["accept-encoding"] == "gzip"
        sent = body[:-20] if "hotkey" in request.query_params else body
        return Response(sent, headers={"content-encoding": "gzip"})

    async with served(Starlette(routes=[Route("/miner/scores", scores)])) as url, ChutesClient(url) as client:
        assert (await client.scores()).count == 50_000
        with pytest.raises(CutOffError, match="ends too early"):
            await client.scores("x")


async def test_path_arguments_stay_one_segment(client: ChutesClient, simulator: Simulator) -> None:
    with pytest.raises(NotFoundError):
        await client.unique_chute_history("../metagraph?x=1#y")
    with pytest.raises(NotFoundError):
        await client.release_job("../../miner/nodes/", KEY)
    assert all(asked.endpoint == "unique_chute_history" for asked in simulator.requests)


@pytest.mark.parametrize("value", ["", ".", ".."])
async def test_a_path_traversal_is_not_requested(client: ChutesClient, simulator: Simulator, value: str) -> None:
    with pytest.raises(BadRequestError, match="the id is invalid"):
        await client.release_job(value, KEY)
    with pytest.raises(BadRequestError, match="the id is invalid"):
        await client.chute("x", value, KEY)
    assert simulator.requests == []


async def test_an_address_without_a_listener_is_unavailable() -> None:
    async with ChutesClient("http://127.0.0.1:9") as client:
        with pytest.raises(UnavailableError) as error:
            await client.scores()
    assert "--api.url" in error.value.advice


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("http://127.0.0.1:9", "127.0.0.1:9"),
        ("https://api.invalid", "api.invalid"),
        ("https://api.invalid:443/path", "api.invalid:443"),
        ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ("https://[2001:db8::1]", "[2001:db8::1]"),
        ("https://user:password@api.invalid", "api.invalid"),
    ],
)
async def test_a_failed_connection_names_host_and_port_as_in_the_url(
    monkeypatch: pytest.MonkeyPatch, url: str, server: str
) -> None:
    # No name is looked up, because the proxy does not listen.
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with ChutesClient(url) as client:
        with pytest.raises(UnavailableError) as error:
            await client.scores()
    assert str(error.value).startswith(f"cannot connect to {server}: ")


async def test_https_to_a_server_without_tls_is_explained(simulator: Simulator) -> None:
    async with ChutesClient(simulator.url.replace("http://", "https://")) as client:
        with pytest.raises(UnavailableError) as error:
            await client.scores()
    assert "The server answers without TLS. Set --api.url" in error.value.advice


async def test_broken_compression_is_undecodable() -> None:
    async def scores(_request: Request) -> Response:
        return Response(b"not gzip", headers={"content-encoding": "gzip"})

    async with served(Starlette(routes=[Route("/miner/scores", scores)])) as url, ChutesClient(url) as client:
        with pytest.raises(UndecodableError):
            await client.scores()


async def test_a_slow_drip_ends_at_the_total_timeout(simulator: Simulator) -> None:
    simulator.faults["scores"] = Fault(latency=30)
    async with ChutesClient(simulator.url, timeout=20, total_timeout=0.3) as client:
        with pytest.raises(TimedOutError):
            await client.scores()


async def test_a_body_larger_than_any_honest_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, simulator: Simulator
) -> None:
    monkeypatch.setattr("chutes_exporter.api.client.MAX_BODY_BYTES", 1000)
    async with ChutesClient(simulator.url) as client:
        with pytest.raises(TooLargeError):
            await client.metagraph()


async def test_large_answers_are_read_beside_the_event_loop(client: ChutesClient, simulator: Simulator) -> None:
    points = [{"time": "2026-11-17 13:00:00+00", "count": index, "total_count": 1.0} for index in range(8000)]
    simulator.faults["unique_chute_history"] = Fault(body=json.dumps(points).encode())
    answer = await client.unique_chute_history(HOTKEY)
    assert [point.count for point in answer.value] == list(range(8000))


async def test_an_abandoned_request_is_counted_as_such(simulator: Simulator) -> None:
    simulator.faults["scores"] = Fault(latency=30)
    counters = ExchangeCounters()
    async with ChutesClient(simulator.url, counters=counters) as client:
        task = asyncio.create_task(client.scores())
        await until(lambda: simulator.api.max_concurrent["scores"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (
        counters.registry.get_sample_value("chutes_api_requests_total", {"endpoint": "scores", "code": "abandoned"})
        == 1
    )


_MEASURE = """
import asyncio, resource, sys
from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.keys import Hotkey

async def main():
    async with ChutesClient(sys.argv[1], clock=lambda: float(sys.argv[3])) as client:
        await client.metagraph()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = await client.chutes(Hotkey.from_seed(sys.argv[2]))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(answer.size, after - before, answer.count)

asyncio.run(main())
"""


async def test_a_stream_of_100_megabytes_takes_less_than_60_more() -> None:
    world = World(start=NOON, size=Size(miners=1, active_miners=1, chutes=1000, source_bytes=100_000))
    async with Simulator(world, clock=Clock()) as simulator:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _MEASURE,
            simulator.url,
            "0xe1816a6cda3a50d041d5e39be76dbbd9367ebf20377a6b9e9ce12c7808385ba3",
            str(NOON),
            stdout=subprocess.PIPE,
        )
        output, _ = await process.communicate()
    size, kilobytes, count = map(int, output.split())
    assert size > 100_000_000
    assert count == 1000
    assert kilobytes < 60 * 1024


class ClosingServer:
    """Answers the first request of each connection, and closes the connection at the second one.

    Attributes:
        url: Its base address.
        requests: How many requests came.
        answers: Whether it answers at all.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests = 0
        self.answers = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in (1, 2):
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            self.requests += 1
            if number == 2 or not self.answers:
                break
            body = json.dumps([{"hotkey": HOTKEY}]).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()


@pytest.fixture
async def closing() -> AsyncIterator[ClosingServer]:
    server = ClosingServer()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        server.url = f"http://{host}:{port}"
        yield server


async def test_a_get_is_sent_once_more_where_the_server_closed_a_kept_alive_connection(closing: ClosingServer) -> None:
    async with ChutesClient(closing.url) as client:
        await client.metagraph()
        assert (await client.metagraph()).count == 1
    assert closing.requests == 3


async def test_a_new_connection_that_the_server_closes_is_a_failure_at_once(closing: ClosingServer) -> None:
    closing.answers = False
    async with ChutesClient(closing.url) as client:
        with pytest.raises(CutOffError):
            await client.metagraph()
    assert closing.requests == 1


async def test_a_release_is_never_sent_twice(closing: ClosingServer) -> None:
    async with ChutesClient(closing.url) as client:
        await client.metagraph()
        with pytest.raises(ApiError):
            await client.release_job("a", KEY)
    assert closing.requests == 2


async def test_certificates_of_authorities_are_loaded_only_for_https(monkeypatch: pytest.MonkeyPatch) -> None:
    def where() -> str:
        raise ValueError("the list of authorities is read")

    monkeypatch.setattr("certifi.where", where)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    await ChutesClient("http://127.0.0.1:9").aclose()
    with pytest.raises(ClientSetupError, match="the list of authorities is read"):
        ChutesClient("https://127.0.0.1:9")


FIRST_REQUEST = """
import asyncio, sys
from chutes_exporter.api import ChutesClient
async def main():
    async with ChutesClient(sys.argv[1]) as client:
        before = set(sys.modules)
        await client.scores()
        print(*sorted(set(sys.modules) - before))
asyncio.run(main())
"""


async def test_the_first_request_imports_nothing(simulator: Simulator) -> None:
    words = [sys.executable, "-c", FIRST_REQUEST, simulator.url]
    result = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=True)
    assert result.stdout == "\n"
