from __future__ import annotations

import re
import subprocess
from pathlib import Path

import httpx
import pytest

from chutes_exporter.cli import cli
from chutes_exporter.config import Address
from chutes_exporter.web.server import bound_address, open_socket
from tests.pages import Page, parse_page, series, successes
from tests.program import LISTEN, environment, run, running
from tests.prometheus.server import promtool_complaints
from tests.support import HOTKEY, PATIENCE, PATIENT, wait_for

ANY_PORT = ("--demo.listen-address", "127.0.0.1:0")


def printed_instructions(process: subprocess.Popen[str]) -> list[str]:
    """Return the lines that the demo prints. The last one has the last command, ``check``."""
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while not lines[-1].endswith(" check\n"):
        lines.append(process.stdout.readline())
        assert lines[-1]
    return lines


def run_in_shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env=environment(CHUTES_EXPORTER_API_TIMEOUT=str(PATIENCE)),
        cwd="/",
    )


def test_what_the_demo_prints_works_word_for_word() -> None:
    with running("demo", *LISTEN, *ANY_PORT) as service:
        lines = printed_instructions(service.process)
        assert "It is invented, and the service's public code made its data." in lines[0]
        (url,) = re.findall(r"http://\S+/metrics", "".join(lines[:3]))
        text = ""

        def complete_page() -> Page | None:
            nonlocal text
            text = httpx.get(url, headers=PATIENT, timeout=PATIENCE).text
            page = parse_page(text)
            return page if set(successes(page).values()) == {1.0} else None

        page = wait_for(complete_page)
        found = re.search(r"Its hotkey file is (\S+)\.", lines[3])
        assert found is not None
        path = Path(found[1])
        assert path.stat().st_mode & 0o777 == 0o600
        export, *commands = (line.strip() for line in lines[4:])
        results = {}
        for command in commands:
            # It begins with chutes-exporter, or with python -m chutes_exporter.
            _, arguments = re.split("chutes.exporter ", command)
            results[arguments] = run_in_shell(f"{export}\n{command}")
    assert page[series("chutes_miner_registered", hotkey=HOTKEY)] == 1
    assert promtool_complaints(text.encode()) == ""
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
    assert "balder" in results["query servers"].stdout


@pytest.mark.parametrize("flag", ["--demo.listen-address", "--web.listen-address"])
def test_an_address_in_use_is_refused_with_its_flag(flag: str) -> None:
    addresses = {"--demo.listen-address": "127.0.0.1:0", "--web.listen-address": "127.0.0.1:0"}
    with open_socket(Address("127.0.0.1", 0)) as taken:
        address = str(bound_address(taken))
        addresses[flag] = address
        result = run("demo", *(f"{name}={value}" for name, value in addresses.items()))
    reason = f"{flag}: cannot listen on {address}: Address already in use. Choose another address"
    assert result.stderr.endswith(f"Error: {reason}\n")
    assert result.returncode == 2


def test_the_demo_listens_on_this_machine_only() -> None:
    default = next(one.default for one in cli.commands["demo"].params if one.name == "listen")
    assert default == ["127.0.0.1:10064"]
