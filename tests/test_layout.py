"""The layout of the package: data flows in one direction, and the tests mirror the modules."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = ROOT / "chutes_exporter"
BASE = {"__init__", "defaults", "duration", "metric"}
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
    "__main__": {"cli"},
}
"""The direction of the data: api, feeds, collectors, page, web; with the simulator and the commands beside."""

TESTS = ROOT / "tests"
OTHER_FOLDERS = {
    "alertmanager": "the routing of alerts",
    "containers": "the image, the manifests and compose, run by podman",
    "debian": "the Debian package, on machines that boot systemd",
    "deploy": "the image, the chart and the releases",
    "golden_pages": "whole pages, as they were reviewed",
    "grafana": "the dashboards",
    "integration": "the exporter together with a real Prometheus and a browser",
    "newest": "Prometheus 3 and VictoriaMetrics, of Debian's next release",
    "prometheus": "the rules and the alerts",
    "readme": "the README, followed word for word in a new Debian",
    "recordings": "recorded answers",
}
"""Folders of tests that mirror no package, and what they test."""
OTHER_TESTS = {
    "api/test_compute_history.py": "the CSV of multipliers, from its bytes to compute units",
    "commands/test_backfill_compute.py": "what backfill makes of that CSV",
    "commands/test_tee_servers.py": "the warnings of status and check about TEE servers",
    "collectors/test_missing_fields.py": "every collector, with answers that lack a field",
    "test_facts.py": "the whole exporter, with a recorded world whose true values are known",
    "test_fields.py": "docs/dev/fields.md",
    "test_flags.py": "docs/configuration.md and docs/commands.md",
    "test_golden.py": "the whole page, as it was reviewed",
    "test_hostile.py": "the whole exporter, with hostile answers and requests",
    "test_launch.py": "the launches in a recorded world, on the page and in advise",
    "test_layout.py": "the layout of the package",
    "test_links.py": "the links and examples of the documents",
    "test_reaper.py": "tests/reaper.py",
    "test_output.py": "what the commands print, on pipes and terminals",
    "test_recordings.py": "the whole exporter, with recorded answers",
    "test_requests_an_hour.py": "the number of requests that the exporter sends",
    "test_secrets.py": "all that the exporter shows",
    "test_scripts.py": "scripts/, where no other test runs them",
    "web/test_attacks.py": "the real command, under attack",
    "web/test_probe.py": "/probe, which web/app.py, page/plan.py and page/exporter.py answer together",
}
"""Test files in mirrored folders that test more than one module or none, and what they test."""


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


def declares_something(path: Path) -> bool:
    """Tell whether a module has more than a docstring, imports and names like ``__all__``."""
    plain = (ast.Expr, ast.Import, ast.ImportFrom)
    return not all(
        isinstance(node, plain) or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("__"))
        for node in ast.parse(path.read_text()).body
    )


def mirrored_test(module: Path) -> str:
    """Return the name of a module's test file. What ``__init__`` declares is tested under the package's name."""
    stem = module.parent.name if module.name == "__init__.py" else module.stem.strip("_")
    return str((module.parent / f"test_{stem}.py").relative_to(PACKAGE))


TESTED = {
    mirrored_test(path): path
    for path in modules()
    if path.parent.name != "simulator" and (path.name != "__init__.py" or declares_something(path))
}
"""The modules, by the name of their test file. The simulator is tested as a whole."""


@pytest.mark.parametrize("name", TESTED)
def test_every_module_has_a_test_file_of_its_name(name: str) -> None:
    path = TESTS / name
    assert path.exists()
    assert re.search(r"^(async )?def test_", path.read_text(), re.MULTILINE)


def test_every_test_file_mirrors_a_module_or_is_listed_with_what_it_tests() -> None:
    found = {str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")}
    mirrored = {name for name in found if name.partition("/")[0] not in {*OTHER_FOLDERS, "simulator"}}
    assert mirrored == TESTED.keys() | OTHER_TESTS.keys()


def test_every_folder_of_tests_mirrors_a_package_or_is_listed_with_what_it_tests() -> None:
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == packages | OTHER_FOLDERS.keys()
