from __future__ import annotations

import os
from pathlib import Path

import pytest

from chutes_exporter.files import read_file


def test_a_larger_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(OSError, match="larger than 1 MB") as error:
        read_file(path)
    assert error.value.filename == str(path)


def test_what_may_have_no_end_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="it is not a regular file"):
            read_file(path)
