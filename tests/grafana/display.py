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


def _run_node(*arguments: str, text: str = "") -> Any:
    """Run Node with Grafana's code, and return the JSON that it prints."""
    run = subprocess.run(
        ["node", *arguments],
        cwd=ROOT / "grafana" / "display",
        input=text.encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(run.stdout)


def run_script(script: str, given: Any) -> Any:
    """Return the result of a function in JavaScript, which gets Grafana's code and a value."""
    shown = f"JSON.stringify(({script})(grafana, {json.dumps(given)}))"
    program = f"import {{ grafana }} from './grafana.mjs'; console.log({shown});"
    return _run_node("--input-type=module", "--eval", program)


def see(moments: Mapping[str, Answers]) -> dict[str, Seen]:
    """Show every panel of every committed dashboard at some moments."""
    requests = [
        {"panel": panel, "answers": answers.of_panel(panel, uid)}
        for answers in moments.values()
        for uid, panel in PANELS
    ]
    contents = iter(_run_node("display.mjs", text=json.dumps(requests)))
    return {name: [(*panel, next(contents)) for panel in PANELS] for name in moments}
