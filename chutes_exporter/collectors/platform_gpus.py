"""GPUs of the whole platform by model: in an instance, and idle."""

from __future__ import annotations

from chutes_exporter.api.records import ModelSupply
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Row, Table
from chutes_exporter.feeds.definitions import PLATFORM_GPUS

MODEL = Table[ModelSupply](
    PLATFORM_GPUS,
    key="gpu",
    chutes_platform_gpus=Row(
        "GPUs of the model of all miners: provisioned (in an instance of any state), or idle (in "
        "none, verified or "
        "not).",
        {"provisioned": "provisioned", "idle": "idle"},
        by="state",
    ),
)

COLLECTOR = Collector(
    "platform_gpus", "the platform's GPUs by model, in an instance or idle", (MODEL,)
)
