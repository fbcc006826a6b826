"""A board: its rows of panels, and its JSON in the schema of Grafana 11.6."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from grafana.panel_json import DATASOURCE, Json, panel_json
from grafana.panels import MINIMUM_STEP, Kind, Panel
from grafana.queries import ALERTS
from grafana.variables import variable_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_COLUMNS = 24
"""The width of Grafana's grid, which panels are placed on."""
_SIZES: Final[dict[Kind, tuple[int, int]]] = {
    "stat": (0, 3),
    "graph": (12, 8),
    "stacked": (12, 8),
    "bars": (12, 8),
    "timeline": (24, 10),
    "table": (24, 8),
}
"""The usual width and height by kind. The width of a stat depends on its row."""


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
CRITICAL_ALERTS: Final = (
    f'max by (alertname, severity, hotkey) (ALERTS{{{ALERTS}, alertstate="firing", '
    'severity="critical"})'
)
"""The query whose answers are marked in graphs, if somebody switches it on."""


def dashboard_json(board: Board) -> str:
    """Make a board's JSON, as it is committed, in the schema of Grafana 11.6."""
    data_source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    critical_alerts = {
        "name": "Critical alerts",
        "datasource": DATASOURCE,
        "enable": False,
        "iconColor": "red",
        "expr": CRITICAL_ALERTS,
        "titleFormat": "{{alertname}}",
        "textFormat": "{{hotkey}}",
        "tagKeys": "severity",
        "step": MINIMUM_STEP,
    }
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
        "templating": {"list": [data_source, *map(variable_json, board.variables)]},
        "annotations": {"list": [critical_alerts]},
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
        row.append(panel_json(panel, next(numbers), position))
        x += width
        line_height = max(line_height, height)
    return row
