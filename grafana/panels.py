"""The one way to declare a panel, its queries and its columns."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grafana.states import State

MINIMUM_STEP: Final = "1m"
"""The usual scrape interval. Rates need a range that holds several scrapes."""
NO_DATA: Final = "unknown"
"""What a panel without data says. The verdict, or the panel's description, says why."""


class Unit(NamedTuple):
    """Grafana's name of a unit, and the digits after the point. None is as many as needed."""

    name: str
    decimals: int | None


COUNT: Final = Unit("none", 0)
FACTOR: Final = Unit("none", 2)
AMOUNT: Final = Unit("short", 1)
PERCENT: Final = Unit("percentunit", 0)
SHARE: Final = Unit("percentunit", 2)
TIME: Final = Unit("s", 1)
DOLLARS: Final = Unit("currencyUSD", None)
CENTS: Final = Unit("currencyUSD", 2)
TEXT: Final = Unit("string", None)
"""Text that looks like a number is text."""


@dataclass(frozen=True)
class Query:
    """A query to Prometheus.

    Attributes:
        expr: In PromQL.
        legend: Name of the series, with labels as `{{label}}`.
        unit: If it differs from the panel's.
        color: Grafana's name of the colour, likewise.
        thresholds: Likewise.
        width: Of its lines in a graph, in pixels, likewise.
        step: The least time between two points of a graph.
    """

    expr: str
    legend: str = ""
    unit: Unit | None = None
    color: str = ""
    thresholds: Sequence[tuple[float, str]] = ()
    width: int = 0
    step: str = MINIMUM_STEP


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: The heading. An empty one hides the column, whose values links can use.
        source: A label, or the query that gives the value. The labels of a query without a title
            are shown by others.
        unit: If it is no text.
        width: The least width in pixels, if not that of the heading. A table that lacks space
            scrolls.
        states: Values, or texts, that mean states.
        thresholds: From which value on it has which colour.
        link: The address that a click opens.
        tooltip: The title of the link. `${__data.fields.hotkey}` shows a value of the row.
        missing: The text of a cell without a value.
    """

    title: str
    source: str
    unit: Unit = TEXT
    width: int = 0
    states: Sequence[State] = ()
    thresholds: Sequence[tuple[float, str]] = ()
    link: str = ""
    tooltip: str = ""
    missing: str = "-"

    @property
    def queries(self) -> list[Query]:
        """The query that gives the values, none if a label gives them."""
        # A label is a single word. A query also has brackets or a colon.
        is_label = re.fullmatch(r"\w+", self.source) is not None
        if is_label:
            return []
        return [Query(self.source)]


Kind = Literal["stat", "graph", "stacked", "bars", "timeline", "table"]


@dataclass(frozen=True)
class Panel:
    """A panel.

    Attributes:
        kind: A stat is a large number below the legend of its query, or the state that it means.
            Graphs have at most ten lines; those of a stacked one are parts of a whole, and bars
            count what happened in a step. A timeline has a line for each series, whose colour
            shows its state. A table merges the rows of its queries.
        title: The name of what it shows.
        description: What to do when it looks bad.
        content: Queries, or the columns of a table in their order.
        unit: Of all values without one of their own.
        states: Values that mean states; in a graph, the names of lines. All other lines have the
            classic palette.
        thresholds: From which value on a stat has which colour.
        calcs: What a graph's legend says of each line.
        sort: Headings of the columns that order a table, with a minus if the greatest come first.
        size: Width of 24 columns, and height in grid rows. Stats at the start of a row share the
            width that is left.
    """

    kind: Kind
    title: str
    description: str
    content: Sequence[Query | Column]
    unit: Unit = COUNT
    states: Sequence[State] = ()
    thresholds: Sequence[tuple[float, str]] = ()
    calcs: Sequence[str] = ("lastNotNull",)
    sort: Sequence[str] = ()
    size: tuple[int, int] = (0, 0)

    @property
    def queries(self) -> list[Query]:
        """All queries, in the order of their letters."""
        queries = []
        for part in self.content:
            if isinstance(part, Column):
                queries += part.queries
            else:
                queries.append(part)
        return queries

    @property
    def columns(self) -> list[Column]:
        """The columns of a table that show something, or whose values links use."""
        columns = [part for part in self.content if isinstance(part, Column)]
        # A query without a title is no column: it only adds labels that columns show.
        return [column for column in columns if column.title or not column.queries]


def _panel_function(kind: Kind) -> Callable[..., Panel]:
    """Return a function that makes panels of a kind, from their queries or columns.

    Its options are the other attributes of `Panel`.
    """

    def make_panel(title: str, description: str, *content: Query | Column, **options: Any) -> Panel:
        return Panel(kind, title, description, content, **options)

    return make_panel


stat = _panel_function("stat")
graph = _panel_function("graph")
stacked = _panel_function("stacked")
bars = _panel_function("bars")
timeline = _panel_function("timeline")
table = _panel_function("table")


RUNBOOK: Final = (
    "https://github.com/chutes-exporter/chutes-exporter/blob/main/docs/alerts.md#${__value.raw}"
)
"""The row of the alert in a cell, in the table of alerts, which links to its runbook."""


def board_link(uid: str, **variables: str) -> str:
    """Return the address of a board with some values of its variables.

    It keeps the data source and the time range that are chosen here.
    """
    parameters = ["var-datasource=${datasource}"]
    for name, value in variables.items():
        parameters.append(f"var-{name}={value}")
    parameters.append("${__url_time_range}")
    return f"/d/{uid}?{'&'.join(parameters)}"


def miner_columns(
    uid: str = "chutes-overview", variable: str = "hotkey", **options: Any
) -> tuple[Column, Column]:
    """Return the column of a short hotkey, which shows the full one on hover, and a hidden column
    before it.

    `short` adds the label `miner`. A click opens a board, whose variable gets the hotkey. The
    options are those of the shown `Column`.
    """
    hotkey = "${__data.fields.hotkey}"
    # A link and its tooltip can only use what the row has.
    hidden = Column("", "hotkey")
    shown = Column(
        "Miner",
        "miner",
        width=130,
        link=board_link(uid, **{variable: hotkey}),
        tooltip=hotkey,
    )
    return hidden, replace(shown, **options)


MINER_COLUMNS: Final = miner_columns()
