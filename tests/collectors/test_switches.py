"""The series of switches. tests/commands/test_advise_switch.py compares them with the command."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from chutes_exporter.collectors import Answers, Miners
from chutes_exporter.collectors.base import Samples
from chutes_exporter.collectors.fleet import FEEDS
from chutes_exporter.collectors.switches import COLLECTOR
from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.definitions import AUDIT_REPORT
from tests.api.reports import INSTANCE, RECORD
from tests.collectors.support import ME, answer
from tests.fleet import test_offers
from tests.support import NOON

if TYPE_CHECKING:
    from chutes_exporter.api.answer import Answer


def a_day_without_instances(read_for: frozenset[str] | None) -> Answer[Any]:
    """Return the 24 reports of a day, read for all miners (None) or only for some."""
    newest = answer(AUDIT_REPORT, {"instance_audit": [INSTANCE], "compute_history": [RECORD]})
    (report,) = newest.value.hours
    day = tuple(
        structs.replace(report, end=NOON - hour * HOUR, instances=[], multipliers=[])
        for hour in range(24)
    )
    return replace(newest, value=replace(newest.value, hours=day, hotkeys=read_for))


# The only sample is the number of switches, which is 0 without an instance.
@pytest.mark.parametrize(
    ("read_for", "count"), [(None, 1), (frozenset({ME}), 1), (frozenset({"other"}), 0)]
)
def test_reports_of_other_miners_do_not_say_that_no_switch_pays(
    read_for: frozenset[str] | None, count: int
) -> None:
    known = {
        FEEDS[name].name: answer(FEEDS[name], body) for name, body in test_offers.ANSWERS.items()
    }
    known[AUDIT_REPORT.name] = a_day_without_instances(read_for)
    out = Samples()
    assert COLLECTOR.run(Answers(known), Miners(frozenset({ME}), "watched", ME), out)
    assert out.count == count
