"""The signing miner's GPUs, which the API calls nodes: verification, memory, hardware."""

from __future__ import annotations

from msgspec import UNSET

from chutes_exporter.api.records import Node
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table
from chutes_exporter.feeds.definitions import NODES

GPU = Table[Node](
    NODES,
    key="uuid",
    label="gpu_id",
    chutes_gpu_info=Info(
        "What the GPU told about itself when it was added: its name, the version of its CUDA "
        "architecture (major and minor), whether it has SXM and ECC, and where the service "
        "verified it.",
        {
            "name": "name",
            "major": "major",
            "minor": "minor",
            "sxm": "sxm",
            "ecc": "ecc",
            "verification_host": "verification_host",
            "verification_port": "verification_port",
        },
    ),
    chutes_gpu_verified=Row(
        "Whether the GPU is verified (1). Launches on an unverified GPU are refused. A verified "
        "GPU is usable, even if it has an error text from a later check.",
        lambda gpu: None if gpu.verified_at is UNSET else gpu.verified_at is not None,
    ),
    chutes_gpu_verified_timestamp_seconds=Row("When the GPU was verified.", "verified_at"),
    chutes_gpu_verification_error_info=Info(
        "Why the GPU's last verification failed. Only for GPUs with an error. The next "
        "success clears it.",
        {"error": "verification_error"},
        only="verification_error",
    ),
    chutes_gpu_created_timestamp_seconds=Row("When the GPU was added.", "created_at"),
    chutes_gpu_memory_bytes=Row("The GPU's memory.", "memory"),
    chutes_gpu_clock_rate_hertz=Row(
        "The GPU's clock rate.",
        "clock_rate",
        # The service sends kHz.
        convert=lambda kilohertz: kilohertz * 1000,
    ),
    chutes_gpu_processors=Row("The GPU's streaming multiprocessors.", "processors"),
)

COLLECTOR = Collector(
    "nodes", "the miner's GPUs: verification, memory, clock rate, hardware", (GPU,)
)
