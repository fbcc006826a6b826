from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from grafana.worlds import World
from tests.grafana.display import GRAFANAS, Seen, see
from tests.support import ROOT, unmeasured

if TYPE_CHECKING:
    from pathlib import Path

    from tests.grafana.scenes import Answers


def ask_in(kind: World, directory: Path) -> Answers:
    """Return the answers in a world, which a process of its own simulates.

    With a process each, several worlds are simulated at a time. The directory does not exist yet.
    """
    directory.mkdir()
    code = (
        "import sys; from tests.grafana.scenes import write_answers as write; write(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, kind.name, str(directory)]
    subprocess.run(command, cwd=ROOT, env=unmeasured(os.environ), check=True)
    answers: Answers = pickle.loads((directory / "answers.pickle").read_bytes())  # noqa: S301 - this test wrote it
    return answers


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[World, Answers]:
    """Answers of a real Prometheus to every query in every world."""
    directory = tmp_path_factory.mktemp("worlds")
    # Two at a time: each has a simulator, an exporter and a Prometheus that mostly wait for each
    # other.
    with ThreadPoolExecutor(2) as pool:
        in_order = pool.map(ask_in, World, [directory / kind.name for kind in World])
        return dict(zip(World, in_order, strict=True))


@pytest.fixture(scope="session", params=GRAFANAS)
def grafana(request: pytest.FixtureRequest) -> str:
    """The Grafana whose code is run."""
    return str(request.param)


@pytest.fixture(scope="session")
def seen(answers: dict[World, Answers], grafana: str) -> dict[World, Seen]:
    """The contents of every panel in every world."""
    return {kind: see(grafana, found) for kind, found in answers.items()}
