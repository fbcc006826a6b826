from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from chutes_exporter.api.exchanges import Exchange, ExchangeCounters
from tests.support import parse_page, series


def test_requests_to_the_api_are_counted_by_endpoint_and_status() -> None:
    counters = ExchangeCounters()
    counters.add(Exchange("scores", code="200", seconds=0.2, size=1000, rejected=3))
    counters.add(Exchange("scores", code="200", seconds=0.7, size=500))
    counters.add(Exchange("scores", code="timed_out", seconds=20))
    counters.add(Exchange("stats", code="503", seconds=0.01))
    page = parse_page(generate_latest(counters.registry).decode())
    assert page[series("chutes_api_requests_total", endpoint="scores", code="200")] == 2
    assert page[series("chutes_api_requests_total", endpoint="scores", code="timed_out")] == 1
    assert page[series("chutes_api_requests_total", endpoint="stats", code="503")] == 1
    assert page[series("chutes_api_response_bytes_total", endpoint="scores")] == 1500
    assert page[series("chutes_api_rejected_records_total", endpoint="scores")] == 3
    assert page[series("chutes_api_request_duration_seconds_sum", endpoint="scores")] == pytest.approx(20.9)
    for bound, count in (("0.1", 0), ("0.25", 1), ("1.0", 2), ("10.0", 2), ("30.0", 3)):
        assert page[series("chutes_api_request_duration_seconds_bucket", endpoint="scores", le=bound)] == count
