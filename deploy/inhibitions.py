"""The alerts that mute others, for Alertmanager's example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Inhibition:
    """A rule of inhibition.

    Attributes:
        reason: Why the alerts are muted.
        source: Matchers of the alerts that mute others.
        target: Matchers of the alerts that are muted.
        equal: Labels that have the same values in both.
    """

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


INHIBITIONS: Final = (
    Inhibition(
        "A critical alert mutes those of the same name about the same miner.",
        ('severity="critical"', 'alertname=~"Chutes.+"'),
        ('severity=~"warning|info"',),
        "alertname, job, hotkey",
    ),
    Inhibition(
        "A warning mutes the info of the same name about the same miner.",
        ('severity="warning"', 'alertname=~"Chutes.+"'),
        ('severity="info"',),
        "alertname, job, hotkey",
    ),
    Inhibition(
        "Without an exporter, there is no data about the miner.",
        ('alertname="ChutesMinerUnwatched"', 'severity="critical"'),
        ('alertname=~"Chutes.+"', 'alertname!="ChutesMinerUnwatched"'),
        "hotkey",
    ),
    Inhibition(
        "Without the API, no feed has data.",
        ('alertname="ChutesApiDown"',),
        ('alertname=~"ChutesFeedFailing|ChutesDataIncomplete"',),
        "job",
    ),
    Inhibition(
        "An exporter without the API lacks what the others have.",
        ('alertname="ChutesApiDown"',),
        ('alertname="ChutesExporterBlind"',),
        "job, instance",
    ),
    Inhibition(
        "A miner without a seat, or on the blacklist, has no score and cannot launch, so its "
        "GPUs become idle.",
        ('alertname=~"ChutesMinerDeregistered|ChutesMinerBlacklisted"',),
        (
            (
                'alertname=~"ChutesMinerSeatAtRisk|ChutesMinerLowestIncentive|ChutesMinerEarnsNothing|'
                "ChutesMinerImmunityEnds|"
                "ChutesScoreHeadingDown|ChutesIncentiveLags|ChutesGpusIdle|ChutesStartsFail|"
                'ChutesInstancesLostEarly|ChutesSignatureRefused"'
            ),
        ),
        "hotkey",
    ),
    Inhibition(
        "If nothing earns, the score falls, and GPUs are idle.",
        ('alertname="ChutesMinerEarnsNothing"', 'severity="critical"'),
        ('alertname=~"ChutesScoreHeadingDown|ChutesGpusIdle"',),
        "hotkey",
    ),
    Inhibition(
        "An instance that is about to be purged starts slowly.",
        ('alertname="ChutesInstancePurgeNear"',),
        ('alertname="ChutesInstanceStartSlow"',),
        "hotkey, instance_id",
    ),
    Inhibition(
        "A feed without data is also incomplete.",
        ('alertname="ChutesFeedFailing"',),
        ('alertname="ChutesDataIncomplete"',),
        "job, feed, hotkey",
    ),
)
