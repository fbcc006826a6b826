"""Ends every process that the tests started, however pytest ends.

pytest goes on in a child process. The parent adopts each process that loses its own parent, so that no descendant
escapes it. After pytest it ends what is left, and says which test left it.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SI_KERNEL = 0x80
_INTERRUPTS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_SECONDS_TO_FINISH = 60.0
"""How long pytest may take to tear down after an interrupt."""
_SECONDS_TO_VANISH = 5.0
"""How long processes that end on their own, such as a browser's helpers, may outlive pytest."""


def continue_in_child() -> None:
    """Return in a child process; the parent never returns and ends with the child's exit status.

    The status is 1 where the child ends with 0 and leaves processes behind.
    """
    prctl = ctypes.CDLL(None).prctl
    sys.stdout.flush()
    sys.stderr.flush()
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_INTERRUPTS, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        # Where the parent is killed, fixtures still clean up.
        prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # A shell ignores it for a command that it starts in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return
    status, interrupted = _wait_for(child)
    left = [] if interrupted else _left_behind()
    for line in left:
        os.write(2, f"left behind: {line}\n".encode())
    _end_descendants()
    os._exit(status or (1 if left else 0))


def _wait_for(child: int) -> tuple[int, bool]:
    """Wait for pytest; returns its exit status, and whether it was interrupted."""
    kill_at = float("inf")
    while True:
        patience = min(kill_at - time.monotonic(), 3600.0)
        received = signal.sigtimedwait({*_INTERRUPTS, signal.SIGCHLD}, max(patience, 0.0))
        if received is None:
            if time.monotonic() >= kill_at:
                os.kill(child, signal.SIGKILL)
        elif received.si_signo != signal.SIGCHLD:
            # A terminal interrupts the child itself.
            if received.si_code != _SI_KERNEL:
                os.kill(child, signal.SIGINT)
            kill_at = time.monotonic() + _SECONDS_TO_FINISH
        for pid, status in _ended():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code, kill_at < float("inf")


def _ended() -> list[tuple[int, int]]:
    """Return process ids and wait statuses of the children that have ended."""
    ended = []
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(found)
    except ChildProcessError:
        pass
    return ended


def _children() -> list[int]:
    """Return the process ids of this process's children."""
    me = os.getpid()
    return list(map(int, Path(f"/proc/{me}/task/{me}/children").read_text().split()))


def _left_behind() -> list[str]:
    """Give processes time to end; returns a line about each child that has not."""
    deadline = time.monotonic() + _SECONDS_TO_VANISH
    while _children() and time.monotonic() < deadline:
        signal.sigtimedwait({signal.SIGCHLD}, 0.1)
        _ended()
    return [_describe(pid) for pid in _children()]


def _describe(pid: int) -> str:
    """Return a process's command and the test that started it."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    found = re.search(rb"PYTEST_CURRENT_TEST=([^\0]*)", Path(f"/proc/{pid}/environ").read_bytes())
    return f"{command}, started by {found[1].decode(errors='replace') if found else 'an unknown test'}"


def _end_descendants() -> None:
    """Kill children until there are none; the children of each become this process's own."""
    while children := _children():
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)
