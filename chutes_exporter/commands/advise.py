"""The command ``advise``: for each idle GPU model, the chutes that it can run now, the best paid first."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.api.meaning import HOUR, LaunchRefusal
from chutes_exporter.collectors.launch import METRICS as LAUNCH_METRICS
from chutes_exporter.commands.options import Command, api_options, hotkey_options, json_option, run_with_status
from chutes_exporter.commands.query import first_key
from chutes_exporter.commands.report import NotKnown, Samples, collect_report, print_not_known, samples_of
from chutes_exporter.commands.terminal import json_text, printable, say

if TYPE_CHECKING:
    from chutes_exporter.config import Settings

NOTHING_TO_DEPLOY, CHUTES_TO_DEPLOY, NOT_KNOWN = 0, 1, 3
"""The exit status; 2 is that of a wrong command line. 3 means that no chute to deploy was found, but some answers are
missing or incomplete."""

_WINDOW = "15m"
_SHOWN = 10
"""Most chutes of a model on the screen."""
_NAME_WIDTH = 26

_REASONS: dict[LaunchRefusal, str] = {
    "not_registered": "the miner has no seat",
    "blacklisted": "the miner is blacklisted",
    "disabled": "disabled",
    "no_bounty": "private, without an active instance and without a bounty",
    "no_room": "no room: enough active instances",
    "enough_starting": "no room: enough instances are starting",
    "old_tee_server": "refused until the miner's old TEE servers are upgraded",
    "tee_mismatch": "need TEE that the server lacks, or cannot run with TEE",
    "in_maintenance": "the server is in maintenance",
    "too_many_gpus": "need more idle GPUs than one server has",
    "unknown": "not known whether the service accepts them",
}
"""Why chutes that run on a model are left out."""

_METRICS = frozenset(metric.name for metric in LAUNCH_METRICS) | {
    "chutes_bounty_boost_ratio",
    "chutes_chute_info",
    "chutes_chute_scale_allowance",
    "chutes_gpu_info",
    "chutes_gpu_state_info",
    "chutes_server_info",
}


@dataclass(frozen=True)
class Offer:
    """A chute that idle GPUs can run now. A number that is not known is None.

    Attributes:
        chute_id: The chute.
        name: Its name; None for a private chute, and for one without a name.
        public: Whether it is public.
        tee: Whether it needs TEE.
        gpus: GPUs that an instance takes.
        units_per_gpu_second: Compute units that a second of one of these GPUs earns in an instance started now.
        cheapest_gpu_units_per_gpu_second: The same on the cheapest GPU that the chute allows.
        scale_allowance: Instances that may still become active.
        starting_instances: Instances of all miners that start, or that their miners disabled.
        utilization_ratio: Average use of the chute's capacity in the 15 minutes before the autoscaler ran.
        rate_limited_ratio: Share of its requests that were refused in that time.
        bounty_boost: Factor of the multiplier that its bounty gives; None without a bounty.
        bounty_seconds_left: Time until the bounty expires.
    """

    chute_id: str
    name: str | None
    public: bool
    tee: bool
    gpus: int
    units_per_gpu_second: float
    cheapest_gpu_units_per_gpu_second: float
    scale_allowance: int | None
    starting_instances: int | None
    utilization_ratio: float | None
    rate_limited_ratio: float | None
    bounty_boost: float | None
    bounty_seconds_left: float | None


@dataclass(frozen=True)
class IdleModel:
    """The idle GPUs of a model: verified, and in no instance.

    Attributes:
        gpu: The model.
        idle: Number of idle GPUs.
        in_maintenance: Number of them on servers in maintenance, which can run nothing.
        on_one_server: Most of the others on one server.
        runnable: The chutes that it can run, the best paid first.
        left_out: How many of the other chutes that run on the model are left out, by reason.
    """

    gpu: str
    idle: int
    in_maintenance: int
    on_one_server: int
    runnable: list[Offer]
    left_out: dict[LaunchRefusal, int]


@dataclass(frozen=True)
class Miner:
    """A miner's advice.

    Attributes:
        hotkey: The miner.
        idle: Its idle models; None where the states of its GPUs are not known.
    """

    hotkey: str
    idle: list[IdleModel] | None


@click.command(cls=Command)
@hotkey_options("The request must be signed, so a hotkey file or MINER_SEED is required.")
@api_options
@json_option
def advise(**flags: Any) -> None:
    """List the best paid chutes that the idle GPUs can run now.

    For each idle GPU model, it ranks chutes by compute units per GPU-second. It leaves out chutes whose launch the
    service would refuse. It requests fresh data from the API. The exit status is 0 when there is nothing to deploy, 1
    when there is, 2 when the command line is wrong, and 3 when no such chute was found but some answers are missing or
    incomplete.
    """
    run_with_status(run_advise, flags)


async def run_advise(settings: Settings, as_json: bool) -> int:  # noqa: FBT001 - a flag of the command line
    """Ask once, print, and return the exit status.

    Raises:
        ClickException: There is no key.
    """
    first_key(settings)
    report = await collect_report(settings, _METRICS, missing=True)
    gaps, now = report.gaps, report.now
    hotkeys = sorted(key.address for key in settings.keys)
    market = Market(report.samples, now)
    miners = [Miner(hotkey, market.idle_models(hotkey) if hotkey in report.counted else None) for hotkey in hotkeys]
    if as_json:
        summary = {
            "api": settings.api_url,
            "all_known": not gaps,
            "miners": [asdict(miner) for miner in miners],
            "not_known": [asdict(gap) for gap in gaps],
        }
        click.echo(json_text(summary))
    else:
        _print_screen(miners, gaps, now)
    if any(model.runnable for miner in miners for model in miner.idle or ()):
        return CHUTES_TO_DEPLOY
    return NOT_KNOWN if gaps else NOTHING_TO_DEPLOY


class Market:
    """The chutes that miners can launch, with their demand.

    Args:
        samples: Of the collectors.
        now: Unix time.
    """

    def __init__(self, samples: Samples, now: float) -> None:
        self._samples = samples
        self._now = now
        self._chutes = {labels["chute_id"]: labels for labels, _ in samples.get("chutes_chute_info", ())}
        self._gpus = self._by_chute("chutes_chute_gpus")
        self._multipliers = self._by_chute("chutes_chute_effective_compute_multiplier")
        self._allowances = self._by_chute("chutes_chute_scale_allowance")
        self._starting = self._by_chute("chutes_chute_starting_instances")
        self._used = self._by_chute("chutes_chute_recent_utilization_ratio", window=_WINDOW)
        self._refused = self._by_chute("chutes_chute_rate_limited_ratio", window=_WINDOW)
        self._boosts = self._by_chute("chutes_bounty_boost_ratio")
        self._expiries = self._by_chute("chutes_bounty_expires_timestamp_seconds")

    def _by_chute(self, metric: str, **where: str) -> dict[str, float]:
        return {
            labels["chute_id"]: value
            for labels, value in self._samples.get(metric, ())
            if where.items() <= labels.items()
        }

    def idle_models(self, hotkey: str) -> list[IdleModel]:
        """Return the idle models of a miner, with the chutes that they can run."""
        states = {
            labels["gpu_id"]: labels["state"]
            for labels, _ in samples_of(self._samples, "chutes_gpu_state_info", hotkey)
        }
        idle: dict[str, Counter[str]] = {}
        for labels, _ in samples_of(self._samples, "chutes_gpu_info", hotkey):
            if states.get(labels["gpu_id"]) == "idle":
                idle.setdefault(labels["gpu"], Counter())[labels["server_id"]] += 1
        pending = {
            labels["server_id"]
            for labels, value in samples_of(self._samples, "chutes_server_maintenance_pending", hotkey)
            if value
        }
        return [self._model(hotkey, gpu, servers, pending) for gpu, servers in sorted(idle.items())]

    def _model(self, hotkey: str, gpu: str, servers: Counter[str], pending: set[str]) -> IdleModel:
        offers = [
            self._offer(labels["chute_id"], units)
            for labels, units in samples_of(self._samples, "chutes_launch_units_per_gpu_second", hotkey)
            if labels["gpu"] == gpu
        ]
        refused = {
            labels["reason"]: int(count)
            for labels, count in samples_of(self._samples, "chutes_launch_refused_chutes", hotkey)
            if labels["gpu"] == gpu
        }
        return IdleModel(
            gpu=gpu,
            idle=servers.total(),
            in_maintenance=sum(count for server, count in servers.items() if server in pending),
            on_one_server=max((count for server, count in servers.items() if server not in pending), default=0),
            runnable=sorted(offers, key=lambda offer: (-offer.units_per_gpu_second, offer.chute_id)),
            left_out={reason: refused[reason] for reason in _REASONS if refused.get(reason)},
        )

    def _offer(self, chute_id: str, units: float) -> Offer:
        info, gpus = self._chutes[chute_id], self._gpus[chute_id]
        public = info["public"] == "true"
        expires = self._expiries.get(chute_id)
        return Offer(
            chute_id=chute_id,
            name=info["name"] or None if public else None,
            public=public,
            tee=info["tee"] == "true",
            gpus=int(gpus),
            units_per_gpu_second=units,
            cheapest_gpu_units_per_gpu_second=self._multipliers[chute_id] / gpus,
            scale_allowance=_whole(self._allowances.get(chute_id)),
            starting_instances=_whole(self._starting.get(chute_id)),
            utilization_ratio=self._used.get(chute_id),
            rate_limited_ratio=self._refused.get(chute_id),
            bounty_boost=self._boosts.get(chute_id),
            bounty_seconds_left=None if expires is None else max(0.0, expires - self._now),
        )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


# The screen

_COLUMNS = f"{'Units/s':>9}{'GPUs':>5}{'Room':>5}{'Start':>6}{'Use':>6}{'Refused':>8}  {'Bounty':<13}Chute"
_LEGEND = (
    "Units/s: compute units a second of one GPU. Room: instances that may still become active. Start: instances of "
    "all miners that are starting or disabled. Use, Refused: load and share of refused requests in 15 minutes. "
    "Bounty: factor, time left."
)
_FALLING = (
    "* A cheaper GPU can run the chute too. Within 8 hours after the activation, the units fall to those of that GPU."
)


def _print_screen(miners: list[Miner], gaps: list[NotKnown], now: float) -> None:
    for miner in miners:
        say(f"{miner.hotkey}  {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC", bold=True)
        if miner.idle is None:
            say("The idle GPUs are not known.")
        elif not miner.idle:
            say("No GPU is idle.", fg="green")
        for model in miner.idle or ():
            _print_model(model)
        click.echo()
    offers = [offer for miner in miners for model in miner.idle or () for offer in model.runnable]
    if offers:
        say(_LEGEND)
        if any(map(_falls, offers)):
            say(_FALLING, indent="  ")
    print_not_known(gaps)


def _print_model(model: IdleModel) -> None:
    gpus = f"{model.idle} idle GPU{'' if model.idle == 1 else 's'}"
    maintenance = f", {model.in_maintenance} in maintenance" if model.in_maintenance else ""
    say(f"{model.gpu}: {gpus}{maintenance}, at most {model.on_one_server} on one server", bold=True)
    if not model.runnable:
        say("No chute can run on them now." if model.left_out else "No chute that supports them is known.")
    else:
        click.echo(_COLUMNS)
    for offer in model.runnable[:_SHOWN]:
        click.echo(printable(_row(offer)))
    if len(model.runnable) > _SHOWN:
        say(f"{len(model.runnable) - _SHOWN} more: --json lists them.")
    if model.left_out:
        reasons = ", ".join(f"{count} {_REASONS[reason]}" for reason, count in model.left_out.items())
        say(f"Left out: {reasons}.", indent="  ")


def _row(offer: Offer) -> str:
    name = (offer.name or offer.chute_id) if offer.public else f"private {offer.chute_id}"
    mark = "*" if _falls(offer) else " "
    room, starting = _count(offer.scale_allowance), _count(offer.starting_instances)
    return (
        f"{offer.units_per_gpu_second:>8.3g}{mark}{offer.gpus:>5}{room:>5}{starting:>6}"
        f"{_percent(offer.utilization_ratio):>6}{_percent(offer.rate_limited_ratio):>8}  "
        f"{_bounty(offer):<13}{name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 1] + '…'}"
    )


def _falls(offer: Offer) -> bool:
    """Return whether the pay falls to the pay of a cheaper GPU, as the service does for public instances."""
    cheapest = offer.cheapest_gpu_units_per_gpu_second
    return (
        offer.public
        and offer.units_per_gpu_second > cheapest
        and not math.isclose(offer.units_per_gpu_second, cheapest)
    )


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.0f} %"


def _bounty(offer: Offer) -> str:
    if offer.bounty_boost is None:
        return "-"
    left = offer.bounty_seconds_left
    if left is None:
        return f"x{offer.bounty_boost:.2f}"
    return f"x{offer.bounty_boost:.2f} {left // HOUR:.0f}h{left % HOUR // 60:02.0f}m"
