from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.servers import COLLECTOR, VERSIONS
from chutes_exporter.feeds.table import SERVERS, TEE_MEASUREMENTS
from tests.collectors.support import Samples, collected, of


def server(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "server_id": f"s{number}",
        "name": f"name {number}",
        "ip": f"192.0.2.{number}",
        "gpus": [],
    } | fields


def run(*servers: dict[str, Any], **options: Any) -> Samples:
    return collected(COLLECTOR, {SERVERS: {"servers": list(servers)}}, **options)


def test_a_gpu_that_is_listed_twice_counts_once() -> None:
    made = run(server(1, gpus=[{"uuid": "g"}, {"uuid": "g"}]))
    assert of(made, "chutes_server_gpus") == {"chutes_server_gpus{hotkey=me,server_id=s1}": 1}


@pytest.mark.parametrize(
    "server", [{"is_tee": False, "version": None}, {"is_tee": True}, {"version": "1.4.0"}]
)
def test_servers_without_tee_or_with_an_unknown_version_have_no_sample(
    server: dict[str, Any],
) -> None:
    answers: dict[Any, Any] = {SERVERS: {"servers": [{"server_id": "s", **server}]}}
    assert collected(VERSIONS, answers | {TEE_MEASUREMENTS: [{"version": "1.4.0"}]}) == {}
