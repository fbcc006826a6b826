"""A simulated subnet with two miners that have idle GPUs, and a chute for each reason not to run one there.

What each miner can run, and what that pays, is worked out by hand: see ``RANKING``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from chutes_exporter.simulator import Fault
from chutes_exporter.simulator.answers import iso
from chutes_exporter.simulator.lives import Bounty
from chutes_exporter.simulator.times import DAY, HOUR
from tests.prometheus.farm import ELSEWHERE, Farm, Machine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.simulator.chutes import Chute


@dataclass(frozen=True)
class Ask:
    """Requirements of a chute.

    Attributes:
        models: On which it runs.
        gpus: How many it takes.
        factor: That somebody set by hand.
        room: How many instances the autoscaler wants of it.
        public: Whether everybody may use it.
        tee: Whether it needs TEE.
        bounty: Whether it has a bounty of 4 hours, which is worth a factor of 1.5.
        disabled: Whether it is.
    """

    models: tuple[str, ...] = ("l40s",)
    gpus: int = 1
    factor: float | None = None
    room: int = 2
    public: bool = True
    tee: bool = False
    bounty: bool = False
    disabled: bool = False


CHUTES: Final = {
    "plain": Ask(),
    "bounty": Ask(models=("h200", "l40s"), bounty=True),
    "wide": Ask(gpus=3, factor=1.25),
    "too-wide": Ask(gpus=4, factor=2),
    "disabled": Ask(factor=3, disabled=True),
    "full": Ask(factor=4, room=0),
    "tee": Ask(gpus=2, tee=True),
    "tee-wide": Ask(gpus=3, tee=True, factor=1.75),
    "tee-h200": Ask(models=("h200",), tee=True),
    "private": Ask(public=False, bounty=True),
    "private-unwanted": Ask(public=False, factor=1.5),
    "tee-crowded": Ask(tee=True, factor=5, room=1),
    "cooling": Ask(factor=6),
    "other-model": Ask(models=("a100",), factor=7),
    "h200-plain": Ask(models=("h200",)),
}
NUMBERS: Final = {name: ELSEWHERE + 1 + place for place, name in enumerate(CHUTES)}

Ranking = dict[str, list[tuple[str, float]]]
"""Chutes and what a second of a GPU earns on them, the best first, by GPU model."""

RANKING: Final[tuple[Ranking, Ranking]] = (
    {
        # An l40s has a rate of 0.85 and an h200 one of 2.75, over the 4.5 of the dearest: 0.188889 and 0.611111.
        # Of the four l40s that are idle on one server, one is not verified; two more are idle on a server with TEE.
        "l40s": [
            ("tee", 0.425),  # x 2.25
            ("bounty", 0.283333),  # x 1.5
            ("wide", 0.236111),  # x 1.25
            ("plain", 0.188889),
        ],
        # The l40s is the cheapest GPU of the chute with a bounty: an h200 earns 2.75 / 0.85 as much.
        "h200": [("bounty", 0.916667), ("h200-plain", 0.611111)],
    },
    {
        # One idle GPU and no TEE, but 23 GPUs that have been active for more than a week: the private gate is open.
        "l40s": [
            ("private", 0.566667),  # x 2 x 1.5
            ("bounty", 0.283333),
            ("plain", 0.188889),
        ],
    },
)
"""Chutes that each of the two miners can run, for each model with idle GPUs."""


def with_chute(ranking: Ranking, model: str, name: str, units: float) -> Ranking:
    """Return a ranking with one more chute."""
    return {**ranking, model: sorted([*ranking[model], (name, units)], key=lambda one: -one[1])}


class Market(Farm):
    """Two miners with idle GPUs, and chutes that they may run or not.

    Args:
        start: Unix time.

    Attributes:
        asks: What each chute asks for, by name, except for its models and GPUs.
    """

    def __init__(self, start: float) -> None:
        self.asks = dict(CHUTES)
        self._offered: set[str] = set()
        first = (Machine("l40s", 8, idle=4), Machine("l40s", 4, idle=2), Machine("h200", 4, idle=1))
        second = (Machine("l40s", 8, idle=1), Machine("h200", 8), Machine("h200", 8))
        super().__init__(start, [first, second], more_chutes=len(CHUTES), age=8.5 * DAY)
        self.unverify(self.miners[0].servers[0].gpus[-1:])
        self.give_tee(1)
        other = self.miners[2]
        for gpu in other.servers[0].gpus[:2]:
            # Two instances of one chute start elsewhere.
            self.launch(other, (gpu,), NUMBERS["tee-crowded"], start - HOUR, activated=None)
        for name, ask in CHUTES.items():
            if ask.bounty:
                self.offer(name)

    def make_chute(self, index: int) -> Chute:
        """Make a chute; those after the farm's are asked for here."""
        chute = super().make_chute(min(index, ELSEWHERE))
        if index <= ELSEWHERE:
            return chute
        name = list(CHUTES)[index - ELSEWHERE - 1]
        ask = self.asks[name]
        return replace(
            chute,
            chute_id=f"{index:08}-0000-4000-8000-000000000000",
            name=name,
            slug=name,
            seed=name,
            gpu_count=ask.gpus,
            models=ask.models,
            public=ask.public,
            tee=ask.tee,
            manual_boost=ask.factor,
            scaled=True,
            disabled=ask.disabled,
        )

    def target_instances(self, chute: Chute, now: float) -> int:  # noqa: ARG002 - it never changes
        """Return what was asked for."""
        ask = self.asks.get(chute.name or "")
        return 0 if ask is None else ask.room

    def change(self, name: str, **changes: object) -> None:
        """Change what a chute asks for."""
        self.asks[name] = replace(self.asks[name], **changes)  # type: ignore[arg-type]
        chutes = list(self.chutes)
        chutes[NUMBERS[name]] = self.make_chute(NUMBERS[name])
        self.__dict__["chutes"] = tuple(chutes)

    def offer(self, name: str) -> None:
        """Offer a bounty for a chute, 4 hours ago."""
        self._offered.add(self.chutes[NUMBERS[name]].chute_id)

    def bounty(self, chute: Chute, now: float) -> Bounty | None:  # noqa: ARG002 - it never changes
        """Return what was offered."""
        made = self.start - 4 * HOUR
        return Bounty(made, made + DAY) if chute.chute_id in self._offered else None

    def give_tee(self, number: int) -> None:
        """Turn a server of the first miner into one with TEE."""
        miner = self.miners[0]
        server = replace(miner.servers[number], is_tee=True, version="0.3.0")
        miner.servers = (*miner.servers[:number], server, *miner.servers[number + 1 :])

    def run_tee(self) -> None:
        """Let the first miner run an active instance of a TEE chute in place of another one."""
        (old, *_) = self.on(self.miners[0], 1, self.start)
        self.end([old], self.start - DAY)
        self.launch(self.miners[0], old.gpus, NUMBERS["tee"], self.start - DAY)

    def cooldowns(self, ends_in: float = HOUR) -> Mapping[str, Fault]:
        """Return what the service before May 2026 answers: a cooldown for one chute."""
        row = {
            "chute_id": self.chutes[NUMBERS["cooling"]].chute_id,
            "chute_name": "cooling",
            "deleted_at": iso(self.start - HOUR, offset=False),
            "cooldown_expires_at": iso(self.start + ends_in, offset=False),
        }
        return {"thrash_cooldowns": Fault(body=json.dumps([row]).encode())}


def name_of(chute_id: str) -> str:
    """Return the name of a chute, by an id that has its number."""
    return list(CHUTES)[int(chute_id[:8]) - ELSEWHERE - 1]
