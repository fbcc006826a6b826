"""scripts/sbom: the bill of materials of the locked packages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import chutes_exporter
from tests.support import ROOT


def write(folder: Path) -> bytes:
    environment = {**os.environ, "VENV": str(Path(sys.prefix).relative_to(ROOT)), "OUTPUT": str(folder)}
    subprocess.run(["scripts/sbom"], cwd=ROOT, env=environment, check=True)
    return (folder / f"chutes-exporter-{chutes_exporter.__version__}.cdx.json").read_bytes()


def test_the_bill_of_materials_lists_the_locked_packages_and_is_reproducible(tmp_path: Path) -> None:
    text = write(tmp_path / "first")
    bill = json.loads(text)
    lock = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([\w.-]+)==(\S+) ", lock, re.MULTILINE))
    listed = {(one["name"].replace("_", "-").lower(), one["version"]) for one in bill["components"]}
    assert listed == locked | {("chutes-exporter", chutes_exporter.__version__)}
    assert write(tmp_path / "second") == text
