"""Which events of the recorded day raise which alerts, what these say, and when they end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import pytest

from tests.day import DAY, LAST, Evaluated, Firing, evaluate, scraped_day
from tests.grafana.answers import whole_day


@dataclass(frozen=True)
class Raised:
    """An alert about `troubled` that an event of the day raises.

    Attributes:
        since: The event. The alert must not fire before it.
        by: When it fires at the latest. The day is scraped every 10 or 20 minutes.
        alert: Its name and severity.
        place: The server or the chute, empty if it is about none.
        says: What its text says when it fires at the latest.
        over: The event that ends it, None if it goes on at the end of the day.
        ended: When it has ended at the latest.
    """

    since: str
    by: str
    alert: str
    place: str
    says: tuple[str, ...]
    over: str | None = None
    ended: str = ""


IDLE: Final = "ChutesGpusIdle warning"
MUCH_IDLE: Final = "ChutesGpusIdle critical"
VAIN: Final = "ChutesStartInVain warning"
FAILS: Final = "ChutesChuteFails warning"
IN: Final = "ChutesServerInMaintenance warning"
PENDING: Final = "ChutesServerMaintenancePending warning"
QWEN: Final = "Qwen/Qwen3-32B-TEE"
GEMMA: Final = "unsloth/gemma-3-27b-it-TEE"
FINETUNE: Final = "northwind/finetune-nightly"
BATCH: Final = "northwind/eval-batch"
LORA: Final = "oakridge/triage-lora"
VOICE: Final = "sparrow/voice-clone"

ALERTS: Final = (
    # At the start, two servers have an idle GPU each. Together they are worth 3 % of the pay.
    Raised("00:00", "01:10", IDLE, "loki", ("loki: 1 pro_6000 idle",), "03:03", "03:35"),
    Raised("00:00", "01:10", IDLE, "munin", ("munin: 1 pro_6000 idle",), "03:03", "03:35"),
    # Two jobs. The service refuses the activation of their private chutes. One job is done at
    # 05:12. The instance of the other one ends at 06:00, without the job.
    Raised("03:03", "03:25", VAIN, FINETUNE, ("munin: ",), "05:12", "05:45"),
    Raised("04:06", "04:25", VAIN, BATCH, ("balder: ",), "06:00", "06:25"),
    # The GPU of the job that was done is idle.
    Raised("05:12", "06:35", IDLE, "loki", ("loki: 1 pro_6000 idle",), "09:30", "09:50"),
    Raised("05:12", "06:35", IDLE, "munin", ("munin: 1 pro_6000 idle",), "09:30", "09:50"),
    # Three of hugin's instances are the last of their chutes. It is booted at 08:37.
    Raised(
        *("07:00", "07:10", PENDING, "hugin"),
        ("hugin: do not reboot it", "until 10:0"),
        *("08:12", "08:25"),
    ),
    Raised("08:12", "08:30", IN, "hugin", ("boot it with version 1.5.0",), "08:37", "08:45"),
    # Another miner is faster, so that the chute has its instances. The service purges it at 12:38.
    # The times of texts are 5 minutes later.
    Raised("09:30", "10:00", VAIN, LORA, ("munin: ",), "12:38", "13:05"),
    # The service refuses to boot idun at 10:48.
    Raised("10:00", "10:10", IN, "idun", ("idun: in maintenance, and cannot come back",)),
    # A private chute on munin is scaled down. At 15:03, the crash loop begins there.
    Raised("11:24", "12:45", IDLE, "loki", ("loki: 1 pro_6000 idle",), "16:06", "16:35"),
    Raised("11:24", "12:45", IDLE, "munin", ("munin: 1 pro_6000 idle",), "15:03", "16:15"),
    Raised("13:12", "13:55", IDLE, "tyr", ("tyr: 2 h200 idle, worth",)),
    # The crash loop on munin, and an instance of the same chute on hugin, where probes fail. By the
    # truth of 16:00, they lost 2371 and 1055 compute units.
    Raised("15:13", "16:10", FAILS, QWEN, ("failed 3 times", "suspect the server", "munin (")),
    # Probes fail on hugin. That loki's owner deletes instances of the same chute does not count.
    Raised(
        "16:22", "19:10", FAILS, GEMMA, ("failed 3 times", "suspect the server"), "22:55", "23:45"
    ),
    # The window opens. The last server that waits begins its maintenance at 23:12.
    Raised(
        *("06:00", "06:25", "ChutesUpgradeWindow warning", ""),
        ("upgrade window: 3", "hugin: request.", "chutes-miner tee start-maintenance"),
        *("23:12", "23:40"),
    ),
    Raised("19:00", "19:40", "ChutesGpusUnverified warning", "hel", ("hel: 2 4090 unverified",)),
    # balder dies at 21:00, and its three instances end from 21:03 on. Others start there in vain.
    Raised("21:00", "21:50", IDLE, "balder", ("balder: 4 pro_6000 idle",)),
    # With those of tyr, they are worth 18 % of the pay. In the last 10 minutes, no start can win
    # tyr's bounty any more, so they are worth less.
    Raised(
        *("21:00", "21:50", MUCH_IDLE, ""),
        ("balder: 4 pro_6000 idle", "tyr: 2 h200 idle", "could earn 18."),
        *("24:00", "24:05"),
    ),
    Raised("22:30", "23:05", VAIN, VOICE, ("munin: ",)),
    Raised(
        *("23:12", "23:30", PENDING, "freya"),
        ("freya: do not reboot it", "until 02:2"),
    ),
    Raised("21:00", "23:50", "ChutesScoreHeadingDown warning", "", ("heading for 3.",)),
)


def minute(time: str) -> int:
    """Return the minute of a time such as 08:12."""
    hours, minutes = time.split(":")
    return 60 * int(hours) + int(minutes)


@pytest.fixture(scope="module", params=["often", pytest.param("always", marks=pytest.mark.soak)])
def day(request: pytest.FixtureRequest) -> Evaluated:
    """The day with the rules, scraped at each new answer or in each minute."""
    if request.param == "often":
        return whole_day()
    pages = asyncio.run(scraped_day(range(LAST + 1)))
    texts_at = {minute(raised.by) for raised in ALERTS}
    return evaluate(pages, step=1, texts_at=texts_at)


def episodes(minutes: list[int], step: int) -> list[tuple[int, int]]:
    """Return the first minute of each time that an alert fires, and the first one after it, of
    those that have an evaluation.
    """
    found = []
    first = last = minutes[0]
    for at in minutes[1:]:
        if at - last > step:
            found.append((first, last + step))
            first = at
        last = at
    return [*found, (first, last + step)]


def complaints(raised: Raised, first: int, after: int, text: str) -> list[str]:
    """Return what is wrong with an alert that fires from a minute on, until another one."""
    by = minute(raised.by)
    wrong = []
    if not minute(raised.since) <= first <= by:
        wrong.append(f"it begins at {first // 60:02}:{first % 60:02}")
    over, ended = (raised.over, raised.ended) if raised.over else ("24:01", "24:05")
    begin, end = minute(over), minute(ended)
    if not begin <= after <= end:
        wrong.append(f"it ends at {after // 60:02}:{after % 60:02}")
    wrong += [f"{said!r} is not in {text!r}" for said in raised.says if said not in text]
    return wrong


def test_each_event_of_the_day_raises_its_alerts_and_nothing_else_fires(day: Evaluated) -> None:
    expected: dict[Firing, list[Raised]] = defaultdict(list)
    for raised in ALERTS:
        name, severity = raised.alert.split()
        troubled = DAY.miners["troubled"].address
        expected[Firing(name, severity, troubled, raised.place)].append(raised)
    # Nothing fires for the healthy miner, 11 of whose instances end with their score.
    assert day.firing.keys() == expected.keys()
    wrong = []
    for firing, alerts in expected.items():
        found = episodes(day.firing[firing], day.step)
        assert len(found) == len(alerts), (firing, found)
        for (first, after), raised in zip(found, alerts, strict=True):
            said = complaints(raised, first, after, day.text(firing, minute(raised.by)))
            wrong += [f"{raised.since} {raised.alert} {raised.place}: {what}" for what in said]
    assert wrong == [], "\n".join(wrong)
