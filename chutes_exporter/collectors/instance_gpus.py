"""The servers and GPUs on which each watched miner's instances run. It needs no key."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Row, Table
from chutes_exporter.feeds.table import MINER_GPUS

if TYPE_CHECKING:
    from chutes_exporter.api.records import HeldGpu


class _Place(NamedTuple):
    hotkey: str
    instance_id: str
    server_id: str | None
    gpu: str
    gpus: int


def _places(gpus: list[HeldGpu]) -> list[_Place]:
    counts = Counter((gpu.hotkey, gpu.instance_id, gpu.server_id, gpu.gpu) for gpu in gpus)
    return [_Place(*place, number) for place, number in counts.items()]


INSTANCE = Table[_Place](
    MINER_GPUS,
    key="instance_id server_id gpu",
    records=_places,
    miner="hotkey",
    chutes_instance_gpus=Row(
        "GPUs that the instance holds on the server, in any state. An active instance without any GPU lost them, "
        "because its GPU or server was deleted. The service will purge it.",
        lambda place: place.gpus,
        whole=True,
    ),
)

COLLECTOR = Collector("instance_gpus", "the server and the GPUs of each instance", (INSTANCE,), default="few")
