"""Requests feeds: chooses the key and the parameters, handles 404, and doubts answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from chutes_exporter.api.client import Answer
from chutes_exporter.api.endpoints import stats_params
from chutes_exporter.api.errors import NotFoundError, NotRegisteredError, SignatureRefusedError
from chutes_exporter.feeds import doubt
from chutes_exporter.feeds.feed import MissingEndpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.api.memory import Kept
    from chutes_exporter.feeds.cache import FeedCache
    from chutes_exporter.feeds.feed import Feed, Snapshot

_log = structlog.get_logger("feeds")

_EVIDENCE_WAIT = 0.5


class Requests:
    """Requests feeds, and repeats a request if its answer is doubted.

    Args:
        client: The client.
        tuned: Returns a feed with the configured lifetimes.

    Attributes:
        cache: The cache that sends its requests through this object. It is set after both exist.
    """

    cache: FeedCache

    def __init__(
        self,
        client: ChutesClient,
        *,
        tuned: Callable[[Feed[Any]], Feed[Any]],
    ) -> None:
        self._client = client
        self._tuned = tuned
        self._keys: dict[str, Hotkey] = {}
        self._platform_keys: list[Hotkey] = []

    def use(self, keys: Iterable[Hotkey]) -> None:
        """Set the keys that sign requests."""
        self._keys = {key.address: key for key in keys}
        self._platform_keys = list(self._keys.values())

    async def ask(self, feed: Feed[Any]) -> Answer[Any]:
        """Request a feed. Mark a doubted answer if there is no older good answer.

        Raises:
            ApiError: The API does not answer.
            DoubtedError: The answer is doubted, and there is an older good answer.
            MissingEndpointError: The deployment does not have the endpoint of an optional feed.
        """
        last = self._last_good(feed)
        answer = await self._request(feed)
        doubted = await self._doubt(feed, answer)
        if doubted in doubt.REPEAT_REQUEST:
            # The evidence may be older than the answer. Request it again, too.
            for other in feed.evidence:
                if other.endpoint.scope == "signer":
                    self.cache.expire(other.of(feed.hotkey))
            first, answer = answer, await self._request(feed, answer.kept)
            doubted = await self._doubt(feed, answer)
            if doubted == "shrunk" and doubt.confirms(answer.listed, first.listed):
                doubted = self._check(feed, answer, last, await self._evidence(feed))
        if doubted:
            if last is not None:
                raise doubt.DoubtedError(doubted, feed.ttl)
            answer = replace(answer, doubt=doubted)
        if answer.rejected:
            _log.warning(
                "records left out",
                feed=feed.name,
                rejected=answer.rejected,
                kept=answer.count,
                first_error=answer.first_error,
            )
        return answer

    async def _request(self, feed: Feed[Any], *doubted: Kept | None) -> Answer[Any]:
        endpoint, hotkey = feed.endpoint, feed.hotkey
        replaced = [one for one in (*doubted, self._cached_memory(feed)) if one is not None]
        try:
            if not endpoint.signed:
                params = stats_params(hotkey or None, per_chute=True) if feed.per_chute else None
                path = {"hotkey": hotkey} if endpoint.scope == "miner" else None
                return await self._client.fetch(endpoint, params=params, path=path, replaced=replaced)
            if hotkey:
                return await self._client.fetch(endpoint, key=self._keys[hotkey], replaced=replaced)
            return await self._request_with_any_key(feed, replaced)
        except NotFoundError:
            last = self.cache.peek(feed)
            # An endpoint that has answered lately exists. Then the proxy in front of it fails.
            if feed.optional and last is None:
                raise MissingEndpointError(f"the API has no {endpoint.path} (404)") from None
            if feed.value_if_404 is None:
                raise
            if last is not None and last.answer.count:
                # A miner does not lose its history. The service lost its cache.
                raise doubt.DoubtedError("no_history", feed.ttl) from None
            return Answer.nothing(feed.value_if_404)

    def _cached_memory(self, feed: Feed[Any]) -> Kept | None:
        # Not the answer itself: its maximum age may be over before the request is.
        cached = self.cache.peek(feed)
        return None if cached is None else cached.answer.kept

    async def _request_with_any_key(self, feed: Feed[Any], replaced: Sequence[Kept]) -> Answer[Any]:
        """Request platform-wide data. If the API refuses a key, try the next one."""
        *others, last = self._platform_keys
        for key in others:
            try:
                return await self._client.fetch(feed.endpoint, key=key, replaced=replaced)
            except (NotRegisteredError, SignatureRefusedError):
                # The next request begins with another key. Do not add a key that was removed meanwhile.
                known = self._platform_keys
                self._platform_keys = [one for one in known if one is not key] + [one for one in known if one is key]
        return await self._client.fetch(feed.endpoint, key=last, replaced=replaced)

    def _last_good(self, feed: Feed[Any]) -> Snapshot[Any] | None:
        """Return the cached answer unless it is doubted."""
        last = self.cache.peek(feed)
        return None if last is None or last.answer.doubt is not None else last

    async def _doubt(self, feed: Feed[Any], answer: Answer[Any]) -> doubt.Reason | None:
        """Return a reason to doubt an answer, or None."""
        last = self._last_good(feed)
        shrinks = last is not None and doubt.shrinks(answer.listed, last.answer.listed)
        if shrinks and "shrunk" in feed.doubts:
            return "shrunk"
        return self._check(feed, answer, last, await self._evidence(feed))

    @staticmethod
    def _check(
        feed: Feed[Any], answer: Answer[Any], last: Snapshot[Any] | None, evidence: list[Any]
    ) -> doubt.Reason | None:
        # Rejected records are missing for a known reason.
        if feed.check is None or answer.rejected:
            return None
        return feed.check(answer.value, None if last is None else last.answer.value, *evidence)

    async def _evidence(self, feed: Feed[Any]) -> list[Any]:
        """Return the records of the feeds to compare with, None for unknown ones.

        It waits only briefly. It requests the feeds of the same miner, but not those of the platform.
        """
        snapshots = []
        for one in feed.evidence:
            signer = one.endpoint.scope == "signer"
            other = self._tuned(one.of(feed.hotkey) if signer else one)
            if signer or self.cache.under_way(other):
                reading = await self.cache.read(other, _EVIDENCE_WAIT)
                snapshots.append(reading.snapshot if reading.error is None else None)
            else:
                snapshots.append(self.cache.peek(other))
        return [None if snapshot is None else snapshot.answer.value for snapshot in snapshots]
