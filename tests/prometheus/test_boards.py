"""Queries of boards in situations that no world has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.boards import BOARDS
from tests.grafana.answers import filled_in
from tests.prometheus.history import HOTKEY, PAIR
from tests.prometheus.scenario import Scenario
from tests.promtool import run_promtool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana.panels import Query

FLEET = "chutes-fleet"
IDLE = ["ChutesGpusIdle warning", "ChutesGpusIdle critical"]
ME = f'hotkey="{HOTKEY}"'


def queries(uid: str, title: str) -> Sequence[Query]:
    (board,) = (board for board in BOARDS if board.uid == uid)
    return next(panel.queries for panel in board.panels if panel.title == title)


def asked(uid: str, title: str, number: int, *hotkeys: str) -> str:
    """Return a query of a panel by its place, from 0, with some miners chosen."""
    return filled_in(queries(uid, title)[number].expr, hotkeys or [HOTKEY], HOTKEY)


def test_no_part_of_several_miners_is_shown_as_the_whole_also_without_the_rules() -> None:
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
    run_promtool(rule_files=[], tests=[test])


def test_while_a_loss_is_unknown_the_board_shows_at_least_what_is_known() -> None:
    miner = Scenario(30, exporters=PAIR)
    miner.set("chutes_audit_reports_known", 23).set("chutes_audit_reports_known", 24, at=10)
    miner.set("chutes_miner_window_total_lost_compute_units", 20, window="1d")
    miner.set("chutes_miner_unknown_losses", 0, at=10, window="1d")
    # From 0:20 on, a loss is unknown although the reports of all 24 hours are there.
    miner.set("chutes_miner_unknown_losses", 1, at=20, window="1d")
    lost, least, hours = (asked("chutes-instances", "Lost in 24 h", number) for number in (1, 2, 3))
    miner.expect_values(lost, {5: {}, 15: {"{}": 20}, 25: {}})
    miner.expect_values(least, {5: {"{}": 20}, 15: {}, 25: {"{}": 20}})
    miner.expect_values(hours, {5: {"{}": 23}, 15: {}, 25: {"{}": 24}})
    miner.check()


def test_states_add_up_while_only_one_of_two_exporters_sees_a_change() -> None:
    pair = Scenario(30, exporters=PAIR)
    # At 0:20, one of 8 GPUs goes to another state. The second exporter sees it 2 minutes later.
    for exporter, minute in (("one:1", 20), ("two:2", 22)):
        for state, before, after in (("starting", 8, 7), ("disabled", 0, 1)):
            labels = {"gpu": "b200", "state": state, "exporter": exporter}
            pair.set("chutes_fleet_gpus", before, at=0, **labels)
            pair.set("chutes_fleet_gpus", after, at=minute, **labels)
    query = f"sum({asked('chutes-overview', 'GPUs by state', 0)})"
    pair.expect_values(query, {minute: {"{}": 8} for minute in (10, 21, 30)}).check()


def test_a_server_is_to_be_booted_only_if_all_exporters_say_so() -> None:
    pair = Scenario(30, exporters=PAIR)
    pair.set_step("alpha", "boot", exporter="one:1")
    # The second exporter has an older answer, until 0:10.
    pair.set_step("alpha", "await_drain", exporter="two:2")
    pair.set_step("alpha", "boot", at=10, exporter="two:2")
    shown = asked("chutes-fleet", "Maintenance", 0)
    row = f'{ME},server_id="id-alpha",server="alpha"'
    do_not_reboot, boot = f'{{{row},step="await_drain"}}', f'{{{row},step="boot"}}'
    pair.expect_values(shown, {5: {do_not_reboot: 1}, 25: {boot: 1}}).check()


def test_a_server_that_never_earned_has_not_earned_since_it_was_first_seen() -> None:
    miner = Scenario(120, {"alpha": 1, "beta": 1})
    miner.set_gpus("alpha", idle=1).set_gpus("beta", at=65, idle=1)
    since = asked(FLEET, "Servers", 1)
    # It looks at every tenth minute.
    row = f'{ME},server_id="id-{{0}}",server="{{0}}"'
    minutes = {"alpha": 120, "beta": 60}
    found = {f"{{{row.format(name)}}}": 60 * number for name, number in minutes.items()}
    miner.expect_alerts({}, between=IDLE).expect_values(since, {120: found}).check()


def test_of_ends_no_part_is_shown_as_all_while_a_reason_is_unknown() -> None:
    miner = Scenario(50)
    ends = "chutes_miner_window_ended_instances"
    counts = {"window": "1h", "outcome": "counts"}
    miner.set(ends, 0, at=0, **counts, reason="miner").set(ends, 0, at=0, **counts, reason="none")
    # After 0:20, a chute has two ends, and how many ended for the reason `none` is unknown.
    miner.set("chutes_miner_chute_window_ended_instances", 2, at=20, **counts, chute_id="c-1")
    miner.drop(ends, at=20, reason="none")
    # This is the row that says that none ended.
    none = asked("chutes-instances", "Ended in the hour to $report:00 UTC", 0)
    miner.expect_values(none, {10: {'{reason="nothing"}': 1}, 40: {}}).check()
