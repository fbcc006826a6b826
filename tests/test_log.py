from __future__ import annotations

import logging

import pytest
import structlog

from chutes_exporter import log
from chutes_exporter.log import RateLimit
from tests.support import Clock


def record(name: str, message: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "", 0, message, (), None)


def test_a_line_that_clients_can_cause_is_written_once_a_minute() -> None:
    clock = Clock(0)
    limit = RateLimit(clock)
    junk, other = record("uvicorn.error", "Invalid HTTP request received."), record("uvicorn.error", "Upgrade")
    assert [limit.filter(junk), limit.filter(junk), limit.filter(other)] == [True, False, True]
    clock.now = 59.9
    assert not limit.filter(junk)
    clock.now = 60
    assert [limit.filter(junk), limit.filter(junk)] == [True, False]


@pytest.mark.parametrize(
    ("lines", "written"),
    [
        ([record("asyncio", f"Task exception was never retrieved\nfuture: {number}") for number in range(3)], 1),
        ([record("serve", {"event": "listening"})] * 3, 3),
    ],
    ids=["after the first line", "not by clients"],
)
def test_lines_of_one_kind_that_clients_can_cause_may_differ(lines: list[logging.LogRecord], written: int) -> None:
    limit = RateLimit(Clock())
    assert sum(map(limit.filter, lines)) == written


def test_the_limit_holds_for_what_is_really_logged(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers
    try:
        log.configure("info", "logfmt")
        for number in range(3):
            structlog.get_logger("serve").warning("configuration warning", number=number)
            logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    finally:
        logging.getLogger().handlers = before
    assert capsys.readouterr().err.count("\n") == 4
