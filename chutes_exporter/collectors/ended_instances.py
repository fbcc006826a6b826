"""Why instances ended, and what that cost: the newest hourly audit report of the validator."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chutes_exporter.api.records import ComputeRecord
from chutes_exporter.collectors.base import (
    Answers,
    Collector,
    Miners,
    Part,
    Samples,
    distinct,
    metric_of,
)
from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.table import AUDIT_REPORT
from chutes_exporter.rules.losses import (
    END_REASONS,
    end_reason,
    ended_counts,
    lost_compute_units,
    records_before_end,
)
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from chutes_exporter.api.records import AuditInstance, AuditReport

_metric = metric_of(AUDIT_REPORT)
REPORT_END = metric_of(AUDIT_REPORT, whole=False)(
    "chutes_audit_report_end_timestamp_seconds",
    "End of the hour that the newest audit report of the validator covers. The metrics with "
    "this window describe it.",
)
ENDED = _metric(
    "chutes_miner_window_ended_instances",
    "Instances of the miner that ended in the report's hour, by reason, and whether they still "
    "count for the score. "
    "docs/earnings.md explains the reasons. An instance that was never active does not count.",
    ("hotkey", "reason", "counts", "window"),
)
FAILED = _metric(
    "chutes_miner_window_failed_starts",
    "Instances of the miner that ended in the report's hour and were never active.",
    ("hotkey", "window"),
)
LOST = _metric(
    "chutes_miner_window_lost_compute_units",
    "Estimate of the compute units of the past day that the score lost because of instances that "
    "ended in the report's "
    "hour, also because they were the last active ones of their chutes. It uses the last "
    "multiplier of each instance; "
    "`chutes-exporter incidents` uses all of them. Absent if a multiplier is unknown.",
    ("hotkey", "window"),
    stability="experimental",
)


def _collect(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add the ends of each exported miner: zeros if it is watched or in the report, but nothing of
    it ended.
    """
    report = answers[AUDIT_REPORT]
    out.add(REPORT_END, report.end)
    ended: dict[str, list[AuditInstance]] = {hotkey: [] for hotkey in sorted(miners.watched)}
    for instance in distinct(report.instances, lambda instance: instance.instance_id):
        if miners.exports(instance.miner_hotkey):
            ended_of_miner = ended.setdefault(instance.miner_hotkey, [])
            if instance.deleted_at and report.end - HOUR <= instance.deleted_at <= report.end:
                ended_of_miner.append(instance)
    for hotkey, of_miner in ended.items():
        ends = Counter(
            (end_reason(instance.deletion_reason), ended_counts(instance)) for instance in of_miner
        )
        for reason in END_REASONS:
            for counts in (True, False):
                out.add(ENDED, ends[reason, counts], hotkey, reason, counts, "1h")
        out.add(FAILED, sum(instance.activated_at is None for instance in of_miner), hotkey, "1h")
        out.add(LOST, total(_lost(instance, report) for instance in of_miner), hotkey, "1h")


def _lost(instance: AuditInstance, report: AuditReport) -> float | None:
    """Return the compute units that an instance lost by its end, as if it always had its last
    multiplier.
    """
    key = instance.instance_id
    records = [record for record in report.multipliers if record.instance_id == key]
    earlier = [record for record in report.earlier_multipliers if record.instance_id == key]
    before = records_before_end(
        instance, records, {one.started_at: one.compute_multiplier for one in earlier}
    )
    whole_life = ComputeRecord(key, instance.created_at, instance.compute_multiplier)
    last_multiplier = before[-1].compute_multiplier if before else None
    return lost_compute_units(
        instance, [whole_life], {instance.created_at: last_multiplier}, report.end
    )


COLLECTOR = Collector(
    "ended_instances",
    "why instances ended in the past hour, and the compute units that they lost",
    (Part((AUDIT_REPORT,), (REPORT_END, ENDED, FAILED, LOST), _collect),),
    watched_only=True,
)
