"""Parts of dashboards: selectors, and the one way to declare a panel, its queries and its columns.

Several exporters can watch the same miner. A query takes the maximum over them, and joins with an
explicit `on`.
"""

from __future__ import annotations

import itertools
import json
import re
import string
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from grafana.states import NOTHING, PLAIN, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chutes_exporter.fleet.model import Topic

MINIMUM_STEP: Final = "1m"
"""The usual scrape interval. Rates need a range that holds several scrapes."""
RULES: Final = "prometheus:chutes_rules:loaded"
"""Present while the rules are loaded."""
NO_DATA: Final = "unknown"
"""What a panel without data says. The verdict, or the panel's description, says why."""

MINERS: Final = 'hotkey=~"$hotkey"'
"""Matches the chosen miners. Exporters of one miner are merged, so nobody chooses one of them."""

Json = dict[str, Any]
_DATASOURCE: Final = {"type": "prometheus", "uid": "$datasource"}
_COLUMNS = 24
"""The width of Grafana's grid, which panels are placed on."""
_LOWEST = float("-inf")
"""As the first threshold, it gives all values below the second one a colour."""
_LETTERS = string.ascii_uppercase
"""Grafana's names of a panel's queries, in their order."""
_SELECTOR = re.compile(r"[\w:]*chutes_[\w:]+(\{[^{}]*\})?")
"""Finds the selectors in a query, such as `chutes_fleet_gpus{state="idle"}`."""


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
BYTES: Final = Unit("bytes", 0)
TEXT: Final = Unit("string", None)
"""Text that looks like a number is text."""


def select(metric: str, *matchers: str, **where: str) -> str:
    """Select series. Without a matcher, it is all of the metric.

    Args:
        metric: The name.
        matchers: Matchers as PromQL writes them.
        where: Values of labels. `state="idle"` selects idle ones, `state="!idle"` all others, and
            `state="~idle|starting"` those that match the regular expression.
    """
    all_matchers = list(matchers)
    for label, value in where.items():
        all_matchers.append(_matcher(label, value))
    if not all_matchers:
        return metric
    return f"{metric}{{{', '.join(all_matchers)}}}"


def _matcher(label: str, value: str) -> str:
    """Return the matcher of a label. The value can begin with `~` or `!`, as in `select`."""
    if value.startswith("~"):
        return f'{label}=~"{value[1:]}"'
    if value.startswith("!"):
        return f'{label}!="{value[1:]}"'
    return f'{label}="{value}"'


def of_miners(metric: str, *labels: str, **where: str) -> str:
    """Select a metric of the chosen miners. Labels, besides the hotkey, tell its series apart."""
    return f"max by ({', '.join(('hotkey', *labels))}) ({select(metric, MINERS, **where)})"


def of_platform(metric: str, *labels: str, **where: str) -> str:
    """Select a metric about the platform, or about any miner."""
    by = f" by ({', '.join(labels)}) " if labels else ""
    return f"max{by}({select(metric, **where)})"


def recorded(name: str, **where: str) -> str:
    """Select a recorded series of the chosen miners."""
    return select(name, MINERS, **where)


WITH_KEY: Final = select("chutes_fleet_known", MINERS, topic="servers")
"""A series of each chosen miner that is watched with a key, unless it has no seat."""
WITH_GPUS: Final = select("chutes_fleet_known", MINERS, topic="gpus")
"""The same of those that are not known to have no GPUs."""


def short(expression: str) -> str:
    """Add the label `miner`: the first 5 and the last 4 characters of the hotkey."""
    return f'label_replace({expression}, "miner", "$1…$2", "hotkey", "(.{{5}}).*(.{{4}})")'


def nothing_row(known: str, label: str, text: float | str = NOTHING.value) -> str:
    """Return a row for a table of problems that says that there is none.

    Args:
        known: A query that returns something where it is known that there is no problem.
        label: The label by which the other rows of the table name their problem.
        text: The value of this label in the row that says that there is none.
    """
    # From a label without a name, `label_replace` takes nothing, and sets the text as it is.
    return f'label_replace(group({known}), "{label}", "{text}", "", "")'


def copied(query: str, label: str, source: str = "alertname") -> str:
    """Add a label with the value of another one, which a column shows as another text."""
    return f'label_replace({query}, "{label}", "$1", "{source}", "(.+)")'


def whole(query: str, feed: str) -> str:
    """Let a query by miner be absent while a record of the miner's feed may be missing.

    The exporter exports `chutes_feed_records` only while no record of the feed is missing.
    """
    return f"({query} and on (hotkey) {select('chutes_feed_records', feed=feed)})"


