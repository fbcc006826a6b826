"""The signing miner's fleet: the states, places and pay of its servers, GPUs and instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chutes_exporter.collectors.base import Answers, Collector, Miners, Part, Samples
from chutes_exporter.duration import DAY_HOURS
from chutes_exporter.feeds import definitions as f
from chutes_exporter.fleet.answers import by_field
from chutes_exporter.fleet.gpus import GPU_STATES
from chutes_exporter.fleet.model import TOPICS
from chutes_exporter.fleet.servers import SERVER_STATES
from chutes_exporter.fleet.upgrades import STEPS, plan_upgrades
from chutes_exporter.rules.instances import DEADLINES, INSTANCE_STATES
from chutes_exporter.rules.maintenance import MAINTENANCE_STATUSES
from chutes_exporter.rules.sums import product, total

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.collectors.base import LabelValue
    from chutes_exporter.fleet.gpus import Gpu
    from chutes_exporter.fleet.instances import Instance
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.fleet.servers import Server
    from chutes_exporter.metric import Metric
    from chutes_exporter.rules.money import Costs

    ServerNames = dict[str | None, str | None]

_PART = Part(
    also=(
        *(f.SERVERS, f.NODES, f.INVENTORY, f.INSTANCES, f.MINER_GPUS),
        *(f.MAINTENANCE, f.TEE_MEASUREMENTS, f.CHUTES, f.SUPPORTED_GPUS, f.ACTIVE_INSTANCES),
        f.METAGRAPH,
    )
)
_metric = _PART.metric
OF_SERVER: Final = ("hotkey", "server_id", "server")
KNOWN_STEPS: Final = tuple(step for step in STEPS if step != "not known")
OF_INSTANCE: Final = ("hotkey", "instance_id", "chute_id", "chute", "private")

FLEET_GPUS = _metric(
    "chutes_fleet_gpus",
    "GPUs of the miner by model and state: earning (in an active instance), starting, disabled, "
    "idle or unverified (in no instance). Absent while the state of one of the model is unknown.",
    ("hotkey", "gpu", "state"),
)
KNOWN = _metric(
    "chutes_fleet_known",
    "Whether all of a topic is known (1), so that a sum over the miner's series is whole: "
    "servers, gpus, instances, pay, reports (of 6 hours). Absent for a miner without a seat, and "
    "gpus without a GPU.",
    ("hotkey", "topic"),
)
SERVER_GPUS = _metric(
    "chutes_server_gpus",
    "GPUs of the server by model and state, as chutes_fleet_gpus counts them. Absent while the "
    "state of one of them is unknown.",
    (*OF_SERVER, "gpu", "state"),
)
SERVER_STATE = _metric(
    "chutes_server_state",
    "Whether the server is in this state (1), the first that applies: in_maintenance, "
    "maintenance_pending, without_gpus, unverified, idle (a GPU is), starting, disabled, earning "
    "(all GPUs are).",
    (*OF_SERVER, "state"),
)
IDLE_COST = _metric(
    "chutes_server_idle_cost_usd_per_day",
    "Price of the server's idle and unverified GPUs for a day, by --gpu.cost or --server.cost. "
    "Absent while the price or the state of one of its GPUs is unknown.",
    OF_SERVER,
)
SERVER_UNITS = _metric(
    "chutes_server_compute_units_per_second",
    "Compute units that the instances on the server earn per second. Disabled instances earn too. "
    "Absent while the instance of a GPU that earns is unknown.",
    OF_SERVER,
)
SERVER_INSTANCES = _metric(
    "chutes_server_earning_instances",
    "Instances on the server that earn now: active and disabled ones. Absent while the instance of "
    "a GPU that earns is unknown.",
    OF_SERVER,
)
SERVER_MAINTENANCE = _metric(
    "chutes_server_maintenance_state",
    "Whether the TEE server is in this state of a maintenance (1): none, pending (do not reboot),"
    " maintenance (do not reboot while something earns on it). It holds an upgrade slot in the "
    "last two.",
    (*OF_SERVER, "state"),
)
SERVER_UPGRADE = _metric(
    "chutes_server_upgrade_needed",
    "Whether the TEE server is older than the target of the newest window (1). The upgrade is "
    "possible only while chutes_maintenance_window_open is 1.",
    OF_SERVER,
)
SERVER_STEP = _metric(
    "chutes_server_maintenance_step",
    "Whether this is what to do with the TEE server (1): cannot_return, boot, "
    "await_drain, request, wait, nothing. docs/commands.md explains the steps. Absent while it is "
    "unknown.",
    (*OF_SERVER, "step"),
)
SERVER_DONE = _metric(
    "chutes_server_upgrade_done_timestamp_seconds",
    "When the upgrade of a waiting TEE server is done at the latest, if all are upgraded one "
    "after another, 4 hours each, in the miner's slots. Absent while it is unknown.",
    OF_SERVER,
)
SERVER_BOOTS = _metric(
    "chutes_server_version_accepted",
    "Whether the TEE server comes back after a reboot with its version: 1 for the highest listed "
    "version, 0 for a version that is not listed and no release candidate. Absent for others.",
    OF_SERVER,
)
GPU_STATE = _metric(
    "chutes_gpu_state",
    "Whether the GPU is in this state (1), as chutes_fleet_gpus counts them: unverified, idle, "
    "starting, disabled, earning. The uuid is the id in NVIDIA's format, for joins with DCGM's "
    "metrics.",
    ("hotkey", "gpu_id", "uuid", "server_id", "server", "gpu", "device_index", "state"),
)
INSTANCE_STATE = _metric(
    "chutes_instance_state",
    "Whether the instance is in this state (1): active, starting (never active so far), disabled "
    "(the miner disabled it after it was active, and it keeps earning until it is deleted).",
    (*OF_INSTANCE, "state"),
)
INSTANCE_GPUS = _metric(
    "chutes_instance_gpus",
    "GPUs that the instance holds on the server, in any state. Absent while its place is unknown. "
    "An instance without a GPU, because it was deleted, has 0 and no server.",
    (*OF_INSTANCE, "server_id", "server", "gpu"),
)
INSTANCE_UNITS = _metric(
    "chutes_instance_compute_units_per_second",
    "Compute units that the instance earns per second (its compute multiplier). A starting "
    "instance gets them for its start, too, if it becomes active in time.",
    OF_INSTANCE,
)
INSTANCE_LATER_UNITS = _metric(
    "chutes_instance_later_compute_units_per_second",
    "Compute units per second that the instance earns for certain from 8 hours after its "
    "activation on, without the bounty and the urgency boost.",
    OF_INSTANCE,
)
DEADLINE = _metric(
    "chutes_instance_deadline_timestamp_seconds",
    "When the service deletes the instance (purge), when a public one has secured its score "
    "(secured), or when a private one is deleted unless it gets requests (end_of_billing).",
    (*OF_INSTANCE, "deadline"),
)
FLEET_INSTANCES = _metric(
    "chutes_fleet_instances",
    "Instances of the miner by state. Absent while one is unknown.",
    ("hotkey", "state"),
)


def labels_of_instance(fleet: Fleet, instance: Instance) -> tuple[LabelValue, ...] | None:
    """Return the labels :data:`OF_INSTANCE`, None while one of them is unknown: it would make other
    series when it becomes known.
    """
    if instance.chute is None or instance.private is None:
        return None
    chute = (instance.chute_id, instance.chute, instance.private)
    return fleet.hotkey, instance.instance_id, *chute


@_PART.function
def fleet_samples(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add the samples of the fleet of the miner that the answers are about."""
    try:
        fleet = answers.joined.fleet(miners.hotkey)
        _add_gpu_counts(FLEET_GPUS, fleet.gpus, (fleet.hotkey,), out)
        if fleet.known["instances"]:
            states = [instance.state for instance in fleet.instances]
            out.add_counts(FLEET_INSTANCES, states, INSTANCE_STATES, fleet.hotkey)
        _add_servers(fleet, miners.costs, out)
        # A GPU or an instance without a server has the empty id and name.
        server_names: ServerNames = {"": ""}
        server_names |= {server.server_id: server.name for server in fleet.servers}
        _add_gpus(fleet, server_names, out)
        _add_instances(fleet, server_names, out)
        # Without an answer about the window, no step depends on the time.
        _add_steps(fleet, answers.received_at(f.MAINTENANCE), out)
        # At the end, because after a failure above, no topic is known.
        _add_known_topics(fleet, out)
    except Exception:
        # A sum over miners would otherwise lack this miner in silence.
        for topic in TOPICS:
            out.add(KNOWN, 0, miners.hotkey, topic)
        raise


