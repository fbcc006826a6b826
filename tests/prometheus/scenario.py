"""Scenarios for promtool: what a page says minute by minute, and which alerts fire then."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

from chutes_exporter.fleet.servers import SERVER_STATES
from chutes_exporter.fleet.upgrades import STEPS
from tests.prometheus.rule_files import GROUPS
from tests.promtool import FIRING, run_promtool, sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chutes_exporter.fleet.gpus import GpuState

ALERTS: Final[list[dict[str, Any]]] = [
    rule for group in GROUPS for rule in group["rules"] if "alert" in rule
]
"""Rules of alerts. Several can share a name, with other severities."""

HOTKEY: Final = "5Me"
HOUR: Final = 60
DAY: Final = 24 * HOUR
"""Minutes."""
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
Labels = tuple[tuple[str, str], ...]
Changes = dict[int, Any]
"""The values of a series by the minutes from which on they hold. None is no series."""


class Scenario:
    """A healthy miner, to which a test lets things happen.

    Times are minutes from the start of the history.

    Args:
        end: The last minute.
        servers: The number of GPUs of each server.
        exporters: Addresses of the exporters that watch the miner.
        step: Minutes between two scrapes, and between two evaluations. By default, they are more
            in long histories, because promtool is slow.
    """

    def __init__(
        self,
        end: int,
        servers: Mapping[str, int] | None = None,
        exporters: Sequence[str] = ("one:1",),
        step: int | None = None,
    ) -> None:
        self.end = end
        self._step = step or _default_step(end)
        self._minutes = range(0, end + 1, self._step)
        self._series: dict[tuple[str, Labels], Changes] = {}
        # The states of each GPU, and the maintenance of each server.
        self._gpu_states: dict[str, Changes] = {}
        self._server_of_gpu: dict[str, str] = {}
        self._maintenance: dict[str, Changes] = {}
        self._idle_pay: float | None = None
        # By exporter, the minutes at which its scrapes fail, and those at which it is a target.
        self._failing: dict[str, set[int]] = {exporter: set() for exporter in exporters}
        self._is_target = dict.fromkeys(exporters, range(end + 1))
        self._public_instances: set[str] = set()
        self.expected: dict[str, Any] = {}
        self._expected_texts: list[dict[str, Any]] = []
        self._set_miner()
        self._set_feed("metagraph", "", max_age=3600)
        self._set_feed("scores", "", max_age=1800)
        self._set_feed("instances", HOTKEY, max_age=600)
        self.set("chutes_feed_records", 1, feed="nodes", hotkey=HOTKEY)
        for topic in ("servers", "gpus", "instances", "pay"):
            self.set("chutes_fleet_known", 1, topic=topic)
        for server, gpus in (servers or {}).items():
            info = {"server_id": f"id-{server}", "name": server, "version": "0.2.5"}
            self.set("chutes_server_info", 1, **info)
            gpu_ids = [f"{server}-{number}" for number in range(gpus)]
            self._server_of_gpu |= dict.fromkeys(gpu_ids, server)
            self.state(0, gpu_ids, "earning")

    def _set_miner(self) -> None:
        """Let the miner have a score, and a seat that is 90 days old at the start.

        The start is the Unix time 0.
        """
        self.set("chutes_miner_watched", 1)
        self.set("chutes_miner_registered", 1)
        self.set("chutes_miner_blacklisted", 0)
        self.set("chutes_miner_registered_timestamp_seconds", -90 * 86400)
        self.set("chutes_miner_incentive_ratio", 0.02)
        self.set("chutes_miner_incentive_rank", 60)
        self.set("chutes_miner_score_ratio", 0.02)
        self.set("chutes_miner_score_heading_ratio", 0.02)
        self.set("chutes_miner_window_compute_units", 1000, window="7d")
        self.set("chutes_exporter_build_info", 1, version="1")
        self.set("chutes_metagraph_miners", 256)
        self.set("chutes_scored_miners", 60)

    def _set_feed(self, feed: str, hotkey: str, *, max_age: int) -> None:
        """Let a feed always have a new and full answer."""
        labels = {"feed": feed, "hotkey": hotkey}
        self.set("chutes_feed_records", 1, **labels)
        self.set("chutes_feed_up", 1, **labels)
        self.set("chutes_feed_last_success_timestamp_seconds", NOW, **labels)
        self.set("chutes_feed_max_age_seconds", max_age, **labels)

    def set(self, name: str, value: float | str, at: int = 0, /, **labels: str) -> Self:
        """Let a series have a value from a minute on. Those of the miner get its hotkey.

        With the label instance, this is so at one exporter only.
        """
        if name.startswith(OF_MINER):
            labels = {"hotkey": HOTKEY} | labels
        self._series.setdefault((name, tuple(labels.items())), {})[at] = value
        return self

    def drop(self, at: int, name: str, /, **labels: str) -> Self:
        """Leave series out from a minute on: those of a name with some labels.

        With the label instance, this is so at one exporter only.
        """
        exporter = [("instance", labels.pop("instance"))] if "instance" in labels else []
        found = [
            series_labels
            for series, series_labels in self._series
            if series == name and labels.items() <= dict(series_labels).items()
        ]
        assert found, f"there is no {name} with {labels}"
        for series_labels in found:
            self._series.setdefault((name, (*series_labels, *exporter)), {})[at] = None
        return self

    def state(self, at: int, gpu_ids: Iterable[str], state: str | None) -> Self:
        """Change the state of GPUs; with None, they disappear."""
        for gpu_id in gpu_ids:
            self._gpu_states.setdefault(gpu_id, {})[at] = state
        return self

    def pays(self, units: float) -> Self:
        """Let an idle GPU be worth so many compute units a second, in a chute that can be launched
        now. Without a call, it is not known what can be launched.
        """
        self._idle_pay = units
        return self

    def instance(
        self,
        number: str,
        at: int = 0,
        *,
        server: str = "",
        private: bool = True,
        purge: int | None = None,
    ) -> Self:
        """Add an instance that is starting.

        Args:
            number: Its id.
            at: The minute of the first page that shows it.
            server: Its server, empty if that is unknown.
            private: Whether it is a private instance.
            purge: The minute from which on the service purges it, None for 3.5 hours later.
        """
        if not private:
            self._public_instances.add(number)
        labels = self._of_instance(number)
        purged_at = at + 210 if purge is None else purge
        self.set("chutes_chute_info", 1, chute_id="chute-1", name="glm-5")
        self._set_instance_state(number, "starting", at)
        self.set(DEADLINE, 60 * purged_at, at, **labels, deadline="purge")
        if server:
            self.set("chutes_instance_gpus", 1, at, **labels, **_of_server(server), gpu="pro_6000")
        return self

    def _of_instance(self, number: str) -> dict[str, str]:
        """Return the labels of an instance."""
        private = "false" if number in self._public_instances else "true"
        return {"instance_id": number, **CHUTE, "private": private}

    def _set_instance_state(self, number: str, state: str, at: int) -> None:
        """Let an instance be in a state from a minute on, and in no other."""
        labels = self._of_instance(number)
        for name in ("active", "starting", "disabled"):
            self.set("chutes_instance_state", int(name == state), at, **labels, state=name)

    def disable(self, number: str, at: int) -> Self:
        """Let the miner disable an active instance."""
        self._set_instance_state(number, "disabled", at)
        return self

    def activate(self, number: str, at: int) -> Self:
        """Let an instance become active."""
        self._set_instance_state(number, "active", at)
        return self.drop(at, DEADLINE, instance_id=number)

    def remove(self, number: str, at: int) -> Self:
        """Let an instance end."""
        names = {name for name, labels in self._series if ("instance_id", number) in labels}
        for name in names:
            self.drop(at, name, instance_id=number)
        return self

    def earns(self, server: str, instances: int) -> Self:
        """Let instances of one GPU earn on a server from the start."""
        for number in range(instances):
            name = f"i-{server}-{number}"
            self.instance(name, server=server).activate(name, 0)
        return self

    def maintain(self, at: int, server: str, state: str) -> Self:
        """Let a TEE server be in a state of maintenance."""
        self._maintenance.setdefault(server, {})[at] = state
        # This series says that the exporter has the whole answer about maintenance.
        self.set("chutes_feed_records", 1, feed="maintenance", hotkey=HOTKEY)
        labels = _of_server(server)
        for name in ("none", "pending", "maintenance"):
            is_state = int(name == state)
            self.set("chutes_server_maintenance_state", is_state, at, **labels, state=name)
        return self

    def step(self, at: int, server: str, step: str, done: int | None = None) -> Self:
        """Let a TEE server that needs the upgrade have a step, and be done at a minute."""
        labels = _of_server(server)
        self.set("chutes_server_upgrade_needed", 1, at, **labels)
        for name in STEPS:
            if name != "not known":
                self.set(
                    "chutes_server_maintenance_step", int(name == step), at, **labels, step=name
                )
        if done is not None:
            self.set("chutes_server_upgrade_done_timestamp_seconds", 60 * done, at, **labels)
        return self

    def window(self, end: int) -> Self:
        """Let an upgrade window be open that ends at a minute."""
        self.set("chutes_maintenance_window_open", 1)
        self.set("chutes_maintenance_window_end_timestamp_seconds", 60 * end)
        return self.set("chutes_maintenance_window_info", 1, target_version="0.3.0")

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
        self._failing[exporter].update(minutes)
        return self

    def target(self, exporter: str, begin: int, end: int) -> Self:
        """Let an exporter be among the targets for some time."""
        self._is_target[exporter] = range(begin, end)
        return self

    def fires(self, firing: Mapping[int, Iterable[Alert]], **more: Any) -> Self:
        """Let a test of :func:`scenarios` expect alerts, as :meth:`check` takes them."""
        self.expected = {"firing": firing, **more}
        return self

    def says(
        self, alert: Alert, minute: int, summary: str, description: str = "", **labels: str
    ) -> Self:
        """Let :meth:`check` expect the texts that a reader gets.

        Args:
            alert: The alert.
            minute: When it fires.
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
        self._expected_texts.append(
            {"alertname": name, "eval_time": f"{minute}m", "exp_alerts": [expected]}
        )
        return self

    def _series_of(self, exporter: str) -> dict[tuple[str, Labels], Changes]:
        """Return the changes of each series of an exporter: its own, and those of all exporters."""
        found: dict[tuple[str, Labels], Changes] = defaultdict(dict)
        for (name, labels), changes in self._series.items():
            if dict(labels).get("instance", exporter) == exporter:
                series = name, tuple(label for label in labels if label[0] != "instance")
                found[series] |= changes
        return found

    def _page_over_time(self, exporter: str) -> dict[str, list[str]]:
        """Return the values of each series of an exporter at each scrape.

        A series is written without its last labels, which are those of the target, such as
        ``chutes_fleet_gpus{hotkey="5Me",``. The value ``_`` is none.
        """
        page: dict[str, list[str]] = {}
        if self._gpu_states:
            page |= self._fleet_over_time()
        for server in dict.fromkeys(self._server_of_gpu.values()):
            page |= self._server_over_time(server)
        for (name, labels), changes in self._series_of(exporter).items():
            pairs = "".join(f"{label}={json.dumps(value)}," for label, value in labels)
            page[f"{name}{{{pairs}"] = [self._value(changes, minute) for minute in self._minutes]
        return page

    def _value(self, changes: Changes, minute: int) -> str:
        """Return the text of the value that a series has at a minute."""
        value = _at(changes, minute)
        if value is None:
            return "_"
        return str(60 * minute if value == NOW else value)

    def _fleet_over_time(self) -> dict[str, list[str]]:
        """Return the number of GPUs in each state at each scrape."""
        gpus = self._gpu_states.values()
        counts = [Counter(_at(states, minute) for states in gpus) for minute in self._minutes]
        values = {}
        for state in STATES:
            series = f'chutes_fleet_gpus{{hotkey="{HOTKEY}",gpu="pro_6000",state="{state}",'
            values[series] = [str(count[state]) for count in counts]
        return values

    def _server_over_time(self, server: str) -> dict[str, list[str]]:
        """Return the values of the series that follow from the states of a server's GPUs.

        Without GPUs, it has no series.
        """
        values: dict[str, list[str]] = defaultdict(list)
        for minute in self._minutes:
            counts = self._gpus_by_state(server, minute)
            for series, value in self._numbers_of_server(server, counts).items():
                is_shown = counts and value is not None
                values[series].append(str(value) if is_shown else "_")
            maintenance = _at(self._maintenance.get(server, {}), minute)
            present = _server_state(counts, maintenance) if counts else None
            for state in SERVER_STATES:
                series = f'chutes_server_state{{{_written_labels(server)}state="{state}",'
                values[series].append(str(int(state == present)) if present else "_")
        return values

    def _gpus_by_state(self, server: str, minute: int) -> Counter[str]:
        """Return how many GPUs of a server have which state at a minute."""
        gpu_ids = [gpu_id for gpu_id, place in self._server_of_gpu.items() if place == server]
        states = [_at(self._gpu_states[gpu_id], minute) for gpu_id in gpu_ids]
        return Counter(state for state in states if state is not None)

    def _numbers_of_server(self, server: str, counts: Counter[str]) -> dict[str, float | None]:
        """Return the values of a server's series, None for unknown ones.

        Args:
            server: The server.
            counts: Its GPUs by state.
        """
        labels = _written_labels(server)
        numbers: dict[str, float | None] = {}
        for state in STATES:
            series = f'chutes_server_gpus{{{labels}gpu="pro_6000",state="{state}",'
            numbers[series] = counts[state]
        idle_series = f"chutes_server_idle_compute_units_per_second{{{labels}"
        if counts["idle"]:
            pay = self._idle_pay
            numbers[idle_series] = None if pay is None else counts["idle"] * pay
        else:
            # What GPUs could earn that are not verified is not known.
            numbers[idle_series] = None if counts["unverified"] else 0
        return numbers

    def _input_series(self) -> list[dict[str, str]]:
        """Return the scrapes of all exporters, as promtool reads them."""
        written = []
        for exporter, failing in self._failing.items():
            target = f'job="chutes",instance="{exporter}"}}'
            up = []
            for minute in self._minutes:
                if minute not in self._is_target[exporter]:
                    up.append("_")
                else:
                    up.append("0" if minute in failing else "1")
            written.append({"series": f"up{{{target}", "values": sequence(up)})
            for series, values in self._page_over_time(exporter).items():
                scraped = [
                    value if is_up == "1" else "_" for value, is_up in zip(values, up, strict=True)
                ]
                written.append({"series": f"{series}{target}", "values": sequence(scraped)})
        return written

    def check(
        self,
        firing: Mapping[int, Iterable[Alert]],
        *,
        ever: Iterable[Alert] | None = None,
        values: Mapping[str, Mapping[int, Mapping[str, float]]] | None = None,
    ) -> None:
        """Evaluate all rules with promtool.

        Args:
            firing: All alerts that fire at a minute, the Watchdog excepted.
            ever: All alerts that fire at any minute; those of `firing` where it is None.
            values: By expression and minute: the expected value of each series, which is written
                as in PromQL.
        """
        if ever is None:
            ever = {alert for alerts in firing.values() for alert in alerts}
        series_of_history = f"last_over_time({FIRING}[{self.end + 1}m])"
        tests = [_expect_alerts(FIRING, minute, alerts) for minute, alerts in firing.items()]
        tests.append(_expect_alerts(series_of_history, self.end, ever))
        for expression, by_minute in (values or {}).items():
            for minute, expected in by_minute.items():
                tests.append(_expect_values(expression, minute, expected))
        test: dict[str, Any] = {
            "interval": f"{self._step}m",
            "input_series": self._input_series(),
            "promql_expr_test": tests,
            "alert_rule_test": self._expected_texts,
        }
        run_promtool(tests=[test], evaluation_interval=test["interval"])


