"""GPU models of the simulated platform, with the values of the service's table."""

from __future__ import annotations

from dataclasses import dataclass

DEAREST_RATE = 4.5
"""Hourly rate of the most expensive model in USD. The multiplier of a GPU is its rate divided by this."""


@dataclass(frozen=True)
class Model:
    """A GPU model.

    Attributes:
        name: The driver's name.
        memory: In bytes.
        hourly_rate: In USD.
        processors: Streaming multiprocessors.
        clock_rate: In kHz.
        max_threads: Threads per processor.
        major: First number of the compute capability.
        minor: Second number of the compute capability.
        sxm: Whether it is on an SXM board.
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
        """Compute units per second."""
        return self.hourly_rate / DEAREST_RATE


MODELS = {
    "4090": Model("NVIDIA GeForce RTX 4090", 24 * 2**30, 0.4, 128, 2520e3, 1536, 8, 9, sxm=False),
    "5090": Model("NVIDIA GeForce RTX 5090", 32 * 2**30, 0.7, 170, 2407e3, 1536, 12, 0, sxm=False),
    "a100": Model("NVIDIA A100 80GB PCIe", 80 * 2**30, 1.2, 108, 1410e3, 2048, 8, 0, sxm=False),
    "l40s": Model("NVIDIA L40S", 48 * 2**30, 0.85, 142, 2520e3, 1536, 8, 9, sxm=False),
    "h100_sxm": Model("NVIDIA H100 80GB HBM3", 80 * 2**30, 2.35, 132, 1980e3, 2048, 9, 0, sxm=True),
    "h200": Model("NVIDIA H200", 141 * 2**30, 2.75, 132, 1980e3, 2048, 9, 0, sxm=True),
    "b200": Model("NVIDIA B200", 180 * 2**30, 4.5, 148, 1965e3, 2048, 10, 0, sxm=True),
    "pro_6000": Model(
        "NVIDIA RTX PRO 6000 Blackwell Server Edition", 96 * 2**30, 1.8, 188, 2617e3, 1024, 12, 0, sxm=False
    ),
}
"""The models by the API's short name."""
