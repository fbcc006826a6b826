"""The wheel and the sdist of a release: install from them, and run them as users do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import chutes_exporter
from tests.support import ROOT, free_port

if TYPE_CHECKING:
    from tests.deploy.conftest import Released

UV = str(Path(sys.executable).parent / "uv")


@pytest.fixture
def built(released: Released) -> Path:
    return released.folder / "python"


def test_the_wheel_has_the_package_alone_and_the_sdist_what_belongs_to_it(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        roots = {name.split("/")[0] for name in archive.namelist()}
        assert "chutes_exporter/py.typed" in archive.namelist()
    version = chutes_exporter.__version__
    assert roots == {"chutes_exporter", f"chutes_exporter-{version}.dist-info"}
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    for needed in (
        "README.md",
        "CONTRIBUTING.md",
        "Dockerfile",
        "Makefile",
        "scripts/test",
        "deploy/compose.yaml",
        "LICENSE",
        "CHANGELOG.md",
        "prometheus/rules/alerts.yml",
        "grafana/dashboards/chutes-fleet.json",
    ):
        assert needed in names
    assert not [name for name in names if "node_modules" in name or "__pycache__" in name or name.startswith(".cache")]


def metadata_of(built: Path) -> str:
    """Return what the wheel says about itself: its headers and its page on PyPI."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    return metadata


def test_the_links_and_pictures_of_the_page_on_pypi_lead_to_the_files_of_the_version(built: Path) -> None:
    headers, _, page = metadata_of(built).partition("\n\n")
    assert "Description-Content-Type: text/markdown" in headers.splitlines()
    found = re.findall(r"\]\(([^)\s]+)\)", page)
    assert len(found) == len(re.findall(r"\]\(", (ROOT / "README.md").read_text())) > 0
    (home,) = re.findall(r"^Project-URL: Homepage, https://github\.com/(\S+)$", headers, re.MULTILINE)
    version = f"v{chutes_exporter.__version__}"
    pages = f"https://github.com/{home}/blob/{version}/"
    pictures = f"https://raw.githubusercontent.com/{home}/{version}/"
    for address in found:
        root = pictures if address.endswith(".png") else pages
        if not address.startswith(root):
            assert address in (ROOT / "README.md").read_text()
            assert re.match(r"https?:|#", address), address
        else:
            assert (ROOT / address.removeprefix(root).partition("#")[0]).exists(), address


def test_the_urls_of_the_project_lead_to_files_that_exist(built: Path) -> None:
    metadata = metadata_of(built)
    urls = dict(re.findall(r"^Project-URL: (\w+), (\S+)$", metadata, re.MULTILINE))
    assert urls.keys() == {"Homepage", "Documentation", "Changelog", "Issues"}
    home = urls["Homepage"]
    # The runbooks of the alerts are in the same repository.
    assert f"runbook_url: {home}/blob/main/" in (ROOT / "prometheus" / "rules" / "alerts.yml").read_text()
    assert {url.startswith(home) for url in urls.values()} == {True}
    for url in urls.values():
        path = url.removeprefix(f"{home}/blob/main/").partition("#")[0]
        assert path == url or (ROOT / path).exists()


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_the_demo_starts_from_what_was_built(built: Path, kind: str, tmp_path: Path) -> None:
    (package,) = built.glob(kind)
    port = free_port()
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [
            UV,
            "tool",
            "run",
            "--isolated",
            "--from",
            str(package),
            "chutes-exporter",
            "demo",
            f"--web.listen-address=127.0.0.1:{port}",
            "--simulator.listen-address=127.0.0.1:0",
        ],
        env={**os.environ, "UV_PYTHON": sys.executable},
        stdout=log,
        stderr=log,
    )
    log.close()
    try:
        page = ""
        deadline = time.monotonic() + 120
        while not page:
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20).read().decode()
            except urllib.error.URLError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.2)
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert f'version="{chutes_exporter.__version__}"' in page
