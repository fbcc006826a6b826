"""What GPUs would earn that a miner does not have: the chutes with room for them, and its score
share with them.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
import msgspec

from chutes_exporter.api.records import Server, ServerGpu, UnixTime
from chutes_exporter.collectors import launch, score_heading
from chutes_exporter.collectors.base import Answers, Miners, Samples
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.feeds.table import INVENTORY, SERVERS, SUPPORTED_GPUS
from chutes_exporter.rules.gpus import GPU_MODELS
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.client import Answer
    from chutes_exporter.api.records import Chute
    from chutes_exporter.commands.report import Report
    from chutes_exporter.config import Settings

_MAX_GPUS = 64


def parse_gpus(text: str) -> tuple[int, str]:
    """Parse a number of GPUs and their model, such as ``8xpro_6000``, or raise ValueError."""
    match = re.fullmatch(r"([0-9]{1,2})x([a-z0-9_]{1,40})", text)
    if match is None or not 1 <= int(match[1]) <= _MAX_GPUS:
        raise ValueError(
            f"{text!r} is not 1 to {_MAX_GPUS}, x and a GPU model: write for example 8xpro_6000"
        )
    return int(match[1]), match[2]


def forecast(
    report: Report, hotkey: str, count: int, model: str, settings: Settings
) -> dict[str, Any] | None:
    """Predict what GPUs would earn if the miner had them idle on one more TEE server.

    It returns the score share that the miner approaches without and with the GPUs, the chutes that
    they can run, each with its instances and the share with these alone, and the idle rest. Money
    without its price is None. The result is None if an answer of the collectors ``launch`` and
    ``score_heading`` is missing or incomplete, or a number is too large. An unknown model is a
    UsageError.
    """
    whole = {
        feed.name: state.snapshot.answer
        for feed, state in report.states.items()
        if feed.hotkey in (hotkey, THE_PLATFORM)
        and state.snapshot is not None
        and state.snapshot.answer.whole
    }
    supported = whole.get(SUPPORTED_GPUS.name)
    models = {*GPU_MODELS, *(gpu.gpu for gpu in (supported.value if supported else ()))}
    if model not in models:
        raise click.UsageError(
            f"--with has an unknown GPU model: {model}. Known are {', '.join(sorted(models))}"
        )
    answers, needed = Answers(whole), {*launch.COLLECTOR.feeds, *score_heading.COLLECTOR.feeds}
    is_known = all(feed in answers for feed in needed)
    earned = score_heading.earned_rates(answers, frozenset({hotkey})) if is_known else None
    everybody = total((earned or {}).values())
    if earned is None or everybody is None:
        return None
    own = earned.get(hotkey, 0.0)

    def share(more: float) -> float:
        """Return the miner's score share with so many more compute units per second."""
        return (own + more) / (everybody + more) if everybody + more > 0 else 0.0

    first_pays = _first_pays(whole, hotkey, count, model)
    runs: list[dict[str, Any]] = []
    for chute, _, chute_room in launch.chutes_with_instances(answers):
        # Only chutes that these GPUs can run have a first pay.
        if chute.chute_id in first_pays and chute.node_selector and chute.node_selector.gpu_count:
            size = chute.node_selector.gpu_count
            pay = _lasting_pay(chute, size, first_pays[chute.chute_id])
            room = max(0, int(min(count // size, chute_room or 0)))
            if room and pay > 0 and math.isfinite(share(room * size * pay)):
                run: dict[str, Any] = {
                    "chute_id": chute.chute_id,
                    "name": chute.name if chute.public else None,
                    "gpus": size,
                    "instances": room,
                    "units_per_gpu_second": pay,
                    "score_share": share(room * size * pay),
                }
                runs.append(run)
    runs.sort(key=lambda run: (-run["units_per_gpu_second"], run["chute_id"]))
    rate, idle = _best_use(runs, count)
    if not math.isfinite(share(rate)):
        return None
    alpha = product(share(rate) - share(0.0), report.value("chutes_subnet_emission_alpha_per_day"))
    usd = report.usd(alpha)
    cost = settings.gpu_costs.get(model)
    return {
        "gpu": model,
        "gpus": count,
        "runs": runs,
        "idle_gpus": idle,
        "score_share_without": share(0.0),
        "score_share": share(rate),
        "usd_per_day": usd,
        "usd_per_gpu_day": None if usd is None else usd / count,
        "break_even_alpha_price_usd": None
        if not alpha or cost is None
        else total([24 * cost * count / alpha]),
    }


def _lasting_pay(chute: Chute, size: int, first_pay: float) -> float:
    """Return the compute units per GPU-second that an instance on ``size`` GPUs earns after its
    first time.

    A public instance moves to the pay of the cheapest GPU that its chute allows, whatever it runs
    on. A private one keeps its first pay. A bounty fades, so its factor is taken out.
    """
    pay = (chute.effective_compute_multiplier or 0.0) / size if chute.public else first_pay
    return pay / ((chute.compute_multiplier_factors or {}).get("bounty_boost") or 1.0)


def _best_use(runs: list[dict[str, Any]], count: int) -> tuple[float, int]:
    """Return the compute units per second of the GPUs in their best use, and how many stay idle.

    ``runs`` begins with the best paid chute. It gets as many GPUs as it has room for, and the next
    ones get the rest.
    """
    rate, idle = 0.0, count
    for run in runs:
        used = min(run["instances"], idle // run["gpus"]) * run["gpus"]
        idle -= used
        rate += used * run["units_per_gpu_second"]
    return rate, idle


def _first_pays(
    whole: Mapping[str, Answer[Any]], hotkey: str, count: int, model: str
) -> dict[str, float]:
    """Return the compute units per GPU-second that idle GPUs on one more server would earn at
    first, by chute id.
    """
    gpus = [
        ServerGpu(f"{number}", gpu_identifier=model, verified_at=UnixTime(1))
        for number in range(count)
    ]
    # Without its other GPUs, the collector shows only these.
    servers = [msgspec.structs.replace(server, gpus=[]) for server in whole[SERVERS.name].value]
    servers.append(
        Server("with", is_tee=True, version="1.0.0", maintenance_pending=False, gpus=gpus)
    )
    simulated = {
        SERVERS.name: replace(whole[SERVERS.name], value=servers),
        INVENTORY.name: replace(whole[INVENTORY.name], value=[]),
    }
    out = Samples()
    launch.LAUNCH.collect(
        Answers({**whole, **simulated}), Miners(frozenset({hotkey}), "watched", hotkey), out
    )
    return {
        sample.labels["chute_id"]: sample.value
        for family in out.collect()
        if family.name == launch.UNITS.name
        for sample in family.samples
    }
