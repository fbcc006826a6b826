"""The reference of the miner API: what it names, the exporter knows, exports and documents."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from chutes_exporter.api.endpoints import CHUTE, ENDPOINTS, RELEASE_JOB
from chutes_exporter.collectors import COLLECTORS
from tests.golden import PAGE
from tests.recorded import DIRECTORIES, rows
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chutes_exporter.api.endpoints import Endpoint
    from chutes_exporter.collectors import Collector

SIGNED: Final = {
    "GET /miner/chutes/": (),
    "GET /miner/images/": (),
    "GET /miner/nodes/": (),
    "GET /miner/servers/": (),
    "GET /miner/instances/": ("explicit_null",),
    "GET /miner/jobs/": (),
    "DELETE /miner/jobs/{job_id}": (),
    "GET /miner/inventory": (),
    "GET /miner/active_instances/": (),
    "GET /miner/chutes/{chute_id}/{version}": (),
    "GET /miner/thrash_cooldowns": (),
}
"""Its endpoints that need a signature, with their query parameters."""
OPEN: Final = {
    "GET /miner/metrics/": (),
    "GET /miner/stats": ("miner_hotkey", "per_chute"),
    "GET /miner/scores": ("hotkey",),
    "GET /miner/unique_chute_history/{hotkey}": (),
    "GET /miner/metagraph": (),
}
"""The others."""
KNOWN: Final = {one.source: one for one in ENDPOINTS if one.source in SIGNED | OPEN}


def collectors_of(endpoint: Endpoint[Any]) -> Iterator[Collector]:
    """Yield the collectors with metrics that are made of answers of an endpoint."""
    for collector in COLLECTORS:
        if any(feed.endpoint is endpoint for feed in collector.feeds):
            yield collector


def metrics_of(endpoint: Endpoint[Any]) -> set[str]:
    """Return the names of the metrics that are made of answers of an endpoint."""
    names = set()
    for collector in collectors_of(endpoint):
        for part in collector.parts:
            # A feed that only chooses the chutes has no values of its own on the page.
            feeds = part.feeds if part.chooses_chutes else part.all_feeds
            if any(feed.endpoint is endpoint for feed in feeds):
                names |= {metric.name for metric in part.metrics}
    return names


def test_every_endpoint_of_the_reference_is_known_with_its_parameters() -> None:
    assert len(SIGNED | OPEN) == 16
    assert {source: one.parameters for source, one in KNOWN.items()} == SIGNED | OPEN
    assert {source for source, one in KNOWN.items() if one.signed} == SIGNED.keys()


@pytest.mark.parametrize(
    "endpoint",
    [one for one in KNOWN.values() if one not in (RELEASE_JOB, CHUTE)],
    ids=lambda one: one.name,
)
def test_every_endpoint_of_the_reference_that_reads_something_gives_a_metric(
    endpoint: Endpoint[Any],
) -> None:
    # A line of a sample begins with the name of its metric.
    on_page = set(re.findall(r"(?m)^(\w+)(?=[{ ])", PAGE.read_text()))
    assert metrics_of(endpoint) & on_page


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_a_chute_alone_is_its_record_of_the_list_and_so_gives_its_metrics(directory: Path) -> None:
    alone = json.loads((directory / "chute.json").read_bytes())
    listed = {row["chute_id"]: row for row in rows((directory / "chutes.stream").read_bytes())}
    found = listed[alone["chute_id"]]
    assert alone.keys() == found.keys()
    differing = {name for name, value in found.items() if alone[name] != value}
    # A bounty grows in the second between the two answers.
    assert differing <= {"bounty", "compute_multiplier_factors", "effective_compute_multiplier"}


def test_the_table_of_the_reference_says_what_is_sent_and_which_collectors_use_it() -> None:
    table = table_of_reference()
    assert table.keys() == KNOWN.keys()
    for source, endpoint in KNOWN.items():
        parameters, headers, sent, metrics = table[source]
        names = {*re.findall(r"\{(\w+)\}", endpoint.path), *endpoint.parameters}
        assert set(re.findall(r"`(\w+)`", parameters)) == names
        assert endpoint.signed == (headers == "signature, `Authorization`")
        assert endpoint.signed == sent.startswith("signature")
        for name, value in (endpoint.query or {}).items():
            assert f"`{name}={value}`" in sent
        named = set(re.findall(r"`(\w+)`", metrics))
        assert named <= {collector.name for collector in collectors_of(endpoint)}
        # Only commands use these two.
        assert named or endpoint in (RELEASE_JOB, CHUTE)


def table_of_reference() -> dict[str, list[str]]:
    """Return the cells of each row of the table, without the first, by the endpoint in it."""
    table = {}
    for line in (ROOT / "docs" / "dev" / "api.md").read_text().split("\n"):
        if line.startswith("| `"):
            # Without the vertical lines at both ends.
            source, *cells = line[2:-2].split(" | ")
            # Rows of other tables begin with other names.
            if "/" in source:
                table[source.strip("`")] = cells
    return table
