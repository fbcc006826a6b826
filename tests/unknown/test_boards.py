"""What is not known is absent in rules and on boards: with one thing taken away of the recorded
day, no board shows another number, and no alert fires that is not about what is missing.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.day import LAST, Evaluated, evaluate
from tests.grafana.answers import QUERIES, filled_in, targets_of
from tests.grafana.display import PANELS
from tests.support import HOTKEY
from tests.unknown.taken import CASES
from tests.unknown.test_page import WHOLE, pages_of_cases

if TYPE_CHECKING:
    from pathlib import Path

    from tests.day import Answer
    from tests.support import Labels, Page
    from tests.unknown.taken import Case

ABOUT_GAPS: Final = {"ChutesFeedFailing", "ChutesDataIncomplete"}
INSTEAD: Final = {
    place
    for uid, panel in PANELS
    for place, target in targets_of(panel, uid).items()
    if re.search("docs/money.md|at least|hours known", target["legendFormat"])
}
"""Numbers that are shown instead of an unknown one, and say so."""
LESS_EXACT: Final = {
    # Nobody may boot a server of which it is not known whether something earns there.
    "chutes-fleet: Maintenance A",
    # A slow start may also be in vain.
    "chutes-instances: All instances A",
    "chutes-instances: Instances that need a decision E",
}
"""States with a lower number, which is less exact and also true."""
ASKED: Final = {
    place: filled_in(query, [HOTKEY])
    for place, query in QUERIES.items()
    if not place.startswith(("chutes-exporter", "variable"))
}
"""The queries of all boards but that of the exporter, which shows the feeds themselves."""


def evaluated(page: Page, directory: Path) -> Evaluated:
    """Return what Prometheus makes of an hour with the whole page, and then of this one."""
    pages = {LAST - 115: written(pages_of_cases()[WHOLE]), LAST - 55: written(page)}
    asked = dict.fromkeys(ASKED.values(), (LAST,))
    return evaluate(directory, pages, step=10, queries=asked)


def written(page: Page) -> str:
    """Return a page as it is served."""
    lines = []
    for (name, labels), value in page.items():
        pairs = ",".join(f"{label}={json.dumps(text)}" for label, text in labels)
        lines.append(f"{name}{{{pairs}}} {value!r}" if pairs else f"{name} {value!r}")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """What is shown if everything is known."""
    return evaluated(pages_of_cases()[WHOLE], tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "case",
    [
        # A record that is missing, or a doubt, takes less away, and takes as long.
        pytest.param(case, marks=() if case.loss == "missing" else pytest.mark.soak)
        for case in CASES
    ],
    ids=str,
)
def test_no_board_shows_another_number_and_no_alert_starts(
    whole: Evaluated, case: Case, tmp_path: Path
) -> None:
    found = evaluated(pages_of_cases()[str(case)], tmp_path)
    started = {alert for alert, minutes in found.firing.items() if LAST in minutes}
    started -= {alert for alert, minutes in whole.firing.items() if LAST in minutes}
    assert {alert.alert for alert in started} <= ABOUT_GAPS
    wrong = []
    for place, query in ASKED.items():
        before, after = whole.answers[query][LAST], found.answers[query][LAST]
        wrong += [
            f"{place}: {value} instead of {before.get(labels)}: {dict(labels)}"
            for labels, value in after.items()
            if not is_right(place, labels, value, before)
        ]
    assert wrong == [], "\n".join(wrong)


def is_right(place: str, labels: Labels, value: float, before: Answer) -> bool:
    """Return whether a value is also shown if everything is known, or says that it is not known."""
    # Not a number colours a text. The verdict counts the alerts about what is missing, too.
    if math.isnan(value) or place in INSTEAD or place == "chutes-overview: Verdict C":
        return True
    if labels not in before:
        return dict(labels).get("alertname") in ABOUT_GAPS
    is_less_exact = place in LESS_EXACT and value < before[labels]
    return is_less_exact or math.isclose(before[labels], value, rel_tol=1e-3)
