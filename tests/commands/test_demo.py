from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from chutes_exporter.cli import cli
from chutes_exporter.config import Address
from chutes_exporter.web.server import bound_address, open_socket
from tests.support import HOTKEY, PATIENCE, PATIENT, Page, parse_page, series, successes
from tests.test_cli import LISTEN, environment, run, running


def test_the_demo_prints_the_address_of_its_metrics() -> None:
    with running("demo", *LISTEN, "--simulator.listen-address", "127.0.0.1:0") as (_, process):
        assert process.stdout is not None
        text = "".join(process.stdout.readline() for _ in range(2))
        found = re.search(r"http://\S+/metrics", text)
        assert found is not None
        page: Page = {}
        ends = time.monotonic() + PATIENCE
        # On a busy machine, a large answer of the simulated API can take longer than the limit.
        while set(successes(page).values()) != {1.0} and time.monotonic() < ends:
            page = parse_page(httpx.get(found[0], headers=PATIENT, timeout=PATIENCE).text)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == 0
    assert page[series("chutes_miner_registered", hotkey=HOTKEY)] == 1
    assert set(successes(page).values()) == {1.0}


def printed(process: subprocess.Popen[str]) -> list[str]:
    """Return the lines that the demo prints."""
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while not lines[-1].endswith(" check\n"):
        lines.append(process.stdout.readline())
        assert lines[-1]
    return lines


def test_the_commands_that_the_demo_prints_work_word_for_word() -> None:
    with running("demo", *LISTEN, "--simulator.listen-address", "127.0.0.1:0") as (_, process):
        lines = printed(process)
        found = re.search(r"Its hotkey file is (\S+)\.", lines[2])
        assert found is not None
        path = Path(found[1])
        assert path.stat().st_mode & 0o777 == 0o600
        export, *commands = (line.strip() for line in lines[3:])
        results = {
            re.split("chutes.exporter ", command)[-1]: subprocess.run(
                ["/bin/sh", "-c", f"{export}\n{command}"],
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
                env=environment(CHUTES_EXPORTER_API_TIMEOUT=str(PATIENCE)),
                cwd="/",
            )
            for command in commands
        }
    assert {command: result.returncode for command, result in results.items()} == {
        "status": 1,
        "advise": 1,
        "query servers": 0,
        "query scores": 0,
        "check": 0,
    }, results
    assert not path.exists()
    assert "Traceback" not in "".join(result.stderr for result in results.values())
    assert "things need action" in results["status"].stdout
    assert "pro_6000" in results["advise"].stdout


@pytest.mark.parametrize("flag", ["--simulator.listen-address", "--web.listen-address"])
def test_an_address_in_use_is_refused_with_its_flag(flag: str) -> None:
    free = {"--simulator.listen-address": "127.0.0.1:0", "--web.listen-address": "127.0.0.1:0"}
    with open_socket(Address("127.0.0.1", 0)) as taken:
        address = str(bound_address(taken))
        words = [word for pair in {**free, flag: address}.items() for word in pair]
        result = run("demo", *words)
    reason = f"{flag}: cannot listen on {address}: Address already in use. Choose another address"
    assert result.stderr.endswith(f"Error: {reason}\n")
    assert result.returncode == 1


def test_the_demo_listens_on_this_machine_only() -> None:
    default = next(one.default for one in cli.commands["demo"].params if one.name == "listen")
    assert default == ["127.0.0.1:10064"]


def test_the_demo_can_misbehave_and_takes_the_flags_of_serve() -> None:
    fault = ("--simulator.fault", "scores=status:503", "--openmetrics.created")
    with running("demo", *LISTEN, "--simulator.listen-address", "127.0.0.1:0", *fault, measured=False) as (url, _):
        page = parse_page(httpx.get(f"{url}/metrics", headers=PATIENT, timeout=PATIENCE).text)
        openmetrics = httpx.get(
            f"{url}/metrics", timeout=PATIENCE, headers=PATIENT | {"Accept": "application/openmetrics-text"}
        ).text
    assert "_created{" in openmetrics
    assert page[series("chutes_feed_up", feed="scores")] == 0
    assert page[series("chutes_api_requests_total", endpoint="scores", code="503")] == 1
