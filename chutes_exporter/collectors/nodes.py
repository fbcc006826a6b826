"""The signing miner's GPUs, which the API calls nodes: model, memory, verification."""

from __future__ import annotations

from msgspec import UNSET

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import NODES
from chutes_exporter.rules.gpus import clock_rate_hertz, nvidia_uuid

METRICS = Metrics("GET /miner/nodes/", ("hotkey", "gpu_id"))

INFO = METRICS.declare(
    "chutes_gpu_info",
    "The GPU's model and server. The uuid is the id in NVIDIA's format, for joins with DCGM's metrics.",
    "uuid, server_id, gpu_identifier, name, device_index, verification_host",
    labels=("hotkey", "gpu_id", "server_id", "gpu", "name", "device_index", "verification_host", "uuid"),
)
VERIFIED = METRICS.declare(
    "chutes_gpu_verified",
    "Whether the GPU is verified (1). Launches on an unverified GPU are refused. A verified GPU is usable, even if it "
    "has an error text from a later check.",
    "verified_at",
)
VERIFIED_AT = METRICS.declare(
    "chutes_gpu_verified_timestamp_seconds",
    "When the GPU was verified.",
    "verified_at",
)
ERROR_INFO = METRICS.declare(
    "chutes_gpu_verification_error_info",
    "Why the GPU's last verification failed. Only for GPUs with an error. The next success clears it.",
    "verification_error",
    labels=("hotkey", "gpu_id", "error"),
)
MEMORY = METRICS.declare("chutes_gpu_memory_bytes", "The GPU's memory.", "memory")
CLOCK_RATE = METRICS.declare("chutes_gpu_clock_rate_hertz", "The GPU's clock rate.", "clock_rate (kHz there)")
PROCESSORS = METRICS.declare("chutes_gpu_processors", "The GPU's streaming multiprocessors.", "processors")
CREATED = METRICS.declare("chutes_gpu_created_timestamp_seconds", "When the GPU was added.", "created_at")


def _collect(answers: Answers, scope: Scope, out: Samples) -> None:
    hotkey = scope.hotkey
    for gpu in distinct(answers[NODES], lambda gpu: gpu.uuid, out):
        key = gpu.uuid
        out.add(
            INFO,
            1,
            hotkey,
            key,
            gpu.server_id,
            gpu.gpu_identifier,
            gpu.name,
            gpu.device_index,
            gpu.verification_host,
            nvidia_uuid(key),
        )
        if gpu.verified_at is not UNSET:
            out.add(VERIFIED, gpu.verified_at is not None, hotkey, key)
            out.add(VERIFIED_AT, gpu.verified_at, hotkey, key)
        if gpu.verification_error:
            out.add(ERROR_INFO, 1, hotkey, key, gpu.verification_error)
        out.add(MEMORY, gpu.memory, hotkey, key)
        out.add(CLOCK_RATE, clock_rate_hertz(gpu), hotkey, key)
        out.add(PROCESSORS, gpu.processors, hotkey, key)
        out.add(CREATED, gpu.created_at, hotkey, key)


COLLECTOR = Collector(
    name="nodes",
    summary="the miner's GPUs: model, memory, verification",
    feeds=(NODES,),
    metrics=METRICS,
    collect=_collect,
    cost="8 for each GPU",
)
