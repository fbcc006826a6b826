"""Parts of dashboards: queries with the worlds in which they have data, panels, rows, variables and links.

Several exporters can watch the same miner. A query takes the maximum over them, and joins with an explicit `on`.
"""

from __future__ import annotations

import json
import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

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
CLOCK: Final = "time:HH:mm"
"""The unit of a time of day, in milliseconds since 1970."""

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
    """Select a metric of the chosen miners.

    Args:
        metric: The name.
        labels: Labels that tell its series apart, besides the hotkey.
        where: See `select`.
    """
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


def top_ten_at_end(expression: str, plain: str, label: str = "hotkey", *, lowest: bool = False) -> str:
    """Keep the ten series that are greatest at the end of the time range, so that lines stay the same.

    Args:
        expression: Gives the lines.
        plain: The same series without added labels, whose values order them.
        label: Tells the series apart.
        lowest: Whether the ten lowest are kept.
    """
    at_end = re.sub(r"(\{[^{}]*\})", r"\1 @ end()", plain) if "{" in plain else f"{plain} @ end()"
    return f"{expression} and on ({label}) {'bottomk' if lowest else 'topk'}(10, {at_end})"


def or_load_rules(expression: str) -> str:
    """Return an expression that is NaN while the rules are not loaded. A stat shows this as `LOAD_RULES`."""
    return f"{expression} or on () absent(prometheus:chutes_rules:loaded @ end()) * NaN"


@dataclass(frozen=True)
class Query:
    """A query to Prometheus.

    Attributes:
        expr: In PromQL.
        legend: Name of the series, with labels as `{{label}}`.
        data: The worlds in which it returns something for the present.
        sometimes: Whether it returns something there only at some times.
        unit: Grafana's name of the unit, where it differs from the panel's.
        color: Grafana's name of the colour, likewise.
        decimals: Digits after the point, likewise.
        step: The least time between two points of a graph.
    """

    expr: str
    legend: str = ""
    data: frozenset[World] = LIVE
    unit: str = ""
    color: str = ""
    decimals: int | None = None
    step: str = MINIMUM_STEP
    sometimes: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        source: A label, or the letter of the query that gives the value.
        title: The heading. An empty one hides the column, whose values links can use.
        unit: Grafana's name of the unit.
        decimals: Digits after the point; as many as needed when None.
        states: Values, or texts, that mean states.
        width: The least width in pixels. Columns share the space that is left; a table that lacks space scrolls.
        link: The address that a click opens.
        tooltip: The title of the link. `${__data.fields.hotkey}` shows a value of the row.
        thresholds: From which value on it has which colour.
        missing: The text of a cell without a value.
    """

    source: str
    title: str
    unit: str = ""
    decimals: int | None = None
    states: Sequence[State] = ()
    width: int = 0
    link: str = ""
    tooltip: str = ""
    thresholds: Sequence[tuple[float, str]] = ()
    missing: str = "-"


@dataclass(frozen=True)
class Panel:
    """A panel.

    Attributes:
        builder: Makes its JSON.
        queries: Its queries.
        size: Width of 24 columns, and height in grid rows.
    """

    builder: stat.Panel | table.Panel | timeseries.Panel | statetimeline.Panel
    queries: Sequence[Query]
    size: tuple[int, int]


def _targets(queries: Sequence[Query], *, now: bool, rows: bool = False) -> list[prometheus.Dataquery]:
    targets = []
    for letter, query in zip(_LETTERS, queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expr).datasource(_DATASOURCE)
        target = target.instant() if now else target.range()
        target = target.format(PromQueryFormat.TABLE if rows else PromQueryFormat.TIME_SERIES)
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


def _fixed(color: str) -> dict[str, str] | None:
    return {"mode": "fixed", "fixedColor": color} if color else None


def _overrides(
    panel: stat.Panel | timeseries.Panel | statetimeline.Panel, queries: Sequence[Query], states: Sequence[State]
) -> None:
    for letter, query in zip(_LETTERS, queries, strict=False):
        own: dict[str, Any] = {"unit": query.unit, "decimals": query.decimals, "color": _fixed(query.color)}
        values = [
            models.DynamicConfigValue(id_val=name, value=value)
            for name, value in own.items()
            if value not in (None, "")
        ]
        if values:
            panel.override_by_query(letter, values)
    for state in states:
        color = _fixed(state.color)
        panel.override_by_name(state.text, [models.DynamicConfigValue(id_val="color", value=color)])


def stat_panel(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    states: Sequence[State] = (),
    thresholds: Sequence[tuple[float, str]] = (),
    decimals: int | None = None,
    empty: str = "see the Exporter board",
    trend: bool = False,
    as_text: bool = False,
    size: tuple[int, int] = (4, 3),
) -> Panel:
    """Make a stat: a large number, or the state that it means, beside the legend of its query.

    Args:
        title: The name of the number.
        description: What to do when it looks bad.
        queries: Each gives a number. Their legends are short, and say of what it is.
        unit: Grafana's name of the unit.
        states: Values that mean states.
        thresholds: From which value on it has which colour.
        decimals: Digits after the point; as many as needed when None.
        empty: The text when there is no data.
        trend: Whether to show a sparkline.
        as_text: Whether the legend is shown alone, which is made of labels.
        size: Columns and grid rows.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .targets(list(_targets(queries, now=not trend)))
        .unit(unit)
        .mappings([*_mappings(states, thresholds), _rules_missing(len(states) + len(thresholds))])
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(_steps(thresholds)))
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .no_value(empty)
        .graph_mode(common.BigValueGraphMode.AREA if trend else common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        # With a name, the number is above the sparkline. Without one, it would be on it.
        .text_mode(common.BigValueTextMode.NAME if as_text else common.BigValueTextMode.VALUE_AND_NAME)
        .justify_mode(common.BigValueJustifyMode.AUTO)
        .text(common_builders.VizTextDisplayOptions().title_size(_NAME_SIZE))
        # The last value, as "last not null" leaves NaN out.
        .reduce_options(common_builders.ReduceDataOptions().calcs(["last"]).values(values=False))
    )
    if decimals is not None:
        panel.decimals(decimals)
    _overrides(panel, queries, ())
    return Panel(panel, queries, size)


