"""Rules about GPUs: their models and their ids."""

from __future__ import annotations

from typing import Final
from uuid import UUID

_MODELS = (
    "3090 4090 5090 a4000 a4000_ada a5000 a6000 a6000_ada pro_6000 l4 a10 a40 l40 l40s "
    "a100_40gb a100_40gb_sxm a100 a100_sxm h100 h100_nvl h100_sxm h800 h20 h200 mi300x b200 b300"
)
GPU_MODELS: Final = tuple(_MODELS.split())
"""GPU models by the short names that the API uses: /nodes/supported in November 2026."""


def nvidia_uuid(gpu_id: str) -> str | None:
    """Return a GPU's id in the format of NVIDIA's tools (``GPU-8-4-4-4-12``), None if it is not
    such an id.
    """
    try:
        return f"GPU-{UUID(gpu_id.removeprefix('GPU-'))}"
    except ValueError:
        return None