def _default_step(end: int) -> int:
    """Return the minutes between two scrapes of a history that ends at a minute."""
    if end <= 30:
        return 1
    if end < 2 * HOUR:
        return 2
    return 4 if end < 6 * HOUR else 8


def _of_server(server: str) -> dict[str, str]:
    """Return the labels of a server. Its info has ``name`` instead of ``server``."""
    return {"server_id": f"id-{server}", "server": server}


def _written_labels(server: str) -> str:
    """Return the beginning of the labels of a server's series."""
    return f'hotkey="{HOTKEY}",server_id="id-{server}",server="{server}",'


def _server_state(counts: Counter[str], maintenance: str | None) -> str:
    """Return the state of a server with some GPUs, the first that applies."""
    if maintenance == "pending":
        return "maintenance_pending"
    if maintenance == "maintenance":
        return "in_maintenance"
    return next(state for state in STATES if counts[state])


def _expect_alerts(series: str, minute: int, alerts: Iterable[Alert]) -> dict[str, Any]:
    """Make a test for exactly these alerts. How many there are of a kind does not matter.

    ``series`` is PromQL for the series ALERTS that count.
    """
    expected = {}
    for alert in alerts:
        name, severity = alert.split()
        expected[f'{{alertname="{name}",severity="{severity}"}}'] = 1
    # Every number to the power of 0 is 1.
    return _expect_values(f"count by (alertname, severity) ({series}) ^ 0", minute, expected)


def _expect_values(expr: str, minute: int, expected: Mapping[str, float]) -> dict[str, Any]:
    """Make a test of the series that an expression returns."""
    samples = [{"labels": labels, "value": value} for labels, value in expected.items()]
    return {"expr": expr, "eval_time": f"{minute}m", "exp_samples": samples}


def scenarios(cases: Mapping[str, Scenario]) -> Callable[[Scenario], None]:
    """Make a test that checks each scenario of a table. Those of more than a day take long."""
    rows = []
    for name, scenario in cases.items():
        marks = [pytest.mark.soak] if scenario.end > DAY else []
        rows.append(pytest.param(scenario, id=name, marks=marks))

    @pytest.mark.parametrize("miner", rows)
    def test(miner: Scenario) -> None:
        miner.check(**miner.expected)

    return test


def _at(changes: Mapping[int, Any], minute: int) -> Any:
    """Return the value that holds at a minute, None before the first one."""
    past = [at for at in changes if at <= minute]
    return changes[max(past)] if past else None
