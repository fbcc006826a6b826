"""Builds the files of a release from a tag: `make release TAG=v1.2.3`."""

from __future__ import annotations

import argparse
import hashlib
import json
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
BIN: Final = Path(sys.executable).parent
VERSIONS: Final = {
    "chutes_exporter/__init__.py": r'^__version__ = "(.+)"$',
    "deploy/helm/chutes-exporter/Chart.yaml": r"^(?:version|appVersion): (.+)$",
    "deploy/compose.yaml": r"^ *image: chutes-exporter:(.+)$",
    "docs/start.md": r"chutes-exporter:(\d[\w.]*\w)",
}
"""Where the version stands, and how."""
PANELS: Final = {
    "stat": "Stat",
    "table": "Table",
    "timeseries": "Time series",
    "state-timeline": "State timeline",
}
"""Grafana's names of the kinds of panels."""


def version_of(tag: str) -> str:
    """Return the version that a tag like ``v1.2.3`` releases.

    Raises:
        SystemExit: A file has another version.
    """
    version = tag.removeprefix("v")
    for name, pattern in VERSIONS.items():
        found = {
            text.strip('"') for text in re.findall(pattern, (ROOT / name).read_text(), re.MULTILINE)
        }
        if found != {version}:
            sys.exit(f"{name} has version {', '.join(found) or 'none'}, but the tag is {tag}")
    return version


def notes(changelog: str, tag: str, repository: str) -> str:
    """Return the text of a release: the section of its version in the changelog.

    GitHub breaks lines of a release where the text does, so that wrapped lines are joined. Relative
    links lead to the files of the tag.

    Raises:
        SystemExit: The changelog has no such section.
    """
    version = tag.removeprefix("v")
    section = re.search(
        rf"^## {re.escape(version)} \([\d-]+\)\n(.+?)(?=^## |\Z)",
        changelog,
        re.MULTILINE | re.DOTALL,
    )
    if section is None:
        sys.exit(f'CHANGELOG.md needs a section "## {version} (YYYY-MM-DD)" with text')
    text = re.sub(r"(?<=[^\n])\n *(?=[^\n# -])", " ", section[1].strip())
    return re.sub(r"\]\((?![a-z]+:|#)", f"]({repository}/blob/{tag}/", text) + "\n"


def package_chart(image: str, directory: Path) -> None:
    """Package the Helm chart into a folder, for an image in a registry, without a tag."""
    with tempfile.TemporaryDirectory() as temporary:
        chart = shutil.copytree(CHART, Path(temporary) / CHART.name)
        for name in ("values.yaml", "README.md"):
            text = (chart / name).read_text()
            (chart / name).write_text(
                re.sub(r"(repository.*?)chutes-exporter\b", rf"\1{image}", text, count=1)
            )
        directory.mkdir(parents=True)
        helm_python.package(chart, destination=directory)


def dashboards(directory: Path, version: str) -> None:
    """Write the dashboards in the form that Grafana.com takes, their pictures, and their
    descriptions in README.md.

    Whoever imports one chooses the data source, which is a variable otherwise.
    """
    (directory / "pictures").mkdir(parents=True)
    major, minor, patch = map(int, version.split("."))
    descriptions = "# Dashboards for Grafana.com\n"
    for path in sorted((ROOT / "grafana" / "dashboards").iterdir()):
        text = (
            path.read_text()
            .replace("var-datasource=${datasource}&", "")
            .replace("$datasource", "${DS_PROMETHEUS}")
        )
        board = json.loads(text)
        variables = board["templating"]["list"]
        variables[:] = [variable for variable in variables if variable["name"] != "datasource"]
        source = {"type": "datasource", "name": "Prometheus"}
        board |= {
            "__inputs": [
                source
                | {
                    "name": "DS_PROMETHEUS",
                    "label": "Prometheus",
                    "pluginId": "prometheus",
                    "pluginName": "Prometheus",
                }
            ],
            "__requires": [
                {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "11.6.0"},
                source | {"id": "prometheus", "version": "1.0.0"},
                *(
                    {"type": "panel", "id": kind, "name": PANELS[kind], "version": ""}
                    for kind in sorted(set(re.findall(r'"type": "([\w-]+)"', text)) & PANELS.keys())
                ),
            ],
            "id": None,
            "version": major * 10_000 + minor * 100 + patch,
        }
        (directory / path.name).write_text(json.dumps(board, indent=2) + "\n")
        picture = f"{path.stem}-sick.png"
        shutil.copy(ROOT / "grafana" / "pictures" / picture, directory / "pictures" / picture)
        descriptions += (
            "\n## "
            f"{board['title']}\n\n{board['description']}\n\n![{board['title']}](pictures/{picture})\n"
        )
    (directory / "README.md").write_text(descriptions)


def run(program: str, *arguments: object) -> None:
    """Run a program of this environment on the project."""
    subprocess.run([BIN / program, *map(str, arguments)], cwd=ROOT, check=True)


def bill_of_materials(directory: Path, version: str) -> None:
    """Write the bill of materials of the exporter with its locked dependencies.

    The image has its own.
    """
    directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as environment:
        python = f"{environment}/bin/python"
        run("python", "-m", "venv", "--without-pip", environment)
        run(
            "uv",
            "--quiet",
            "pip",
            "install",
            "--python",
            python,
            "--require-hashes",
            "-r",
            "requirements.lock",
        )
        run("uv", "--quiet", "pip", "install", "--python", python, "--no-deps", ".")
        for path in Path(environment).glob(
            "lib/python*/site-packages/chutes_exporter-*.dist-info/direct_url.json"
        ):
            # It says where this folder is, which is of no use elsewhere.
            path.unlink()
        output = directory / f"chutes-exporter-{version}.cdx.json"
        run("cyclonedx-py", "environment", "--output-reproducible", "--output-file", output, python)


def main(arguments: list[str]) -> None:
    """Write all files of a release to a folder, and its text.

    Each kind of file has a folder of its own: ``python`` has the wheel and the sdist, ``chart`` the
    Helm chart, ``sbom`` the bill of materials, and ``grafana`` the dashboards. ``SHA256SUMS`` has
    the checksums of all files.

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
    parser.add_argument(
        "--to", type=Path, default=ROOT / "dist", help="folder to write to (default: dist)"
    )
    options = parser.parse_args(arguments)
    version = version_of(options.tag)
    text = notes((ROOT / "CHANGELOG.md").read_text(), options.tag, options.repository)
    folder: Path = options.to.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    run("uv", "build", "--quiet", "--out-dir", folder / "python")
    # A registry wants lower case.
    package_chart(
        re.sub(r"^https?://[^/]+", "ghcr.io", options.repository).lower(), folder / "chart"
    )
    bill_of_materials(folder / "sbom", version)
    dashboards(folder / "grafana", version)
    (folder / "notes.md").write_text(text)
    files = sorted(folder.glob("*/chutes*"))
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(sums))
    print(*(path.relative_to(folder) for path in files), sep="\n")  # noqa: T201 - the command's answer


if __name__ == "__main__":
    main(sys.argv[1:])
