"""The boards, a module each, in the order in which they lead to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana.boards.exporter import EXPORTER
from grafana.boards.fleet import FLEET
from grafana.boards.instances import INSTANCES
from grafana.boards.market import MARKET
from grafana.boards.overview import OVERVIEW
from grafana.boards.subnet import SUBNET

if TYPE_CHECKING:
    from grafana.dashboard import Board

BOARDS: Final[tuple[Board, ...]] = (OVERVIEW, FLEET, INSTANCES, MARKET, SUBNET, EXPORTER)
