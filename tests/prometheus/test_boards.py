"""Queries of boards in situations that no world has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.boards import BOARDS
from grafana.boards.fleet import SERVERS
from grafana.states import KEYLESS, NOTHING, UNWATCHED
from tests.grafana.scenes import filled_in
from tests.prometheus.scenario import HOTKEY, HOUR, Scenario, run_promtool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grafana.parts import Query

ME = f'hotkey="{HOTKEY}"'


def queries(uid: str, title: str) -> Sequence[Query]:
    (board,) = (board for board in BOARDS if board.uid == uid)
    return next(panel.queries for panel in board.panels if panel.title == title)


def asked(uid: str, title: str, number: int, *hotkeys: str) -> str:
    return filled_in(queries(uid, title)[number].expr, hotkeys or [HOTKEY], HOTKEY)


def test_without_a_watched_miner_there_is_no_number_of_alerts_and_the_table_says_why(
    tmp_path: Path,
) -> None:
    miner = Scenario(30)
    miner.drop(0, "chutes_miner_watched")
    # Grafana has no hotkey to choose.
    critical = asked("chutes-overview", "Alerts", 0, "")
    nothing, unwatched = (
        asked("chutes-overview", "What is wrong", number, "") for number in (1, 2)
    )
    row = f'{{alertname="{UNWATCHED.value}"}}'
    servers, instances = (
        asked("chutes-fleet", SERVERS, 0, ""),
        asked("chutes-instances", "Instances", 4, ""),
    )
    rows = (f'{{{label}="{UNWATCHED.text}"}}' for label in ("server", "name"))
    miner.check(
        tmp_path,
        {},
        values={
            critical: (20, {}),
            nothing: (20, {}),
            unwatched: (20, {row: 1}),
            **{
                query: (20, {row: 1}) for query, row in zip((servers, instances), rows, strict=True)
            },
        },
    )


def test_with_a_watched_miner_there_are_no_alerts_also_while_scrapes_are_missed(
    tmp_path: Path,
) -> None:
    for has_key in (True, False):
        miner = Scenario(30)
        miner.fail("one:1", range(18, 22))
        if has_key:
            miner.set("chutes_feed_ttl_seconds", 55, feed="nodes", hotkey=HOTKEY)
        critical = asked("chutes-overview", "Alerts", 0)
        nothing, unwatched, keyless = (
            asked("chutes-overview", "What is wrong", number) for number in (1, 2, 3)
        )
        rows = [{f'{{alertname="{state.value}"}}': 1} for state in (NOTHING, KEYLESS)]
        miner.check(
            tmp_path,
            {},
            values={
                critical: (20, {"{}": 0}),
                unwatched: (20, {}),
                nothing: (20, rows[0] if has_key else {}),
                keyless: (20, {} if has_key else rows[1]),
            },
        )


def test_without_the_rules_no_part_of_several_miners_is_shown_as_the_whole(tmp_path: Path) -> None:
    # The other miner, whose instances are unknown, cannot be missed.
    known = f'chutes_fleet_instances{{job="chutes",instance="one:1",{ME},state="active"}}'
    active = asked("chutes-instances", "Active", 0, HOTKEY, "other")
    shown = {f"count({active})": [{"labels": "{}", "value": 1}], f"{active} >= 0": []}
    tests = [
        {"expr": f"({query})", "eval_time": "5m", "exp_samples": expected}
        for query, expected in shown.items()
    ]
    series = [{"series": known, "values": "3x10"}]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    run_promtool(tmp_path / "test.yml", rule_files=[], tests=[test])


def test_ends_are_known_since_the_end_of_the_last_gap(tmp_path: Path) -> None:
    # The report of 3:00 is missing.
    miner = Scenario(6 * HOUR, step=4)
    miner.set("chutes_miner_window_lost_compute_units", 1, window="1h")
    for hour in (1, 2, 4, 5):
        miner.set("chutes_audit_report_end_timestamp_seconds", 3600 * hour, HOUR * hour + 4)
    since = asked("chutes-instances", "Lost units", 3)
    miner.check(
        tmp_path,
        {},
        values={
            since: (2 * HOUR + 8, {"{}": 0}),
            f"({since})": (5 * HOUR + 8, {"{}": 3 * 3600 * 1000}),
        },
    )


def test_a_bar_counts_the_ends_of_the_hour_before_it(tmp_path: Path) -> None:
    miner = Scenario(4 * HOUR, step=4)
    for hour in (1, 2):
        miner.set("chutes_audit_report_end_timestamp_seconds", 3600 * hour, HOUR * hour + 4)
        miner.set("chutes_miner_window_failed_starts", hour, HOUR * hour + 4, window="1h")
    failed = asked("chutes-instances", "Ended per hour by reason", 1)
    # The report of 3:00 does not come.
    miner.check(tmp_path, {}, values={failed: (2 * HOUR, {"{}": 2}), f"({failed})": (3 * HOUR, {})})


def test_the_fleet_is_not_counted_while_the_state_of_a_gpu_is_unknown(tmp_path: Path) -> None:
    titles = ("All", "Earning", "Idle", "Unverified")
    miner = Scenario(10, {"alpha": 6, "beta": 2})
    miner.state(0, ["alpha-0", "beta-0"], "idle")
    numbers = (8, 0.75, 2, 0)
    miner.check(
        tmp_path,
        {},
        values={
            asked("chutes-fleet", title, 0): (5, {"{}": number})
            for title, number in zip(titles, numbers, strict=True)
        },
    )
    miner.drop(0, "chutes_gpu_state_info", gpu_id="alpha-0")
    rows = {f'{{{ME},server_id="id-beta",server="beta",gpu="pro_6000"}}': 1.0}
    values = {asked("chutes-fleet", title, 0): (5, dict[str, float]()) for title in titles}
    miner.check(tmp_path, {}, values={**values, asked("chutes-fleet", SERVERS, 8): (5, rows)})
