"""``/sd``: HTTP service discovery of the subnet's miners, which are targets of ``/probe``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chutes_exporter.feeds.table import METAGRAPH

if TYPE_CHECKING:
    from chutes_exporter.api.records import MetagraphNode
    from chutes_exporter.collectors import MinersChoice
    from chutes_exporter.page.exporter import Exporter


class UnknownMinersError(Exception):
    """The metagraph is not known. With an error response, Prometheus keeps its current targets."""


async def targets(exporter: Exporter, miners: MinersChoice, timeout: float) -> list[dict[str, Any]]:
    """Return a target group for each miner.

    Args:
        exporter: The exporter.
        miners: ``watched``, ``active`` (also those with an incentive above 0), or ``all``.
        timeout: Maximum seconds to wait for the API.

    Raises:
        UnknownMinersError: The metagraph is not known.
    """
    reading = await exporter.feeds.read(exporter.settings.tuned(METAGRAPH), timeout)
    if reading.snapshot is None:
        raise UnknownMinersError(f"the metagraph is not available yet: {reading.error}")
    nodes: dict[str, MetagraphNode | None] = dict.fromkeys(sorted(exporter.settings.watched))
    for node in reading.snapshot.answer.value:
        if miners == "all" or node.hotkey in nodes or (miners == "active" and node.incentive):
            nodes[node.hotkey] = node
    keys = {key.address for key in exporter.settings.keys}
    return [
        {
            "targets": [hotkey],
            "labels": {
                "__meta_chutes_hotkey": hotkey,
                "__meta_chutes_registered": _boolean(node is not None),
                "__meta_chutes_uid": "" if node is None or node.node_id is None else str(node.node_id),
                "__meta_chutes_coldkey": (node and node.coldkey) or "",
                "__meta_chutes_active": _boolean(node is not None and bool(node.incentive)),
                "__meta_chutes_blacklisted": _boolean(node is not None and bool(node.blacklist_reason)),
                "__meta_chutes_watched": _boolean(hotkey in exporter.settings.watched),
                "__meta_chutes_private": _boolean(hotkey in keys),
            },
        }
        for hotkey, node in nodes.items()
    ]


def _boolean(value: object) -> str:
    return "true" if value else "false"
