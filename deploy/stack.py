"""Runs the demo exporter, Prometheus and Alertmanager on this machine, from Debian's packages: `make stack`.

The same configuration files as deploy/compose.yaml, for those without containers. Everything that is written is under
`.cache/stack/`.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

ROOT: Final = Path(__file__).parent.parent
_PATIENCE: Final = 300.0
_LOOK_EVERY: Final = 0.5
_INTERVALS: Final = {"scrape_interval": "15s", "scrape_timeout": "15s", "evaluation_interval": "15s"}
"""Shorter than in prometheus.yml, so that the first alert besides Watchdog fires within 3 minutes of the start."""


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _require_free(name: str, address: str) -> None:
    """Refuse an address that somebody else has: what answers there would be taken for ours.

    Raises:
        SystemExit: Somebody listens there.
    """
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
        raise SystemExit(
            f'{address} is taken: choose another with make stack ARGS="--{name} HOST:PORT", or end what listens there '
            f"(Debian starts its own {name} as a service: sudo systemctl disable --now {name})"
        )


@contextlib.contextmanager
def _running(name: str, command: Sequence[str], directory: Path, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the context; enters it when the program is ready.

    Raises:
        SystemExit: It is not installed, ended, or was not ready in time; the message says where its log is.
    """
    if shutil.which(command[0]) is None:
        raise SystemExit(f"{command[0]} is not installed: `make stack` installs it")
    path = directory / f"{name}.log"
    with path.open("wb") as log:
        # In a session of its own: an interrupt at the terminal reaches this process alone, which then ends the others.
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 - from the path
    try:
        deadline = time.monotonic() + _PATIENCE
        answered = False
        while not answered:
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(ready, timeout=10).close()  # noqa: S310 - http, on this machine
                answered = True
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} does not run: see {path}")
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=_PATIENCE)


def _configure(directory: Path, exporter: str, alertmanager: str) -> None:
    """Lay out the configurations with the intervals and the targets of this stack.

    There is no Grafana, so alerts do not link to it. Alertmanager's receivers are not filled in, and nothing about the
    demo leaves this machine.
    """
    target = directory / "prometheus"
    shutil.rmtree(target, ignore_errors=True)
    (target / "targets").mkdir(parents=True)
    text = (ROOT / "prometheus" / "prometheus.yml").read_text()
    for name, interval in _INTERVALS.items():
        text = re.sub(rf"^(  {name}:) .*$", rf"\1 {interval}", text, flags=re.MULTILINE)
    (target / "prometheus.yml").write_text(re.sub(r"  external_labels:\n(    .*\n)+", "", text))
    shutil.copytree(ROOT / "prometheus" / "rules", target / "rules")
    text = (ROOT / "alertmanager" / "alertmanager.yml").read_text()
    nowhere = "global:\n  telegram_api_url: http://127.0.0.1:9\n"
    (directory / "alertmanager.yml").write_text(text.replace("global:\n", nowhere, 1))
    for name, address in (("exporter", exporter), ("alertmanager", alertmanager)):
        (target / "targets" / f"{name}.yml").write_text(f'- targets: ["{address}"]\n')


def _commands(log: Path) -> str:
    """Return what the demo says about running other commands, as soon as it has said it.

    Raises:
        SystemExit: It has not said it in time.
    """
    deadline = time.monotonic() + _PATIENCE
    while "\n" not in (said := log.read_text().partition("Press Ctrl-C to stop.\n")[2]):
        if time.monotonic() > deadline:
            raise SystemExit(f"the demo printed no commands: see {log}")
        time.sleep(0.1)
    return said


def _watch(processes: Mapping[str, subprocess.Popen[bytes]], directory: Path) -> None:
    """Wait until one of the programs ends.

    Raises:
        SystemExit: One has; the message says where its log is.
    """
    while True:
        for name, process in processes.items():
            if process.poll() is not None:
                raise SystemExit(f"{name} has ended: see {directory / f'{name}.log'}")
        time.sleep(_LOOK_EVERY)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stack until it is interrupted.

    Raises:
        SystemExit: A program cannot be run, or has ended.
    """
    parser = argparse.ArgumentParser(
        prog="make stack ARGS=...", description="The demo with Prometheus and Alertmanager."
    )
    for name, port in (("exporter", 10064), ("prometheus", 9090), ("alertmanager", 9093)):
        parser.add_argument(f"--{name}", default=f"localhost:{port}", metavar="HOST:PORT", help="where it listens")
    parser.add_argument(
        "--directory", default=ROOT / ".cache" / "stack", type=Path, metavar="PATH", help="for logs and data"
    )
    parser.add_argument(
        "--trouble", action="append", default=[], metavar="NAME", help="trouble of the demo's miner (repeatable)"
    )
    chosen = parser.parse_args(arguments)
    directory: Path = chosen.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    commands = {
        "exporter": [
            str(Path(sys.executable).parent / "chutes-exporter"),
            "demo",
            f"--web.listen-address={chosen.exporter}",
            "--simulator.listen-address=127.0.0.1:0",
            *(f"--trouble={name}" for name in chosen.trouble),
        ],
        "alertmanager": [
            "prometheus-alertmanager",
            f"--config.file={directory / 'alertmanager.yml'}",
            f"--storage.path={directory / 'alertmanager'}",
            f"--web.listen-address={chosen.alertmanager}",
            "--cluster.listen-address=",
        ],
        "prometheus": [
            "prometheus",
            f"--config.file={directory / 'prometheus' / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={chosen.prometheus}",
            f"--web.external-url=http://{chosen.prometheus}",
        ],
    }
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        with contextlib.ExitStack() as stack:
            for name in commands:
                _require_free(name, getattr(chosen, name))
            _configure(directory, chosen.exporter, chosen.alertmanager)
            processes = {
                name: stack.enter_context(_running(name, command, directory, f"http://{getattr(chosen, name)}/-/ready"))
                for name, command in commands.items()
            }
            sys.stdout.write(
                f"exporter      http://{chosen.exporter}/  on a simulated subnet\n"
                f"prometheus    http://{chosen.prometheus}/classic/alerts  Watchdog fires, and within 3 minutes another"
                " alert\n"
                f"alertmanager  amtool --alertmanager.url=http://{chosen.alertmanager} alert  It has no page, and its"
                " receivers are placeholders.\n"
                f"Logs and data are in {directory}. Press Ctrl-C to stop all.\n"
                f"{_commands(directory / 'exporter.log')}"
            )
            sys.stdout.flush()
            _watch(processes, directory)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
