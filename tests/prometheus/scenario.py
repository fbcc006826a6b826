"""Scenarios for promtool: what a page says minute by minute, and which alerts fire then."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
import yaml

from chutes_exporter.collectors.fleet import SERVER_STATE_NUMBERS
from tests.support import ROOT, RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from chutes_exporter.fleet.model import GpuState, ServerState

EXAMPLE: Final = ROOT / "prometheus" / "examples" / "dcgm.yml"
"""Alerts about hardware, which Prometheus does not load by default."""
FILES: Final = [*sorted(RULES.glob("*.yml")), EXAMPLE]
GROUPS: Final[list[dict[str, Any]]] = [
    g for path in FILES for g in yaml.safe_load(path.read_text())["groups"]
]
ALERTS: Final[list[dict[str, Any]]] = [
    rule for group in GROUPS for rule in group["rules"] if "alert" in rule
]
"""Rules of alerts. Several can share a name, with other severities."""

HOTKEY: Final = "5Me"
HOUR: Final = 60
DAY: Final = 24 * HOUR
"""Minutes."""
UNKNOWN: Final = "unknown"
"""A state of a GPU that is not known."""
DEADLINE: Final = "chutes_instance_deadline_timestamp_seconds"
NOW: Final = "now"
"""The value of a time that each scrape moves on."""
STATES: Final[tuple[GpuState, ...]] = ("unverified", "idle", "starting", "disabled", "earning")
CHUTE: Final = {"chute_id": "chute-1", "chute": "glm-5"}
OF_MINER: Final = tuple(
    f"chutes_{of}_"
    for of in ("fleet", "instance", "jobs", "launch", "maintenance", "miner", "server")
)
"""How series start that have the label hotkey."""
Alert = str
"""A name and a severity, with a space between them."""


class Scenario:
    """A healthy miner, to which a test lets things happen.

    Times are minutes from the start of the history.

    Args:
        end: The last minute.
        servers: The number of GPUs of each server.
        exporters: Addresses of the exporters that watch the miner.
        step: Minutes between two scrapes, and between two evaluations. By default, there are fewer
            in long histories,
            because promtool is slow.
    """

    def __init__(
        self,
        end: int,
        servers: Mapping[str, int] | None = None,
        exporters: Sequence[str] = ("one:1",),
        step: int | None = None,
    ) -> None:
        self.end = end
        self._step = step or (
            1 if end <= 30 else 2 if end < 2 * HOUR else 4 if end < 6 * HOUR else 8
        )
        self._minutes = range(0, end + 1, self._step)
        self._series: dict[
            tuple[str, tuple[tuple[str, str], ...]], dict[int, float | str | None]
        ] = {}
        self._states: dict[str, dict[int, str | None]] = {}
        self._places: dict[str, str] = {}
        self._steps: dict[str, dict[int, str]] = {}
        self._pay: float | None = None
        self._with_cost: set[str] = set()
        self._down: dict[str, set[int]] = {exporter: set() for exporter in exporters}
        self._there = dict.fromkeys(exporters, range(end + 1))
        self._public: set[str] = set()
        self._servers = dict(servers or {})
        self._lost_of_day, self._ended_of_day = 0.0, 0
        self.expected: dict[str, Any] = {}
        self._texts: list[dict[str, Any]] = []
        self.set("chutes_miner_watched", 1).set("chutes_miner_registered", 1).set(
            "chutes_miner_blacklisted", 0
        )
        self.set("chutes_miner_registered_timestamp_seconds", -90 * 86400)
        self.set("chutes_miner_incentive_ratio", 0.02).set("chutes_miner_incentive_rank", 60)
        self.set("chutes_miner_score_ratio", 0.02).set("chutes_miner_score_heading_ratio", 0.02)
        self.set("chutes_miner_window_compute_units", 1000, window="7d")
        self.set("chutes_exporter_build_info", 1, version="1").set("chutes_metagraph_miners", 256)
        self.set("chutes_scored_miners", 60)
        for feed, hotkey, max_age in (
            ("metagraph", "", 3600),
            ("scores", "", 1800),
            ("instances", HOTKEY, 600),
        ):
            labels = {"feed": feed, "hotkey": hotkey}
            self.set("chutes_feed_up", 1, **labels)
            self.set("chutes_feed_last_success_timestamp_seconds", NOW, **labels)
            self.set("chutes_feed_max_age_seconds", max_age, **labels)
        for feed in ("instances", "nodes"):
            self.set("chutes_feed_records", 1, feed=feed, hotkey=HOTKEY)
        for topic in ("servers", "gpus", "instances", "pay"):
            self.set("chutes_fleet_known", 1, topic=topic)
        for server, count in (servers or {}).items():
            self.set("chutes_server_info", 1, **_server(server)[0], version="0.2.5")
            for number in range(count):
                self.gpu(f"{server}-{number}", server)

    def set(self, name: str, value: float | str, at: int = 0, /, **labels: str) -> Self:
        """Let a series have a value from a minute on. Those of the miner get its hotkey.

        With the label instance, this is so at one exporter only.
        """
        if name.startswith(OF_MINER):
            labels = {"hotkey": HOTKEY} | labels
        self._series.setdefault((name, tuple(labels.items())), {})[at] = value
        return self

    def drop(self, at: int, name: str, /, **labels: str) -> Self:
        """Leave series out from a minute on: those of a name with some labels."""
        for (series, found), changes in self._series.items():
            if series == name and labels.items() <= dict(found).items():
                changes[at] = None
        return self

    def gpu(self, gpu_id: str, server: str, state: str = "earning", at: int = 0) -> Self:
        """Add a GPU."""
        self._places[gpu_id] = server
        return self.state(at, [gpu_id], state)

    def state(self, at: int, gpu_ids: Iterable[str], state: str | None) -> Self:
        """Change the state of GPUs; with None, they disappear."""
        for gpu_id in gpu_ids:
            self._states.setdefault(gpu_id, {})[at] = state
        return self

    def pays(self, units: float) -> Self:
        """Let an idle GPU be worth so many compute units a second, in a chute that can be launched
        now. Otherwise, it is not known what can be launched.
        """
        self._pay = units
        return self

    def back(self, at: int, gpu_ids: Iterable[str], server: str) -> Self:
        """Let GPUs that had disappeared be there again."""
        for gpu_id in gpu_ids:
            self.gpu(gpu_id, server, at=at)
        return self

    def starts(
        self, gpu_ids: Sequence[str], begin: int, end: int, idle: int, starting: int
    ) -> Self:
        """Let instances on GPUs fail again and again: after some idle minutes, another one starts
        for some minutes.
        """
        for minute in range(begin, end, idle + starting):
            self.state(minute, gpu_ids, "idle").state(minute + idle, gpu_ids, "starting")
        return self

    def instance(
        self,
        number: str,
        created: float,
        at: int = 0,
        *,
        server: str = "",
        private: bool = True,
        purge: float = 0,
    ) -> Self:
        """Add an instance that is starting.

        Its creation can lie before the history, and its server be unknown.

        By default, it is purged 3.5 hours after its creation.
        """
        if not private:
            self._public.add(number)
        labels = self._of_instance(number)
        self.set("chutes_chute_info", 1, chute_id="chute-1", name="glm-5")
        self.set("chutes_instance_created_timestamp_seconds", 60 * created, at, instance_id=number)
        self._instance_state(number, "starting", at)
        self.set(DEADLINE, 60 * (purge or created + 210), at, **labels, deadline="purge")
        if server:
            _, place = _server(server)
            self.set("chutes_instance_gpus", 1, at, **labels, **place, gpu="pro_6000")
        return self

    def _of_instance(self, number: str) -> dict[str, str]:
        private = "false" if number in self._public else "true"
        return {"instance_id": number, **CHUTE, "private": private}

    def _instance_state(self, number: str, state: str, at: int) -> None:
        for one in ("active", "starting", "disabled"):
            labels = self._of_instance(number)
            self.set("chutes_instance_state", int(one == state), at, **labels, state=one)

    def disable(self, number: str, at: int) -> Self:
        """Let the miner disable an active instance."""
        self._instance_state(number, "disabled", at)
        return self

    def units(self, number: str, units: float, at: int = 0) -> Self:
        """Let an instance earn compute units per second."""
        name = "chutes_instance_compute_units_per_second"
        return self.set(name, units, at, **self._of_instance(number))

    def activate(self, number: str, at: int) -> Self:
        """Let an instance become active."""
        self._instance_state(number, "active", at)
        self.set("chutes_instance_activated_timestamp_seconds", 60 * at, at, instance_id=number)
        self.drop(at, DEADLINE, instance_id=number, deadline="purge")
        if number in self._public:
            labels = self._of_instance(number)
            self.set(DEADLINE, 60 * at + 3600, at, **labels, deadline="secured")
        return self

    def remove(self, number: str, at: int) -> Self:
        """Let an instance end."""
        for name in {name for name, _ in self._series if name.startswith("chutes_instance_")}:
            self.drop(at, name, instance_id=number)
        return self

    def earns(self, server: str, instances: int) -> Self:
        """Let instances of one GPU earn on a server from the start."""
        for number in range(instances):
            name = f"i-{server}-{number}"
            self.instance(name, -5 * HOUR, server=server).activate(name, 0)
        _, place = _server(server)
        return self.set("chutes_server_earning_instances", instances, **place)

    def maintain(self, at: int, server: str, status: str) -> Self:
        """Let a TEE server have a status of maintenance."""
        self._steps.setdefault(server, {})[at] = status
        self.set("chutes_feed_records", 1, feed="maintenance", hotkey=HOTKEY)
        for one in ("none", "pending", "maintenance"):
            labels = {**_server(server)[1], "status": one}
            self.set("chutes_server_maintenance_status", int(one == status), at, **labels)
        return self

    def waits(self, servers: int, unmeasured: int = 0, at: int = 0) -> Self:
        """Let so many servers wait for their upgrade, some of which cannot come back."""
        self.set("chutes_fleet_servers_to_upgrade", servers, at)
        return self.set("chutes_fleet_unmeasured_servers_to_upgrade", unmeasured, at)

    def measured(self, server: str, measured: int) -> Self:
        """Let the service list the target for hosts with the GPUs of a server, or not."""
        return self.set("chutes_server_upgrade_measured", measured, **_server(server)[1])

    def boots(self, server: str, accepted: int, at: int = 0) -> Self:
        """Let the service accept or refuse the version of a server."""
        return self.set("chutes_server_version_accepted", accepted, at, **_server(server)[1])

    def window(self, end: int, slots: int = 1, in_use: int = 0) -> Self:
        """Let an upgrade window be open that ends at a minute."""
        self.set("chutes_maintenance_window_open", 1)
        self.set("chutes_maintenance_window_end_timestamp_seconds", 60 * end)
        self.set("chutes_maintenance_window_info", 1, target_version="0.3.0")
        self.set("chutes_maintenance_slots_limit", slots)
        return self.set("chutes_maintenance_slots_in_use", in_use)

    def prices(self) -> Self:
        """Let a GPU cost 1.5 dollars an hour, an alpha 10 dollars and a compute unit 1, and the
        miner earn 20 alpha a day.
        """
        for server in self._servers:
            self.cost(server)
        gpus = sum(self._servers.values())
        self.set("chutes_miner_cost_usd_per_hour", 1.5 * gpus)
        self.set("chutes_alpha_price_usd", 10).set("chutes_compute_unit_usd", 1)
        self.set("chutes_miner_emission_alpha_per_day", 20)
        self.set("chutes_miner_estimated_usd_per_day", 200)
        return self.set("chutes_miner_estimated_profit_usd_per_day", 200 - 36 * gpus)

    def cost(self, server: str) -> Self:
        """Let each GPU of a server cost 1.5 dollars an hour."""
        self._with_cost.add(server)
        return self

    def report(self, at: int, end: int, *, lost: float = 0, ended: int = 0) -> Self:
        """Let the audit report of the hour before a minute come, with the instances of the chute
        that ended and lost their score. Those before it were in the past day.
        """
        self.set("chutes_audit_report_end_timestamp_seconds", 60 * end, at)
        self._lost_of_day += lost
        self._ended_of_day += ended
        of_day = (self._lost_of_day, self._ended_of_day)
        of_windows = {"1h": (lost, ended), "6h": of_day, "1d": of_day}
        for window, (units, count) in of_windows.items():
            reason = {"window": window, "reason": "probes"}
            chute = {"window": window, "chute_id": "chute-1"}
            self.set("chutes_miner_lost_compute_units", units, at, **reason)
            self.set("chutes_miner_chute_lost_compute_units", units, at, **chute)
            self.set("chutes_miner_ended_instances", count, at, **reason, outcome="lost")
            self.set("chutes_miner_chute_ended_instances", count, at, **chute, outcome="lost")
        return self

    def feed(
        self, at: int, feed: str, hotkey: str, reason: str = "unavailable", exporter: str = ""
    ) -> Self:
        """Let the requests of a feed fail, at all exporters or at one."""
        labels = {"feed": feed, "hotkey": hotkey}
        if exporter:
            labels["instance"] = exporter
        self.set("chutes_feed_up", 0, at, **labels)
        self.set("chutes_feed_last_success_timestamp_seconds", 60 * at, at, **labels)
        return self.set("chutes_feed_failure_info", 1, at, **labels, reason=reason)

    def fail(self, exporter: str, minutes: Iterable[int]) -> Self:
        """Let scrapes of an exporter fail."""
        self._down[exporter].update(minutes)
        return self

    def target(self, exporter: str, begin: int, end: int) -> Self:
        """Let an exporter be among the targets for some time."""
        self._there[exporter] = range(begin, end)
        return self

    def fires(self, firing: Mapping[int, Iterable[Alert]], **more: Any) -> Self:
        """Let :meth:`check` expect alerts."""
        self.expected = {"firing": firing, **more}
        return self

    def says(
        self, alert: Alert, minute: int, summary: str, description: str = "", **labels: str
    ) -> Self:
        """Let :meth:`check` expect the texts that a reader gets: the summary without the miner, and
        the description if more than ids vary.

        The whole summary of an alert about an exporter is given.
        """
        name, severity = alert.split()
        (rule,) = (
            rule for rule in ALERTS if [rule["alert"], rule["labels"]["severity"]] == alert.split()
        )
        # The addresses of Grafana and of the documents are not set.
        about_exporter = summary.startswith(("Chutes exporter", "Chutes API"))
        about: dict[str, str] = {} if about_exporter else {"hotkey": HOTKEY}
        whole = summary if about_exporter else f"{HOTKEY}…: {summary}"
        notes = dict(rule["annotations"], dashboard="", summary=whole)
        if description:
            first = (
                ""
                if "First" in description
                else " First" + notes["description"].partition("First")[2]
            )
            notes["description"] = description + first
        for template, value in (
            ("{{ $labels.hotkey }}", HOTKEY),
            ("{{ with $externalLabels.docs_url }}{{ . }}{{ end }}", ""),
        ):
            notes = {key: note.replace(template, value) for key, note in notes.items()}
        expected = {
            "exp_labels": {"severity": severity, **about, **labels},
            "exp_annotations": notes,
        }
        self._texts.append({"alertname": name, "eval_time": f"{minute}m", "exp_alerts": [expected]})
        return self

    def _of(self, exporter: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], dict[int, Any]]:
        """Return the changes of each series of an exporter."""
        found: dict[tuple[str, tuple[tuple[str, str], ...]], dict[int, Any]] = {}
        for (name, labels), changes in self._series.items():
            if dict(labels).get("instance", exporter) == exporter:
                series = name, tuple(label for label in labels if label[0] != "instance")
                found[series] = found.get(series, {}) | changes
        return found

    def _columns(self, exporter: str) -> dict[str, list[str]]:
        """Return the values of each series of an exporter, whose labels lack those of a target and
        the end; `_` for none.
        """
        columns: dict[str, list[str]] = {}
        now = [
            Counter(_at(changes, minute) for changes in self._states.values())
            for minute in self._minutes
        ]
        for state in STATES if self._states else ():
            name = f'chutes_fleet_gpus{{hotkey="{HOTKEY}",gpu="pro_6000",state="{state}",'
            columns[name] = [str(count[state]) for count in now]
        for server in dict.fromkeys(self._places.values()):
            columns |= self._columns_of_server(server)
        for (name, labels), changes in self._of(exporter).items():
            values = [(60 * minute, _at(changes, minute)) for minute in self._minutes]
            written = [
                "_" if value is None else str(at if value == NOW else value) for at, value in values
            ]
            columns[
                f"{name}{{{''.join(f'{key}={json.dumps(value)},' for key, value in labels)}"
            ] = written
        return columns

    def _columns_of_server(self, server: str) -> dict[str, list[str]]:
        """Return the values of the series that follow from the states of a server's GPUs.

        Without GPUs, it has no series, and neither while the state of one is unknown.
        """
        gpus = [gpu_id for gpu_id, place in self._places.items() if place == server]
        columns: dict[str, list[str]] = {}
        place = f'hotkey="{HOTKEY}",server_id="id-{server}",server="{server}",'
        for minute in self._minutes:
            states = [_at(self._states[gpu_id], minute) for gpu_id in gpus]
            counts = Counter(state for state in states if state is not None)
            known = bool(counts) and UNKNOWN not in counts
            values: dict[str, float | None] = {
                f'chutes_server_gpus{{{place}gpu="pro_6000",state="{state}",': counts[state]
                for state in STATES
            }
            earning = counts["earning"] + counts["disabled"]
            values[f"chutes_server_compute_units_per_second{{{place}"] = earning
            idle = None if self._pay is None else counts["idle"] * self._pay
            if not counts["idle"]:
                idle = None if counts["unverified"] else 0
            values[f"chutes_server_idle_compute_units_per_second{{{place}"] = idle
            if server in self._with_cost:
                cost = 24 * 1.5 * (counts["idle"] + counts["unverified"])
                values[f"chutes_server_idle_cost_usd_per_day{{{place}"] = cost
            for name, value in values.items():
                text = "_" if value is None or not known else str(value)
                columns.setdefault(name, []).append(text)
        return columns | self._state_of_server(server, gpus)

    def _state_of_server(self, server: str, gpus: Sequence[str]) -> dict[str, list[str]]:
        """Return the values of the state of a server."""
        found: list[ServerState | None] = []
        for minute in self._minutes:
            states = {_at(self._states[gpu_id], minute) for gpu_id in gpus} - {None}
            step = _at(self._steps.get(server, {}), minute)
            if not states or UNKNOWN in states:
                found.append(None)
            elif step in ("pending", "maintenance"):
                found.append("maintenance_pending" if step == "pending" else "in_maintenance")
            else:
                found.append(next(state for state in STATES if state in states))
        labels = f'hotkey="{HOTKEY}",server_id="id-{server}",server="{server}",'
        numbers = ["_" if one is None else str(SERVER_STATE_NUMBERS[one]) for one in found]
        return {f"chutes_server_state{{{labels}": numbers}

    def _written(self) -> list[dict[str, str]]:
        written = []
        for exporter, down in self._down.items():
            target, there = f'job="chutes",instance="{exporter}"}}', self._there[exporter]
            up = [
                str(int(minute not in down)) if minute in there else "_" for minute in self._minutes
            ]
            written.append({"series": f"up{{{target}", "values": _sequence(up)})
            scrapes = [minute in there and minute not in down for minute in self._minutes]
            for series, values in self._columns(exporter).items():
                kept = [
                    value if scraped else "_"
                    for value, scraped in zip(values, scrapes, strict=True)
                ]
                written.append({"series": f"{series}{target}", "values": _sequence(kept)})
        return written

    def check(
        self,
        directory: Path,
        firing: Mapping[int, Iterable[Alert]],
        *,
        ever: Iterable[Alert] | None = None,
        values: Mapping[str, tuple[int, Mapping[str, float]]] | None = None,
    ) -> None:
        """Evaluate all rules with promtool.

        Args:
            directory: For its file.
            firing: All alerts that fire at a minute, the Watchdog excepted.
            ever: All alerts that fire at any minute; those of `firing` where it is None.
            values: By expression: a minute, and the value of each series.
        """
        if ever is None:
            ever = {alert for alerts in firing.values() for alert in alerts}
        by = 'count by (alertname, severity) ({}(ALERTS{{alertstate="firing",severity!="none"}}{}))'
        tests = [_fire(by.format("", ""), minute, alerts) for minute, alerts in firing.items()]
        tests.append(_fire(by.format("last_over_time", f"[{self.end + 1}m]"), self.end, ever))
        for expression, (minute, expected) in (values or {}).items():
            samples = [{"labels": labels, "value": value} for labels, value in expected.items()]
            tests.append({"expr": expression, "eval_time": f"{minute}m", "exp_samples": samples})
        path = directory / "scenario.yml"
        test: dict[str, Any] = {
            "interval": f"{self._step}m",
            "input_series": self._written(),
            "promql_expr_test": tests,
        }
        test["alert_rule_test"] = self._texts
        # Recordings come before the alerts that read them.
        order = sorted(
            (group["name"] for group in GROUPS), key=lambda name: not name.endswith("-recordings")
        )
        run_promtool(
            path, tests=[test], group_eval_order=order, evaluation_interval=test["interval"]
        )


def _server(name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the labels of a server in its info, and in all other series."""
    return (
        {"server_id": f"id-{name}", "name": name},
        {"server_id": f"id-{name}", "server": name},
    )


