"""The simple script that a user would write instead of this exporter, for comparison.

It is a custom collector of prometheus_client that requests the same endpoints one by one and parses them with json.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client.core import GaugeMetricFamily

from chutes_exporter.api.endpoints import ENDPOINTS, RELEASE_JOB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chutes_exporter.api.keys import Hotkey


class PlainCollector:
    """Makes a gauge from every number, with all text fields as labels."""

    def __init__(self, url: str, key: Hotkey) -> None:
        self._url = url
        self._key = key
        self.answers: dict[str, list[dict[str, Any]]] = {}

    def fetch(self) -> None:
        """Request one endpoint after another."""
        with httpx.Client(base_url=self._url, timeout=120) as client:
            for endpoint in ENDPOINTS:
                if endpoint is not RELEASE_JOB and "{" not in endpoint.path:
                    headers = self._key.headers(int(time.time())) if endpoint.signed else {}
                    self.answers[endpoint.name] = _records(client.get(endpoint.path, headers=headers).text)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the metrics."""
        for name, records in self.answers.items():
            families: dict[str, GaugeMetricFamily] = {}
            for record in records:
                labels = {key: value for key, value in record.items() if isinstance(value, str) and len(value) < 80}
                for key, value in record.items():
                    if isinstance(value, int | float):
                        family = families.get(key)
                        if family is None:
                            names = tuple(labels)
                            family = families[key] = GaugeMetricFamily(f"plain_{name}_{key}", key, labels=names)
                        family.add_metric(tuple(labels.values())[: len(family._labelnames)], value)  # noqa: SLF001
            yield from families.values()


def _records(text: str) -> list[dict[str, Any]]:
    if text.startswith("data: "):
        return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]
    answer = json.loads(text)
    if isinstance(answer, list):
        return answer
    if "servers" in answer:
        servers: list[dict[str, Any]] = answer["servers"]
        return servers
    if "final_scores" in answer:
        return [{"hotkey": hotkey, "share": share} for hotkey, share in answer["final_scores"].items()]
    return [
        {"window": window, **record}
        for window, part in answer.items()
        for record in (part["instance_stats"] if isinstance(part, dict) else ())
    ]
