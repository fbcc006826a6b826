"""The GPU models of the simulated platform, with the figures of the service's own table."""

from __future__ import annotations

from dataclasses import dataclass

DEAREST_RATE = 4.5
"""Hourly rate of the dearest model in USD: the multiplier of a GPU is its own rate over this one."""


@dataclass(frozen=True)
class Model:
    """A model of GPU.

    Attributes:
        name: As the driver has it.
        memory: In bytes.
        hourly_rate: In USD.
        processors: Streaming multiprocessors.
        clock_rate: In kHz.
        max_threads: Threads per processor.
        major: Compute capability.
        minor: Likewise.
        sxm: Whether it sits on an SXM board.
    """

    name: str
    memory: int
    hourly_rate: float
    processors: int
    clock_rate: float
    max_threads: int
    major: int
    minor: int
    sxm: bool

    @property
    def multiplier(self) -> float:
        """What a second on it is worth in compute units."""
        return self.hourly_rate / DEAREST_RATE


MODELS = {
    "4090": Model("NVIDIA GeForce RTX 4090", 24 * 2**30, 0.4, 128, 2520e3, 1536, 8, 9, sxm=False),
    "5090": Model("NVIDIA GeForce RTX 5090", 32 * 2**30, 0.7, 170, 2407e3, 1536, 12, 0, sxm=False),
    "a100": Model("NVIDIA A100 80GB PCIe", 80 * 2**30, 1.2, 108, 1410e3, 2048, 8, 0, sxm=False),
    "l40s": Model("NVIDIA L40S", 48 * 2**30, 0.85, 142, 2520e3, 1536, 8, 9, sxm=False),
    "h100_sxm": Model("NVIDIA H100 80GB HBM3", 80 * 2**30, 2.35, 132, 1980e3, 2048, 9, 0, sxm=True),
    "h200": Model("NVIDIA H200", 141 * 2**30, 2.75, 132, 1980e3, 2048, 9, 0, sxm=True),
    "b200": Model("NVIDIA B200", 180 * 2**30, 4.5, 148, 1965e3, 2048, 10, 0, sxm=True),
}
"""By the short name that the API uses."""


@dataclass(frozen=True)
class Registration:
    """What the service knows of a GPU from a time on.

    Attributes:
        since: From when on.
        created_at: When the GPU was registered.
        verified_at: When it passed the check; None while it may not be used.
        error: Text of the last failed check. A verified GPU can have one and may be used all the same.
    """

    since: float
    created_at: float
    verified_at: float | None
    error: str | None
