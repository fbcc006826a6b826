"""The command ``status --maintenance``, against a simulated API."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.simulator import Fault, Simulator
from chutes_exporter.simulator.answers import Call, maintenance
from tests.commands.support import MINE, run
from tests.simulator.farm import PRIVATE, Farm, Machine
from tests.support import HOTKEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOUR = 3600


class Fleet(Farm):
    """Three servers that are older than the target: on the first, all GPUs earn, two are idle on
    the second, and the third has the last instance of a chute.
    """

    def __init__(self) -> None:
        machines = (Machine("l40s", 4), Machine("h200", 4, idle=2), Machine("pro_6000", 1))
        super().__init__(time.time(), [machines])
        self.window = (self.start - HOUR, self.start + 11 * HOUR)
        self.change("l40s-0", version="1.3.1")
        self.change("h200-1", version="1.3.1")
        self.change("pro-6000-2", version="1.3.0")

    def change(self, name: str, **values: Any) -> None:
        """Give the server with a name other values."""
        servers = []
        for server in self.miners[0].servers:
            if server.name == name:
                servers.append(replace(server, **values))
            else:
                servers.append(server)
        self.miners[0].servers = tuple(servers)

    def hold_slot(self, name: str, *, pending_for: float = 0) -> None:
        """Give a server an upgrade slot since an hour ago.

        From then on, its maintenance is pending for so many seconds.
        """
        times = self.start - HOUR, self.start + 9 * HOUR
        self.change(name, upgrade=times, pending_for=pending_for)


class Unmeasured(Fleet):
    """The same, but the target is listed for no host with 4 l40s."""

    unmeasured_hosts = frozenset({(Fleet.target_version, "l40s", 4)})


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
async def api(fleet: Fleet) -> AsyncIterator[Simulator]:
    async with Simulator(fleet, clock=time.time) as simulator:
        yield simulator


async def texts(simulator: Simulator, **variables: str) -> tuple[int, str]:
    """Return the status and the text, with single spaces."""
    code, output, errors = await run(
        simulator, "status", "--maintenance", variables=MINE | variables
    )
    assert errors == ""
    # A reboot ends what still earns, so each sentence that speaks of a reboot must warn of it.
    warning = re.compile(r"not reboot|by reboot now|A reboot now would lose|Reboot no")
    for sentence in re.findall(r"[^.]*\breboot\b[^.]*", output, re.IGNORECASE):
        words = " ".join(sentence.split())
        assert warning.search(words), words
    return code, " ".join(output.split())


async def summary(simulator: Simulator) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return the status, the upgrades of the miner, and all of the JSON."""
    code, output, _ = await run(simulator, "status", "--maintenance", "--json", variables=MINE)
    found = json.loads(output)
    (miner,) = found["miners"]
    assert miner["hotkey"] == HOTKEY
    return code, miner["upgrades"], found


def order(upgrades: dict[str, Any]) -> list[str]:
    return [server["name"] for server in upgrades["order"]]


async def test_in_an_open_window_the_servers_have_an_order_and_times(
    api: Simulator, fleet: Fleet
) -> None:
    code, upgrades, found = await summary(api)
    assert (code, found["all_known"], upgrades["window"]) == (1, True, "open")
    # Servers with few last instances of their chutes come first, and then those with idle GPUs.
    assert order(upgrades) == ["h200-1", "l40s-0", "pro-6000-2"]
    assert [one["last_instances"] for one in upgrades["order"]] == [0, 0, 1]
    assert [one["idle_gpus"] for one in upgrades["order"]] == [2, 0, 0]
    assert [one["earning_instances"] for one in upgrades["order"]] == [2, 4, 1]
    # Upgrades of 4 hours follow each other in the only slot. The window ends in 11 hours.
    hours = [(one["done_at"] - fleet.start) / HOUR for one in upgrades["order"]]
    assert hours == pytest.approx([4, 8, 12], abs=0.1)
    assert [one["is_late"] for one in upgrades["order"]] == [False, False, True]
    assert (upgrades["free_slots"], upgrades["late"]) == (1, 1)
    assert upgrades["last_done_at"] == upgrades["order"][-1]["done_at"]
    # Public instances that are older than an hour keep their score.
    assert {one["lost_compute_units_now"] for one in upgrades["order"]} == {0}
    code, text = await texts(api)
    assert code == 1
    assert "A maintenance window is open, and ends in 11 hours (" in text
    assert "Target version: 1.4.0. Upgrade slots: 0 used, 1 free." in text
    assert re.search(r" 1 h200-1 0 2 .* 2 l40s-0 0 0 .* 3 pro-6000-2 1 0 ", text)
    assert "Next: request the maintenance of h200-1." in text
    assert "1 server will not make it: ask the operators of Chutes for more time." in text
    assert "Instances that earn there now: 1." in text


