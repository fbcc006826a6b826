"""Every alert in promtool's clockwork: silent before its time, firing at it, as it reads, and resolved after."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from grafana.boards import BOARDS
from tests.support import ROOT, RULES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
ME = "5Me"
GRAFANA = "https://grafana.example"
HERE = {"job": "chutes", "instance": "exporter:10064"}
START = 20
"""Minutes for which all is well first."""
SICK = 180
"""Minutes for which it is not."""
END = 600

Values = float | str
"""A constant, or in promtool's notation: all the values from a moment on."""


@dataclass(frozen=True)
class Case:
    """What sets an alert off, and how it reads then.

    Attributes:
        sick: Series with their values while all is well, while it is not, and after; ``_`` for none.
        summary: As rendered when it begins to fire.
        description: Likewise.
        steady: Series that stay.
        labels: The alert's labels, besides those of the exporter and its severity.
        at: Labels of the exporter that the alert keeps.
        delay: Minutes from the beginning until the expression is true.
        lag: Minutes that the expression looks back, and is true for after all is well again.
    """

    sick: Mapping[str, tuple[Values, Values, Values]]
    summary: str
    description: str
    steady: Mapping[str, Values] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    at: tuple[str, ...] = ("job", "instance")
    delay: int = 0
    lag: int = 0


def s(name: str, /, **labels: str) -> str:
    """Write a series of the exporter."""
    every = {**HERE, **labels}
    return f"{name}{{{','.join(f'{key}={json.dumps(value)}' for key, value in every.items())}}}"


def mine(name: str, /, **labels: str) -> str:
    """Write a series of the watched miner."""
    return s(name, hotkey=ME, **labels)


WATCHED = {mine("chutes_miner_watched"): 1}
SECONDS = 60
CHUTE = {s("chutes_chute_info", chute_id="c1", name="kokoro"): 1}
INSTANCE = {mine("chutes_instance_info", instance_id="i1", chute_id="c1"): 1, **CHUTE}
SERVER = {mine("chutes_server_info", server_id="s1", name="rack-7"): 1}

