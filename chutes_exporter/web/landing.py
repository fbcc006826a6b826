"""The landing page: what needs action, the exporter's state, its links, its feeds and its
configuration.
"""

from __future__ import annotations

import asyncio
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from chutes_exporter import __version__, findings
from chutes_exporter.api.errors import ApiError
from chutes_exporter.duration import human_duration
from chutes_exporter.fleet.failures import FAILURE_HOURS
from chutes_exporter.page.gaps import NotKnown, find_gaps, grouped
from chutes_exporter.page.plan import collectors_by_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.findings import Finding
    from chutes_exporter.page.exporter import Collected, Exporter

    Tone = Literal["good", "wait", "bad", "off"]

# On a narrow screen, each row becomes a block, and its cells show the column's name.
_STYLE = """
:root { color-scheme: light dark; }
:root { --good: #14713a; --wait: #8a5300; --bad: #c00018; --off: #60656e; }
@media (prefers-color-scheme: dark) {
  :root { --good: #5fd38d; --wait: #f0b252; --bad: #ff8080; --off: #a5abb5; }
}
body { font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
p { margin: .5rem 0; }
code, td { overflow-wrap: anywhere; }
nav a { display: inline-block; margin: .2rem 1rem .2rem 0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; }
th, td { padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #8886; }
.settings th { width: 16rem; font-weight: 400; }
abbr { text-decoration: none; font-family: ui-monospace, monospace; cursor: help; }
.state { font-weight: 600; } .state::before { content: "\\25CF\\FE0E\\00A0"; }
.bad.state::before, .wait.state::before { content: "\\26A0\\FE0E\\00A0"; }
.good { color: var(--good); } .wait { color: var(--wait); }
.bad { color: var(--bad); } .off { color: var(--off); }
@media (min-width: 60rem) { .feeds td:nth-child(-n+5) { white-space: nowrap; } }
@media (max-width: 59.99rem) {
  thead { display: none; }
  tr { display: flex; flex-wrap: wrap; gap: 0 .8rem; }
  tr { border-bottom: 1px solid #8886; padding: .5rem 0; }
  th, td { border: 0; padding: 0; } .settings th { width: 16rem; }
  td:nth-child(n+4) { flex-basis: 100%; }
  td:nth-child(n+4)::before { content: attr(data-name) ": "; }
  .feeds td:first-child { font-weight: 600; } .feeds td.none { display: none; }
}
"""
_SHOWN = 5
"""Maximum names that an action shows."""
_READING = "After a start, they are read one by one. Reload this page in two minutes."
_COLUMNS = ("Feed", "Miner", "State", "Data from", "Next request", "Last error")


async def landing_page(exporter: Exporter) -> str:
    """Return the page as HTML.

    A thread makes it, because for many hotkeys that takes longer than a scrape may wait.
    """
    collected = None
    if exporter.settings.watched:
        # No metric: only the fleets.
        collected = await exporter.samples(())
    # Failing feeds come first, and then those that are off or waiting, because False sorts before
    # True.
    states = sorted(
        exporter.feeds.states().values(),
        key=lambda state: (state.up is not False, state.up is not None),
    )
    return await asyncio.to_thread(_page, exporter, states, collected, _summary(exporter))


def _page(
    exporter: Exporter,
    states: list[FeedState],
    collected: Collected | None,
    summary: str,
) -> str:
    """Return the page as HTML.

    ``collected`` has the fleets of the watched miners, None without any, and the summary is HTML.
    """
    settings = exporter.settings
    now = exporter.client.api_clock()
    actions = ""
    # Without any answer, there is nothing to say about a fleet.
    if collected is not None and any(state.snapshot for state in collected.states.values()):
        actions = _actions(collected, settings, now)
    rows = "".join(_row(exporter, state, now) for state in states)
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    feeds = "<p>No requests yet. The first scrape sends them.</p>"
    if rows:
        feeds = f'<table class="feeds"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>chutes-exporter</title><style>{_STYLE}</style></head><body>"
        "<h1>chutes-exporter "
        f"{escape(__version__)}</h1>{actions}<p>{summary}</p>"
        f"<p>Watched: {_watched(settings)}</p>"
        '<nav><a href="/metrics">Metrics</a><a href="/-/ready">Readiness</a><a '
        'href="/-/healthy">Health</a></nav>'
        "<h2>Data from the API</h2>"
        "<p>Each feed is one question to the API. A scrape asks it again when the answer is no "
        "longer fresh.</p>"
        f"{feeds}"
        "<h2>Collectors</h2>"
        f'<table class="settings"><tbody>{_collectors(settings)}</tbody></table>'
        "<h2>Settings</h2>"
        f'<table class="settings"><tbody>{_settings(settings)}</tbody></table></body></html>'
    )
    return "".join(map(_visible, page))


