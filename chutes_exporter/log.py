"""Logging: one line for each event, in logfmt or JSON, on standard error."""

from __future__ import annotations

import logging
import math
from time import monotonic
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

Level = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["logfmt", "json"]

_LIMITED = ("asyncio", "connections", "uvicorn.error")
"""Loggers whose lines clients can cause."""
_LIMIT_SECONDS = 60.0


class RateLimit(logging.Filter):
    """Limits lines that clients can cause to one of each kind per minute."""

    def __init__(self) -> None:
        super().__init__()
        self._written_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a line."""
        if record.name not in _LIMITED:
            return True
        # A kind is the first line of a message, before its arguments are filled in.
        kind = (record.name, record.msg.partition("\n")[0])
        now = monotonic()
        # The first line of a kind is always written, as if the last one was infinitely long ago.
        last_written_at = self._written_at.get(kind, -math.inf)
        if now - last_written_at < _LIMIT_SECONDS:
            return False
        self._written_at[kind] = now
        return True


def visible(text: str) -> str:
    """Return a text with codes for control characters and marks of direction."""
    shown = ""
    for character in text:
        shown += character if character.isprintable() else f"\\u{ord(character):04x}"
    return shown


def configure(level: Level, form: LogFormat) -> None:
    """Write lines of this package and of libraries in one form, from a minimum level on."""
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
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.EventRenamer("msg"),
                render,
                lambda _logger, _name, line: visible(str(line)),
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
