"""The landing page: what runs here and how its feeds are, for a person without other tools at hand."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING

from chutes_exporter import __version__
from chutes_exporter.api.errors import ApiError
from chutes_exporter.duration import human_duration

if TYPE_CHECKING:
    from chutes_exporter.exporter import Exporter
    from chutes_exporter.feeds import Feed

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
.bad { color: #b00020; }
"""


def landing_page(exporter: Exporter) -> str:
    """Return the page as HTML."""
    settings = exporter.settings
    watched = (
        "the whole subnet"
        if not settings.watched
        else "".join(f"<br><code>{escape(hotkey)}</code>" for hotkey in sorted(settings.watched))
    )
    rows = "".join(
        f"<tr><td>{escape(key.source.name)}</td><td>{escape(key.hotkey) or 'all miners'}</td>{_state_cells(feed)}</tr>"
        for key, feed in exporter.feed_states()
    )
    feeds = (
        f"<table><tr><th>Feed</th><th>Hotkey</th><th>State</th><th>Newest answer</th></tr>{rows}</table>"
        if rows
        else "<p>Nothing was asked yet: the first scrape asks.</p>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>chutes-exporter</title><style>{_STYLE}</style></head><body>"
        f"<h1>chutes-exporter {escape(__version__)}</h1>"
        f'<p><a href="{escape(settings.telemetry_path)}">Metrics</a></p>'
        f"<p>Asks <code>{escape(settings.api_url)}</code> about {watched}.</p>"
        f"<h2>Feeds</h2>{feeds}</body></html>"
    )


def _state_cells(feed: Feed) -> str:
    if feed.up:
        state = "<td>up</td>"
    elif feed.up is None:
        state = "<td>waiting for the first answer</td>"
    else:
        error = feed.last_error
        advice = f" {error.advice}" if isinstance(error, ApiError) else ""
        state = f'<td class="bad">down: {escape(f"{error}.{advice}")}</td>'
    age = "none" if feed.last_success is None else f"{human_duration(time.time() - feed.last_success)} ago"
    return f"{state}<td>{escape(age)}</td>"
