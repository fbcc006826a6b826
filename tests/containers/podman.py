"""podman, as scripts/test-containers configures it: everything is in namespaces and folders that
end with the tests.
"""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import chutes_exporter
from tests.support import fetch, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = f"chutes-exporter:{chutes_exporter.__version__}"
HARDENED = (
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=256m",
    "--pids-limit=64",
)
TIMEOUT = 60.0
"""Seconds that a command may take."""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever its status."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


def podman(*arguments: str) -> str:
    """Run podman; returns its output."""
    result = run("podman", *arguments)
    assert result.returncode == 0, f"podman {' '.join(arguments)}: {result.stderr or result.stdout}"
    return result.stdout.strip()


def health(name: str) -> str:
    """Return what a container's health check has found."""
    return podman("inspect", "--format={{.State.Health.Status}}", name)


@contextlib.contextmanager
def container(name: str, *options: str, command: tuple[str, ...]) -> Iterator[str]:
    """Run a container of the image, as read-only and without rights as it can be; yields its
    name.
    """
    podman("run", "--detach", "--name", name, *HARDENED, *options, IMAGE, *command)
    try:
        yield name
    finally:
        podman("rm", "--force", "--time=10", "--volumes", name)


def wait_until_ready(name: str, address: str) -> None:
    """Wait until the exporter in a container has its first answers."""
    wait_for(lambda: fetch(f"http://{address}/-/ready"), why=lambda: podman("logs", name))