async def test_a_private_instance_loses_its_score_now_and_not_after_maintenance(
    api: Simulator, fleet: Fleet
) -> None:
    miner = fleet.miners[0]
    # The last two GPUs of h200-1 are idle.
    (gpu, *_) = miner.servers[1].gpus[2:]
    fleet.launch(miner, (gpu,), PRIVATE, fleet.start - 2 * HOUR)
    (private,) = (one for one in fleet.on(miner, 1, fleet.start) if not one.chute.public)
    _, upgrades, _ = await summary(api)
    row = next(one for one in upgrades["order"] if one["name"] == "h200-1")
    lost = 2 * HOUR * private.multiplier(fleet.start)
    assert row["lost_compute_units_now"] == pytest.approx(lost, rel=0.01)
    assert row["lost_compute_units_after_maintenance"] == 0
    units = sum(one.multiplier(fleet.start) for one in fleet.on(miner, 1, fleet.start))
    assert row["compute_units_per_second"] == pytest.approx(units, rel=0.01)
    # It is the last one of its chute, so that its server comes later.
    assert order(upgrades)[0] == "l40s-0"


async def test_a_pending_server_shows_its_deadline_and_what_it_waits_for(
    api: Simulator, fleet: Fleet
) -> None:
    fleet.hold_slot("h200-1", pending_for=3 * HOUR)
    code, upgrades, found = await summary(api)
    assert (code, upgrades["free_slots"], upgrades["used_slots"]) == (1, 0, 1)
    assert order(upgrades) == ["l40s-0", "pro-6000-2"]
    # The slot is used by the pending one, for up to 4 hours.
    assert upgrades["late"] == 1
    (server,) = found["miners"][0]["maintenance"]
    assert server["until"] == pytest.approx(fleet.start + 2 * HOUR, abs=1)
    assert {one["chute_name"] for one in server["waits_for"]} == {"h200-model"}
    code, text = await texts(api)
    assert "h200-1: pending, until 2 instances have a replacement (chutes h200-model)" in text
    assert ", at the latest in 2 hours (" in text
    assert (
        "No slot is free. When a server in a slot is done, request the maintenance of l40s-0."
    ) in text
    assert "→ Do not reboot it before the status is maintenance and nothing runs there." in text


async def test_where_no_server_can_come_back_there_is_no_order() -> None:
    fleet = Unmeasured()
    for name in ("h200-1", "pro-6000-2"):
        fleet.change(name, version=Fleet.target_version)
    async with Simulator(fleet, clock=time.time) as api:
        _, text = await texts(api)
    assert "l40s-0" in text
    assert "Upgrade in this order" not in text


async def test_a_server_that_cannot_come_back_is_not_to_be_upgraded() -> None:
    fleet = Unmeasured()
    async with Simulator(fleet, clock=time.time) as api:
        code, upgrades, found = await summary(api)
        assert (code, order(upgrades)) == (1, ["h200-1", "pro-6000-2"])
        assert [one["name"] for one in upgrades["cannot_come_back"]] == ["l40s-0"]
        assert upgrades["late"] == 0
        kinds = {one["kind"]: one["servers"] for one in found["findings"]}
        assert [one["name"] for one in kinds["unmeasured_servers"]] == ["l40s-0"]
        # The version of pro-6000-2 is refused at a boot, which is another finding.
        assert [one["name"] for one in kinds["upgrades"]] == ["h200-1"]
        code, text = await texts(api)
        assert "with its GPUs: l40s-0 (4 l40s). Do not reboot it, and do not request" in text
        assert "All will make it." in text
        # The command without the flag says it, too.
        code, output, _ = await run(api, "status", variables=MINE)
        status = " ".join(output.split())
        assert "1 TEE server cannot come back from the upgrade: the service lists version" in status
        # In maintenance, when its instances have ended, nobody is told to boot it with the target
        # version.
        fleet.end(fleet.on(fleet.miners[0], 0, fleet.start), fleet.start - HOUR)
        fleet.hold_slot("l40s-0")
        code, text = await texts(api)
        assert "l40s-0: maintenance." in text
        assert "with the target version" not in text
        assert "→ Do not reboot it, do not request its maintenance, and ask" in text


