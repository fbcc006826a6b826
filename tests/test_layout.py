"""The layout of the package: data flows in one direction."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = ROOT / "chutes_exporter"
BASE = {"__init__", "__version__", "duration", "files", "metric"}
"""Modules that every other module may import, and that import nothing of the package."""
MAY_IMPORT: dict[str, set[str]] = {
    "api": set(),
    "rules": {"api"},
    "chain": {"api"},
    "fleet": {"api", "rules"},
    "config": {"api", "rules"},
    "feeds": {"api", "chain", "rules", "fleet"},
    "collectors": {"api", "chain", "rules", "fleet", "feeds", "config"},
    "findings": {"rules", "fleet"},
    "healthcheck": set(),
    "log": set(),
    "page": {"api", "chain", "rules", "fleet", "feeds", "collectors", "config"},
    "web": {"api", "fleet", "feeds", "collectors", "config", "page", "findings"},
    "demo": {"api", "chain", "config", "web"},
    "commands": {
        "api",
        "chain",
        "rules",
        "fleet",
        "feeds",
        "collectors",
        "config",
        "findings",
        "log",
        "page",
        "web",
        "demo",
    },
    "cli": {"api", "collectors", "config", "log", "commands", "web"},
    "__main__": {"cli"},
}
"""The direction of the data: api, chain, rules, fleet, feeds, collectors, page, web; and the
demo and commands beside. Settings know no feed and no collector.
"""


def modules() -> list[Path]:
    """Return the files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """Return the package or top-level module that a dotted name lies in.

    For ``chutes_exporter.api.keys`` it is ``api``, and for ``chutes_exporter`` its ``__init__``.
    """
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> list[str]:
    """Return the modules of the package that a file imports, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.startswith("chutes_exporter")]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_in_the_direction_of_the_data(path: Path) -> None:
    own_part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if own_part in BASE:
        assert imports(path) == []
        return
    imported_parts = {part_of(name) for name in imports(path)} - BASE - {own_part}
    assert imported_parts <= MAY_IMPORT[own_part]


def test_httpx_is_imported_in_one_place_only() -> None:
    users = [path for path in modules() if "import httpx" in path.read_text()]
    assert [str(path.relative_to(PACKAGE)) for path in users] == ["api/client.py"]