def run_promtool(path: Path, **tests: Any) -> None:
    """Write tests of all rules, and run them."""
    path.write_text(json.dumps({"rule_files": list(map(str, FILES))} | tests))
    result = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def _fire(expression: str, minute: int, alerts: Iterable[Alert]) -> dict[str, Any]:
    """Make a test for exactly these alerts. How many there are of a kind does not matter."""
    pairs = [alert.split() for alert in {*alerts}]
    samples = [
        {"labels": f'{{alertname="{name}",severity="{severity}"}}', "value": 1}
        for name, severity in pairs
    ]
    return {"expr": f"{expression} ^ 0", "eval_time": f"{minute}m", "exp_samples": samples}


def scenarios(cases: Mapping[str, Scenario]) -> Callable[[Scenario, Path], None]:
    """Make a test of a table of scenarios. Those of more than a day take long."""
    slow = pytest.mark.soak
    rows = [
        pytest.param(one, id=name, marks=[slow] if one.end > DAY else [])
        for name, one in cases.items()
    ]

    @pytest.mark.parametrize("miner", rows)
    def test(miner: Scenario, tmp_path: Path) -> None:
        miner.check(tmp_path, **miner.expected)

    return test


def _at(changes: Mapping[int, Any], minute: int) -> Any:
    """Return the value that holds at a minute."""
    past = [at for at in changes if at <= minute]
    return changes[max(past)] if past else None


def _sequence(values: Iterable[str]) -> str:
    """Write values in promtool's notation.

    A series that ends gets a marker, as after a scrape without it.
    """
    parts, present = [], False
    for value, run in groupby(values):
        count = len(list(run))
        if value == "_":
            parts += ["stale"] if present else ["_"]
            parts += [f"_x{count - 1}"] if count > 1 else []
        else:
            parts.append(f"{value}+0x{count - 1}")
        present = value != "_"
    return " ".join(parts)