async def test_an_announced_window_has_an_order_and_needs_no_action_yet(fleet: Fleet) -> None:
    fleet.window = (fleet.start + 5 * HOUR, fleet.start + 20 * HOUR)
    # With version 1.3.0, its boots would be refused, which needs action.
    fleet.change("pro-6000-2", version="1.3.1")
    async with Simulator(fleet, clock=time.time) as api:
        code, upgrades, _ = await summary(api)
        assert (code, upgrades["window"], upgrades["late"]) == (0, "announced", 0)
        done = upgrades["order"][0]["done_at"]
        assert done == pytest.approx(fleet.window[0] + 4 * HOUR, abs=1)
        code, text = await texts(api)
    assert code == 0
    assert text.startswith(f"No maintenance needs action. {HOTKEY}")
    assert "A maintenance window opens in 5 hours (" in text
    assert "When the window opens, request the maintenance of h200-1 first." in text


async def test_without_a_window_there_is_nothing_to_plan(fleet: Fleet) -> None:
    fleet.window = (fleet.start - 20 * HOUR, fleet.start - 5 * HOUR)
    # With version 1.3.0, its boots would be refused, which needs action.
    fleet.change("pro-6000-2", version="1.3.1")
    async with Simulator(fleet, clock=time.time) as api:
        code, upgrades, _ = await summary(api)
        assert (code, upgrades["window"], upgrades["order"]) == (0, "over", None)
        code, text = await texts(api)
        assert "No maintenance window is open or announced. The last one ended 20" in text
        body = b'{"active_window": null, "window_open": false, "current_slots": 0, "servers": []}'
        api.faults["maintenance"] = Fault(body=body)
        code, upgrades, _ = await summary(api)
        assert (code, upgrades["window"]) == (0, "none")
        _, text = await texts(api)
    assert text.endswith("No maintenance window is open or announced.")


async def test_if_all_servers_have_the_target_version_none_waits(fleet: Fleet) -> None:
    for name in ("l40s-0", "h200-1", "pro-6000-2"):
        fleet.change(name, version="1.4.0")
    async with Simulator(fleet, clock=time.time) as api:
        code, upgrades, _ = await summary(api)
        assert (code, upgrades["waiting"], upgrades["late"]) == (0, [], 0)
        _, text = await texts(api)
    assert text.startswith("No maintenance needs action. ")
    assert text.endswith("No server waits for its upgrade.")


UNKNOWN = {
    "maintenance": "Whether a maintenance window is open or announced is not known.",
    "servers": "Which servers wait for their upgrade is not known.",
    "nodes": "Which of them can come back with the target version is not known.",
    "tee_measurements": "Which of them can come back with the target version is not known.",
    "instances": "In which order to upgrade these is not known: ",
    "inventory": "In which order to upgrade these is not known: ",
    "active_instances": "In which order to upgrade these is not known: ",
}
"""What the screen says without each answer."""


async def test_a_server_that_cannot_come_back_has_no_place_in_an_order_that_is_not_known() -> None:
    world = Unmeasured()
    async with Simulator(world, clock=time.time) as simulator:
        simulator.faults["active_instances"] = Fault(status=503)
        _, text = await texts(simulator)
    assert "In which order to upgrade these is not known: h200-1, pro-6000-2." in text


