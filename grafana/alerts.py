"""What the boards say about an alert: what to do first, which board shows more, and which feeds it
needs.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import promql_parser
import yaml

from chutes_exporter.collectors import COLLECTORS
from grafana.states import State

if TYPE_CHECKING:
    from promql_parser import Expr

_DIRECTORY: Final = Path(__file__).parents[1] / "prometheus"


def _rules(files: str) -> list[dict[str, Any]]:
    """Return the rules of all files that match a pattern."""
    rules = []
    for path in sorted(_DIRECTORY.glob(files)):
        for group in yaml.safe_load(path.read_text())["groups"]:
            rules += group["rules"]
    return rules


_RULES: Final = _rules("rules/*.yml")
FIRST: Final = {
    "ChutesMinerUnwatched": "See whether the exporter runs, and read its log",
    "ChutesExporterDown": "See whether it runs, and read its log",
    "ChutesApiDown": "Run chutes-exporter check",
    "ChutesFeedFailing": "Run chutes-exporter check: it explains the reason",
    "ChutesExporterBlind": "Run chutes-exporter check where it runs",
    "ChutesDataIncomplete": "Run chutes-exporter check",
    "ChutesSignatureRefused": "Run chutes-exporter check: the key or the clock?",
    "ChutesClockOff": "Run timedatectl on the exporter's machine",
    "ChutesApiChanged": "Run chutes-exporter check, update the exporter",
    "ChutesCollectorCut": "Raise --max-series, or switch a collector off",
    "ChutesReloadFailed": "Correct the file that the exporter's log names",
    "ChutesMinerDeregistered": "Run chutes-exporter check, then register again",
    "ChutesMinerBlacklisted": "Ask the operators of the subnet",
    "ChutesMinerSeatAtRisk": "Earn more: chutes-exporter status names idle GPUs",
    "ChutesMinerImmunityEnds": "Earn before then: run chutes-exporter status",
    "ChutesMinerLowestIncentive": "Earn more: chutes-exporter status names idle GPUs",
    "ChutesMinerEarnsNothing": "Run chutes-exporter status: do servers answer?",
    "ChutesScoreHeadingDown": "Run chutes-exporter status: what stopped earning?",
    "ChutesIncentiveLags": "Run chutes-exporter query metagraph",
    "ChutesMinerLoss": "Run chutes-exporter status: it names idle GPUs",
    "ChutesSubnetSplitChanged": "Run chutes-exporter status: see the new pay",
    "ChutesGpusGone": "Does the server answer, and still have its GPUs?",
    "ChutesGpusIdle": "Launch what chutes-exporter advise says",
    "ChutesGpusUnverified": "Run chutes-exporter query nodes: see the errors",
    "ChutesStartsFail": "Read its pods' logs: does the chute run elsewhere?",
    "ChutesGpusThrash": "Run chutes-exporter incidents --hours 6",
    "ChutesServerInMaintenance": "Once nothing earns, boot it if it can come back",
    "ChutesServerMaintenancePending": "Do not reboot it: wait until it is in maintenance",
    "ChutesUpgradeWindowClosing": "Run chutes-exporter status",
    "ChutesServerVersionRefused": "Do not reboot it: upgrade it in a window",
    "ChutesGpuHoursLost": "Find the servers on the Fleet board",
    "ChutesInstanceStartSlow": "Read the log of its pod",
    "ChutesStartInVain": "Stop it, then run chutes-exporter advise",
    "ChutesChuteFails": "Run chutes-exporter incidents: chute or server?",
    "ChutesInstancePurgeNear": "Read the log of its pod",
    "ChutesPrivateInstanceAtRisk": "Do not delete it: read the log of its pod",
    "ChutesInstancesLostEarly": "Run chutes-exporter incidents --hours 6",
    "ChutesComputeUnitsLost": "Run chutes-exporter incidents: what was lost?",
    "ChutesDayLoss": "Run chutes-exporter incidents: what was lost?",
    "ChutesJobStuck": "Run chutes-exporter release-job, which lists them",
    "ChutesGpuXidError": "Run chutes-miner tee gpu, and see the runbook",
    "ChutesGpuOffBus": "Run chutes-miner tee gpu: is it still seen?",
    "ChutesGpuHot": "Run chutes-miner tee gpu: one, or all of them?",
    "ChutesGpuEccErrors": "Reset it only when no instance on the server earns",
    "ChutesGpuMemoryFailed": "Plan its exchange, and let its instances go on",
    "ChutesGpuWithoutLoad": "Run chutes-exporter query instances: see its log",
}
"""What to do first about each alert. Its runbook says the rest."""
FIRST_STEPS: Final = [State(name, text) for name, text in FIRST.items()]
"""The same, for a column that has the name of an alert."""


def _boards() -> dict[str, str]:
    """Return the uid of the board that each alert links to.

    The boards show the alerts of the example about hardware, too, if somebody loads it.
    """
    uids = {}
    for rule in (*_RULES, *_rules("examples/dcgm.yml")):
        # A recording has no annotations, and an address is `.../d/chutes-fleet?var-hotkey=...`.
        address = rule.get("annotations", {}).get("dashboard", "")
        link = re.search(r"/d/([\w-]+)", address)
        if link is not None:
            uids[rule["alert"]] = link[1]
    return uids


BOARDS: Final = _boards()
"""The uid of the board that each alert links to."""


def _feeds_of_metrics() -> dict[str, frozenset[str]]:
    """Return by metric the feeds without which it has no series."""
    needed: dict[str, frozenset[str]] = {}
    for collector in COLLECTORS:
        for part in collector.parts:
            for metric in part.metrics:
                # Several parts may make one metric, and one that has all its feeds is enough. So
                # the metric needs only the feeds that all these parts need.
                needed[metric.name] = needed.get(metric.name, metric.needs) & metric.needs
    return needed


_FEEDS: Final = _feeds_of_metrics()


@cache
def _feeds_of_series(name: str) -> frozenset[str]:
    """Return the feeds without which a metric, or what is recorded under a name, has no series."""
    recorded = [_feeds_of(rule["expr"]) for rule in _RULES if rule.get("record") == name]
    if not recorded:
        # A metric that no collector makes is about the exporter itself, and needs no feed.
        return _FEEDS.get(name, frozenset())
    # Several rules may record under one name, and one of them is enough.
    return frozenset.intersection(*recorded)


def _feeds_of(expression: str) -> frozenset[str]:
    return _needed(promql_parser.parse(expression))


def _needed(part: Expr) -> frozenset[str]:
    """Return the feeds without which a part of an expression has no result."""
    if isinstance(part, promql_parser.VectorSelector):
        return _needed_by_selector(part)
    if isinstance(part, promql_parser.BinaryExpr):
        return _needed_by_operator(part)
    if isinstance(part, promql_parser.Call):
        return frozenset[str]().union(*map(_needed, part.args))
    # A range selector has its selector inside. A subquery, an aggregation, a sign and parentheses
    # have an expression. A number or a text has neither.
    inner = getattr(part, "vector_selector", None) or getattr(part, "expr", None)
    return frozenset() if inner is None else _needed(inner)


def _needed_by_operator(part: promql_parser.BinaryExpr) -> frozenset[str]:
    """Return the feeds without which an operation has no result."""
    left, right = _needed(part.lhs), _needed(part.rhs)
    match str(part.op):
        case "or":
            # One side is enough, so only what both need is needed.
            return left & right
        case "unless":
            # What is subtracted may be absent.
            return left
        case _:
            return left | right


def _needed_by_selector(selector: promql_parser.VectorSelector) -> frozenset[str]:
    """Return the feeds without which a selector has no result.

    Metrics about feeds exist for every feed. There, it is the feed that the selector names with
    `feed="..."`.
    """
    # A selector such as `{job="chutes"}` has no name.
    name = selector.name or ""
    if not name.startswith("chutes_feed_"):
        return _feeds_of_series(name)
    feeds = set()
    for matcher in selector.matchers.matchers:
        if matcher.name == "feed" and matcher.op == promql_parser.MatchOp.Equal:
            feeds.add(matcher.value)
    return frozenset(feeds)


def _feeds_of_alerts() -> dict[str, frozenset[str]]:
    """Return by alert the feeds without which it cannot fire, with any of its severities."""
    needed: dict[str, frozenset[str]] = {}
    for rule in _RULES:
        if "alert" in rule:
            name = rule["alert"]
            feeds = _feeds_of(rule["expr"])
            # An alert needs only the feeds that the rules of all its severities need.
            of_other_severities = needed.get(name, feeds)
            needed[name] = of_other_severities & feeds
    return needed


NEEDED: Final = {name: feeds for name, feeds in _feeds_of_alerts().items() if feeds}
"""The feeds that each alert needs, of the alerts that need one."""


def blinded() -> dict[str, list[str]]:
    """Return the alerts that each feed blinds while it has no data."""
    alerts: dict[str, list[str]] = defaultdict(list)
    for alert, feeds in sorted(NEEDED.items()):
        for feed in sorted(feeds):
            alerts[feed].append(alert)
    return dict(alerts)


def blind_alerts(blind: str) -> str:
    """Return a query for the number of alerts that cannot fire.

    It is long, because each set of feeds that alerts need has a term. The term is the number of
    these alerts if any of the feeds has no data, so that no alert counts twice.

    Args:
        blind: The name of the series of feeds without data.
    """
    alerts_by_feeds = Counter(tuple(sorted(feeds)) for feeds in NEEDED.values())
    terms = []
    for feeds, alerts in sorted(alerts_by_feeds.items()):
        one_of_them = "|".join(feeds)
        terms.append(f'({alerts} * group({blind}{{feed=~"{one_of_them}"}}) or vector(0))')
    return " + on () ".join(terms)
