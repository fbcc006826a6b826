"""Parts of dashboards: selectors, and the one way to declare a panel, its queries and its columns.

Several exporters can watch the same miner. A query takes the maximum over them, and joins with an explicit `on`.
"""

from __future__ import annotations

import json
import re
import string
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.states import NOTHING, ORANGE, PLAIN, State
from grafana.worlds import ALARMED, LIVE, World

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TAG: Final = "chutes-exporter"
MINIMUM_STEP: Final = "1m"
"""The usual scrape interval. Rates need a range that holds several scrapes."""
LOAD_RULES: Final = "load the rules"
NO_DATA: Final = "Unknown: no data. The Exporter board shows which feeds fail, and whether the rules are loaded."
NO_KEY: Final = "Unknown: no data. It needs the key of a watched miner. The Exporter board shows which feeds fail."
NO_GPUS: Final = "no GPUs known, or no key"
NO_INSTANCES: Final = "no instances known, or no key"

EXPORTERS: Final = 'job=~"$job", instance=~"$instance"'
"""Matches the chosen exporters."""
MINERS: Final = 'hotkey=~"$hotkey"'
"""Matches the chosen miners. It selects recorded series, which have no label of an exporter."""

_DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="$datasource")
_COLUMNS = 24
_LOWEST = -1e12
_HAIR = 1e-9
_NAME_SIZE = 14
"""Pixels of the name beside a large number."""
_LETTERS = string.ascii_uppercase


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
CLOCK: Final = Unit("time:HH:mm", None)
"""A time of day, in milliseconds since 1970."""
DOLLARS: Final = Unit("currencyUSD", 0)
CENTS: Final = Unit("currencyUSD", 2)
BYTES: Final = Unit("bytes", 0)
TEXT: Final = Unit("string", None)
"""Text that looks like a number is text."""


def select(metric: str, *matchers: str, **where: str) -> str:
    """Select series.

    Args:
        metric: The name.
        matchers: Matchers as PromQL writes them.
        where: Values of labels; `~` before one makes it a regular expression, `!` anything but it.
    """
    operators = {"~": "=~", "!": "!="}
    written = [
        f'{label}{operators[value[0]]}"{value[1:]}"' if value[:1] in operators else f'{label}="{value}"'
        for label, value in where.items()
    ]
    return f"{metric}{{{', '.join((*matchers, *written))}}}"


def of_miners(metric: str, *labels: str, **where: str) -> str:
    """Select a metric of the chosen miners. Labels, besides the hotkey, tell its series apart."""
    return f"max by ({', '.join(('hotkey', *labels))}) ({select(metric, EXPORTERS, MINERS, **where)})"


def of_exporters(metric: str, *labels: str, function: str = "max", **where: str) -> str:
    """Select a metric about the platform, or about the chosen exporters themselves."""
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"{function}{by} ({select(metric, EXPORTERS, **where)})"


def recorded(name: str, **where: str) -> str:
    """Select a recorded series of the chosen miners."""
    return select(name, MINERS, **where)


def short(expression: str) -> str:
    """Add the label `miner`: the first 5 and the last 4 characters of the hotkey."""
    return f'label_replace({expression}, "miner", "$1…$2", "hotkey", "(.{{5}}).*(.{{4}})")'


def nothing_wrong(known: str, label: str, state: State = NOTHING) -> str:
    """Return a row for a table of problems that says that there is none.

    Args:
        known: Returns something where it is known that there is no problem.
        label: Names a problem.
        state: Its value is the label's in that row.
    """
    return f'label_replace(group({known}), "{label}", "{state.value}", "", "")'


def whole(query: str, feed: str) -> str:
    """Return a query for numbers of all records of a feed, which are absent while one of them may be missing."""
    scope = "hotkey" if "hotkey" in query else ""
    return f"({query} and on ({scope}) {select('chutes_feed_records', EXPORTERS, feed=feed)})"


def counted(found: str, known: str) -> str:
    """Count series. None is 0 where something is known, and absent elsewhere.

    Args:
        found: The series.
        known: Returns a single series without labels where the absence of others is known.
    """
    return f"(count({found}) or on () 0 * {known})"


def with_chute_name(expression: str) -> str:
    """Add the label `name` to series with a `chute_id`. A chute without a known name has the start of its id."""
    return f"({expression}) * on (chute_id) group_left (name) chute_id:chutes_chute_info:max"


