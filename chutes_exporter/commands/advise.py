"""The command ``advise``: for each idle GPU model, the chutes that it can run now, the best paid first."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from chutes_exporter.api.meaning import GPU_HOURLY_RATES, HOUR
from chutes_exporter.commands.query import first_key
from chutes_exporter.commands.report import NotKnown, Samples, collect_report, print_not_known, samples_of
from chutes_exporter.commands.terminal import json_text, printable, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.config import Settings

NOTHING_TO_DEPLOY, CHUTES_TO_DEPLOY, NOT_KNOWN = 0, 1, 3
"""The exit status; 2 is that of a wrong command line. 3 means that no chute to deploy was found, but some answers are
missing or incomplete."""

_WINDOW = "15m"
_SHOWN = 10
"""Most chutes of a model on the screen."""
_NAME_WIDTH = 26
_GATE = {
    "chutes_miner_private_gate_instances": 4,
    "chutes_miner_private_gate_gpus": 12,
    "chutes_miner_average_active_gpus": 16,
}
"""Conditions of the private gate for a miner without an active TEE instance, besides an old activation."""
_GATE_ACTIVATION = "chutes_miner_private_gate_oldest_activation_timestamp_seconds"
_GATE_AGE = 3 * 24 * HOUR

_REASONS = {
    "blacklisted": "the miner is blacklisted",
    "disabled": "disabled",
    "no_allowance": "no allowance",
    "no_tee_server": "need a TEE server",
    "too_many_gpus": "need more idle GPUs than one server has",
    "private_gate": "private, and the miner does not pass the private gate",
    "private_without_bounty": "private without a bounty",
    "enough_starting": "TEE, and enough instances are already starting",
    "cooldown": "in a cooldown",
}
"""Why a chute that runs on a model is left out, in the order in which the reasons are looked for."""

_METRICS = frozenset(_GATE) | {
    _GATE_ACTIVATION,
    "chutes_bounty_boost_ratio",
    "chutes_chute_info",
    "chutes_chute_scale_allowance",
    "chutes_chute_units_per_gpu_second",
    "chutes_gpu_info",
    "chutes_gpu_state_info",
    "chutes_instance_info",
    "chutes_miner_blacklisted",
    "chutes_server_info",
    "chutes_thrash_cooldown_expires_timestamp_seconds",
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
    scale_allowance: int
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
        on_one_server: Most of them on one server.
        on_one_tee_server: Most of them on one server with TEE.
        rate_known: Whether the exporter knows the model's hourly rate. Otherwise the given units are a minimum.
        runnable: The chutes that it can run, the best paid first.
        left_out: How many of the other chutes that run on the model are left out, by reason.
    """

    gpu: str
    idle: int
    on_one_server: int
    on_one_tee_server: int
    rate_known: bool
    runnable: list[Offer]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Miner:
    """A miner's advice.

    Attributes:
        hotkey: The miner.
        idle: Its idle models; None where the states of its GPUs are not known.
        private_gate_open: Whether it may launch private chutes; None where that is not known.
    """

    hotkey: str
    idle: list[IdleModel] | None
    private_gate_open: bool | None


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
    miners = [market.miner(hotkey, fleet_known=hotkey in report.counted) for hotkey in hotkeys]
    if as_json:
        summary = {
            "api": settings.api_url,
            "all_known": not gaps,
            "miners": [asdict(one) for one in miners],
            "not_known": [asdict(one) for one in gaps],
        }
        click.echo(json_text(summary))
    else:
        _print_screen(miners, gaps, now)
    if any(model.runnable for miner in miners for model in miner.idle or ()):
        return CHUTES_TO_DEPLOY
    return NOT_KNOWN if gaps else NOTHING_TO_DEPLOY


