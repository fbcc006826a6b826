"""Rules about GPUs and what they earn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import Chute

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


def units_per_gpu_second(chute: Chute, model: str, rates: Mapping[str, float]) -> float | None:
    """Return the compute units that a second of one GPU of a model earns in an instance of a chute
    that starts now.

    The service sends the value of the cheapest GPU that the chute allows. A more expensive GPU
    earns more, in proportion to its hourly rate. The result is None if the chute does not allow the
    model, or if it is unknown.

    ``rates`` are in USD per hour, by model. A chute that allows only one model needs none.
    """
    selector, multiplier = chute.node_selector, chute.effective_compute_multiplier
    if selector is None or not selector.gpu_count or selector.gpu_count < 0 or multiplier is None:
        # Something is unknown, or the number of GPUs makes no sense.
        return None
    models = set(selector.supported_gpus or ())
    on_cheapest_gpu = multiplier / selector.gpu_count
    if models == {model}:
        return on_cheapest_gpu
    all_rates_are_known = models <= rates.keys()
    if model not in models or not all_rates_are_known:
        return None
    cheapest_rate = min(rates[allowed_model] for allowed_model in models)
    return on_cheapest_gpu * rates[model] / cheapest_rate


def later_multiplier(chute: Chute, model: str, rates: Mapping[str, float]) -> float | None:
    """Return the compute units per second that an instance of a chute on a model earns for certain
    from 8 hours after its activation on.

    It is without the factors of a bounty and of the urgency, which the service sets anew at each
    run of its autoscaler: while they last, they come on top.

    ``rates`` are in USD per hour, by model. None is unknown.
    """
    if chute.public is None or chute.compute_multiplier_factors is None:
        return None
    if chute.public:
        # The service moves a public instance to the pay of the cheapest GPU that its chute allows.
        multiplier = chute.effective_compute_multiplier
    else:
        # A private instance keeps the pay of the GPU on which it runs.
        multiplier = _first_multiplier(chute, model, rates)
    for name in ("bounty_boost", "urgency_boost"):
        boost = chute.compute_multiplier_factors.get(name, 1.0)
        # A factor of 0 or below makes no sense.
        if multiplier is None or boost is None or boost <= 0:
            return None
        multiplier /= boost
    return multiplier


def urgency_boost(chute: Chute) -> float | None:
    """Return the factor by which the service raises the pay of a chute while it wants more
    instances, 1 without one. None is unknown.
    """
    if chute.compute_multiplier_factors is None:
        return None
    return chute.compute_multiplier_factors.get("urgency_boost", 1.0)


def _first_multiplier(chute: Chute, model: str, rates: Mapping[str, float]) -> float | None:
    """Return the compute units per second of an instance of a chute that starts on a model now,
    None if they are unknown.
    """
    per_gpu = units_per_gpu_second(chute, model, rates)
    selector = chute.node_selector
    if per_gpu is None or selector is None or selector.gpu_count is None:
        return None
    return per_gpu * selector.gpu_count
