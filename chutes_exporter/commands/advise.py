"""The command ``advise``: for each idle GPU model, the chutes that it can run now, the best paid
first.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.collectors import launch
from chutes_exporter.commands.forecast import forecast, parse_gpus
from chutes_exporter.commands.options import (
    Command,
    Parsed,
    asks,
    cost_options,
    json_option,
    miner_options,
)
from chutes_exporter.commands.query import first_key
from chutes_exporter.commands.report import DOLLARS_ADVICE, collect_report
from chutes_exporter.commands.result import Result
from chutes_exporter.commands.terminal import moment, percent, print_first, say, whole_percent
from chutes_exporter.duration import HOUR
from chutes_exporter.findings import cost, filled, prices_of
from chutes_exporter.page.gaps import TRY_AGAIN, NotKnown
from chutes_exporter.rules.sums import product

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings
    from chutes_exporter.rules.launch import LaunchRefusal

_WINDOW = "15m"
_SHOWN = 10
"""Most chutes of a model on the screen."""

_REASONS: dict[LaunchRefusal, str] = {
    "not_registered": "the miner has no seat",
    "blacklisted": "the miner is blacklisted",
    "disabled": "disabled",
    "no_bounty": "private, without an active instance and without a bounty",
    "target_expired": "private without a current target",
    "no_room": "no room: enough active instances",
    "enough_starting": "no room: enough instances are starting",
    "tee_mismatch": "need TEE that the server lacks, or cannot run with TEE",
    "in_maintenance": "the server is in maintenance",
    "too_many_gpus": "need more idle GPUs than one server has",
    "unknown": "not known",
}
"""Why chutes that run on a model are left out."""

_METRICS = frozenset(metric.name for metric in launch.COLLECTOR.metrics) | {
    "chutes_bounty_boost_ratio",
    "chutes_chute_info",
    "chutes_chute_recent_utilization_ratio",
    "chutes_gpu_info",
    "chutes_gpu_state_info",
    "chutes_platform_active_compute_multiplier",
    "chutes_platform_gpus",
    "chutes_server_cost_usd_per_gpu_hour",
    "chutes_server_info",
    "chutes_server_maintenance_status",
}


@click.command(cls=Command)
@miner_options("The request must be signed, so a key is required.")
@cost_options
@click.option(
    "--with",
    "wanted",
    multiple=True,
    type=Parsed("NUMBERxMODEL", parse_gpus),
    help="Also predict what these GPUs would earn on one more TEE server (repeatable). Example: "
    "8xpro_6000.",
)
@json_option
@asks(needs_miner=False)
async def advise(settings: Settings, flags: Mapping[str, Any]) -> Result:
    """List the best paid chutes that the idle GPUs can run now.

    For each idle GPU model, it ranks chutes by compute units per GPU-second. It leaves out chutes
    whose launch the service would refuse. It requests fresh data from the API. The exit status is 0
    when there is nothing to deploy, 1 when there is, 2 when the command line is wrong, and 3 when
    no such chute was found but something is not known.
    """
    first_key(settings)  # raises UsageError if there is none
    wanted = flags["wanted"]
    report = await collect_report(
        settings, _METRICS | ({"chutes_miner_score_heading_ratio"} if wanted else set())
    )
    market = _Market(report, settings)
    miners: list[dict[str, Any]] = [
        {
            "hotkey": hotkey,
            "idle": market.idle_models(hotkey) if hotkey in report.counted else None,
            "with": [forecast(report, hotkey, count, model, settings) for count, model in wanted],
        }
        for hotkey in sorted(settings.watched)
    ]
    for miner in miners:
        for model in miner["idle"] or ():
            if model["left_out"] is None or "unknown" in model["left_out"]:
                reason = "an answer lacks whether the service accepts some chutes, or what they pay"
                report.gaps.append(
                    NotKnown(f"chutes for {model['gpu']}", miner["hotkey"], reason, TRY_AGAIN)
                )
        if None in miner["with"]:
            reason = "an answer is missing or incomplete, or a sum is too large"
            report.gaps.append(
                NotKnown("what other GPUs would earn", miner["hotkey"], reason, TRY_AGAIN)
            )
    offers = [
        offer for miner in miners for model in miner["idle"] or () for offer in model["runnable"]
    ]
    summary = {"api": settings.api_url, "miners": miners}
    show = partial(_print_screen, miners, offers, report, settings)
    return Result(summary, show, report.gaps, bool(offers))


class _Market:
    """The chutes that miners can launch, with their demand."""

    def __init__(self, report: Report, settings: Settings) -> None:
        self._report, self._settings = report, settings
        self._chutes = {
            labels["chute_id"]: labels for labels, _ in report.samples.get("chutes_chute_info", ())
        }
        # Of metrics with a window, only the values of the last 15 minutes count.
        self._values = {
            (metric, labels["chute_id"]): value
            for metric, samples in report.samples.items()
            for labels, value in samples
            if "chute_id" in labels and labels.get("window", _WINDOW) == _WINDOW
        }
        self._usd_per_unit = report.usd_per_part(
            report.value("chutes_platform_active_compute_multiplier")
        )

    def idle_models(self, hotkey: str) -> list[dict[str, Any]]:
        """Return the idle models of a miner, with the chutes that they can run, the best paid
        first.

        An idle GPU is verified and in no instance. GPUs on servers in maintenance can run nothing.
        """
        of = partial(self._report.of, hotkey=hotkey)
        # Without a status, a pending server may already be in maintenance.
        pending = [
            labels["server_id"]
            for labels, value in of("chutes_server_maintenance_pending")
            if value
        ]
        statuses = [labels for labels, value in of("chutes_server_maintenance_status") if value]
        steps = dict.fromkeys(pending, "maintenance")
        steps |= {
            labels["server_id"]: labels["status"]
            for labels in statuses
            if labels["status"] != "none"
        }
        idle_ids = {labels["gpu_id"] for labels, _ in of("chutes_gpu_state_info", state="idle")}
        idle: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for labels, _ in of("chutes_gpu_info"):
            if labels["gpu_id"] in idle_ids:
                idle[labels["gpu"]][labels["server_id"]] += 1
        return [
            self._idle_model(hotkey, gpu, servers, steps) for gpu, servers in sorted(idle.items())
        ]

    def _idle_model(
        self, hotkey: str, gpu: str, servers: Counter[str], steps: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return an idle model from its idle GPUs by server, and the steps of servers in or before
        a maintenance.
        """
        of = partial(self._report.of, hotkey=hotkey, gpu=gpu)
        by_step = Counter(steps.get(server) for server in servers.elements())
        rooms = {
            labels["chute_id"]: int(room) for labels, room in of("chutes_launch_room_instances")
        }
        offers = [
            self._offer(labels["chute_id"], units, rooms.get(labels["chute_id"]))
            for labels, units in of("chutes_launch_units_per_gpu_second")
        ]
        refused = {
            labels["reason"]: int(count) for labels, count in of("chutes_launch_refused_chutes")
        }
        return {
            "gpu": gpu,
            "idle": servers.total(),
            "maintenance_pending": by_step["pending"],
            "in_maintenance": by_step["maintenance"],
            "on_one_server": max(
                (count for server, count in servers.items() if server not in steps), default=0
            ),
            "platform": {
                labels["state"]: int(value)
                for labels, value in self._report.of("chutes_platform_gpus", gpu=gpu)
            },
            "cost_usd_per_hour": cost(
                {(server, gpu): count for server, count in servers.items()},
                prices_of(self._report.samples, hotkey),
            ),
            "runnable": sorted(
                offers, key=lambda one: (-one["units_per_gpu_second"], one["chute_id"])
            ),
            # Without these counts, it is not known whether other chutes run on the model.
            "left_out": {reason: refused[reason] for reason in _REASONS if refused[reason]}
            if refused
            else None,
        }

    def _offer(self, chute_id: str, units: float, room: int | None) -> dict[str, Any]:
        """Return a chute that idle GPUs can run. What is not known is None, and so is the name of a
        private chute.
        """

        def value(name: str) -> float | None:
            return self._values.get((f"chutes_{name}", chute_id))

        info, gpus = self._chutes[chute_id], int(self._values["chutes_chute_gpus", chute_id])
        cheapest = self._values["chutes_chute_effective_compute_multiplier", chute_id] / gpus
        public = info["public"] == "true"
        expires, starting = (
            value("bounty_expires_timestamp_seconds"),
            value("chute_starting_instances"),
        )
        return {
            "chute_id": chute_id,
            "name": (info["name"] or None) if public else None,
            "public": public,
            "tee": info["tee"] == "true",
            "gpus": gpus,
            "units_per_gpu_second": units,
            "cheapest_gpu_units_per_gpu_second": cheapest,
            "estimated_usd_per_gpu_day": product(units, self._usd_per_unit),
            "room": room,
            "starting_instances": None if starting is None else int(starting),
            "utilization_ratio": value("chute_recent_utilization_ratio"),
            "rate_limited_ratio": value("chute_rate_limited_ratio"),
            "bounty_boost": value("bounty_boost_ratio"),
            "bounty_seconds_left": None
            if expires is None
            else max(0.0, expires - self._report.now),
        }


