"""The files of a release, as `make release` and the release workflow build them from a tag."""

from __future__ import annotations

import shutil
from pathlib import Path

import helm_python
import pytest
import yaml

import chutes_exporter
from deploy import release
from tests.support import ROOT

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


def test_the_release_writes_the_packages_the_chart_and_the_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changelog = (project(tmp_path) / "CHANGELOG.md").read_text()
    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path: changelog if path == ROOT / "CHANGELOG.md" else read_text(path))
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/old").touch()
    release.main([TAG, "--repository", REPOSITORY, "--to", str(tmp_path / "dist")])
    version = chutes_exporter.__version__
    expected = [
        f"chart/chutes-exporter-{version}.tgz",
        "notes.md",
        f"python/chutes_exporter-{version}-py3-none-any.whl",
        f"python/chutes_exporter-{version}.tar.gz",
    ]
    assert capsys.readouterr().out.splitlines() == expected
    assert not (tmp_path / "dist/old").exists()
    assert (tmp_path / "dist/notes.md").read_text() == "News.\n"


def test_a_release_that_is_not_ready_says_what_to_change_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"has version .*, but the tag is v99\.0\.0"):
        release.main(["v99.0.0", "--to", str(tmp_path / "dist")])
    assert not (tmp_path / "dist").exists()
