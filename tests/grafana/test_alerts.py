"""What boards say about alerts: what to do first."""

from __future__ import annotations

import re
from collections import defaultdict

from grafana import alerts
from tests.prometheus.rule_files import ALERTS


def test_each_alert_has_a_first_step_that_its_own_text_names_too() -> None:
    # Rules with other severities of an alert have texts of their own.
    texts: dict[str, str] = defaultdict(str)
    for rule in ALERTS:
        # The watchdog always fires, and reports no problem.
        if rule["alert"] != "Watchdog":
            texts[rule["alert"]] += rule["annotations"]["description"]
    assert alerts.FIRST_STEP_OF.keys() == texts.keys()
    for name, step in alerts.FIRST_STEP_OF.items():
        # Such as "chutes-exporter query nodes" or "chutes-exporter advise".
        for command in re.findall(r"chutes-exporter (?:query )?[a-z-]+(?: --[a-z]+)?", step):
            assert command in texts[name], (name, command)
