from __future__ import annotations

from chutes_exporter.api.endpoints import ENDPOINTS, RELEASE_JOB, stats_params
from tests.support import HOTKEY


def test_only_the_release_of_a_job_changes_something() -> None:
    assert [endpoint for endpoint in ENDPOINTS if endpoint.method != "GET"] == [RELEASE_JOB]


def test_stats_can_be_asked_about_one_miner_and_about_each_chute() -> None:
    assert stats_params() == {}
    assert stats_params(HOTKEY, per_chute=True) == {"miner_hotkey": HOTKEY, "per_chute": "true"}
