"""Helpers of many tests: clocks, pages and real servers."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import functools
import inspect
import json
import os
import re
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx
import trustme
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.collectors import COLLECTORS, Collector
from chutes_exporter.config import Address, Settings, make_settings
from chutes_exporter.demo.day import Day
from chutes_exporter.feeds.definitions import AUDIT_REPORT, ENDPOINTS
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.web.app import make_app
from chutes_exporter.web.server import bound_address, open_socket, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
    from typing import Self

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.api.endpoint import Endpoint

HOTKEY = "5GNocjnmB7uTa4jURRRvji6CsUZnEyomrLhpodHdhsLF1Wti"
"""The address that the test seed belongs to, as the API's notes have it."""
TEST_SEED = "0xe1816a6cda3a50d041d5e39be76dbbd9367ebf20377a6b9e9ce12c7808385ba3"
"""The invented seed of the troubled miner of the recorded day. It has no value."""
KEY = Hotkey.from_seed(TEST_SEED, source="test")
NOON = 1_795_521_600.0
"""2026-11-24 12:00:00 UTC."""
AT_22 = 1_796_133_900.0
"""22:00 of the recorded day, where its time stands still: 2026-12-01 14:05:00 UTC."""
PATIENCE = 300.0
"""Seconds that a test waits for something. Even a busy machine needs less."""
PATIENT = {"X-Prometheus-Scrape-Timeout-Seconds": str(PATIENCE)}
"""Headers of a scrape that waits that long."""
RECORDINGS = Path(__file__).parent / "recordings"
ROOT = Path(__file__).parent.parent
RULES = ROOT / "prometheus" / "rules"
GROUPS: Final[list[dict[str, Any]]] = [
    group
    for path in sorted(RULES.glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
]
EVALUATION_ORDER: Final = sorted(
    (group["name"] for group in GROUPS),
    key=lambda name: (name == "chutes-alerts-recordings", not name.endswith("-recordings")),
)
"""Groups of recordings come before the alerts that read them. Those that read alerts come last."""

_T = TypeVar("_T")


SEEDS = {
    "troubled": TEST_SEED,
    "healthy": "0xd2a59eed9e274d87dafff069222e1257caa2ffdd4a0dfb0932f44c0a43b61842",
}
"""The invented seeds of the miners of the recorded day."""


@functools.cache
def recorded_day() -> Day:
    """Return the recorded day, which all tests of a process share."""
    return Day()


Labels = frozenset[tuple[str, str]]
Page = dict[tuple[str, Labels], float]


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def series(name: str, /, **labels: str) -> tuple[str, Labels]:
    """Return the identity of a series."""
    return name, frozenset((label, value) for label, value in labels.items() if value)


def labels_without_name(metric: Mapping[str, str]) -> Labels:
    """Return the labels of a series in an answer of Prometheus."""
    labels = {label: value for label, value in metric.items() if label != "__name__"}
    return series("", **labels)[1]


_LABEL = r'([a-zA-Z_]\w*)="((?:[^"\\]|\\[\\"n])*)"'
_SERIES = re.compile(rf"([a-zA-Z_:][\w:]*)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})?", re.ASCII)


@functools.lru_cache(100_000)
def identity(written: str) -> tuple[str, Labels]:
    """Return the identity of a series that is written as on a text page."""
    match = _SERIES.fullmatch(written)
    assert match is not None, written
    labels = {}
    for label, text in re.findall(_LABEL, match[2] or ""):
        labels[label] = re.sub(r"\\(.)", _unescaped, text)
    return series(match[1], **labels)


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def parse_page(text: str) -> Page:
    """Read a text page; a series that stands twice fails.

    The reference parser takes eight times as long.
    """
    page: Page = {}
    for line in text.split("\n"):
        if line and line[0] != "#":
            written, _, value = line.rpartition(" ")
            key = identity(written)
            assert key not in page, f"{key} stands twice"
            page[key] = float(value)
    return page


def names(page: Page) -> set[str]:
    """Return the names of a page's samples."""
    return {name for name, _ in page}


def asked_by(exporter: Exporter) -> set[str]:
    """Return the names of the feeds with a request in flight."""
    return {state.feed.name for state in exporter.feeds.states().values() if state.flight}


def hold(exporter: Exporter, endpoint: str) -> asyncio.Event:
    """Let the requests to an endpoint wait until the returned event is set."""
    fetch = exporter.client.fetch
    release = asyncio.Event()

    async def held(asked: Endpoint[Any], **more: Any) -> Answer[Any]:
        if asked.name == endpoint:
            await release.wait()
        return await fetch(asked, **more)

    exporter.client.fetch = held  # type: ignore[assignment, method-assign]
    return release


async def page_of(exporter: Exporter, timeout: float = PATIENCE) -> Page:
    """Return an exporter's metrics page."""
    return parse_page((await exporter.metrics(Format.TEXT, timeout=timeout)).decode())


async def read_reports(exporter: Exporter) -> None:
    """Let an exporter read all audit reports of the day.

    The feed reads one report at a time, and is due for the next one only after a pause. Expiring
    its answer leaves out the pause.
    """
    while True:
        await exporter.feeds.read_all([AUDIT_REPORT], PATIENCE)
        await until(lambda: AUDIT_REPORT.name not in asked_by(exporter))
        snapshot = exporter.feeds.peek(AUDIT_REPORT)
        if snapshot is None or not snapshot.answer.value.unread:
            return
        exporter.feeds.expire(AUDIT_REPORT)


def find_collector(name: str) -> Collector:
    """Return the collector of a name."""
    return next(collector for collector in COLLECTORS if collector.name == name)


def count_openmetrics(text: str) -> int:
    """Return how many samples the reference parser finds in an OpenMetrics page."""
    families = parse_openmetrics(text)  # type: ignore[no-untyped-call]
    return sum(len(family.samples) for family in families)


def data_of(page: Page) -> Page:
    """Return the samples of a page about the API's data, without the exporter's own metrics."""
    own = (
        "process_",
        "python_",
        "chutes_api_",
        "chutes_feed_",
        "chutes_scrape_",
        "chutes_exporter_",
    )
    samples = {}
    for key, value in page.items():
        name, _ = key
        # Which miners are watched is a setting of the exporter.
        if not name.startswith(own) and name != "chutes_miner_watched":
            samples[key] = value
    return samples


def successes(page: Page) -> dict[str, float]:
    """Return the success of each collector by name."""
    return {
        dict(labels)["collector"]: value
        for (name, labels), value in page.items()
        if name == "chutes_scrape_collector_success"
    }


@contextlib.asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an application on a free port; yields its base address."""
    with open_socket(Address("127.0.0.1", 0)) as socket:
        async with serving(app, [socket]):
            yield f"http://{bound_address(socket)}"


@contextlib.asynccontextmanager
async def served_exporter(
    settings: Settings, clock: Callable[[], float] | None = None, **more: Callable[[], float]
) -> AsyncIterator[tuple[str, Exporter]]:
    """Serve an exporter on a free port; yields its base address and itself.

    Without a clock, its time stands still at 22:00 of the recorded day. ``more`` is for its other
    clock, `monotonic`.
    """
    async with (
        Exporter(settings, clock=clock or Clock(AT_22), **more) as exporter,
        served(make_app(exporter)) as url,
    ):
        yield url, exporter


def free_port() -> int:
    """Return a port that nobody listens on, and that nobody else gets until this process ends."""
    reserved = socket.socket()
    # A server sets the same option, and may therefore share the port with a socket that does not
    # listen.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    port: int = reserved.getsockname()[1]
    # The end of the Python object would close the socket, and give the port away.
    reserved.detach()
    return port


_IS_DEEP: Final = bool(os.environ.get("CHUTES_EXPORTER_TEST_DEEP"))
"""Whether this is CI's deeper run."""


def examples(count: int) -> int:
    """Return the number of examples of a property test, five times as many in CI's deeper run."""
    return count * (5 if _IS_DEEP else 1)


def some(cases: Sequence[_T]) -> Sequence[_T]:
    """Return a third of the cases, all of them in CI's deeper run."""
    return cases if _IS_DEEP else cases[::3]


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until a condition is true. The condition may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        is_true = condition()
        if inspect.isawaitable(is_true):
            is_true = await is_true
        if is_true:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came true")


def wait_for(
    ask: Callable[[], _T | None],
    process: subprocess.Popen[Any] | None = None,
    why: Callable[[], str] = str,
    pause: float = 0.05,
) -> _T:
    """Return the first true result of a call.

    Args:
        ask: The call. If it raises an OSError, such as for a server that does not listen yet, it
            is called again.
        process: A process that must live until then.
        why: Returns what a failure shows, such as a log.
        pause: Seconds between two calls.
    """
    last_error = ""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            break
        try:
            if answer := ask():
                return answer
        except OSError as error:
            last_error = repr(error)
        time.sleep(pause)
    raise AssertionError(f"it never came true: {last_error}\n{why()}")


def fetch(url: str) -> str:
    """Return a page; raises an OSError for other statuses than 200, too."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        return str(response.read().decode())


def patient_client(headers: Mapping[str, str] | None = None, **arguments: Any) -> httpx.AsyncClient:
    """Return a client that waits as long as a busy machine needs."""
    return httpx.AsyncClient(timeout=PATIENCE, headers=PATIENT | dict(headers or {}), **arguments)


async def get(url: str, **headers: str) -> httpx.Response:
    """Send one GET request."""
    async with patient_client(headers) as client:
        return await client.get(url)


async def scrape(settings: Settings, clock: Clock | None = None) -> Page:
    """Scrape a new exporter once, over a socket."""
    async with served_exporter(settings, clock) as (url, _):
        response = await get(f"{url}/metrics")
    assert response.status_code == 200
    return parse_page(response.text)


def patient(url: str, **more: Any) -> Settings:
    """Return settings of an exporter that waits for the API as long as a busy machine needs."""
    return make_settings(api_url=url, **{"api_timeout": PATIENCE, **more})


def watching(url: str, *keys: Hotkey, **more: Any) -> Settings:
    """Return the settings of an exporter that watches the miners of some keys, or the test
    key's.
    """
    return patient(url, keys=keys or (KEY,), **more)


def recording(directory: Path, name: str) -> bytes:
    """Return a recorded answer. Its file is JSON or a stream."""
    files = [directory / f"{name}.json", directory / f"{name}.stream"]
    (existing,) = [file for file in files if file.exists()]
    return existing.read_bytes()


def replay(
    answers: Mapping[str, bytes],
    reports: Mapping[str, bytes] | None = None,
    now: float | None = None,
) -> Starlette:
    """Make an API that gives recorded answers to every client.

    Args:
        answers: The bodies by the name of the endpoint, or by a name of :func:`_name_of_answer`.
            An endpoint without a body answers 404. A test may change them at any time.
        reports: The audit reports by path, if there are more than the newest.
        now: The time that answers say, if they say one.
    """
    headers = {}
    if now is not None:
        headers["date"] = email.utils.formatdate(now, usegmt=True)

    def body_for(endpoint: str, request: Request) -> bytes | None:
        # Only requests for an audit report have a path.
        path = request.query_params.get("path", "")
        if path and reports is not None:
            return reports.get(path)
        name = _name_of_answer(endpoint, request.query_params)
        # Without an answer about one miner, the one about all miners has to do.
        if name == "stats_per_chute_one" and name not in answers:
            name = "stats_per_chute"
        return answers.get(name)

    def route(endpoint: str) -> Any:
        """Return what answers the requests to an endpoint."""

        async def answer(request: Request) -> Response:
            body = body_for(endpoint, request)
            if body is None:
                return Response(b'{"detail":"Not Found"}', 404, headers)
            return Response(body, 200, headers)

        return answer

    return Starlette(routes=[Route(endpoint.path, route(endpoint.name)) for endpoint in ENDPOINTS])


def _name_of_answer(endpoint: str, asked: Collection[str]) -> str:
    """Return the name of an endpoint's answer to a request.

    Some endpoints have several answers, and ``asked`` are the names of the parameters that choose.
    """
    if endpoint == "held_gpus" and "hotkey" in asked:
        return "miner_gpus"
    if endpoint == "held_gpus" and "detailed" not in asked:
        return "platform_gpus"
    if endpoint == "stats" and "per_chute" in asked:
        return "stats_per_chute_one" if "miner_hotkey" in asked else "stats_per_chute"
    return endpoint


def promtool_complaints(page: bytes) -> str:
    """Return what promtool finds wrong with a text page."""
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, check=False
    )
    return (result.stdout + result.stderr).decode()


def fast_rules(directory: Path) -> list[Path]:
    """Write the rules with their times shortened: windows of 8 to 30 minutes become seconds."""
    written = []
    for source in sorted(RULES.glob("*.yml")):
        rules = yaml.safe_load(source.read_text())
        for group in rules["groups"]:
            group["interval"] = "1s"
            for rule in group["rules"]:
                # Windows become as many seconds as they have minutes.
                rule["expr"] = re.sub(r"\b([89]|[123]\d)m\b", r"\1s", rule["expr"])
                if "alert" in rule:
                    rule |= {"for": "2s", "keep_firing_for": "1s"}
        path = directory / f"fast-{source.name}"
        path.write_text(json.dumps(rules))
        written.append(path)
    return written


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
        return {labels_without_name(row["metric"]): float(row["value"][1]) for row in rows}

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


@dataclass
class Pki:
    """A certificate authority in a folder, with a server's certificate and clients'."""

    folder: Path
    authority: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.issue("server", "127.0.0.1")
        (self.folder / "ca.crt").write_bytes(self.authority.cert_pem.bytes())

    def issue(self, name: str, *identities: str, authority: trustme.CA | None = None) -> None:
        """Write ``NAME.crt`` and ``NAME.key`` for some host names or addresses.

        The certificate is signed by ``authority``, or else by the authority of this folder.
        """
        issued = (authority or self.authority).issue_cert(*identities)
        chain = b"".join(certificate.bytes() for certificate in issued.cert_chain_pems)
        (self.folder / f"{name}.crt").write_bytes(chain)
        (self.folder / f"{name}.key").write_bytes(issued.private_key_pem.bytes())

    def client(self, name: str = "", **options: ssl.TLSVersion) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts the authority.

        Args:
            name: The client certificate that it presents, see :meth:`issue`; none if empty.
            options: Attributes of the context, such as its maximum version of TLS.
        """
        context = ssl.create_default_context(cadata=self.authority.cert_pem.bytes().decode())
        for option, value in options.items():
            setattr(context, option, value)
        if name:
            context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context