def total(parts: str, *, with_gpus: bool = False) -> str:
    """Return the sum of a series over all chosen miners.

    It is absent while the series of a miner that is watched with a key is missing.

    Args:
        parts: Selects the series of each miner.
        with_gpus: Whether only miners with GPUs must have the series.
    """
    miners = WITH_GPUS if with_gpus else WITH_KEY
    # The series in `miners` are 1 or 0. So a miner without the series in `parts` adds infinity
    # (1 / 0) or no number (0 / 0), and then the sum is not below infinity.
    return f"(sum({parts} or on (hotkey) {miners} / 0) < Inf)"


def of_known(query: str, topic: Topic) -> str:
    """Return a query over all chosen miners, which is absent while a topic of one is unknown."""
    known = of_miners("chutes_fleet_known", topic=topic)
    return f"({query} unless on () {known} == 0)"


def counted(series: str, known: str) -> str:
    """Count series. If there are none, it is 0 where that is known, and absent elsewhere.

    Args:
        series: Selects the series.
        known: Returns one series without labels where it is known whether there are any.
    """
    return f"(count({series}) or on () 0 * {known})"


def chute_names(**where: str) -> str:
    """Select the name of each chute. Two exporters can know different ones."""
    info = of_platform("chutes_chute_info", "chute_id", "name", **where)
    return f"topk by (chute_id) (1, {info})"


def with_chute_name(expression: str) -> str:
    """Add the label `name` to series with a `chute_id`."""
    return f"({expression}) * on (chute_id) group_left (name) {chute_names()}"


def at_end(expression: str) -> str:
    """Return an expression for the end of the time range."""
    return _SELECTOR.sub(r"\g<0> @ end()", expression)


def yesterday(expression: str) -> str:
    """Return an expression for the time a day ago."""
    return _SELECTOR.sub(r"\g<0> offset 1d", expression)


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


def signed(expression: str, legend: str, digits: int = 0) -> list[Query]:
    """Return two queries for a change, so that a number above 0 is shown with a plus.

    Only one of them has a value at a time: one is for growth, the other for no change or a decline.
    """
    # Grafana writes the text of a unit `prefix:` before the number. A negative number has its minus
    # without a prefix.
    growth = Unit("prefix:+", digits)
    decline = Unit("none", digits)
    return [
        Query(f"({expression}) > 0", legend, growth),
        Query(f"({expression}) <= 0", legend, decline),
    ]


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
_SIZES: Final[dict[Kind, tuple[int, int]]] = {
    "stat": (0, 3),
    "graph": (12, 8),
    "stacked": (12, 8),
    "bars": (12, 8),
    "timeline": (24, 10),
    "table": (24, 8),
}
"""The usual width and height by kind. The width of a stat depends on its row."""


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


def _targets(panel: Panel) -> list[Json]:
    """Make the queries of a panel, in Grafana's format.

    A table and a stat only need the values at the end of the time range.
    """
    is_instant = panel.kind in ("table", "stat")
    return [
        {
            "datasource": _DATASOURCE,
            "instant": is_instant,
            "range": not is_instant,
            "format": "table" if panel.kind == "table" else "time_series",
            "refId": letter,
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "interval": query.step,
        }
        for letter, query in zip(_LETTERS, panel.queries, strict=False)
    ]


def _scale(thresholds: Sequence[tuple[float, str]]) -> Json:
    """Make a scale of colours that begins with the plain one.

    It leaves out a colour that begins at the lowest value, for which `_mappings` has a range.
    """
    steps: list[Json] = [{"value": None, "color": PLAIN}]
    for value, color in thresholds:
        if value != _LOWEST:
            steps.append({"value": value, "color": color})
    return {"mode": "absolute", "steps": steps}


def _mappings(
    states: Sequence[State],
    thresholds: Sequence[tuple[float, str]],
) -> list[Json]:
    """Make the mappings of states, and of a colour that begins at the lowest value.

    Each has an index of its own, which orders them in Grafana's editor.
    """
    mappings: list[Json] = []
    if states:
        texts = {
            f"{state.value}": {"text": state.text, "color": state.color, "index": index}
            for index, state in enumerate(states)
        }
        mappings.append({"type": "value", "options": texts})
    if thresholds and thresholds[0][0] == _LOWEST:
        mappings.append(_range_from_lowest(thresholds, index=len(states)))
    return mappings


