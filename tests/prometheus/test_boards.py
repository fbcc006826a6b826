"""Queries of boards in situations that no world has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.boards import BOARDS
from tests.grafana.answers import filled_in
from tests.prometheus.scenario import HOTKEY, Scenario, run_promtool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grafana.panels import Query

FLEET = "chutes-fleet"
ME = f'hotkey="{HOTKEY}"'


def queries(uid: str, title: str) -> Sequence[Query]:
    (board,) = (board for board in BOARDS if board.uid == uid)
    return next(panel.queries for panel in board.panels if panel.title == title)


def asked(uid: str, title: str, number: int, *hotkeys: str) -> str:
    """Return a query of a panel by its place, from 0, with some miners chosen."""
    return filled_in(queries(uid, title)[number].expr, hotkeys or [HOTKEY], HOTKEY)


def test_no_part_of_several_miners_is_shown_as_the_whole_also_without_the_rules(
    tmp_path: Path,
) -> None:
    exporter = 'job="chutes",instance="one:1"'
    earned = asked("chutes-overview", "Earned per day", 0, HOTKEY, "other")
    # The pay of the other miner is unknown.
    watched = f'chutes_fleet_known{{{exporter},hotkey="other",topic="servers"}}'
    series = [
        {"series": f"chutes_miner_estimated_usd_per_day{{{exporter},{ME}}}", "values": "3x10"},
        {"series": watched, "values": "1x10"},
    ]
    nothing: dict[str, object] = {"expr": earned, "eval_time": "5m", "exp_samples": []}
    # Without files, promtool has no rules.
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [nothing]}
    run_promtool(tmp_path / "test.yml", rule_files=[], tests=[test])


def test_while_a_loss_is_unknown_the_board_shows_at_least_what_is_known(tmp_path: Path) -> None:
    miner = Scenario(30, exporters=("one:1", "two:2"))
    miner.set("chutes_audit_reports_known", 23).set("chutes_audit_reports_known", 24, 10)
    miner.set("chutes_miner_window_total_lost_compute_units", 20, window="1d")
    miner.set("chutes_miner_unknown_losses", 0, 10, window="1d")
    # From 0:20 on, a loss is unknown although the reports of all 24 hours are there.
    miner.set("chutes_miner_unknown_losses", 1, 20, window="1d")
    lost, least, hours = (asked("chutes-instances", "Lost in 24 h", number) for number in (1, 2, 3))
    miner.check(
        tmp_path,
        {},
        values={
            lost: (5, {}),
            least: (5, {"{}": 20}),
            hours: (5, {"{}": 23}),
            # In parentheses, they are the same queries, at other minutes.
            f"({lost})": (15, {"{}": 20}),
            f"({least})": (15, {}),
            f"({hours})": (15, {}),
            f"(({lost}))": (25, {}),
            f"(({least}))": (25, {"{}": 20}),
            f"(({hours}))": (25, {"{}": 24}),
        },
    )


def shows(
    tmp_path: Path, series: dict[str, str], shown: dict[str, tuple[int, dict[str, float]]]
) -> None:
    """Check what queries show at a minute, with the values of series in each minute.

    ``shown`` has one minute for a query. With parentheses around it, a query has another one.
    """
    tests = [
        {
            "expr": query,
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": row, "value": number} for row, number in rows.items()],
        }
        for query, (minute, rows) in shown.items()
    ]
    inputs = [
        {"series": name.replace("{", f'{{job="chutes",instance="one:1",{ME},'), "values": values}
        for name, values in series.items()
    ]
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": tests}
    run_promtool(tmp_path / "test.yml", evaluation_interval="1m", tests=[test])


def place(server: str) -> str:
    return f'server_id="id-{server}",server="{server}"'


def test_states_add_up_while_only_one_of_two_exporters_sees_a_change(tmp_path: Path) -> None:
    series = []
    # At 0:20, one of 8 things goes to another state. The second exporter sees it 2 minutes later.
    for exporter, minutes in (("one:1", 20), ("two:2", 22)):
        for state, before, after in (("starting", 8, 7), ("disabled", 0, 1)):
            target = f'{ME},state="{state}",job="chutes",instance="{exporter}",gpu="b200"'
            values = f"{before}x{minutes - 1} {after}x40"
            series.append({"series": f"chutes_fleet_gpus{{{target}}}", "values": values})
    query = f"sum({asked('chutes-overview', 'GPUs by state', 0)})"
    tests = [
        {"expr": query, "eval_time": f"{at}m", "exp_samples": [{"labels": "{}", "value": 8}]}
        for at in (10, 21, 30)
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    run_promtool(tmp_path / "test.yml", evaluation_interval="1m", tests=[test])


def test_a_server_is_to_be_booted_only_if_all_exporters_say_so(tmp_path: Path) -> None:
    boot, wait = 'step="boot"', 'step="do not reboot until"'
    metric = f"chutes_server_maintenance_step{{{place('alpha')},"
    # The second exporter has an older answer, until 0:10.
    series = {
        f'{metric}{boot},pod="one"}}': "1x60",
        f'{metric}{wait},pod="one"}}': "0x60",
        f'{metric}{boot},pod="two"}}': "0x10 1x50",
        f'{metric}{wait},pod="two"}}': "1x10 0x50",
    }
    steps = asked("chutes-fleet", "Maintenance", 0)
    # In parentheses, it is the same query, at another minute.
    shown = {
        steps: (5, {f"{{{ME},{place('alpha')},{wait}}}": 1.0}),
        f"({steps})": (40, {f"{{{ME},{place('alpha')},{boot}}}": 1.0}),
    }
    shows(tmp_path, series, shown)


def test_of_ends_no_part_is_shown_as_all_while_a_reason_is_unknown(tmp_path: Path) -> None:
    def ended(reason: str, values: str) -> dict[str, str]:
        labels = f'window="1h",reason="{reason}",outcome="counts"'
        return {f"chutes_miner_window_ended_instances{{{labels}}}": values}

    series = {
        'chutes_fleet_known{topic="servers"}': "1x60",
    }
    # After 0:20, a chute has two ends, and how many ended for the reason `none` is unknown.
    chute = 'window="1h",chute_id="c-1",outcome="counts"'
    series[f"chutes_miner_chute_window_ended_instances{{{chute}}}"] = "_x20 2x40"
    series |= ended("miner", "0x60") | ended("none", "0x20 _x40")
    # This is the row that says that none ended. In parentheses, it is the same query, at another
    # minute.
    none = asked("chutes-instances", "Ended in the hour to $report:00 UTC", 0)
    shown: dict[str, tuple[int, dict[str, float]]] = {
        none: (10, {'{reason="nothing"}': 1}),
        f"({none})": (40, {}),
    }
    shows(tmp_path, series, shown)
