"""A typed client for the Chutes miner API.

async with ChutesClient() as client:
    answer = await client.fetch(METAGRAPH)
"""

from chutes_exporter.api.answer import Answer
from chutes_exporter.api.client import ChutesClient, ClientSetupError
from chutes_exporter.api.errors import ApiError
from chutes_exporter.api.keys import Hotkey, HotkeyError

__all__ = [
    "Answer",
    "ApiError",
    "ChutesClient",
    "ClientSetupError",
    "Hotkey",
    "HotkeyError",
]
