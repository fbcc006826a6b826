from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock, Mock

import bcrypt
import pytest
import structlog

from chutes_exporter.commands.serve import Service, run_serve
from chutes_exporter.config import Address, ConfigError, find_credentials, make_settings
from chutes_exporter.feeds import reports
from chutes_exporter.feeds.definitions import METAGRAPH
from chutes_exporter.page import exporter
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.web.server import bound_address, open_socket
from tests.exporters import patient, served
from tests.pages import parse_page, series
from tests.program import LISTEN, hotkey_file, listening, start
from tests.recorded import recorded_api
from tests.replay import Replay
from tests.support import (
    HOTKEY,
    PATIENCE,
    ROOT,
    SEEDS,
    Clock,
    get,
    patient_client,
    recorded_day,
    until,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx
    from starlette.types import Receive, Scope, Send

    from chutes_exporter.config import Settings
    from tests.web.pki import Pki

GOOD = series("chutes_exporter_config_last_reload_successful")
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"


def users(password: str) -> str:
    """Return a web configuration with a user and a password."""
    password_hash = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    return f"basic_auth_users:\n  alice: {password_hash}\n"


@pytest.fixture
async def api() -> AsyncIterator[Replay]:
    """The recorded day with the real time, as the service has it."""
    async with Replay(recorded_day()) as running:
        yield running


@pytest.fixture(name="hotkey_file")
def _hotkey_file(tmp_path: Path) -> Path:
    return Path(hotkey_file(tmp_path / "hotkey"))


@pytest.fixture
def make(api: Replay, hotkey_file: Path) -> Callable[..., Settings]:
    """Makes settings of which some are replaced. Each time, the hotkey file is read again."""

    def make(**more: object) -> Settings:
        checked = find_credentials([hotkey_file], {})
        if checked.errors:
            raise ConfigError(checked.errors[0])
        defaults = {"keys": checked.keys, "listen": (Address("127.0.0.1"),)}
        return make_settings(
            api_url=api.url,
            warnings=checked.warnings,
            api_timeout=PATIENCE,
            **defaults | more,  # type: ignore[arg-type]
        )

    return make


def write_key(path: Path, address: str, seed: str) -> None:
    path.write_text(json.dumps({"ss58Address": address, "secretSeed": seed}))


def broken(path: Path) -> None:
    path.write_text("{")


async def test_everything_is_requested_once_without_scrapes_and_every_address_is_served(
    make: Callable[..., Settings], api: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (exporter, reports):
        monkeypatch.setattr(module, "PAUSE", 0.01)

    def asked(endpoint: str) -> int:
        return [asked.endpoint for asked in api.requests].count(endpoint)

    async with Service(make(listen=(Address("127.0.0.1"), Address("::1")))) as service:
        four, six = service.addresses
        await until(lambda: asked("metagraph") and asked("audit_report") == 24)

        async def is_complete() -> bool:
            page = parse_page((await get(f"http://{four}/metrics")).text)
            return page[series("chutes_audit_reports_known")] == 24

        await until(is_complete)
        assert (await get(f"http://{six}/metrics")).status_code == 200
    assert [asked("metagraph"), asked("audit_report")] == [1, 24]


async def test_sighup_follows_the_hotkey_file_unless_it_is_broken_and_sigterm_ends(
    make: Callable[..., Settings], hotkey_file: Path
) -> None:
    # The first miner stays watched when the file has the key of another miner.
    read = functools.partial(make, hotkeys=[HOTKEY])
    with structlog.testing.capture_logs() as logs:

        def logged(event: str) -> list[Any]:
            return [log for log in logs if log["event"] == event]

        running = asyncio.create_task(run_serve(read(), read))
        await until(lambda: logged("listening"))
        url = f"http://{logged('listening')[0]['addresses']}/metrics"
        before = parse_page((await get(url)).text)
        other = recorded_day().miners["healthy"].address
        write_key(hotkey_file, other, SEEDS["healthy"])
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: logged("configuration reloaded"))
        after = parse_page((await get(url)).text)
        broken(hotkey_file)
        # Each signal reads the file again, and logs the failure again.
        for times in (1, 2):
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: len(logged("configuration reload failed")) == times)  # noqa: B023 - in this turn
        kept = parse_page((await get(url)).text)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, PATIENCE)
    assert [page[GOOD] for page in (before, after, kept)] == [1, 1, 0]
    assert series("chutes_fleet_known", hotkey=HOTKEY, topic="servers") in before
    assert series("chutes_fleet_known", hotkey=other, topic="servers") in after
    # The first miner is still watched, but its key is gone.
    ups = [dict(labels) for name, labels in after if name == "chutes_feed_up"]
    feeds = {labels["feed"] for labels in ups if labels.get("hotkey") == HOTKEY}
    assert feeds == {"unique_chute_history", "stats_per_chute"}
    assert series("chutes_fleet_known", hotkey=other, topic="servers") in kept
    # Other users can read both hotkey files, so the start and the first reload warn of it.
    warnings = [log["reason"] for log in logs if "reason" in log]
    assert len([text for text in warnings if "other users of this machine can read" in text]) == 2


