"""Entry point of ``chutes-exporter`` and ``python -m chutes_exporter``."""

import gc
import importlib.util
import signal
import sys

from chutes_exporter.defaults import HELD_SIGNALS

_UNUSED = ("rich", "greenlet", "httpx._main")
"""Modules that httpx and structlog import if they find them. Nothing here uses them through these libraries."""


def main() -> None:
    """Run the command line.

    Signals are blocked until the command handles them. During the imports, SIGHUP would kill the process, and SIGINT
    would print a traceback.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    # Imports leave no garbage, and searching for it takes a tenth of the start.
    gc.disable()
    # Together, the modules that are left out take a fifth of the start and 4 MB.
    for name in _UNUSED:
        sys.modules[name] = None  # type: ignore[assignment] # the import system's way to say that there is none
    _leave_out_command_of_uvicorn()
    import structlog  # noqa: F401, PLC0415

    from chutes_exporter import cli  # noqa: PLC0415 - it imports httpx

    # The commands that draw tables import rich themselves.
    for name in _UNUSED:
        del sys.modules[name]
    gc.enable()
    cli.main()


def _leave_out_command_of_uvicorn() -> None:
    """Provide uvicorn's package without what it imports: its command line, and multiprocessing for that."""
    spec = importlib.util.find_spec("uvicorn")
    assert spec is not None  # noqa: S101 - it is a dependency
    package = sys.modules["uvicorn"] = importlib.util.module_from_spec(spec)
    from uvicorn.config import Config  # noqa: PLC0415

    package.Config = Config  # type: ignore[attr-defined] # uvicorn's modules import it from the package


if __name__ == "__main__":
    main()