@pytest.mark.parametrize(("feed", "words"), UNKNOWN.items())
@pytest.mark.parametrize("announced", [True, False])
async def test_what_is_not_known_is_said_and_is_never_fine(
    api: Simulator,
    fleet: Fleet,
    feed: str,
    words: str,
    announced: bool,  # noqa: FBT001 - a parameter
) -> None:
    # With version 1.3.0, its boots would be refused, which needs action.
    fleet.change("pro-6000-2", version="1.3.1")
    if announced:
        fleet.window = (fleet.start + 5 * HOUR, fleet.start + 20 * HOUR)
    _, before, _ = await summary(api)
    api.faults[feed] = Fault(status=503)
    code, upgrades, found = await summary(api)
    # Without one of these answers, only the order is unknown, and without two others, which servers
    # can come back. So an open window still needs action.
    only_order = feed in ("instances", "inventory", "active_instances")
    needs_action = only_order or feed in ("nodes", "tee_measurements")
    assert code == (1 if needs_action and not announced else 3)
    assert upgrades["order"] is None
    assert "upgrades" in {gap["feed"] for gap in found["not_known"]}
    assert upgrades["late"] == (before["late"] if only_order else None)
    _, text = await texts(api)
    assert words in text
    for fine in ("All will make it", "request the maintenance of", "No maintenance needs action"):
        assert fine not in text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("active_window.max_concurrent_per_miner", "How many slots are free is not known."),
        ("current_slots", "How many slots are free is not known."),
        ("active_window.upgrade_window_end", "and ends at an unknown time."),
        ("active_window.target_measurement_version", "Target version: not known."),
        ("window_open", "Whether a maintenance window is open or announced is not known."),
    ],
)
async def test_a_field_of_the_window_that_is_not_known_is_said(
    api: Simulator, fleet: Fleet, path: str, words: str
) -> None:
    # The answer of the API to the miner, with null in the field.
    policy = maintenance(Call(fleet, time.time(), fleet.miners[0], {}, {}))
    *parents, field = path.split(".")
    record = policy
    for parent in parents:
        record = record[parent]
    record[field] = None
    api.faults["maintenance"] = Fault(body=json.dumps(policy).encode())
    _, upgrades, found = await summary(api)
    assert "upgrades" in {gap["feed"] for gap in found["not_known"]}
    assert upgrades["late"] is None
    _, text = await texts(api)
    assert words in text
    assert "All will make it" not in text


async def test_a_target_that_is_listed_for_no_host_is_no_reason_to_upgrade(
    api: Simulator, fleet: Fleet
) -> None:
    # With version 1.3.0, its boots would be refused, which needs action.
    fleet.change("pro-6000-2", version="1.3.1")
    # The target version, 1.4.0, is not in the list.
    listed = [{"version": "1.3.1", "expected_gpus": ["h200"], "gpu_count": 4}]
    api.faults["tee_measurements"] = Fault(body=json.dumps(listed).encode())
    code, upgrades, found = await summary(api)
    assert (code, order(upgrades)) == (1, ["h200-1", "l40s-0", "pro-6000-2"])
    assert {one["measured"] for one in upgrades["order"]} == {"undecided"}
    kinds = {one["kind"] for one in found["findings"] if one["needs_action"]}
    assert kinds == {"undecided_upgrades"}
    _, text = await texts(api)
    assert "Whether h200-1 can come back is not known. Do not request its maintenance" in text


async def test_without_a_key_nothing_about_maintenance_is_known(api: Simulator) -> None:
    code, output, _ = await run(api, "status", "--maintenance", "--hotkey", HOTKEY, variables={})
    assert code == 3
    assert "Whether a maintenance window is open or announced is not known." in output


async def test_without_any_answer_nothing_is_known(fleet: Fleet) -> None:
    async with Simulator(fleet, clock=time.time) as gone:
        pass
    code, text = await texts(gone)
    assert code == 3
    assert text.startswith("Nothing is known, because no request succeeded.")


async def test_the_screen_fits_80_columns(api: Simulator) -> None:
    _, output, _ = await run(api, "status", "--maintenance", variables=MINE | {"COLUMNS": "80"})
    assert all(len(line) <= 80 for line in output.splitlines())
    # This heading is too long for a narrow column. If it stands on one line, it is in the sentence
    # that names the columns that are not shown.
    assert "units lost by reboot now" not in output or "Not shown" in output
