"""Builds the files of a release from a tag: `make release TAG=v1.2.3`."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import helm_python

from deploy.chart import CHART

ROOT: Final = Path(__file__).parent.parent
VERSIONS: Final = {
    "chutes_exporter/__init__.py": r'^__version__ = "(.+)"$',
    "deploy/helm/chutes-exporter/Chart.yaml": r"^(?:version|appVersion): (.+)$",
    "deploy/compose.yaml": r"^ *image: chutes-exporter:(.+)$",
    "docs/start.md": r"chutes-exporter:(\d[\w.]*\w)",
}
"""Where the version stands, and how."""
IMAGE: Final = "repository: chutes-exporter\n"
"""The image in the chart's values.yaml, as `make image` names it."""
ARCHITECTURES: Final = ("amd64", "arm64")
"""Debian's names of the machines that a release has a package for."""


class ReleaseError(Exception):
    """The tag, the versions and the changelog do not make a release. The message says what to change."""


def version_of(tag: str, root: Path = ROOT) -> str:
    """Return the version that a tag releases.

    Args:
        tag: Name of the tag, such as ``v1.2.3``.
        root: Folder of the project.

    Raises:
        ReleaseError: The tag has another form, or a file has another version.
    """
    if not re.fullmatch(r"v\d+\.\d+\.\d+", tag):
        raise ReleaseError(f"The tag must be like v1.2.3, not {tag!r}")
    version = tag.removeprefix("v")
    for name, pattern in VERSIONS.items():
        found = [text.strip('"') for text in re.findall(pattern, (root / name).read_text(), re.MULTILINE)]
        if not found or set(found) != {version}:
            raise ReleaseError(f"{name} has version {', '.join(found) or 'none'}, but the tag is {tag}")
    return version


def notes(changelog: str, tag: str, repository: str) -> str:
    """Return the text of a release: the section of its version in the changelog.

    GitHub breaks lines of a release where the text does, so that wrapped lines are joined. Relative links lead to the
    files of the tag.

    Args:
        changelog: Text of CHANGELOG.md.
        tag: Name of the tag, such as ``v1.2.3``.
        repository: Address of the repository on GitHub.

    Raises:
        ReleaseError: The changelog has no such section, or an empty one.
    """
    version = tag.removeprefix("v")
    section = re.search(
        rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if section is None or not section[1].strip():
        raise ReleaseError(f'CHANGELOG.md needs a section "## {version} (YYYY-MM-DD)" with text')
    lines: list[str] = []
    in_code = open_line = False
    for line in section[1].strip().split("\n"):
        fence = line.lstrip().startswith("```")
        text = bool(line.strip()) and not in_code and not fence and not re.match(r"#|\|", line)
        if text and open_line and not re.match(r"\s*(?:[-*>]|\d+\.) ", line):
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
        open_line = text
        in_code ^= fence
    return re.sub(r"\]\((?![a-z]+:|#)", f"]({repository}/blob/{tag}/", "\n".join(lines)) + "\n"


def package_chart(image: str, directory: Path) -> Path:
    """Package the Helm chart for an image in a registry, and return the archive's path.

    Args:
        image: Name of the image without a tag. The tag is the chart's ``appVersion``.
        directory: Folder for the archive.

    Raises:
        ReleaseError: The chart's values do not name the image as expected.
    """
    with tempfile.TemporaryDirectory() as temporary:
        chart = shutil.copytree(CHART, Path(temporary) / CHART.name)
        values = (chart / "values.yaml").read_text()
        if values.count(IMAGE) != 1:
            raise ReleaseError(f"{CHART.relative_to(ROOT)}/values.yaml must have one line {IMAGE.strip()!r}")
        (chart / "values.yaml").write_text(values.replace(IMAGE, f"repository: {image}\n"))
        directory.mkdir(parents=True, exist_ok=True)
        return Path(helm_python.package(chart, destination=directory))


def run_script(name: str, output: Path, **variables: str) -> None:
    """Run a script of the project that writes a file into a folder.

    Args:
        name: Path of the script in the project.
        output: The folder.
        variables: Environment variables of the script.
    """
    environment = {**os.environ, "VENV": os.path.relpath(sys.prefix, ROOT), "OUTPUT": str(output), **variables}
    subprocess.run([ROOT / name], cwd=ROOT, env=environment, check=True)


def main(arguments: list[str]) -> None:
    """Write all files of a release to a folder, and its text.

    Each kind of file has a folder of its own: ``python`` has the wheel and the sdist, ``chart`` the Helm chart, ``deb``
    the Debian packages, and ``sbom`` the bill of materials.

    Args:
        arguments: The command line.

    Raises:
        SystemExit: Something is missing; the message says what.
    """
    parser = argparse.ArgumentParser(prog="deploy.release", description=__doc__)
    parser.add_argument("tag", help="the tag, such as v1.2.3")
    parser.add_argument(
        "--repository",
        default="https://github.com/chutes-exporter/chutes-exporter",
        help="address of the repository on GitHub (default: %(default)s)",
    )
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="folder to write to (default: dist)")
    options = parser.parse_args(arguments)
    try:
        version_of(options.tag)
        text = notes((ROOT / "CHANGELOG.md").read_text(), options.tag, options.repository)
        if options.to.exists():
            shutil.rmtree(options.to)
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "build", "--quiet", "--out-dir", str(options.to / "python"), str(ROOT)], check=True)
        # A registry wants lower case.
        package_chart(re.sub(r"^https?://[^/]+", "ghcr.io", options.repository).lower(), options.to / "chart")
        for architecture in ARCHITECTURES:
            run_script("scripts/deb", options.to / "deb", ARCH=architecture)
        run_script("scripts/sbom", options.to / "sbom")
    except ReleaseError as error:
        sys.exit(str(error))
    (options.to / "notes.md").write_text(text)
    for path in sorted(path for path in options.to.rglob("*") if path.is_file() and path.name != ".gitignore"):
        print(path.relative_to(options.to))  # noqa: T201 - the command's answer


if __name__ == "__main__":
    main(sys.argv[1:])
