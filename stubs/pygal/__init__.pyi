"""The part of pygal that benchmarks use. The package has no types."""

from collections.abc import Sequence

from pygal.style import Style

class XY:
    def __init__(
        self,
        *,
        title: str,
        x_title: str,
        y_title: str,
        style: Style,
        width: int,
        height: int,
        range: tuple[float, float],  # noqa: A002 - pygal calls it so
        xrange: tuple[float, float],
        js: tuple[str, ...],
        truncate_legend: int,
        disable_xml_declaration: bool,
    ) -> None: ...
    def add(self, title: str, values: Sequence[tuple[float, float]]) -> None: ...
    def render(self, *, is_unicode: bool) -> str: ...
