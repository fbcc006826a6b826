"""The layout of the package: data flows in one direction, and the tests mirror the modules."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = ROOT / "chutes_exporter"
BASE = {"__init__", "defaults", "duration"}
"""Modules that every other module may import, and that import nothing of the package."""
MAY_IMPORT: dict[str, set[str]] = {
    "api": set(),
    "feeds": {"api"},
    "collectors": {"api", "feeds"},
    "config": {"api", "feeds", "collectors"},
    "log": set(),
    "page": {"api", "feeds", "collectors", "config"},
    "web": {"api", "feeds", "collectors", "config", "page"},
    "simulator": {"api", "config", "web"},
    "commands": {"api", "feeds", "collectors", "config", "log", "page", "web", "simulator"},
    "cli": {"api", "collectors", "config", "log", "commands", "web"},
    "__main__": {"cli", "web"},
}
"""The direction of the data: api, feeds, collectors, page, web; with the simulator and the commands beside."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """Return the package or top-level module that a dotted name lies in."""
    return [*module.split("."), "__init__"][1]


def imports(path: Path, *, for_types: bool = True) -> Iterator[str]:
    """Return the modules of the package that a file imports, also inside functions.

    Args:
        path: The file.
        for_types: Whether imports that only type checkers see count too.
    """
    tree = ast.parse(path.read_text())
    if not for_types:
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("chutes_exporter"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chutes_exporter"):
            for alias in node.names:
                inner = PACKAGE.joinpath(*(node.module or "").split(".")[1:], f"{alias.name}.py")
                package = inner.with_suffix("")
                yield f"{node.module}.{alias.name}" if inner.exists() or package.is_dir() else node.module or ""


def part_of_file(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_in_the_direction_of_the_data(path: Path) -> None:
    own = part_of_file(path)
    if own in BASE:
        assert list(imports(path)) == []
        return
    found = {part_of(name) for name in imports(path)} - BASE - {own}
    assert found <= MAY_IMPORT[own]


def test_no_module_imports_itself_through_others() -> None:
    graph = {
        ".".join(("chutes_exporter", *path.relative_to(PACKAGE).with_suffix("").parts)): set(
            imports(path, for_types=False)
        )
        for path in modules()
        if path.name != "__init__.py"
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name in done:
            return
        for other in graph.get(name, ()):
            visit(other, (*above, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_httpx_is_imported_in_one_place_only() -> None:
    users = [path for path in modules() if "import httpx" in path.read_text()]
    assert [str(path.relative_to(PACKAGE)) for path in users] == ["api/client.py"]
