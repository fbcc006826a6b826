"""The alerts that mute others: the one table for Alertmanager's example and for the alerts that
dashboards list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Inhibition:
    """A rule of inhibition. Alertmanager and PromQL write matchers of labels alike.

    Attributes:
        cause: A word for the recording.
        reason: Why the alerts are muted.
        source: Matchers of the alerts that mute others.
        target: Matchers of the alerts that are muted.
        equal: Labels that have the same values in both.
    """

    cause: str
    reason: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    equal: str

    def routing(self) -> str:
        """Write the rule for Alertmanager."""
        return (
            f"  # {self.reason}\n"
            f"  - source_matchers: [{', '.join(self.source)}]\n"
            f"    target_matchers: [{', '.join(self.target)}]\n"
            f"    equal: [{self.equal}]\n"
        )

    def recording(self) -> str:
        """Write the recording of the alerts that the rule mutes."""
        return (
            f"      # {self.reason}\n"
            "      - record: alert:chutes_alerts:inhibited\n"
            "        expr: |\n"
            f'          ALERTS{{alertstate="firing",{",".join(self.target)}}}\n'
            f"          and on ({self.equal})\n"
            f'          ALERTS{{alertstate="firing",{",".join(self.source)}}}\n'
            "        labels:\n"
            f"          cause: {self.cause}\n\n"
        )


INHIBITIONS: Final = (
    Inhibition(
        "critical",
        "A critical alert mutes those of the same name about the same miner.",
        ('severity="critical"', 'alertname=~"Chutes.+"'),
        ('severity=~"warning|info"',),
        "alertname, job, hotkey",
    ),
    Inhibition(
        "warning",
        "A warning mutes the info of the same name about the same miner.",
        ('severity="warning"', 'alertname=~"Chutes.+"'),
        ('severity="info"',),
        "alertname, job, hotkey",
    ),
    Inhibition(
        "unwatched",
        "Without an exporter, there is no data about the miner.",
        ('alertname="ChutesMinerUnwatched"', 'severity="critical"'),
        ('alertname=~"Chutes.+"', 'alertname!="ChutesMinerUnwatched"'),
        "hotkey",
    ),
    Inhibition(
        "api_down",
        "Without the API, no feed has data.",
        ('alertname="ChutesApiDown"',),
        ('alertname=~"ChutesFeedFailing|ChutesDataIncomplete"',),
        "job",
    ),
    Inhibition(
        "api_down_here",
        "An exporter without the API lacks what the others have.",
        ('alertname="ChutesApiDown"',),
        ('alertname="ChutesExporterBlind"',),
        "job, instance",
    ),
    Inhibition(
        "no_score",
        "A miner without a seat, or on the blacklist, has no score and cannot launch, so its "
        "GPUs become idle.",
        ('alertname=~"ChutesMinerDeregistered|ChutesMinerBlacklisted"',),
        (
            (
                'alertname=~"ChutesMinerSeatAtRisk|ChutesMinerLowestIncentive|ChutesMinerEarnsNothing|'
                "ChutesMinerImmunityEnds|"
                "ChutesScoreHeadingDown|ChutesIncentiveLags|ChutesMinerLoss|ChutesGpusIdle|ChutesGpusNeverEarn|"
                'ChutesGpuHoursLost|ChutesComputeUnitsLost|ChutesInstancesLostEarly|ChutesSignatureRefused"'
            ),
        ),
        "hotkey",
    ),
    Inhibition(
        "earns_nothing",
        "If nothing earns, the score falls, and GPUs are idle.",
        ('alertname="ChutesMinerEarnsNothing"', 'severity="critical"'),
        ('alertname=~"ChutesScoreHeadingDown|ChutesGpusIdle|ChutesGpuHoursLost"',),
        "hotkey",
    ),
    Inhibition(
        "purge_near",
        "An instance that is about to be purged starts slowly.",
        ('alertname="ChutesInstancePurgeNear"',),
        ('alertname="ChutesInstanceStartSlow"',),
        "hotkey, instance_id",
    ),
    Inhibition(
        "feed_failing",
        "A feed without data is also incomplete.",
        ('alertname="ChutesFeedFailing"',),
        ('alertname="ChutesDataIncomplete"',),
        "job, feed, hotkey",
    ),
)
