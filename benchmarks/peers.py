"""``make peers``: compares the CPU time of a miner's page with what others would need for the same page.

All run in this one run, in processes of their own: the exporter, prometheus-client's ``generate_latest``, the
pushgateway of Prometheus, and the plain script, which requests everything at each scrape.
"""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
import ssl
import sys
import tempfile
import time
from pathlib import Path

import bcrypt
import httpx
import trustme

from benchmarks.bench import (
    exporter,
    free_port,
    machine,
    process,
    require_fresh,
    series_of,
    settings_with_key,
    upstream,
    wait_for,
)
from benchmarks.scaling import cpu_seconds
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.simulator.world import TEST_SEED
from tests.support import Clock

INTERVAL = 15
SCRAPES = 3600 // INTERVAL
"""Scrapes in an hour."""
_GENERATE = """
import pathlib, sys, threading
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(pathlib.Path(sys.argv[2]).read_text()))
class Kept:
    def collect(self):
        return families
registry = CollectorRegistry(auto_describe=False)
registry.register(Kept())
start_http_server(int(sys.argv[1]), "127.0.0.1", registry)
threading.Event().wait()
"""
_PLAIN = """
import sys, threading
from prometheus_client import CollectorRegistry, start_http_server
from benchmarks.plain import PlainCollector
from chutes_exporter.api.keys import Hotkey
plain = PlainCollector(sys.argv[2], Hotkey.from_seed(sys.argv[3]))
class Asking:
    def collect(self):
        plain.fetch()
        return plain.collect()
registry = CollectorRegistry(auto_describe=False)
registry.register(Asking())
start_http_server(int(sys.argv[1]), "127.0.0.1", registry)
threading.Event().wait()
"""


def average(
    pid: int, url: str, count: int, *, tls: ssl.SSLContext | None = None, authorization: str | None = None
) -> float:
    """Return the CPU time that a process needs for a compressed scrape, on a connection that it may keep."""
    headers = {"Authorization": authorization} if authorization else {}
    with httpx.Client(verify=tls or True, headers=headers, timeout=60) as client:
        answer = client.get(url)
        assert answer.headers["Content-Encoding"] == "gzip"
        before = cpu_seconds(pid)
        for _ in range(count):
            client.get(url)
        return (cpu_seconds(pid) - before) / count


def peer(program: str, *arguments: str, count: int) -> float:
    """Run a server in Python, and return the CPU time of a compressed scrape."""
    port = free_port()
    with process(sys.executable, "-c", program, str(port), *arguments) as running:
        wait_for(f"http://127.0.0.1:{port}/metrics")
        return average(running.pid, f"http://127.0.0.1:{port}/metrics", count)


def pushgateway(page: Path, count: int) -> float:
    """Return the CPU time of a compressed scrape of the pushgateway, which holds the page."""
    port = free_port()
    program = shutil.which("prometheus-pushgateway")
    assert program, "install prometheus-pushgateway"
    with process(program, f"--web.listen-address=127.0.0.1:{port}") as running:
        wait_for(f"http://127.0.0.1:{port}/-/ready")
        # It accepts no metrics of the process under the names of its own.
        text = re.sub(r"^(# (HELP|TYPE) )?(process|python)_.*\n", "", page.read_text(), flags=re.MULTILINE)
        answer = httpx.put(f"http://127.0.0.1:{port}/metrics/job/chutes", content=text, timeout=60)
        assert answer.is_success, answer.text
        assert len(httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text) > len(text)
        return average(running.pid, f"http://127.0.0.1:{port}/metrics", count)


async def unchanged(api: str, count: int) -> float:
    """Return the CPU time of a compressed page of unchanged data in this process, without serving."""
    async with Exporter(settings_with_key(api), monotonic=Clock(time.monotonic())) as running:
        await running.metrics(Format.TEXT, timeout=60, gzipped=True)
        began = time.process_time()
        for _ in range(count):
            await running.metrics(Format.TEXT, timeout=60, gzipped=True)
        return (time.process_time() - began) / count