class Market:
    """Requirements and pay of the chutes, and which of them a miner can launch.

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
        self._bounties = self._by_chute("chutes_bounty_created_timestamp_seconds")
        self._boosts = self._by_chute("chutes_bounty_boost_ratio")
        self._expiries = self._by_chute("chutes_bounty_expires_timestamp_seconds")

    def _by_chute(self, metric: str, **where: str) -> dict[str, float]:
        return {
            labels["chute_id"]: value
            for labels, value in self._samples.get(metric, ())
            if where.items() <= labels.items()
        }

    def _of(self, hotkey: str, metric: str, label: str) -> dict[str, float]:
        """Return a metric of a miner by a label."""
        return {labels[label]: value for labels, value in samples_of(self._samples, metric, hotkey)}

    def miner(self, hotkey: str, *, fleet_known: bool) -> Miner:
        """Return a miner's advice."""
        gate = self.private_gate(hotkey)
        pay: dict[str, dict[str, float]] = {}
        for labels, value in samples_of(self._samples, "chutes_chute_units_per_gpu_second", hotkey):
            pay.setdefault(labels["gpu"], {})[labels["chute_id"]] = value
        cooldowns = self._of(hotkey, "chutes_thrash_cooldown_expires_timestamp_seconds", "chute_id")
        limits = _Limits(
            blacklisted=self._of(hotkey, "chutes_miner_blacklisted", "hotkey").get(hotkey) == 1,
            private_gate_open=gate is True,
            cooldowns=frozenset(chute for chute, until in cooldowns.items() if until > self._now),
        )
        models = [self._model(gpu, free, limits, pay.get(gpu, {})) for gpu, free in sorted(self._free(hotkey).items())]
        return Miner(hotkey, models if fleet_known else None, gate)

    def _free(self, hotkey: str) -> dict[str, _Free]:
        """Count the idle GPUs by model."""
        states = {
            labels["gpu_id"]: labels["state"]
            for labels, _ in samples_of(self._samples, "chutes_gpu_state_info", hotkey)
        }
        with_tee = {
            labels["server_id"]
            for labels, _ in samples_of(self._samples, "chutes_server_info", hotkey)
            if labels["tee"] == "true"
        }
        found: dict[str, Counter[str]] = {}
        for labels, _ in samples_of(self._samples, "chutes_gpu_info", hotkey):
            if states.get(labels["gpu_id"]) == "idle":
                found.setdefault(labels["gpu"], Counter())[labels["server_id"]] += 1
        return {
            gpu: _Free(
                servers.total(),
                max(servers.values()),
                max((count for server, count in servers.items() if server in with_tee), default=0),
            )
            for gpu, servers in found.items()
        }

    def private_gate(self, hotkey: str) -> bool | None:
        """Tell whether a miner may launch private chutes, None where that is not known."""
        active = self._of(hotkey, "chutes_instance_active", "instance_id")
        running = {
            labels["chute_id"]
            for labels, _ in samples_of(self._samples, "chutes_instance_info", hotkey)
            if active.get(labels["instance_id"]) == 1
        }
        if any(chute in self._chutes and self._chutes[chute]["tee"] == "true" for chute in running):
            return True
        oldest = self._of(hotkey, _GATE_ACTIVATION, "hotkey").get(hotkey)
        conditions = [None if oldest is None else self._now - oldest >= _GATE_AGE]
        for metric, least in _GATE.items():
            value = self._of(hotkey, metric, "hotkey").get(hotkey)
            conditions.append(None if value is None else value >= least)
        if False in conditions:
            return False
        return None if None in conditions else True

    def _model(self, gpu: str, free: _Free, limits: _Limits, pay: Mapping[str, float]) -> IdleModel:
        offers, left_out = [], Counter[str]()
        for chute_id, units in pay.items():
            reason = self._reason(chute_id, free, limits)
            if reason:
                left_out[reason] += 1
            else:
                offers.append(self._offer(chute_id, units))
        offers.sort(key=lambda offer: (-offer.units_per_gpu_second, offer.chute_id))
        return IdleModel(
            gpu=gpu,
            idle=free.idle,
            on_one_server=free.on_one_server,
            on_one_tee_server=free.on_one_tee_server,
            rate_known=gpu in GPU_HOURLY_RATES,
            runnable=offers,
            left_out={reason: left_out[reason] for reason in _REASONS if reason in left_out},
        )

    def _reason(self, chute_id: str, free: _Free, limits: _Limits) -> str:
        """Return why a chute cannot be launched now, or None if it can."""
        info, gpus = self._chutes[chute_id], self._gpus[chute_id]
        public, tee = info["public"] == "true", info["tee"] == "true"
        allowance = self._allowances.get(chute_id, 0.0)
        checks = {
            "blacklisted": limits.blacklisted,
            "disabled": info["disabled"] == "true",
            "no_allowance": allowance <= 0,
            "no_tee_server": tee and not free.on_one_tee_server,
            "too_many_gpus": gpus > (free.on_one_tee_server if tee else free.on_one_server),
            "private_gate": not public and not limits.private_gate_open,
            "private_without_bounty": not public and chute_id not in self._bounties,
            "enough_starting": tee and self._starting.get(chute_id, 0.0) > allowance,
            "cooldown": chute_id in limits.cooldowns,
        }
        return next((reason for reason, applies in checks.items() if applies), "")

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
            scale_allowance=int(self._allowances[chute_id]),
            starting_instances=_whole(self._starting.get(chute_id)),
            utilization_ratio=self._used.get(chute_id),
            rate_limited_ratio=self._refused.get(chute_id),
            bounty_boost=self._boosts.get(chute_id),
            bounty_seconds_left=None if expires is None else max(0.0, expires - self._now),
        )


