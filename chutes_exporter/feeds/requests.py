"""Requests feeds and audit reports: chooses the key and the parameters of a request."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msgspec import structs

from chutes_exporter.api.client import Answer
from chutes_exporter.api.endpoints import AUDIT, AUDIT_REPORT
from chutes_exporter.api.errors import (
    ApiError,
    NotFoundError,
    NotRegisteredError,
    SignatureRefusedError,
    UnavailableError,
    UndecodableError,
)
from chutes_exporter.chain.node import CHAIN
from chutes_exporter.duration import HOUR
from chutes_exporter.rules.losses import end_reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.api.endpoints import Endpoint
    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.api.records import AuditEntry, AuditReport, ComputeRecord
    from chutes_exporter.chain.node import Node
    from chutes_exporter.feeds.feed import Feed


class Requests:
    """Requests feeds, each with the key that it needs."""

    def __init__(self, client: ChutesClient, node: Node | None = None) -> None:
        self._client = client
        self._node = node
        self._keys: dict[str, Hotkey] = {}
        self._platform_keys: list[Hotkey] = []
        self._report: Answer[AuditReport] | None = None

    def use(self, keys: Iterable[Hotkey]) -> None:
        """Set the keys that sign requests."""
        self._keys = {key.address: key for key in keys}
        self._platform_keys = list(self._keys.values())

    async def fetch(self, feed: Feed[Any]) -> Answer[Any]:
        """Request a feed, or raise ApiError.

        A 404 is an answer for a feed that has a value for it.
        """
        endpoint, hotkey = feed.endpoint, feed.hotkey
        try:
            if endpoint is CHAIN and self._node is not None:
                return await self._node.read()
            if endpoint is AUDIT_REPORT:
                self._report = await newest_report(self._client, self._report)
                return self._report
            if endpoint.signed:
                return await self._fetch_signed(
                    endpoint, [self._keys[hotkey]] if hotkey else self._platform_keys
                )
            of_miner = {"hotkey": hotkey} if endpoint.scope == "miner" else {}
            params = {} if "{hotkey}" in endpoint.path else of_miner
            if feed.per_chute:
                params = {"per_chute": "true"} | ({"miner_hotkey": hotkey} if hotkey else {})
            return await self._client.fetch(endpoint, params=params, path=of_miner)
        except NotFoundError:
            if feed.value_if_404 is None:
                raise
            return Answer(feed.value_if_404)

    async def _fetch_signed(self, endpoint: Endpoint[Any], keys: list[Hotkey]) -> Answer[Any]:
        """Sign with the first key. If the API refuses it, try the next one."""
        *others, last = keys
        for key in others:
            try:
                return await self._client.fetch(endpoint, key=key)
            except (NotRegisteredError, SignatureRefusedError):
                # Move the key to the end, for the next requests. Sorting does not add a key that
                # was removed meanwhile.
                self._platform_keys.sort(key=lambda other: other is key)
        return await self._client.fetch(endpoint, key=last)


async def list_reports(client: ChutesClient) -> list[AuditEntry]:
    """Return the validator's last report of each full hour, the newest hour first.

    Without any, it raises ApiError.
    """
    answer = await client.fetch(AUDIT)
    now = answer.received_at - (client.clock_offset or 0.0)
    by_hour: dict[float, AuditEntry] = {}
    # The list also has miners' own reports, in no order. A report that ends in the future cannot be
    # right.
    of_validator = (entry for entry in answer.value if entry.path.startswith("audit/validator/"))
    for entry in sorted(of_validator, key=lambda entry: entry.created_at or 0.0):
        start, end = entry.start_time, entry.end_time
        if start is not None and end is not None and end - start == HOUR and end <= now:
            by_hour[end] = entry
    if not by_hour:
        raise UndecodableError(
            "the list has no report of the validator", status=200, advice="Try again in an hour."
        )
    return [by_hour[end] for end in sorted(by_hour, reverse=True)]


async def newest_report(
    client: ChutesClient, last: Answer[AuditReport] | None = None
) -> Answer[AuditReport]:
    """Return the newest audit report. It is ``last`` if that is still the newest.

    The report keeps only the multipliers of instances that their miners deleted, and has those of
    the report before. If such an instance was the last active one of its chute, only the older
    report has its real multiplier.
    """
    entry, *older = await list_reports(client)
    if last is not None and last.value.end == entry.end_time:
        return last
    try:
        answer = await client.fetch(AUDIT_REPORT, params={"path": entry.path})
    except NotFoundError as error:
        # The endpoint exists, because the list names this report.
        raise UnavailableError(str(error), status=error.status) from None
    report = answer.value
    earlier: list[ComputeRecord] = []
    deleted = {
        instance.instance_id
        for instance in report.instances
        if end_reason(instance.deletion_reason) == "miner"
    }
    if deleted and older:
        # Without the older report, some losses are not known.
        with suppress(ApiError):
            earlier = (
                await client.fetch(AUDIT_REPORT, params={"path": older[0].path})
            ).value.multipliers
    value = structs.replace(
        report,
        end=entry.end_time,
        multipliers=[record for record in report.multipliers if record.instance_id in deleted],
        earlier_multipliers=[record for record in earlier if record.instance_id in deleted],
    )
    return replace(answer, value=value)
