"""The command ``serve``: the exporter behind its HTTP server, until it is told to stop."""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

from chutes_exporter import __version__
from chutes_exporter.exporter import Exporter
from chutes_exporter.web.app import make_app
from chutes_exporter.web.server import bound_address, open_socket, serving, until_told_to_stop

if TYPE_CHECKING:
    from chutes_exporter.config import Address, Settings

_log = structlog.get_logger("serve")


async def start_exporter(stack: AsyncExitStack, settings: Settings) -> list[Address]:
    """Start an exporter that lives as long as the stack.

    Returns:
        Where it listens in fact.

    Raises:
        ConfigError: An address cannot be listened on.
    """
    sockets = [stack.enter_context(open_socket(address)) for address in settings.listen]
    exporter = await stack.enter_async_context(Exporter(settings))
    await stack.enter_async_context(serving(make_app(exporter), sockets, hurry=exporter.feeds.hurry))
    if not exporter.collectors:
        _log.warning("no collector is on: the page has nothing but the exporter's own metrics")
    addresses = [bound_address(socket) for socket in sockets]
    for warning in settings.warnings:
        _log.warning(warning)
    _log.info(
        "listening",
        version=__version__,
        addresses=" ".join(map(str, addresses)),
        api=settings.api_url,
        watched=" ".join(sorted(settings.watched)) or "whole subnet",
        keys=len(settings.keys),
        collectors=" ".join(collector.name for collector in exporter.collectors),
    )
    return addresses


async def run_serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with AsyncExitStack() as stack:
        await start_exporter(stack, settings)
        # What is there from the start stays: the collector of garbage, which stops everything while it looks, need
        # not look at it again.
        gc.freeze()
        await until_told_to_stop()