def graph(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    states: Sequence[State] = (),
    decimals: int | None = None,
    stacked: bool = False,
    bars: bool = False,
    calcs: Sequence[str] = ("lastNotNull", "min", "max"),
    empty: str = NO_DATA,
    size: tuple[int, int] = (12, 9),
) -> Panel:
    """Make a graph of at most ten lines over time, with one unit.

    Args:
        title: The name of what it shows.
        description: What to do when it looks bad.
        queries: Their legends name the lines.
        unit: Grafana's name of the unit.
        states: Lines that mean states have the colours of these. All others have the classic palette.
        decimals: Digits after the point; as many as needed when None.
        stacked: Whether the lines are parts of a whole.
        bars: Whether each point counts what happened in its step.
        calcs: Columns of the legend's table.
        empty: The text when there is no data.
        size: Columns and grid rows.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .targets(list(_targets(queries, now=False)))
        .unit(unit)
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC))
        .no_value(empty)
        .min(0)
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
        .legend(_legend(calcs, states))
        .tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
    )
    if decimals is not None:
        panel.decimals(decimals)
    _overrides(panel, queries, states)
    return Panel(panel, queries, size)


def _legend(calcs: Sequence[str], states: Sequence[State]) -> common_builders.VizLegendOptions:
    """Make a table of lines beside the graph, where ten have space. Grafana moves it below on a narrow screen.

    There, few lines are seen: of states, those that cost most, whose names come last.
    """
    legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE)
    legend.placement(common.LegendPlacement.RIGHT).show_legend(show_legend=True).calcs(list(calcs))
    return legend.sort_by("Name").sort_desc(sort_desc=True) if states else legend


def timeline(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    states: Sequence[State],
    empty: str = NO_DATA,
    size: tuple[int, int] = (24, 8),
) -> Panel:
    """Make a timeline: a line for each series, whose colour shows its state.

    Args:
        title: The name of what it shows.
        description: What to do when it looks bad.
        queries: Their values are those of the states.
        states: Values that mean states.
        empty: The text when there is no data.
        size: Columns and grid rows.
    """
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .targets(list(_targets(queries, now=False)))
        .unit("short")
        .mappings(_mappings(states))
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(_steps(())))
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .no_value(empty)
        .merge_values(merge_values=True)
        .show_value(common.VisibilityMode.NEVER)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
    )
    return Panel(panel, queries, size)


def table_panel(
    title: str,
    description: str,
    queries: Sequence[Query],
    columns: Sequence[Column],
    *,
    sort: Sequence[tuple[str, bool]],
    empty: str = NO_DATA,
    size: tuple[int, int] = (24, 8),
) -> Panel:
    """Make a table.

    Args:
        title: The name of what it lists.
        description: What to do when it looks bad.
        queries: Rows with equal values of all common labels are merged.
        columns: Parts of the answers that are shown, in this order.
        sort: The titles of the columns that order it, and whether the greatest come first.
        empty: The text when it has no rows.
        size: Columns and grid rows.
    """
    letters = _LETTERS[: len(queries)]
    value = "Value #{}" if len(queries) > 1 else "Value"
    sources = [value.format(column.source) if column.source in letters else column.source for column in columns]
    transformations = []
    if len(queries) > 1:
        # Rows that differ in the name of their metric would not become one.
        unnamed = {"exclude": {"names": ["__name__"]}}
        transformations.append(models.DataTransformerConfig(id_val="filterFieldsByName", options=unnamed))
        transformations.append(models.DataTransformerConfig(id_val="merge", options={}))
    transformations += [
        models.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": sources}}),
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "indexByName": {source: index for index, source in enumerate(sources)},
                "renameByName": {
                    source: column.title for source, column in zip(sources, columns, strict=True) if column.title
                },
            },
        ),
    ]
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .targets(list(_targets(queries, now=True, rows=True)))
        .transformations(transformations)
        .unit("short")
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(_steps(())))
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .no_value(empty)
        .show_header(show_header=True)
        .cell_height(common.TableCellHeight.SM)
        .sort_by([common_builders.TableSortByFieldState().display_name(name).desc(desc) for name, desc in sort])
    )
    for source, column in zip(sources, columns, strict=True):
        panel.override_by_name(column.title or source, list(_column(column)))
    return Panel(panel, queries, size)


def _column(column: Column) -> Iterable[models.DynamicConfigValue]:
    if not column.title:
        yield models.DynamicConfigValue(id_val="custom.hidden", value=True)
    # A value that is missing in one row does not make the table empty.
    yield models.DynamicConfigValue(id_val="noValue", value=column.missing)
    # Text that looks like a number is text.
    yield models.DynamicConfigValue(id_val="unit", value=column.unit or "string")
    if column.decimals is not None:
        yield models.DynamicConfigValue(id_val="decimals", value=column.decimals)
    if mappings := _mappings(column.states, column.thresholds):
        yield models.DynamicConfigValue(id_val="mappings", value=mappings)
    if column.thresholds:
        scale = {"mode": "absolute", "steps": _steps(column.thresholds)}
        yield models.DynamicConfigValue(id_val="thresholds", value=scale)
    if column.states or column.thresholds:
        yield models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"})
    if column.width:
        yield models.DynamicConfigValue(id_val="custom.minWidth", value=column.width)
    if column.states:
        yield models.DynamicConfigValue(id_val="custom.align", value="left")
    if column.link:
        link = {"title": column.tooltip or f"Show this {column.title.lower()}", "url": column.link}
        yield models.DynamicConfigValue(id_val="links", value=[link])


def board_link(uid: str, **variables: str) -> str:
    """Return the address of another board, which keeps the choices made here and the time range."""
    chosen = [f"var-{name}={value}" for name, value in {"datasource": "${datasource}", **variables}.items()]
    kept = [f"${{{name}:queryparam}}" for name in ("job", "instance") if name not in variables]
    return f"/d/{uid}?{'&'.join([*chosen, *kept, '${__url_time_range}'])}"


HOTKEY_WIDTH: Final = 130
MINER_COLUMNS: Final = (
    Column("hotkey", ""),
    Column(
        "miner",
        "Miner",
        width=HOTKEY_WIDTH,
        link=board_link("chutes-overview", hotkey="${__data.fields.hotkey}"),
        tooltip="${__data.fields.hotkey}",
    ),
)
"""The short hotkey, which shows the full one on hover. Queries add the label `miner` with `short`."""


@dataclass
class Row:
    """Panels under a heading.

    Attributes:
        title: The heading; an open row can do without.
        panels: In reading order.
        collapsed: Whether it is closed until somebody opens it.
    """

    title: str
    panels: Sequence[Panel]
    collapsed: bool


@dataclass
class Board:
    """A dashboard.

    Attributes:
        uid: A slug, which is its address.
        title: Must differ from the titles in the miners' own monitoring chart.
        description: The question that it answers.
        variables: Names of those in `VARIABLES` that it offers.
    """

    uid: str
    title: str
    description: str
    variables: Sequence[str] = ("cluster", "job", "instance", "hotkey")
    rows: list[Row] = field(default_factory=list)

    @property
    def panels(self) -> list[Panel]:
        """All panels, those of collapsed rows included."""
        return [panel for row in self.rows for panel in row.panels]

    def show(self, *panels: Panel, title: str = "") -> None:
        """Add panels that are open."""
        self.rows.append(Row(title, panels, collapsed=False))

    def fold(self, title: str, *panels: Panel) -> None:
        """Add panels in a collapsed row."""
        self.rows.append(Row(title, panels, collapsed=True))


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
        multi: Whether several values can be chosen, or all.
        ordered: Whether the answer has the order in which the values are offered. The first is chosen at first.
    """

    label: str
    description: str
    query: str
    all_value: str = ".+"
    regex: str = ""
    multi: bool = True
    ordered: bool = False


