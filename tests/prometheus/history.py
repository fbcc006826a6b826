"""What exporters show about a miner, minute by minute, as series for promtool."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from chutes_exporter.fleet.gpus import GPU_STATES
from chutes_exporter.fleet.servers import SERVER_STATES
from chutes_exporter.fleet.upgrades import STEPS
from tests.fleet.support import make_gpus, make_server
from tests.promtool import sequence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.fleet.gpus import Gpu
    from chutes_exporter.fleet.servers import Server
    from chutes_exporter.rules.maintenance import MaintenanceStatus
    from tests.pages import Labels

HOTKEY: Final = "5Me"
HOUR: Final = 60
DAY: Final = 24 * HOUR
"""Minutes."""
PAIR: Final = ("one:1", "two:2")
"""Two exporters."""
DEADLINE: Final = "chutes_instance_deadline_timestamp_seconds"
CHUTE: Final = {"chute_id": "chute-1", "chute": "glm-5"}
"""The chute of all instances."""
MODEL: Final = "pro_6000"
"""The model of all GPUs."""
NOW: Final = "now"
"""The value of a time that each scrape moves on."""
_WITH_HOTKEY: Final = tuple(
    f"chutes_{topic}_"
    for topic in ("fleet", "instance", "jobs", "launch", "maintenance", "miner", "server")
)
"""How the names of series start that have the label hotkey."""


class Series(NamedTuple):
    """A series of an exporter, without the labels that Prometheus adds."""

    name: str
    labels: Labels


Changes = dict[int, float | str | None]
"""The values of a series by the minutes from which on they hold. None is no series."""


@dataclass(eq=False)
class History:
    """What exporters show about a healthy miner, to which a test lets things happen.

    Times are minutes from the start, which is the Unix time 0. What a method changes holds from the
    minute ``at`` on, the start by default. Changes of the same series come in the order of time.

    Args:
        end: The last minute.
        servers: The number of GPUs of each server.
        exporters: Addresses of the exporters that watch the miner.
        interval: Minutes between two scrapes. By default, they are more in long histories, because
            promtool is slow.
        idle_pay: What an idle GPU would earn in the best chute that can be launched now, in compute
            units a second. None while it is not known what can be launched.
    """

    end: int
    servers: Mapping[str, int] = field(default_factory=dict)
    exporters: Sequence[str] = ("one:1",)
    _: KW_ONLY
    interval: int = 0
    idle_pay: float | None = None

    def __post_init__(self) -> None:
        self.interval = self.interval or _default_interval(self.end)
        self._pages: dict[str, dict[Series, Changes]] = {}
        # The value of the series `up` at each minute.
        self._up: dict[str, dict[int, str]] = {}
        for exporter in self.exporters:
            self._pages[exporter] = defaultdict(dict)
            self._up[exporter] = dict.fromkeys(range(self.end + 1), "1")
        self._servers = {name: make_server(f"id-{name}", name=name) for name in self.servers}
        self._instances: dict[str, dict[str, str]] = {}
        self._set_healthy()

    def _set_healthy(self) -> None:
        """Let a miner earn, whose seat is 90 days old at the start, and let the API answer."""
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
        for feed, max_age in {"metagraph": 3600, "scores": 1800, "instances": 600}.items():
            labels = _feed_labels(feed)
            self.set("chutes_feed_records", 1, at=0, **labels)
            self.set("chutes_feed_up", 1, at=0, **labels)
            self.set("chutes_feed_last_success_timestamp_seconds", NOW, at=0, **labels)
            self.set("chutes_feed_max_age_seconds", max_age, at=0, **labels)
        self.set("chutes_feed_records", 1, at=0, **_feed_labels("nodes"))
        for topic in ("servers", "gpus", "instances", "pay"):
            self.set("chutes_fleet_known", 1, topic=topic)
        for server, gpus in self.servers.items():
            info = {"server_id": f"id-{server}", "name": server, "version": "0.2.5"}
            self.set("chutes_server_info", 1, at=0, **info)
            self.set_gpus(server, earning=gpus)

    def set(
        self,
        name: str,
        value: float | str | None,
        /,
        *,
        at: int = 0,
        exporter: str = "",
        **labels: str,
    ) -> Self:
        """Let a series have a value, at one exporter or at all. None is no series.

        Series about the miner get its hotkey.
        """
        if name.startswith(_WITH_HOTKEY):
            labels = {"hotkey": HOTKEY} | labels
        series = Series(name, frozenset(labels.items()))
        for page in self._pages_of(exporter):
            assert at >= max(page[series], default=0), f"{series} has a later change"
            page[series][at] = value
        return self

    def drop(self, name: str, /, *, at: int = 0, exporter: str = "", **labels: str) -> Self:
        """Leave out the series with a name and some labels, at one exporter or at all.

        With the name ``*``, the series with any name.
        """
        found = set()
        for page in self._pages_of(exporter):
            for series in page:
                if name in (series.name, "*") and labels.items() <= series.labels:
                    found.add(series)
        assert found, f"there is no {name} with {labels}"
        for series in found:
            self.set(series.name, None, at=at, exporter=exporter, **dict(series.labels))
        return self

    def _pages_of(self, exporter: str) -> list[dict[Series, Changes]]:
        return [self._pages[exporter]] if exporter else [*self._pages.values()]

    def set_gpus(self, server: str, *, at: int = 0, **counts: int) -> Self:
        """Let a server have GPUs in some states, such as ``idle=3, earning=5``.

        Without any, the exporters show neither GPUs nor a state of it.
        """
        gpus: list[Gpu] = []
        for state in GPU_STATES:
            gpus += make_gpus(state, counts.pop(state, 0))
        assert not counts, f"GPUs have no such state: {counts}"
        changed = self._servers[server] = replace(self._servers[server], gpus=tuple(gpus))
        labels = server_labels(server)
        for state in GPU_STATES:
            count = changed.count_in(state) if gpus else None
            of_state = {"gpu": MODEL, "state": state}
            self.set("chutes_server_gpus", count, at=at, **labels, **of_state)
            in_fleet = sum(len(one.gpus_in(state)) for one in self._servers.values())
            self.set("chutes_fleet_gpus", in_fleet, at=at, **of_state)
        pay = self._pay_of_idle_gpus(changed)
        self.set("chutes_server_idle_compute_units_per_second", pay, at=at, **labels)
        return self._set_server_state(server, at)

    def _pay_of_idle_gpus(self, server: Server) -> float | None:
        if idle := server.gpus_in("idle"):
            return None if self.idle_pay is None else len(idle) * self.idle_pay
        # What GPUs could earn that are not verified is not known.
        return 0 if server.gpus and not server.gpus_in("unverified") else None

    def set_maintenance(self, server: str, status: MaintenanceStatus, *, at: int = 0) -> Self:
        """Let the maintenance of a TEE server have a status."""
        self._servers[server] = replace(
            self._servers[server], maintenance=status, holds_slot=status != "none"
        )
        # This series says that the exporter has the whole answer about maintenance.
        self.set("chutes_feed_records", 1, at=at, **_feed_labels("maintenance"))
        labels = server_labels(server)
        for state in ("none", "pending", "maintenance"):
            is_state = int(state == status)
            self.set("chutes_server_maintenance_state", is_state, at=at, **labels, state=state)
        return self._set_server_state(server, at)

    def _set_server_state(self, server: str, at: int) -> Self:
        """Let the series of a server's state say what the package makes of its GPUs and its
        maintenance.
        """
        present = self._servers[server]
        labels = server_labels(server)
        for state in SERVER_STATES:
            is_state = int(state == present.state) if present.gpus else None
            self.set("chutes_server_state", is_state, at=at, **labels, state=state)
        return self

    def open_window(self, *, end: int) -> Self:
        """Let an upgrade window be open from the start to a minute."""
        self.set("chutes_maintenance_window_open", 1)
        self.set("chutes_maintenance_window_end_timestamp_seconds", 60 * end)
        return self.set("chutes_maintenance_window_info", 1, target_version="0.3.0")

    def set_step(
        self,
        server: str,
        step: str,
        *,
        at: int = 0,
        exporter: str = "",
        done_at: int | None = None,
    ) -> Self:
        """Let a TEE server that needs the upgrade have a step, and be done at a minute."""
        labels = server_labels(server) | {"exporter": exporter}
        self.set("chutes_server_upgrade_needed", 1, at=at, **labels)
        for one in STEPS:
            if one != "not known":
                is_step = int(one == step)
                self.set("chutes_server_maintenance_step", is_step, at=at, **labels, step=one)
        if done_at is not None:
            done = "chutes_server_upgrade_done_timestamp_seconds"
            self.set(done, 60 * done_at, at=at, **labels)
        return self

    def start_instance(
        self,
        instance_id: str,
        *,
        at: int = 0,
        server: str = "",
        private: bool = True,
        purge_at: int | None = None,
    ) -> Self:
        """Let an instance start.

        Args:
            instance_id: Its id.
            at: The minute of the first page that shows it.
            server: Its server, empty if that is unknown.
            private: Whether it is a private instance.
            purge_at: The minute from which on the service purges it, None for 3.5 hours later.
        """
        labels = {"instance_id": instance_id, **CHUTE, "private": str(private).lower()}
        self._instances[instance_id] = labels
        self.set("chutes_chute_info", 1, chute_id="chute-1", name="glm-5")
        self._set_instance_state(instance_id, "starting", at)
        seconds = 60 * (at + 210 if purge_at is None else purge_at)
        self.set(DEADLINE, seconds, at=at, **labels, deadline="purge")
        if server:
            labels = labels | server_labels(server)
            self.set("chutes_instance_gpus", 1, at=at, **labels, gpu=MODEL)
        return self

    def activate_instance(self, instance_id: str, *, at: int = 0) -> Self:
        """Let an instance become active."""
        self._set_instance_state(instance_id, "active", at)
        return self.drop(DEADLINE, at=at, instance_id=instance_id)

    def disable_instance(self, instance_id: str, *, at: int = 0) -> Self:
        """Let the miner disable an active instance."""
        return self._set_instance_state(instance_id, "disabled", at)

    def end_instance(self, instance_id: str, *, at: int = 0) -> Self:
        """Let an instance end."""
        return self.drop("*", at=at, instance_id=instance_id)

    def _set_instance_state(self, instance_id: str, state: str, at: int) -> Self:
        labels = self._instances[instance_id]
        for one in ("active", "starting", "disabled"):
            self.set("chutes_instance_state", int(one == state), at=at, **labels, state=one)
        return self

    def run_instances(self, server: str, number: int) -> Self:
        """Let instances of one GPU earn on a server from the start."""
        for instance in range(number):
            instance_id = f"i-{server}-{instance}"
            self.start_instance(instance_id, server=server).activate_instance(instance_id)
        return self

    def fail_feed(
        self, feed: str, *, at: int = 0, reason: str = "unavailable", exporter: str = ""
    ) -> Self:
        """Let the requests of a feed fail, at one exporter or at all."""
        labels = _feed_labels(feed) | {"exporter": exporter}
        self.set("chutes_feed_up", 0, at=at, **labels)
        self.set("chutes_feed_last_success_timestamp_seconds", 60 * at, at=at, **labels)
        return self.set("chutes_feed_failure_info", 1, at=at, **labels, reason=reason)

    def fail_scrapes(self, *, at: Iterable[int], exporter: str = "") -> Self:
        """Let scrapes fail at some minutes, of one exporter or of all."""
        for name in [exporter] if exporter else self.exporters:
            self._up[name] |= dict.fromkeys(at, "0")
        return self

    def be_target(self, *, at: range, exporter: str) -> Self:
        """Let an exporter be a target of Prometheus at some minutes only."""
        for minute in range(self.end + 1):
            if minute not in at:
                self._up[exporter][minute] = "_"
        return self

    def input_series(self) -> list[dict[str, str]]:
        """Return what Prometheus scrapes from all exporters, in promtool's notation."""
        scrapes = range(0, self.end + 1, self.interval)
        written = []
        for exporter, page in self._pages.items():
            target = f'job="chutes",instance="{exporter}"'
            up = [self._up[exporter][minute] for minute in scrapes]
            written.append({"series": f"up{{{target}}}", "values": sequence(up)})
            for series, changes in page.items():
                pairs = [f"{label}={json.dumps(value)}" for label, value in series.labels]
                identity = f"{series.name}{{{','.join([target, *pairs])}}}"
                values = [self._scraped(exporter, changes, minute) for minute in scrapes]
                written.append({"series": identity, "values": sequence(values)})
        return written

    def _scraped(self, exporter: str, changes: Changes, minute: int) -> str:
        """Return the value of a series that a scrape gets, ``_`` for none."""
        values = [value for at, value in changes.items() if at <= minute]
        if self._up[exporter][minute] != "1" or not values or values[-1] is None:
            return "_"
        return str(60 * minute if values[-1] == NOW else values[-1])


def _default_interval(end: int) -> int:
    if end <= 30:
        return 1
    if end < 2 * HOUR:
        return 2
    return 4 if end < 6 * HOUR else 8


def _feed_labels(feed: str) -> dict[str, str]:
    """Return the labels of a feed. The metagraph and the scores are about all miners."""
    return {"feed": feed, "hotkey": "" if feed in ("metagraph", "scores") else HOTKEY}


def server_labels(server: str) -> dict[str, str]:
    """Return the labels of a server's series."""
    return {"server_id": f"id-{server}", "server": server}