# The screen

_LEGEND = (
    "Pay: compute units a second of one GPU. USD/day: an estimate for one GPU. Room: instances "
    "that may still become "
    "active. Bounty, left: its factor, and the hours until it expires. Use %, refused %: load and "
    "refused requests in "
    "15 minutes."
)
_FALLING = (
    "* A cheaper GPU can run the chute too. Within 8 hours after the activation, the pay falls to "
    "that of that GPU."
)


def _print_screen(
    miners: Sequence[Mapping[str, Any]],
    offers: Sequence[Mapping[str, Any]],
    report: Report,
    settings: Settings,
) -> None:
    for miner in miners:
        say(f"{miner['hotkey']}  {moment(report.now)}", bold=True)
        idle = miner["idle"]
        if idle is None:
            say("The idle GPUs are not known.")
        elif not idle:
            say("No GPU is idle.", fg="green")
        for model in idle or ():
            _print_model(model, settings)
        for prediction in miner["with"]:
            _print_forecast(prediction)
        click.echo()
    if offers:
        say(_LEGEND)
        if any(map(_falls, offers)):
            say(_FALLING, indent="  ")
    if settings.chain_url is None and (offers or miners[0]["with"]):
        say(DOLLARS_ADVICE)


def _print_model(model: dict[str, Any], settings: Settings) -> None:
    name, runnable, left_out = model["gpu"], model["runnable"], model["left_out"]
    text = filled(f"{name}: COUNT idle {{GPU|GPUs}}", model["idle"])
    if model["cost_usd_per_hour"] is not None:
        text += f" for {model['cost_usd_per_hour']:,.2f} USD per hour"
    elif settings.costs:
        text += f" at an unknown cost (add --gpu.cost {name}=USD_PER_HOUR)"
    if model["in_maintenance"]:
        text += f", {model['in_maintenance']} in maintenance (reboot now)"
    if model["maintenance_pending"]:
        text += f", {model['maintenance_pending']} with pending maintenance (do not reboot)"
    say(f"{text}, at most {model['on_one_server']} on one server", bold=True)
    if not runnable:
        say(
            "No chute can run on them now." if left_out else "No chute that supports them is known."
        )
    print_first(list(map(_row, runnable)), _SHOWN, "chutes", cut=["name"])
    if left_out:
        reasons = ", ".join(f"{count} {_REASONS[reason]}" for reason, count in left_out.items())
        say(f"Left out: {reasons}.", indent="  ")
    if supply := model["platform"]:
        say(
            f"The platform has {sum(supply.values())} {name}, {supply.get('idle', 0)} of them idle."
        )


