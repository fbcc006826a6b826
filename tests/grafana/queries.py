"""Asks Prometheus the queries of a dashboard, with the variables filled in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.grafana.scenes import ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support import Prometheus

_ALL: Final = "$__all"
_VARIABLE: Final = re.compile(r"\$\{([a-zA-Z_]\w*)(?::\w+)?\}|\$([a-zA-Z_]\w*)")
_UNITS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True)
class Window:
    """The time range of a dashboard.

    Attributes:
        end: Unix time.
        seconds: How long it is.
        step: Seconds between the points of a line, and between scrapes.
    """

    end: float
    seconds: int
    step: int

    @property
    def start(self) -> float:
        return self.end - self.seconds

    @property
    def variables(self) -> dict[str, str]:
        """Grafana's variables about the time range."""
        return {
            "__interval": f"{self.step}s",
            "__interval_ms": f"{self.step * 1000}",
            "__rate_interval": f"{self.step * 4}s",
            "__range": f"{self.seconds}s",
            "__range_s": f"{self.seconds}",
            "__range_ms": f"{self.seconds * 1000}",
        }


@dataclass(frozen=True)
class Variable:
    """The choice of a dashboard's variable.

    Attributes:
        text: As the dashboard shows it.
        query: As queries contain it.
    """

    text: str
    query: str


def seconds_back(time: str) -> int:
    """Return how many seconds before now a relative time such as ``now-24h`` is."""
    match = re.fullmatch(r"(?:now-)?(\d+)([mhdw])", time)
    if match is None:
        raise ValueError(f"{time!r} is no relative time such as now-24h")
    return int(match[1]) * _UNITS[match[2]]


def filled(text: str, values: Mapping[str, str]) -> str:
    """Fill variables in; an unknown one is a KeyError."""
    return _VARIABLE.sub(lambda match: values[match[1] or match[2]], text)


def _quoted(value: str) -> str:
    """Quote a value for a regular expression inside a string of PromQL, as Grafana does."""
    return re.sub(r"([\\^$*+?.()|{}\[\]])", r"\\\\\1", value)


def variable(declared: Mapping[str, Any], options: Mapping[str, str]) -> Variable:
    """Choose what a variable has when the dashboard is opened.

    Args:
        declared: As the dashboard has it.
        options: The values that may be chosen, with their texts.
    """
    current = declared.get("current", {}).get("value")
    wanted = [current] if isinstance(current, str) else list(current or ())
    several = declared.get("multi") or declared.get("includeAll")
    if wanted == [_ALL] or (declared.get("includeAll") and not set(wanted) & options.keys()):
        query = declared.get("allValue") or f"({'|'.join(map(_quoted, options))})"
        return Variable("All", query)
    picked = [value for value in wanted if value in options] or list(options)[:1]
    quoted = [_quoted(value) if several else value for value in picked]
    return Variable(
        " + ".join(options[value] for value in picked), quoted[0] if len(quoted) == 1 else f"({'|'.join(quoted)})"
    )


def _options(
    declared: Mapping[str, Any], prometheus: Prometheus, window: Window, values: Mapping[str, str]
) -> dict[str, str]:
    """Return the values that may be chosen of a variable, with their texts."""
    kind, query = declared["type"], declared.get("query", "")
    if kind in ("constant", "textbox"):
        return {query: query}
    if kind in ("custom", "interval"):
        return {option.strip(): option.strip() for option in query.split(",")}
    if kind != "query":
        raise ValueError(f"the variable {declared['name']} is of an unknown kind: {kind}")
    text = filled(query["query"] if isinstance(query, dict) else query, values)
    if match := re.fullmatch(r"label_values\((?:(.+), *)?(\w+)\)", text, re.DOTALL):
        selector = {"match[]": match[1]} if match[1] else {}
        answer = ask(prometheus, f"label/{match[2]}/values", start=window.start, end=window.end, **selector)
        options = list(answer["data"])
    elif match := re.fullmatch(r"query_result\((.+)\)", text, re.DOTALL):
        answer = ask(prometheus, "query", query=match[1], time=window.end)
        options = [_line(row) for row in answer["data"]["result"]]
    else:
        raise ValueError(f"the variable {declared['name']} has an unknown query: {text}")
    pattern = declared.get("regex")
    found = [taken(pattern, option) if pattern else (option, option) for option in options]
    return {value: text for value, text in found if value}


def taken(pattern: str, option: str) -> tuple[str, str]:
    """Take value and text out of an option: the groups of these names, the first group, or the whole match."""
    # JavaScript writes named groups without the P.
    written = re.sub(r"^/|/[a-z]*$", "", pattern).replace("(?<", "(?P<")
    groups: dict[str, str] = {}
    for match in re.finditer(written, option):
        named = {name: found for name, found in match.groupdict().items() if found}
        if not named:
            found = match[1] if match.groups() else match[0]
            return found, found
        groups |= named
    value = groups.get("value") or groups.get("text", "")
    return value, groups.get("text") or value


def _line(row: Mapping[str, Any]) -> str:
    labels = ", ".join(f'{name}="{value}"' for name, value in row["metric"].items() if name != "__name__")
    return f"{row['metric'].get('__name__', '')}{{{labels}}} {row['value'][1]} {int(row['value'][0] * 1000)}"


def variables(dashboard: Mapping[str, Any], prometheus: Prometheus, window: Window) -> dict[str, Variable]:
    """Choose the variables of a dashboard in their order, as later ones may depend on earlier ones."""
    found: dict[str, Variable] = {}
    for declared in dashboard["templating"]["list"]:
        if declared["type"] == "datasource":
            found[declared["name"]] = Variable("Prometheus", "prometheus")
            continue
        values = window.variables | {name: one.query for name, one in found.items()}
        found[declared["name"]] = variable(declared, _options(declared, prometheus, window, values))
    return found


def all_panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the panels of a dashboard, those in collapsed rows included."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels") or ()
        else:
            yield panel


def answers(
    dashboard: Mapping[str, Any], prometheus: Prometheus, window: Window, values: Mapping[str, str]
) -> dict[int, dict[str, Any]]:
    """Ask every query of a dashboard.

    Args:
        dashboard: As it is committed.
        prometheus: Whom to ask.
        window: The dashboard's time range.
        values: Of its variables.

    Returns:
        `data` of the answers, by the panel's id and the query's letter.

    Raises:
        ValueError: Prometheus refuses a query, or warns about it.
    """
    found: dict[int, dict[str, Any]] = {}
    for panel in all_panels(dashboard):
        if "targets" not in panel:
            continue
        mine = window
        if panel.get("timeFrom"):
            mine = Window(window.end, seconds_back(panel["timeFrom"]), window.step)
        for target in panel["targets"]:
            query = filled(target["expr"], {**values, **mine.variables})
            if target.get("instant"):
                answer = ask(prometheus, "query", query=query, time=mine.end)
            else:
                step = max(mine.step, seconds_back(target.get("interval") or "1m"))
                answer = ask(prometheus, "query_range", query=query, start=mine.start, end=mine.end, step=step)
            if answer["status"] != "success" or answer.get("warnings"):
                raise ValueError(f"{dashboard['uid']}, {panel['title']!r}: {answer | {'data': None}}")
            found.setdefault(panel["id"], {})[target["refId"]] = answer["data"]
    return found
