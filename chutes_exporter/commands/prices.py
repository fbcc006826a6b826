"""Whether the prices of GPUs that the user gave fit the GPUs of the miners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.rules.money import Costs


@dataclass(frozen=True)
class PriceGaps:
    """Prices that are missing or fit nothing.

    Attributes:
        models_without_price: Models of which a known GPU has no price.
        prices_without_gpu: Models and servers with a price of which no GPU is known. None while a
            GPU may be missing, because then it may be theirs.
    """

    models_without_price: list[str]
    prices_without_gpu: list[str] | None

    @classmethod
    def of(
        cls, costs: Costs, gpus: Iterable[tuple[str | None, str | None]], *, are_all: bool
    ) -> Self:
        """Compare prices with the names of servers and the models of their GPUs.

        Without any price, nothing is compared.
        """
        places = set(gpus) if costs else set()
        unpriced = {model for name, model in places if model and costs.of_gpu(name, model) is None}
        unused = None
        if are_all:
            servers, models = {name for name, _ in places}, {model for _, model in places}
            unused = sorted({*costs.by_model} - models) + sorted({*costs.by_server} - servers)
        return cls(sorted(unpriced), unused)

    def __str__(self) -> str:
        """What to correct, empty if nothing."""
        sentences = []
        if self.models_without_price:
            models = ", ".join(self.models_without_price)
            sentences.append(f"Without --gpu.cost, the price of these is not known: {models}.")
        if self.prices_without_gpu:
            names = ", ".join(self.prices_without_gpu)
            sentences.append(f"These prices fit no GPU: {names}.")
        return " ".join(sentences)