def top_ten_at_end(expression: str, plain: str, label: str = "hotkey") -> str:
    """Keep the ten series that are greatest at the end of the time range, so that lines stay the same.

    Args:
        expression: Gives the lines.
        plain: The same series without added labels, whose values order them.
        label: Tells the series apart.
    """
    at_end = re.sub(r"(\{[^{}]*\})", r"\1 @ end()", plain)
    return f"{expression} and on ({label}) topk(10, {at_end})"


def or_load_rules(expression: str) -> str:
    """Return an expression that is NaN while the rules are not loaded. A stat shows this as `LOAD_RULES`."""
    return f"{expression} or on () absent(prometheus:chutes_rules:loaded @ end()) * NaN"


@dataclass(frozen=True)
class Query:
    """A query to Prometheus.

    Attributes:
        expr: In PromQL.
        legend: Name of the series, with labels as `{{label}}`.
        data: The worlds in which it returns something for the present, if not those of the board.
        unit: If it differs from the panel's.
        color: Grafana's name of the colour, likewise.
        step: The least time between two points of a graph.
        sometimes: Whether it returns something in these worlds only at some times.
    """

    expr: str
    legend: str = ""
    data: frozenset[World] | None = None
    unit: Unit | None = None
    color: str = ""
    step: str = MINIMUM_STEP
    sometimes: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: The heading. An empty one hides the column, whose values links can use.
        source: A label, or the query that gives the value. The labels of a query without a title are shown by others.
        unit: If it is no text.
        width: The least width in pixels, if not that of the heading. A table that lacks space scrolls.
        states: Values, or texts, that mean states.
        thresholds: From which value on it has which colour.
        link: The address that a click opens.
        tooltip: The title of the link. `${__data.fields.hotkey}` shows a value of the row.
        missing: The text of a cell without a value.
        data: See `Query`.
        sometimes: See `Query`.
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
    data: frozenset[World] | None = None
    sometimes: bool = False

    @property
    def queries(self) -> list[Query]:
        """The query, if the source is one."""
        is_label = re.fullmatch(r"\w+", self.source)
        return [] if is_label else [Query(self.source, data=self.data, sometimes=self.sometimes)]


