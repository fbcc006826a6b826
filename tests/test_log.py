from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import TYPE_CHECKING, TextIO

import pytest
import structlog

from chutes_exporter import log
from chutes_exporter.log import RateLimit, UnblockedHandler
from tests.support import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator


def record(name: str, message: object) -> logging.LogRecord:
    """Return a warning of a logger."""
    return logging.LogRecord(name, logging.WARNING, "", 0, message, (), None)


@contextlib.contextmanager
def configured(form: log.LogFormat) -> Iterator[None]:
    """Log in a form while the context lasts."""
    before = logging.getLogger().handlers, logging.getLogger().level
    try:
        log.configure("debug", form)
        yield
    finally:
        logging.getLogger().handlers, logging.getLogger().level = before


def test_a_line_that_clients_can_cause_is_written_once_a_minute() -> None:
    clock = Clock(0)
    limit = RateLimit(clock)
    junk = record("uvicorn.error", "Invalid HTTP request received.")
    # Lines may differ after the first line of a message.
    first, second = (record("asyncio", f"Task exception\nfuture: {number}") for number in (1, 2))
    passed = [limit.filter(line) for line in (junk, junk, first, second)]
    assert passed == [True, False, True, False]
    clock.now = 59.9
    assert not limit.filter(junk)
    clock.now = 60
    assert [limit.filter(line) for line in (junk, junk)] == [True, False]


# Control characters, separators and others that a terminal obeys or does not show.
EVIL = "\x1b[2J\x00\u202e\u2066\x7f\x9b1m\u2028\ue000\U000e0001\udcff\r\n"


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_what_a_terminal_obeys_or_does_not_show_is_escaped(
    form: log.LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    with configured(form):
        structlog.get_logger("feed").error("feeds failed", detail=f"a {EVIL} ünï 😀")
        logging.getLogger("library").error("b %s", EVIL)
        logging.getLogger("library").error("c", exc_info=ValueError(EVIL))
    text = capsys.readouterr().err
    assert text.replace("\n", "").isprintable()
    lines = text.splitlines()
    assert len(lines) == 3
    for code in ("001b", "0000", "202e", "2066", "007f", "2028", "dcff"):
        assert all(f"\\u{code}" in line for line in lines)
    if form == "json":
        assert json.loads(lines[0])["detail"] == f"a {EVIL} ünï 😀"
    else:
        assert "ünï 😀" in lines[0]
        assert "\\ue0001" in lines[0]


@contextlib.contextmanager
def handler(stream: TextIO) -> Iterator[logging.Logger]:
    """Yield a logger that writes to a stream through an UnblockedHandler.

    The handler also writes lines of its own, about lines that it dropped.
    """
    own = UnblockedHandler(stream)
    own.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    before = root.handlers, root.level
    root.handlers = [own]
    # Another test may have left a higher one.
    root.setLevel(logging.WARNING)
    try:
        yield logging.getLogger("test")
    finally:
        root.handlers = before[0]
        root.setLevel(before[1])


def test_a_pipe_that_nobody_reads_delays_nobody_and_a_later_line_says_what_was_dropped() -> None:
    reading, writing = os.pipe()
    with (
        os.fdopen(writing, "w", encoding="ascii", errors="backslashreplace") as stream,
        handler(stream) as logger,
    ):
        for number in range(200):
            # Ten bytes are the longest that a character can become.
            logger.warning("%d %s", number, "\N{GRINNING FACE}" * 1000)
        read = os.read(reading, 1_000_000)
        logger.warning("after")
        read += os.read(reading, 1_000_000)
    os.close(reading)
    # The pipe has no room for the rest of one line, and for all after it.
    *whole, cut, dropped, after = read.decode().splitlines()
    for number, line in enumerate(whole):
        assert line == f"{number} " + "\\U0001f600" * 1000
    assert 0 < len(cut) < 10_000
    assert dropped == f"log lines were dropped: {200 - len(whole)}"
    assert after == "after"
