"""Requests the validator's audit reports: the list of them, then one of its paths."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chutes_exporter.api import endpoints as e
from chutes_exporter.api.errors import UndecodableError
from chutes_exporter.api.meaning import validator_reports
from chutes_exporter.api.records import AuditInstance, AuditReport

if TYPE_CHECKING:
    from chutes_exporter.api.client import Answer, ChutesClient
    from chutes_exporter.api.records import AuditEntry


async def list_reports(client: ChutesClient) -> list[AuditEntry]:
    """Return the validator's reports, the newest first.

    Raises:
        ApiError: The API does not answer, or lists none.
    """
    answer = await client.fetch(e.AUDIT)
    reports = validator_reports(answer.value, answer.received_at - (client.clock_offset or 0.0))
    if not reports:
        raise UndecodableError("the list has no report of the validator", status=200, advice="Try again in an hour.")
    return reports


async def newest_report(client: ChutesClient) -> Answer[AuditReport]:
    """Return the newest report, with the instances of all miners that were activated or ended.

    Raises:
        ApiError: The API does not answer, or lists no report.
    """
    entry, *_ = await list_reports(client)

    def keep(record: Any) -> bool:
        return isinstance(record, AuditInstance) and (record.activated_at, record.deleted_at) != (None, None)

    answer = await client.fetch(e.AUDIT_REPORT, params={"path": entry.path}, keep=keep)
    return replace(answer, value=AuditReport(entry.end_time or 0.0, answer.value))
