"""The variables of boards, which narrow what a board shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grafana.panel_json import DATASOURCE
from grafana.queries import MINERS, chute_names, of_platform, short

if TYPE_CHECKING:
    from grafana.panel_json import Json


@dataclass(frozen=True)
class Variable:
    """A variable of a board.

    Attributes:
        label: Its name on the board.
        description: What it selects.
        query: Selects the values, in the language of Grafana's data source.
        all_value: The regular expression for "All"; the values themselves when empty.
        regex: Takes text and value out of the answer.
        single: Whether one value is chosen, at first the first of the answer. Of others, several
            or all can be chosen.
        hidden: Whether nobody chooses a value.
    """

    label: str
    description: str
    query: str
    all_value: str = ""
    regex: str = ""
    single: bool = False
    hidden: bool = False


REPORT_END: Final = of_platform("chutes_audit_report_end_timestamp_seconds")
_HOUR: Final = (
    f'count_values("hour", hour({REPORT_END})) or on () label_replace(vector(0), "hour", "?", "", '
    '"")'
)
_CANDIDATES: Final = (
    "max by (hotkey) (chutes_miner_watched + on (job, instance, hotkey) chutes_miner_score_ratio "
    "or on (hotkey) chutes_miner_score_ratio "
    "or on (hotkey) 0 * last_over_time(chutes_miner_registered[1d]))"
)
"""All miners: first the watched ones with a score, then the others with a score, each from the best
to the worst.
"""

ANYTHING: Final = ".*"
"""Matches all values of a label that every series has.

For `.+`, Prometheus 2 reads the index of each value.
"""

VARIABLES: Final = {
    "cluster": Variable(
        "Cluster",
        "Narrows the choices of job and hotkey, where a Prometheus scrapes several clusters.",
        "label_values(chutes_exporter_build_info, cluster)",
        ANYTHING,
    ),
    "job": Variable(
        "Job",
        "Scrape jobs with an exporter.",
        'label_values(chutes_exporter_build_info{cluster=~"$cluster"}, job)',
        ".+",
    ),
    "instance": Variable(
        "Exporter",
        "Exporters that are shown.",
        'label_values(chutes_exporter_build_info{cluster=~"$cluster", job=~"$job"}, instance)',
        ".+",
    ),
    # Without a regular expression of its own, "All" means the watched miners, even if all others
    # are exported.
    "hotkey": Variable(
        "Miner",
        "Hotkeys of the miners that the exporter watches.",
        'label_values(chutes_miner_watched{cluster=~"$cluster"}, hotkey)',
    ),
    "miner": Variable(
        "Miner",
        "Any miner that the exporters export, the watched ones first. With --miners all, that is "
        "every miner of the subnet.",
        f"query_result(sort_desc({short(_CANDIDATES)}))",
        regex='/hotkey="(?<value>[^"]+)|miner="(?<text>[^"]+)/g',
        single=True,
    ),
    "server": Variable(
        "Server",
        "Servers of the chosen miners.",
        f"label_values(chutes_server_info{{{MINERS}}}, name)",
        ANYTHING,
    ),
    "chute": Variable(
        "Chute",
        "Chutes, by name.",
        f"query_result({chute_names()})",
        ANYTHING,
        '/name="(?<text>[^"]+)|chute_id="(?<value>[^"]+)/g',
    ),
    "report": Variable(
        "Report",
        "The end of the hour of the newest audit report, in a title.",
        f"query_result({_HOUR})",
        regex='/hour="(?<value>[^"]+)/',
        single=True,
        hidden=True,
    ),
}


def variable_json(name: str) -> Json:
    """Make the JSON of a variable. If several values can be chosen, all are chosen at first."""
    variable = VARIABLES[name]
    choice: Json = {}
    if not variable.single:
        choice["current"] = {"selected": True, "text": ["All"], "value": ["$__all"]}
        if variable.all_value:
            choice["allValue"] = variable.all_value
    return {
        "name": name,
        "type": "query",
        "label": variable.label,
        "description": variable.description,
        "datasource": DATASOURCE,
        "query": {
            # Grafana's numbers of `label_values` and `query_result`.
            "qryType": 1 if variable.query.startswith("label_values") else 3,
            "query": variable.query,
            "refId": "PrometheusVariableQueryEditor-VariableQuery",
        },
        # Grafana's number of "with each change of the time range".
        "refresh": 2,
        # 1 is by the alphabet, and 0 as in the answer, whose first value is chosen at first.
        "sort": 0 if variable.single else 1,
        "multi": not variable.single,
        "includeAll": not variable.single,
        "regex": variable.regex,
        # Grafana's numbers of "nothing" and "label and value".
        "hide": 2 if variable.hidden else 0,
        **choice,
    }