def _range_from_lowest(thresholds: Sequence[tuple[float, str]], index: int) -> Json:
    """Make the range from the lowest value to the second threshold, in the colour of the first.

    A threshold without a lower limit would colour missing values as well.
    """
    color = thresholds[0][1]
    limit = thresholds[1][0]
    # It begins below every value that a board shows. Both ends of a range belong to it, so it ends
    # a little below the limit.
    ends = {"from": -1e12, "to": limit - 1e-9}
    return {"type": "range", "options": {**ends, "result": {"color": color, "index": index}}}


def _override(matcher: str, match: str, **options: Any) -> Json:
    """Make an override of options for the fields that match.

    ``matcher`` is Grafana's name of a way to match, such as `byName`, and ``match`` is the name
    that a field must have. An option that is None or empty is left out, while 0 is kept. `__` in
    the name of an option stands for a point: `custom__hidden` is `custom.hidden`.
    """
    properties = []
    for name, value in options.items():
        if value not in (None, "", []):
            properties.append({"id": name.replace("__", "."), "value": value})
    return {"matcher": {"id": matcher, "options": match}, "properties": properties}


def _fixed(color: str) -> Json | None:
    """Make the setting of a single colour, None for an empty one."""
    return {"mode": "fixed", "fixedColor": color} if color else None


def _stat(_: Panel) -> Json:
    """Make what is special about a stat: large numbers, each with the name of its query."""
    options = {
        "colorMode": "value",
        "graphMode": "none",
        # The last value. "Last not null" leaves NaN out, which says that the rules are not loaded.
        "reduceOptions": {"calcs": ["last"]},
        "text": {"titleSize": 14},
        "textMode": "value_and_name",
        # Each number is below its name, also if there is room beside it.
        "wideLayout": False,
    }
    return {"type": "stat", "options": options, "fieldConfig": {"defaults": {}}}


def _graph(panel: Panel) -> Json:
    """Make what is special about a graph of lines, of stacked parts or of bars."""
    is_stacked = panel.kind in ("bars", "stacked")
    custom = {
        # An axis begins at 0, or at the lowest value if that is negative.
        "axisSoftMin": 0,
        "drawStyle": "bars" if panel.kind == "bars" else "line",
        "fillOpacity": 100 if is_stacked else 0,
        # The line of a part that is 0 would cover the part below it. Bars of 0 have none.
        "lineWidth": 0 if panel.kind == "stacked" else 1,
        "showPoints": "never",
        "stacking": {"group": "A", "mode": "normal" if is_stacked else "none"},
    }
    legend = {
        "showLegend": True,
        "displayMode": "list",
        "placement": "bottom",
        "calcs": panel.calcs,
    }
    overrides = [
        _override("byName", state.text, color=_fixed(state.color)) for state in panel.states
    ]
    options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    fields = {"defaults": {"custom": custom}, "overrides": overrides}
    return {"type": "timeseries", "options": options, "fieldConfig": fields}


def _timeline(_: Panel) -> Json:
    """Make what is special about a timeline, which is the same for all of them."""
    legend = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}
    options = {"showValue": "never", "rowHeight": 0.8, "legend": legend}
    defaults = {"custom": {"fillOpacity": 100, "lineWidth": 0}}
    return {"type": "state-timeline", "options": options, "fieldConfig": {"defaults": defaults}}


def _table(panel: Panel) -> Json:
    """Make what is special about a table, which merges the answers of its queries into rows."""
    columns = _columns_by_source(panel)
    titles = {source: column.title for source, column in columns.items() if column.title}
    # Grafana applies them in this order.
    transformations = {
        # Rows that differ in the name of their metric would not become one.
        "filterFieldsByName": {"exclude": {"names": ["__name__"]}},
        "merge": {},
        "organize": {
            "includeByName": dict.fromkeys(columns, True),
            "indexByName": {source: index for index, source in enumerate(columns)},
            "renameByName": titles,
        },
    }
    sort = [
        {"displayName": heading.lstrip("-"), "desc": heading.startswith("-")}
        for heading in panel.sort
    ]
    overrides = [_column(column, titles.get(source, source)) for source, column in columns.items()]
    return {
        "type": "table",
        "options": {"sortBy": sort},
        "transformations": [
            {"id": name, "options": options} for name, options in transformations.items()
        ],
        "fieldConfig": {"defaults": {}, "overrides": overrides},
    }


