"""Every query of every board and rule on a real Prometheus, in every world, and what is seen there."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from grafana import states
from grafana.boards import BOARDS
from grafana.parts import ANNOTATION
from grafana.worlds import ALARMED, World
from tests.grafana.display import Seen, committed, panels
from tests.grafana.scenes import JOB, RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.grafana.scenes import Answers

FIRING = {
    World.HEALTHY: set(),
    World.EMPTY: set(),
    World.KEYLESS: set(),
    World.DOWN: {"ChutesExporterDown", "ChutesMinerUnwatched"},
    World.SICK: {
        "ChutesFeedFailing",
        "ChutesGpusIdle",
        "ChutesGpusUnverified",
        "ChutesJobStuck",
        "ChutesMinerBlacklisted",
        "ChutesMinerDeregistered",
        "ChutesMinerSeatAtRisk",
    },
}
"""The alerts of each world. tests/prometheus/ fires those that none has."""
MAYBE = {"ChutesInstancePurgeNear", "ChutesPrivateInstanceAtRisk"}
"""Alerts about what a simulated world happens to have at the moment."""


def tiles(seen: Seen) -> dict[tuple[str, str], list[dict[str, str]]]:
    return {
        (board.uid, panel["title"]): seen[board.uid][panel["id"]]["texts"]
        for board in BOARDS
        for panel in panels(committed(board.uid))
        if panel["type"] == "stat"
    }


def text(seen: Seen, uid: str, title: str) -> str:
    (found,) = tiles(seen)[uid, title]
    return found["text"]


def tables(seen: Seen) -> Iterator[tuple[str, dict[str, Any], Any]]:
    for board in BOARDS:
        for panel in panels(committed(board.uid)):
            if panel["type"] == "table":
                yield board.uid, panel, seen[board.uid][panel["id"]]


def table(seen: Seen, uid: str, title: str) -> list[dict[str, str]]:
    (shown,) = (shown for found, panel, shown in tables(seen) if (found, panel["title"]) == (uid, title))
    return [{column: cell["text"] for column, cell in zip(shown["columns"], row, strict=True)} for row in shown["rows"]]


@pytest.mark.parametrize("kind", World)
def test_every_query_has_data_where_its_panel_says_so_and_nowhere_else(
    answers: dict[World, Answers], kind: World
) -> None:
    found = answers[kind]
    assert found.errors == {}
    wrong = [
        (board.uid, panel.builder.build().title, number, "should have data" if kind in query.data else "has data")
        for board in BOARDS
        for panel in board.queried
        for number, query in enumerate(panel.queries)
        if bool(found.now[query.expr]["result"]) != (kind in query.data)
    ]
    assert wrong == []
    # A series that exists now also exists over time.
    silent = [
        (board.uid, panel.builder.build().title)
        for board in BOARDS
        for panel in board.queried
        for query in panel.queries
        if kind in query.data and not found.over_time[query.expr]["result"]
    ]
    assert silent == []


@pytest.mark.parametrize("kind", World)
def test_variables_offer_the_jobs_and_the_watched(answers: dict[World, Answers], kind: World) -> None:
    found = answers[kind]
    assert found.variables == {"job": [JOB], "hotkey": sorted(found.hotkeys)}


@pytest.mark.parametrize("kind", World)
def test_the_alerts_of_a_world_fire_and_no_others(answers: dict[World, Answers], kind: World) -> None:
    found = answers[kind]
    assert found.firing - MAYBE == {*FIRING[kind], "Watchdog"}
    shown = {row["metric"]["alertname"] for row in found.now[ANNOTATION.expr]["result"]}
    assert shown == found.firing - {"Watchdog"}
    assert bool(shown) == (kind in ALARMED)
    quiet = {
        rule["alert"]
        for rule in RULES.values()
        if rule.get("alert", "Watchdog") not in {*FIRING[kind], *MAYBE, "Watchdog"}
        and found.now[rule["expr"]]["result"]
    }
    assert quiet == set()


@pytest.mark.parametrize("kind", World)
def test_recorded_series_exist_wherever_an_exporter_runs(answers: dict[World, Answers], kind: World) -> None:
    found = answers[kind]
    recorded = {
        name: found.now[rule["expr"]]["result"]
        for name, rule in RULES.items()
        if name.startswith(("prometheus:", "subnet:"))
    }
    assert len(recorded) == 3
    assert {name for name, rows in recorded.items() if not rows} == (
        recorded.keys() - {"prometheus:chutes_rules:loaded"} if kind is World.DOWN else set()
    )


def test_with_a_dead_exporter_every_tile_says_so(seen: dict[World, Seen]) -> None:
    red = states.ABSENCES[0]
    said = {where: [one["text"] for one in texts] for where, texts in tiles(seen[World.DOWN]).items()}
    different = {where: texts for where, texts in said.items() if texts != [red.text]}
    assert different == {("chutes-overview", "Alerts firing"): ["2"], ("chutes-exporter", "Exporters"): ["down"]}


def test_without_a_key_what_needs_one_says_so_and_the_rest_is_known(seen: dict[World, Seen]) -> None:
    said = {where: texts[0]["text"] for where, texts in tiles(seen[World.KEYLESS]).items()}
    keyless = {where for where, found in said.items() if found == "no key"}
    assert keyless == {
        ("chutes-overview", "Signature"),
        ("chutes-overview", "GPUs earning"),
        ("chutes-overview", "Idle or unverified"),
        ("chutes-overview", "Next purge"),
        ("chutes-overview", "Units a second"),
        ("chutes-overview", "Score heading"),
        ("chutes-market", "Bounties on offer"),
        ("chutes-market", "My idle GPUs"),
        ("chutes-market", "Jobs waiting"),
        ("chutes-market", "Longest job wait"),
        ("chutes-market", "Tried and waiting"),
        ("chutes-market", "Jobs stuck"),
        ("chutes-market", "Images that failed"),
        ("chutes-subnet", "Active instances"),
        *(where for where in said if where[0] in ("chutes-fleet", "chutes-instances")),
    }
    assert not {found for where, found in said.items() if where not in keyless} & {
        state.text for state in states.ABSENCES
    }


def test_where_there_is_nothing_it_is_not_a_calm_zero(seen: dict[World, Seen]) -> None:
    empty = seen[World.EMPTY]
    for uid, title in (
        ("chutes-overview", "GPUs earning"),
        ("chutes-overview", "Score share"),
        ("chutes-overview", "Rank"),
        ("chutes-fleet", "GPUs"),
        ("chutes-fleet", "Idle"),
        ("chutes-instances", "Longest start"),
        ("chutes-instances", "Mean multiplier"),
    ):
        assert text(empty, uid, title) == "none", title
    # A known zero is shown as a number.
    assert text(empty, "chutes-fleet", "Servers") == "0"
    assert text(empty, "chutes-instances", "Active") == "0"
    # An answer that does not come is something else.
    assert text(seen[World.SICK], "chutes-market", "Images that failed") == "no data"


def alarming(seen: Seen) -> set[tuple[str, str]]:
    """Return where something is drawn in red or orange."""
    colors = {"#F2495C", "#FF9830"}
    found = {where for where, texts in tiles(seen).items() if {one["color"] for one in texts} & colors}
    for uid, panel, shown in tables(seen):
        if any(cell["color"] in colors for row in shown["rows"] for cell in row):
            found.add((uid, panel["title"]))
    return found


def test_colours_are_there_where_something_is_wrong_alone(seen: dict[World, Seen]) -> None:
    # Somebody else is blacklisted in every world.
    for kind in (World.HEALTHY, World.KEYLESS, World.EMPTY):
        assert alarming(seen[kind]) == {("chutes-subnet", "Leaderboard")}
    assert alarming(seen[World.SICK]) >= {
        *(("chutes-overview", title) for title in ("API", "Signature", "Seat", "Blacklist", "GPUs earning")),
        *(("chutes-overview", title) for title in ("Idle or unverified", "Alerts firing")),
        *(("chutes-overview", title) for title in ("Alerts firing now", "Seats behind")),
        *(("chutes-fleet", title) for title in ("Idle", "Unverified", "Without GPUs", "Maintenance")),
        *(("chutes-fleet", title) for title in ("GPUs", "Servers")),
        ("chutes-instances", "Longest start"),
        *(("chutes-market", title) for title in ("My idle GPUs", "Tried and waiting", "Images that failed")),
        ("chutes-subnet", "Leaderboard"),
        *(("chutes-exporter", title) for title in ("Feeds down", "Feeds without data", "Doubted", "Feeds")),
    }


def test_tables_have_their_columns_in_order_and_a_row_for_each_thing(
    answers: dict[World, Answers], seen: dict[World, Seen]
) -> None:
    filled: Counter[tuple[str, str, str]] = Counter()
    for kind, shown_there in seen.items():
        for uid, panel, shown in tables(shown_there):
            options = next(one for one in panel["transformations"] if one["id"] == "organize")["options"]
            places = options["indexByName"]
            declared = [options["renameByName"][source] for source in sorted(places, key=places.__getitem__)]
            results = [answers[kind].now[target["expr"]]["result"] for target in panel["targets"]]
            labels = [{label for row in result for label in row["metric"]} for result in results if result]
            shared = sorted(set.intersection(*labels)) if labels else []
            things = {tuple(row["metric"].get(label) for label in shared) for result in results for row in result}
            assert len(shown["rows"]) == len(things), (kind, uid, panel["title"])
            assert [title for title in declared if title in shown["columns"]] == shown["columns"], (uid, panel["title"])
            for row in shown["rows"]:
                for column, cell in zip(shown["columns"], row, strict=True):
                    filled[uid, panel["title"], column] += cell["text"] != "-"
            for column in declared:
                filled[uid, panel["title"], column] += 0
    assert [where for where, count in filled.items() if not count] == []


def test_units_are_those_that_grafana_knows(seen: dict[World, Seen]) -> None:
    for shown_there in seen.values():
        for shown in (one for board in shown_there.values() for one in board.values()):
            assert shown["unknown"] == []


def test_every_value_reads_as_what_it_is(seen: dict[World, Seen]) -> None:
    codes = re.compile(r"-[0-9]")
    for kind, shown_there in seen.items():
        for where, texts in tiles(shown_there).items():
            assert len(texts) == 1, where
            assert not codes.match(texts[0]["text"]), (kind, where, texts)
        for uid, panel, shown in tables(shown_there):
            for row in shown["rows"]:
                for cell in row:
                    assert cell["text"].strip(), (uid, panel["title"])
                    assert "NaN" not in cell["text"], (uid, panel["title"])


@pytest.mark.parametrize("kind", [World.HEALTHY, World.SICK])
def test_the_table_of_gpus_agrees_with_the_counts_of_states(seen: dict[World, Seen], kind: World) -> None:
    listed = Counter(row["State"] for row in table(seen[kind], "chutes-fleet", "GPUs"))
    for state in states.GPU:
        title = {"earning": None}.get(state.text, state.text.capitalize())
        if title is not None:
            assert text(seen[kind], "chutes-fleet", title) == str(listed[state.text])
    assert text(seen[kind], "chutes-fleet", "GPUs") == str(sum(listed.values()))
    running = Counter(row["State"] for row in table(seen[kind], "chutes-instances", "Instances"))
    # Only deployments of 2025 have failed instances.
    for state in states.INSTANCE[1:]:
        assert text(seen[kind], "chutes-instances", state.text.capitalize()) == str(running[state.text])
    # The largest cost comes first.
    order = [state.text for state in states.GPU]
    found = [row["State"] for row in table(seen[kind], "chutes-fleet", "GPUs")]
    assert found == sorted(found, key=order.index)


def test_a_pair_of_exporters_counts_nothing_twice(answers: dict[World, Answers], seen: dict[World, Seen]) -> None:
    for kind in (World.HEALTHY, World.SICK):
        gpus = answers[kind].gpus
        assert text(seen[kind], "chutes-fleet", "GPUs") == f"{gpus}"
        assert len(table(seen[kind], "chutes-fleet", "GPUs")) == gpus


def test_models_that_are_named_by_numbers_stay_names(seen: dict[World, Seen]) -> None:
    models = {row["Model"] for row in table(seen[World.SICK], "chutes-fleet", "GPUs")}
    assert "4090" in models
    assert models <= {"4090", "5090", "a100", "l40s", "h100_sxm", "h200", "b200"}
