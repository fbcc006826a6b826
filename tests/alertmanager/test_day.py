"""The messages of the recorded day: its alerts, as Prometheus evaluates them, in a real
Alertmanager with the example of routing.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from grafana.alerts import FIRST_STEP_OF
from tests.alertmanager.test_routing import Receivers, alertmanager, post
from tests.day import DAY, LAST
from tests.exporters import served
from tests.grafana.answers import whole_day
from tests.prometheus.test_day import ALERTS, minute

if TYPE_CHECKING:
    from pathlib import Path

    from tests.day import Firing

QUIET: Final = 0.2
"""Seconds without a message after which all messages of a moment have come."""


def without_waiting(match: re.Match[str]) -> str:
    """Return a time of the routing. What the day changes at the same time is one group."""
    return f"{match[1]}: {'30d' if match[1] == 'repeat_interval' else '20ms'}"


def alert(firing: Firing, text: str, *, ends: datetime) -> dict[str, Any]:
    """Return an alert as Prometheus sends it."""
    summary, _, description = text.partition("\n")
    labels = {**firing._asdict(), "alertname": firing.alert}
    notes = {"summary": summary, "description": description}
    return {"labels": labels, "annotations": notes, "endsAt": ends.isoformat()}


async def messages_of_day(directory: Path, hotkey: str) -> list[tuple[int, str]]:
    """Return the minutes and texts of a miner's messages. Time passes when an alert changes."""
    day, receivers = whole_day(), Receivers()
    alerts = {one: set(minutes) for one, minutes in day.firing.items() if one.hotkey == hotkey}
    sent: list[tuple[int, str]] = []
    before: set[Firing] = set()
    async with served(receivers.app) as url:
        with alertmanager(directory / "alertmanager", url, without_waiting) as address:
            for at in range(0, LAST + 1, day.step):
                now = {one for one, minutes in alerts.items() if at in minutes}
                if now == before:
                    continue
                clock = datetime.now(UTC)
                later = clock + timedelta(days=1)
                changed = [alert(one, day.text(one, at), ends=later) for one in now]
                changed += [alert(one, "", ends=clock) for one in before - now]
                await post(address, *changed)
                count = -1
                while count < len(receivers.messages):
                    count = len(receivers.messages)
                    await asyncio.sleep(QUIET)
                sent += [(at, one["text"]) for one in receivers.messages[len(sent) :]]
                before = now
    return sent


@pytest.mark.soak
@pytest.mark.parametrize(("miner", "most"), [("troubled", 25), ("healthy", 2)])
def test_a_day_has_few_messages_and_each_event_one_in_time_that_says_what_to_do_first(
    miner: str, most: int, tmp_path: Path
) -> None:
    hotkey = DAY.miners[miner].address
    # It runs an exporter of its own, in a loop of its own.
    whole_day()
    messages = asyncio.run(messages_of_day(tmp_path, hotkey))
    assert len(messages) <= most, messages
    # Messages about critical alerts would come again after 4 hours.
    for firing, minutes in whole_day().firing.items():
        assert firing.severity != "critical" or minutes[-1] - minutes[0] < 240
    for event in ALERTS if miner == "troubled" else ():
        name, _ = event.alert.split()
        begin, end = minute(event.since), minute(event.by)
        in_time = [text for at, text in messages if begin <= at <= end]
        about_event = [text for text in in_time if all(said in text for said in event.says)]
        assert len(about_event) == 1, (event, in_time)
        for command in re.findall(
            r"chutes-(?:exporter|miner) (?:query |tee )?[a-z-]+", FIRST_STEP_OF[name]
        ):
            assert command in about_event[0], (event, about_event)