CASES: dict[str, Case] = {
    "ChutesExporterDown": Case(
        sick={s("up"): (1, 0, 1), s("chutes_exporter_build_info", version="1"): (1, "_", 1)},
        summary="The Chutes exporter exporter:10064 is down",
        description="Prometheus has not been able to scrape exporter:10064 (job chutes) for 5 minutes. Nothing is "
        "known of the miners and GPUs that it watches.",
    ),
    "ChutesExporterMissing": Case(
        sick={s("chutes_exporter_build_info", version="1"): (1, "_", 1)},
        at=(),
        # The last sample counts for 15 minutes.
        delay=15,
        summary="No Chutes exporter is scraped",
        description="No Chutes exporter has been scraped for 15 minutes: its target is gone from the configuration or "
        "from the discovery of Prometheus.",
    ),
    "ChutesProbesFailing": Case(
        sick={
            s("up"): (1, 0, 1),
            s("chutes_scrape_collector_success", collector="scores"): (1, "_", 1),
        },
        at=("job",),
        summary="1 miners of the job chutes cannot be probed",
        description="Prometheus has had no page about 1 miners from /probe (job chutes) for 15 minutes. What was known "
        "of them is gone.",
    ),
    "ChutesApiDown": Case(
        sick={s("chutes_feed_up", feed="scores"): (1, 0, 1), s("chutes_feed_up", feed="stats"): (1, 0, 1)},
        steady={
            s("chutes_feed_ttl_seconds", feed="scores"): 55,
            s("chutes_feed_ttl_seconds", feed="stats"): 55,
            # One that is asked every quarter of an hour has nothing to say yet.
            mine("chutes_feed_up", feed="unique_chute_history"): 1,
            mine("chutes_feed_ttl_seconds", feed="unique_chute_history"): 900,
        },
        summary="The Chutes API gives exporter:10064 no answer at all",
        description="Everything that the exporter exporter:10064 asks the Chutes API every few minutes has failed for "
        "5 minutes. What is known grows old, and is dropped in time.",
    ),
    "ChutesFeedDown": Case(
        sick={mine("chutes_feed_up", feed="nodes"): (1, 0, 1)},
        steady={s("chutes_feed_up", feed="stats"): 1},
        labels={"feed": "nodes", "hotkey": ME},
        summary="The Chutes API fails for nodes",
        description="The last request for nodes of 5Me has failed, and those before it, for 15 minutes. What is made "
        "of it is older than usual, or gone.",
    ),
    "ChutesDataStale": Case(
        sick={s("chutes_feed_last_success_timestamp_seconds", feed="scores"): ("0+60", 1140, "12000+60")},
        steady={s("chutes_feed_max_age_seconds", feed="scores"): 900},
        labels={"feed": "scores"},
        # A quarter of an hour old since its last success at the 19th minute, and a minute more: greater, not equal.
        delay=15,
        summary="There is no current data of scores",
        description="The newest good answer for scores is 21m 0s old: its metrics are gone, and alerts on them are "
        "silent.",
    ),
    "ChutesSignatureRefused": Case(
        sick={mine("chutes_feed_failure_info", feed="nodes", reason="signature_refused"): ("_", 1, "_")},
        labels={"hotkey": ME},
        summary="The API refuses the signatures of 5Me",
        description="The Chutes API refuses what 5Me signs (1 feeds): the seed belongs to another hotkey, the local "
        "clock is off, or the hotkey has no seat. Nothing is known of its servers, GPUs and instances.",
    ),
    "ChutesClockOff": Case(
        sick={s("chutes_api_clock_offset_seconds"): (-1, -300, 0.5)},
        summary="The clock of exporter:10064 differs from the API's",
        description="The clocks of exporter:10064 and of the Chutes API are 5m 0s apart. Beyond 10 minutes every "
        "signature is refused.",
    ),
    "ChutesRecordsRejected": Case(
        sick={mine("chutes_feed_rejected_records", feed="nodes"): (0, 3, 0)},
        labels={"feed": "nodes", "hotkey": ME},
        summary="Some records of nodes cannot be read",
        description="3 records of nodes of 5Me could not be read for 30 minutes. Counts, ranks and zeros that they "
        "could make false are absent.",
    ),
    "ChutesFeedDoubted": Case(
        sick={mine("chutes_feed_doubted", feed="nodes", reason="shrunk"): (0, 1, 0)},
        labels={"feed": "nodes", "hotkey": ME, "reason": "shrunk"},
        summary="The answer for nodes is doubted (shrunk)",
        description="The newest answer for nodes of 5Me has been doubted for 30 minutes: shrunk. The last good answer "
        "is used until its maximum age; after that, counts, ranks and zeros are absent.",
    ),
    "ChutesCollectorCut": Case(
        sick={s("chutes_scrape_collector_cut", collector="chutes"): (0, 1, 0)},
        labels={"collector": "chutes"},
        summary="The collector chutes is left out of the page",
        description="The page of exporter:10064 would have more series than --max-series: what chutes tells is "
        "missing.",
    ),
    "ChutesReloadFailed": Case(
        sick={s("chutes_exporter_config_last_reload_successful"): (1, 0, 1)},
        summary="exporter:10064 runs with an old configuration",
        description="The configuration of exporter:10064 could not be read when it was last changed; the log says why. "
        "The one before is still in force, certificates and passwords included.",
    ),
    "ChutesMinerDeregistered": Case(
        sick={mine("chutes_miner_registered"): (1, 0, 1)},
        labels={"hotkey": ME},
        summary="5Me has no seat on the subnet",
        description="5Me is not registered on subnet 64 any more, or never was: it earns nothing, and the API refuses "
        "it.",
    ),
    "ChutesMinerBlacklisted": Case(
        sick={
            mine("chutes_miner_blacklisted"): (0, 1, 0),
            mine("chutes_miner_blacklist_info", reason='spoofed "GPUs"'): ("_", 1, "_"),
        },
        labels={"hotkey": ME},
        summary="5Me is blacklisted",
        description='5Me is blacklisted: its launches are refused and it has no score. Reason: spoofed "GPUs".',
    ),
    "ChutesMinerNearLastPlace": Case(
        sick={mine("chutes_miner_seats_behind"): (40, 2, 40)},
        steady={s("chutes_metagraph_miners"): 256},
        labels={"hotkey": ME},
        summary="5Me may lose its seat: 2 seats are behind it",
        description="No seat of the subnet is free, and only 2 seats have a lower incentive than 5Me. Validators are "
        "among them, so fewer miners are. Newcomers take the seats of the lowest. Seats are safe for a time after "
        "registration.",
    ),
    "ChutesScoreDropping": Case(
        # The address of a Pod changes with each: what it was six hours ago is the same miner's.
        at=("job",),
        sick={mine("chutes_miner_score_ratio"): (0.04, 0.02, 0.04)},
        labels={"hotkey": ME},
        # There must be a share of six hours ago.
        lag=360,
        summary="The score of 5Me is falling",
        description="The share of all scores of 5Me is 2%, less than 70 % of what it was six hours ago.",
    ),
    "ChutesScoreGone": Case(
        # The address of a Pod changes with each: what it was six hours ago is the same miner's.
        at=("job",),
        sick={mine("chutes_miner_score_ratio"): (0.04, "_", 0.04)},
        steady={s("chutes_scored_miners"): 100},
        labels={"hotkey": ME},
        # There must be a share of six hours ago, and none for five minutes.
        lag=360,
        delay=5,
        summary="5Me has no score any more",
        description="5Me had a share of all scores of 4% six hours ago, and is not among the scored miners now.",
    ),
    "ChutesMinerEarnsNothing": Case(
        sick={mine("chutes_miner_window_compute_units", window="1h"): (900, 0, 900)},
        steady={mine("chutes_miner_window_compute_units", window="7d"): 20_000},
        labels={"hotkey": ME, "window": "1h"},
        summary="5Me has earned nothing for an hour",
        description="5Me has compute units in the past week and none in the past hour: no instance of it counted.",
    ),
    "ChutesGpusIdle": Case(
        sick={
            mine("chutes_gpu_in_use", gpu_id="g0"): (1, 0, 1),
        },
        steady={
            mine("chutes_gpu_info", gpu_id="g0", gpu="h200"): 1,
            mine("chutes_gpu_verified", gpu_id="g0"): 1,
        },
        # For half an hour nothing else; and the half hour before is looked at.
        delay=30,
        lag=30,
        labels={"hotkey": ME, "gpu": "h200"},
        summary="1 h200 of 5Me idle",
        description="1 verified h200 GPUs of 5Me have been in no instance for 30 minutes, and earn nothing.",
    ),
    "ChutesGpusUnverified": Case(
        sick={
            mine("chutes_gpu_verified", gpu_id="g0"): (1, 0, 1),
        },
        steady={
            mine("chutes_gpu_info", gpu_id="g0", gpu="h200"): 1,
        },
        # For half an hour nothing else; and the half hour before is looked at.
        delay=30,
        lag=30,
        labels={"hotkey": ME, "gpu": "h200"},
        summary="1 h200 of 5Me not verified",
        description="1 h200 GPUs of 5Me have not been verified for 30 minutes: the service refuses launches on them.",
    ),
    "ChutesInstanceStuckStarting": Case(
        sick={mine("chutes_instance_active", instance_id="i1"): ("_", 0, 1)},
        steady={mine("chutes_instance_created_timestamp_seconds", instance_id="i1"): START * SECONDS, **INSTANCE},
        labels={"hotkey": ME, "instance_id": "i1", "chute_id": "c1"},
        delay=31,
        summary="An instance of kokoro has been starting for 41m 0s",
        description="The instance of kokoro that 5Me started 41m 0s ago has never been active. It holds GPUs and "
        "counts for nothing until it is active. The service purges it when it starts for more than 3 hours.",
    ),
    "ChutesVerificationsFailing": Case(
        sick={mine("chutes_observed_gpu_verification_failures_total"): (0, "0+1", 180)},
        labels={"hotkey": ME},
        # Five in all, one a minute; and the last ones stay in the window of an hour.
        delay=5,
        lag=60,
        summary="Verifications of GPUs of 5Me fail again and again",
        description="About 10 verifications of GPUs of 5Me have failed within an hour.",
    ),
    "ChutesServerWithoutGpus": Case(
        sick={mine("chutes_server_gpus", server_id="s1"): (8, 0, 8)},
        steady=SERVER,
        labels={"hotkey": ME, "server_id": "s1", "name": "rack-7"},
        summary="The server rack-7 has no GPU",
        description="The API has listed no GPU of the server rack-7 of 5Me for an hour. They were deleted, or the "
        "registration stopped halfway.",
    ),
    "ChutesServerMaintenancePending": Case(
        sick={mine("chutes_server_maintenance_pending", server_id="s1"): (0, 1, 0)},
        steady=SERVER,
        labels={"hotkey": ME, "server_id": "s1", "name": "rack-7"},
        summary="The server rack-7 is in maintenance",
        description="The server rack-7 of 5Me holds an upgrade slot, and its instances were deleted. It holds the slot "
        "until it boots with the target version.",
    ),
    "ChutesDuplicateServers": Case(
        sick={mine("chutes_fleet_duplicate_server_names"): (0, 1, 0)},
        steady={mine("chutes_fleet_duplicate_server_ips"): 0},
        labels={"hotkey": ME},
        summary="Servers of 5Me share names or addresses",
        description="1 names or addresses of servers of 5Me belong to more than one server. A machine may have been "
        "added twice.",
    ),
    "ChutesJobTriedAndWaiting": Case(
        sick={mine("chutes_jobs_tried"): (0, 1, 0)},
        labels={"hotkey": ME},
        summary="1 jobs that 5Me has tried still wait",
        description="5Me asked for a launch token for 1 jobs that have waited for another 15 minutes. Its launches may "
        "have failed.",
    ),
    "ChutesJobStuck": Case(
        sick={mine("chutes_jobs_stuck"): (0, 1, 0)},
        labels={"hotkey": ME},
        summary="1 jobs are stuck with 5Me",
        description="5Me claimed 1 unfinished jobs whose instances are gone. Nobody else can claim them until "
        "chutes-exporter release-job releases them.",
    ),
}


