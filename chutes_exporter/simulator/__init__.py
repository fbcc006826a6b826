"""A simulated Chutes API in this process: a world that changes over time, all endpoints, real signature checks."""

from __future__ import annotations

from chutes_exporter.simulator.app import ReceivedRequest, Simulator
from chutes_exporter.simulator.demo import DEFAULT_TROUBLES, TROUBLES, DemoWorld
from chutes_exporter.simulator.faults import Fault, parse_fault
from chutes_exporter.simulator.world import Size, World

__all__ = [
    "DEFAULT_TROUBLES",
    "TROUBLES",
    "DemoWorld",
    "Fault",
    "ReceivedRequest",
    "Simulator",
    "Size",
    "World",
    "parse_fault",
]
