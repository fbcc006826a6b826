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
LASTING = {
    *("Verdict", "Rules", "Trust the boards", "Blind alerts", "Exporters down"),
    "Feeds without a full answer",
}
"""Stats that have a number without an exporter."""


def texts(seen: Seen, uid: str, title: str) -> list[dict[str, str]]:
    """Return the numbers of a stat, as they are shown."""
    (stat,) = (
        shown
        for board, panel, shown in seen
        if (board, panel["type"], panel["title"]) == (uid, "stat", title)
    )
    numbers: list[dict[str, str]] = stat["texts"]
    return numbers


def tables(seen: Seen) -> Seen:
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
    is_declared = kind in (query.data or ())
    if has_data and not is_declared:
        return "has data"
    if query.sometimes:
        return None
    if is_declared and not has_data:
        return "should have data"
    if has_data and query.expr in answers.over_time:
        has_data_over_time = bool(answers.over_time[query.expr]["result"])
        return None if has_data_over_time else "has no data over the day"
    return None


@pytest.mark.parametrize("kind", World)
def test_variables_offer_the_jobs_and_the_watched(
    answers: dict[World, Answers], kind: World
) -> None:
    watched, variables = answers[kind].hotkeys, answers[kind].variables
    assert variables["job"] == [JOB]
    assert variables["hotkey"] == sorted(watched)
    assert set(watched) <= set(variables["miner"])
    if kind in (World.HEALTHY, World.SICK):
        # A watched miner is chosen at first, although others come before it in the alphabet.
        assert variables["miner"][0] in watched
    knows_servers = kind not in (World.EMPTY, World.KEYLESS)
    assert bool(variables["server"]) == knows_servers


@pytest.mark.parametrize("kind", World)
def test_the_alerts_of_a_world_fire_and_no_others(
    answers: dict[World, Answers], kind: World
) -> None:
    assert answers[kind].firing == {*FIRING.get(kind, ()), "Watchdog"}
    # The boards mark alerts over time.
    marked = answers[kind].now[ANNOTATION.expr]["result"]
    assert bool(marked) == (kind in ALARMED)


def test_with_a_dead_exporter_no_stat_shows_an_old_number_as_new(seen: dict[World, Seen]) -> None:
    for uid, panel, shown in seen[World.DOWN]:
        if panel["type"] != "stat" or panel["title"] in LASTING:
            continue
        # A sparkline's number is the last one that there was; the line ends where the exporter went
        # down.
        has_sparkline = panel["targets"][0]["range"]
        if not has_sparkline:
            texts_of_stat = [number["text"] for number in shown["texts"]]
            text_without_value = panel["fieldConfig"]["defaults"]["noValue"]
            assert texts_of_stat == [text_without_value], (uid, panel["title"])


def test_what_is_known_to_be_none_is_a_number_and_what_is_unknown_is_a_text(
    seen: dict[World, Seen],
) -> None:
    starting = {World.KEYLESS: NO_INSTANCES, World.EMPTY: "0"}
    for kind, number in starting.items():
        assert texts(seen[kind], "chutes-instances", "Starting")[0]["text"] == number
    verdicts = {
        World.SICK: ["act now", "3", "18"],
        World.DOWN: ["act now", "1", "1"],
        World.HEALTHY: ["all is well", "0", "0"],
        World.KEYLESS: ["no key: GPUs unknown", "0", "0"],
    }
    for kind, verdict in verdicts.items():
        shown = texts(seen[kind], "chutes-overview", "Verdict")
        assert [number["text"] for number in shown] == verdict
    trust = {World.SICK: "no", World.DOWN: "no", World.HEALTHY: "yes", World.KEYLESS: "yes"}
    for kind, answer in trust.items():
        shown = texts(seen[kind], "chutes-exporter", "Trust the boards")
        assert [number["text"] for number in shown] == [answer]