Kind = Literal["stat", "graph", "stacked", "bars", "timeline", "table"]
_SIZES: Final[dict[Kind, tuple[int, int]]] = {
    "stat": (0, 3), "graph": (12, 8), "stacked": (12, 8), "bars": (12, 8), "timeline": (24, 10), "table": (24, 8)
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """A panel.

    Attributes:
        kind: A stat is a large number beside the legend of its query, or the state that it means. Graphs have at most
            ten lines; those of a stacked one are parts of a whole, and bars count what happened in a step. A timeline
            has a line for each series, whose colour shows its state. A table merges the rows of its queries.
        title: The name of what it shows.
        description: What to do when it looks bad.
        content: Queries, or the columns of a table in their order.
        unit: Of all values without one of their own.
        states: Values that mean states; in a graph, the names of lines. All other lines have the classic palette.
        thresholds: From which value on a stat has which colour.
        empty: The text when there is no data, if not the board's.
        trend: Whether a stat has a sparkline.
        as_text: Whether a stat shows its legend alone, which is made of labels.
        calcs: Columns of a graph's legend.
        sort: Headings of the columns that order a table, with a minus if the greatest come first.
        size: Width of 24 columns, and height in grid rows. Stats without a width share what is left.
    """

    kind: Kind
    title: str
    description: str
    content: Sequence[Query | Column]
    unit: Unit = COUNT
    states: Sequence[State] = ()
    thresholds: Sequence[tuple[float, str]] = ()
    empty: str = ""
    trend: bool = False
    as_text: bool = False
    calcs: Sequence[str] = ("lastNotNull", "min", "max")
    sort: Sequence[str] = ()
    size: tuple[int, int] = (0, 0)

    @property
    def queries(self) -> list[Query]:
        """All queries, in the order of their letters."""
        return [query for one in self.content for query in (one.queries if isinstance(one, Column) else [one])]

    @property
    def columns(self) -> list[Column]:
        """The columns of a table that show something, or whose values links use."""
        columns = [one for one in self.content if isinstance(one, Column)]
        return [one for one in columns if one.title or not one.queries]


def _targets(panel: Panel) -> list[prometheus.Dataquery]:
    targets = []
    for letter, query in zip(_LETTERS, panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expr).datasource(_DATASOURCE)
        now = panel.kind == "table" or (panel.kind == "stat" and not panel.trend)
        target = target.instant() if now else target.range()
        target = target.format(PromQueryFormat.TABLE if panel.kind == "table" else PromQueryFormat.TIME_SERIES)
        targets.append(target.legend_format(query.legend or "__auto").interval(query.step))
    return targets


def _steps(thresholds: Sequence[tuple[float, str]]) -> list[models.Threshold]:
    """Make the steps of a scale that begins plain. Colours that begin at the lowest value are mappings instead."""
    steps = [] if any(value == float("-inf") for value, _ in thresholds) else thresholds
    lowest = [models.Threshold(value=None, color=PLAIN)]
    return lowest + [models.Threshold(value=value, color=color) for value, color in steps]


def _mappings(
    states: Iterable[State], thresholds: Sequence[tuple[float, str]] = ()
) -> list[models.ValueMap | models.RangeMap | models.RegexMap | models.SpecialValueMap]:
    """Make the mappings of states, and of colours that begin at the lowest value.

    A threshold without a lower limit would colour missing values as well, so it becomes a range.
    """
    options = {
        f"{state.value}": models.ValueMappingResult(text=state.text, color=state.color, index=index)
        for index, state in enumerate(states)
    }
    mappings: list[models.ValueMap | models.RangeMap | models.RegexMap | models.SpecialValueMap] = []
    if options:
        mappings.append(models.ValueMap(options=options))
    if thresholds and thresholds[0][0] == float("-inf"):
        lowers = [_LOWEST, *(value for value, _ in thresholds[1:])]
        uppers = [*lowers[1:], -_LOWEST]
        for index, (lower, upper, (_, color)) in enumerate(zip(lowers, uppers, thresholds, strict=True)):
            result = models.ValueMappingResult(color=color, index=len(options) + index)
            # Both limits of a range belong to it, so the upper one is a little lower.
            ends = models.DashboardRangeMapOptions(from_val=lower, to=upper - _HAIR, result=result)
            mappings.append(models.RangeMap(options=ends))
    return mappings


def _rules_missing(index: int) -> models.SpecialValueMap:
    result = models.ValueMappingResult(text=LOAD_RULES, color=ORANGE, index=index)
    options = models.DashboardSpecialValueMapOptions(match=models.SpecialValueMatch.NA_N, result=result)
    return models.SpecialValueMap(options=options)


def _properties(**values: Any) -> list[models.DynamicConfigValue]:
    """Make overrides of the options that are given; `__` stands for the point of a name."""
    return [
        models.DynamicConfigValue(id_val=name.replace("__", "."), value=value)
        for name, value in values.items()
        if value not in (None, "", [])
    ]


def _fixed(color: str) -> dict[str, str] | None:
    return {"mode": "fixed", "fixedColor": color} if color else None


def _scale(thresholds: Sequence[tuple[float, str]]) -> builders.ThresholdsConfig:
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(_steps(thresholds))


def _stat(panel: Panel) -> stat.Panel:
    return (
        stat.Panel()
        .mappings(
            [*_mappings(panel.states, panel.thresholds), _rules_missing(len(panel.states) + len(panel.thresholds))]
        )
        .graph_mode(common.BigValueGraphMode.AREA if panel.trend else common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        # With a name, the number is above the sparkline. Without one, it would be on it.
        .text_mode(common.BigValueTextMode.NAME if panel.as_text else common.BigValueTextMode.VALUE_AND_NAME)
        .justify_mode(common.BigValueJustifyMode.AUTO)
        .text(common_builders.VizTextDisplayOptions().title_size(_NAME_SIZE))
        # The last value, as "last not null" leaves NaN out.
        .reduce_options(common_builders.ReduceDataOptions().calcs(["last"]).values(values=False))
    )


def _graph(panel: Panel) -> timeseries.Panel:
    bars, stacked = panel.kind == "bars", panel.kind == "stacked"
    # A table of lines beside the graph, where ten have space. Grafana moves it below on a narrow screen. There, few
    # lines are seen: of states, those that cost most, whose names come last.
    legend = (
        common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE).show_legend(show_legend=True)
    )
    legend.placement(common.LegendPlacement.RIGHT).calcs(list(panel.calcs))
    if panel.states:
        legend.sort_by("Name").sort_desc(sort_desc=True)
    built = (
        timeseries.Panel()
        .draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
        .fill_opacity(80 if bars or stacked else 0)
        # A part of nothing would be a line on top of the others.
        .line_width(0 if stacked else 1)
        .show_points(common.VisibilityMode.NEVER)
        .span_nulls(span_nulls=False)
        .stacking(
            common_builders.StackingConfig()
            .mode(common.StackingMode.NORMAL if stacked or bars else common.StackingMode.NONE)
            .group("A")
        )
        .legend(legend)
        .tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
        .min(0)
    )
    for state in panel.states:
        built.override_by_name(state.text, _properties(color=_fixed(state.color)))
    return built


def _timeline(panel: Panel) -> statetimeline.Panel:
    legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST)
    return (
        statetimeline.Panel()
        .mappings(_mappings(panel.states))
        .merge_values(merge_values=True)
        .show_value(common.VisibilityMode.NEVER)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .legend(legend.placement(common.LegendPlacement.BOTTOM).show_legend(show_legend=True))
    )


