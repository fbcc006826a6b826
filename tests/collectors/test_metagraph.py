from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.collectors.metagraph import COLLECTOR
from chutes_exporter.feeds.table import METAGRAPH
from tests.collectors.support import ME, NOON, UNREADABLE, Collected, collected

if TYPE_CHECKING:
    from chutes_exporter.collectors import MinersChoice


def seat(hotkey: str, **fields: Any) -> dict[str, Any]:
    return {"hotkey": hotkey, "incentive": 0.0, "blacklist_reason": None} | fields


def run(*seats: dict[str, Any], **options: Any) -> Collected:
    return collected(COLLECTOR, {METAGRAPH: list(seats)}, **options)


def test_a_seat_has_its_stake_its_incentive_and_its_place() -> None:
    mine = seat(
        ME,
        coldkey="cold",
        node_id=7,
        incentive=16384.0,
        vtrust=13107.0,
        stake=100.5,
        tao_stake=0.5,
        alpha_stake=1000.0,
        synced_at="2026-11-24T12:00:00",
    )
    made = run(mine, seat("best", incentive=32768.0), seat("second", incentive=16384.0), seat("last"))
    assert made.samples == {
        "chutes_metagraph_miners": 4,
        "chutes_metagraph_blacklisted_miners": 0,
        "chutes_miner_registered{hotkey=me}": 1,
        "chutes_miner_blacklisted{hotkey=me}": 0,
        "chutes_miner_info{hotkey=me,coldkey=cold,uid=7}": 1,
        "chutes_miner_stake{hotkey=me}": 100.5,
        "chutes_miner_stake_tao{hotkey=me}": 0.5,
        "chutes_miner_stake_alpha{hotkey=me}": 1000,
        # The API's synced_at is the time of the registration, and its vtrust is the consensus.
        "chutes_miner_registered_timestamp_seconds{hotkey=me}": NOON,
        "chutes_miner_consensus_ratio{hotkey=me}": 13107 / 65535,
        "chutes_miner_incentive_ratio{hotkey=me}": 0.25,
        "chutes_miner_incentive_rank{hotkey=me}": 2,
        "chutes_miner_seats_behind{hotkey=me}": 1,
    }


def test_a_watched_miner_without_a_seat_is_not_registered() -> None:
    assert run(seat("other")).samples == {
        "chutes_metagraph_miners": 1,
        "chutes_metagraph_blacklisted_miners": 0,
        "chutes_miner_registered{hotkey=me}": 0,
    }


@pytest.mark.parametrize(
    ("miners", "exported"),
    [("watched", {"me"}), ("active", {"me", "earning"}), ("all", {"me", "earning", "idle", "unknown"})],
)
def test_other_miners_are_exported_where_the_user_wants_them(miners: MinersChoice, exported: set[str]) -> None:
    seats = [seat(ME), seat("earning", incentive=1.0), seat("idle"), seat("unknown", incentive=None)]
    made = run(*seats, miners=miners)
    assert made.of("chutes_miner_registered").keys() == {f"chutes_miner_registered{{hotkey={one}}}" for one in exported}
    assert made.samples["chutes_metagraph_miners"] == 4


def test_a_reason_with_text_is_a_blacklisting() -> None:
    made = run(seat("a", blacklist_reason="abuse"), seat("b", blacklist_reason=""), seat("c"), miners="all")
    assert made.of(
        "chutes_miner_blacklisted", "chutes_miner_blacklist_info", "chutes_metagraph_blacklisted_miners"
    ) == {
        "chutes_miner_blacklisted{hotkey=a}": 1,
        "chutes_miner_blacklist_info{hotkey=a,reason=abuse}": 1,
        "chutes_miner_blacklisted{hotkey=b}": 0,
        "chutes_miner_blacklisted{hotkey=c}": 0,
        "chutes_metagraph_blacklisted_miners": 1,
    }


def test_a_seat_without_the_blacklist_field_hides_the_number_of_blacklisted_seats() -> None:
    made = run(seat("a", blacklist_reason="abuse"), {"hotkey": "b", "incentive": 0.0}, miners="all")
    assert made.of("chutes_miner_blacklisted", "chutes_metagraph_blacklisted_miners") == {
        "chutes_miner_blacklisted{hotkey=a}": 1
    }


def test_equal_incentives_have_equal_places_and_the_last_has_nobody_behind() -> None:
    seats = [seat("a", incentive=2.0), seat("b", incentive=2.0), seat("c"), seat("d")]
    made = run(*seats, miners="all")
    assert made.of("chutes_miner_incentive_rank", "chutes_miner_seats_behind") == {
        "chutes_miner_incentive_rank{hotkey=a}": 1,
        "chutes_miner_incentive_rank{hotkey=b}": 1,
        "chutes_miner_incentive_rank{hotkey=c}": 3,
        "chutes_miner_incentive_rank{hotkey=d}": 3,
        "chutes_miner_seats_behind{hotkey=a}": 2,
        "chutes_miner_seats_behind{hotkey=b}": 2,
        "chutes_miner_seats_behind{hotkey=c}": 0,
        "chutes_miner_seats_behind{hotkey=d}": 0,
    }


INCENTIVES = ("chutes_miner_incentive_ratio", "chutes_miner_incentive_rank", "chutes_miner_seats_behind")


@pytest.mark.parametrize("other", [seat("other", incentive=None), UNREADABLE])
def test_the_unknown_incentive_of_one_seat_hides_all_shares_and_places(other: dict[str, Any]) -> None:
    made = run(seat(ME, incentive=5.0), other)
    assert made.of(*INCENTIVES) == {}
    assert made.samples["chutes_miner_registered{hotkey=me}"] == 1


def test_where_no_seat_has_an_incentive_nobody_has_a_share() -> None:
    assert run(seat(ME), seat("other")).of(*INCENTIVES) == {}


def test_a_seat_that_is_listed_twice_counts_once() -> None:
    made = run(seat(ME, stake=0.5), seat(ME, stake=0.75))
    assert made.samples["chutes_metagraph_miners"] == 1
    assert made.samples["chutes_miner_stake{hotkey=me}"] == 0.5
    assert made.duplicates == 1


def test_an_incomplete_answer_shows_the_seats_that_it_has_and_concludes_nothing() -> None:
    seats = (seat(ME, incentive=1.0, stake=2.0),)
    for made in (
        run(*seats, UNREADABLE, watched=[ME, "missing"]),
        run(*seats, doubted=[METAGRAPH], watched=[ME, "missing"]),
    ):
        assert made.samples == {
            "chutes_miner_registered{hotkey=me}": 1,
            "chutes_miner_blacklisted{hotkey=me}": 0,
            "chutes_miner_info{hotkey=me}": 1,
            "chutes_miner_stake{hotkey=me}": 2,
        }
