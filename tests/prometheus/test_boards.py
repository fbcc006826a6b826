"""Queries of boards in situations that no world has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.boards import BOARDS
from grafana.boards.fleet import SERVERS
from grafana.states import UNWATCHED
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


def test_without_a_watched_miner_the_tables_say_so(tmp_path: Path) -> None:
    miner = Scenario(30)
    miner.drop(0, "chutes_miner_watched")
    # Grafana has no hotkey to choose.
    servers, instances = (
        asked("chutes-fleet", SERVERS, 1, ""),
        asked("chutes-instances", "Instances that need a decision", 2, ""),
    )
    rows = (f'{{{label}="{UNWATCHED.text}"}}' for label in ("server", "chute"))
    miner.check(
        tmp_path,
        {},
        values={
            query: (20, {row: 1}) for query, row in zip((servers, instances), rows, strict=True)
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


def test_while_a_loss_is_unknown_the_board_says_how_many_hours_are_known(tmp_path: Path) -> None:
    miner = Scenario(30, exporters=("one:1", "two:2"))
    miner.set("chutes_audit_report_known_hours", 23).set("chutes_audit_report_known_hours", 24, 10)
    for reason in ("probes", "miner"):
        miner.set("chutes_miner_lost_compute_units", 10, 10, window="1d", reason=reason)
    miner.set("chutes_miner_losses_known", 0, window="1d")
    miner.set("chutes_miner_losses_known", 1, 10, window="1d")
    miner.set("chutes_miner_losses_known", 0, 20, window="1d")
    lost, hours = (asked("chutes-instances", "Lost units", number) for number in (0, 3))
    miner.check(
        tmp_path,
        {},
        values={
            lost: (5, {}),
            hours: (5, {"{}": 23}),
            f"({lost})": (15, {"{}": 20}),
            f"({hours})": (15, {}),
            f"(({lost}))": (25, {}),
            f"(({hours}))": (25, {"{}": 24}),
        },
    )


def test_a_bar_counts_the_ends_of_the_hour_before_it(tmp_path: Path) -> None:
    miner = Scenario(4 * HOUR, step=4)
    ended = {"reason": "probes", "outcome": "never_active"}
    for hour in (1, 2):
        miner.set("chutes_audit_report_end_timestamp_seconds", 3600 * hour, HOUR * hour + 4)
        for window, count in (("1h", hour), ("1d", 9)):
            at = HOUR * hour + 4
            miner.set("chutes_miner_ended_instances", count, at, window=window, **ended)
    failed = asked("chutes-instances", "Ended per hour by reason", 1)
    row = '{outcome="never_active"}'
    # The report of 3:00 does not come.
    miner.check(tmp_path, {}, values={failed: (2 * HOUR, {row: 2}), f"({failed})": (3 * HOUR, {})})


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