def _columns_by_source(panel: Panel) -> dict[str, Column]:
    """Return the columns by the name that their values have in the merged answers.

    Grafana calls those of query A "Value #A". A column without a query shows a label.
    """
    letters = {query.expr: letter for letter, query in zip(_LETTERS, panel.queries, strict=False)}
    columns = {}
    for column in panel.columns:
        source = f"Value #{letters[column.source]}" if column.queries else column.source
        columns[source] = column
    return columns


def _column(column: Column, name: str) -> Json:
    """Make the override of a column that has a name in the table: its title, or its source."""
    link = {"title": column.tooltip or f"Show this {column.title.lower()}", "url": column.link}
    return _override(
        "byName",
        name,
        custom__hidden=None if column.title else True,
        noValue=column.missing,
        unit=column.unit.name,
        decimals=column.unit.decimals,
        mappings=_mappings(column.states, column.thresholds),
        thresholds=_scale(column.thresholds) if column.thresholds else None,
        custom__cellOptions={"type": "color-text"} if column.states or column.thresholds else None,
        # A letter has about 8 pixels, and a cell has some padding.
        custom__minWidth=column.width or len(column.title) * 8 + 24,
        # Grafana aligns values that are mapped to a text as numbers, at the right.
        custom__align="left" if column.states and column.unit == TEXT else None,
        links=[link] if column.link else None,
    )


_VISUALIZATIONS: Final[dict[Kind, Callable[[Panel], Json]]] = {
    "stat": _stat,
    "graph": _graph,
    "stacked": _graph,
    "bars": _graph,
    "timeline": _timeline,
    "table": _table,
}


def _panel_json(panel: Panel, number: int, position: Json) -> Json:
    """Make a panel's JSON, as its editor in Grafana 11.6 would save it."""
    visualization = _VISUALIZATIONS[panel.kind](panel)
    fields = visualization["fieldConfig"]
    fields["defaults"] |= _defaults(panel, visualization["type"])
    overrides = fields.setdefault("overrides", [])
    for letter, query in zip(_LETTERS, panel.queries, strict=False):
        if query.unit or query.color or query.thresholds or query.width:
            overrides.append(_override_of_query(letter, query))
    return {
        **visualization,
        "title": panel.title,
        "description": panel.description,
        "id": number,
        "gridPos": position,
        "datasource": _DATASOURCE,
        "targets": _targets(panel),
    }


def _defaults(panel: Panel, visualization: str) -> Json:
    """Make what holds for all fields of a panel, which Grafana shows as a type of visualization."""
    defaults: Json = {"noValue": NO_DATA, "unit": panel.unit.name}
    if visualization == "timeseries":
        defaults["color"] = {"mode": "palette-classic"}
    else:
        defaults |= {"color": {"mode": "thresholds"}, "thresholds": _scale(panel.thresholds)}
        defaults["mappings"] = _mappings(panel.states, panel.thresholds)
    # Counts are whole numbers everywhere. Other units fix their decimals only in a stat, because
    # Grafana chooses those of an axis by its step, so that no two ticks have the same text.
    if panel.unit == COUNT or (panel.kind == "stat" and panel.unit.decimals is not None):
        defaults["decimals"] = panel.unit.decimals
    return defaults


def _override_of_query(letter: str, query: Query) -> Json:
    """Make the override of the options in which a query differs from its panel."""
    return _override(
        "byFrameRefID",
        letter,
        unit=query.unit.name if query.unit else None,
        decimals=query.unit.decimals if query.unit else None,
        color=_fixed(query.color),
        thresholds=_scale(query.thresholds) if query.thresholds else None,
        custom__lineWidth=query.width or None,
    )


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


def _width_of_stat(panel: Panel, row: Sequence[Panel]) -> int:
    """Return the width of a stat that does not name one.

    The stats at the start of a row fill it, so those without a width share the columns that the
    others leave. If these cannot be divided evenly, the first ones get a column more.
    """
    stats = list(itertools.takewhile(lambda other: other.kind == "stat", row))
    without_width = [other for other in stats if not other.size[0]]
    columns_left = _COLUMNS - sum(other.size[0] for other in stats)
    width, remainder = divmod(columns_left, len(without_width))
    return width + 1 if without_width.index(panel) < remainder else width


