"""``/probe?debug=true``: the requests for a page, their results, and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chutes_exporter.api.endpoints import stats_params
from chutes_exporter.api.errors import ApiError
from chutes_exporter.duration import human_duration

if TYPE_CHECKING:
    from chutes_exporter.feeds.feed import Feed, Reading
    from chutes_exporter.page.exporter import Exporter, Page


def debug_page(exporter: Exporter, target: str, page: Page, now: float) -> str:
    """Return the debug page as text.

    Args:
        exporter: The exporter that made the page.
        target: The hotkey of the probe.
        page: The page.
        now: Unix time in seconds.
    """
    parts = [f"Probe of {target}", "", "Requests to the API:"]
    for feed, reading in page.readings.items():
        parts += ["", *_feed_lines(exporter, feed, reading, now)]
    return "\n".join([*parts, "", "Page:", "", page.body.decode()])


def _feed_lines(exporter: Exporter, feed: Feed[Any], reading: Reading[Any], now: float) -> list[str]:
    endpoint, hotkey = feed.endpoint, feed.hotkey
    query = {**(endpoint.query or {}), **(stats_params(hotkey or None, per_chute=True) if feed.per_chute else {})}
    path = endpoint.path.replace("{hotkey}", hotkey)
    url = f"{exporter.settings.api_url}{path}" + "".join(
        f"{'&' if number else '?'}{name}={value}" for number, (name, value) in enumerate(query.items())
    )
    lines = [f"{feed.name}: {endpoint.method} {url}"]
    if endpoint.signed:
        lines.append(f"  signed by {hotkey or 'a configured hotkey'} (X-Chutes-Signature: hidden)")
    lines.append(f"  {reading.result}, after {reading.seconds:.3f} s")
    if reading.snapshot is not None:
        answer = reading.snapshot.answer
        age = human_duration(max(now - reading.snapshot.at, 0))
        lines.append(
            f"  {answer.count} records in {answer.size} bytes, requested {age} ago, answered in {answer.seconds:.3f} s"
        )
        if answer.rejected:
            lines.append(f"  {answer.rejected} records could not be read: {answer.first_error}")
    if reading.error is not None:
        advice = f" {reading.error.advice}" if isinstance(reading.error, ApiError) else ""
        lines.append(f"  error: {reading.error}.{advice}")
    return lines
