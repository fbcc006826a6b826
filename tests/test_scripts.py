"""scripts/: what they leave behind when they are interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_installation_leaves_no_rule_that_forbids_services(tmp_path: Path, number: int) -> None:
    policy, temporary = tmp_path / "policy-rc.d", tmp_path / "temporary"
    temporary.mkdir()
    script = (ROOT / "scripts" / "apt-install").read_text()
    assert script.count("/usr/sbin/policy-rc.d") == 1
    path = tmp_path / "apt-install"
    path.write_text(script.replace("/usr/sbin/policy-rc.d", str(policy)))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("id", "echo 0"), ("apt-get", 'echo "E: Could not get lock" >&2; exit 1')):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    process = subprocess.Popen(
        # nohup, for example, lets the tests ignore SIGHUP, and a shell cannot handle what it ignores from the start.
        ["env", "--default-signal=INT,TERM,HUP", "/bin/sh", str(path), "a-package"],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stderr is not None
            # It waits for the lock.
            assert [process.stderr.readline() for _ in range(2)][-1].startswith("Waiting for another program")
            assert policy.read_text() == "#!/bin/sh\nexit 101\n"
            os.killpg(process.pid, number)
            assert process.wait(timeout=60) == 130
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert not policy.exists()
    assert list(temporary.iterdir()) == []
