"""What is seen on the boards at the moments of the recorded day, by Grafana's own code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from grafana import states
from grafana.alerts import FIRST_STEP_OF
from grafana.boards import BOARDS
from grafana.boards.fleet import SERVERS
from grafana.dashboard import BOARD_ORDER
from grafana.panels import NO_DATA
from tests.grafana.answers import answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.grafana.display import Seen

EXPORTER: Final = "chutes-exporter"
SEVERITIES: Final = [state.text for state in states.SEVERITY]
"""The gravest first."""


def texts(seen: Seen, uid: str, title: str) -> list[str]:
    """Return the numbers of a stat, as they are shown."""
    (stat,) = (
        shown
        for board, panel, shown in seen
        if (board, panel["type"], panel["title"]) == (uid, "stat", title)
    )
    return [number["text"] for number in stat["texts"]]


def table(seen: Seen, uid: str, title: str) -> list[dict[str, str]]:
    """Return the rows of a table: the texts of their cells by the title of the column."""
    (shown,) = (
        shown
        for board, panel, shown in seen
        if (board, panel["type"], panel["title"]) == (uid, "table", title)
    )
    cells = ([cell["text"] for cell in row] for row in shown["rows"])
    return [dict(zip(shown["columns"], row, strict=True)) for row in cells]


def tables(seen: Seen) -> list[tuple[str, str]]:
    """Return the board and the title of each table."""
    return [(uid, panel["title"]) for uid, panel, _ in seen if panel["type"] == "table"]


STATS: Final = [
    ("sick", "chutes-overview: Verdict", ["act now"]),
    ("healthy", "chutes-overview: Verdict", ["all is well"]),
    *(("down", f"{uid}: Verdict", ["exporter down"]) for uid in BOARD_ORDER if uid != EXPORTER),
    ("without rules", "chutes-overview: Verdict", ["rules not loaded"]),
    ("keyless", "chutes-overview: Verdict", ["no key: set --hotkey-file"]),
    ("sick", "chutes-exporter: Trust the boards", ["yes"]),
    ("down", "chutes-exporter: Trust the boards", ["no"]),
    ("empty", "chutes-instances: Starting", ["0"]),
    ("keyless", "chutes-instances: Starting", [NO_DATA]),
    ("healthy", "chutes-instances: Lost in 24 h", ["$0", "0"]),
    ("failing", "chutes-instances: Lost in 24 h", ["119 K", "23"]),
]
"""The moment, the panel, and its texts."""


@pytest.mark.parametrize(("moment", "panel", "expected"), STATS)
def test_a_stat_says_how_it_is_and_what_is_missing(
    seen: Mapping[str, Seen], moment: str, panel: str, expected: list[str]
) -> None:
    uid, title = panel.split(": ")
    assert texts(seen[moment], uid, title) == expected


NOTHING: Final = [
    ("healthy", "chutes-overview: What is wrong", "Alert", states.NOTHING.text),
    ("keyless", "chutes-overview: What is wrong", "Alert", states.KEYLESS.text),
    ("healthy", "chutes-exporter: Bad feeds", "Feed", states.ALL_GOOD.text),
    ("empty", "chutes-instances: Failed by chute, 24 h", "Chute", "No start failed, no score lost"),
    ("healthy", "chutes-instances: Ended in the hour to $report:00 UTC", "Reason", "None ended"),
    (
        *("healthy", "chutes-instances: Instances that need a decision"),
        *("Chute", "None needs a decision"),
    ),
    ("healthy", "chutes-market: Best move", "Server", "No GPU is idle"),
    ("healthy", "chutes-market: Launch now, pay per GPU", "Chute", "No GPU is idle"),
]
"""The moment, the table, and the column with a text in its only row."""


@pytest.mark.parametrize(("moment", "panel", "column", "text"), NOTHING)
def test_a_table_says_that_there_is_nothing(
    seen: Mapping[str, Seen], moment: str, panel: str, column: str, text: str
) -> None:
    (row,) = table(seen[moment], *panel.split(": ", 1))
    assert row[column] == text


def test_with_a_dead_exporter_the_boards_say_nothing_else(seen: Mapping[str, Seen]) -> None:
    stats = {"Verdict", "Rules", "Trust the boards", "Exporters down"}
    tables = {"What is wrong", "Exporters"}
    for uid, panel, shown in seen["down"]:
        if panel["type"] == "stat" and panel["title"] not in stats:
            texts = [number["text"] for number in shown["texts"]]
            assert texts == [NO_DATA], (uid, panel["title"])
        if panel["type"] == "table":
            assert len(shown["rows"]) == (panel["title"] in tables), (uid, panel["title"])


def test_the_first_problem_is_the_gravest_and_says_what_it_costs_and_what_to_do(
    seen: Mapping[str, Seen],
) -> None:
    # What has a deadline comes before the others.
    (window, *others) = table(seen["pending"], "chutes-overview", "What is wrong")
    assert window["Alert"] == "ChutesUpgradeWindow"
    assert "ChutesGpusIdle" in {row["Alert"] for row in others}
    rows = table(seen["sick"], "chutes-overview", "What is wrong")
    assert rows[-1]["Worst place"] == states.NO_PLACE.text
    severities = [row["Severity"] for row in rows]
    assert severities == sorted(severities, key=SEVERITIES.index)
    # The critical alert is about idle GPUs on four servers, and tyr is the most expensive one.
    assert rows[0]["Alert"] == "ChutesGpusIdle"
    assert (rows[0]["Places"], rows[0]["Worst place"]) == ("4", "tyr")
    dollars = float(rows[0]["USD a day"].strip("$"))
    assert f"${dollars:.0f}" == texts(seen["sick"], "chutes-overview", "Not earned, next 24 h")[0]
    assert rows[0]["What to do first"] == FIRST_STEP_OF["ChutesGpusIdle"]
    # Where nothing can be launched, the rent is known.
    assert [row["Rent a day"] for row in rows if row["Worst place"] == "idun"] == ["$336.00"]
    assert {row["board"] for row in rows} <= set(BOARD_ORDER)


ALARMING: Final = {"#F2495C", states.ORANGE, "#FF780A"}
"""Red, and the two kinds of orange."""


def alarming(seen: Seen) -> set[str]:
    """Return the board and the panel of everything that is drawn in red or orange."""
    places = set()
    for uid, panel, shown in seen:
        cells = [*shown.get("texts", ())]
        for row in shown.get("rows", ()):
            cells += row
        if not ALARMING.isdisjoint(cell["color"] for cell in cells):
            places.add(f"{uid}: {panel['title']}")
    return places


def test_what_is_wrong_is_red_or_orange_and_nothing_else(seen: Mapping[str, Seen]) -> None:
    assert alarming(seen["healthy"]) == alarming(seen["empty"]) == set()
    # Without a key, alerts about GPUs cannot fire.
    verdicts = {f"{uid}: Verdict" for uid in BOARD_ORDER if uid != EXPORTER}
    assert alarming(seen["keyless"]) == {*verdicts, "chutes-overview: What is wrong"}
    assert alarming(seen["sick"]) == {
        *verdicts,
        *("chutes-overview: What is wrong", "chutes-overview: Miners"),
        *("chutes-overview: Lost in 24 h", "chutes-overview: Not earned, next 24 h"),
        *(f"chutes-fleet: {title}" for title in ("GPUs now", SERVERS, "GPUs")),
        *("chutes-fleet: Not earned, next 24 h", "chutes-fleet: Maintenance"),
        *("chutes-instances: Lost in 24 h", "chutes-instances: Next purge"),
        "chutes-instances: Instances that need a decision",
        "chutes-instances: Failed by chute, 24 h",
        "chutes-instances: Ended in the hour to $report:00 UTC",
        *("chutes-market: Best move", "chutes-market: Supply"),
        "chutes-market: Not earned, next 24 h",
        "chutes-market: Launch now, pay per GPU",
        *("chutes-subnet: May overtake this miner", "chutes-subnet: Neighbours in rank"),
    }
    assert alarming(seen["failing"]) >= {
        f"chutes-exporter: {title}" for title in ("Trust the boards", "Bad feeds", "All feeds")
    }


def test_tables_have_a_row_for_each_thing_and_no_graph_more_than_ten_lines(
    seen: Mapping[str, Seen],
) -> None:
    for moment, seen_then in seen.items():
        for uid, panel, shown in seen_then:
            where = (moment, uid, panel["title"])
            if panel["type"] == "timeseries":
                assert len(shown["series"]) <= 10, where
            if panel["type"] == "table":
                data = answers()[moment].of_panel(panel, uid)
                results = [data[target["refId"]]["result"] for target in panel["targets"]]
                assert len(shown["rows"]) == count_things(results), where


def count_things(results: Sequence[Sequence[dict[str, Any]]]) -> int:
    """Return how many things, such as servers, the results of a table's queries are about: they
    differ in the labels that all these results have.
    """
    labels_of_results = [set().union(*(row["metric"] for row in result)) for result in results]
    with_labels = [labels for labels in labels_of_results if labels]
    if not with_labels:
        # Rows without labels are about one thing.
        return int(any(results))
    common = sorted(set.intersection(*with_labels))
    rows = [row["metric"] for result in results for row in result]
    return len({tuple(metric.get(label) for label in common) for metric in rows})


def test_every_column_is_filled_at_some_moment_and_nothing_is_not_a_number(
    seen: Mapping[str, Seen],
) -> None:
    filled = set()
    for seen_then in seen.values():
        for uid, title in tables(seen_then):
            for row in table(seen_then, uid, title):
                # Not a hotkey that happens to contain these letters.
                assert not any(re.search(r"\bNaN\b", text) for text in row.values()), (uid, title)
                for column, text in row.items():
                    if text.strip() not in ("", "-"):
                        filled.add((uid, title, column))
    columns = {
        (board.uid, panel.title, column.title)
        for board in BOARDS
        for panel in board.panels
        for column in panel.columns
        if column.title
    }
    # tests/grafana/test_answers.py says what shows these.
    assert columns - filled == {
        ("chutes-exporter", "Exporters", "Scrape time"),
        ("chutes-exporter", "Bad feeds", "Miner"),
        ("chutes-exporter", "All feeds", "Doubt"),
        ("chutes-fleet", "GPUs", "Error"),
        *(
            ("chutes-subnet", "Neighbours in line for the seat", column)
            for column in ("Registrations", "Immune", "USD a day", "Seat age")
        ),
    }


def test_gpus_that_cost_most_come_first_and_a_model_of_digits_is_a_name(
    seen: Mapping[str, Seen],
) -> None:
    rows = table(seen["sick"], "chutes-fleet", "GPUs")
    found = [row["State"] for row in rows]
    # Those that earn come last.
    assert found == sorted(found, reverse=True)
    # Not "4,090", for example.
    assert {row["Model"] for row in rows} == {"4090", "b300", "h200", "pro_6000"}
