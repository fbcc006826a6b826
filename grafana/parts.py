"""What all boards are made of: queries with the worlds they have data in, panels, rows, variables and links.

Several exporters may watch the same (a pair for availability, or a page of /probe beside the main one), so that every
series may be there more than once. The queries here begin by taking one of each, with `max by` over the labels that
identify it, and join with an explicit `on`.
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
"""The miners' Prometheus scrapes once a minute: rates need a range that holds several of that."""
OURS: Final = f"and on (job, instance) last_over_time(chutes_exporter_build_info{{{JOB}}}[7d])"
"""Of the targets of a job, keeps those that were exporters of ours within a week."""
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
        labels: What tells its series apart, besides the hotkey.
        where: Values of labels; `~` before one makes it a regular expression, `!` anything but it.
    """
    return f"max by ({', '.join(('hotkey', *labels))}) ({_selector(metric, WATCHED, where)})"


def platform(metric: str, *labels: str, **where: str) -> str:
    """Select a metric that is not about the watched miners alone; otherwise like `miner`."""
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"max{by} ({_selector(metric, JOB, where)})"


def worst(selected: str) -> str:
    """Take of several exporters the one that is worst off, where a board is about the exporters themselves."""
    return selected.replace("max", "min", 1)


def ten(expression: str, label: str) -> str:
    """Keep of an expression the ten that are greatest at the end, for lines that stay the same ones."""
    # After each selector: the same question, asked for the end of the range at every step.
    now = re.sub(r"(\{[^{}]*\})", r"\1 @ end()", expression)
    return f"({expression}) and on ({label}) topk(10, {now})"


def named(expression: str) -> str:
    """Give what has a `chute_id` the chute's `name`: the id itself where the name is not known."""
    names = f"topk by (chute_id) (1, {platform('chutes_chute_info', 'chute_id', 'name')})"
    return (
        f"({expression}) * on (chute_id) group_left (name) {names}\n"
        f'or on (chute_id) label_replace({expression}, "name", "$1", "chute_id", "(.+)")'
    )


def or_absence(value: str, collector: str) -> str:
    """Give a value, or which absence it is that there is none.

    Args:
        value: What is asked; nothing where it is not known.
        collector: The collector it comes from. With good answers to all that it asks, there is nothing of the kind.
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
        f"{DOWN} * (count(up{{{JOB}}} == 0 {OURS}) > bool 0)",
    ]
    return "\nor on () ".join((value, *(f"({one})" for one in fallbacks)))


@dataclass(frozen=True)
class Query:
    """A question to Prometheus.

    Attributes:
        expr: In PromQL.
        legend: Name of the series, with labels as `{{label}}`.
        data: The worlds in which it returns something for the present.
    """

    expr: str
    legend: str = ""
    data: frozenset[World] = LIVE


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        source: A label, or the letter of the query whose value it is.
        title: As it is headed.
        unit: Grafana's name of the unit.
        states: Values, or texts, that mean states.
        width: In pixels.
        link: Where a click leads.
        thresholds: From which value on it has which colour.
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
    """A panel, and what it is known to show where.

    Attributes:
        builder: Makes its JSON.
        queries: What it asks.
        size: Columns of 24, and rows.
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
    """Make the steps of a scale that begins where nothing is wrong, unless a step says otherwise."""
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
    """Make a tile: one number, or the state it means.

    Args:
        title: What it is.
        description: What to do when it looks bad.
        query: A query, or an expression that always says something.
        unit: Grafana's name of the unit.
        states: What values mean, besides the absences.
        thresholds: From which value on it has which colour.
        decimals: How many; as many as fit when None.
        empty: What it says when there is no answer at all.
        width: Columns.
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
        title: What they are.
        description: What to do when it looks bad.
        queries: What is asked.
        unit: Grafana's name of the unit.
        states: States that series are named after; all others are drawn in a shade of their query's colour.
        stacked: Whether they are parts of a whole.
        empty: What it says when there is nothing.
        size: Columns and rows.
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
        title: What it lists.
        description: What to do when it looks bad.
        queries: What is asked; rows that agree in all common labels are one.
        columns: What of the answers is shown, in this order.
        empty: What it says when it has no rows.
        sort: The title of the column that orders it, and whether the greatest come first.
        size: Columns and rows.
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
    # What is missing in one row is not what is missing altogether.
    yield models.DynamicConfigValue(id_val="noValue", value="-")
    # Text that looks like a number is text.
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
    """Return the address of another board, with what is chosen here and the time kept."""
    chosen = "&".join(f"var-{name}={value}" for name, value in {"datasource": "${datasource}", **variables}.items())
    return f"/d/{uid}?{chosen}&${{job:queryparam}}&${{__url_time_range}}"


@dataclass
class Board:
    """A dashboard.

    Attributes:
        uid: A slug, which is its address.
        title: Not one that the miners' chart has.
        description: What it answers.
        panels: With the titles of rows between them.
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


STORY: Final = (
    ("chutes-overview", "Overview"),
    ("chutes-fleet", "Fleet"),
    ("chutes-instances", "Instances"),
    ("chutes-market", "Market"),
    ("chutes-subnet", "Subnet"),
    ("chutes-exporter", "Exporter"),
)
"""The boards in the order in which they tell it, each leading to the next."""

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


def make(board: Board) -> str:
    """Make a board's JSON, as it is committed."""
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
        # Without a value of its own, "All" means the watched: the exporter may tell of everybody.
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
    place = [uid for uid, _ in STORY].index(board.uid)
    for uid, name in STORY[place + 1 :] + STORY[:place]:
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
    # The data source's own fields of an annotation, of which the builder knows nothing.
    written = json.loads(text)
    for annotation in written["annotations"]["list"]:
        annotation |= {
            "titleFormat": "{{alertname}}",
            "textFormat": "{{hotkey}}",
            "tagKeys": "severity",
            "step": MINIMUM_STEP,
        }
    return json.dumps(written, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
