"""Entry point of ``chutes-exporter`` and ``python -m chutes_exporter``."""

import signal
import sys

from chutes_exporter.defaults import HELD_SIGNALS


def main() -> None:
    """Run the command line.

    Signals are blocked until the command handles them. During the imports, SIGHUP would kill the process, and SIGINT
    would print a traceback.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    # httpx and structlog import rich if they find it, although nothing here uses it through them. It takes a fifth of
    # the start and 4 MB. The commands that draw tables import it themselves.
    sys.modules["rich"] = None  # type: ignore[assignment] # the import system's way to say that there is none
    import structlog  # noqa: F401, PLC0415

    from chutes_exporter import cli  # noqa: PLC0415 - it imports httpx

    del sys.modules["rich"]
    cli.main()


if __name__ == "__main__":
    main()
