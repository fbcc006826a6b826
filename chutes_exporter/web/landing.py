"""The landing page: the exporter's state, its links, its feeds and its configuration."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final, Literal

from chutes_exporter import __version__
from chutes_exporter.api.errors import ApiError
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.duration import human_duration
from chutes_exporter.page.plan import off_reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.page.exporter import Exporter

    Tone = Literal["good", "wait", "bad", "off"]

_DOCUMENTS: Final = "https://github.com/chutes-exporter/chutes-exporter/blob/main/docs/"
# On a narrow screen, each row becomes a block, and its cells show the column's name.
_STYLE = """
:root { color-scheme: light dark; --good: #14713a; --wait: #8a5300; --bad: #c00018; --off: #60656e; }
@media (prefers-color-scheme: dark) { :root { --good: #5fd38d; --wait: #f0b252; --bad: #ff8080; --off: #a5abb5; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; } p { margin: .5rem 0; }
code, td { overflow-wrap: anywhere; }
nav a { display: inline-block; margin: .2rem 1rem .2rem 0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #8886; }
.settings th { width: 16rem; font-weight: 400; }
meter { display: block; width: 8rem; height: .6rem; }
abbr { text-decoration: none; font-family: ui-monospace, monospace; cursor: help; }
input { font: inherit; width: 32rem; max-width: 100%; box-sizing: border-box; }
input[type=checkbox] { width: auto; }
button { font: inherit; }
.state { font-weight: 600; } .state::before { content: "\\25CF\\FE0E\\00A0"; }
.bad.state::before, .wait.state::before { content: "\\26A0\\FE0E\\00A0"; }
.good { color: var(--good); } .wait { color: var(--wait); } .bad { color: var(--bad); } .off { color: var(--off); }
@media (min-width: 60rem) { .feeds td:nth-child(-n+5) { white-space: nowrap; } }
@media (max-width: 59.99rem) {
  thead { display: none; }
  tr { display: flex; flex-wrap: wrap; gap: 0 .8rem; border-bottom: 1px solid #8886; padding: .5rem 0; }
  th, td { border: 0; padding: 0; } .settings th { width: 16rem; }
  td:nth-child(n+4) { flex-basis: 100%; } td:nth-child(n+4)::before { content: attr(data-name) ": "; }
  .feeds td:first-child { font-weight: 600; } .feeds td.none { display: none; }
}
"""
_COLUMNS = ("Feed", "Hotkey", "State", "Age and bound", "Next request", "Last error")
_OFF: Final = {
    "by_flag": "off by flag",
    "without_key": "off without a key",
    "without_hotkey": "off without a hotkey",
    "by_default": "off by default",
}


def landing_page(exporter: Exporter, now: float) -> str:
    """Return the page as HTML.

    Args:
        exporter: The exporter.
        now: Unix time in seconds.
    """
    settings = exporter.settings
    state = _summary(exporter)
    rows = "".join(_row(exporter, state, now) for state in exporter.feeds.states())
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    feeds = (
        f'<table class="feeds"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        if rows
        else "<p>No requests yet. The first scrape sends them.</p>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>chutes-exporter</title><style>{_STYLE}</style></head><body>"
        f"<h1>chutes-exporter {escape(__version__)}</h1><p>{state}</p><p>Watched: {_watched(settings)}</p>"
        f"<nav>{_links(settings)}</nav>"
        '<form action="/probe"><p><label>Metrics of any miner: <input name="target" placeholder="hotkey (SS58)" '
        'required spellcheck="false" autocomplete="off"></label> '
        '<label><input type="checkbox" name="debug" value="true"> show requests</label> '
        "<button>Probe</button></p></form>"
        "<h2>Feeds</h2>"
        "<p>A scrape requests a feed from the API when its cached answer is missing or no longer fresh. An answer is "
        "dropped when its age reaches the bound.</p>"
        f"{feeds}"
        "<h2>Collectors</h2>"
        f'<table class="settings"><tbody>{_collectors(settings)}</tbody></table>'
        "<h2>Configuration</h2>"
        f'<table class="settings"><tbody>{_configuration(settings)}</tbody></table></body></html>'
    )


def _state(tone: Tone, text: str) -> str:
    """Return a state as a colour and a word."""
    return f'<span class="state {tone}">{escape(text)}</span>'


def _summary(exporter: Exporter) -> str:
    """Return the state of the exporter, and why it is not good."""
    ready, reason = exporter.readiness()
    states = exporter.feeds.states()
    failing = any(state.up is False for state in states)
    cause = reason.removeprefix("ready, but ")
    if failing and cause != reason and all(exporter.feeds.peek(state.feed) is None for state in states):
        return _state("bad", f"There is no data: {cause}. The feeds below show the errors.")
    return _state("bad" if not ready else "wait" if failing else "good", f"{reason[:1].upper()}{reason[1:]}.")


def _short(hotkey: str) -> str:
    """Return a hotkey's first five and last four characters. The rest is shown on hover."""
    return f'<abbr title="{escape(hotkey)}">{escape(hotkey[:5])}…{escape(hotkey[-4:])}</abbr>'


def _watched(settings: Settings) -> str:
    keys = {key.address for key in settings.keys}
    miners = [
        f'<a href="/probe?target={escape(hotkey)}">{_short(hotkey)}</a> '
        f"({'public and private data' if hotkey in keys else 'public data'})"
        for hotkey in sorted(settings.watched)
    ]
    return ", ".join(miners) or "the whole subnet"


def _links(settings: Settings) -> str:
    links = (
        (settings.telemetry_path, "Metrics"),
        ("/sd?miners=all", "Service discovery of all miners"),
        ("/-/ready", "Readiness"),
        ("/-/healthy", "Health"),
        (f"{_DOCUMENTS}metrics.md", "Docs: metrics"),
        (f"{_DOCUMENTS}configuration.md", "Docs: configuration"),
        (f"{_DOCUMENTS}operations.md#troubleshooting", "Docs: troubleshooting"),
    )
    return "".join(f'<a href="{escape(target)}">{escape(text)}</a>' for target, text in links)


def _row(exporter: Exporter, state: FeedState, now: float) -> str:
    cells = (
        escape(state.feed.name),
        _short(state.feed.hotkey) if state.feed.hotkey else "all miners",
        _feed_state(exporter, state),
        _age(exporter, state, now),
        _next(exporter, state),
        _last_error(state, now),
    )
    return f"<tr>{''.join(map(_cell, _COLUMNS, cells))}</tr>"


def _cell(name: str, text: str) -> str:
    # A narrow screen has no room for what is not there.
    kind = ' class="none"' if text == "none" else ""
    return f'<td data-name="{name}"{kind}>{text}</td>'


def _feed_state(exporter: Exporter, state: FeedState) -> str:
    if state.missing:
        return _state("off", "off")
    if state.up is None:
        return _state("off", "waiting")
    if state.up:
        return _state("good", "up")
    # An old answer is served until its bound.
    return _state("bad", "down") if exporter.feeds.peek(state.feed) is None else _state("wait", "stale")


def _age(exporter: Exporter, state: FeedState, now: float) -> str:
    if state.last_success is None:
        return "none"
    bound = exporter.settings.tuned(state.feed).max_age
    age = max(now - state.last_success, 0)
    text = f"{human_duration(age)} of {human_duration(bound)}"
    if exporter.feeds.peek(state.feed) is None:
        return f"{text}, dropped"
    return f'{text}<meter min="0" max="{bound:.0f}" high="{bound / 2:.0f}" value="{age:.0f}"></meter>'


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


def _collectors(settings: Settings) -> str:
    """Return which collectors are on, and which are off and why, as rows."""
    names: dict[str, list[str]] = {"on": []}
    for collector in COLLECTORS:
        reason = off_reason(collector, settings)
        names.setdefault("on" if reason is None else _OFF[reason], []).append(collector.name)
    return "".join(
        _setting(_state("good" if state == "on" else "off", state), ", ".join(found) or "none")
        for state, found in names.items()
    )


def _setting(name: str, value: str) -> str:
    return f"<tr><th>{name}</th><td>{escape(value)}</td></tr>"


def _configuration(settings: Settings) -> str:
    """Return the effective settings as rows. There are no secrets among them."""
    values: dict[str, object] = {
        "--api.url": settings.api_url,
        "--api.timeout": f"{settings.api_timeout:g} s",
        "--hotkey, --hotkey-file": f"{_count(settings.watched, 'miner')}, {_count(settings.keys, 'key')}",
        "--web.listen-address": "none" if settings.systemd_socket else " ".join(map(str, settings.listen)),
        "--web.systemd-socket": _switch(settings.systemd_socket),
        "--web.config.file": str(settings.web_config or "none"),
        "--web.enable-lifecycle": _switch(settings.enable_lifecycle),
        "--web.max-requests": settings.max_requests or "unlimited",
        "--web.telemetry-path": settings.telemetry_path,
        "--scrape.timeout-offset": f"{settings.timeout_offset:g} s",
        "--miners": settings.miners,
        "--max-series": f"{settings.max_series:,}",
        "--openmetrics.created": _switch(settings.created_timestamps),
        "--feed.ttl": _numbers(settings.ttl),
        "--feed.max-age": _numbers(settings.max_age),
        "--gpu.cost": _numbers(settings.gpu_costs),
        "--subnet.daily-emission": _figure(settings.daily_emission),
        "--alpha.price": _figure(settings.alpha_price),
    }
    return "".join(_setting(f"<code>{name}</code>", str(value)) for name, value in values.items())


def _count(things: Iterable[object], noun: str) -> str:
    number = len(list(things))
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={number:g}" for name, number in sorted(values.items())) or "none"


def _switch(value: bool) -> str:  # noqa: FBT001 - a setting
    return "on" if value else "off"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
