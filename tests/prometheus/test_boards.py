"""Queries of boards in situations that no world has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from grafana.boards import BOARDS
from grafana.boards.fleet import SERVERS
from grafana.states import MAINTENANCE, UNWATCHED
from tests.grafana.answers import filled_in
from tests.prometheus.scenario import HOTKEY, HOUR, Scenario, run_promtool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grafana.parts import Query

FLEET = "chutes-fleet"
ME = f'hotkey="{HOTKEY}"'


def queries(uid: str, title: str) -> Sequence[Query]:
    (board,) = (board for board in BOARDS if board.uid == uid)
    return next(panel.queries for panel in board.panels if panel.title == title)


def asked(uid: str, title: str, number: int, *hotkeys: str) -> str:
    """Return a query of a panel by its place, from 0, with some miners chosen."""
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


def test_an_announced_window_says_when_it_begins_and_names_no_next_server(tmp_path: Path) -> None:
    server = {"server_id": "id-alpha", "server": "alpha"}
    miner = Scenario(30, {"alpha": 8}).waits(2, 1).maintain(0, "alpha", "none").earns("alpha", 8)
    # alpha is the next server to upgrade.
    miner.set("chutes_server_upgrade_order", 1, **server).window(20 * HOUR)
    miner.set("chutes_maintenance_window_start_timestamp_seconds", 60 * 40)
    # It begins at 0:40 by the announcement, and at 0:25 in fact, within this short history.
    miner.set("chutes_maintenance_window_open", 0).set("chutes_maintenance_window_open", 1, 25)
    shown = {query.legend: number for number, query in enumerate(queries(FLEET, "Upgrade window"))}
    begins, cannot, after = (
        asked(FLEET, "Upgrade window", shown[legend])
        for legend in ("begins in", "cannot come back", "earn on the next, {{server}}")
    )
    row = f'{{{ME},server="alpha",server_id="id-alpha"}}'
    miner.check(
        tmp_path,
        {},
        values={
            begins: (20, {"{}": 1200}),
            cannot: (20, {}),
            after: (20, {}),
            # With `+ 0`, it is the same query, at another minute.
            f"{cannot} + 0": (28, {"{}": 1}),
            f"{after} + 0": (28, {row: 8}),
        },
    )


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
    lost, least, hours = (asked("chutes-instances", "Lost in 24 h", number) for number in (1, 4, 5))
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


def test_a_bar_counts_the_ends_of_the_hour_before_it(tmp_path: Path) -> None:
    miner = Scenario(4 * HOUR, step=4)
    ended = {"reason": "probes", "outcome": "never_active"}
    # The report of an hour comes 4 minutes after it. The 9 ends of the day must not count.
    for hour in (1, 2):
        miner.set("chutes_audit_report_end_timestamp_seconds", 3600 * hour, HOUR * hour + 4)
        for window, count in (("1h", hour), ("1d", 9)):
            at = HOUR * hour + 4
            miner.set("chutes_miner_window_ended_instances", count, at, window=window, **ended)
    failed = asked("chutes-instances", "Ended per hour by reason", 1)
    row = '{outcome="never_active"}'
    # The report of 3:00 does not come. In parentheses, it is the same query, at another minute.
    miner.check(tmp_path, {}, values={failed: (2 * HOUR, {row: 2}), f"({failed})": (3 * HOUR, {})})


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


def gpus(server: str, **states: str) -> dict[str, str]:
    """Return the series of the GPUs of a server by state."""
    return {
        f'chutes_server_gpus{{{place(server)},gpu="pro_6000",state="{state}"}}': values
        for state, values in states.items()
    }


IN_MAINTENANCE = 'chutes_server_state{{{},state="in_maintenance"}}'
KNOWN = {
    'chutes_fleet_known{topic="servers"}': "1x60",
    'chutes_fleet_known{topic="gpus"}': "1x60",
}


@pytest.mark.parametrize(
    ("uid", "title", "metric", "of_thing"),
    [
        ("chutes-overview", "GPUs by state", "chutes_fleet_gpus", 'gpu="pro_6000"'),
        ("chutes-fleet", "GPUs by state", "chutes_server_gpus", f'{place("alpha")},gpu="pro_6000"'),
        ("chutes-instances", "Instances by state", "chutes_fleet_instances", ""),
    ],
)
def test_states_add_up_while_only_one_of_two_exporters_sees_a_change(
    uid: str, title: str, metric: str, of_thing: str, tmp_path: Path
) -> None:
    series = []
    # At 0:20, one of 8 things goes to another state. The second exporter sees it 2 minutes later.
    for exporter, minutes in (("one:1", 20), ("two:2", 22)):
        for state, before, after in (("starting", 8, 7), ("disabled", 0, 1)):
            target = f'{ME},state="{state}",job="chutes",instance="{exporter}",{of_thing}'
            values = f"{before}x{minutes - 1} {after}x40"
            series.append({"series": f"{metric}{{{target}}}", "values": values})
    query = f"sum({asked(uid, title, 0)})"
    tests = [
        {"expr": query, "eval_time": f"{at}m", "exp_samples": [{"labels": "{}", "value": 8}]}
        for at in (10, 21, 30)
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    run_promtool(tmp_path / "test.yml", evaluation_interval="1m", tests=[test])


def test_the_fleet_is_not_counted_while_the_state_of_a_gpu_is_unknown(tmp_path: Path) -> None:
    # From 0:21 on, the states of alpha's GPUs are unknown.
    series = {
        **KNOWN,
        **gpus("alpha", earning="5x20 _x40", idle="1x20 _x40", unverified="0x20 _x40"),
        **gpus("beta", earning="1x60", idle="1x60", unverified="0x60"),
        'chutes_fleet_known{topic="gpus"}': "1x20 0x40",
    }
    shown: dict[str, tuple[int, dict[str, float]]] = {}
    # Before, 6 of 8 GPUs earn.
    for title, number in {"All": 8, "Earning": 0.75, "Idle": 2, "Unverified": 0}.items():
        query = asked("chutes-fleet", title, 0)
        # In parentheses, it is the same query, at another minute.
        shown |= {query: (10, {"{}": number}), f"({query})": (40, {})}
    # The other server keeps its row.
    idle = asked("chutes-fleet", SERVERS, 7)
    shown[idle] = (40, {f"{{{ME},{place('beta')}}}": 1})
    shows(tmp_path, series, shown)


def test_the_time_without_earnings_is_that_of_a_server_that_is_still_seen(tmp_path: Path) -> None:
    # One of alpha's GPUs is idle after 0:20, and alpha is gone after 1:21. beta is gone after 0:20.
    # gamma never earns.
    series = {
        **gpus("alpha", earning="2x20 1x60 _x60", idle="0x20 1x60 _x60"),
        **gpus("beta", earning="2x20 _x120", idle="0x20 _x120"),
        **gpus("gamma", earning="0x120", idle="2x120"),
    }
    since = asked("chutes-fleet", SERVERS, 2)
    alpha, gamma = (f"{{{ME},{place(server)}}}" for server in ("alpha", "gamma"))
    shown: dict[str, tuple[int, dict[str, float]]] = {
        # Each 5 minutes of the past are looked at. All of alpha earned at 0:20 for the last time.
        since: (80, {alpha: 60 * 60, gamma: 80 * 60}),
        # In parentheses, it is the same query, at another minute.
        f"({since})": (110, {gamma: 110 * 60}),
    }
    shows(tmp_path, series, shown)


def test_an_alert_about_no_server_is_no_cause_on_a_server(tmp_path: Path) -> None:
    fires = 'alertstate="firing"'
    series = {
        f'ALERTS{{alertname="ChutesDayLoss",{fires}}}': "1x10",
        f'ALERTS{{alertname="ChutesGpusIdle",{fires},{place("alpha")}}}': "1x10",
    }
    # The label `first` becomes the text of what to do first.
    cause = asked("chutes-fleet", SERVERS, 3)
    row = f'{{{ME},server_id="id-alpha",alertname="ChutesGpusIdle",first="ChutesGpusIdle"}}'
    shows(tmp_path, series, {cause: (5, {row: 1})})


def test_in_maintenance_the_step_depends_on_what_earns_there(tmp_path: Path) -> None:
    series = {
        f'chutes_server_maintenance_state{{{place("alpha")},state="{state}"}}': values
        for state, values in (("none", "0x60"), ("pending", "0x60"), ("maintenance", "1x60"))
    }
    series[f"chutes_server_earning_instances{{{place('alpha')}}}"] = "1x10 0x10 _x40"
    step, row = asked("chutes-fleet", "Maintenance", 0), f"{{{ME},{place('alpha')}}}"
    texts = {state.value: state.text for state in MAINTENANCE}
    assert "do not reboot" in texts[2]
    assert "nothing earns" in texts[3]
    # While it is unknown whether something earns, as at 0:40, it must not be booted.
    # In parentheses, it is the same query, at other minutes.
    shown = {step: (5, {row: 2.0}), f"({step})": (15, {row: 3.0}), f"(({step}))": (40, {row: 2.0})}
    shows(tmp_path, series, shown)


def test_none_needs_a_decision_only_if_that_is_known_of_each_instance(tmp_path: Path) -> None:
    labels = 'instance_id="i-1",chute_id="c-1",chute="glm",private="false"'
    series = {
        'chutes_fleet_instances{state="starting"}': "1x60",
        f'chutes_instance_state{{{labels},state="starting"}}': "1x60",
        f'chutes_instance_decision{{{labels},decision="none"}}': "1x20 _x40",
    }
    # From 0:21 on, nothing is known of the instance.
    row_without_any = asked("chutes-instances", "Instances that need a decision", 1)
    known = {row_without_any: (10, {'{chute="nothing"}': 1.0})}
    # In parentheses, it is the same query, at another minute.
    unknown = {f"({row_without_any})": (40, dict[str, float]())}
    shows(tmp_path, series, known | unknown)


def test_a_decision_that_one_of_two_exporters_sees_is_shown(tmp_path: Path) -> None:
    labels = 'instance_id="i-1",chute_id="c-1",chute="glm",private="false"'
    series = {
        'chutes_fleet_instances{state="starting"}': "1x60",
        f'chutes_instance_state{{{labels},state="starting"}}': "1x60",
        # Both are of the same miner.
        f'chutes_instance_decision{{replica="a",{labels},decision="in_vain"}}': "1x60",
        f'chutes_instance_decision{{replica="b",{labels},decision="none"}}': "1x60",
    }
    row_without_any = asked("chutes-instances", "Instances that need a decision", 1)
    # The row that says that none needs a decision is absent.
    shows(tmp_path, series, {row_without_any: (10, dict[str, float]())})


def test_without_the_rules_no_start_is_counted_and_no_instance_needs_no_decision(
    tmp_path: Path,
) -> None:
    exporter = f'job="chutes",instance="one:1",{ME}'
    labels = 'instance_id="i-1",chute_id="c-1",chute="glm",private="false"'
    series = {
        f'chutes_fleet_instances{{{exporter},state="starting"}}': "1x10",
        f'chutes_instance_state{{{exporter},{labels},state="starting"}}': "1x10",
        f'chutes_instance_decision{{{exporter},{labels},decision="none"}}': "1x10",
    }
    queries = (
        asked("chutes-instances", "Starting", 1),
        asked("chutes-instances", "Not secured", 0),
        asked("chutes-instances", "Instances that need a decision", 1),
    )
    # Each of them shows nothing. Without files, promtool has no rules.
    tests = [{"expr": query, "eval_time": "5m", "exp_samples": list[object]()} for query in queries]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": tests}
    run_promtool(tmp_path / "test.yml", rule_files=[], tests=[test])


def test_of_gpus_of_several_models_no_part_is_shown_as_all_while_one_is_unknown(
    tmp_path: Path,
) -> None:
    def of_model(model: str, idle: str, earning: str) -> dict[str, str]:
        return {
            f'chutes_fleet_gpus{{gpu="{model}",state="idle"}}': idle,
            f'chutes_fleet_gpus{{gpu="{model}",state="earning"}}': earning,
        }

    series = {
        **KNOWN,
        'chutes_fleet_known{topic="gpus"}': "1x20 0x40",
        **of_model("h100", "0x60", "8x60"),
        **of_model("h200", "8x20 _x40", "0x20 _x40"),
    }
    idle = asked("chutes-market", "Idle GPUs", 0)
    # The row that says that no GPU is idle.
    nothing = asked("chutes-market", "Best move", 0)
    states = asked("chutes-overview", "GPUs by state", 0)
    # The states of the h200 are unknown from 0:21 on. In parentheses, it is the same query, at
    # another minute.
    by_state = {'{state="idle"}': 8.0, '{state="earning"}': 8.0}
    shown: dict[str, tuple[int, dict[str, float]]] = {
        idle: (10, {"{}": 8}),
        f"({idle})": (40, {}),
        nothing: (40, {}),
        states: (10, by_state),
        f"({states})": (40, {}),
    }
    shows(tmp_path, series, shown)


def test_of_idle_gpus_in_maintenance_no_part_is_shown_as_all(tmp_path: Path) -> None:
    series = {
        **KNOWN,
        'chutes_fleet_known{topic="gpus"}': "1x20 0x40",
        **gpus("alpha", idle="2x60"),
        **gpus("beta", idle="2x20 _x40"),
        **{IN_MAINTENANCE.format(place(server)): "1x60" for server in ("alpha", "beta")},
    }
    # The GPUs of beta are unknown from 0:21 on. In parentheses, it is the same query, at another
    # minute.
    idle_in_slot = asked("chutes-fleet", "Idle", 1)
    shows(tmp_path, series, {idle_in_slot: (10, {"{}": 4}), f"({idle_in_slot})": (40, {})})


def test_of_several_miners_the_late_servers_are_absent_while_those_of_one_are_unknown(
    tmp_path: Path,
) -> None:
    late = filled_in(
        next(
            query.expr
            for query in queries(FLEET, "Upgrade window")
            if query.legend == "will not make it"
        ),
        [HOTKEY, "other"],
    )
    series = []
    for hotkey, late_servers in ((HOTKEY, "2x60"), ("other", "1x20 _x40")):
        own = f'job="chutes",instance="one:1",hotkey="{hotkey}"'
        for name, values in (
            ("chutes_maintenance_window_open", "1x60"),
            ("chutes_fleet_servers_to_upgrade", "3x60"),
            ("chutes_fleet_late_servers_to_upgrade", late_servers),
        ):
            series.append({"series": f"{name}{{{own}}}", "values": values})
    # The two miners have 2 and 1 late servers. After 0:20, those of the other miner are unknown.
    tests = [
        {"expr": late, "eval_time": "10m", "exp_samples": [{"labels": "{}", "value": 3}]},
        {"expr": late, "eval_time": "40m", "exp_samples": []},
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    run_promtool(tmp_path / "test.yml", evaluation_interval="1m", tests=[test])


def test_of_idle_gpus_no_part_of_the_pay_is_shown_as_all_of_it(tmp_path: Path) -> None:
    pay = "chutes_server_idle_compute_units_per_second"
    series = {
        **KNOWN,
        **gpus("alpha", idle="1x60"),
        **gpus("beta", idle="1x60"),
        f"{pay}{{{place('alpha')}}}": "2x60",
        f"{pay}{{{place('beta')}}}": "2x20 _x40",
        "chutes_fleet_idle_compute_units_per_second{}": "4x20 _x40",
    }
    # The idle GPU of each server could earn 2 units a second. After 0:20, beta's pay is unknown.
    # In parentheses, it is the same query, at another minute.
    for units in (
        asked("chutes-market", "Best use of idle GPUs", 2),
        asked("chutes-fleet", "Not earned, next 24 h", 3),
    ):
        shows(tmp_path, series, {units: (10, {"{}": 4 * 86400}), f"({units})": (40, {})})


def test_the_next_purge_is_that_of_an_instance_that_starts(tmp_path: Path) -> None:
    def of(number: int, state: str, purge: int) -> dict[str, str]:
        labels = f'instance_id="i-{number}",chute_id="c-1",chute="glm",private="false"'
        deadline = f'chutes_instance_deadline_timestamp_seconds{{{labels},deadline="purge"}}'
        return {
            f'chutes_instance_state{{{labels},state="active"}}': "0x60",
            f'chutes_instance_state{{{labels},state="{state}"}}': "1x60",
            deadline: f"{60 * purge}x60",
        }

    series = {'chutes_fleet_instances{state="starting"}': "1x60"}
    series |= of(1, "disabled", 20) | of(2, "starting", 50)
    # At 0:10, the purge of the starting instance comes in 40 minutes.
    purge = asked("chutes-instances", "Next purge", 0)
    shows(tmp_path, series, {purge: (10, {"{}": 40 * 60})})


def test_of_ends_no_part_is_shown_as_all_while_a_reason_is_unknown(tmp_path: Path) -> None:
    def ended(reason: str, values: str, window: str) -> dict[str, str]:
        labels = f'window="{window}",reason="{reason}",outcome="counts"'
        return {f"chutes_miner_window_ended_instances{{{labels}}}": values}

    series = {
        'chutes_fleet_known{topic="servers"}': "1x60",
    }
    # After 0:20, a chute has two ends, and how many ended for the reason `none` is unknown.
    chute = 'window="1h",chute_id="c-1",outcome="counts"'
    series[f"chutes_miner_chute_window_ended_instances{{{chute}}}"] = "_x20 2x40"
    for window in ("1h", "1d"):
        series |= ended("miner", "0x60", window) | ended("none", "0x20 _x40", window)
    ends = asked("chutes-overview", "Ended instances, 24 h", 0)
    # This is the row that says that none ended. In parentheses, it is the same query, at another
    # minute.
    none = asked("chutes-instances", "Ended in the hour to $report:00 UTC", 0)
    shown: dict[str, tuple[int, dict[str, float]]] = {
        ends: (10, {"{}": 0}),
        f"({ends})": (40, {}),
        none: (10, {'{reason="nothing"}': 1}),
        f"({none})": (40, {}),
    }
    shows(tmp_path, series, shown)


def test_no_part_of_the_idle_gpus_in_maintenance_is_shown_as_all_of_them(tmp_path: Path) -> None:
    series = {
        **KNOWN,
        **gpus("alpha", idle="4x60"),
        **gpus("beta", idle="2x60"),
        IN_MAINTENANCE.format(place("alpha")): "1x60",
        IN_MAINTENANCE.format(place("beta")): "1x20 _x40",
    }
    # In parentheses, it is the same query, at another minute.
    number = asked("chutes-fleet", "Idle", 1)
    shows(tmp_path, series, {number: (10, {"{}": 6}), f"({number})": (40, {})})


def test_how_many_may_overtake_is_absent_while_the_heading_of_one_is_unknown(
    tmp_path: Path,
) -> None:
    heading = "chutes_miner_score_heading_ratio"
    other = 'hotkey="5Other",'
    inputs = {
        f"chutes_miner_score_rank{{{ME}}}": "3x60",
        f"{heading}{{{ME}}}": "0.1x60",
        f'chutes_miner_score_rank{{{other}uid="1"}}': "4x60",
        f'{heading}{{{other}uid="1"}}': "0.2x20 _x40",
        'chutes_miner_score_rank{hotkey="5Last"}': "5x60",
        f'{heading}{{hotkey="5Last"}}': "0.05x60",
    }
    # A heading is the share that a score approaches within a day. That of the next miner is higher
    # than ours, until it becomes unknown after 0:20. That of the last one is lower.
    number = asked("chutes-subnet", "May overtake this miner", 0)
    tests = [
        {"expr": number, "eval_time": "10m", "exp_samples": [{"labels": "{}", "value": 1}]},
        {"expr": number, "eval_time": "40m", "exp_samples": []},
    ]
    own = 'job="chutes",instance="one:1",'
    rows = [
        {"series": name.replace("{", f"{{{own}"), "values": values}
        for name, values in inputs.items()
    ]
    test = {"interval": "1m", "input_series": rows, "promql_expr_test": tests}
    run_promtool(tmp_path / "test.yml", evaluation_interval="1m", tests=[test])
