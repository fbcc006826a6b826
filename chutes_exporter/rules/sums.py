"""Sums and products of values that may be unknown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def total(values: Iterable[float | None]) -> float | None:
    """Return the sum, or None if a value is unknown or the sum is too large for a number."""
    try:
        # An unknown value makes the sum NaN.
        result = math.fsum(math.nan if value is None else value for value in values)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def product(*values: float | None) -> float | None:
    """Return the product, or None if a value is unknown or it is too large for a number."""
    # An unknown value makes the product NaN.
    result = math.prod(math.nan if value is None else value for value in values)
    return result if math.isfinite(result) else None
