from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import bcrypt
import httpx
import pytest
import structlog

from chutes_exporter.commands import serve
from chutes_exporter.commands.serve import Service, run_serve
from chutes_exporter.config import Address, ConfigError, find_credentials, make_settings
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.simulator import Simulator, Size, World
from chutes_exporter.simulator.world import TEST_SEED
from chutes_exporter.web.server import bound_address, open_socket
from chutes_exporter.web.systemd import Notifier
from tests.commands.support import another_key
from tests.support import HOTKEY, PATIENCE, Pki, get, parse_page, patient_client, series, unmeasured, until, wait_for
from tests.test_cli import COMMAND, LISTEN, environment, hotkey_file, running

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable

    from chutes_exporter.config import Settings

TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"


def users(password: str) -> str:
    return f"basic_auth_users:\n  alice: {bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"


@pytest.fixture(scope="module")
def world() -> World:
    return World(start=time.time(), size=Size(miners=6, active_miners=3, chutes=10))


@pytest.fixture
async def simulator(world: World) -> AsyncIterator[Simulator]:
    """A simulator whose time is the real one, as the service's is."""
    async with Simulator(world) as running:
        yield running


@pytest.fixture(name="hotkey_file")
def _hotkey_file(tmp_path: Path) -> Path:
    return Path(hotkey_file(tmp_path / "hotkey"))


@pytest.fixture
def make(simulator: Simulator, hotkey_file: Path) -> Callable[..., Settings]:
    """Makes settings of flags, the hotkey file read again."""

    def make(**more: object) -> Settings:
        checked = find_credentials([hotkey_file], {})
        if checked.errors:
            raise ConfigError(checked.errors[0])
        return make_settings(
            api_url=simulator.url,
            keys=checked.keys,
            warnings=checked.warnings,
            api_timeout=PATIENCE,
            **{"listen": (Address("127.0.0.1"),), "enable_lifecycle": True, **more},  # type: ignore[arg-type]
        )

    return make


def broken(path: Path) -> None:
    path.write_text("{")


async def test_feeds_are_requested_before_the_first_scrape(make: Callable[..., Settings], simulator: Simulator) -> None:
    async with Service(make()) as service:
        url = f"http://{service.addresses[0]}"
        async with patient_client(base_url=url) as client:

            async def ready() -> bool:
                return (await client.get("/-/ready")).status_code == 200

            await until(ready)
            assert (await client.get("/metrics")).status_code == 200
    assert [asked.endpoint for asked in simulator.requests].count("metagraph") == 1


