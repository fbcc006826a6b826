"""The maker of pages: joins parts that are kept until they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.page.compression import Compressor
from chutes_exporter.page.exposition import END_OF_OPENMETRICS, Format
from chutes_exporter.page.rendering import Renderer
from chutes_exporter.page.telemetry import OwnLines

if TYPE_CHECKING:
    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.fleet import Joined
    from chutes_exporter.page.plan import Plan
    from chutes_exporter.page.rendering import States
    from chutes_exporter.page.telemetry import Telemetry


class PageMaker:
    """Makes the pages of a plan."""

    def __init__(
        self, plan: Plan, settings: Settings, telemetry: Telemetry, client: ChutesClient
    ) -> None:
        self._renderer = Renderer(plan, settings.max_series, telemetry.ends)
        self._own = OwnLines(telemetry, settings, client)
        self._compressors = {form: Compressor() for form in Format}

    def make(self, states: States, joined: Joined, form: Format, *, gzipped: bool) -> bytes:
        """Return a page: the lines of collectors, then the exporter's own metrics."""
        lines_by_entry = self._renderer.render(states, joined, form)
        # Collectors for which the page has no room have no body.
        parts = [lines.body for lines in lines_by_entry.values() if lines.body is not None]
        parts.append(self._own.lines(lines_by_entry, states, form))
        # What changes with every page comes last, and is not kept.
        end = self._own.lines_of_process(form)
        if form is Format.OPENMETRICS:
            end += END_OF_OPENMETRICS
        if gzipped:
            return self._compressors[form].compress(parts, end)
        return b"".join([*parts, end])
