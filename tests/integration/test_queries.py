"""docs/queries.md: a real Prometheus answers each query about the recorded world and a worker's
invented series, which it federates with the selectors of the miners' values.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import yaml
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.grafana.answers import filled_in
from tests.grafana.display import committed, panels
from tests.prometheus.scenario import EXAMPLE
from tests.recorded import RECORDED_AT, answers, key, raw_json
from tests.support import (
    HOTKEY,
    ROOT,
    RULES,
    Clock,
    Prometheus,
    replay,
    served,
    served_exporter,
    watching,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.support import Labels

QUERIES = dict(
    re.findall(
        r"```promql(?: name=)?(\S*)\n(.*?)```",
        (ROOT / "docs" / "queries.md").read_text(),
        re.DOTALL,
    )
)
NOTHING_TO_SHOW = {
    QUERIES[name]
    for name in (
        "not-earning-since",
        "units-by-server",
        "idle-dollars",
        "registrations-before-loss",
        "blacklisted",
        "deregistered",
        "doubted",
    )
}
"""Queries for troubles that the recorded miner does not have, for full hours, and for the chain."""
VALUES = yaml.safe_load((ROOT / "deploy" / "chutes-monitoring-values.yaml").read_text())[
    "prometheus"
]
ANSWERS = answers()
WITHOUT_CONFIG, *INSTANCES = raw_json(ANSWERS)["instances"]
ANSWERS["instances"] = ANSWERS["instances"].replace(
    f'"{WITHOUT_CONFIG["config_id"]}"'.encode(), b"null"
)
GPUS = raw_json(ANSWERS)["nodes"]


def pods() -> str:
    """Write the time of the last request to each function of the pods of chutes, with their labels.

    Each instance has a pod, and its last request was 60, 61 and so on seconds ago. One pod more has
    no config, and so belongs to no instance.
    """
    page = sample(
        "invocation_last_timestamp", RECORDED_AT, function="chat", pod="chute-0", node="server-0"
    )
    for age, instance in enumerate(INSTANCES, start=60):
        ids = {"chutes_config_id": instance["config_id"], "chutes_version": instance["version"]}
        labels = {"node": "server-1", "pod": f"chute-{age}", **ids}
        page += sample("invocation_last_timestamp", RECORDED_AT - age, function="chat", **labels)
        # Only the later one of the requests to two functions is the pod's last one.
        page += sample("invocation_last_timestamp", RECORDED_AT - 9000, function="embed", **labels)
    return page


def dcgm() -> str:
    """Write what NVIDIA's dcgm-exporter says of GPUs that have nothing to do.

    They take 100, 101 and so on watts, and have 30, 31 and so on degrees. The first one has fallen
    off the bus, which is error 79.
    """
    page = ""
    for number, gpu in enumerate(GPUS):
        labels = {"UUID": nvidia_id(gpu), "gpu": str(number)}
        values = {
            "GPU_UTIL": 0,
            "XID_ERRORS": 0 if number else 79,
            "POWER_USAGE": 100 + number,
            "GPU_TEMP": 30 + number,
        }
        for name, value in values.items():
            page += sample(f"DCGM_FI_DEV_{name}", value, **labels)
    return page


def nvidia_id(gpu: dict[str, str]) -> str:
    """Return the id of a GPU as NVIDIA's tools write it."""
    return f"GPU-{UUID(hex=gpu['uuid'].removeprefix('GPU-'))}"


def sample(name: str, value: float, **labels: str) -> str:
    """Return a line of a page."""
    written = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"{name}{{{written}}} {value:.0f}\n"


def job(name: str, url: str, path: str = "/metrics", **options: object) -> dict[str, object]:
    """Return a job of Prometheus that scrapes a URL."""
    targets = [url.removeprefix("http://")]
    return {
        "job_name": name,
        "metrics_path": path,
        "static_configs": [{"targets": targets}],
        **options,
    }


def by(found: dict[Labels, float], *names: str) -> dict[tuple[str, ...], float]:
    """Return the values of a result by some labels. Each series must have all of them."""
    values = {}
    for labels, value in found.items():
        texts = dict(labels)
        values[tuple(texts[name] for name in names)] = value
    return values