def _visible(character: str) -> str:
    """Return a character as it is, or the code of one that a terminal would obey or not show.

    Names and errors of the API may have some, and a path in the settings need not be UTF-8.
    """
    if character.isprintable() or character == "\n":
        return character
    return character.encode("unicode_escape").decode()


def _state(tone: Tone, text: str) -> str:
    """Return a text as HTML in the color of a tone."""
    return f'<span class="state {tone}">{escape(text)}</span>'


def _summary(exporter: Exporter) -> str:
    """Return whether the exporter is ready and its feeds work, with the reason if not, as HTML."""
    is_ready, reason = exporter.readiness()
    states = exporter.feeds.states().values()
    any_fails = any(state.up is False for state in states)
    has_data = any(state.snapshot is not None for state in states)
    if any_fails and not has_data:
        # Leave out "ready": a user would take it for a good sign, although there is no data.
        problem = reason.removeprefix("ready, but ")
        return _state("bad", f"There is no data: {problem}. The table below has the errors.")
    sentence = f"{reason[:1].upper()}{reason[1:]}."
    if not is_ready:
        return _state("bad", sentence)
    return _state("wait" if any_fails else "good", sentence)


def _actions(collected: Collected, settings: Settings, api_time: float) -> str:
    """Return what ``status`` says needs action or is not known, from the answers of the last
    scrape, as HTML.
    """
    found: list[Finding] = []
    for fleet in collected.fleets.values():
        found += findings.find(fleet, api_time, settings.costs)
    gaps = _gaps(collected, settings)
    fleets = collected.fleets.values()
    verdict = findings.verdict(found, fleets, settings.costs, all_known=not gaps)
    html = f"<p>{_state(_tone(found, gaps), verdict)}</p>"
    actions = [_action(item) for item in found if item.needs_action]
    if actions:
        html += f"<ol>{''.join(actions)}</ol>"
    if gaps:
        html += f"<p>Not known:</p><ul>{_not_known(gaps)}</ul>"
    return html


def _gaps(collected: Collected, settings: Settings) -> list[NotKnown]:
    """Return what is not known about the watched miners."""
    gaps, _ = find_gaps(collected, settings)
    # Without any report, the failures of a fleet are None.
    failures = [fleet.failures for fleet in collected.fleets.values()]
    all_failures_are_known = all(one is not None and one.are_all_known for one in failures)
    if not all_failures_are_known:
        reason = f"not all of the newest {FAILURE_HOURS} hourly reports are known"
        gaps.append(NotKnown("the chutes that fail", "", reason, _READING))
    return gaps


def _tone(found: Iterable[Finding], gaps: Sequence[NotKnown]) -> Tone:
    """Return how urgent findings and gaps are."""
    if any(item.needs_action for item in found):
        return "bad"
    return "wait" if gaps else "good"


def _not_known(gaps: Iterable[NotKnown]) -> str:
    """Return gaps as items of an HTML list."""
    items = []
    for feeds, reason, advice in grouped(gaps):
        text = escape(f"{feeds}: {reason}")
        items.append(f"<li>{text}<br>{escape(advice)}</li>")
    return "".join(items)


def _action(item: Finding) -> str:
    """Return a finding as an item of an HTML list."""
    names = item.things[:_SHOWN]
    if len(item.things) > _SHOWN:
        names.append("…")
    command = f"{escape(item.advice)}: <code>{escape(item.command)}</code>"
    return f"<li>{escape(item.problem)} {escape(', '.join(names))}<br>{command}</li>"


