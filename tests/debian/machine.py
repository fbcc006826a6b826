"""Machines with the Debian of scripts/test-deb: namespaces with a system of their own, and systemd as process 1."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chutes_exporter.simulator.world import TEST_SEED
from tests.support import HOTKEY, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM = ROOT / ".cache" / "deb" / "root"
"""The files that every machine starts with. No machine changes them."""
SYSTEMD = ("/usr/lib/systemd/systemd", "--system", "--log-target=console")
CLONE = "/root/clone"
"""The folder where users run commands."""
ENVIRONMENT = "/etc/chutes-exporter/environment"
SETTINGS = f"MINER_SS58={HOTKEY}\nMINER_SEED={TEST_SEED}\nCHUTES_EXPORTER_API_URL=http://127.0.0.1:10065\n"
"""The lines that users write into the environment file, and the address of the simulated API."""
TIMEOUT = 120.0
"""Seconds that a command may take."""
_NAMESPACES = ("--mount", "--pid", "--cgroup", "--net", "--uts", "--ipc")
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """A running machine, whose files stay as the machine's process 1 sees them."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._files = Path(f"/proc/{process}/root")

    def try_to_run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root in the folder `CLONE`, whatever its status."""
        enter = ["nsenter", "--target", str(self._process), "--all", f"--wdns={CLONE}", "--"]
        variables = ["env", "-i", f"PATH={_SEARCH}", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
        return subprocess.run(
            [*enter, *variables, "sh", "-ec", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )

    def run(self, command: str) -> str:
        """Run a shell command as root in the folder `CLONE`; returns its output."""
        result = self.try_to_run(command)
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        return result.stdout.strip()

    def write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file."""
        target = self._files / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(mode)

    def read(self, path: str) -> str:
        """Read a file."""
        return (self._files / path.lstrip("/")).read_text()

    def wait_for(self, command: str, seconds: float = 60.0) -> str:
        """Run a shell command until it succeeds; returns its output."""
        deadline = time.monotonic() + seconds
        while (result := self.try_to_run(command)).returncode:
            assert time.monotonic() < deadline, f"{command}: {result.stdout}{result.stderr}{self.log()}"
            time.sleep(0.1)
        return result.stdout.strip()

    def log(self) -> str:
        """Return what the services logged."""
        return self.try_to_run("journalctl --no-pager --quiet").stdout


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Start a machine; it ends with all its processes, mounts and files. Its console is a file in the folder."""
    console = folder / "console"
    console.touch()
    with (
        _cgroup() as cgroup,
        console.open("ab") as output,
        # The shell moves itself before it makes the namespace of cgroups, whose root is then this cgroup.
        subprocess.Popen(
            [
                *("sh", "-ec", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(cgroup)),
                *("unshare", *_NAMESPACES, "--fork", "--kill-child", "--"),
                *(str(ROOT / "tests" / "debian" / "boot"), str(SYSTEM), str(console), *SYSTEMD),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "TMPDIR": str(folder)},
        ) as started,
    ):
        try:
            running = Machine(_first_child(started.pid, SYSTEMD[0], console))
            running.write(f"{CLONE}/.here", b"")
            running.wait_for("systemctl is-active --quiet multi-user.target")
            yield running
        finally:
            started.kill()


def start_api(running: Machine) -> None:
    """Start a simulated API, with the exporter that is installed on the machine."""
    running.run(
        "systemd-run --quiet --unit=api --property=Type=notify chutes-exporter demo "
        "--web.listen-address=127.0.0.1:10066 --simulator.listen-address=127.0.0.1:10065"
    )


def _first_child(parent: int, command: str, console: Path) -> int:
    """Wait until process 1 runs a command; returns its process id outside."""
    deadline = time.monotonic() + 60
    while True:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/cmdline").read_bytes().startswith(command.encode() + b"\0"):
                return int(child)
        assert time.monotonic() < deadline, console.read_text()
        time.sleep(0.05)


@contextlib.contextmanager
def _cgroup() -> Iterator[Path]:
    """Make a cgroup of version 2, and remove it with what systemd made below it."""
    unified = Path("/sys/fs/cgroup/unified")
    top = unified if unified.exists() else Path("/sys/fs/cgroup")
    path = top / f"chutes-exporter-test-{os.getpid()}"
    path.mkdir()
    try:
        yield path
    finally:
        deadline = time.monotonic() + 30
        while path.exists():
            for folder in sorted((path, *path.rglob("*/")), reverse=True):
                # The processes inside may still be ending.
                with contextlib.suppress(OSError):
                    folder.rmdir()
            assert time.monotonic() < deadline, path
            time.sleep(0.05)
