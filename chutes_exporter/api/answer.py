"""Answers of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """A decoded answer of an endpoint.

    Attributes:
        count: Number of records that could be read.
        rejected: Number of records that could not be read and were left out.
        first_error: Why the first of these could not be read, or empty.
        status: HTTP status of the response. Only an answer that means an empty list has another
            one than 200.
        doubt: Reason to think that the answer is incomplete, or None. The client never sets it.
        received_at: Unix time of the API at which the answer was complete.
        seconds: Duration of the request.
    """

    value: T
    count: int = 0
    rejected: int = 0
    first_error: str = ""
    received_at: float = 0.0
    seconds: float = 0.0
    status: int = 200
    doubt: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every record could be read and nothing suggests that some are missing."""
        return not self.rejected and self.doubt is None

    @property
    def listed(self) -> int:
        """Number of records, including the rejected ones."""
        return self.count + self.rejected