EXPORTER = "/d/chutes-exporter"
OVERVIEW, FLEET, INSTANCES, MARKET = (
    f"/d/chutes-{board}?var-hotkey={ME}" for board in ("overview", "fleet", "instances", "market")
)
BOARD = {
    "ChutesExporterDown": EXPORTER,
    "ChutesExporterMissing": EXPORTER,
    "ChutesProbesFailing": EXPORTER,
    "ChutesApiDown": EXPORTER,
    "ChutesFeedDown": EXPORTER,
    "ChutesDataStale": EXPORTER,
    "ChutesSignatureRefused": OVERVIEW,
    "ChutesClockOff": EXPORTER,
    "ChutesRecordsRejected": EXPORTER,
    "ChutesFeedDoubted": EXPORTER,
    "ChutesCollectorCut": EXPORTER,
    "ChutesReloadFailed": EXPORTER,
    "ChutesMinerDeregistered": OVERVIEW,
    "ChutesMinerBlacklisted": OVERVIEW,
    "ChutesMinerNearLastPlace": OVERVIEW,
    "ChutesScoreDropping": OVERVIEW,
    "ChutesMinerEarnsNothing": OVERVIEW,
    "ChutesScoreGone": OVERVIEW,
    "ChutesGpusIdle": FLEET,
    "ChutesGpusUnverified": FLEET,
    "ChutesInstanceStuckStarting": INSTANCES,
    "ChutesVerificationsFailing": FLEET,
    "ChutesServerWithoutGpus": FLEET,
    "ChutesServerMaintenancePending": FLEET,
    "ChutesDuplicateServers": FLEET,
    "ChutesJobTriedAndWaiting": MARKET,
    "ChutesJobStuck": MARKET,
}
"""Where each alert's link leads."""