async def test_the_web_configuration_is_followed_as_it_changes(
    make: Callable[..., Settings], tmp_path: Path
) -> None:
    path = tmp_path / "web.yml"
    path.write_text(users("first"))
    async with Service(make(web_config=path)) as service, patient_client() as client:
        url = f"http://{service.addresses[0]}/-/healthy"

        async def is_good() -> bool:
            page = await client.get(url.replace("/-/healthy", "/metrics"), auth=("alice", "second"))
            return parse_page(page.text)[GOOD] == 1

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
                failed = [log for log in logs if log["event"] == "configuration reload failed"]
                return [log["reason"] for log in failed]

            path.write_text("basic_auth_users: {alice: secret}")
            await until(failures)
            # It looks at the file once a second, so it sees the same error again.
            await asyncio.sleep(1.2)
            assert len(failures()) == 1
            assert await admits("second")
            assert not await is_good()
            # An emptied file may be half a rewrite, and protection is not given up by a reload.
            path.write_text("")
            await until(lambda: len(failures()) > 1)
            assert "a reload cannot remove all passwords" in failures()[1]
            assert (await client.get(url)).status_code == 401
            # The file has the configuration again that is still in force.
            path.write_text(second)
            await until(is_good)


async def test_certificates_are_followed_without_losing_a_connection_and_tls_is_not_switched(
    make: Callable[..., Settings], pki: Pki, tmp_path: Path
) -> None:
    path = tmp_path / "web.yml"
    path.write_text(TLS)
    with structlog.testing.capture_logs() as logs:
        async with (
            Service(make(web_config=path)) as service,
            patient_client(verify=pki.client()) as old,
        ):
            url = f"{service.scheme}://{service.addresses[0]}/-/healthy"

            def failed(reason: str) -> bool:
                return any(reason in log.get("reason", "") for log in logs)

            async def serial(client: httpx.AsyncClient) -> str:
                async with client.stream("GET", url) as response:
                    await response.aread()
                    tls = response.extensions["network_stream"].get_extra_info("ssl_object")
                    return str(tls.getpeercert()["serialNumber"])

            async def serial_of_new_connection() -> str:
                async with patient_client(verify=pki.client()) as client:
                    return await serial(client)

            async def is_renewed() -> bool:
                return await serial_of_new_connection() != first

            first = await serial(old)
            # A certificate without its key is what half a renewal looks like.
            renewed = pki.authority.issue_cert("127.0.0.1")
            (tmp_path / "server.crt").write_bytes(renewed.cert_chain_pems[0].bytes())
            await until(lambda: failed("KEY_VALUES_MISMATCH"))
            assert not await is_renewed()
            (tmp_path / "server.key").write_bytes(renewed.private_key_pem.bytes())
            await until(is_renewed)
            assert await serial(old) == first
            path.write_text("")
            await until(lambda: failed("a reload cannot switch TLS on or off"))
            assert await is_renewed()


UNPROTECTED = "private data is served without protection"
CLIENT_CERTIFICATES = "  client_auth_type: {}\n  client_ca_file: ca.crt\n"


@pytest.mark.parametrize(
    ("more", "web", "is_warned"),
    [
        ({}, "", True),
        ({"listen": (Address("127.0.0.1"),)}, "", False),
        ({}, TLS + CLIENT_CERTIFICATES.format("VerifyClientCertIfGiven"), True),
        ({}, TLS + CLIENT_CERTIFICATES.format("RequireAndVerifyClientCert"), False),
        ({}, users("secret"), False),
        # Without a key, there is no private data.
        ({"keys": ()}, "", False),
    ],
    ids=["open", "loopback", "optional certificate", "required certificate", "password", "public"],
)
async def test_private_data_on_all_interfaces_without_protection_causes_a_warning(
    make: Callable[..., Settings], pki: Pki, more: dict[str, Any], web: str, *, is_warned: bool
) -> None:
    path = pki.folder / "web.yml"
    path.write_text(web)
    # An empty address means all interfaces.
    settings = make(**{"listen": (Address(),), "web_config": path if web else None, **more})
    with structlog.testing.capture_logs() as logs:
        async with Service(settings) as service:
            addresses = " ".join(map(str, service.addresses))
    warnings = [log for log in logs if log["event"] == UNPROTECTED]
    assert [log["addresses"] for log in warnings] == ([addresses] if is_warned else [])


COMMANDS = {
    "serve": ("serve", *LISTEN, "--api.url", "http://127.0.0.1:9"),
    "demo": ("demo", *LISTEN, "--demo.listen-address", "127.0.0.1:0"),
}


