"""What every query of every board and of docs/queries.md answers at some moments of the recorded
day.

``python -m tests.grafana.answers`` writes the answers that tests compare with.
"""

from __future__ import annotations

import asyncio
import functools
import json
import lzma
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from grafana.alerts import verdict_query
from grafana.dashboard import CRITICAL_ALERTS
from grafana.variables import VARIABLES
from tests.day import DAY, EVERY, LAST, day_of_both, evaluate, scraped_day
from tests.grafana.display import PANELS
from tests.replay import Fault
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tests.day import Evaluated, Pages
    from tests.pages import Labels
    from tests.promtool import Answer

GOLDEN: Final = Path(__file__).parent / "answers.json.xz"
STEP: Final = 600
"""Seconds between two points of a graph."""


@dataclass(frozen=True)
class Moment:
    """A moment at which somebody looks at the boards: the minute of the day, and the miner."""

    minute: int
    miner: str

    @property
    def hotkey(self) -> str:
        """The hotkey of the miner."""
        return DAY.miners[self.miner].address


MOMENTS: Final = {
    "pending": Moment(8 * 60, "troubled"),
    "crash loop": Moment(16 * 60 + 55, "troubled"),
    "sick": Moment(LAST, "troubled"),
    "healthy": Moment(LAST, "healthy"),
    "pair": Moment(LAST, "healthy"),
    "keyless": Moment(LAST, "healthy"),
    "empty": Moment(LAST, "healthy"),
    "failing": Moment(LAST, "troubled"),
    "without rules": Moment(LAST, "troubled"),
    "down": Moment(LAST, "troubled"),
}
"""By name: the first three are of a miner in trouble, the second one at a full hour, at which bars
count. ``pair`` has two exporters, ``keyless`` one without a key, ``empty`` a miner with a seat and
nothing else, ``failing`` lacks one report and some answers, and ``down`` is 25 minutes after the
exporter's last answer.
"""
_WHOLE_DAY: Final = ("pending", "crash loop", "sick", "healthy")
_EVENING: Final = range(LAST - 60, LAST + 1, EVERY)
"""The minutes of the scrapes of the other moments, whose history is short."""


def filled_in(expression: str, hotkeys: Iterable[str], miner: str = "") -> str:
    """Fill in Grafana's variables.

    The hotkeys are chosen in ``$hotkey``, and the miner, by default the first of these, in
    ``$miner``. Of all other variables, everything is chosen.
    """
    chosen = list(hotkeys)
    values = {
        f"${name}": variable.all_value for name, variable in VARIABLES.items() if variable.all_value
    }
    values["$hotkey"] = f"({'|'.join(chosen)})"
    values["$miner"] = miner or chosen[0]
    # Four steps, and a little more, because a range of Prometheus 3 leaves out its left end.
    values["$__rate_interval"] = f"{4 * STEP + 60}s"
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


def targets_of(panel: Mapping[str, Any], uid: str) -> dict[str, dict[str, Any]]:
    """Return the targets of a panel by their names in `QUERIES`."""
    return {f"{uid}: {panel['title']} {target['refId']}": target for target in panel["targets"]}


def _queries() -> dict[str, str]:
    """Return the queries of boards by the board, the panel and the letter, and of variables."""
    queries = {"annotation": CRITICAL_ALERTS}
    for uid, panel in PANELS:
        queries |= {name: target["expr"] for name, target in targets_of(panel, uid).items()}
    for name, variable in VARIABLES.items():
        if found := re.fullmatch(r"label_values\((.+), (\w+)\)", variable.query):
            queries[f"variable {name}"] = f"group by ({found[2]}) (last_over_time({found[1]}[1d]))"
        else:
            queries[f"variable {name}"] = variable.query.removeprefix("query_result(")[:-1]
    return queries


QUERIES: Final = _queries()
"""By the board, the panel and the letter, or by the name of the variable."""
DOCUMENTED: Final = {
    # promtool refuses a query that reads more samples.
    f"docs/queries.md: {name}": query.replace('="$hotkey"', '=~"$hotkey"').replace("[1d:", "[1h:")
    for name, query in re.findall(
        r"```promql name=(\S+)\n(.*?)```", (ROOT / "docs" / "queries.md").read_text(), re.DOTALL
    )
}
"""The queries of the document, by their names in it. They are asked at the moment ``sick``."""


@dataclass(frozen=True)
class Answers:
    """What the queries answer at a moment, by their names."""

    moment: Moment
    of: Mapping[str, Answer]

    def one(self, panel: str) -> float | None:
        """Return the value of a query that answers one number, None if it answers nothing."""
        values = [*self.of[panel].values()]
        assert len(values) <= 1, (panel, values)
        return values[0] if values else None

    def by(self, panel: str, *names: str) -> dict[tuple[str, ...], float]:
        """Return the values of a query by labels that tell them apart."""
        found = {tuple(dict(k).get(n, "") for n in names): v for k, v in self.of[panel].items()}
        assert len(found) == len(self.of[panel]), (panel, names)
        return found

    def of_panel(self, panel: Mapping[str, Any], uid: str) -> dict[str, Any]:
        """Return the answers to the queries of a panel by their letters. A graph has one point."""
        minute = self.moment.minute
        return {
            target["refId"]: as_sent({minute: self.of[name]}, is_range=target["range"])
            for name, target in targets_of(panel, uid).items()
        }


def as_sent(answers_of_minutes: Mapping[int, Answer], *, is_range: bool) -> dict[str, Any]:
    """Return answers as Prometheus sends them: with all minutes, or with the only one."""
    series: dict[Labels, list[tuple[float, str]]] = defaultdict(list)
    for minute, answer in answers_of_minutes.items():
        for labels, value in answer.items():
            series[labels].append((60 * minute, f"{value:.17g}"))
    rows = [
        {"metric": dict(labels), **({"values": points} if is_range else {"value": points[0]})}
        for labels, points in series.items()
    ]
    return {"resultType": "matrix" if is_range else "vector", "result": rows}


