"""The files of rules."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

RULES = ROOT / "prometheus" / "rules"
FILES: Final = sorted(RULES.glob("*.yml"))
GROUPS: Final[list[dict[str, Any]]] = [
    group for path in FILES for group in yaml.safe_load(path.read_text())["groups"]
]
ALERTS: Final[list[dict[str, Any]]] = [
    rule for group in GROUPS for rule in group["rules"] if "alert" in rule
]
"""Rules of alerts. Several can share a name, with other severities."""
EVALUATION_ORDER: Final = sorted(
    (group["name"] for group in GROUPS),
    key=lambda name: (name == "chutes-alerts-recordings", not name.endswith("-recordings")),
)
"""Groups of recordings come before the alerts that read them. Those that read alerts come last."""


def fast_rules(directory: Path) -> list[Path]:
    """Write the rules with their times shortened: windows of 8 to 30 minutes become seconds."""
    written = []
    for source in FILES:
        rules = yaml.safe_load(source.read_text())
        for group in rules["groups"]:
            group["interval"] = "1s"
            for rule in group["rules"]:
                # Windows become as many seconds as they have minutes.
                rule["expr"] = re.sub(r"\b([89]|[123]\d)m\b", r"\1s", rule["expr"])
                if "alert" in rule:
                    rule |= {"for": "2s", "keep_firing_for": "1s"}
        path = directory / f"fast-{source.name}"
        path.write_text(json.dumps(rules))
        written.append(path)
    return written
