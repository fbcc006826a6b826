"""The JSON of a panel, as its editor in Grafana 11.6 would save it."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any, Final

from grafana.panels import COUNT, NO_DATA, TEXT, Column, Kind, Panel, Query
from grafana.states import PLAIN, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Json = dict[str, Any]
DATASOURCE: Final = {"type": "prometheus", "uid": "$datasource"}
_LOWEST = float("-inf")
"""As the first threshold, it gives all values below the second one a colour."""
_LETTERS = string.ascii_uppercase
"""Grafana's names of a panel's queries, in their order."""


def _targets(panel: Panel) -> list[Json]:
    """Make the queries of a panel, in Grafana's format.

    A table and a stat only need the values at the end of the time range.
    """
    is_instant = panel.kind in ("table", "stat")
    return [
        {
            "datasource": DATASOURCE,
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


def panel_json(panel: Panel, number: int, position: Json) -> Json:
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
        "datasource": DATASOURCE,
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