def _queries_at(moment: str) -> dict[str, str]:
    return QUERIES | DOCUMENTED if moment == "sick" else QUERIES


def _asked(names: Iterable[str]) -> dict[str, set[int]]:
    """Return all queries as they are asked at some moments, with the minutes of these."""
    asked: dict[str, set[int]] = {}
    for name in names:
        moment = MOMENTS[name]
        for query in _queries_at(name).values():
            asked.setdefault(filled_in(query, [moment.hotkey]), set()).add(moment.minute)
    return asked


def _of(name: str, evaluated: Evaluated) -> Answers:
    moment, found = MOMENTS[name], {}
    for place, query in _queries_at(name).items():
        found[place] = evaluated.answers[filled_in(query, [moment.hotkey])][moment.minute]
    return Answers(moment, found)


def _evening(name: str, pages: Pages, **more: Any) -> Answers:
    """Return the answers after an evening that only this moment has."""
    return _of(name, evaluate(pages, queries=_asked([name]), **more))


def _with_workers(page: str) -> str:
    """Return a page with what other exporters say about each GPU and about the pod of each
    instance on it. Each number differs, but for some GPUs without load.
    """
    lines = [page]
    uuids = re.findall(r'^chutes_gpu_state\{.*uuid="(\S+?)"', page, re.MULTILINE)
    for number, uuid in enumerate(sorted(set(uuids))):
        values = {
            "GPU_UTIL": max(0, number - 5),
            "XID_ERRORS": number,
            "POWER_USAGE": 100 + number,
            "GPU_TEMP": 30 + number,
        }
        for name, value in values.items():
            lines.append(f'DCGM_FI_DEV_{name}{{UUID="{uuid}"}} {value}\n')
    configs = re.findall(r'^chutes_instance_info\{.*config_id="(\S+?)"', page, re.MULTILINE)
    for number, config in enumerate(sorted(set(configs))):
        # Of the requests to two functions, the later one is the pod's last.
        for function, time in (("chat", number), ("embed", 0)):
            labels = f'pod="chute-{number}",node="worker",function="{function}",chutes_version="1"'
            lines.append(
                f'invocation_last_timestamp{{chutes_config_id="{config}",{labels}}} {time}\n'
            )
    return "".join(lines)


@functools.cache
def whole_day() -> Evaluated:
    """Return what Prometheus makes of both miners, with the texts of all alerts."""
    texts_at = range(0, LAST + 1, 10)
    pages = day_of_both().copy()
    for minute in range(LAST - 40, LAST + 1, EVERY):
        pages[minute] = _with_workers(pages[minute])
    asked = _asked(_WHOLE_DAY)
    for key in DAY.miners.values():
        asked.setdefault(filled_in(verdict_query("$hotkey"), [key.address]), set()).update(
            range(0, LAST + 1, 60)
        )
    return evaluate(pages, queries=asked, texts_at=texts_at)


@functools.cache
def answers() -> dict[str, Answers]:
    """Return the answers of all moments."""
    nothing: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(("nodes", "inventory", "instances"), lambda _: []),
        "servers": lambda answer: {**answer, "servers": []},
    }
    keyless = asyncio.run(scraped_day(_EVENING, keys=(), hotkeys=["healthy"]))
    empty = asyncio.run(scraped_day(_EVENING, keys=["healthy"], edits=nothing))
    failing = asyncio.run(
        scraped_day(
            _EVENING,
            keys=["troubled"],
            edits={"audit": lambda all_: [one for one in all_ if "T05:00" not in one["end_time"]]},
            faults={"utilization": Fault(status=503)},
            chain_url=None,
        )
    )
    both = {minute: day_of_both()[minute] for minute in _EVENING}
    return {
        **{name: _of(name, whole_day()) for name in _WHOLE_DAY},
        "pair": _evening("pair", both, targets=("exporter-1:9109", "exporter-2:9109")),
        "keyless": _evening("keyless", keyless),
        "empty": _evening("empty", empty),
        "failing": _evening("failing", failing),
        "without rules": _evening("without rules", both, rules=False),
        "down": _evening("down", both, down=LAST - 25),
    }


_VARYING: Final = re.compile(
    r"process_|scrape_duration|request_duration|requests_total|bytes_total"
)
"""Queries with other answers each time."""


def rounded(found: Mapping[str, Answers]) -> dict[str, Any]:
    """Return answers as JSON: of each query, the labels and 6 digits of each value. The version of
    Python is left out.

    If several values are the highest, which ones ``topk`` takes is open.
    """
    written: dict[str, Any] = {}
    for moment, asked in found.items():
        written[moment] = {}
        for name, rows in asked.of.items():
            query = _queries_at(moment)[name]
            if _VARYING.search(query):
                continue
            has_ties = name.startswith("chutes-exporter") and "topk(10" in query
            written[moment][name] = sorted(
                [[] if has_ties else _sorted(labels), f"{value:.6g}"]
                for labels, value in rows.items()
            )
    return written


def _sorted(labels: Labels) -> list[list[str]]:
    return sorted([name, text] for name, text in labels if name != "python")


def golden() -> dict[str, Any]:
    """Return the answers that are expected, as :func:`rounded` has them."""
    expected: dict[str, Any] = json.loads(lzma.decompress(GOLDEN.read_bytes()))
    return expected


if __name__ == "__main__":
    GOLDEN.write_bytes(lzma.compress(json.dumps(rounded(answers())).encode()))