def _add_gpu_counts(
    metric: Metric, gpus: Iterable[Gpu], labels: tuple[str, ...], out: Samples
) -> None:
    by_model = by_field(gpus, "model")
    # A GPU of an unknown model may be of any model, so that no number is known.
    if None in by_model:
        return
    for model, of_model in sorted(by_model.items()):
        states = [gpu.state for gpu in of_model]
        out.add_counts(metric, states, GPU_STATES, *labels, model)


def _add_servers(fleet: Fleet, costs: Costs, out: Samples) -> None:
    for server in fleet.servers:
        # A label that is unknown would make other series when it becomes known.
        if server.name is None:
            continue
        labels = (fleet.hotkey, server.server_id, server.name)
        # A server without GPUs has no pay to tell, nor has one whose GPUs are not all known.
        if server.models:
            _add_gpu_counts(SERVER_GPUS, server.gpus, labels, out)
            out.add(SERVER_UNITS, server.earned_units_per_second, *labels)
        out.add(SERVER_INSTANCES, server.earning_instances, *labels)
        if server.tee:
            out.add(SERVER_UPGRADE, server.needs_upgrade, *labels)
            out.add(SERVER_BOOTS, server.boots, *labels)
            out.add_states(SERVER_MAINTENANCE, server.maintenance, MAINTENANCE_STATUSES, *labels)
        out.add_states(SERVER_STATE, server.state, SERVER_STATES, *labels)
        out.add(IDLE_COST, _idle_usd_per_day(server, costs), *labels)


