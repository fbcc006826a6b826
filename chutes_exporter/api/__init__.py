"""A typed client for the Chutes miner API, usable on its own.

async with ChutesClient() as client:
    answer = await client.fetch(METAGRAPH)
"""

from chutes_exporter.api.answer import Answer
from chutes_exporter.api.client import ChutesClient, ClientSetupError
from chutes_exporter.api.endpoints import ENDPOINTS, Endpoint
from chutes_exporter.api.errors import ApiError
from chutes_exporter.api.keys import Hotkey, HotkeyError

__all__ = [
    "ENDPOINTS",
    "Answer",
    "ApiError",
    "ChutesClient",
    "ClientSetupError",
    "Endpoint",
    "Hotkey",
    "HotkeyError",
]
