"""The messages of the recorded day: its alerts, as Prometheus evaluates them, in a real
Alertmanager with the example of routing.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from grafana.alerts import FIRST
from tests.alertmanager.test_routing import Receivers, alertmanager, post
from tests.day import DAY, LAST
from tests.grafana.answers import whole_day
from tests.prometheus.test_day import ALERTS, minute
from tests.support import served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.day import Firing

CRITICAL_REPEATS: Final = 4 * 60
"""Minutes after which a message about a critical alert comes again."""
QUIET: Final = 0.2
"""Seconds without a message after which all messages of a moment have come."""


@dataclass(frozen=True)
class Message:
    """A message that the chat gets in a minute of the day."""

    at: int
    text: str


def without_waiting(match: re.Match[str]) -> str:
    """Return a time of the routing. What the day changes at the same time is one group."""
    return f"{match[1]}: {'30d' if match[1] == 'repeat_interval' else '20ms'}"


def alert(firing: Firing, text: str, *, ends: datetime) -> dict[str, Any]:
    """Return an alert as Prometheus sends it."""
    summary, _, description = text.partition("\n")
    labels = {
        "alertname": firing.alert,
        "severity": firing.severity,
        "hotkey": firing.hotkey,
        "server": firing.place,
    }
    notes = {"summary": summary, "description": description}
    return {"labels": labels, "annotations": notes, "endsAt": ends.isoformat()}


async def messages_of_day(directory: Path, hotkey: str) -> list[Message]:
    """Return the messages about a miner. Time passes where an alert begins or ends."""
    day, receivers = whole_day(), Receivers()
    alerts = {one: set(minutes) for one, minutes in day.firing.items() if one.hotkey == hotkey}
    sent: list[Message] = []
    before: set[Firing] = set()
    async with served(receivers.app) as url:
        with alertmanager(directory / "alertmanager", url, without_waiting) as address:
            for at in range(0, LAST + 1, day.step):
                now = {one for one, minutes in alerts.items() if at in minutes}
                if now == before:
                    continue
                clock = datetime.now(UTC)
                later = clock + timedelta(days=1)
                changed = [alert(one, day.texts[one][at], ends=later) for one in now]
                changed += [alert(one, "", ends=clock) for one in before - now]
                await post(address, *changed)
                count = -1
                while count < len(receivers.messages):
                    count = len(receivers.messages)
                    await asyncio.sleep(QUIET)
                texts = [one["text"] for one in receivers.messages[len(sent) :]]
                sent += [Message(at, text) for text in texts]
                before = now
    return sent


def repeats(hotkey: str) -> int:
    """Return how many messages about critical alerts come again."""
    minutes: defaultdict[str, set[int]] = defaultdict(set)
    for one, found in whole_day().firing.items():
        if one.hotkey == hotkey and one.severity == "critical":
            minutes[one.alert].update(found)
    return sum(len(found) * whole_day().step // CRITICAL_REPEATS for found in minutes.values())


@pytest.mark.parametrize(("miner", "most"), [("troubled", 25), ("healthy", 2)])
def test_a_day_has_few_messages_and_each_event_one_in_time_that_says_what_to_do_first(
    miner: str, most: int, tmp_path: Path
) -> None:
    hotkey = DAY.miners[miner].address
    # It runs an exporter of its own, in a loop of its own.
    whole_day()
    messages = asyncio.run(messages_of_day(tmp_path, hotkey))
    assert len(messages) + repeats(hotkey) <= most, [f"{one.at}: {one.text}" for one in messages]
    for event in ALERTS if miner == "troubled" else ():
        name, _ = event.alert.split()
        in_time = [one for one in messages if minute(event.since) <= one.at <= minute(event.by)]
        told = [one.text for one in in_time if all(said in one.text for said in event.says)]
        assert len(told) == 1, (event, in_time)
        for command in re.findall(
            r"chutes-(?:exporter|miner) (?:query |tee )?[a-z-]+", FIRST[name]
        ):
            assert command in told[0], (event, told)
