"""The parts of boards: queries with the worlds in which they have data, panels, rows, variables and links.

Several exporters may export the same series, for example a pair for availability, or a page of /probe beside the main
page. So the queries first take one of each series with `max by` its identifying labels, and join with an explicit `on`.
"""

from __future__ import annotations

import json
import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from chutes_exporter.collectors import COLLECTORS
from grafana.states import ABSENCES, DOWN, NO_DATA, NO_KEY, NOTHING, OFF, PARTS, PLAIN, State
from grafana.worlds import ALARMED, ALL, LIVE, World

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

JOB: Final = 'job=~"$job"'
WATCHED: Final = 'job=~"$job", hotkey=~"$hotkey"'
TAG: Final = "chutes-exporter"
MINIMUM_STEP: Final = "1m"
"""The miners' Prometheus scrapes once a minute, and the range of a rate must contain several scrapes."""
WAS_EXPORTER: Final = f"and on (job, instance) last_over_time(chutes_exporter_build_info{{{JOB}}}[7d])"
"""Keeps the targets of a job that were chutes-exporters within the past week."""
SIGNED_FEEDS: Final = "servers|nodes|inventory|instances|thrash_cooldowns"

_DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="$datasource")
_COLUMNS = 24
_LETTERS = string.ascii_uppercase


def _selector(metric: str, always: str, where: dict[str, str]) -> str:
    operators = {"~": "=~", "!": "!="}
    matchers = [
        f'{label}{operators[value[0]]}"{value[1:]}"' if value[0] in operators else f'{label}="{value}"'
        for label, value in where.items()
    ]
    return f"{metric}{{{', '.join((always, *matchers))}}}"


def miner(metric: str, *labels: str, **where: str) -> str:
    """Select a metric of the watched miners, one series for each hotkey and combination of the labels.

    Args:
        metric: Its name.
        labels: Identifying labels besides the hotkey.
        where: Values of labels. `~` before a value means a regular expression, and `!` means another value.
    """
    return f"max by ({', '.join(('hotkey', *labels))}) ({_selector(metric, WATCHED, where)})"


def platform(metric: str, *labels: str, **where: str) -> str:
    """Select a metric of all miners or of the platform. The arguments are those of `miner`."""
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"max{by} ({_selector(metric, JOB, where)})"


def lowest_of_exporters(selected: str) -> str:
    """Take the lowest value of several exporters, on a board about the exporters themselves."""
    return selected.replace("max", "min", 1)


def top_ten_at_end(expression: str, label: str) -> str:
    """Keep the ten series with the greatest values at the end of the range, so that all steps show the same series."""
    # At every step, evaluate the selectors at the end of the range.
    now = re.sub(r"(\{[^{}]*\})", r"\1 @ end()", expression)
    return f"({expression}) and on ({label}) topk(10, {now})"


def with_chute_name(expression: str) -> str:
    """Add the label `name` to series with a `chute_id`. An unknown name becomes the id."""
    names = f"topk by (chute_id) (1, {platform('chutes_chute_info', 'chute_id', 'name')})"
    return (
        f"({expression}) * on (chute_id) group_left (name) {names}\n"
        f'or on (chute_id) label_replace({expression}, "name", "$1", "chute_id", "(.+)")'
    )


