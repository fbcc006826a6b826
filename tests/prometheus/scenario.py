"""Scenarios: what happens to a miner, and what the rules must make of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.prometheus.history import DAY, HOTKEY, History
from tests.prometheus.rule_files import ALERTS
from tests.promtool import FIRING, run_promtool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Alert = str
"""A name and a severity, with a space between them."""


@dataclass(eq=False)
class Scenario(History):
    """The history of a miner, and what all rules must make of it.

    Alerts that are not expected must never fire, the Watchdog excepted.
    """

    _queries: list[dict[str, Any]] = field(default_factory=list, init=False)
    _texts: list[dict[str, Any]] = field(default_factory=list, init=False)
    _ever: set[Alert] = field(default_factory=set, init=False)

    def expect_alerts(
        self, firing: Mapping[int, Iterable[Alert]], between: Iterable[Alert] = ()
    ) -> Self:
        """Expect alerts.

        Args:
            firing: All alerts that fire at a minute.
            between: More alerts, which fire at some other minute.
        """
        self._ever.update(between, *firing.values())
        for minute, alerts in firing.items():
            self._expect_exactly(alerts, FIRING, minute)
        return self

    def _expect_exactly(self, alerts: Iterable[Alert], found: str, minute: int) -> None:
        """Expect these kinds of alerts in a query. How many there are of a kind does not matter."""
        kinds = {}
        for alert in alerts:
            name, severity = alert.split()
            kinds[f'{{alertname="{name}",severity="{severity}"}}'] = 1
        self.expect_values(f"group by (alertname, severity) ({found})", {minute: kinds})

    def expect_text(
        self, alert: Alert, *, at: int, summary: str, description: str = "", **labels: str
    ) -> Self:
        """Expect the texts that a reader gets.

        Args:
            alert: The alert.
            at: When it fires.
            summary: Its summary.
            description: Its description, if more than the hotkey varies in it.
            labels: Its labels but the hotkey.
        """
        name, severity = alert.split()
        [rule] = (
            rule for rule in ALERTS if alert == f"{rule['alert']} {rule['labels']['severity']}"
        )
        notes = rule["annotations"] | {"summary": summary, "dashboard": ""}
        if description:
            notes["description"] = description
        # Alerts about an exporter are about no miner.
        if "instance" not in labels:
            labels = {"hotkey": HOTKEY, **labels}
        # promtool compares the texts after it has filled in their templates. The addresses of
        # Grafana and of the documents are not set.
        for key, note in notes.items():
            shown = note.replace("{{ $labels.hotkey }}", HOTKEY)
            notes[key] = shown.replace("{{ $externalLabels.docs_url }}", "")
        expected = {"exp_labels": {"severity": severity, **labels}, "exp_annotations": notes}
        self._texts.append({"alertname": name, "eval_time": f"{at}m", "exp_alerts": [expected]})
        return self

    def expect_values(self, query: str, results: Mapping[int, Mapping[str, float]]) -> Self:
        """Expect the results of a query by minute: values by series, written as in PromQL."""
        for minute, values in results.items():
            samples = [{"labels": series, "value": value} for series, value in values.items()]
            self._queries.append({"expr": query, "eval_time": f"{minute}m", "exp_samples": samples})
        return self

    def check(self) -> None:
        """Evaluate all rules with promtool at each scrape."""
        self._expect_exactly(
            self._ever, f"last_over_time({FIRING}[{self.end + 1}m])", minute=self.end
        )
        test = {
            "interval": f"{self.interval}m",
            "input_series": self.input_series(),
            "promql_expr_test": self._queries,
            "alert_rule_test": self._texts,
        }
        run_promtool(tests=[test], evaluation_interval=test["interval"])


def scenarios(cases: Mapping[str, Scenario]) -> Callable[[Scenario], None]:
    """Make a test that checks each scenario of a table. Those of more than a day take long."""
    rows = []
    for name, scenario in cases.items():
        marks = [pytest.mark.soak] if scenario.end > DAY else []
        rows.append(pytest.param(scenario, id=name, marks=marks))

    @pytest.mark.parametrize("scenario", rows)
    def test(scenario: Scenario) -> None:
        scenario.check()

    return test
