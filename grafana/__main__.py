"""Writes the dashboards' JSON."""

from __future__ import annotations

from pathlib import Path

from grafana.boards import BOARDS
from grafana.dashboard import dashboard_json

DASHBOARDS = Path(__file__).parent / "dashboards"

if __name__ == "__main__":
    DASHBOARDS.mkdir(exist_ok=True)
    for board in BOARDS:
        (DASHBOARDS / f"{board.uid}.json").write_text(dashboard_json(board))
