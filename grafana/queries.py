"""Expressions in PromQL that boards share.

Several exporters can watch the same miner. A query takes the maximum over them, and joins with an
explicit `on`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from grafana.states import NOTHING

if TYPE_CHECKING:
    from chutes_exporter.fleet.model import Topic

RULES: Final = 'group(ALERTS{alertname="Watchdog", rules="chutes"})'
"""Present while the rules are loaded."""
MINERS: Final = 'hotkey=~"$hotkey"'
"""Matches the chosen miners. Exporters of one miner are merged, so nobody chooses one of them."""
_SELECTOR = re.compile(r"[\w:]*chutes_[\w:]+(\{[^{}]*\})?")
"""Finds the selectors in a query, such as `chutes_fleet_gpus{state="idle"}`."""


def select(metric: str, *matchers: str, **where: str) -> str:
    """Select series. Without a matcher, it is all of the metric.

    Args:
        metric: The name.
        matchers: Matchers as PromQL writes them.
        where: Values of labels. `state="idle"` selects idle ones, `state="!idle"` all others, and
            `state="~idle|starting"` those that match the regular expression, which `!~` also
            negates.
    """
    all_matchers = list(matchers)
    for label, value in where.items():
        all_matchers.append(_matcher(label, value))
    if not all_matchers:
        return metric
    return f"{metric}{{{', '.join(all_matchers)}}}"


def _matcher(label: str, value: str) -> str:
    """Return the matcher of a label. The value can begin with a sign, as in `select`."""
    if value.startswith("!~"):
        return f'{label}!~"{value[2:]}"'
    if value.startswith("~"):
        return f'{label}=~"{value[1:]}"'
    if value.startswith("!"):
        return f'{label}!="{value[1:]}"'
    return f'{label}="{value}"'


def of_miners(metric: str, *labels: str, **where: str) -> str:
    """Select a metric of the chosen miners. Labels, besides the hotkey, tell its series apart."""
    return f"max by ({', '.join(('hotkey', *labels))}) ({select(metric, MINERS, **where)})"


def of_platform(metric: str, *labels: str, **where: str) -> str:
    """Select a metric about the platform, or about any miner."""
    by = f" by ({', '.join(labels)}) " if labels else ""
    return f"max{by}({select(metric, **where)})"


def recorded(name: str, **where: str) -> str:
    """Select a recorded series of the chosen miners."""
    return select(name, MINERS, **where)


WITH_KEY: Final = select("chutes_fleet_known", MINERS, topic="servers")
"""A series of each chosen miner that is watched with a key, unless it has no seat."""
WITH_GPUS: Final = select("chutes_fleet_known", MINERS, topic="gpus")
"""The same of those that are not known to have no GPUs."""


def short(expression: str) -> str:
    """Add the label `miner`: the first 5 and the last 4 characters of the hotkey."""
    return f'label_replace({expression}, "miner", "$1…$2", "hotkey", "(.{{5}}).*(.{{4}})")'


def nothing_row(known: str, label: str, value: float | str = NOTHING.value) -> str:
    """Return a row for a table of problems that says that there is none.

    Args:
        known: A query that returns something where it is known that there is no problem.
        label: The label by which the other rows of the table name their problem.
        value: Its value in this row. A state of the column gives it a text.
    """
    # From a label without a name, `label_replace` takes nothing, and sets the value as it is.
    return f'label_replace(group({known}), "{label}", "{value}", "", "")'


def copied(query: str, label: str, source: str = "alertname") -> str:
    """Add a label with the value of another one, which a column shows as another text."""
    return f'label_replace({query}, "{label}", "$1", "{source}", "(.+)")'


def total(parts: str, *, with_gpus: bool = False) -> str:
    """Return the sum of a series over all chosen miners.

    It is absent while the series of a miner that is watched with a key is missing.

    Args:
        parts: Selects the series of each miner.
        with_gpus: Whether only miners with GPUs must have the series.
    """
    miners = WITH_GPUS if with_gpus else WITH_KEY
    # The series in `miners` are 1 or 0. So a miner without the series in `parts` adds infinity
    # (1 / 0) or no number (0 / 0), and then the sum is not below infinity.
    return f"(sum({parts} or on (hotkey) {miners} / 0) < Inf)"


def of_known(query: str, topic: Topic) -> str:
    """Return a query over all chosen miners, which is absent while a topic of one is unknown."""
    known = of_miners("chutes_fleet_known", topic=topic)
    return f"({query} unless on () {known} == 0)"


def counted(series: str, known: str) -> str:
    """Count series. If there are none, it is 0 where that is known, and absent elsewhere.

    Args:
        series: Selects the series.
        known: Returns one series without labels where it is known whether there are any.
    """
    return f"(count({series}) or on () 0 * {known})"


def chute_names(**where: str) -> str:
    """Select the name of each chute. Two exporters can know different ones."""
    info = of_platform("chutes_chute_info", "chute_id", "name", **where)
    return f"topk by (chute_id) (1, {info})"


def with_chute_name(expression: str) -> str:
    """Add the label `name` to series with a `chute_id`."""
    return f"({expression}) * on (chute_id) group_left (name) {chute_names()}"


def at_end(expression: str) -> str:
    """Return an expression for the end of the time range."""
    return _SELECTOR.sub(r"\g<0> @ end()", expression)


def while_known(expression: str, series: str) -> str:
    """Return an expression that is absent while some series are unknown at the end of the time
    range. History without them would look as if it went on.
    """
    return f"{expression} and on () group({at_end(series)})"


UNIT_USD: Final = of_platform("chutes_compute_unit_usd")
"""The value of a compute unit."""
ALERTS: Final = 'alertname=~"Chutes.+", hotkey=~"$hotkey|"'
"""Matches the alerts about the chosen miners, and those about no miner."""
