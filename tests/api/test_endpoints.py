"""The table of endpoints."""

from __future__ import annotations

from chutes_exporter.api.endpoints import ENDPOINTS, RELEASE_JOB, stats_params
from tests.support import HOTKEY


def test_every_endpoint_has_its_own_name_and_address() -> None:
    assert len({endpoint.name for endpoint in ENDPOINTS}) == len(ENDPOINTS)
    # The same path is asked about all miners or about one.
    assert len({(endpoint.method, endpoint.path, endpoint.scope) for endpoint in ENDPOINTS}) == len(ENDPOINTS)


def test_only_the_release_of_a_job_changes_something() -> None:
    assert [endpoint for endpoint in ENDPOINTS if endpoint.method != "GET"] == [RELEASE_JOB]


def test_answers_about_the_signing_miner_need_a_signature() -> None:
    assert all(endpoint.signed for endpoint in ENDPOINTS if endpoint.scope == "signer")


def test_stats_can_be_asked_about_one_miner_and_about_each_chute() -> None:
    assert stats_params() == {}
    assert stats_params(HOTKEY) == {"miner_hotkey": HOTKEY}
    assert stats_params(per_chute=True) == {"per_chute": "true"}
    assert stats_params(HOTKEY, per_chute=True) == {"miner_hotkey": HOTKEY, "per_chute": "true"}
