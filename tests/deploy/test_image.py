"""The Dockerfile: linted, and its steps run for real, as far as that goes without containers."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from tests.support import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKERFILE = ROOT / "Dockerfile"
TEXT = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
BUILD = TEXT.split("\nFROM ")[1]
NOBODY = 65534 if os.geteuid() == 0 else None
"""A user without rights, where this one may run programs as another."""


def test_hadolint_finds_nothing() -> None:
    hadolint = str(Path(sys.executable).parent / "hadolint")
    result = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_only_what_the_image_needs_is_sent_to_its_build() -> None:
    allowed = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = {
        name.removeprefix("./")
        for line in re.findall(r"^COPY (?!--from)(.+)$", BUILD, re.MULTILINE)
        for name in line.split()[:-1]
    }
    assert copied == {
        "requirements.lock",
        "requirements-build.lock",
        "requirements-sbom.lock",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "chutes_exporter",
    }
    for name in copied:
        assert any(Path(name).match(pattern) for pattern in allowed), name


def interpreter() -> Path:
    """Return a Python that a user without rights may run: one in somebody's home is nobody else's."""
    for candidate in (Path(sys.executable).resolve(), Path("/usr/bin/python3")):
        if all(folder.stat().st_mode & stat.S_IXOTH for folder in candidate.parents):
            return candidate
    raise AssertionError("there is no Python that everybody may run")


@pytest.fixture(scope="module", autouse=True)
def _root_is_open() -> Iterator[None]:
    """Let users without rights pass the root directory, which is closed where it was made in a private folder."""
    root = Path("/")
    mode = stat.S_IMODE(root.stat().st_mode)
    if mode & stat.S_IXOTH:
        yield
        return
    root.chmod(mode | stat.S_IXOTH)
    try:
        yield
    finally:
        root.chmod(mode)


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """The output of the build stage under one folder: read-only, and readable by everybody."""
    # Not in pytest's folder, which every run of pytest closes to other users again.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield build(Path(directory))


def build(root: Path) -> Path:
    """Run the steps of the build stage under a folder; returns where the package is installed."""
    source = root / "src"
    source.mkdir()
    for line in BUILD.splitlines():
        if line.startswith("COPY "):
            *names, target = line.split()[1:]
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, source / Path(name).name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, source / (Path(name).name if target == "./" else target))
        elif line.startswith("RUN "):
            command = line.removeprefix("RUN ").replace("/opt/", f"{root}/opt/").replace("/dist", f"{root}/dist")
            command = command.replace("python -m venv", f"{interpreter()} -m venv")
            # Installing is for an environment of its own, as the base image is one.
            command = re.sub(r"\bpython -m pip", f"{root}/base/bin/python -m pip", command)
            if not (root / "base").exists():
                subprocess.run([sys.executable, "-m", "venv", str(root / "base")], check=True)
            subprocess.run(["/bin/sh", "-euc", command], cwd=source, check=True)
    for path in (root / "opt").rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222 | 0o444)
    return root / "opt" / "chutes-exporter"


def test_the_image_has_exactly_the_locked_packages(installed: Path) -> None:
    (packages,) = installed.glob("lib/python3*/site-packages")
    found = {re.sub(r"[-_.]+", "-", path.name.split("-")[0]).lower() for path in packages.glob("*.dist-info")}
    lock = (ROOT / "requirements.lock").read_text()
    requirements = [Requirement(line) for line in re.findall(r"^([\w.-]+==[^\\]+) \\$", lock, re.MULTILINE)]
    version = ".".join(packages.parent.name.removeprefix("python").split(".")[:2])
    here = {"python_version": version, "python_full_version": f"{version}.0"}
    locked = {
        re.sub(r"[-_.]+", "-", one.name).lower()
        for one in requirements
        if one.marker is None or one.marker.evaluate(here)
    }
    assert found == locked | {"chutes-exporter"}
    assert "pip" not in found
    assert not list((installed / "bin").glob("pip*"))


def test_the_bill_of_materials_lists_every_installed_package_with_its_license(installed: Path) -> None:
    bill = json.loads((installed / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    (packages,) = installed.glob("lib/python3*/site-packages")
    found = {path.name.removesuffix(".dist-info") for path in packages.glob("*.dist-info")}
    listed = {f"{one['name'].replace('-', '_')}-{one['version']}".lower() for one in bill["components"]}
    assert {name.lower() for name in found} == listed
    assert [one["name"] for one in bill["components"] if not one.get("licenses")] == []
    assert str(installed) not in json.dumps(bill)


def test_it_serves_as_a_user_without_rights_from_a_read_only_tree(installed: Path, tmp_path: Path) -> None:
    writable = [path for path in installed.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o222]
    assert writable == []
    port = free_port()
    variables = dict(re.findall(r"(\w+)=(\d)", TEXT.split("ENV ")[1].splitlines()[0]))
    environment = {
        **variables,
        "PATH": f"{installed}/bin:/usr/bin:/bin",
        "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS": f"127.0.0.1:{port}",
    }
    assert (variables["PYTHONDONTWRITEBYTECODE"], variables["MALLOC_ARENA_MAX"]) == ("1", "2")
    (check,) = re.findall(r'^HEALTHCHECK .*CMD \["python", "-c", "(.+)"\]$', TEXT, re.MULTILINE)
    health = [f"{installed}/bin/python", "-c", check.replace('\\"', '"')]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [f"{installed}/bin/chutes-exporter", "--api.url=http://127.0.0.1:9"],
            env=environment,
            cwd="/",
            stdout=log,
            stderr=log,
            user=NOBODY,
            group=NOBODY,
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/-/healthy", timeout=2).close()
            except urllib.error.URLError:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.1)
            else:
                break
        subprocess.run(health, env=environment, check=True, user=NOBODY, group=NOBODY)
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert process.returncode in (0, 143), (tmp_path / "log").read_text()
    result = subprocess.run(health, env=environment, check=False, capture_output=True, user=NOBODY, group=NOBODY)
    assert result.returncode != 0