async def test_a_reload_follows_the_hotkey_file(
    make: Callable[..., Settings],
    hotkey_file: Path,
    simulator: Simulator,
    told: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", told.getsockname())
    read = functools.partial(make, hotkeys=[HOTKEY])
    async with Service(read(), read) as service, patient_client() as client:
        assert told.recv(4096).startswith(b"READY=1\nSTATUS=listening on ")
        url = f"http://{service.addresses[0]}"
        page = parse_page((await client.get(f"{url}/metrics")).text)
        assert series("chutes_fleet_servers", hotkey=HOTKEY) in page
        assert page[series("chutes_exporter_config_last_reload_successful")] == 1
        other = another_key(hotkey_file, simulator)
        response = await client.post(f"{url}/-/reload")
        assert (response.status_code, response.text) == (200, "Reloaded.\n")
        assert told.recv(4096).startswith(b"RELOADING=1\n")
        assert told.recv(4096) == b"READY=1\nSTATUS=configuration reloaded"
        page = parse_page((await client.get(f"{url}/metrics")).text)
        assert series("chutes_fleet_servers", hotkey=other) in page
        # The first miner is still watched, but its key is gone.
        feeds = {
            dict(labels)["feed"] for name, labels in page if name == "chutes_feed_up" and ("hotkey", HOTKEY) in labels
        }
        assert feeds == {"miner_gpus", "unique_chute_history"}
        assert page[series("chutes_exporter_config_last_reload_successful")] == 1
        broken(hotkey_file)
        await client.post(f"{url}/-/reload")
        assert told.recv(4096).startswith(b"RELOADING=1\n")
        assert told.recv(4096).startswith(b"READY=1\nSTATUS=reload failed, the old configuration stays in use: ")


async def test_a_failed_reload_keeps_the_configuration_and_is_reported(
    make: Callable[..., Settings], hotkey_file: Path, simulator: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "web.yml"
    path.write_text("")
    good = series("chutes_exporter_config_last_reload_successful")
    with structlog.testing.capture_logs() as logs:
        async with (
            Service(make(web_config=path), lambda: make(web_config=path)) as service,
            patient_client(base_url=f"http://{service.addresses[0]}") as client,
        ):
            another_key(hotkey_file, simulator)
            path.write_text("nonsense: 1")
            response = await client.post("/-/reload")
            assert response.status_code == 500
            assert response.text.startswith(f"The old configuration stays in use: {path}: ")
            page = parse_page((await client.get("/metrics")).text)
            assert page[good] == 0
            # The hotkeys stay, too.
            assert series("chutes_fleet_servers", hotkey=HOTKEY) in page
            path.write_text("")
            broken(hotkey_file)
            response = await client.post("/-/reload")
            assert response.status_code == 500
            assert TEST_SEED[2:] not in response.text
    assert {log["event"] for log in logs if log["log_level"] == "error"} == {"configuration reload failed"}


@pytest.mark.parametrize(
    ("task", "owner", "method"),
    [("warm_up", Exporter, "warm_up"), ("reload", Service, "_try_reload"), ("watchdog", Notifier, "keep_alive")],
)
async def test_a_task_that_fails_is_logged_and_counted_and_goes_on(
    make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, task: str, owner: type, method: str
) -> None:
    original, calls = getattr(owner, method), []

    def failing_once(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        return original(*arguments, **options)

    monkeypatch.setattr(serve, "_RESTART_SECONDS", 0.01)
    monkeypatch.setattr(owner, method, failing_once)
    with structlog.testing.capture_logs() as logs:
        async with Service(make()) as service:
            await until(lambda: len(calls) > 1)
            page = parse_page((await get(f"http://{service.addresses[0]}/metrics")).text)
    assert page[series("chutes_exporter_task_failures_total", task=task)] == 1
    (failure,) = [log for log in logs if log["event"] == "task failed, and starts again"]
    assert (failure["task"], failure["exc_info"]) == (task, True)


async def test_a_reload_that_meets_an_unforeseen_error_is_reported_and_tried_again(
    make: Callable[..., Settings], tmp_path: Path
) -> None:
    path = tmp_path / "web.yml"
    path.write_text(users("first"))
    broken = False

    def read() -> Settings:
        if broken:
            raise ZeroDivisionError
        return make(web_config=path)

    async with Service(read(), read) as service, patient_client(auth=("alice", "first")) as client:
        url = f"http://{service.addresses[0]}/metrics"
        good = series("chutes_exporter_config_last_reload_successful")

        async def is_good() -> float:
            return parse_page((await client.get(url)).text)[good]

        with structlog.testing.capture_logs() as logs:
            broken = True
            assert service.reload() == "unforeseen error: ZeroDivisionError()"
            assert await is_good() == 0
            broken = False
            path.write_text(users("second"))
            client.auth = httpx.BasicAuth("alice", "second")

            async def admitted() -> bool:
                return (await client.get(url)).status_code == 200

            await until(admitted)
            assert await is_good() == 1
    assert [log["exc_info"] for log in logs if log["event"] == "configuration reload failed"] == [ANY]


def test_an_error_of_a_reload_names_the_variable_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_text("")
    arguments = (*COMMANDS["serve"], "--web.enable-lifecycle")
    with running(*arguments, variables={"CHUTES_EXPORTER_WEB_CONFIG_FILE": str(path)}) as (url, _):
        path.unlink()
        answer = httpx.post(f"{url}/-/reload", timeout=PATIENCE)
    assert answer.text.startswith("The old configuration stays in use: CHUTES_EXPORTER_WEB_CONFIG_FILE: cannot read ")


async def test_the_web_configuration_is_followed_as_it_changes(make: Callable[..., Settings], tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_text(users("first"))
    async with Service(make(web_config=path)) as service, patient_client() as client:
        url = f"http://{service.addresses[0]}/-/healthy"
        page_url = url.replace("/-/healthy", "/metrics")

        async def admits(password: str) -> bool:
            return (await client.get(url, auth=("alice", password))).status_code == 200

        assert [await admits("first"), await admits("second")] == [True, False]
        second = users("second")
        path.write_text(second)
        await until(lambda: admits("second"))
        assert not await admits("first")
        # A file with an error changes nothing and is logged once. The corrected file is used again.
        with structlog.testing.capture_logs() as logs:

            def failures() -> list[str]:
                return [log["reason"] for log in logs if log["event"] == "configuration reload failed"]

            path.write_text("basic_auth_users: {alice: secret}")
            await until(failures)
            used = time.process_time()
            await asyncio.sleep(2.2)
            assert len(failures()) == 1
            # It looks at the file once a second.
            assert time.process_time() - used < 1
            assert await admits("second")
            good = series("chutes_exporter_config_last_reload_successful")
            assert parse_page((await client.get(page_url, auth=("alice", "second"))).text)[good] == 0
            # An emptied file may be half a rewrite, and protection is not given up by a reload.
            path.write_text("")
            await until(lambda: len(failures()) > 1)
            assert "a reload cannot remove all passwords" in failures()[1]
            assert (await client.get(url)).status_code == 401
            # Put back as it was: what is in force is what stands there.
            path.write_text(second)

            async def good_again() -> bool:
                return parse_page((await client.get(page_url, auth=("alice", "second"))).text)[good] == 1

            await until(good_again)
            path.write_text(users("third"))
            await until(lambda: admits("third"))
        page = parse_page((await client.get(page_url, auth=("alice", "third"))).text)
        assert page[series("chutes_exporter_config_last_reload_successful")] == 1


async def test_certificates_are_followed_and_tls_is_not_switched(
    make: Callable[..., Settings],
    pki: Pki,
    tmp_path: Path,
) -> None:
    path = tmp_path / "web.yml"
    path.write_text(TLS)
    async with Service(make(web_config=path), lambda: make(web_config=path)) as service:
        assert service.scheme == "https"
        url = f"https://{service.addresses[0]}/-/healthy"

        async def serial() -> str:
            async with (
                patient_client(verify=pki.client()) as client,
                client.stream("GET", url) as response,
            ):
                await response.aread()
                tls = response.extensions["network_stream"].get_extra_info("ssl_object")
                return str(tls.getpeercert()["serialNumber"])

        first = await serial()
        # A certificate without its key is what half a renewal looks like.
        renewed = pki.authority.issue_cert("127.0.0.1")
        (tmp_path / "server.crt").write_bytes(renewed.cert_chain_pems[0].bytes())
        await asyncio.sleep(1.5)
        assert await serial() == first
        (tmp_path / "server.key").write_bytes(renewed.private_key_pem.bytes())

        async def renewed_now() -> bool:
            return await serial() != first

        await until(renewed_now)
        path.write_text("")
        assert "a reload cannot switch TLS on or off" in service.reload()
        await serial()


async def test_several_addresses_and_unix_sockets_are_served_at_once(
    make: Callable[..., Settings], tmp_path: Path
) -> None:
    path = tmp_path / "exporter.sock"
    listen = (Address("127.0.0.1"), Address("::1"), Address(path=str(path)))
    async with Service(make(listen=listen)) as service:
        four, six, unix = service.addresses
        assert unix == Address(path=str(path))
        for address in (four, six):
            assert (await get(f"http://{address}/-/healthy")).status_code == 200
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with patient_client(transport=transport) as client:
            assert (await client.get("http://exporter/-/healthy")).status_code == 200


UNPROTECTED = "private data is served without protection"
CLIENT_CERTIFICATES = "  client_auth_type: {}\n  client_ca_file: ca.crt\n"


@pytest.mark.parametrize(
    ("listen", "web", "is_warned"),
    [
        ("", "", True),
        ("127.0.0.1", "", False),
        ("", "rate_limit:\n  interval: 1s\n  burst: 9\n", True),
        ("", TLS, True),
        ("", TLS + CLIENT_CERTIFICATES.format("VerifyClientCertIfGiven"), True),
        ("", TLS + CLIENT_CERTIFICATES.format("RequireAndVerifyClientCert"), False),
        ("", users("secret"), False),
    ],
    ids=["open", "loopback", "rate limit", "TLS", "optional certificate", "required certificate", "password"],
)
async def test_private_data_on_all_interfaces_without_protection_causes_a_warning(
    make: Callable[..., Settings], pki: Pki, listen: str, web: str, *, is_warned: bool
) -> None:
    path = pki.folder / "web.yml"
    path.write_text(web)
    with structlog.testing.capture_logs() as logs:
        async with Service(make(listen=(Address(listen),), web_config=path if web else None)) as service:
            addresses = " ".join(map(str, service.addresses))
    warnings = [log for log in logs if log["event"] == UNPROTECTED]
    assert [log["addresses"] for log in warnings] == ([addresses] if is_warned else [])


async def test_private_data_on_one_address_of_the_network_causes_a_warning(make: Callable[..., Settings]) -> None:
    async with Service(make()) as service:
        service.addresses.append(Address("10.0.0.1", 10064))
        with structlog.testing.capture_logs() as logs:
            assert service.reload() == ""
    assert [log["addresses"] for log in logs if log["event"] == UNPROTECTED] == ["10.0.0.1:10064"]


async def test_public_and_simulated_data_need_no_protection(
    make: Callable[..., Settings], simulator: Simulator
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with Service(make_settings(api_url=simulator.url, hotkeys=[HOTKEY], listen=(Address(),))):
            pass
        async with Service(make(listen=(Address(),)), is_demo=True):
            pass
    assert UNPROTECTED not in [log["event"] for log in logs]


async def test_sighup_reads_the_configuration_again_and_sigterm_ends(
    make: Callable[..., Settings], hotkey_file: Path, simulator: Simulator
) -> None:
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(run_serve(make(), make))
        await until(lambda: [log for log in logs if log["event"] == "listening"])
        address = next(log["addresses"] for log in logs if log["event"] == "listening")
        other = another_key(hotkey_file, simulator)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: [log for log in logs if log["event"] == "configuration reloaded"])
        page = parse_page((await get(f"http://{address}/metrics")).text)
        assert series("chutes_fleet_servers", hotkey=other) in page
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, PATIENCE)
    # The warnings of a reload are told as those of a start.
    assert [log for log in logs if "other users of this machine can read" in log.get("reason", "")]


COMMANDS = {
    "serve": ("serve", *LISTEN, "--api.url", "http://127.0.0.1:9"),
    "demo": ("demo", *LISTEN, "--simulator.listen-address", "127.0.0.1:0"),
}


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=unmeasured(environment()),
    )


def wait_until_signals_are_handled(process: subprocess.Popen[str]) -> None:
    handled = sum(1 << (number - 1) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))

    def are_handled() -> bool:
        status = dict(line.split(":\t") for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        return int(status["SigCgt"], 16) & handled == handled

    # Without a pause: the start is over 10 ms later.
    wait_for(are_handled, process, pause=0)


def cpu_ticks(process: subprocess.Popen[str]) -> int:
    """Return the CPU time that a running process has used, in ticks of 10 ms."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_no_hang_up_during_the_start_or_later_ends_the_process() -> None:
    process = start(*COMMANDS["serve"])
    assert process.stderr is not None
    lines: list[str] = []
    errors = process.stderr
    reading = threading.Thread(target=lambda: lines.extend(errors))
    reading.start()

    def is_listening() -> bool:
        return any("msg=listening" in line for line in lines)

    def has_run_since(ticks: int) -> bool:
        return cpu_ticks(process) > ticks or is_listening()

    try:
        wait_until_signals_are_handled(process)
        while not is_listening():
            goes_on = functools.partial(has_run_since, cpu_ticks(process))
            process.send_signal(signal.SIGHUP)
            # The start goes on between two signals, however slow the machine is.
            wait_for(goes_on, process, pause=0)
        for _ in range(20):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.01)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        reading.join()
        process.communicate()
    # The reload that was asked for during the start comes after it.
    messages = [line.partition("msg=")[2].split(" ")[0] for line in lines]
    assert messages.index("listening") < messages.index('"configuration')


@pytest.mark.parametrize(
    ("command", "number"), [(COMMANDS["serve"], signal.SIGTERM), (COMMANDS["demo"], signal.SIGINT)], ids=COMMANDS
)
def test_an_early_end_is_a_clean_end(command: tuple[str, ...], number: signal.Signals) -> None:
    process = start(*command)
    wait_until_signals_are_handled(process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "Traceback" in errors) == (0, False)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 1), (signal.SIGTERM, -15), (signal.SIGHUP, -1)])
def test_other_commands_end_at_a_signal_as_usual(number: signal.Signals, status: int) -> None:
    with open_socket(Address("127.0.0.1", 0)) as api:
        api.settimeout(PATIENCE)
        process = start("query", "scores", "--api.url", f"http://{bound_address(api)}")
        waiting, _ = api.accept()
        with waiting:
            process.send_signal(number)
            _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "Traceback" in errors) == (status, False)
