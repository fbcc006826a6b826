"""Requests feeds: chooses the key and the parameters of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chutes_exporter.api.client import Answer
from chutes_exporter.api.endpoints import AUDIT_REPORT
from chutes_exporter.api.errors import NotFoundError, NotRegisteredError, SignatureRefusedError
from chutes_exporter.chain.node import CHAIN
from chutes_exporter.feeds.reports import ReportReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.api.endpoints import Endpoint
    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.chain.node import Node
    from chutes_exporter.feeds.feed import Feed


class Requests:
    """Requests feeds, each with the key that it needs.

    Attributes:
        reports: Reads the audit reports.
    """

    def __init__(
        self,
        client: ChutesClient,
        node: Node | None = None,
    ) -> None:
        self._client = client
        self._node = node
        self._keys: dict[str, Hotkey] = {}
        self._platform_keys: list[Hotkey] = []
        self.reports = ReportReader(client)

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
                return await self.reports.read()
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
