"""Prometheus exporter for the Chutes miner API."""

__version__ = "0.1.0"