def _short(hotkey: str) -> str:
    """Return a hotkey's first five and last four characters. The rest is shown on hover."""
    return f'<abbr title="{escape(hotkey)}">{escape(hotkey[:5])}…{escape(hotkey[-4:])}</abbr>'


def _watched(settings: Settings) -> str:
    """Return the watched miners as HTML, each with the kind of its data."""
    keys = {key.address for key in settings.keys}
    miners = []
    for hotkey in sorted(settings.watched):
        data = "public and private data" if hotkey in keys else "public data"
        miners.append(f"{_short(hotkey)} ({data})")
    return ", ".join(miners) or "the whole subnet"


def _row(exporter: Exporter, state: FeedState, now: float) -> str:
    """Return the row of a feed in the table."""
    hotkey = state.feed.hotkey
    cells = (
        escape(state.feed.name),
        _short(hotkey) if hotkey else "all miners",
        _feed_state(state),
        _age(state, now),
        _next_request(exporter, state),
        _last_error(state, now),
    )
    return f"<tr>{''.join(map(_cell, _COLUMNS, cells))}</tr>"


def _cell(name: str, text: str) -> str:
    # On a narrow screen, the style hides cells without a value.
    style = " class=none" if text == "none" else ""
    return f'<td data-name="{name}"{style}>{text}</td>'


def _feed_state(state: FeedState) -> str:
    """Return whether a feed works, and whether it has data, as HTML."""
    # Either the API does not have the endpoint, or no request has ended lately, for example none
    # since the start.
    if state.up is None:
        return _state("off", "off" if state.missing else "waiting")
    if state.up:
        return _state("good", "up")
    if state.snapshot is None:
        return _state("bad", "down")
    # An old answer is served until its maximum age.
    return _state("wait", "stale")


def _age(state: FeedState, now: float) -> str:
    """Return the age of the newest good answer, and when that is dropped."""
    if state.last_success is None:
        return "none"
    # An answer that came since may have set the API's clock back, so that the age is negative.
    age = f"{human_duration(max(now - state.last_success, 0))} ago"
    if state.snapshot is None:
        return f"{age}, dropped"
    return f"{age} (dropped after {human_duration(state.feed.max_age)})"


def _last_error(state: FeedState, now: float) -> str:
    """Return when the last request failed and why, even if one succeeded since, as HTML."""
    if state.last_failure is None:
        return "none"
    at, error = state.last_failure
    # The advice is a sentence of its own, so the error gets exactly one full stop.
    advice = f" {error.advice}" if isinstance(error, ApiError) else ""
    return escape(f"{human_duration(max(now - at, 0))} ago: {str(error).rstrip('.!')}.{advice}")


def _next_request(exporter: Exporter, state: FeedState) -> str:
    """Return when the feed will be requested again."""
    if state.flight:
        return "in progress"
    wait = exporter.feeds.seconds_to_next_request(state)
    if wait <= 0:
        return "with the next scrape"
    return f"in {human_duration(wait)}"


def _collectors(settings: Settings) -> str:
    """Return which collectors are on, and which are off and why, as rows."""
    rows = []
    for state, names in collectors_by_state(settings).items():
        tone: Tone = "good" if state == "on" else "off"
        label = _state(tone, state.replace("_", " "))
        rows.append(_setting(label, ", ".join(names) or "none"))
    return "".join(rows)


def _settings(settings: Settings) -> str:
    """Return the settings as rows.

    There are no secrets among them: as text, a key has only its address, and a node's URL its host.
    """
    rows = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        rows.append(_setting(f"<code>{field.name}</code>", _value_text(value)))
    return "".join(rows)


def _value_text(value: Any) -> str:
    """Return the value of a setting as text, ``none`` for an empty one."""
    if isinstance(value, dict):
        value = [f"{name}={number:g}" for name, number in sorted(value.items())]
    if isinstance(value, tuple | list | frozenset):
        value = " ".join(map(str, value))
    return "none" if value in (None, "") else str(value)


def _setting(name: str, value: str) -> str:
    return f"<tr><th>{name}</th><td>{escape(value)}</td></tr>"
