"""The Debian package: its contents, and its life from installation to purge."""

from __future__ import annotations

import re
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

import chutes_exporter
from tests.debian.machine import CLONE, ENVIRONMENT, SETTINGS, Machine, machine, start_api
from tests.debian.package import build, files
from tests.support import HOTKEY, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.debian

INSTALL = "apt-get install --quiet --quiet --yes ./chutes-exporter.deb"
AS_THE_SERVICE = f"systemd-run --quiet --pipe --wait --property EnvironmentFile={ENVIRONMENT} --uid chutes-exporter"
"""How docs/start.md runs commands with the settings of the service."""
PAGE = "curl --silent --show-error --fail http://127.0.0.1:10064/metrics"
LISTING = (
    # Logs, apt's lists and dpkg's backups are those of other programs.
    "find / -xdev -path /var/log -prune -o -path /var/cache -prune -o -path '/var/lib/dpkg/*-old' -prune "
    "-o -path /var/backups -prune -o -path /tmp -prune -o -path /var/tmp -prune -o -path /root/clone -prune "
    "-o -printf '%p %y %m %u %g\\n' | sort"
)


def newer(package: Path, folder: Path) -> Path:
    """Make a package of a later version, which explains more in its environment file."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    text = control.read_text()
    control.write_text(re.sub(r"^Version: .*$", "Version: 99.0", text, flags=re.MULTILINE))
    with (tree / ENVIRONMENT.lstrip("/")).open("a") as environment:
        environment.write("# A new setting.\n")
    target = folder / "newer.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, target], check=True, capture_output=True)
    return target


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout."""
    return build(tmp_path_factory.mktemp("package"))


@pytest.fixture
def running(package: Path, tmp_path: Path) -> Iterator[Machine]:
    """A machine with systemd and the package's file, which is not installed yet."""
    with machine(tmp_path) as started:
        started.write(f"{CLONE}/chutes-exporter.deb", package.read_bytes())
        yield started


@pytest.fixture
def serving(running: Machine) -> Machine:
    """A machine on which the service runs with a key, against a simulated API."""
    running.run(INSTALL)
    start_api(running)
    running.write(ENVIRONMENT, (running.read(ENVIRONMENT) + SETTINGS).encode(), 0o600)
    running.run("systemctl enable --quiet --now chutes-exporter")
    return running


def test_the_package_has_exactly_the_locked_packages_and_no_trace_of_its_build(package: Path) -> None:
    with files(package) as archive:
        names = archive.getnames()
        texts = [content.read() for one in archive if one.isfile() and (content := archive.extractfile(one))]
    folders = re.findall(r"/lib/chutes-exporter/([^/\n]+)-[^-/\n]+\.dist-info$", "\n".join(names), re.MULTILINE)
    found = {re.sub(r"[-_.]+", "-", name).lower() for name in folders}
    lock = (ROOT / "requirements.lock").read_text()
    requirements = [Requirement(line) for line in re.findall(r"^([\w.-]+==[^\\]+) \\$", lock, re.MULTILINE)]
    here = {"python_version": "3.13", "python_full_version": "3.13.0"}
    locked = {one.name for one in requirements if one.marker is None or one.marker.evaluate(here)}
    assert found == locked | {"chutes-exporter"}
    assert not [name for name in names if name.endswith((".pyc", "RECORD", "direct_url.json"))]
    assert not [text for text in texts if str(ROOT).encode() in text]


def test_only_root_can_read_the_environment_file_and_nobody_else_can_write_anything(package: Path) -> None:
    with files(package) as archive:
        modes = {one.name.lstrip("."): one.mode for one in archive if not one.issym()}
        owners = {(one.uid, one.gid) for one in archive}
    assert modes[ENVIRONMENT] == 0o640
    assert owners == {(0, 0)}
    assert [name for name, mode in modes.items() if mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID)] == []