def or_absence(value: str, collector: str) -> str:
    """Return a query for a value, or for the state that explains why there is no value.

    Args:
        value: The query for the value.
        collector: The collector of its metrics. If all its answers are good, no value means none.
    """
    (found,) = (one for one in COLLECTORS if one.name == collector)
    here = WATCHED if found.scope == "signer" else JOB
    live = f"count(chutes_exporter_build_info{{{JOB}}}) > bool 0"
    feeds = "|".join(feed.name for feed in found.feeds)
    success = f'chutes_scrape_collector_success{{{here}, collector="{collector}"}}'
    nothing = (
        f"{NOTHING} * (min({success}) > 0)"
        f' unless on () sum(chutes_feed_rejected_records{{{here}, feed=~"{feeds}"}}) > 0'
        f' unless on () max(chutes_feed_doubted{{{here}, feed=~"{feeds}"}}) > 0'
        f' unless on () max(chutes_scrape_collector_cut{{{JOB}, collector="{collector}"}}) > 0'
    )
    fallbacks = [nothing]
    if found.needs_key:
        fallbacks.append(
            f'{NO_KEY} * ({live}) unless on () count(chutes_feed_ttl_seconds{{{here}, feed=~"{SIGNED_FEEDS}"}})'
        )
    fallbacks += [
        f"{OFF} * ({live}) unless on () count({success})",
        f"{NO_DATA} * ({live})",
        f"{DOWN} * (count(up{{{JOB}}} == 0 {WAS_EXPORTER}) > bool 0)",
    ]
    return "\nor on () ".join((value, *(f"({one})" for one in fallbacks)))


@dataclass(frozen=True)
class Query:
    """A query to Prometheus.

    Attributes:
        expr: The PromQL expression.
        legend: Name of the series, with labels as `{{label}}`.
        data: The worlds in which it returns data for now.
    """

    expr: str
    legend: str = ""
    data: frozenset[World] = LIVE


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        source: A label, or the letter of a query.
        title: The title.
        unit: Grafana's name of the unit.
        states: States of values or texts.
        width: In pixels.
        link: URL of a click.
        thresholds: Lowest values of colours.
    """

    source: str
    title: str
    unit: str = ""
    states: Sequence[State] = ()
    width: int = 0
    link: str = ""
    thresholds: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Panel:
    """A panel with its queries.

    Attributes:
        builder: Makes its JSON.
        queries: Its queries.
        size: Width in columns (of 24) and height in rows.
    """

    builder: stat.Panel | table.Panel | timeseries.Panel
    queries: Sequence[Query]
    size: tuple[int, int]


def _targets(queries: Sequence[Query], *, now: bool, rows: bool = False) -> list[prometheus.Dataquery]:
    targets = []
    for letter, query in zip(_LETTERS, queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expr).datasource(_DATASOURCE)
        target = target.instant() if now else target.range()
        target = target.format(PromQueryFormat.TABLE if rows else PromQueryFormat.TIME_SERIES)
        targets.append(target.legend_format(query.legend or "__auto").interval(MINIMUM_STEP))
    return targets


def _steps(thresholds: Iterable[tuple[float, str]]) -> list[models.Threshold]:
    """Make the steps of a scale. It begins with the plain colour unless the first step is minus infinity."""
    steps = list(thresholds)
    lowest = [models.Threshold(value=None, color=PLAIN)]
    if steps and steps[0][0] == float("-inf"):
        lowest = [models.Threshold(value=None, color=steps.pop(0)[1])]
    return lowest + [models.Threshold(value=value, color=color) for value, color in steps]


def _mappings(states: Iterable[State]) -> list[models.ValueMapping]:
    options = {
        f"{state.value}": models.ValueMappingResult(text=state.text, color=state.color, index=index)
        for index, state in enumerate(states)
    }
    return [models.ValueMap(options=options)] if options else []


def tile(
    title: str,
    description: str,
    query: Query | str,
    *,
    unit: str = "short",
    states: Sequence[State] = (),
    thresholds: Sequence[tuple[float, str]] = (),
    decimals: int | None = None,
    empty: str = "no exporter",
    width: int = 3,
) -> Panel:
    """Make a tile with one number or state.

    Args:
        title: The title.
        description: The meaning, and what to do when it looks bad.
        query: A query, or an expression that has data in every world.
        unit: Grafana's name of the unit.
        states: States of values, besides the absences.
        thresholds: Lowest values of colours.
        decimals: Number of decimals. None lets Grafana choose.
        empty: The text without any result.
        width: Width in columns.
    """
    query = Query(query, data=ALL) if isinstance(query, str) else query
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .targets(list(_targets([query], now=True)))
        .unit(unit)
        .mappings(_mappings((*states, *ABSENCES)))
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(_steps(thresholds)))
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .no_value(empty)
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .justify_mode(common.BigValueJustifyMode.CENTER)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
    )
    if decimals is not None:
        panel.decimals(decimals)
    return Panel(panel, [query], (width, 4))


def lines(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    states: Sequence[State] = (),
    stacked: bool = False,
    empty: str = "No data in this time range",
    size: tuple[int, int] = (12, 8),
) -> Panel:
    """Make lines over time.

    Args:
        title: The title.
        description: The meaning, and what to do when it looks bad.
        queries: The queries.
        unit: Grafana's name of the unit.
        states: States whose colours the series with their names get. Others get a shade of their query's colour.
        stacked: Whether the lines are parts of a whole.
        empty: The text without data.
        size: Width in columns and height in rows.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .targets(list(_targets(queries, now=False)))
        .unit(unit)
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.SHADES).fixed_color(PARTS[0]))
        .no_value(empty)
        .min(0)
        .fill_opacity(30 if stacked else 0)
        .line_width(1)
        .show_points(common.VisibilityMode.NEVER)
        .span_nulls(span_nulls=False)
        .stacking(
            common_builders.StackingConfig()
            .mode(common.StackingMode.NORMAL if stacked else common.StackingMode.NONE)
            .group("A")
        )
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
    )
    if len(queries) > 1:
        for letter, shade in zip(_LETTERS[: len(queries)], PARTS, strict=False):
            color = {"mode": "shades", "fixedColor": shade}
            panel.override_by_query(letter, [models.DynamicConfigValue(id_val="color", value=color)])
    for state in states:
        color = {"mode": "fixed", "fixedColor": state.color}
        panel.override_by_name(state.text, [models.DynamicConfigValue(id_val="color", value=color)])
    return Panel(panel, queries, size)