def minutes(duration: str) -> int:
    number, unit = int(duration[:-1]), duration[-1]
    return number * {"m": 1, "h": 60}[unit]


def values(value: Values, count: int) -> str:
    """Write a value for so many minutes, in promtool's notation."""
    if value == "_":
        return f"_x{count}"
    text = str(value)
    start, plus, step = text.partition("+")
    return f"{start}{plus}{step if plus else '+0'}x{count - 1}"


def phases(case: Case) -> tuple[int, int]:
    """Return the minutes in which it gets sick, and well again."""
    start = START + case.lag
    return start, start + SICK


def input_series(case: Case, without: str = "") -> list[dict[str, str]]:
    begin, finish = phases(case)
    everything = {**case.steady, **(WATCHED if case.labels.get("hotkey") and "feed" not in case.labels else {})}
    series = [
        {"series": name, "values": " ".join(map(values, three, (begin, finish - begin, END)))}
        for name, three in case.sick.items()
    ]
    series += [{"series": name, "values": values(value, finish + END)} for name, value in everything.items()]
    return [one for one in series if one["series"] != without]


def complaints(path: Path, name: str, tests: list[dict[str, Any]]) -> str:
    """Return what promtool finds wrong with an alert: without the other rules it takes a tenth of the time."""
    rules = path.with_name("rules.yml")
    rules.write_text(json.dumps({"groups": [{"name": "one", "rules": [ALERTS[name]]}]}))
    path.write_text(json.dumps({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}))
    result = subprocess.run(
        ["promtool", "test", "rules", str(path)],  # noqa: S607 - Debian's, from the path
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if result.returncode == 0 else result.stdout + result.stderr


def expected(name: str, case: Case) -> list[dict[str, Any]]:
    rule = ALERTS[name]
    return [
        {
            "exp_labels": {
                **{label: HERE[label] for label in case.at},
                **case.labels,
                "severity": rule["labels"]["severity"],
            },
            "exp_annotations": {
                "summary": case.summary,
                "description": case.description,
                "runbook_url": rule["annotations"]["runbook_url"],
                "dashboard": f"{GRAFANA}{BOARD[name]}"
                + (f"?var-hotkey={ME}" if "feed" in case.labels and "hotkey" in case.labels else ""),
            },
        }
    ]


@pytest.mark.parametrize("name", CASES)
def test_each_alert_waits_fires_as_it_reads_and_resolves(tmp_path: Path, name: str) -> None:
    rule, case = ALERTS[name], CASES[name]
    begin, finish = phases(case)
    fires = begin + case.delay + minutes(rule["for"])
    silent = [0, begin - 1, fires - 1, finish + case.lag * 2 + minutes(rule["keep_firing_for"]) + 20]
    test = {
        "interval": "1m",
        "external_labels": {"grafana_url": GRAFANA},
        "input_series": input_series(case),
        "alert_rule_test": [
            *({"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []} for minute in silent),
            {"eval_time": f"{fires}m", "alertname": name, "exp_alerts": expected(name, case)},
        ],
    }
    assert complaints(tmp_path / "test.yml", name, [test]) == ""


@pytest.mark.parametrize("name", CASES)
def test_no_alert_resolves_at_the_first_good_moment(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    _, finish = phases(case)
    keep = minutes(ALERTS[name]["keep_firing_for"])
    # One bad scrape among good ones, or the other way round, must not end an alert and begin it anew.
    query = f'count(ALERTS{{alertname="{name}", alertstate="firing"}})'
    test = {
        "interval": "1m",
        "input_series": input_series(case),
        "promql_expr_test": [
            {"expr": query, "eval_time": f"{finish + keep - 2}m", "exp_samples": [{"labels": "{}", "value": 1}]}
        ],
    }
    assert complaints(tmp_path / "test.yml", name, [test]) == ""


# What an alert reads may be missing for harmless reasons: no key, an older exporter, a collector that is off.
NEEDED = [
    (name, series)
    for name, case in CASES.items()
    for series in (*case.sick, *case.steady)
    if not (name == "ChutesExporterMissing" or "chutes_chute_info" in series or "blacklist_info" in series)
    and name != "ChutesApiDown"
    and not (name == "ChutesFeedDown" and "stats" in series)
]


@pytest.mark.parametrize(("name", "without"), NEEDED)
def test_an_alert_is_silent_where_what_it_needs_is_absent(tmp_path: Path, name: str, without: str) -> None:
    case = CASES[name]
    begin, finish = phases(case)
    test = {
        "interval": "1m",
        "input_series": input_series(case, without),
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []} for minute in range(begin, finish + 60, 10)
        ],
    }
    assert complaints(tmp_path / "test.yml", name, [test]) == ""


def test_nothing_fires_for_miners_that_nobody_watches(tmp_path: Path) -> None:
    other = [name for name, rule in ALERTS.items() if "chutes_miner_watched" in rule["expr"]]
    assert len(other) == 15
    for name in other:
        case = CASES[name]
        begin, finish = phases(case)
        series = input_series(case, mine("chutes_miner_watched"))
        series.append({"series": s("chutes_miner_watched", hotkey="5Other"), "values": values(1, finish)})
        test = {
            "interval": "1m",
            "input_series": series,
            "alert_rule_test": [{"eval_time": f"{finish - 1}m", "alertname": name, "exp_alerts": []}],
        }
        assert complaints(tmp_path / "test.yml", name, [test]) == "", begin


def test_an_instance_that_its_miner_disabled_is_not_stuck_starting(tmp_path: Path) -> None:
    name = "ChutesInstanceStuckStarting"
    case = CASES[name]
    begin, finish = phases(case)
    activated = mine("chutes_instance_activated_timestamp_seconds", instance_id="i1")
    test = {
        "interval": "1m",
        "input_series": [*input_series(case), {"series": activated, "values": values(START * SECONDS, finish)}],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []} for minute in range(begin, finish, 10)
        ],
    }
    assert complaints(tmp_path / "test.yml", name, [test]) == ""