def _table(panel: Panel) -> table.Panel:
    letters = {query.expr: letter for letter, query in zip(_LETTERS, panel.queries, strict=False)}
    value = "Value #{}" if len(letters) > 1 else "Value"
    columns = {
        value.format(letters[column.source]) if column.queries else column.source: column for column in panel.columns
    }
    transformations = []
    if len(letters) > 1:
        # Rows that differ in the name of their metric would not become one.
        unnamed = {"exclude": {"names": ["__name__"]}}
        transformations.append(models.DataTransformerConfig(id_val="filterFieldsByName", options=unnamed))
        transformations.append(models.DataTransformerConfig(id_val="merge", options={}))
    order = {
        "indexByName": {source: index for index, source in enumerate(columns)},
        "renameByName": {source: column.title for source, column in columns.items() if column.title},
    }
    shown = {"include": {"names": list(columns)}}
    transformations.append(models.DataTransformerConfig(id_val="filterFieldsByName", options=shown))
    transformations.append(models.DataTransformerConfig(id_val="organize", options=order))
    built = (
        table.Panel()
        .transformations(transformations)
        .show_header(show_header=True)
        .cell_height(common.TableCellHeight.SM)
        .sort_by(
            [
                common_builders.TableSortByFieldState().display_name(name.lstrip("-")).desc(name.startswith("-"))
                for name in panel.sort
            ]
        )
    )
    for source, column in columns.items():
        built.override_by_name(column.title or source, _column(column))
    return built


def _column(column: Column) -> list[models.DynamicConfigValue]:
    link = {"title": column.tooltip or f"Show this {column.title.lower()}", "url": column.link}
    colored = {"type": "color-text"} if column.states or column.thresholds else None
    return _properties(
        custom__hidden=None if column.title else True,
        # A value that is missing in one row does not make the table empty.
        noValue=column.missing,
        unit=column.unit.name,
        decimals=column.unit.decimals,
        mappings=_mappings(column.states, column.thresholds),
        thresholds={"mode": "absolute", "steps": _steps(column.thresholds)} if column.thresholds else None,
        custom__cellOptions=colored,
        custom__minWidth=column.width or len(column.title) * 8 + 24,
        custom__align="left" if column.states else None,
        links=[link] if column.link else None,
    )


def _built(panel: Panel) -> Any:
    makers = {"stat": _stat, "timeline": _timeline, "table": _table}
    built: Any = makers.get(panel.kind, _graph)(panel)
    lines = panel.kind in ("graph", "stacked", "bars")
    mode = models.FieldColorModeId.PALETTE_CLASSIC if lines else models.FieldColorModeId.THRESHOLDS
    built.title(panel.title).description(panel.description).datasource(_DATASOURCE).targets(_targets(panel))
    built.no_value(panel.empty).unit(panel.unit.name).color_scheme(builders.FieldColor().mode(mode))
    if not lines:
        built.thresholds(_scale(panel.thresholds))
    if panel.unit.decimals is not None and panel.kind != "table":
        built.decimals(panel.unit.decimals)
    for letter, query in zip(_LETTERS, panel.queries, strict=False):
        unit = query.unit or Unit("", None)
        if own := _properties(unit=unit.name, decimals=unit.decimals, color=_fixed(query.color)):
            built.override_by_query(letter, own)
    return built