def wait_until_signals_are_handled(process: subprocess.Popen[str]) -> None:
    """Wait until a process handles the signals that reload or end it."""
    # The kernel has a bit for each signal, the first one for number 1.
    wanted = sum(1 << (number - 1) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))

    def are_handled() -> bool:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        fields = dict(line.split(":\t") for line in lines)
        handled = int(fields["SigCgt"], 16)
        return handled & wanted == wanted

    # Without a pause: the start is over 10 ms later.
    wait_for(are_handled, process, pause=0)


def test_no_hang_up_during_the_start_or_later_ends_the_process(tmp_path: Path) -> None:
    web = tmp_path / "web.yml"
    web.write_text("")
    process = start(*COMMANDS["serve"], CHUTES_EXPORTER_WEB_CONFIG_FILE=str(web))
    wait_until_signals_are_handled(process)
    process.send_signal(signal.SIGHUP)
    with listening(process) as service:
        # The reload that was asked for during the start comes after it.
        wait_for(lambda: service.has_logged("configuration reloaded"), process)
        unit = (ROOT / "deploy" / "systemd" / "chutes-exporter.service").read_text()
        (reload,) = re.findall("^ExecReload=(.+)$", unit, re.MULTILINE)
        subprocess.run(shlex.split(reload.replace("$MAINPID", str(process.pid))), check=True)
        wait_for(lambda: service.has_logged("configuration reloaded", 2), process)
        # An error names the variable of the file.
        web.unlink()
        wait_for(
            lambda: service.has_logged("CHUTES_EXPORTER_WEB_CONFIG_FILE): cannot read "), process
        )


@pytest.mark.parametrize(
    ("command", "number"),
    [(COMMANDS["serve"], signal.SIGTERM), (COMMANDS["demo"], signal.SIGINT)],
    ids=COMMANDS,
)
def test_an_early_end_is_a_clean_end(command: tuple[str, ...], number: signal.Signals) -> None:
    process = start(*command)
    wait_until_signals_are_handled(process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "Traceback" in errors) == (0, False)


async def test_at_the_end_a_scrape_that_waits_for_the_api_gets_what_is_known(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    with_clock = functools.partial(Exporter, monotonic=clock)
    monkeypatch.setattr("chutes_exporter.commands.serve.Exporter", with_clock)
    answering = recorded_api({"metagraph": b'[{"hotkey": "a"}]'})
    answers, is_asked_again = asyncio.Event(), asyncio.Event()

    async def api(scope: Scope, receive: Receive, send: Send) -> None:
        if not answers.is_set():
            is_asked_again.set()
        await answers.wait()
        await answering(scope, receive, send)

    answers.set()

    async with served(api) as url:
        settings = patient(url, listen=(Address("127.0.0.1"),))
        async with Service(settings) as service:
            page = f"http://{service.addresses[0]}/metrics"
            assert "chutes_metagraph_miners 1" in (await get(page)).text
            answers.clear()
            clock.now += METAGRAPH.ttl
            waiting = asyncio.create_task(get(page))
            await is_asked_again.wait()
            started = time.monotonic()
        assert time.monotonic() - started < 1
        answer = await waiting
        answers.set()
    assert (answer.status_code, "chutes_metagraph_miners 1" in answer.text) == (200, True)
    assert [line for line in caplog.records if line.levelname == "ERROR"] == []


def test_another_command_ends_at_ctrl_c_without_a_traceback() -> None:
    with open_socket(Address("127.0.0.1", 0)) as api:
        api.settimeout(PATIENCE)
        process = start("query", "scores", "--api.url", f"http://{bound_address(api)}")
        waiting, _ = api.accept()
        with waiting:
            # By then, the main thread waits, and the signal wakes it.
            waiting.recv(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (1, "\nAborted.\n")


async def test_a_task_that_fails_is_logged_and_counted_and_starts_again(
    make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Mock(side_effect=[ZeroDivisionError, make()])
    monkeypatch.setattr(Exporter, "warm_up", AsyncMock(side_effect=[ZeroDivisionError, None]))
    with structlog.testing.capture_logs() as logs:
        async with Service(make(), failing) as service:

            async def is_good() -> bool:
                page = parse_page((await get(f"http://{service.addresses[0]}/metrics")).text)
                counts = [
                    page.get(series("chutes_exporter_task_failures_total", task=task))
                    for task in ("warm_up", "reload")
                ]
                return counts == [1, 1] and page[GOOD] == 1

            # As a SIGHUP does.
            service.hang_up.set()
            await until(is_good)
    failures = [log for log in logs if log["event"] == "task failed, and starts again"]
    assert sorted(log["task"] for log in failures) == ["reload", "warm_up"]
    assert all(log["exc_info"] for log in failures)