@dataclass
class Board:
    """A dashboard.

    Attributes:
        uid: A slug, which is its address.
        title: Must differ from the titles in the miners' own monitoring chart.
        description: The question that it answers.
        variables: Names of those in `VARIABLES` that it offers.
        rows: Headings and panels. Rows with a heading are closed until somebody opens them.
    """

    uid: str
    title: str
    description: str
    variables: Sequence[str] = ("cluster", "hotkey")
    rows: list[tuple[str, list[Panel]]] = field(default_factory=list)

    @property
    def panels(self) -> list[Panel]:
        """All panels, those of closed rows included."""
        return [panel for _, panels in self.rows for panel in panels]

    def show(self, *panels: Panel, title: str = "") -> None:
        """Add panels, which a heading hides until somebody opens it."""
        self.rows.append((title, [self._complete(panel, panels) for panel in panels]))

    def _complete(self, panel: Panel, row: Sequence[Panel]) -> Panel:
        """Return a panel with the size that it does not name."""
        width, height = panel.size
        usual_width, usual_height = _SIZES[panel.kind]
        if panel.kind == "stat":
            width = width or _width_of_stat(panel, row)
        return replace(panel, size=(width or usual_width, height or usual_height))


BOARD_ORDER: Final = {
    f"chutes-{name.lower()}": name
    for name in ("Overview", "Fleet", "Instances", "Market", "Subnet", "Exporter")
}
"""The order of the links at the top of each board, which mark the present one."""

ALERTS: Final = 'alertname=~"Chutes.+", hotkey=~"$hotkey|"'
"""Matches the alerts about the chosen miners, and those about no miner."""
ANNOTATION: Final = Query(
    f'max by (alertname, severity, hotkey) (ALERTS{{{ALERTS}, alertstate="firing", '
    f'severity="critical"}})',
)


@dataclass(frozen=True)
class Variable:
    """A variable of a board.

    Attributes:
        label: Its name on the board.
        description: What it selects.
        query: Selects the values, in the language of Grafana's data source.
        all_value: The regular expression for "All"; the values themselves when empty.
        regex: Takes text and value out of the answer.
        single: Whether one value is chosen, at first the first of the answer. Of others, several
            or all can be chosen.
        hidden: Whether nobody chooses a value.
    """

    label: str
    description: str
    query: str
    all_value: str = ""
    regex: str = ""
    single: bool = False
    hidden: bool = False


UNIT_USD: Final = of_platform("chutes_compute_unit_usd")
"""The value of a compute unit."""
REPORT_END: Final = of_platform("chutes_audit_report_end_timestamp_seconds")
_HOUR: Final = (
    f'count_values("hour", hour({REPORT_END})) or on () label_replace(vector(0), "hour", "?", "", '
    '"")'
)
_CANDIDATES: Final = (
    "max by (hotkey) (chutes_miner_watched + on (job, instance, hotkey) chutes_miner_score_ratio "
    "or on (hotkey) chutes_miner_score_ratio "
    "or on (hotkey) 0 * last_over_time(chutes_miner_registered[1d]))"
)
"""All miners: first the watched ones with a score, then the others with a score, each from the best
to the worst.
"""

ANYTHING: Final = ".*"
"""Matches all values of a label that every series has.

For `.+`, Prometheus 2 reads the index of each value.
"""

VARIABLES: Final = {
    "cluster": Variable(
        "Cluster",
        "Narrows the choices of job and hotkey, where a Prometheus scrapes several clusters.",
        "label_values(chutes_exporter_build_info, cluster)",
        ANYTHING,
    ),
    "job": Variable(
        "Job",
        "Scrape jobs with an exporter.",
        'label_values(chutes_exporter_build_info{cluster=~"$cluster"}, job)',
        ".+",
    ),
    "instance": Variable(
        "Exporter",
        "Exporters that are shown.",
        'label_values(chutes_exporter_build_info{cluster=~"$cluster", job=~"$job"}, instance)',
        ".+",
    ),
    # Without a regular expression of its own, "All" means the watched miners, even if all others
    # are exported.
    "hotkey": Variable(
        "Miner",
        "Hotkeys of the miners that the exporter watches.",
        'label_values(chutes_miner_watched{cluster=~"$cluster"}, hotkey)',
    ),
    "miner": Variable(
        "Miner",
        "Any miner that the exporters export, the watched ones first. With --miners all, that is "
        "every miner of the subnet.",
        f"query_result(sort_desc({short(_CANDIDATES)}))",
        regex='/hotkey="(?<value>[^"]+)|miner="(?<text>[^"]+)/g',
        single=True,
    ),
    "server": Variable(
        "Server",
        "Servers of the chosen miners.",
        f"label_values(chutes_server_info{{{MINERS}}}, name)",
        ANYTHING,
    ),
    "chute": Variable(
        "Chute",
        "Chutes, by name.",
        f"query_result({chute_names()})",
        ANYTHING,
        '/name="(?<text>[^"]+)|chute_id="(?<value>[^"]+)/g',
    ),
    "report": Variable(
        "Report",
        "The end of the hour of the newest audit report, in a title.",
        f"query_result({_HOUR})",
        regex='/hour="(?<value>[^"]+)/',
        single=True,
        hidden=True,
    ),
}


