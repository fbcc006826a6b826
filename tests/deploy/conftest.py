from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import pytest

import chutes_exporter
from tests.support import ROOT


@dataclass(frozen=True)
class Released:
    """The files that `make release` wrote.

    Attributes:
        folder: The folder of the files.
        printed: The command's output.
    """

    folder: Path
    printed: str


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """The files of a release of this version, whose changelog is ready."""
    # Helm starts threads when it is imported. pytest imports this file before it goes on in a child, without them.
    from deploy import release  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("release") / "dist"
    folder.mkdir()
    (folder / "old").touch()
    version = chutes_exporter.__version__
    changelog = f"# Changelog\n\n## {version} (2026-12-01)\n\nNews.\n"
    read_text = Path.read_text
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(Path, "read_text", lambda path: changelog if path == ROOT / "CHANGELOG.md" else read_text(path))
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        # As in the workflow's container, where the checkout belongs to another user.
        patch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        release.main([f"v{version}", "--repository", "https://github.com/Example/Exporter", "--to", str(folder)])
    return Released(folder, printed.getvalue())
