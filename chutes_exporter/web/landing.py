"""The landing page: what needs action, the exporter's state, its links, its feeds and its
configuration. Its frame is landing.html.
"""

from __future__ import annotations

import asyncio
from dataclasses import fields
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from chutes_exporter import __version__, findings
from chutes_exporter.api.errors import ApiError
from chutes_exporter.duration import human_duration
from chutes_exporter.fleet.failures import FAILURE_HOURS
from chutes_exporter.page.gaps import NotKnown, find_gaps, grouped
from chutes_exporter.page.plan import collectors_by_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.page.exporter import Collected, Exporter

_TEMPLATE = Template(files(__package__).joinpath("landing.html").read_text("utf-8"))
_SHOWN = 5
"""Maximum names that an action shows."""
_READING = "After a start, they are read one by one. Reload this page in two minutes."
_COLUMNS = ("Feed", "Miner", "State", "Data from", "Next request", "Last error")


class _Html(str):
    """A text that is HTML already. Any other text is escaped."""

    __slots__ = ()


def _html(*texts: str) -> _Html:
    return _Html("".join(text if isinstance(text, _Html) else escape(text) for text in texts))


def _tag(name: str, *texts: str, **attributes: str) -> _Html:
    """Return an element, with attributes such as ``class_`` and ``data_name``."""
    opening = name
    for key, value in attributes.items():
        opening += f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
    return _Html(f"<{opening}>{_html(*texts)}</{name}>")


def _state(tone: str, text: str) -> _Html:
    """Return a text in the color of a tone: good, wait, bad or off."""
    return _tag("span", text, class_=f"state {tone}")


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
    summary = _summary(exporter, states)
    return await asyncio.to_thread(_page, exporter, states, collected, summary)


def _page(
    exporter: Exporter, states: Sequence[FeedState], collected: Collected | None, summary: _Html
) -> str:
    """Return the page. ``collected`` has the fleets of the watched miners, None without any."""
    settings = exporter.settings
    now = exporter.client.api_clock()
    actions = _Html()
    # Without any answer, there is nothing to say about a fleet.
    if collected is not None and any(state.snapshot for state in collected.states.values()):
        actions = _actions(collected, settings, now)
    rows = [_feed_row(exporter, state, now) for state in states]
    if not rows:
        rows = [_tag("tr", _tag("td", "No requests yet. The first scrape sends them."))]
    page = _TEMPLATE.substitute(
        version=escape(__version__),
        actions=actions,
        summary=summary,
        watched=_watched(settings),
        columns=_html(*(_tag("th", name) for name in _COLUMNS)),
        feeds=_html(*rows),
        collectors=_collectors(settings),
        settings=_settings(settings),
    )
    return "".join(map(_visible, page))


def _visible(character: str) -> str:
    """Return a character as it is, or the code of one that a terminal would obey or not show.

    Names and errors of the API may have some, and a path in the settings need not be UTF-8.
    """
    if character.isprintable() or character == "\n":
        return character
    return character.encode("unicode_escape").decode()


def _summary(exporter: Exporter, states: Sequence[FeedState]) -> _Html:
    """Return whether the exporter is ready and its feeds work, with the reason if not."""
    is_ready, reason = exporter.readiness()
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


