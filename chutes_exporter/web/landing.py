"""The landing page: the exporter's state, its links, and the state of its feeds."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from chutes_exporter import __version__
from chutes_exporter.api.errors import ApiError
from chutes_exporter.duration import human_duration

if TYPE_CHECKING:
    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.page.exporter import Exporter

# On a narrow screen, each row becomes a block, and its cells show the column's name.
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
code, td { overflow-wrap: anywhere; }
td:first-child, td:nth-child(3) { white-space: nowrap; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #8886; }
ul { padding-left: 1.2rem; } li { margin: .2rem 0; }
input { font: inherit; width: 32rem; max-width: 100%; box-sizing: border-box; }
button { font: inherit; }
.bad { color: #c00018; } .bad::before { content: "\\26A0\\FE0E "; }
@media (prefers-color-scheme: dark) { .bad { color: #ff8080; } }
@media (max-width: 45rem) {
  thead { display: none; }
  tr { display: block; border-bottom: 2px solid #8886; padding: .4rem 0; }
  td { display: block; border: 0; padding: .1rem 0; }
  td::before { content: attr(data-name) ": "; font-weight: 600; }
}
"""
_COLUMNS = ("Feed", "Hotkey", "State", "Newest answer", "Next request", "Last error")


def landing_page(exporter: Exporter, now: float) -> str:
    """Return the page as HTML.

    Args:
        exporter: The exporter.
        now: Unix time in seconds.
    """
    settings = exporter.settings
    watched = (
        "the whole subnet"
        if not settings.watched
        else "".join(f"<br><code>{escape(hotkey)}</code>" for hotkey in sorted(settings.watched))
    )
    rows = "".join(_row(exporter, state, now) for state in exporter.feeds.states())
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    feeds = (
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        if rows
        else "<p>No requests yet. The first scrape sends them.</p>"
    )
    ready, reason = exporter.readiness()
    reason = f"{reason[:1].upper()}{reason[1:]}."
    state = escape(reason) if ready else f'<span class="bad">{escape(reason)}</span>'
    metrics = escape(settings.telemetry_path)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>chutes-exporter</title><style>{_STYLE}</style></head><body>"
        f"<h1>chutes-exporter {escape(__version__)}</h1>"
        f"<p>{state}</p>"
        f"<p>Chutes API: <code>{escape(settings.api_url)}</code>. Watched: {watched}</p>"
        "<ul>"
        f'<li><a href="{metrics}">{metrics}</a>: the metrics</li>'
        '<li><a href="/sd">/sd</a>: the miners of the subnet, for Prometheus\' HTTP service discovery</li>'
        '<li><a href="/-/healthy">/-/healthy</a>, <a href="/-/ready">/-/ready</a>: for orchestrators</li>'
        "</ul>"
        '<form action="/probe"><p><label>One miner: <input name="target" placeholder="hotkey (SS58)" required '
        'spellcheck="false" autocomplete="off"></label> '
        '<label><input type="checkbox" name="debug" value="true" style="width:auto"> show requests</label> '
        "<button>Probe</button></p></form>"
        "<h2>Feeds</h2>"
        "<p>A scrape requests a feed from the API when its cached answer is missing or no longer fresh.</p>"
        f"{feeds}</body></html>"
    )


def _row(exporter: Exporter, state: FeedState, now: float) -> str:
    age = "none" if state.last_success is None else f"{human_duration(max(now - state.last_success, 0))} old"
    if state.last_success is not None and exporter.feeds.peek(state.feed) is None:
        age += ", dropped"
    cells = (
        escape(state.feed.name),
        escape(state.feed.hotkey) or "all miners",
        _state(state),
        age,
        _next(exporter, state),
        _last_error(state, now),
    )
    return (
        "<tr>"
        + "".join(f'<td data-name="{name}">{cell}</td>' for name, cell in zip(_COLUMNS, cells, strict=True))
        + "</tr>"
    )


def _state(state: FeedState) -> str:
    if state.missing:
        return "off: this API does not have the endpoint"
    if state.up is None:
        return "waiting for the first answer"
    return "up" if state.up else '<span class="bad">down</span>'


def _last_error(state: FeedState, now: float) -> str:
    if state.last_failure is None:
        return "none"
    at, error = state.last_failure
    advice = f" {error.advice}" if isinstance(error, ApiError) else ""
    return escape(f"{human_duration(max(now - at, 0))} ago: {str(error).rstrip('.!')}.{advice}")


def _next(exporter: Exporter, state: FeedState) -> str:
    if exporter.feeds.under_way(state.feed):
        return "in progress"
    wait = exporter.feeds.seconds_to_next_request(state)
    return f"in {human_duration(wait)}" if wait > 0 else "with the next scrape"
