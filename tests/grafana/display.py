"""Render panels from answers with Grafana's own code in Node."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, Final

from grafana.__main__ import DASHBOARDS
from grafana.boards import BOARDS
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.grafana.answers import Answers

Seen = list[tuple[str, dict[str, Any], Any]]
"""The board and the panel, with what it shows: `texts` of tiles, `columns` and `rows` of tables,
`series` of lines.
"""


def committed(uid: str) -> dict[str, Any]:
    """Return a dashboard as it is committed."""
    dashboard: dict[str, Any] = json.loads((DASHBOARDS / f"{uid}.json").read_text())
    return dashboard


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the panels of a dashboard, those in collapsed rows included, without the rows."""
    found = []
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            found += panel.get("panels", ())
        else:
            found.append(panel)
    return found


PANELS: Final = [(board.uid, panel) for board in BOARDS for panel in panels(committed(board.uid))]
"""Every panel of the committed dashboards, with its board."""


def see(moments: Mapping[str, Answers]) -> dict[str, Seen]:
    """Show every panel of every committed dashboard at some moments."""
    requests = [
        {"panel": panel, "answers": answers.of_panel(panel, uid)}
        for answers in moments.values()
        for uid, panel in PANELS
    ]
    run = subprocess.run(
        ["node", "display.mjs"],
        cwd=ROOT / "grafana" / "display",
        input=json.dumps(requests).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    contents = iter(json.loads(run.stdout))
    return {name: [(*panel, next(contents)) for panel in PANELS] for name in moments}
