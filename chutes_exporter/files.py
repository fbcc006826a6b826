"""Reading the small files that settings name."""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES: Final = 1_000_000


def read_file(path: Path) -> bytes:
    """Return the content of a regular file of at most 1 MB.

    Raises:
        OSError: It cannot be read, is too large, or is no regular file. A pipe or a device may have
            no end.
    """
    # Without this flag, a pipe would wait here for its writer.
    file_io = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    with io.BufferedReader(file_io) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, "it is larger than 1 MB", str(path))
    return content
