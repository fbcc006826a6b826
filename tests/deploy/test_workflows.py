"""The workflows of the forge: linted, pinned, and calling only what exists. docs/dev/release.md says what never ran."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT

FOLDER = ROOT / ".github" / "workflows"
BIN = Path(sys.executable).parent
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.iterdir())}
TESTS = WORKFLOWS["tests.yml"]["jobs"]
MATRIX = TESTS["test"]["strategy"]["matrix"]["include"]
ROOT_TARGETS = TESTS["root"]["strategy"]["matrix"]["target"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PLATFORMS = {"linux/amd64": "x86_64-unknown-linux-gnu", "linux/arm64": "aarch64-unknown-linux-gnu"}
"""Platforms of the image, and uv's names of them."""

BAD = """\
on: issues
jobs:
  bad:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@v4
      - run: |
          cat $HOME/${{ github.event.issue.title }}
          cat $HOME
"""


def jobs() -> list[tuple[str, dict[str, Any]]]:
    return [(f"{name}/{key}", job) for name, workflow in WORKFLOWS.items() for key, job in workflow["jobs"].items()]


def steps() -> list[tuple[str, dict[str, Any]]]:
    return [(name, step) for name, job in jobs() for step in job.get("steps", [])]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a linter on the project, with the linters beside it on PATH."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run([*command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_zizmor_finds_nothing() -> None:
    found = run(
        str(BIN / "zizmor"), "--offline", "--no-progress", "--strict-collection", "--persona=auditor", ".github"
    )
    assert found.returncode == 0, found.stdout + found.stderr
    for path in [*FOLDER.iterdir(), ROOT / ".github" / "dependabot.yml"]:
        assert f"completed {path.relative_to(ROOT)}" in found.stderr


def test_actionlint_and_shellcheck_find_nothing() -> None:
    found = run(str(BIN / "actionlint"), *(str(path) for path in FOLDER.iterdir()))
    assert found.returncode == 0, found.stdout


def test_the_linters_see_an_injection_an_open_right_and_an_unquoted_variable(tmp_path: Path) -> None:
    path = tmp_path / ".github" / "workflows" / "bad.yml"
    path.parent.mkdir(parents=True)
    path.write_text(BAD)
    zizmor = run(str(BIN / "zizmor"), "--offline", "--no-progress", "--persona=auditor", str(tmp_path))
    assert zizmor.returncode != 0
    for audit in ("template-injection", "excessive-permissions", "unpinned-uses", "artipacked"):
        assert f"[{audit}]" in zizmor.stdout
    actionlint = run(str(BIN / "actionlint"), str(path))
    assert actionlint.returncode != 0
    assert "SC2086" in actionlint.stdout