def rows(
    title: str,
    description: str,
    queries: Sequence[Query],
    columns: Sequence[Column],
    *,
    empty: str,
    sort: tuple[str, bool],
    size: tuple[int, int] = (24, 10),
) -> Panel:
    """Make a table.

    Args:
        title: The title.
        description: The meaning, and what to do when it looks bad.
        queries: The queries. Rows with equal common labels are merged.
        columns: The columns in their order.
        empty: The text without rows.
        sort: Title of the column that orders the rows, and whether the order is descending.
        size: Width in columns and height in rows.
    """
    letters = _LETTERS[: len(queries)]
    value = "Value #{}" if len(queries) > 1 else "Value"
    sources = [value.format(column.source) if column.source in letters else column.source for column in columns]
    transformations = [models.DataTransformerConfig(id_val="merge", options={})] if len(queries) > 1 else []
    transformations += [
        models.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": sources}}),
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "indexByName": {source: index for index, source in enumerate(sources)},
                "renameByName": dict(zip(sources, (column.title for column in columns), strict=True)),
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
        .filterable(filterable=True)
        .show_header(show_header=True)
        .cell_height(common.TableCellHeight.SM)
        .sort_by([common_builders.TableSortByFieldState().display_name(sort[0]).desc(sort[1])])
    )
    for column in columns:
        panel.override_by_name(column.title, list(_column(column)))
    return Panel(panel, queries, size)


def _column(column: Column) -> Iterable[models.DynamicConfigValue]:
    # An empty cell must not show the text of an empty table.
    yield models.DynamicConfigValue(id_val="noValue", value="-")
    # Do not format text that looks like a number.
    yield models.DynamicConfigValue(id_val="unit", value=column.unit or "string")
    if column.states:
        yield models.DynamicConfigValue(id_val="mappings", value=_mappings(column.states))
    if column.thresholds:
        scale = {"mode": "absolute", "steps": _steps(column.thresholds)}
        yield models.DynamicConfigValue(id_val="thresholds", value=scale)
    if column.states or column.thresholds:
        yield models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"})
    if column.width:
        yield models.DynamicConfigValue(id_val="custom.width", value=column.width)
    if column.link:
        link = {"title": f"Show this {column.title.lower()}", "url": column.link}
        yield models.DynamicConfigValue(id_val="links", value=[link])