def test_ends_are_shown_with_their_hour_and_lost_units_only_if_each_hour_is_known(
    answers: dict[World, Answers], seen: dict[World, Seen]
) -> None:
    # At 12:00, the newest report ends at 11:00.
    for kind in World:
        assert answers[kind].variables["report"] == ["?" if kind is World.DOWN else "11"]
    for kind in (World.HEALTHY, World.SICK, World.EMPTY):
        *_, until = texts(seen[kind], "chutes-instances", "Lost in 24 h")
        assert (until["title"], until["text"]) == ("counted to", "11:00")
    # Its exporter has read a report with each scrape.
    (hours,) = texts(seen[World.KEYLESS], "chutes-instances", "Lost in 24 h")
    assert (hours["title"], hours["text"]) == ("hours known of 24", "8")


def test_a_table_of_problems_says_that_there_are_none(seen: dict[World, Seen]) -> None:
    for kind in (World.HEALTHY, World.KEYLESS, World.EMPTY):
        (row,) = table(seen[kind], "chutes-overview", "What is wrong")
        assert row["Alert"] == states.NOTHING.text
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
    of_server = [row for row in rows if row["Where"] == "pro-6000-4"]
    (idle,) = (row for row in of_server if row["Alert"] == "ChutesGpusIdle")
    assert idle["What to do first"] == FIRST["ChutesGpusIdle"]
    # Of alerts that are equally grave, the most expensive comes first.
    first_warning = rows[severities.index("warning")]
    assert first_warning["USD a day"].startswith("$")
    # A place leads to its board.
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


def test_red_and_orange_are_only_where_something_is_wrong(seen: dict[World, Seen]) -> None:
    assert alarming(seen[World.HEALTHY]) == alarming(seen[World.EMPTY]) == set()
    # Alerts about GPUs cannot fire.
    assert alarming(seen[World.KEYLESS]) == {("chutes-overview", "Verdict")}
    assert alarming(seen[World.SICK]) >= {
        *(
            ("chutes-overview", title)
            for title in (
                *("Verdict", "What is wrong", "Lost in 24 h", "Not earned, next 24 h"),
                *("Is the seat safe?", "Miners"),
            )
        ),
        *(
            ("chutes-fleet", title)
            for title in (
                *("Not earned, next 24 h", "Earning", "Idle", "Unverified", SERVERS, "GPUs"),
                *("Upgrade window", "Maintenance"),
            )
        ),
        *(
            ("chutes-instances", title)
            for title in (
                *("Lost in 24 h", "Starting", "Instances that need a decision"),
                *("Failed by chute, 24 h", "Ended in the hour to $report:00 UTC"),
            )
        ),
        *(("chutes-market", title) for title in ("Idle GPUs", "Supply")),
        *(
            ("chutes-exporter", title)
            for title in ("Trust the boards", "Blind alerts", "Bad feeds", "All feeds")
        ),
    }


def test_tables_have_a_row_for_each_thing(
    answers: dict[World, Answers], seen: dict[World, Seen]
) -> None:
    for kind, seen_in_world in seen.items():
        for uid, panel, shown in tables(seen_in_world):
            results = [answers[kind].now[target["expr"]]["result"] for target in panel["targets"]]
            assert len(shown["rows"]) == count_things(results), (kind, uid, panel["title"])


def count_things(results: Sequence[Sequence[dict[str, Any]]]) -> int:
    """Return how many things the results of a table's queries are about.

    The labels that all queries have tell the things apart.
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


def test_the_state_that_costs_most_comes_first_and_models_that_are_named_by_numbers_stay_names(
    seen: dict[World, Seen],
) -> None:
    rows = table(seen[World.SICK], "chutes-fleet", "GPUs")
    shown_states = [row["State"] for row in rows]
    by_cost = [state.text for state in states.GPU]
    assert shown_states == sorted(shown_states, key=by_cost.index)
    assert {row["Model"] for row in rows} == {"4090", "h200", "pro_6000"}