_WATCHED: Final = f"max by (hotkey) ({select('chutes_miner_watched', EXPORTERS)})"
_SHARE: Final = f"max by (hotkey) ({select('chutes_miner_score_ratio', EXPORTERS)})"
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
        all_value=".*",
    ),
    "job": Variable(
        "Job", "Scrape jobs with an exporter.", 'label_values(chutes_exporter_build_info{cluster=~"$cluster"}, job)'
    ),
    "instance": Variable(
        "Exporter",
        "Exporters whose answers are shown. Where several watch a miner, nothing counts twice.",
        'label_values(chutes_exporter_build_info{cluster=~"$cluster", job=~"$job"}, instance)',
    ),
    # Without a regular expression of its own, "All" means the watched miners, even if all others are exported.
    "hotkey": Variable(
        "Miner",
        "Hotkeys of the miners that the exporter watches.",
        'label_values(chutes_miner_watched{cluster=~"$cluster", job=~"$job", instance=~"$instance"}, hotkey)',
        all_value="",
    ),
    "miner": Variable(
        "Miner",
        "Any miner that the exporters export, the watched ones first. With --miners all, that is every miner of the "
        "subnet.",
        f"query_result(sort_desc({short(_CANDIDATES)}))",
        all_value="",
        regex='/hotkey="(?<value>[^"]+)|miner="(?<text>[^"]+)/g',
        multi=False,
        ordered=True,
    ),
    "server": Variable(
        "Server",
        "Servers of the chosen miners.",
        f"label_values(hotkey_server_id:chutes_server_info:max{{{MINERS}}}, server)",
        all_value=ANYTHING,
    ),
    "chute": Variable(
        "Chute",
        "Chutes, by name.",
        "query_result(chute_id:chutes_chute_info:max)",
        all_value=ANYTHING,
        regex='/name="(?<text>[^"]+)|chute_id="(?<value>[^"]+)/g',
    ),
}