def board_link(uid: str, **variables: str) -> str:
    """Return the address of another board, which keeps the choices made here and the time range."""
    chosen = [f"var-{name}={value}" for name, value in {"datasource": "${datasource}", **variables}.items()]
    kept = [f"${{{name}:queryparam}}" for name in ("job", "instance") if name not in variables]
    return f"/d/{uid}?{'&'.join([*chosen, *kept, '${__url_time_range}'])}"


def miner_columns(uid: str = "chutes-overview", variable: str = "hotkey", **options: Any) -> tuple[Column, Column]:
    """Return the columns of a short hotkey, which shows the full one on hover. `short` adds the label `miner`."""
    hotkey = "${__data.fields.hotkey}"
    link = board_link(uid, **{variable: hotkey})
    return Column("", "hotkey"), Column("Miner", "miner", width=130, link=link, tooltip=hotkey, **options)


MINER_COLUMNS: Final = miner_columns()


@dataclass
class Board:
    """A dashboard.

    Attributes:
        uid: A slug, which is its address.
        title: Must differ from the titles in the miners' own monitoring chart.
        description: The question that it answers.
        variables: Names of those in `VARIABLES` that it offers.
        data: The worlds in which its queries return something, if they name no others.
        empty: The text of a panel without data, if it has no other.
        stat_empty: The same of a stat.
        rows: Headings and panels. Rows with a heading are closed until somebody opens them.
    """

    uid: str
    title: str
    description: str
    variables: Sequence[str] = ("cluster", "job", "instance", "hotkey")
    data: frozenset[World] = LIVE
    empty: str = NO_DATA
    stat_empty: str = "see the Exporter board"
    rows: list[tuple[str, list[Panel]]] = field(default_factory=list)

    @property
    def panels(self) -> list[Panel]:
        """All panels, those of closed rows included."""
        return [panel for _, panels in self.rows for panel in panels]

    def show(self, *panels: Panel, title: str = "") -> None:
        """Add panels, which a heading hides until somebody opens it."""
        self.rows.append((title, [self._complete(panel, panels) for panel in panels]))

    def _complete(self, panel: Panel, row: Sequence[Panel]) -> Panel:
        width, height = panel.size
        usual_width, usual_height = _SIZES[panel.kind]
        if not (width or usual_width):
            tiles = [one for one in row if one.kind == "stat"]
            sharing = [one for one in tiles if not one.size[0]]
            share, rest = divmod(_COLUMNS - sum(one.size[0] for one in tiles), len(sharing))
            usual_width = share + (sharing.index(panel) < rest)
        empty = self.stat_empty if panel.kind == "stat" else self.empty
        content = [one if one.data is not None else replace(one, data=self.data) for one in panel.content]
        size = (width or usual_width, height or usual_height)
        return replace(panel, content=content, size=size, empty=panel.empty or empty)


BOARD_ORDER: Final = (
    ("chutes-overview", "Overview"),
    ("chutes-fleet", "Fleet"),
    ("chutes-instances", "Instances"),
    ("chutes-market", "Market"),
    ("chutes-subnet", "Subnet"),
    ("chutes-exporter", "Exporter"),
)
"""The order of the links at the top of each board, which mark the present one."""