@dataclass(frozen=True)
class _Free:
    """Idle GPUs of a model: all, and most of them on one server, and on one with TEE."""

    idle: int
    on_one_server: int
    on_one_tee_server: int


@dataclass(frozen=True)
class _Limits:
    """Launches that the service refuses a miner.

    Attributes:
        blacklisted: Whether it may launch nothing.
        private_gate_open: Whether it may launch private chutes.
        cooldowns: Chutes in a cooldown.
    """

    blacklisted: bool
    private_gate_open: bool
    cooldowns: frozenset[str]


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
    say(f"{model.gpu}: {gpus}, at most {model.on_one_server} on one server", bold=True)
    if not model.runnable:
        say("No chute can run on them now." if model.left_out else "No chute that supports them is known.")
    else:
        click.echo(_COLUMNS)
    for offer in model.runnable[:_SHOWN]:
        click.echo(printable(_row(offer)))
    if len(model.runnable) > _SHOWN:
        say(f"{len(model.runnable) - _SHOWN} more: --json lists them.")
    if model.runnable and not model.rate_known:
        say("The exporter does not know the hourly rate of this model, so its GPUs earn at least what is shown.")
    if model.left_out:
        reasons = ", ".join(f"{count} {_REASONS[reason]}" for reason, count in model.left_out.items())
        say(f"Left out: {reasons}.", indent="  ")


def _row(offer: Offer) -> str:
    name = (offer.name or offer.chute_id) if offer.public else f"private {offer.chute_id}"
    mark = "*" if _falls(offer) else " "
    starting = "-" if offer.starting_instances is None else offer.starting_instances
    return (
        f"{offer.units_per_gpu_second:>8.3g}{mark}{offer.gpus:>5}{offer.scale_allowance:>5}{starting:>6}"
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


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.0f} %"


def _bounty(offer: Offer) -> str:
    if offer.bounty_boost is None:
        return "-"
    left = offer.bounty_seconds_left
    if left is None:
        return f"x{offer.bounty_boost:.2f}"
    return f"x{offer.bounty_boost:.2f} {left // HOUR:.0f}h{left % HOUR // 60:02.0f}m"