def _variable(name: str) -> builders.QueryVariable:
    variable = VARIABLES[name]
    built = (
        builders.QueryVariable(name)
        .label(variable.label)
        .description(variable.description)
        .datasource(_DATASOURCE)
        .query(
            {
                "qryType": 1 if variable.query.startswith("label_values") else 3,
                "query": variable.query,
                "refId": "PrometheusVariableQueryEditor-VariableQuery",
            }
        )
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.DISABLED if variable.ordered else models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=variable.multi)
        .include_all(include_all=variable.multi)
        .regex(variable.regex)
    )
    if variable.multi:
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
    for row in board.rows:
        heading = builders.Row(row.title).collapsed(collapsed=row.collapsed)
        if row.title:
            number += 1
            heading.id(number).grid_pos(models.GridPos(h=1, w=_COLUMNS, x=0, y=y))
            y += 1
        placed, bottom = _place(row.panels, y)
        for panel, position in placed:
            number += 1
            built = panel.builder.id(number).grid_pos(position)
            if row.collapsed:
                heading.with_panel(built)
        if row.title:
            dashboard.with_row(heading)
        if not row.collapsed:
            for panel, _ in placed:
                dashboard.with_panel(panel.builder)
            y = bottom
    return _written(dashboard)


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


def _written(dashboard: builders.Dashboard) -> str:
    written: dict[str, Any] = json.loads(json.dumps(dashboard.build(), cls=JSONEncoder))
    # The builder does not know the data source's own fields of an annotation.
    for annotation in written["annotations"]["list"]:
        annotation |= {
            "titleFormat": "{{alertname}}",
            "textFormat": "{{hotkey}}",
            "tagKeys": "severity",
            "step": MINIMUM_STEP,
        }
    return json.dumps(written, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