@pytest.mark.parametrize(("name", "step"), steps(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_step_has_a_name_and_pins_its_action(name: str, step: dict[str, Any]) -> None:
    assert step["name"], name
    if "uses" in step:
        line = rf"uses: {re.escape(step['uses'])} # v\d+\.\d+\.\d+\n"
        assert re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40}", step["uses"])
        assert re.search(line, (FOLDER / name.partition("/")[0]).read_text())
        if step["uses"].startswith("actions/checkout@"):
            assert step["with"] == {"persist-credentials": False}


def test_an_action_has_one_version_everywhere() -> None:
    used = {step["uses"] for _, step in steps() if "uses" in step}
    assert len({name.partition("@")[0] for name in used}) == len(used)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_job_gets_only_the_rights_that_it_needs_and_a_time_limit(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {}
    for key, job in WORKFLOWS[name]["jobs"].items():
        allowed = {"tests.yml": set(), "release.yml": {"packages", "id-token", "attestations", "contents"}}[name]
        assert {right for right, level in job["permissions"].items() if level == "write"} <= allowed, key
        assert "uses" in job or job["timeout-minutes"] <= 60, key


def test_only_the_job_for_pypi_may_ask_pypi_for_trust_and_no_secret_is_stored() -> None:
    release = WORKFLOWS["release.yml"]["jobs"]
    assert [key for key, job in release.items() if "environment" in job] == ["pypi"]
    assert release["pypi"]["permissions"] == {"id-token": "write"}
    for path in FOLDER.iterdir():
        assert "secrets" not in path.read_text()


def test_the_build_of_a_release_has_no_rights() -> None:
    assert WORKFLOWS["release.yml"]["jobs"]["build"]["permissions"] == {"contents": "read"}


def test_workflows_call_only_targets_and_files_that_exist() -> None:
    called = [found for _, step in steps() for found in re.findall(r"\bmake (\S+)", step.get("run", ""))]
    called = [name for name in called if name != '"$TARGET"'] + [row["target"] for row in MATRIX] + ROOT_TARGETS
    expected = {"test", "soak", "test-newest", "test-containers", "test-deb", "test-readme", "image", "release"}
    assert expected == set(called) <= TARGETS
    for _, job in jobs():
        if "uses" in job:
            assert job["uses"].startswith("$/")
            assert (ROOT / job["uses"].removeprefix("$/")).exists()


def test_the_tests_run_what_the_local_ci_runs() -> None:
    local = set(re.findall(r"\bmake (\S+)", (ROOT / ".ci" / "run").read_text())) - {"test-python"}
    assert {row["target"] for row in MATRIX} | set(ROOT_TARGETS) == local
    pythons = [row["python"] for row in MATRIX if row["target"] == "test"]
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert pythons == [classifiers[0], classifiers[-1]]


def test_scripts_read_a_checkout_that_belongs_to_another_user() -> None:
    # In the containers of the workflows it belongs to the runner, and git refuses such a checkout without the option.
    scripts = "".join(path.read_text() for path in (ROOT / "scripts").iterdir())
    calls = re.findall(r"^[^#\n]*?\bgit (.+)$", scripts, re.MULTILINE)
    assert len(calls) == 2
    assert [call for call in calls if not call.startswith("-c safe.directory='*' ")] == []


def test_a_release_starts_with_the_tag_that_its_files_are_checked_against() -> None:
    # PyYAML reads the key `on` as true.
    assert WORKFLOWS["release.yml"][True] == {"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}}
    (build,) = [step for name, step in steps() if name == "release.yml/build" and "run" in step]
    assert 'make release TAG="$GITHUB_REF_NAME"' in build["run"]


def test_an_upload_to_pypi_comes_after_the_tests_the_image_and_the_chart() -> None:
    release = WORKFLOWS["release.yml"]["jobs"]

    def before(key: str) -> set[str]:
        needs = set(release[key].get("needs", []))
        return needs.union(*(before(need) for need in needs))

    assert before("image") == {"tests", "build"}
    assert before("pypi") == {"tests", "build", "image", "chart"}
    assert before("github") == {"tests", "build", "image", "chart", "pypi"}


def test_the_image_has_an_sbom_and_provenance_for_each_platform() -> None:
    (build,) = [step["with"] for _, step in steps() if step.get("uses", "").startswith("docker/build-push-action@")]
    assert (build["sbom"], build["provenance"]) == (True, "mode=max")
    assert build["platforms"].split(",") == list(PLATFORMS)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_locked_package_has_a_wheel_for_the_platforms_of_the_image(platform: str, tmp_path: Path) -> None:
    (python,) = set(re.findall(r"^FROM python:(3\.\d+)-", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    options = f"--dry-run --only-binary :all: --require-hashes --python-version {python} --target {tmp_path}"
    found = run(
        str(BIN / "uv"), *f"pip install {options} --python-platform {PLATFORMS[platform]}".split(),
        "-r", "requirements.lock",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    locked = re.findall(r"^([\w-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert len(re.findall(r"^ \+ ", found.stderr, re.MULTILINE)) >= len(locked) - 2  # colorama and tzdata: Windows
