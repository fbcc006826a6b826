"""The landing page: what needs action, and the exporter's state. Its frame is landing.html."""

from __future__ import annotations

import asyncio
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from chutes_exporter import __version__, findings
from chutes_exporter.api.errors import ApiError
from chutes_exporter.collectors.money import UNIT
from chutes_exporter.duration import human_duration
from chutes_exporter.fleet.failures import FAILURE_HOURS
from chutes_exporter.log import visible
from chutes_exporter.page.gaps import NotKnown, grouped, main_reason
from chutes_exporter.page.plan import collectors_by_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.findings import Finding
    from chutes_exporter.page.exporter import Exporter, Snapshot

_TEMPLATE = Template(files(__package__).joinpath("landing.html").read_text("utf-8"))
_SHOWN = 5
"""Maximum names that an action shows."""
_UNREAD = f"not all of the newest {FAILURE_HOURS} hourly reports are known"
_READING = "After a start, they are read one by one. Reload this page in two minutes."


async def landing_page(exporter: Exporter) -> str:
    """Return the page as HTML.

    A thread makes it, because for many hotkeys that takes longer than a scrape may wait.
    """
    # Failing feeds come first, then those that are off or waiting: False sorts before True.
    states = sorted(
        exporter.feeds.states().values(),
        key=lambda state: (state.up is not False, state.up is not None),
    )
    snapshot = None
    # Without any answer, there is nothing to say about a fleet.
    if exporter.settings.watched and any(state.kept for state in states):
        snapshot = await exporter.snapshot([UNIT.name])
    return await asyncio.to_thread(_page, exporter, states, snapshot)


def _page(exporter: Exporter, states: Sequence[FeedState], snapshot: Snapshot | None) -> str:
    """Return the page. ``snapshot`` has the fleets of the watched miners, None without any."""
    settings = exporter.settings
    now = exporter.client.api_clock()
    is_ready, reason = exporter.readiness()
    tone = "good"
    if not is_ready:
        tone = "bad"
    elif any(state.up is False for state in states):
        tone = "wait"
    feeds = [_row(_feed(state, now)) for state in states]
    collectors = []
    for state, names in collectors_by_state(settings).items():
        collectors.append(_row({"State": state.replace("_", " "), "Names": ", ".join(names)}))
    return _TEMPLATE.substitute(
        version=_html(__version__),
        actions="" if snapshot is None else _actions(snapshot, settings),
        readiness=_paragraph(tone, reason),
        watched=_html(settings.watched_in_words),
        feeds="".join(feeds) or "<tr><td>No requests yet. The first scrape sends them.</td></tr>",
        collectors="".join(collectors),
    )


def _html(text: str) -> str:
    """Return a text as HTML, without what a terminal would obey or a browser would not show.

    Names and errors of the API may have such characters.
    """
    return escape(visible(text))


def _paragraph(tone: str, text: str) -> str:
    """Return a text in the color of a tone: good, wait or bad."""
    return f'<p class="state {tone}">{_html(text)}</p>'


def _row(cells: Mapping[str, str]) -> str:
    row = f'<tr class="{cells["State"]}">'
    for name, text in cells.items():
        row += f'<td data-name="{name}">{_html(text)}</td>'
    return f"{row}</tr>"


def _actions(snapshot: Snapshot, settings: Settings) -> str:
    """Return what ``status`` says needs action or is not known, by the last answers."""
    found: list[Finding] = []
    summaries = ""
    unit_usd = snapshot.value(UNIT.name)
    gaps = [*snapshot.gaps]
    for hotkey, fleet in snapshot.fleets.items():
        of_miner = findings.find(fleet, snapshot.now, settings.costs, unit_usd)
        if text := findings.summary(of_miner):
            summaries += f"<p>{_html(f'{hotkey}: {text}')}</p>"
        found += of_miner
        if not fleet.failures.are_all_known:
            gaps.append(NotKnown("the chutes that fail", hotkey, _UNREAD, _READING))
    verdict = findings.verdict(found, main_reason(gaps))
    actions = ""
    for item in found:
        if item.needs_action:
            names = ", ".join(item.things[:_SHOWN])
            if len(item.things) > _SHOWN:
                names += ", …"
            problem = f"{item.worth}: {item.problem}" if item.worth else item.problem
            text = f"{_html(f'{problem} {names}')}<br>{_html(item.advice)}: "
            actions += f"<li>{text}<code>{_html(item.command)}</code></li>"
    if actions:
        return f"{_paragraph('bad', verdict)}{summaries}<ol>{actions}</ol>{_gaps(gaps)}"
    return _paragraph("wait" if gaps else "good", verdict) + _gaps(gaps)


def _gaps(gaps: list[NotKnown]) -> str:
    if not gaps:
        return ""
    html = "<p>Not known:</p><ul>"
    for (reason, advice), subjects in grouped(gaps).items():
        html += f"<li>{_html(f'{subjects}: {reason}')}<br>{_html(advice)}</li>"
    return f"{html}</ul>"


def _feed(state: FeedState, now: float) -> dict[str, str]:
    """Return what is known of a feed. Ages are at least 0, even if the clock was set back."""
    data = error = ""
    # Without a kept answer, the last answer was dropped.
    if state.kept is not None and state.last_success is not None:
        data = f"{human_duration(max(now - state.last_success, 0))} ago"
    if state.last_failure is not None:
        # A feed that is back keeps its last error.
        at, failure = state.last_failure
        # The advice is a sentence of its own, so the error gets exactly one full stop.
        error = f"{human_duration(max(now - at, 0))} ago: {str(failure).rstrip('.!')}."
        if isinstance(failure, ApiError):
            error += f" {failure.advice}"
    return {
        "Feed": state.feed.name,
        "Miner": state.feed.hotkey or "all miners",
        "State": state.word,
        "Data from": data,
        "Last error": error,
    }
