"""Measures Prometheus or VictoriaMetrics with 250 miners and 30 days: python -m benchmarks.scale.

It prints rows of a table of docs/dev/performance.md. The program is the one that the path finds
first. An exporter over copies of the recorded day writes the pages, and this process serves them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from benchmarks.large_day import LargeDay
from chutes_exporter.config import Address, make_settings
from chutes_exporter.demo.replay import Replay
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.web.server import bound_address, open_socket, serving
from grafana.parts import VARIABLES
from tests.support import Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from starlette.requests import Request

ROOT: Final = Path(__file__).parent.parent
MINUTE: Final = 60
DAY: Final = 86_400
EXPORTERS: Final = 10
MINERS: Final = 25
"""Miners that each exporter watches, with their keys."""
SCRAPES: Final = 10
HISTORY_MINERS: Final = 5
HISTORY_MINUTES: Final = 180
DAYS: Final = 30
SERVERS: Final = 490
"""Servers of all miners, as the pages have them."""
GPU_MINERS: Final = 50
"""Miners whose GPUs have a history of 30 days. The time of their queries is multiplied."""
STEP: Final = 1800
"""Seconds between two points of a panel that shows 30 days in 1,440 points."""
PATIENCE: Final = 600.0
_STATES: Final = ("unverified", "idle", "starting", "disabled", "earning")
_IDS: Final = re.compile(r'\b(hotkey|server_id|instance_id|gpu_id|uuid)="[^"]')
_NAMES: Final = re.compile(r"\b(?:\w+:)?chutes_\w+(?::\w+)?|\bALERTS\w*|\bup\b")


@dataclass
class Running:
    """A program that listens."""

    process: subprocess.Popen[bytes]
    url: str

    def memory(self) -> float:
        """Return the resident memory in megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def cpu(self) -> float:
        """Return the CPU time in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Query:
    """A query of a dashboard."""

    board: str
    panel: str
    expression: str
    is_range: bool


@dataclass(frozen=True)
class Timed:
    """How long a query takes: the least time, and the mean CPU time of the program."""

    query: Query
    seconds: float
    cpu: float
    series: int
    error: str


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


# Pages


async def write_pages(directory: Path, start: float, miners: int, minutes: int) -> None:
    """Write the page of an exporter at each minute, in files that have the Unix time as name."""
    await asyncio.to_thread(directory.mkdir, parents=True)
    clock, day = Clock(start), LargeDay(miners=EXPORTERS * MINERS, keys=miners)
    keys = tuple(day.miners.values())
    async with Replay(day, clock=clock) as api:
        settings = make_settings(api_url=api.url, api_timeout=PATIENCE, keys=keys, max_series=10**9)
        async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
            for _ in range(minutes):
                page = await exporter.metrics(Format.TEXT, timeout=PATIENCE)
                (directory / f"{clock.now:.0f}").write_bytes(page)
                clock.now += MINUTE


def pages_in(directory: Path) -> list[Path]:
    """Return the pages in the order of time."""
    return sorted(directory.iterdir(), key=lambda path: int(path.name))


def samples_of(page: str) -> list[str]:
    """Return the lines of a page that are samples."""
    return [line for line in page.split("\n") if line and not line.startswith("#")]


def dated_samples_of(path: Path, unit: str) -> list[str]:
    """Return the lines of a page with the labels of a target, and with the time of the page."""
    target, found = 'job="chutes",instance="exporter-0:10064"', []
    for line in samples_of(path.read_text()):
        written, _, value = line.rpartition(" ")
        labelled = f"{written[:-1]},{target}}}" if written[-1] == "}" else f"{written}{{{target}}}"
        found.append(f"{labelled} {value} {path.name}{unit}\n")
    return found


def of_target(page: str, target: str) -> str:
    """Return a page with the miners, servers and GPUs of another exporter.

    The first character of each id becomes the number of the exporter.
    """
    return _IDS.sub(rf'\g<1>="{target}', page)


@contextlib.asynccontextmanager
async def served_pages(directory: Path) -> AsyncIterator[str]:
    """Serve the pages of all exporters, each at its minute; yields the address."""
    pages = pages_in(directory)

    async def page(request: Request) -> PlainTextResponse:
        past = [path for path in pages if int(path.name) <= time.time()]
        text = await asyncio.to_thread(past[-1].read_text)
        target = request.path_params["target"]
        return PlainTextResponse(await asyncio.to_thread(of_target, text, target))

    app = Starlette(routes=[Route("/{target}/metrics", page)])
    with open_socket(Address("127.0.0.1", 0)) as opened:
        async with serving(app, [opened]):
            yield str(bound_address(opened))


# Programs


def free_address() -> str:
    """Return an address that nobody listens on."""
    with open_socket(Address("127.0.0.1", 0)) as opened:
        return str(bound_address(opened))


def fetch(url: str, body: bytes | None = None) -> bytes:
    """Return the answer to a request, also if it is an error."""
    try:
        with urllib.request.urlopen(url, data=body, timeout=PATIENCE) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        return error.read()


def wait_until_healthy(running: Running, log: Path, path: str) -> None:
    """Wait until a program listens."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise SystemExit(f"it has ended:\n{log.read_text()}")
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{running.url}{path}", timeout=10),
        ):
            return
        time.sleep(0.2)
    raise SystemExit(f"it does not answer:\n{log.read_text()}")


