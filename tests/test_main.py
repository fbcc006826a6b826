from __future__ import annotations

import subprocess
import sys

from tests.support import unmeasured
from tests.test_cli import environment


def test_the_package_runs_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "chutes_exporter", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.startswith("chutes-exporter 0.")


HELD_AT_IMPORT = """
import signal, sys
def report(event, arguments):
    if event == "import" and arguments[0] in ("asyncio", "click"):
        print(arguments[0], sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
sys.addaudithook(report)
from chutes_exporter.__main__ import main
main()
"""


def test_signals_are_held_before_anything_that_takes_time_is_imported() -> None:
    words = [sys.executable, "-c", HELD_AT_IMPORT, "serve", "--api.url", "none"]
    result = subprocess.run(words, capture_output=True, text=True, check=False, env=environment())
    held = [1, 2, 15]  # SIGHUP, SIGINT, SIGTERM
    assert set(result.stdout.splitlines()) == {f"click {held}", f"asyncio {held}"}, result.stderr


IMPORTED_BY_SERVE = """
import sys
from chutes_exporter.__main__ import main
try:
    main()
finally:
    print(*sys.modules)
"""


def test_serve_imports_no_part_of_a_library_that_it_does_not_use() -> None:
    words = [sys.executable, "-c", IMPORTED_BY_SERVE, "serve", "--api.url", "none"]
    # What measures coverage imports modules of its own.
    result = subprocess.run(words, capture_output=True, text=True, check=False, env=unmeasured(environment()))
    imported = set(result.stdout.split())
    assert {"httpx", "structlog", "uvicorn.config"} <= imported, result.stderr
    unused = {"bcrypt", "multiprocessing", "prometheus_client", "pygments", "rich", "uvicorn.main", "yaml"}
    assert not imported & {*unused, "chutes_exporter.simulator"}
