"""Makes records for the tests of the rules."""

from __future__ import annotations

from typing import Any

import msgspec

from chutes_exporter.api.records import decode_hook

NOON = "2026-11-24T12:00:00+00:00"


def read(kind: type[Any], **fields: Any) -> Any:
    """Return a record as an answer with these fields makes it."""
    return msgspec.convert(fields, kind, dec_hook=decode_hook)
