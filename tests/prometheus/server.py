"""A real Prometheus, and its tool."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.pages import Labels, by_labels, labels_without_name
from tests.support import PATIENCE, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Self


def promtool_complaints(page: bytes) -> str:
    """Return what promtool finds wrong with a text page."""
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, check=False
    )
    return (result.stdout + result.stderr).decode()


@dataclass
class Prometheus:
    """The Prometheus that the path finds first, of version 2 or 3, scraping every second.

    Args:
        directory: For its configuration, data and log.
        targets: ``host:port`` of each target.
        scrape_configs: What to scrape, instead.
        rule_files: Rules to evaluate every second.
        alertmanager: ``host:port`` of who gets the alerts.
        remote_write: URL of a store that gets every sample too.
        more: More of its configuration.
        flags: More flags of the program.
        environment: More variables of its environment.
        resend_delay: Time after which it sends an alert again. Alertmanager takes an alert for
            resolved that does not come for four times as long.
    """

    directory: Path
    targets: Iterable[str] = ()
    scrape_configs: Iterable[Mapping[str, Any]] = ()
    rule_files: Iterable[Path] = ()
    alertmanager: str = ""
    remote_write: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)
    flags: Iterable[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    resend_delay: str = "1s"
    url: str = ""
    at: float | None = field(default=None, init=False)
    """The moment that queries see: now, when it is None."""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        """The log of the process."""
        return (self.directory / "log").read_text()

    def _configuration(self) -> dict[str, Any]:
        alertmanagers = []
        if self.alertmanager:
            alertmanagers.append({"static_configs": [{"targets": [self.alertmanager]}]})
        remote_write = []
        if self.remote_write:
            remote_write.append({"url": self.remote_write})
        scrape_configs = list(self.scrape_configs)
        if not scrape_configs:
            targets = [{"targets": list(self.targets)}]
            scrape_configs = [{"job_name": "chutes", "static_configs": targets}]
        return {
            "global": {
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "evaluation_interval": "1s",
            },
            "rule_files": [str(file) for file in self.rule_files],
            "alerting": {"alertmanagers": alertmanagers},
            "remote_write": remote_write,
            "scrape_configs": scrape_configs,
            **self.more,
        }

    def __enter__(self) -> Self:
        """Start the program, and wait until it answers queries."""
        (self.directory / "prometheus.yml").write_text(json.dumps(self._configuration()))
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self.directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.directory / 'data'}",
                    # Some tests write samples of a simulated past.
                    "--storage.tsdb.retention.time=100y",
                    f"--web.listen-address={address}",
                    # Otherwise it takes 5 seconds until the first scrape.
                    "--scrape.discovery-reload-interval=100ms",
                    # It drops what fires before it has found the Alertmanager.
                    f"--rules.alert.resend-delay={self.resend_delay}",
                    "--log.level=debug",
                    "--web.enable-remote-write-receiver",
                    *self.flags,
                ],
                env={**os.environ, **self.environment},
                stderr=log,
                stdout=log,
            )
        try:
            self.wait_for("vector(1)")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(timeout=PATIENCE)
        finally:
            self._process.kill()

    def kill(self) -> None:
        """End the process at once, like a crash."""
        assert self._process is not None
        self._process.kill()

    def api(self, path: str, **parameters: str | float) -> Any:
        """Return an answer of the HTTP API, also if it refuses a query."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code not in (400, 422):
                raise
            return json.load(error)

    def query(self, expression: str) -> dict[Labels, float]:
        """Return the result of an instant query, without metric names."""
        at = {} if self.at is None else {"time": self.at}
        answer = self.api("query", query=expression, **at)
        rows = answer["data"]["result"]
        return by_labels(
            (labels_without_name(row["metric"]), float(row["value"][1])) for row in rows
        )

    def stand_still(self, condition: str = "vector(1)") -> None:
        """Wait until every target was scraped successfully after this call, and let all later
        queries see the time of the last of these scrapes. They show what a test changed before.

        Args:
            condition: PromQL without labels that must have a result, too.
        """
        recent = f"min(up) == 1 and min(timestamp(up)) > {time.time()} and {condition}"
        self.at = max(self.wait_for(f"timestamp(up) and on() ({recent})").values())

    def wait_for(self, expression: str) -> dict[Labels, float]:
        """Return the result of a query as soon as Prometheus listens, and the query has one."""
        return wait_for(
            lambda: self.query(expression),
            self._process,
            lambda: f"no result of {expression}\n{self.log}",
        )
