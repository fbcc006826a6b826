"""What servers and fleets cost at the prices of a user."""

from __future__ import annotations

import pytest

from chutes_exporter.api.records import Node, Server, ServerGpu
from chutes_exporter.rules.money import Costs, fleet_cost


def server(name: str | None, *gpus: tuple[str, str | None]) -> Server:
    """Return a server with GPUs, each with its id and model."""
    listed = [ServerGpu(uuid, gpu_identifier=model) for uuid, model in gpus]
    return Server(f"id-{name}", name=name, gpus=listed)


def node(uuid: str, model: str | None, server_name: str) -> Node:
    """Return a GPU of the list of GPUs, which the API calls nodes."""
    return Node(uuid, gpu_identifier=model, server_id=f"id-{server_name}")


COSTS_OF_A = Costs({"h200": 2}, {"a": 1.5})
"""An h200 has a price, and so has any GPU of server "a"."""


@pytest.mark.parametrize(
    ("servers", "nodes", "expected"),
    [
        ([], [], 0),
        # Each GPU counts once, whichever answer lists it: 1.5 on "a", and 2 on "b".
        (
            [server("a", ("1", "h200")), server("b")],
            [node("1", "h200", "a"), node("2", "h200", "b")],
            3.5,
        ),
        # A server with a price of its own needs no model.
        ([server("a", ("1", None))], [], 1.5),
        ([server("a")], [node("1", None, "a")], 1.5),
        # Another one needs a model with a price.
        ([server("b", ("1", None))], [node("1", "h200", "b")], 2),
        ([server("b", ("1", None))], [], None),
        ([server("b", ("1", "4090"))], [], None),
        # The server without a name may be the one with a price.
        ([server(None, ("1", "h200"))], [], None),
    ],
)
def test_a_server_has_its_own_price_or_that_of_the_model(
    servers: list[Server], nodes: list[Node], expected: float | None
) -> None:
    assert fleet_cost(servers, nodes, COSTS_OF_A) == expected
