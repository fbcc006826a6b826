"""The unit of systemd, its user and its file of settings."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

from tests.program import COMMAND
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

UNITS = ROOT / "deploy" / "systemd"
UNIT = UNITS / "chutes-exporter.service"


def test_the_unit_is_valid_and_limits_memory(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    # The program is somewhere else here.
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/chutes-exporter", COMMAND))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")
    assert {"Environment=MALLOC_ARENA_MAX=2", "MemoryMax=512M"} <= set(
        UNIT.read_text().splitlines()
    )


def test_the_service_has_every_restriction_but_those_that_it_cannot_work_with() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--json=short"]
    result = subprocess.run([*command, str(UNIT)], capture_output=True, text=True, check=True)
    assert {check["name"] for check in json.loads(result.stdout) if check["set"] is not True} == {
        # It talks to the API and to Prometheus, whose addresses it does not know, and to resolvers.
        "PrivateNetwork=",
        "IPAddressDeny=",
        "RestrictAddressFamilies=~AF_(INET|INET6)",
        "RestrictAddressFamilies=~AF_UNIX",
        # Its Python is the machine's, and its metrics about the process come from /proc.
        "RootDirectory=/RootImage=",
        "ProcSubset=",
        # ProtectClock= lets it read the real-time clock.
        "DeviceAllow=",
    }


def test_the_user_of_the_unit_can_be_made(tmp_path: Path) -> None:
    (user,) = re.findall(r"^User=(.+)$", UNIT.read_text(), re.MULTILINE)
    (tmp_path / "etc").mkdir()
    command = [
        "systemd-sysusers",
        f"--root={tmp_path}",
        str(UNITS / "chutes-exporter.sysusers.conf"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    names = [line.split(":")[0] for line in (tmp_path / "etc" / "passwd").read_text().splitlines()]
    assert user in names