def _variable(name: str) -> Json:
    """Make the JSON of a variable. If several values can be chosen, all are chosen at first."""
    variable = VARIABLES[name]
    choice: Json = {}
    if not variable.single:
        choice["current"] = {"selected": True, "text": ["All"], "value": ["$__all"]}
        if variable.all_value:
            choice["allValue"] = variable.all_value
    return {
        "name": name,
        "type": "query",
        "label": variable.label,
        "description": variable.description,
        "datasource": _DATASOURCE,
        "query": {
            # Grafana's numbers of `label_values` and `query_result`.
            "qryType": 1 if variable.query.startswith("label_values") else 3,
            "query": variable.query,
            "refId": "PrometheusVariableQueryEditor-VariableQuery",
        },
        # Grafana's number of "with each change of the time range".
        "refresh": 2,
        # 1 is by the alphabet, and 0 as in the answer, whose first value is chosen at first.
        "sort": 0 if variable.single else 1,
        "multi": not variable.single,
        "includeAll": not variable.single,
        "regex": variable.regex,
        # Grafana's numbers of "nothing" and "label and value".
        "hide": 2 if variable.hidden else 0,
        **choice,
    }


_SOURCE_VARIABLE: Final[Json] = {
    "name": "datasource",
    "label": "Data source",
    "type": "datasource",
    "query": "prometheus",
}
_CRITICAL_ALERTS: Final[Json] = {
    "name": "Critical alerts",
    "datasource": _DATASOURCE,
    "enable": False,
    "iconColor": "red",
    "expr": ANNOTATION.expr,
    "titleFormat": "{{alertname}}",
    "textFormat": "{{hotkey}}",
    "tagKeys": "severity",
    "step": MINIMUM_STEP,
}


def dashboard_json(board: Board) -> str:
    """Make a board's JSON, as it is committed, in the schema of Grafana 11.6."""
    dashboard = {
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": ["chutes-exporter"],
        "schemaVersion": 41,
        "timezone": "browser",
        "editable": False,
        # A crosshair in all panels.
        "graphTooltip": 1,
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "templating": {"list": [_SOURCE_VARIABLE, *map(_variable, board.variables)]},
        "annotations": {"list": [_CRITICAL_ALERTS]},
        "links": _links(board),
        "panels": _panels(board),
    }
    return json.dumps(dashboard, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _links(board: Board) -> list[Json]:
    """Make the links from a board to all boards, in which a dot marks the present one."""
    return [
        {
            "type": "link",
            "icon": "dashboard",
            "includeVars": True,
            "keepTime": True,
            "title": f"● {name}" if uid == board.uid else name,
            "url": f"/d/{uid}",
            "tooltip": f"{name}, with the same choices",
        }
        for uid, name in BOARD_ORDER.items()
    ]


def _panels(board: Board) -> list[Json]:
    """Make the panels of a board, numbered from 1 and placed from top to bottom.

    Panels with a heading are inside its row. The row is closed, so that it is one grid row high.
    """
    panels: list[Json] = []
    numbers = itertools.count(1)
    y = 0
    for title, row in board.rows:
        if title:
            heading: Json = {
                "type": "row",
                "title": title,
                "collapsed": True,
                "id": next(numbers),
                "gridPos": {"h": 1, "w": _COLUMNS, "x": 0, "y": y},
            }
            y += 1
            heading["panels"] = _row(row, y, numbers)
            panels.append(heading)
        else:
            open_panels = _row(row, y, numbers)
            panels += open_panels
            y = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in open_panels)
    return panels


def _row(panels: Sequence[Panel], y: int, numbers: Iterator[int]) -> list[Json]:
    """Make panels from left to right, and in as many lines as they need.

    ``y`` is the grid row of the first line. Each panel takes the next of the ``numbers``.
    """
    row = []
    x = line_height = 0
    for panel in panels:
        width, height = panel.size
        if x + width > _COLUMNS:
            x, y = 0, y + line_height
            line_height = 0
        position = {"h": height, "w": width, "x": x, "y": y}
        row.append(_panel_json(panel, next(numbers), position))
        x += width
        line_height = max(line_height, height)
    return row