def _actions(collected: Collected, settings: Settings, now: float) -> _Html:
    """Return what ``status`` says needs action or is not known, from the answers of the last
    scrape.
    """
    fleets = collected.fleets.values()
    found = [item for fleet in fleets for item in findings.find(fleet, now, settings.costs)]
    gaps, _ = find_gaps(collected, settings)
    # Without any report, the failures of a fleet are None.
    if not all(fleet.failures is not None and fleet.failures.are_all_known for fleet in fleets):
        reason = f"not all of the newest {FAILURE_HOURS} hourly reports are known"
        gaps.append(NotKnown("the chutes that fail", "", reason, _READING))
    items = []
    for item in found:
        if item.needs_action:
            more = ["…"] if len(item.things) > _SHOWN else []
            names = ", ".join([*item.things[:_SHOWN], *more])
            advice = _html(_Html("<br>"), f"{item.advice}: ", _tag("code", item.command))
            items.append(_tag("li", f"{item.problem} {names}", advice))
    tone = "wait" if gaps else "good"
    if items:
        tone = "bad"
    verdict = findings.verdict(found, fleets, settings.costs, all_known=not gaps)
    html = _tag("p", _state(tone, verdict))
    if items:
        html = _html(html, _tag("ol", *items))
    if gaps:
        reasons = [
            _tag("li", f"{subjects}: {reason}", _Html("<br>"), advice)
            for subjects, reason, advice in grouped(gaps)
        ]
        html = _html(html, _tag("p", "Not known:"), _tag("ul", *reasons))
    return html


def _short(hotkey: str) -> _Html:
    """Return a hotkey's first five and last four characters. The rest is shown on hover."""
    return _tag("abbr", f"{hotkey[:5]}…{hotkey[-4:]}", title=hotkey)


def _watched(settings: Settings) -> str:
    keys = {key.address for key in settings.keys}
    miners = []
    for hotkey in sorted(settings.watched):
        data = "public and private data" if hotkey in keys else "public data"
        miners.append(f"{_short(hotkey)} ({data})")
    return ", ".join(miners) or "the whole subnet"


def _feed_row(exporter: Exporter, state: FeedState, now: float) -> _Html:
    hotkey = state.feed.hotkey
    values = {
        "Feed": state.feed.name,
        "Miner": _short(hotkey) if hotkey else "all miners",
        "State": _feed_state(state),
        "Data from": _age(state, now),
        "Next request": _next_request(exporter, state),
        "Last error": _last_error(state, now),
    }
    cells = []
    for name, value in values.items():
        # On a narrow screen, the style hides cells without a value.
        style = {"class_": "none"} if value == "none" else {}
        cells.append(_tag("td", value, data_name=name, **style))
    return _tag("tr", *cells)


def _feed_state(state: FeedState) -> _Html:
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


def _next_request(exporter: Exporter, state: FeedState) -> str:
    if state.flight:
        return "in progress"
    wait = exporter.feeds.seconds_to_next_request(state)
    if wait <= 0:
        return "with the next scrape"
    return f"in {human_duration(wait)}"


def _last_error(state: FeedState, now: float) -> str:
    """Return when the last request failed and why, even if one succeeded since."""
    if state.last_failure is None:
        return "none"
    at, error = state.last_failure
    # The advice is a sentence of its own, so the error gets exactly one full stop.
    advice = f" {error.advice}" if isinstance(error, ApiError) else ""
    return f"{human_duration(max(now - at, 0))} ago: {str(error).rstrip('.!')}.{advice}"


def _collectors(settings: Settings) -> _Html:
    """Return which collectors are on, and which are off and why, as rows."""
    rows = []
    for state, names in collectors_by_state(settings).items():
        label = _state("good" if state == "on" else "off", state.replace("_", " "))
        rows.append(_setting(label, ", ".join(names)))
    return _html(*rows)


def _settings(settings: Settings) -> _Html:
    """Return the settings as rows.

    There are no secrets among them: as text, a key has only its address, and a node's URL its host.
    """
    rows = []
    for field in fields(settings):
        value: Any = getattr(settings, field.name)
        if isinstance(value, dict):
            value = [f"{name}={number:g}" for name, number in sorted(value.items())]
        if isinstance(value, tuple | list | frozenset):
            value = " ".join(map(str, value))
        rows.append(_setting(_tag("code", field.name), "" if value is None else str(value)))
    return _html(*rows)


def _setting(name: _Html, value: str) -> _Html:
    return _tag("tr", _tag("th", name), _tag("td", value or "none"))
