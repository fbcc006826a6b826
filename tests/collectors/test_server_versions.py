from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.api.errors import CutOffError
from chutes_exporter.collectors.server_versions import COLLECTOR
from chutes_exporter.feeds.table import SERVERS, TEE_MEASUREMENTS
from tests.collectors.support import answer, collected

VERSIONS = [{"version": "1.3.1", "name": "8xpro_6000"}, {"version": "1.4.0", "name": "8xh200"}]


def run(server: dict[str, Any], **options: Any) -> dict[str, float]:
    servers = {"servers": [{"server_id": "s", **server}]}
    return collected(COLLECTOR, {SERVERS: servers, TEE_MEASUREMENTS: VERSIONS}, **options).samples


@pytest.mark.parametrize(("version", "accepted"), [("1.3.1", 1), ("1.4.0", 1), ("1.3.0", 0), (None, 0)])
def test_a_version_is_accepted_if_the_list_has_it(version: str | None, accepted: int) -> None:
    assert run({"is_tee": True, "version": version}) == {
        "chutes_server_version_accepted{hotkey=me,server_id=s}": accepted
    }


def test_servers_without_tee_or_with_an_unknown_version_have_no_sample() -> None:
    assert run({"is_tee": False, "version": None}) == run({"is_tee": True}) == run({"version": "1.4.0"}) == {}


def test_an_incomplete_list_refuses_no_version() -> None:
    assert run({"is_tee": True, "version": "1.3.0"}, doubted=(TEE_MEASUREMENTS,)) == {}
    with pytest.raises(CutOffError):
        answer(TEE_MEASUREMENTS, [])
