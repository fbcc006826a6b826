"""The signing miner's servers: names, addresses, versions."""

from __future__ import annotations

from chutes_exporter.api.records import Server
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table
from chutes_exporter.feeds.definitions import SERVERS

SERVER = Table[Server](
    SERVERS,
    key="server_id",
    chutes_server_info=Info(
        "The server's name and address. Neither is necessarily unique.",
        {"name": "name", "ip": "ip", "tee": "is_tee", "version": "version"},
    ),
    chutes_server_created_timestamp_seconds=Row("When the server was added.", "created_at"),
    chutes_server_updated_timestamp_seconds=Row(
        "When the server's registration last changed. It does not show whether the server is "
        "alive. Absent before the first change.",
        "updated_at",
    ),
)

COLLECTOR = Collector(
    "servers", "the miner's servers: names, addresses, versions, times", (SERVER,)
)
