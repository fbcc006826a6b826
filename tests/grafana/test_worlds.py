"""Every query of every board and rule on a real Prometheus, in every world, and what is seen
there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from grafana import states
from grafana.alerts import FIRST
from grafana.boards import BOARDS
from grafana.boards.fleet import SERVERS
from grafana.parts import ANNOTATION, BOARD_ORDER, NO_INSTANCES
from grafana.worlds import ALARMED, World
from tests.grafana.scenes import JOB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana.parts import Query
    from tests.grafana.display import Seen
    from tests.grafana.scenes import Answers

FIRING = {
    World.DOWN: {"ChutesExporterDown", "ChutesMinerUnwatched"},
    World.SICK: {
        "ChutesChuteFails",
        "ChutesFeedFailing",
        "ChutesGpuHoursLost",
        "ChutesGpusIdle",
        "ChutesGpusThrash",
        "ChutesGpusUnverified",
        "ChutesInstanceStartSlow",
        "ChutesMinerBlacklisted",
        "ChutesMinerDeregistered",
        "ChutesMinerSeatAtRisk",
        "ChutesServerInMaintenance",
        "ChutesServerVersionRefused",
        "ChutesStartInVain",
        "ChutesInstancesLostEarly",
        # Between two scrapes, instances of the crash loop begin and end. None is seen active.
        "ChutesStartsFail",
        "ChutesUpgradeWindowClosing",
    },
}
"""The alerts of the worlds that have any. tests/prometheus/ fires those that none has."""
SEVERITIES = [state.text for state in states.SEVERITY]
"""The gravest first."""
LASTING = {
    *("Verdict", "Rules", "Trust the boards", "Blind alerts", "Exporters down"),
    "Feeds without a full answer",
}
"""Stats that have a number without an exporter."""


def texts(seen: Seen, uid: str, title: str) -> list[dict[str, str]]:
    """Return the numbers of a stat, as they are shown: each has a `title` and a `text`."""
    (stat,) = (
        shown
        for board, panel, shown in seen
        if (board, panel["type"], panel["title"]) == (uid, "stat", title)
    )
    numbers: list[dict[str, str]] = stat["texts"]
    return numbers


def tables(seen: Seen) -> Seen:
    """Keep the tables."""
    return [(uid, panel, shown) for uid, panel, shown in seen if panel["type"] == "table"]


def table(seen: Seen, uid: str, title: str) -> list[dict[str, str]]:
    """Return the rows of a table: the texts of their cells by the title of the column."""
    (shown,) = (
        shown for board, panel, shown in tables(seen) if (board, panel["title"]) == (uid, title)
    )
    rows = []
    for row in shown["rows"]:
        texts = [cell["text"] for cell in row]
        rows.append(dict(zip(shown["columns"], texts, strict=True)))
    return rows


@pytest.mark.parametrize("kind", World)
def test_every_query_has_data_where_its_panel_says_so_and_nowhere_else(
    answers: dict[World, Answers], kind: World
) -> None:
    assert answers[kind].errors == {}
    wrong = []
    for board in BOARDS:
        for panel in board.panels:
            for query in panel.queries:
                complaint = complaint_about(query, answers[kind], kind)
                if complaint:
                    wrong.append(f"{board.uid}, {panel.title}: {complaint}: {query}")
    assert wrong == [], "\n".join(wrong)


def complaint_about(query: Query, answers: Answers, kind: World) -> str | None:
    """Return what is wrong with the data of a query in a world, None if nothing is.

    A query declares the worlds in which it has data, always or sometimes.
    """
    has_data = bool(answers.now[query.expr]["result"])
    # A panel on a board has set `data`. The default is only for the type checker.
    is_declared = kind in (query.data or ())
    if has_data and not is_declared:
        return "has data"
    if query.sometimes:
        # It may lack data now, and then nothing is wrong.
        return None
    if is_declared and not has_data:
        return "should have data"
    if has_data and query.expr in answers.over_time:
        has_data_over_time = bool(answers.over_time[query.expr]["result"])
        return None if has_data_over_time else "has no data over the day"
    return None


@pytest.mark.parametrize("kind", World)
def test_variables_offer_the_jobs_the_watched_miners_and_their_servers(
    answers: dict[World, Answers], kind: World
) -> None:
    watched, variables = answers[kind].hotkeys, answers[kind].variables
    assert variables["job"] == [JOB]
    assert variables["hotkey"] == sorted(watched)
    assert set(watched) <= set(variables["miner"])
    knows_servers = kind not in (World.EMPTY, World.KEYLESS)
    assert bool(variables["server"]) == knows_servers


@pytest.mark.parametrize("kind", [World.HEALTHY, World.SICK])
def test_a_watched_miner_is_chosen_at_first_although_others_precede_it_in_the_alphabet(
    answers: dict[World, Answers], kind: World
) -> None:
    assert answers[kind].variables["miner"][0] in answers[kind].hotkeys


@pytest.mark.parametrize("kind", World)
def test_the_alerts_of_a_world_fire_and_no_others(
    answers: dict[World, Answers], kind: World
) -> None:
    # The watchdog always fires.
    assert answers[kind].firing == {*FIRING.get(kind, ()), "Watchdog"}


@pytest.mark.parametrize("kind", World)
def test_graphs_mark_critical_alerts_in_the_worlds_that_have_any(
    answers: dict[World, Answers], kind: World
) -> None:
    marked = answers[kind].now[ANNOTATION.expr]["result"]
    assert bool(marked) == (kind in ALARMED)


def test_with_a_dead_exporter_no_stat_shows_an_old_number_as_new(seen: dict[World, Seen]) -> None:
    for uid, panel, shown in seen[World.DOWN]:
        if panel["type"] != "stat" or panel["title"] in LASTING:
            continue
        # The number of a stat with a sparkline is the last one that there was. Its line ends where
        # the exporter went down.
        has_sparkline = panel["targets"][0]["range"]
        if not has_sparkline:
            texts_of_stat = [number["text"] for number in shown["texts"]]
            text_without_value = panel["fieldConfig"]["defaults"]["noValue"]
            assert texts_of_stat == [text_without_value], (uid, panel["title"])


def test_without_instances_0_are_starting_and_without_a_key_a_text_says_what_is_missing(
    seen: dict[World, Seen],
) -> None:
    for kind, number in ((World.EMPTY, "0"), (World.KEYLESS, NO_INSTANCES)):
        assert texts(seen[kind], "chutes-instances", "Starting")[0]["text"] == number


@pytest.mark.parametrize(
    ("kind", "verdict", "critical", "warnings"),
    [
        # Some alerts of `FIRING` fire for several chutes or servers, so that there are more than it
        # has. One with two severities counts once, as the graver one.
        (World.SICK, "act now", "3", "18"),
        # No exporter runs, and so nothing watches the miner.
        (World.DOWN, "act now", "1", "1"),
        (World.HEALTHY, "all is well", "0", "0"),
        (World.KEYLESS, "no key", "0", "0"),
    ],
)
def test_the_verdict_comes_with_the_numbers_of_critical_alerts_and_of_warnings(
    seen: dict[World, Seen], kind: World, verdict: str, critical: str, warnings: str
) -> None:
    shown = texts(seen[kind], "chutes-overview", "Verdict")
    assert [number["text"] for number in shown] == [verdict, critical, warnings]


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (World.SICK, "no"),
        (World.DOWN, "no"),
        (World.HEALTHY, "yes"),
        (World.KEYLESS, "no key: set --hotkey-file"),
    ],
)
def test_the_boards_can_be_trusted_unless_an_alert_is_blind(
    seen: dict[World, Seen], kind: World, answer: str
) -> None:
    (number,) = texts(seen[kind], "chutes-exporter", "Trust the boards")
    assert number["text"] == answer


@pytest.mark.parametrize("kind", World)
def test_the_variable_in_titles_is_the_hour_at_which_the_newest_report_ends(
    answers: dict[World, Answers], kind: World
) -> None:
    # At 12:00, it ends at 11:00. An exporter that is down has none.
    hour = "?" if kind is World.DOWN else "11"
    assert answers[kind].variables["report"] == [hour]


def test_lost_units_are_shown_with_their_last_hour_if_each_hour_is_known(
    seen: dict[World, Seen],
) -> None:
    # At 12:00, the newest report is that of the hour to 11:00. The last number of the stat says so.
    for kind in (World.HEALTHY, World.SICK, World.EMPTY):
        *_, until = texts(seen[kind], "chutes-instances", "Lost in 24 h")
        assert (until["title"], until["text"]) == ("counted to", "11:00")


def test_lost_units_are_not_shown_if_an_hour_is_not_known(seen: dict[World, Seen]) -> None:
    # Each of its 10 scrapes has read a report. Those of the first two are from before the 24 hours.
    (hours,) = texts(seen[World.KEYLESS], "chutes-instances", "Lost in 24 h")
    assert (hours["title"], hours["text"]) == ("hours known of 24", "8")


def test_a_table_of_problems_says_that_there_are_none(seen: dict[World, Seen]) -> None:
    for kind in (World.HEALTHY, World.KEYLESS, World.EMPTY):
        (row,) = table(seen[kind], "chutes-overview", "What is wrong")
        nothing = states.KEYLESS if kind is World.KEYLESS else states.NOTHING
        assert row["Alert"] == nothing.text
        (row,) = table(seen[kind], "chutes-exporter", "Bad feeds")
        assert row["Feed"] == states.ALL_GOOD.text
        (row,) = table(seen[kind], "chutes-instances", "Ended in the hour to $report:00 UTC")
        assert row["Reason"] == "None ended"
    (row,) = table(seen[World.EMPTY], "chutes-instances", "Failed by chute, 24 h")
    assert row["Chute"] == "None failed"
    (row,) = table(seen[World.HEALTHY], "chutes-instances", "Instances that need a decision")
    assert row["Chute"] == "None needs a decision"
    for title, column in (("Best move", "Server"), ("Launch now, pay per GPU", "Chute")):
        (row,) = table(seen[World.HEALTHY], "chutes-market", title)
        assert row[column] == "No GPU is idle"


def test_the_first_problem_is_the_gravest_and_says_what_it_costs_and_what_to_do(
    seen: dict[World, Seen],
) -> None:
    rows = table(seen[World.SICK], "chutes-overview", "What is wrong")
    severities = [row["Severity"] for row in rows]
    assert severities == sorted(severities, key=SEVERITIES.index)
    critical = {row["Alert"] for row in rows if row["Severity"] == "critical"}
    assert critical == {
        *("ChutesMinerDeregistered", "ChutesMinerBlacklisted", "ChutesMinerSeatAtRisk")
    }
    # This server has idle GPUs.
    of_server = [row for row in rows if row["Where"] == "pro-6000-4"]
    (idle,) = (row for row in of_server if row["Alert"] == "ChutesGpusIdle")
    assert idle["What to do first"] == FIRST["ChutesGpusIdle"]
    # Of alerts that are equally grave, the most expensive comes first.
    first_warning = rows[severities.index("warning")]
    assert first_warning["USD a day"].startswith("$")


def test_the_place_of_a_problem_leads_to_a_board(seen: dict[World, Seen]) -> None:
    rows = table(seen[World.SICK], "chutes-overview", "What is wrong")
    assert {row["board"] for row in rows} <= set(BOARD_ORDER)


def test_no_graph_has_more_than_ten_lines(seen: dict[World, Seen]) -> None:
    for kind, seen_in_world in seen.items():
        for uid, panel, shown in seen_in_world:
            if panel["type"] == "timeseries":
                assert len(shown["series"]) <= 10, (kind, uid, panel["title"])


ALARMING = {"#F2495C", states.ORANGE, "#FF780A"}
"""Red, and the two kinds of orange."""


def alarming(seen: Seen) -> set[tuple[str, str]]:
    """Return the board and the panel of everything that is drawn in red or orange."""
    places = set()
    for uid, panel, shown in seen:
        cells = [*shown.get("texts", ())]
        for row in shown.get("rows", ()):
            cells += row
        colors = {cell["color"] for cell in cells}
        if not colors.isdisjoint(ALARMING):
            places.add((uid, panel["title"]))
    return places


def test_nothing_is_red_or_orange_where_nothing_is_wrong(seen: dict[World, Seen]) -> None:
    assert alarming(seen[World.HEALTHY]) == alarming(seen[World.EMPTY]) == set()
    # Without a key, alerts about GPUs cannot fire.
    assert alarming(seen[World.KEYLESS]) == {
        ("chutes-overview", "Verdict"),
        ("chutes-overview", "What is wrong"),
        ("chutes-exporter", "Trust the boards"),
    }


@pytest.mark.parametrize(
    ("uid", "titles"),
    [
        (
            "chutes-overview",
            [
                *("Verdict", "What is wrong", "Lost in 24 h", "Not earned, next 24 h"),
                *("Is the seat safe?", "Miners"),
            ],
        ),
        (
            "chutes-fleet",
            [
                *("Not earned, next 24 h", "Earning", "Idle", "Unverified", SERVERS, "GPUs"),
                *("Upgrade window", "Maintenance"),
            ],
        ),
        (
            "chutes-instances",
            [
                *("Lost in 24 h", "Starting", "Instances that need a decision"),
                *("Failed by chute, 24 h", "Ended in the hour to $report:00 UTC"),
            ],
        ),
        ("chutes-market", ["Idle GPUs", "Supply"]),
        ("chutes-exporter", ["Trust the boards", "Blind alerts", "Bad feeds", "All feeds"]),
    ],
)
def test_what_is_wrong_is_red_or_orange(
    seen: dict[World, Seen], uid: str, titles: list[str]
) -> None:
    assert alarming(seen[World.SICK]) >= {(uid, title) for title in titles}


def test_tables_have_a_row_for_each_thing(
    answers: dict[World, Answers], seen: dict[World, Seen]
) -> None:
    for kind, seen_in_world in seen.items():
        for uid, panel, shown in tables(seen_in_world):
            results = [answers[kind].now[target["expr"]]["result"] for target in panel["targets"]]
            assert len(shown["rows"]) == count_things(results), (kind, uid, panel["title"])


def count_things(results: Sequence[Sequence[dict[str, Any]]]) -> int:
    """Return how many things, such as servers or chutes, the results of a table's queries are
    about.

    The labels that the results of all queries have tell the things apart.
    """
    labels_of_results = []
    for result in results:
        labels: set[str] = set()
        for row in result:
            labels |= row["metric"].keys()
        if labels:
            labels_of_results.append(labels)
    if not labels_of_results:
        # Rows without labels are about one thing.
        return int(any(results))
    # Grafana joins the rows of two metrics, so their names do not tell things apart.
    common = sorted(set.intersection(*labels_of_results) - {"__name__"})
    things = set()
    for result in results:
        for row in result:
            things.add(tuple(row["metric"].get(label) for label in common))
    return len(things)


def test_every_column_of_a_table_is_filled_somewhere(seen: dict[World, Seen]) -> None:
    all_columns = set()
    for board in BOARDS:
        for panel in board.panels:
            for column in panel.columns:
                if column.title:
                    all_columns.add((board.uid, panel.title, column.title))
    filled_columns = set()
    for seen_in_world in seen.values():
        for uid, shown_panel, _ in tables(seen_in_world):
            title = shown_panel["title"]
            for row in table(seen_in_world, uid, title):
                for column_title, text in row.items():
                    if text.strip() not in ("", "-"):
                        filled_columns.add((uid, title, column_title))
    assert all_columns - filled_columns == set()


def test_no_table_shows_that_something_is_not_a_number(seen: dict[World, Seen]) -> None:
    for seen_in_world in seen.values():
        for uid, panel, _ in tables(seen_in_world):
            for row in table(seen_in_world, uid, panel["title"]):
                for text in row.values():
                    # Not a hotkey that happens to contain these letters.
                    assert not re.search(r"\bNaN\b", text), (uid, panel["title"])


def test_gpus_in_the_state_that_costs_most_come_first(seen: dict[World, Seen]) -> None:
    rows = table(seen[World.SICK], "chutes-fleet", "GPUs")
    shown_states = [row["State"] for row in rows]
    by_cost = [state.text for state in states.GPU]
    assert shown_states == sorted(shown_states, key=by_cost.index)


def test_a_model_that_is_named_by_a_number_stays_a_name(seen: dict[World, Seen]) -> None:
    rows = table(seen[World.SICK], "chutes-fleet", "GPUs")
    # Not "4,090", for example.
    assert {row["Model"] for row in rows} == {"4090", "h200", "pro_6000"}