@contextlib.contextmanager
def started(command: Sequence[str], log: Path, listen: str, path: str) -> Iterator[Running]:
    """Run a program that gets its address by a flag."""
    address = free_address()
    with log.open("wb") as file:
        process = subprocess.Popen([*command, f"{listen}={address}"], stdout=file, stderr=file)
    running = Running(process, f"http://{address}")
    try:
        wait_until_healthy(running, log, path)
        yield running
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def write_config(directory: Path, address: str, *, rules: bool) -> Path:
    """Write a configuration with the times and rules of prometheus/prometheus.yml."""
    targets = []
    for number in range(EXPORTERS if address else 0):
        labels = {"instance": f"exporter-{number}:10064", "__metrics_path__": f"/{number}/metrics"}
        targets.append({"targets": [address], "labels": labels})
    config: dict[str, Any] = {
        "global": {"scrape_interval": "1m", "scrape_timeout": "30s", "evaluation_interval": "1m"},
        "scrape_configs": [{"job_name": "chutes", "static_configs": targets}],
    }
    if rules:
        config["rule_files"] = [str(ROOT / "prometheus" / "rules" / "*.yml")]
    path = directory / "config.yml"
    path.write_text(json.dumps(config))
    return path


def store(
    program: str, directory: Path, address: str = ""
) -> contextlib.AbstractContextManager[Running]:
    """Run the program on the data in a folder.

    Args:
        program: Its name.
        directory: Where its configuration, log and data are.
        address: Where it scrapes the pages, if it does, and then it has rules.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if program == "prometheus":
        return prometheus(directory, address)
    return victoria_metrics(directory, address)


def prometheus(directory: Path, address: str) -> contextlib.AbstractContextManager[Running]:
    """Run Prometheus, which does not compact the blocks of a history while queries run."""
    command = [
        "prometheus",
        f"--config.file={write_config(directory, address, rules=bool(address))}",
        f"--storage.tsdb.path={directory / 'data'}",
        "--storage.tsdb.retention.time=1y",
        "--storage.tsdb.max-block-duration=1d",
    ]
    return started(command, directory / "log", "--web.listen-address", "/-/ready")


@contextlib.contextmanager
def victoria_metrics(directory: Path, address: str) -> Iterator[Running]:
    """Run VictoriaMetrics, and vmalert if it scrapes."""
    log = directory / "log"
    command = [
        "victoria-metrics",
        f"-storageDataPath={directory / 'data'}",
        "-retentionPeriod=1y",
        "-search.latencyOffset=0s",
        "-search.disableCache",
        # As docs/operations.md says for many miners, and patient where cores are busy.
        "-search.maxQueryLen=128KiB",
        "-search.maxQueryDuration=5m",
    ]
    if address:
        config = write_config(directory, address, rules=False)
        command += [f"-promscrape.config={config}", "-promscrape.config.strictParse=false"]
    with started(command, log, "-httpListenAddr", "/health") as running:
        if not address:
            yield running
            return
        with rules_on(running, log):
            yield running


@contextlib.contextmanager
def rules_on(running: Running, log: Path) -> Iterator[Running]:
    """Let vmalert evaluate the rules on a VictoriaMetrics."""
    urls = [f"-{name}.url={running.url}" for name in ("datasource", "remoteWrite", "remoteRead")]
    rules = f"-rule={ROOT / 'prometheus' / 'rules' / '*.yml'}"
    command = ["vmalert", rules, *urls, "-notifier.blackhole", "-evaluationInterval=1m"]
    with started(command, log.with_name("vmalert.log"), "-httpListenAddr", "/health") as vmalert:
        yield vmalert
        say(f"  vmalert: {vmalert.memory():.0f} MB, {vmalert.cpu():.0f} s of CPU time")


# Queries


def queries_of_boards() -> list[Query]:
    """Return all queries of the dashboards."""
    found = []
    for path in sorted((ROOT / "grafana" / "dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        panels = list(board["panels"])
        for row in board["panels"]:
            panels += row.get("panels", [])
        for panel in panels:
            for target in panel.get("targets", []):
                is_range = bool(target.get("range"))
                found.append(Query(path.stem, panel["title"], target["expr"], is_range))
    return found


def filled_in(expression: str, hotkeys: Sequence[str]) -> str:
    """Fill in Grafana's variables: everything is chosen, and all miners."""
    values = {f"${name}": one.all_value for name, one in VARIABLES.items() if one.all_value}
    values |= {"$hotkey": f"({'|'.join(hotkeys)})", "$miner": hotkeys[0]}
    values["$__rate_interval"] = f"{STEP}s"
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


