"""The files of a release, as `make release` and the release workflow build them from a tag."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import helm_python
import pytest
import yaml

import chutes_exporter
from deploy import release
from tests.debian.package import field, files
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.conftest import Released

TAG = f"v{chutes_exporter.__version__}"
REPOSITORY = "https://github.com/Example/Exporter"
CHANGELOG = """\
# Changelog

## Unreleased

- Not yet.

## 0.2.0 (2026-12-01)

A long sentence that goes
over two lines.

### Metrics

- Read [the list](docs/metrics.md) and
  [the site](https://example.org).
- Another
  1. with a number
     that goes on

| a | b |
|---|---|
| c | d |

```sh
one
two
```

## 0.1.0 (2026-11-01)

First.
"""


def project(folder: Path, *, tag: str = TAG) -> Path:
    """Copy the files that have the version, and a changelog with a section for a tag."""
    for name in release.VERSIONS:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, path)
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n## {tag.removeprefix('v')} (2026-12-01)\n\nNews.\n")
    return folder


def test_a_tag_names_the_version_that_all_files_have() -> None:
    assert release.version_of(TAG) == chutes_exporter.__version__


@pytest.mark.parametrize("tag", ["0.1.0", "v0.1", "v0.1.0rc1", "v0.1.0\n", ""])
def test_a_tag_of_another_form_is_refused(tag: str) -> None:
    with pytest.raises(release.ReleaseError, match=r"must be like v1\.2\.3"):
        release.version_of(tag)


@pytest.mark.parametrize("name", release.VERSIONS)
def test_a_file_with_another_version_is_named(name: str, tmp_path: Path) -> None:
    path = project(tmp_path) / name
    path.write_text(path.read_text().replace(chutes_exporter.__version__, "9.9.9"))
    with pytest.raises(release.ReleaseError, match=rf"^{name} has version 9\.9\.9.*the tag is {TAG}$"):
        release.version_of(TAG, tmp_path)


def test_a_chart_with_two_versions_is_refused(tmp_path: Path) -> None:
    path = project(tmp_path) / "deploy/helm/chutes-exporter/Chart.yaml"
    path.write_text(path.read_text().replace(f'appVersion: "{chutes_exporter.__version__}"', "appVersion: 9.9.9"))
    with pytest.raises(release.ReleaseError, match=r"Chart\.yaml has version .*9\.9\.9"):
        release.version_of(TAG, tmp_path)


def test_the_notes_are_the_section_of_the_version_with_lines_joined_and_links_to_the_tag() -> None:
    assert release.notes(CHANGELOG, "v0.2.0", REPOSITORY) == (
        "A long sentence that goes over two lines.\n"
        "\n"
        "### Metrics\n"
        "\n"
        f"- Read [the list]({REPOSITORY}/blob/v0.2.0/docs/metrics.md) and [the site](https://example.org).\n"
        "- Another\n"
        "  1. with a number that goes on\n"
        "\n"
        "| a | b |\n"
        "|---|---|\n"
        "| c | d |\n"
        "\n"
        "```sh\n"
        "one\n"
        "two\n"
        "```\n"
    )
    assert release.notes(CHANGELOG, "v0.1.0", REPOSITORY) == "First.\n"


@pytest.mark.parametrize("changelog", [CHANGELOG, "## 0.3.0 (2026-12-01)\n\n", "## 0.3.0\n\nNo date.\n"])
def test_a_version_without_a_dated_section_with_text_is_refused(changelog: str) -> None:
    with pytest.raises(release.ReleaseError, match=r'section "## 0\.3\.0 \(YYYY-MM-DD\)"'):
        release.notes(changelog, "v0.3.0", REPOSITORY)


def test_the_packaged_chart_takes_its_image_from_the_registry(tmp_path: Path) -> None:
    archive = release.package_chart("ghcr.io/example/exporter", tmp_path / "chart")
    assert archive.name == f"chutes-exporter-{chutes_exporter.__version__}.tgz"
    with helm_python.Chart.load(archive) as chart:
        rendered = chart.render({}, name="chutes-exporter", namespace="chutes")
    deployment = next(text for path, text in rendered.items() if path.endswith("deployment.yaml"))
    (container,) = yaml.safe_load(deployment)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"ghcr.io/example/exporter:{chutes_exporter.__version__}"


def test_the_release_writes_its_files_and_the_notes(released: Released) -> None:
    version = chutes_exporter.__version__
    expected = [
        f"chart/chutes-exporter-{version}.tgz",
        f"deb/chutes-exporter_{version}_amd64.deb",
        f"deb/chutes-exporter_{version}_arm64.deb",
        "notes.md",
        f"python/chutes_exporter-{version}-py3-none-any.whl",
        f"python/chutes_exporter-{version}.tar.gz",
        f"sbom/chutes-exporter-{version}.cdx.json",
    ]
    assert released.printed.splitlines() == expected
    assert not (released.folder / "old").exists()
    assert (released.folder / "notes.md").read_text() == "News.\n"


def test_the_workflow_attests_and_attaches_every_file_but_the_notes(released: Released) -> None:
    workflow = (ROOT / ".github/workflows/release.yml").read_text()
    (attested,) = re.findall(r"^ +subject-path: dist/(.+)$", workflow, re.MULTILINE)
    (attached,) = re.findall(r" --notes-file dist/notes.md dist/(.+)$", workflow, re.MULTILINE)
    expected = {released.folder / name for name in released.printed.splitlines()} - {released.folder / "notes.md"}
    assert expected == set(released.folder.glob(attested)) == set(released.folder.glob(attached))
    (uploaded,) = re.findall(r"^ +packages-dir: dist/(.+)$", workflow, re.MULTILINE)
    # PyPI refuses every other kind of file.
    assert {path.suffix for path in (released.folder / uploaded).glob("chutes*")} == {".whl", ".gz"}


@pytest.mark.parametrize(("architecture", "machine_code"), [("amd64", 0x3E), ("arm64", 0xB7)])
def test_each_debian_package_has_only_code_for_its_architecture(
    architecture: str, machine_code: int, released: Released
) -> None:
    package = released.folder / "deb" / f"chutes-exporter_{chutes_exporter.__version__}_{architecture}.deb"
    assert field(package, "Architecture") == architecture
    with files(package) as archive:
        heads = [found.read(20) for one in archive if ".so" in one.name and (found := archive.extractfile(one))]
    assert {struct.unpack("<H", head[18:20])[0] for head in heads if head.startswith(b"\x7fELF")} == {machine_code}


def test_the_files_of_the_debian_packages_have_the_time_of_the_commit(released: Released) -> None:
    # Outside a clone, nobody knows the commit. The changelog is then as old as its release.
    committed = int((ROOT / "CHANGELOG.md").stat().st_mtime)
    if (ROOT / ".git").exists():
        command = ["git", "-c", "safe.directory=*", "log", "-1", "--format=%ct"]
        committed = int(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    packages = list((released.folder / "deb").glob("*.deb"))
    assert len(packages) == 2
    for package in packages:
        with files(package) as archive:
            assert {one.mtime for one in archive if one.name.startswith("./usr/")} == {committed}


def test_a_release_that_is_not_ready_says_what_to_change_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"has version .*, but the tag is v99\.0\.0"):
        release.main(["v99.0.0", "--to", str(tmp_path / "dist")])
    assert not (tmp_path / "dist").exists()
