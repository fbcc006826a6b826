"""What boards and documented queries show of the recorded day: every answer, and numbers that must
agree.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import pytest

from tests.day import EVERY, day_of_both
from tests.grafana.answers import MOMENTS, answers, golden, rounded
from tests.pages import parse_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tests.grafana.answers import Answers
    from tests.pages import Labels

BOARDS: Final = ("chutes-overview", "chutes-subnet")


@pytest.mark.parametrize("moment", MOMENTS)
def test_every_query_of_every_board_answers_as_before(moment: str) -> None:
    found, expected = rounded(answers())[moment], golden()[moment]
    changed = {
        name: (expected.get(name), found.get(name))
        for name in found.keys() | expected.keys()
        if not is_same(found.get(name), expected.get(name))
    }
    assert changed == {}, "look at each change, and run `make generate`"


def is_same(found: list[list[object]] | None, expected: list[list[object]] | None) -> bool:
    """Return whether two answers are the same. Other Prometheus servers add in another order."""
    if found is None or expected is None or len(found) != len(expected):
        return False
    for (labels, value), (other_labels, other) in zip(found, expected, strict=True):
        is_close = math.isclose(float(str(value)), float(str(other)), rel_tol=1e-5)
        if labels != other_labels or not (is_close or value == other == "nan"):
            return False
    return True


def test_every_query_has_an_answer_at_some_moment() -> None:
    silent = {
        name
        for name in answers()["sick"].of
        if not any(found.of.get(name) for found in answers().values())
    }
    assert sorted(silent ^ SILENT) == []


SILENT: Final = {
    # The seats of both miners are immune. tests/prometheus/test_verdicts.py lets one be in danger.
    *(f"{board}: Is the seat safe? {letter}" for board in BOARDS for letter in "ABC"),
    *(f"chutes-subnet: Neighbours in line for the seat {letter}" for letter in "ACDE"),
    # The window is open.
    "chutes-fleet: Upgrade window A",
    "chutes-exporter: Exporters C",
    # No GPU has an error, and no answer is doubted.
    "chutes-fleet: GPUs B",
    "chutes-exporter: All feeds C",
    # Dollars are known wherever units are: tests/prometheus/test_verdicts.py.
    *(f"chutes-{board}: Not earned, next 24 h B" for board in ("fleet", "market", "overview")),
}
"""What the day cannot show, and what tests it."""


class Shown:
    """What boards show at a moment. What is unknown is not a number."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.hotkey = answers.moment.hotkey
        self.page = parse_page(day_of_both()[answers.moment.minute // EVERY * EVERY])

    def __call__(self, place: str, **labels: str) -> float:
        """Return the sum of the values that have these labels."""
        return _sum(self._answers.of[f"chutes-{place}"], labels)

    def count(self, place: str, value: float | None = None) -> int:
        """Return the number of rows, or of those with this value."""
        values = self._answers.of[f"chutes-{place}"].values()
        return sum(value in (None, one) for one in values)

    def exported(self, metric: str, **labels: str) -> float:
        """Return the sum of a metric of the miner on the exporter's page."""
        found = {key: value for (name, key), value in self.page.items() if name == metric}
        return _sum(found, {"hotkey": self.hotkey, **labels})


def _sum(values: Mapping[Labels, float], labels: Mapping[str, str]) -> float:
    found = [value for key, value in values.items() if labels.items() <= key]
    return sum(found) if found else math.nan


SAME: Final[dict[str, Callable[[Shown], Iterable[float]]]] = {
    "all GPUs": lambda s: (
        s("overview: GPUs by state A"),
        s.count("fleet: GPUs A"),
        s("market: Supply A"),
        s.exported("chutes_fleet_gpus"),
    ),
    "idle GPUs": lambda s: (
        s("fleet: GPUs now B", state="idle"),
        s("overview: GPUs by state A", state="idle"),
        s.exported("chutes_fleet_gpus", state="idle"),
    ),
    "unverified GPUs": lambda s: (
        s("fleet: GPUs now B", state="unverified"),
        s("overview: GPUs by state A", state="unverified"),
    ),
    "GPUs that do not earn": lambda s: (
        s("overview: Miners C"),
        s("fleet: Servers I"),
        s("fleet: GPUs now B"),
        s("market: Supply B"),
    ),
    "GPUs that earn": lambda s: (
        s("overview: GPUs by state A", state="earning"),
        s("fleet: Servers H"),
        s("fleet: GPUs now A", state="earning"),
        s.exported("chutes_fleet_gpus", state="earning"),
    ),
    "servers": lambda s: (
        s.count("fleet: Servers A"),
        s.count("fleet: Servers H"),
        s.count("fleet: Servers over time A"),
    ),
    "dollars of idle GPUs": lambda s: (
        s("overview: Not earned, next 24 h A"),
        s("fleet: Not earned, next 24 h A"),
        s("market: Not earned, next 24 h A"),
        s.count("market: Best move E") and s("market: Best move E"),
    ),
    "dollars": lambda s: (
        s("overview: Earned per day A"),
        s("subnet: Neighbours in rank G", hotkey=s.hotkey),
    ),
    "lost dollars": lambda s: (s("overview: Lost in 24 h A"), s("instances: Lost in 24 h A")),
    "lost units": lambda s: (
        s("instances: Lost in 24 h B"),
        s.exported("chutes_miner_window_lost_compute_units", window="1d"),
    ),
    "score": lambda s: (
        s("overview: Score share and heading A"),
        s("overview: Miners A"),
        s("subnet: Score in 24 h A"),
        s("subnet: Leaderboard B", hotkey=s.hotkey),
        s("subnet: Neighbours in rank D", hotkey=s.hotkey),
        s("subnet: Score share of the neighbours in rank B"),
    ),
    "heading": lambda s: (
        s("overview: Score share and heading B"),
        s("overview: Miners B"),
        s("subnet: Neighbours in rank F", hotkey=s.hotkey),
    ),
    "rank": lambda s: (
        s("subnet: Neighbours in rank A", hotkey=s.hotkey),
        s("subnet: Leaderboard A", hotkey=s.hotkey),
    ),
    "score in 24 hours": lambda s: (
        s("subnet: Score in 24 h B"),
        s("subnet: Neighbours in rank E", hotkey=s.hotkey),
        0.57 * s("overview: Miners A") + 0.43 * s("overview: Miners B"),
    ),
    "units of the day": lambda s: (
        s("overview: Earnings by chute A"),
        s("overview: Earnings by chute B"),
        s("subnet: Leaderboard D", hotkey=s.hotkey),
    ),
    "the seat": lambda s: (s("overview: Is the seat safe? D"), s("subnet: Is the seat safe? D")),
    "instances": lambda s: (
        s.count("instances: All instances A"),
        s.count("instances: All instances B"),
        s.count("instances: All instances F"),
        s.exported("chutes_fleet_instances"),
    ),
    "starting instances": lambda s: (
        s("instances: Starting A"),
        s.exported("chutes_fleet_instances", state="starting"),
    ),
    "instances with a purge": lambda s: (
        s.count("instances: All instances D"),
        s("instances: Starting A"),
    ),
    "GPUs of instances": lambda s: (
        s("instances: All instances B"),
        s("fleet: GPUs now A"),
    ),
}
"""Numbers that must be the same, by what they say."""


@pytest.mark.parametrize("moment", ["pending", "crash loop", "sick", "healthy", "pair"])
def test_boards_agree_with_each_other_and_with_the_page(moment: str) -> None:
    shown = Shown(answers()[moment])
    wrong = {}
    for what, numbers in SAME.items():
        found = [float(number) for number in numbers(shown)]
        is_unknown = moment != "sick" and all(map(math.isnan, found))
        if not is_unknown and found != [pytest.approx(found[0], rel=1e-4)] * len(found):
            wrong[what] = found
    assert wrong == {}


def test_without_its_key_nothing_about_the_fleet_of_a_miner_is_shown() -> None:
    keyless = answers()["keyless"].of
    shown = {name for name, answer in keyless.items() if name.startswith("chutes-fleet") and answer}
    assert shown == {"chutes-fleet: Verdict A"}
    for place in ("overview: Score share and heading A", "overview: Earned per day A"):
        name = f"chutes-{place}"
        assert [*keyless[name].values()] == [
            pytest.approx(value, rel=1e-3) for value in answers()["healthy"].of[name].values()
        ]