def test_where_all_feeds_are_down_or_a_signature_is_refused_one_alert_says_so(tmp_path: Path) -> None:
    down = [{"series": s("chutes_feed_up", feed=feed), "values": values(0, 60)} for feed in ("scores", "stats")]
    down += [
        {"series": s("chutes_feed_ttl_seconds", feed=feed), "values": values(55, 60)} for feed in ("scores", "stats")
    ]
    refused = [
        {"series": mine("chutes_feed_up", feed="nodes"), "values": values(0, 60)},
        {"series": s("chutes_feed_up", feed="stats"), "values": values(1, 60)},
        {
            "series": mine("chutes_feed_failure_info", feed="nodes", reason="signature_refused"),
            "values": values(1, 60),
        },
    ]
    tests = [
        {
            "interval": "1m",
            "input_series": series,
            "alert_rule_test": [{"eval_time": "50m", "alertname": "ChutesFeedDown", "exp_alerts": []}],
        }
        for series in (down, refused)
    ]
    assert complaints(tmp_path / "test.yml", "ChutesFeedDown", tests) == ""


def test_the_rules_are_well_formed() -> None:
    files = sorted(map(str, RULES.glob("*.yml")))
    result = subprocess.run(
        ["promtool", "check", "rules", "--lint=all", "--lint-fatal", *files],  # noqa: S607 - Debian's, from the path
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_a_test_and_a_section_in_a_runbook() -> None:
    assert CASES.keys() == ALERTS.keys()
    sections = {}
    for path in RUNBOOKS.glob("*.md"):
        for title, text in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", path.read_text(), re.MULTILINE | re.DOTALL):
            sections[title] = (path.name, text)
    assert sections.keys() == ALERTS.keys()
    for name, rule in ALERTS.items():
        file, text = sections[name]
        assert rule["annotations"]["runbook_url"].endswith(f"docs/runbooks/{file}#{name.lower()}")
        # What it means, how to look, what to do.
        assert re.findall(r"\*\*(.+?)\*\*", text)[:3] == ["Means.", "Look.", "Do."], name


def test_every_alert_leads_to_a_board_that_there_is() -> None:
    boards = {board.uid: board for board in BOARDS}
    for name, rule in ALERTS.items():
        path, _, query = (
            rule["annotations"]["dashboard"].removeprefix("{{ $externalLabels.grafana_url }}/d/").partition("?")
        )
        assert path.removesuffix("{{ with $labels.hotkey }}") in boards, name
        assert query in ("", "var-hotkey={{ $labels.hotkey }}", "var-hotkey={{ . }}{{ end }}"), name


def test_without_the_address_of_grafana_the_link_is_a_path(tmp_path: Path) -> None:
    name = "ChutesGpusIdle"
    case = CASES[name]
    fires = phases(case)[0] + case.delay + minutes(ALERTS[name]["for"])
    (alert,) = expected(name, case)
    alert["exp_annotations"]["dashboard"] = BOARD[name]
    test = {
        "interval": "1m",
        "input_series": input_series(case),
        "alert_rule_test": [{"eval_time": f"{fires}m", "alertname": name, "exp_alerts": [alert]}],
    }
    assert complaints(tmp_path / "test.yml", name, [test]) == ""


def test_severities_say_what_it_costs_and_texts_have_names() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url", "dashboard"}
        assert minutes(rule["for"]) >= 2, name
        assert minutes(rule["keep_firing_for"]) >= 5, name
        text = rule["annotations"]["summary"] + rule["annotations"]["description"]
        without_fallback = re.sub(r"\{\{ else \}\}.*?\{\{ end \}\}", "", text)
        assert not re.search(r"\{\{ \$labels\.\w+_id \}\}", without_fallback), name
