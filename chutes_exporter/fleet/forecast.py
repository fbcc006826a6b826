"""What a miner would earn with more GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chutes_exporter.duration import DAY
from chutes_exporter.fleet.join import join_fleet
from chutes_exporter.fleet.model import Gpu, Server
from chutes_exporter.fleet.offers import find_demand, find_markets, find_uses

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.model import Use


@dataclass(frozen=True)
class Addition:
    """A TEE server that the miner does not have, with idle GPUs.

    Attributes:
        price_usd: What it costs to buy, None if nobody said.
    """

    count: int
    model: str
    price_usd: float | None = None


@dataclass(frozen=True)
class Gain:
    """What the additions earn, beside the best use of the GPUs that are idle now.

    Attributes:
        uses: Their best use.
        first_day_units: Compute units of the first day.
        later_units_per_second: Compute units per second from 8 hours after the activations on.
    """

    uses: tuple[Use, ...]
    first_day_units: float
    later_units_per_second: float

    @property
    def idle_gpus(self) -> int:
        """GPUs for which no chute has room."""
        return sum(use.free - use.used for use in self.uses)

    @property
    def first_units_per_second(self) -> float:
        """Compute units per second, on average of the first day."""
        return self.first_day_units / DAY


def find_gain(answers: FleetAnswers, additions: Sequence[Addition]) -> Gain | None:
    """Return what additions would earn, None while it is unknown what can be launched.

    The gain is the pay of all idle GPUs with the additions, less the pay of those that are idle
    now. So an addition that takes the room of a chute from another server gains nothing by it.
    """
    fleet = join_fleet(answers)
    demand = find_demand(answers)
    if fleet.markets is None or demand is None:
        return None
    # Their ids only have to differ from those of the miner's servers.
    added = [_server(f"with-{number}", addition) for number, addition in enumerate(additions)]
    servers = [*fleet.servers, *added]
    markets = find_markets(answers, demand, servers, fleet.instances)
    uses = find_uses(servers, markets)
    if any(use.may_be_more for use in uses):
        # A chute of which it is unknown whether it can be launched could change the gain.
        return None
    added_ids = {server.server_id for server in added}
    return Gain(
        uses=tuple(use for use in uses if use.server_id in added_ids),
        first_day_units=_first_day_units(uses) - _first_day_units(fleet.uses),
        later_units_per_second=_later_units(uses) - _later_units(fleet.uses),
    )


def _first_day_units(uses: Iterable[Use]) -> float:
    return sum(use.first_day_units or 0.0 for use in uses)


def _later_units(uses: Iterable[Use]) -> float:
    return sum(use.later_units_per_second for use in uses)


def _server(server_id: str, addition: Addition) -> Server:
    """Return an addition as a server of a fleet, which can be used and whose GPUs are all idle."""
    gpus = [
        Gpu(
            gpu_id=f"{server_id}-{index}",
            server_id=server_id,
            model=addition.model,
            index=index,
            state="idle",
            chute_id="",
            chute="",
            instance_id="",
        )
        for index in range(addition.count)
    ]
    # It has not booted an image yet, so the fields about versions and upgrades say nothing, and
    # `runs_chutes` is unknown. No launch is refused because of them.
    return Server(
        server_id=server_id,
        name=f"{addition.count}x{addition.model}",
        version="",
        tee=True,
        maintenance="none",
        holds_slot=False,
        boots=None,
        may_be_refused=False,
        needs_upgrade=False,
        measured=None,
        runs_chutes=None,
        gpus=tuple(gpus),
        instances=(),
        is_whole=True,
    )
