from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.debian.package import build

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout."""
    return build(tmp_path_factory.mktemp("package"))
