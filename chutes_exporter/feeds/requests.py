"""Requests feeds: chooses the key and the parameters of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chutes_exporter.api.errors import NotRegisteredError, SignatureRefusedError
from chutes_exporter.feeds.definitions import AUDIT_REPORT, CHAIN, STATS, STATS_PER_CHUTE
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.feeds.reports import ReportReader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.chain.node import Node
    from chutes_exporter.feeds.feed import Feed


class Requests:
    """Requests feeds, each with the key that it needs.

    Attributes:
        report_reader: Reads the audit reports.
    """

    def __init__(self, client: ChutesClient, node: Node | None = None) -> None:
        self._client = client
        # The keys that can sign a request, by the hotkey that its answer is about.
        self._keys: dict[str, list[Hotkey]] = {}
        self.report_reader = ReportReader(client)
        # The feeds that take several requests.
        self._readers: dict[Feed[Any], Callable[[], Awaitable[Answer[Any]]]] = {
            AUDIT_REPORT: self.report_reader.read
        }
        if node is not None:
            self._readers[CHAIN] = node.read

    def use(self, keys: Sequence[Hotkey]) -> None:
        """Set the keys that sign requests."""
        self._keys = {key.address: [key] for key in keys}
        # The answer about the platform is the same for each signer.
        self._keys[THE_PLATFORM] = list(keys)

    async def fetch(self, feed: Feed[Any]) -> Answer[Any]:
        """Request a feed from the node of the chain, the reader of the reports or the client.

        It may raise ApiError.
        """
        if feed in self._readers:
            return await self._readers[feed]()
        if feed.name == STATS_PER_CHUTE.name:
            query = {"per_chute": "true", "miner_hotkey": feed.hotkey}
            return await self._client.fetch(STATS, params=query)
        if not feed.signed:
            params = {"hotkey": feed.hotkey} if feed.scope == "miner" else {}
            return await self._client.fetch(feed, params=params)
        # If the API refuses a key, try the next one. There is a key: without one, no signed feed is
        # read.
        keys = self._keys[feed.hotkey]
        *first_keys, last_key = keys
        for key in first_keys:
            try:
                return await self._client.fetch(feed, key=key)
            except (NotRegisteredError, SignatureRefusedError):
                # Move this key to the end, for the next requests: True sorts after False.
                keys.sort(key=lambda one: one is key)
        return await self._client.fetch(feed, key=last_key)
