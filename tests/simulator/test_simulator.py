from __future__ import annotations

import pytest

from chutes_exporter.chain.node import Node
from chutes_exporter.demo.chain import respond
from chutes_exporter.demo.replay import GARBAGE
from chutes_exporter.duration import HOUR
from chutes_exporter.simulator import (
    DemoWorld,
    Fault,
    Simulator,
    Size,
    World,
    parse_fault,
)
from chutes_exporter.simulator.chain import make_block
from tests.support import HOTKEY, KEY, NOON, PATIENCE, Clock, get


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("status:503", Fault(status=503)),
        ("latency:0.5", Fault(latency=0.5)),
        ("cut:10", Fault(cut_after=10)),
        ("empty", Fault(body=b"")),
        ("garbage", Fault(body=GARBAGE)),
        ("records:25", Fault(records=25)),
    ],
)
def test_faults_can_be_written_on_the_command_line(text: str, fault: Fault) -> None:
    assert parse_fault(f"scores={text}") == ("scores", fault)


@pytest.mark.parametrize(
    "text", ["", "scores", "scores=status:99", "scores=explode", "nothing=status:500"]
)
def test_an_invalid_fault_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="for example scores=status:503"):
        parse_fault(text)


@pytest.mark.parametrize(
    ("troubles", "servers"),
    [
        ((), 0),
        (["crash-loop"], 1),
        (["dead-server"], 1),
        # The other one of its two servers still runs, with an old version.
        (["upgrade"], 1),
        (["idle"], 2),
        # One of each, and the two of "idle".
        (["crash-loop", "dead-server", "blacklisted", "upgrade", "idle"], 5),
    ],
)
def test_all_gpus_of_the_demos_miner_earn_except_on_the_servers_in_trouble(
    troubles: list[str], servers: int
) -> None:
    world = DemoWorld(
        start=NOON, troubles=troubles, size=Size(active_miners=8, chutes=150, other_servers=3)
    )
    # The instances on the other servers stay for at least 2 hours.
    for now in (NOON, NOON + 2 * HOUR - 1):
        earning = set()
        for instance in world.instances(now, HOTKEY):
            if instance.active(now):
                earning |= set(instance.gpus)
        in_trouble = [
            server for server in world.miners[0].servers if not earning.issuperset(server.gpus)
        ]
        assert len(in_trouble) == servers


@pytest.mark.parametrize(
    ("troubles", "has_score"),
    [
        ((), True),
        (["crash-loop", "dead-server", "upgrade", "idle"], True),
        (["blacklisted"], False),
    ],
    ids=["no", "others", "blacklisted"],
)
def test_the_demos_miner_has_a_score_unless_it_is_blacklisted(
    troubles: list[str],
    has_score: bool,  # noqa: FBT001 - a parameter
) -> None:
    size = Size(miners=16, active_miners=8, chutes=150, other_servers=3)
    world = DemoWorld(start=NOON, troubles=troubles, size=size)
    assert (HOTKEY in world.shares(NOON)) == has_score


async def test_a_signature_for_another_purpose_is_refused(simulator: Simulator) -> None:
    response = await get(f"{simulator.url}/miner/inventory", **KEY.headers(int(NOON), "tee"))
    assert response.status_code == 401
    assert response.json()["detail"].startswith(f"Invalid request signature for hotkey {HOTKEY}")


async def test_registrations_take_the_seats_that_the_chain_names_first() -> None:
    size = Size(miners=48, active_miners=20, chutes=60)
    world = DemoWorld(start=NOON, troubles=["blacklisted"], size=size)
    clock = Clock()
    # In 512 hours, as many miners register as there are seats. The first one comes after three
    # quarters of the time between two.
    period = 512 * HOUR / 48
    registrations_before_loss = []
    async with (
        Simulator(world, clock=clock) as api,
        Node(api.chain_url, timeout=PATIENCE, clock=clock) as node,
    ):
        for registration in range(4):
            registered_at = NOON + (0.75 + registration) * period
            # A block before the registration.
            clock.now = registered_at - 12
            seats = (await node.read()).value.seats
            # The first seat is that of the blacklisted miner.
            registrations_before_loss.append(seats[0].registrations_before_loss)
            (first,) = (seat.hotkey for seat in seats if seat.registrations_before_loss == 0)
            hotkeys_before = set(world.by_hotkey)
            world.grow(registered_at)
            assert hotkeys_before - set(world.by_hotkey) == {first}
            assert len(world.by_hotkey) == len(hotkeys_before)
    # A miner without a score comes closer to the loss of its seat.
    assert registrations_before_loss == [3, 2, 1, 0]


def test_a_node_refuses_blocks_that_it_does_not_know() -> None:
    # The node knows only its head, and not the block 0x00.
    world = World(start=NOON)
    head = make_block(NOON, world.seats(NOON), NOON)
    reply = respond(
        {"id": 1, "method": "state_getRuntimeVersion", "params": ["0x00"]}, head, {head.hash: head}
    )
    assert reply["error"]["code"] == -32601