def _print_forecast(found: dict[str, Any] | None) -> None:
    if found is None:
        say("What other GPUs would earn is not known.")
        return
    text = f"With {found['gpus']} more {found['gpu']}: score share {percent(found['score_share'])}"
    text += f" instead of {percent(found['score_share_without'])}"
    if found["usd_per_day"] is not None:
        text += (
            f", {found['usd_per_day']:,.2f} USD a day, {found['usd_per_gpu_day']:,.2f} for each GPU"
        )
    if found["break_even_alpha_price_usd"] is not None:
        text += (
            f". They pay for themselves from {found['break_even_alpha_price_usd']:,.2f} USD for "
            "one alpha"
        )
    say(text, bold=True)
    if found["idle_gpus"]:
        say(f"No chute has room for {found['idle_gpus']} of them.")
    rows = [
        {
            "chute id": run["chute_id"],
            "name": run["name"] or "(private)",
            "pay later": run["units_per_gpu_second"],
            "GPUs": run["gpus"],
            "instances": run["instances"],
            "share %": product(100, run["score_share"]),
        }
        for run in found["runs"]
    ]
    print_first(rows, _SHOWN, "chutes", cut=["name"])


def _row(offer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a chute. A star marks one whose pay falls, as _FALLING explains."""
    name = offer["name"] or ("-" if offer["public"] else "(private)")
    earned, left = offer["estimated_usd_per_gpu_day"], offer["bounty_seconds_left"]
    return {
        "chute id": offer["chute_id"],
        "name": f"* {name}" if _falls(offer) else name,
        "pay": offer["units_per_gpu_second"],
        **({} if earned is None else {"USD/day": earned}),
        "GPUs": offer["gpus"],
        "room": offer["room"],
        "bounty": offer["bounty_boost"],
        "left": None if left is None else f"{left // HOUR:.0f}:{left % HOUR // 60:02.0f}",
        "use %": whole_percent(offer["utilization_ratio"]),
        "refused %": whole_percent(offer["rate_limited_ratio"]),
    }


def _falls(offer: Mapping[str, Any]) -> bool:
    """Return whether a cheaper GPU can run a public chute. The service then lowers the pay to that
    of this GPU.
    """
    cheapest = offer["cheapest_gpu_units_per_gpu_second"]
    return (
        offer["public"]
        and offer["units_per_gpu_second"] > cheapest
        and not math.isclose(offer["units_per_gpu_second"], cheapest)
    )
