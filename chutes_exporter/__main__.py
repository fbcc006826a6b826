"""Entry point of ``chutes-exporter`` and ``python -m chutes_exporter``."""

import signal

from chutes_exporter.defaults import HELD_SIGNALS


def main() -> None:
    """Run the command line.

    Signals are blocked until the command handles them. During the imports, SIGHUP would kill the process, and SIGINT
    would print a traceback.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    from chutes_exporter import cli  # noqa: PLC0415 - see above

    cli.main()


if __name__ == "__main__":
    main()
