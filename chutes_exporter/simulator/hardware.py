"""GPU models of the simulated platform, with the values of the service's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEAREST_RATE: Final = 4.5
"""Hourly rate of the most expensive model in USD. The multiplier of a GPU is its rate divided by this."""


@dataclass(frozen=True)
class Model:
    """A GPU model: the driver's name, memory in bytes, hourly rate in USD, multiprocessors and clock rate in kHz."""

    name: str
    memory: int
    hourly_rate: float
    processors: int
    clock_rate: float

    @property
    def multiplier(self) -> float:
        """Compute units per second."""
        return self.hourly_rate / DEAREST_RATE


MODELS: Final = {
    "4090": Model("NVIDIA GeForce RTX 4090", 24 * 2**30, 0.4, 128, 2520e3),
    "a100": Model("NVIDIA A100 80GB PCIe", 80 * 2**30, 1.2, 108, 1410e3),
    "l40s": Model("NVIDIA L40S", 48 * 2**30, 0.85, 142, 2520e3),
    "h200": Model("NVIDIA H200", 141 * 2**30, 2.75, 132, 1980e3),
    "b200": Model("NVIDIA B200", 180 * 2**30, 4.5, 148, 1965e3),
    "pro_6000": Model("NVIDIA RTX PRO 6000 Blackwell Server Edition", 96 * 2**30, 1.8, 188, 2617e3),
}
"""The models by the API's short name."""