def _idle_usd_per_day(server: Server, costs: Costs) -> float | None:
    if not server.gpus or server.unused_gpus is None:
        return None
    prices = {gpu.model: costs.of_gpu(server.name, gpu.model) for gpu in server.gpus}
    # Without the price of a used GPU, it is not said that the others cost nothing.
    if None in prices.values():
        return None
    unused = [gpu for gpu in server.gpus if gpu.state in ("idle", "unverified")]
    return product(DAY_HOURS, total(prices[gpu.model] for gpu in unused))


def _add_gpus(fleet: Fleet, server_names: ServerNames, out: Samples) -> None:
    for gpu in fleet.gpus:
        name = server_names.get(gpu.server_id)
        if None not in (gpu.model, gpu.index, name):
            place = (gpu.server_id, name, gpu.model, gpu.index)
            labels = (fleet.hotkey, gpu.gpu_id, gpu.nvidia_uuid, *place)
            out.add_states(GPU_STATE, gpu.state, GPU_STATES, *labels)


def _add_instances(fleet: Fleet, server_names: ServerNames, out: Samples) -> None:
    for instance in fleet.instances:
        labels = labels_of_instance(fleet, instance)
        if labels is None:
            continue
        out.add_states(INSTANCE_STATE, instance.state, INSTANCE_STATES, *labels)
        out.add(INSTANCE_UNITS, instance.units_per_second, *labels)
        out.add(INSTANCE_LATER_UNITS, instance.later_units_per_second, *labels)
        for kind in DEADLINES:
            out.add(DEADLINE, instance.deadlines.get(kind), *labels, kind)
        server_name = server_names.get(instance.server_id)
        # Without a name, its place is unknown.
        if server_name is not None:
            place = (instance.server_id, server_name, instance.model)
            out.add(INSTANCE_GPUS, instance.gpus, *labels, *place)


def _add_steps(fleet: Fleet, now: float, out: Samples) -> None:
    """Add the step of each server with TEE and a name, as far as it is known."""
    for upgrade in plan_upgrades(fleet, now).servers:
        server = upgrade.server
        if server.tee and server.name is not None:
            labels = (fleet.hotkey, server.server_id, server.name)
            step = None if upgrade.step == "not known" else upgrade.step
            out.add_states(SERVER_STEP, step, KNOWN_STEPS, *labels)
            out.add(SERVER_DONE, upgrade.done_at, *labels)


def _add_known_topics(fleet: Fleet, out: Samples) -> None:
    # A miner that is known to have no seat has no such series.
    if fleet.registered is False:
        return
    known = dict(fleet.known)
    if known["gpus"] and not fleet.gpus:
        # With the topic, a board's sum over miners would wait for the GPUs of this one.
        del known["gpus"]
    for topic in TOPICS:
        out.add(KNOWN, known.get(topic), fleet.hotkey, topic)


COLLECTOR = Collector(
    "fleet", "the miner's servers, GPUs and instances: states, places, pay and deadlines", (_PART,)
)