def time_query(
    running: Running, query: Query, hotkeys: Sequence[str], end: float, times: int
) -> Timed:
    """Ask a query some times. A query of a range asks for 30 days."""
    asked = {"query": filled_in(query.expression, hotkeys), "time": f"{end:.0f}"}
    path = "query"
    if query.is_range:
        path = "query_range"
        asked |= {"start": f"{end - DAYS * DAY:.0f}", "end": f"{end:.0f}", "step": str(STEP)}
    body = urllib.parse.urlencode(asked).encode()
    seconds, answer = [], {}
    before = running.cpu()
    for _ in range(times):
        began = time.monotonic()
        answer = json.loads(fetch(f"{running.url}/api/v1/{path}", body))
        seconds.append(time.monotonic() - began)
    cpu = (running.cpu() - before) / times
    series = len(answer.get("data", {}).get("result", []))
    return Timed(query, min(seconds), cpu, series, answer.get("error", ""))


def say_slowest(what: str, timed: Sequence[Timed], shown: int) -> None:
    """Print the slowest queries, and those that fail."""
    for one in sorted(timed, key=lambda one: -one.cpu)[:shown]:
        say(
            f"  {what}: {one.seconds:.2f} s, {one.cpu:.2f} s of CPU time, "
            f"{one.series} series: {one.query.board}, {one.query.panel!r}: "
            f"{one.query.expression[:80]!r}"
        )
    for one in timed:
        if one.error:
            say(f"  failed: {one.query.board}, {one.query.panel!r}: {one.error[:200]}")


# What is measured


def scalar(running: Running, query: str) -> float:
    """Return the number that a query has as result, or NaN."""
    url = f"{running.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    result = json.loads(fetch(url))["data"]["result"]
    return float(result[0]["value"][1]) if result else float("nan")


def own_metric(running: Running, name: str) -> float:
    """Return the sum of a metric of the program about itself."""
    total = 0.0
    for line in samples_of(fetch(f"{running.url}/metrics").decode()):
        if re.match(rf"{re.escape(name)}[{{ ]", line):
            total += float(line.rpartition(" ")[2])
    return total


def watched(running: Running) -> list[str]:
    """Return the hotkeys of all miners."""
    url = f"{running.url}/api/v1/query?query=chutes_miner_watched"
    rows = json.loads(fetch(url))["data"]["result"]
    return sorted({row["metric"]["hotkey"] for row in rows})