def test_the_same_commit_makes_the_same_package(package: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == package.read_bytes()


def test_installing_does_not_start_the_service(running: Machine) -> None:
    running.run(INSTALL)
    assert running.try_to_run("systemctl is-enabled chutes-exporter.service").stdout.strip() == "disabled"
    assert running.try_to_run("systemctl is-active chutes-exporter.service").stdout.strip() == "inactive"
    assert running.run("chutes-exporter --version") == f"chutes-exporter {chutes_exporter.__version__}"
    assert running.run("systemd-analyze verify --man=no chutes-exporter.service chutes-exporter.socket 2>&1") == ""


def test_the_service_serves_as_its_user_without_rights(serving: Machine) -> None:
    assert f'chutes_miner_watched{{hotkey="{HOTKEY}"}} 1' in serving.run(PAGE)
    assert "All checks passed." in serving.run(f"{AS_THE_SERVICE} chutes-exporter check")
    process = serving.run("systemctl show --property=MainPID --value chutes-exporter")
    status = dict(re.findall(r"^(\w+):\t(.+)$", serving.read(f"/proc/{process}/status"), re.MULTILINE))
    assert status["Uid"].split() == [serving.run("id --user chutes-exporter")] * 4
    assert [int(status[name], 16) for name in ("CapEff", "CapBnd", "CapInh", "CapPrm", "CapAmb")] == [0] * 5
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_the_service_reloads_restarts_after_a_crash_and_stops_cleanly(serving: Machine) -> None:
    serving.run("systemctl reload chutes-exporter")
    serving.run("systemctl kill --signal=KILL chutes-exporter")
    serving.wait_for(f"test $(systemctl show --property=NRestarts --value chutes-exporter) = 1 && {PAGE}")
    serving.run("systemctl stop chutes-exporter")
    assert serving.run("systemctl show --property=Result,ExecMainStatus chutes-exporter") == (
        "Result=success\nExecMainStatus=0"
    )


def test_the_socket_starts_the_service_at_the_first_scrape(serving: Machine) -> None:
    serving.run("systemctl disable --quiet --now chutes-exporter")
    override = b"[Service]\nExecStart=\nExecStart=/usr/bin/chutes-exporter --web.systemd-socket\n"
    serving.write("/etc/systemd/system/chutes-exporter.service.d/socket.conf", override)
    serving.write(ENVIRONMENT, SETTINGS.encode(), 0o600)
    serving.run("systemctl daemon-reload")
    serving.run("systemctl enable --quiet --now chutes-exporter.socket")
    assert serving.try_to_run("systemctl is-active chutes-exporter.service").stdout.strip() == "inactive"
    assert "chutes_miner_watched" in serving.run(PAGE)
    assert serving.run("systemctl is-active chutes-exporter.service") == "active"


def test_an_upgrade_keeps_the_edited_environment_file_and_restarts_the_service(
    serving: Machine, package: Path, tmp_path: Path
) -> None:
    edited = serving.read(ENVIRONMENT)
    before = serving.run("systemctl show --property=MainPID --value chutes-exporter")
    serving.write(f"{CLONE}/newer.deb", newer(package, tmp_path).read_bytes())
    serving.run("apt-get install --quiet --quiet --yes --option Dpkg::Options::=--force-confold ./newer.deb")
    assert serving.run("dpkg-query --show --showformat='${Version}' chutes-exporter") == "99.0"
    assert serving.read(ENVIRONMENT) == edited
    assert serving.run(f"stat --format=%a {ENVIRONMENT}") == "600"
    assert serving.run("systemctl show --property=MainPID --value chutes-exporter") not in (before, "0")
    assert "chutes_miner_watched" in serving.run(PAGE)


def test_the_environment_file_stays_until_purge_and_nothing_after_it(running: Machine) -> None:
    users = {name: running.read(f"/etc/{name}") for name in ("passwd", "group", "shadow", "gshadow")}
    before = running.run(LISTING)
    running.run(INSTALL)
    running.run("systemctl enable --quiet --now chutes-exporter")
    running.run("systemctl enable --quiet chutes-exporter.socket")
    # As root, it could write bytecode.
    running.run("chutes-exporter --help")
    running.run("apt-get remove --quiet --quiet --yes chutes-exporter")
    assert "CHUTES_EXPORTER_" in running.read(ENVIRONMENT)
    running.run("apt-get purge --quiet --quiet --yes chutes-exporter")
    assert set(running.run(LISTING).split("\n")) - set(before.split("\n")) == set()
    assert {name: running.read(f"/etc/{name}") for name in users} == users
    assert running.try_to_run("dpkg-query --status chutes-exporter").returncode != 0
