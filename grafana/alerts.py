"""What the boards say about alerts: the verdict, what to do first, and which board shows more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from grafana.panels import Query, stat
from grafana.queries import RULES, select
from grafana.states import VERDICT, State

if TYPE_CHECKING:
    from grafana.panels import Panel

_RULES: Final = Path(__file__).parents[1] / "prometheus" / "rules" / "alerts.yml"
FIRST_STEP_OF: Final = {
    "ChutesMinerUnwatched": "See whether the exporter runs, and read its log",
    "ChutesExporterDown": "See whether it runs, and read its log",
    "ChutesApiDown": "Run chutes-exporter check",
    "ChutesFeedFailing": "Run chutes-exporter check: it explains the reason",
    "ChutesSignatureRefused": "Run chutes-exporter check: the key or the clock?",
    "ChutesCollectorCut": "Raise --max-series, or switch a collector off",
    "ChutesMinerDeregistered": "Run chutes-exporter check, then register again",
    "ChutesMinerBlacklisted": "Ask the operators of the subnet",
    "ChutesMinerSeatAtRisk": "Earn more: chutes-exporter status names idle GPUs",
    "ChutesMinerEarnsNothing": "Run chutes-exporter status: do servers answer?",
    "ChutesScoreHeadingDown": "Run chutes-exporter status: what stopped earning?",
    "ChutesIncentiveLags": "Run chutes-exporter query metagraph",
    "ChutesGpusGone": "Does the server answer, and still have its GPUs?",
    "ChutesGpusIdle": "Server alive? Then run chutes-exporter advise",
    "ChutesGpusUnverified": "Run chutes-exporter query nodes: see the errors",
    "ChutesServerInMaintenance": "Run chutes-exporter status: it has its step",
    "ChutesServerMaintenancePending": "Do not reboot it: wait until it is in maintenance",
    "ChutesUpgradeWindow": "Run chutes-miner tee start-maintenance",
    "ChutesServerVersionRefused": "Do not reboot it: upgrade it in a window",
    "ChutesStartInVain": "Stop it, unless it runs a job",
    "ChutesChuteFails": "Run chutes-exporter incidents --hours 6",
    "ChutesInstancePurgeNear": "Read its pod's log: purge it if nothing moves",
    "ChutesPrivateInstanceAtRisk": "Do not delete it: read the log of its pod",
    "ChutesDayLoss": "Run chutes-exporter incidents: what was lost?",
}
"""What to do first about each alert. Its runbook says the rest."""
FIRST_STEPS: Final = [State(name, text) for name, text in FIRST_STEP_OF.items()]
"""The same, for a column that has the name of an alert."""


def _board_of() -> dict[str, str]:
    uids = {}
    for group in yaml.safe_load(_RULES.read_text())["groups"]:
        for rule in group["rules"]:
            # The Watchdog has no board. An address is `.../d/chutes-fleet?var-hotkey=...`.
            link = re.search(r"/d/([\w-]+)", rule["annotations"].get("dashboard", ""))
            if link is not None:
                uids[rule["alert"]] = link[1]
    return uids


BOARD_OF: Final = _board_of()
"""The uid of the board that each alert links to."""


def severities(hotkeys: str) -> str:
    """Select the order of each alert about some miners, a regular expression, or about none.

    Its last digit is the severity: 0 says that no exporter has data of a miner, 1 is critical, and
    2 a warning.
    """
    return select("alert:chutes_alerts:severity", hotkey=f"~{hotkeys}|")


def verdict_number(hotkeys: str) -> str:
    """Return the number of the verdict on some miners while no alert fires."""
    return f"max({select('hotkey:chutes_miner_verdict:number', hotkey=f'~{hotkeys}')})"


def verdict_query(hotkeys: str) -> str:
    """Return the number of the first verdict that applies, of those in VERDICT."""
    # Prometheus may have the recordings, but not the alerts. Then none that fires proves nothing.
    rules_not_loaded = f"1007 * absent({RULES})"
    gravest_alert = f"998 + min({severities(hotkeys)} % 10)"
    return f"{rules_not_loaded} or on () {gravest_alert} or on () {verdict_number(hotkeys)}"


def verdict(size: tuple[int, int], hotkeys: str = "$hotkey", *, needs_key: bool = False) -> Panel:
    """Return the stat with which each board begins, with its size.

    A board that shows nothing without a key says that first.
    """
    number = verdict_query(hotkeys)
    if needs_key:
        number = f"{verdict_number(hotkeys)} == 1004 or on () {number}"
    return stat(
        "Verdict",
        "Critical alerts mean that money or a seat is lost now, and that somebody can act. "
        "Warnings are for today. If no alert fires, chutes-exporter status may still name what "
        "costs little. All is well if it names nothing, and all that alerts need is known.",
        Query(number, "now"),
        states=VERDICT,
        size=size,
    )
