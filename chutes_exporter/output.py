"""The standard streams. A failure to write ends the program with one line and its own exit status."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CANNOT_WRITE, INTERNAL_ERROR, INTERRUPTED, CLOSED_PIPE = 4, 70, 130, 141
"""Exit statuses that are no answer of a command. sysexits.h has the second, and a shell reports the last two for SIGINT
and SIGPIPE."""


class OutputError(Exception):
    """Standard output cannot be written. It is no OSError, because click ends with 1 for some of them.

    Attributes:
        status: The exit status.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to the standard output: {error.strerror}")
        self.status = CLOSED_PIPE if isinstance(error, BrokenPipeError) else CANNOT_WRITE


def _written(count: int | None) -> int:
    """Return the number of written bytes. A full pipe that does not wait has none."""
    if count is None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return count


class StandardOutput(io.FileIO):
    """The descriptor of standard output. Its first failure is an OutputError."""

    _failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write bytes. After a failure, drop them.

        Raises:
            OutputError: The first failure.
        """
        if self._failed:
            # Python writes the buffer again when it ends, and would print a traceback.
            return memoryview(data).nbytes
        try:
            return _written(super().write(data))
        except OSError as error:
            self._failed = True
            raise OutputError(error) from None


class StandardError(io.FileIO):
    """The descriptor of standard error. It drops what cannot be written, because nobody can be told."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write bytes, or drop them."""
        try:
            return _written(super().write(data))
        except OSError:
            return memoryview(data).nbytes


def adopt_standard_streams() -> None:
    """Replace ``sys.stdout`` and ``sys.stderr`` by streams that never raise an OSError or an encoding error."""
    sys.stdout = _stream(sys.__stdout__, StandardOutput, "replace")
    sys.stderr = _stream(sys.__stderr__, StandardError, "backslashreplace")


def _stream(known: TextIO | None, kind: type[io.FileIO], errors: str) -> TextIO:
    # Without a descriptor Python has no stream. A descriptor for reading fails in the same way.
    descriptor = os.open(os.devnull, os.O_RDONLY) if known is None else known.fileno()
    return io.TextIOWrapper(
        io.BufferedWriter(kind(descriptor, "w", closefd=False)),
        encoding="utf-8" if known is None else known.encoding,
        errors=errors,
        line_buffering=True,
    )
