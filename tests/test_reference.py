"""The reference of the miner API: what it names, the exporter knows, exports and documents."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import pytest

from chutes_exporter.api.errors import UndecodableError
from chutes_exporter.collectors import COLLECTORS, Answers, Miners
from chutes_exporter.collectors.base import Samples
from chutes_exporter.feeds.definitions import CHUTE, ENDPOINTS, FEEDS, RELEASE_JOB
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.feeds.fleet import Joined
from tests.collectors.support import answer
from tests.recorded import (
    DIRECTORIES,
    NOT_RECORDED,
    WORLD_C,
    Miner,
    Row,
    raw_json,
    records_by_path,
    rows,
)
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client import Metric as Family

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.api.endpoint import Endpoint
    from chutes_exporter.collectors import Collector
    from chutes_exporter.feeds.feed import Feed

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
REASONS: Final = ("constant", "dead", "duplicate of ", "secret", "users' data", "text", "no use: ")
"""Why a field may be no metric. ``docs/dev/fields.md`` explains them."""
MINER: Final = Miner(WORLD_C)
RAW: Final = raw_json(MINER.bodies()) | NOT_RECORDED
KNOWN: Final = {one.source: one for one in ENDPOINTS if one.source in SIGNED | OPEN}


def collectors_of(endpoint: Endpoint[Any]) -> Iterator[Collector]:
    """Yield the collectors with metrics that are made of answers of an endpoint."""
    for collector in COLLECTORS:
        if any(feed.source == endpoint.source for feed in collector.feeds):
            yield collector


def test_every_endpoint_of_the_reference_is_known() -> None:
    assert len(SIGNED | OPEN) == 16
    assert KNOWN.keys() == (SIGNED | OPEN).keys()
    assert {source for source, one in KNOWN.items() if one.signed} == SIGNED.keys()


@pytest.mark.parametrize(
    "feed", [one for one in FEEDS if one.source in KNOWN], ids=lambda one: one.name
)
def test_every_field_of_the_reference_is_a_metric_or_says_why_not(feed: Feed[Any]) -> None:
    raw = deepcopy(RAW[feed.name])
    before = metrics_of(feed, raw)
    found = records_by_path(feed, raw)
    for path, (record, objects) in found.items():
        reasons: dict[str, str] = {}
        for reason, names in record.UNUSED.items():
            # What is correct but useless needs a sentence.
            assert reason.startswith(REASONS)
            reasons |= dict.fromkeys(names.split(), reason)
        # What an object or a list holds has fields of its own.
        for name in set[str]().union(*objects):
            if f"{path}{name}." in found:
                continue
            is_shown = False
            for _ in with_other_values(name, objects):
                is_shown |= metrics_of(feed, raw) not in (None, before)
            assert is_shown != (name in reasons), f"{path}{name}"


@cache
def recorded_answers() -> dict[str, Answer[Any]]:
    return {feed.name: answer(feed, RAW[feed.name]) for feed in FEEDS if feed.name in RAW}


def metrics_of(feed: Feed[Any], raw: Any) -> list[Family] | None:
    """Return what collectors make of a feed's answer and all others, None if it cannot be read."""
    try:
        answers = recorded_answers() | {feed.name: answer(feed, raw)}
    except UndecodableError:
        return None
    if not answers[feed.name].complete:
        return None
    out = Samples()
    for collector in collectors_of(feed):
        for hotkey in (THE_PLATFORM, MINER.hotkey):
            miners = Miners(frozenset([MINER.hotkey]), "all", hotkey)
            assert collector.run(Answers(answers, Joined({"": answers})), miners, out)
    return out.families()


def with_other_values(name: str, objects: list[Row]) -> Iterator[None]:
    """Yield with each of some other values of a field in all objects that have it."""
    having = [one for one in objects if name in one]
    values = [one[name] for one in having]
    variants: list[list[Any]] = [[other(value) for value in values], [None] * len(values)]
    if all(value is None for value in values):
        variants = [[value] * len(values) for value in (True, 1, "x")]
    for variant in variants:
        for one, value in zip(having, variant, strict=True):
            one[name] = value
        yield
    for one, value in zip(having, values, strict=True):
        one[name] = value


def other(value: Any) -> Any:
    """Return a value of the same type, null for null."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return 2 * value + 1
    if isinstance(value, str):
        # A time, or a text.
        return f"2019{value[4:]}" if re.match(r"20\d\d-\d\d-\d\d", value) else f"{value}x"
    if isinstance(value, list):
        return [*value, "x"]
    if isinstance(value, dict):
        return {key: other(inner) for key, inner in value.items()}
    return None


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
        names = {*re.findall(r"\{(\w+)\}", endpoint.path), *(SIGNED | OPEN)[source]}
        assert set(re.findall(r"`(\w+)`", parameters)) == names
        assert endpoint.signed == (headers == "signature, `Authorization`")
        assert endpoint.signed == sent.startswith("signature")
        for name, value in endpoint.query.items():
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
