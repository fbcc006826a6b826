"""The files of a release, as `make release` and the release workflow build them from a tag."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

import chutes_exporter
from deploy import release
from grafana.boards import BOARDS
from tests.prometheus.rule_files import RULES
from tests.support import PATIENCE, ROOT, fetch, free_port, wait_for

pytestmark = pytest.mark.release
VERSION = chutes_exporter.__version__
REPOSITORY = "https://github.com/Example/Exporter"
CHANGELOG = f"""\
## Unreleased

- Not yet.

## {VERSION} (2026-12-01)

A long sentence that goes
over two lines.

- Read [the list](docs/metrics.md) and
  [the site](https://example.org).

## 0.0.1 (2026-11-01)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a release of this version, whose changelog is ready."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    read_text = Path.read_text

    def with_ready_changelog(path: Path) -> str:
        return CHANGELOG if path == ROOT / "CHANGELOG.md" else read_text(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_text", with_ready_changelog)
        release.main([f"v{VERSION}", "--repository", REPOSITORY, "--to", str(folder)])
    return folder


def test_a_tag_that_differs_from_a_version_and_a_version_without_notes_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        SystemExit,
        match=rf"^chutes_exporter/__init__.py has version {VERSION}, but the tag is v9.9.9",
    ):
        release.main(["v9.9.9", "--to", str(tmp_path / "dist")])
    with pytest.raises(SystemExit, match=r'needs a section "## 9\.9\.9 \(YYYY-MM-DD\)"'):
        release.notes(CHANGELOG, "v9.9.9", REPOSITORY)
    assert not (tmp_path / "dist").exists()


def test_the_release_attests_attaches_and_sums_every_file(built: Path) -> None:
    names = {
        f"chutes-exporter-{VERSION}.tgz",
        f"chutes-exporter-{VERSION}.cdx.json",
        f"chutes_exporter-{VERSION}-py3-none-any.whl",
        f"chutes_exporter-{VERSION}.tar.gz",
        *(f"{board.uid}.json" for board in BOARDS),
    }
    workflow = (ROOT / ".github/workflows/release.yml").read_text()
    (attested,) = re.findall(r"^ +subject-path: dist/(.+)$", workflow, re.MULTILINE)
    (attached,) = re.findall(
        r" --notes-file dist/notes.md dist/SHA256SUMS dist/(.+)$", workflow, re.MULTILINE
    )
    for pattern in (attested, attached):
        assert {path.name for path in built.glob(pattern)} == names
    sums = {}
    for line in (built / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        sums[name] = digest
    assert sums == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built.glob(attached)
    }
    # PyPI refuses every other kind of file.
    assert {path.suffix for path in (built / "python").glob("chutes*")} == {".whl", ".gz"}


def test_the_packaged_chart_has_the_rules_and_dashboards_and_takes_its_image_from_the_registry(
    built: Path,
) -> None:
    package = built / "chart" / f"chutes-exporter-{VERSION}.tgz"
    packaged = {}
    with tarfile.open(package) as archive:
        for name in archive.getnames():
            _, _, path_in_files = name.partition("/files/")
            content = archive.extractfile(name)
            # A folder has no content.
            if path_in_files and content is not None:
                packaged[path_in_files] = content.read()
    committed = {}
    for folder in (RULES, ROOT / "grafana" / "dashboards"):
        for path in folder.iterdir():
            committed[f"{folder.name}/{path.name}"] = path.read_bytes()
    assert packaged == committed
    with helm_python.Chart.load(package) as chart:
        rendered = chart.render({}, name="chutes-exporter", namespace="chutes")
    deployment = next(text for path, text in rendered.items() if path.endswith("deployment.yaml"))
    (container,) = yaml.safe_load(deployment)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"ghcr.io/example/exporter:{VERSION}"


@pytest.mark.parametrize("uid", [board.uid for board in BOARDS])
def test_a_dashboard_for_grafana_com_asks_for_its_data_source(uid: str, built: Path) -> None:
    text = (built / "grafana" / f"{uid}.json").read_text()
    board: dict[str, Any] = json.loads(text)
    (data_source,) = board["__inputs"]
    variables = set(re.findall(r"\$\{?datasource|\$\{DS_\w+\}", text))
    assert variables == {f"${{{data_source['name']}}}"}
    used = set()
    for panel in board["panels"]:
        used.add(panel["type"])
        # A collapsed row has its panels inside.
        used |= {inner["type"] for inner in panel.get("panels", ())}
    required = {one["id"] for one in board["__requires"] if one["type"] == "panel"}
    assert used - {"row"} == required
    assert board["id"] is None
    assert (built / "grafana" / "pictures" / f"{uid}-sick.png").exists()


def test_the_wheel_has_the_package_alone_and_the_sdist_what_belongs_to_it(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("python/*.whl"))) as archive:
        names = archive.namelist()
    assert "chutes_exporter/py.typed" in names
    assert {name.split("/")[0] for name in names} == {
        "chutes_exporter",
        f"chutes_exporter-{VERSION}.dist-info",
    }
    with tarfile.open(next(built.glob("python/*.tar.gz"))) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"Dockerfile", "LICENSE", "scripts/test", "prometheus/rules/alerts.yml"} <= {*names}
    # Through a link to prometheus/rules.
    assert "deploy/helm/chutes-exporter/files/rules/alerts.yml" in names
    for name in names:
        assert "node_modules" not in name
        assert "__pycache__" not in name
        assert not name.startswith(".cache")


def test_the_demo_starts_from_the_wheel(built: Path, tmp_path: Path) -> None:
    # It was built from the source distribution.
    (wheel,) = (built / "python").glob("*.whl")
    port, log = free_port(), tmp_path / "log"
    command = (
        f"tool run --isolated --from {wheel} chutes-exporter demo "
        f"--web.listen-address=127.0.0.1:{port}"
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                Path(sys.executable).parent / "uv",
                *command.split(),
                "--demo.listen-address=127.0.0.1:0",
            ],
            env={**os.environ, "UV_PYTHON": sys.executable},
            stdout=output,
            stderr=output,
        )
    try:
        page = wait_for(lambda: fetch(f"http://127.0.0.1:{port}/metrics"), process, log.read_text)
        assert f'version="{VERSION}"' in page
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)
