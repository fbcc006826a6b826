from __future__ import annotations

import contextlib
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from chutes_exporter import log
from chutes_exporter.log import RateLimit
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


def test_a_line_that_clients_can_cause_is_written_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(0)
    monkeypatch.setattr(log, "monotonic", clock)
    limit = RateLimit()
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