async def hour(api: str, *, gzipped: bool, lines: bool) -> float:
    """Return the CPU time of a simulated hour of scrapes in this process, without serving.

    Args:
        api: The address of the API.
        gzipped: Whether to compress the pages.
        lines: Whether to make pages. If not, feeds are read when a scrape would read them.
    """
    steady = Clock(time.monotonic())
    async with Exporter(settings_with_key(api), monotonic=steady) as running:
        await running.metrics(Format.TEXT, timeout=60, gzipped=gzipped)
        feeds = [state.feed for state in running.feeds.states()]
        began = time.process_time()
        for _ in range(SCRAPES):
            steady.now += INTERVAL
            if lines:
                await running.metrics(Format.TEXT, timeout=60, gzipped=gzipped)
            else:
                await asyncio.gather(*(running.feeds.read(feed, 60) for feed in feeds))
        return time.process_time() - began


def protected(api: str, count: int) -> tuple[float, float]:
    """Return the CPU time of a scrape with TLS, and of a scrape with a password."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    password = "invented for the benchmark"  # noqa: S105 - it protects nothing
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()
    authorization = "Basic " + base64.b64encode(f"prometheus:{password}".encode()).decode()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        issued.private_key_pem.write_to_path(str(place / "key.pem"))
        issued.cert_chain_pems[0].write_to_path(str(place / "cert.pem"))
        (place / "tls.yml").write_text("tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n")
        (place / "users.yml").write_text(f"basic_auth_users:\n  prometheus: {hashed}\n")
        with exporter(api, "--web.config.file", str(place / "tls.yml"), tls=trusting) as (url, running, _):
            with_tls = average(running.pid, f"{url}/metrics", count, tls=trusting)
        flags = ("--web.config.file", str(place / "users.yml"))
        with exporter(api, *flags, authorization=authorization) as (url, running, _):
            with_password = average(running.pid, f"{url}/metrics", count, authorization=authorization)
    return with_tls, with_password


def main() -> None:
    """Measure and print everything."""
    count = 500
    with upstream(300, 14) as api, tempfile.TemporaryDirectory() as directory:
        with exporter(api) as (url, running, _):
            page = httpx.get(f"{url}/metrics", timeout=60).text
            require_fresh(page)
            own = average(running.pid, f"{url}/metrics", count)
        kept = Path(directory) / "page"
        kept.write_text(page)
        print(
            f"Measured {time.strftime('%Y-%m-%d')} on {machine()}. A page of {series_of(page):,} series, compressed.\n"
        )
        print("| who | CPU time of a scrape | CPU time of an hour, a scrape every 15 s |\n|---|---:|---:|")

        def row(who: str, scrape: float, total: float | None = None) -> None:
            hours = scrape * SCRAPES if total is None else total
            print(f"| {who} | {scrape * 1e3:.2f} ms | {hours:.1f} s |", flush=True)

        answers = asyncio.run(hour(api, gzipped=False, lines=False))
        identity = asyncio.run(hour(api, gzipped=False, lines=True))
        compressed = asyncio.run(hour(api, gzipped=True, lines=True))
        in_process = asyncio.run(unchanged(api, count))
        serving = (own - in_process) * SCRAPES
        row("chutes-exporter: all cached answers are fresh", own)
        row("chutes-exporter: with all requests to the API", (compressed + serving) / SCRAPES, compressed + serving)
        row("prometheus-client, `generate_latest` of stored samples", peer(_GENERATE, str(kept), count=20))
        row("pushgateway, holding the page", pushgateway(kept, 50))
        row("the plain script, which asks the API at each scrape", peer(_PLAIN, api, TEST_SEED, count=5))
        with_tls, with_password = protected(api, count)
        print("\n| part of an hour of chutes-exporter | CPU time |\n|---|---:|")
        for what, seconds in (
            ("requests to the API, and decoding their answers", answers),
            ("rendering", identity - answers),
            ("compression", compressed - identity),
            ("serving pages over HTTP", serving),
            ("TLS, on a connection that stays open", (with_tls - own) * SCRAPES),
            ("password checks", (with_password - own) * SCRAPES),
        ):
            print(f"| {what} | {seconds:.2f} s |")


if __name__ == "__main__":
    main()
