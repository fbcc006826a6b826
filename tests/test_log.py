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
    junk, other = (
        record("uvicorn.error", "Invalid HTTP request received."),
        record("uvicorn.error", "Upgrade"),
    )
    assert [limit.filter(junk), limit.filter(junk), limit.filter(other)] == [True, False, True]
    clock.now = 59.9
    assert not limit.filter(junk)
    clock.now = 60
    assert [limit.filter(junk), limit.filter(junk)] == [True, False]


@pytest.mark.parametrize(
    ("lines", "written"),
    [
        (
            [
                record("asyncio", f"Task exception was never retrieved\nfuture: {number}")
                for number in range(3)
            ],
            1,
        ),
        ([record("serve", {"event": "listening"})] * 3, 3),
    ],
    ids=["after the first line", "not by clients"],
)
def test_lines_of_one_kind_that_clients_can_cause_may_differ(
    lines: list[logging.LogRecord], written: int
) -> None:
    limit = RateLimit(Clock())
    assert sum(map(limit.filter, lines)) == written


def test_lines_of_this_package_and_of_libraries_have_one_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = logging.getLogger().handlers, logging.getLogger().level
    try:
        log.configure("debug", "logfmt")
        # Requests of the client library are never logged, because they have signatures.
        logging.getLogger("httpcore.http11").debug("send_request_headers")
        logging.getLogger("anything").info("a library's message %d", 7)
        logging.getLogger("anything").error("with a trace", exc_info=ValueError("why"))
        for number in range(2):
            structlog.get_logger("serve").warning("configuration warning", number=number)
            logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    finally:
        logging.getLogger().handlers, logging.getLogger().level = before
    first, second, *others = capsys.readouterr().err.splitlines()
    assert 'level=info msg="a library\'s message 7"' in first
    assert "level=error" in second
    assert "ValueError: why" in second
    messages = [
        '"configuration warning" number=0',
        '"Invalid HTTP request received."',
        '"configuration warning" number=1',
    ]
    assert [line.partition("msg=")[2] for line in others] == messages
