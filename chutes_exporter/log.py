"""Logging: one line for each event, in logfmt or JSON, on standard error."""

from __future__ import annotations

import io
import logging
import math
import select
import sys
import time
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import Processor

Level = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["logfmt", "json"]

_LIMITED = ("asyncio", "connections", "uvicorn.error")
"""Loggers whose lines clients can cause."""
_LIMIT_SECONDS = 60.0
_PIECE = select.PIPE_BUF // 10
"""Characters that are written at once. A pipe that is ready takes PIPE_BUF bytes without waiting. A
character has at most ten bytes: those of an escape such as ``\\U0001f600``.
"""


class RateLimit(logging.Filter):
    """Limits lines that clients can cause to one of each kind per minute."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._written_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a line."""
        if record.name not in _LIMITED:
            return True
        # A kind is the first line of a message, before its arguments are filled in.
        kind = (record.name, record.msg.partition("\n")[0])
        now = self._monotonic()
        # The first line of a kind is always written, as if the last one was infinitely long ago.
        last_written_at = self._written_at.get(kind, -math.inf)
        if now - last_written_at < _LIMIT_SECONDS:
            return False
        self._written_at[kind] = now
        return True


class UnblockedHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream, and never waits until somebody reads it.

    Lines for which a pipe has no room are dropped. The next line says how many.
    """

    _dropped = 0
    _is_cut = False  # the stream has only the beginning of the last line

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or drop it."""
        try:
            line = self.format(record)
            if self._dropped and self._has_room():
                dropped = self._dropped
                # Reset it before the warning, which comes to this method, too.
                self._dropped = 0
                logging.getLogger(__name__).warning("log lines were dropped: %d", dropped)
            # End a line of which only the beginning was written.
            start = "\n" if self._is_cut else ""
            self._write(f"{start}{line}\n")
        except OSError:
            # The disk is full, or the reader has gone.
            self._dropped += 1
        except Exception:  # noqa: BLE001 - as in the base class
            self.handleError(record)

    def _write(self, line: str) -> None:
        """Write a line in pieces, each of which a pipe takes whole. If there is no room for one,
        drop the rest of the line.
        """
        for start in range(0, len(line), _PIECE):
            if not self._has_room():
                self._dropped += 1
                # Without room for its first piece, the stream stays as it was.
                self._is_cut = self._is_cut or start > 0
                return
            self.stream.write(line[start : start + _PIECE])
            self.stream.flush()
        self._is_cut = False

    def _has_room(self) -> bool:
        """Return whether the stream takes a piece without waiting."""
        try:
            poll = select.poll()
            poll.register(self.stream.fileno(), select.POLLOUT)
        except io.UnsupportedOperation:
            # A stream in memory has no file descriptor, and never waits.
            return True
        return bool(poll.poll(0))


def _escaped(_logger: object, _name: str, line: Any) -> str:
    """Escape what a terminal would obey or not show: control characters and marks of direction.

    The arguments are those of a processor of structlog.
    """
    shown = ""
    for character in str(line):
        shown += character if character.isprintable() else f"\\u{ord(character):04x}"
    return shown


def configure(level: Level, form: LogFormat) -> None:
    """Write lines of this package and of all libraries in the same form, from a minimum level
    on.
    """
    # Lines of libraries do not go through structlog's own chain, so they get these, too.
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]
    render: Processor = structlog.processors.JSONRenderer()
    if form == "logfmt":
        # Without flags, True is written as key=true, and not as the key alone.
        render = structlog.processors.LogfmtRenderer(
            key_order=("ts", "level", "msg"), bool_as_flag=False
        )
    # Without standard error, its stream is None.
    handler = UnblockedHandler(sys.stderr) if sys.stderr else logging.NullHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.EventRenamer("msg"),
                render,
                _escaped,
            ],
        )
    )
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Info messages of the HTTP libraries would contain requests and responses.
    for library in ("httpx", "httpcore", "uvicorn", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
