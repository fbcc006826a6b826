"""A dashboard as a picture: its panels where it has them, with what they show, drawn without Grafana."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

from tests.grafana.display import panels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from playwright.async_api import Page

WIDTH: Final = 1600
_COLUMN, _ROW, _GAP = (WIDTH - 16) / 24, 30, 8
LABEL: Final = (
    "Drawn without Grafana: from the dashboard's JSON, answers of a real Prometheus that scraped a simulated subnet, "
    "and Grafana's own code for values"
)
_STYLE: Final = """
body { margin: 0; background: #111217; color: #ccccdc; font: 12px/1.3 "DejaVu Sans", sans-serif; position: relative }
h1 { position: absolute; margin: 0; left: 12px; top: 8px; font-size: 18px; font-weight: 500 }
.label { position: absolute; right: 12px; top: 13px; color: #9a9aab; font-size: 11px }
section, h2 { position: absolute; box-sizing: border-box }
h2 { margin: 0; padding: 6px 4px; font-size: 14px; font-weight: 500 }
section { background: #181b1f; border: 1px solid #25272c; border-radius: 2px; overflow: hidden }
h3 { margin: 0; padding: 6px 8px; font-size: 12px; font-weight: 500; white-space: nowrap }
.tile { text-align: center; font-size: 26px; padding-top: 14px; white-space: nowrap }
.long .tile { font-size: 18px; padding-top: 20px }
.none { color: #9a9aab; text-align: center; padding: 24px }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
th, td { text-align: left; padding: 4px 6px; border-bottom: 1px solid #25272c; font-weight: 400;
  white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
th { color: #6e9fff }
svg { display: block }
svg text { fill: #9a9aab; font-size: 10px }
.legend { padding: 2px 8px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; font-size: 11px }
.legend i { display: inline-block; width: 12px; height: 3px; margin: 0 4px 3px 10px }
"""


def _tile(shown: Mapping[str, Any]) -> str:
    return "".join(
        f'<div class="tile" style="color: {text["color"]}">{html.escape(text["text"])}</div>' for text in shown["texts"]
    )


def _table(shown: Mapping[str, Any]) -> str:
    if not shown["rows"]:
        return _none(shown)
    widths = "".join(f'<col style="width: {width}px">' if width else "<col>" for width in shown["widths"])
    head = "".join(f"<th>{html.escape(column)}</th>" for column in shown["columns"])
    rows = "".join(
        "<tr>"
        + "".join(f'<td style="color: {cell["color"]}">{html.escape(cell["text"])}</td>' for cell in row)
        + "</tr>"
        for row in shown["rows"][:40]
    )
    return f"<table><colgroup>{widths}</colgroup><tr>{head}</tr>{rows}</table>"


def _none(shown: Mapping[str, Any]) -> str:
    return f'<div class="none">{html.escape(shown["empty"])}</div>'


def _lines(shown: Mapping[str, Any], width: float, height: float) -> str:
    if not shown["series"]:
        return _none(shown)
    left, top, right, bottom = 84.0, 10.0, width - 10, height - 66
    times = [time for one in shown["series"] for time in one["times"]]
    begin, end = float(min(times)), float(max(times))
    highest = float(shown["ticks"][-1]["value"] or 1)

    def x(time: float) -> float:
        return left + (time - begin) / ((end - begin) or 1) * (right - left)

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / highest

    drawn = "".join(
        f'<line x1="{left}" x2="{right}" y1="{y(tick["value"]):.1f}" y2="{y(tick["value"]):.1f}" stroke="#25272c"/>'
        f'<text x="{left - 6}" y="{y(tick["value"]) + 3:.1f}" text-anchor="end">{html.escape(tick["text"])}</text>'
        for tick in (shown["ticks"] if shown["ticks"][-1]["value"] else shown["ticks"][:1])
    )
    below: dict[float, float] = {}
    for one in shown["series"]:
        points = [(time, value) for time, value in zip(one["times"], one["values"], strict=True) if value is not None]
        floor = [(time, below.get(time, 0.0) if shown["stacked"] else 0.0) for time, _ in points]
        upper = [(time, value + base) for (time, value), (_, base) in zip(points, floor, strict=True)]
        path = " ".join(f"{x(time):.1f},{y(value):.1f}" for time, value in upper)
        if shown["stacked"]:
            below |= dict(upper)
            area = " ".join(f"{x(time):.1f},{y(value):.1f}" for time, value in reversed(floor))
            drawn += f'<polygon points="{path} {area}" fill="{one["color"]}" fill-opacity="0.3"/>'
        drawn += f'<polyline points="{path}" fill="none" stroke="{one["color"]}"/>'
    legend = "".join(
        f'<i style="background: {one["color"]}"></i>{html.escape(one["name"])}' for one in shown["series"][:10]
    )
    return f'<svg width="{width}" height="{bottom + 8}">{drawn}</svg><div class="legend">{legend}</div>'


def page(dashboard: Mapping[str, Any], seen: Mapping[int, Any]) -> str:
    """Return a page that shows a dashboard.

    Args:
        dashboard: As it is committed.
        seen: What its panels show, by their ids.
    """
    top, parts, bottom = 40, [], 0.0
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        place = (
            f"left: {8 + at['x'] * _COLUMN:.0f}px; top: {top + at['y'] * (_ROW + _GAP):.0f}px; "
            f"width: {at['w'] * _COLUMN - _GAP:.0f}px; height: {at['h'] * (_ROW + _GAP) - _GAP:.0f}px"
        )
        bottom = max(bottom, top + (at["y"] + at["h"]) * (_ROW + _GAP))
        title = html.escape(panel["title"])
        if panel["type"] == "row":
            parts.append(f'<h2 style="{place}">{title}</h2>')
            continue
        shown = seen[panel["id"]]
        if panel["type"] == "stat":
            inner = _tile(shown)
        elif panel["type"] == "table":
            inner = _table(shown)
        else:
            inner = _lines(shown, at["w"] * _COLUMN - _GAP, at["h"] * (_ROW + _GAP) - _GAP)
        long = " long" if any(len(text["text"]) > 9 for text in shown.get("texts", ())) else ""
        parts.append(f'<section class="{panel["type"]}{long}" style="{place}"><h3>{title}</h3>{inner}</section>')
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(dashboard["title"])}</title>'
        f"<style>{_STYLE}</style><body style='height: {bottom:.0f}px'><h1>{html.escape(dashboard['title'])}</h1>"
        f'<p class="label">{html.escape(LABEL)}</p>{"".join(parts)}</body></html>'
    )


async def draw(tab: Page, dashboard: Mapping[str, Any], seen: Mapping[int, Any]) -> bytes:
    """Draw a dashboard in a browser's tab; returns a PNG."""
    await tab.set_content(page(dashboard, seen))
    return await tab.screenshot(full_page=True, type="png")


def titles(dashboard: Mapping[str, Any]) -> Sequence[str]:
    """Return what must be seen of a dashboard at least."""
    return [panel["title"] for panel in panels(dashboard)]
