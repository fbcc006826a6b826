"""Runs the demo exporter, Prometheus and Alertmanager on this machine, from Debian's packages: `make stack`.

The same configuration files as deploy/compose.yaml, for those without containers. Everything that is written is under
`.cache/stack/`.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

ROOT: Final = Path(__file__).parent.parent
_PATIENCE: Final = 60.0


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _running(name: str, command: Sequence[str], directory: Path, ready: str) -> Iterator[None]:
    """Run a program until the end of the context; enters it when the program is ready.

    Raises:
        SystemExit: It ended, or was not ready in time; the message says where its log is.
    """
    path = directory / f"{name}.log"
    with path.open("wb") as log:
        # In a session of its own: an interrupt at the terminal reaches this process alone, which then ends the others.
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 - from the path
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(ready, timeout=2).close()  # noqa: S310 - http, on this machine
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} does not run: see {path}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(timeout=_PATIENCE)


def _configure(directory: Path, exporter: str, alertmanager: str) -> None:
    """Lay out Prometheus' configuration as it is, with the targets of this stack."""
    shutil.rmtree(directory / "prometheus", ignore_errors=True)
    (directory / "prometheus" / "targets").mkdir(parents=True)
    for name in ("prometheus.yml", "rules"):
        (directory / "prometheus" / name).symlink_to(ROOT / "prometheus" / name)
    for name, address in (("exporter", exporter), ("alertmanager", alertmanager)):
        (directory / "prometheus" / "targets" / f"{name}.yml").write_text(f'- targets: ["{address}"]\n')


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stack until it is interrupted."""
    parser = argparse.ArgumentParser(prog="make stack ARGS=...", description=__doc__)
    parser.add_argument("--exporter", default="localhost:10064", metavar="HOST:PORT")
    parser.add_argument("--prometheus", default="localhost:9090", metavar="HOST:PORT")
    parser.add_argument("--alertmanager", default="localhost:9093", metavar="HOST:PORT")
    parser.add_argument("--directory", default=ROOT / ".cache" / "stack", type=Path, metavar="PATH")
    chosen = parser.parse_args(arguments)
    directory: Path = chosen.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    _configure(directory, chosen.exporter, chosen.alertmanager)
    signal.signal(signal.SIGTERM, _stop)
    try:
        with (
            _running(
                "exporter",
                [
                    str(Path(sys.executable).parent / "chutes-exporter"),
                    "demo",
                    f"--web.listen-address={chosen.exporter}",
                    "--simulator.listen-address=127.0.0.1:0",
                ],
                directory,
                f"http://{chosen.exporter}/-/ready",
            ),
            _running(
                "alertmanager",
                [
                    "prometheus-alertmanager",
                    f"--config.file={ROOT / 'alertmanager' / 'alertmanager.yml'}",
                    f"--storage.path={directory / 'alertmanager'}",
                    f"--web.listen-address={chosen.alertmanager}",
                    "--cluster.listen-address=",
                ],
                directory,
                f"http://{chosen.alertmanager}/-/ready",
            ),
            _running(
                "prometheus",
                [
                    "prometheus",
                    f"--config.file={directory / 'prometheus' / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address={chosen.prometheus}",
                ],
                directory,
                f"http://{chosen.prometheus}/-/ready",
            ),
        ):
            sys.stdout.write(
                f"exporter      http://{chosen.exporter}/  on a simulated subnet\n"
                f"prometheus    http://{chosen.prometheus}/alerts\n"
                f"alertmanager  http://{chosen.alertmanager}/\n"
                f"Logs and data are in {directory}. Interrupt to end all.\n"
            )
            sys.stdout.flush()
            while True:
                signal.pause()
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