async def measure_scrapes(program: str, directory: Path) -> None:
    """Let the program scrape all exporters each minute, and print its memory."""
    pages = directory / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    await write_pages(pages, time.time() // MINUTE * MINUTE, MINERS, SCRAPES + 5)
    async with served_pages(pages) as address:
        with store(program, directory / "scrapes", address) as running:
            for minute in range(SCRAPES + 1):
                await asyncio.sleep(MINUTE)
                say(
                    f"  minute {minute + 1}: {running.memory():.0f} MB, "
                    f"{running.cpu():.0f} s of CPU time, {appended(program, running):,.0f} samples"
                )
            await asyncio.to_thread(say_scrapes, program, running)


def appended(program: str, running: Running) -> float:
    """Return how many samples the program has stored."""
    if program == "prometheus":
        return own_metric(running, "prometheus_tsdb_head_samples_appended_total")
    return own_metric(running, "vm_rows_added_to_storage_total")


def say_scrapes(program: str, running: Running) -> None:
    """Print what a program that scrapes is like, and its slowest queries of now."""
    say(f"  exporters that are up: {scalar(running, 'sum(up)'):.0f}")
    say(f"  scraped: {scalar(running, 'sum(scrape_samples_scraped)'):,.0f} series")
    say(f"  slowest scrape: {scalar(running, 'max(scrape_duration_seconds)'):.2f} s")
    if program == "prometheus":
        say(f"  series: {own_metric(running, 'prometheus_tsdb_head_series'):,.0f}")
        rules = own_metric(running, "prometheus_rule_group_last_duration_seconds")
        say(f"  rules: {rules:.1f} s for an evaluation of all")
    hotkeys = watched(running)
    say(f"  miners: {len(hotkeys)}")
    now = [query for query in queries_of_boards() if not query.is_range]
    timed = [time_query(running, query, hotkeys, time.time(), times=1) for query in now]
    say_slowest("query of now", timed, 3)
    say(f"  memory after the queries: {running.memory():.0f} MB")


def size_of(directory: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


async def measure_disk(program: str, directory: Path) -> None:
    """Print how many bytes a sample takes, of the pages of an exporter in some hours."""
    history = directory / "history"
    if not history.exists():
        unfinished = directory / "history.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        start = time.time() // DAY * DAY - DAY
        await write_pages(unfinished, start, HISTORY_MINERS, HISTORY_MINUTES)
        unfinished.rename(history)
    data = directory / "disk" / "data"
    shutil.rmtree(data.parent, ignore_errors=True)
    if program == "prometheus":
        samples = await asyncio.to_thread(write_blocks, history, data)
    else:
        samples = await asyncio.to_thread(import_pages, history, data)
    taken = size_of(data)
    say(f"  {samples:,} samples: {taken:,} bytes, {taken / samples:.2f} bytes each")


def write_blocks(history: Path, data: Path) -> int:
    """Write pages into blocks of Prometheus, and return the number of samples."""
    text = history.with_name("history.om")
    samples = 0
    with text.open("w") as file:
        for page in pages_in(history):
            lines = dated_samples_of(page, "")
            samples += len(lines)
            file.writelines(lines)
        file.write("# EOF\n")
    create_blocks(text, data)
    text.unlink()
    return samples


def create_blocks(text: Path, data: Path) -> None:
    """Let promtool write blocks of up to a day."""
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics"]
    command += ["--max-block-duration=24h", str(text), str(data)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def import_pages(history: Path, data: Path) -> int:
    """Write pages into a VictoriaMetrics, and return the number of samples."""
    samples = 0
    with store("victoria-metrics", data.parent) as running:
        for page in pages_in(history):
            lines = dated_samples_of(page, "000")
            samples += len(lines)
            fetch(f"{running.url}/api/v1/import/prometheus", "".join(lines).encode())
        fetch(f"{running.url}/internal/force_flush")
        fetch(f"{running.url}/internal/force_merge")
    # It writes its caches when it ends, which hold nothing new.
    shutil.rmtree(data / "cache")
    return samples


# 30 days


@dataclass(frozen=True)
class Past:
    """A series with a history: how often its value changes, and in which range it is."""

    written: str
    changes: float
    highest: int


def hotkey(number: int) -> str:
    """Return something that is as long as a hotkey."""
    return f"5GNocjnmB7uTa4jURRRvji6CsUZnEyomrLhpodHdhs{number:06d}"


def past_series() -> list[Past]:
    """Return the series that queries of 30 days read.

    These are the compute units of each server, and the GPUs of some miners.
    """
    found = []
    for number in range(SERVERS):
        labels = (
            f'hotkey="{hotkey(number % (EXPORTERS * MINERS))}",'
            f'server_id="6ba7b810-9dad-11d1-80b4-00c04f{number:06d}",server="pro-6000-{number}"'
        )
        name = "hotkey_server_id:chutes_server_compute_units_per_second:max"
        found.append(Past(f"{name}{{{labels}}}", 1 / 60, 8))
    for number in range(GPU_MINERS):
        miner = f'hotkey="{hotkey(number)}"'
        found.append(Past(f'chutes_fleet_known{{{miner},topic="gpus"}}', 0, 1))
        for state in _STATES:
            labels = f'{{{miner},state="{state}"}}'
            found.append(Past(f"hotkey_state:chutes_fleet_gpus:sum{labels}", 1 / 60, 24))
    return found


def write_day(path: Path, series: Sequence[Past], start: float, unit: str) -> None:
    """Write a day of samples each minute as OpenMetrics."""
    times = [f" {start + MINUTE * minute:.0f}{unit}\n" for minute in range(DAY // MINUTE)]
    draw = random.Random(start)
    with path.open("w") as file:
        for one in series:
            value = f" {draw.random() * one.highest:.4g}"
            for at in times:
                if draw.random() < one.changes:
                    value = f" {draw.random() * one.highest:.4g}"
                file.write(one.written + value + at)
        file.write("# EOF\n")


def last_hour(series: Sequence[Past], end: float, unit: str) -> str:
    """Return the GPUs of each server in the last hour, which a query divides by."""
    lines = []
    for one in series[:SERVERS]:
        labels = one.written.partition("{")[2].replace("}", ',gpu="pro_6000"}')
        for minute in range(60):
            at = f"{end - MINUTE * minute:.0f}{unit}"
            lines.append(f"hotkey_server_id_gpu:chutes_server_gpus:sum{{{labels} 8 {at}\n")
    # In the order of time, and with an end.
    return "".join(reversed(lines)) + "# EOF\n"


def write_past(program: str, directory: Path, end: float) -> None:
    """Write 30 days of the series into the data of the program."""
    series, text = past_series(), directory / "day.om"
    data = directory / "data"
    if program == "prometheus":
        for day in range(DAYS):
            write_day(text, series, end - (DAYS - day) * DAY, "")
            create_blocks(text, data)
        text.write_text(last_hour(series, end - MINUTE, ""))
        create_blocks(text, data)
        text.unlink()
        return
    with store(program, directory) as running:
        for day in range(DAYS):
            write_day(text, series, end - (DAYS - day) * DAY, "000")
            fetch(f"{running.url}/api/v1/import/prometheus", text.read_bytes())
        latest = last_hour(series, end - MINUTE, "000")
        fetch(f"{running.url}/api/v1/import/prometheus", latest.encode())
        fetch(f"{running.url}/internal/force_flush")
    text.unlink()


def queries_of_30_days() -> list[Query]:
    """Return the queries that read only series with a history."""
    known = {re.split("{", one.written)[0] for one in past_series()}
    known.add("hotkey_server_id_gpu:chutes_server_gpus:sum")
    found = []
    for query in queries_of_boards():
        names = set(_NAMES.findall(query.expression))
        looks_back = query.is_range or f"[{DAYS}d" in query.expression
        if looks_back and names <= known:
            found.append(query)
    return found


async def measure_past(program: str, directory: Path) -> None:
    """Print how long the queries of 30 days take."""
    end = time.time() // DAY * DAY
    written = directory / f"past-{program}-{end:.0f}"
    if not written.exists():
        unfinished = directory / "past.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        await asyncio.to_thread(unfinished.mkdir, parents=True)
        await asyncio.to_thread(write_past, program, unfinished, end)
        unfinished.rename(written)
    hotkeys = [hotkey(number) for number in range(EXPORTERS * MINERS)]
    with store(program, written) as running:
        queries = queries_of_30_days()
        timed = [time_query(running, query, hotkeys, end - MINUTE, times=3) for query in queries]
        say_slowest("query of 30 days", timed, len(timed))
        say(f"  memory after the queries: {running.memory():.0f} MB")


PARTS: Final = {"scrapes": measure_scrapes, "disk": measure_disk, "past": measure_past}


def main() -> None:
    """Measure the chosen parts."""
    # So that the programs end, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("program", choices=("prometheus", "victoria-metrics"))
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--directory", type=Path, default=ROOT / ".cache" / "scale")
    chosen = parser.parse_args()
    directory: Path = chosen.directory.resolve()
    if shutil.which(chosen.program) is None:
        sys.exit(f"{chosen.program} is not on the path")
    flag = "--version" if chosen.program == "prometheus" else "-version"
    command = [chosen.program, flag]
    version = subprocess.check_output(command, text=True)
    say(f"{chosen.program}: {version.splitlines()[0]}")
    for part in chosen.part or PARTS:
        say(f"{part}:")
        shutil.rmtree(directory / "scrapes", ignore_errors=True)
        asyncio.run(PARTS[part](chosen.program, directory))


if __name__ == "__main__":
    main()
