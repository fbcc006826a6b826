"""The signing miner's GPUs, which the API calls nodes: model, memory, verification."""

from __future__ import annotations

from chutes_exporter.api.records import Node
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Table
from chutes_exporter.feeds.definitions import NODES

GPU = Table[Node](
    NODES,
    key="uuid",
    label="gpu_id",
    chutes_gpu_verification_error_info=Info(
        "Why the GPU's last verification failed. Only for GPUs with an error. The next "
        "success clears it.",
        {"error": "verification_error"},
        only="verification_error",
    ),
)

COLLECTOR = Collector("nodes", "errors of the verification of the miner's GPUs", (GPU,))
