"""A Prometheus in the past: it gets scrapes at chosen times, and all rules are evaluated at these
times.
"""

from __future__ import annotations

import functools
import json
import struct
from collections import defaultdict
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

import yaml

from tests.support import PATIENCE, Labels, identity, labels_without_name
from tests.support import RULES as DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


def _rules() -> list[dict[str, Any]]:
    """Return the rules of all files in prometheus/rules/, in their order."""
    rules: list[dict[str, Any]] = []
    for path in sorted(DIRECTORY.glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            rules += group["rules"]
    return rules


RULES: Final = _rules()
ALERTS: Final = [rule for rule in RULES if "alert" in rule]
RECORDINGS: Final = [rule for rule in RULES if "record" in rule]
ABOUT_ALERTS: Final = [rule for rule in RECORDINGS if rule["record"].startswith("alert:")]
"""Recordings that read the series of alerts."""
UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""The seconds of each unit of a duration."""
STALE: Final = struct.pack("<Q", 0x7FF0000000000002)
"""Prometheus' marker for the end of a series."""


def seconds(duration: str) -> int:
    """Return the seconds of a duration such as ``90m``."""
    return int(duration[:-1]) * UNITS[duration[-1]]


def _varint(number: int) -> bytes:
    """Return a number as protobuf writes it: 7 bits a byte, with a mark if more bytes follow."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def _field(number: int, content: bytes) -> bytes:
    """Return a field of a protobuf message that has a length: bytes, a text or a message."""
    # The first byte is the number of the field and, in its last 3 bits, 2 for such a field.
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


@functools.lru_cache(10_000)
def _sample_ends(at: float) -> tuple[bytes, bytes]:
    """Return the bytes before and behind the value of a sample in a message of remote write. All
    samples of a time share them.

    A sample is field 2 of a series. It begins with its length, the byte 0x09 and the 8 bytes of the
    value. Then the byte 0x10 and the time in milliseconds follow.
    """
    end = b"\x10" + _varint(round(at * 1000))
    # A sample is shorter than 128 bytes, so that its length is one byte.
    return bytes([2 << 3 | 2, 1 + 8 + len(end), 0x09]), end


def _sample(at: float, value: bytes) -> bytes:
    """Return a sample with a value of 8 bytes, as a series in a message of remote write has it."""
    start, end = _sample_ends(at)
    return start + value + end


def encoded(name: str, labels: Iterable[tuple[str, str]]) -> bytes:
    """Return the identity of a series, as remote write sends it.

    Its labels are fields 1, in the order of the alphabet. Each has its name as field 1, and its
    value as field 2.
    """
    written = b""
    for label, value in sorted({"__name__": name, **dict(labels)}.items()):
        pair = _field(1, label.encode()) + _field(2, value.encode())
        written += _field(1, pair)
    return written


@dataclass
class Alert:
    """An alert that is pending or fires, since a Unix time.

    ``gone`` is the time since which its condition is false.
    """

    since: float
    fires: bool = False
    gone: float | None = None


class Timeline:
    """Writes scrapes and results of rules to a Prometheus.

    Args:
        stores: Addresses of servers that get every sample by Prometheus' remote write, with the
            path. The first one evaluates the expressions.
    """

    def __init__(self, *stores: str) -> None:
        self._stores = [urlsplit(store) for store in stores]
        self._connections = [
            HTTPConnection(store.netloc, timeout=PATIENCE) for store in self._stores
        ]
        # The series that each target or rule had the last time.
        self._written: dict[str, set[bytes]] = defaultdict(set)
        # The encoded series by target and by its text on the page.
        self._encoded: dict[tuple[str, str], bytes] = {}
        # The alerts of each rule in `ALERTS` that are pending or fire.
        self._alerts: list[dict[Labels, Alert]] = [{} for _ in ALERTS]

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    def write(self, at: float, source: str, samples: Mapping[bytes, float]) -> None:
        """Write the samples of a source, which is a target or a rule.

        A series that it had the last time and has no longer becomes stale.
        """
        values = dict.fromkeys(self._written[source] - samples.keys(), STALE)
        for series, number in samples.items():
            values[series] = struct.pack("<d", number)
        self._written[source] = set(samples)
        if not values:
            return
        self.send({series: [(at, value)] for series, value in values.items()})

    def send(self, series: Mapping[bytes, Iterable[tuple[float, bytes]]]) -> None:
        """Send samples: the time and the encoded value of each, in the order of time."""
        message = b""
        for identity_of_series, samples in series.items():
            written = b"".join(_sample(at, value) for at, value in samples)
            message += _field(1, identity_of_series + written)
        # Snappy allows data that is not compressed: its length, and the byte 0xfc before the length
        # less 1 in 4 bytes.
        body = _varint(len(message)) + b"\xfc" + struct.pack("<I", len(message) - 1) + message
        for store, connection in zip(self._stores, self._connections, strict=True):
            connection.request("POST", store.path, body, {"Content-Encoding": "snappy"})
            response = connection.getresponse()
            text = response.read()
            assert response.status < 300, text

    def scrape(self, at: float, job: str, instance: str, page: str) -> None:
        """Write the page of a target, or that it is down if the page is empty."""
        target = {"job": job, "instance": instance}
        samples = {
            encoded("up", target.items()): float(bool(page)),
            encoded("scrape_duration_seconds", target.items()): 0.05,
        }
        for line in page.split("\n"):
            if not line or line[0] == "#":
                continue
            written, _, value = line.rpartition(" ")
            # A page has the same series each time, so that each is parsed once.
            if (instance, written) not in self._encoded:
                name, labels = identity(written)
                self._encoded[instance, written] = encoded(name, [*labels, *target.items()])
            samples[self._encoded[instance, written]] = float(value)
        self.write(at, instance, samples)

    def evaluate(self, at: float) -> None:
        """Evaluate all rules, each after those that it reads."""
        self.record([rule for rule in RECORDINGS if rule not in ABOUT_ALERTS], at)
        samples: dict[bytes, float] = {}
        for rule, alerts in zip(ALERTS, self._alerts, strict=True):
            true_for = self._query(rule["expr"], at).keys()
            move_alerts(rule, alerts, true_for, at)
            samples |= alert_samples(rule, alerts)
        self.write(at, "alerts", samples)
        self.record(ABOUT_ALERTS, at)

    def record(self, rules: Iterable[Mapping[str, Any]], at: float) -> None:
        """Write the results of recordings.

        Rules that record under one name are neighbours. They are written together, because writing
        one of them makes the series stale that it does not have.
        """
        for name, rules_of_name in groupby(rules, key=lambda rule: rule["record"]):
            result: dict[Labels, float] = {}
            for rule in rules_of_name:
                result |= self._query(rule["expr"], at)
            samples = {encoded(name, labels): value for labels, value in result.items()}
            self.write(at, name, samples)

    def _query(self, expression: str, at: float) -> dict[Labels, float]:
        """Return the result of a query by the labels of its series.

        If it is a number instead of series, it is returned without labels.
        """
        connection = self._connections[0]
        connection.request("GET", f"/api/v1/query?{urlencode({'query': expression, 'time': at})}")
        data = json.load(connection.getresponse())["data"]
        if data["resultType"] != "vector":
            return {frozenset(): float(data["result"][1])}
        return {
            labels_without_name(row["metric"]): float(row["value"][1]) for row in data["result"]
        }


def move_alerts(
    rule: Mapping[str, Any], alerts: dict[Labels, Alert], true_for: Collection[Labels], at: float
) -> None:
    """Change the alerts of a rule as Prometheus does at an evaluation: they begin, fire or end.

    ``true_for`` are the labels for which the condition of the rule is true at that time.
    """
    pending_for = seconds(rule.get("for", "0s"))
    keep_firing_for = seconds(rule.get("keep_firing_for", "0s"))
    for labels in true_for:
        alert = alerts.setdefault(labels, Alert(at))
        alert.gone = None
        if at - alert.since >= pending_for:
            alert.fires = True
    for labels in alerts.keys() - set(true_for):
        alert = alerts[labels]
        if alert.gone is None:
            alert.gone = at
        # A pending alert ends at once.
        if not alert.fires or at - alert.gone >= keep_firing_for:
            del alerts[labels]


def alert_samples(rule: Mapping[str, Any], alerts: dict[Labels, Alert]) -> dict[bytes, float]:
    """Return the samples of the two series that Prometheus has for each alert of a rule."""
    samples = {}
    for labels, alert in alerts.items():
        all_labels = dict(labels) | rule["labels"] | {"alertname": rule["alert"]}
        state = "firing" if alert.fires else "pending"
        samples[encoded("ALERTS", (all_labels | {"alertstate": state}).items())] = 1.0
        samples[encoded("ALERTS_FOR_STATE", all_labels.items())] = alert.since
    return samples
