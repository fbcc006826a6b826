"""The layout of the package: data flows in one direction."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = ROOT / "chutes_exporter"
BASE = {"__init__", "__version__", "duration", "files", "log", "metric"}
"""Modules that every other module may import, and that import nothing of the package."""
DATA = ("api", "chain", "rules", "fleet", "feeds", "collectors", "page", "web")
"""The direction of the data."""
MAY_IMPORT: dict[str, set[str]] = {
    "api": set(),
    "rules": {"api"},
    "chain": {"api"},
    "fleet": {"api", "rules"},
    "config": {"api", "rules"},
    "feeds": {"api", "chain", "rules", "fleet"},
    "collectors": {*DATA[:5], "config"},
    "findings": {"rules", "fleet"},
    "page": {*DATA[:6], "config"},
    "web": {"api", "fleet", "feeds", "collectors", "config", "page", "findings"},
    "demo": {"api", "chain", "config", "feeds", "web"},
    "commands": set(DATA) | {"config", "findings", "demo"},
    "cli": {"api", "collectors", "config", "commands", "web"},
    "__main__": {"cli"},
}
"""What each part may import. Settings know no feed and no collector."""


def imports(path: Path) -> set[str]:
    """Return the parts of the package that a file imports, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    # Of "chutes_exporter.api.keys", it is "api".
    return {name.split(".")[1] for name in names if name.startswith("chutes_exporter.")}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_a_module_imports_only_in_the_direction_of_the_data(path: Path) -> None:
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if part in BASE:
        assert imports(path) == set()
    else:
        assert imports(path) - BASE - {part} <= MAY_IMPORT[part]
