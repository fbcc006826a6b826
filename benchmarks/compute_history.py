"""What ``backfill --compute-history`` costs on the largest world: ``python -m benchmarks.compute_history``."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chutes_exporter.simulator.world import TEST_SEED, Size, World

_LARGEST = ("2000", "215", "100", "0")


def main() -> None:
    """Run the command against a simulated API, both in processes of their own, and print what it took."""
    address = World(start=0, size=Size(miners=1, active_miners=0)).miners[0].hotkey
    upstream = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.upstream", *_LARGEST], stdout=subprocess.PIPE, text=True
    )
    try:
        assert upstream.stdout is not None
        url = upstream.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as directory:
            output = Path(directory, "history.om")
            command = ("chutes-exporter", "backfill", "--compute-history", "--api.url", url, "--output", str(output))
            started = time.monotonic()
            subprocess.run(
                [Path(sys.executable).parent / command[0], *command[1:]],
                env={**os.environ, "MINER_SEED": TEST_SEED, "MINER_SS58": address},
                check=True,
            )
            taken = time.monotonic() - started
            print(f"{taken:.1f} s, {output.stat().st_size / 1e6:.1f} MB written")
    finally:
        upstream.kill()
    # Of the processes that have been waited for, the command is the only one.
    print(f"peak of resident memory: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
