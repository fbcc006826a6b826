"""scripts/sbom: the bill of materials of the locked packages."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import chutes_exporter
from deploy.release import run_script
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.conftest import Released

NAME = f"chutes-exporter-{chutes_exporter.__version__}.cdx.json"


def test_the_bill_of_materials_lists_the_locked_packages_and_is_the_same_everywhere(
    released: Released, tmp_path: Path
) -> None:
    text = (released.folder / "sbom" / NAME).read_bytes()
    bill = json.loads(text)
    lock = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([\w.-]+)==(\S+) ", lock, re.MULTILINE))
    listed = {(one["name"].replace("_", "-").lower(), one["version"]) for one in bill["components"]}
    assert listed == locked | {("chutes-exporter", chutes_exporter.__version__)}
    assert "file:" not in text.decode()
    run_script("scripts/sbom", tmp_path)
    assert (tmp_path / NAME).read_bytes() == text
