"""Runs the demo exporter, Prometheus and Alertmanager on this machine, from Debian's packages:
`make stack`.

The same configuration files as deploy/compose.yaml, for those without containers. A receiver on
this machine prints each message of Alertmanager. Everything that is written is under
`.cache/stack/`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

ROOT: Final = Path(__file__).parent.parent
_PATIENCE: Final = 300.0
_LOOK_EVERY: Final = 0.2
_OTHERS: Final = {
    "exporter": "`make demo`",
    "prometheus": "Debian's service (sudo systemctl disable --now prometheus)",
    "alertmanager": "Debian's service (sudo systemctl disable --now prometheus-alertmanager)",
}
"""What else usually has the address of a program."""


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _require_free(name: str, address: str) -> None:
    """Refuse an address that somebody else has: what answers there would be taken for ours."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
        raise SystemExit(
            f'{address} is taken: choose another with make stack ARGS="--{name} HOST:PORT", or '
            f"end what listens there, such as {_OTHERS[name]}"
        )


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10):  # noqa: S310 - http, on this machine
        return True
    return False


class _Receiver(BaseHTTPRequestHandler):
    """Prints what Alertmanager sends to Telegram and to the dead man's switch."""

    def do_POST(self) -> None:
        """Print one message, and answer as Telegram does."""
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "text" not in message:
            text = "to the dead man's switch: Watchdog\n"
        elif message.get("disable_notification"):
            text = f"to Telegram, without a sound:\n{message['text']}\n"
        else:
            text = f"to Telegram, ringing:\n{message['text']}\n"
        sys.stdout.write(f"\n--- message {text}")
        sys.stdout.flush()
        result = {"message_id": 1, "date": 1, "chat": {"id": 1, "type": "private"}}
        body = json.dumps({"ok": True, "result": result}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log no requests: the messages are enough."""


@contextlib.contextmanager
def _receiver() -> Iterator[str]:
    """Receive messages on a free port of this machine; yields the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Stack:
    """Programs that run together until one of them ends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    @contextlib.contextmanager
    def running(self, name: str, command: Sequence[str], ready: str) -> Iterator[None]:
        """Run a program until the end of the context, which begins when the program is ready."""
        if shutil.which(command[0]) is None:
            raise SystemExit(f"{command[0]} is not installed: `make stack` installs it")
        with self.log(name).open("wb") as log:
            # In a session of its own: an interrupt at the terminal reaches this process alone,
            # which ends the others.
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 - from the path
        self.processes[name] = process
        try:
            self.wait_for(lambda: _answers(ready), name)
            yield
        finally:
            process.terminate()
            process.wait(timeout=_PATIENCE)

    def wait_for(self, condition: Callable[[], bool], name: str) -> None:
        """Wait until something holds that a program does.

        Without a name, wait until a program ends.
        """
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            for one, process in self.processes.items():
                if process.poll() is not None:
                    raise SystemExit(f"{one} has ended: see {self.log(one)}")
            if name and time.monotonic() > deadline:
                raise SystemExit(f"{name} is not ready: see {self.log(name)}")
            time.sleep(_LOOK_EVERY)


def _configure(directory: Path, exporter: str, alertmanager: str, receiver: str) -> None:
    """Lay out the configurations with the targets of this stack.

    The intervals are shorter, so that the first alert besides Watchdog fires within 3 minutes.
    There is no Grafana, so alerts do not link to it. All messages go to the receiver, and nothing
    leaves this machine.
    """
    target = directory / "prometheus"
    shutil.rmtree(target, ignore_errors=True)
    (target / "targets").mkdir(parents=True)
    text = (ROOT / "prometheus" / "prometheus.yml").read_text()
    text = re.sub(
        r"(?m)^(  (?:scrape_interval|scrape_timeout|evaluation_interval): ).*$", r"\g<1>15s", text
    )
    (target / "prometheus.yml").write_text(re.sub(r"  external_labels:\n(    .*\n)+", "", text))
    shutil.copytree(ROOT / "prometheus" / "rules", target / "rules")
    text = (ROOT / "alertmanager" / "alertmanager.yml").read_text()
    text = text.replace("global:\n", f"global:\n  telegram_api_url: {receiver}\n", 1)
    (directory / "alertmanager.yml").write_text(text.replace("http://localhost:8080", receiver))
    for name, address in (("exporter", exporter), ("alertmanager", alertmanager)):
        (target / "targets" / f"{name}.yml").write_text(f'- targets: ["{address}"]\n')


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stack until it is interrupted.

    Raises:
        SystemExit: A program cannot be run, or has ended.
    """
    parser = argparse.ArgumentParser(
        prog="make stack ARGS=...", description="The demo with Prometheus and Alertmanager."
    )
    for name, port in (("exporter", 10064), ("prometheus", 9090), ("alertmanager", 9093)):
        parser.add_argument(
            f"--{name}", default=f"localhost:{port}", metavar="HOST:PORT", help="where it listens"
        )
    parser.add_argument(
        "--directory",
        default=ROOT / ".cache" / "stack",
        type=Path,
        metavar="PATH",
        help="for logs and data",
    )
    parser.add_argument(
        "--miner", default="troubled", metavar="NAME", help="miner that the demo watches"
    )
    chosen = parser.parse_args(arguments)
    directory: Path = chosen.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    commands = {
        "exporter": [
            str(Path(sys.executable).parent / "chutes-exporter"),
            "demo",
            f"--web.listen-address={chosen.exporter}",
            "--demo.listen-address=127.0.0.1:0",
            f"--miner={chosen.miner}",
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
    stack = _Stack(directory)

    def demo_said() -> str:
        return stack.log("exporter").read_text().partition("Press Ctrl-C to stop.\n")[2]

    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as running:
        for name in commands:
            _require_free(name, getattr(chosen, name))
        receiver = running.enter_context(_receiver())
        _configure(directory, chosen.exporter, chosen.alertmanager, receiver)
        for name, command in commands.items():
            running.enter_context(
                stack.running(name, command, f"http://{getattr(chosen, name)}/-/ready")
            )
        stack.wait_for(lambda: "\n" in demo_said(), "exporter")
        sys.stdout.write(
            f"exporter      http://{chosen.exporter}/  on a recorded day of an invented miner\n"
            f"prometheus    http://{chosen.prometheus}/classic/alerts  Watchdog fires, and within "
            "5 minutes another alert\n"
            f"alertmanager  amtool --alertmanager.url=http://{chosen.alertmanager} alert  It has "
            "no page. Its messages are printed here, and go nowhere else.\n"
            f"Logs and data are in {directory}. Press Ctrl-C to stop all.\n"
            f"{demo_said()}"
        )
        sys.stdout.flush()
        stack.wait_for(lambda: False, "")


if __name__ == "__main__":
    main()