@asynccontextmanager
async def monitoring(
    directory: Path,
) -> AsyncIterator[Callable[[str], Awaitable[dict[Labels, float]]]]:
    """Run a Prometheus on a worker, and one on the control node, which scrapes the exporter and
    federates the worker.

    Yields:
        Waits until the control node has a result of a query.
    """
    routes = [
        Route(f"/{page.__name__}", lambda _, page=page: PlainTextResponse(page()))
        for page in (pods, dcgm)
    ]
    (directory / "worker").mkdir()
    async with (
        served(replay(ANSWERS)) as api,
        served_exporter(watching(api, key()), Clock(RECORDED_AT)) as (url, _),
        served(Starlette(routes=routes)) as exporters,
    ):
        jobs = [
            job("kubernetes-pods", exporters, "/pods"),
            job("kubernetes-service-endpoints", exporters, "/dcgm"),
        ]
        with Prometheus(directory / "worker", scrape_configs=jobs) as worker:
            selectors = {"match[]": VALUES["federation"]["matchSelectors"]}
            jobs = [
                job("chutes", url),
                job("federate", worker.url, "/federate", honor_labels=True, params=selectors),
            ]
            rules = [*RULES.iterdir(), EXAMPLE]
            with Prometheus(directory, scrape_configs=jobs, rule_files=rules) as control:
                await asyncio.to_thread(
                    control.wait_for, "min(chutes_scrape_collector_success) == 1"
                )

                def ask(query: str) -> dict[Labels, float]:
                    # The time of the queries is that of the recording. Prometheus has the real one.
                    at_recording = query.replace("time()", f"{RECORDED_AT:.0f}")
                    filled_in_query = at_recording.replace("$hotkey", HOTKEY)
                    if query in NOTHING_TO_SHOW:
                        return control.query(filled_in_query)
                    return control.wait_for(filled_in_query)

                yield lambda query: asyncio.to_thread(ask, query)


async def test_prometheus_answers_every_query_and_joins_pods_and_hardware(tmp_path: Path) -> None:
    queries_of_panels = {}
    for panel in panels(committed("chutes-fleet")):
        for target in panel["targets"]:
            if "DCGM" in target["expr"]:
                queries_of_panels[panel["title"]] = filled_in(target["expr"], [HOTKEY])
    async with monitoring(tmp_path) as ask:
        results = {name: await ask(query) for name, query in QUERIES.items()}
        shown = {title: await ask(query) for title, query in queries_of_panels.items()}
        alerts = await ask('ALERTS{alertname="ChutesGpuXidError"}')
    # What `pods` and `dcgm` say must come with the ids of the exporter.
    seconds_since_request = {}
    for seconds, row in enumerate(INSTANCES, start=60):
        ids = (row["instance_id"], row["chutes_version"], row["version"])
        seconds_since_request[*ids, f"chute-{seconds}", "server-1"] = seconds
    labels = ("instance_id", "chutes_version", "chute_version", "pod", "node")
    assert by(results["last-request"], *labels) == seconds_since_request
    for name, first in (("gpu-power", 100), ("gpu-temperature", 30)):
        assert by(results[name], "gpu_id", "server_id") == {
            (gpu["uuid"], gpu["server_id"]): value for value, gpu in enumerate(GPUS, start=first)
        }
    # The Fleet dashboard shows the same hardware, of at most 10 GPUs.
    lines = min(10, len(GPUS))
    # The first GPU has 30 degrees, and each other one a degree more.
    hottest = 29 + len(GPUS)
    assert {title: sorted(result.values(), reverse=True) for title, result in shown.items()} == {
        "GPU utilization": [0] * lines,
        "GPU temperature": list(range(hottest, hottest - lines, -1)),
        "XID errors": [79, *[0] * (lines - 1)],
    }
    # So do the alerts about the hardware, from the federated series.
    fallen = GPUS[0]
    assert by(alerts, "hotkey", "server_id", "UUID") == {
        (HOTKEY, fallen["server_id"], nvidia_id(fallen)): 1
    }
