from __future__ import annotations

import pytest

from chutes_exporter.chain.node import Node
from chutes_exporter.duration import HOUR
from chutes_exporter.simulator import TROUBLES, DemoWorld, Fault, Simulator, Size, World, parse_fault
from chutes_exporter.simulator.app import GARBAGE
from chutes_exporter.simulator.chain import make_block, respond
from tests.support import HOTKEY, KEY, NOON, PATIENCE, Clock, get


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("scores=status:503", Fault(status=503)),
        ("scores=latency:0.5", Fault(latency=0.5)),
        ("scores=cut:10", Fault(cut_after=10)),
        ("scores=empty", Fault(body=b"")),
        ("scores=garbage", Fault(body=GARBAGE)),
        ("scores=records:25", Fault(records=25)),
        *((text, None) for text in ("", "scores", "scores=status:99", "scores=explode", "nothing=status:500")),
    ],
)
def test_faults_can_be_written_on_the_command_line(text: str, fault: Fault | None) -> None:
    if fault is not None:
        assert parse_fault(text) == ("scores", fault)
        return
    with pytest.raises(ValueError, match="for example scores=status:503"):
        parse_fault(text)


@pytest.mark.parametrize(
    ("troubles", "servers"),
    [((), 0), (["crash-loop"], 1), (["dead-server"], 1), (["upgrade"], 1), (["idle"], 2), (list(TROUBLES), 5)],
)
def test_all_gpus_of_the_demos_miner_earn_except_on_the_servers_in_trouble(troubles: list[str], servers: int) -> None:
    world = DemoWorld(start=NOON, troubles=troubles, size=Size(active_miners=8, chutes=150, other_servers=3))
    for now in (NOON, NOON + 2 * HOUR - 1):
        active = {gpu for one in world.instances(now, HOTKEY) if one.active(now) for gpu in one.gpus}
        assert sum(not active.issuperset(server.gpus) for server in world.miners[0].servers) == servers
    assert (HOTKEY in world.shares(NOON)) == ("blacklisted" not in troubles)


async def test_a_signature_for_another_purpose_is_refused(simulator: Simulator) -> None:
    response = await get(f"{simulator.url}/miner/inventory", **KEY.headers(int(NOON), "tee"))
    assert response.status_code == 401
    assert response.json()["detail"].startswith(f"Invalid request signature for hotkey {HOTKEY}")


@pytest.mark.parametrize("troubles", [(), ("blacklisted",)])
async def test_registrations_take_the_seats_that_the_chain_names_first(troubles: tuple[str, ...]) -> None:
    world, clock = DemoWorld(start=NOON, troubles=troubles, size=Size(miners=48, active_miners=20, chutes=60)), Clock()
    before = list[int | None]()
    async with Simulator(world, clock=clock) as simulator:
        node = Node(simulator.chain_url, timeout=PATIENCE, clock=clock)
        for registration in range(4):
            at = NOON + (0.75 + registration) * 2 * HOUR * 256 / 48
            clock.now = at - 12
            outlooks = (await node.read()).value.seats
            before.append(outlooks[0].registrations_before_loss)
            (first,) = (one.hotkey for one in outlooks if one.registrations_before_loss == 0)
            seats = set(world.by_hotkey)
            world.grow(at)
            assert seats - set(world.by_hotkey) == {first}
            assert len(world.by_hotkey) == len(seats)
        await node.aclose()
    # A miner without a score comes closer to the loss of its seat.
    places = [place for place in before if place is not None]
    assert places == [3, 2, 1, 0] if troubles else min(places, default=30) >= 30


@pytest.mark.parametrize(("method", "params"), [("chain_getHeader", []), ("state_getRuntimeVersion", ["0x00"])])
def test_a_node_refuses_other_methods_and_blocks_that_it_does_not_know(method: str, params: list[str]) -> None:
    head = make_block(World(start=NOON), NOON)
    reply = respond({"id": 1, "method": method, "params": params}, head, {head.hash: head})
    assert reply["error"]["code"] == -32601