ALERTS: Final = 'alertname=~"Chutes.+", job=~"$job|", hotkey=~"$hotkey|"'
"""Matches the alerts about the chosen miners, and those about no miner."""
ANNOTATION: Final = Query(
    f'max by (alertname, severity, hotkey) (ALERTS{{{ALERTS}, alertstate="firing", severity="critical"}})', data=ALARMED
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
        ordered: Whether one value is chosen, at first the first of the answer. Of others, several or all can be chosen.
    """

    label: str
    description: str
    query: str
    all_value: str = ""
    regex: str = ""
    ordered: bool = False


_WATCHED: Final = of_exporters("chutes_miner_watched", "hotkey")
_SHARE: Final = of_exporters("chutes_miner_score_ratio", "hotkey")
_SEATS: Final = f"max by (hotkey) (last_over_time({select('chutes_miner_registered', EXPORTERS)}[1d]))"
_CANDIDATES: Final = f"{_WATCHED} + on (hotkey) {_SHARE} or on (hotkey) {_SHARE} or on (hotkey) 0 * {_SEATS}"
"""All miners: first the watched ones with a score, then the others with a score, each from the best to the worst."""

ANYTHING: Final = ".*"
"""Matches all values of a label that every series has. For `.+`, Prometheus 2 reads the index of each value."""

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
        "Exporters whose answers are shown. Where several watch a miner, nothing counts twice.",
        'label_values(chutes_exporter_build_info{cluster=~"$cluster", job=~"$job"}, instance)',
        ".+",
    ),
    # Without a regular expression of its own, "All" means the watched miners, even if all others are exported.
    "hotkey": Variable(
        "Miner",
        "Hotkeys of the miners that the exporter watches.",
        'label_values(chutes_miner_watched{cluster=~"$cluster", job=~"$job", instance=~"$instance"}, hotkey)',
    ),
    "miner": Variable(
        "Miner",
        "Any miner that the exporters export, the watched ones first. With --miners all, that is every miner of the "
        "subnet.",
        f"query_result(sort_desc({short(_CANDIDATES)}))",
        regex='/hotkey="(?<value>[^"]+)|miner="(?<text>[^"]+)/g',
        ordered=True,
    ),
    "server": Variable(
        "Server",
        "Servers of the chosen miners.",
        f"label_values(hotkey_server_id:chutes_server_info:max{{{MINERS}}}, server)",
        ANYTHING,
    ),
    "chute": Variable(
        "Chute",
        "Chutes, by name.",
        "query_result(chute_id:chutes_chute_info:max)",
        ANYTHING,
        '/name="(?<text>[^"]+)|chute_id="(?<value>[^"]+)/g',
    ),
}


def _variable(name: str) -> builders.QueryVariable:
    variable = VARIABLES[name]
    kind = 1 if variable.query.startswith("label_values") else 3
    query = {"qryType": kind, "query": variable.query, "refId": "PrometheusVariableQueryEditor-VariableQuery"}
    built = (
        builders.QueryVariable(name)
        .label(variable.label)
        .description(variable.description)
        .datasource(_DATASOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.DISABLED if variable.ordered else models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=not variable.ordered)
        .include_all(include_all=not variable.ordered)
        .regex(variable.regex)
    )
    if not variable.ordered:
        built.current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    return built.all_value(variable.all_value) if variable.all_value else built


def dashboard_json(board: Board) -> str:
    """Make a board's JSON, as it is committed."""
    dashboard = (
        builders.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .timezone("browser")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-24h", "now")
        .refresh("1m")
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .annotation(
            builders.AnnotationQuery()
            .name("Critical alerts")
            .datasource(_DATASOURCE)
            .enable(enable=False)
            .icon_color("red")
            .expr(ANNOTATION.expr)
        )
    )
    for name in board.variables:
        dashboard.with_variable(_variable(name))
    for uid, name in BOARD_ORDER:
        dashboard.link(
            builders.DashboardLink(f"● {name}" if uid == board.uid else name)
            .type(models.DashboardLinkType.LINK)
            .icon("dashboard")
            .tooltip(f"{name}, with the same choices")
            .url(f"/d/{uid}")
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
    y = number = 0
    for title, panels in board.rows:
        heading = builders.Row(title).collapsed(collapsed=True)
        if title:
            number += 1
            heading.id(number).grid_pos(models.GridPos(h=1, w=_COLUMNS, x=0, y=y))
            y += 1
        placed, bottom = _place(panels, y)
        for panel, position in placed:
            number += 1
            (heading if title else dashboard).with_panel(_built(panel).id(number).grid_pos(position))
        if title:
            dashboard.with_row(heading)
        else:
            y = bottom
    written: dict[str, Any] = json.loads(json.dumps(dashboard.build(), cls=JSONEncoder))
    # The builder does not know the data source's own fields of an annotation.
    formats = {"titleFormat": "{{alertname}}", "textFormat": "{{hotkey}}", "tagKeys": "severity", "step": MINIMUM_STEP}
    written["annotations"]["list"][0] |= formats
    return json.dumps(written, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _place(panels: Sequence[Panel], y: int) -> tuple[list[tuple[Panel, models.GridPos]], int]:
    """Place panels from left to right, and return the grid row below them as well."""
    placed = []
    x = height = 0
    for panel in panels:
        width, tall = panel.size
        if x + width > _COLUMNS:
            y, x, height = y + height, 0, 0
        placed.append((panel, models.GridPos(h=tall, w=width, x=x, y=y)))
        x, height = x + width, max(height, tall)
    return placed, y + height
