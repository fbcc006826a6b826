"""A simulated Chutes API in this process: a world that changes over time, all endpoints, real
signature checks.
"""

from chutes_exporter.demo.replay import Fault, parse_fault
from chutes_exporter.simulator.app import Simulator
from chutes_exporter.simulator.demo import DEFAULT_TROUBLES, TROUBLES, DemoWorld
from chutes_exporter.simulator.world import Size, World

__all__ = [
    "DEFAULT_TROUBLES",
    "TROUBLES",
    "DemoWorld",
    "Fault",
    "Simulator",
    "Size",
    "World",
    "parse_fault",
]
