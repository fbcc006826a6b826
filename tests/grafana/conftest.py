from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import pytest

from grafana.worlds import World
from tests.grafana.display import Seen, see
from tests.grafana.scenes import Answers, answers_in

if TYPE_CHECKING:
    from pathlib import Path


def ask_in(kind: World, directory: Path) -> Answers:
    directory.mkdir()
    return asyncio.run(answers_in(kind, directory))


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[World, Answers]:
    """Answers of a real Prometheus to every query in every world."""
    directory = tmp_path_factory.mktemp("worlds")
    # Two at a time: each has a simulator, an exporter and a Prometheus that mostly wait for each other.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        asked = {kind: pool.submit(ask_in, kind, directory / kind.name) for kind in World}
        return {kind: one.result() for kind, one in asked.items()}


@pytest.fixture(scope="session")
def seen(answers: dict[World, Answers]) -> dict[World, Seen]:
    """The contents of every panel in every world."""
    return {kind: see(found) for kind, found in answers.items()}