def board_link(uid: str, **variables: str) -> str:
    """Return the address of another board that keeps the chosen variables and time."""
    chosen = "&".join(f"var-{name}={value}" for name, value in {"datasource": "${datasource}", **variables}.items())
    return f"/d/{uid}?{chosen}&${{job:queryparam}}&${{__url_time_range}}"


@dataclass
class Board:
    """A dashboard.

    Attributes:
        uid: A slug, which is part of its address.
        title: The title. It must differ from the dashboards of the miners' chart.
        description: The description.
        panels: Its panels, and titles of rows between them.
    """

    uid: str
    title: str
    description: str
    panels: list[Panel | str] = field(default_factory=list)

    @property
    def queried(self) -> list[Panel]:
        """Its panels, without the rows."""
        return [panel for panel in self.panels if not isinstance(panel, str)]

    def row(self, title: str, *panels: Panel) -> None:
        """Add panels under a heading."""
        self.panels += [title, *panels]


BOARD_ORDER: Final = (
    ("chutes-overview", "Overview"),
    ("chutes-fleet", "Fleet"),
    ("chutes-instances", "Instances"),
    ("chutes-market", "Market"),
    ("chutes-subnet", "Subnet"),
    ("chutes-exporter", "Exporter"),
)
"""The boards in the order of their links."""

ALERTS: Final = 'alertname=~"Chutes.+", job=~"$job|", hotkey=~"$hotkey|"'
"""Matches the alerts about the watched miners, and those about no miner."""
ANNOTATION: Final = Query(
    f'max by (alertname, severity, hotkey) (ALERTS{{{ALERTS}, alertstate="firing"}})', data=ALARMED
)
VARIABLES: Final = {
    "job": Query("label_values(chutes_exporter_build_info, job)", data=ALL),
    "hotkey": Query(f"label_values(chutes_miner_watched{{{JOB}}}, hotkey)", data=ALL),
}


def _variable(name: str, label: str, description: str) -> builders.QueryVariable:
    query = VARIABLES[name].expr
    return (
        builders.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(_DATASOURCE)
        .query({"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def dashboard_json(board: Board) -> str:
    """Return a board's JSON, as it is committed."""
    made = (
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
        .with_variable(_variable("job", "Job", "Scrape jobs that have an exporter.").all_value(".+"))
        # "All" has no own regular expression here, so that it means all watched miners and not all exported ones.
        .with_variable(_variable("hotkey", "Hotkey", "Miners that the exporter was told to watch."))
        .annotation(
            builders.AnnotationQuery()
            .name("Alerts")
            .datasource(_DATASOURCE)
            .enable(enable=True)
            .icon_color("red")
            .expr(ANNOTATION.expr)
        )
    )
    place = [uid for uid, _ in BOARD_ORDER].index(board.uid)
    for uid, name in BOARD_ORDER[place + 1 :] + BOARD_ORDER[:place]:
        made.link(
            builders.DashboardLink(name)
            .type(models.DashboardLinkType.LINK)
            .icon("dashboard")
            .tooltip(f"{name}, with what is chosen here")
            .url(f"/d/{uid}")
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
    x = y = height = 0
    number = 0
    for part in board.panels:
        number += 1
        if isinstance(part, str):
            y, x, height = y + height, 0, 0
            made.with_row(builders.Row(part).id(number).grid_pos(models.GridPos(h=1, w=_COLUMNS, x=0, y=y)))
            y += 1
            continue
        width, tall = part.size
        if x + width > _COLUMNS:
            y, x, height = y + height, 0, 0
        made.with_panel(part.builder.id(number).grid_pos(models.GridPos(h=tall, w=width, x=x, y=y)))
        x, height = x + width, max(height, tall)
    text = json.dumps(made.build(), cls=JSONEncoder)
    # The builder does not know these fields of the data source.
    written = json.loads(text)
    for annotation in written["annotations"]["list"]:
        annotation |= {
            "titleFormat": "{{alertname}}",
            "textFormat": "{{hotkey}}",
            "tagKeys": "severity",
            "step": MINIMUM_STEP,
        }
    return json.dumps(written, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
